"""The gate before publishing: a partition against the rendered Great Expectations suite of its declaration.

Great Expectations plans a validation anew on every call, which costs more than evaluating it on the tables of a session.
Here its plan (the metrics that the suite needs, in dependency order) is made once per dataset and thread and then fed each
partition; metrics and verdicts are Great Expectations' own. The failing rows come from the check's own filter, and the two must
count the same.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from flowlake.datasets import render
from flowlake.datasets.checks import Severity, Unique
from flowlake.datasets.model import Dataset

if TYPE_CHECKING:
    import pandas

CHUNK_ROWS = 1_000_000
"""Rows that are handed to pandas at once; above it memory grows and time does not fall."""
ROWS_KEPT = 1000
"""Failing rows that are kept per rule: enough to see the pattern, small enough to store."""
EXAMPLES = 20
_EXACT_FLOAT = 2**53
_RUNTIME = {"result_format": {"result_format": "BASIC", "partial_unexpected_count": EXAMPLES}, "catch_exceptions": False}
_BATCH = "partition"


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
    prepared = _prepared(ds)
    declared = ds.polars_schema()
    shaped = list(frame.schema.items()) == list(declared.items())
    verdicts = prepared.evaluate(frame) if shaped else prepared.evaluate_shape(frame)
    beyond = list(_order_failure(ds, frame) if shaped else _type_failures(ds, frame))
    failures = [*_shape_failures(ds, frame, verdicts), *beyond]
    if shaped:
        failures.extend(_rule_failures(ds, frame, verdicts[len(SHAPE_RULES) :]))
    return AuditResult(
        dataset=ds.name,
        session=session,
        success=all(failure.severity is not Severity.ERROR for failure in failures),
        evaluated=len(verdicts) + (2 if shaped else 1),
        failures=tuple(failures),
        suite_hash=prepared.suite_hash,
        validation=_validation(ds, session, frame.height, prepared.suite["expectations"], verdicts, beyond),
    )


# --- Great Expectations --------------------------------------------------------------------------------------------

SHAPE_RULES = ("columns", "row count")
"""What the suite begins with, before the rules of columns and table."""


@dataclass(frozen=True)
class Verdict:
    """What Great Expectations concluded about one expectation; `index` is its place in the suite."""

    index: int
    success: bool
    result: dict[str, Any]

    @property
    def unexpected(self) -> int:
        return int(self.result.get("unexpected_count", 0))


class _Plan:
    """Some expectations of a suite with the metrics that they need, ready to be fed any number of frames."""

    def __init__(self, expectations: Sequence[tuple[int, Mapping[str, Any]]], sample: pandas.DataFrame) -> None:
        from great_expectations.execution_engine.pandas_execution_engine import PandasExecutionEngine
        from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
        from great_expectations.validator.metrics_calculator import MetricsCalculator

        self._engine = PandasExecutionEngine()
        self._engine.load_batch_data(_BATCH, sample)
        calculator = MetricsCalculator(execution_engine=self._engine)
        self._expectations: list[tuple[int, Any, dict[str, Any]]] = []
        self._edges: list[Any] = []
        for index, stored in expectations:
            kwargs = {**stored["kwargs"], "batch_id": _BATCH}
            expectation = ExpectationConfiguration(type=stored["type"], kwargs=kwargs).to_domain_obj()
            needed = expectation.get_validation_dependencies(self._engine, dict(_RUNTIME))
            graph = calculator.build_metric_dependency_graph(needed.get_metric_configurations(), dict(_RUNTIME))
            self._edges.extend(graph.edges)
            ids = {name: metric.id for name, metric in needed.metric_configurations.items()}
            self._expectations.append((index, expectation, ids))

    def evaluate(self, frame: pandas.DataFrame) -> list[Verdict]:
        from great_expectations.validator.validation_graph import ValidationGraph

        self._engine.load_batch_data(_BATCH, frame)
        try:
            graph = ValidationGraph(execution_engine=self._engine, edges=self._edges)
            metrics, _ = graph.resolve(dict(_RUNTIME), show_progress_bars=False)
            return [self._verdict(*planned, metrics) for planned in self._expectations]
        finally:
            self._engine.load_batch_data(_BATCH, frame.iloc[:0])  # let the rows go

    def _verdict(self, index: int, expectation: Any, ids: Mapping[str, Any], metrics: Mapping[Any, Any]) -> Verdict:
        # The hook that every expectation implements; the public method around it plans the metrics a second time.
        provided = {name: metrics[metric_id] for name, metric_id in ids.items()}
        answer = expectation._validate(provided, dict(_RUNTIME), self._engine)
        return Verdict(index, bool(answer["success"]), dict(answer.get("result") or {}))


class _Prepared:
    """Suite, hash and plans of one dataset, each plan made when it is first needed: few partitions are large or misshapen.

    Uniqueness has a plan of its own for large partitions: it cannot be merged over chunks.
    """

    def __init__(self, ds: Dataset) -> None:
        switch_telemetry_off()
        self.dataset = ds
        self.suite = render.gx_suite(ds)
        self.suite_hash = render.suite_hash(ds)
        self._numbered = list(enumerate(self.suite["expectations"]))
        self._sample = to_pandas(pl.DataFrame(schema=ds.polars_schema()))
        unique = [check for check in ds.table_checks() if isinstance(check, Unique)]
        self._keys = [name for name in ds.column_names if any(name in check.key for check in unique)]
        self._unique = {i + len(SHAPE_RULES) for i, (_, check) in enumerate(render.rules(ds)) if isinstance(check, Unique)}

    @cached_property
    def _shape(self) -> _Plan:
        return _Plan(self._numbered[: len(SHAPE_RULES)], self._sample)

    @cached_property
    def _all(self) -> _Plan:
        return _Plan(self._numbered, self._sample)

    @cached_property
    def _by_chunk(self) -> _Plan:
        return _Plan([item for item in self._numbered if item[0] not in self._unique], self._sample)

    @cached_property
    def _whole(self) -> _Plan:
        return _Plan([item for item in self._numbered if item[0] in self._unique], self._sample)

    def evaluate_shape(self, frame: pl.DataFrame) -> list[Verdict]:
        return self._shape.evaluate(to_pandas(frame.head(CHUNK_ROWS)))

    def evaluate(self, frame: pl.DataFrame) -> list[Verdict]:
        if frame.height <= CHUNK_ROWS:
            return self._all.evaluate(to_pandas(frame))
        merged = self._by_chunk.evaluate(to_pandas(frame.slice(0, CHUNK_ROWS)))
        for start in range(CHUNK_ROWS, frame.height, CHUNK_ROWS):
            verdicts = self._by_chunk.evaluate(to_pandas(frame.slice(start, CHUNK_ROWS)))
            merged = [_merge(a, b) for a, b in zip(merged, verdicts, strict=True)]
        if self._keys:
            unique = self._whole.evaluate(to_pandas(_coded(frame.select(self._keys))))
            # Its examples would show codes; the failing rows of the audit show the keys.
            merged.extend(replace(verdict, result={**verdict.result, "partial_unexpected_list": []}) for verdict in unique)
        return sorted(merged, key=lambda verdict: verdict.index)


_local = threading.local()


def _prepared(ds: Dataset) -> _Prepared:
    """One per dataset and thread: an execution engine holds the batch that it works on."""
    cache: dict[str, _Prepared] = _local.__dict__.setdefault("prepared", {})
    known = cache.get(ds.name)
    if known is None or known.dataset is not ds:
        known = cache[ds.name] = _Prepared(ds)
    return known


def switch_telemetry_off() -> None:
    """Before the first import of Great Expectations, which reads it then."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"


