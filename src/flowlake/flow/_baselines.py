"""Kernel: centre and spread of histograms, one per row."""

from __future__ import annotations

from flowlake.core.arrays import Float, Int
from flowlake.quant._compile import kernel


@kernel
def fill_baselines(out: Float, histograms: Int, lowest: int, robust_from: float) -> None:
    """Fill `out` (3, rows): centre and spread in bins, and the count. `histograms`: (rows, bins), whole counts, of bins from
    `lowest` on: a row's figures do not depend on where the columns begin.

    From `robust_from` values on the lower median and the lower median of the distances from it, else mean and standard deviation;
    0 for an empty row.
    """
    rows, bins = histograms.shape
    for r in range(rows):
        count, first, last = 0, bins, -1
        for b in range(bins):
            if histograms[r, b] > 0:
                count += histograms[r, b]
                first, last = min(first, b), b
        out[0, r], out[1, r], out[2, r] = 0.0, 0.0, count
        if count == 0:
            continue
        if count >= robust_from:
            so_far, median = 0, first
            for b in range(first, last + 1):
                so_far += histograms[r, b]
                if 2 * so_far >= count:
                    median = b
                    break
            so_far, away = 0, 0
            for d in range(bins):
                if median - d >= 0:
                    so_far += histograms[r, median - d]
                if d > 0 and median + d < bins:
                    so_far += histograms[r, median + d]
                if 2 * so_far >= count:
                    away = d
                    break
            out[0, r], out[1, r] = lowest + median, away
            continue
        total = 0.0
        for b in range(first, last + 1):
            total += histograms[r, b] * float(lowest + b)
        mean = total / count
        square = 0.0
        for b in range(first, last + 1):
            square += histograms[r, b] * (lowest + b - mean) ** 2
        out[0, r] = mean
        out[1, r] = (square / (count - 1)) ** 0.5 if count > 1 else 0.0
