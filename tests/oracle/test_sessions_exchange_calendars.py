"""The committed list of closed days and half days against XNYS of exchange_calendars, for every day of the calendar."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import exchange_calendars
import pytest

from flowlake.core import sessions
from flowlake.core.errors import UsageError


def test_every_session_opens_and_closes_as_the_exchange_does() -> None:
    calendar = exchange_calendars.get_calendar("XNYS", start=str(sessions.CALENDAR_FIRST), end=str(sessions.CALENDAR_LAST))
    schedule = calendar.schedule
    days = [stamp.date() for stamp in schedule.index]
    assert sessions.sessions_between(sessions.CALENDAR_FIRST, sessions.CALENDAR_LAST) == days
    assert [sessions.open_utc(day) for day in days] == [stamp.to_pydatetime() for stamp in schedule["open"]]
    assert [sessions.close_utc(day) for day in days] == [stamp.to_pydatetime() for stamp in schedule["close"]]


def test_thanksgiving_week_of_2023() -> None:
    week = sessions.sessions_between(date(2023, 11, 20), date(2023, 11, 27))
    assert [day.day for day in week] == [20, 21, 22, 24, 27]
    assert [day for day in week if sessions.is_half_day(day)] == [date(2023, 11, 24)]
    assert sessions.close_utc(date(2023, 11, 24)) == datetime(2023, 11, 24, 18, tzinfo=UTC)


def test_a_friday_is_decided_on_monday_and_a_monday_on_tuesday_after_publication() -> None:
    et = ZoneInfo("America/New_York")
    assert sessions.actionable_at(date(2024, 3, 1)) == datetime(2024, 3, 4, 9, tzinfo=et)
    assert sessions.actionable_at(date(2024, 3, 4)) == datetime(2024, 3, 5, 11, tzinfo=et)


@pytest.mark.parametrize("day", [date(2023, 11, 23), date(2024, 3, 2), sessions.CALENDAR_LAST + timedelta(days=1)])
def test_a_day_without_trading_is_named(day: date) -> None:
    with pytest.raises(UsageError, match=str(day)):
        sessions.open_utc(day)
