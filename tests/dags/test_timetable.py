"""The timetable of sessions against the calendar: what is due when, what is caught up, what a backfill makes."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from airflow.exceptions import InvalidPartitionKeyError
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization
from airflow.timetables.base import TimeRestriction
from hypothesis import given
from hypothesis import strategies as st
from session_timetable import CATCH_UP, SessionTimetable, due_at, newest_due, session_of

from flowlake.core.sessions import actionable_at, is_session, offset, sessions_between

NEW_YORK = ZoneInfo("America/New_York")
ANY_TIME = TimeRestriction(earliest=None, latest=None, catchup=False)
DAYS = st.dates(date(2003, 1, 2), date(2030, 12, 31))


def et(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=NEW_YORK)


@pytest.mark.parametrize(
    ("session", "due_et", "due_utc"),
    [
        ("2024-02-26", "2024-02-27 11:15", "2024-02-27 16:15"),  # a Monday, on Tuesday after the vendor's publication
        ("2024-03-01", "2024-03-04 09:15", "2024-03-04 14:15"),  # a Friday, on Monday after the decision time
        ("2023-11-21", "2023-11-22 11:15", "2023-11-22 16:15"),
        ("2023-11-22", "2023-11-24 09:15", "2023-11-24 14:15"),  # Thanksgiving follows
        ("2023-11-24", "2023-11-27 09:15", "2023-11-27 14:15"),  # a half day, then a weekend
        ("2024-03-08", "2024-03-11 09:15", "2024-03-11 13:15"),  # the clock is put forward between
        ("2024-03-11", "2024-03-12 11:15", "2024-03-12 15:15"),
        ("2024-11-01", "2024-11-04 09:15", "2024-11-04 14:15"),  # and back
        ("2024-10-31", "2024-11-01 11:15", "2024-11-01 15:15"),
        ("2024-12-24", "2024-12-26 09:15", "2024-12-26 14:15"),
    ],
)
def test_when_a_session_is_due(session: str, due_et: str, due_utc: str) -> None:
    due = due_at(date.fromisoformat(session))
    assert due == et(due_et)
    assert due == datetime.fromisoformat(due_utc).replace(tzinfo=UTC)


@given(DAYS.filter(is_session))
def test_nothing_is_due_before_all_that_it_may_use_is_known(session: date) -> None:
    assert timedelta(0) < due_at(session) - actionable_at(session) <= timedelta(minutes=30)
    assert newest_due(due_at(session)) == session
    assert newest_due(due_at(session) - timedelta(seconds=1)) == offset(session, -1)


def nights(timetable: SessionTimetable, previous: date | None, now: datetime) -> list[date]:
    """The sessions that run one after the other until the next one is not due yet."""
    found: list[date] = []
    while (session := timetable.next_session(previous, now)) is not None and due_at(session) <= now:
        found.append(session)
        previous = session
    return found


@given(DAYS, st.integers(0, 60), st.one_of(st.none(), DAYS))
def test_stepping_visits_exactly_the_sessions_between_the_bounds_each_once(first: date, length: int, previous: date | None) -> None:
    last = first + timedelta(days=length)
    now = datetime(2031, 6, 1, tzinfo=UTC)
    start = max(first, previous + timedelta(days=1)) if previous else first
    assert nights(SessionTimetable(str(first), str(last)), previous, now) == sessions_between(start, last)


@given(DAYS.filter(is_session), st.integers(0, 40))
def test_after_any_downtime_exactly_the_missed_sessions_run_and_at_most_ten(newest: date, missed: int) -> None:
    now = due_at(newest) + timedelta(minutes=1)
    previous = offset(newest, -missed)
    assert nights(SessionTimetable(), previous, now) == [offset(newest, -n) for n in reversed(range(min(missed, CATCH_UP)))]


def test_two_days_down() -> None:
    now = et("2023-11-30 12:00")
    assert nights(SessionTimetable(), date(2023, 11, 24), now) == [date(2023, 11, 27), date(2023, 11, 28), date(2023, 11, 29)]
    assert SessionTimetable().next_session(date(2023, 11, 29), now) == date(2023, 11, 30), "the next one waits for its time"


def test_the_first_night_of_a_new_scheduler_is_the_newest_session_alone() -> None:
    assert nights(SessionTimetable(), None, et("2023-11-25 12:00")) == [date(2023, 11, 22)]
    assert nights(SessionTimetable(), None, et("2023-11-27 09:15")) == [date(2023, 11, 24)]


def test_bounds() -> None:
    now = et("2024-03-01 12:00")
    bounded = SessionTimetable("2023-11-22", "2023-11-27")
    assert nights(bounded, None, now) == [date(2023, 11, 22), date(2023, 11, 24), date(2023, 11, 27)]
    assert bounded.next_session(date(2023, 11, 27), now) is None
    assert nights(SessionTimetable("2023-11-23", "2023-11-26"), None, now) == [date(2023, 11, 24)], (
        "bounds may be days without trading"
    )
    assert SessionTimetable("2023-11-25", "2023-11-26").next_session(None, now) is None


def test_what_airflow_is_told_about_the_next_run() -> None:
    timetable = SessionTimetable("2023-11-22", "2023-11-24")
    info = timetable.next_dagrun_info_v2(last_dagrun_info=None, restriction=ANY_TIME)
    assert info is not None
    assert (info.partition_key, info.run_after, info.logical_date) == ("2023-11-22", et("2023-11-24 09:15"), None)
    assert info.partition_date == et("2023-11-22 00:00")
    following = timetable.next_dagrun_info_v2(last_dagrun_info=info, restriction=ANY_TIME)
    assert following is not None
    assert following.partition_key == "2023-11-24"
    assert timetable.next_dagrun_info_v2(last_dagrun_info=following, restriction=ANY_TIME) is None
    ended = TimeRestriction(earliest=None, latest=info.run_after - timedelta(seconds=1), catchup=False)
    assert timetable.next_dagrun_info_v2(last_dagrun_info=None, restriction=ended) is None


@given(DAYS, st.integers(-3, 40))
def test_a_backfill_makes_exactly_the_sessions_of_its_dates_both_inclusive(first: date, length: int) -> None:
    last = first + timedelta(days=length)
    timetable = SessionTimetable("2024-01-02", "2024-01-03")  # bounds are for the nights, not for what a person asks for
    infos = list(
        timetable.iter_partition_dagrun_infos(
            earliest=timetable.localize_partition_datetime(datetime(first.year, first.month, first.day, tzinfo=UTC)),
            latest=timetable.localize_partition_datetime(datetime(last.year, last.month, last.day, tzinfo=UTC)),
        )
    )
    assert [info.partition_key for info in infos] == [str(day) for day in sessions_between(first, last)]
    assert [session_of(info.partition_date) for info in infos if info.partition_date] == sessions_between(first, last)


@pytest.mark.parametrize("days", [("2023-11-22", "2023-11-24"), ("2023-11-23", "2023-11-26"), ("2024-03-08", "2024-03-11")])
def test_both_end_dates_of_a_backfill_count(days: tuple[str, str]) -> None:
    timetable = SessionTimetable()
    first, last = (timetable.localize_partition_datetime(datetime.fromisoformat(f"{day}T00:00:00+00:00")) for day in days)
    made = [info.partition_key for info in timetable.iter_partition_dagrun_infos(earliest=first, latest=last)]
    assert made == [str(day) for day in sessions_between(*map(date.fromisoformat, days))]


BAD_KEYS = (
    "2023-11-23",
    "2023-11-25",
    "2023-13-01",
    "1997-12-31",
    "2036-01-02",
    "20231122",
    "2023-W47-3",
    " 2023-11-22",
    "2023-11-22T00:00:00",
    "'; DROP TABLE x; --",
    "../../x",
    "yesterday",
)


@pytest.mark.parametrize("key", BAD_KEYS)
def test_a_key_that_is_no_session_is_refused(key: str) -> None:
    with pytest.raises(InvalidPartitionKeyError, match="YYYY-MM-DD"):
        SessionTimetable().resolve_partition_date(key)


def test_a_key_is_midnight_in_new_york() -> None:
    assert SessionTimetable().resolve_partition_date("2024-07-05") == et("2024-07-05 00:00")
    assert SessionTimetable().resolve_partition_date(None) is None


@pytest.mark.parametrize("bounds", [("", ""), ("2023-11-22", ""), ("", "2023-11-27"), ("2023-11-22", "2023-11-27")])
def test_the_scheduler_reads_the_timetable_that_the_file_wrote(bounds: tuple[str, str]) -> None:
    timetable = SessionTimetable(*bounds)
    again = SessionTimetable.deserialize(timetable.serialize())
    assert isinstance(again, SessionTimetable)
    assert (again.first, again.last) == (timetable.first, timetable.last)
    with DAG("round_trip", schedule=timetable) as dag:
        read: Any = DagSerialization.from_dict(DagSerialization.to_dict(dag)).timetable
    assert (type(read).__name__, read.serialize()) == ("SessionTimetable", timetable.serialize())
    assert read.partitioned


def test_a_run_says_its_session() -> None:
    from airflow.utils.types import DagRunType
    from flowlake_commands import session_in

    named = SessionTimetable().generate_run_id(
        run_type=DagRunType.BACKFILL_JOB, run_after=et("2023-11-24 09:15"), data_interval=None, partition_key="2023-11-22"
    )
    assert named.startswith("backfill__2023-11-22__")
    assert session_in(named) == date(2023, 11, 22)
