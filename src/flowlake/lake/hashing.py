"""Hashes of values, not of files: equal tables hash equally whatever wrote them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl


def data_hash(frame: pl.DataFrame) -> str:
    """SHA-256 over names, types and values, row by row order included.

    The frame must be normalised as `Dataset.conform` leaves it: declared column order and types, total order, no NaN.
    """
    hashing = DataHash(frame.schema)
    hashing.update(frame)
    return hashing.hexdigest()


def file_data_hash(path: str | Path) -> str:
    """`data_hash` of the rows of a Parquet file, read a row group at a time: memory does not grow with the file.

    Raises OSError or `pyarrow.ArrowException` for a file that cannot be read.
    """
    import pyarrow.parquet as pq

    schema = pl.read_parquet_schema(path)
    hashing = DataHash(schema)
    with pq.ParquetFile(path) as file:
        for group in range(file.metadata.num_row_groups):
            hashing.update(pl.DataFrame(file.read_row_group(group, use_threads=False), schema=schema))
    return hashing.hexdigest()


class DataHash:
    """`data_hash` of a table that comes in parts: what stands in them counts, not where one ends."""

    def __init__(self, schema: Mapping[str, pl.DataType]) -> None:
        self._columns = {name: _ColumnHash(dtype) for name, dtype in schema.items()}
        self._dtypes = dict(schema)

    def update(self, part: pl.DataFrame) -> None:
        """Take in the next rows, in the columns of the schema."""
        for name, column in self._columns.items():
            column.update(part.get_column(name))

    def hexdigest(self) -> str:
        digest = hashlib.sha256()
        for name, column in self._columns.items():
            digest.update(f"{name}:{self._dtypes[name]}:{column.rows}".encode())
            digest.update(column.digest())
        return digest.hexdigest()


class _ColumnHash:
    """Of a column: where nulls begin and end, how long texts and lists are, and the values that there are; each in a digest of its
    own. A column of nulls, of which a tape without quotes has a dozen, costs next to nothing.
    """

    def __init__(self, dtype: pl.DataType) -> None:
        self.rows = 0
        self._ends_null = False
        self._nulls, self._lengths, self._values = (hashlib.sha256() for _ in range(3))
        self._inner = _ColumnHash(pl.Series(dtype=dtype).explode().dtype) if isinstance(dtype, pl.List) else None

    def update(self, series: pl.Series) -> None:
        self._note_nulls(series)
        self.rows += series.len()
        present = series.drop_nulls() if series.null_count() else series
        if self._inner is not None:
            self._lengths.update(_bytes(present.list.len()))
            self._inner.update(present.explode(empty_as_null=False, keep_nulls=False))
        elif series.dtype == pl.String:
            self._lengths.update(_bytes(present.str.len_bytes()))
            self._values.update(_text_bytes(present))
        else:
            self._values.update(_bytes(present.to_physical()))

    def _note_nulls(self, series: pl.Series) -> None:
        """Take in the rows at which nulls begin or end."""
        if series.null_count() or (self._ends_null and series.len()):
            is_null = series.is_null().to_numpy()
            turns = np.flatnonzero(np.diff(is_null, prepend=self._ends_null))
            self._nulls.update((turns + self.rows).astype(np.int64).data)
            self._ends_null = bool(is_null[-1])

    def digest(self) -> bytes:
        inner = self._inner.digest() if self._inner is not None else b""
        return self._nulls.digest() + self._lengths.digest() + self._values.digest() + inner


def _bytes(series: pl.Series) -> memoryview:
    return np.ascontiguousarray(series.to_numpy()).data


def _text_bytes(texts: pl.Series) -> memoryview:
    array = texts.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    _, offsets, data = array.buffers()
    if data is None:
        return memoryview(b"")
    ends = np.frombuffer(offsets, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    return memoryview(data)[ends[0] : ends[-1]]


def json_hash(value: object) -> str:
    """SHA-256 of the canonical JSON of plain data."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":"), default=str).encode()).hexdigest()
