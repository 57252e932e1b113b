"""Kernel: the score of each minute of a session in the same minute of the underlying's past sessions."""

from __future__ import annotations

import numpy as np

from flowlake.core.arrays import Float, Int
from flowlake.quant._compile import inlined, kernel


@inlined
def _median(values: Float, count: int) -> float:
    """Of the first `count` values, which it sorts; count is at least 1."""
    for i in range(1, count):
        value = values[i]
        k = i - 1
        while k >= 0 and values[k] > value:
            values[k + 1] = values[k]
            k -= 1
        values[k + 1] = value
    middle: float = 0.5 * (values[(count - 1) // 2] + values[count // 2])
    return middle


@inlined
def _score(value: float, sample: Float, count: int, sigma: float, floor: float, away: Float) -> tuple[float, float]:
    """The median of the sample, and the score of the value on the scale ln(1 + x); NaN where the median is 0."""
    centre = _median(sample, count)
    if centre <= 0.0:
        return centre, np.nan
    middle = np.log1p(centre)
    for i in range(count):
        away[i] = abs(np.log1p(sample[i]) - middle)
    return centre, (np.log1p(value) - middle) / max(sigma * _median(away, count), floor)


@kernel
def fill_minute_scores(
    out: Float,
    today_begins: Int,
    today_minute: Int,
    today_cents: Int,
    past_begins: Int,
    past_closes: Int,
    list_begins: Int,
    past_minute: Int,
    past_cents: Int,
    least: int,
    sigma: float,
    floor: float,
) -> None:
    """Fill `out` (6, minutes of today): median, score, sum so far, its median, its score, and the number of past sessions.

    `today_begins` (underlyings + 1) bounds the underlying's minutes, `past_begins` (underlyings + 1) its past sessions,
    `list_begins` (past sessions + 1) the minutes of each; minutes ascend. A session counts for the minutes before `past_closes`.
    The median of an even sample on the scale ln(1 + x) is that of its two middle values' mean.
    """
    most = 1
    for u in range(past_begins.size - 1):
        most = max(most, past_begins[u + 1] - past_begins[u])
    here, so_far, away = np.empty(most), np.empty(most), np.empty(most)
    place, total = np.empty(most, dtype=np.int64), np.empty(most, dtype=np.int64)
    for u in range(today_begins.size - 1):
        first = past_begins[u]
        sessions = past_begins[u + 1] - first
        for s in range(sessions):
            place[s] = list_begins[first + s]
            total[s] = 0
        cumulated = 0
        for i in range(today_begins[u], today_begins[u + 1]):
            minute = today_minute[i]
            cumulated += today_cents[i]
            count = 0
            for s in range(sessions):
                k = place[s]
                end = list_begins[first + s + 1]
                cents = 0
                while k < end and past_minute[k] <= minute:
                    total[s] += past_cents[k]
                    if past_minute[k] == minute:
                        cents = past_cents[k]
                    k += 1
                place[s] = k
                if minute < past_closes[first + s]:
                    here[count] = cents / 100.0
                    so_far[count] = total[s] / 100.0
                    count += 1
            out[2, i] = cumulated / 100.0
            out[5, i] = count
            if count < least:
                out[0, i] = out[1, i] = out[3, i] = out[4, i] = np.nan
                continue
            out[0, i], out[1, i] = _score(today_cents[i] / 100.0, here, count, sigma, floor, away)
            out[3, i], out[4, i] = _score(cumulated / 100.0, so_far, count, sigma, floor, away)
