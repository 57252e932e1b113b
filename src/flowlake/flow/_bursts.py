"""The compiled part of `packets`: from prints of one contract to events, and from events to what a packet is made of.

Prints come in the order of contract and time. Nothing here may depend on the order of prints that share a moment: chains look at
times alone, sums are integers (money in ten-thousandths of a dollar, probabilities in millionths), and events that began in one
moment are put in order by what they are.
"""

from __future__ import annotations

import numpy as np

from flowlake.core.arrays import AnyArray, Bool, Int
from flowlake.quant._compile import kernel

(
    FILLS,
    SIZE,
    ISO,
    SIDED,
    BOUGHT,
    VENUES,
    OUTLINE,
) = range(7)
"""Columns of what `outline` adds up; `OUTLINE` is their number. `BOUGHT` is size x probability of a purchase, `VENUES` a set of
bits."""
(
    PREMIUM,
    PRICE_SIZE,
    MIN_PRICE,
    MAX_PRICE,
    FIRST,
    LAST,
    FIRST_PRICE_SIZE,
    FIRST_SIZE,
    LAST_PRICE_SIZE,
    LAST_SIZE,
    AUCTION,
    CROSS,
    FLOOR,
    NET,
    QUOTED,
    AT_ASK,
    AT_BID,
    SUMS,
) = range(OUTLINE, OUTLINE + 18)
"""Further columns of what `gather` adds up; `SUMS` is the number of all."""

IS_ISO, IS_AUCTION, IS_CROSS, IS_FLOOR = 1, 2, 4, 8
"""Bits of the marks of a print."""
UNKNOWN = -1
"""A probability, in millionths, that is not known; the number of a chain that a print has no part in."""
MAX_VENUES = 63
"""More exchanges than that share a bit."""


@kernel
def volume_marks(contract: Int, ts: Int, counted: Int) -> tuple[Int, Int]:
    """Volume of the contract before the moment of each print, and through that moment. `counted` is 0 for prints out of the
    volume."""
    count = contract.size
    before = np.empty(count, np.int64)
    through = np.empty(count, np.int64)
    total = 0
    i = 0
    while i < count:
        if i == 0 or contract[i] != contract[i - 1]:
            total = 0
        j = i
        moment = 0
        while j < count and contract[j] == contract[i] and ts[j] == ts[i]:
            moment += counted[j]
            j += 1
        before[i:j] = total
        total += moment
        through[i:j] = total
        i = j
    return before, through


@kernel
def chains(contract: Int, ts: Int, lane: AnyArray, gap: Int, span: int) -> Int:
    """Number of each print's chain: prints of one contract and lane, each at most `gap[lane]` after the one before.

    No chain lasts longer than `span`. `UNKNOWN` where the lane is negative.
    """
    found = np.full(contract.size, UNKNOWN, np.int64)
    owner = np.full(gap.size, -1, np.int64)
    first = np.zeros(gap.size, np.int64)
    last = np.zeros(gap.size, np.int64)
    number = np.zeros(gap.size, np.int64)
    count = 0
    for i in range(contract.size):
        k = lane[i]
        if k < 0:
            continue
        if owner[k] != contract[i] or ts[i] - last[k] > gap[k] or ts[i] - first[k] > span:
            owner[k] = contract[i]
            first[k] = ts[i]
            number[k] = count
            count += 1
        last[k] = ts[i]
        found[i] = number[k]
    return found


