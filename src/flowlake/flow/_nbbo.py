"""The loop of the as-of join: prints and quotes, both sorted by contract and time, walked once side by side."""

from __future__ import annotations

import numpy as np

from flowlake.core.arrays import AnyArray, Bool, Float, Int
from flowlake.quant._compile import inlined, kernel

NO_AGE = -1


@kernel
def first_disorder(contract: AnyArray, ts_ns: Int) -> int:
    """The first row that lies before the one above it in contract or time; -1 where all are in order.

    The first loop has no branch, so that it is vectorised; the second runs only where something is wrong.
    """
    wrong = False
    for i in range(1, contract.size):
        wrong |= (contract[i] < contract[i - 1]) | ((contract[i] == contract[i - 1]) & (ts_ns[i] < ts_ns[i - 1]))
    if wrong:
        for i in range(1, contract.size):
            if contract[i] < contract[i - 1] or (contract[i] == contract[i - 1] and ts_ns[i] < ts_ns[i - 1]):
                return i
    return -1


@inlined
def _put(price: Float, size: Float, i: int, quoted: float, lots: float) -> None:
    """One side of the market: a price that is not above 0, or NaN, is no quote."""
    if quoted > 0.0:
        price[i] = quoted
        size[i] = lots
    else:
        price[i] = np.nan
        size[i] = np.nan


@kernel
def join(
    print_contract: AnyArray,
    print_ts_ns: Int,
    first: int,
    contract: AnyArray,
    ts_ns: Int,
    quoted: tuple[AnyArray, ...],
    held_contract: AnyArray,
    held_ts_ns: Int,
    held: tuple[AnyArray, ...],
    is_last: bool,
    max_age_ns: int,
    out: tuple[Float, ...],
    age_ns: Int,
    is_stale: Bool,
) -> int:
    """Join prints from `first` on with one batch of quotes; give the number of the first print that is not decided.

    `quoted` is bid, ask, bid size and ask size of the batch, and `out` the same per print. `held` is the last row before the batch
    (arrays of one row, or of none). A print is not decided where the batch ends before it, unless it `is_last`: its quote may be in
    the next one.
    """
    j = 0
    for i in range(first, print_contract.size):
        key = print_contract[i]
        limit = print_ts_ns[i]
        while j < contract.size and contract[j] < key:
            j += 1
        while j < contract.size and contract[j] == key and ts_ns[j] < limit:
            j += 1
        if j == contract.size and not is_last:
            return i
        bid, ask, bid_size, ask_size = np.nan, np.nan, np.nan, np.nan
        age = np.int64(NO_AGE)
        if j > 0 and contract[j - 1] == key:
            age = print_ts_ns[i] - ts_ns[j - 1]
            if age <= max_age_ns:
                bid, ask, bid_size, ask_size = quoted[0][j - 1], quoted[1][j - 1], quoted[2][j - 1], quoted[3][j - 1]
        elif held_contract.size > 0 and held_contract[0] == key:
            age = print_ts_ns[i] - held_ts_ns[0]
            if age <= max_age_ns:
                bid, ask, bid_size, ask_size = held[0][0], held[1][0], held[2][0], held[3][0]
        age_ns[i] = age
        is_stale[i] = age > max_age_ns
        _put(out[0], out[2], i, bid, bid_size)
        _put(out[1], out[3], i, ask, ask_size)
    return print_contract.size
