"""Running one step for one session: gather, decide, compute, audit, publish. The same on every executor."""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections import OrderedDict
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime
from functools import partial
from typing import Any

import polars as pl

from flowlake.core.errors import BadInputError, FlowlakeError, SourceUnavailableError, StorageError
from flowlake.core.settings import Settings
from flowlake.curate.conditions import policy_named
from flowlake.datasets.batch import Stream, WholeTableNeededError
from flowlake.datasets.hits import THRESHOLDS
from flowlake.datasets.model import SESSION, Dataset, Finding, Output
from flowlake.datasets.policies import CONDITION_POLICY
from flowlake.datasets.registry import DATASETS
from flowlake.datasets.render import arrow_schema, suite_hash
from flowlake.datasets.slices import Rows, large_rows, slices
from flowlake.lake import partitions, quarantine
from flowlake.lake.asof import AsOfReader, Slice
from flowlake.lake.batches import read_batches
from flowlake.lake.hashing import data_hash, json_hash
from flowlake.lake.index import Entry, Index
from flowlake.lake.partitions import InputRecord, Lineage, StoredRows
from flowlake.lake.publish import Published, publish
from flowlake.lake.quarantine import Refusal
from flowlake.lake.store import Store, open_store
from flowlake.pipeline.candidates import Candidate, Sealing, TableCandidate, staged, staged_parts
from flowlake.pipeline.ingest import Ingester, Source, SourceObject, raw_output, raw_stream
from flowlake.pipeline.step import Read, Step
from flowlake.pipeline.usage import peak_memory_bytes
from flowlake.quality.audit import AuditResult

log = logging.getLogger("flowlake")

LISTING = "bucket_listing"
CACHE_BYTES = 1_000_000_000
"""Of partitions that one process keeps for later steps; windows read the same partitions again and again."""
CACHE_FRAME_BYTES = 100_000_000
"""A larger partition is a tape that one session reads; keeping it would push out the windows that every session reads."""
REJECTED_SHARE = 0.01
REJECTED_ROWS = 10
"""A partition is held when more than these many rows and more than this share of them were rejected."""


@dataclass(frozen=True)
class Options:
    """What a run may ask of every step."""

    run_id: str
    retry: bool = False
    restate: bool = False
    keep_validations: bool = True


@dataclass(frozen=True)
class Task:
    """One step for one session, with the source objects that concern it and the hashes of those already known."""

    step: Step
    session: date
    objects: tuple[SourceObject, ...] = ()


@dataclass
class StepResult:
    """What happened. `status`: built, fresh, absent, blocked, held, quarantined, restatable or failed."""

    step: str
    session: date
    status: str
    detail: str = ""
    inputs_key: str = ""
    rows: int = 0
    started_at_utc: datetime = field(default_factory=lambda: datetime.now(UTC))
    seconds: float = 0.0
    cpu_seconds: float | None = None
    peak_memory_bytes: int | None = None
    published: list[Published] = field(default_factory=list)
    audits: list[dict[str, Any]] = field(default_factory=list)
    findings: list[dict[str, Any]] = field(default_factory=list)
    fetched: list[dict[str, Any]] = field(default_factory=list)
    validations: list[dict[str, Any]] = field(default_factory=list)
    refused: int = 0
    source_unavailable: bool = False
    awaits: str = ""
    """The source file that could not be had, here or in a step that this one builds on."""


