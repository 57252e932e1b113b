"""A partition read in batches: a row group at a time, texts as the codes that the file holds."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import IO, Any

import numpy as np
import polars as pl

from flowlake.datasets.batch import Batch, BatchColumn, Coded, Plain, Runs
from flowlake.datasets.model import KNOWN_AT, Dataset, KnownAt
from flowlake.lake.partitions import damaged, partition_path
from flowlake.lake.store import LocalStore, Store


def read_batches(store: Store, ds: Dataset, session: date) -> Iterator[Batch]:
    """The rows of a partition in the declared columns, in its order.

    The first column of the order comes in runs. A partition that is not on a local disk is first held as bytes. Raises
    StorageError where the file cannot be read.
    """
    import pyarrow as pa

    path = partition_path(ds, session)
    file = Path(store.uri(path)) if isinstance(store, LocalStore) else io.BytesIO(store.read(path))
    try:
        yield from batches_of(file, ds)
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from error


def batches_of(file: Path | IO[bytes], ds: Dataset) -> Iterator[Batch]:
    """The same of a Parquet file; raises OSError or `pyarrow.ArrowException`."""
    import pyarrow.parquet as pq

    schema = ds.polars_schema()
    texts = [name for name, dtype in schema.items() if dtype == pl.String]
    # A clock that is a column without a delay holds the same numbers as that column.
    clock = ds.known.column if isinstance(ds.known, KnownAt) and not ds.known.delay else KNOWN_AT
    vocabularies = {name: _Vocabulary() for name in texts}
    with pq.ParquetFile(file, read_dictionary=texts) as opened:
        held = set(opened.schema_arrow.names)
        for group in range(opened.num_row_groups):
            wanted = [name for name in schema if name in held and (name != KNOWN_AT or clock == KNOWN_AT)]
            table = opened.read_row_group(group, columns=wanted, use_threads=False)
            columns: dict[str, BatchColumn] = {}
            for name, dtype in schema.items():
                if name == KNOWN_AT and clock != KNOWN_AT:
                    columns[name] = columns[clock]
                elif name not in held:  # the partition is older than the column
                    columns[name] = _absent(dtype, table.num_rows)
                else:
                    column = table.column(name)
                    array = column.chunk(0) if column.num_chunks == 1 else column.unify_dictionaries().combine_chunks()
                    if name == ds.sort_by[0]:
                        columns[name] = _runs(array, name)
                    elif dtype == pl.String:
                        columns[name] = vocabularies[name].coded(array)
                    else:
                        columns[name] = _plain(array, dtype)
            yield Batch(table.num_rows, columns)


class _Vocabulary:
    """The distinct texts of a column so far: batches of a stream number them alike."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._texts = pl.Series(dtype=pl.String)

    def coded(self, array: Any) -> Coded:
        distinct = array.dictionary.to_pylist()
        known = len(self._numbers)
        meaning = np.array(
            [-1 if t is None else self._numbers.setdefault(t, len(self._numbers)) for t in distinct] or [-1], np.int32
        )
        if len(self._numbers) > known:
            self._texts = pl.Series(list(self._numbers), dtype=pl.String)
        codes = array.indices.fill_null(0).to_numpy(zero_copy_only=False)
        found = meaning[codes]
        if array.null_count:
            found[array.indices.is_null().to_numpy(zero_copy_only=False)] = -1
        return Coded(found, self._texts)


def _runs(array: Any, name: str) -> Runs:
    codes = array.indices.to_numpy(zero_copy_only=False)
    begins = np.flatnonzero(np.concatenate([[True], codes[1:] != codes[:-1]]))
    values = pl.Series(name, array.dictionary, dtype=pl.String)[codes[begins]]
    return Runs(np.diff(np.append(begins, codes.size)), values)


def _plain(array: Any, dtype: pl.DataType) -> Plain:
    """The numbers of an array as they lie in memory; a column of truth values is of bits and has to be spread out."""
    valid = None
    if array.null_count:
        valid = array.is_valid().to_numpy(zero_copy_only=False)
        array = array.fill_null(False if dtype == pl.Boolean else 0)
    if dtype.is_temporal():
        array = array.view("int32" if dtype == pl.Date else "int64")
    return Plain(array.to_numpy(zero_copy_only=dtype != pl.Boolean), valid)


def _absent(dtype: pl.DataType, rows: int) -> BatchColumn:
    if dtype == pl.String:
        return Coded(np.full(rows, -1, np.int32), pl.Series(dtype=pl.String))
    return Plain(np.zeros(rows, np.float64 if dtype.is_float() else np.int64), np.zeros(rows, np.bool_))
