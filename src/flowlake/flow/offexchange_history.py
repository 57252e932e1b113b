"""Off-exchange activity over sessions: accumulation against an underlying's own past, and how it goes with its options."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import polars as pl

from flowlake.core import sessions
from flowlake.core.arrays import Bool, Float, Int
from flowlake.datasets.absent import not_available
from flowlake.datasets.matrices import session_matrices
from flowlake.datasets.model import SESSION, Inputs, Output
from flowlake.datasets.offexchange import (
    ACCUMULATION_SESSIONS,
    LINK_LAGS,
    LINK_MEASURES,
    LINK_MIN_PAIRS,
    LINK_SESSIONS,
    MIN_BASE,
    MIN_RECENT,
    PRESSURE_Z,
    QUIET_Z,
    RECENT_SESSIONS,
    SHARE_Z,
)
from flowlake.datasets.scored import MAD_TO_SIGMA
from flowlake.flow._offexchange_kernels import rank_correlations
from flowlake.quant.robust import row_median

_FLOORS = {"core_share": 0.005, "pressure": 0.01, "block_share": 0.005}
"""Least spread of a past: one that hardly moved cannot make a score explode."""
_RETURN_FLOOR = 1e-4
_Z95 = 1.959963984540054
_FEW = f"fewer than {MIN_RECENT} of the recent sessions or {MIN_BASE} of those before have both share and pressure"


def offexchange_accumulation(inputs: Inputs, session: date) -> Output:
    """A row per underlying with off-exchange activity on the session. Reads up to `ACCUMULATION_SESSIONS` of it, split-adjusted."""
    activity = inputs["offexchange_activity"].with_columns(
        block_share=pl.when(pl.col("off_volume") > 0).then(pl.col("block_volume") / pl.col("off_volume"))
    )
    names = activity.filter(pl.col(SESSION) == session)["underlying"].unique().sort()
    window = _window(session, ACCUMULATION_SESSIONS)
    values = session_matrices(names, activity, [*_FLOORS, "lit_close"], window)
    both = np.isfinite(values["core_share"]) & np.isfinite(values["pressure"])
    recent, base = both[:, -RECENT_SESSIONS:].sum(axis=1), both[:, :-RECENT_SESSIONS].sum(axis=1)
    enough = (recent >= MIN_RECENT) & (base >= MIN_BASE)
    scores = {f"{name}_z": _score(values[name], floor, enough) for name, floor in _FLOORS.items()}
    share, pressure = scores["core_share_z"], scores["pressure_z"]
    up = (share >= SHARE_Z) & (pressure >= PRESSURE_Z)
    down = (share >= SHARE_Z) & (pressure <= -PRESSURE_Z)
    known = np.isfinite(share) & np.isfinite(pressure)
    state = np.where(up, "accumulation", np.where(down, "distribution", "none"))
    move = _price_move(values["lit_close"])
    table = pl.DataFrame(
        {
            "underlying": names,
            **scores,
            "price_move_z": move,
            "is_quiet": pl.Series(np.abs(move) < QUIET_Z),
            "state": pl.Series(state.astype(str), dtype=pl.String),
            "strength": np.where(known, np.minimum(share, np.abs(pressure)), np.nan),
            "recent_sessions": recent.astype(np.int64),
            "base_sessions": base.astype(np.int64),
        }
    ).with_columns(pl.col(pl.Float64).fill_nan(None))
    reasons = {
        "core_share_z": _FEW,
        "pressure_z": _FEW,
        "block_share_z": f"{_FEW}, or no block share",
        "price_move_z": f"no lit close {RECENT_SESSIONS} sessions ago or today, or fewer than {MIN_BASE} returns before",
    }
    return Output(
        {
            "offexchange_accumulation": table.with_columns(
                pl.when(pl.Series(known)).then(pl.col("state")).alias("state"),
                pl.when(pl.col("price_move_z").is_not_null()).then(pl.col("is_quiet")).alias("is_quiet"),
                not_available(reasons),
            )
        }
    )


def offexchange_options_link(inputs: Inputs, session: date) -> Output:
    """Six rows per underlying with option factors on the session: two measures, three lags.

    Required inputs, over `LINK_SESSIONS` + 1 sessions and under today's tickers: daily_factors, offexchange_activity. Optional:
    flow_factors. Only shares of premium and of volume are read, which no split changes.
    """
    premium = inputs["daily_factors"]
    names = premium.filter(pl.col(SESSION) == session)["underlying"].unique().sort()
    window = _window(session, LINK_SESSIONS + 1)
    pressure = session_matrices(names, inputs["offexchange_activity"], ["pressure"], window)["pressure"]
    net = (pl.col("call_premium_usd") - pl.col("put_premium_usd")) / pl.col("premium_usd")
    leaning = premium.with_columns(leaning=pl.when(pl.col("premium_usd") > 0).then(net))
    signed = inputs.get("flow_factors")
    measured = {
        "premium": session_matrices(names, leaning, ["leaning"], window)["leaning"],
        "signed_premium": np.full(pressure.shape, np.nan)
        if signed is None
        else session_matrices(names, signed, ["net_call_put_imbalance"], window)["net_call_put_imbalance"],
    }
    parts = [_link(names, pressure, measured[name], name, lag) for name in LINK_MEASURES for lag in LINK_LAGS]
    return Output({"offexchange_options_link": pl.concat(parts).with_columns(pl.col(pl.Float64).fill_nan(None))})


def _link(names: pl.Series, pressure: Float, options: Float, measure: str, lag: int) -> pl.DataFrame:
    off, opt = _shifted(pressure, options, lag)
    pairs, correlation = np.zeros(names.len(), dtype=np.int64), np.full(names.len(), np.nan)
    rank_correlations(np.ascontiguousarray(off), np.ascontiguousarray(opt), pairs, correlation)
    few, constant = pairs < LINK_MIN_PAIRS, np.isnan(correlation)
    correlation[few] = np.nan
    low, high = fisher_interval(correlation, pairs)
    reason = np.select(
        [~np.isfinite(pressure).any(axis=1), ~np.isfinite(options).any(axis=1), few, constant],
        ["no_pressure", "no_options", "few_pairs", "constant"],
        "",
    )
    return pl.DataFrame(
        {
            "underlying": names,
            "measure": pl.Series([measure] * names.len(), dtype=pl.String),
            "lag_sessions": np.full(names.len(), lag, dtype=np.int64),
            "pressure": pressure[:, -1],
            "options_leaning": options[:, -1],
            "rank_correlation": correlation,
            "correlation_low": low,
            "correlation_high": high,
            "pairs": pairs,
            "reason": pl.Series(reason.astype(str), dtype=pl.String),
        }
    )


def _window(session: date, count: int) -> list[date]:
    """The last `count` sessions of the calendar, the session included."""
    return sessions.sessions_between(session - timedelta(days=2 * count + 20), session)[-count:]


def _score(values: Float, floor: float, enough: Bool) -> Float:
    """Mean of the recent columns against the median and spread of those before; NaN where `enough` says so or nothing is there."""
    recent, base = values[:, -RECENT_SESSIONS:], values[:, :-RECENT_SESSIONS]
    count = np.isfinite(recent).sum(axis=1)
    mean = np.divide(np.nansum(recent, axis=1), count, out=np.full(len(values), np.nan), where=count > 0)
    centre = row_median(base)
    spread = np.fmax(MAD_TO_SIGMA * row_median(np.abs(base - centre[:, np.newaxis])), floor)
    return np.where(enough, (mean - centre) / (spread / np.sqrt(np.maximum(count, 1))), np.nan)


def _price_move(close: Float) -> Float:
    """Log move over the recent sessions in standard deviations of the base's daily returns, by their median absolute value."""
    returns = np.diff(np.log(close[:, :-RECENT_SESSIONS]), axis=1)
    daily = np.fmax(MAD_TO_SIGMA * row_median(np.abs(returns)), _RETURN_FLOOR)
    move = np.log(close[:, -1] / close[:, -1 - RECENT_SESSIONS])
    enough = np.isfinite(returns).sum(axis=1) >= MIN_BASE
    return np.where(enough, move / (daily * np.sqrt(RECENT_SESSIONS)), np.nan)


def _shifted(off: Float, options: Float, lag: int) -> tuple[Float, Float]:
    """Columns of the two that belong together: with lag 1 the options of a session with the prints of the next."""
    if lag > 0:
        return off[:, lag:], options[:, :-lag]
    if lag < 0:
        return off[:, :lag], options[:, -lag:]
    return off[:, 1:], options[:, 1:]


def fisher_interval(correlation: Float, pairs: Int) -> tuple[Float, Float]:
    """95 % interval of Spearman's correlation: tanh(atanh(r) -+ 1.96 sqrt(1.06 / (n - 3))); NaN below four pairs."""
    width = np.full(correlation.shape, np.nan)
    np.divide(1.06, pairs - 3.0, out=width, where=pairs > 3)
    half = _Z95 * np.sqrt(width)
    with np.errstate(divide="ignore"):
        centre = np.arctanh(correlation)
    return np.tanh(centre - half), np.tanh(centre + half)
