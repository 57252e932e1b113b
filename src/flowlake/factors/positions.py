"""Open interest at the session's open and close, and the gamma that it, or the session's volume, puts on dealers."""

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
"""Share of the contracts held, or traded, whose expiries must have a smile."""

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


def open_interest_increases(positions: pl.DataFrame, inputs: Inputs, session: date) -> pl.DataFrame | None:
    """`contract`, `underlying`, `increase` (may be negative) of underlyings with both reports; None where there is none.

    A contract that only the later report has, such as a new listing, rises from 0. An underlying whose split or change of symbol
    lies between the reports (`corporate_actions`) is left out: its contracts were renamed, and their texts name others now.
    """
    close, opening = (positions.filter(pl.col("which") == which) for which in ("close", "open"))
    comparable = opening.select("underlying").unique().join(_renamed(inputs, session), on="underlying", how="anti")
    both = close.join(comparable, on="underlying", how="semi")
    if both.is_empty():
        return None
    before = opening.select("contract", pl.col("open_interest").alias("before"))
    return both.join(before, on="contract", how="left").select(
        "contract", "underlying", (pl.col("open_interest") - pl.col("before").fill_null(0)).alias("increase")
    )


def _renamed(inputs: Inputs, session: date) -> pl.DataFrame:
    """`underlying`: old and new tickers of splits and symbol changes with ex-date after the session before and up to this one."""
    actions = present(inputs, "corporate_actions")
    if actions is None:
        return pl.DataFrame(schema={"underlying": pl.String()})
    since = pl.col("ex_date") > sessions.previous_session(session)
    kinds = pl.col("kind").is_in(["split", "symbol_change"])
    events = actions.filter(since & (pl.col("ex_date") <= session) & kinds)
    tickers = pl.concat([events["underlying"], events["new_symbol"].drop_nulls().alias("underlying")])
    return tickers.unique().sort().to_frame()


def gamma_factors(
    positions: pl.DataFrame, spots: pl.DataFrame, contracts: pl.DataFrame, implied: pl.DataFrame, smiles: list[Smile]
) -> pl.DataFrame:
    """`underlying`, `gamma_exposure_usd`, `gamma_exposure_oi`: one row per underlying with open interest, null where less than
    `MIN_COVERAGE` of it is covered. `spots` has `spot_close`.
    """
    has_close = (pl.col("which") == "close").any().over("underlying")
    chosen = positions.filter((pl.col("which") == "close") | ~has_close)
    which = chosen.group_by("underlying").agg(pl.col("which").first().alias("gamma_exposure_oi"))
    held = chosen.rename({"open_interest": "quantity"})
    total = _gamma_sums(held, "gamma_exposure_usd", spots, contracts, implied, smiles)
    known = pl.when(pl.col("gamma_exposure_usd").is_not_null()).then("gamma_exposure_oi")
    return total.join(which, on="underlying", how="left").with_columns(known.alias("gamma_exposure_oi"))


def traded_gamma(
    flows: pl.DataFrame, session: date, spots: pl.DataFrame, contracts: pl.DataFrame, implied: pl.DataFrame, smiles: list[Smile]
) -> pl.DataFrame:
    """`underlying`, `gamma_traded_usd`: as `gamma_exposure_usd`, of the session's volume. `flows` as `contract_flows` gives it."""
    traded = flows.filter((pl.col("volume") > 0) & (pl.col("expiry") > session)).rename({"volume": "quantity"})
    return _gamma_sums(traded, "gamma_traded_usd", spots, contracts, implied, smiles)


def _gamma_sums(
    held: pl.DataFrame, name: str, spots: pl.DataFrame, contracts: pl.DataFrame, implied: pl.DataFrame, smiles: list[Smile]
) -> pl.DataFrame:
    """`underlying` and the exposure `name` of `held` (`contract`, `underlying`, `root`, `expiry`, `right`, `strike`, `quantity`).

    Every contract is valued at the close: with its own volatility, else its expiry's smile.
    """
    terms = contracts.group_by("root", "expiry").agg(
        pl.col("expires_utc").max(), pl.col("multiplier").max(), pl.col("is_adjusted").any()
    )
    # With the strike: the text of a contract from before a split names another contract now.
    own = implied.filter(pl.col("quality") == "ok").select("contract", "strike", "iv")
    rows = (
        held.select("contract", "underlying", "root", "expiry", "right", "strike", "quantity")
        .join(terms, on=["root", "expiry"], how="left")
        .join(spots.select("underlying", "spot_close"), on="underlying", how="left")
        .join(own, on=["contract", "strike"], how="left")
        .sort("contract")
    )
    by_expiry = {(smile.underlying, smile.expires_utc): smile for smile in smiles}
    valued = [
        _valued(group, by_expiry.get((underlying, expires)))
        for (underlying, expires), group in rows.group_by("underlying", "expires_utc", maintain_order=True)
    ]
    if not valued:
        return pl.DataFrame(schema={"underlying": pl.String(), name: pl.Float64()})
    total = pl.concat(valued).sort("underlying", "contract")
    covered = pl.col("quantity").filter(pl.col("exposure").is_not_null()).sum()
    enough = (covered >= MIN_COVERAGE * pl.col("quantity").sum()) & (covered > 0)
    return total.group_by("underlying", maintain_order=True).agg(pl.when(enough).then(pl.col("exposure").sum()).alias(name))


def _valued(rows: pl.DataFrame, smile: Smile | None) -> pl.DataFrame:
    """Adds `exposure`, null without a smile or spot, to the contracts of one expiry."""
    kept = rows.select("contract", "underlying", "quantity")
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
    dollars = exposure.gamma_exposure(gamma, rows["quantity"].to_numpy(), spot, right, rows["multiplier"].to_numpy())
    return kept.with_columns(pl.Series("exposure", dollars).fill_nan(None))
