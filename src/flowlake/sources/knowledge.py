"""When a row of reference data became known, and what of a reference table was known at a session's decision time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import polars as pl

from flowlake.core import sessions
from flowlake.datasets.model import KNOWN_AT, UTC_NS
from flowlake.datasets.raw import CONTRACT_ROOTS_FILE, LEAN_INTEREST_RATE, RATES_FILE
from flowlake.datasets.raw_vendors import LEAN_OPEN_INTEREST_DAILY, OPTIONSDX_EOD


def midnight_et(day_column: str) -> pl.Expr:
    """00:00 New York of a date column, as UTC nanoseconds."""
    return pl.col(day_column).cast(pl.Datetime("ns")).dt.replace_time_zone("America/New_York").dt.convert_time_zone("UTC")


def next_session_after(frame: pl.DataFrame, day_column: str, name: str) -> pl.DataFrame:
    """`frame` with `name`: the first session after the date in `day_column`. Rows that the calendar does not reach are left out:
    before its first day, or with no session after them; no partition of the lake can lie there."""
    calendar = sessions.sessions_between(sessions.CALENDAR_FIRST, sessions.CALENDAR_LAST)
    after = pl.DataFrame({name: calendar}, schema={name: pl.Date()})
    inside = frame.filter(pl.col(day_column).is_between(calendar[0], calendar[-1], closed="left"))
    ordered = inside.with_row_index("_order").sort(day_column, "_order")
    joined = ordered.join_asof(
        after, left_on=day_column, right_on=name, strategy="forward", allow_exact_matches=False, coalesce=False
    )
    return joined.sort("_order").drop("_order")


def next_session_at_nine(frame: pl.DataFrame, day_column: str) -> pl.DataFrame:
    """`frame` with `known_at_utc`: 09:00 New York of the first session after `day_column`; rows as `next_session_after`."""
    following = next_session_after(frame, day_column, "_next")
    days = following.get_column("_next").unique().sort()
    moments = pl.DataFrame(
        {"_next": days, KNOWN_AT: [sessions.at_et(day, sessions.DECISION_TIME_ET) for day in days]},
        schema={"_next": pl.Date(), KNOWN_AT: UTC_NS},
    )
    return following.join(moments, on="_next", how="left", maintain_order="left").drop("_next")


def as_known(dataset_name: str, frame: pl.DataFrame, session: date) -> pl.DataFrame:
    """Rows of a reference table that were known at D(`session`), for the partition of `session`.

    Of tables whose files hold many sessions only the rows of this one; of `rates_file` only the curve of the newest date, of
    `lean_interest_rate` only the rate in force. The end of a contract root is hidden until it has come: before, the root was simply
    valid.
    """
    decided = sessions.decision_time(session)
    known = frame.filter(pl.col(KNOWN_AT) <= pl.lit(decided, dtype=UTC_NS))
    if dataset_name in _OF_SESSION:
        return known.filter(pl.col(_OF_SESSION[dataset_name]) == session)
    narrow = _NARROW.get(dataset_name)
    return known if narrow is None else narrow(known, decided.astimezone(sessions.NEW_YORK).date())


def _newest(known: pl.DataFrame, today: date) -> pl.DataFrame:
    return known.filter(pl.col("date") == pl.col("date").max())


def _hide_coming_ends(known: pl.DataFrame, today: date) -> pl.DataFrame:
    return known.with_columns(pl.when(pl.col("valid_to") < today).then(pl.col("valid_to")).alias("valid_to"))


_OF_SESSION = {OPTIONSDX_EOD.name: "quote_date", LEAN_OPEN_INTEREST_DAILY.name: "date"}
"""Raw dataset -> the column with the session that a row belongs to."""
_NARROW: dict[str, Callable[[pl.DataFrame, date], pl.DataFrame]] = {
    RATES_FILE.name: _newest,
    LEAN_INTEREST_RATE.name: _newest,
    CONTRACT_ROOTS_FILE.name: _hide_coming_ends,
}
