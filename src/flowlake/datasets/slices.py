"""A session cut into sets of underlyings, so that what works on one after the other needs memory for one alone.

For whatever takes every underlying by itself: of any set of underlyings it makes what it makes of them in the whole session. Cuts
lie where the order of the tape and that of the names agree, so that what is made, one after the other, is in order as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import polars as pl

from flowlake.datasets.model import Inputs

SLICE_ROWS = 250_000
"""Rows of the tape from which a slice ends as soon as it may. More of them need more memory, fewer more time."""


def is_large(tape: pl.DataFrame) -> bool:
    """Whether cutting it is worth the trouble."""
    return tape.height >= 2 * SLICE_ROWS


def slices(inputs: Inputs, sliced: tuple[str, ...]) -> Iterator[dict[str, pl.DataFrame]]:
    """The inputs for each slice in turn, those of `sliced` cut by `underlying`. The first of `sliced` is the tape."""
    tape = inputs[sliced[0]]
    parts = [tape.slice(start, end - start) for start, end in ranges(tape.get_column("underlying"))]
    numbers = {name: number for number, part in enumerate(parts) for name in part.get_column("underlying").unique()}
    others = {name: _cut(inputs[name], numbers, len(parts)) for name in sliced[1:] if name in inputs}
    for number, part in enumerate(parts):
        yield {**inputs, **{name: tables[number] for name, tables in others.items()}, sliced[0]: part}


def _cut(table: pl.DataFrame, numbers: dict[str, int], count: int) -> list[pl.DataFrame]:
    """The rows of each slice in their order; `numbers` gives the slice of an underlying. No copy where rows come slice by slice."""
    runs = table.get_column("underlying").rle()
    of_run = runs.struct.field("value").replace_strict(numbers, default=count, return_dtype=pl.Int64).to_numpy()
    number = np.repeat(of_run, runs.struct.field("len").to_numpy())
    if np.any(np.diff(number) < 0):
        order = np.argsort(number, kind="stable")
        table, number = table[order], number[order]
    edges = np.searchsorted(number, np.arange(count + 1))
    return [table.slice(start, end - start) for start, end in pairwise(edges.tolist())]


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
