"""Watching a Prometheus: rules that fire are told by the channels of notifications, whether or not anything else still runs."""

from __future__ import annotations

import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from flowlake.alerts.channels import Channel, configured
from flowlake.alerts.delivery import Attempt, deliver, targets_of
from flowlake.alerts.firing import PrometheusError, checked_address, firing, notifications, silence
from flowlake.alerts.model import Notification
from flowlake.alerts.outbox import Outbox
from flowlake.alerts.templates import subject
from flowlake.core.alert_settings import AlertSettings
from flowlake.core.errors import StorageError
from flowlake.core.settings import Settings, load_alert_settings
from flowlake.pipeline.outboxes import outbox_path, policy_of

EVERY_SECONDS = 60.0
AWAY_SECONDS = 900.0
"""How long Prometheus may be away before that is told: a restart is no news."""


def watch(settings: Settings, prometheus: str, once: bool = False, mark: Path | None = None) -> int:
    """Ask every minute what fires, tell it, and deliver whatever is due, until SIGTERM or Ctrl-C.

    `mark` is touched after each round in which the outbox could be used, and removed at the end. With `once` it is asked one time,
    and an exit code returned: 1 where Prometheus did not answer or a message was refused or given up, 3 where one waits. Raises
    UsageError for settings that are incomplete, and with `once` StorageError.
    """
    alerts = load_alert_settings()
    address, channels = checked_address(prometheus), configured(alerts)
    path = outbox_path(settings, alerts)
    if not channels:
        _say("no channel is configured: nobody is told")
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _rounds(settings, alerts, channels, path, address, once, mark)
    finally:
        signal.signal(signal.SIGTERM, before)
        if mark is not None:
            mark.unlink(missing_ok=True)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _rounds(
    settings: Settings, alerts: AlertSettings, channels: list[Channel], path: Path, address: str, once: bool, mark: Path | None
) -> int:
    away_since: datetime | None = None
    while True:
        now, problem = datetime.now(UTC), ""
        try:
            found = notifications(firing(address, alerts.timeout_seconds), now)
            away_since = None
        except PrometheusError as error:
            problem, away_since = error.what, away_since or now
            is_long = (now - away_since).total_seconds() >= AWAY_SECONDS
            found = [silence(address, away_since, now)] if is_long else []
            _say(problem)
        if once:
            code = _told(path, settings, alerts, channels, found)
            return 1 if problem else code
        try:
            _told(path, settings, alerts, channels, found)
            if mark is not None:
                mark.touch()
        except (StorageError, OSError) as error:
            _say(str(error))
        time.sleep(EVERY_SECONDS)


def _told(path: Path, settings: Settings, alerts: AlertSettings, channels: list[Channel], found: list[Notification]) -> int:
    """Put what was not told on this day into the outbox, and deliver what is due; an exit code as that of `alerts send`."""
    if not channels:
        return 0
    targets = targets_of(channels)
    with Outbox(path) as outbox:
        for one in found:
            if (put := outbox.put(one, None, targets, time.time())).state != "already":
                _say(f"{one.tier}: {one.title}: {put.state}{f' ({put.why})' if put.why else ''}")
        outbox.forget(time.time())
        attempts = deliver(outbox, channels, policy_of(settings, alerts), heard=_heard)
        waiting = outbox.waiting(targets)
    lost = any(attempt.state in ("refused", "given up") for attempt in attempts)
    return 1 if lost else 3 if waiting else 0


def _heard(attempt: Attempt) -> None:
    _say(f"{attempt.channel} {attempt.address}: {subject(attempt.message)}: {attempt.state} ({attempt.detail})")


def _say(text: str) -> None:
    sys.stdout.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {text}\n")
    sys.stdout.flush()
