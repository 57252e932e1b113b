"""Loops over prints in order: the tick test, for one contract and for a whole tape."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowlake.core.arrays import AnyArray, Bool, Float, Int
from flowlake.quant._compile import kernel

Sides = NDArray[np.int8]


@kernel
def tick(price: Float, side: Sides) -> None:
    """Each price against the last price before it that differs; a NaN is no price."""
    last = np.nan
    direction = np.int8(0)
    for i in range(price.size):
        now = price[i]
        if now > last:
            direction = np.int8(1)
        elif now < last:
            direction = np.int8(-1)
        if np.isnan(now):
            side[i] = 0
        else:
            side[i] = direction
            last = now


@kernel
def tape_tick(contract: AnyArray, moment: Int, price: Int, counts: Bool, side: Sides) -> None:
    """The tick test over a tape sorted by contract and moment, where prints of one moment have no order.

    A print is compared with the price of the last earlier moment of its contract. Where prints that count had several prices at
    that moment, which of them was last is not known, and neither is the side. Every print gets a side; those that do not count set
    no price.
    """
    start = 0
    last = np.int64(0)
    has_last = False
    direction = np.int8(0)
    for i in range(contract.size + 1):
        if i < contract.size and i > 0 and contract[i] == contract[i - 1] and moment[i] == moment[i - 1]:
            continue
        # Prints start to i - 1 share a contract and a moment; what is known of earlier moments signs them all.
        found = False
        several = False
        at = np.int64(0)
        for j in range(start, i):
            if has_last and price[j] != last:
                side[j] = np.int8(1) if price[j] > last else np.int8(-1)
            else:
                side[j] = direction
            if counts[j]:
                several = several or (found and price[j] != at)
                at = price[j]
                found = True
        if several:
            has_last, direction = False, np.int8(0)
        elif found:
            if has_last and at != last:
                direction = np.int8(1) if at > last else np.int8(-1)
            last, has_last = at, True
        if i < contract.size and (i == 0 or contract[i] != contract[i - 1]):
            has_last, direction = False, np.int8(0)
        start = i
