"""Rows of a dataset on their way from a parser to a file, in batches: tables too large to be held whole.

A column of a batch has one of three forms, each the cheapest for what it holds: a number per row, a code per row into a few
distinct values, or one value per run of rows. Batches of a stream are in the dataset's total order, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Any, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from flowlake.datasets.model import SESSION, Dataset, Finding

T = TypeVar("T")


@dataclass(frozen=True)
class Plain:
    """A number per row, in the column's physical type. `valid` is None where no row is null."""

    values: NDArray[Any]
    valid: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Coded:
    """A code per row into `values`, which may repeat; -1 is null. All batches of a stream number their values alike."""

    codes: NDArray[np.int32]
    values: pl.Series


@dataclass(frozen=True)
class Runs:
    """`values[i]` stands in the next `lengths[i]` rows; no value is null."""

    lengths: NDArray[np.int64]
    values: pl.Series


BatchColumn = Plain | Coded | Runs


@dataclass(frozen=True)
class Batch:
    """`rows` rows of a dataset, its columns by name (with `known_at_utc`, without `session`)."""

    rows: int
    columns: dict[str, BatchColumn]

    def plain(self, name: str) -> Plain:
        """A column of which it is known that it comes as numbers; TypeError where it does not."""
        return _of_form(Plain, self.columns[name])

    def coded(self, name: str) -> Coded:
        return _of_form(Coded, self.columns[name])

    def runs(self, name: str) -> Runs:
        return _of_form(Runs, self.columns[name])


Form = TypeVar("Form", Plain, Coded, Runs)


def _of_form(form: type[Form], column: BatchColumn) -> Form:
    if not isinstance(column, form):
        raise TypeError(f"the column is {type(column).__name__}, not {form.__name__}")
    return column


@dataclass(frozen=True)
class Stream:
    """A table in batches. `findings` is complete once the batches have been used up."""

    dataset: Dataset
    batches: Iterator[Batch]
    findings: Callable[[], tuple[Finding, ...]] = tuple


class WholeTableNeededError(Exception):
    """Something in a stream can only be judged with the whole table at hand. It may be right all the same."""


class _Once:
    """Work done once for the same objects: a column under two names stays one, and so do codes under several columns."""

    def __init__(self) -> None:
        self._done: dict[tuple[int, ...], Any] = {}

    def __call__(self, of: Sequence[Any], make: Callable[[], T]) -> T:
        key = tuple(id(thing) for thing in of)
        if key not in self._done:
            self._done[key] = make()
        made: T = self._done[key]
        return made


def part(batch: Batch, start: int, stop: int) -> Batch:
    """The rows from `start` up to `stop`."""
    if start == 0 and stop == batch.rows:
        return batch
    once = _Once()
    columns = {name: once([column], partial(_part, column, start, stop, once)) for name, column in batch.columns.items()}
    return Batch(stop - start, columns)


def joined(parts: Sequence[Batch]) -> Batch:
    """Neighbouring batches of a stream as one."""
    if len(parts) == 1:
        return parts[0]
    once = _Once()
    columns = {}
    for name in parts[0].columns:
        pieces = [batch.columns[name] for batch in parts]
        columns[name] = once(pieces, partial(_joined, pieces, once))
    return Batch(sum(batch.rows for batch in parts), columns)


def _part(column: BatchColumn, start: int, stop: int, once: _Once) -> BatchColumn:
    if isinstance(column, Plain):
        return Plain(column.values[start:stop], None if column.valid is None else column.valid[start:stop])
    if isinstance(column, Coded):
        return Coded(once([column.codes], lambda: column.codes[start:stop]), column.values)
    if start == stop:
        return Runs(column.lengths[:0], column.values.head(0))
    ends = np.cumsum(column.lengths)
    first, last = int(np.searchsorted(ends, start, side="right")), int(np.searchsorted(ends, stop, side="left"))
    lengths = column.lengths[first : last + 1].copy()
    lengths[0] = min(int(ends[first]), stop) - start
    if last > first:
        lengths[-1] = stop - int(ends[last - 1])
    return Runs(lengths, column.values.slice(first, last + 1 - first))


