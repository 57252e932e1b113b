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
_AS_IT_IS, _ZSTD, _LEVEL = 0, 6, 1
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

    pages: tuple[bytes, ...]
    uncompressed: int
    dictionary_bytes: int
    encodings: tuple[int, ...]
    statistics: bytes
    compression: int = _ZSTD

    @property
    def size(self) -> int:
        return sum(map(len, self.pages))


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
            self._file.writelines(chunk.pages)
            self._at += chunk.size
        fields = {1: listed(chunks), 2: i64(size), 3: i64(batch.rows), 5: i64(start), 6: i64(self._at - start)}
        self._groups.append(struct({**fields, 7: i16(len(self._groups) % 32_768)}))

    def _column(self, name: str, kind: _Type, chunk: _Chunk, rows: int) -> bytes:
        described = struct(
            {
                1: i32(kind.physical),
                2: listed([i32(encoding) for encoding in chunk.encodings]),
                3: listed([text(name)]),
                4: i32(chunk.compression),
                5: i64(rows),
                6: i64(chunk.uncompressed),
                7: i64(chunk.size),
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


@dataclass(frozen=True)
class _Present:
    """Which codes stand in some rows, in order of appearance; the place of each code in that order; how many rows are null."""

    order: NDArray[np.int32]
    place: NDArray[np.int32]
    nulls: int


_MEANINGS_KEPT = 256
"""Of columns that grow by a text now and then, each of which would be kept to the end."""


class _Scratch:
    """Memory that is used again for every page."""

    def __init__(self, rows: int) -> None:
        self.out = np.empty(16 * rows + 1024, np.uint8)
        self.slots = np.empty(_pages.SLOTS, np.int32)
        self.codes = np.empty(rows, np.int32)
        self.seen = np.empty(_pages.MOST_DISTINCT, np.uint64)
        self.words = np.empty(_pages.MINI + 1, np.uint64)
        self.codec = pa.Codec("zstd", compression_level=_LEVEL)
        self.constant: dict[tuple[int, bool], _Chunk] = {}
        """Columns of truth values that are all the same, by their rows and value."""
        self._meanings: dict[tuple[int, pl.DataType], tuple[pl.Series, Any]] = {}
        self._coded: tuple[NDArray[np.int32], _Present] | None = None

    def present(self, column: Coded) -> _Present:
        """Columns that share their codes come one after the other."""
        if self._coded is None or self._coded[0] is not column.codes:
            place = np.full(max(column.values.len(), 1), -1, np.int32)
            order = np.empty(place.size, np.int32)
            count, nulls = _pages.appearance(column.codes, place, order)
            self._coded = column.codes, _Present(order[:count], place, nulls)
        return self._coded[1]

    def meanings(self, values: pl.Series, dtype: pl.DataType) -> Any:
        """What codes stand for, as Arrow's texts or as numbers; the batches of a stream mostly share it."""
        key = (id(values), dtype)
        if key not in self._meanings:
            if len(self._meanings) == _MEANINGS_KEPT:
                self._meanings.clear()
            self._meanings[key] = values, _physical(values.cast(dtype))
        return self._meanings[key][1]

    def behind(self, head: bytes, size: int) -> NDArray[np.uint8]:
        """Room for `size` bytes of a page whose body begins with `head`; `body` then gives both."""
        if len(head) + size > self.out.size:
            self.out = np.empty(2 * (len(head) + size), np.uint8)
        self.out[: len(head)] = np.frombuffer(head, np.uint8)
        self._head = len(head)
        return self.out[len(head) :]

    def body(self, used: int) -> NDArray[np.uint8]:
        return self.out[: self._head + used]


def _physical(values: pl.Series) -> Any:
    """Values as Arrow's texts or as NumPy's numbers."""
    if values.dtype == pl.String:
        return values.to_arrow(compat_level=pl.CompatLevel.oldest())
    if values.dtype.is_temporal():
        return values.cast(pl.Int32 if values.dtype == pl.Date else pl.Int64).to_numpy()
    return values.to_numpy()


def _encoded(column: BatchColumn, kind: _Type, dtype: pl.DataType, rows: int, scratch: _Scratch) -> _Chunk:
    if isinstance(column, Runs):
        return _of_runs(column, kind, dtype, rows, scratch)
    if isinstance(column, Plain):
        return _of_numbers(column, kind, rows, scratch)
    if kind.physical in (_BOOLEAN, _BYTE_ARRAY) or (kind.dtype is np.int64 and column.values.len() <= _pages.FEW):
        return _of_codes(column, kind, dtype, rows, scratch)
    # A number may come with a code or without: equal rows must give equal bytes.
    numbers = column.values.to_physical().to_numpy()[column.codes]
    return _of_numbers(Plain(numbers, None if (column.codes >= 0).all() else column.codes >= 0), kind, rows, scratch)


def _of_runs(column: Runs, kind: _Type, dtype: pl.DataType, rows: int, scratch: _Scratch) -> _Chunk:
    if kind.physical == _BOOLEAN:
        codes = np.repeat(column.values.cast(pl.Int32).to_numpy(), column.lengths)
        return _of_codes(Coded(codes, pl.Series([False, True])), kind, dtype, rows, scratch)
    dictionary, codes = _Dictionary.of(_physical(column.values.cast(dtype)), kind, scratch)
    width = _width(dictionary.count)
    room = scratch.behind(_levels(None, rows) + bytes([width]), 16 * codes.size + 16)
    body = scratch.body(_pages.run_codes(codes, column.lengths, width, room))
    return _with_dictionary(dictionary, body, rows, 0, scratch)


def _of_codes(column: Coded, kind: _Type, dtype: pl.DataType, rows: int, scratch: _Scratch) -> _Chunk:
    present = scratch.present(column)
    nulls = present.nulls
    valid = column.codes >= 0 if nulls else None
    if kind.physical == _BOOLEAN or nulls == rows:
        flags = scratch.meanings(column.values, pl.Int32()) if nulls < rows else _NUMBERS
        known = set(flags[present.order].tolist()) if not nulls else ()
        if len(known) == 1 and (same := scratch.constant.get((rows, flags[present.order[0]]))):
            return same
        room = scratch.behind(_levels(valid, rows), rows // 8 + 16)
        body = scratch.body(_pages.bits_of(column.codes, flags, nulls, room))
        chunk = _chunk(body, _PLAIN, rows, struct({3: i64(nulls)}), scratch)
        if len(known) == 1:
            scratch.constant[rows, flags[present.order[0]]] = chunk
        return chunk
    dictionary, codes = _Dictionary.of(scratch.meanings(column.values, dtype).take(present.order), kind, scratch)
    meaning = codes[present.place]
    width = _width(dictionary.count)
    room = scratch.behind(_levels(valid, rows) + bytes([width]), 4 * rows + 64)
    body = scratch.body(_pages.packed_codes(column.codes, meaning, width, nulls, room))
    return _with_dictionary(dictionary, body, rows, nulls, scratch)


def _of_numbers(column: Plain, kind: _Type, rows: int, scratch: _Scratch) -> _Chunk:
    values = np.ascontiguousarray(column.values, dtype=kind.dtype)
    nulls = 0 if column.valid is None else rows - int(np.count_nonzero(column.valid))
    valid = column.valid if nulls else None
    head = _levels(valid, rows)
    if valid is not None:
        values = values[valid]
    if not values.size:
        return _chunk(head, _PLAIN, rows, struct({3: i64(nulls)}), scratch)
    is_wide = values.dtype.itemsize == np.dtype(np.uint64).itemsize
    wide = values.view(np.uint64) if is_wide else values.astype(np.uint64)
    count = _pages.distinct_codes(wide, _pages.TRIAL, scratch.slots, scratch.codes, scratch.seen)
    if count >= 0:
        dictionary = _Dictionary.of_distinct(scratch.seen[:count], kind)
        width = _width(count)
        room = scratch.behind(head + bytes([width]), 4 * rows + 64)
        body = scratch.body(_pages.packed_codes(scratch.codes[: values.size], _NUMBERS, width, 0, room))
        return _with_dictionary(dictionary, body, rows, nulls, scratch)
    statistics = _statistics(values.min().tobytes(), values.max().tobytes(), nulls)
    if kind.dtype is np.int64:
        room = scratch.behind(head, 10 * rows + 8 * _pages.BLOCK)
        body = scratch.body(_pages.deltas(values, scratch.words, room))
        # Deltas are packed to the bit: to squeeze them takes longer than to make them, and saves a twelfth.
        page = (_header(_DATA_PAGE, body.size, body.size, _data_header(rows, _DELTA)), body.tobytes())
        return _Chunk(page, sum(map(len, page)), 0, (_RLE, _DELTA), statistics, _AS_IT_IS)
    return _chunk(head + values.tobytes(), _PLAIN, rows, statistics, scratch)


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
    def of(cls, values: Any, kind: _Type, scratch: _Scratch) -> tuple[_Dictionary, NDArray[np.int32]]:
        """The distinct values in the order in which they come, and the code of each value."""
        if kind.physical == _BYTE_ARRAY:
            return cls._of_texts(values.dictionary_encode())
        numbers = np.ascontiguousarray(values, dtype=kind.dtype)
        wide = numbers.view(np.uint64) if numbers.dtype.itemsize == np.dtype(np.uint64).itemsize else numbers.astype(np.uint64)
        codes = np.empty(numbers.size, np.int32)
        count = _pages.distinct_codes(wide, wide.size, scratch.slots, codes, scratch.seen)
        if count >= 0:
            return cls.of_distinct(scratch.seen[:count], kind), codes
        by_value, first, inverse = np.unique(wide, return_index=True, return_inverse=True)
        order = np.argsort(first)
        place = np.empty(order.size, np.int32)
        place[order] = np.arange(order.size, dtype=np.int32)
        return cls.of_distinct(by_value[order], kind), place[inverse]

    @classmethod
    def of_distinct(cls, words: NDArray[np.uint64], kind: _Type) -> _Dictionary:
        """Numbers, each in a word of its bits."""
        values = words.astype(kind.dtype) if np.dtype(kind.dtype).itemsize < words.itemsize else words.view(kind.dtype)
        return cls(values.tobytes(), values.size, values.min().tobytes(), values.max().tobytes())

    @classmethod
    def _of_texts(cls, texts: pa.DictionaryArray) -> tuple[_Dictionary, NDArray[np.int32]]:
        distinct = texts.dictionary
        _, ends, text = distinct.buffers()
        out = np.empty(distinct.nbytes, np.uint8)
        used = _pages.spelled(
            np.frombuffer(ends, np.int64, len(distinct) + 1, 8 * distinct.offset), np.frombuffer(text, np.uint8), out
        )
        values = pl.Series(distinct)
        low, high = str(values.min()).encode(), str(values.max()).encode()
        return cls(out[:used].tobytes(), len(distinct), low, high), texts.indices.to_numpy()


def _statistics(low: bytes, high: bytes, nulls: int) -> bytes:
    return struct({3: i64(nulls), 5: binary(high), 6: binary(low)})


def _levels(valid: NDArray[np.bool_] | None, rows: int) -> bytes:
    """What the body of a data page begins with: which rows have a value (definition levels with their length in front)."""
    if valid is None or not valid.any():
        levels = _run(rows, 0 if valid is not None else 1)
    else:
        out = np.empty(rows // 8 + 64, np.uint8)
        levels = out[: _pages.packed_codes(valid.view(np.int8).astype(np.int32), _NUMBERS, 1, 0, out)].tobytes()
    return len(levels).to_bytes(4, "little") + levels


@cache
def _run(rows: int, code: int) -> bytes:
    """One run of a code that takes a single bit."""
    out = np.empty(16, np.uint8)
    used = _pages.run_codes(np.array([code], np.int32), np.array([rows], np.int64), 1, out)
    return out[:used].tobytes()


def _header(kind: int, size: int, written: int, described: bytes) -> bytes:
    """The header of a page whose body has `size` bytes, `written` of them in the file."""
    place = 5 if kind == _DATA_PAGE else 7
    return struct({1: i32(kind), 2: i32(size), 3: i32(written), place: described})[1:]


def _squeezed(kind: int, body: bytes | NDArray[np.uint8], described: bytes, scratch: _Scratch) -> tuple[bytes, bytes]:
    """The header and the body of a compressed page."""
    written: bytes = scratch.codec.compress(body, asbytes=True)
    return _header(kind, len(body), len(written), described), written


def _data_header(rows: int, encoding: int) -> bytes:
    return struct({1: i32(rows), 2: i32(encoding), 3: i32(_RLE), 4: i32(_RLE)})


def _chunk(body: bytes | NDArray[np.uint8], encoding: int, rows: int, statistics: bytes, scratch: _Scratch) -> _Chunk:
    page = _squeezed(_DATA_PAGE, body, _data_header(rows, encoding), scratch)
    return _Chunk(page, len(page[0]) + len(body), 0, (_RLE, encoding), statistics)


def _with_dictionary(dictionary: _Dictionary, body: NDArray[np.uint8], rows: int, nulls: int, scratch: _Scratch) -> _Chunk:
    described = struct({1: i32(dictionary.count), 2: i32(_PLAIN)})
    page = _squeezed(_DICTIONARY_PAGE, dictionary.body, described, scratch)
    size = len(page[0]) + len(dictionary.body)
    chunk = _chunk(body, _DICTIONARY, rows, _statistics(dictionary.low, dictionary.high, nulls), scratch)
    encodings = (_PLAIN, *chunk.encodings)
    return _Chunk((*page, *chunk.pages), size + chunk.uncompressed, sum(map(len, page)), encodings, chunk.statistics)
