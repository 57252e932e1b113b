"""Where a tape may be cut between underlyings."""

from __future__ import annotations

from itertools import pairwise

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from flowlake.datasets.slices import SLICE_ROWS, ranges, slices


def test_an_underlying_of_two_roots_stays_whole_with_what_lies_between() -> None:
    """The tape is in order of roots: SPX, SPXL and SPXW, of which the first and the last are options on the same index."""
    tape = pl.Series(["AAPL", "SPX", "SPXL", "SPX", "SPY", "SPY", "TSLA"])
    assert ranges(tape, 1) == [(0, 1), (1, 4), (4, 6), (6, 7)]


def test_a_cut_keeps_the_order_of_names() -> None:
    """An adjusted root can stand elsewhere in the tape than its underlying among the names."""
    assert ranges(pl.Series(["A", "C", "B", "D"]), 1) == [(0, 1), (1, 3), (3, 4)]
    assert ranges(pl.Series(["D", "C", "B", "A"]), 1) == [(0, 4)]


def test_an_empty_tape_is_one_empty_slice() -> None:
    assert ranges(pl.Series([], dtype=pl.String), 5) == [(0, 0)]


@given(st.lists(st.tuples(st.sampled_from("ABCDEFGH"), st.integers(1, 4)), max_size=20), st.integers(1, 12))
def test_slices_share_no_name_and_follow_each_other(runs: list[tuple[str, int]], least: int) -> None:
    names = [name for name, length in runs for _ in range(length)]
    found = ranges(pl.Series(names, dtype=pl.String), least)
    assert [start for start, _ in found] == [0, *(end for _, end in found[:-1])]
    assert found[-1][1] == len(names)
    held = [set(names[start:end]) for start, end in found]
    for before, after in pairwise(held):
        assert max(before) < min(after)
    assert all(end - start >= least for start, end in found[:-1])
    # No slice could have ended earlier.
    for start, end in found:
        for middle in range(start + least, end):
            assert not max(names[start:middle]) < min(names[middle:])


def test_what_is_sliced_is_cut_and_the_rest_is_whole() -> None:
    tape = pl.DataFrame({"underlying": ["A"] * SLICE_ROWS + ["B"] * 3, "size": 1})
    prices = pl.DataFrame({"underlying": ["B", "A", "C", "A"], "price": [1, 2, 3, 4]})
    actions = pl.DataFrame({"underlying": ["B"]})
    first, second = slices({"tape": tape, "prices": prices, "actions": actions}, ("tape", "prices", "absent"))
    assert (first["tape"].height, second["tape"].height) == (SLICE_ROWS, 3)
    assert (first["prices"]["price"].to_list(), second["prices"]["price"].to_list()) == ([2, 4], [1])
    assert first["actions"].height == second["actions"].height == 1
    assert "absent" not in first
