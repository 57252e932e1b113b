"""Checks of a column or a table: what each says in words, as a Great Expectations expectation, and as a row filter.

The three live in one class, so that documentation, audit and the list of failing rows cannot disagree. A null passes every
check but `NotNull`: absence is the business of `nullable`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import polars as pl


class Severity(StrEnum):
    """`error` holds the partition in quarantine; `warning` publishes it and leaves a finding."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True)
class Expectation:
    """A Great Expectations expectation as data."""

    type: str
    kwargs: dict[str, Any] = field(hash=False)


class Check(Protocol):
    """One rule about one column."""

    @property
    def severity(self) -> Severity: ...

    def describe(self) -> str: ...

    def expectation(self, column: str) -> Expectation: ...

    def failing(self, column: str) -> pl.Expr: ...


class TableCheck(Protocol):
    """One rule across columns."""

    @property
    def severity(self) -> Severity: ...

    def describe(self) -> str: ...

    def expectation(self) -> Expectation: ...

    def failing(self) -> pl.Expr: ...


@dataclass(frozen=True)
class NotNull:
    severity: Severity = Severity.ERROR

    def describe(self) -> str:
        return "never null"

    def expectation(self, column: str) -> Expectation:
        return Expectation("expect_column_values_to_not_be_null", {"column": column})

    def failing(self, column: str) -> pl.Expr:
        return pl.col(column).is_null()


@dataclass(frozen=True)
class Between:
    """Bounds in the column's own unit; either may be open, `above` makes the lower one strict."""

    low: float | int | None = None
    high: float | int | None = None
    above: bool = False
    severity: Severity = Severity.ERROR

    def describe(self) -> str:
        low = "" if self.low is None else f"{'above' if self.above else 'at least'} {self.low}"
        high = "" if self.high is None else f"at most {self.high}"
        return " and ".join(part for part in (low, high) if part)

    def expectation(self, column: str) -> Expectation:
        kwargs: dict[str, Any] = {"column": column, "min_value": self.low, "max_value": self.high}
        if self.above:
            kwargs["strict_min"] = True
        return Expectation("expect_column_values_to_be_between", kwargs)

    def failing(self, column: str) -> pl.Expr:
        value = pl.col(column)
        bad = pl.lit(False)
        if self.low is not None:
            bad = bad | (value <= self.low if self.above else value < self.low)
        if self.high is not None:
            bad = bad | (value > self.high)
        return bad.fill_null(False)


@dataclass(frozen=True)
class OneOf:
    values: tuple[str | int, ...]
    severity: Severity = Severity.ERROR

    def describe(self) -> str:
        return "one of " + ", ".join(str(v) for v in self.values)

    def expectation(self, column: str) -> Expectation:
        return Expectation("expect_column_values_to_be_in_set", {"column": column, "value_set": list(self.values)})

    def failing(self, column: str) -> pl.Expr:
        return ~pl.col(column).is_in(list(self.values)).fill_null(True)


@dataclass(frozen=True)
class Matches:
    """A regular expression that the whole text satisfies; write it anchored, in the syntax common to Python and Rust."""

    pattern: str
    severity: Severity = Severity.ERROR

    def describe(self) -> str:
        return f"matches `{self.pattern}`"

    def expectation(self, column: str) -> Expectation:
        return Expectation("expect_column_values_to_match_regex", {"column": column, "regex": self.pattern})

    def failing(self, column: str) -> pl.Expr:
        return ~pl.col(column).str.contains(self.pattern).fill_null(True)


@dataclass(frozen=True)
class NotAbove:
    """`lower` is at most `upper`, where both are present."""

    lower: str
    upper: str
    severity: Severity = Severity.ERROR

    def describe(self) -> str:
        return f"`{self.lower}` is at most `{self.upper}`"

    def expectation(self) -> Expectation:
        return Expectation(
            "expect_column_pair_values_a_to_be_greater_than_b",
            {
                "column_A": self.upper,
                "column_B": self.lower,
                "or_equal": True,
                "ignore_row_if": "either_value_is_missing",
            },
        )

    def failing(self) -> pl.Expr:
        return (pl.col(self.lower) > pl.col(self.upper)).fill_null(False)


@dataclass(frozen=True)
class Unique:
    """No two rows share the key."""

    key: tuple[str, ...]
    severity: Severity = Severity.ERROR

    def describe(self) -> str:
        return "one row per " + ", ".join(f"`{name}`" for name in self.key)

    def expectation(self) -> Expectation:
        if len(self.key) == 1:
            return Expectation("expect_column_values_to_be_unique", {"column": self.key[0]})
        return Expectation(
            "expect_compound_columns_to_be_unique",
            {"column_list": list(self.key), "ignore_row_if": "never"},
        )

    def failing(self) -> pl.Expr:
        return pl.struct(list(self.key)).is_duplicated()
