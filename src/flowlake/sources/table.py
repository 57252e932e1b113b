"""The one CSV reader of all formats: columns found by name, typed as declared, refused with the row and the text at fault.

Good files take the typed path of polars, without a Python loop over rows. Only when that path finds something wrong is the file
read once more as text, to name the line, the column and what stands there.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import NoReturn

import polars as pl
from polars.exceptions import PolarsError

from flowlake.core.errors import BadInputError
from flowlake.datasets.model import Column, Dataset
from flowlake.datasets.raw_columns import KEPT_FOR
from flowlake.sources.text import plain_text

ROW = "row"
EXTRA = "extra"
_NOT_IN_FILES = frozenset({ROW, EXTRA, KEPT_FOR.name})
_CURE_FILE = "fetch the object again; if it stays so, ask who publishes the file to correct it"
_CURE_VALUE = "correct the value in the file and publish it again under the same key"


@dataclass(frozen=True)
class _Sheet:
    """A file taken apart: its text, the lines before the data, and the names of its columns in the file's order."""

    key: str
    text: bytes
    lines_before: int
    names: tuple[str, ...]
    extra: tuple[str, ...]


def read_columns(
    key: str,
    body: bytes,
    columns: Sequence[Column],
    *,
    optional: Collection[str] = (),
    lines_above_header: int = 0,
    may_be_empty: bool = False,
) -> pl.DataFrame:
    """Rows of a CSV with a header: `columns`, then `row` (Int64, zero-based) and `extra` (JSON text or null).

    `columns` are found by name whatever the case and the order; those in `optional` may be missing and are then null. A blank
    cell is null. Dates are `YYYY-MM-DD`; moments are ISO 8601 in UTC. Undeclared columns go to `extra`, sorted by name.
    `may_be_empty`: a header alone is a table without rows: a reference file may have nothing to say yet.
    Raises BadInputError with the rules of `sources.text`, and `empty_file`, `wrong_header`, `missing_column`,
    `duplicate_column`, `ragged_row`, `malformed_csv`, `bad_number`, `bad_date`, `bad_time`, `missing_value`.
    """
    wanted = tuple(column for column in columns if column.name not in _NOT_IN_FILES)
    text = plain_text(key, body)
    data = _end_of_line(text, lines_above_header + 1)
    if data == len(text) and not may_be_empty:
        raise BadInputError(key, "empty_file", "the file has no data row below its header", _CURE_FILE)
    header = text[_end_of_line(text, lines_above_header) : data].decode("utf-8").rstrip("\n")
    names = _column_names(key, header, wanted, optional)
    declared = {column.name for column in wanted}
    extra = tuple(sorted(name for name in names if name not in declared))
    return _read(_Sheet(key, text, lines_above_header + 1, names, extra), wanted)


def read_bare_columns(key: str, body: bytes, columns: Sequence[Column]) -> pl.DataFrame:
    """Rows of a CSV without a header whose columns stand in the order of `columns`; otherwise as `read_columns`."""
    return _read(_Sheet(key, plain_text(key, body), 0, tuple(column.name for column in columns), ()), tuple(columns))


def as_declared(frame: pl.DataFrame, dataset: Dataset) -> pl.DataFrame:
    """The columns that `dataset` declares, in its order, without `known_at_utc`, `session` and what no file has."""
    return frame.select(pl.col(column.name).cast(column.dtype) for column in dataset.columns if column != KEPT_FOR)


def _end_of_line(text: bytes, count: int) -> int:
    """Where the line after the first `count` lines begins; the length of the text where there is none."""
    position = 0
    for _ in range(count):
        position = text.find(b"\n", position) + 1
        if position == 0:
            return len(text)
    return position


