"""`Lake`: what an analyst opens. SQL, typed reads, the lake as of a moment, and the lake as a run left it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import polars as pl
from polars.io.plugins import register_io_source

from flowlake.core.errors import UsageError
from flowlake.core.sessions import CALENDAR_FIRST, CALENDAR_LAST, NEW_YORK, decision_time, sessions_between
from flowlake.core.settings import Settings, load_settings
from flowlake.datasets import registry
from flowlake.datasets.model import KNOWN_AT, SESSION, Dataset
from flowlake.datasets.ops import INVOCATIONS, PUBLICATIONS, QUARANTINE, RUNS
from flowlake.datasets.registry import DATASETS, RUN_KEYED
from flowlake.lake import catalogue, journal
from flowlake.lake.index import Index
from flowlake.lake.partitions import HISTORY, declared, decode, history_path, partition_path
from flowlake.lake.quarantine import refusals
from flowlake.lake.store import Store, open_store

if TYPE_CHECKING:
    import duckdb

Sessions = date | str | tuple[date | str, date | str] | Sequence[date | str] | None


@dataclass(frozen=True)
class View:
    """Which part of the lake is visible: up to a moment and a session, and at which revision."""

    moment: datetime | None = None
    last_session: date | None = None
    run_id: str = ""


class Lake:
    """A lake, read only. Cheap to open; looks at the files when asked."""

    def __init__(self, store: Store, view: View | None = None) -> None:
        self.store = store
        self.view = view or View()

    def __repr__(self) -> str:
        return f"Lake({self.store.root!r}, {self.view})"

    @cached_property
    def index(self) -> Index:
        return Index(self.store)

    def datasets(self) -> list[str]:
        """Names of the datasets that hold at least one partition or record."""
        return [name for name, ds in DATASETS.items() if any(True for _ in self.store.list(f"{ds.layer.value}/{ds.name}/"))]

    def runs_with(self, dataset: str) -> int:
        """Runs that left records in an ops dataset; for `quarantine` its entries."""
        ds = registry.dataset(dataset)
        if ds is QUARANTINE:
            return len(refusals(self.store))
        return len(journal.run_ids(self.store, ds)) if ds in RUN_KEYED else 0

    def sessions(self, dataset: str) -> list[date]:
        """Sessions for which a dataset has a partition in this view."""
        days = sorted(self._paths(registry.dataset(dataset)))
        return [day for day in days if self.view.last_session is None or day <= self.view.last_session]

    def read(self, dataset: str, sessions: Sessions = None, underlyings: str | Iterable[str] | None = None) -> pl.LazyFrame:
        """Rows of a dataset, lazily, with the column `session`.

        `sessions`: None (all), one date, a pair (first, last) both inclusive as a tuple, or a list of dates.
        `underlyings`: one ticker or several. Raises UsageError for an unknown dataset, and for sessions that are no dates.
        """
        ds = registry.dataset(dataset)
        if ds in RUN_KEYED:
            return journal.records(self.store, ds).lazy()
        wanted = _normalised(sessions)
        paths = self._paths(ds)
        days = [day for day in self.sessions(dataset) if _wanted(day, wanted)]
        if not days:
            return _underlyings(ds.empty().lazy(), ds, underlyings)
        frames = [self._scan(ds, paths[day]).with_columns(pl.lit(day, dtype=pl.Date).alias(SESSION)) for day in days]
        frame = pl.concat(frames)
        if self.view.moment is not None:
            frame = frame.filter(pl.col(KNOWN_AT) <= self.view.moment)
        return _underlyings(frame, ds, underlyings)

    def sql(self, query: str, parameters: Sequence[Any] | None = None, beside: Lake | None = None) -> pl.DataFrame:
        """The result of a DuckDB query over one view per dataset. `?` in the query takes `parameters`.

        The views of another lake, `beside`, are in the schema `beside`, limited as this lake is: a limit of its own does not count.
        """
        import duckdb

        try:
            with self.connect(beside) as connection:
                relation = connection.sql(query, params=parameters or None)
                result = None if relation is None else relation.to_arrow_table()
        except duckdb.Error as error:
            raise UsageError(f"the query failed: {error}", "`flowlake datasets` lists views and columns") from None
        return pl.DataFrame() if result is None else pl.DataFrame(result)

    def connect(self, beside: Lake | None = None) -> duckdb.DuckDBPyConnection:
        """A DuckDB connection with one view per dataset, limited as this lake is; those of another lake in the schema `beside`."""
        files = None
        if self.view.run_id:
            files = {
                name: [self.store.uri(path) for _, path in sorted(self._paths(ds).items())]
                for name, ds in DATASETS.items()
                if ds not in RUN_KEYED
            }
        return catalogue.connect(
            self.store,
            as_of=self.view.moment,
            last_session=self.view.last_session,
            files=files,
            beside=beside.store if beside else None,
        )

    def as_of(self, moment: date | datetime | str) -> Lake:
        """The lake with only what was known at a moment. A date t means D(t): 09:00 New York on the session after it."""
        when, last = knowledge_moment(moment)
        return Lake(self.store, View(when, last, self.view.run_id))

    def revision(self, run_id: str) -> Lake:
        """The lake as it was served when a run ended: the second clock, that of revisions."""
        if not any(run_id in journal.run_ids(self.store, ds) for ds in (RUNS, INVOCATIONS)):
            raise UsageError(f"there is no run {run_id!r}", "`flowlake runs` lists them")
        return Lake(self.store, View(self.view.moment, self.view.last_session, run_id))

    def _scan(self, ds: Dataset, path: str) -> pl.LazyFrame:
        if self.store.root.startswith("s3://"):
            return _lazy_object(self.store, ds, path)
        return declared(ds, pl.scan_parquet(self.store.uri(path), glob=False, hive_partitioning=False))

    def _paths(self, ds: Dataset) -> dict[date, str]:
        paths = {day: partition_path(ds, day) for day in self.index.sessions(ds)}
        for row in self._later.get(ds.name, ()):
            if row["replaced_hash"]:
                paths[row["session"]] = history_path(ds, row["session"], row["replaced_hash"])
            else:
                paths.pop(row["session"], None)
        return {day: self._kept(path) for day, path in paths.items()}

    def _kept(self, path: str) -> str:
        if path.startswith(HISTORY) and self.store.stat(path) is None:
            raise UsageError(
                f"run {self.view.run_id} was served {path}, which is gone", "`flowlake prune` deleted it: ask for a later run"
            )
        return path

    @cached_property
    def _later(self) -> dict[str, list[journal.Row]]:
        """By dataset, what was published after the run of this view had ended, newest first: to be undone in this order."""
        if not self.view.run_id:
            return {}
        publications = distinct(journal.records(self.store, PUBLICATIONS))
        mine = pl.col("run_id") == self.view.run_id
        # Of a run that was killed only the steps tell until when it lived; those of a run long ago may have been pruned.
        known = ((RUNS, "started_at_utc"), (INVOCATIONS, "started_at_utc"), (INVOCATIONS, "ended_at_utc"))
        moments = [journal.records(self.store, ds).filter(mine).get_column(column).max() for ds, column in known]
        moments.append(publications.filter(mine).get_column("published_at_utc").max())
        end = max(moment for moment in moments if isinstance(moment, datetime))
        later = publications.filter(~mine & (pl.col("published_at_utc") > end)).sort("published_at_utc", descending=True)
        by_dataset: dict[str, list[journal.Row]] = {}
        for row in later.iter_rows(named=True):
            by_dataset.setdefault(row["dataset"], []).append(row)
        return by_dataset


def distinct(publications: pl.DataFrame) -> pl.DataFrame:
    """Two runs at once may both write down one publication: the first is the act, the second only saw it."""
    ordered = publications.sort("published_at_utc", maintain_order=True)
    before = pl.col("file_hash").shift().over("dataset", "session")
    return ordered.filter(before.is_null() | (pl.col("file_hash") != before))


def knowledge_moment(moment: date | datetime | str) -> tuple[datetime, date]:
    """The moment and the last visible session that an `as_of` argument means.

    A date that is no session means the last session before it. Raises UsageError for text that is no date.
    """
    if isinstance(moment, str):
        moment = _parse(moment)
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            raise UsageError(f"{moment} has no time zone", "write for example 2024-01-02T10:00:00-05:00, or just the date")
        return moment, moment.astimezone(NEW_YORK).date()
    before = sessions_between(CALENDAR_FIRST, moment)
    if not before or moment > CALENDAR_LAST:
        raise UsageError(f"{moment} is outside the calendar", f"give a day from {CALENDAR_FIRST} to {CALENDAR_LAST}")
    return decision_time(before[-1]), before[-1]


def _parse(text: str) -> date | datetime:
    try:
        return date.fromisoformat(text) if len(text) == 10 else datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is no date", "write YYYY-MM-DD, or a moment with its time zone") from None


def _lazy_object(store: Store, ds: Dataset, path: str) -> pl.LazyFrame:
    """A partition of an S3 lake that is fetched when, and only if, the query comes to it."""

    def rows(
        with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        frame = declared(ds, decode(store.read(path), path).lazy())
        frame = frame if predicate is None else frame.filter(predicate)
        frame = frame if with_columns is None else frame.select(with_columns)
        yield (frame if n_rows is None else frame.head(n_rows)).collect(engine="in-memory")

    return register_io_source(rows, schema=ds.polars_schema())


def _normalised(sessions: Sessions) -> tuple[date, date] | frozenset[date] | None:
    """A range or a set of dates. Raises UsageError for anything else."""
    if sessions is None:
        return None
    if isinstance(sessions, (date, str)):
        return frozenset([_day(sessions)])
    if isinstance(sessions, tuple):
        if len(sessions) != 2:
            raise UsageError(f"sessions={sessions!r} is no range", "give (first, last), one date, or a list of dates")
        return _day(sessions[0]), _day(sessions[1])
    return frozenset(_day(one) for one in sessions)


def _wanted(day: date, wanted: tuple[date, date] | frozenset[date] | None) -> bool:
    if wanted is None:
        return True
    return wanted[0] <= day <= wanted[1] if isinstance(wanted, tuple) else day in wanted


def _day(value: date | str) -> date:
    try:
        if isinstance(value, datetime):
            return value.date()
        return date.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        raise UsageError(f"{value!r} is no date", "write YYYY-MM-DD") from None


def _underlyings(frame: pl.LazyFrame, ds: Dataset, underlyings: str | Iterable[str] | None) -> pl.LazyFrame:
    if underlyings is None:
        return frame
    if "underlying" not in ds.column_names:
        raise UsageError(f"{ds.name} has no column underlying", "leave `underlyings` out and filter by another column")
    return frame.filter(pl.col("underlying").is_in([underlyings] if isinstance(underlyings, str) else list(underlyings)))


def open_lake(root: str | None = None, settings: Settings | None = None) -> Lake:
    """The lake at `root`, or the one that the settings name."""
    settings = settings or load_settings()
    return Lake(open_store(root or settings.lake, settings.lake_access))


def connect(root: str | None = None, as_of: date | datetime | str | None = None) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection with one view per dataset, as of a date or moment where one is given."""
    lake = open_lake(root)
    return (lake if as_of is None else lake.as_of(as_of)).connect()


__all__ = ["Lake", "View", "connect", "knowledge_moment", "open_lake"]