class Context:
    """What a process needs to run steps: the store, an index, a cache of partitions, the bucket."""

    def __init__(self, settings: Settings, options: Options, shared: bool = False, store: Store | None = None) -> None:
        """`shared`: other processes publish into the lake at the same time, so listings are not trusted for long.

        `store` stands in for the lake that the settings name. Raises UsageError for an unknown condition policy.
        """
        self.settings = settings
        self.policy = policy_named(settings.condition_policy)
        self.shared = shared
        self.options = options
        self.store: Store = store or open_store(settings.lake, settings.lake_access)
        self.index = Index(self.store)
        self.ingester = Ingester(settings)
        self._cache: OrderedDict[tuple[str, date, str, tuple[str, ...]], pl.DataFrame] = OrderedDict()
        self._cached_bytes = 0

    def load(self, ds: Dataset, day: date, columns: tuple[str, ...] = ()) -> pl.DataFrame:
        """A partition or some columns of it, from memory where this process has read the same of the same file before."""
        entry = self.index.get(ds, day)
        key = (ds.name, day, entry.stamp if entry else "", columns)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        frame = partitions.read_partition(self.store, ds, day, columns)
        size = int(frame.estimated_size())
        if size > CACHE_FRAME_BYTES:
            return frame
        self._cache[key] = frame
        self._cached_bytes += size
        while self._cached_bytes > CACHE_BYTES and len(self._cache) > 1:
            _, dropped = self._cache.popitem(last=False)
            self._cached_bytes -= int(dropped.estimated_size())
        return frame

    def is_held(self, dataset: str, session: date) -> bool:
        """Whether quarantine holds a candidate of the partition."""
        return any(refusal.kind == "held" for refusal in quarantine.refusals(self.store, f"{dataset}/session={session}"))

    def held(self, step: Step, session: date, inputs_key: str) -> Refusal | None:
        """The refusal that holds this step on these inputs, if there is one."""
        for dataset in step.writes:
            prefix = f"{partitions.QUARANTINE}/{dataset}/session={session}/{inputs_key[:16]}-"
            for stat in self.store.list(prefix.rsplit("/", 1)[0] + "/"):
                if stat.path.startswith(prefix) and stat.path.endswith("/refusal.json"):
                    refusal = Refusal(**json.loads(self.store.read(stat.path)))
                    if refusal.kind == "held" and refusal.inputs_key == inputs_key:
                        return refusal
        return None


def execute(task: Task, context: Context, awaits: str = "") -> StepResult:
    """Run a task. Never raises for bad input or an unavailable source: the result says what happened.

    `awaits` names a file that the bucket lists and did not give, in a step that this one builds on. What restates itself goes on
    without it; a windowed or fitted step waits, because its output is not replaced when the file comes.
    """
    result = StepResult(task.step.name, task.session, "failed", awaits=awaits)
    began, spent = time.monotonic(), time.process_time()
    try:
        if awaits and task.step.vintage:
            result.status, result.detail = "blocked", f"waits for {awaits}, which the bucket did not give"
        else:
            _execute(task, context, result)
    except BadInputError as error:
        _hold(task, context, result, error.rule, error.what, error.cure, None, None)
    except (FlowlakeError, pl.exceptions.PolarsError, ArithmeticError, LookupError, TypeError, ValueError, OSError) as error:
        result.status = "failed"
        result.detail = str(error) if isinstance(error, FlowlakeError) else f"{type(error).__name__}: {error}"
        if isinstance(error, SourceUnavailableError):
            result.source_unavailable = True
            result.awaits = f"{task.step.writes[0]} of {task.session}"
        log.exception("%s %s failed", task.step.name, task.session)
        if isinstance(error, StorageError):
            raise
    if result.status != "failed":
        context.ingester.forget(task.objects)
    result.seconds, result.cpu_seconds = time.monotonic() - began, time.process_time() - spent
    result.peak_memory_bytes = peak_memory_bytes()
    return result


@dataclass(frozen=True)
class Decision:
    """What is to be done about a task: `due`, or a reason for leaving it alone."""

    status: str
    detail: str = ""
    key: str = ""
    records: tuple[InputRecord, ...] = ()
    source: Source | None = None
    reader: AsOfReader | None = None


