"""Kernels over option prints in the raw dataset's order: which rows cannot be right, the curated order, and premiums."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowlake.quant._compile import inlined, kernel

Int = NDArray[np.int64]
Codes = NDArray[np.int32]
Float = NDArray[np.float64]
Flags = NDArray[np.bool_]

GOOD = -1
NOT_IN_MASTER, PRICE, SIZE, DATE, HOURS = range(5)
"""Rules in the order in which they are applied; a row breaks the first that it breaks."""
EXTENDED_HOURS, CANCEL, UNKNOWN, BLANK, CANCEL_OF_OPENING = 1, 2, 4, 8, 16
"""Traits of a condition: its prints may lie in extended hours, it is a cancel message, a note is about it, it cancels the opening
report."""
WHOLE_BELOW = 2.0**53
TEN_THOUSANDTHS = 10_000
MANY_MESSAGES = 256
_PLACES = 4096
"""Places among which messages are strewn by price, size and exchange: a print in none of theirs needs no other look."""
_EXACT = 9.0e18


@kernel
def screened(
    lengths: Int,
    is_known: Flags,
    moment: Int,
    price: Float,
    size: Float,
    condition: Codes,
    traits: NDArray[np.uint8],
    day: tuple[int, int],
    hours: tuple[int, int],
    evening: int,
    broken: NDArray[np.int8],
) -> tuple[int, int]:
    """The rule that each row breaks, or GOOD, in `broken`; how many rows break one, and the traits that good rows have.

    `lengths` and `is_known` are those of the runs of a ticker; `traits` are those of the condition with code i at i + 1. `day` is
    the session's New York date [first, after), `hours` and `evening` the times [first, last] between which prints and
    extended-hours prints (from `evening` to the last) may lie; all are nanoseconds since 1970.
    """
    count = 0
    row = 0
    met = np.uint8(0)
    for run in range(lengths.size):
        for _ in range(lengths[run]):
            rule = GOOD
            at = moment[row]
            trait = traits[condition[row] + 1]
            extended = trait & EXTENDED_HOURS and evening <= at <= hours[1]
            if not is_known[run]:
                rule = NOT_IN_MASTER
            elif not (np.isfinite(price[row]) and price[row] > 0.0):
                rule = PRICE
            elif not (np.isfinite(size[row]) and 0.0 < size[row] < WHOLE_BELOW and size[row] == np.floor(size[row])):
                rule = SIZE
            elif not (day[0] <= at < day[1] or extended):
                rule = DATE
            elif not (hours[0] <= at <= hours[1] or extended):
                rule = HOURS
            broken[row] = rule
            if rule == GOOD:
                met |= trait
            else:
                count += 1
            row += 1
    return count, int(met)


@inlined
def _belongs_before(a: int, b: int, price: Float, size: Float, exchange: Int, mark: Codes, rank: Codes) -> bool:
    if price[a] != price[b]:
        return bool(price[a] < price[b])
    if size[a] != size[b]:
        return bool(size[a] < size[b])
    if exchange[a] != exchange[b]:
        return bool(exchange[a] < exchange[b])
    return bool(rank[mark[a]] < rank[mark[b]])


@kernel
def ordered(
    runs: Int,
    starts: Int,
    is_kept: Flags,
    moment: Int,
    price: Float,
    size: Float,
    exchange: Int,
    mark: Codes,
    rank: Codes,
    order: Int,
    counts: Int,
) -> int:
    """Kept rows of the `runs`, one run after the other, by time and then by content, in `order`; how many they are.

    Run i has the rows `starts[i]` to `starts[i + 1]`, whose times ascend; `counts[k]` is the number kept of `runs[k]`.
    """
    at = 0
    for k in range(runs.size):
        begin = at
        first = at
        for row in range(starts[runs[k]], starts[runs[k] + 1]):
            if not is_kept[row]:
                continue
            if at > first and moment[order[at - 1]] != moment[row]:
                _sort(order, first, at, price, size, exchange, mark, rank)
                first = at
            order[at] = row
            at += 1
        _sort(order, first, at, price, size, exchange, mark, rank)
        counts[k] = at - begin
    return at


@inlined
def _sort(order: Int, first: int, end: int, price: Float, size: Float, exchange: Int, mark: Codes, rank: Codes) -> None:
    """Shell's sort: most stretches have one to three rows, and a long one must not take for ever."""
    gap = 1
    while gap < (end - first) // 3:
        gap = 3 * gap + 1
    while gap > 0:
        for i in range(first + gap, end):
            row = order[i]
            j = i
            while j >= first + gap and _belongs_before(row, order[j - gap], price, size, exchange, mark, rank):
                order[j] = order[j - gap]
                j -= gap
            order[j] = row
        gap //= 3


