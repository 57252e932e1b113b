"""Kernels that turn columns into the bytes of Parquet pages: dictionaries, bit packing, run lengths, deltas.

Source: the Parquet format, Encodings.md (PLAIN, RLE, RLE_DICTIONARY, DELTA_BINARY_PACKED).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowlake.quant._compile import inlined, kernel, part
from flowlake.quant._instructions import leading_zeros, set_word_at

Bytes = NDArray[np.uint8]
BLOCK = 128
MINI = 32
SLOTS = 1 << 16
MOST_DISTINCT = SLOTS // 2
TRIAL = 4096
"""Rows after which a column that hardly repeats is given up."""
FEW = 2 * TRIAL // 3
"""Distinct values that are never too many to pay."""
_GROUP = 8
_WIDEST = 15
"""Bits of the widest code of which four, and what is left of a byte before them, lie in a word."""


@inlined
def _slot(value: np.uint64) -> np.uint64:
    mixed = value * np.uint64(0x9E3779B97F4A7C15)
    return (mixed ^ (mixed >> np.uint64(29))) >> np.uint64(48)


@kernel
def distinct_codes(
    values: NDArray[np.uint64], trial: int, slots: NDArray[np.int32], codes: NDArray[np.int32], seen: NDArray[np.uint64]
) -> int:
    """Number of distinct values, in order of appearance in `seen`, and each row's code; -1 where they are too many, or too many
    to pay once `trial` rows were seen.

    `slots` (SLOTS) is scratch. Values are compared by their bits.
    """
    slots[:] = -1
    count = 0
    for i in range(values.size):
        value = values[i]
        at = _slot(value)
        while slots[at] >= 0 and seen[slots[at]] != value:
            at = (at + np.uint64(1)) & np.uint64(SLOTS - 1)
        if slots[at] < 0:
            if count == MOST_DISTINCT or (i > trial and 3 * count > 2 * i):
                return -1
            slots[at] = count
            seen[count] = value
            count += 1
        codes[i] = slots[at]
    return count


@kernel
def appearance(codes: NDArray[np.int32], place: NDArray[np.int32], order: NDArray[np.int32]) -> tuple[int, int]:
    """Number of distinct codes that are not negative, in order of appearance in `order`, and how many rows are negative.

    `place` holds -1 for every code; it becomes the place of each in `order`.
    """
    count = 0
    nulls = 0
    for i in range(codes.size):
        code = codes[i]
        if code < 0:
            nulls += 1
        elif place[code] < 0:
            place[code] = count
            order[count] = code
            count += 1
    return count, nulls


@kernel
def spelled(ends: NDArray[np.int64], text: Bytes, out: Bytes) -> int:
    """Texts, each behind its length in four bytes; the bytes used of `out`. Text i ends before `ends[i + 1]`."""
    at = 0
    for i in range(ends.size - 1):
        length = ends[i + 1] - ends[i]
        for b in range(4):
            out[at + b] = (length >> (8 * b)) & 255
        at += 4
        for b in range(length):
            out[at + b] = text[ends[i] + b]
        at += length
    return at


@inlined
def _varint(out: Bytes, at: int, value: np.uint64) -> int:
    while value >= np.uint64(128):
        out[at] = np.uint8(value & np.uint64(127)) | np.uint8(128)
        value >>= np.uint64(7)
        at += 1
    out[at] = np.uint8(value)
    return at + 1


@inlined
def _zigzag(value: np.int64) -> np.uint64:
    return np.uint64((value << np.int64(1)) ^ (value >> np.int64(63)))


@inlined
def _four(codes: NDArray[np.int32], first: int, meaning: NDArray[np.int32], width: np.uint64) -> np.uint64:
    """The meanings of four codes in a word, `width` bits each."""
    word = np.uint64(meaning[codes[first + 3]])
    word = (word << width) | np.uint64(meaning[codes[first + 2]])
    word = (word << width) | np.uint64(meaning[codes[first + 1]])
    return (word << width) | np.uint64(meaning[codes[first]])


@kernel
def packed_codes(codes: NDArray[np.int32], meaning: NDArray[np.int32], width: int, nulls: int, out: Bytes) -> int:
    """One bit-packed run of `meaning[code]` for all codes but the `nulls` negative ones; the bytes used of `out`, which has a word
    to spare.
    """
    groups = (codes.size - nulls + _GROUP - 1) // _GROUP
    at = _varint(out, 0, np.uint64(groups << 1 | 1))
    return _packed(codes, meaning, width, nulls, out, at)


@kernel
def bits_of(codes: NDArray[np.int32], meaning: NDArray[np.int32], nulls: int, out: Bytes) -> int:
    """`meaning[code]`, 0 or 1, of all codes but the `nulls` negative ones, a bit each; the bytes used of `out` as above."""
    return _packed(codes, meaning, 1, nulls, out, 0)


@part
def _packed(codes: NDArray[np.int32], meaning: NDArray[np.int32], width: int, nulls: int, out: Bytes, at: int) -> int:
    end = at + (codes.size - nulls + _GROUP - 1) // _GROUP * width
    i = 0
    if nulls == 0 and width <= _WIDEST:
        bits = np.uint64(width)
        whole = 4 * width // 8
        rest = np.uint64(4 * width % 8)
        while i + _GROUP <= codes.size:
            low = _four(codes, i, meaning, bits)
            high = _four(codes, i + 4, meaning, bits)
            set_word_at(out, at, low)
            set_word_at(out, at + whole, (low >> np.uint64(8 * whole)) | (high << rest))
            at += width
            i += _GROUP
    held = np.uint64(0)
    used = 0
    while i < codes.size:
        if codes[i] >= 0:
            held |= np.uint64(meaning[codes[i]]) << np.uint64(used)
            used += width
            while used >= 8:
                out[at] = np.uint8(held & np.uint64(255))
                held >>= np.uint64(8)
                used -= 8
                at += 1
        i += 1
    while at < end:
        out[at] = np.uint8(held & np.uint64(255))
        held >>= np.uint64(8)
        at += 1
    return end


@kernel
def run_codes(codes: NDArray[np.int32], lengths: NDArray[np.int64], width: int, out: Bytes) -> int:
    """Runs of equal codes, neighbours joined; the bytes used of `out`."""
    at = 0
    i = 0
    size = (width + 7) // 8
    while i < codes.size:
        rows = lengths[i]
        code = codes[i]
        i += 1
        while i < codes.size and codes[i] == code:
            rows += lengths[i]
            i += 1
        if rows == 0:
            continue
        at = _varint(out, at, np.uint64(rows << 1))
        for b in range(size):
            out[at] = np.uint8((code >> (8 * b)) & 255)
            at += 1
    return at


@kernel
def deltas(values: NDArray[np.int64], packed: NDArray[np.uint64], out: Bytes) -> int:
    """DELTA_BINARY_PACKED of at least one value; the bytes used of `out`. `packed` (MINI + 1 words) is scratch."""
    at = _varint(out, 0, np.uint64(BLOCK))
    at = _varint(out, at, np.uint64(BLOCK // MINI))
    at = _varint(out, at, np.uint64(values.size))
    at = _varint(out, at, _zigzag(values[0]))
    gaps = np.empty(BLOCK, np.int64)
    packed_bytes = packed.view(np.uint8)
    start = 1
    while start < values.size:
        count = min(BLOCK, values.size - start)
        least = values[start] - values[start - 1]
        for i in range(count):
            gaps[i] = values[start + i] - values[start + i - 1]
            least = min(least, gaps[i])
        for i in range(count, BLOCK):
            gaps[i] = least
        at = _varint(out, at, _zigzag(least))
        widths = at
        at += BLOCK // MINI
        for m in range(BLOCK // MINI):
            every = np.uint64(0)
            for i in range(m * MINI, (m + 1) * MINI):
                every |= np.uint64(gaps[i] - least)
            width = 64 - leading_zeros(every) if m * MINI < count else 0
            out[widths + m] = width
            word = 0
            bits = 0
            held = np.uint64(0)
            for i in range(m * MINI, (m + 1) * MINI):
                gap = np.uint64(gaps[i] - least)
                held |= gap << np.uint64(bits)
                bits += width
                if bits >= 64:
                    packed[word] = held
                    word += 1
                    bits -= 64
                    held = np.uint64(0)
                    if bits:
                        held = gap >> np.uint64(width - bits)
            packed[word] = held
            for b in range(4 * width):
                out[at + b] = packed_bytes[b]
            at += 4 * width
        start += count
    return at
