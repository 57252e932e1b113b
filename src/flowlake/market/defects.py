"""What can be wrong with vendor files. Defects change the files of one session and never the truth."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, timedelta

import polars as pl

from flowlake.core import sessions as calendar
from flowlake.core.errors import UsageError
from flowlake.market.clock import NS_PER_MINUTE, SessionHours
from flowlake.market.render import as_text, compressed, csv_bytes
from flowlake.market.spec import Defect, VendorFile, generator, session_key
from flowlake.market.universe import Underlying

_TIME = ("sip_timestamp", "window_start")
_PRICE = ("price", "open", "ask_price")
_SIZE = ("size", "volume", "ask_size", "open_interest")
_FAR_OFF_NS = "4102444800000000000"


@dataclass(slots=True)
class SessionFiles:
    """The files of one session: `first` as the vendor publishes them, `second` the versions that replace some later."""

    first: list[VendorFile] = field(default_factory=list)
    second: list[VendorFile] = field(default_factory=list)


def session_files(
    seed: int,
    members: list[Underlying],
    hours: SessionHours,
    tables: dict[str, pl.DataFrame],
    before: dict[str, pl.DataFrame] | None,
    defects: tuple[Defect, ...],
) -> SessionFiles:
    """Render a session's tables with its defects applied in the order in which they are given."""
    files = SessionFiles()
    todays = [(i, d) for i, d in enumerate(defects) if d.session == hours.index]
    for dataset, table in tables.items():
        mine = [(i, d) for i, d in todays if d.dataset in (dataset, None)]
        _render(files, seed, members, hours, dataset, table, (before or tables)[dataset], mine)
    absent = {d.dataset for _, d in todays} - set(tables) - {None}
    if absent:
        raise UsageError(
            f"session {hours.index} has a defect in {', '.join(sorted(map(str, absent)))}, which this market does not write",
            "include that dataset in the market, or drop the defect",
        )
    return files


def _render(
    files: SessionFiles,
    seed: int,
    members: list[Underlying],
    hours: SessionHours,
    dataset: str,
    table: pl.DataFrame,
    before: pl.DataFrame,
    defects: list[tuple[int, Defect]],
) -> None:
    kinds = {d.kind for _, d in defects}
    key = session_key(dataset, hours.day)
    whole = table
    for _, defect in defects:
        table = _changed(table, before, members, hours, defect)
    text = as_text(table)
    for position, defect in defects:
        if defect.kind == "bad_rows":
            text = _with_bad_rows(text, seed, position, defect)
    body = compressed(csv_bytes(text))
    for _, defect in defects:
        if defect.kind == "truncated_gzip":
            body = body[: int(len(body) * (1.0 - defect.fraction))]
    if "missing_session" not in kinds:
        files.first.append(VendorFile(key, body))
    if "holiday_file" in kinds:
        files.first.append(VendorFile(session_key(dataset, _next_closed_day(hours.day)), body))
    if "republished_file" in kinds:
        files.second.append(VendorFile(key, compressed(csv_bytes(as_text(whole)))))


def _changed(
    table: pl.DataFrame, before: pl.DataFrame, members: list[Underlying], hours: SessionHours, defect: Defect
) -> pl.DataFrame:
    match defect.kind:
        case "truncated_tape":
            of_underlying = _is_of(members, defect.underlying) if defect.underlying else pl.lit(True)
            return table.filter(~(of_underlying & (_time(table) >= _minute(hours, defect.start_minute))))
        case "missing_minutes":
            start = _minute(hours, defect.start_minute)
            end = _minute(hours, defect.start_minute + defect.minutes)
            return table.filter(~_time(table).is_between(start, end, closed="left"))
        case "doubled_file":
            return pl.concat([table, table])
        case "stale_repeat":
            return before
        case "republished_file":
            return table.head(table.height - int(table.height * defect.fraction))
        case "missing_underlying":
            return table.filter(~_is_of(members, defect.underlying or members[0].name))
        case _:
            return table


def _time(table: pl.DataFrame) -> pl.Expr:
    return pl.col(next(name for name in _TIME if name in table.columns))


def _minute(hours: SessionHours, minute: int) -> int:
    return hours.open_ns + minute * NS_PER_MINUTE


def _is_of(members: list[Underlying], name: str) -> pl.Expr:
    """Rows of an underlying: its stock ticker, or option tickers of its roots."""
    member = next((m for m in members if m.name == name), None)
    if member is None:
        raise UsageError(f"the market has no underlying {name}", f"it has {', '.join(m.name for m in members)}")
    roots = "|".join(r.root for r in member.roots)
    return pl.col("ticker").str.contains(rf"^(?:{name}|O:(?:{roots})\d{{6}}[CP]\d{{8}})$")


def _next_closed_day(day: date) -> date:
    after = day + timedelta(days=1)
    while calendar.is_session(after):
        after += timedelta(days=1)
    return after


def _with_bad_rows(text: pl.DataFrame, seed: int, position: int, defect: Defect) -> pl.DataFrame:
    """Spoil some rows, each in one of five ways in turn."""
    rng = generator(seed, "defect", defect.session, position)
    count = min(defect.rows, text.height)
    rows = rng.choice(text.height, size=count, replace=False).tolist()
    spoilt: dict[str, list[tuple[int, str | None]]] = {}
    ways = [
        *((name, "-1.25") for name in _PRICE if name in text.columns),
        *((name, "0" if name != "open_interest" else "-3") for name in _SIZE if name in text.columns),
        ("ticker", "O:NOT A TICKER"),
        *((name, None) for name in _TIME if name in text.columns),
        *((name, _FAR_OFF_NS) for name in _TIME if name in text.columns),
    ]
    for place, row in enumerate(rows):
        name, value = ways[place % len(ways)]
        spoilt.setdefault(name, []).append((row, value))
    columns = []
    for name, changes in spoilt.items():
        values = text[name].to_list()
        for row, value in changes:
            values[row] = value
        columns.append(pl.Series(name, values, dtype=pl.String))
    return text.with_columns(columns)