def decide(task: Task, context: Context, result: StepResult) -> Decision:
    """Compare the task's inputs and versions with what the lake recorded. Fetches a source object only if it is new."""
    step, session = task.step, task.session
    source = None
    reader = _reader(task, context)
    if step.is_ingest:
        try:
            source = context.ingester.look(task.objects, session, result, partial(_inputs, task, reader, context))
        except BadInputError:
            result.inputs_key = json_hash([step.name, step.version, context.ingester.hashes(task.objects)])
            if not context.options.retry and (refusal := context.held(step, session, result.inputs_key)):
                return Decision("held", f"{refusal.what} ({refusal.cure})", result.inputs_key)
            raise
        if source is None:
            return Decision("absent", "the bucket has no file for it")
        if source.says_nothing and not any(_entries(step, session, context)):
            return Decision("absent", "no row of the file was known by then")
    gathered = _gather(task, reader, context)
    if isinstance(gathered, str):
        return Decision("blocked", gathered)
    records = gathered if source is None else (*source.records, *gathered)
    key = inputs_key(step, records)
    served = [entry.lineage.inputs_key if entry else "" for entry in _entries(step, session, context)]
    if all(found == key for found in served):
        return Decision("fresh", key=key)
    if not context.options.retry and (refusal := context.held(step, session, key)):
        return Decision("held", f"{refusal.what} ({refusal.cure})", key)
    # A kill may have come between two outputs of one step: what is half published is finished, whatever its vintage.
    if step.vintage and not context.options.restate and all(served) and key not in served:
        return Decision("restatable", "its inputs changed after it was published", key)
    return Decision("due", key=key, records=records, source=source, reader=reader)


def _execute(task: Task, context: Context, result: StepResult) -> None:
    step, session = task.step, task.session
    decision = decide(task, context, result)
    result.inputs_key = decision.key
    if decision.status != "due":
        result.status, result.detail = decision.status, decision.detail
        if decision.status == "absent":  # what an earlier version of the file had left in quarantine is settled
            quarantine.settle(context.store, step.writes[0], str(session), "")
    elif not _stream(task, context, result, decision):
        seal = _sealing(task, decision)
        if decision.source is not None:
            output = raw_output(decision.source.table(), DATASETS[step.writes[0]], session)
        elif decision.reader is not None:
            inputs = _rows(task, decision.reader, context)
            if step.sliced and not step.cuts_itself and inputs[step.sliced[0]].height >= large_rows():
                _run_slices(task, context, result, inputs, seal)
                return
            output = step.load()(inputs, session)
        _publish(task, context, result, _tables(task, output, seal), output.findings)


def _run_slices(task: Task, context: Context, result: StepResult, inputs: dict[str, Rows], seal: Sealing) -> None:
    """Run the step on some underlyings at a time. `inputs` is emptied, so that judging what was made has the room."""
    findings: list[Finding] = []

    def made() -> Iterator[dict[str, pl.DataFrame]]:
        for some in slices(inputs, task.step.sliced):
            output = task.step.load()(some, task.session)
            findings.extend(output.findings)
            yield _conformed(task, output)
        inputs.clear()

    datasets = [DATASETS[name] for name in task.step.writes]
    with staged_parts(datasets, made(), context.ingester.folder(), seal) as candidates:
        _publish(task, context, result, candidates, tuple(findings))


def _stream(task: Task, context: Context, result: StepResult, decision: Decision) -> bool:
    """Run the step in batches, if it can be; False where it must be run on whole tables."""
    stream = _batches(task, context, decision)
    if stream is None:
        return False
    path = context.ingester.folder() / f"{stream.dataset.name}-{task.session}-{uuid.uuid4().hex}.parquet"
    try:
        candidate, findings = staged(stream, path, _sealing(task, decision))
        _publish(task, context, result, {stream.dataset.name: candidate}, findings)
    except WholeTableNeededError as error:
        log.info("%s %s takes the table as a whole: %s", task.step.name, task.session, error)
        return False
    finally:
        path.unlink(missing_ok=True)
    return True


def _batches(task: Task, context: Context, decision: Decision) -> Stream | None:
    step, session = task.step, task.session
    if decision.source is not None:
        batches = decision.source.batches
        return None if batches is None else raw_stream(batches(), DATASETS[step.writes[0]], session)
    if step.streamed is None or decision.reader is None:
        return None
    ds = DATASETS[step.streamed.dataset]
    entry = context.index.get(ds, session)
    if entry is None or not decision.reader.is_all_known(entry.lineage):
        return None
    inputs = _inputs(task, decision.reader, context, without={ds.name})
    return step.streamed.load()(read_batches(context.store, ds, session), inputs, session)