def _column_names(key: str, header: str, wanted: Sequence[Column], optional: Collection[str]) -> tuple[str, ...]:
    """Names in the file's order: declared ones as declared, others as the vendor spells them."""
    try:
        spelled = [name.strip() for name in next(csv.reader([header]), [])]
    except csv.Error:  # a "cell" of more than 131,072 characters: no text file of ours
        spelled = [header]
    declared = {column.name for column in wanted}
    names = [name.lower() if name.lower() in declared else name for name in spelled]
    missing = [column.name for column in wanted if column.name not in names and column.name not in optional]
    if declared.isdisjoint(names) or "" in names:
        what = f"the header line is {_shortened(header)!r}; expected {', '.join(c.name for c in wanted)}"
        raise BadInputError(key, "wrong_header", what, "check that the file under this key is what the key says")
    if missing:
        what = f"column {', '.join(missing)} is missing; the file has {', '.join(spelled)}"
        raise BadInputError(key, "missing_column", what, "publish the file with every documented column")
    folded = [name.lower() for name in names]
    if twice := sorted({name for name in folded if folded.count(name) > 1}):
        what = f"column {', '.join(twice)} appears more than once"
        raise BadInputError(key, "duplicate_column", what, "publish the file with each column once")
    return tuple(names)


def _read(sheet: _Sheet, wanted: tuple[Column, ...]) -> pl.DataFrame:
    frame = _read_typed(sheet, wanted)
    if frame is None:
        frame = _read_as_text(sheet, wanted)
    dates = [column for column in wanted if column.dtype.is_temporal() and column.name in sheet.names]
    frame = frame.with_columns(_parsed(sheet, frame, column) for column in dates)
    _check_values(sheet, frame, wanted)
    absent = [pl.lit(None, dtype=c.dtype).alias(c.name) for c in wanted if c.name not in sheet.names]
    extra = pl.struct(sheet.extra).struct.json_encode() if sheet.extra else pl.lit(None, dtype=pl.String)
    row = pl.int_range(pl.len(), dtype=pl.Int64)
    return frame.with_columns(*absent, extra.alias(EXTRA), row.alias(ROW)).select(*(c.name for c in wanted), ROW, EXTRA)


def _read_typed(sheet: _Sheet, wanted: tuple[Column, ...]) -> pl.DataFrame | None:
    """The table, or None where something in the file is not as declared."""
    numeric = {column.name: column.dtype for column in wanted if column.dtype.is_numeric()}
    try:
        frame = _scan(sheet, {name: numeric.get(name, pl.String()) for name in sheet.names})
    except PolarsError:
        return None
    return frame if _is_rectangular(sheet, frame) else None


def _scan(sheet: _Sheet, schema: dict[str, pl.DataType]) -> pl.DataFrame:
    frame = pl.read_csv(sheet.text, has_header=False, skip_lines=sheet.lines_before, schema=schema)
    text = [name for name, dtype in schema.items() if dtype == pl.String]
    return frame.with_columns(pl.when(pl.col(name) != "").then(pl.col(name)).alias(name) for name in text)


def _is_rectangular(sheet: _Sheet, frame: pl.DataFrame) -> bool:
    """Whether each line is one row of all columns.

    Polars refuses a line that is too long but fills one that is too short with nulls, so the commas are counted where the last
    column has nulls: those between the cells, plus those inside quoted cells.
    """
    lines = sheet.text.count(b"\n") + (not sheet.text.endswith(b"\n"))
    if frame.height != lines - sheet.lines_before:
        return False
    if frame.get_column(sheet.names[-1]).null_count() == 0:
        return True
    text = [name for name, dtype in frame.schema.items() if dtype == pl.String]
    inside = frame.select(
        pl.sum_horizontal(pl.lit(0), *(pl.col(n).str.count_matches(",", literal=True).sum() for n in text))
    ).item()
    commas = sheet.text.count(b",", _end_of_line(sheet.text, sheet.lines_before))
    return commas == frame.height * (len(sheet.names) - 1) + int(inside or 0)


def _read_as_text(sheet: _Sheet, wanted: tuple[Column, ...]) -> pl.DataFrame:
    """The table by way of text cells; raises the error that explains what is wrong, and returns only if nothing is."""
    _check_shape(sheet)
    try:
        frame = _scan(sheet, {name: pl.String() for name in sheet.names})
    except PolarsError as error:
        _malformed(sheet, str(error).splitlines()[0])
    if not _is_rectangular(sheet, frame):
        _malformed(sheet, "the quotes do not pair up")
    numeric = [column for column in wanted if column.dtype.is_numeric() and column.name in sheet.names]
    return frame.with_columns(_parsed(sheet, frame, column) for column in numeric)


