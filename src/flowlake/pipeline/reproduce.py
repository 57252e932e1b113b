"""Reproducing a run: its outputs are built again in a scratch lake, from what it saw, and compared by their hashes.

The steps are those that the run published with, in the plan's order, through the same `execute`. They read the lake as it was for
that run: what other runs had published before the step began, served still or under history. What the run itself published is
hidden, and comes back as it is built again. The lake itself is never written.
"""

from __future__ import annotations

import json
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import date, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import polars as pl

from flowlake import __version__
from flowlake.core.errors import FlowlakeError, StorageError, UsageError
from flowlake.core.settings import Settings, thresholds
from flowlake.datasets.ops import RUNS
from flowlake.datasets.registry import DATASETS
from flowlake.lake import journal
from flowlake.lake.journal import Row
from flowlake.lake.overlay import Kept, OverlayStore, check
from flowlake.lake.partitions import Lineage, partition_path
from flowlake.lake.store import LocalStore, Store, open_store
from flowlake.pipeline import trail
from flowlake.pipeline.comparison import (
    DIFFERS,
    IDENTICAL,
    SOURCE,
    UNTRIED,
    Compared,
    inputs_that_differ,
    versions_that_differ,
    what_changed,
)
from flowlake.pipeline.execute import LISTING, Context, Options, StepResult, Task, execute
from flowlake.pipeline.ingest import Listing, list_bucket
from flowlake.pipeline.invocation import commit, libraries
from flowlake.pipeline.plan import STEPS, producers
from flowlake.pipeline.run import Progress, objects_for
from flowlake.pipeline.step import Step
from flowlake.sources.bucket import open_bucket

Key = tuple[str, date]


@dataclass
class Reproduction:
    """What came of it. `versions`: code and libraries that differ from those of the run."""

    run_id: str
    versions: tuple[str, ...]
    adopted: int = 0
    """Publications that the run only wrote down for another one that had been killed; they are not its own."""
    seconds: float = 0.0
    folder: str = ""
    compared: list[Compared] = field(default_factory=list)

    def total(self, outcome: str) -> int:
        return sum(one.outcome == outcome for one in self.compared)

    @property
    def exit_code(self) -> int:
        """0 where all is identical, 1 where something differs, 3 where something could not be tried."""
        return 1 if self.total(DIFFERS) else 3 if self.total(UNTRIED) else 0

    def to_dict(self) -> dict[str, Any]:
        counts = {outcome: self.total(outcome) for outcome in (IDENTICAL, DIFFERS, UNTRIED)}
        return asdict(self) | {"exit_code": self.exit_code, "totals": counts}


def reproduce(
    settings: Settings,
    run: str,
    session: date | None = None,
    steps: Sequence[Step] = STEPS,
    keep: Path | None = None,
    progress: Progress | None = None,
    on_bytes: Callable[[int], None] | None = None,
) -> Reproduction:
    """Build again what a run published, all of it or one session and some steps, and compare.

    `keep`: a new folder for the scratch lake; otherwise it is deleted. Raises UsageError where there is no such run or where it
    published nothing that was asked for.
    """
    began = time.monotonic()
    store = open_store(settings.lake, settings.lake_access)
    row = trail.find_run(trail.runs(store), run)
    past = _Past.of(store, row)
    wanted = {key for key in past.own if (session is None or key[1] == session) and producers()[key[0]] in steps}
    if not wanted:
        raise UsageError(
            f"run {row['run_id']} published nothing of what was asked for", f"`flowlake runs {row['run_id']}` shows it"
        )
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flowlake-reproduce-")))
        folder = scratch / "lake" if keep is None else _new_folder(keep, store)
        config = json.loads(row["config"])
        told = replace(
            settings,
            lake=str(folder),
            scratch=str(scratch / "downloads"),
            skip_feeds=_skipped(row, settings),
            flow=thresholds(config),
            condition_policy=config.get("condition_policy", Settings.condition_policy),
        )
        rebuilding = _Rebuilding(store, told, past, wanted, folder)
        made = Reproduction(row["run_id"], _other_versions(row), past.adopted, folder="" if keep is None else str(folder))
        tasks = rebuilding.tasks
        for done, (result, compared) in enumerate(rebuilding.run(on_bytes), 1):
            made.compared.extend(compared)
            if progress:
                progress(done, len(tasks), result)
    made.seconds = time.monotonic() - began
    return made


