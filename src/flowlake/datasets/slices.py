"""A session cut into sets of underlyings, so that what works on one after the other needs memory for one alone.

For whatever takes every underlying by itself: of any set of underlyings it makes what it makes of them in the whole session. Cuts
lie where the order of the tape and that of the names agree, so that what is made, one after the other, is in order as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Protocol

import numpy as np
import polars as pl

SLICE_ROWS = 500_000
"""Rows of the tape from which a slice ends as soon as it may. More of them need more memory, fewer more time."""


class Rows(Protocol):
    """A table, in memory or not."""

    @property
    def height(self) -> int: ...

    def get_column(self, name: str, /) -> pl.Series: ...

    def slice(self, offset: int, length: int, /) -> pl.DataFrame: ...


def large_rows() -> int:
    """From so many rows on cutting a tape is worth the trouble."""
    return 2 * SLICE_ROWS


def slices(inputs: Mapping[str, Rows], sliced: tuple[str, ...]) -> Iterator[dict[str, pl.DataFrame]]:
    """The inputs for each slice in turn, those of `sliced` cut by `underlying`. The first of `sliced` is the tape.

    Rows of a table that is not in memory are read as their turn comes.
    """
    tables = {name: table for name, table in inputs.items() if name in sliced[1:]}
    others = {name: table.slice(0, table.height) for name, table in inputs.items() if name not in sliced}
    tape = inputs[sliced[0]]
    underlyings = tape.get_column("underlying")
    bounds = ranges(underlyings)
    numbers = {name: number for number, (start, end) in enumerate(bounds) for name in underlyings[start:end].unique()}
    cut = {sliced[0]: (tape, bounds), **{name: _cut(table, numbers, len(bounds)) for name, table in tables.items()}}
    for number in range(len(bounds)):
        of_slice = {name: (table, edges[number]) for name, (table, edges) in cut.items()}
        yield {**others, **{name: table.slice(start, end - start) for name, (table, (start, end)) in of_slice.items()}}


def _cut(table: Rows, numbers: dict[str, int], count: int) -> tuple[Rows, list[tuple[int, int]]]:
    """The table in the order of slices, and where each begins and ends; `numbers` gives the slice of an underlying."""
    runs = table.get_column("underlying").rle()
    of_run = runs.struct.field("value").replace_strict(numbers, default=count, return_dtype=pl.Int64).to_numpy()
    number = np.repeat(of_run, runs.struct.field("len").to_numpy())
    if np.any(np.diff(number) < 0):
        order = np.argsort(number, kind="stable")
        table, number = table.slice(0, table.height)[order], number[order]
    return table, list(pairwise(np.searchsorted(number, np.arange(count + 1)).tolist()))


def ranges(underlyings: pl.Series, least_rows: int | None = None) -> list[tuple[int, int]]:
    """First row and end of slices of a tape: `least_rows`, else `SLICE_ROWS`, or more each but for the last.

    No underlying is in two slices, and every underlying of a slice comes by name before every one of the next. An empty tape is
    one empty slice.
    """
    if underlyings.is_empty():
        return [(0, 0)]
    runs = underlyings.rle()
    names, lengths = runs.struct.field("value"), runs.struct.field("len").to_numpy().astype(np.int64)
    place = names.rank("dense").to_numpy().astype(np.int64)
    ends = np.cumsum(lengths)
    # A slice may end behind a run where all names so far are below all names to come.
    highest = np.maximum.accumulate(place)
    lowest = np.minimum.accumulate(place[::-1])[::-1]
    may_end = np.append(highest[:-1] < lowest[1:], True)
    least = SLICE_ROWS if least_rows is None else least_rows
    found, start = [], 0
    for end in ends[may_end]:
        if end - start >= least or end == ends[-1]:
            found.append((start, int(end)))
            start = int(end)
    return found
