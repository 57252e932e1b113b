"""The records of a run: one file per ops dataset and run, rewritten whole, so that two runs never share a file."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import polars as pl

from flowlake.core.sessions import CALENDAR_FIRST
from flowlake.datasets.model import Dataset
from flowlake.datasets.ops import AUDITS, FINDINGS, OBJECTS, OPS, PUBLICATIONS, RUNS
from flowlake.lake.partitions import decode, encode, run_path
from flowlake.lake.store import Store

Row = dict[str, Any]
FLUSH_SECONDS = 2.0
_BY_NAME = {ds.name: ds for ds in OPS}


class Journal:
    """Collects rows of one run and writes them at most every two seconds, and whenever `flush` is called."""

    def __init__(self, store: Store, run_id: str) -> None:
        self._store = store
        self.run_id = run_id
        self._rows: dict[str, list[Row]] = {ds.name: [] for ds in (RUNS, PUBLICATIONS, AUDITS, FINDINGS, OBJECTS)}
        self._dirty: set[str] = set()
        self._flushed = time.monotonic()

    def add(self, name: str, rows: Iterable[Row]) -> None:
        new = [{"run_id": self.run_id, **row} for row in rows]
        if new:
            self._rows[name].extend(new)
            self._dirty.add(name)
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        for name in sorted(self._dirty):
            ds = _BY_NAME[name]
            self._store.write(run_path(ds, self.run_id), encode(ds, ops_frame(ds, self._rows[name])))
        self._dirty.clear()
        self._flushed = time.monotonic()


def ops_frame(ds: Dataset, rows: list[Row]) -> pl.DataFrame:
    """Rows of an ops dataset as its file holds them: declared columns and order, and `known_at_utc` from the row's own moment."""
    frame = pl.DataFrame(rows, schema={column.name: column.dtype for column in ds.columns}, orient="row")
    return ds.conform(frame, CALENDAR_FIRST)


def records(store: Store, ds: Dataset) -> pl.DataFrame:
    """All rows that runs have written of an ops dataset."""
    frames = [
        decode(store.read(stat.path), stat.path)
        for stat in store.list(f"{ds.layer.value}/{ds.name}/")
        if stat.path.endswith(".parquet")
    ]
    columns = [column.name for column in ds.columns]
    empty = pl.DataFrame(schema={column.name: column.dtype for column in ds.columns})
    return pl.concat([empty, *(frame.select(columns) for frame in frames)])
