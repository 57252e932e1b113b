"""Kernel: the last value of many series against a least-squares regression on regressors of their own."""

from __future__ import annotations

import numpy as np

from flowlake.core.arrays import Float
from flowlake.quant._compile import kernel

LEAST_PIVOT = 1e-8
"""Share of a regressor's variance that the others must leave unexplained; less is collinear."""


@kernel
def fill_expectations(out: Float, values: Float, regressors: Float, least: int) -> None:
    """Fill `out` (4, series): expectation of the last value, root mean square residual, sample size, coefficients.

    `values` (series, n) and `regressors` (k, series, n), NaN where there is none; a constant is added. The sample: places before
    the last with a value and all regressors in use. A regressor is in use where it has a last value, and a value at more than half
    of the places with a value of the series. Expectation and residual are NaN below `least` places and without degrees of freedom.
    """
    k, count, n = regressors.shape
    x = np.empty((k, n))
    y = np.empty(n)
    last, slope, moment = np.empty(k), np.empty(k), np.empty(k)
    used = np.empty(k, dtype=np.int64)
    factor, gram = np.empty((k, k)), np.empty((k, k))
    for s in range(count):
        out[0, s] = out[1, s] = np.nan
        known = 0
        for t in range(n - 1):
            known += np.isfinite(values[s, t])
        usable = 0
        for j in range(k):
            there = 0
            for t in range(n - 1):
                there += np.isfinite(values[s, t]) and np.isfinite(regressors[j, s, t])
            if np.isfinite(regressors[j, s, n - 1]) and 2 * there > known:
                used[usable] = j
                usable += 1
        m = 0
        for t in range(n - 1):
            complete = np.isfinite(values[s, t])
            for a in range(usable):
                complete = complete and np.isfinite(regressors[used[a], s, t])
            if complete:
                y[m] = values[s, t]
                for a in range(usable):
                    x[a, m] = regressors[used[a], s, t]
                m += 1
        out[2, s], out[3, s] = m, 0.0
        if m < least or not np.isfinite(values[s, n - 1]):
            continue
        level = 0.0
        for t in range(m):
            level += y[t]
        level /= m
        kept = 0
        for a in range(usable):
            mean = 0.0
            for t in range(m):
                mean += x[a, t]
            mean /= m
            square = 0.0
            for t in range(m):
                square += (x[a, t] - mean) ** 2
            spread = np.sqrt(square)
            if not spread > 1e-12 * max(1.0, abs(mean)) * np.sqrt(m):
                continue
            for t in range(m):
                x[kept, t] = (x[a, t] - mean) / spread
            last[kept] = (regressors[used[a], s, n - 1] - mean) / spread
            # What the ones before explain of it; collinear ones are dropped as they come.
            for b in range(kept + 1):
                inner = 0.0
                for t in range(m):
                    inner += x[kept, t] * x[b, t]
                gram[kept, b] = inner
            for b in range(kept):
                inner = gram[kept, b]
                for c in range(b):
                    inner -= factor[kept, c] * factor[b, c]
                factor[kept, b] = inner / factor[b, b]
            pivot = 1.0
            for b in range(kept):
                pivot -= factor[kept, b] ** 2
            if pivot <= LEAST_PIVOT:
                continue
            factor[kept, kept] = np.sqrt(pivot)
            inner = 0.0
            for t in range(m):
                inner += x[kept, t] * y[t]
            moment[kept] = inner
            kept += 1
        out[3, s] = kept + 1
        if m <= kept + 1:
            continue
        for a in range(kept):
            slope[a] = moment[a]
            for b in range(a):
                slope[a] -= factor[a, b] * slope[b]
            slope[a] /= factor[a, a]
        for a in range(kept - 1, -1, -1):
            for b in range(a + 1, kept):
                slope[a] -= factor[b, a] * slope[b]
            slope[a] /= factor[a, a]
        square = 0.0
        for t in range(m):
            fitted = level
            for a in range(kept):
                fitted += slope[a] * x[a, t]
            square += (y[t] - fitted) ** 2
        expected = level
        for a in range(kept):
            expected += slope[a] * last[a]
        out[0, s] = expected
        out[1, s] = np.sqrt(square / (m - kept - 1))
