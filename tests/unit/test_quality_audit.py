"""Great Expectations, the filter of each check and its words agree; every broken rule is caught with its rows."""

from __future__ import annotations

import io
import json
import math
import time
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowlake.datasets import render
from flowlake.datasets.checks import Between, Check, Matches, NotAbove, NotNull, OneOf, Severity, TableCheck, Unique
from flowlake.datasets.model import UTC_NS, Column, Dataset, KnownAt, Layer, out_of_order
from flowlake.quality import streaming
from flowlake.quality.audit import AuditResult, audit, audit_file
from flowlake.quality.data_docs import build_data_docs, choose_pages
from flowlake.quality.expectations import Plan, Verdict, to_pandas

SESSION = date(2024, 3, 4)
MOMENT = datetime(2024, 3, 4, 15, tzinfo=UTC)

DS = Dataset(
    name="sample",
    layer=Layer.CURATED,
    doc="A sample.",
    grain=("name", "number"),
    columns=(
        Column("name", pl.String(), "Name.", checks=(Matches("^[a-z]+$"),)),
        Column("number", pl.Int64(), "Number.", checks=(Between(0, 100),)),
        Column("right", pl.String(), "Right.", checks=(OneOf(("C", "P"), severity=Severity.WARNING),)),
        Column("low", pl.Float64(), "Low.", nullable=True, checks=(Between(0, above=True),)),
        Column("high", pl.Float64(), "High.", nullable=True),
        Column("flag", pl.Boolean(), "Flag."),
        Column("big", pl.Int64(), "Large whole number.", nullable=True, checks=(OneOf((2**60 + 1,)),)),
        Column("ts_utc", UTC_NS, "Moment."),
    ),
    sort_by=("name", "number"),
    known=KnownAt("ts_utc"),
    checks=(NotAbove("low", "high"),),
)


def good(rows: int = 3) -> pl.DataFrame:
    frame = pl.DataFrame(
        {
            "name": ["a"] * rows,
            "number": [i % 100 for i in range(rows)],
            "right": ["C"] * rows,
            "low": [None, *[1.0] * (rows - 1)],
            "high": [2.0] * rows,
            "flag": [True] * rows,
            "big": [None, *[2**60 + 1] * (rows - 1)],
            "ts_utc": [MOMENT] * rows,
        }
    )
    return DS.conform(frame, SESSION)


def broken(**columns: Any) -> pl.DataFrame:
    """Good rows with the first row's values replaced."""
    first = pl.int_range(pl.len()) == 0
    frame = good()
    return frame.with_columns(
        pl.when(first).then(pl.lit(value, dtype=frame.schema[name])).otherwise(pl.col(name)).alias(name)
        for name, value in columns.items()
    )


def test_good_rows_pass() -> None:
    result = audit(DS, good(), SESSION)
    assert (result.success, result.failures) == (True, ())
    assert result.suite_hash == render.suite_hash(DS)
    assert result.evaluated == 2 + len(render.rules(DS)) + 2
    assert result.validation["success"]
    assert json.loads(json.dumps(result.validation)) == result.validation


@pytest.mark.parametrize(
    ("columns", "rule", "column", "severity"),
    [
        ({"name": "A1"}, "`name` matches `^[a-z]+$`", "name", Severity.ERROR),
        ({"number": -1}, "`number` at least 0 and at most 100", "number", Severity.ERROR),
        ({"right": "X"}, "`right` one of C, P", "right", Severity.WARNING),
        ({"low": 0.0}, "`low` above 0", "low", Severity.ERROR),
        ({"low": 9.0}, "`low` is at most `high`", None, Severity.ERROR),
        ({"flag": None}, "`flag` never null", "flag", Severity.ERROR),
        ({"big": 2**60}, f"`big` one of {2**60 + 1}", "big", Severity.ERROR),
        ({"ts_utc": None}, "`ts_utc` never null", "ts_utc", Severity.ERROR),
    ],
)
def test_each_broken_rule_is_caught_with_its_rows(
    columns: dict[str, Any], rule: str, column: str | None, severity: Severity
) -> None:
    frame = broken(**columns)
    result = audit(DS, frame, SESSION)
    assert [(f.rule, f.column, f.severity, f.count) for f in result.failures] == [(rule, column, severity, 1)]
    assert result.failures[0].rows.equals(frame.head(1))
    assert result.success is (severity is Severity.WARNING)
    assert result.validation["statistics"]["unsuccessful_expectations"] == 1
    assert audit(DS, good(), SESSION).success, "nothing of the frame before is left"


