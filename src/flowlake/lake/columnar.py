"""Writing a partition in batches: a Parquet file of fixed row groups whose bytes depend on the rows alone.

A general writer looks at every value of every row anew. A batch already knows that a contract's fields hold for a run of rows and
that a print's flags follow from its condition, so that most columns cost next to nothing here. Any Parquet reader reads the file.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from typing import IO, Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from flowlake.datasets.batch import Batch, BatchColumn, Coded, Plain, Runs, from_frame, joined, part
from flowlake.datasets.model import KNOWN_AT, Dataset
from flowlake.lake import _pages
from flowlake.lake._thrift import binary, flag, i16, i32, i64, listed, struct, text

MAGIC = b"PAR1"
_WRITER = "flowlake"
_ZSTD, _LEVEL = 6, 1
_PLAIN, _RLE, _DELTA, _DICTIONARY = 0, 3, 5, 8
_DATA_PAGE, _DICTIONARY_PAGE = 0, 2
_BOOLEAN, _INT32, _INT64, _DOUBLE, _BYTE_ARRAY = 0, 1, 2, 5, 6
_OPTIONAL = 1
_NOTHING = struct({})
_NUMBERS = np.arange(1 << 16, dtype=np.int32)


@dataclass(frozen=True)
class _Type:
    """A column's type: Parquet's physical type, and what it stands for."""

    physical: int
    dtype: Any
    """NumPy's, of a number."""
    converted: int | None = None
    logical: bytes | None = None


_STRING = _Type(_BYTE_ARRAY, None, 0, struct({1: _NOTHING}))
_TYPES: dict[Any, _Type] = {
    pl.String: _STRING,
    pl.Boolean: _Type(_BOOLEAN, np.bool_),
    pl.Int64: _Type(_INT64, np.int64),
    pl.Float64: _Type(_DOUBLE, np.float64),
    pl.Date: _Type(_INT32, np.int32, 6, struct({6: _NOTHING})),
    pl.Datetime: _Type(_INT64, np.int64, None, struct({8: struct({1: flag(True), 2: struct({3: _NOTHING})})})),
}


@dataclass(frozen=True)
class _Chunk:
    """One column of a row group: pages ready to be written, and what the footer says of them."""

    body: bytes
    uncompressed: int
    dictionary_bytes: int
    encodings: tuple[int, ...]
    statistics: bytes


