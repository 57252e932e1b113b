"""The hours of a market's sessions in Unix nanoseconds, and the calendar facts that listings need."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import cache

from flowlake.core import sessions as calendar

NS_PER_SECOND = 1_000_000_000
NS_PER_MINUTE = 60 * NS_PER_SECOND
NS_PER_YEAR = 365 * 86_400 * NS_PER_SECOND
FULL_SESSION_MINUTES = 390


@dataclass(frozen=True, slots=True)
class SessionHours:
    """One session of the market. Times are Unix nanoseconds, UTC; `midnight_ns` is 00:00 New York."""

    index: int
    day: date
    open_ns: int
    close_ns: int
    midnight_ns: int

    @property
    def minutes(self) -> int:
        return (self.close_ns - self.open_ns) // NS_PER_MINUTE


def unix_ns(moment: datetime) -> int:
    return int(moment.timestamp()) * NS_PER_SECOND


def at_et_ns(day: date, clock: time) -> int:
    return unix_ns(calendar.at_et(day, clock))


def session_hours(first_session: date, index: int) -> SessionHours:
    """The session `index` sessions after the first one."""
    day = calendar.offset(first_session, index)
    return SessionHours(
        index,
        day,
        unix_ns(calendar.open_utc(day)),
        unix_ns(calendar.close_utc(day)),
        at_et_ns(day, time(0, 0)),
    )


@cache
def last_session_until(day: date) -> date:
    """The date itself when it is a session, else the session before: a listed Friday that is a holiday moves back."""
    return calendar.sessions_between(day - timedelta(days=7), day)[-1]


def is_third_friday(day: date) -> bool:
    return day.weekday() == 4 and 15 <= day.day <= 21
