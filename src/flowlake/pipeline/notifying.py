"""Notifications of sessions: triggers are given what the lake knows, what they find goes into the outbox and from there out."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl

from flowlake.alerts.channels import Channel, configured, named
from flowlake.alerts.delivery import Attempt, Policy, deliver_for, targets_of
from flowlake.alerts.model import Message, Notification
from flowlake.alerts.outbox import Outbox, Put
from flowlake.alerts.triggers import TRIGGERS, Found, Frames, Need, Trigger
from flowlake.core.alert_settings import AlertSettings, PriceLevel
from flowlake.core.errors import FlowlakeError
from flowlake.core.sessions import CALENDAR_FIRST, decision_time, sessions_between
from flowlake.core.settings import Settings, load_alert_settings
from flowlake.datasets.model import KNOWN_AT, SESSION
from flowlake.datasets.ops import INVOCATIONS, RUNS
from flowlake.datasets.registry import DATASETS
from flowlake.lake import journal
from flowlake.lake.asof import AsOfReader, Slice
from flowlake.lake.index import Index
from flowlake.lake.store import Store, open_store
from flowlake.pipeline.outboxes import outbox_path, policy_of

NO_CHANNEL = "no channel is configured"
Heard = Callable[[Attempt], None]


@dataclass(frozen=True)
class Evaluated:
    """What became of a trigger on a session: `found`, `no data` (`missing` says which) or `failed` (`remarks` say why)."""

    trigger: Trigger
    session: date
    state: str
    missing: tuple[str, ...] = ()
    notifications: tuple[Notification, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass
class Told:
    """What a call did: triggers, what was put into the outbox, and every attempt to deliver, older messages included.

    `passed_over` are sessions that are too old to be told. `exit_code` is 1 where a trigger could not be judged or a message was
    refused or given up, 3 where one still waits, else 0.
    """

    evaluated: list[Evaluated] = field(default_factory=list)
    puts: list[Put] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    waiting: int = 0
    channels: tuple[str, ...] = ()
    passed_over: tuple[date, ...] = ()

    @property
    def exit_code(self) -> int:
        lost = any(attempt.state in ("refused", "given up") for attempt in self.attempts)
        if lost or any(one.state == "failed" for one in self.evaluated):
            return 1
        return 3 if self.waiting else 0


def notify(
    settings: Settings,
    sessions: Sequence[date],
    alerts: AlertSettings | None = None,
    dry_run: bool = False,
    wait_seconds: float = 0.0,
    heard: Heard | None = None,
    within_days: int | None = None,
) -> Told:
    """Tell what is worth telling of sessions, once, and deliver what is due; failed deliveries are tried for `wait_seconds`.

    All sessions are looked at before anything is sent, so that a digest gathers from all. One whose decision time lies more than
    `within_days` back is not looked at: a backfill is no news. `dry_run` puts nothing into the outbox and sends nothing. Without a
    channel nothing is put into it either: what is configured later still hears of the sessions. Raises UsageError for a day without
    a session and for settings that are incomplete.
    """
    alerts = alerts or load_alert_settings()
    channels = configured(alerts)
    targets = targets_of(channels)
    decided = {session: decision_time(session) for session in sessions}
    oldest = None if within_days is None else datetime.now(UTC) - timedelta(days=within_days)
    passed_over = tuple(session for session, moment in decided.items() if oldest is not None and moment < oldest)
    evaluated = [one for session in decided if session not in passed_over for one in evaluate(settings, session, alerts.watch)]
    told = Told(evaluated, channels=tuple(channel.name for channel in channels), passed_over=passed_over)
    found = [(one, each) for one in told.evaluated for each in one.notifications]
    if not channels:
        told.puts = [Put(each, "suppressed", NO_CHANNEL) for _, each in found]
        return told
    path = outbox_path(settings, alerts)
    if dry_run and not path.exists():
        told.puts = [Put(each, "queued") for _, each in found]
        return told
    with Outbox(path) as outbox:
        for one, each in found:
            near = around(one.session, one.trigger.cooldown_sessions)
            told.puts.append(outbox.judge(each, near, targets) if dry_run else outbox.put(each, near, targets, time.time()))
        if not dry_run:
            outbox.forget(time.time())
            told.attempts = deliver_for(outbox, channels, policy_of(settings, alerts), wait_seconds, heard)
            told.waiting = outbox.waiting(targets)
    return told


def flush(
    settings: Settings,
    alerts: AlertSettings | None = None,
    retry: bool = False,
    wait_seconds: float = 0.0,
    heard: Heard | None = None,
) -> Told:
    """Deliver what waits; with `retry` also what was refused or given up. Raises UsageError without a channel."""
    alerts = alerts or load_alert_settings()
    channels = named(configured(alerts), "")
    told = Told(channels=tuple(channel.name for channel in channels))
    with Outbox(outbox_path(settings, alerts)) as outbox:
        outbox.forget(time.time())
        if retry:
            outbox.retry(time.time())
        told.attempts = deliver_for(outbox, channels, policy_of(settings, alerts), wait_seconds, heard)
        told.waiting = outbox.waiting(targets_of(channels))
    return told


def send_test(settings: Settings, name: str = "", alerts: AlertSettings | None = None) -> list[Attempt]:
    """One message to every address of all channels, or of one. It passes by the outbox and the limit per hour."""
    alerts = alerts or load_alert_settings()
    policy = policy_of(settings, alerts)
    return [_tested(channel, address, policy) for channel in named(configured(alerts), name) for address in channel.addresses]


def _tested(channel: Channel, address: str, policy: Policy) -> Attempt:
    now = datetime.now(UTC)
    session = sessions_between(CALENDAR_FIRST, now.date())[-1]
    one = Notification(
        "test", channel.name, session, "info", "a test message", now, reasons=("Somebody ran `flowlake alerts test`.",)
    )
    message = Message(uuid.uuid4().hex, "test", "info", now, (one,))
    result = channel.send(message, address, False)
    return Attempt(channel.name, address, message, result.verdict, policy.shown(result.detail))


def around(session: date, cooldown_sessions: int) -> tuple[date, date] | None:
    """First and last session of a cooldown: the day counts itself, and both directions, as sessions may be told out of order."""
    if cooldown_sessions < 1:
        return None
    reach = timedelta(days=2 * cooldown_sessions + 10)
    before = sessions_between(session - reach, session)[-cooldown_sessions:]
    after = sessions_between(session, session + reach)[:cooldown_sessions]
    return before[0], after[-1]


def evaluate(settings: Settings, session: date, watch: tuple[PriceLevel, ...]) -> list[Evaluated]:
    """Every trigger on a session, as of its decision time. One that cannot be judged holds up no other.

    Raises UsageError for a day without a session.
    """
    decision_time(session)
    read = _Reader(open_store(settings.lake, settings.lake_access), session)
    return [_judged(trigger, read, session, watch) for trigger in TRIGGERS]


def _judged(trigger: Trigger, read: _Reader, session: date, watch: tuple[PriceLevel, ...]) -> Evaluated:
    try:
        frames: Frames = {
            need.dataset: frame for need in (*trigger.needs, *trigger.helps) if (frame := read.frame(need)) is not None
        }
        if missing := tuple(need.dataset for need in trigger.needs if need.dataset not in frames):
            return Evaluated(trigger, session, "no data", missing)
        found: Found = trigger.find(trigger, frames, session, watch)
    except FlowlakeError as error:
        return Evaluated(trigger, session, "failed", remarks=(error.what,))
    return Evaluated(trigger, session, "found", (), tuple(found.notifications), tuple(found.remarks))


class _Reader:
    """Frames of one session for the triggers: through the as-of reader, on the session's share basis."""

    def __init__(self, store: Store, session: date) -> None:
        self._store = store
        self._session = session
        self._index = Index(store)
        self._reader = AsOfReader(store, self._index, session)

    def frame(self, need: Need) -> pl.DataFrame | None:
        """The rows; None where the session has no partition, or no record of a run."""
        ds = DATASETS[need.dataset]
        if ds is RUNS:
            found = journal.records(self._store, RUNS).filter(pl.col(SESSION) == self._session)
            return found if found.height else None
        if ds is INVOCATIONS:
            covers = (pl.col("first_session") <= self._session) & (pl.col("last_session") >= self._session)
            return journal.records(self._store, INVOCATIONS).filter(covers)
        if self._index.get(ds, self._session) is None:
            return None
        columns = ("underlying", *need.columns, KNOWN_AT) if need.columns else ()
        rows = self._reader.read(Slice(ds, need.sessions, adjust=need.sessions > 1, columns=columns))
        first = sessions_between(self._session - timedelta(days=2 * need.sessions + 10), self._session)[-need.sessions]
        return None if rows is None else rows.filter(pl.col(SESSION) >= first)


