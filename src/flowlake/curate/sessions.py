"""The `sessions` table: one row, from the calendar alone."""

from __future__ import annotations

from datetime import date

import polars as pl

from flowlake.core import sessions as calendar
from flowlake.datasets.model import UTC_NS, Inputs, Output


def sessions(inputs: Inputs, session: date) -> Output:
    """Reads nothing but the calendar."""
    row = pl.DataFrame(
        {
            "calendar": ["XNYS"],
            "open_utc": [calendar.open_utc(session)],
            "close_utc": [calendar.close_utc(session)],
            "is_half_day": [calendar.is_half_day(session)],
            "previous_session": [calendar.previous_session(session)],
            "next_session": [calendar.next_session(session)],
            "decision_utc": [calendar.decision_time(session)],
            "actionable_utc": [calendar.actionable_at(session)],
        }
    )
    return Output({"sessions": row.with_columns(pl.col(pl.Datetime).cast(UTC_NS))})