def test_a_repeated_key_is_caught() -> None:
    result = audit(DS, good().with_columns(number=pl.lit(1, dtype=pl.Int64)), SESSION)
    assert [(f.rule, f.count) for f in result.failures] == [("one row per `name`, `number`", 3)]


def test_an_empty_partition_is_refused_unless_declared() -> None:
    empty = good().head(0)
    assert [f.rule for f in audit(DS, empty, SESSION).failures] == ["at least one row"]
    assert audit(replace(DS, name="empty_allowed", may_be_empty=True), empty, SESSION).success


def test_wrong_columns_and_types_are_caught() -> None:
    lacking = audit(DS, good().drop("flag"), SESSION)
    assert not lacking.success
    assert [f.rule for f in lacking.failures] == ["the declared columns in order: lacking ['flag'], not declared []"]
    order = audit(DS, good().select(sorted(good().columns)), SESSION)
    assert [f.rule for f in order.failures] == ["the declared columns in order: in another order"]
    wrong = audit(DS, good().with_columns(pl.col("number").cast(pl.Int32)), SESSION)
    assert [f.rule for f in wrong.failures] == ["`number` has the type Int64, not Int32"]
    assert not wrong.validation["success"]


def test_wrong_order_is_caught() -> None:
    result = audit(DS, good().reverse(), SESSION)
    assert [(f.rule, f.count) for f in result.failures] == [("in order of `name`, `number`", 2)]
    assert result.validation["meta"]["beyond_suite"] == {"in order of `name`, `number`": 2}


@given(st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.sampled_from([1, 2, None])), max_size=6))
@settings(max_examples=50)
def test_order_is_that_of_a_sort_with_nulls_last(rows: list[tuple[str | None, int | None]]) -> None:
    frame = pl.DataFrame(rows, schema={"x": pl.String, "y": pl.Int64}, orient="row")
    is_sorted = frame.equals(frame.sort("x", "y", nulls_last=True, maintain_order=True))
    assert (not frame.select(out_of_order(["x", "y"]).any()).item()) is is_sorted
    has_ties = frame.n_unique() < frame.height
    assert (not frame.select(out_of_order(["x", "y"], ties=True).any()).item()) is (is_sorted and not has_ties)


def test_failing_rows_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "ROWS_KEPT", 5)
    failure = audit(DS, good(50).with_columns(flag=None).cast({"flag": pl.Boolean}), SESSION).failures[0]
    assert (failure.count, failure.rows.height) == (50, 5)


def same(a: AuditResult, b: AuditResult) -> bool:
    """Equal in verdicts, counts, percentages, examples, failing rows and their order."""
    failing = [
        (x.rule, x.column, x.severity, x.count) == (y.rule, y.column, y.severity, y.count) and x.rows.equals(y.rows)
        for x, y in zip(a.failures, b.failures, strict=True)
    ]
    return all(failing) and (a.success, a.evaluated, a.validation) == (b.success, b.evaluated, b.validation)


