"""Vendor timestamps (integer nanoseconds since 1970, UTC) against the New York date of a session."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta

import polars as pl

from flowlake.core.sessions import at_et


def nanoseconds(moment: datetime) -> int:
    """Nanoseconds since 1970 of a moment that has no fraction of a second."""
    return int(moment.timestamp()) * 10**9


def as_utc(column: str | pl.Expr) -> pl.Expr:
    """Integers of nanoseconds since 1970, a column or an expression, as UTC datetimes."""
    return pl.from_epoch(column, time_unit="ns").dt.replace_time_zone("UTC")


def on_session_date(column: str, session: date) -> pl.Expr:
    """Whether the moment lies on the session's New York date."""
    first = nanoseconds(at_et(session, time(0, 0)))
    after = nanoseconds(at_et(session + timedelta(days=1), time(0, 0)))
    return pl.col(column).is_between(first, after, closed="left")
