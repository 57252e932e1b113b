"""The outbox: told once, cooled down, limited, gathered, tried again later, given up in the open."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from flowlake.alerts.delivery import FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS, Policy, deliver, targets_of
from flowlake.alerts.model import Message, Notification, Result
from flowlake.alerts.outbox import DAY_SECONDS, DIGEST_SIZE, FORGET_DAYS, LEAST_ATTEMPTS, Outbox, Target
from flowlake.alerts.outbox_copy import copy_of, outbox_of
from flowlake.core.errors import StorageError, UsageError
from flowlake.pipeline.notifying import around

DAY = date(2024, 3, 4)
ACCEPTED, LATER, REFUSED, UNANSWERED = Result("accepted"), Result("later", "down"), Result("refused", "no"), Result("unanswered")


@dataclass
class Desk:
    """A channel that answers as it is told, the last answer over and over."""

    answers: list[Result] = field(default_factory=lambda: [ACCEPTED])
    name: str = "desk"
    min_tier: str = "info"
    per_hour: int | None = 100
    addresses: tuple[str, ...] = ("a",)
    got: list[Message] = field(default_factory=list)
    maybes: list[bool] = field(default_factory=list)

    def send(self, message: Message, address: str, maybe_there: bool) -> Result:
        self.got.append(message)
        self.maybes.append(maybe_there)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    @property
    def ids(self) -> list[str]:
        return [message.id for message in self.got]


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


POLICY = Policy(72 * 3600.0, lambda text: text, lambda: 1.0)


def told(subject: str = "AAPL", tier: str = "warning", session: date = DAY, trigger: str = "top_signal") -> Notification:
    return Notification(trigger, subject, session, tier, f"{subject} of {session}", datetime(2024, 3, 5, tzinfo=UTC))


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path / "state" / "outbox.sqlite") as opened:
        yield opened


def put(outbox: Outbox, desk: Desk, *notifications: Notification, cooldown: int = 0, now: float = 1_000_000.0) -> list[str]:
    targets = targets_of([desk])
    return [outbox.put(one, around(one.session, cooldown), targets, now).state for one in notifications]


def test_what_was_told_is_not_told_again_also_after_a_restart(tmp_path: Path) -> None:
    desk, clock = Desk(), Clock()
    for _ in range(3):
        with Outbox(tmp_path / "o.sqlite") as outbox:
            put(outbox, desk, told())
            deliver(outbox, [desk], POLICY, clock)
    assert len(desk.got) == 1


def test_judging_says_what_putting_does_and_does_nothing(outbox: Outbox) -> None:
    desk = Desk()
    for wanted in ("queued", "already"):
        assert outbox.judge(told(), None, targets_of([desk])).state == wanted
        assert put(outbox, desk, told()) == [wanted]


def test_the_cooldown_counts_sessions_both_ways_and_one_subject(outbox: Outbox) -> None:
    desk = Desk()
    states = put(outbox, desk, told(), cooldown=5)
    states += put(outbox, desk, told(session=date(2024, 3, 8)), told(session=date(2024, 2, 27)), cooldown=5)
    states += put(outbox, desk, told(session=date(2024, 3, 11)), told(session=date(2024, 2, 26)), cooldown=5)
    states += put(outbox, desk, told("MSFT"), told(trigger="iv_rank_change"), cooldown=5)
    assert states == ["queued", "suppressed", "suppressed", "queued", "queued", "queued", "queued"]
    assert {row["suppressed"] for row in outbox.suppressed(10)} == {"cooldown: told for 2024-03-04"}


def test_one_that_was_suppressed_starts_no_cooldown(outbox: Outbox) -> None:
    desk = Desk()
    days = (date(2024, 3, 4), date(2024, 3, 5), date(2024, 3, 6), date(2024, 3, 7))
    assert put(outbox, desk, *(told(session=day) for day in days), cooldown=2) == ["queued", "suppressed", "queued", "suppressed"]


def test_a_channel_hears_its_tier_and_above(outbox: Outbox) -> None:
    loud, all_ = Desk(name="loud", min_tier="critical"), Desk(name="all", min_tier="warning")
    targets = targets_of([loud, all_])
    states = [outbox.put(told(tier, tier), None, targets, 0.0).state for tier in ("info", "warning", "critical")]
    deliver(outbox, [loud, all_], POLICY)
    assert states == ["suppressed", "queued", "queued"]
    assert [message.tier for message in loud.got] == ["critical"]
    assert [message.tier for message in all_.got] == ["critical", "warning"], "the most urgent first"


def test_each_address_is_delivered_to_apart(outbox: Outbox) -> None:
    desk = Desk([REFUSED, ACCEPTED], addresses=("gone", "here"))
    put(outbox, desk, told())
    states = [attempt.state for attempt in deliver(outbox, [desk], POLICY)]
    assert states == ["refused", "accepted"]
    assert deliver(outbox, [desk], POLICY) == []
    assert [(row["address"], row["state"]) for row in outbox.open_messages()] == [("gone", "refused")]


def test_a_failure_waits_longer_each_time_and_keeps_its_id(outbox: Outbox) -> None:
    desk, clock = Desk([LATER]), Clock()
    put(outbox, desk, told())
    waits = []
    for _ in range(10):
        began = clock.now
        while not deliver(outbox, [desk], POLICY, clock):
            clock.now += 1.0
        waits.append(clock.now - began)
    assert waits[:4] == [0.0, FIRST_WAIT_SECONDS, 2 * FIRST_WAIT_SECONDS, 4 * FIRST_WAIT_SECONDS]
    assert waits[-1] == LONGEST_WAIT_SECONDS
    assert len(set(desk.ids)) == 1
    assert not any(desk.maybes)


def test_chance_spreads_the_attempts_over_half_of_the_wait(outbox: Outbox) -> None:
    desk, clock = Desk([LATER]), Clock()
    put(outbox, desk, told())
    lucky = Policy(1e9, lambda text: text, lambda: 0.0)
    deliver(outbox, [desk], lucky, clock)
    clock.now += FIRST_WAIT_SECONDS / 2 - 1
    assert deliver(outbox, [desk], lucky, clock) == []
    clock.now += 1
    assert len(deliver(outbox, [desk], lucky, clock)) == 1


def test_retry_after_holds_for_the_whole_address(outbox: Outbox) -> None:
    desk, clock = Desk([Result("later", "slow", 500.0), ACCEPTED]), Clock()
    put(outbox, desk, told("A"), told("B"))
    assert len(deliver(outbox, [desk], POLICY, clock)) == 1
    put(outbox, desk, told("C"))
    clock.now += 499.0
    assert deliver(outbox, [desk], POLICY, clock) == []
    clock.now += 1.0
    assert [attempt.state for attempt in deliver(outbox, [desk], POLICY, clock)] == ["accepted"] * 3


def test_it_is_given_up_after_its_time_but_not_before_enough_attempts(outbox: Outbox) -> None:
    desk, clock = Desk([LATER]), Clock()
    put(outbox, desk, told())
    states = []
    for _ in range(LEAST_ATTEMPTS):
        clock.now += POLICY.give_up_seconds
        states += [attempt.state for attempt in deliver(outbox, [desk], POLICY, clock)]
    assert states == ["waiting"] * (LEAST_ATTEMPTS - 1) + ["given up"]
    clock.now += 1e9
    assert deliver(outbox, [desk], POLICY, clock) == []
    (shown,) = outbox.open_messages()
    assert (shown["state"], shown["detail"], shown["titles"]) == ("given up", "down", [told().title])


def test_what_was_given_up_can_be_tried_again_under_its_id(outbox: Outbox) -> None:
    desk, clock = Desk([REFUSED, ACCEPTED]), Clock()
    put(outbox, desk, told())
    deliver(outbox, [desk], POLICY, clock)
    assert outbox.retry(clock.now) == 1
    assert [attempt.state for attempt in deliver(outbox, [desk], POLICY, clock)] == ["accepted"]
    assert len(set(desk.ids)) == 1
    assert outbox.retry(clock.now) == 0


def test_one_that_always_fails_keeps_no_other_from_its_turn(outbox: Outbox) -> None:
    @dataclass
    class Picky(Desk):
        def send(self, message: Message, address: str, maybe_there: bool) -> Result:
            self.got.append(message)
            return LATER if message.tier == "critical" else ACCEPTED

    desk, clock = Picky(), Clock()
    put(outbox, desk, told("POISON", "critical"), *(told(name) for name in "ABC"))
    for _ in range(3):
        clock.now += LONGEST_WAIT_SECONDS
        deliver(outbox, [desk], POLICY, clock)
    assert [row["titles"][0] for row in outbox.open_messages()] == [told("POISON").title]


def test_an_unanswered_attempt_is_known_as_such(outbox: Outbox) -> None:
    desk, clock = Desk([UNANSWERED, ACCEPTED]), Clock()
    put(outbox, desk, told())
    deliver(outbox, [desk], POLICY, clock)
    assert outbox.open_messages()[0]["unanswered"] == 1
    clock.now += LONGEST_WAIT_SECONDS
    deliver(outbox, [desk], POLICY, clock)
    assert desk.maybes == [False, True]
    assert len(set(desk.ids)) == 1


def test_what_is_over_the_limit_is_gathered_and_nothing_is_lost(outbox: Outbox) -> None:
    desk, clock = Desk(per_hour=3), Clock()
    put(outbox, desk, told("URGENT", "critical"), *(told(f"S{i}") for i in range(50)))
    deliver(outbox, [desk], POLICY, clock)
    kinds = [(message.kind, len(message.notifications)) for message in desk.got]
    assert kinds == [("notification", 1), ("digest", DIGEST_SIZE), ("digest", 10)]
    assert desk.got[0].notifications[0].subject == "URGENT"
    assert sorted(one.subject for message in desk.got for one in message.notifications) == sorted(
        ["URGENT", *(f"S{i}" for i in range(50))]
    )
    put(outbox, desk, told("NEXT"))
    clock.now += 3599.0
    assert deliver(outbox, [desk], POLICY, clock) == [], "the hour is not over"
    clock.now += 1.0
    assert [attempt.state for attempt in deliver(outbox, [desk], POLICY, clock)] == ["accepted"]


def test_a_digest_that_failed_stays_the_digest_that_it_was(outbox: Outbox) -> None:
    desk, clock = Desk([UNANSWERED, ACCEPTED], per_hour=1), Clock()
    put(outbox, desk, told("A"), told("B"))
    deliver(outbox, [desk], POLICY, clock)
    put(outbox, desk, told("C"))
    for _ in range(4):
        clock.now += 3600.0
        deliver(outbox, [desk], POLICY, clock)
    digests = [message for message in desk.got if message.kind == "digest"]
    assert [sorted(one.subject for one in message.notifications) for message in digests] == [["A", "B"]] * 2
    assert len({message.id for message in digests}) == 1
    assert [message.notifications[0].subject for message in desk.got if message.kind == "notification"] == ["C"]


def test_two_processes_never_claim_the_same_message(tmp_path: Path) -> None:
    desk = Desk()
    path = tmp_path / "o.sqlite"
    with Outbox(path) as first, Outbox(path) as second:
        put(first, desk, *(told(f"S{i}") for i in range(20)))
        (target,) = targets_of([desk])
        mine, theirs = first.claim(target, 2e6), second.claim(target, 2e6)
        assert mine is not None
        assert theirs is not None
        assert mine.message.id != theirs.message.id
        first.settle(mine, target, ACCEPTED, 2e6, None)
        second.settle(theirs, target, ACCEPTED, 2e6, None)
    slow = Desk(per_hour=None)

    def work() -> None:
        with Outbox(path) as mine:
            deliver(mine, [slow], POLICY)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(slow.ids) == len(set(slow.ids)) == 18


def test_a_claim_ends_with_its_owner_and_counts_as_unanswered(tmp_path: Path) -> None:
    desk, path = Desk(), tmp_path / "o.sqlite"
    (target,) = targets_of([desk])
    dead = Outbox(path)
    put(dead, desk, told())
    assert dead.claim(target, 2e6) is not None
    with Outbox(path) as living:
        assert living.claim(target, 2e6) is None, "its owner lives"
        dead._owner._lock.close()  # what the system does when a process is killed
        again = living.claim(target, 2e6)
        assert again is not None
        assert (again.attempt, again.maybe_there) == (2, True)
    dead._db.close()


def test_stopping_in_the_middle_leaves_it_unanswered(outbox: Outbox) -> None:
    class Stopped(Desk):
        def send(self, message: Message, address: str, maybe_there: bool) -> Result:
            raise KeyboardInterrupt

    desk = Stopped()
    put(outbox, desk, told())
    with pytest.raises(KeyboardInterrupt):
        deliver(outbox, [desk], POLICY)
    (shown,) = outbox.open_messages()
    assert (shown["state"], shown["unanswered"]) == ("waiting", 1)


def test_details_are_redacted_before_they_are_stored(outbox: Outbox) -> None:
    desk = Desk([Result("later", "the word is hunter2")])
    put(outbox, desk, told())
    deliver(outbox, [desk], Policy(1.0, lambda text: text.replace("hunter2", "***")))
    assert outbox.open_messages()[0]["detail"] == "the word is ***"


def test_what_was_delivered_long_ago_is_forgotten_but_not_told_again(outbox: Outbox) -> None:
    desk, start = Desk([ACCEPTED, REFUSED, LATER]), 1_000_000.0
    clock = Clock()
    put(outbox, desk, told("A"), told("B"), told("C"))
    deliver(outbox, [desk], POLICY, clock)

    def held() -> tuple[int, list[str]]:
        with sqlite3.connect(outbox.path) as db:
            words = [row[0] for row in db.execute("SELECT subject FROM notifications WHERE body <> '' ORDER BY subject")]
            return db.execute("SELECT count(*) FROM messages").fetchone()[0], words

    outbox.forget(start + FORGET_DAYS * DAY_SECONDS)
    assert held() == (3, ["A", "B", "C"])
    outbox.forget(start + FORGET_DAYS * DAY_SECONDS + 1.0)
    assert held() == (2, ["B", "C"]), "what was refused or waits stays"
    assert put(outbox, desk, told("A"), told("A", session=date(2024, 3, 5)), cooldown=5) == ["already", "suppressed"]
    assert outbox.retry(start) == 1
    assert sorted(one["titles"] for one in outbox.open_messages()) == [[f"B of {DAY}"], [f"C of {DAY}"]]


def test_a_copy_is_an_outbox_again_that_marks_what_may_have_been_delivered_since(tmp_path: Path) -> None:
    desk, path = Desk([ACCEPTED, LATER]), tmp_path / "o.sqlite"
    with Outbox(path) as outbox:
        put(outbox, desk, told("A"), told("B"))
        deliver(outbox, [desk], POLICY, Clock())
        copy = copy_of(path)
        put(outbox, desk, told("C"))
        assert copy_of(path) != copy
    (tmp_path / "back.sqlite").write_bytes(outbox_of(copy))
    with Outbox(tmp_path / "back.sqlite") as back:
        assert put(back, desk, told("A"), told("B"), told("C")) == ["already", "already", "queued"]
        waiting = {tuple(one["titles"]): one["unanswered"] for one in back.open_messages()}
        assert waiting == {(f"B of {DAY}",): 1, (f"C of {DAY}",): 0}
    for damaged in (copy[: len(copy) // 2], b"no database", copy.replace(b"messages", b"massages")):
        with pytest.raises(StorageError, match="copy of the outbox cannot be used"):
            outbox_of(damaged)
    with pytest.raises(StorageError, match="cannot be read"):
        copy_of(tmp_path / "nothing.sqlite")


def test_a_copy_has_nothing_of_what_a_killed_process_left_half_written(tmp_path: Path) -> None:
    desk, path = Desk(), tmp_path / "o.sqlite"
    with Outbox(path) as outbox:
        put(outbox, desk, told("A"))
    killed = f"""
