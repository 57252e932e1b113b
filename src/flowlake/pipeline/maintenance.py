"""Keeping a lake: verify hashes, restore revisions, apply retention, render what is declared."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from flowlake.core.errors import FlowlakeError
from flowlake.core.settings import Settings
from flowlake.datasets import render as rendering
from flowlake.datasets.model import Dataset
from flowlake.datasets.ops import AUDITS, FINDINGS, RUNS
from flowlake.datasets.registry import DATASETS, RUN_KEYED, dataset
from flowlake.lake.claims import WAIT_SECONDS, claimed
from flowlake.lake.index import Index
from flowlake.lake.journal import Packing, pack
from flowlake.lake.partitions import check_hash, partition_path, session_of_path
from flowlake.lake.publish import prune_history, prune_partitions, restore, revision_named, revisions
from flowlake.lake.store import Store, file_hash, open_store
from flowlake.pipeline.invocation import Asked, new_run_id, recorded
from flowlake.pipeline.outline import OUTLINE_PATH, outline_text
from flowlake.pipeline.run import publication_row

STEP_RECORDS = (RUNS, AUDITS, FINDINGS)
"""Records that nothing but a person reads: they may be deleted after a time."""


@dataclass(frozen=True)
class Verified:
    """One partition: `problem` is empty where its values have the hash that its footer states."""

    dataset: str
    session: date
    problem: str


def partitioned() -> list[Dataset]:
    return [ds for ds in DATASETS.values() if ds not in RUN_KEYED]


def _open(settings: Settings) -> tuple[Store, Index]:
    store = open_store(settings.lake, settings.lake_access)
    return store, Index(store)


def verify(settings: Settings) -> list[Verified]:
    """Read every partition and compare its values with its footer. Looks at the files alone, never at the index."""
    store = open_store(settings.lake, settings.lake_access)
    return [Verified(ds.name, day, _problem(store, ds, day)) for ds in partitioned() for day in _sessions(store, ds)]


def _sessions(store: Store, ds: Dataset) -> list[date]:
    paths = (stat.path for stat in store.list(f"{ds.layer.value}/{ds.name}/"))
    return [day for path in paths if (day := session_of_path(path)) is not None and path == partition_path(ds, day)]


def _problem(store: Store, ds: Dataset, day: date) -> str:
    try:
        lineage, found = check_hash(store, partition_path(ds, day))
    except FlowlakeError as error:
        return error.what
    if lineage.dataset != ds.name or lineage.session != str(day):
        return f"the footer is that of {lineage.dataset} {lineage.session}"
    return "" if lineage.data_hash == found else "the values do not have the hash that the footer states"


def list_revisions(settings: Settings, name: str, session: date) -> str:
    store, index = _open(settings)
    ds = dataset(name)
    entry = index.get(ds, session)
    lines = [f"{name} {session}", f"  served: {file_hash(store.read(entry.path))[:16] if entry else 'nothing'}"]
    lines += [f"  history: {found[:16]}" for found in revisions(store, ds, session)] or ["  no history"]
    return "\n".join(lines) + "\n"


def restore_revision(settings: Settings, name: str, session: date, revision: str, wait_seconds: float = WAIT_SECONDS) -> str:
    """Serve an earlier revision and write the act down, while no run works on the session."""
    store, index = _open(settings)
    ds = dataset(name)
    revision_named(store, ds, session, revision)  # a slip of the pen leaves no record
    with (
        recorded(store, settings, Asked("restore", session, session)) as running,
        claimed(store, running.run_id, session, session, wait_seconds),
    ):
        published = restore(store, index, ds, session, revision)
        running.records.add("publications", [publication_row(published)])
    kept = f"what it replaced is kept as {published.replaced_hash[:16]}" if published.changed else "it was served already"
    return f"{name} {session} now serves {published.file_hash[:16]}; {kept}\n"


def prune(
    settings: Settings, keep_history: int, dry_run: bool, wait_seconds: float = WAIT_SECONDS, keep_runs_days: int | None = None
) -> str:
    """Delete what is beyond retention, while no run works there.

    That is: revisions of all but the newest `keep_history` sessions, partitions beyond their dataset's retention, and rows of
    STEP_RECORDS that are older than `keep_runs_days`. What other commands need stays: publications, invocations, downloads, trials.
    Files of single runs are packed.
    """
    store = open_store(settings.lake, settings.lake_access)
    lines, doomed = _prune(store, keep_history, dry_run=True)
    packing = _pack(store, "", keep_runs_days, dry_run=True)
    lines += [f"{name}: {rows} rows older than {keep_runs_days} days" for name, rows in packing.dropped]
    if not dry_run and (doomed or packing.dropped):
        days = (min(doomed), max(doomed)) if doomed else (None, None)
        with recorded(store, settings, Asked("prune", *days)) as running:
            if doomed:
                with claimed(store, running.run_id, min(doomed), max(doomed), wait_seconds):
                    _prune(store, keep_history, dry_run=False)
            _pack(store, running.run_id, keep_runs_days, dry_run=False)
    elif not dry_run:
        _pack(store, new_run_id(), keep_runs_days, dry_run=False)
    verb = "would go" if dry_run else "deleted"
    said = [f"{verb}:", *lines] if lines else ["nothing is beyond retention"]
    if packing.files:
        said.append(
            f"{packing.files} files of single runs {'would be' if dry_run else 'were'} packed, with all their rows that stay"
        )
    return "\n".join(said) + "\n"


def _pack(store: Store, run_id: str, keep_runs_days: int | None, dry_run: bool) -> Packing:
    age = None if keep_runs_days is None else timedelta(days=keep_runs_days)
    return pack(store, run_id, datetime.now(UTC), STEP_RECORDS, age, dry_run)


def _prune(store: Store, keep_history: int, dry_run: bool) -> tuple[list[str], set[date]]:
    """What is said about it, and the sessions that it touches."""
    index = Index(store)
    lines = []
    touched: set[date] = set()
    for ds in partitioned():
        history = prune_history(store, ds, keep_history, dry_run)
        days = index.sessions(ds)
        gone = prune_partitions(store, index, ds, days[-1], dry_run) if days else []
        touched.update(gone, (day for path in history if (day := session_of_path(path)) is not None))
        if history or gone:
            lines.append(f"{ds.name}: {len(history)} old revisions, {len(gone)} partitions beyond retention")
    return lines, touched


def render(root: Path, check: bool) -> list[str]:
    """Write the rendered files below `root`, or only say which differ; returns what differs or was written."""
    rendered = rendering.render_all(DATASETS) | {OUTLINE_PATH: outline_text()}
    committed = {path: (root / path).read_text(encoding="utf-8") for path in rendered if (root / path).is_file()}
    if check:
        return rendering.drift(rendered, committed)
    written = [path for path, text in rendered.items() if committed.get(path) != text]
    for path in written:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(rendered[path], encoding="utf-8")
    return [f"wrote {path}" for path in written]
