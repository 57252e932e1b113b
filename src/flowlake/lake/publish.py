"""Publishing: audited bytes replace a partition in one act, and what they replace is kept under history by its hash."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from flowlake.core.errors import UsageError
from flowlake.datasets.model import Dataset
from flowlake.lake.index import Index
from flowlake.lake.partitions import history_path, lineage_in, partition_path, session_of_path
from flowlake.lake.store import Store, file_hash


@dataclass(frozen=True)
class Published:
    dataset: str
    session: date
    data_hash: str
    file_hash: str
    replaced_hash: str
    rows: int
    size: int
    changed: bool
    """False where the lake already served exactly these bytes."""


def publish(store: Store, index: Index, ds: Dataset, session: date, body: bytes) -> Published:
    """Serve `body` as the partition. Killed at any instant, the lake holds the old revision or the new one.

    The old file goes under history first: if the kill comes between, history holds one copy too many and nothing is lost.
    """
    path = partition_path(ds, session)
    new_hash = file_hash(body)
    replaced = ""
    if store.stat(path) is not None:
        replaced = file_hash(store.read(path))
        if replaced != new_hash:
            store.copy(path, history_path(ds, session, replaced))
    changed = replaced != new_hash
    lineage = lineage_in(body, path)
    if changed:
        index.put(ds, session, store.write(path, body), lineage)
    else:
        index.note(ds, session)
    return Published(ds.name, session, lineage.data_hash, new_hash, replaced if changed else "", lineage.rows, len(body), changed)


def revisions(store: Store, ds: Dataset, session: date) -> list[str]:
    """File hashes that history holds of a partition."""
    prefix = history_path(ds, session, "")[: -len(".parquet")]
    return [s.path.rsplit("/", 1)[1].removesuffix(".parquet") for s in store.list(prefix)]


def restore(store: Store, index: Index, ds: Dataset, session: date, file_hash_prefix: str) -> Published:
    """Serve an earlier revision again; the present one goes under history. The prefix must name one revision."""
    found = revision_named(store, ds, session, file_hash_prefix)
    return publish(store, index, ds, session, store.read(history_path(ds, session, found)))


def revision_named(store: Store, ds: Dataset, session: date, file_hash_prefix: str) -> str:
    """The hash of the one revision under history that starts with the prefix. Raises UsageError where it is not one."""
    found = [h for h in revisions(store, ds, session) if h.startswith(file_hash_prefix)]
    if len(found) != 1:
        raise UsageError(
            f"{ds.name} {session}: {len(found)} revisions start with {file_hash_prefix!r}",
            f"give one of: {', '.join(h[:12] for h in revisions(store, ds, session)) or 'there is no history'}",
        )
    return found[0]


def prune_history(store: Store, ds: Dataset, keep: int, dry_run: bool = False) -> list[str]:
    """Delete all but the newest `keep` sessions' worth of revisions; returns the paths. Served partitions are never touched."""
    paths = [s.path for s in store.list(f"{history_path(ds, date.min, '').split('/session=')[0]}/")]
    sessions = sorted({day for p in paths if (day := session_of_path(p)) is not None}, reverse=True)
    doomed = set(sessions[keep:])
    gone = [p for p in paths if session_of_path(p) in doomed]
    if not dry_run:
        for path in gone:
            store.delete(path)
    return gone


def prune_partitions(store: Store, index: Index, ds: Dataset, newest: date, dry_run: bool = False) -> list[date]:
    """Delete partitions older than the dataset's retention, counted in the sessions that exist up to `newest`."""
    if ds.retention_sessions is None:
        return []
    held = [day for day in index.sessions(ds) if day <= newest]
    gone = held[: -ds.retention_sessions] if len(held) > ds.retention_sessions else []
    if not dry_run:
        for day in gone:
            store.delete(partition_path(ds, day))
            index.note(ds, day)
    return gone
