"""Step `iv_ranks`: each node of the surface in its own past."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import polars as pl

from flowlake.core import sessions
from flowlake.core.arrays import Float
from flowlake.datasets.model import SESSION, Inputs, Output
from flowlake.datasets.scored import MAD_TO_SIGMA
from flowlake.datasets.volatility import IV_RANKS, NODES, RANK_MIN_HISTORY, RANK_SESSIONS
from flowlake.quant.robust import row_median

_KEY = ("underlying", "tenor_days")


def iv_ranks(inputs: Inputs, session: date) -> Output:
    """A row per underlying, tenor and node that has a volatility on the session. Reads `iv_surface` of up to `RANK_SESSIONS`."""
    window = sessions.sessions_between(session - timedelta(days=2 * RANK_SESSIONS), session)[-RANK_SESSIONS:-1]
    surfaces = inputs["iv_surface"].select(*_KEY, SESSION, *NODES)
    today = surfaces.filter(pl.col(SESSION) == session).drop(SESSION).sort(_KEY)
    past = surfaces.filter(pl.col(SESSION) < session)
    parts = []
    for node in NODES:
        known = today.filter(pl.col(node).is_not_null()).select(*_KEY, pl.col(node).alias("iv"))
        history = past_matrix(known, past, node, window)
        value = known["iv"].to_numpy()
        count = np.isfinite(history).sum(axis=1)
        enough = count >= RANK_MIN_HISTORY
        columns = {
            "iv_z": np.where(enough, robust_z(value, history), np.nan),
            "iv_percentile": np.where(enough, percentile(value, history), np.nan),
            "iv_rank": np.where(enough, rank(value, history), np.nan),
            "half_life_sessions": np.where(enough, half_life(np.column_stack([history, value])), np.nan),
        }
        parts.append(
            known.with_columns(
                pl.lit(node).alias("node"),
                *(pl.Series(name, values).fill_nan(None) for name, values in columns.items()),
                pl.Series("history_sessions", count),
            )
        )
    return Output({IV_RANKS.name: pl.concat(parts)})


def past_matrix(rows: pl.DataFrame, past: pl.DataFrame, value: str, window: list[date]) -> Float:
    """`value` as rows x sessions of `window`, in both orders; NaN where there is none."""
    out = np.full((rows.height, len(window)), np.nan)
    place = pl.DataFrame({SESSION: window, "column": np.arange(len(window))}, schema_overrides={SESSION: pl.Date()})
    cells = (
        past.select(*_KEY, SESSION, value)
        .filter(pl.col(value).is_not_null())
        .join(rows.select(_KEY).with_row_index("row"), on=_KEY)
        .join(place, on=SESSION)
    )
    out[cells["row"].to_numpy(), cells["column"].to_numpy()] = cells[value].to_numpy()
    return out


def robust_z(value: Float, past: Float) -> Float:
    """(value - median) / (1.4826 MAD) of each row of the past; NaN where the past does not vary."""
    centre = row_median(past)
    spread = MAD_TO_SIGMA * row_median(np.abs(past - centre[:, np.newaxis]))
    return np.asarray(np.divide(value - centre, spread, out=np.full(value.shape, np.nan), where=spread > 0.0))


def percentile(value: Float, past: Float) -> Float:
    """Share of each row's past that lies below the value; NaN without a past."""
    count = np.isfinite(past).sum(axis=1)
    below = (past < value[:, np.newaxis]).sum(axis=1)
    return np.asarray(np.divide(below, count, out=np.full(value.shape, np.nan), where=(count > 0) & np.isfinite(value)))


def rank(value: Float, past: Float) -> Float:
    """(value - lowest) / (highest - lowest) of each row's past; NaN where that is no range."""
    known = np.isfinite(past)
    low = np.where(known, past, np.inf).min(axis=1, initial=np.inf)
    span = np.where(known, past, -np.inf).max(axis=1, initial=-np.inf) - low
    return np.asarray(np.divide(value - low, span, out=np.full(value.shape, np.nan), where=np.isfinite(span) & (span > 0.0)))


def half_life(series: Float) -> Float:
    """Half-life of each row's departures from its mean, in columns, by a first-order autoregression.

    phi is the least-squares slope of the values on those of the column before, over the pairs that both exist; the half-life is
    -ln 2/ln phi, NaN where phi is not between 0 and 1 or where pairs are fewer than `RANK_MIN_HISTORY`. In short samples phi is
    biased downwards, by about (1 + 3 phi)/n (Kendall, Biometrika 41, 1954); nothing is done about that.
    """
    before, after = series[:, :-1], series[:, 1:]
    both = np.isfinite(before) & np.isfinite(after)
    count = both.sum(axis=1)
    x, y = np.where(both, before, 0.0), np.where(both, after, 0.0)
    pairs = np.maximum(count, 1)
    dx = np.where(both, x - (x.sum(axis=1) / pairs)[:, np.newaxis], 0.0)
    dy = np.where(both, y - (y.sum(axis=1) / pairs)[:, np.newaxis], 0.0)
    power = (dx * dx).sum(axis=1)
    phi = np.divide(
        (dx * dy).sum(axis=1), power, out=np.full(power.shape, np.nan), where=(power > 0.0) & (count >= RANK_MIN_HISTORY)
    )
    inside = (phi > 0.0) & (phi < 1.0)
    return np.asarray(np.divide(-np.log(2.0), np.log(np.where(inside, phi, 0.5)), out=np.full(phi.shape, np.nan), where=inside))
