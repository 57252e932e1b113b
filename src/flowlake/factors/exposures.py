"""What positions add up to at the session's close: gamma, vanna and charm by strike and in total, flips, pain and squeezes.

Totals are on the naive side, long calls and short puts, which open interest cannot confirm.
"""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import polars as pl

from flowlake.datasets.factors import SHORT_DAYS, SQUEEZE_REACH
from flowlake.datasets.model import Inputs
from flowlake.datasets.scored import OTM_DISTANCE
from flowlake.datasets.volatility import EXPOSURES
from flowlake.factors.carry import cash_dividends, rate_at
from flowlake.factors.early_exercise import array, exposure_greeks, rights
from flowlake.factors.smiles import Smile
from flowlake.quant import exposure

MIN_COVERAGE = 0.5
"""Share of the contracts held, or traded, whose expiries must have a smile."""
FLIP_POINTS = 161
"""Spots from half to one and a half times the present one at which the total's sign is looked up, beside the strikes."""
_GREEKS = ("gamma", "vanna", "charm")
_DOLLARS = {"gamma": exposure.gamma_exposure, "vanna": exposure.vanna_exposure, "charm": exposure.charm_exposure}


def latest_positions(positions: pl.DataFrame) -> pl.DataFrame:
    """Of each underlying the open interest of the close, else of the open, as `quantity`; `positions` is `open_positions`."""
    has_close = (pl.col("which") == "close").any().over("underlying")
    return positions.filter((pl.col("which") == "close") | ~has_close).rename({"open_interest": "quantity"})


def valued(
    held: pl.DataFrame, spots: pl.DataFrame, contracts: pl.DataFrame, implied: pl.DataFrame, smiles: list[Smile],
    inputs: Inputs, session: date,
) -> pl.DataFrame:  # fmt: skip
    """`held` (`contract`, `underlying`, `root`, `expiry`, `right`, `strike`, `quantity`) with what values it at the close.

    Adds `multiplier`, `spot`, `years`, `vol`, `carry` (forward over spot) and the greeks per share. Every contract has its own
    volatility, else its expiry's smile; null without a smile or a spot, and for a contract that delivers something else than the
    underlying. The greeks stand on the smile's forward, with the rates and the cash dividends of `inputs`.
    """
    terms = contracts.group_by("root", "expiry").agg(
        pl.col("expires_utc", "multiplier", "exercise").max(), pl.col("is_adjusted").any()
    )
    # With the strike: the text of a contract from before a split names another contract now.
    own = implied.filter(pl.col("quality") == "ok").select("contract", "strike", "iv")
    rows = (
        held.select("contract", "underlying", "root", "expiry", "right", "strike", "quantity")
        .join(terms, on=["root", "expiry"], how="left")
        .join(spots.select("underlying", pl.col("spot_close").alias("spot")), on="underlying", how="left")
        .join(own, on=["contract", "strike"], how="left")
        .sort("underlying", "expires_utc", "contract")
    )
    rows = _on_smiles(rows, smiles)
    years = array(rows, "years")
    rate, _ = rate_at(np.nan_to_num(years), inputs)
    on_forward = rows.with_columns((pl.col("spot") * pl.col("carry")).alias("forward"), pl.Series("rate", rate))
    found = exposure_greeks(on_forward, cash_dividends(inputs, session))
    greeks = (pl.Series(name, getattr(found, name)).fill_nan(None) for name in _GREEKS)
    return rows.drop("iv", "expires_utc", "exercise").with_columns(greeks).sort("underlying", "contract")


def _on_smiles(rows: pl.DataFrame, smiles: list[Smile]) -> pl.DataFrame:
    """Adds `years`, `carry` and `vol`; `rows` are in order of underlying and expiry."""
    by_expiry = {(smile.underlying, smile.expires_utc): smile for smile in smiles}
    years, carry, vol = (np.full(rows.height, np.nan) for _ in range(3))
    strike, spot, iv = (array(rows, name) for name in ("strike", "spot", "iv"))
    end = 0
    for underlying, expires, count in rows.group_by("underlying", "expires_utc", maintain_order=True).len().iter_rows():
        smile = by_expiry.get((underlying, expires))
        group = slice(end, end + count)
        end += count
        if smile is None:
            continue
        years[group], carry[group] = smile.years, smile.carry
        read = smile.vol_at(np.log(strike[group] / (spot[group] * smile.carry)))
        vol[group] = np.where(np.isnan(iv[group]), read, iv[group])
    sound = (~rows["is_adjusted"].fill_null(True) & rows["spot"].is_not_null()).to_numpy()
    columns = {"years": years, "carry": carry, "vol": np.where(sound, vol, np.nan)}
    return rows.with_columns(pl.Series(name, values).fill_nan(None) for name, values in columns.items())


def _dollars(positions: pl.DataFrame, greek: str, convention: str = "long_calls_short_puts") -> pl.Series:
    quantity, spot, multiplier, value = (array(positions, name) for name in ("quantity", "spot", "multiplier", greek))
    dollars = _DOLLARS[greek](value, quantity, spot, rights(positions), multiplier, convention)
    return pl.Series(f"{greek}_usd", dollars).fill_nan(None)


def gamma_total(positions: pl.DataFrame, name: str) -> pl.DataFrame:
    """`underlying`, `name`: null where less than `MIN_COVERAGE` of the contracts is covered. `positions` is `valued`."""
    return _totals(positions, {"gamma": name})


