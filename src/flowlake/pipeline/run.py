"""A run: list the bucket, plan the tasks, execute them, and write down what happened."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from flowlake import __version__
from flowlake.core.errors import SourceUnavailableError, UsageError
from flowlake.core.events import emit, on_stderr
from flowlake.core.sessions import actionable_at, sessions_between
from flowlake.core.settings import Settings, without_secrets
from flowlake.datasets.ops import OBJECTS, PUBLICATIONS
from flowlake.datasets.registry import DATASETS, RUN_KEYED
from flowlake.lake import journal
from flowlake.lake.claims import WAIT_SECONDS, Held, claimed
from flowlake.lake.index import Index
from flowlake.lake.journal import Journal, pack_if_many
from flowlake.lake.partitions import partition_path
from flowlake.lake.publish import Published
from flowlake.lake.store import LocalStore, Store, file_hash, open_store
from flowlake.pipeline.execute import Context, Options, StepResult, Task, decide
from flowlake.pipeline.executors import run_dask, run_local
from flowlake.pipeline.ingest import Listing, SourceObject, ledger, list_bucket
from flowlake.pipeline.invocation import Asked, Invocation, command_line, libraries, recorded
from flowlake.pipeline.plan import STEPS
from flowlake.pipeline.scratch import clean_scratch, scratch_folder
from flowlake.pipeline.step import Step
from flowlake.sources.bucket import open_bucket

log = logging.getLogger("flowlake")

STALE_STAGING_SECONDS = 6 * 3600.0
UNAVAILABLE_LIMIT = 3
"""A run ends when this many source objects in a row could not be had: the bucket is away, not the file."""
EVERY_DAY = frozenset({"find_gaps"})
"""Steps that also run for exchange sessions of which the bucket has nothing."""

Progress = Callable[[int, int, StepResult], None]


@dataclass(frozen=True)
class Request:
    """What to run. `first` and `last` are both inclusive; `executor` is local or dask."""

    first: date
    last: date
    steps: tuple[Step, ...] = STEPS
    executor: str = "local"
    scheduler: str = ""
    workers: int = 2
    retry: bool = False
    restate: bool = False
    wait_seconds: float = WAIT_SECONDS
    """How long to wait for another run that works on the same sessions."""


@dataclass
class Report:
    """What a run did. `exit_code` is 0 when all is built or fresh, 1 after a failure, 3 when something was quarantined."""

    run_id: str
    first: date
    last: date
    sessions: int
    seconds: float = 0.0
    results: list[StepResult] = field(default_factory=list)
    unknown_objects: int = 0

    def counts(self) -> dict[str, Counter[str]]:
        """Status counts by step, in the plan's order."""
        found: dict[str, Counter[str]] = {step.name: Counter() for step in STEPS}
        for result in self.results:
            found[result.step][result.status] += 1
        return {name: counter for name, counter in found.items() if counter}

    def total(self, status: str) -> int:
        return sum(result.status == status for result in self.results)

    @property
    def refused(self) -> int:
        return sum(result.refused for result in self.results)

    @property
    def exit_code(self) -> int:
        if self.total("failed"):
            return 1
        return 3 if self.refused or self.total("held") else 0

    def validations(self) -> list[dict[str, Any]]:
        return [validation for result in self.results for validation in result.validations]


def run(
    settings: Settings,
    request: Request,
    progress: Progress | None = None,
    on_bytes: Callable[[int], None] | None = None,
) -> Report:
    """Bring the lake up to date for the requested sessions; `progress` hears of every step, `on_bytes` of what is downloaded.

    Raises FlowlakeError where nothing can go on, BusyError where another run works on these sessions for too long."""
    store = open_store(settings.lake, settings.lake_access)
    names = tuple(step.name for step in request.steps)
    asked = Asked("run", request.first, request.last, names, request.executor, request.retry, request.restate)
    with (
        recorded(store, settings, asked) as running,
        claimed(store, running.run_id, request.first, request.last, request.wait_seconds, _say) as claim,
    ):
        return _run(settings, request, store, running, claim, progress, on_bytes)


def _say(words: str) -> None:
    emit("waiting", text=words)
    if not on_stderr():
        sys.stderr.write(f"flowlake: {words}\n")
        sys.stderr.flush()


