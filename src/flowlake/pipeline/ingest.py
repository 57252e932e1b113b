"""From the bucket to a raw table: which objects feed a partition, whether they changed, fetching and parsing them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import polars as pl

from flowlake.core.errors import BadInputError, UsageError
from flowlake.core.events import emit
from flowlake.core.sessions import decision_time, is_session, next_session, sessions_between
from flowlake.core.settings import Settings
from flowlake.curate.kept_quotes import KeptQuotes
from flowlake.datasets.batch import Batch, Stream, WholeTableNeededError, part, to_frame
from flowlake.datasets.checks import Severity
from flowlake.datasets.model import KNOWN_AT, Dataset, Finding, Inputs, Output
from flowlake.datasets.raw import RAW
from flowlake.lake.hashing import data_hash
from flowlake.lake.partitions import InputRecord
from flowlake.pipeline.scratch import Scratch, scratch_folder
from flowlake.sources import feeds
from flowlake.sources.bucket import Bucket, Download, ObjectInfo, open_bucket

if TYPE_CHECKING:
    from flowlake.pipeline.execute import StepResult

log = logging.getLogger("flowlake")

MANY_FILES = frozenset(feed.dataset.name for feed in feeds.FEEDS if feed.many)
"""Raw datasets with several files a session, such as one per underlying."""
DOUBLED_RATIO = 1.9
DOUBLED_MIN_ROWS = 100
DOUBLED_TICKERS = 500
DOUBLED_ROWS = 50_000
"""Tickers and rows, the first of the partition, that are compared: enough to be sure, few enough to cost nothing on a full tape."""
_TELL_ROWS = 50_000_000
"""Quotes after which a reader of hours says that it goes on."""
_RAW = {ds.name: ds for ds in RAW}
Key = TypeVar("Key")


@dataclass(frozen=True)
class SourceObject:
    """An object of the bucket that feeds a raw dataset. `sha256` is known where this very version was fetched before."""

    key: str
    size: int
    etag: str
    last_modified: datetime
    dataset: str
    file_date: date | None
    sha256: str = ""
    period: str = ""
    """`YYYY` or `YYYYMM` of a file with the rows of many sessions."""

    @property
    def info(self) -> ObjectInfo:
        return ObjectInfo(self.key, self.size, self.etag, self.last_modified)


@dataclass(frozen=True)
class Listing:
    """The bucket at one moment, sorted into what feeds which partition."""

    objects: tuple[SourceObject, ...]
    unknown: int
    """Objects whose key feeds nothing."""

    def datasets(self) -> set[str]:
        return {o.dataset for o in self.objects}

    def sessions(self) -> list[date]:
        """Exchange sessions for which the bucket has at least one file; a file of a month counts for all of its sessions."""
        dated = {o.file_date for o in self.objects if o.file_date and is_session(o.file_date)}
        return sorted(dated.union(*(_sessions_of_month(o.period) for o in self.objects if len(o.period) == len("YYYYMM"))))

    def feeding(self, dataset: str, session: date) -> tuple[SourceObject, ...]:
        """Objects of a dataset for a session; reference files feed every session, files of a period those within."""
        undated = self._by_feed.get((dataset, None), ())
        return tuple(o for o in undated if _covers(o, session)) + self._by_feed.get((dataset, session), ())

    def dated(self, session: date) -> tuple[SourceObject, ...]:
        """Files dated from a session up to the day before the next: files of the session, and of holidays after it.

        A file of a month or a year is dated to each of its sessions.
        """
        last = next_session(session) - timedelta(days=1)
        days = (session + timedelta(days=n) for n in range((last - session).days + 1))
        found = [o for day in days for o in self._by_date.get(day, ())]
        found += [replace(o, file_date=session) for o in self._by_date.get(None, ()) if o.period and _covers(o, session)]
        return tuple(sorted(found, key=lambda o: o.key))

    @cached_property
    def _by_feed(self) -> dict[tuple[str, date | None], tuple[SourceObject, ...]]:
        return _grouped(self.objects, lambda o: (o.dataset, o.file_date))

    @cached_property
    def _by_date(self) -> dict[date | None, tuple[SourceObject, ...]]:
        return _grouped(self.objects, lambda o: o.file_date)


def _covers(o: SourceObject, session: date) -> bool:
    return f"{session:%Y%m}".startswith(o.period)


def _sessions_of_month(period: str) -> list[date]:
    first = date.fromisoformat(f"{period}01")
    return sessions_between(first, (first + timedelta(days=31)).replace(day=1) - timedelta(days=1))


def _grouped(objects: Iterable[SourceObject], key: Callable[[SourceObject], Key]) -> dict[Key, tuple[SourceObject, ...]]:
    grouped: dict[Key, list[SourceObject]] = {}
    for o in objects:
        grouped.setdefault(key(o), []).append(o)
    return {name: tuple(found) for name, found in grouped.items()}


def list_bucket(bucket: Bucket, known: dict[tuple[str, str, int], str], skip: str = "") -> Listing:
    """Everything in the bucket that feeds the lake. `known` maps (key, etag, size) to a hash that was computed before.

    `skip`: raw datasets to leave out, separated by commas; UsageError where one does not exist.
    """
    skipped = {name.strip() for name in skip.split(",") if name.strip()}
    if wrong := sorted(skipped - set(_RAW)):
        raise UsageError(f"skip_feeds names {', '.join(wrong)}, which is no raw dataset", f"they are {', '.join(_RAW)}")
    found: list[SourceObject] = []
    unknown = 0
    for info in bucket.objects():
        match = feeds.match(info.key)
        if match is None or match.feed.dataset.name in skipped:
            unknown += 1
            continue
        sha = known.get((info.key, info.etag, info.size), "")
        name = match.feed.dataset.name
        found.append(SourceObject(info.key, info.size, info.etag, info.last_modified, name, match.file_date, sha, match.period))
    return Listing(tuple(sorted(found, key=lambda o: o.key)), unknown)


@dataclass(frozen=True)
class Source:
    """What an ingest step found: the records that decide freshness, and the table when it is asked for."""

    records: tuple[InputRecord, ...]
    table: Callable[[], pl.DataFrame]
    batches: Callable[[], Iterator[Batch]] | None = None
    """The table in batches, where the file can be read without being held."""
    says_nothing: bool = False
    """A reference file of which no row was known yet: a partition without rows would tell that the file was to come."""


class Ingester:
    """Fetches and parses source objects for one process; keeps the small reference tables."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._bucket: Bucket | None = None
        self._reference: dict[tuple[str, str], pl.DataFrame] = {}
        self._downloads: dict[tuple[str, str], Download] = {}
        self._shas: dict[tuple[str, str], str] = {}
        self._scratch: Scratch | None = None

    def look(
        self, objects: tuple[SourceObject, ...], session: date, result: StepResult, tapes: Callable[[], Inputs]
    ) -> Source | None:
        """What feeds the partition, fetched as far as needed to tell whether it changed; None where nothing feeds it.

        `tapes` reads the session's prints, which tell the quotes that are kept.
        """
        if not objects:
            return None
        if objects[0].file_date is None:
            return self._reference_source(objects, session, result)
        if large := [o for o in objects if self._is_too_large(o)]:
            raise self._too_large(large[0], "tables are read whole into memory")
        if len(objects) > 1 and objects[0].dataset not in MANY_FILES:
            raise BadInputError(
                f"{objects[0].dataset} {session}",
                "two_files",
                f"{len(objects)} objects feed one partition: {', '.join(o.key for o in objects)}",
                "remove all but one from the bucket",
            )
        records = tuple(self._record(o, session, result) for o in objects)
        feed, day = _feed(objects[0].key), objects[0].file_date
        if (pieces := feed.pieces) is not None:
            return Source(records, lambda: self._quotes(objects[0], pieces, session, result, tapes()))
        batches = None
        if (read := feed.batches) is not None and len(objects) == 1:
            batches = lambda: read(self._downloaded(objects[0], result).path, day)  # noqa: E731
        return Source(records, lambda: self._session_table(objects, result), batches)

    def _is_too_large(self, o: SourceObject) -> bool:
        """Quotes are read piece by piece, and may be as large as they are."""
        return self._is_over_limit(o) and _feed(o.key).pieces is None

    def _is_over_limit(self, o: SourceObject) -> bool:
        return o.size > self._settings.max_object_mb * 1_000_000

    def _too_large(self, o: SourceObject, why: str) -> BadInputError:
        return BadInputError(
            o.key,
            "too_large",
            f"{o.size / 1e6:,.0f} MB, and the limit is {self._settings.max_object_mb} MB: {why}",
            f"leave it out with FLOWLAKE_SKIP_FEEDS={o.dataset}, or raise FLOWLAKE_MAX_OBJECT_MB on a large machine",
        )

    def _quotes(self, o: SourceObject, read: feeds.PieceReader, session: date, result: StepResult, tapes: Inputs) -> pl.DataFrame:
        """Of a file of quotes those that are worth keeping."""
        kept = KeptQuotes.of(o.dataset, tapes, session)
        told = 0
        try:
            for piece in read(self._downloaded(o, result).path, session):
                kept.take(piece)
                if kept.taken - told >= _TELL_ROWS:
                    told = kept.taken
                    emit("quotes_read", key=o.key, session=session, rows=kept.taken)
        except WholeTableNeededError as error:
            if self._is_over_limit(o):
                raise self._too_large(o, f"it cannot be read piece by piece ({error})") from None
            log.info("%s is read as a whole: %s", o.key, error)
            kept = KeptQuotes(kept.source, kept.prints, session)
            kept.take(self._parsed(o, result))
        table = kept.table()
        emit("quotes_kept", key=o.key, session=session, rows=kept.taken, kept=table.height)
        return table

    def _record(self, o: SourceObject, session: date, result: StepResult) -> InputRecord:
        return InputRecord(f"bucket:{o.key}", str(session), str(session), o.sha256 or self._downloaded(o, result).sha256)

    def _session_table(self, objects: tuple[SourceObject, ...], result: StepResult) -> pl.DataFrame:
        return pl.concat([self._parsed(o, result) for o in objects])

    def _reference_source(self, objects: tuple[SourceObject, ...], session: date, result: StepResult) -> Source:
        """A reference file is recorded by the rows that were known, never as a whole: later rows change nothing."""
        tables = [self._reference_table(o, result) for o in objects]
        name = objects[0].dataset
        known = feeds.as_known(name, pl.concat(tables), session)
        conformed = _RAW[name].conform(known, session)
        record = InputRecord(f"bucket:{name}", str(session), str(session), data_hash(conformed))
        return Source((record,), lambda: known, says_nothing=known.is_empty())

    def _reference_table(self, o: SourceObject, result: StepResult) -> pl.DataFrame:
        key = (o.key, o.etag)
        if key not in self._reference:
            self._reference[key] = self._parsed(o, result)
        return self._reference[key]

    def hashes(self, objects: Iterable[SourceObject]) -> list[list[str]]:
        """Key and content hash of each object that was fetched; the ETag stands in for one that was not."""
        return [[o.key, o.sha256 or self._shas.get((o.key, o.etag), o.etag)] for o in objects]

    def prefetch(self, objects: Iterable[SourceObject], on_bytes: Callable[[int], None] | None = None) -> None:
        """Download in parallel what was never fetched before; `on_bytes` is told of every piece that arrives.

        A failure is left for the step that needs the object to report.
        """
        had = {*self._downloads, *self._shas}
        wanted = [o for o in objects if not o.sha256 and (o.key, o.etag) not in had and not self._is_too_large(o)]
        if not wanted:
            return
        bucket, folder = self._open()
        fetched = bucket.fetch_many([o.info for o in wanted], folder, workers=self._settings.download_workers, on_bytes=on_bytes)
        for o, download in zip(wanted, fetched, strict=True):
            if isinstance(download, Download):
                self._downloads[o.key, o.etag] = download

    def _open(self) -> tuple[Bucket, Path]:
        if self._bucket is None:
            self._bucket = open_bucket(self._settings)
        return self._bucket, self.folder()

    def folder(self) -> Path:
        """A folder of this process alone, for files that are on their way."""
        if self._scratch is None:
            self._scratch = Scratch.taken(scratch_folder(self._settings))
        self._scratch.folder.mkdir(parents=True, exist_ok=True)
        return self._scratch.folder

    def _parsed(self, o: SourceObject, result: StepResult) -> pl.DataFrame:
        return feeds.parse(_feed(o.key), o.key, self._downloaded(o, result).path.read_bytes())

    def _downloaded(self, o: SourceObject, result: StepResult) -> Download:
        """The object on disk; fetched once, however often it is asked for before it is used."""
        key = (o.key, o.etag)
        if key not in self._downloads:
            bucket, folder = self._open()
            self._downloads[key] = bucket.fetch(o.info, folder)
        download = self._downloads[key]
        if not o.sha256 and key not in self._shas:
            self._shas[key] = download.sha256
            row = {"key": o.key, "size": o.size, "etag": o.etag, "sha256": download.sha256, "last_modified_utc": o.last_modified}
            result.fetched.append(row | {"fetched_at_utc": datetime.now(UTC)})
        return download

    def forget(self, objects: Iterable[SourceObject]) -> None:
        """The objects are in the lake or in quarantine: their downloads have served."""
        for o in objects:
            download = self._downloads.pop((o.key, o.etag), None)
            if download is not None:
                download.path.unlink(missing_ok=True)


