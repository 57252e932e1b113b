"""What a dataset is: grain, typed and documented columns, checks, order, and the moment a row became known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from typing import Literal, Protocol

import polars as pl

from flowlake.core import sessions
from flowlake.datasets.checks import Check, NotNull, Severity, TableCheck, Unique

UTC_NS = pl.Datetime("ns", "UTC")
SESSION = "session"
KNOWN_AT = "known_at_utc"


class Layer(StrEnum):
    RAW = "raw"
    CURATED = "curated"
    DERIVED = "derived"
    LABELS = "labels"
    OPS = "ops"


class Adjust(StrEnum):
    """What a split of `ratio` new shares per old does to a column when an earlier row is read later."""

    PRICE = "price"
    """divided by the ratio: prices and strikes per share"""
    SHARES = "shares"
    """multiplied by the ratio: shares of the underlying"""
    CONTRACTS = "contracts"
    """multiplied by the ratio where it is whole, as the clearing house does: contracts traded, open or expected"""
    INVERSE_PRICE = "inverse_price"
    """multiplied by the ratio: per dollar of the underlying, such as gamma per share"""


@dataclass(frozen=True)
class Column:
    """A column with its unit and meaning. `doc` is a sentence."""

    name: str
    dtype: pl.DataType
    doc: str
    unit: str = ""
    nullable: bool = False
    checks: tuple[Check, ...] = ()
    adjust: Adjust | None = None

    def __post_init__(self) -> None:
        if not self.doc or self.doc[-1] not in ".?!":
            raise ValueError(f"column {self.name}: the doc must be a sentence")

    def all_checks(self) -> tuple[Check, ...]:
        return self.checks if self.nullable else (NotNull(), *self.checks)


class Knowledge(Protocol):
    """When a row became known: a pure function of the row and the calendar."""

    def describe(self) -> str: ...

    def expr(self, session: date) -> pl.Expr: ...


@dataclass(frozen=True)
class KnownAt:
    """At the moment in a column (UTC nanoseconds as Datetime, or an integer since 1970), plus a fixed delay."""

    column: str
    delay: timedelta = timedelta(0)

    def describe(self) -> str:
        return f"`{self.column}`" + (f" + {int(self.delay.total_seconds())} s" if self.delay else "")

    def expr(self, session: date) -> pl.Expr:
        # In whole nanoseconds: a sum with a duration of Python's loses what is below a microsecond, and lies before the moment.
        delay_ns = self.delay // timedelta(microseconds=1) * 1000
        return (pl.col(self.column).cast(pl.Int64) + delay_ns).cast(pl.Datetime("ns")).dt.replace_time_zone("UTC")


@dataclass(frozen=True)
class KnownFromMorning:
    """At the moment in a column plus a delay, but not before 09:00 New York of the session, when yesterday's factors are known."""

    column: str
    delay: timedelta

    def describe(self) -> str:
        return f"{KnownAt(self.column, self.delay).describe()}, not before 09:00 New York"

    def expr(self, session: date) -> pl.Expr:
        morning = sessions.decision_time(sessions.previous_session(session))
        return pl.max_horizontal(KnownAt(self.column, self.delay).expr(session), pl.lit(morning, dtype=UTC_NS))


@dataclass(frozen=True)
class KnownAtClose:
    """At the session's close plus a delay (index options trade 15 minutes longer)."""

    delay: timedelta = timedelta(0)

    def describe(self) -> str:
        return "the close of the session" + (f" + {int(self.delay.total_seconds() / 60)} min" if self.delay else "")

    def expr(self, session: date) -> pl.Expr:
        return pl.lit(sessions.close_utc(session) + self.delay, dtype=UTC_NS)


@dataclass(frozen=True)
class KnownNextMorning:
    """06:30 New York on the next session: open interest."""

    def describe(self) -> str:
        return "06:30 New York on the next session"

    def expr(self, session: date) -> pl.Expr:
        return pl.lit(sessions.open_interest_known_at(session), dtype=UTC_NS)


@dataclass(frozen=True)
class KnownAtDecision:
    """D(t): computed from what was known by then, so it is known from then on."""

    def describe(self) -> str:
        return "09:00 New York on the next session"

    def expr(self, session: date) -> pl.Expr:
        return pl.lit(sessions.decision_time(session), dtype=UTC_NS)


@dataclass(frozen=True)
class KnownAsStated:
    """The producing step computes it row by row, because it depends on more than the row's own moment."""

    rule: str

    def describe(self) -> str:
        return self.rule

    def expr(self, session: date) -> pl.Expr:
        return pl.col(KNOWN_AT).cast(UTC_NS)


