"""Whatever fails, crashes or is restarted in whatever order: each address gets each notification, and none twice."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from flowlake.alerts.delivery import LONGEST_WAIT_SECONDS, Policy, deliver, targets_of
from flowlake.alerts.model import Message, Notification, Result
from flowlake.alerts.outbox import Outbox

DAY = date(2024, 3, 4)
POLICY = Policy(1e12, lambda text: text, lambda: 1.0)


class Killed(BaseException):
    """The process ends here, whatever it was doing."""


@dataclass
class Server:
    """What the other side has: messages by id as often as it took them. It answers as `fates` say, and then well."""

    fates: list[str]
    per_hour: int | None
    name: str = "server"
    min_tier: str = "info"
    addresses: tuple[str, ...] = ("a", "b")
    taken: list[tuple[str, Message]] = field(default_factory=list)
    alone: set[tuple[str, str]] = field(default_factory=set)
    """Messages of which an attempt was cut off after they were taken: only these may come again."""

    def send(self, message: Message, address: str, maybe_there: bool) -> Result:
        fate = self.fates.pop(0) if self.fates else "accept"
        if fate == "kill before":
            raise Killed
        if fate in ("down", "slow", "lost before"):
            verdict = "unanswered" if fate == "lost before" else "later"
            return Result(verdict, fate, 7200.0 if fate == "slow" else None)
        self.taken.append((address, message))
        if fate in ("kill after", "lost after"):
            self.alone.add((address, message.id))
        if fate == "kill after":
            raise Killed
        return Result("unanswered" if fate == "lost after" else "accepted")


FATES = st.sampled_from(["accept", "down", "slow", "lost before", "lost after", "kill before", "kill after"])
ACTS = st.one_of(
    st.tuples(st.just("put"), st.integers(0, 11)),
    st.tuples(st.just("deliver"), st.integers(0, 2)),
    st.tuples(st.just("wait"), st.sampled_from([1, 40, 4000])),
    st.tuples(st.just("restart"), st.just(0)),
)


class World:
    """Up to three processes on one outbox, and a clock."""

    def __init__(self, path: Path, server: Server) -> None:
        self.path, self.server, self.now = path, server, 1e6
        self.processes: dict[int, Outbox] = {}
        self.put: set[str] = set()

    def process(self, number: int) -> Outbox:
        if number not in self.processes:
            self.processes[number] = Outbox(self.path)
        return self.processes[number]

    def settled(self, number: int) -> None:
        """Let time pass until nothing waits: the fates run out, and from then on the server answers."""
        for _ in range(200):
            self.now += LONGEST_WAIT_SECONDS
            self.deliver(number)
            if number in self.processes and not self.process(number).waiting(targets_of([self.server])):
                return
        raise AssertionError("something waits for ever")

    def end(self) -> None:
        for outbox in self.processes.values():
            outbox.close()

    def die(self, number: int) -> None:
        """A kill: no close, no clean-up, the system frees the lock."""
        dead = self.processes.pop(number)
        dead._owner._lock.close()
        dead._db.close()

    def deliver(self, number: int) -> None:
        outbox = self.process(number)
        settle = outbox.settle
        try:
            # A process that is killed writes nothing down any more.
            outbox.settle = _unless_killed(settle)  # type: ignore[method-assign]
            deliver(outbox, [self.server], POLICY, lambda: self.now)
        except Killed:
            self.die(number)
        else:
            outbox.settle = settle  # type: ignore[method-assign]

    def act(self, what: str, how: int) -> None:
        if what == "put":
            one = Notification("t", f"S{how % 6}", DAY, ("info", "critical")[how // 6], "title", datetime(2024, 3, 5, tzinfo=UTC))
            self.put.add(one.identity)
            self.process(0).put(one, None, targets_of([self.server]), self.now)
        elif what == "deliver":
            self.deliver(how)
        elif what == "wait":
            self.now += how
        else:
            for number in list(self.processes):
                self.die(number)


def _unless_killed(settle):  # type: ignore[no-untyped-def]
    import sys

    def wrapped(*arguments):  # type: ignore[no-untyped-def]
        if isinstance(sys.exc_info()[1], Killed):
            raise Killed
        return settle(*arguments)

    return wrapped


@settings(max_examples=250)
@given(st.lists(ACTS, max_size=25), st.lists(FATES, max_size=25), st.sampled_from([None, 1, 2, 5]))
def test_each_notification_reaches_each_address_and_repeats_are_known(
    acts: list[tuple[str, int]], fates: list[str], per_hour: int | None
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = Server(list(fates), per_hour)
        world = World(Path(folder) / "outbox.sqlite", server)
        for what, how in acts:
            world.act(what, how)
        world.settled(1)
        for address in server.addresses:
            # A receiver that drops an id that it has sees every notification once.
            first = {message.id: message for to, message in server.taken if to == address}
            seen = Counter(one.identity for message in first.values() for one in message.notifications)
            assert seen == dict.fromkeys(world.put, 1)
            again = {
                found for found, count in Counter(message.id for to, message in server.taken if to == address).items() if count > 1
            }
            assert {(address, found) for found in again} <= server.alone, "a repeat without a lost answer"
        world.end()


@settings(max_examples=150)
@given(st.lists(ACTS, max_size=25), st.lists(st.sampled_from(["accept", "down", "slow", "kill before"]), max_size=25))
def test_with_a_server_that_answers_what_it_takes_nothing_comes_twice(acts: list[tuple[str, int]], fates: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = Server(list(fates), 3)
        world = World(Path(folder) / "outbox.sqlite", server)
        for what, how in acts:
            world.act(what, how)
        world.settled(2)
        seen = Counter((to, one.identity) for to, message in server.taken for one in message.notifications)
        assert seen == {(to, identity): 1 for to in server.addresses for identity in world.put}
        world.end()
