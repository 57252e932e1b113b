"""Where downloads lie until they are in the lake: one folder per process, taken over from one that was killed."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import tempfile
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import IO

from flowlake.core.errors import StorageError
from flowlake.core.settings import Settings


@dataclass(frozen=True)
class Scratch:
    """A folder that is this process's own for as long as the lock is open; the system frees it when the process dies."""

    folder: Path
    lock: IO[str]

    @classmethod
    def taken(cls, root: Path) -> Scratch:
        """The first folder below `root` that no living process has: with what a killed one had fetched, if there is such.

        Raises StorageError where `root` cannot be written.
        """
        try:
            root.mkdir(parents=True, exist_ok=True)
            for number in count():
                if (lock := _locked(root / f"{number}.lock")) is not None:
                    return cls(root / str(number), lock)
        except OSError as error:
            raise StorageError(f"cannot write to {root}: {error}", "set FLOWLAKE_SCRATCH to a folder with space") from error
        raise AssertionError("numbers do not end")


def scratch_folder(settings: Settings) -> Path:
    """The configured folder, or one of the system's for temporary files that belongs to this lake and bucket."""
    if settings.scratch:
        return Path(settings.scratch)
    place = f"{settings.lake}|{settings.bucket_endpoint}|{settings.bucket_name}|{settings.bucket_prefix}"
    return Path(tempfile.gettempdir()) / f"flowlake-{hashlib.sha256(place.encode()).hexdigest()[:12]}"


def clean_scratch(root: Path) -> None:
    """Remove what killed processes left: after a run that lacks nothing, nobody will come for it."""
    for path in root.glob("*.lock"):
        if (lock := _locked(path)) is not None:
            with lock:
                shutil.rmtree(path.with_suffix(""), ignore_errors=True)


def _locked(path: Path) -> IO[str] | None:
    lock = path.open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock
