"""Kernels over the cells of a CSV text: where they end, and the numbers that they spell.

A piece of text is gone over once to find where its cells end, then column by column: no cell has to wait for the one before it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowlake.quant._compile import inlined, part
from flowlake.quant._instructions import BLOCK, WORD, bytes_equal, ones, trailing_zeros, word_at

Bytes = NDArray[np.uint8]
Ends = NDArray[np.int32]

COMMA, QUOTE, CR, LF, DOT = 44, 34, 13, 10, 46
_AT_ONCE = 12
"""Cells of a block that are noted without looking whether there are as many; a block mostly has eight or nine."""
SPARE_ENDS = 2 * _AT_ONCE
_MOST_DIGITS = 19
_POWERS = 10.0 ** np.arange(WORD + 1)
_TENS = 10 ** np.arange(WORD + 1, dtype=np.uint64)
_MAX = np.uint64(2**63 - 1)
_NOT = np.uint64(2**64 - 1)
_ONE = np.uint64(1)
_NONE = np.uint64(0)
_HIGH = np.uint64(0x8080808080808080)
_ZEROS = np.uint64(0x3030303030303030)
_ABOVE_NINE = np.uint64(0x7676767676767676)
_PAIR = np.uint64(0x000000FF000000FF)


@inlined
def _between_quotes(quotes: Any, inside: Any) -> Any:
    """The bytes of a block that stand between quotes: an odd number of quotes lies before them. `inside` is 0, or all ones where
    the block before ended so."""
    for shift in (1, 2, 4, 8, 16, 32):
        quotes ^= quotes << np.uint64(shift)
    return quotes ^ inside


@part
def cell_ends(buffer: Bytes, cells: int, ends: Ends) -> int:
    """How many rows of `cells` cells the text has; -1 where not all rows have as many.

    `ends[k + 1]` is where cell k ends, `ends[0]` is -1: a cell begins behind the end of the one before.
    """
    size = buffer.size - BLOCK
    ends[0] = -1
    count = 1
    lines = 0
    inside = _NONE
    for block in range(0, size, BLOCK):
        feeds = bytes_equal(buffer, block, LF)
        found = feeds | bytes_equal(buffer, block, COMMA)
        quotes = bytes_equal(buffer, block, QUOTE)
        if quotes | inside:
            quoted = _between_quotes(quotes, inside)
            feeds &= ~quoted
            found &= ~quoted
            inside = _NONE - (quoted >> np.uint64(BLOCK - 1))
        lines += ones(feeds)
        after = count + ones(found)
        for i in range(_AT_ONCE):
            ends[count + i] = block + trailing_zeros(found)
            found &= found - _ONE
        count += _AT_ONCE
        while found:
            ends[count] = block + trailing_zeros(found)
            found &= found - _ONE
            count += 1
        count = after
    if inside or count - 1 != lines * cells:
        return -1
    # As many line ends as rows, and each behind the last cell of a row: so no other cell ends at one.
    for row in range(lines):
        if buffer[ends[(row + 1) * cells]] != LF:
            return -1
    return lines


# --- Texts -------------------------------------------------------------------------------------------------------------------


@inlined
def unquoted(buffer: Bytes, start: Any, stop: Any) -> Any:
    """Where the text of a cell begins and ends; a quote that opens and does not close stays and is met as an unusual byte."""
    if stop - start >= 2 and buffer[start] == QUOTE and buffer[stop - 1] == QUOTE:
        return start + 1, stop - 1
    return start, stop


@inlined
def is_again(buffer: Bytes, at: Any, text: Bytes, first: Any, length: Any) -> bool:
    """Whether the `length` bytes at `at` are those of `text` from `first` on."""
    i = 0
    while i + WORD <= length:
        if word_at(buffer, at + i) != word_at(text, first + i):
            return False
        i += WORD
    if i == length:
        return True
    shift = np.uint64(64 - 8 * (length - i))
    return bool((word_at(buffer, at + i) ^ word_at(text, first + i)) << shift == _NONE)


# --- Numbers, by words of eight bytes: a loop over single bytes is bound by its branches -----------------------------------------


@inlined
def _digits_of(word: Any) -> int:
    """How many digits a word begins with, up to eight."""
    value = word ^ _ZEROS
    return trailing_zeros(((value + _ABOVE_NINE) | value) & _HIGH) >> 3


@inlined
def _number_of(word: Any, digits: Any) -> Any:
    """The number that the first `digits` (1 to 8) bytes of a word spell."""
    value = (word ^ _ZEROS) << np.uint64(64 - 8 * digits)
    value = value * np.uint64(10) + (value >> np.uint64(8))
    upper = (value & _PAIR) * np.uint64(0x000F424000000064)
    lower = ((value >> np.uint64(16)) & _PAIR) * np.uint64(0x0000271000000001)
    return (upper + lower) >> np.uint64(32)


@inlined
def _length(start: Any, stop: Any, last: Any, behind: Any) -> Any:
    """Bytes of a cell whose last byte is `last`, without the carriage return that may stand before a line end."""
    return stop - start - int(last == CR and behind == LF and stop > start)


@inlined
def _integer(word: Any, second: Any, third: Any, length: int) -> Any:
    """The whole number that the first `length` bytes of three words spell, above _MAX where they spell none that fits."""
    if length <= WORD:
        return _number_of(word, length) if _digits_of(word) >= length > 0 else _NOT
    if length > _MOST_DIGITS or _digits_of(word) < WORD:
        return _NOT
    more = min(length - WORD, WORD)
    value = _number_of(word, WORD) * _TENS[more] + _number_of(second, more)
    if _digits_of(second) < more:
        return _NOT
    more = length - 2 * WORD
    if more <= 0:
        return value
    return value * _TENS[more] + _number_of(third, more) if _digits_of(third) >= more else _NOT


@part
def integers(
    buffer: Bytes, ends: Ends, cell: int, cells: int, out: NDArray[np.int64], valid: NDArray[np.bool_], is_optional: bool
) -> bool:
    """Whole numbers; a blank cell is 0 and not valid where the column may have such."""
    for row in range(out.size):
        k = row * cells + cell
        start, stop = np.int64(ends[k]) + 1, np.int64(ends[k + 1])
        length = _length(start, stop, buffer[stop - 1], buffer[stop])
        if is_optional:
            valid[row] = length > 0
            if length == 0:
                out[row] = 0
                continue
        value = _integer(word_at(buffer, start), word_at(buffer, start + WORD), word_at(buffer, start + 2 * WORD), length)
        if value > _MAX:
            return False
        out[row] = np.int64(value)
    return True


@part
def decimals(buffer: Bytes, ends: Ends, cell: int, cells: int, out: NDArray[np.float64]) -> bool:
    """Numbers with up to seven digits before the point and as many behind it."""
    for row in range(out.size):
        k = row * cells + cell
        start, stop = np.int64(ends[k]) + 1, np.int64(ends[k + 1])
        length = _length(start, stop, buffer[stop - 1], buffer[stop])
        word = word_at(buffer, start)
        whole = _digits_of(word)
        decimals = length - whole - 1
        if whole == 0 or whole == WORD:
            return False
        if decimals < 0:
            out[row] = np.float64(_number_of(word, length))
            continue
        if decimals == 0 or decimals >= WORD or buffer[start + whole] != DOT:
            return False
        below = word_at(buffer, start + whole + 1)
        if _digits_of(below) < decimals:
            return False
        value = _number_of(word, whole) * _TENS[decimals] + _number_of(below, decimals)
        # Fewer than 15 digits: both are exact, and the quotient is the double nearest to the text.
        out[row] = np.float64(value) / _POWERS[decimals]
    return True
