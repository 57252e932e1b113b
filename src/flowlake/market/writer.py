"""Writing a market: into a folder laid out as a bucket, through a put function, and its truth apart from both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flowlake.core.errors import StorageError
from flowlake.market.build import Market

Progress = Callable[[str, int], None]
"""Called after each file with its key and the number of files so far."""


def write_bucket(market: Market, put: Callable[[str, bytes], None], progress: Progress | None = None) -> int:
    """Give every file of the market to `put(key, body)`, in order; the number of files."""
    count = 0
    for file in market.files():
        put(file.key, file.body)
        count += 1
        if progress is not None:
            progress(file.key, count)
    return count


def write_folder(market: Market, folder: Path, progress: Progress | None = None) -> int:
    """Write the market below a folder whose relative paths are the keys. Raises StorageError when it cannot."""

    def put(key: str, body: bytes) -> None:
        _write(folder / key, body)

    return write_bucket(market, put, progress)


def write_truth(market: Market, folder: Path) -> list[Path]:
    """Write the truth as `episodes.parquet`, `trades.parquet` and `sessions.parquet`; the paths."""
    paths = []
    for name, table in market.truth().items():
        path = folder / f"{name}.parquet"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            table.write_parquet(path, row_group_size=131_072)
        except OSError as error:
            raise _unwritable(path, error) from error
        paths.append(path)
    return paths


def _write(path: Path, body: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> StorageError:
    return StorageError(f"{path} cannot be written: {error}", "check the free space and the permissions of the folder")
