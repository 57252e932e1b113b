"""Kernel: which packets have another contract of the same size beside them in time."""

from __future__ import annotations

from flowlake.core.arrays import Bool, Int
from flowlake.quant._compile import kernel


@kernel
def fill_legs(
    has_leg: Bool, is_roll: Bool, asked: Int, group: Int, first: Int, last: Int, contract: Int, right: Int, expiry: Int, reach: int
) -> None:
    """Answer for the packets at the places `asked` of a table sorted by `group` and `first`.

    A leg is a packet of the same group and another contract whose first print lies within `reach` and whose last one comes at
    most `reach` after the packet's own; a roll is a leg of the same right and another expiry. All packets within reach are looked
    at, until there is nothing more to find: the order of those of one moment is of no account.
    """
    for n in range(asked.size):
        i = asked[n]
        leg, roll = False, False
        for step in (-1, 1):
            j = i + step
            while not roll and 0 <= j < group.size and group[j] == group[i] and abs(first[j] - first[i]) <= reach:
                if contract[j] != contract[i] and last[j] - last[i] <= reach:
                    leg = True
                    roll = right[j] == right[i] and expiry[j] != expiry[i]
                j += step
        has_leg[n], is_roll[n] = leg, roll
