"""A timetable of exchange sessions: one partition per session, due once everything that it may use has been published."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pendulum
from airflow.exceptions import InvalidPartitionKeyError
from airflow.plugins_manager import AirflowPlugin
from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction, Timetable
from airflow.utils.strings import get_random_string

from flowlake.core import sessions
from flowlake.core.errors import UsageError

MARGIN = timedelta(minutes=15)
"""A vendor's files come about a clock time, not at it."""
CATCH_UP = 10
"""Sessions that are made up for by themselves after the scheduler was down; longer gaps are a backfill, which a person decides."""


class SessionTimetable(Timetable):
    """Run once per session of the New York Stock Exchange, keyed `YYYY-MM-DD`.

    A session's run is due `MARGIN` after `actionable_at`: 09:00 New York on the next session, when its last open interest is known,
    and not before 11:00 on the next calendar day, when the vendor publishes. A Friday is therefore due on Monday morning.
    `first` and `last` (YYYY-MM-DD, or empty) bound what is scheduled; a backfill may ask for any session.
    """

    partitioned = True
    run_ordering = ("partition_date", "run_after")

    def __init__(self, first: str = "", last: str = "") -> None:
        self.first = _date(first)
        self.last = _date(last)

    @property
    def summary(self) -> str:
        return "each session, once published"

    @property
    def description(self) -> str:
        return "Each session of the New York Stock Exchange, after 09:00 of the next one and the vendor's publication"

    def serialize(self) -> dict[str, Any]:
        return {"first": str(self.first or ""), "last": str(self.last or "")}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> Timetable:
        return cls(data["first"], data["last"])

    def next_dagrun_info_v2(self, *, last_dagrun_info: DagRunInfo | None, restriction: TimeRestriction) -> DagRunInfo | None:
        previous = last_dagrun_info and last_dagrun_info.partition_date
        session = self.next_session(previous and session_of(previous), datetime.now(UTC))
        if session is None or (restriction.latest is not None and restriction.latest < due_at(session)):
            return None
        return _info(session)

    def next_session(self, previous: date | None, now: datetime) -> date | None:
        """The session that is to run after `previous`, or None when the last one has run."""
        newest = newest_due(now)
        earliest = self.first or sessions.offset(newest, -(CATCH_UP - 1 if previous else 0))
        following = max(earliest, previous + timedelta(days=1)) if previous else earliest
        session = _at_or_after(following)
        return None if session is None or (self.last is not None and session > self.last) else session

    def iter_partition_dagrun_infos(self, *, earliest: datetime, latest: datetime) -> Iterable[DagRunInfo]:
        """What a backfill makes: the sessions of the given dates, both inclusive."""
        return [_info(session) for session in sessions.sessions_between(earliest.date(), latest.date())]

    def localize_partition_datetime(self, dt: datetime) -> Any:
        return pendulum.instance(sessions.at_et(dt.date(), dt.time()))

    def infer_manual_data_interval(self, *, run_after: Any) -> DataInterval:
        return DataInterval.exact(run_after)

    def generate_run_id(self, *, run_type: Any, run_after: Any, data_interval: DataInterval | None, **extra: Any) -> str:
        """`scheduled__2024-01-02__Ab3...`: the session is part of the id, so that a run says what it is about."""
        key = extra.get("partition_key") or run_after.isoformat()
        made: str = run_type.generate_run_id(suffix=f"{key}__{get_random_string()}")
        return made

    def _decode_partition_date(self, partition_key: str) -> datetime:
        try:
            session = sessions.offset(date.fromisoformat(partition_key), 0)
        except (ValueError, UsageError):
            session = None
        # Runs are ordered by their keys: 20240102, which is a date too, would come after every session.
        if session is None or str(session) != partition_key:
            raise InvalidPartitionKeyError(f"{partition_key!r} is no session: give a trading day as YYYY-MM-DD")
        return _midnight(session)


def session_of(partition_date: datetime) -> date:
    return partition_date.astimezone(sessions.NEW_YORK).date()


def due_at(session: date) -> datetime:
    return sessions.actionable_at(session) + MARGIN


def newest_due(now: datetime) -> date:
    return sessions.last_actionable(now - MARGIN, 1)[0]


def _at_or_after(day: date) -> date | None:
    found = sessions.sessions_between(day, day + timedelta(days=14))
    return found[0] if found else None


def _info(session: date) -> DagRunInfo:
    return DagRunInfo(
        run_after=pendulum.instance(due_at(session)),
        data_interval=None,
        partition_date=pendulum.instance(_midnight(session)),
        partition_key=str(session),
    )


def _midnight(session: date) -> datetime:
    return sessions.at_et(session, datetime.min.time())


def _date(text: str) -> date | None:
    return date.fromisoformat(text) if text else None


class SessionTimetablePlugin(AirflowPlugin):
    name = "flowlake_sessions"
    timetables = (SessionTimetable,)
