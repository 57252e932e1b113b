"""The clock of the lake: New York trading sessions, their hours, and when a day's numbers may be used.

Weekdays without trading and half days lie in `exchange.json`, a fixed range of years: neither today's date nor a library's release
changes a result, and a command starts without a second of import. A test holds them against XNYS of exchange_calendars. All moments
are timezone-aware UTC; `datetime` columns in tables are `Datetime("ns", "UTC")`.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from importlib import resources
from zoneinfo import ZoneInfo

from flowlake.core.errors import UsageError

NEW_YORK = ZoneInfo("America/New_York")
CALENDAR_FIRST = date(1998, 1, 2)
CALENDAR_LAST = date(2035, 12, 31)

DECISION_TIME_ET = time(9, 0)
OPEN_INTEREST_TIME_ET = time(6, 30)
OPEN_ET = time(9, 30)
CLOSE_ET = time(16, 0)
HALF_DAY_CLOSE_ET = time(13, 0)
SATURDAY = 5
PUBLICATION_TIME_ET = time(11, 0)
"""Massive publishes a session's flat files about 11:00 New York on the next calendar day."""


@dataclass(frozen=True)
class _Calendar:
    days: tuple[date, ...]
    half_days: frozenset[date]


@cache
def _calendar() -> _Calendar:
    listed = json.loads((resources.files("flowlake.core") / "exchange.json").read_text(encoding="utf-8"))
    closed, half_days = (
        frozenset(date.fromisoformat(f"{year}-{day}") for year, days in listed[name].items() for day in days)
        for name in ("closed", "half_days")
    )
    every = (CALENDAR_FIRST + timedelta(days=i) for i in range((CALENDAR_LAST - CALENDAR_FIRST).days + 1))
    return _Calendar(tuple(day for day in every if day.weekday() < SATURDAY and day not in closed), half_days)


def _position(session: date) -> int:
    days = _calendar().days
    i = bisect_left(days, session)
    if i == len(days) or days[i] != session:
        raise UsageError(
            f"{session} is not a session of the New York Stock Exchange",
            f"give a trading day between {CALENDAR_FIRST} and {CALENDAR_LAST}",
        )
    return i


def is_session(day: date) -> bool:
    days = _calendar().days
    i = bisect_left(days, day)
    return i < len(days) and days[i] == day


def sessions_between(first: date, last: date) -> list[date]:
    """Sessions from `first` to `last`, both inclusive; either may be a day without trading."""
    days = _calendar().days
    return list(days[bisect_left(days, first) : bisect_right(days, last)])


def offset(session: date, count: int) -> date:
    """The session `count` sessions after (negative: before) `session`."""
    i = _position(session) + count
    if not 0 <= i < len(_calendar().days):
        raise UsageError(f"{session} {count:+d} sessions leaves the calendar", "widen the pinned calendar range")
    return _calendar().days[i]


def next_session(session: date) -> date:
    return offset(session, 1)


def previous_session(session: date) -> date:
    return offset(session, -1)


def at_et(day: date, clock: time) -> datetime:
    """A New York wall-clock time of a date, as UTC."""
    return datetime.combine(day, clock, NEW_YORK).astimezone(UTC)


def open_utc(session: date) -> datetime:
    return at_et(_calendar().days[_position(session)], OPEN_ET)


def close_utc(session: date) -> datetime:
    return at_et(_calendar().days[_position(session)], HALF_DAY_CLOSE_ET if is_half_day(session) else CLOSE_ET)


def is_half_day(session: date) -> bool:
    return session in _calendar().half_days


def decision_time(session: date) -> datetime:
    """D(t): 09:00 New York on the session after t. Every number of session t uses only what was known by then."""
    return at_et(next_session(session), DECISION_TIME_ET)


def actionable_at(session: date) -> datetime:
    """When a signal of `session` can first be acted on: D(t), but not before the vendor has published its files."""
    published = at_et(session + timedelta(days=1), PUBLICATION_TIME_ET)
    return max(decision_time(session), published)


def last_actionable(moment: datetime, count: int) -> list[date]:
    """The newest sessions whose `actionable_at` has passed, oldest first; fewer at the ends of the calendar."""
    recent = sessions_between(moment.date() - timedelta(days=14 + 2 * count), moment.date())
    return [session for session in recent if actionable_at(session) <= moment][-count:]


def open_interest_known_at(session: date) -> datetime:
    """Open interest of a session's close is published 06:30 New York on the next session."""
    return at_et(next_session(session), OPEN_INTEREST_TIME_ET)