def _new_folder(keep: Path, store: Store) -> Path:
    folder = keep.resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{keep} is there already", "give a folder that does not exist yet")
    if isinstance(store, LocalStore) and folder.is_relative_to(Path(store.root)):
        raise UsageError(f"{keep} lies in the lake", "give a folder outside of it: the lake is not written")
    return folder


def _skipped(row: Row, settings: Settings) -> str:
    """Feeds that the run left out: what the bucket has beyond them was not in its listing."""
    return str(json.loads(row["config"]).get("skip_feeds", settings.skip_feeds))


def _other_versions(row: Row) -> tuple[str, ...]:
    then = {"code": row["code"], "commit": row["commit"]} | _versions(row["libraries"])
    now = {"code": __version__, "commit": commit()} | _versions(libraries())
    if row["python"]:
        then["python"], now["python"] = row["python"], platform.python_version()
    return tuple(
        f"{name} {then[name]} then, {now.get(name, 'none')} now" for name in then if then[name] and then[name] != now.get(name)
    )


def _versions(text: str) -> dict[str, str]:
    return dict(entry.split("=", 1) for entry in text.split() if "=" in entry)


# --- The lake as the run saw it ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Past:
    """What the records say: the run's own publications, and those of others in the order of time."""

    own: dict[Key, Row]
    others: list[Row]
    started: dict[tuple[str, date], datetime]
    """When each step of the run began."""
    began: datetime
    adopted: int
    files: trail.Files

    @classmethod
    def of(cls, store: Store, row: Row) -> _Past:
        publications = trail.all_publications(store)
        steps = journal.records(store, RUNS).filter(pl.col("run_id") == row["run_id"])
        started = {(name, day): moment for name, day, moment in steps.select("step", "session", "started_at_utc").iter_rows()}
        built = {(name, day) for name, day, status in steps.select("step", "session", "status").iter_rows() if status == "built"}
        own: dict[Key, Row] = {}
        others = []
        adopted = 0
        for entry in publications.iter_rows(named=True):
            step = producers().get(entry["dataset"])
            if entry["run_id"] != row["run_id"]:
                others.append(entry)
            elif step is not None and (steps.is_empty() or (step.name, entry["session"]) in built):
                own[entry["dataset"], entry["session"]] = entry
            else:  # it was there before the run looked: that of one which was killed, or of a step that is no longer planned
                adopted += 1
                others.append(entry | {"published_at_utc": row["started_at_utc"]})
        others.sort(key=lambda entry: entry["published_at_utc"])
        return cls(own, others, started, row["started_at_utc"], adopted, trail.Files(store, publications))

    def kept(self, row: Row) -> Kept | None:
        stat = self.files.find(row)
        return None if stat is None else Kept(stat, row["file_hash"], row["data_hash"])


