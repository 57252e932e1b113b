"""Claims: whoever works on sessions says so first, so that two runs never work on the same session at once.

Publishing is atomic and needs no claim to be right; a claim saves double work and keeps the order of sessions. Claims form a queue:
each has a number, higher than all that were there before it, and goes on once no earlier claim overlaps its sessions.

On a local lake a claim is a file that its process holds locked: the system frees it in the instant the process dies. On `s3://` it
is an object that a thread writes anew every few seconds; without that it lapses. Ages are differences between times that the server
gave, so no two clocks are compared. Numbers are drawn as in Lamport's bakery: a claim without a number is still drawing, and
whoever overlaps it waits until it has one. That needs a store which lists what was just written, and no conditional write.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import IO, Protocol

from flowlake.core.errors import BusyError, FlowlakeError, StorageError
from flowlake.lake.store import LocalStore, S3Store, Store

log = logging.getLogger("flowlake")

CLAIMS = "_claims"
WAIT_SECONDS = 3600.0
SAY_EVERY_SECONDS = 60.0
DRAWING_SECONDS = 0.2
"""How soon to look again at a claim that is drawing its number: that takes two requests."""

JOIN_TRIES = 5


@dataclass(frozen=True)
class Times:
    """How often to look whether it is one's turn, and for `s3://` how often a claim is renewed and when it lapses, in seconds."""

    poll_local: float = 0.5
    poll_s3: float = 5.0
    heartbeat: float = 15.0
    expiry: float = 90.0


TIMES = Times()


def claim_path(run_id: str) -> str:
    return f"{CLAIMS}/{run_id}.json"


@dataclass(frozen=True)
class Claim:
    """Sessions that a run works on or waits for, both ends inclusive. `number` is 0 while it is being drawn."""

    run_id: str
    first: str
    last: str
    number: int
    host: str
    pid: int
    since_utc: str

    @classmethod
    def of_this_process(cls, run_id: str, first: date, last: date) -> Claim:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(run_id, str(first), str(last), 0, socket.gethostname(), os.getpid(), now)

    @property
    def path(self) -> str:
        return claim_path(self.run_id)

    def overlaps(self, other: Claim) -> bool:
        return self.first <= other.last and other.first <= self.last

    def comes_after(self, other: Claim) -> bool:
        """Whether the other one goes first, or may yet turn out to."""
        return other.number == 0 or (other.number, other.run_id) < (self.number, self.run_id)

    def body(self) -> bytes:
        return json.dumps(asdict(self), indent=1, sort_keys=True).encode()

    def __str__(self) -> str:
        days = self.first if self.first == self.last else f"{self.first} to {self.last}"
        return f"run {self.run_id}, which works on {days} since {self.since_utc} (process {self.pid} on {self.host})"


class Held(Protocol):
    """A claim that was granted."""

    def check(self) -> None:
        """Raise BusyError where the claim has lapsed, so that another run may have begun on the same sessions."""


class Queue(Held, Protocol):
    """The claims of one lake, seen by one of them."""

    @property
    def poll_seconds(self) -> float: ...

    def join(self) -> None: ...

    def in_front(self) -> list[Claim]: ...

    def hold(self) -> bool: ...

    def leave(self) -> None: ...


def _say(words: str) -> None:
    sys.stderr.write(f"flowlake: {words}\n")
    sys.stderr.flush()


@contextmanager
def claimed(
    store: Store,
    run_id: str,
    first: date,
    last: date,
    wait_seconds: float = WAIT_SECONDS,
    say: Callable[[str], None] = _say,
    times: Times = TIMES,
) -> Iterator[Held]:
    """Hold the sessions from `first` to `last` for the length of the block, after all earlier claims that overlap them.

    `say` hears at once, and then each minute, who is waited for. Raises BusyError where it is not our turn within `wait_seconds`.
    """
    claim = Claim.of_this_process(run_id, first, last)
    queue: Queue = S3Queue(store, claim, times) if isinstance(store, S3Store) else LocalQueue(_local(store), claim, times)
    try:
        queue.join()
        _wait_our_turn(queue, wait_seconds, say)
        yield queue
    finally:
        queue.leave()


def _local(store: Store) -> Path:
    if not isinstance(store, LocalStore):
        raise TypeError(f"{type(store).__name__} has no claims")
    return Path(store.root)


def _wait_our_turn(queue: Queue, wait_seconds: float, say: Callable[[str], None]) -> None:
    began = time.monotonic()
    spoke = -SAY_EVERY_SECONDS
    while True:
        front = queue.in_front()
        if not front and queue.hold():
            return
        waited = time.monotonic() - began
        numbered = [claim for claim in front if claim.number]
        if not numbered:
            time.sleep(DRAWING_SECONDS)
            continue
        oldest = min(numbered, key=lambda claim: claim.number)
        if waited >= wait_seconds:
            raise BusyError(
                f"busy: {oldest}" + (f"; waited {waited:.0f} s for it" if wait_seconds else ""),
                "run the same command again when that run has ended, or let it wait longer with --wait SECONDS",
            )
        if waited - spoke >= SAY_EVERY_SECONDS:
            spoke = waited
            say(f"waits for {oldest}")
        time.sleep(min(queue.poll_seconds, wait_seconds - waited))