class PartitionWriter:
    """Writes batches of a dataset, which must come in its order, to `file`; `close` writes the footer.

    Row groups hold `ds.row_group_size` rows whatever the size of the batches, so that equal rows give equal bytes.
    """

    def __init__(self, file: IO[bytes], ds: Dataset) -> None:
        self._file = file
        self._schema = {name: _TYPES[dtype.base_type()] for name, dtype in ds.polars_schema().items()}
        self._dtypes = ds.polars_schema()
        self._group_rows = ds.row_group_size
        self._held: list[Batch] = []
        self._groups: list[bytes] = []
        self._scratch = _Scratch(ds.row_group_size)
        self._at = file.write(MAGIC)
        self.rows = 0
        self.known_last: int | None = None
        """Nanoseconds since 1970 of the newest `known_at_utc` so far; None where there is no row."""

    def write(self, batch: Batch) -> None:
        if not batch.rows:
            return
        self.rows += batch.rows
        newest = int(batch.plain(KNOWN_AT).values.max())
        self.known_last = newest if self.known_last is None else max(newest, self.known_last)
        self._held.append(batch)
        held = sum(part.rows for part in self._held)
        while held >= self._group_rows:
            self._take(self._group_rows)
            held -= self._group_rows

    def close(self, metadata: dict[str, str]) -> None:
        """Write what is held back and the footer with `metadata`. The file stays open."""
        if rest := sum(part.rows for part in self._held):
            self._take(rest)
        footer = self._footer(metadata)
        self._file.write(footer + len(footer).to_bytes(4, "little") + MAGIC)

    def _take(self, rows: int) -> None:
        """The first `rows` held rows become a row group."""
        parts: list[Batch] = []
        missing = rows
        while missing:
            first = self._held.pop(0)
            if first.rows > missing:
                self._held.insert(0, part(first, missing, first.rows))
                first = part(first, 0, missing)
            parts.append(first)
            missing -= first.rows
        self._write_group(joined(parts))

    def _write_group(self, batch: Batch) -> None:
        chunks: list[bytes] = []
        start = self._at
        size = 0
        written: dict[tuple[int, int, Any], _Chunk] = {}
        for name, kind in self._schema.items():
            column = batch.columns[name]
            key = (id(column), kind.physical, kind.dtype)  # one column under two names is encoded once
            chunk = written.get(key) or _encoded(column, kind, self._dtypes[name], batch.rows, self._scratch)
            written[key] = chunk
            chunks.append(self._column(name, kind, chunk, batch.rows))
            size += chunk.uncompressed
            self._at += self._file.write(chunk.body)
        fields = {1: listed(chunks), 2: i64(size), 3: i64(batch.rows), 5: i64(start), 6: i64(self._at - start)}
        self._groups.append(struct({**fields, 7: i16(len(self._groups) % 32_768)}))

    def _column(self, name: str, kind: _Type, chunk: _Chunk, rows: int) -> bytes:
        described = struct(
            {
                1: i32(kind.physical),
                2: listed([i32(encoding) for encoding in chunk.encodings]),
                3: listed([text(name)]),
                4: i32(_ZSTD),
                5: i64(rows),
                6: i64(chunk.uncompressed),
                7: i64(len(chunk.body)),
                9: i64(self._at + chunk.dictionary_bytes),
                11: i64(self._at) if chunk.dictionary_bytes else None,
                12: chunk.statistics,
            }
        )
        return struct({2: i64(self._at), 3: described})

    def _footer(self, metadata: dict[str, str]) -> bytes:
        elements = [struct({4: text("schema"), 5: i32(len(self._schema))})]
        for name, kind in self._schema.items():
            converted = None if kind.converted is None else i32(kind.converted)
            elements.append(struct({1: i32(kind.physical), 3: i32(_OPTIONAL), 4: text(name), 6: converted, 10: kind.logical}))
        pairs = [struct({1: text(key), 2: text(value)}) for key, value in metadata.items()]
        footer = struct(
            {
                1: i32(2),
                2: listed(elements),
                3: i64(self.rows),
                4: listed(self._groups),
                5: listed(pairs) if pairs else None,
                6: text(_WRITER),
                7: listed([struct({1: _NOTHING})] * len(self._schema)),
            }
        )
        return footer[1:]


def encode(ds: Dataset, frame: pl.DataFrame, metadata: dict[str, str]) -> bytes:
    """The bytes of a conformed table, as if it had come in batches."""
    file = io.BytesIO()
    writer = PartitionWriter(file, ds)
    writer.write(from_frame(frame, ds))
    writer.close(metadata)
    return file.getvalue()


# --- Pages ---------------------------------------------------------------------------------------------------------


class _Scratch:
    """Memory that is used again for every page."""

    def __init__(self, rows: int) -> None:
        self.out = np.empty(16 * rows + 1024, np.uint8)
        self.slots = np.empty(_pages.SLOTS, np.int32)
        self.codes = np.empty(rows, np.int32)
        self.seen = np.empty(_pages.MOST_DISTINCT, np.uint64)
        self.words = np.empty(_pages.MINI + 1, np.uint64)
        self.codec = pa.Codec("zstd", compression_level=_LEVEL)

        self._flags: dict[int, tuple[pl.Series, NDArray[np.bool_]]] = {}
        self._counted: tuple[NDArray[np.int32], NDArray[np.int64], int] | None = None

    def counts(self, column: Coded) -> tuple[NDArray[np.int64], int]:
        """How often each code stands there, and how many rows are null. Columns that share their codes come one after the other."""
        if self._counted is None or self._counted[0] is not column.codes:
            counts = np.zeros(max(column.values.len(), 1), np.int64)
            self._counted = (column.codes, counts, int(_pages.code_counts(column.codes, counts)))
        return self._counted[1], self._counted[2]

    def flags(self, values: pl.Series) -> NDArray[np.bool_]:
        """What each code of a column of truth values means; the batches of a stream mostly share it."""
        if id(values) not in self._flags:
            self._flags[id(values)] = (values, np.append(values.cast(pl.Boolean).to_numpy(), False))
        return self._flags[id(values)][1]

    def room(self, size: int) -> NDArray[np.uint8]:
        if size > self.out.size:
            self.out = np.empty(2 * size, np.uint8)
        return self.out