_SUMMED = ("element_count", "unexpected_count", "missing_count")


def _merge(a: Verdict, b: Verdict) -> Verdict:
    """The verdict on two chunks together. Every expectation but uniqueness holds for a whole if it holds for its parts."""
    result = {**a.result, **{name: a.result[name] + b.result[name] for name in _SUMMED if name in a.result}}
    if isinstance(result.get("observed_value"), int):
        result["observed_value"] += b.result["observed_value"]
    if "partial_unexpected_list" in result:
        result["partial_unexpected_list"] = (result["partial_unexpected_list"] + b.result["partial_unexpected_list"])[:EXAMPLES]
    if "unexpected_count" in result:
        present = result["element_count"] - result.get("missing_count", 0)
        of_present = _percent(result["unexpected_count"], present)
        shares = {
            "unexpected_percent": of_present,
            "unexpected_percent_nonmissing": of_present,
            "unexpected_percent_total": _percent(result["unexpected_count"], result["element_count"]),
            "missing_percent": _percent(result.get("missing_count", 0), result["element_count"]),
        }
        result.update({name: share for name, share in shares.items() if name in result})
    return Verdict(a.index, a.success and b.success, result)


def _percent(part: int, whole: int) -> float | None:
    return 100.0 * part / whole if whole else None