class LocalQueue:
    """Claims as locked files. One lock orders all looks and writes, and is held for as long as those take.

    The locks are those of flock: they belong to the open file and not to the process, so that threads of one process exclude each
    other, and reading a claim does not free it. Over NFS, where they belong to the process, a process may hold one claim at a time.
    """

    def __init__(self, root: Path, claim: Claim, times: Times) -> None:
        self._root = root
        self._claim = claim
        self._file: IO[bytes] | None = None
        self.poll_seconds = times.poll_local

    def join(self) -> None:
        with self._alone():
            numbers = [claim.number for claim in self._others()]
            self._claim = replace(self._claim, number=1 + max(numbers, default=0))
            try:
                self._file = (self._root / self._claim.path).open("xb")
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._file.write(self._claim.body())
                self._file.flush()
            except OSError:  # a full disk, or one without locks: nobody may come upon half a claim
                self.leave()
                raise

    def in_front(self) -> list[Claim]:
        with self._alone():
            return [c for c in self._others() if self._claim.overlaps(c) and self._claim.comes_after(c)]

    def hold(self) -> bool:
        return True

    def check(self) -> None:
        """The lock lasts as long as the process."""

    def leave(self) -> None:
        if self._file is not None:
            try:
                with self._file:
                    (self._root / self._claim.path).unlink(missing_ok=True)
            except OSError as error:
                log.warning("the claim %s could not be removed, which the next run does: %s", self._claim.path, error)
            self._file = None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            (self._root / CLAIMS).mkdir(parents=True, exist_ok=True)
            with (self._root / CLAIMS / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise StorageError(
                f"cannot claim sessions in {self._root / CLAIMS}: {error}",
                "the lake's folder must be writable, on a file system that can lock files (flock)",
            ) from error

    def _others(self) -> list[Claim]:
        """Claims of living processes; what a dead one left is removed. Whoever calls this is alone."""
        found = []
        for path in sorted((self._root / CLAIMS).glob("*.json")):
            if self._file is not None and path.stem == self._claim.run_id:
                continue
            try:
                with path.open("rb") as file:
                    if _is_locked(file):
                        found.append(Claim(**json.load(file)))
                    else:
                        path.unlink(missing_ok=True)
            except FileNotFoundError:
                continue  # its run has just ended
        return found


def _is_locked(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


class S3Queue:
    """Claims as objects that are written anew while their process lives."""

    def __init__(self, store: S3Store, claim: Claim, times: Times) -> None:
        self._store = store
        self._claim = claim
        self._times = times
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._written: datetime | None = None
        """The server's time of our last write."""
        self._renewed = 0.0
        self._lapsed = False
        self.poll_seconds = times.poll_s3

    def join(self) -> None:
        for _ in range(JOIN_TRIES):
            self._written, self._lapsed = None, False
            self._claim = replace(self._claim, number=0)
            self._renew()
            number = 1 + max((claim.number for claim in self._others()), default=0)
            self._claim = replace(self._claim, number=number)
            self._renew()
            if not self._lapsed:
                return
        raise StorageError(
            f"{self._store.root} does not list {self._claim.path}, which was just written there",
            "the lake needs a store that lists an object as soon as it is written (S3, Backblaze B2, MinIO do)",
        )

    def in_front(self) -> list[Claim]:
        self._renew()
        if self._lapsed:  # we slept, and others may have gone ahead: to the end of the queue
            self.join()
        return [c for c in self._others() if self._claim.overlaps(c) and self._claim.comes_after(c)]

    def hold(self) -> bool:
        """Keep the claim alive from now on; False where it lapsed while we looked."""
        self._renew()
        if self._lapsed:
            return False
        self._thread = threading.Thread(target=self._keep, name="flowlake-claim", daemon=True)
        self._thread.start()
        return True

    def check(self) -> None:
        if self._lapsed or time.monotonic() - self._renewed > self._times.expiry:
            raise BusyError(
                f"the claim on {self._claim.first} to {self._claim.last} lapsed: for too long the lake heard nothing of this run, "
                "so another may have begun on the same sessions",
                "what was published stays: run the same command again",
            )

    def leave(self) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        if self._renewed:
            try:
                self._store.delete(self._claim.path)
            except FlowlakeError as error:
                log.warning("the claim %s could not be removed and will lapse: %s", self._claim.path, error)

    def _keep(self) -> None:
        while not self._ended.wait(self._times.heartbeat):
            try:
                self._renew()
            except FlowlakeError as error:
                log.warning("the claim %s could not be renewed: %s", self._claim.path, error)
            # Give up before others may take over.
            if self._lapsed or time.monotonic() - self._renewed > self._times.expiry - self._times.heartbeat:
                self._lapsed = True
                return

    def _renew(self) -> None:
        """Write the claim again. It has lapsed where the server had not seen it for so long that others could take it for dead."""
        path = self._claim.path
        self._store.write(path, self._claim.body())
        written = self._store.modified(path).get(path)
        if written is None or (self._written is not None and written - self._written > self._expiry):
            self._lapsed = True
        self._written = written
        self._renewed = time.monotonic()

    @property
    def _expiry(self) -> timedelta:
        return timedelta(seconds=self._times.expiry)

    def _others(self) -> list[Claim]:
        """Claims that were renewed lately, as the server counts time: its newest write is our own, of just now."""
        modified = self._store.modified(f"{CLAIMS}/")
        now = max(modified.values(), default=None)
        found = []
        for path, moment in sorted(modified.items()):
            if path == self._claim.path or now is None:
                continue
            if now - moment > self._expiry:
                self._store.delete(path)
            elif (claim := self._read(path)) is not None:
                found.append(claim)
        return found

    def _read(self, path: str) -> Claim | None:
        """The claim, or None where its run has just ended."""
        try:
            return Claim(**json.loads(self._store.read(path)))
        except StorageError:
            if self._store.stat(path) is None:
                return None
            raise
