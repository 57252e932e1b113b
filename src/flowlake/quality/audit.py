"""The gate before publishing: a partition against the rendered Great Expectations suite of its declaration.

Great Expectations reaches the verdicts (`expectations`), on a large partition piece by piece (`streaming`). The failing rows come
from the check's own filter, and the two must count the same. What no expectation can say, column types and the order by several
columns, is checked beside it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import IO, Any

import numpy as np
import polars as pl

from flowlake.datasets import render
from flowlake.datasets.checks import Severity
from flowlake.datasets.model import Dataset
from flowlake.quality.expectations import SHAPE_RULES, Verdict, suite_of
from flowlake.quality.streaming import FileSource, Judged, Source, TableSource, Tally, judge

Schema = Mapping[str, pl.DataType]


@dataclass(frozen=True)
class AuditFailure:
    """A rule that rows break. `rows` holds at most 1,000 of the `count` failing rows, in partition order."""

    rule: str
    column: str | None
    severity: Severity
    count: int
    rows: pl.DataFrame


@dataclass(frozen=True)
class AuditResult:
    """`success` is False when a rule of severity `error` fails; `validation` is a Great Expectations result as JSON data."""

    dataset: str
    session: date
    success: bool
    evaluated: int
    failures: tuple[AuditFailure, ...]
    suite_hash: str
    validation: dict[str, Any]

    @property
    def errors(self) -> tuple[AuditFailure, ...]:
        return tuple(failure for failure in self.failures if failure.severity is Severity.ERROR)


def audit(ds: Dataset, frame: pl.DataFrame, session: date) -> AuditResult:
    """Evaluate every rule of `ds` on the rows of one partition file (without the column `session`).

    A frame whose columns or types differ from the declared ones is judged on those alone.
    """
    return _audit(ds, TableSource(frame), session)


def audit_file(ds: Dataset, file: str | Path | IO[bytes], session: date) -> AuditResult:
    """The same on the rows of a Parquet file, or of its bytes as an open file, some row groups at a time.

    What is judged is what is published, and memory does not grow with the file. Raises OSError or `pyarrow.ArrowException` for a
    file that cannot be read.
    """
    source = FileSource(file)
    try:
        return _audit(ds, source, session)
    finally:
        source.close()


def _audit(ds: Dataset, source: Source, session: date) -> AuditResult:
    suite = suite_of(ds)
    shaped = list(source.schema.items()) == list(ds.polars_schema().items())
    if shaped:
        judged = judge(suite, source)
        verdicts, beyond = judged.verdicts, list(_order_failure(ds, judged.disorder))
        failures = [*_shape_failures(ds, source.schema, verdicts), *beyond, *_rule_failures(ds, judged)]
    else:
        verdicts, beyond = suite.shape(list(source.schema), source.rows), list(_type_failures(ds, source))
        failures = [*_shape_failures(ds, source.schema, verdicts), *beyond]
    return AuditResult(
        dataset=ds.name,
        session=session,
        success=all(failure.severity is not Severity.ERROR for failure in failures),
        evaluated=len(verdicts) + (2 if shaped else 1),
        failures=tuple(failures),
        suite_hash=suite.hash,
        validation=_validation(ds, session, source.rows, suite.expectations, verdicts, beyond),
    )


# --- Failures ------------------------------------------------------------------------------------------------------


def _shape_failures(ds: Dataset, schema: Schema, verdicts: Sequence[Verdict]) -> Iterator[AuditFailure]:
    nothing = pl.DataFrame(schema=schema)
    columns, count = verdicts[: len(SHAPE_RULES)]
    declared = ds.polars_schema()
    if not columns.success:
        lacking = [name for name in declared if name not in schema]
        surplus = [name for name in schema if name not in declared]
        differs = f"lacking {lacking}, not declared {surplus}" if lacking or surplus else "in another order"
        yield AuditFailure(f"the declared columns in order: {differs}", None, Severity.ERROR, 1, nothing)
    if not count.success:
        yield AuditFailure("at least one row", None, Severity.ERROR, 1, nothing)


def _type_failures(ds: Dataset, source: Source) -> Iterator[AuditFailure]:
    for name, dtype in ds.polars_schema().items():
        if name in source.schema and source.schema[name] != dtype:
            rule = f"`{name}` has the type {dtype}, not {source.schema[name]}"
            yield AuditFailure(rule, name, Severity.ERROR, source.rows, pl.DataFrame(schema=source.schema))


def _rule_failures(ds: Dataset, judged: Judged) -> Iterator[AuditFailure]:
    nothing = pl.DataFrame(schema=ds.polars_schema())
    of_rules = judged.verdicts[len(SHAPE_RULES) :]
    for (column, check), tally, verdict in zip(render.rules(ds), judged.tallies, of_rules, strict=True):
        count, rule, severity = tally.count, render.rule_text(column, check), check.severity
        if count != verdict.unexpected or verdict.success != (count == 0):
            rule = f"{rule} (Great Expectations counts {verdict.unexpected} failing rows, the filter {count})"
            severity = Severity.ERROR
        elif count == 0:
            continue
        rows = tally.rows if count else nothing
        yield AuditFailure(rule, column, severity, max(count, verdict.unexpected), rows)


def _order_failure(ds: Dataset, disorder: Tally) -> Iterator[AuditFailure]:
    if disorder.count:
        rule = "in order of " + ", ".join(f"`{name}`" for name in ds.sort_by)
        yield AuditFailure(rule, None, Severity.ERROR, disorder.count, disorder.rows)


# --- The result as Great Expectations stores it --------------------------------------------------------------------


def _validation(
    ds: Dataset,
    session: date,
    rows: int,
    expectations: Sequence[Mapping[str, Any]],
    verdicts: Sequence[Verdict],
    beyond: Sequence[AuditFailure],
) -> dict[str, Any]:
    """`meta.beyond_suite` names broken rules that no expectation can say: column types, and order by several columns."""
    passed = sum(verdict.success for verdict in verdicts)
    batch = f"{ds.layer.value}/{ds.name}/session={session}"
    return {
        "success": passed == len(verdicts) and not beyond,
        "suite_name": ds.name,
        "statistics": {
            "evaluated_expectations": len(verdicts),
            "successful_expectations": passed,
            "unsuccessful_expectations": len(verdicts) - passed,
            "success_percent": 100.0 * passed / len(verdicts),
        },
        "results": [
            {
                "success": verdict.success,
                "expectation_config": expectations[verdict.index],
                "result": _as_json(verdict.result),
                "meta": {},
                "exception_info": {"raised_exception": False, "exception_traceback": None, "exception_message": None},
            }
            for verdict in verdicts
        ],
        "meta": {
            "session": str(session),
            "rows": rows,
            "beyond_suite": {failure.rule: failure.count for failure in beyond},
            "active_batch_definition": {"data_asset_name": batch},
        },
        "suite_parameters": {},
    }


def _as_json(result: Mapping[str, Any]) -> dict[str, Any]:
    """A copy that JSON can hold, in its own data types: examples of moments and dates become text."""
    if all(isinstance(value, (int, float, type(None))) or value == [] for value in result.values()):
        return dict(result)
    plain: dict[str, Any] = json.loads(json.dumps(result, default=_plain_value))
    return plain


def _plain_value(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else str(value)
