"""Step `iv_surface`: the volatility of each underlying at constant maturities, by delta and by strike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np
import polars as pl

from flowlake.core import sessions
from flowlake.core.arrays import Float
from flowlake.datasets.model import Inputs, Output
from flowlake.datasets.volatility import DELTA_NODES, IV_SURFACE, STRIKE_NODES, SURFACE_REASONS, TENOR_DAYS, TODAY
from flowlake.factors.carry import DAYS_PER_YEAR
from flowlake.quant import surface
from flowlake.quant.surface import FitReason, NodeReason, SurfaceNodes

_REASONS = {
    NodeReason.OK: "",
    NodeReason.HELD: "held",
    NodeReason.NO_SLICE: "no_slice",
    NodeReason.OUTSIDE_STRIKES: "outside_strikes",
    NodeReason.NO_EXPIRY: "no_expiry",
    NodeReason.BEFORE_FIRST: "before_first",
    NodeReason.AFTER_LAST: "after_last",
}
assert set(_REASONS.values()) == set(SURFACE_REASONS)


def iv_surface(inputs: Inputs, session: date) -> Output:
    """Every underlying with a volatility, at every tenor. Reads `option_iv` and `contracts`."""
    rows: list[dict[str, Any]] = []
    for (underlying,), quotes in out_of_the_money(inputs, session).group_by("underlying", maintain_order=True):
        right = np.where((quotes["right"] == "C").to_numpy(), 1.0, -1.0)
        # A squared error in volatility times vega squared is one in price: far wings, where a tick is points of volatility, do not
        # bend the slice away from the quotes around the forward.
        weights = quotes["vega"] ** 2
        nodes = surface.surface_nodes(quotes["years"], quotes["log_moneyness"], quotes["iv"], weights=weights, right=right)
        rows += [{"underlying": underlying, **row} for row in _rows(nodes)]
    schema = {name: dtype for name, dtype in IV_SURFACE.polars_schema().items() if name != "known_at_utc"}
    return Output({IV_SURFACE.name: pl.DataFrame(rows, schema=schema, orient="row")})


def out_of_the_money(inputs: Inputs, session: date) -> pl.DataFrame:
    """Contracts with a volatility: `underlying`, `contract`, `right`, `years`, `log_moneyness`, `iv`, `vega`.

    Time runs from the close, so that an expiry is one slice; for the expiry of the session itself, whose contracts are past by
    then, it is the median of its contracts' own.
    """
    close = sessions.close_utc(session)
    terms = inputs["contracts"].select("contract", "expires_utc")
    k = (pl.col("strike") / pl.col("forward")).log()
    on_its_side = pl.when(pl.col("right") == "C").then(k >= 0).otherwise(k < 0)
    ahead = (pl.col("expires_utc") - close).dt.total_microseconds() / 1e6 / (86_400 * DAYS_PER_YEAR)
    today = pl.col("years").median().over("underlying", "expires_utc")
    return (
        inputs["option_iv"]
        .filter(pl.col("quality") == "ok")
        .join(terms, on="contract")
        .filter(on_its_side)
        .with_columns(k.alias("log_moneyness"), pl.when(pl.col("expires_utc") > close).then(ahead).otherwise(today).alias("years"))
        .select("underlying", "contract", "right", "years", "log_moneyness", "iv", "vega")
        .sort("underlying", "years", "log_moneyness", "contract")
    )


def _rows(nodes: SurfaceNodes) -> list[dict[str, Any]]:
    later = [
        i for i, fit in enumerate(nodes.fits) if fit.reason is FitReason.OK and nodes.expiry_years[i] >= surface.ZERO_DTE_YEARS
    ]
    years = nodes.expiry_years[later]
    tenors = np.array(TENOR_DAYS) / DAYS_PER_YEAR
    by_strike = {column: _at_tenors(years, _vols_at(nodes, later, share), tenors) for share, column in STRIKE_NODES.items()}
    rows = []
    for i, days in enumerate(TENOR_DAYS):
        at = dict(zip(DELTA_NODES.values(), nodes.vol[i].tolist(), strict=True))
        at |= {column: float(vols[i]) for column, vols in by_strike.items()}
        used = [j for j in range(len(nodes.fits)) if nodes.expiry_years[j] in (nodes.near_years[i, 0], nodes.far_years[i, 0])]
        found = math.isfinite(at["atm_iv"])
        rows.append(
            {
                "tenor_days": days,
                **_spread_of(at),
                "near_days": float(nodes.near_years[i, 0]) * DAYS_PER_YEAR if found else None,
                "far_days": float(nodes.far_years[i, 0]) * DAYS_PER_YEAR if found else None,
                **(_quality(nodes, used) if found else {}),
                "reason": _REASONS[NodeReason(int(nodes.reason[i, 0]))],
            }
        )
    today = np.flatnonzero(nodes.expiry_years < surface.ZERO_DTE_YEARS)[-1:].tolist()
    if today:
        fit = nodes.fits[today[0]]
        at = dict(zip(DELTA_NODES.values(), nodes.zero_dte_vol.tolist(), strict=True))
        if fit.reason is FitReason.OK:
            at |= {column: float(_vols_at(nodes, today, share)[0]) for share, column in STRIKE_NODES.items()}
        ahead = float(nodes.expiry_years[today[0]]) * DAYS_PER_YEAR
        found = math.isfinite(at["atm_iv"])
        ends = {"near_days": ahead, "far_days": ahead, **_quality(nodes, today)} if found else {}
        rows.append({"tenor_days": TODAY, **_spread_of(at), **ends, "reason": _REASONS[NodeReason(int(nodes.zero_dte_reason[0]))]})
    return rows


def _vols_at(nodes: SurfaceNodes, expiries: Sequence[int], share: int) -> Float:
    """Volatility of fitted expiries at a strike of `share` per cent of the forward; NaN outside their quotes."""
    k = math.log(share / 100.0)
    fits = [nodes.fits[i] for i in expiries]
    variance = np.array(
        [surface.svi_total_variance(k, *fit.parameters) if fit.lowest <= k <= fit.highest else np.nan for fit in fits]
    )
    return np.sqrt(variance / nodes.expiry_years[list(expiries)])


def _at_tenors(years: Float, vol: Float, tenors: Float) -> Float:
    return np.asarray(surface.interpolate(years, vol, tenors), dtype=np.float64)


def _spread_of(at: dict[str, float]) -> dict[str, float]:
    spreads: dict[str, float] = {}
    for delta in (25, 10):
        put, call = (at[f"{side}_{delta}d_iv"] for side in ("put", "call"))
        spreads |= {f"skew_{delta}d": put - call, f"butterfly_{delta}d": 0.5 * (put + call) - at["atm_iv"]}
    return at | spreads


def _quality(nodes: SurfaceNodes, used: list[int]) -> dict[str, float | int]:
    fits = [nodes.fits[i] for i in used]
    violations = [max(0.0, float(v)) for v in nodes.calendar_violation[used] if math.isfinite(v)]
    return {
        "strikes": sum(fit.strikes for fit in fits),
        "fit_rmse": max(fit.weighted_rmse_vol for fit in fits),
        "calendar_violation": max(violations, default=0.0),
    }
