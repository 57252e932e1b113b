"""Implied volatilities of real chains against those that their vendors computed."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from flowlake.core.arrays import Float
from flowlake.quant import american, european

EX_DATES = (date(2014, 8, 7), date(2014, 11, 6), date(2015, 2, 5), date(2015, 5, 7), date(2015, 8, 6), date(2015, 11, 5))
"""Of Apple, 0.47 USD a share in 2014. Later ones were not announced in August 2014; the same amount and rhythm is assumed."""
CASH = 0.47


def columns(frame: pl.DataFrame, *names: str) -> list[Float]:
    return [frame[name].cast(pl.Float64).to_numpy() for name in names]


@pytest.mark.parametrize("kind", ["call", "put"])
def test_spy_under_its_vendors_convention(real_data: Path, kind: str) -> None:
    """The vendor takes neither interest nor dividends, and European exercise.

    One contract is off by a quarter of a point in the median, either way: the moment of the vendor's spot is not stated.
    """
    chain = pl.read_csv(
        real_data / "lambdaclass_spy_2021" / "prod_options_1y.csv.gz", infer_schema_length=None, try_parse_dates=True
    )
    chain = chain.filter(pl.col("type") == kind).with_columns(
        years=(pl.col("expiration") - pl.col("quotedate")).dt.total_days() / 365, mid=(pl.col("bid") + pl.col("ask")) / 2
    )
    mid, spot, strike, years, theirs = columns(chain, "mid", "underlying_last", "strike", "years", "impliedvol")
    ours = european.implied_vol(mid, spot, strike, years, 1 if kind == "call" else -1)
    assert chain.height == 2_520
    assert np.isfinite(ours).mean() > 0.999
    difference = (ours - theirs)[np.isfinite(ours)]
    assert abs(np.median(difference)) < 5e-4
    assert np.median(np.abs(difference)) < 3e-3


@pytest.mark.parametrize("kind", ["C", "P"])
def test_apple_with_early_exercise_and_dividends(real_data: Path, kind: str) -> None:
    """Two weeks to 400 days, quotes that are not interpolated and no wider than 15 % of their middle.

    The vendor does not state its rate: 0.25 % is what dollars cost for a year in August 2014. At 0 and at 0.5 % calls and puts move
    apart by 0.3 points and more.
    """
    path = real_data / "optionsuite_ivolatility" / "aapl_sample_ivolatility.csv"
    chain = pl.read_csv(path, infer_schema_length=None).filter(pl.col("isinterpolated").is_null() & (pl.col("call/put") == kind))
    chain = chain.with_columns(
        day=pl.col("date").str.to_date("%m/%d/%Y"), expiry=pl.col("option_expiration").str.to_date("%m/%d/%Y")
    ).with_columns(days=(pl.col("expiry") - pl.col("day")).dt.total_days(), mid=(pl.col("bid") + pl.col("ask")) / 2)
    chain = chain.filter(pl.col("days").is_between(14, 400) & (pl.col("ask") - pl.col("bid") < 0.15 * pl.col("mid")))
    times = np.array([[(ex - day).days / 365 for ex in EX_DATES] for day in chain["day"]])
    mid, spot, strike, days, theirs = columns(chain, "mid", "stock_price_for_iv", "strike", "days", "iv")
    right = 1 if kind == "C" else -1
    ours = american.implied_vol(mid, spot, strike, days / 365, right, 0.0025, 0.0, times, np.full(times.shape, CASH))
    assert chain.height > 850
    assert np.isfinite(ours).mean() > 0.98
    difference = (ours - theirs)[np.isfinite(ours)]
    assert abs(np.median(difference)) < 1e-3
    assert np.median(np.abs(difference)) < 2e-3
    assert np.percentile(np.abs(difference), 95) < 0.01
