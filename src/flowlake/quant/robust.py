"""Robust place of a value in its own past: a score by median and median absolute deviation, and a percentile.

The past is a matrix, one row per series, NaN where a session has no value. The order of its columns does not matter.
"""

from __future__ import annotations

import numpy as np

from flowlake.core.arrays import ArrayLike, Float, Int
from flowlake.datasets.scored import MAD_TO_SIGMA, MIN_HISTORY, Scored


def row_median(values: Float) -> Float:
    """Median of each row's values that are not NaN; NaN for a row without any."""
    ordered = np.sort(values, axis=1)  # NaN goes last
    count = _count(values)
    rows = np.arange(values.shape[0])
    some = np.flatnonzero(count)
    out = np.full(values.shape[0], np.nan)
    low, high = (count[some] - 1) // 2, count[some] // 2
    out[some] = 0.5 * (ordered[rows[some], low] + ordered[rows[some], high])
    return out


def score(scored: Scored, today: ArrayLike, past: ArrayLike) -> Float:
    """Robust score of `today` (one per series) in `past` (series x sessions) as `Scored.describe` says; NaN where it abstains.

    It abstains without a value today, below `MIN_HISTORY` past values, and where the spread is 0.
    """
    value, history = _on_scale(scored, np.asarray(today, dtype=np.float64)), _on_scale(scored, _matrix(past))
    centre = row_median(history)
    spread = MAD_TO_SIGMA * row_median(np.abs(history - centre[:, np.newaxis]))
    floor = scored.floor * (row_median(np.abs(history)) if scored.relative else 1.0)
    spread = np.fmax(spread, floor)
    enough = (_count(history) >= MIN_HISTORY) & (spread > 0)
    out = np.full(value.shape, np.nan)
    np.divide(value - centre, spread, out=out, where=enough)
    return out


def share_below(today: ArrayLike, past: ArrayLike) -> Float:
    """Share of the past values that are less than today's; NaN without one today or below `MIN_HISTORY` past values."""
    value, history = np.asarray(today, dtype=np.float64), _matrix(past)
    count = _count(history)
    below = (history < value[:, np.newaxis]).sum(axis=1)
    out = np.full(value.shape, np.nan)
    np.divide(below, count, out=out, where=(count >= MIN_HISTORY) & ~np.isnan(value))
    return out


def _matrix(past: ArrayLike) -> Float:
    matrix = np.asarray(past, dtype=np.float64)
    if matrix.ndim != 2:
        raise ValueError(f"the past must be a matrix, series x sessions; its shape is {matrix.shape}")
    return matrix


def _count(values: Float) -> Int:
    return np.asarray((~np.isnan(values)).sum(axis=1), dtype=np.int64)


def _on_scale(scored: Scored, values: Float) -> Float:
    if scored.scale == "linear":
        return values
    out = np.full(values.shape, np.nan)
    if scored.scale == "log1p":
        np.log1p(values, out=out, where=values >= 0)
    elif scored.scale == "sqrt":
        np.sqrt(values, out=out, where=values >= 0)
    else:
        np.log(values, out=out, where=values > 0)
    return out
