"""The rendered suite of a dataset inside Great Expectations: planned once, then fed any number of tables.

Great Expectations plans a validation anew on every call, which costs more than evaluating it on the tables of a session. Here its
plan (the metrics that the expectations need, in dependency order) is made once per dataset and thread; metrics and verdicts are
Great Expectations' own.
"""

from __future__ import annotations

import gc
import importlib
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import polars as pl

from flowlake.datasets import render
from flowlake.datasets.checks import Unique
from flowlake.datasets.model import Dataset

if TYPE_CHECKING:
    import pandas

EXAMPLES = 20
"""Failing values that a verdict names."""
SHAPE_RULES = ("columns", "row count")
"""What the suite begins with, before the rules of columns and table."""
_EXACT_FLOAT = 2**53
_RUNTIME = {"result_format": {"result_format": "BASIC", "partial_unexpected_count": EXAMPLES}, "catch_exceptions": False}
_BATCH = "partition"
_SUMMED = ("element_count", "unexpected_count", "missing_count")

Numbered = tuple[int, Mapping[str, Any]]
"""An expectation as data, with its place in the suite."""


@cache
def load_great_expectations() -> None:
    """Import Great Expectations, without telemetry, a setting that it reads then, and without the search for garbage.

    The import makes a million objects that stay. Looking through them again and again takes a sixth of its two and a half seconds.
    """
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    collects = gc.isenabled()
    gc.disable()
    try:
        importlib.import_module("great_expectations")
    finally:
        if collects:
            gc.enable()


@dataclass(frozen=True)
class Verdict:
    """What Great Expectations concluded about one expectation; `index` is its place in the suite."""

    index: int
    success: bool
    result: dict[str, Any]

    @property
    def unexpected(self) -> int:
        return int(self.result.get("unexpected_count", 0))


class Plan:
    """Some expectations of a suite with the metrics that they need, ready to be fed any number of frames."""

    def __init__(self, expectations: Sequence[Numbered], sample: pandas.DataFrame) -> None:
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

    @property
    def indices(self) -> list[int]:
        """The places of its expectations in the suite."""
        return [index for index, _, _ in self._expectations]

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


class Suite:
    """Suite, hash and plans of one dataset, each plan made when it is first needed: few partitions are large or misshapen."""

    def __init__(self, ds: Dataset) -> None:
        load_great_expectations()
        self.dataset = ds
        rendered = render.gx_suite(ds)
        self.expectations: list[dict[str, Any]] = rendered["expectations"]
        self.hash = render.suite_hash(ds)
        self._numbered: list[Numbered] = list(enumerate(self.expectations))
        self._schema = ds.polars_schema()
        unique = {i + len(SHAPE_RULES) for i, (_, check) in enumerate(render.rules(ds)) if isinstance(check, Unique)}
        self._unique = [item for item in self._numbered if item[0] in unique]
        self._by_row = [item for item in self._numbered[len(SHAPE_RULES) :] if item[0] not in unique]

    @cached_property
    def whole(self) -> Plan:
        """Every expectation, for a table that is judged in one piece."""
        return Plan(self._numbered, self._sample(list(self._schema)))

    @cached_property
    def by_columns(self) -> dict[tuple[str, ...], Plan]:
        """The expectations that hold for a whole if they hold for its parts, by the columns that they are about.

        A plan sees its own columns only: Great Expectations copies the table that it is given for every rule.
        """
        grouped: dict[tuple[str, ...], list[Numbered]] = {}
        for item in self._by_row:
            grouped.setdefault(columns_of(item[1]), []).append(item)
        return {columns: Plan(items, self._sample(columns)) for columns, items in grouped.items()}

    @cached_property
    def unique(self) -> dict[int, tuple[tuple[str, ...], Plan]]:
        """Uniqueness by its place in the suite, with the columns of the key."""
        keyed = [(item, columns_of(item[1])) for item in self._unique]
        return {item[0]: (columns, Plan([item], self._sample(columns))) for item, columns in keyed}

    @cached_property
    def _columns(self) -> Plan:
        return Plan(self._numbered[:1], self._sample(list(self._schema)))

    @cached_property
    def _count(self) -> Plan:
        return Plan(self._numbered[1:2], self._sample(list(self._schema)))

    def shape(self, names: Sequence[str], rows: int) -> list[Verdict]:
        """The verdicts on `SHAPE_RULES`, which need no values."""
        import pandas as pd

        named, counted = pd.DataFrame(columns=list(names)), pd.DataFrame(index=pd.RangeIndex(rows))
        return [*self._columns.evaluate(named), *self._count.evaluate(counted)]

    def _sample(self, columns: Sequence[str]) -> pandas.DataFrame:
        return to_pandas(pl.DataFrame(schema={name: self._schema[name] for name in columns}))


