"""Partition files: where they lie, how they are written, and the lineage in their footers.

Layout below the root:
    <layer>/<dataset>/session=YYYY-MM-DD/part.parquet      what the lake serves
    ops/<dataset>/run=<run id>/part.parquet                records of a run
    ops/<dataset>/packed=<run id>/part.parquet             records of many runs, see `journal`
    _history/<dataset>/session=YYYY-MM-DD/<file hash>.parquet
    _quarantine/<dataset>/session=YYYY-MM-DD/<inputs key>/
    _staging/                                              never read
"""

from __future__ import annotations

import io
import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Any

import polars as pl

from flowlake.core.errors import StorageError
from flowlake.datasets.model import KNOWN_AT, SESSION, Dataset
from flowlake.lake import columnar, parts
from flowlake.lake.hashing import data_hash
from flowlake.lake.store import Store

HISTORY = "_history"
QUARANTINE = "_quarantine"
FOOTER_KEY = "flowlake"
_TAIL_BYTES = 65_536


@dataclass(frozen=True)
class InputRecord:
    """What a step read: a dataset, the first and last session, and one hash over the slice that the reader returned."""

    dataset: str
    first: str
    last: str
    hash: str


@dataclass(frozen=True)
class Lineage:
    """Written into the footer with the data, so that the two cannot part. Holds nothing that differs between equal runs."""

    dataset: str
    session: str
    data_hash: str
    rows: int
    known_last_utc: str
    step: str
    step_version: int
    schema_hash: str
    suite_hash: str
    inputs: tuple[InputRecord, ...]
    inputs_key: str

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Lineage:
        fields: dict[str, Any] = json.loads(text)
        inputs = tuple(InputRecord(**record) for record in fields.pop("inputs"))
        return cls(**fields, inputs=inputs)


def partition_path(ds: Dataset, session: date) -> str:
    return f"{ds.layer.value}/{ds.name}/session={session}/part.parquet"


def run_path(ds: Dataset, run_id: str) -> str:
    return f"{ds.layer.value}/{ds.name}/run={run_id}/part.parquet"


def history_path(ds: Dataset, session: date, file_hash: str) -> str:
    return f"{HISTORY}/{ds.name}/session={session}/{file_hash}.parquet"


def session_of_path(path: str) -> date | None:
    """The session in a partition's path; None for any other file."""
    for part in path.split("/"):
        if part.startswith("session="):
            return date.fromisoformat(part.removeprefix("session="))
    return None


def encode(ds: Dataset, frame: pl.DataFrame, metadata: dict[str, str] | None = None) -> bytes:
    """The partition's bytes: a fixed row group size, zstd, statistics; equal tables give equal bytes."""
    if ds.runs and dict(frame.schema) == ds.polars_schema() and not any(frame.get_column(name).null_count() for name in ds.runs):
        return columnar.encode(ds, frame, metadata or {})
    if ds.in_parts:
        return parts.encode(ds, [frame], metadata or {})
    buffer = io.BytesIO()
    frame.write_parquet(
        buffer,
        compression="zstd",
        compression_level=3,
        statistics=True,
        row_group_size=ds.row_group_size,
        metadata=metadata or {},
    )
    return buffer.getvalue()


def decode(body: bytes, path: str, columns: Collection[str] = ()) -> pl.DataFrame:
    """The rows in the bytes of a partition, those of `columns` that it has or else all.

    `path` names them in the StorageError that damaged bytes raise.
    """
    try:
        if not columns:
            return pl.read_parquet(io.BytesIO(body))
        held = pl.read_parquet_schema(io.BytesIO(body))
        return pl.read_parquet(io.BytesIO(body), columns=[name for name in held if name in columns])
    except pl.exceptions.PolarsError as error:
        raise damaged(path, error) from error


def damaged(path: str, error: Exception) -> StorageError:
    """What to raise for a file that cannot be read."""
    cure = "run `flowlake verify`; delete each file that it names and run the session again, or `flowlake restore` a revision"
    return StorageError(f"{path} is damaged: {error}", cure)


