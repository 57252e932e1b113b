"""Hashes of values, not of files: equal tables hash equally whatever wrote them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl


def data_hash(frame: pl.DataFrame) -> str:
    """SHA-256 over names, types and values, row by row order included.

    The frame must be normalised as `Dataset.conform` leaves it: declared column order and types, total order, no NaN.
    """
    digest = hashlib.sha256()
    for name in frame.columns:
        series = frame.get_column(name)
        _update(digest, name, series.dtype, series.len(), series.null_count(), partial(iter, [series]))
    return digest.hexdigest()


def file_data_hash(path: str | Path) -> str:
    """`data_hash` of the rows of a Parquet file, read a row group at a time: memory does not grow with the file.

    Raises OSError or `pyarrow.ArrowException` for a file that cannot be read.
    """
    import pyarrow.parquet as pq

    schema = pl.read_parquet_schema(path)
    texts = [name for name, dtype in schema.items() if dtype == pl.String]
    digest = hashlib.sha256()
    with pq.ParquetFile(path, read_dictionary=texts) as file:
        metadata = file.metadata
        groups = range(metadata.num_row_groups)
        for number, (name, dtype) in enumerate(schema.items()):
            nulls = sum(metadata.row_group(group).column(number).statistics.null_count for group in groups)

            def parts(name: str = name, dtype: pl.DataType = dtype) -> Iterator[pl.Series]:
                for group in groups:
                    column = file.read_row_group(group, columns=[name], use_threads=False).column(0)
                    for chunk in column.chunks:
                        yield pl.Series(chunk.dictionary_decode() if dtype == pl.String else chunk, dtype=dtype)

            _update(digest, name, dtype, metadata.num_rows, nulls, parts)
    return digest.hexdigest()


def _update(digest: Any, name: str, dtype: pl.DataType, rows: int, nulls: int, parts: Callable[[], Iterator[pl.Series]]) -> None:
    """Take in a column, given in parts: what stands in them counts, not where one ends. `parts` may be asked several times."""
    digest.update(f"{name}:{dtype}:{rows}".encode())
    if isinstance(dtype, pl.List):
        (series,) = parts()
        digest.update(series.list.len().fill_null(2**32 - 1).to_numpy().tobytes())
        values = series.explode()
        dtype, nulls, parts = values.dtype, values.null_count(), lambda: iter([values])
    if nulls:
        for part in parts():
            digest.update(part.is_null().to_numpy().tobytes())
    if dtype == pl.String:
        for part in parts():
            digest.update(part.str.len_bytes().fill_null(0).to_numpy().tobytes())
        for part in parts():
            digest.update(_text_bytes(part.fill_null("")))
        return
    for part in parts():
        physical = part.to_physical()
        filled = physical.fill_null(False) if physical.dtype == pl.Boolean else physical.fill_null(0)
        digest.update(filled.to_numpy().tobytes())


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