def in_pieces(frame: pl.DataFrame, ds: Dataset, rows: int = 7) -> tuple[AuditResult, AuditResult]:
    """The result on a table and on its file, both judged in pieces of so many rows."""
    file = io.BytesIO()
    frame.write_parquet(file, row_group_size=max(rows // 2, 1))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(streaming, "WHOLE_CELLS", 0)
        patched.setattr(streaming, "CHUNK_ROWS", rows)
        return audit(ds, frame, SESSION), audit_file(ds, file, SESSION)


BROKEN = {
    "nothing": {},
    "a text": {"name": "B"},
    "a null in a text": {"name": None},
    "a null in a number": {"number": None},
    "a null in a flag": {"flag": None},
    "a value below its bound": {"low": -1.0},
    "not a number": {"low": math.nan},
    "a pair": {"low": 9.0},
    "a large whole number": {"big": 2**60},
    "a warning": {"right": "X"},
    "everything": {"name": "B", "number": -1, "low": -1.0, "flag": None, "big": 2**60, "right": "X", "ts_utc": None},
}


@pytest.mark.parametrize("columns", BROKEN.values(), ids=BROKEN)
def test_pieces_and_files_give_the_same_result_as_the_whole(columns: dict[str, Any]) -> None:
    numbered = good(40).with_columns(number=pl.int_range(pl.len()))
    right = numbered.with_columns(name=pl.when(pl.col("number") < 20).then(pl.lit("a")).otherwise(pl.lit("b")))
    frame = pl.concat([right, broken(**columns).head(1)] if columns else [right]).sort("name", "number", nulls_last=True)
    whole = audit(DS, frame, SESSION)
    assert bool(whole.failures) is bool(columns)
    for other in in_pieces(frame, DS):
        assert same(other, whole)
        assert json.loads(json.dumps(other.validation)) == other.validation


@pytest.mark.parametrize("doubled", [0, 1, 5, 40])
def test_repeated_keys_are_found_across_pieces(doubled: int) -> None:
    unsorted = replace(DS, name=f"unsorted_{doubled}", sort_by=("flag",))
    rows = good(40).with_columns(number=pl.int_range(pl.len()))
    frame = pl.concat([rows, rows.head(doubled)])
    whole = audit(unsorted, frame, SESSION)
    assert [(f.rule, f.count) for f in whole.failures] == ([("one row per `name`, `number`", 2 * doubled)] if doubled else [])
    for other in in_pieces(frame, unsorted):
        examples = [result["result"].pop("partial_unexpected_list", []) for result in other.validation["results"]]
        expected = [result["result"].get("partial_unexpected_list", []) for result in whole.validation["results"]]
        assert [len(e) for e in examples] == [len(e) for e in expected]
        stripped = [result | {"result": _without_examples(result["result"])} for result in whole.validation["results"]]
        assert other.validation["results"] == stripped
        assert [f.count for f in other.failures] == [f.count for f in whole.failures]
        assert all(x.rows.equals(y.rows) for x, y in zip(other.failures, whole.failures, strict=True))


def _without_examples(result: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name != "partial_unexpected_list"}


def test_wrong_order_is_caught_where_two_pieces_meet() -> None:
    rows = good(14).with_columns(number=pl.Series([*range(10, 17), *range(7)], dtype=pl.Int64))
    whole = audit(DS, rows, SESSION)
    assert [(f.rule, f.count) for f in whole.failures] == [("in order of `name`, `number`", 1)]
    assert all(same(other, whole) for other in in_pieces(rows, DS))


def test_a_file_with_other_columns_or_types_is_refused() -> None:
    for frame in (good().drop("flag"), good().select(sorted(good().columns)), good().cast({"number": pl.Int32}), good().head(0)):
        whole = audit(DS, frame, SESSION)
        assert not whole.success
        assert all(same(other, whole) for other in in_pieces(frame, DS))


def test_failing_rows_are_the_first_of_all_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "ROWS_KEPT", 10)
    frame = good(30).with_columns(number=pl.int_range(pl.len()) + 90)
    for result in in_pieces(frame, DS):
        failure = next(f for f in result.failures if f.column == "number")
        assert failure.count == 19
        assert failure.rows["number"].to_list() == list(range(101, 111))


@pytest.fixture
def names_judged(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many values of `name` Great Expectations is given each time."""
    seen: list[int] = []
    evaluate = Plan.evaluate

    def counting(plan: Plan, frame: Any) -> list[Verdict]:
        if list(frame.columns) == ["name"]:
            seen.append(len(frame))
        return evaluate(plan, frame)

    monkeypatch.setattr(Plan, "evaluate", counting)
    return seen


def test_a_text_is_judged_once_per_distinct_value(names_judged: list[int]) -> None:
    frame = good(40).with_columns(number=pl.int_range(pl.len()))
    assert all(result.success for result in in_pieces(frame, DS, rows=20))
    assert names_judged == [1, 1], "the table and the file, two pieces each, have one distinct name"


def test_a_text_of_too_many_values_is_judged_by_row(names_judged: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    frame = good(40).with_columns(pl.Series("name", [f"n{'abcdefgh'[i // 5]}" for i in range(40)]))
    whole = audit(DS, frame, SESSION)
    assert whole.success
    monkeypatch.setattr(streaming, "MOST_DISTINCT", 3)
    assert all(same(other, whole) for other in in_pieces(frame, DS, rows=20))
    assert names_judged == [20, 20, 20, 20], "two pieces of the table, two of the file, by row"


def test_a_number_is_judged_by_its_extremes(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[int]] = []
    evaluate = Plan.evaluate

    def noting(plan: Plan, frame: Any) -> list[Verdict]:
        if list(frame.columns) == ["number"]:
            seen.append(sorted(frame["number"].tolist()))
        return evaluate(plan, frame)

    monkeypatch.setattr(Plan, "evaluate", noting)
    assert all(result.success for result in in_pieces(good(40), DS, rows=20))
    assert seen == [[0, 19, 20, 39]] * 2, "the ends of two pieces, once for the table and once for the file"


def test_memory_follows_the_piece_and_not_the_file(tmp_path: Path) -> None:
    """Arrow's own count of what is held at once, for a file of one and of eight pieces."""
    import pyarrow as pa

    peaks = []
    for pieces in (1, 8):
        rows = 20_000 * pieces
        frame = pl.concat([good(20_000).with_columns(number=pl.lit(1, dtype=pl.Int64))] * pieces)
        path = tmp_path / f"{rows}.parquet"
        frame.write_parquet(path, row_group_size=20_000)
        held: list[int] = []
        source = streaming.FileSource(path)
        for piece in source.pieces(frame.columns, 20_000):
            assert piece.rows == 20_000
            held.append(pa.total_allocated_bytes())
        source.close()
        peaks.append(max(held))
    assert peaks[1] < 4 * peaks[0]  # a piece may not be let go yet when the next one is there


def test_a_disagreement_of_filter_and_expectation_is_an_error() -> None:
    lax = replace(NotNull(severity=Severity.WARNING))
    object.__setattr__(lax, "failing", lambda column: pl.lit(False) & pl.col(column).is_null())
    ds = replace(DS, name="disagreeing", columns=(*DS.columns[:4], Column("high", pl.Float64(), "High.", True), *DS.columns[5:]))
    ds = replace(ds, columns=tuple(replace(c, nullable=True, checks=(lax,)) if c.name == "high" else c for c in ds.columns))
    result = audit(ds, broken(high=None), SESSION)
    assert not result.success
    assert result.failures[0].rule == "`high` never null (Great Expectations counts 1 failing rows, the filter 0)"
    assert result.failures[0].severity is Severity.ERROR


numbers = st.one_of(st.none(), st.integers(-3, 3))
floats = st.one_of(st.none(), st.floats(-2, 2, allow_nan=False))
texts = st.one_of(st.none(), st.text("ab1", max_size=3))
column_checks = st.one_of(
    st.tuples(st.just("number"), st.builds(Between, low=st.integers(-2, 0), high=st.one_of(st.none(), st.integers(0, 2)))),
    st.tuples(st.just("number"), st.builds(OneOf, values=st.tuples(st.integers(-2, 2), st.integers(-2, 2)))),
    st.tuples(st.just("low"), st.builds(Between, low=st.floats(-1, 0), above=st.booleans())),
    st.tuples(st.just("name"), st.builds(Matches, pattern=st.sampled_from(["^a*$", "^[ab]{1,2}$", "^b?1$"]))),
    st.tuples(st.just("name"), st.builds(OneOf, values=st.tuples(st.text("ab", max_size=2)))),
    st.tuples(st.sampled_from(["name", "number", "low", "flag"]), st.builds(NotNull)),
)
table_checks: st.SearchStrategy[TableCheck] = st.one_of(
    st.just(NotAbove("low", "high")), st.just(Unique(("number", "flag"))), st.just(Unique(("name", "low", "number")))
)


def random_dataset(columns: list[tuple[str, Check]], tables: list[TableCheck]) -> Dataset:
    """Every column nullable, with the given checks; the name tells the checks, because plans are kept by name."""
    bare = tuple(
        replace(column, nullable=True, checks=tuple(check for name, check in columns if name == column.name))
        for column in DS.columns
    )
    return replace(DS, name="random", columns=bare, checks=tuple(tables), unique=False, may_be_empty=True, sort_by=("number",))


@given(
    st.lists(column_checks, max_size=4, unique_by=repr),
    st.lists(table_checks, max_size=2, unique_by=repr),
    st.lists(st.tuples(texts, numbers, floats, floats, st.one_of(st.none(), st.booleans())), min_size=1, max_size=8),
)
@settings(max_examples=30)
def test_expectation_and_filter_agree_on_random_rows(
    columns: list[tuple[str, Check]], tables: list[TableCheck], rows: list[tuple[Any, ...]]
) -> None:
    ds = random_dataset(columns, tables)
    values = pl.DataFrame(rows, schema=["name", "number", "low", "high", "flag"], orient="row", infer_schema_length=None)
    frame = values.with_columns(right=pl.lit("C"), big=pl.lit(None), ts_utc=pl.lit(MOMENT))
    conformed = ds.conform(frame, SESSION)
    result = audit(ds, conformed, SESSION)
    for other in in_pieces(conformed, ds, rows=3):
        assert [(f.rule, f.count) for f in other.failures] == [(f.rule, f.count) for f in result.failures]
        assert all(x.rows.equals(y.rows) for x, y in zip(other.failures, result.failures, strict=True))
        assert [r["success"] for r in other.validation["results"]] == [r["success"] for r in result.validation["results"]]
    assert not [failure.rule for failure in result.failures if "Great Expectations counts" in failure.rule]
    expected = {render.rule_text(name, check) for name, check in render.rules(ds)}
    assert {failure.rule for failure in result.failures} <= expected


def test_large_whole_numbers_beside_nulls_stay_exact() -> None:
    frame = pl.DataFrame({"big": [2**60 + 1, None], "small": [1, None]})
    plain = to_pandas(frame)
    assert plain["big"][0] == 2**60 + 1
    assert list(plain["big"].isna()) == [False, True]
    assert plain["small"].dtype == float


def test_an_audit_costs_little_once_its_plan_is_made() -> None:
    columns = (*DS.columns, *(Column(f"x{i:02d}", pl.Float64(), "Value.", checks=(Between(0),)) for i in range(12)))
    ds = replace(DS, name="wide", columns=columns)
    frame = ds.conform(good(1000).with_columns(**{f"x{i:02d}": pl.lit(1.0) for i in range(12)}), SESSION)
    audit(ds, frame, SESSION)
    times = []
    for _ in range(5):
        start = time.process_time()
        audit(ds, frame, SESSION)
        times.append(time.process_time() - start)
    assert min(times) < 0.2, "about 0.02 s on an idle machine; planning the suite anew every time costs several times that"


def test_data_docs_have_pages_and_an_honest_overview(tmp_path: Path) -> None:
    passed = audit(DS, good(), SESSION).validation
    failed = audit(DS, broken(right="<X>"), date(2024, 3, 5)).validation
    unsorted = audit(DS, good().reverse(), date(2024, 3, 6)).validation
    overview = build_data_docs([passed, failed, unsorted], tmp_path / "docs", {DS.name: DS})
    text = overview.read_text()
    assert "3 validations, 2 with a failed rule. Each has a page." in text
    assert "`right` one of C, P" in text
    assert "in order of `name`, `number`" in text
    pages = sorted(path.name for path in (tmp_path / "docs" / "site" / "validations").rglob("*.html"))
    assert len(pages) == 3
    assert "sample" in (tmp_path / "docs" / "site" / "index.html").read_text()
    again = build_data_docs([passed], tmp_path / "docs", {DS.name: DS})
    assert again == overview
    assert len(list((tmp_path / "docs" / "site" / "validations").rglob("*.html"))) == 1


def test_pages_go_to_failures_and_the_newest_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowlake.quality.data_docs.PAGES", 2)
    results = [
        {"suite_name": "s", "success": day != 1, "meta": {"session": f"2024-03-{day:02d}"}, "results": []} for day in range(1, 7)
    ]
    assert [r["meta"]["session"][-2:] for r in choose_pages(results)] == ["01", "06", "05"]
