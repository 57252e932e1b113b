"""The state of a lake as metrics, from what runs recorded and from what is served. Reads only, and asks no bucket."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from flowlake import __version__
from flowlake.core.errors import UsageError
from flowlake.core.sessions import CALENDAR_FIRST, actionable_at, close_utc, is_session, last_actionable, sessions_between
from flowlake.core.settings import Settings, without_secrets
from flowlake.datasets.model import Dataset
from flowlake.datasets.ops import AUDITS, OBJECTS, PUBLICATIONS, RUNS, STATUSES
from flowlake.datasets.registry import DATASETS, RUN_KEYED
from flowlake.datasets.signals import SIGNALS_DATASET, TIERS
from flowlake.lake import journal
from flowlake.lake.lake import Lake, distinct, open_lake
from flowlake.lake.quarantine import refusals
from flowlake.lake.store import absolute_root
from flowlake.monitoring import exposition, metrics
from flowlake.monitoring.metrics import Metric, Sample
from flowlake.pipeline.judging import drift, hits
from flowlake.sources import feeds

BACKLOG_SESSIONS = 20
"""As many as the nightly search for late data looks at: an older hole is one that a person has seen."""
TRIED = ("built", "quarantined", "failed")
"""What becomes of a step that was run, and not just looked at."""
ILL = ("quarantined", "failed")
KINDS = ("held", "rows")


def measure(settings: Settings, session: date | None = None, now: datetime | None = None) -> list[Sample]:
    """Every figure of the lake that the settings name.

    Figures of one session are of the newest that a run has looked at, and due is what should be there `now`. With `session` both
    are that session: the lake as it stands, judged as if nothing later were due. Raises UsageError for a day without trading.
    """
    moment = now or datetime.now(UTC)
    if session is not None and not is_session(session):
        raise UsageError(f"{session} is no session", "give a trading day")
    found = _Lake(open_lake(settings=settings), session or last_due(moment), session)
    return [
        metrics.BUILD_INFO.of(1, __version__),
        metrics.MEASURED.of(moment.timestamp()),
        metrics.DUE_SESSION.of(close_utc(found.due).timestamp()),
        *_steps(found),
        *_partitions(found),
        *_freshness(found),
        *_audits(found),
        *_quarantine(found),
        *_signals(found),
        *hits(found.lake, found.due),
        *drift(found.lake, found.shown),
    ]


def show(settings: Settings, session: date | None = None) -> str:
    """The figures in Prometheus' text format."""
    return exposition.text(measure(settings, session))


def write_textfile(settings: Settings, path: Path, session: date | None = None) -> None:
    """The same in a file for node_exporter."""
    exposition.write_textfile(measure(settings, session), path)


def push(settings: Settings, gateway: str = "", instance: str = "", session: date | None = None) -> tuple[str, str, int]:
    """Hand the figures to a Pushgateway; the address, the instance and how many values there were.

    The address is that of the settings unless one is given, and the instance is the lake. Raises UsageError where no address is
    known, PushError where the gateway does not take them.
    """
    address = gateway or settings.pushgateway
    if not address:
        raise UsageError("no pushgateway was given", "give --gateway http://HOST:9091, or set FLOWLAKE_PUSHGATEWAY")
    exposition.check_address(address)
    name = instance or without_secrets(absolute_root(settings.lake), settings)
    samples = measure(settings, session)
    exposition.push(samples, address, name)
    return address, name, len(samples)


def last_due(now: datetime) -> date:
    """The newest session whose signals can be there: its decision time and the vendor's hour of publication have passed."""
    if not (ready := last_actionable(now, 1)):
        raise UsageError(f"{now:%Y-%m-%d} is outside the calendar", f"give --session, a day from {CALENDAR_FIRST} on")
    return ready[0]


@dataclass
class _Lake:
    """A lake and the records of its runs, each read once. `due` is the last due session."""

    lake: Lake
    due: date
    asked: date | None

    @cached_property
    def runs(self) -> pl.DataFrame:
        return self._records(RUNS).sort("started_at_utc", maintain_order=True)

    @cached_property
    def publications(self) -> pl.DataFrame:
        return distinct(self._records(PUBLICATIONS))

    @cached_property
    def audits(self) -> pl.DataFrame:
        return self._records(AUDITS).sort("audited_at_utc", maintain_order=True)

    @cached_property
    def objects(self) -> pl.DataFrame:
        return self._records(OBJECTS)

    def _records(self, ds: Dataset) -> pl.DataFrame:
        return journal.records(self.lake.store, ds)

    @cached_property
    def shown(self) -> date:
        """The session that figures of one session are of; the due one where no run has looked at any."""
        if self.asked is not None:
            return self.asked
        looked_at = self.runs.filter(pl.col("session") <= self.due).get_column("session")
        return max(looked_at, default=self.due)

    @cached_property
    def sessions(self) -> dict[str, list[date]]:
        """By dataset that has any: sessions with a partition, up to the due one."""
        datasets = (name for name, ds in DATASETS.items() if ds not in RUN_KEYED)
        found = {name: [day for day in self.lake.sessions(name) if day <= self.due] for name in datasets}
        return {name: days for name, days in found.items() if days}