def _reader(task: Task, context: Context) -> AsOfReader:
    """A reader that sees what other processes have published meanwhile."""
    if context.shared:
        windows = {read.dataset for read in task.step.reads if read.looks_back}
        for name in windows:
            context.index.refresh(DATASETS[name])
        for name in {*(read.dataset for read in task.step.reads), *task.step.writes, "corporate_actions"} - windows:
            context.index.note(DATASETS[name], task.session)
    return AsOfReader(context.store, context.index, task.session, context.load)


def _slice(read: Read) -> Slice:
    return Slice(DATASETS[read.dataset], read.sessions, read.lag, read.adjust, read.columns)


def _gather(task: Task, reader: AsOfReader, context: Context) -> tuple[InputRecord, ...] | str:
    """The record of every input that exists, or the reason why the step cannot run."""
    step = task.step
    found = {read.dataset: reader.record(_slice(read)) for read in step.reads}
    if missing := [
        read.dataset for read in step.reads if read.required and not _has_today(found[read.dataset], read, task.session)
    ]:
        return f"needs {', '.join(missing)}"
    if any(read.adjust for read in step.reads) and not reader.knows_actions:
        return "needs corporate_actions: without it earlier prices would not be brought to today's shares"
    if held := [
        read.dataset
        for read in step.reads
        if read.waits_if_held and found[read.dataset] is None and context.is_held(read.dataset, task.session)
    ]:
        return f"waits for {', '.join(held)}, held in quarantine"
    if step.any_of and not any(_is_today(found.get(name), task.session) for name in step.any_of):
        return f"needs one of {', '.join(step.any_of)}"
    records = [record for record in found.values() if record is not None]
    if step.reads_listing:
        listed = [[o.key, o.size] for o in task.objects]
        records.append(InputRecord(LISTING, str(task.session), str(task.session), json_hash(listed)))
    if step.reads_thresholds:
        records.append(InputRecord(THRESHOLDS, str(task.session), str(task.session), json_hash(asdict(context.settings.flow))))
    if step.reads_policy:
        name, rows = f"{CONDITION_POLICY}:{context.policy.label}", context.policy.table()
        records.append(InputRecord(name, str(task.session), str(task.session), data_hash(rows)))
    return tuple(sorted(records, key=lambda r: r.dataset))


def _has_today(record: InputRecord | None, read: Read, session: date) -> bool:
    return record is not None if read.lag else _is_today(record, session)


def _is_today(record: InputRecord | None, session: date) -> bool:
    return record is not None and record.last == str(session)


def _rows(task: Task, reader: AsOfReader, context: Context) -> dict[str, Rows]:
    stored = _stored(task, reader)
    return {**_inputs(task, reader, context, without=stored), **stored}


def _stored(task: Task, reader: AsOfReader) -> dict[str, StoredRows]:
    """The large inputs of a step that is to be run on some underlyings at a time: their rows are read as their turn comes."""
    found: dict[str, StoredRows] = {}
    for name in task.step.sliced:
        read = next(read for read in task.step.reads if read.dataset == name)
        rows = reader.stored(_slice(read), large_rows())
        if rows is not None:
            found[name] = replace(rows, numbered=read.numbered)
        elif not found:
            break  # the tape is small, or to be read as a whole, and so is all beside it
    return found


def _inputs(task: Task, reader: AsOfReader, context: Context, without: Container[str] = ()) -> dict[str, pl.DataFrame]:
    frames = {read.dataset: reader.read(_slice(read)) for read in task.step.reads if read.dataset not in without}
    inputs = {name: frame for name, frame in frames.items() if frame is not None}
    for read in task.step.reads:
        if read.numbered and read.dataset in inputs:
            inputs[read.dataset] = inputs[read.dataset].with_row_index(read.numbered)
    if task.step.reads_listing:
        inputs[LISTING] = listing_frame(task.objects)
    if task.step.reads_thresholds:
        inputs[THRESHOLDS] = pl.DataFrame(
            list(asdict(context.settings.flow).items()), schema={"name": pl.String, "value": pl.Float64}, orient="row"
        )
    if task.step.reads_policy:
        inputs[CONDITION_POLICY] = context.policy.table()
    return inputs


