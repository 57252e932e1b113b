"""Compiled loops of the off-exchange figures: integer totals by mark, and rank correlations of many pairs of short series."""

from __future__ import annotations

import numpy as np

from flowlake.core.arrays import Float, Int
from flowlake.quant._compile import kernel


@kernel
def totals_by_mark(group: Int, marks: Int, values: Int, groups: int, count: int) -> Int:
    """(groups, count): the sum of `values` of each group's rows that carry mark k, the bit k of `marks`."""
    out = np.zeros((groups, count), dtype=np.int64)
    for i in range(group.size):
        mark = marks[i]
        for k in range(count):
            if (mark >> k) & 1:
                out[group[i], k] += values[i]
    return out


@kernel
def _mean_ranks(values: Float, count: int, ranks: Float) -> None:
    """Ranks of the first `count` values, ties at their mean."""
    order = np.argsort(values[:count])
    i = 0
    while i < count:
        j = i
        while j + 1 < count and values[order[j + 1]] == values[order[i]]:
            j += 1
        for k in range(i, j + 1):
            ranks[order[k]] = 0.5 * (i + j)
        i = j + 1


@kernel
def rank_correlations(x: Float, y: Float, pairs: Int, out: Float) -> None:
    """Spearman's correlation of each row of `x` with that of `y`, over the columns where both are numbers.

    Writes the number of such columns to `pairs` and the correlation to `out`: NaN below two pairs or where a side is constant.
    """
    rows, columns = x.shape
    a, b = np.empty(columns), np.empty(columns)
    ra, rb = np.empty(columns), np.empty(columns)
    for row in range(rows):
        n = 0
        for column in range(columns):
            if not (np.isnan(x[row, column]) or np.isnan(y[row, column])):
                a[n] = x[row, column]
                b[n] = y[row, column]
                n += 1
        pairs[row] = n
        out[row] = np.nan
        if n < 2:
            continue
        _mean_ranks(a, n, ra)
        _mean_ranks(b, n, rb)
        middle = 0.5 * (n - 1)
        xx, yy, xy = 0.0, 0.0, 0.0
        for i in range(n):
            dx, dy = ra[i] - middle, rb[i] - middle
            xx += dx * dx
            yy += dy * dy
            xy += dx * dy
        if xx > 0.0 and yy > 0.0:
            out[row] = min(1.0, max(-1.0, xy / np.sqrt(xx * yy)))