def _run(
    settings: Settings,
    request: Request,
    store: Store,
    running: Invocation,
    claim: Held,
    progress: Progress | None,
    on_bytes: Callable[[int], None] | None,
) -> Report:
    """The run proper, while it holds its sessions."""
    began = time.monotonic()
    if isinstance(store, LocalStore):
        store.clean_staging(STALE_STAGING_SECONDS, time.time())
    records = running.records
    options = Options(records.run_id, request.retry, request.restate)
    listing = list_bucket(open_bucket(settings), ledger(journal.records(store, OBJECTS)), settings.skip_feeds)
    tasks = plan_tasks(listing, request)
    report = Report(records.run_id, request.first, request.last, len({t.session for t in tasks}), unknown_objects=listing.unknown)
    adopt(store, Index(store), records)
    try:
        for result in _within_patience(_results(tasks, settings, options, request, on_bytes)):
            report.results.append(result)
            running.statuses[result.status] += 1
            _record(records, result, settings)
            _announce(result)
            claim.check()
            if progress:
                progress(len(report.results), len(tasks), result)
    finally:
        records.flush()
    index = Index(store)
    adopt(store, index, records)  # a worker may have died after it published and before it could say so
    records.flush()
    index.save()
    if not report.total("failed"):
        clean_scratch(scratch_folder(settings))
    pack_if_many(store, records.run_id)
    running.exit_code = report.exit_code
    report.seconds = time.monotonic() - began
    return report


def newest_sessions(settings: Settings, count: int, now: datetime) -> tuple[date, date]:
    """First and last of the newest `count` sessions that the bucket lists and whose decision time has passed.

    A session before its decision time is left out: what is fitted for it would miss the next morning's open interest.
    """
    listing = list_bucket(open_bucket(settings), {}, settings.skip_feeds)
    ready = [day for day in listing.sessions() if actionable_at(day) <= now][-count:]
    if not ready:
        raise UsageError("the bucket has no session whose decision time has passed", "check FLOWLAKE_BUCKET_NAME and _PREFIX")
    return ready[0], ready[-1]


def plan_tasks(listing: Listing, request: Request) -> list[Task]:
    """Tasks in session order. Raises UsageError where the range holds no session, or the bucket nothing of it."""
    days = sessions_between(request.first, request.last)
    if not days:
        raise UsageError(f"there is no session from {request.first} to {request.last}", "give trading days, the earlier one first")
    listed = set(listing.sessions())
    if not listed.intersection(days):
        span = f"it has {min(listed)} to {max(listed)}" if listed else "no key in it is one of a known feed"
        raise UsageError(f"the bucket has no file for {request.first} to {request.last}", f"{span}; check FLOWLAKE_BUCKET_PREFIX")
    newest, oldest = max(listed), min(listed)
    fed = fed_steps(listing.datasets())
    tasks: list[Task] = []
    for day in days:
        for step in request.steps:
            if step.name not in fed:
                continue
            if day not in listed and not (step.name in EVERY_DAY and oldest < day < newest):
                continue
            tasks.append(Task(step, day, objects_for(listing, step, day)))
    return tasks


def fed_steps(raw: set[str]) -> set[str]:
    """Steps that the bucket's feeds can reach: what has no feed at all is not planned, and `doctor` says what would feed it."""
    reached = set(raw)
    names = set()
    for step in STEPS:
        needed = [read.dataset for read in step.reads if read.required]
        if step.is_ingest and step.writes[0] not in raw:
            continue
        if all(n in reached for n in needed) and (not step.any_of or reached.intersection(step.any_of)):
            names.add(step.name)
            reached.update(step.writes)
    return names


def objects_for(listing: Listing, step: Step, day: date) -> tuple[SourceObject, ...]:
    """What the bucket has for a step: the objects that feed an ingest step, the files of the day for one that reads the listing."""
    if step.is_ingest:
        return listing.feeding(step.writes[0], day)
    return listing.dated(day) if step.reads_listing else ()


def _results(
    tasks: Sequence[Task], settings: Settings, options: Options, request: Request, on_bytes: Callable[[int], None] | None
) -> Iterator[StepResult]:
    if request.executor == "dask":
        return run_dask(tasks, settings, options, request.scheduler or settings.dask_scheduler, request.workers)
    return run_local(tasks, settings, options, on_bytes)


def _within_patience(results: Iterator[StepResult]) -> Iterator[StepResult]:
    away = 0
    for result in results:
        yield result
        away = away + 1 if result.source_unavailable else 0 if result.status == "built" else away
        if away >= UNAVAILABLE_LIMIT:
            raise SourceUnavailableError(
                f"{away} source objects in a row could not be had; the last: {result.detail}",
                "what was built is kept: run the same command again when the bucket answers",
            )


