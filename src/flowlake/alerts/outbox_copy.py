"""A copy of an outbox for a backup, and an outbox that is made of such a copy."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from flowlake.alerts.outbox import VERSION
from flowlake.core.errors import StorageError


def copy_of(path: Path) -> bytes:
    """The outbox as one moment had it, while others may write. Raises StorageError where it cannot be read.

    Opened to be written, though nothing is: what a killed process left half-written is taken back first.
    """
    try:
        with (
            closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as source,
            closing(sqlite3.connect(":memory:")) as taken,
        ):
            source.backup(taken)
            return taken.serialize()
    except sqlite3.Error as error:
        raise StorageError(f"the outbox {path} cannot be read: {error}", "name the right file in FLOWLAKE_ALERT_OUTBOX") from None


def outbox_of(copy: bytes) -> bytes:
    """The outbox that a copy becomes. What waited in it may have been delivered since: it is marked so, and tried under its id.

    Raises StorageError where the copy is damaged or of another version.
    """
    try:
        with closing(sqlite3.connect(":memory:")) as db:
            db.deserialize(copy)
            if (said := db.execute("PRAGMA integrity_check").fetchone()[0]) != "ok":
                raise _bad(said)
            if (version := db.execute("PRAGMA user_version").fetchone()[0]) != VERSION:
                raise _bad(f"it is of version {version}, not {VERSION}")
            db.execute(
                "UPDATE messages SET unanswered = unanswered + 1, claimed_by = NULL, "
                "detail = 'from a backup: it may have been delivered since' WHERE state = 'waiting'"
            )
            db.commit()
            return db.serialize()
    except sqlite3.Error as error:
        raise _bad(str(error)) from None


def _bad(what: str) -> StorageError:
    return StorageError(f"the copy of the outbox cannot be used: {what}", "take an older backup, or begin with a new outbox")


def put_outbox(path: Path, body: bytes) -> None:
    """Write an outbox where none is, in one act. Raises StorageError where that fails."""
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        os.link(beside, path)  # which fails where one has come meanwhile
    except OSError as error:
        raise StorageError(f"the outbox {path} cannot be written: {error}", "free space, or name another file") from None
    finally:
        beside.unlink(missing_ok=True)