def _totals(positions: pl.DataFrame, names: dict[str, str]) -> pl.DataFrame:
    dollars = positions.with_columns(_dollars(positions, greek).alias(name) for greek, name in names.items())
    covered = pl.col("quantity").filter(pl.col("gamma").is_not_null()).sum()
    enough = (covered >= MIN_COVERAGE * pl.col("quantity").sum()) & (covered > 0)
    return dollars.group_by("underlying", maintain_order=True).agg(
        pl.when(enough).then(pl.col(name).sum()).alias(name) for name in names.values()
    )


def exposure_factors(positions: pl.DataFrame, session: date) -> pl.DataFrame:
    """Exposures, flip, pain and what squeezes are made of, per underlying. `positions` is `valued`, and has `which`."""
    totals = _totals(positions, {"gamma": "gamma_exposure_usd", "vanna": "vanna_exposure_usd", "charm": "charm_exposure_usd"})
    which = positions.group_by("underlying").agg(pl.col("which").first().alias("gamma_exposure_oi"))
    known = pl.when(pl.col("gamma_exposure_usd").is_not_null()).then("gamma_exposure_oi")
    rows = totals.join(which, on="underlying", how="left").with_columns(known.alias("gamma_exposure_oi"))
    covered = positions.join(totals.filter(pl.col("gamma_exposure_usd").is_not_null()), on="underlying", how="semi")
    for part in (_flips(covered), _pains(positions, session), _short_calls(positions, session)):
        rows = rows.join(part, on="underlying", how="left")
    return rows.sort("underlying")


def _flips(positions: pl.DataFrame) -> pl.DataFrame:
    """`underlying`, `gamma_flip`, `gamma_flip_distance`, `gamma_flips`: where the naive total changes its sign, sticky strike."""
    schema = {
        "underlying": pl.String(), "gamma_flip": pl.Float64(), "gamma_flip_distance": pl.Float64(), "gamma_flips": pl.Int64()
    }  # fmt: skip
    found: list[tuple[Any, ...]] = []
    priced = positions.filter(pl.col("vol").is_not_null())
    for (underlying,), rows in priced.group_by("underlying", maintain_order=True):
        spot = float(rows["spot"][0])
        strike, years, vol, quantity = (array(rows, name) for name in ("strike", "years", "vol", "quantity"))
        flips = exposure.gamma_flip(
            spot,
            strike,
            years,
            vol,
            quantity,
            rights(rows),
            np.log(array(rows, "carry")) / years,
            multiplier=array(rows, "multiplier"),
            points=FLIP_POINTS,
        )
        nearest = float(flips[np.argmin(np.abs(np.log(flips / spot)))]) if flips.size else None
        found.append((underlying, nearest, None if nearest is None else nearest / spot - 1.0, flips.size))
    return pl.DataFrame(found, schema=schema, orient="row")


def _pains(positions: pl.DataFrame, session: date) -> pl.DataFrame:
    """`underlying`, `max_pain`, `max_pain_days`, `max_pain_distance` of the nearest expiry with open interest."""
    schema = {
        "underlying": pl.String(), "max_pain": pl.Float64(), "max_pain_days": pl.Int64(), "max_pain_distance": pl.Float64()
    }  # fmt: skip
    found: list[tuple[Any, ...]] = []
    open_ = positions.filter((pl.col("quantity") > 0) & ~pl.col("is_adjusted").fill_null(True))
    nearest = open_.filter(pl.col("expiry") == pl.col("expiry").min().over("underlying"))
    for (underlying,), rows in nearest.group_by("underlying", maintain_order=True):
        held, is_call = array(rows, "quantity"), rights(rows) > 0
        pain = exposure.max_pain(rows["strike"].to_numpy(), np.where(is_call, held, 0.0), np.where(is_call, 0.0, held))
        spot = rows["spot"][0]
        distance = None if spot is None else pain / spot - 1.0
        found.append((underlying, pain, (rows["expiry"][0] - session).days, distance))
    return pl.DataFrame(found, schema=schema, orient="row")


def _short_calls(positions: pl.DataFrame, session: date) -> pl.DataFrame:
    """`underlying`, `near_call_share`: short-dated calls out of the money, each by its nearness, over all open contracts."""
    distance = (pl.col("strike") / pl.col("spot")).log()
    days = (pl.col("expiry") - session).dt.total_days()
    counts = (pl.col("right") == "C") & (days <= SHORT_DAYS) & (distance >= OTM_DISTANCE)
    weight = pl.when(counts).then(pl.col("quantity") * (-distance / SQUEEZE_REACH).exp()).otherwise(0.0)
    total = pl.col("quantity").sum()
    share = pl.when((total > 0) & pl.col("spot").is_not_null().all()).then(weight.sum() / total)
    return positions.group_by("underlying", maintain_order=True).agg(share.alias("near_call_share"))


def by_strike(positions: pl.DataFrame) -> pl.DataFrame:
    """The table `exposures`: per underlying and strike, calls and puts apart, as if long. `positions` is `valued` with `which`."""
    lines = positions.with_columns(_dollars(positions, greek, "absolute") for greek in _GREEKS)
    sides = {"call": pl.col("right") == "C", "put": pl.col("right") == "P"}
    table = lines.group_by("underlying", "strike", maintain_order=True).agg(
        pl.col("which").first().alias("open_interest_of"),
        *(pl.col("quantity").filter(side).sum().alias(f"{name}_open_interest") for name, side in sides.items()),
        *(
            pl.when(pl.col(f"{greek}_usd").filter(side).count() > 0)
            .then(pl.col(f"{greek}_usd").filter(side).sum())
            .alias(f"{name}_{greek}_usd")
            for greek in _GREEKS
            for name, side in sides.items()
        ),
        pl.col("quantity").filter(pl.col("gamma").is_null()).sum().alias("contracts_without_value"),
    )
    return table.select(column.name for column in EXPOSURES.columns).sort("underlying", "strike")