def _record(records: Journal, result: StepResult, settings: Settings) -> None:
    row = {
        "step": result.step,
        "session": result.session,
        "status": result.status,
        "detail": without_secrets(result.detail, settings),
        "started_at_utc": result.started_at_utc,
        "seconds": result.seconds,
        "cpu_seconds": result.cpu_seconds,
        "peak_memory_bytes": result.peak_memory_bytes,
        "rows": result.rows,
        "inputs_key": result.inputs_key,
        "command": command_line(settings),
        "code": __version__,
        "libraries": libraries(),
    }
    records.add("runs", [row])
    records.add("publications", [publication_row(p) for p in result.published if p.changed])
    records.add("audits", result.audits)
    records.add("findings", result.findings)
    records.add("objects", result.fetched)


def _announce(result: StepResult) -> None:
    """The result as events for whoever listens: of the step, of each published file, of what was refused."""
    where = {"step": result.step, "session": result.session}
    emit(
        "step_finished",
        logging.ERROR if result.status == "failed" else logging.INFO,
        **where,
        status=result.status,
        rows=result.rows,
        seconds=round(result.seconds, 3),
        detail=result.detail,
    )
    for published in result.published:
        emit(
            "published",
            dataset=published.dataset,
            session=published.session,
            data_hash=published.data_hash,
            rows=published.rows,
            bytes=published.size,
            changed=published.changed,
        )
    if result.status == "quarantined":
        emit("quarantined", logging.WARNING, **where, kind="held", rows=0, what=result.detail)
    for finding in result.findings:
        if result.status == "built" and finding["kind"] == "rejected":
            facts = {name: finding[name] for name in ("dataset", "rule", "rows", "what", "cure")}
            emit("quarantined", logging.WARNING, **where, kind="rows", **facts)


def publication_row(published: Published) -> dict[str, Any]:
    row: dict[str, Any] = asdict(published)
    row["bytes"] = row.pop("size")
    del row["changed"]
    return row | {"published_at_utc": datetime.now(UTC)}


def adopt(store: Store, index: Index, records: Journal) -> None:
    """Write down publications whose run was killed before it could: the lake itself is the witness."""
    known = journal.records(store, PUBLICATIONS).sort("published_at_utc")
    newest = {(d, s): (h, f) for d, s, h, f in known.select("dataset", "session", "data_hash", "file_hash").iter_rows()}
    rows = []
    for ds in DATASETS.values():
        if ds in RUN_KEYED:
            continue
        for day in index.sessions(ds):
            entry = index.get(ds, day)
            data, file = newest.get((ds.name, day), ("", ""))
            if entry is None or entry.lineage.data_hash == data:
                continue
            served = file_hash(store.read(partition_path(ds, day)))
            rows.append(
                {
                    "dataset": ds.name,
                    "session": day,
                    "published_at_utc": datetime.now(UTC),
                    "data_hash": entry.lineage.data_hash,
                    "file_hash": served,
                    "replaced_hash": file,
                    "rows": entry.lineage.rows,
                    "bytes": entry.size,
                }
            )
    if rows:
        log.info("adopted %d publications of a run that was cut short", len(rows))
        records.add("publications", rows)


@dataclass(frozen=True)
class Status:
    """State of one step in one session, without running it."""

    step: str
    session: date
    status: str
    detail: str


def status(settings: Settings, request: Request) -> list[Status]:
    """What a run would do: fresh, due, held, restatable, blocked or absent. Nothing is written, and nothing
    but the small reference files is fetched.

    A step that lacks an input which is itself due is due after it. One whose inputs exist and are due is shown by what the lake
    holds now: the run may find that nothing changed for it.
    """
    store = open_store(settings.lake, settings.lake_access)
    listing = list_bucket(open_bucket(settings), ledger(journal.records(store, OBJECTS)), settings.skip_feeds)
    context = Context(settings, Options("status", request.retry, request.restate))
    found = []
    due: set[tuple[str, date]] = set()
    for task in plan_tasks(listing, request):
        state = _state(task, context, due)
        if state.status == "due":
            due.update((name, task.session) for name in task.step.writes)
        found.append(state)
    return found


def _state(task: Task, context: Context, due: set[tuple[str, date]]) -> Status:
    step, session = task.step, task.session
    if step.is_ingest and any(o.file_date is not None and not o.sha256 for o in task.objects):
        return Status(step.name, session, "due", "the bucket has a file that was not fetched yet")
    decision = decide(task, context, StepResult(step.name, session, ""))
    context.ingester.forget(task.objects)
    waits = [read.dataset for read in step.reads if (read.dataset, session) in due]
    if decision.status == "blocked" and waits:
        return Status(step.name, session, "due", f"after {', '.join(waits)}")
    return Status(step.name, session, decision.status, decision.detail)


__all__ = ["Report", "Request", "Status", "adopt", "plan_tasks", "run", "status"]
