"""Kernels that read option trades from the text of a vendor's file, as long as the file is what such files are.

They take what vendors write: plain decimal numbers, plain or quoted ASCII texts, rows of equal tickers together and tickers in
ascending order. At anything else they stop; the general reader of `table` then takes the whole file and either reads it or explains
what is wrong. So nothing is decided here about bad input.

A piece of text is gone over once to find where its cells end, then column by column: no cell has to wait for the one before it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowlake.quant._compile import inlined, kernel, part
from flowlake.quant._instructions import WORD, word_at
from flowlake.sources._cells import QUOTE, Ends, cell_ends, decimals, integers, is_again, unquoted

Bytes = NDArray[np.uint8]

TICKER, CONDITIONS, CORRECTION, EXCHANGE, PARTICIPANT, PRICE, SIP, SIZE = range(8)
"""What a cell of the file is; the layout of a file is an array of these."""
MOST_TEXTS = 1024
TEXT_BYTES = 64
"""Distinct texts of conditions or corrections, and their longest: a file beyond that is no option tape."""
_SLOTS = 4 * MOST_TEXTS

_ASCII = 128
_PRINTABLE = 32
_NONE = np.uint64(0)


class Vocabulary:
    """Distinct texts in order of appearance, kept from one piece of a file to the next."""

    def __init__(self) -> None:
        self.text = np.zeros((MOST_TEXTS, TEXT_BYTES), np.uint8)
        self.lengths = np.zeros(MOST_TEXTS, np.int64)
        self.slots = np.full(_SLOTS, -1, np.int32)
        self.count = np.zeros(1, np.int64)
        self.keys = np.zeros(_SLOTS, np.uint64)
        self.key_codes = np.zeros(_SLOTS, np.int32)

    @property
    def texts(self) -> list[str]:
        return [self.text[i, : self.lengths[i]].tobytes().decode("ascii") for i in range(int(self.count[0]))]

    @property
    def arrays(self) -> tuple[Any, ...]:
        return self.text, self.lengths, self.slots, self.count, self.keys, self.key_codes


# --- Texts ------------------------------------------------------------------------------------------------------------------


@inlined
def _coded(
    buffer: Bytes,
    start: int,
    end: int,
    text: Bytes,
    lengths: NDArray[np.int64],
    slots: NDArray[np.int32],
    count: NDArray[np.int64],
) -> Any:
    """The code of a text; -1 where it is empty, -2 where the vocabulary cannot take it."""
    size = end - start
    if size == 0:
        return -1
    if size > TEXT_BYTES:
        return -2
    mixed = np.uint64(1469598103934665603)
    for i in range(start, end):
        mixed = (mixed ^ np.uint64(buffer[i])) * np.uint64(1099511628211)
    at = np.int64((mixed >> np.uint64(20)) & np.uint64(_SLOTS - 1))
    while slots[at] >= 0:
        code = np.int64(slots[at])
        if lengths[code] == size:
            i = 0
            while i < size and text[code, i] == buffer[start + i]:
                i += 1
            if i == size:
                return code
        at = (at + 1) & (_SLOTS - 1)
    code = count[0]
    if code == MOST_TEXTS:
        return -2
    for i in range(size):
        byte = buffer[start + i]
        if byte >= _ASCII or byte < _PRINTABLE or byte == QUOTE:
            return -2
        text[code, i] = byte
    lengths[code] = size
    slots[at] = code
    count[0] = code + 1
    return code


@inlined
def _key_slot(key: Any) -> Any:
    return np.int64((key * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(52))


@part
def _texts(buffer: Bytes, ends: Ends, cell: int, cells: int, codes: NDArray[np.int32], words: tuple[Any, ...]) -> bool:
    """The codes of a column of texts. Cells of less than a word are found again by their bytes, without a loop."""
    text, lengths, slots, count, keys, key_codes = words
    for row in range(codes.size):
        k = row * cells + cell
        start = np.int64(ends[k]) + 1
        length = np.int64(ends[k + 1]) - start
        key = _NONE
        if length == 0:
            codes[row] = -1
            continue
        if length < WORD:
            key = word_at(buffer, start) << np.uint64(64 - 8 * length) | np.uint64(length)
            slot = _key_slot(key)
            if keys[slot] == key:
                codes[row] = key_codes[slot]
                continue
        first, last = unquoted(buffer, start, start + length)
        code = _coded(buffer, first, last, text, lengths, slots, count)
        if code < -1:
            return False
        codes[row] = code
        if key:
            keys[_key_slot(key)] = key
            key_codes[_key_slot(key)] = code
    return True


@inlined
def _order(buffer: Bytes, start: int, length: int, text: Bytes, first: int, before: int) -> int:
    """Above 0 where the text in `buffer` belongs behind the one in `text`, 0 where they are equal."""
    i = 0
    while i < length and i < before and buffer[start + i] == text[first + i]:
        i += 1
    if i < length and i < before:
        return 1 if buffer[start + i] > text[first + i] else -1
    return int(length - before)


@part
def _tickers(
    buffer: Bytes,
    ends: Ends,
    cell: int,
    cells: int,
    begin: int,
    end: int,
    text: Bytes,
    text_ends: NDArray[np.int64],
    run_starts: NDArray[np.int64],
    state: NDArray[np.int64],
) -> bool:
    """Note each ticker that differs from the one before, and its first row."""
    tickers = state[1]
    first = text_ends[tickers - 1] if tickers else 0
    before = text_ends[tickers] - first
    k = cell
    for row in range(begin, end):
        start = np.int64(ends[k]) + 1
        length = np.int64(ends[k + 1]) - start
        k += cells
        if length == before > 0 and is_again(buffer, start, text, first, length):
            continue
        start, stop = unquoted(buffer, start, start + length)
        length = stop - start
        if length == 0 or length > TEXT_BYTES:
            return False
        order = _order(buffer, start, length, text, first, before) if tickers else 1
        if order < 0:
            return False
        if order > 0:
            first += before
            for i in range(length):
                byte = buffer[start + i]
                if byte >= _ASCII or byte < _PRINTABLE or byte == QUOTE:
                    return False
                text[first + i] = byte
            run_starts[tickers] = row
            tickers += 1
            text_ends[tickers] = first + length
            before = length
    state[1] = tickers
    return True


# --- A piece of a file ------------------------------------------------------------------------------------------------------


@inlined
def _descends(moment: NDArray[np.int64], begin: int, end: int, new: NDArray[np.int64]) -> bool:
    """Whether a moment lies before the one in front of it, in the same run; `new` are the rows where runs begin."""
    at = 0
    for row in range(begin, end):
        is_new = at < new.size and new[at] == row
        at += is_new
        if not is_new and row > 0 and moment[row] < moment[row - 1]:
            return True
    return False


@kernel
def read_rows(
    buffer: Bytes,
    layout: NDArray[np.int64],
    ends: Ends,
    ticker_text: Bytes,
    ticker_ends: NDArray[np.int64],
    run_starts: NDArray[np.int64],
    conditions: NDArray[np.int32],
    corrections: NDArray[np.int32],
    exchange: NDArray[np.int64],
    participant: NDArray[np.int64],
    has_participant: NDArray[np.bool_],
    price: NDArray[np.float64],
    sip: NDArray[np.int64],
    size: NDArray[np.float64],
    state: NDArray[np.int64],
    condition_words: tuple[Any, ...],
    correction_words: tuple[Any, ...],
) -> bool:
    """Read the whole lines of `buffer`, whose last BLOCK bytes are zeros, to the arrays behind row `state[0]` and ticker
    `state[1]`; False where something is unusual, and then what was read is of no use.

    `ticker_ends[i + 1]` is where ticker i ends in `ticker_text`, `run_starts[i]` its first row. `state[2]` becomes 1 where times
    within a ticker descend. The arrays have room for all rows that the buffer can hold, `ends` for a cell a byte and SPARE_ENDS. A
    ticker that goes on from an earlier piece needs the last ticker of that piece, so `state[1]` is 0 only at the start of a file.
    """
    cells = layout.size
    rows = cell_ends(buffer, cells, ends)
    if rows < 0:
        return False
    begin = state[0]
    end = begin + rows
    first_new = state[1]
    for cell in range(cells):
        kind = layout[cell]
        if kind == TICKER:
            is_good = _tickers(buffer, ends, cell, cells, begin, end, ticker_text, ticker_ends, run_starts, state)
        elif kind == CONDITIONS:
            is_good = _texts(buffer, ends, cell, cells, conditions[begin:end], condition_words)
        elif kind == CORRECTION:
            is_good = _texts(buffer, ends, cell, cells, corrections[begin:end], correction_words)
        elif kind == PRICE:
            is_good = decimals(buffer, ends, cell, cells, price[begin:end])
        elif kind == SIZE:
            is_good = decimals(buffer, ends, cell, cells, size[begin:end])
        elif kind == EXCHANGE:
            is_good = integers(buffer, ends, cell, cells, exchange[begin:end], has_participant[begin:end], False)
        elif kind == SIP:
            is_good = integers(buffer, ends, cell, cells, sip[begin:end], has_participant[begin:end], False)
        else:
            is_good = integers(buffer, ends, cell, cells, participant[begin:end], has_participant[begin:end], True)
        if not is_good:
            return False
    if _descends(sip, begin, end, run_starts[first_new : state[1]]):
        state[2] = 1
    state[0] = end
    return True
