"""Who is at work on an outbox. A claim lasts as long as its process: the system ends it in the instant of a kill.

Owners are made and looked at only inside a transaction of the outbox, so that none is looked at before it holds its lock.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from pathlib import Path
from typing import IO


class Owner:
    """This process as an owner of claims: a file that it holds locked as long as it lives."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError where `folder` cannot be written."""
        folder.mkdir(parents=True, exist_ok=True)
        self.id = f"{os.getpid()}-{uuid.uuid4().hex[:12]}"
        self._path = folder / self.id
        self._lock: IO[str] = self._path.open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def close(self) -> None:
        self._path.unlink(missing_ok=True)
        self._lock.close()


def is_alive(folder: Path, owner: str) -> bool:
    """Whether the process that claims as `owner` lives. Removes the file of one that does not."""
    path = folder / owner
    try:
        lock = path.open("r+")
    except FileNotFoundError:
        return False
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        path.unlink(missing_ok=True)
        return False


def sweep(folder: Path) -> None:
    """Remove what processes left that were killed without a claim."""
    for path in folder.glob("*"):
        is_alive(folder, path.name)