def columns_of(expectation: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns that an expectation about rows names."""
    kwargs = expectation["kwargs"]
    if "column" in kwargs:
        return (kwargs["column"],)
    return tuple(kwargs["column_list"]) if "column_list" in kwargs else (kwargs["column_A"], kwargs["column_B"])


_local = threading.local()


def suite_of(ds: Dataset) -> Suite:
    """One per dataset and thread: an execution engine holds the batch that it works on."""
    cache: dict[str, Suite] = _local.__dict__.setdefault("suites", {})
    known = cache.get(ds.name)
    if known is None or known.dataset is not ds:
        known = cache[ds.name] = Suite(ds)
    return known


# --- Verdicts on parts ---------------------------------------------------------------------------------------------


def merged(a: Verdict, b: Verdict) -> Verdict:
    """The verdict on two parts together, for an expectation that holds for a whole if it holds for its parts."""
    result = {**a.result, **{name: a.result[name] + b.result[name] for name in _SUMMED if name in a.result}}
    if "partial_unexpected_list" in result:
        result["partial_unexpected_list"] = (result["partial_unexpected_list"] + b.result["partial_unexpected_list"])[:EXAMPLES]
    return Verdict(a.index, a.success and b.success, with_shares(result))


def counted(verdict: Verdict, rows: int, missing: int) -> Verdict:
    """A verdict that was reached on some rows which stand for all: Great Expectations' own, with the counts of all rows."""
    result = {**verdict.result, "element_count": rows}
    if "missing_count" in result:
        result["missing_count"] = missing
    return Verdict(verdict.index, verdict.success, with_shares(result))


def with_shares(result: Mapping[str, Any]) -> dict[str, Any]:
    """The result with its percentages of its counts."""
    made = dict(result)
    if "unexpected_count" in made:
        missing = made.get("missing_count", 0)
        of_present = _percent(made["unexpected_count"], made["element_count"] - missing)
        shares = {
            "unexpected_percent": of_present,
            "unexpected_percent_nonmissing": of_present,
            "unexpected_percent_total": _percent(made["unexpected_count"], made["element_count"]),
            "missing_percent": _percent(missing, made["element_count"]),
        }
        made.update({name: share for name, share in shares.items() if name in made})
    return made


def _percent(part: int, whole: int) -> float | None:
    return part / whole * 100 if whole else None  # in this order, as Great Expectations does: the same last digit


# --- pandas --------------------------------------------------------------------------------------------------------


def to_pandas(frame: pl.DataFrame) -> pandas.DataFrame:
    """Plain NumPy columns: Arrow-backed ones are three times slower here. Large integers next to nulls stay exact."""
    import pandas as pd

    plain = frame.to_pandas()
    plain.columns = pd.Index(frame.columns, dtype=object)  # looked up for every metric; an index of Arrow texts is slow at that
    for name, dtype in frame.schema.items():
        column = frame.get_column(name)
        if dtype.is_integer() and column.null_count() and not _fits_float(column):
            filled = column.fill_null(0).to_numpy(writable=True)
            plain[name] = pd.arrays.IntegerArray(filled, column.is_null().to_numpy(writable=True))
    return plain


def _fits_float(column: pl.Series) -> bool:
    low, high = column.min(), column.max()
    return low is None or (isinstance(low, int) and isinstance(high, int) and max(-low, high) <= _EXACT_FLOAT)
