"""A lake laid over another: reads fall through to chosen files of the lake below, writes go to a folder of their own.

The lake below is never written. Which of its files stand for which partition, at which revision, is said from outside; every other
file of it is out of sight, but for the index, which only saves the reading of footers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from flowlake.core.errors import StorageError
from flowlake.lake.hashing import data_hash
from flowlake.lake.index import INDEX_PATH
from flowlake.lake.partitions import decode, lineage_in
from flowlake.lake.store import LocalStore, Stat, Store, file_hash


@dataclass(frozen=True)
class Kept:
    """A file of the lake below: `stat` says where it lies, the hashes are those that were written down when it was published."""

    stat: Stat
    file_hash: str
    data_hash: str


class OverlayStore:
    """`shown`: path of a partition -> the file below that stands for it, unless the partition was written here."""

    def __init__(self, below: Store, own: LocalStore, shown: Mapping[str, Kept]) -> None:
        self._below = below
        self._own = own
        self._shown = dict(shown)

    @property
    def root(self) -> str:
        return self._own.root

    def show(self, path: str, kept: Kept | None) -> None:
        """Let `kept` stand for the partition from now on, whatever was written here; None takes the partition out of sight."""
        self._own.delete(path)
        if kept is None:
            self._shown.pop(path, None)
        else:
            self._shown[path] = kept

    def list(self, prefix: str) -> Iterator[Stat]:
        found = {path: Stat(path, k.stat.size, k.stat.stamp) for path, k in self._shown.items() if path.startswith(prefix)}
        found |= {stat.path: stat for stat in self._own.list(prefix)}
        return iter(found[path] for path in sorted(found))

    def stat(self, path: str) -> Stat | None:
        own = self._own.stat(path)
        if own is not None or path not in self._shown:
            return self._below.stat(path) if path == INDEX_PATH and own is None else own
        kept = self._shown[path]
        return Stat(path, kept.stat.size, kept.stat.stamp)

    def read(self, path: str) -> bytes:
        """The file. Raises StorageError where the file below is not the one that was published."""
        below = self._falls_to(path)
        if below is None:
            return self._own.read(path)
        body = self._below.read(below)
        if path in self._shown:
            check(body, below, self._shown[path])
        return body

    def read_tail(self, path: str, count: int) -> bytes:
        below = self._falls_to(path)
        return self._own.read_tail(path, count) if below is None else self._below.read_tail(below, count)

    def _falls_to(self, path: str) -> str | None:
        """Path in the lake below; None where the file is our own, or nowhere."""
        if self._own.stat(path) is not None:
            return None
        return path if path == INDEX_PATH else self._shown[path].stat.path if path in self._shown else None

    def write(self, path: str, body: bytes) -> Stat:
        return self._own.write(path, body)

    def copy(self, source: str, target: str) -> None:
        self._own.write(target, self.read(source))

    def delete(self, path: str) -> None:
        self.show(path, None)

    def uri(self, path: str) -> str:
        below = self._falls_to(path)
        return self._own.uri(path) if below is None else self._below.uri(below)


def check(body: bytes, path: str, kept: Kept) -> None:
    """Raise StorageError unless `body` is the file that was published, or holds the same values with another lineage."""
    if file_hash(body) == kept.file_hash:
        return
    if not lineage_in(body, path).data_hash == kept.data_hash == data_hash(decode(body, path)):
        raise StorageError(
            f"{path} is not the file that was published: its values no longer have the hash {kept.data_hash[:16]}",
            "run `flowlake verify`; `flowlake restore` serves an earlier revision again",
        )
