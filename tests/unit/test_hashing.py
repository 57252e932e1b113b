"""The hash of a table: parts do not matter, every value does."""

from __future__ import annotations

import tempfile
from itertools import pairwise
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowlake.lake.hashing import DataHash, data_hash, file_data_hash

SCHEMA = {
    "text": pl.String(),
    "whole": pl.Int64(),
    "number": pl.Float64(),
    "flag": pl.Boolean(),
    "moment": pl.Datetime("ns", "UTC"),
    "texts": pl.List(pl.String()),
}
ROWS = st.lists(
    st.tuples(
        st.none() | st.text(max_size=3),
        st.none() | st.integers(-3, 3),
        st.none() | st.sampled_from([0.0, 1.5]),
        st.none() | st.booleans(),
        st.none() | st.integers(0, 3),
        st.none() | st.lists(st.none() | st.text(max_size=2), max_size=3),
    ),
    max_size=12,
)


def table(rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


@given(ROWS, st.lists(st.integers(0, 12), max_size=4))
def test_where_a_part_ends_does_not_matter(rows: list[tuple[Any, ...]], cuts: list[int]) -> None:
    whole = table(rows)
    hashing = DataHash(whole.schema)
    for start, end in pairwise(sorted({min(cut, whole.height) for cut in cuts} | {0, whole.height})):
        hashing.update(whole[start:end])
    assert hashing.hexdigest() == data_hash(whole)


@given(ROWS, ROWS)
def test_other_values_have_another_hash(one: list[tuple[Any, ...]], other: list[tuple[Any, ...]]) -> None:
    assert (data_hash(table(one)) == data_hash(table(other))) is (one == other)


@pytest.mark.parametrize(
    ("column", "one", "other"),
    [
        ("text", ["ab", "c"], ["a", "bc"]),
        ("text", [""], [None]),
        ("whole", [0], [None]),
        ("whole", [None, 0], [0, None]),
        ("flag", [False], [None]),
        ("texts", [[]], [None]),
        ("texts", [[None]], [[""]]),
        ("texts", [["a"], ["b"]], [["a", "b"], []]),
        ("texts", [[None], []], [[], [None]]),
    ],
)
def test_what_could_be_mistaken_for_each_other(column: str, one: list[Any], other: list[Any]) -> None:
    hashes = {data_hash(pl.DataFrame({column: values}, schema={column: SCHEMA[column]})) for values in (one, other)}
    assert len(hashes) == 2


def test_names_types_and_order_count() -> None:
    frame = pl.DataFrame({"a": [1, 2], "b": [1, 2]})
    others = [frame.rename({"a": "c"}), frame.select("b", "a"), frame.cast({"a": pl.Int32}), frame.reverse(), frame.head(1)]
    assert len({data_hash(one) for one in [frame, *others]}) == 1 + len(others)


@given(ROWS)
def test_a_file_has_the_hash_of_its_rows(rows: list[tuple[Any, ...]]) -> None:
    with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
        table(rows).write_parquet(file.name, row_group_size=3)
        assert file_data_hash(file.name) == data_hash(table(rows))
