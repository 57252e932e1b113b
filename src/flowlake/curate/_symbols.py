"""Kernel that takes vendor tickers apart by their bytes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowlake.quant._compile import inlined, kernel

Bytes = NDArray[np.uint8]

POSSIBLE, FORM, NO_DATE, OUTSIDE_CALENDAR, NO_STRIKE = range(5)
"""What is wrong with a ticker, if anything."""
_PREFIX, _DATE, _STRIKE = 2, 6, 8
FIXED = _DATE + 1 + _STRIKE
"""Characters behind the root."""
_LONGEST_ROOT = 9
_O, _COLON, _DOT, _CALL, _PUT = 79, 58, 46, 67, 80
_ZERO, _NINE, _A, _Z = 48, 57, 65, 90
_DAYS_OF_MONTH = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
_DAYS_BEFORE = np.concatenate([[0], np.cumsum(_DAYS_OF_MONTH)])
_DAYS_TO_2000 = 10_957
"""Days from 1970 to the first of January 2000."""


@inlined
def _days(year: int, month: int, day: int) -> int:
    """Days since 1970 of a date in the century that begins with 2000; -1 where there is no such date."""
    leap = int(year % 4 == 0)
    if not 1 <= month <= 12 or not 1 <= day <= _DAYS_OF_MONTH[month - 1] + (leap if month == 2 else 0):
        return -1
    before = _DAYS_BEFORE[month - 1] + (leap if month > 2 else 0)
    return int(_DAYS_TO_2000 + 365 * year + (year + 3) // 4 + before + day - 1)


@kernel
def taken_apart(
    ends: NDArray[np.int64],
    text: Bytes,
    first_day: int,
    last_day: int,
    expiry: NDArray[np.int32],
    is_put: NDArray[np.int32],
    strike_thousandths: NDArray[np.int64],
    problem: NDArray[np.int32],
    roots: Bytes,
    root_ends: NDArray[np.int64],
    contracts: Bytes,
    contract_ends: NDArray[np.int64],
) -> None:
    """The fields of each ticker. Text i ends before `ends[i + 1]`; so do its root in `roots` and its contract in `contracts`.

    Days count from 1970; an expiry may lie from `first_day` to `last_day`. Where there is a problem the fields are of no use.
    """
    root_end = 0
    contract_end = 0
    for i in range(expiry.size):
        start = ends[i] + _PREFIX
        fixed = ends[i + 1] - FIXED
        found = POSSIBLE
        if not 1 <= fixed - start <= _LONGEST_ROOT or text[start - 2] != _O or text[start - 1] != _COLON:
            found = FORM
        else:
            for k in range(start, fixed):
                byte = text[k]
                if not (_A <= byte <= _Z or _ZERO <= byte <= _NINE or byte == _DOT):
                    found = FORM
            number = 0
            for k in range(fixed, fixed + FIXED):
                if k != fixed + _DATE:
                    if not _ZERO <= text[k] <= _NINE:
                        found = FORM
                    number = 10 * number + int(text[k]) - _ZERO
            right = text[fixed + _DATE]
            if right not in (_CALL, _PUT):
                found = FORM
            if found == POSSIBLE:
                strike = number % 10**_STRIKE
                date = number // 10**_STRIKE
                day = _days(date // 10_000, date // 100 % 100, date % 100)
                expiry[i] = day
                is_put[i] = right == _PUT
                strike_thousandths[i] = strike
                if day < 0:
                    found = NO_DATE
                elif not first_day <= day <= last_day:
                    found = OUTSIDE_CALENDAR
                elif strike == 0:
                    found = NO_STRIKE
        problem[i] = found
        if found == POSSIBLE:
            for k in range(start, fixed):
                roots[root_end + k - start] = text[k]
            root_end += fixed - start
            for k in range(start, fixed + FIXED):
                contracts[contract_end + k - start] = text[k]
            contract_end += fixed + FIXED - start
        root_ends[i + 1] = root_end
        contract_ends[i + 1] = contract_end