def listing_frame(objects: Iterable[SourceObject]) -> pl.DataFrame:
    rows = [(o.key, o.dataset, o.file_date, o.size, o.etag) for o in objects]
    schema = {"key": pl.String, "dataset": pl.String, "file_date": pl.Date, "size": pl.Int64, "etag": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row").sort("key")


def inputs_key(step: Step, records: Iterable[InputRecord]) -> str:
    """One hash over everything that decides the step's output: inputs, and the versions of step, schemas and suites."""
    outputs = [[name, schema_hash(DATASETS[name]), suite_hash(DATASETS[name])] for name in step.writes]
    return json_hash([step.name, step.version, outputs, [[r.dataset, r.first, r.last, r.hash] for r in records]])


_SCHEMA_HASHES: dict[str, str] = {}


def schema_hash(ds: Dataset) -> str:
    if ds.name not in _SCHEMA_HASHES:
        schema = arrow_schema(ds)
        _SCHEMA_HASHES[ds.name] = json_hash([[f.name, str(f.type), f.nullable] for f in schema])
    return _SCHEMA_HASHES[ds.name]


def _entries(step: Step, session: date, context: Context) -> list[Entry | None]:
    return [context.index.get(DATASETS[name], session) for name in step.writes]


def _tables(task: Task, output: Output, seal: Sealing) -> dict[str, Candidate]:
    return {name: TableCandidate(DATASETS[name], frame, seal) for name, frame in _conformed(task, output).items()}


def _conformed(task: Task, output: Output) -> dict[str, pl.DataFrame]:
    step = task.step
    if set(output.tables) != set(step.writes):
        raise ValueError(f"{step.name} gave {sorted(output.tables)}, declared are {sorted(step.writes)}")
    return {name: DATASETS[name].conform(frame, task.session) for name, frame in output.tables.items()}


def _publish(
    task: Task, context: Context, result: StepResult, candidates: Mapping[str, Candidate], findings: tuple[Finding, ...]
) -> None:
    """Audit everything that the step made; publish all of it, or hold all of it."""
    step, session = task.step, task.session
    result.findings.extend(_finding_row(finding, session) for finding in findings)
    if (held := _too_many_rejected(task, candidates, findings)) is not None:
        what, cure, rows = held
        _hold(task, context, result, "too_many_rejected", what, cure, candidates[step.writes[0]].table(), rows)
        return
    for name, candidate in candidates.items():
        audited = candidate.audit(session)
        result.audits.append(_audit_row(audited, candidate.rows))
        if context.options.keep_validations:
            result.validations.append(audited.validation)
        if not audited.success:
            first = audited.errors[0]
            what = f"{name} {session}: " + "; ".join(f"{f.rule}: {f.count} rows fail" for f in audited.errors)
            cure = "look at the rows in quarantine, have the source corrected and run again; or `--retry` after a fix of ours"
            _hold(task, context, result, "audit", what, cure, candidate.table(), first.rows)
            return
        result.findings.extend(_warning_rows(audited, session))
    # Rejected rows are kept before the partition is served without them: a kill in between loses nothing.
    _keep_rejected(task, context, result, findings)
    for name, candidate in candidates.items():
        result.published.append(publish(context.store, context.index, DATASETS[name], session, candidate.body()))
        result.rows += candidate.rows
        quarantine.settle(context.store, name, str(session), result.inputs_key)
    result.status = "built"


def _sealing(task: Task, decision: Decision) -> Sealing:
    step, session = task.step, task.session

    def seal(ds: Dataset, found_hash: str, rows: int, known_last: str) -> Lineage:
        return Lineage(
            dataset=ds.name,
            session=str(session),
            data_hash=found_hash,
            rows=rows,
            known_last_utc=known_last,
            step=step.name,
            step_version=step.version,
            schema_hash=schema_hash(ds),
            suite_hash=suite_hash(ds),
            inputs=decision.records,
            inputs_key=decision.key,
        )

    return seal


def _too_many_rejected(
    task: Task, candidates: Mapping[str, Candidate], findings: tuple[Finding, ...]
) -> tuple[str, str, pl.DataFrame] | None:
    """What is wrong, the cure and all rejected rows, where so many were rejected that the rest cannot be trusted."""
    for name, made in candidates.items():
        rejected = [f for f in findings if f.kind == "rejected" and f.dataset == name]
        count = sum(f.row_count for f in rejected)
        if count > REJECTED_ROWS and count > REJECTED_SHARE * (made.rows + count):
            reasons = "; ".join(f"{f.what} ({f.row_count} rows)" for f in rejected)
            what = f"{name} {task.session}: {count} of {made.rows + count} rows were rejected: {reasons}"
            rows = pl.concat([f.rows for f in rejected if f.rows is not None], how="diagonal_relaxed")
            return what, rejected[0].cure, rows.drop(SESSION, strict=False)
    return None


def _hold(
    task: Task,
    context: Context,
    result: StepResult,
    rule: str,
    what: str,
    cure: str,
    candidate: pl.DataFrame | None,
    rows: pl.DataFrame | None,
) -> None:
    """Put the step's output in quarantine; what the lake served before goes on being served."""
    name = task.step.writes[0]
    refusal = _refusal(task, context, result, name, "held", rule, what, cure, 0 if rows is None else rows.height)
    quarantine.put(context.store, refusal, DATASETS[name], candidate, rows)
    result.status, result.detail = "quarantined", f"{what} ({cure})"
    result.refused += 1


def _keep_rejected(task: Task, context: Context, result: StepResult, findings: tuple[Finding, ...]) -> None:
    for finding in findings:
        if finding.kind != "rejected" or finding.rows is None:
            continue
        name = finding.dataset if finding.dataset in DATASETS else task.step.writes[0]
        refusal = _refusal(task, context, result, name, "rows", finding.rule, finding.what, finding.cure, finding.rows.height)
        rows = finding.rows.drop(SESSION, strict=False)
        quarantine.put(context.store, refusal, DATASETS[name], None, rows)
        result.refused += 1


def _refusal(
    task: Task, context: Context, result: StepResult, name: str, kind: str, rule: str, what: str, cure: str, rows: int
) -> Refusal:
    return Refusal(
        dataset=name,
        session=str(task.session),
        inputs_key=result.inputs_key,
        kind=kind,
        step=task.step.name,
        rule=rule,
        what=what,
        cure=cure,
        rows=rows,
        quarantined_at_utc=datetime.now(UTC).isoformat(),
        run_id=context.options.run_id,
    )


def _finding_row(finding: Finding, session: date) -> dict[str, Any]:
    return {
        "dataset": finding.dataset,
        "session": session,
        "found_at_utc": datetime.now(UTC),
        "rule": finding.rule,
        "kind": finding.kind,
        "severity": finding.severity.value,
        "rows": finding.row_count,
        "what": finding.what,
        "cure": finding.cure,
    }


def _warning_rows(audited: AuditResult, session: date) -> list[dict[str, Any]]:
    return [
        {
            "dataset": audited.dataset,
            "session": session,
            "found_at_utc": datetime.now(UTC),
            "rule": "audit",
            "kind": "note",
            "severity": failure.severity.value,
            "rows": failure.count,
            "what": f"{failure.rule}: not so in {failure.count} rows",
            "cure": "the rows are published; look at them before you rely on the column",
        }
        for failure in audited.failures
    ]


def _audit_row(audited: AuditResult, rows: int) -> dict[str, Any]:
    return {
        "dataset": audited.dataset,
        "session": audited.session,
        "audited_at_utc": datetime.now(UTC),
        "passed": audited.success,
        "checks": audited.evaluated,
        "failed_checks": len(audited.failures),
        "failures": "\n".join(f"{f.rule} ({f.count} rows)" for f in audited.failures),
        "suite_hash": audited.suite_hash,
        "rows": rows,
    }


__all__ = ["Context", "Options", "StepResult", "Task", "execute", "inputs_key", "listing_frame"]