def _feed(key: str) -> feeds.Feed:
    match = feeds.match(key)
    if match is None:
        raise ValueError(f"{key} feeds nothing")
    return match.feed


def raw_output(table: pl.DataFrame, ds: Dataset, session: date) -> Output:
    """The raw partition of a parsed table. Rows that became known after D(t) can be of no use to t and would be invisible to every
    step that reads as of t, so they are rejected here, in the open.
    """
    _refuse_doubled(table, ds, session)
    known = table if KNOWN_AT in table.columns else table.with_columns(ds.known.expr(session).alias(KNOWN_AT))
    late = known.filter(pl.col(KNOWN_AT) > decision_time(session))
    findings = extra_columns(table, ds.name)
    if late.height:
        what = f"{ds.name} {session}: {late.height} rows carry a time after {decision_time(session):%Y-%m-%d %H:%M} UTC"
        cure = "the clock of the source is ahead, or the rows belong to a later file: ask who publishes it"
        findings = (
            *findings,
            Finding(ds.name, "known_after_decision", what, cure, "rejected", Severity.ERROR, late.drop(KNOWN_AT)),
        )
        known = known.filter(pl.col(KNOWN_AT) <= decision_time(session))
    return Output({ds.name: known}, findings)


def raw_stream(batches: Iterator[Batch], ds: Dataset, session: date) -> Stream:
    """The raw partition of a file in batches, each of whole tickers. Rows that became known after D(t) need the whole table."""
    return Stream(ds, _checked(batches, ds, session))