@kernel
def events(
    chain: Int, chain_count: int, contract: Int, ts: Int, lane: AnyArray, size: Int, probability: Int, sure: int
) -> tuple[Int, int]:
    """Split chains that hold both purchases and sales, and number the events in the order of contract, beginning and lane.

    A print is a purchase where its probability is at least `sure` millionths, a sale where it is at most 1,000,000 - sure. Other
    prints of a split chain go with the larger side (of equals, the purchases).
    """
    bought = np.zeros(chain_count, np.int64)
    sold = np.zeros(chain_count, np.int64)
    for i in range(chain.size):
        c = chain[i]
        if c >= 0:
            if probability[i] >= sure:
                bought[c] += size[i]
            elif 0 <= probability[i] <= 1_000_000 - sure:
                sold[c] += size[i]
    number = np.full(2 * chain_count, UNKNOWN, np.int64)
    event = np.full(chain.size, UNKNOWN, np.int64)
    began = np.empty(2 * chain_count, np.int64)
    """The print that an event began with, by the event's number."""
    part = np.empty(2 * chain_count, np.int64)
    count = 0
    for i in range(chain.size):
        c = chain[i]
        if c < 0:
            continue
        is_sale = 0
        if bought[c] > 0 and sold[c] > 0:
            sure_purchase, sure_sale = probability[i] >= sure, 0 <= probability[i] <= 1_000_000 - sure
            is_sale = 1 if sure_sale or (not sure_purchase and sold[c] > bought[c]) else 0
        k = 2 * c + is_sale
        if number[k] == UNKNOWN:
            number[k] = count
            began[count] = i
            part[count] = 2 * lane[i] + is_sale
            count += 1
        event[i] = number[k]
    place = np.arange(count)
    ordered = np.arange(count)
    for a in range(1, count):
        moving = ordered[a]
        b = a - 1
        while (
            b >= 0
            and contract[began[ordered[b]]] == contract[began[moving]]
            and ts[began[ordered[b]]] == ts[began[moving]]
            and part[ordered[b]] > part[moving]
        ):
            ordered[b + 1] = ordered[b]
            b -= 1
        ordered[b + 1] = moving
    for a in range(count):
        place[ordered[a]] = a
    for i in range(event.size):
        if event[i] >= 0:
            event[i] = place[event[i]]
    return event, count


@kernel
def outline(group: Int, count: int, size: Int, probability: Int, marks: AnyArray, venue: AnyArray) -> Int:
    """The sums that tell what an event is: one row per column of `OUTLINE`, one entry per group."""
    sums = np.zeros((OUTLINE, count), np.int64)
    for i in range(group.size):
        g = group[i]
        if g >= 0:
            sums[FILLS, g] += 1
            sums[SIZE, g] += size[i]
            sums[ISO, g] += size[i] if marks[i] & IS_ISO else 0
            if probability[i] >= 0:
                sums[SIDED, g] += size[i]
                sums[BOUGHT, g] += size[i] * probability[i]
            sums[VENUES, g] |= np.int64(1) << np.int64(min(venue[i], MAX_VENUES - 1))
    return sums


@kernel
def gather(
    group: Int,
    count: int,
    ts: Int,
    size: Int,
    price: Int,
    premium: Int,
    probability: Int,
    quoted: AnyArray,
    marks: AnyArray,
    venue: AnyArray,
) -> Int:
    """Sums over the prints of each group: one row per column of `SUMS`, one entry per group. `quoted`: 0 no quote, 1 inside it, 2
    at the ask or above, 3 at the bid or below."""
    sums = np.zeros((SUMS, count), np.int64)
    for i in range(group.size):
        g = group[i]
        if g < 0:
            continue
        if sums[FILLS, g] == 0:
            sums[MIN_PRICE, g] = price[i]
            sums[MAX_PRICE, g] = price[i]
            sums[FIRST, g] = ts[i]
            sums[LAST, g] = ts[i]
        sums[FILLS, g] += 1
        sums[SIZE, g] += size[i]
        sums[PREMIUM, g] += premium[i]
        sums[PRICE_SIZE, g] += price[i] * size[i]
        sums[MIN_PRICE, g] = min(sums[MIN_PRICE, g], price[i])
        sums[MAX_PRICE, g] = max(sums[MAX_PRICE, g], price[i])
        sums[FIRST, g] = min(sums[FIRST, g], ts[i])
        sums[LAST, g] = max(sums[LAST, g], ts[i])
        sums[ISO, g] += size[i] if marks[i] & IS_ISO else 0
        sums[AUCTION, g] += size[i] if marks[i] & IS_AUCTION else 0
        sums[CROSS, g] += size[i] if marks[i] & IS_CROSS else 0
        sums[FLOOR, g] += size[i] if marks[i] & IS_FLOOR else 0
        if probability[i] >= 0:
            sums[SIDED, g] += size[i]
            sums[BOUGHT, g] += size[i] * probability[i]
            # Half a millionth of a ten-thousandth is lost at most, the same way whatever the order.
            sums[NET, g] += round(premium[i] * ((2.0 * probability[i] - 1_000_000.0) / 1_000_000.0))
        sums[QUOTED, g] += size[i] if quoted[i] else 0
        sums[AT_ASK, g] += size[i] if quoted[i] == 2 else 0
        sums[AT_BID, g] += size[i] if quoted[i] == 3 else 0
        sums[VENUES, g] |= np.int64(1) << np.int64(min(venue[i], MAX_VENUES - 1))
    for i in range(group.size):
        g = group[i]
        if g < 0:
            continue
        if ts[i] == sums[FIRST, g]:
            sums[FIRST_PRICE_SIZE, g] += price[i] * size[i]
            sums[FIRST_SIZE, g] += size[i]
        if ts[i] == sums[LAST, g]:
            sums[LAST_PRICE_SIZE, g] += price[i] * size[i]
            sums[LAST_SIZE, g] += size[i]
    return sums


