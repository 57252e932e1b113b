"""The record of a run as a whole: who started it, with what code and settings, and how it ended.

It is written when the run starts and again when it ends, so that a run which was killed leaves a start without an end.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import socket
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path

import flowlake
from flowlake.core.errors import FlowlakeError
from flowlake.core.events import emit, events_of
from flowlake.core.settings import Settings, described, without_secrets
from flowlake.datasets.ops import STATUSES
from flowlake.lake.journal import Journal, Row
from flowlake.lake.store import Store

log = logging.getLogger("flowlake")

LIBRARIES = ("polars", "pyarrow", "numpy", "numba", "scikit-learn", "hmmlearn", "great-expectations")
GIT_SECONDS = 5.0


@dataclass(frozen=True)
class Asked:
    """What a run was asked to do. Commands that run no step leave most of it out."""

    action: str
    first: date | None = None
    last: date | None = None
    steps: tuple[str, ...] = ()
    executor: str = ""
    retry: bool = False
    restate: bool = False


@dataclass
class Invocation:
    """A run under way: its journal, and what is known so far of how it ends."""

    records: Journal
    exit_code: int = 0
    statuses: Counter[str] = field(default_factory=Counter)

    @property
    def run_id(self) -> str:
        return self.records.run_id


def new_run_id() -> str:
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"


@contextmanager
def recorded(store: Store, settings: Settings, asked: Asked) -> Iterator[Invocation]:
    """Write down that a run starts and, whatever happens short of a kill, how it ended. Errors pass through."""
    running = Invocation(Journal(store, new_run_id()))
    began = time.monotonic()
    row = _started(settings, asked)
    running.records.about(row)
    with events_of(running.run_id, settings.parent_run):
        emit(
            "run_started", **{name: row[name] for name in ("action", "first_session", "last_session", "steps", "executor", "code")}
        )
        try:
            yield running
        except BaseException as error:
            running.exit_code = error.exit_code if isinstance(error, FlowlakeError) else 1
            try:
                _end(running, row, began, without_secrets(_in_words(error), settings))
            except FlowlakeError as second:  # the lake is away: the first error says more
                log.error("the end of the run could not be written down: %s", second)  # noqa: TRY400 - no traceback of a full disk
            raise
        _end(running, row, began, "")


def _started(settings: Settings, asked: Asked) -> Row:
    return {
        "parent": without_secrets(settings.parent_run, settings),
        "action": asked.action,
        "started_at_utc": datetime.now(UTC),
        "ended_at_utc": None,
        "seconds": None,
        "exit_code": None,
        "error": "",
        "first_session": asked.first,
        "last_session": asked.last,
        "steps": " ".join(asked.steps),
        "executor": asked.executor,
        "retry": asked.retry,
        "restate": asked.restate,
        "command": command_line(settings),
        "code": flowlake.__version__,
        "commit": commit(),
        "python": platform.python_version(),
        "libraries": libraries(),
        "config": json.dumps(described(settings), sort_keys=True),
        "host": socket.gethostname(),
        **dict.fromkeys(STATUSES, 0),
    }


def _end(running: Invocation, row: Row, began: float, error: str) -> None:
    seconds = time.monotonic() - began
    statuses = {name: running.statuses[name] for name in STATUSES}
    ended = {"ended_at_utc": datetime.now(UTC), "seconds": seconds, "exit_code": running.exit_code, "error": error}
    level = logging.ERROR if error or running.exit_code == 1 else logging.INFO
    try:
        running.records.flush()
        running.records.about(row | ended | statuses)
    finally:
        emit("run_finished", level, exit_code=running.exit_code, seconds=round(seconds, 3), error=error, **statuses)


def _in_words(error: BaseException) -> str:
    if isinstance(error, FlowlakeError):
        return error.what
    return "stopped by hand" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"


def command_line(settings: Settings) -> str:
    return without_secrets(" ".join(sys.argv[1:]), settings)


@cache
def libraries() -> str:
    return " ".join(f"{name}={version(name)}" for name in LIBRARIES)


@cache
def commit() -> str:
    """The commit of the checkout that this package runs from, `+changes` where files of it differ; empty without one, or git."""
    root = Path(flowlake.__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return ""
    asked = ("git", "--no-optional-locks", "-C", str(root), "status", "--porcelain=v2", "--branch", "--", "src", "uv.lock")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        answer = subprocess.run(asked, env=environ, capture_output=True, text=True, timeout=GIT_SECONDS, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    head = [line.split()[2] for line in answer.stdout.splitlines() if line.startswith("# branch.oid ")]
    changed = any(not line.startswith("#") for line in answer.stdout.splitlines())
    return (head[0] + ("+changes" if changed else "")) if answer.returncode == 0 and head else ""
