"""Keeping a lake: verify hashes, restore revisions, apply retention, render what is declared."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

from flowlake.core.errors import FlowlakeError
from flowlake.core.settings import Settings
from flowlake.datasets import render as rendering
from flowlake.datasets.model import Dataset
from flowlake.datasets.registry import DATASETS, RUN_KEYED, dataset
from flowlake.lake.index import Index
from flowlake.lake.journal import Journal
from flowlake.lake.partitions import check_hash, partition_path, session_of_path
from flowlake.lake.publish import Published, prune_history, prune_partitions, restore, revisions
from flowlake.lake.store import Store, file_hash, open_store
from flowlake.pipeline.run import new_run_id, publication_row


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


def restore_revision(settings: Settings, name: str, session: date, revision: str) -> str:
    """Serve an earlier revision and write the act down."""
    store, index = _open(settings)
    published = restore(store, index, dataset(name), session, revision)
    _record(store, published)
    kept = f"what it replaced is kept as {published.replaced_hash[:16]}" if published.changed else "it was served already"
    return f"{name} {session} now serves {published.file_hash[:16]}; {kept}\n"


def _record(store: Store, published: Published) -> None:
    records = Journal(store, new_run_id())
    records.add("publications", [publication_row(published)])
    records.flush()


def prune(settings: Settings, keep_history: int, dry_run: bool) -> str:
    """Delete revisions beyond `keep_history` sessions and partitions beyond their dataset's retention."""
    store, index = _open(settings)
    lines = []
    for ds in partitioned():
        history = prune_history(store, ds, keep_history, dry_run)
        days = index.sessions(ds)
        gone = prune_partitions(store, index, ds, days[-1], dry_run) if days else []
        if history or gone:
            lines.append(f"{ds.name}: {len(history)} old revisions, {len(gone)} partitions beyond retention")
    verb = "would go" if dry_run else "deleted"
    return "\n".join([f"{verb}:", *lines] if lines else ["nothing is beyond retention"]) + "\n"


def render(root: Path, check: bool) -> list[str]:
    """Write the rendered files below `root`, or only say which differ; returns what differs or was written."""
    rendered = rendering.render_all(DATASETS)
    committed = {path: (root / path).read_text(encoding="utf-8") for path in rendered if (root / path).is_file()}
    if check:
        return rendering.drift(rendered, committed)
    written = [path for path, text in rendered.items() if committed.get(path) != text]
    for path in written:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(rendered[path], encoding="utf-8")
    return [f"wrote {path}" for path in written]