def availability(settings: Settings) -> list[tuple[Trigger, date | None, tuple[str, ...]]]:
    """Each trigger with the newest session that has all it needs, and the datasets of which the lake has nothing."""
    store = open_store(settings.lake, settings.lake_access)
    index = Index(store)
    days = {need.dataset: _days(store, index, need.dataset) for trigger in TRIGGERS for need in trigger.needs}
    found = []
    for trigger in TRIGGERS:
        held = [days[need.dataset] for need in trigger.needs]
        common = set.intersection(*held)
        absent = tuple(need.dataset for need in trigger.needs if not days[need.dataset])
        found.append((trigger, max(common, default=None), absent))
    return found


def _days(store: Store, index: Index, name: str) -> set[date]:
    if DATASETS[name] is RUNS:
        return set(journal.records(store, RUNS).get_column(SESSION).drop_nulls())
    return set(index.sessions(DATASETS[name]))


def queue(settings: Settings, alerts: AlertSettings | None = None, last: int = 10) -> dict[str, Any]:
    """The outbox: counts by channel, address and state, what is open, and the newest that were suppressed."""
    alerts = alerts or load_alert_settings()
    path = outbox_path(settings, alerts)
    shown: dict[str, Any] = {"outbox": str(path), "counts": [], "open": [], "suppressed": []}
    if path.exists():
        with Outbox(path) as outbox:
            shown |= {"counts": outbox.counts(), "open": outbox.open_messages(), "suppressed": outbox.suppressed(last)}
    return shown