def known_last(frame: pl.DataFrame) -> str:
    """When the newest row became known, as the lineage spells it; empty where there is no row."""
    last = frame.get_column(KNOWN_AT).max()
    return "" if last is None else last.isoformat() if isinstance(last, datetime) else str(last)


def lineage_of(store: Store, path: str) -> Lineage:
    """The lineage in a partition's footer; reads the tail of the file only."""
    tail = store.read_tail(path, _TAIL_BYTES)
    if tail[-4:] == b"PAR1" and (need := _footer_bytes(tail)) > len(tail):
        tail = store.read_tail(path, need)
    return lineage_in(tail, path)


def _footer_bytes(tail: bytes) -> int:
    return int.from_bytes(tail[-8:-4], "little") + 8


def lineage_in(body: bytes, path: str) -> Lineage:
    """The lineage in the bytes of a partition, or in a tail of them that holds the footer; `path` names them in errors."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_metadata(io.BytesIO(b"PAR1" + body[-_footer_bytes(body) :])).metadata or {}
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from error
    text = metadata.get(FOOTER_KEY.encode())
    if text is None:
        raise StorageError(f"{path} has no lineage in its footer", "it was not written by flowlake: move it away and run again")
    return Lineage.from_json(text.decode())


def read_partition(store: Store, ds: Dataset, session: date, columns: Collection[str] = ()) -> pl.DataFrame:
    """All rows of one partition in the declared columns, or those of `columns`, with `session`.

    A partition written before a column was declared reads as null there, until its step rebuilds it.
    """
    path = partition_path(ds, session)
    frame = declared(ds, decode(store.read(path), path, columns).lazy(), columns)
    return frame.with_columns(pl.lit(session, dtype=pl.Date).alias(SESSION)).collect(engine="in-memory")


@dataclass(frozen=True)
class StoredRows:
    """A partition of which rows are decoded when they are asked for. What is asked is answered from the bytes of one moment, so a
    partition that is replaced meanwhile is not seen in halves.
    """

    dataset: Dataset
    session: date
    body: bytes
    height: int
    columns: tuple[str, ...] = ()
    """Those of a slice, beside `session`; all declared ones where none is named."""
    numbered: str = ""
    """A column before them that counts the rows of the partition from 0, where it is named."""

    def get_column(self, name: str) -> pl.Series:
        return self._decoded((name,), 0, self.height).get_column(name)

    def slice(self, offset: int, length: int) -> pl.DataFrame:
        """As the same slice of `read_partition`."""
        frame = self._decoded(self.columns, offset, length)
        return frame.with_row_index(self.numbered, offset) if self.numbered else frame

    def _decoded(self, columns: tuple[str, ...], offset: int, length: int) -> pl.DataFrame:
        try:
            rows = declared(self.dataset, pl.scan_parquet(self.body, parallel="columns"), columns).slice(offset, length)
            return rows.with_columns(pl.lit(self.session, dtype=pl.Date).alias(SESSION)).collect(engine="in-memory")
        except pl.exceptions.PolarsError as error:
            raise damaged(partition_path(self.dataset, self.session), error) from error


def declared(ds: Dataset, frame: pl.LazyFrame, columns: Collection[str] = ()) -> pl.LazyFrame:
    """The declared columns of a partition file, or those of `columns`, null where the file is older than the column."""
    held = frame.collect_schema()
    return frame.select(
        pl.col(name) if name in held else pl.lit(None, dtype=dtype).alias(name)
        for name, dtype in ds.polars_schema().items()
        if not columns or name in columns
    )


def check_hash(store: Store, path: str) -> tuple[Lineage, str]:
    """The lineage of a file and the hash of the values that it really holds. Raises StorageError where it cannot be read."""
    body = store.read(path)
    return lineage_in(body, path), data_hash(decode(body, path))