@kernel
def bits(values: Int) -> Int:
    """Number of set bits of each value."""
    counts = np.zeros(values.size, np.int64)
    for i in range(values.size):
        rest = values[i]
        while rest:
            rest &= rest - 1
            counts[i] += 1
    return counts


@kernel
def median_ages(group: Int, fills: Int, age: Int) -> Int:
    """Median age of each group's quotes (the lower of two), `UNKNOWN` where no print has one. Negative ages are absent."""
    start = np.zeros(fills.size + 1, np.int64)
    for g in range(fills.size):
        start[g + 1] = start[g] + fills[g]
    used = np.zeros(fills.size, np.int64)
    ages = np.empty(start[fills.size], np.int64)
    for i in range(group.size):
        g = group[i]
        if g >= 0 and age[i] >= 0:
            ages[start[g] + used[g]] = age[i]
            used[g] += 1
    medians = np.full(fills.size, UNKNOWN, np.int64)
    for g in range(fills.size):
        if used[g] == 1:
            medians[g] = ages[start[g]]
        elif used[g] > 1:
            own = np.sort(ages[start[g] : start[g] + used[g]])
            medians[g] = own[(used[g] - 1) // 2]
    return medians


@kernel
def hits(
    contract: Int,
    first: Int,
    size: Int,
    side: Int,
    merges: Bool,
    before: Int,
    through: Int,
    smallest: int,
    gap: int,
    fewest: int,
) -> tuple[Int, Int]:
    """Rows of hits among events (in the order of contract and beginning): the place of each in its row, and what it is merged into.

    A row: events of one contract and `side` (+1, -1, 0 unknown) with at least `smallest` contracts, each at most `gap` after the
    one before. An event is merged with the others of its row that `merges` marks, where the row up to the last of them has at least
    `fewest` events and at least half of the contract's volume meanwhile; its packet then is the first of them. Place 0: no hit.
    """
    count = contract.size
    place = np.zeros(count, np.int64)
    row = np.full(count, UNKNOWN, np.int64)
    target = np.arange(count)
    # Of the open row of each side.
    owner = np.full(3, -1, np.int64)
    last = np.zeros(3, np.int64)
    length = np.zeros(3, np.int64)
    contracts = np.zeros(3, np.int64)
    began = np.zeros(3, np.int64)
    number = np.zeros(3, np.int64)
    # Of every row: whether it is repeated at its last event that may be merged, and its first such event.
    is_repeated = np.zeros(count, np.bool_)
    lead = np.full(count, UNKNOWN, np.int64)
    rows = 0
    for e in range(count):
        if size[e] < smallest:
            continue
        s = side[e] + 1
        if owner[s] != contract[e] or first[e] - last[s] > gap:
            owner[s] = contract[e]
            length[s] = 0
            contracts[s] = 0
            began[s] = before[e]
            number[s] = rows
            rows += 1
        last[s] = first[e]
        length[s] += 1
        contracts[s] += size[e]
        place[e] = length[s]
        row[e] = number[s]
        if merges[e]:
            if lead[row[e]] == UNKNOWN:
                lead[row[e]] = e
            is_repeated[row[e]] = length[s] >= fewest and 2 * contracts[s] >= through[e] - began[s]
    for e in range(count):
        if row[e] >= 0 and merges[e] and is_repeated[row[e]]:
            target[e] = lead[row[e]]
    return place, target


@kernel
def ordinals(owner: Int, moment: Int) -> Int:
    """Place of each item among its neighbours of the same owner and moment, from 0."""
    place = np.zeros(owner.size, np.int64)
    for i in range(1, owner.size):
        if owner[i] == owner[i - 1] and moment[i] == moment[i - 1]:
            place[i] = place[i - 1] + 1
    return place


@kernel
def edges(group: Int, count: int) -> tuple[Int, Int]:
    """First and last print of each group, in the order of the prints."""
    first = np.full(count, UNKNOWN, np.int64)
    last = np.full(count, UNKNOWN, np.int64)
    for i in range(group.size):
        g = group[i]
        if g >= 0:
            if first[g] < 0:
                first[g] = i
            last[g] = i
    return first, last