import os, sqlite3
db = sqlite3.connect({str(path)!r}, isolation_level=None)
db.execute("PRAGMA cache_spill = 1")
db.execute("PRAGMA cache_size = 1")
db.execute("BEGIN IMMEDIATE")
db.execute("UPDATE messages SET detail = 'half'")
db.executemany("INSERT INTO contents VALUES (?, ?)", [(str(i) * 50, "x" * 500) for i in range(2000)])
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", killed], check=False).returncode == -9
    assert path.with_name("o.sqlite-journal").stat().st_size > 0
    with sqlite3.connect(":memory:") as db:
        db.deserialize(copy_of(path))
        assert db.execute("SELECT count(*) FROM contents").fetchone() == (1,)
        assert db.execute("SELECT detail FROM messages").fetchone() == ("",)


def test_a_file_that_is_no_outbox_is_an_error_with_a_cure(tmp_path: Path) -> None:
    path = tmp_path / "o.sqlite"
    path.write_text("no database at all, and long enough to be looked at as one " * 10)
    with pytest.raises(StorageError, match="cannot be used"):
        Outbox(path)
    with pytest.raises(StorageError, match="cannot be used"):
        Outbox(tmp_path / "o.sqlite" / "below")
    newer = tmp_path / "newer.sqlite"
    with sqlite3.connect(newer) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(UsageError, match="another version"):
        Outbox(newer)


def test_only_the_targets_that_are_asked_for_are_counted_as_waiting(outbox: Outbox) -> None:
    desk = Desk(addresses=("a", "b"))
    put(outbox, desk, told())
    assert outbox.waiting(targets_of([desk])) == 2
    assert outbox.waiting([Target("desk", "a", "info", None)]) == 1
    assert outbox.waiting([]) == 0