@dataclass(frozen=True)
class Dataset:
    """A declared dataset. `columns` leave out `session` (the partition) and `known_at_utc` (computed from `known`)."""

    name: str
    layer: Layer
    doc: str
    grain: tuple[str, ...]
    columns: tuple[Column, ...]
    sort_by: tuple[str, ...]
    known: Knowledge
    checks: tuple[TableCheck, ...] = ()
    unique: bool = True
    """False where the grain is no key: identical rows can all be real (option prints)."""
    may_be_empty: bool = False
    retention_sessions: int | None = None
    """Partitions older than this many sessions may be pruned; None keeps them for ever."""
    row_group_size: int = 131_072
    runs: tuple[str, ...] = ()
    """Columns that are constant over long runs of rows, of a dataset that is written in batches; see `batch`."""
    in_parts: bool = False
    """Large, and made of some underlyings at a time: a partition is written as they come."""

    @property
    def column_names(self) -> list[str]:
        return [column.name for column in self.columns]

    def column(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)

    def polars_schema(self) -> dict[str, pl.DataType]:
        """Columns of a partition file, in order; `known_at_utc` comes last."""
        return {column.name: column.dtype for column in self.columns} | {KNOWN_AT: UTC_NS}

    def table_checks(self) -> tuple[TableCheck, ...]:
        return (Unique(self.grain), *self.checks) if self.unique else self.checks

    def conform(self, frame: pl.DataFrame, session: date) -> pl.DataFrame:
        """Exactly the declared columns, cast, with `known_at_utc`, in total order.

        A column that the frame lacks is an error; further columns are left out. Raises `polars.exceptions.PolarsError` where a
        value does not fit its declared type: the maker of the frame is at fault, not the input.
        """
        # Cast first: the clock reads its column in the declared unit, whatever unit the frame has.
        frame = frame.with_columns(pl.col(column.name).cast(column.dtype, strict=True) for column in self.columns)
        known = frame.with_columns(self.known.expr(session).alias(KNOWN_AT)) if frame.height else _with_known(frame)
        schema = self.polars_schema()
        typed = known.select(_one_way(pl.col(name).cast(dtype, strict=True), dtype) for name, dtype in schema.items())
        order = [*self.sort_by, *(name for name in schema if name not in self.sort_by)]
        sortable = [name for name in order if not isinstance(schema[name], pl.List)]
        return _in_total_order(typed, sortable[: len(self.sort_by)], sortable).rechunk()

    def empty(self) -> pl.DataFrame:
        """No rows, the declared columns, and `session` as the reader adds it."""
        return pl.DataFrame(schema={**self.polars_schema(), SESSION: pl.Date()})


def out_of_order(columns: Sequence[str], *, ties: bool = False) -> pl.Expr:
    """True on a row that belongs before the row above it, by `columns` one after the other, nulls last; with `ties` also on one
    that equals it in all of them."""
    wrong = pl.lit(ties)
    for name in reversed(columns):
        value, above = pl.col(name), pl.col(name).shift(1)
        less = (value < above).fill_null(False) | (value.is_not_null() & above.is_null())
        wrong = less | (value.eq_missing(above) & wrong)
    return wrong & (pl.int_range(pl.len()) > 0)


def _in_total_order(frame: pl.DataFrame, first: list[str], columns: list[str]) -> pl.DataFrame:
    """Sorted by all of `columns`, of which `first` are the first: where these have no ties, by them alone, and not at all where
    rows come in order, both of which are much faster."""
    if _is_strictly_in_order(frame, first):
        return frame
    by_first = frame.sort(first, nulls_last=True, maintain_order=True)
    return by_first if _is_strictly_in_order(by_first, first) else frame.sort(columns, nulls_last=True, maintain_order=True)


def _is_strictly_in_order(frame: pl.DataFrame, columns: list[str]) -> bool:
    return not frame.select(out_of_order(columns, ties=True).any()).item()


def _one_way(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """One spelling per value: NaN is null, and zero has no sign."""
    return value.fill_nan(None) + 0.0 if dtype.is_float() else value


def _with_known(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(pl.lit(None, dtype=UTC_NS).alias(KNOWN_AT))


Inputs = Mapping[str, pl.DataFrame]
"""What a step function is given: dataset name -> rows known at its decision time, with `session`. An optional input that does
not exist has no entry."""


@dataclass(frozen=True)
class Finding:
    """Something a person should know about a partition, with the rows that show it and what to do.

    `kind`: `note` informs, `rejected` says that `rows` were left out of the published table and are kept in quarantine.
    """

    dataset: str
    rule: str
    what: str
    cure: str
    kind: Literal["note", "rejected"] = "note"
    severity: Severity = Severity.WARNING
    rows: pl.DataFrame | None = None
    concerned: int | None = None
    """How many rows the finding is about, where `rows` shows only some of them."""

    @property
    def row_count(self) -> int:
        if self.concerned is not None:
            return self.concerned
        return 0 if self.rows is None else self.rows.height


@dataclass(frozen=True)
class Output:
    """What a step function gives back: tables by dataset name, and findings."""

    tables: dict[str, pl.DataFrame]
    findings: tuple[Finding, ...] = ()
