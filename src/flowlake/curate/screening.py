"""Row-level screening: which rows are left out of a curated table, under which rule, and what to do about it.

A row that cannot be right is never repaired and never lost: it leaves the table as part of a `rejected` finding. A row that
breaks several rules is reported once, under the first of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import polars as pl

from flowlake.datasets.model import Finding

ROW = "row"
_BROKEN = "broken_rule"
NOTE_ROWS = 100
"""A note shows at most this many rows, and counts all of them."""


@dataclass(frozen=True)
class Subject:
    """What is being screened: `source` rows on their way into `dataset`. `shown` are the columns that a finding shows."""

    dataset: str
    source: str
    session: date
    shown: tuple[str, ...]

    def rejected(self, rule: str, rows: pl.DataFrame, why: str, cure: str) -> Finding:
        return Finding(
            dataset=self.dataset,
            rule=rule,
            what=f"{self.session}: {rows.height} rows of {self.source} left out of {self.dataset}: {why}",
            cure=cure,
            kind="rejected",
            rows=self._presented(rows),
        )

    def note(self, rule: str, rows: pl.DataFrame, why: str, cure: str, concerned: int | None = None) -> Finding:
        """`concerned`: how many rows there are, where `rows` has only those that can be shown."""
        count = rows.height if concerned is None else concerned
        return Finding(
            dataset=self.dataset,
            rule=rule,
            what=f"{self.session}: {count} rows of {self.source}: {why}",
            cure=cure,
            rows=self._presented(rows).head(NOTE_ROWS),
            concerned=count,
        )

    def _presented(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The vendor's columns in the vendor's order, whatever order the rows came in."""
        shown = rows.select(name for name in self.shown if name in rows.columns)
        return shown.sort([ROW, *(name for name in shown.columns if name != ROW)] if ROW in shown.columns else shown.columns)


@dataclass(frozen=True)
class RowRule:
    """A row breaks the rule where `fails` is true or cannot be decided (null)."""

    name: str
    fails: pl.Expr
    why: str
    cure: str


def subject(raw: pl.DataFrame, dataset: str, source: str, session: date) -> Subject:
    """Findings about `raw` show the columns it has now, not those that a step adds on the way."""
    return Subject(dataset, source, session, tuple(raw.columns))


def is_positive(name: str) -> pl.Expr:
    """Finite and above 0; polars alone takes NaN for the largest number."""
    return pl.col(name).is_finite() & (pl.col(name) > 0)


def is_not_negative(name: str) -> pl.Expr:
    """Finite and at least 0."""
    return pl.col(name).is_finite() & (pl.col(name) >= 0)


def is_whole(name: str) -> pl.Expr:
    """A finite number without a fraction that an Int64 can hold."""
    return pl.col(name).is_finite() & (pl.col(name) == pl.col(name).floor()) & (pl.col(name).abs() < 2**53)


def screen(rows: pl.DataFrame, about: Subject, rules: Sequence[RowRule]) -> tuple[pl.DataFrame, list[Finding]]:
    """The rows that break no rule, and one `rejected` finding for each rule that was broken."""
    first_broken = pl.coalesce(
        [pl.when(rule.fails.fill_null(True)).then(pl.lit(i, dtype=pl.Int32)) for i, rule in enumerate(rules)]
    )
    marked = rows.with_columns(first_broken.alias(_BROKEN))
    bad = marked.filter(pl.col(_BROKEN).is_not_null())
    if not bad.height:
        return rows, []
    findings = [
        about.rejected(rule.name, broken, rule.why, rule.cure)
        for i, rule in enumerate(rules)
        if (broken := bad.filter(pl.col(_BROKEN) == i)).height
    ]
    return marked.filter(pl.col(_BROKEN).is_null()).drop(_BROKEN), findings


def one_per_key(
    rows: pl.DataFrame, about: Subject, key: Sequence[str], values: Sequence[str]
) -> tuple[pl.DataFrame, list[Finding]]:
    """One row per key. Rows that say the same count once; rows that contradict each other are all left out."""
    if not rows.select(pl.struct(key).is_duplicated().any()).item():
        return rows, []
    findings: list[Finding] = []
    ordered = rows.sort([ROW]) if ROW in rows.columns else rows
    distinct = ordered.unique(subset=[*key, *values], keep="first", maintain_order=True)
    repeated = ordered.height - distinct.height
    if repeated:
        again = ordered.filter(pl.struct([*key, *values]).is_duplicated())
        findings.append(
            about.note(
                "repeated_row",
                again,
                f"they repeat ({', '.join(key)}) with the same values; {repeated} were dropped, one of each kept",
                "nothing to do; ask the vendor if it happens often",
            )
        )
    clash = pl.struct(key).is_duplicated()
    keys = distinct.filter(clash).select(key).unique()
    if keys.height:
        findings.append(
            about.rejected(
                "contradictory_rows",
                ordered.join(keys, on=key, how="semi", nulls_equal=True),
                f"they repeat ({', '.join(key)}) with different values, and nothing says which is right",
                "ask the vendor for a corrected file; it is taken up when the object changes",
            )
        )
    return distinct.filter(~clash), findings
