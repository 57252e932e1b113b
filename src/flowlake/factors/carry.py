"""What it costs to carry the underlying to expiry: the rate, known dividends, and the forward they give.

Discounting is continuous, time is actual/365. Only ordinary cash dividends count: for a special one the exchange changes the
contract instead.
"""

from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl

from flowlake.core.arrays import Float
from flowlake.datasets.absent import present
from flowlake.datasets.model import Inputs

DAYS_PER_YEAR = 365.0


def rate_at(years: Float, inputs: Inputs) -> tuple[Float, str]:
    """Continuous rate for each time to expiry, and its source: `rates`, linear in days and flat outside, or `none`, then 0."""
    rates = present(inputs, "rates")
    if rates is None:
        return np.zeros_like(years), "none"
    curve = rates.sort("tenor_days")
    days = np.maximum(years, 0.0) * DAYS_PER_YEAR
    return np.interp(days, curve["tenor_days"].to_numpy(), curve["rate"].to_numpy()), "rates"


def cash_dividends(inputs: Inputs, session: date) -> pl.DataFrame:
    """`underlying`, `ex_date`, `cash_amount_usd`: ordinary dividends that were known and go ex after the session."""
    actions = present(inputs, "corporate_actions")
    if actions is None:
        return pl.DataFrame(schema={"underlying": pl.String(), "ex_date": pl.Date(), "cash_amount_usd": pl.Float64()})
    ahead = (pl.col("kind") == "cash_dividend") & (pl.col("ex_date") > session) & pl.col("cash_amount_usd").is_not_null()
    return actions.filter(ahead).select("underlying", "ex_date", pl.col("cash_amount_usd").cast(pl.Float64))


def dividend_values(contracts: pl.DataFrame, inputs: Inputs, session: date) -> pl.DataFrame:
    """`underlying`, `expiry`, `dividends`: present value in USD per share of ordinary dividends.

    Those with an ex-date after the session and up to the expiry count.

    A pair without such a dividend has no row.
    """
    dividends = cash_dividends(inputs, session)
    if dividends.is_empty():
        return pl.DataFrame(schema={"underlying": pl.String(), "expiry": pl.Date(), "dividends": pl.Float64()})
    years = (dividends["ex_date"] - session).dt.total_days().to_numpy() / DAYS_PER_YEAR
    rate, _ = rate_at(years, inputs)
    valued = dividends.with_columns((pl.col("cash_amount_usd") * pl.Series(np.exp(-rate * years))).alias("dividends"))
    return (
        contracts.select("underlying", "expiry")
        .unique()
        .join(valued, on="underlying")
        .filter(pl.col("ex_date") <= pl.col("expiry"))
        .sort("underlying", "expiry", "ex_date", "dividends")
        .group_by("underlying", "expiry", maintain_order=True)
        .agg(pl.col("dividends").sum())
    )