def _encoded(column: BatchColumn, kind: _Type, dtype: pl.DataType, rows: int, scratch: _Scratch) -> _Chunk:
    if isinstance(column, Runs):
        return _of_runs(column, kind, dtype, rows, scratch)
    if isinstance(column, Coded):
        if kind.physical in (_BOOLEAN, _BYTE_ARRAY):
            return _of_codes(column, kind, dtype, rows, scratch)
        # A number may come with a code or without: equal rows must give equal bytes.
        column = Plain(
            column.values.to_physical().to_numpy()[column.codes], None if (column.codes >= 0).all() else column.codes >= 0
        )
    return _of_numbers(column, kind, rows, scratch)


def _of_runs(column: Runs, kind: _Type, dtype: pl.DataType, rows: int, scratch: _Scratch) -> _Chunk:
    if kind.physical == _BOOLEAN:
        codes = np.repeat(column.values.cast(pl.Int32).to_numpy(), column.lengths)
        return _of_codes(Coded(codes, pl.Series([False, True])), kind, dtype, rows, scratch)
    dictionary, codes = _Dictionary.of(column.values.cast(dtype), kind)
    width = _width(dictionary.count)
    used = _pages.run_codes(codes, column.lengths, width, scratch.room(16 * codes.size + 16))
    body = _levels(None, rows, scratch, bytes([width]) + scratch.out[:used].tobytes())
    return _with_dictionary(dictionary, body, rows, 0, scratch)