def to_pandas(frame: pl.DataFrame) -> pandas.DataFrame:
    """Plain NumPy columns: Arrow-backed ones are three times slower here. Large integers next to nulls stay exact."""
    import pandas as pd

    plain = frame.to_pandas()
    for name, dtype in frame.schema.items():
        column = frame.get_column(name)
        if dtype.is_integer() and column.null_count() and not _fits_float(column):
            filled = column.fill_null(0).to_numpy(writable=True)
            plain[name] = pd.arrays.IntegerArray(filled, column.is_null().to_numpy(writable=True))
    return plain


def _fits_float(column: pl.Series) -> bool:
    low, high = column.min(), column.max()
    return low is None or (isinstance(low, int) and isinstance(high, int) and max(-low, high) <= _EXACT_FLOAT)


def _coded(keys: pl.DataFrame) -> pl.DataFrame:
    """Texts as whole numbers, one per distinct text: as good for uniqueness, and small enough for a whole partition."""
    return keys.with_columns(pl.col(pl.String).cast(pl.Categorical).to_physical())


# --- Failures ------------------------------------------------------------------------------------------------------


def _shape_failures(ds: Dataset, frame: pl.DataFrame, verdicts: Sequence[Verdict]) -> Iterator[AuditFailure]:
    nothing = frame.head(0)
    columns, count = verdicts[: len(SHAPE_RULES)]
    declared = ds.polars_schema()
    if not columns.success:
        lacking = [name for name in declared if name not in frame.columns]
        surplus = [name for name in frame.columns if name not in declared]
        differs = f"lacking {lacking}, not declared {surplus}" if lacking or surplus else "in another order"
        yield AuditFailure(f"the declared columns in order: {differs}", None, Severity.ERROR, 1, nothing)
    if not count.success:
        yield AuditFailure("at least one row", None, Severity.ERROR, 1, nothing)


def _type_failures(ds: Dataset, frame: pl.DataFrame) -> Iterator[AuditFailure]:
    for name, dtype in ds.polars_schema().items():
        if name in frame.columns and frame.schema[name] != dtype:
            rule = f"`{name}` has the type {dtype}, not {frame.schema[name]}"
            yield AuditFailure(rule, name, Severity.ERROR, frame.height, frame.head(0))


def _rule_failures(ds: Dataset, frame: pl.DataFrame, verdicts: Sequence[Verdict]) -> Iterator[AuditFailure]:
    rules = render.rules(ds)
    filters = [_filter(column, check) for column, check in rules]
    counts = frame.select(condition.sum().alias(str(i)) for i, condition in enumerate(filters)).row(0) if rules else ()
    for (column, check), condition, counted, verdict in zip(rules, filters, counts, verdicts, strict=True):
        count, rule, severity = int(counted or 0), render.rule_text(column, check), check.severity
        if count != verdict.unexpected or verdict.success != (count == 0):
            rule = f"{rule} (Great Expectations counts {verdict.unexpected} failing rows, the filter {count})"
            severity = Severity.ERROR
        elif count == 0:
            continue
        yield AuditFailure(rule, column, severity, max(count, verdict.unexpected), _first_rows(frame, condition))


def _filter(column: str | None, check: Any) -> pl.Expr:
    """The check's own filter."""
    condition: pl.Expr = check.failing() if column is None else check.failing(column)
    return condition


def _first_rows(frame: pl.DataFrame, condition: pl.Expr) -> pl.DataFrame:
    return frame.filter(condition).head(ROWS_KEPT)


def _order_failure(ds: Dataset, frame: pl.DataFrame) -> Iterator[AuditFailure]:
    condition = out_of_order(ds.sort_by)
    count = int(frame.select(condition.sum()).item() or 0)
    if count:
        rule = "in order of " + ", ".join(f"`{name}`" for name in ds.sort_by)
        yield AuditFailure(rule, None, Severity.ERROR, count, _first_rows(frame, condition))


def out_of_order(columns: Sequence[str]) -> pl.Expr:
    """True on a row that belongs before the row above it, by `columns` one after the other, nulls last."""
    wrong = pl.lit(False)
    for name in reversed(columns):
        value, above = pl.col(name), pl.col(name).shift(1)
        less = (value < above).fill_null(False) | (value.is_not_null() & above.is_null())
        wrong = less | (value.eq_missing(above) & wrong)
    return wrong & (pl.int_range(pl.len()) > 0)


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
