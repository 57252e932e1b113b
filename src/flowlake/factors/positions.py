"""Open interest of an underlying at the session's open and close, and the gamma that it puts on dealers."""

from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl

from flowlake.core import sessions
from flowlake.datasets.model import Inputs
from flowlake.factors.prices import present
from flowlake.factors.smiles import Smile
from flowlake.quant import european, exposure

MIN_COVERAGE = 0.5
"""Share of open interest whose expiries must have a smile."""

_POSITION = {
    "contract": pl.String(),
    "underlying": pl.String(),
    "root": pl.String(),
    "expiry": pl.Date(),
    "right": pl.String(),
    "strike": pl.Float64(),
    "which": pl.String(),
    "open_interest": pl.Int64(),
}


def open_positions(inputs: Inputs, session: date) -> pl.DataFrame:
    """Open interest of contracts that outlive the session: contract fields, `which` (`close`, `open`), `open_interest`.

    `close` holds at the session's close, `open` at the close of the session before. Where several sources report an underlying's
    open interest, the one with the most contracts counts (of equals, the first by name), so that sources are never added up.
    """
    reported = present(inputs, "open_interest")
    if reported is None:
        return pl.DataFrame(schema=_POSITION)
    which = (
        pl.when(pl.col("oi_session") == session)
        .then(pl.lit("close"))
        .when(pl.col("oi_session") == sessions.previous_session(session))
        .then(pl.lit("open"))
    )
    open_after = (
        reported.with_columns(which.alias("which"))
        .filter(pl.col("which").is_not_null() & (pl.col("expiry") > session))
        # The same figure can reach two partitions; the later one is nearer to the truth.
        .sort("underlying", "which", "source", "contract", "session", descending=[False, False, False, False, True])
        .unique(["which", "source", "contract"], keep="first", maintain_order=True)
    )
    source = (
        open_after.group_by("underlying", "which", "source")
        .len("reports")
        .sort("underlying", "which", "reports", "source", descending=[False, False, True, False])
        .unique(["underlying", "which"], keep="first", maintain_order=True)
    )
    return (
        open_after.join(source, on=["underlying", "which", "source"])
        .rename({"open_interest_close": "open_interest"})
        .select(_POSITION.keys())
        .sort("which", "contract")
    )


def open_interest_totals(positions: pl.DataFrame) -> pl.DataFrame:
    """`underlying`, `open_interest_close`, `open_interest_open`; null where it was not reported."""
    return positions.group_by("underlying").agg(
        pl.when((pl.col("which") == which).any())
        .then(pl.col("open_interest").filter(pl.col("which") == which).sum())
        .alias(f"open_interest_{which}")
        for which in ("close", "open")
    )


def gamma_factors(
    positions: pl.DataFrame, spots: pl.DataFrame, contracts: pl.DataFrame, implied: pl.DataFrame, smiles: list[Smile]
) -> pl.DataFrame:
    """`underlying`, `gamma_exposure_usd`, `gamma_exposure_oi`: one row per underlying with open interest and enough of it covered.

    `spots` has `spot_close`. Every contract is valued at the close: with its own volatility, else its expiry's smile.
    """
    has_close = (pl.col("which") == "close").any().over("underlying")
    chosen = positions.filter((pl.col("which") == "close") | ~has_close)
    terms = contracts.group_by("root", "expiry").agg(
        pl.col("expires_utc").max(), pl.col("multiplier").max(), pl.col("is_adjusted").any()
    )
    own = implied.filter(pl.col("quality") == "ok").select("contract", "iv")
    rows = (
        chosen.join(terms, on=["root", "expiry"], how="left")
        .join(spots.select("underlying", "spot_close"), on="underlying", how="left")
        .join(own, on="contract", how="left")
        .sort("contract")
    )
    by_expiry = {(smile.underlying, smile.expires_utc): smile for smile in smiles}
    valued = [
        _valued(group, by_expiry.get((underlying, expires)))
        for (underlying, expires), group in rows.group_by("underlying", "expires_utc", maintain_order=True)
    ]
    schema = {"underlying": pl.String(), "gamma_exposure_usd": pl.Float64(), "gamma_exposure_oi": pl.String()}
    if not valued:
        return pl.DataFrame(schema=schema)
    total = pl.concat(valued).sort("underlying", "contract")
    covered = pl.col("open_interest").filter(pl.col("exposure").is_not_null()).sum()
    enough = (covered >= MIN_COVERAGE * pl.col("open_interest").sum()) & (covered > 0)
    return (
        total.group_by("underlying", maintain_order=True)
        .agg(
            pl.when(enough).then(pl.col("exposure").sum()).alias("gamma_exposure_usd"),
            pl.when(enough).then(pl.col("which").first()).alias("gamma_exposure_oi"),
        )
        .select(schema.keys())
    )


def _valued(rows: pl.DataFrame, smile: Smile | None) -> pl.DataFrame:
    """Adds `exposure`, null without a smile or spot, to the positions of one expiry."""
    kept = rows.select("contract", "underlying", "which", "open_interest")
    spot = rows["spot_close"][0]
    if smile is None or spot is None:
        return kept.with_columns(pl.lit(None, dtype=pl.Float64()).alias("exposure"))
    strike = rows["strike"].to_numpy()
    right = np.where((rows["right"] == "C").to_numpy(), 1.0, -1.0)
    iv = rows["iv"].fill_null(np.nan).to_numpy()
    vol = np.where(np.isnan(iv), smile.vol_at(np.log(strike / (spot * smile.carry))), iv)
    # A rate that carries the spot to the smile's forward: gamma needs no more than that.
    rate = np.log(smile.carry) / smile.years
    gamma = european.greeks(spot, strike, smile.years, vol, right, rate).gamma
    gamma = np.where(rows["is_adjusted"].to_numpy(), np.nan, gamma)  # it delivers something else than the underlying
    dollars = exposure.gamma_exposure(gamma, rows["open_interest"].to_numpy(), spot, right, rows["multiplier"].to_numpy())
    return kept.with_columns(pl.Series("exposure", dollars).fill_nan(None))
