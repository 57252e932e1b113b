"""A disposable index of the lake's partitions: path, stamp and lineage, so that thousands of footers are read once.

The footers stay the truth: an entry counts only while the file's stamp (ETag, or inode, size and time) is the one it was read at.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import date

from flowlake.datasets.model import Dataset
from flowlake.lake.partitions import InputRecord, Lineage, lineage_of, partition_path, session_of_path
from flowlake.lake.store import Stat, Store

INDEX_PATH = "_index/partitions.json"


@dataclass(frozen=True)
class Entry:
    path: str
    size: int
    stamp: str
    lineage: Lineage


class Index:
    """Lineage by dataset and session. Sees the lake as it was at `refresh`, plus what `note` was told of."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._entries: dict[str, dict[date, Entry]] = {}
        self._cache = _load(store)
        """what is known of a path, trusted only while its stamp is unchanged"""
        self._listed: set[str] = set()

    def sessions(self, ds: Dataset) -> list[date]:
        """Sessions that have a partition, in order."""
        return sorted(self._of(ds))

    def get(self, ds: Dataset, session: date) -> Entry | None:
        return self._of(ds).get(session)

    def note(self, ds: Dataset, session: date) -> Entry | None:
        """Look at one partition again: somebody else may have published or removed it."""
        stat = self._store.stat(partition_path(ds, session))
        if stat is None:
            self._of(ds).pop(session, None)
            return None
        self._of(ds)[session] = entry = self._entry(stat, self._of(ds).get(session))
        return entry

    def put(self, ds: Dataset, session: date, stat: Stat, lineage: Lineage) -> None:
        """What was just published, without looking at it again."""
        self._of(ds)[session] = Entry(stat.path, stat.size, stat.stamp, lineage)

    def refresh(self, ds: Dataset) -> None:
        self._listed.discard(ds.name)

    def save(self) -> None:
        """Write the index beside the data; losing it costs time and nothing else."""
        entries = {e.path: e for of_session in self._entries.values() for e in of_session.values()}
        body = {p: {"size": e.size, "stamp": e.stamp, "lineage": asdict(e.lineage)} for p, e in sorted(entries.items())}
        self._store.write(INDEX_PATH, json.dumps(body, separators=(",", ":")).encode())

    def _of(self, ds: Dataset) -> dict[date, Entry]:
        if ds.name not in self._listed:
            self._entries[ds.name] = self._list(ds)
            self._listed.add(ds.name)
        return self._entries[ds.name]

    def _list(self, ds: Dataset) -> dict[date, Entry]:
        found: dict[date, Entry] = {}
        seen = {entry.path: entry for entry in self._entries.get(ds.name, {}).values()}
        for stat in self._store.list(f"{ds.layer.value}/{ds.name}/"):
            session = session_of_path(stat.path)
            if session is None or not stat.path.endswith("/part.parquet"):
                continue
            found[session] = self._entry(stat, seen.get(stat.path) or self._cache.get(stat.path))
        return found

    def _entry(self, stat: Stat, held: Entry | None) -> Entry:
        if held is not None and held.stamp == stat.stamp:
            return held
        return Entry(stat.path, stat.size, stat.stamp, lineage_of(self._store, stat.path))


def _load(store: Store) -> dict[str, Entry]:
    if store.stat(INDEX_PATH) is None:
        return {}
    try:
        body = json.loads(store.read(INDEX_PATH))
        return {path: _entry(path, fields) for path, fields in body.items()}
    except (ValueError, KeyError, TypeError):
        return {}  # an unreadable cache is no cache: every footer is read again


def _entry(path: str, fields: dict[str, object]) -> Entry:
    lineage = dict(fields["lineage"])  # type: ignore[call-overload]
    lineage["inputs"] = tuple(InputRecord(**record) for record in lineage["inputs"])
    return Entry(path, int(str(fields["size"])), str(fields["stamp"]), Lineage(**lineage))
