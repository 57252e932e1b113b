"""Lean's minute archives of options and indexes: one zip per root and session, one member per contract.

Members have no header; their name carries root, right, strike (x 10,000) and expiry. Times are milliseconds since midnight, in New
York for options and in Chicago for an index. Option prices count ten-thousandths of a dollar, an index counts points. A side that
nobody quotes is blank. Open interest is stamped about 06:30: it is that of the close before.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl

from flowlake.core.errors import BadInputError
from flowlake.core.sessions import NEW_YORK
from flowlake.datasets.model import KNOWN_AT, Column
from flowlake.datasets.raw_vendors import (
    LEAN_INDEX_MINUTE,
    LEAN_OPEN_INTEREST,
    LEAN_OPEN_INTEREST_DAILY,
    LEAN_OPTION_MINUTE,
    LEAN_OPTION_QUOTES,
)
from flowlake.sources.archive import members
from flowlake.sources.contracts import MILLISECOND, ticker
from flowlake.sources.knowledge import midnight_et
from flowlake.sources.table import as_declared, read_bare_columns
from flowlake.sources.text import plain_text

CHICAGO = ZoneInfo("America/Chicago")
PRICE_SCALE = 10_000
_PRICE_DECIMALS = 4
"""Rounding brings back what division by a reciprocal, as polars does it, leaves off."""
_DAY_MS = 86_400_000
_CURE_FILE = "take the archive from its source again"
_OPTION = re.compile(
    r"(?P<date>\d{8})_(?P<root>[A-Za-z0-9.]+)_minute_(?P<kind>trade|quote|openinterest)_(?:american|european)"
    r"_(?P<right>call|put)_(?P<strike>\d{1,12})_(?P<expiry>\d{8})\.csv"
)
_DAILY = re.compile(
    r"(?P<root>[A-Za-z0-9.]+)_(?P<kind>openinterest)_(?:american|european)_(?P<right>call|put)_(?P<strike>\d{1,12})"
    r"_(?P<expiry>\d{8})\.csv"
)
OPEN_INTEREST_AFTER_MIDNIGHT = timedelta(hours=6, minutes=30)
_INDEX = re.compile(r"(?P<date>\d{8})_(?P<root>[A-Za-z0-9.]+)_minute_trade\.csv")
_MS = Column("ms", pl.Int64(), "Milliseconds since midnight.")


def _numbers(*names: str, nullable: bool = False) -> tuple[Column, ...]:
    return tuple(Column(name, pl.Float64(), "A number.", nullable=nullable) for name in names)


_BAR = _numbers("open", "high", "low", "close")
_SIDES = tuple(
    _numbers(*(f"{side}_{part}" for part in ("open", "high", "low", "close", "size")), nullable=True) for side in ("bid", "ask")
)


@dataclass(frozen=True)
class _Member:
    name: str
    text: bytes
    fields: re.Match[str]


def option_minute(key: str, body: bytes, file_date: date | None) -> pl.DataFrame:
    """Raw table `lean_option_minute` of one archive of trade bars.

    Raises BadInputError (see `archive.members`, `table.read_bare_columns`), `wrong_member`, `wrong_date`, `bad_date`, `bad_time`.
    """
    frame = _options(key, body, file_date, "trade", (*_BAR, *_numbers("volume")), [c.name for c in _BAR], "window_start")
    return as_declared(frame, LEAN_OPTION_MINUTE)


def option_quotes(key: str, body: bytes, file_date: date | None) -> pl.DataFrame:
    """Raw table `lean_option_quotes` of one archive of quote bars; errors as `option_minute`."""
    columns = [*_SIDES[0], *_SIDES[1]]
    prices = [c.name for c in columns if not c.name.endswith("_size")]
    frame = _options(key, body, file_date, "quote", columns, prices, "window_start")
    sizes = [pl.when(pl.col(f"{side}_close").is_not_null()).then(f"{side}_size").alias(f"{side}_size") for side in ("bid", "ask")]
    return as_declared(frame.with_columns(sizes), LEAN_OPTION_QUOTES)


def open_interest(key: str, body: bytes, file_date: date | None) -> pl.DataFrame:
    """Raw table `lean_open_interest` of one archive; errors as `option_minute`."""
    return as_declared(
        _options(key, body, file_date, "openinterest", _numbers("open_interest"), (), "timestamp"), LEAN_OPEN_INTEREST
    )


def open_interest_of_a_year(key: str, body: bytes, file_date: date | None) -> pl.DataFrame:
    """The whole of `lean_open_interest_daily` of one archive, with `known_at_utc`; errors as `option_minute`."""
    found = _members(key, body, file_date, _DAILY, "openinterest")
    frame, origin = _table(key, found, (Column("day", pl.String(), "Date and 00:00."), *_numbers("open_interest")))
    days = frame["day"].str.strip_chars().str.to_date("%Y%m%d 00:00", strict=False)
    if days.null_count():
        at = int(days.is_null().arg_true()[0])
        place = f"{key}, member {found[origin[at]].name}, row {frame['row'][at]}"
        raise BadInputError(place, "bad_date", f"{frame['day'][at][:40]!r} is not of the form 'YYYYMMDD 00:00'", _CURE_FILE)
    names = pl.Series("member", [m.name for m in found]).gather(origin)
    table = frame.with_columns(days.alias("date"), names, _tickers(key, found).gather(origin))
    known = (midnight_et("date") + OPEN_INTEREST_AFTER_MIDNIGHT).alias(KNOWN_AT)
    return table.with_columns(known).select(*LEAN_OPEN_INTEREST_DAILY.column_names, KNOWN_AT)


def index_minute(key: str, body: bytes, file_date: date | None) -> pl.DataFrame:
    """Raw table `lean_index_minute` of one archive, which holds one index; errors as `option_minute`."""
    found = _members(key, body, file_date, _INDEX, "trade")
    frame, origin = _table(key, found, (_MS, *_BAR, *_numbers("volume", nullable=True)))
    roots = pl.Series([m.fields["root"].upper() for m in found], dtype=pl.String)
    timed = _timed(key, found, frame, origin, "window_start", CHICAGO)
    return as_declared(timed.with_columns(roots.gather(origin).alias("ticker")), LEAN_INDEX_MINUTE)


def _options(
    key: str, body: bytes, file_date: date | None, kind: str, columns: Sequence[Column], prices: Sequence[str], clock: str
) -> pl.DataFrame:
    found = _members(key, body, file_date, _OPTION, kind)
    frame, origin = _table(key, found, (_MS, *columns))
    timed = _timed(key, found, frame, origin, clock, NEW_YORK).with_columns(
        (pl.col(prices) / PRICE_SCALE).round(_PRICE_DECIMALS) if prices else []
    )
    return timed.with_columns(
        _tickers(key, found).gather(origin), pl.Series([m.name for m in found]).gather(origin).alias("member")
    )


def _members(key: str, body: bytes, file_date: date | None, form: re.Pattern[str], kind: str) -> list[_Member]:
    """The members that hold a row, in order of their names."""
    found = []
    for name, raw in members(key, body):
        fields = form.fullmatch(name.rsplit("/", 1)[-1])
        if fields is None or fields.groupdict().get("kind", kind) != kind:
            what = f"member {name} is named as no file of {kind} minutes"
            raise BadInputError(key, "wrong_member", what, "put the archive under the key of its own kind")
        if file_date is not None and fields.groupdict().get("date") != f"{file_date:%Y%m%d}":
            raise BadInputError(
                key, "wrong_date", f"member {name} is not of {file_date}", "put the archive under the key of its date"
            )
        if raw.strip():
            found.append(_Member(name, plain_text(f"{key}, member {name}", raw).rstrip(b"\n") + b"\n", fields))
    if not found:
        raise BadInputError(key, "empty_file", "no member of the archive holds a row", _CURE_FILE)
    return found


def _table(key: str, found: Sequence[_Member], columns: Sequence[Column]) -> tuple[pl.DataFrame, pl.Series]:
    """All members as one table, `row` counted within each, and the position of each row's member.

    A session has thousands of small members: they are read as one text, and each for itself only to say which one is at fault.
    """
    try:
        frame = read_bare_columns(key, b"".join(m.text for m in found), columns)
    except BadInputError:
        for m in found:
            read_bare_columns(f"{key}, member {m.name}", m.text, columns)
        raise
    counts = [m.text.count(b"\n") for m in found]
    origin = pl.Series(np.repeat(np.arange(len(found)), counts))
    rows = np.arange(frame.height) - np.repeat(np.cumsum([0, *counts[:-1]]), counts)
    return frame.with_columns(pl.Series("row", rows)), origin


def _timed(key: str, found: Sequence[_Member], frame: pl.DataFrame, origin: pl.Series, clock: str, zone: ZoneInfo) -> pl.DataFrame:
    wrong = frame.filter(~pl.col("ms").is_between(0, _DAY_MS - 1)).height
    if wrong:
        at = int((~frame["ms"].is_between(0, _DAY_MS - 1)).arg_true()[0])
        place = f"{key}, member {found[origin[at]].name}, row {frame['row'][at]}"
        raise BadInputError(place, "bad_time", f"{frame['ms'][at]} is no time of a day in milliseconds", _CURE_FILE)
    days = {text: _midnight(key, text, zone) for text in sorted({m.fields["date"] for m in found})}
    midnights = pl.Series([days[m.fields["date"]] for m in found], dtype=pl.Int64).gather(origin)
    return frame.with_columns((midnights + frame["ms"] * MILLISECOND).alias(clock))


def _midnight(key: str, text: str, zone: ZoneInfo) -> int:
    return int(datetime.combine(_day(key, text), time(0), zone).timestamp()) * 1_000_000_000


def _tickers(key: str, found: Sequence[_Member]) -> pl.Series:
    fields = pl.DataFrame(
        {
            "root": [m.fields["root"] for m in found],
            "expiry": [_day(key, m.fields["expiry"]) for m in found],
            "right": [m.fields["right"] for m in found],
            "strike": [int(m.fields["strike"]) / PRICE_SCALE for m in found],
        }
    )
    return fields.select(ticker(pl.col("root"), pl.col("expiry"), pl.col("right"), pl.col("strike"))).to_series()


def _day(key: str, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise BadInputError(key, "bad_date", f"a member is named with {text}, which is no date", _CURE_FILE) from error