def _joined(pieces: Sequence[BatchColumn], once: _Once) -> BatchColumn:
    if isinstance(pieces[0], Coded):
        coded = [piece for piece in pieces if isinstance(piece, Coded)]
        codes = [piece.codes for piece in coded]
        return Coded(once(codes, lambda: np.concatenate(codes)), max((piece.values for piece in coded), key=len))
    if isinstance(pieces[0], Runs):
        return joined_runs([piece for piece in pieces if isinstance(piece, Runs)])
    plain = [piece for piece in pieces if isinstance(piece, Plain)]
    valid = None
    if any(piece.valid is not None for piece in plain):
        valid = np.concatenate([np.ones(len(p.values), np.bool_) if p.valid is None else p.valid for p in plain])
    return Plain(np.concatenate([piece.values for piece in plain]), valid)


def joined_runs(pieces: Sequence[Runs]) -> Runs:
    """A run that goes on in the next piece becomes one."""
    lengths: list[NDArray[np.int64]] = []
    values: list[pl.Series] = []
    for piece in pieces:
        goes_on = bool(values and piece.lengths.size) and values[-1][-1] == piece.values[0]
        if goes_on:
            lengths[-1] = np.append(lengths[-1][:-1], lengths[-1][-1] + piece.lengths[0])
        if piece.lengths.size > goes_on:
            lengths.append(piece.lengths[goes_on:])
            values.append(piece.values.slice(goes_on))
    return Runs(np.concatenate(lengths), pl.concat(values, rechunk=True)) if values else pieces[0]


def to_frame(batch: Batch, ds: Dataset, rows: NDArray[np.int64] | None = None, session: date | None = None) -> pl.DataFrame:
    """The batch, or some rows of it in their order, as a table of the declared columns; with `session` if one is given."""
    taken = np.arange(batch.rows) if rows is None else rows
    frame = pl.DataFrame([series(name, batch.columns[name], dtype, taken) for name, dtype in ds.polars_schema().items()])
    return frame if session is None else frame.hstack([pl.Series(SESSION, [session], pl.Date).new_from_index(0, taken.size)])


def series(name: str, column: BatchColumn, dtype: pl.DataType, rows: NDArray[np.int64]) -> pl.Series:
    """Some rows of a column as a series of its declared type."""
    if isinstance(column, Plain):
        found = pl.Series(name, column.values[rows])
        if column.valid is not None:
            found = found.set(pl.Series(~column.valid[rows]), None)
        return found.cast(pl.Datetime("ns")).dt.replace_time_zone("UTC") if isinstance(dtype, pl.Datetime) else found.cast(dtype)
    if isinstance(column, Runs):
        runs = np.searchsorted(np.cumsum(column.lengths), rows, side="right")
        return column.values[runs].alias(name).cast(dtype)
    codes = column.codes[rows]
    if (codes < 0).any():
        return column.values.gather(pl.Series(codes).set(pl.Series(codes < 0), None)).alias(name).cast(dtype)
    return column.values[codes].alias(name).cast(dtype)


def from_frame(frame: pl.DataFrame, ds: Dataset) -> Batch:
    """A conformed table as one batch."""
    return Batch(frame.height, {name: _column(frame.get_column(name), name in ds.runs) for name in ds.polars_schema()})


def _column(values: pl.Series, as_runs: bool) -> BatchColumn:
    if as_runs:
        runs = values.rle()
        return Runs(runs.struct.field("len").to_numpy().astype(np.int64), runs.struct.field("value"))
    if values.dtype in (pl.String, pl.Boolean):
        distinct = values.drop_nulls().unique().sort()
        codes = values.replace_strict(distinct, pl.Series(np.arange(distinct.len(), dtype=np.int32)), default=-1)
        return Coded(codes.fill_null(-1).cast(pl.Int32).to_numpy(), distinct)
    physical = values.to_physical()
    valid = None if not values.null_count() else values.is_not_null().to_numpy()
    return Plain(physical.fill_null(0).to_numpy(), valid)
