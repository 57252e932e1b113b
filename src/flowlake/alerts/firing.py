"""Alert rules that fire in a Prometheus, as notifications."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

from flowlake.alerts.model import Notification
from flowlake.core.alert_settings import TIERS
from flowlake.core.errors import FlowlakeError, UsageError
from flowlake.core.sessions import NEW_YORK, sessions_between

TRIGGER = "alert_rule"
LISTED = 10
"""Series of one rule that a notification names; a page of Prometheus has all."""
_SHOWN_ELSEWHERE = frozenset({"alertname", "severity", "instance", "job"})


class PrometheusError(FlowlakeError):
    """Prometheus does not answer, or says what it should not."""


@dataclass(frozen=True)
class Firing:
    """One series for which a rule fires, since `since_utc`."""

    rule: str
    severity: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    since_utc: datetime

    @property
    def place(self) -> str:
        """The lake or server that it is about; empty where the rule speaks of none."""
        return self.labels.get("instance", "")


def checked_address(address: str) -> str:
    """The address of a Prometheus. Raises UsageError where it is none, or holds a user: it is printed."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise UsageError("the address of Prometheus is no URL without a user", "write it like http://localhost:9090")
    return address.rstrip("/")


def firing(address: str, timeout_seconds: float) -> list[Firing]:
    """What fires now, waiting rules left out. Raises PrometheusError."""
    try:
        with build_opener(ProxyHandler({})).open(f"{address}/api/v1/alerts", timeout=timeout_seconds) as answer:
            said = json.loads(answer.read())
        return [_firing(one) for one in said["data"]["alerts"] if one["state"] == "firing"]
    except HTTPError as error:
        what = f"answers {error.code} {error.reason}"
    except (OSError, http.client.HTTPException) as error:
        what = f"cannot be reached: {getattr(error, 'reason', None) or error or type(error).__name__}"
    except (ValueError, KeyError, TypeError) as error:
        what = f"gave an answer that is not one of Prometheus: {type(error).__name__}"
    raise PrometheusError(f"{address} {what}", "check the address, and that Prometheus runs")


def _firing(one: Mapping[str, object]) -> Firing:
    labels, annotations = one["labels"], one["annotations"]
    if not isinstance(labels, dict) or not isinstance(annotations, dict):
        raise TypeError
    since = datetime.fromisoformat(str(one["activeAt"])).astimezone(UTC)
    return Firing(labels["alertname"], labels.get("severity", ""), labels, annotations, since)


def notifications(found: Sequence[Firing], now: datetime) -> list[Notification]:
    """One for each rule and place, told once for each session: what stops and fires anew within one is not told again."""
    groups: dict[tuple[str, str], list[Firing]] = {}
    for one in sorted(found, key=lambda one: (one.rule, one.place, one.since_utc, sorted(one.labels.items()))):
        groups.setdefault((one.rule, one.place), []).append(one)
    return [_notification(rule, place, group, session_of(now)) for (rule, place), group in groups.items()]


def _notification(rule: str, place: str, group: Sequence[Firing], session: date) -> Notification:
    first = group[0]
    more = f", and {len(group) - 1} more" if len(group) > 1 else ""
    said = list(dict.fromkeys(text for one in group if (text := one.annotations.get("description", ""))))
    books = dict.fromkeys(text for one in group if (text := one.annotations.get("runbook_url", "")))
    return Notification(
        TRIGGER,
        f"{rule} {place}".strip(),
        session,
        first.severity if first.severity in TIERS else "info",
        f"{rule}: {first.annotations.get('summary', rule)}{more}",
        first.since_utc,
        facts=tuple((_series(one), one.annotations.get("summary", "fires")) for one in group[:LISTED]),
        reasons=(*said[:LISTED], *(f"What to do: {book}" for book in books)),
    )


def _series(one: Firing) -> str:
    told = [f"{key} {value}" for key, value in sorted(one.labels.items()) if key not in _SHOWN_ELSEWHERE]
    return ", ".join(told) or one.place or one.rule


def silence(address: str, since: datetime, now: datetime) -> Notification:
    """That Prometheus has not answered since then: nothing else would tell of it."""
    return Notification(
        TRIGGER,
        f"Prometheus {address}",
        session_of(now),
        "critical",
        "Prometheus does not answer: no alert rule is judged",
        since,
        reasons=("What to do: start it, and see its log.",),
    )


def session_of(now: datetime) -> date:
    """The newest session up to that day in New York: a session's day begins at midnight, a Sunday belongs to Friday."""
    day = now.astimezone(NEW_YORK).date()
    return sessions_between(day - timedelta(days=14), day)[-1]
