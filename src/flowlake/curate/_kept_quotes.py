"""The loop that finds the quotes worth keeping: rows of one contract after another, each placed between two moments."""

from __future__ import annotations

import numpy as np

from flowlake.core.arrays import Bool, Int
from flowlake.quant._compile import kernel


@kernel
def keep(
    lengths: Int, first: Int, count: Int, ts_ns: Int, moments: Int, after_close_ns: int, never: int, until: Int, is_kept: Bool
) -> None:
    """Of each run of rows (`lengths`) the first, and the last before any moment: of its contract's, and of the one after the close.

    The moments of run r are `moments[first[r] : first[r] + count[r]]`, ascending. `until` is the first moment after the row, or
    `never`. Rows of one time are kept together.
    """
    latest = np.empty((count.max() if count.size else 0) + 2, np.int64)
    slots = np.empty(lengths.max() if lengths.size else 0, np.int64)
    start = 0
    for r in range(lengths.size):
        prints = moments[first[r] : first[r] + count[r]]
        latest[: prints.size + 2] = np.iinfo(np.int64).min
        earliest = ts_ns[start]
        seen = 0
        for k in range(lengths[r]):
            at = ts_ns[start + k]
            earliest = min(earliest, at)
            if seen > 0 and prints[seen - 1] > at:  # the file goes back in time
                seen = np.searchsorted(prints, at, side="right")
            while seen < prints.size and prints[seen] <= at:
                seen += 1
            is_open = at < after_close_ns
            follows = prints[seen] if seen < prints.size else never
            until[start + k] = min(follows, after_close_ns) if is_open else follows
            slots[k] = seen if is_open else seen + 1
            latest[slots[k]] = max(latest[slots[k]], at)
        latest[prints.size + 1] = never  # nothing comes after these
        for k in range(lengths[r]):
            at = ts_ns[start + k]
            is_kept[start + k] = at == latest[slots[k]] or at == earliest
        start += lengths[r]
