"""A file of JSON lines, for programs that read one."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import dataclass
from pathlib import Path

from flowlake.alerts.channels.checks import is_on
from flowlake.alerts.channels.transport import words
from flowlake.alerts.model import Message, Result
from flowlake.alerts.templates import payload_line
from flowlake.core.alert_settings import AlertSettings

TAIL_BYTES = 1


@dataclass(frozen=True)
class LinesFile:
    """Each message is one line, written in one piece under a lock and forced to the disk. There is no limit per hour."""

    path: Path
    min_tier: str
    per_hour: int | None = None
    name: str = "file"
    addresses: tuple[str, ...] = ("",)

    def send(self, message: Message, address: str, maybe_there: bool) -> Result:
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError as error:
            return Result("later", f"cannot be opened: {words(error)}")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if maybe_there and self._holds(message.id):
                return Result("accepted", "an earlier attempt had written it")
            return _append(descriptor, payload_line(message) + b"\n")
        except OSError as error:
            return Result("later", f"cannot be written: {words(error)}")
        finally:
            os.close(descriptor)

    def _holds(self, message_id: str) -> bool:
        with self.path.open("rb") as lines:
            return any(message_id.encode() in line and _id_of(line) == message_id for line in lines)


def _id_of(line: bytes) -> object:
    try:
        read = json.loads(line)
    except ValueError:  # a line that a full disk or a loss of power cut off
        return None
    return read.get("id") if isinstance(read, dict) else None


def _append(descriptor: int, line: bytes) -> Result:
    """Add a line, on a line of its own even where the last one was cut off; a line that did not fit is taken back."""
    size = os.fstat(descriptor).st_size
    torn = size > 0 and os.pread(descriptor, TAIL_BYTES, size - TAIL_BYTES) != b"\n"
    whole = b"\n" + line if torn else line
    written = os.write(descriptor, whole)
    if written != len(whole):
        os.ftruncate(descriptor, size)
        return Result("later", "the disk is full")
    os.fsync(descriptor)
    return Result("accepted", "written")


def file_channel(settings: AlertSettings) -> LinesFile | None:
    """The channel, or None where it is off."""
    if not is_on("file", "alert_file_path", {"alert_file_path": settings.file_path}):
        return None
    return LinesFile(Path(settings.file_path), settings.file_min_tier)