def _checked(batches: Iterator[Batch], ds: Dataset, session: date) -> Iterator[Batch]:
    sample = _Sample()
    decided = int(decision_time(session).timestamp()) * 10**9
    for batch in batches:
        if (batch.plain(KNOWN_AT).values > decided).any():
            raise WholeTableNeededError("rows became known after the decision time")
        sample.take(batch, ds)
        yield batch
    sample.refuse_doubled(ds, session)


def _refuse_doubled(table: pl.DataFrame, ds: Dataset, session: date) -> None:
    """A file with every row twice would double volume and premium, so it is held. Prints do repeat, but by a tenth at the most."""
    if "ticker" not in table.columns:
        return
    tickers = table.get_column("ticker").unique().sort().head(DOUBLED_TICKERS)
    sample = _Sample()
    sample.add(table.filter(pl.col("ticker").is_in(tickers.implode())).sort(ds.sort_by, nulls_last=True).head(DOUBLED_ROWS))
    sample.refuse_doubled(ds, session)


@dataclass
class _Sample:
    """The rows of a few tickers, counted with and without their repetitions."""

    rows: int = 0
    distinct: int = 0
    tickers: int = 0

    def take(self, batch: Batch, ds: Dataset) -> None:
        """The rows of the next tickers, which come in order and whole."""
        if self.tickers < DOUBLED_TICKERS and self.rows < DOUBLED_ROWS:
            rows = int(batch.runs("ticker").lengths[: DOUBLED_TICKERS - self.tickers].sum())
            self.add(to_frame(part(batch, 0, min(rows, DOUBLED_ROWS - self.rows)), ds))

    def add(self, rows: pl.DataFrame) -> None:
        self.tickers += rows.get_column("ticker").n_unique()
        self.rows += rows.height
        self.distinct += rows.drop("row", strict=False).unique().height

    def refuse_doubled(self, ds: Dataset, session: date) -> None:
        ratio = self.rows / max(self.distinct, 1)
        if self.rows >= DOUBLED_MIN_ROWS and ratio >= DOUBLED_RATIO:
            raise BadInputError(
                f"{ds.name} {session}",
                "doubled_file",
                f"each row stands there {ratio:.1f} times ({self.rows} rows of {self.tickers} tickers looked at)",
                "fetch the file again; if it stays so, ask who publishes it to correct it",
            )


def extra_columns(table: pl.DataFrame, name: str) -> tuple[Finding, ...]:
    """A note where the vendor's file has columns that nobody declared."""
    if "extra" not in table.columns or not (rows := table.filter(pl.col("extra").is_not_null())).height:
        return ()
    columns = ", ".join(sorted(json.loads(rows.get_column("extra")[0])))
    what = f"{name}: the file has columns that are not declared: {columns}; they are kept in `extra`"
    return (Finding(name, "extra_columns", what, "declare the columns in the dataset if they matter", rows=rows.head(1000)),)


def ledger(rows: pl.DataFrame) -> dict[tuple[str, str, int], str]:
    """(key, etag, size) -> sha256 from the records of earlier downloads."""
    return {(key, etag, size): sha for key, etag, size, sha in rows.select("key", "etag", "size", "sha256").iter_rows()}
