"""The records of a run: one file per ops dataset and run, rewritten whole, so that two runs never share a file.

    ops/<dataset>/run=<run id>/part.parquet       one run
    ops/<dataset>/packed=<run id>/part.parquet    many runs that have ended; named after the run that packed them

A run whose records lie in several files counts once: the last of these files by name has it, so its own file where there is one.
That makes packing safe without a lock: a pack is written before the files in it are deleted, and two packs may hold the same run.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from flowlake.core.errors import StorageError
from flowlake.core.sessions import CALENDAR_FIRST
from flowlake.datasets.model import KNOWN_AT, Dataset
from flowlake.datasets.ops import AUDITS, FINDINGS, INVOCATIONS, OBJECTS, OPS, PUBLICATIONS, RUNS
from flowlake.datasets.signals import TRIALS
from flowlake.lake.partitions import declared, decode, encode, run_path
from flowlake.lake.store import LocalStore, Store

log = logging.getLogger("flowlake")

Row = dict[str, Any]
FLUSH_SECONDS = 2.0
JOURNALS = (INVOCATIONS, RUNS, PUBLICATIONS, AUDITS, FINDINGS, OBJECTS)
"""What a run writes down of itself."""
PACKED = (*JOURNALS, TRIALS)
MANY_FILES = 256
"""Files of one dataset that may lie unpacked before the end of a run packs them."""
SILENT = timedelta(days=1)
"""A run that never said that it ended is taken for dead when it has written nothing for so long."""
_LOOKS = 4
_RUN, _PACK = "run=", "packed="
_BY_NAME = {ds.name: ds for ds in OPS}


class Journal:
    """Collects rows of one run and writes them at most every two seconds, and whenever `flush` is called."""

    def __init__(self, store: Store, run_id: str) -> None:
        self._store = store
        self.run_id = run_id
        self._rows: dict[str, list[Row]] = {ds.name: [] for ds in JOURNALS}
        self._dirty: set[str] = set()
        self._flushed = time.monotonic()

    def add(self, name: str, rows: Iterable[Row]) -> None:
        new = [{"run_id": self.run_id, **row} for row in rows]
        if new:
            self._rows[name].extend(new)
            self._dirty.add(name)
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def about(self, row: Row) -> None:
        """What is known of the run as a whole, instead of what was known before; written at once."""
        self._rows[INVOCATIONS.name] = [{"run_id": self.run_id, **row}]
        self._dirty.add(INVOCATIONS.name)
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
    """All rows that runs have written of an ops dataset, each run once."""
    return _held(store, ds).rows.select(column.name for column in ds.columns)


def run_ids(store: Store, ds: Dataset) -> set[str]:
    """Runs that have written rows of an ops dataset."""
    return set(_held(store, ds).rows.get_column("run_id"))


@dataclass(frozen=True)
class _Held:
    """Rows of an ops dataset with `known_at_utc`, and the files that they were read from."""

    rows: pl.DataFrame
    paths: tuple[str, ...]


def _held(store: Store, ds: Dataset) -> _Held:
    """Read every file of an ops dataset; from the beginning where one was packed away under our hands."""
    for look in range(_LOOKS):
        paths = _paths(store, ds)
        try:
            return _Held(_once_each(ds, [(path, decode(store.read(path), path)) for path in paths]), tuple(paths))
        except StorageError:
            if look == _LOOKS - 1 or all(store.stat(path) is not None for path in paths):
                raise
    raise AssertionError("unreachable")


def _paths(store: Store, ds: Dataset) -> list[str]:
    """Packs first, then files of single runs."""
    return sorted(stat.path for stat in store.list(f"{ds.layer.value}/{ds.name}/") if _is_journal_file(stat.path))


def _is_journal_file(path: str) -> bool:
    return path.endswith("/part.parquet") and path.split("/")[2].startswith((_RUN, _PACK))


def _once_each(ds: Dataset, files: list[tuple[str, pl.DataFrame]]) -> pl.DataFrame:
    """The rows of all files, those of each run from the last file that has it."""
    frames: list[pl.DataFrame] = []
    seen: set[str] = set()
    for path, body in reversed(files):
        frame = declared(ds, body.lazy()).collect(engine="in-memory")
        if f"/{_PACK}" in path:
            frame = frame.filter(~pl.col("run_id").is_in(list(seen)))
        frames.append(frame)
        seen.update(frame.get_column("run_id").unique())
    empty = pl.DataFrame(schema=ds.polars_schema())
    return pl.concat([empty, *reversed(frames)])


# --- Packing -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Packing:
    """What was packed, or would be: files of single runs, and rows that were left out because they are too old to keep."""

    files: int = 0
    dropped: tuple[tuple[str, int], ...] = ()


def pack_if_many(store: Store, run_id: str) -> None:
    """Pack where more than MANY_FILES files of one dataset lie unpacked. A failure costs time later, so it is only logged."""
    try:
        if max(_loose(store, ds) for ds in PACKED) > MANY_FILES:
            pack(store, run_id, datetime.now(UTC))
    except StorageError as error:
        log.warning("the records of earlier runs were not packed: %s", error)


def _loose(store: Store, ds: Dataset) -> int:
    return sum(1 for path in _paths(store, ds) if f"/{_RUN}" in path)


def pack(
    store: Store,
    run_id: str,
    now: datetime,
    drop: Collection[Dataset] = (),
    older_than: timedelta | None = None,
    dry_run: bool = False,
) -> Packing:
    """Put the files of all runs that are over into one per dataset.

    Rows of the datasets in `drop` that became known more than `older_than` before `now` are left out. `run_id` names the packs.
    """
    held = {ds.name: _held(store, ds) for ds in PACKED}
    over = _over(held, now)
    files = 0
    dropped = []
    for ds in PACKED:
        loose = [path for path in held[ds.name].paths if path.split("/")[2].removeprefix(_RUN) in over]
        packs = [path for path in held[ds.name].paths if f"/{_PACK}" in path]
        rows = held[ds.name].rows.filter(pl.col("run_id").is_in(list(over)))
        kept = rows.filter(pl.col(KNOWN_AT) >= now - older_than) if ds in drop and older_than is not None else rows
        if gone := rows.height - kept.height:
            dropped.append((ds.name, gone))
        files += len(loose)
        if dry_run or not (loose or gone or len(packs) > 1):
            continue
        target = f"{ds.layer.value}/{ds.name}/{_PACK}{run_id}/part.parquet"
        if kept.height:
            store.write(target, encode(ds, ds.conform(kept, CALENDAR_FIRST)))
        for path in (*packs, *loose):  # only now: a kill before this line leaves rows twice, and a reader counts them once
            if path != target:
                store.delete(path)
                if isinstance(store, LocalStore):
                    store.remove_empty_folder(path)
    return Packing(files, tuple(dropped))


def _over(held: dict[str, _Held], now: datetime) -> set[str]:
    """Runs that have said that they ended, or that have written nothing for a day."""
    invocations = held[INVOCATIONS.name].rows
    ended = invocations.filter(pl.col("ended_at_utc").is_not_null()).get_column("run_id")
    moments = pl.concat([one.rows.select("run_id", KNOWN_AT) for one in held.values()])
    last = moments.group_by("run_id").agg(pl.col(KNOWN_AT).max())
    silent = last.filter(pl.col(KNOWN_AT) < now - SILENT).get_column("run_id")
    return {*ended, *silent}
