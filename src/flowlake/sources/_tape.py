"""Kernel that reads option trades from the text of a vendor's file, as long as the file is what such files are.

It takes what vendors write: plain decimal numbers, plain or quoted ASCII texts, rows of equal tickers together and tickers in
ascending order. At anything else it stops and says where; the general reader of `table` then takes the whole file and either reads
it or explains what is wrong. So nothing is decided here about bad input.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowlake.quant._compile import inlined, kernel
from flowlake.sources._words import WORD, digits_of, first_byte, number_of, word_at

Bytes = NDArray[np.uint8]

TICKER, CONDITIONS, CORRECTION, EXCHANGE, PARTICIPANT, PRICE, SIP, SIZE = range(8)
"""What a cell of the file is; the layout of a file is an array of these."""
SHORTEST_ROW = 12
"""Bytes of the shortest row that can be read: a ticker of one character, four numbers of one digit, six commas, a line end."""
MOST_TEXTS = 1024
TEXT_BYTES = 64
"""Distinct texts of conditions or corrections, and their longest: a file beyond that is no option tape."""
_SLOTS = 4 * MOST_TEXTS

_COMMA, _QUOTE, _CR, _LF, _DOT = 44, 34, 13, 10, 46
_ASCII = 128
_PRINTABLE = 32
_MOST_DIGITS = 19
_POWERS = 10.0 ** np.arange(WORD + 1)
_TENS = 10 ** np.arange(WORD + 1, dtype=np.uint64)
_MAX = np.uint64(2**63 - 1)


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
        if buffer[start + i] >= _ASCII or buffer[start + i] < _PRINTABLE:
            return -2
        text[code, i] = buffer[start + i]
    lengths[code] = size
    slots[at] = code
    count[0] = code + 1
    return code


@inlined
def _key_slot(key: Any) -> Any:
    return np.int64((key * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(52))


@inlined
def _recalled(word: Any, length: int, keys: NDArray[np.uint64], codes: NDArray[np.int32]) -> Any:
    """The code of the text in the first `length` bytes of a word; -1 where it has not been seen."""
    key = word << np.uint64(64 - 8 * length) | np.uint64(length)
    slot = _key_slot(key)
    return np.int64(codes[slot]) if keys[slot] == key else np.int64(-1)


@inlined
def _remember(buffer: Bytes, start: int, stop: int, code: int, keys: NDArray[np.uint64], codes: NDArray[np.int32]) -> None:
    """Texts of less than a word are found again by their bytes, without a loop."""
    if code >= 0 and stop - start < WORD:
        key = word_at(buffer, start) << np.uint64(64 - 8 * (stop - start)) | np.uint64(stop - start)
        keys[_key_slot(key)] = key
        codes[_key_slot(key)] = code


@inlined
def _is_again(buffer: Bytes, at: int, text: Bytes, first: int, end: int) -> bool:
    """Whether the cell at `at` is the text from `first` to `end`."""
    length = end - first
    i = 0
    while i + WORD <= length:
        if word_at(buffer, at + i) != word_at(text, first + i):
            return False
        i += WORD
    if i < length:
        shift = np.uint64(64 - 8 * (length - i))
        if (word_at(buffer, at + i) ^ word_at(text, first + i)) << shift != np.uint64(0):
            return False
    return bool(buffer[at + length] == _COMMA)


@kernel
def read_rows(
    buffer: Bytes,
    layout: NDArray[np.int64],
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
    """Read the whole lines of `buffer`, whose last eight bytes are not text, to the arrays behind row `state[0]` and ticker
    `state[1]`; False where it stops.

    `ticker_ends[i + 1]` is where ticker i ends in `ticker_text`, `run_starts[i]` its first row. `state[2]` becomes 1 where times
    within a ticker descend. The arrays have room for all rows that the buffer can hold. A text that goes on from an earlier
    piece needs the last ticker of that piece, so `state[1]` is 0 only at the start of a file.
    """
    cond_text, cond_lengths, cond_slots, cond_count, cond_keys, cond_codes = condition_words
    corr_text, corr_lengths, corr_slots, corr_count, corr_keys, corr_codes = correction_words
    row = state[0]
    tickers = state[1]
    cells = layout.size
    at = 0
    end = buffer.size - WORD
    while at < end:
        has_participant[row] = False
        participant[row] = 0
        conditions[row] = -1
        corrections[row] = -1
        is_new = False
        for cell in range(cells):
            kind = layout[cell]
            start = at
            if kind <= CORRECTION:
                stop = -1
                if buffer[at] == _QUOTE:
                    start = at + 1
                    at = start
                    while buffer[at] != _QUOTE:
                        if buffer[at] == _LF or buffer[at] == _CR:
                            return False
                        at += 1
                    stop = at
                    at += 1
                elif kind == TICKER:
                    if tickers > 0 and _is_again(buffer, at, ticker_text, ticker_ends[tickers - 1], ticker_ends[tickers]):
                        at += ticker_ends[tickers] - ticker_ends[tickers - 1] + 1
                        continue
                else:
                    word = word_at(buffer, at)
                    length = first_byte(word, np.uint64(_COMMA))
                    if length == 0:
                        at += 1
                        continue
                    if length < WORD:
                        if kind == CONDITIONS:
                            code = _recalled(word, length, cond_keys, cond_codes)
                            conditions[row] = code
                        else:
                            code = _recalled(word, length, corr_keys, corr_codes)
                            corrections[row] = code
                        if code >= 0:
                            at += length + 1
                            continue
                if stop < 0:
                    while buffer[at] != _COMMA and buffer[at] != _LF and buffer[at] != _CR:
                        if buffer[at] == _QUOTE:
                            return False
                        at += 1
                    stop = at
                if kind == CONDITIONS:
                    code = _coded(buffer, start, stop, cond_text, cond_lengths, cond_slots, cond_count)
                    if code < -1:
                        return False
                    conditions[row] = code
                    _remember(buffer, start, stop, code, cond_keys, cond_codes)
                elif kind == CORRECTION:
                    code = _coded(buffer, start, stop, corr_text, corr_lengths, corr_slots, corr_count)
                    if code < -1:
                        return False
                    corrections[row] = code
                    _remember(buffer, start, stop, code, corr_keys, corr_codes)
                else:
                    length = stop - start
                    if length == 0 or length > TEXT_BYTES:
                        return False
                    order = 1
                    if tickers > 0:
                        first = ticker_ends[tickers - 1]
                        before = ticker_ends[tickers] - first
                        i = 0
                        while i < length and i < before and buffer[start + i] == ticker_text[first + i]:
                            i += 1
                        if i < length and i < before:
                            order = 1 if buffer[start + i] > ticker_text[first + i] else -1
                        else:
                            order = length - before
                    if order < 0:
                        return False
                    if order > 0:
                        is_new = True
                        first = ticker_ends[tickers]
                        for i in range(length):
                            byte = buffer[start + i]
                            if byte >= _ASCII or byte < _PRINTABLE:
                                return False
                            ticker_text[first + i] = byte
                        run_starts[tickers] = row
                        ticker_ends[tickers + 1] = first + length
                        tickers += 1
            else:
                word = word_at(buffer, at)
                digits = digits_of(word)
                value = number_of(word, digits) if digits else np.uint64(0)
                at += digits
                after = (word >> np.uint64(8 * digits)) & np.uint64(255) if digits < WORD else np.uint64(0)
                if kind in (SIP, EXCHANGE, PARTICIPANT):
                    if digits == WORD:
                        word = word_at(buffer, at)
                        more = digits_of(word)
                        if more > 0:
                            value = value * _TENS[more] + number_of(word, more)
                            at += more
                            digits += more
                        if more == WORD:
                            word = word_at(buffer, at)
                            more = digits_of(word)
                            if more > 0:
                                value = value * _TENS[more] + number_of(word, more)
                                at += more
                                digits += more
                    if digits > _MOST_DIGITS or value > _MAX:
                        return False
                    if kind == PARTICIPANT:
                        has_participant[row] = digits > 0
                        participant[row] = np.int64(value)
                    elif digits == 0:
                        return False
                    elif kind == SIP:
                        sip[row] = np.int64(value)
                    else:
                        exchange[row] = np.int64(value)
                else:
                    decimals = 0
                    if after == _DOT:
                        word = word_at(buffer, at + 1)
                        decimals = digits_of(word)
                        if decimals == 0:
                            return False
                        value = value * _TENS[decimals] + number_of(word, decimals)
                        at += decimals + 1
                    if digits == 0 or digits == WORD or decimals == WORD:
                        return False
                    # Fewer than 15 digits: both are exact, and the quotient is the double nearest to the text.
                    number = np.float64(value) / _POWERS[decimals]
                    if kind == PRICE:
                        price[row] = number
                    else:
                        size[row] = number
            if cell < cells - 1:
                if buffer[at] != _COMMA:
                    return False
                at += 1
        if buffer[at] == _CR:
            at += 1
        if at >= end or buffer[at] != _LF:
            return False
        at += 1
        if not is_new and row > 0 and sip[row] < sip[row - 1]:
            state[2] = 1
        row += 1
        state[0] = row
        state[1] = tickers
    return True