def _of_codes(column: Coded, kind: _Type, dtype: pl.DataType, rows: int, scratch: _Scratch) -> _Chunk:
    counts, nulls = scratch.counts(column)
    valid = column.codes >= 0 if nulls else None
    if kind.physical == _BOOLEAN or nulls == rows:
        flags = scratch.flags(column.values) if nulls < rows else np.zeros(1, np.bool_)
        used = _pages.bits_of(flags, column.codes, scratch.room(rows // 8 + 16))
        body = _levels(valid, rows, scratch, scratch.out[:used].tobytes())
        return _chunk(body, _PLAIN, rows, struct({3: i64(nulls)}), scratch)
    present = np.flatnonzero(counts)
    held = column.values.gather(present).cast(dtype)
    by_value = held.arg_sort().to_numpy()
    dictionary, codes = _Dictionary.of(held.gather(by_value), kind)
    meaning = np.zeros(counts.size, np.int32)
    meaning[present[by_value]] = codes
    width = _width(dictionary.count)
    used = _pages.packed_codes(column.codes, meaning, width, scratch.room(4 * rows + 64))
    body = _levels(valid, rows, scratch, bytes([width]) + scratch.out[:used].tobytes())
    return _with_dictionary(dictionary, body, rows, nulls, scratch)


def _of_numbers(column: Plain, kind: _Type, rows: int, scratch: _Scratch) -> _Chunk:
    values = np.ascontiguousarray(column.values, dtype=kind.dtype)
    nulls = 0 if column.valid is None else rows - int(column.valid.sum())
    valid = column.valid if nulls else None
    if valid is not None:
        values = values[valid]
    if not values.size:
        return _chunk(_levels(valid, rows, scratch, b""), _PLAIN, rows, struct({3: i64(nulls)}), scratch)
    low, high = values.min().tobytes(), values.max().tobytes()
    is_wide = values.dtype.itemsize == np.dtype(np.uint64).itemsize
    wide = values.view(np.uint64) if is_wide else values.astype(np.uint64)
    count = _pages.distinct_codes(wide, scratch.slots, scratch.codes, scratch.seen)
    if count >= 0:
        seen = scratch.seen[:count]
        dictionary = _Dictionary((seen if is_wide else seen.astype(kind.dtype)).tobytes(), count, low, high)
        width = _width(count)
        used = _pages.packed_codes(scratch.codes[: values.size], _NUMBERS, width, scratch.room(4 * rows + 64))
        body = _levels(valid, rows, scratch, bytes([width]) + scratch.out[:used].tobytes())
        return _with_dictionary(dictionary, body, rows, nulls, scratch)
    if kind.dtype is np.int64:
        used = _pages.deltas(values, scratch.words, scratch.room(10 * rows + 8 * _pages.BLOCK))
        body = _levels(valid, rows, scratch, scratch.out[:used].tobytes())
        return _chunk(body, _DELTA, rows, _statistics(low, high, nulls), scratch)
    return _chunk(_levels(valid, rows, scratch, values.tobytes()), _PLAIN, rows, _statistics(low, high, nulls), scratch)


def _width(count: int) -> int:
    """Bits of a code; one where a single value would need none, because not every reader takes that."""
    return max((count - 1).bit_length(), 1)


@dataclass(frozen=True)
class _Dictionary:
    """The distinct values of a chunk as PLAIN; the lowest and the highest as statistics spell them."""

    body: bytes
    count: int
    low: bytes
    high: bytes

    @classmethod
    def of(cls, values: pl.Series, kind: _Type) -> tuple[_Dictionary, NDArray[np.int32]]:
        """The distinct values in the order in which they come, and the code of each value."""
        if kind.physical == _BYTE_ARRAY:
            texts = values.to_list()
            number = {text: code for code, text in enumerate(dict.fromkeys(texts))}
            spelled = [text.encode() for text in number]
            body = b"".join([len(text).to_bytes(4, "little") + text for text in spelled])
            codes = np.fromiter(map(number.__getitem__, texts), np.int32, len(texts))
            return cls(body, len(number), min(spelled), max(spelled)), codes
        numbers = np.ascontiguousarray(values.to_physical().to_numpy(), dtype=kind.dtype)
        distinct, first, inverse = np.unique(numbers, return_index=True, return_inverse=True)
        order = np.argsort(first)
        place = np.empty(order.size, np.int32)
        place[order] = np.arange(order.size, dtype=np.int32)
        return cls(distinct[order].tobytes(), distinct.size, distinct[:1].tobytes(), distinct[-1:].tobytes()), place[inverse]


def _statistics(low: bytes, high: bytes, nulls: int) -> bytes:
    return struct({3: i64(nulls), 5: binary(high), 6: binary(low)})


def _levels(valid: NDArray[np.bool_] | None, rows: int, scratch: _Scratch, values: bytes) -> bytes:
    """The body of a data page: which rows have a value (definition levels with their length in front), then the values."""
    if valid is None or not valid.any():
        run = _run(rows, 0 if valid is not None else 1)
        return len(run).to_bytes(4, "little") + run + values
    out = scratch.room(rows // 8 + 64)
    used = _pages.packed_codes(valid.astype(np.int32), _NUMBERS, 1, out)
    return used.to_bytes(4, "little") + out[:used].tobytes() + values


@cache
def _run(rows: int, code: int) -> bytes:
    """One run of a code that takes a single bit."""
    out = np.empty(16, np.uint8)
    used = _pages.run_codes(np.array([code], np.int32), np.array([rows], np.int64), 1, out)
    return out[:used].tobytes()


def _page(kind: int, body: bytes, described: bytes, scratch: _Scratch) -> tuple[bytes, int]:
    """A page with its header, and the size that it would have without compression."""
    squeezed: bytes = scratch.codec.compress(body, asbytes=True)
    place = 5 if kind == _DATA_PAGE else 7
    header = struct({1: i32(kind), 2: i32(len(body)), 3: i32(len(squeezed)), place: described})[1:]
    return header + squeezed, len(header) + len(body)


def _chunk(body: bytes, encoding: int, rows: int, statistics: bytes, scratch: _Scratch) -> _Chunk:
    header = struct({1: i32(rows), 2: i32(encoding), 3: i32(_RLE), 4: i32(_RLE)})
    page, size = _page(_DATA_PAGE, body, header, scratch)
    return _Chunk(page, size, 0, (_RLE, encoding), statistics)


def _with_dictionary(dictionary: _Dictionary, body: bytes, rows: int, nulls: int, scratch: _Scratch) -> _Chunk:
    described = struct({1: i32(dictionary.count), 2: i32(_PLAIN)})
    head, head_size = _page(_DICTIONARY_PAGE, dictionary.body, described, scratch)
    chunk = _chunk(body, _DICTIONARY, rows, _statistics(dictionary.low, dictionary.high, nulls), scratch)
    return _Chunk(head + chunk.body, head_size + chunk.uncompressed, len(head), (_PLAIN, *chunk.encodings), chunk.statistics)
