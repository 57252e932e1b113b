"""A partition that is written a part at a time: the same bytes however it comes, and what other readers read of it."""

from __future__ import annotations

import dataclasses
import io
from datetime import date
from itertools import pairwise
from pathlib import Path

import duckdb
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowlake.datasets.packets import FLOW_PACKETS, PACKET_PRINTS
from flowlake.lake import parts
from flowlake.lake.hashing import data_hash, file_data_hash
from flowlake.lake.partitions import decode, encode

DAY = date(2024, 3, 13)
SMALL_GROUPS = dataclasses.replace(PACKET_PRINTS, row_group_size=7)


def prints(count: int) -> pl.DataFrame:
    frame = pl.DataFrame(
        {
            "print_no": range(count),
            "packet_id": [f"XYZ-{i // 3}" for i in range(count)],
            "leg": 1,
            "contract": ["XYZ240315C00100000" if i % 2 else None for i in range(count)],
            "ts_utc": pl.Series(range(count), dtype=pl.Int64).cast(pl.Datetime("ns", "UTC")),
            "size": [None if i % 5 == 0 else i for i in range(count)],
        }
    )
    return PACKET_PRINTS.conform(frame, DAY)


@given(st.integers(0, 40), st.lists(st.integers(0, 40), max_size=6))
def test_bytes_do_not_depend_on_how_the_rows_come(count: int, cuts: list[int]) -> None:
    table = prints(count)
    ends = sorted({min(cut, count) for cut in cuts} | {0, count})
    pieces = [table[start:end] for start, end in pairwise(ends)]
    whole = parts.encode(SMALL_GROUPS, [table], {"a": "b"})
    assert parts.encode(SMALL_GROUPS, pieces, {"a": "b"}) == whole
    assert decode(whole, "part.parquet").equals(table)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 30])
def test_other_readers_read_the_same_rows(count: int, tmp_path: Path) -> None:
    table = prints(count)
    path = tmp_path / "part.parquet"
    path.write_bytes(parts.encode(SMALL_GROUPS, [table], {"flowlake": "lineage"}))
    assert pl.read_parquet_schema(path) == PACKET_PRINTS.polars_schema()
    assert file_data_hash(path) == data_hash(table)
    (found,) = duckdb.sql(f"select count(*), coalesce(sum(size), 0), count(contract) from '{path}'").fetchall()
    assert found == (count, table["size"].sum(), table["contract"].count())


def test_the_newest_moment_is_known() -> None:
    writer = parts.PartWriter(io.BytesIO(), SMALL_GROUPS)
    assert writer.known_last is None
    table = prints(9)
    for piece in (table[:4], table[4:]):
        writer.write(piece)
    assert writer.known_last == table["known_at_utc"].to_physical().max()
    assert writer.rows == 9


def test_a_dataset_in_parts_is_encoded_so_as_a_whole_table_too() -> None:
    table = prints(9)
    assert encode(PACKET_PRINTS, table) == parts.encode(PACKET_PRINTS, [table[:2], table[2:]], {})
    assert FLOW_PACKETS.in_parts
