"""Kernels that turn columns into the bytes of Parquet pages: dictionaries, bit packing, run lengths, deltas.

Source: the Parquet format, Encodings.md (PLAIN, RLE, RLE_DICTIONARY, DELTA_BINARY_PACKED).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowlake.quant._compile import inlined, kernel

Bytes = NDArray[np.uint8]
BLOCK = 128
MINI = 32
SLOTS = 1 << 16
MOST_DISTINCT = SLOTS // 2
_TRIAL = 4096
"""Rows after which a column that hardly repeats is given up."""


@inlined
def _slot(value: np.uint64) -> np.uint64:
    mixed = value * np.uint64(0x9E3779B97F4A7C15)
    return (mixed ^ (mixed >> np.uint64(29))) >> np.uint64(48)


@kernel
def distinct_codes(values: NDArray[np.uint64], slots: NDArray[np.int32], codes: NDArray[np.int32], seen: NDArray[np.uint64]) -> int:
    """Number of distinct values, in order of appearance in `seen`, and each row's code; -1 where they are too many to pay.

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
            if count == MOST_DISTINCT or (i > _TRIAL and 3 * count > 2 * i):
                return -1
            slots[at] = count
            seen[count] = value
            count += 1
        codes[i] = slots[at]
    return count


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


@kernel
def code_counts(codes: NDArray[np.int32], counts: NDArray[np.int64]) -> int:
    """Add to `counts` how often each code stands there; how many are negative."""
    nulls = 0
    for i in range(codes.size):
        if codes[i] < 0:
            nulls += 1
        else:
            counts[codes[i]] += 1
    return nulls


@kernel
def packed_codes(codes: NDArray[np.int32], meaning: NDArray[np.int32], width: int, out: Bytes) -> int:
    """One bit-packed run of `meaning[code]` for all codes that are not negative; the bytes used of `out`."""
    count = 0
    for i in range(codes.size):
        count += codes[i] >= 0
    groups = (count + 7) // 8
    at = _varint(out, 0, np.uint64(groups << 1 | 1))
    end = at + groups * width
    held = np.uint64(0)
    bits = 0
    for i in range(codes.size):
        if codes[i] < 0:
            continue
        held |= np.uint64(meaning[codes[i]]) << np.uint64(bits)
        bits += width
        while bits >= 8:
            out[at] = np.uint8(held & np.uint64(255))
            held >>= np.uint64(8)
            bits -= 8
            at += 1
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
def bits_of(flags: NDArray[np.bool_], codes: NDArray[np.int32], out: Bytes) -> int:
    """`flags[code]` of all codes that are not negative, a bit each; the bytes used of `out`."""
    held = 0
    bits = 0
    at = 0
    for i in range(codes.size):
        if codes[i] < 0:
            continue
        held |= int(flags[codes[i]]) << bits
        bits += 1
        if bits == 8:
            out[at] = np.uint8(held)
            at += 1
            held = 0
            bits = 0
    if bits:
        out[at] = np.uint8(held)
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
            width = 0
            while every:
                width += 1
                every >>= np.uint64(1)
            if m * MINI >= count:
                width = 0
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