@kernel
def in_order(
    order: Int,
    counts: Int,
    multiplier: Int,
    source: tuple[Int, Float, Float, Int, Codes],
    moment: Int,
    price: Float,
    size: Int,
    exchange: Int,
    mark: Codes,
    condition: Codes,
    premium: Float,
) -> int:
    """The rows `order` of the `source` (moment, price, size, exchange and mark), with what follows from them; how many premiums are
    too large, which become NaN.

    A premium is price x size x multiplier in dollars, exact to a ten-thousandth. `multiplier` is in ten-thousandths, one for each
    of `counts` rows.
    """
    moments, prices, sizes, exchanges, marks = source
    large = 0
    at = 0
    for run in range(counts.size):
        scale = multiplier[run]
        whole = scale % TEN_THOUSANDTHS == 0
        if whole:
            scale //= TEN_THOUSANDTHS
        for _ in range(counts[run]):
            row = order[at]
            moment[at] = moments[row]
            exchange[at] = exchanges[row]
            mark[at] = marks[row]
            condition[at] = marks[row] // 2 - 1
            price[at] = prices[row]
            size[at] = np.int64(sizes[row])
            unit = np.rint(prices[row] * 1e4)
            if unit * sizes[row] * np.float64(scale) >= _EXACT:
                premium[at] = np.nan
                large += 1
            else:
                product = np.int64(unit) * size[at] * scale
                premium[at] = np.float64(product if whole else product // TEN_THOUSANDTHS) / 1e4
            at += 1
    return large


@inlined
def _place(price: np.uint64, size: np.uint64, exchange: np.int64) -> np.int64:
    mixed = (price ^ (size >> np.uint64(7)) ^ (np.uint64(exchange) << np.uint64(20))) * np.uint64(0x9E3779B97F4A7C15)
    return np.int64(mixed >> np.uint64(52))


@kernel
def cancel_candidates(
    lengths: Int, is_message: Flags, is_good: Flags, price: Float, size: Float, exchange: Int, found: Flags
) -> None:
    """Mark in `found` the good rows that a message of the same run could cancel, and the messages themselves.

    In a run with many messages every good row is marked: there it costs less to match than to look for what could.
    """
    row = 0
    messages = np.empty(MANY_MESSAGES, np.int64)
    is_like = np.zeros(_PLACES, np.bool_)
    prices, sizes = price.view(np.uint64), size.view(np.uint64)
    for run in range(lengths.size):
        end = row + lengths[run]
        count = 0
        for i in range(row, end):
            if is_message[i]:
                if count < MANY_MESSAGES:
                    messages[count] = i
                is_like[_place(prices[i], sizes[i], exchange[i])] = True
                count += 1
        if count:
            for i in range(row, end):
                marked = is_message[i] or count > MANY_MESSAGES
                if is_like[_place(prices[i], sizes[i], exchange[i])]:
                    for m in range(min(count, MANY_MESSAGES)):
                        k = messages[m]
                        marked |= price[i] == price[k] and size[i] == size[k] and exchange[i] == exchange[k]
                found[i] = is_good[i] and marked
            is_like[:] = False
        row = end
