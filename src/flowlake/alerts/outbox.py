"""What is to be told and what was: a small database that survives a crash, shared by any number of processes.

A notification is there once, for ever: its identity is what keeps it from being told twice. A message is one delivery to one
address of a channel, and carries one notification or, as a digest, several. Its id never changes, so that a repeat can be known.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from flowlake.alerts.model import Message, Notification, Result, fingerprint
from flowlake.alerts.owner import Owner, is_alive, sweep
from flowlake.core.alert_settings import TIERS
from flowlake.core.errors import StorageError, UsageError

LOCK_SECONDS = 30.0
HOUR_SECONDS = 3600.0
DAY_SECONDS = 86_400.0
LEAST_ATTEMPTS = 5
"""Nothing is given up before so many attempts, however old it is: perhaps nobody called for days."""
DIGEST_SIZE = 40
FORGET_DAYS = 90.0
"""What was delivered longer ago is forgotten but for its identity, which is what keeps it from being told again."""
VERSION = 1
_SCHEMA = """
CREATE TABLE notifications (
  identity TEXT PRIMARY KEY, trigger TEXT NOT NULL, subject TEXT NOT NULL, session TEXT NOT NULL, tier TEXT NOT NULL,
  body TEXT NOT NULL, created_unix_s REAL NOT NULL, suppressed TEXT NOT NULL
);
CREATE INDEX by_subject ON notifications (trigger, subject, session);
CREATE TABLE messages (
  id TEXT PRIMARY KEY, channel TEXT NOT NULL, address TEXT NOT NULL, kind TEXT NOT NULL, urgency INTEGER NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('waiting', 'accepted', 'refused', 'given up')),
  created_unix_s REAL NOT NULL, waiting_since_unix_s REAL NOT NULL, next_attempt_unix_s REAL NOT NULL, ended_unix_s REAL,
  attempts INTEGER NOT NULL, unanswered INTEGER NOT NULL, claimed_by TEXT, detail TEXT NOT NULL
);
CREATE INDEX by_address ON messages (channel, address, state);
CREATE TABLE contents (message_id TEXT NOT NULL, identity TEXT NOT NULL, PRIMARY KEY (message_id, identity));
CREATE TABLE pauses (channel TEXT NOT NULL, address TEXT NOT NULL, until_unix_s REAL NOT NULL, PRIMARY KEY (channel, address));
"""


@dataclass(frozen=True)
class Put:
    """What became of a notification that was handed in. `state`: queued, already (it was told before), or suppressed."""

    notification: Notification
    state: str
    why: str = ""


@dataclass(frozen=True)
class Target:
    """One address of a channel. `least` is the lowest tier that it wants, `per_hour` the most messages in an hour."""

    channel: str
    address: str
    least: str
    per_hour: int | None


@dataclass(frozen=True)
class Claimed:
    """A message that this process alone may try now. `attempt` counts from 1; `maybe_there`: an earlier one was not answered."""

    message: Message
    attempt: int
    waiting_since_unix_s: float
    maybe_there: bool


class Outbox:
    """Open until `close`. Moments are given in, in seconds since 1970.

    Raises StorageError where the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._folder = path.with_name(path.name + ".claims")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=LOCK_SECONDS, isolation_level=None)
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA synchronous = FULL")
        except (OSError, sqlite3.Error) as error:
            raise _broken(path, error) from None
        with self._transaction():
            self._prepare()
            sweep(self._folder)
            self._owner = Owner(self._folder)

    def close(self) -> None:
        self._db.close()
        self._owner.close()

    def __enter__(self) -> Outbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _prepare(self) -> None:
        found = self._db.execute("PRAGMA user_version").fetchone()[0]
        if found not in (0, VERSION):
            raise UsageError(f"{self.path} was made by another version of flowlake", "use that version, or name another outbox")
        if found == 0:
            for statement in _SCHEMA.split(";"):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {VERSION}")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with _as_storage(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def put(self, one: Notification, near: tuple[date, date] | None, targets: Sequence[Target], now_unix_s: float) -> Put:
        """Hand in a notification, in one transaction with all its messages.

        `near` is the first and last session of its cooldown: another of the same trigger and subject there suppresses it.
        """
        with self._transaction():
            judged = self._judge(one, near, targets)
            if judged.state == "already":
                return judged
            self._db.execute(
                "INSERT INTO notifications VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (one.identity, one.trigger, one.subject, str(one.session), one.tier, one.stored(), now_unix_s, judged.why),
            )
            for target in _wanting(one, targets) if judged.state == "queued" else ():
                message_id = fingerprint("message", target.channel, target.address, one.identity)
                self._add(message_id, target, "notification", one.tier, now_unix_s, [one.identity])
            return judged

    def judge(self, one: Notification, near: tuple[date, date] | None, targets: Sequence[Target]) -> Put:
        """What `put` would do."""
        with _as_storage(self.path):
            return self._judge(one, near, targets)

    def _judge(self, one: Notification, near: tuple[date, date] | None, targets: Sequence[Target]) -> Put:
        if self._db.execute("SELECT 1 FROM notifications WHERE identity = ?", (one.identity,)).fetchone():
            return Put(one, "already", "told before, or waiting")
        if not _wanting(one, targets):
            return Put(one, "suppressed", f"no channel wants tier {one.tier}")
        if near is not None:
            query = (
                "SELECT session FROM notifications WHERE trigger = ? AND subject = ? AND session BETWEEN ? AND ? "
                "AND suppressed = '' ORDER BY session DESC"
            )
            row = self._db.execute(query, (one.trigger, one.subject, str(near[0]), str(near[1]))).fetchone()
            if row:
                return Put(one, "suppressed", f"cooldown: told for {row['session']}")
        return Put(one, "queued")

    def _add(self, message_id: str, target: Target, kind: str, tier: str, now_unix_s: float, identities: Sequence[str]) -> None:
        values = (message_id, target.channel, target.address, kind, TIERS.index(tier), "waiting", *(now_unix_s,) * 3)
        self._db.execute("INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, 0, 0, NULL, '')", values)
        self._db.executemany("INSERT INTO contents VALUES (?, ?)", [(message_id, identity) for identity in identities])

    def gather(self, target: Target, now_unix_s: float) -> int:
        """Where more is due than the hour has room for, fold what was never tried into digests; how many were made.

        The most urgent keep messages of their own as long as there is room for them beside the digests. What has been tried keeps
        its id, because it may be there already.
        """
        with self._transaction():
            free = self._free(target, now_unix_s)
            due = self._due(target, now_unix_s)
            if free is None or free < 1 or len(due) <= free or self._paused(target, now_unix_s):
                return 0
            fresh = [row for row in due if row["kind"] == "notification" and not row["attempts"] + row["unanswered"]]
            others = len(due) - len(fresh)
            kept = max(free - others - math.ceil(len(fresh) / DIGEST_SIZE), 0)
            parts = [fresh[i : i + DIGEST_SIZE] for i in range(kept, len(fresh), DIGEST_SIZE)]
            digests = [part for part in parts if len(part) > 1]
            for part in digests:
                self._fold(target, part, now_unix_s)
            return len(digests)

    def _fold(self, target: Target, rows: Sequence[sqlite3.Row], now_unix_s: float) -> None:
        """One digest in the place of these messages."""
        identities = [row["identity"] for row in self._contents([row["id"] for row in rows])]
        self._db.executemany("DELETE FROM contents WHERE message_id = ?", [(row["id"],) for row in rows])
        self._db.executemany("DELETE FROM messages WHERE id = ?", [(row["id"],) for row in rows])
        digest_id = fingerprint("digest", target.channel, target.address, *sorted(identities))
        self._add(digest_id, target, "digest", TIERS[max(row["urgency"] for row in rows)], now_unix_s, identities)

    def claim(self, target: Target, now_unix_s: float) -> Claimed | None:
        """The next message that is due there, for this process alone until `settle`; None where nothing is due or allowed.

        The attempt is counted before it is made: one that a crash cuts short is known as unanswered.
        """
        with self._transaction():
            self._free_the_dead(target)
            free = self._free(target, now_unix_s)
            if self._paused(target, now_unix_s) or (free is not None and free < 1):
                return None
            due = self._due(target, now_unix_s)
            if not due:
                return None
            row = due[0]
            self._db.execute(
                "UPDATE messages SET claimed_by = ?, attempts = attempts + 1 WHERE id = ?", (self._owner.id, row["id"])
            )
            return Claimed(self._message(row), row["attempts"] + 1, row["waiting_since_unix_s"], row["unanswered"] > 0)

    def settle(self, claimed: Claimed, target: Target, result: Result, now_unix_s: float, wait_seconds: float | None) -> str:
        """Write down what became of an attempt; the message's new state. `wait_seconds` to the next one, None to give it up."""
        state = result.verdict if result.verdict in ("accepted", "refused") else "given up" if wait_seconds is None else "waiting"
        ended = None if state == "waiting" else now_unix_s
        with self._transaction():
            self._db.execute(
                "UPDATE messages SET state = ?, detail = ?, ended_unix_s = ?, next_attempt_unix_s = ?, "
                "unanswered = unanswered + ?, claimed_by = NULL WHERE id = ? AND claimed_by = ?",
                (
                    state,
                    result.detail,
                    ended,
                    now_unix_s + (wait_seconds or 0.0),
                    int(result.verdict == "unanswered"),
                    claimed.message.id,
                    self._owner.id,
                ),
            )
            if result.retry_after_seconds:
                self._db.execute(
                    "INSERT INTO pauses VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET until_unix_s = excluded.until_unix_s",
                    (target.channel, target.address, now_unix_s + result.retry_after_seconds),
                )
        return state

    def retry(self, now_unix_s: float) -> int:
        """Put what was refused or given up into line again; how many."""
        with self._transaction():
            return self._db.execute(
                "UPDATE messages SET state = 'waiting', attempts = 0, waiting_since_unix_s = ?, next_attempt_unix_s = ?, "
                "ended_unix_s = NULL WHERE state IN ('refused', 'given up')",
                (now_unix_s, now_unix_s),
            ).rowcount

    def forget(self, now_unix_s: float) -> None:
        """Drop messages that were accepted more than FORGET_DAYS ago, and the words of notifications that no message carries.

        What waits, was refused or was given up stays, however old.
        """
        before = now_unix_s - FORGET_DAYS * DAY_SECONDS
        with self._transaction():
            self._db.execute("DELETE FROM messages WHERE state = 'accepted' AND ended_unix_s < ?", (before,))
            self._db.execute("DELETE FROM contents WHERE message_id NOT IN (SELECT id FROM messages)")
            self._db.execute(
                "UPDATE notifications SET body = '' WHERE created_unix_s < ? AND body <> '' "
                "AND identity NOT IN (SELECT identity FROM contents)",
                (before,),
            )

    def waiting(self, targets: Sequence[Target]) -> int:
        """How many messages wait for one of these."""
        with _as_storage(self.path):
            rows = self._db.execute(
                "SELECT channel, address, count(*) FROM messages WHERE state = 'waiting' GROUP BY 1, 2"
            ).fetchall()
        wanted = {(one.channel, one.address) for one in targets}
        return sum(int(count) for channel, address, count in rows if (channel, address) in wanted)

    def counts(self) -> list[dict[str, Any]]:
        """Messages by channel, address and state."""
        return self._read("SELECT channel, address, state, count(*) AS messages FROM messages GROUP BY 1, 2, 3 ORDER BY 1, 2, 3")

    def open_messages(self) -> list[dict[str, Any]]:
        """What waits, was refused or was given up, oldest first, with the titles that it carries."""
        rows = self._read(
            "SELECT id, channel, address, kind, state, created_unix_s, next_attempt_unix_s, attempts, unanswered, detail, "
            "claimed_by IS NOT NULL AS under_way "
            "FROM messages WHERE state <> 'accepted' ORDER BY created_unix_s, id"
        )
        with _as_storage(self.path):
            for row in rows:
                row["titles"] = [Notification.restored(one["body"]).title for one in self._contents([row["id"]])]
        return rows

    def suppressed(self, last: int) -> list[dict[str, Any]]:
        """The newest notifications that were not told, with the reason."""
        return self._read(
            "SELECT trigger, subject, session, tier, suppressed FROM notifications WHERE suppressed <> '' "
            "ORDER BY rowid DESC LIMIT ?",
            (last,),
        )

    def _read(self, query: str, values: tuple[Any, ...] = ()) -> list[dict[str, Any]]:
        with _as_storage(self.path):
            return [dict(row) for row in self._db.execute(query, values).fetchall()]

    def _due(self, target: Target, now_unix_s: float) -> list[sqlite3.Row]:
        """Fewest attempts first, so that one that always fails keeps no other from its turn; then the most urgent."""
        return self._db.execute(
            "SELECT * FROM messages WHERE channel = ? AND address = ? AND state = 'waiting' AND claimed_by IS NULL "
            "AND next_attempt_unix_s <= ? ORDER BY attempts, urgency DESC, next_attempt_unix_s, created_unix_s, rowid",
            (target.channel, target.address, now_unix_s),
        ).fetchall()

    def _free(self, target: Target, now_unix_s: float) -> int | None:
        """How many messages the hour still allows there; None for any number. One under way counts."""
        if target.per_hour is None:
            return None
        used = self._db.execute(
            "SELECT count(*) FROM messages WHERE channel = ? AND address = ? AND (claimed_by IS NOT NULL "
            "OR (state = 'accepted' AND ended_unix_s > ?))",
            (target.channel, target.address, now_unix_s - HOUR_SECONDS),
        ).fetchone()[0]
        return target.per_hour - int(used)

    def _paused(self, target: Target, now_unix_s: float) -> bool:
        query = "SELECT 1 FROM pauses WHERE channel = ? AND address = ? AND until_unix_s > ?"
        return self._db.execute(query, (target.channel, target.address, now_unix_s)).fetchone() is not None

    def _free_the_dead(self, target: Target) -> None:
        query = "SELECT DISTINCT claimed_by FROM messages WHERE channel = ? AND address = ? AND claimed_by IS NOT NULL"
        for row in self._db.execute(query, (target.channel, target.address)).fetchall():
            owner = row["claimed_by"]
            if owner != self._owner.id and not is_alive(self._folder, owner):
                self._db.execute(
                    "UPDATE messages SET claimed_by = NULL, unanswered = unanswered + 1, detail = 'cut short: the process ended' "
                    "WHERE claimed_by = ?",
                    (owner,),
                )

    def _message(self, row: sqlite3.Row) -> Message:
        held = tuple(Notification.restored(one["body"]) for one in self._contents([row["id"]]))
        created = datetime.fromtimestamp(row["created_unix_s"], UTC)
        return Message(row["id"], row["kind"], TIERS[row["urgency"]], created, held)

    def _contents(self, message_ids: Sequence[str]) -> list[sqlite3.Row]:
        """The notifications of messages, in the order in which they were handed in."""
        marks = ", ".join("?" * len(message_ids))
        query = (
            "SELECT n.identity, n.body FROM contents c JOIN notifications n ON n.identity = c.identity "
            f"WHERE c.message_id IN ({marks}) ORDER BY n.rowid"
        )
        return self._db.execute(query, tuple(message_ids)).fetchall()


def _wanting(one: Notification, targets: Sequence[Target]) -> list[Target]:
    return [target for target in targets if TIERS.index(one.tier) >= TIERS.index(target.least)]


@contextmanager
def _as_storage(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise _broken(path, error) from None


def _broken(path: Path, error: Exception) -> StorageError:
    return StorageError(
        f"the outbox {path} cannot be used: {error}",
        "free space, wait for the process that holds it, or name another file in FLOWLAKE_ALERT_OUTBOX",
    )