def _malformed(sheet: _Sheet, why: str) -> NoReturn:
    raise BadInputError(sheet.key, "malformed_csv", f"the file is not well-formed CSV: {why}", _CURE_FILE)


def _check_shape(sheet: _Sheet) -> None:
    for row, (line, cells) in enumerate(_lines(sheet)):
        if len(cells) != len(sheet.names):
            what = f"line {line} has {len(cells)} cells where the header has {len(sheet.names)}"
            raise BadInputError(f"{sheet.key}, row {row}", "ragged_row", what, _CURE_FILE)


def _lines(sheet: _Sheet) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.TextIOWrapper(io.BytesIO(sheet.text), encoding="utf-8", newline=""))
    try:
        for number, cells in enumerate(reader, start=1):
            if number > sheet.lines_before:
                yield number, cells
    except csv.Error as error:
        _malformed(sheet, str(error))


_DATES = (date(1900, 1, 1), date(2199, 12, 31))
"""Nanoseconds in 64 bits reach from 1677 to 2262: a date far outside is a slip of the pen, and would wrap around."""
_KINDS = {
    "number": ("bad_number", "a number"),
    "whole": ("bad_number", "a whole number"),
    "date": ("bad_date", "a date YYYY-MM-DD"),
    "moment": ("bad_time", "a moment in UTC such as 2024-01-31T13:30:00Z"),
}


def _kind(dtype: pl.DataType) -> str:
    if dtype.is_numeric():
        return "whole" if dtype.is_integer() else "number"
    return "date" if dtype == pl.Date else "moment"


def _parsed(sheet: _Sheet, frame: pl.DataFrame, column: Column) -> pl.Series:
    """A text column as its declared type; raises for the first cell that does not fit."""
    kind = _kind(column.dtype)
    text = frame.get_column(column.name).str.strip_chars()
    if kind == "date":
        days = text.str.to_date("%Y-%m-%d", strict=False)
        typed = days.set(~days.is_between(*_DATES), None)
    elif kind == "moment":
        bare = text.str.replace(r"(Z|[+-]00:?00)$", "").str.replace(" ", "T", literal=True)
        moments = bare.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", time_unit="us", strict=False)
        inside = moments.set(~moments.dt.date().is_between(*_DATES), None)
        typed = inside.dt.replace_time_zone("UTC").cast(column.dtype)
    else:
        typed = text.cast(column.dtype, strict=False)
    wrong = (text.is_not_null() & typed.is_null()).arg_true()
    if wrong.len():
        rule, expected = _KINDS[kind]
        _refuse_cell(sheet, int(wrong[0]), column.name, rule, f"{_shortened(str(text[wrong[0]]))!r}, which is not {expected}")
    return typed


def _check_values(sheet: _Sheet, frame: pl.DataFrame, wanted: tuple[Column, ...]) -> None:
    for column in wanted:
        if column.name not in sheet.names:
            continue
        values = frame.get_column(column.name)
        if column.dtype.is_float() and not values.is_finite().all():
            row = int((~values.is_finite()).arg_true()[0])
            _refuse_cell(sheet, row, column.name, "bad_number", f"{values[row]}, which is not a finite number")
        if not column.nullable and values.null_count():
            row = int(values.is_null().arg_true()[0])
            _refuse_cell(sheet, row, column.name, "missing_value", "nothing, and it may not be blank")


def _refuse_cell(sheet: _Sheet, row: int, column: str, rule: str, holds: str) -> NoReturn:
    line = row + 1 + sheet.lines_before
    raise BadInputError(f"{sheet.key}, row {row}", rule, f"line {line}: column {column} holds {holds}", _CURE_VALUE)


def _shortened(text: str, limit: int = 120) -> str:
    return text if len(text) <= limit else text[:limit] + "…"
