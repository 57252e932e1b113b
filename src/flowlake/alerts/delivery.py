"""Delivering what is due: claim, send, write down. What fails waits longer each time; what is hopeless is given up and shown."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from flowlake.alerts.channels import Channel
from flowlake.alerts.model import Message, Result
from flowlake.alerts.outbox import LEAST_ATTEMPTS, Claimed, Outbox, Target
from flowlake.alerts.templates import one_line

FIRST_WAIT_SECONDS = 30.0
LONGEST_WAIT_SECONDS = 3600.0
POLL_SECONDS = 1.0
DETAIL_CHARACTERS = 200


@dataclass(frozen=True)
class Attempt:
    """One attempt and the state in which it left the message: accepted, waiting, refused or given up."""

    channel: str
    address: str
    message: Message
    state: str
    detail: str


@dataclass(frozen=True)
class Policy:
    """How long to keep trying, and what must not be written down: `redact` takes secrets out of a text."""

    give_up_seconds: float
    redact: Callable[[str], str]
    chance: Callable[[], float] = random.random
    """Between 0 and 1; spreads the attempts of many who failed at the same moment."""

    def shown(self, detail: str) -> str:
        """A detail as it may be kept and printed. Redacted first: a cut through a secret would leave the half of it."""
        return one_line(self.redact(detail), DETAIL_CHARACTERS)


def targets_of(channels: Sequence[Channel]) -> list[Target]:
    """Every address of every channel."""
    return [Target(one.name, address, one.min_tier, one.per_hour) for one in channels for address in one.addresses]


def deliver(
    outbox: Outbox,
    channels: Sequence[Channel],
    policy: Policy,
    clock: Callable[[], float] = time.time,
    heard: Callable[[Attempt], None] | None = None,
) -> list[Attempt]:
    """Try what is due. After a failure that is the server's its address is left in peace until the next call."""
    made: list[Attempt] = []
    for channel in channels:
        for target in targets_of([channel]):
            outbox.gather(target, clock())
            while (claimed := outbox.claim(target, clock())) is not None:
                attempt, may_go_on = _attempt(outbox, channel, target, claimed, policy, clock)
                made.append(attempt)
                if heard:
                    heard(attempt)
                if not may_go_on:
                    break
    return made


def _attempt(
    outbox: Outbox, channel: Channel, target: Target, claimed: Claimed, policy: Policy, clock: Callable[[], float]
) -> tuple[Attempt, bool]:
    result = Result("unanswered", "stopped in the middle")
    try:
        result = channel.send(claimed.message, target.address, claimed.maybe_there)
    finally:
        result = replace(result, detail=policy.shown(result.detail))
        now = clock()
        state = outbox.settle(claimed, target, result, now, wait_seconds(claimed, result, policy, now))
    attempt = Attempt(channel.name, target.address, claimed.message, state, result.detail)
    return attempt, result.verdict in ("accepted", "refused")


def wait_seconds(claimed: Claimed, result: Result, policy: Policy, now_unix_s: float) -> float | None:
    """Seconds to the next attempt; None to give up.

    Doubles from 30 seconds to an hour, of which a random half to whole is waited, and never less than the server asked for.
    """
    tired = now_unix_s - claimed.waiting_since_unix_s >= policy.give_up_seconds
    if tired and claimed.attempt >= LEAST_ATTEMPTS:
        return None
    doubled = min(FIRST_WAIT_SECONDS * 2.0 ** min(claimed.attempt - 1, 20), LONGEST_WAIT_SECONDS)
    return max(doubled * (0.5 + policy.chance() / 2.0), result.retry_after_seconds or 0.0)


def deliver_for(
    outbox: Outbox, channels: Sequence[Channel], policy: Policy, seconds: float, heard: Callable[[Attempt], None] | None = None
) -> list[Attempt]:
    """Deliver what is due now and what becomes due within `seconds`; ends early once nothing waits."""
    end = time.monotonic() + seconds
    targets = targets_of(channels)
    made: list[Attempt] = []
    while True:
        made += deliver(outbox, channels, policy, time.time, heard)
        left = end - time.monotonic()
        if left <= 0 or not outbox.waiting(targets):
            return made
        time.sleep(min(POLL_SECONDS, left))
