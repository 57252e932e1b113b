"""Out-of-the-money smiles of a session, read at a constant maturity and at strikes that did not trade."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol, TypeVar

import numpy as np
import polars as pl

from flowlake.core import sessions
from flowlake.core.arrays import Float
from flowlake.datasets.factors import MATURITY_DAYS, MIN_SMILE, NEAREST_DAYS, TARGET_DAYS
from flowlake.factors.carry import DAYS_PER_YEAR
from flowlake.quant import surface

ATM_WINDOW = 0.15
"""Contracts further than this from the forward, in log-strike, say nothing about the volatility at it."""
TARGET_YEARS = TARGET_DAYS / DAYS_PER_YEAR


class Dated(Protocol):
    """What has a time to expiry, in years from the close."""

    @property
    def years(self) -> float: ...


AnyDated = TypeVar("AnyDated", bound=Dated)


@dataclass(frozen=True)
class Smile:
    """One expiry: log-moneyness rising, volatilities, years from the close, and forward / spot."""

    underlying: str
    expires_utc: datetime
    years: float
    log_moneyness: Float
    vol: Float
    carry: float

    def vol_at(self, log_moneyness: Float) -> Float:
        """Linear between the points, flat outside."""
        return np.interp(log_moneyness, self.log_moneyness, self.vol)


def smiles(implied: pl.DataFrame, session: date) -> list[Smile]:
    """The smile of each underlying and expiry with at least `MIN_SMILE` strikes, in order of underlying and expiry.

    `implied` is `option_iv` with `expires_utc`. Each contract stands at the log-moneyness that it had when it was priced; where two
    stand at the same, their median. Roots that expire at the same moment share a smile.
    """
    close = sessions.close_utc(session)
    k = (pl.col("strike") / pl.col("forward")).log()
    is_otm = pl.when(pl.col("right") == "C").then(k >= 0).otherwise(k < 0)
    points = (
        implied.filter((pl.col("quality") == "ok") & is_otm & (pl.col("expires_utc") > close))
        .with_columns(k.alias("k"), (pl.col("forward") / pl.col("spot")).alias("carry"))
        .sort("underlying", "expires_utc", "k", "contract")
    )
    found = []
    for (underlying, expires), group in points.group_by("underlying", "expires_utc", maintain_order=True):
        line = group.group_by("k", maintain_order=True).agg(pl.col("iv").median())
        if line.height >= MIN_SMILE:
            years = (expires - close).total_seconds() / (86_400 * DAYS_PER_YEAR)
            carry = float(np.median(group["carry"].to_numpy()))
            found.append(Smile(str(underlying), expires, years, line["k"].to_numpy(), line["iv"].to_numpy(), carry))
    return found


def volatility_factors(all_smiles: list[Smile]) -> pl.DataFrame:
    """`underlying`, `atm_iv_30d`, `skew_25d`; null where the expiries do not reach the constant maturity."""
    low, high = (days / DAYS_PER_YEAR for days in MATURITY_DAYS)
    by_underlying: dict[str, list[Smile]] = {}
    for smile in all_smiles:
        if low <= smile.years <= high:
            by_underlying.setdefault(smile.underlying, []).append(smile)
    rows = [
        (underlying, constant_maturity(group, _at_the_money, in_variance), constant_maturity(group, _skew, _in_time))
        for underlying, group in by_underlying.items()
    ]
    schema = {"underlying": pl.String(), "atm_iv_30d": pl.Float64(), "skew_25d": pl.Float64()}
    return pl.DataFrame(rows, schema=schema, orient="row")


def constant_maturity(
    group: Sequence[AnyDated], read: Callable[[AnyDated], float], between: Callable[[Float, Float], float]
) -> float | None:
    """What `read` gives at `TARGET_DAYS`: `between` the two expiries around it that have a value, else of the nearest.

    `group` is in order of expiry. The nearest counts only within `NEAREST_DAYS`; else None.
    """
    before = _first_value((s for s in reversed(group) if s.years <= TARGET_YEARS), read)
    after = _first_value((s for s in group if s.years > TARGET_YEARS), read)
    if before is not None and after is not None:
        years, values = np.array([before[0], after[0]]), np.array([before[1], after[1]])
        return between(years, values)
    one = before or after
    if one is None or abs(one[0] - TARGET_YEARS) > NEAREST_DAYS / DAYS_PER_YEAR:
        return None
    return one[1]


def _first_value(candidates: Iterable[AnyDated], read: Callable[[AnyDated], float]) -> tuple[float, float] | None:
    """Years and value of the first that has one."""
    for candidate in candidates:
        value = read(candidate)
        if math.isfinite(value):
            return candidate.years, value
    return None


def _at_the_money(smile: Smile) -> float:
    near = np.abs(smile.log_moneyness) <= ATM_WINDOW
    return surface.at_the_money(smile.log_moneyness[near], smile.vol[near])


def _skew(smile: Smile) -> float:
    return -surface.risk_reversal(smile.log_moneyness, smile.vol, smile.years, 0.25)


def in_variance(years: Float, values: Float) -> float:
    """Linear in total variance between two expiries, at the constant maturity."""
    return float(surface.interpolate(years, values, TARGET_YEARS))


def _in_time(years: Float, values: Float) -> float:
    return float(np.interp(TARGET_YEARS, years, values))