class _Rebuilding:
    """The scratch lake, and the tasks that fill it."""

    def __init__(self, store: Store, settings: Settings, past: _Past, wanted: set[Key], folder: Path) -> None:
        self._below = store
        self._past = past
        self._wanted = wanted
        self._gone: set[Key] = set()
        """Partitions that the run could read and of which the lake has no file any more."""
        self._lost: dict[Key, str] = {}
        """Publications that could not be built again and are not kept either, with the reason."""
        steps = {producers()[name].name for name, _ in wanted}
        self._source_lost, listing = _listing(
            settings, needed=any(s.is_ingest or s.reads_listing for s in STEPS if s.name in steps)
        )
        keys = {(producers()[name].name, day) for name, day in wanted}
        days = sorted({day for _, day in keys})
        self.tasks = [Task(s, day, objects_for(listing, s, day)) for day in days for s in STEPS if (s.name, day) in keys]
        self._overlay = OverlayStore(store, LocalStore(folder), {})
        self._during: dict[Key, list[Row]] = {}
        self._lay_out()
        options = Options("reproduce", retry=True, restate=True, keep_validations=False)
        self._context = Context(settings, options, store=self._overlay)

    def _lay_out(self) -> None:
        """What was served when the first step began. What others published while the run went on is brought in step by step."""
        moments = [self._past.started.get((t.step.name, t.session), self._past.began) for t in self.tasks]
        begin, end = min(moments), max(moments)
        known: dict[Key, Row] = {}
        for row in self._past.others:
            key = (row["dataset"], row["session"])
            if row["published_at_utc"] <= begin:
                known[key] = row
            elif row["published_at_utc"] <= end and key not in self._past.own:
                self._during.setdefault(key, [known[key]] if key in known else []).append(row)
        for key, row in (known | self._past.own).items():
            if key not in self._wanted:  # of a run that is reproduced in part, the rest is as it was published
                self._show(key, row)

    def _show(self, key: Key, row: Row | None) -> None:
        ds = DATASETS.get(key[0])
        if ds is None:
            return
        kept = None if row is None else self._past.kept(row)
        self._overlay.show(partition_path(ds, key[1]), kept)
        if row is not None and kept is None:
            self._gone.add(key)

    def _advance(self, task: Task) -> None:
        """Show what others had published by the moment when the step began."""
        moment = self._past.started.get((task.step.name, task.session))
        if moment is None:
            return
        for key, rows in self._during.items():
            served = [row for row in rows if row["published_at_utc"] <= moment]
            self._show(key, served[-1] if served else None)
            if key[0] in DATASETS:
                self._context.index.note(DATASETS[key[0]], key[1])

    def run(self, on_bytes: Callable[[int], None] | None) -> Iterator[tuple[StepResult, list[Compared]]]:
        """Each task's result, with the comparison of what it published."""
        for _, of_session in groupby(self.tasks, key=lambda task: task.session):
            todo = list(of_session)
            self._context.ingester.prefetch((o for t in todo if t.step.is_ingest for o in t.objects), on_bytes)
            for task in todo:
                self._advance(task)
                yield self._rebuild(task)

    def _rebuild(self, task: Task) -> tuple[StepResult, list[Compared]]:
        unreadable = ""
        try:
            result = execute(task, self._context)
        except StorageError as error:
            result, unreadable = StepResult(task.step.name, task.session, "failed", error.what), error.what
        compared = []
        for name in task.step.writes:
            key = (name, task.session)
            if key not in self._wanted:
                continue
            one = self._compare(task, result, key, unreadable)
            if one.outcome == UNTRIED:
                self._fall_back(key, one.why)
            compared.append(one)
        return result, compared

    def _fall_back(self, key: Key, why: str) -> None:
        """What follows is built on the file that the run published."""
        self._show(key, self._past.own[key])
        if key in self._gone:
            self._lost[key] = why
        self._context.index.note(DATASETS[key[0]], key[1])

    def _compare(self, task: Task, result: StepResult, key: Key, unreadable: str) -> Compared:
        row = self._past.own[key]
        then = self._past.files.lineage(row)
        published = next((p for p in result.published if p.dataset == key[0]), None)
        entry = self._context.index.get(DATASETS[key[0]], key[1]) if published else None
        now = entry.lineage if entry else None
        one = Compared(
            step=task.step.name,
            dataset=key[0],
            session=key[1],
            outcome=IDENTICAL,
            expected=row["data_hash"],
            found=published.data_hash if published else "",
            expected_file=row["file_hash"],
            found_file=published.file_hash if published else "",
            inputs=inputs_that_differ(then, now),
            versions=versions_that_differ(then, now),
        )
        if one.found == one.expected:
            altered = self._altered(row)
            return replace(one, outcome=DIFFERS, why=altered) if altered else one
        outcome, why = (UNTRIED, unreadable) if unreadable else self._judged(task, result, one, then)
        return replace(one, outcome=outcome, why=why)

    def _altered(self, row: Row) -> str:
        """What is wrong with the file that the lake keeps of a publication; empty where it is as it was published, or gone."""
        kept = self._past.kept(row)
        if kept is None:
            return ""
        try:
            check(self._below.read(kept.stat.path), kept.stat.path, kept)
        except FlowlakeError as error:
            return f"built again it is as it was published, but {error.what}"
        return ""

    def _judged(self, task: Task, result: StepResult, one: Compared, then: Lineage | None) -> tuple[str, str]:
        """Whether the difference speaks against the run, or what it saw cannot be had any more."""
        if changed := self._source_changed(task, result, one, then):
            return UNTRIED, changed
        if gone := self._gone_inputs(task, one, then):
            return UNTRIED, f"what it read is gone: {', '.join(gone)}; `flowlake prune` deleted it"
        if result.status == "blocked":
            return UNTRIED, f"the step cannot run: {result.detail}"
        if result.status != "built":
            return DIFFERS, f"the step that had published it now ends {result.status}: {result.detail}"
        if one.inputs:
            return DIFFERS, "an input that it reads was built differently"
        if one.versions:
            return DIFFERS, "the step, its columns or its checks were changed since"
        if then is None:
            return DIFFERS, "the file of that run is gone, so its inputs cannot be compared"
        return DIFFERS, "the same inputs gave other values"

    def _source_changed(self, task: Task, result: StepResult, one: Compared, then: Lineage | None) -> str:
        if not (task.step.is_ingest or task.step.reads_listing):
            return ""
        if self._source_lost:
            return self._source_lost
        if result.source_unavailable:
            return f"the bucket did not give the file: {result.detail}"
        if task.step.reads_listing:
            listed = [d for d in one.inputs if d.dataset == LISTING]
            return "the bucket now lists other files, or other sizes, for that day" if listed else ""
        if result.status == "absent":
            return f"the source object is gone from the bucket: {result.detail}"
        recorded = () if then is None else then.inputs
        if result.status == "built":
            return what_changed(one.inputs)
        now = dict(self._context.ingester.hashes(task.objects))
        seen = {record.dataset.removeprefix(SOURCE): record.hash for record in recorded}
        other = [key for key in now if key in seen and now[key] != seen[key]] + [key for key in now if key not in seen]
        return f"the bucket's object {', '.join(other)} is not the one that the run read, and is refused now" if other else ""

    def _gone_inputs(self, task: Task, one: Compared, then: Lineage | None) -> list[str]:
        """Partitions without a file that the step would read: those of inputs which differ, or of all where nothing was built."""
        differing = {d.dataset for d in one.inputs}
        if then is None:  # the footer that told the windows is gone too
            day = str(task.session)
            windows = [(read.dataset, "" if read.looks_back else day, day) for read in task.step.reads]
        else:
            windows = [(r.dataset, r.first, r.last) for r in then.inputs if not one.found or r.dataset in differing]
        found = {(n, d) for n, d in self._gone for name, first, last in windows if name == n and first <= str(d) <= last}
        return [
            f"{name} {day}" + (f" ({self._lost[name, day]})" if (name, day) in self._lost else "") for name, day in sorted(found)
        ]


def _listing(settings: Settings, needed: bool) -> tuple[str, Listing]:
    """Why the bucket could not be listed, or nothing, and what it lists. No earlier hash is trusted: contents are hashed again."""
    if not needed:
        return "", Listing((), 0)
    try:
        return "", list_bucket(open_bucket(settings), {}, settings.skip_feeds)
    except FlowlakeError as error:
        return f"the bucket could not be listed: {error.what}", Listing((), 0)


__all__ = ["Reproduction", "reproduce"]
