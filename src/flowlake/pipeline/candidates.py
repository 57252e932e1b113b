"""What a step made, on its way into the lake: a table in memory, or a file that was written in batches.

Either is audited as it will be served. A file is written to the scratch folder with its lineage in the footer. The hash of values
that were written as batches of codes is computed from what the file gives back, and then put in its place; its length is known
beforehand.
"""

from __future__ import annotations

import mmap
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Protocol

import polars as pl

from flowlake.datasets.batch import Stream
from flowlake.datasets.model import KNOWN_AT, UTC_NS, Dataset, Finding
from flowlake.lake import partitions
from flowlake.lake.columnar import PartitionWriter
from flowlake.lake.hashing import DataHash, data_hash, file_data_hash
from flowlake.lake.partitions import FOOTER_KEY, Lineage
from flowlake.lake.parts import PartWriter
from flowlake.quality.audit import AuditResult, audit, audit_file

Sealing = Callable[[Dataset, str, int, str], Lineage]
"""Dataset, hash of the values, rows and `known_last_utc` of a partition to its lineage."""
_HASH_TO_COME = "#" * 64


class Candidate(Protocol):
    """A partition that is not yet served."""

    @property
    def rows(self) -> int: ...

    def audit(self, session: date) -> AuditResult: ...

    def table(self) -> pl.DataFrame:
        """The rows in memory: for quarantine, when the partition was refused."""
        ...

    def body(self) -> bytes:
        """The bytes of the partition file."""
        ...


@dataclass(frozen=True)
class TableCandidate:
    """A conformed table."""

    dataset: Dataset
    frame: pl.DataFrame
    seal: Sealing

    @property
    def rows(self) -> int:
        return self.frame.height

    def audit(self, session: date) -> AuditResult:
        return audit(self.dataset, self.frame, session)

    def table(self) -> pl.DataFrame:
        return self.frame

    def body(self) -> bytes:
        lineage = self.seal(self.dataset, data_hash(self.frame), self.rows, partitions.known_last(self.frame))
        return partitions.encode(self.dataset, self.frame, {FOOTER_KEY: lineage.to_json()})


@dataclass(frozen=True)
class FileCandidate:
    """A partition file in the scratch folder, complete but for being served."""

    dataset: Dataset
    path: Path
    rows: int

    def audit(self, session: date) -> AuditResult:
        return audit_file(self.dataset, self.path, session)

    def table(self) -> pl.DataFrame:
        return partitions.decode(self.path.read_bytes(), self.path.name)

    def body(self) -> bytes:
        """The file as mapped memory, which reads like bytes and takes no room of its own."""
        with self.path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)  # type: ignore[return-value]


def staged(stream: Stream, path: Path, seal: Sealing) -> tuple[FileCandidate, tuple[Finding, ...]]:
    """Write a stream to a file, lineage included; and what the stream found on the way.

    Raises WholeTableNeededError where the stream turns out to need the whole table.
    """
    ds = stream.dataset
    with path.open("wb") as file:
        writer = PartitionWriter(file, ds)
        for batch in stream.batches:
            writer.write(batch)
        _close(writer, ds, seal, _HASH_TO_COME)
    _put_hash(path, file_data_hash(path))
    return FileCandidate(ds, path, writer.rows), stream.findings()


@contextmanager
def staged_parts(
    datasets: Sequence[Dataset], parts: Iterator[Mapping[str, pl.DataFrame]], folder: Path, seal: Sealing
) -> Iterator[dict[str, Candidate]]:
    """What conformed tables are, by dataset and part after part, when put together.

    Those of datasets that are `in_parts` are written to a file each, which is gone after the `with`; others are kept in memory.
    """
    paths = {ds.name: folder / f"{ds.name}-{uuid.uuid4().hex}.parquet" for ds in datasets if ds.in_parts}
    kept: dict[str, list[pl.DataFrame]] = {ds.name: [] for ds in datasets if not ds.in_parts}
    try:
        with ExitStack() as files:
            writers = {ds.name: PartWriter(files.enter_context(paths[ds.name].open("wb")), ds) for ds in datasets if ds.in_parts}
            hashes = {ds.name: DataHash(ds.polars_schema()) for ds in datasets if ds.in_parts}
            for tables in parts:
                for name, table in tables.items():
                    if name in writers:
                        hashes[name].update(table)
                        writers[name].write(table)
                    else:
                        kept[name].append(table)
            for ds in datasets:
                if ds.in_parts:
                    _close(writers[ds.name], ds, seal, hashes[ds.name].hexdigest())
        yield {
            ds.name: FileCandidate(ds, paths[ds.name], writers[ds.name].rows)
            if ds.in_parts
            else TableCandidate(ds, pl.concat(kept[ds.name]), seal)
            for ds in datasets
        }
    finally:
        for path in paths.values():
            path.unlink(missing_ok=True)


def _close(writer: PartitionWriter | PartWriter, ds: Dataset, seal: Sealing, found: str) -> None:
    newest = pl.DataFrame({KNOWN_AT: [writer.known_last]}, schema={KNOWN_AT: pl.Int64}).cast({KNOWN_AT: UTC_NS})
    lineage = seal(ds, found, writer.rows, partitions.known_last(newest))
    writer.close({FOOTER_KEY: lineage.to_json()})


def _put_hash(path: Path, found: str) -> None:
    """The placeholder stands once, in the footer; a footer has no checksum that would have to follow."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        at = mapped.rfind(_HASH_TO_COME.encode())
        mapped[at : at + len(found)] = found.encode()
