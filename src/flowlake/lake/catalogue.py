"""The DuckDB catalogue: one view per dataset over the lake's Parquet files."""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from flowlake.datasets.model import SESSION, Dataset
from flowlake.datasets.ops import QUARANTINE
from flowlake.datasets.registry import DATASETS, RUN_KEYED
from flowlake.datasets.render import PARTITION_FILE, duckdb_view
from flowlake.lake.journal import ops_frame
from flowlake.lake.quarantine import refusals
from flowlake.lake.store import S3Store, Store

if TYPE_CHECKING:
    import duckdb

BESIDE = "beside"
"""Schema of the views of a second lake."""


def connect(
    store: Store,
    *,
    as_of: datetime | None = None,
    last_session: date | None = None,
    files: dict[str, list[str]] | None = None,
    beside: Store | None = None,
) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB connection with a view per dataset.

    `as_of` and `last_session` limit curated, derived, raw and label views to what was known. `files` replaces the present
    partitions of each dataset by explicit paths (an earlier revision of the lake). `beside` is another lake, whose views are in the
    schema `beside`, under the same limits.
    """
    import duckdb

    connection = duckdb.connect(":memory:")
    connection.execute("SET TimeZone = 'UTC'")
    if remote := next((s for s in (store, beside) if isinstance(s, S3Store)), None):
        connection.register_filesystem(_filesystem(remote))
    _create_views(connection, store, as_of, last_session, files)
    if beside is not None:
        connection.execute(f"CREATE SCHEMA {BESIDE}")
        connection.execute(f"USE {BESIDE}")
        _create_views(connection, beside, as_of, last_session, None)
        connection.execute("USE main")
    return connection


def _create_views(
    connection: duckdb.DuckDBPyConnection,
    store: Store,
    as_of: datetime | None,
    last_session: date | None,
    files: dict[str, list[str]] | None,
) -> None:
    for ds in DATASETS.values():
        if ds in RUN_KEYED:
            _ops_view(connection, store, ds)
        elif files is not None:
            paths = files.get(ds.name, [])
            connection.execute(duckdb_view(ds, store.root, exists=bool(paths), as_of=as_of, last_session=last_session, files=paths))
        else:
            connection.execute(duckdb_view(ds, store.root, exists=_exists(store, ds), as_of=as_of, last_session=last_session))


def _ops_view(connection: duckdb.DuckDBPyConnection, store: Store, ds: Dataset) -> None:
    if ds is QUARANTINE:
        rows = [{c.name: _value(getattr(refusal, c.name), c.name) for c in ds.columns} for refusal in refusals(store)]
        connection.register("_quarantine_rows", ops_frame(ds, rows).to_arrow())
        connection.execute("CREATE OR REPLACE TABLE quarantine AS SELECT * FROM _quarantine_rows")
        connection.unregister("_quarantine_rows")
        return
    connection.execute(duckdb_view(ds, store.root, exists=_exists(store, ds)))


def _exists(store: Store, ds: Dataset) -> bool:
    return any(stat.path.endswith(f"/{PARTITION_FILE}") for stat in store.list(f"{ds.layer.value}/{ds.name}/"))


def _value(value: Any, name: str) -> Any:
    if name == SESSION:
        return date.fromisoformat(value) if value else None
    return datetime.fromisoformat(value) if name.endswith("_at_utc") else value


def _filesystem(store: S3Store) -> Any:
    """pyarrow's S3 file system behind fsspec: DuckDB's own S3 extension would have to be downloaded."""
    from fsspec.implementations.arrow import ArrowFSWrapper
    from pyarrow.fs import S3FileSystem

    class LakeFileSystem(ArrowFSWrapper):  # type: ignore[misc]
        protocol = "s3"

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return str(path).removeprefix("s3://")

    scheme, _, host = store.access.endpoint.partition("://")
    return LakeFileSystem(
        S3FileSystem(
            access_key=store.access.key_id.reveal(),
            secret_key=store.access.secret.reveal(),
            endpoint_override=host or None,
            scheme=scheme or "https",
            region=store.access.region or "us-east-1",
        ),
        skip_instance_cache=True,
    )
