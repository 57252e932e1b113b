"""What is rendered from the declarations is complete, true to them, and equal to the committed files."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from flowlake.datasets import render
from flowlake.datasets.checks import Between, Matches, NotAbove, OneOf, Severity
from flowlake.datasets.curated import OPTION_BARS_1D
from flowlake.datasets.model import UTC_NS, Column, Dataset, KnownAt, Layer
from flowlake.datasets.registry import DATASETS

ROOT = Path(__file__).resolve().parents[2]

TINY = Dataset(
    name="tiny",
    layer=Layer.DERIVED,
    doc="A small dataset.",
    grain=("name",),
    columns=(
        Column("name", pl.String(), "Name.", checks=(Matches("^[a-z]+$"),)),
        Column("right", pl.String(), "C or P.", checks=(OneOf(("C", "P"), severity=Severity.WARNING),)),
        Column("low", pl.Float64(), "Low.", unit="USD", nullable=True, checks=(Between(0, above=True),)),
        Column("high", pl.Float64(), "High | highest.", unit="USD", nullable=True),
        Column("ts_utc", UTC_NS, "Moment."),
        Column("path", pl.List(pl.Float64()), "Points."),
    ),
    sort_by=("name",),
    known=KnownAt("ts_utc"),
    checks=(NotAbove("low", "high"),),
)
MOMENT = datetime(2024, 3, 4, 15, tzinfo=UTC)


def tiny_frame() -> pl.DataFrame:
    frame = pl.DataFrame(
        {
            "name": ["a", "b"],
            "right": ["C", "P"],
            "low": [1.0, None],
            "high": [2.0, 3.0],
            "ts_utc": [MOMENT, MOMENT.replace(hour=16)],
            "path": [[1.0], []],
        }
    )
    return TINY.conform(frame, date(2024, 3, 4))


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_a_row_is_known_at_its_moment_whatever_the_unit_of_the_frame(unit: Any) -> None:
    frame = tiny_frame().drop("known_at_utc").with_columns(pl.col("ts_utc").dt.cast_time_unit(unit))
    assert TINY.conform(frame, date(2024, 3, 4))["known_at_utc"].to_list() == [MOMENT, MOMENT.replace(hour=16)]


def test_a_row_is_known_at_its_very_nanosecond() -> None:
    frame = tiny_frame().drop("known_at_utc").with_columns(pl.col("ts_utc") + pl.duration(nanoseconds=789))
    conformed = TINY.conform(frame, date(2024, 3, 4))
    assert conformed["known_at_utc"].to_physical().equals(conformed["ts_utc"].to_physical().alias("known_at_utc"))
    assert conformed["known_at_utc"].to_physical()[0] % 1000 == 789


def committed() -> dict[str, str]:
    paths = [*(ROOT / "expectations").glob("*.json"), *(ROOT / "src/flowlake/datasets/rendered").glob("*")]
    paths.append(ROOT / render.DICTIONARY_PATH)
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths if path.is_file()}


def test_committed_renderings_are_those_of_the_declarations() -> None:
    differences = render.drift(render.render_all(DATASETS), committed())
    assert not differences, "run `flowlake render`:\n" + "\n".join(differences)


def test_drift_says_which_side_lacks_what() -> None:
    lines = render.drift({"a": "1\n2\n", "b": "x"}, {"a": "1\n3\n", "c": "y"})
    assert lines == [
        "b: declared, but the file does not exist",
        "c: the file exists, but nothing declares it",
        "a: the file lacks 2",
        "a: the declaration lacks 3",
    ]
    assert render.drift({"a": "1\n2"}, {"a": "2\n1"}) == ["a: the same lines in another order or number"]
    assert render.drift({"a": "1"}, {"a": "1"}) == []


@pytest.mark.parametrize("ds", DATASETS.values(), ids=lambda ds: ds.name)
def test_every_declaration_renders(ds: Dataset) -> None:
    suite = render.gx_suite(ds)
    assert json.loads(render.suite_text(ds)) == suite
    assert len(suite["expectations"]) == 2 + len(render.rules(ds))
    schema = render.arrow_schema(ds)
    assert schema.names == list(ds.polars_schema())
    assert schema.field(0).metadata[b"doc"].decode() == ds.columns[0].doc
    connection = duckdb.connect()
    connection.execute(render.duckdb_view(ds, "nowhere", exists=False))
    described = connection.execute(f'DESCRIBE "{ds.name}"').fetchall()
    assert [name for name, *_ in described][: len(ds.columns)] == ds.column_names


def test_arrow_schema_holds_a_conformed_frame() -> None:
    table = tiny_frame().to_arrow().cast(render.arrow_schema(TINY))
    assert table.num_rows == 2
    assert table.schema.field("low").nullable
    assert not table.schema.field("name").nullable
    assert table.schema.field("low").metadata == {b"doc": b"Low.", b"unit": b"USD"}


def test_suite_says_every_rule_with_its_severity() -> None:
    expectations = render.gx_suite(TINY)["expectations"]
    rules = {e["meta"]["rule"]: (e["type"], e["severity"]) for e in expectations}
    assert rules["`right` one of C, P"] == ("expect_column_values_to_be_in_set", "warning")
    assert rules["`low` above 0"] == ("expect_column_values_to_be_between", "critical")
    assert rules["`low` is at most `high`"] == ("expect_column_pair_values_a_to_be_greater_than_b", "critical")
    assert rules["one row per `name`"] == ("expect_column_values_to_be_unique", "critical")
    assert expectations[0]["kwargs"]["column_list"] == [*TINY.column_names, "known_at_utc"]
    assert expectations[1]["kwargs"] == {"min_value": 1}
    assert "`high` never null" not in rules


def test_suite_loads_in_great_expectations() -> None:
    from great_expectations.core.expectation_suite import ExpectationSuite

    suite = ExpectationSuite(**json.loads(render.suite_text(TINY)))
    assert len(suite.expectations) == len(render.gx_suite(TINY)["expectations"])
    warning = next(e for e in suite.expectations if e.notes == "`right` one of C, P")
    assert warning.severity.value == "warning"


def write_partition(root: Path) -> Path:
    path = root / "derived" / "tiny" / "session=2024-03-04" / "part.parquet"
    path.parent.mkdir(parents=True)
    tiny_frame().write_parquet(path)
    return path


def test_view_reads_partitions_with_their_session(tmp_path: Path) -> None:
    path = write_partition(tmp_path)
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(render.duckdb_view(TINY, str(tmp_path)))
    filled = connection.execute("DESCRIBE tiny").fetchall()
    assert connection.execute("SELECT name, session FROM tiny ORDER BY name").fetchall() == [
        ("a", date(2024, 3, 4)),
        ("b", date(2024, 3, 4)),
    ]
    assert connection.execute("SELECT hour(ts_utc) FROM tiny ORDER BY name").fetchall() == [(15,), (16,)]
    connection.execute(render.duckdb_view(TINY, "nowhere", exists=False))
    assert connection.execute("DESCRIBE tiny").fetchall() == filled, "the empty view has the columns and types of the full one"
    connection.execute(render.duckdb_view(TINY, "nowhere", files=[str(path)]))
    assert connection.execute("SELECT count(*) FROM tiny").fetchone() == (2,)


def test_view_tells_the_session_of_a_lake_below_a_folder_named_like_one(tmp_path: Path) -> None:
    root = tmp_path / "session=2020-01-02" / "it's [a] lake"
    write_partition(root)
    connection = duckdb.connect()
    connection.execute(render.duckdb_view(TINY, str(root)))
    assert connection.execute("SELECT DISTINCT session FROM tiny").fetchall() == [(date(2024, 3, 4),)]


def with_columns_added() -> Dataset:
    """TINY after two declarations of today: one that a newer partition has, and one that no file has yet."""
    added = (
        Column("size", pl.Int64(), "Size.", nullable=True),
        Column("seen_utc", UTC_NS, "Moment.", nullable=True),
        Column("tags", pl.List(pl.String()), "Tags.", nullable=True),
    )
    return replace(TINY, columns=(added[0], *TINY.columns, *added[1:]))


def test_partitions_written_before_a_column_was_declared_read_as_null(tmp_path: Path) -> None:
    ds = with_columns_added()
    write_partition(tmp_path)
    connection = duckdb.connect()
    connection.execute(render.duckdb_view(ds, "nowhere", exists=False))
    wanted = connection.execute("DESCRIBE tiny").fetchall()
    connection.execute(render.duckdb_view(ds, str(tmp_path)))
    assert connection.execute("DESCRIBE tiny").fetchall() == wanted
    query = "SELECT name, high, size, seen_utc, tags, session FROM tiny ORDER BY session, name"
    old = [("a", 2.0, None, None, None, date(2024, 3, 4)), ("b", 3.0, None, None, None, date(2024, 3, 4))]
    assert connection.execute(query).fetchall() == old
    newer = tmp_path / "derived" / "tiny" / "session=2024-03-05" / "part.parquet"
    newer.parent.mkdir()
    tiny_frame().with_columns(pl.lit(7, dtype=pl.Int64()).alias("size")).write_parquet(newer)
    new = [("a", 2.0, 7, None, None, date(2024, 3, 5)), ("b", 3.0, 7, None, None, date(2024, 3, 5))]
    assert connection.execute(query).fetchall() == old + new


def test_a_query_opens_the_files_of_its_sessions_only(tmp_path: Path) -> None:
    write_partition(tmp_path)
    broken = tmp_path / "derived" / "tiny" / "session=2024-03-05" / "part.parquet"
    broken.parent.mkdir()
    broken.write_bytes(b"not Parquet")
    connection = duckdb.connect()
    connection.execute(render.duckdb_view(TINY, str(tmp_path)))
    assert connection.execute("SELECT count(name) FROM tiny WHERE session = DATE '2024-03-04'").fetchone() == (2,)
    connection.execute(render.duckdb_view(TINY, str(tmp_path), last_session=date(2024, 3, 4)))
    assert connection.execute("SELECT count(name) FROM tiny").fetchone() == (2,)
    connection.execute(render.duckdb_view(TINY, str(tmp_path)))
    with pytest.raises(duckdb.Error, match="2024-03-05"):
        connection.execute("SELECT count(name) FROM tiny")


@pytest.mark.parametrize("ds", DATASETS.values(), ids=lambda ds: ds.name)
def test_every_view_reads_a_file_of_its_dataset(ds: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "session=2024-03-04" / "part.parquet"
    path.parent.mkdir()
    pl.DataFrame([[None] * len(ds.polars_schema())], schema=ds.polars_schema(), orient="row").write_parquet(path)
    connection = duckdb.connect()
    connection.execute(render.duckdb_view(ds, "nowhere", exists=False))
    wanted = connection.execute(f'DESCRIBE "{ds.name}"').fetchall()
    connection.execute(render.duckdb_view(ds, "nowhere", files=[str(path)]))
    assert connection.execute(f'DESCRIBE "{ds.name}"').fetchall() == wanted
    assert len(connection.execute(f'SELECT * FROM "{ds.name}"').fetchall()) == 1


def test_view_as_of_hides_what_became_known_later(tmp_path: Path) -> None:
    write_partition(tmp_path)
    connection = duckdb.connect()

    def names(**limits: datetime | date) -> list[tuple[str, ...]]:
        connection.execute(render.duckdb_view(TINY, str(tmp_path), **limits))  # type: ignore[arg-type]
        return connection.execute("SELECT name FROM tiny ORDER BY name").fetchall()

    assert names(as_of=MOMENT) == [("a",)]
    assert names(as_of=MOMENT.replace(hour=14)) == []
    assert names(last_session=date(2024, 3, 1)) == []
    with pytest.raises(ValueError, match="timezone-aware"):
        render.duckdb_view(TINY, str(tmp_path), as_of=datetime(2024, 3, 4))  # noqa: DTZ001


def test_dictionary_tells_type_unit_meaning_and_checks() -> None:
    text = render.data_dictionary([TINY, OPTION_BARS_1D])
    assert text.index("### option_bars_1d") < text.index("### tiny"), "layers come in their own order"
    assert "| `low` | DOUBLE | USD | Low. | may be null; above 0 |" in text
    assert "| `high` | DOUBLE | USD | High \\| highest. | may be null |" in text
    assert "never null; one of C, P (warning)" in text
    assert "- known: `ts_utc`" in text


def test_suite_hash_follows_the_rules() -> None:
    changed = Dataset(**{**{f: getattr(TINY, f) for f in TINY.__dataclass_fields__}, "checks": ()})
    assert render.suite_hash(changed) != render.suite_hash(TINY)