def _steps(found: _Lake) -> Iterator[Sample]:
    yield metrics.SESSION.of(close_utc(found.shown).timestamp())
    of_session = found.runs.filter(pl.col("session") == found.shown)
    newest = of_session.group_by("step").last()
    counts = dict(newest.group_by("status").len().iter_rows())
    yield from (metrics.SESSION_STEPS.of(counts.get(status, 0), status) for status in STATUSES)
    tries = of_session.filter(pl.col("status").is_in(TRIED)).group_by("step").last().sort("step")
    columns = {
        "seconds": metrics.STEP_DURATION,
        "cpu_seconds": metrics.STEP_CPU,
        "peak_memory_bytes": metrics.STEP_MEMORY,
        "rows": metrics.STEP_ROWS,
    }
    for column, metric in columns.items():
        yield from _each(metric, tries.select(column, "step").drop_nulls())
    yield from _each(metrics.STEPS, found.runs.group_by("step", "status").len().select("len", "step", "status"))
    tried = found.runs.filter(pl.col("status").is_in(TRIED))
    again = pl.col("status").shift().over("step", "session").is_in(ILL).fill_null(False)
    yield from _each(
        metrics.RETRIES,
        tried.with_columns(again.alias("again")).group_by("step").agg(pl.col("again").sum()).select("again", "step"),
    )


def _each(metric: Metric, rows: pl.DataFrame) -> Iterator[Sample]:
    """A value in the first column, its labels in the others."""
    for value, *labels in rows.sort(rows.columns[1:]).iter_rows():
        yield metric.of(value, *labels)


def _partitions(found: _Lake) -> Iterator[Sample]:
    for name in found.sessions:
        entry = found.lake.index.get(DATASETS[name], found.shown)
        if entry is not None:
            yield metrics.PARTITION_ROWS.of(entry.lineage.rows, name)
            yield metrics.PARTITION_BYTES.of(entry.size, name)
    yield from _each(
        metrics.PUBLISHED_BYTES, found.publications.group_by("dataset").agg(pl.col("bytes").sum()).select("bytes", "dataset")
    )
    yield metrics.DOWNLOADED_BYTES.of(float(found.objects.get_column("size").sum()))


def _freshness(found: _Lake) -> Iterator[Sample]:
    for name, days in found.sessions.items():
        yield metrics.DATASET_BEHIND.of(len(sessions_between(days[-1], found.due)) - 1, name)
    published = found.publications.group_by("dataset").agg(pl.col("published_at_utc").max().dt.epoch("ns") / 1e9)
    yield from _each(metrics.DATASET_PUBLISHED, published.select("published_at_utc", "dataset"))
    first = min((days[0] for days in found.sessions.values()), default=found.due)
    wanted = sessions_between(first, found.due)[-BACKLOG_SESSIONS:]
    yield metrics.BACKLOG.of(len(set(wanted) - set(found.sessions.get(SIGNALS_DATASET.name, ()))))


def _audits(found: _Lake) -> Iterator[Sample]:
    result = pl.when(pl.col("passed")).then(pl.lit("passed")).otherwise(pl.lit("failed")).alias("result")
    counts = found.audits.with_columns(result).group_by("dataset", "result").len()
    yield from _each(metrics.AUDITS, counts.select("len", "dataset", "result"))
    newest = found.audits.filter(pl.col("session") == found.shown).group_by("dataset").last()
    yield from _each(metrics.AUDIT_FAILED, newest.select((~pl.col("passed")).cast(pl.Int64), "dataset"))
    yield from _each(metrics.AUDIT_FAILED_CHECKS, newest.select("failed_checks", "dataset"))


def _quarantine(found: _Lake) -> Iterator[Sample]:
    """Every dataset that is served has a 0, so that an alert can tell none from not measured."""
    entries = {(refusal.dataset, refusal.kind, refusal.session) for refusal in refusals(found.lake.store)}
    counts = Counter((dataset, kind) for dataset, kind, _ in entries)
    for dataset in sorted({*found.sessions, *(name for name, _ in counts)}):
        for kind in KINDS:
            yield metrics.QUARANTINE.of(counts[dataset, kind], dataset, kind)


def _signals(found: _Lake) -> Iterator[Sample]:
    name = SIGNALS_DATASET.name
    rows = found.lake.read(name, found.shown).select("tier", "score").collect()
    counts = dict(rows.group_by("tier").len().iter_rows())
    yield from (metrics.SIGNALS.of(counts.get(tier, 0), tier) for tier in TIERS)
    yield metrics.UNSCORED.of(rows.get_column("score").null_count())
    mine = (pl.col("dataset") == name) & (pl.col("session") == found.shown)
    first: Any = found.publications.filter(mine).get_column("published_at_utc").min()
    if first is None:
        return
    yield metrics.SIGNAL_LAG.of((first - actionable_at(found.shown)).total_seconds(), "due")
    if (arrived := _last_arrival(found, found.shown, first)) is not None:
        yield metrics.SIGNAL_LAG.of((first - arrived).total_seconds(), "arrival")


def _last_arrival(found: _Lake, session: date, before: datetime) -> datetime | None:
    """When the last file of the session that was fetched by then came into the bucket; None where that was not written down."""
    objects = found.objects.filter(pl.col("fetched_at_utc") <= before)
    moments = [
        moment
        for key, moment in objects.select("key", "last_modified_utc").drop_nulls().iter_rows()
        if (match := feeds.match(key)) is not None and match.file_date == session
    ]
    return max(moments, default=None)
