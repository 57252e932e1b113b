"""A large partition judged in pieces: its memory is that of a piece, its verdicts are those on the whole.

Rows are read once, some row groups at a time. A rule about a column sees that column alone, and first a few values that stand for
all: of a text, a flag or a code the distinct ones (a Parquet file holds those of texts as dictionaries), of a number that has to
lie between limits the least, the largest and null. Where these are right, so are the rows. Where one is not, the rows themselves
are judged, so a failing rule counts and shows the same rows either way. Uniqueness and order go across pieces: a key can only be
repeated where its hash is, and each piece is compared with the last row before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np
import polars as pl

from flowlake.datasets import render
from flowlake.datasets.model import out_of_order
from flowlake.quality.expectations import SHAPE_RULES, Plan, Suite, Verdict, counted, merged, to_pandas

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

CHUNK_ROWS = 262_144
"""Rows of a piece, two row groups: above it memory grows and time hardly falls, of a table of many numbers it even grows."""
ROWS_KEPT = 1000
"""Failing rows that are kept per rule: enough to see the pattern, small enough to store."""
WHOLE_CELLS = 250_000
"""A table of so many cells is judged in one piece: there the number of evaluations costs more than the copies that are made."""
_FAILS = "_fails"
_BY_PRESENCE = {"expect_column_values_to_not_be_null"}
_BY_EXTREMES = {"expect_column_values_to_be_between", *_BY_PRESENCE}
"""Expectations that all values of a column meet if the least, the largest and null, where there is one, meet them."""
_BY_MEMBERS = {"expect_column_values_to_be_in_set", *_BY_PRESENCE}
MOST_DISTINCT = 2_000_000
"""Values of a column above which they are not kept: the contracts of a session are fewer."""

Numbers = np.ndarray[Any, np.dtype[np.int64]]
"""Numbers of rows of a partition, from 0."""


# --- Where rows come from ------------------------------------------------------------------------------------------


class Piece(Protocol):
    """Some neighbouring rows of a partition."""

    @property
    def rows(self) -> int: ...

    def frame(self, columns: Sequence[str]) -> pl.DataFrame: ...

    def values(self, column: str) -> tuple[pl.Series, int]:
        """Every value of a column at least once, null too where there is one, and the number of nulls."""
        ...

    def nulls(self, column: str) -> int: ...

    def ranked(self, columns: Sequence[str]) -> pl.DataFrame:
        """The columns with values that are in the same order within this piece: a text may be a number."""
        ...

    def slice(self, start: int, rows: int) -> Piece: ...


class Source(Protocol):
    """The rows of a partition, in pieces that are read anew each time."""

    schema: dict[str, pl.DataType]
    rows: int

    def pieces(self, columns: Sequence[str], rows: int) -> Iterator[Piece]: ...

    def read(self) -> pl.DataFrame: ...


@dataclass(frozen=True)
class TablePiece:
    table: pl.DataFrame

    @property
    def rows(self) -> int:
        return self.table.height

    def frame(self, columns: Sequence[str]) -> pl.DataFrame:
        return self.table.select(columns)

    def values(self, column: str) -> tuple[pl.Series, int]:
        series = self.table.get_column(column)
        return series.unique(), series.null_count()

    def nulls(self, column: str) -> int:
        return self.table.get_column(column).null_count()

    def ranked(self, columns: Sequence[str]) -> pl.DataFrame:
        return self.frame(columns)

    def slice(self, start: int, rows: int) -> Piece:
        return TablePiece(self.table.slice(start, rows))


class TableSource:
    """A table in memory."""

    def __init__(self, table: pl.DataFrame) -> None:
        self.schema = dict(table.schema)
        self.rows = table.height
        self._table = table

    def pieces(self, columns: Sequence[str], rows: int) -> Iterator[Piece]:
        for start in range(0, self.rows, rows):
            yield TablePiece(self._table.select(columns).slice(start, rows))

    def read(self) -> pl.DataFrame:
        return self._table


@dataclass(frozen=True)
class FilePiece:
    """Row groups as Arrow holds them, texts as dictionaries."""

    table: pa.Table

    @property
    def rows(self) -> int:
        return int(self.table.num_rows)

    def frame(self, columns: Sequence[str]) -> pl.DataFrame:
        made = pl.DataFrame(self.table.select(columns))
        return made.with_columns(pl.col(pl.Categorical).cast(pl.String))

    def values(self, column: str) -> tuple[pl.Series, int]:
        coded = self.table.column(column)
        if not _is_coded(coded):
            return pl.Series(column, coded).unique(), coded.null_count
        dictionaries = [pl.Series(column, chunk.dictionary, dtype=pl.String) for chunk in coded.chunks]
        if coded.null_count:
            dictionaries.append(pl.Series(column, [None], dtype=pl.String))
        return pl.concat(dictionaries).unique(), coded.null_count

    def nulls(self, column: str) -> int:
        return int(self.table.column(column).null_count)

    def ranked(self, columns: Sequence[str]) -> pl.DataFrame:
        return pl.DataFrame([self._ranks(name) for name in columns])

    def _ranks(self, column: str) -> pl.Series:
        import pyarrow as pa

        if not _is_coded(self.table.column(column)):
            return pl.Series(column, self.table.column(column))
        coded = self.table.column(column).unify_dictionaries()
        order = pl.Series(column, coded.chunk(0).dictionary, dtype=pl.String).arg_sort()
        rank = order.arg_sort().alias(column)
        return rank.gather(pl.Series(pa.chunked_array([chunk.indices for chunk in coded.chunks])))

    def slice(self, start: int, rows: int) -> Piece:
        return FilePiece(self.table.slice(start, rows))


def _is_coded(column: pa.ChunkedArray) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_dictionary(column.type))


class FileSource:
    """A Parquet file, or its bytes as an open file. A piece holds whole row groups, so one that is huge is read at once."""

    def __init__(self, file: str | Path | IO[bytes]) -> None:
        import pyarrow.parquet as pq

        if not isinstance(file, (str, Path)):
            file.seek(0)
        self.schema = dict(pl.read_parquet_schema(file))
        self._opened = pq.ParquetFile(file, read_dictionary=_dictionaries(pq.read_metadata(file)))
        self._group_rows = [self._opened.metadata.row_group(i).num_rows for i in range(self._opened.num_row_groups)]
        self.rows = sum(self._group_rows)

    def pieces(self, columns: Sequence[str], rows: int) -> Iterator[Piece]:
        for groups in _grouped(self._group_rows, rows):
            yield FilePiece(self._opened.read_row_groups(groups, columns=list(columns), use_threads=False))

    def close(self) -> None:
        self._opened.close()

    def read(self) -> pl.DataFrame:
        columns = list(self.schema)
        return pl.concat([pl.DataFrame(schema=self.schema), *(p.frame(columns) for p in self.pieces(columns, self.rows))])


def _dictionaries(file: pq.FileMetaData) -> list[str]:
    """Columns that the file holds as dictionaries. To make one of texts that hardly repeat costs more than all other reading."""
    first = [file.row_group(0).column(i) for i in range(file.num_columns)] if file.num_row_groups else []
    return [column.path_in_schema for column in first if column.physical_type == "BYTE_ARRAY" and column.has_dictionary_page]


def _grouped(sizes: Sequence[int], rows: int) -> Iterator[list[int]]:
    """Numbers of neighbouring row groups, as many as have up to `rows` rows together, but at least one."""
    groups: list[int] = []
    held = 0
    for number, size in enumerate(sizes):
        if groups and held + size > rows:
            yield groups
            groups, held = [], 0
        groups.append(number)
        held += size
    if groups:
        yield groups


# --- What is found -------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """How many rows fail a rule by its own filter, and the first of them."""

    count: int = 0
    kept: list[pl.DataFrame] = field(default_factory=list)

    def add(self, piece: Piece, failing: pl.Series, columns: Sequence[str]) -> None:
        count = int(failing.sum() or 0)
        room = ROWS_KEPT - sum(frame.height for frame in self.kept)
        self.count += count
        if count and room > 0:
            self.kept.append(piece.frame(columns).filter(failing).head(room))

    @property
    def rows(self) -> pl.DataFrame:
        return pl.concat(self.kept)


class _StandIn(Protocol):
    """What is kept of a column while its pieces pass: values that stand for all, and the number of nulls."""

    missing: int

    def note(self, piece: Piece, column: str) -> None: ...

    def standing(self) -> pl.DataFrame | None:
        """The values; None where no few can stand for all."""
        ...


class _Extremes:
    """Least and largest value of a column, and null where there is one."""

    def __init__(self) -> None:
        self.missing = 0
        self._found: list[pl.DataFrame] = []
        self._has_nan = False

    def note(self, piece: Piece, column: str) -> None:
        values = piece.frame([column])
        series = values.to_series()
        self.missing += series.null_count()
        self._has_nan |= series.dtype.is_float() and bool(series.is_nan().any())
        self._found += [values.min(), values.max()]

    def standing(self) -> pl.DataFrame | None:
        """None where not-a-number is among them, which is neither least nor largest."""
        if self._has_nan or not self._found:
            return None
        found = pl.concat(self._found)
        present = found.drop_nulls().unique()
        return pl.concat([present, found.clear(1)]) if self.missing else present


class _Distinct:
    """Every value of a column, null too where there is one."""

    def __init__(self) -> None:
        self.missing = 0
        self._found: list[pl.Series] = []
        self._held = 0
        self._are_too_many = False

    def note(self, piece: Piece, column: str) -> None:
        if self._are_too_many:
            return
        values, missing = piece.values(column)
        self.missing += missing
        self._found.append(values)
        self._held += values.len()
        if self._held > MOST_DISTINCT:
            self._found = [pl.concat(self._found).unique()]
            self._held = self._found[0].len()
            self._are_too_many = self._held > MOST_DISTINCT // 2

    def standing(self) -> pl.DataFrame | None:
        """None where there are too many to be kept."""
        return None if self._are_too_many or not self._found else pl.concat(self._found).unique().to_frame()


class _Presence:
    """The first value of a column, and null where there is one: enough to tell whether all are there."""

    def __init__(self) -> None:
        self.missing = 0
        self._first: pl.DataFrame | None = None

    def note(self, piece: Piece, column: str) -> None:
        self.missing += piece.nulls(column)
        if self._first is None:
            self._first = piece.slice(0, 1).frame([column])

    def standing(self) -> pl.DataFrame | None:
        if self._first is None or not self.missing:
            return self._first
        return pl.concat([self._first, self._first.clear(1)])


@dataclass(frozen=True)
class Judged:
    """Verdicts in the order of the suite, a tally per rule, and one of the rows that are out of order."""

    verdicts: list[Verdict]
    tallies: list[Tally]
    disorder: Tally


def judge(suite: Suite, source: Source) -> Judged:
    """A table in one piece where it is small enough for that to be the quicker way, else in several."""
    cells = source.rows * len(suite.dataset.column_names)
    return _Judge(suite, source).whole() if cells <= WHOLE_CELLS else _Judge(suite, source).in_pieces()


class _Judge:
    def __init__(self, suite: Suite, source: Source) -> None:
        self._suite, self._source = suite, source
        self._sort_by = suite.dataset.sort_by
        self._schema = suite.dataset.polars_schema()
        self._columns = list(self._schema)
        self._conditions = [_filter(column, check) for column, check in render.rules(suite.dataset)]
        self._tallies = [Tally() for _ in self._conditions]
        self._disorder = Tally()
        self._verdicts: dict[int, Verdict] = {}

    def whole(self) -> Judged:
        table = self._source.read()
        piece = TablePiece(table)
        self._note(self._suite.whole.evaluate(to_pandas(table)))
        every = table.with_columns(condition.alias(f"{_FAILS}{i}") for i, condition in enumerate(self._conditions))
        for i, tally in enumerate(self._tallies):
            tally.add(piece, every.get_column(f"{_FAILS}{i}"), self._columns)
        self._tally_order(piece, None)
        return self._judged()

    def in_pieces(self) -> Judged:
        self._note(self._suite.shape(self._columns, self._source.rows))
        keys = [_Key(index, columns, plan) for index, (columns, plan) in self._suite.unique.items()]
        found = {columns: self._stand_in(columns) for columns in self._suite.by_columns}
        stand_ins = {columns[0]: stand_in for columns, stand_in in found.items() if stand_in is not None}
        others = {columns: plan for columns, plan in self._suite.by_columns.items() if found[columns] is None}
        above: pl.DataFrame | None = None
        for piece in self._source.pieces(self._columns, CHUNK_ROWS):
            for columns, plan in others.items():
                self._note(self._by_row(columns, plan, piece))
            for column, stand_in in stand_ins.items():
                stand_in.note(piece, column)
            for key in keys:
                key.note(piece.frame(key.columns))
            above = self._tally_order(piece, above)
        self._judge_stand_ins(stand_ins)
        for key in keys:
            self._judge_key(key)
        return self._judged()

    def _judged(self) -> Judged:
        return Judged([self._verdicts[index] for index in sorted(self._verdicts)], self._tallies, self._disorder)

    def _note(self, verdicts: Sequence[Verdict]) -> None:
        for verdict in verdicts:
            known = self._verdicts.get(verdict.index)
            self._verdicts[verdict.index] = verdict if known is None else merged(known, verdict)

    def _by_standing(self, plan: Plan, standing: pl.DataFrame, rows: int, missing: int) -> list[Verdict]:
        """The verdicts on `rows` values for which a few stand, if every one is right; else none."""
        verdicts = plan.evaluate(to_pandas(standing))
        if all(verdict.success and not self._failing(verdict.index, standing).any() for verdict in verdicts):
            return [counted(verdict, rows, missing) for verdict in verdicts]
        return []

    def _stand_in(self, columns: tuple[str, ...]) -> _StandIn | None:
        """What tells whether the rules of a column hold without a look at each row; None where nothing does."""
        if len(columns) > 1:
            return None
        kinds = {self._suite.expectations[index]["type"] for index in self._suite.by_columns[columns].indices}
        dtype = self._schema[columns[0]]
        if kinds <= _BY_PRESENCE:
            return _Presence()
        if kinds <= _BY_EXTREMES and (dtype.is_numeric() or dtype.is_temporal()):
            return _Extremes()
        return _Distinct() if dtype in (pl.String, pl.Boolean) or (dtype.is_integer() and kinds <= _BY_MEMBERS) else None

    def _judge_stand_ins(self, stand_ins: dict[str, _StandIn]) -> None:
        """Columns of which the values that stand for all do not decide, or are wrong, are read once more and judged by row."""
        by_row = []
        for column, stand_in in stand_ins.items():
            columns, standing = (column,), stand_in.standing()
            plan = self._suite.by_columns[columns]
            verdicts = [] if standing is None else self._by_standing(plan, standing, self._source.rows, stand_in.missing)
            self._note(verdicts)
            by_row += [] if verdicts else [(columns, plan)]
        for piece in self._source.pieces(self._columns, CHUNK_ROWS) if by_row else ():
            for columns, plan in by_row:
                self._note(self._by_row(columns, plan, piece))

    def _by_row(self, columns: tuple[str, ...], plan: Plan, piece: Piece) -> list[Verdict]:
        rows = piece.frame(columns)
        verdicts = plan.evaluate(to_pandas(rows))
        for verdict in verdicts:
            self._tally(verdict.index, rows, piece)
        return verdicts

    def _failing(self, index: int, frame: pl.DataFrame) -> pl.Series:
        """True on the rows that the check's own filter names; `index` is that of the expectation."""
        condition = self._conditions[index - len(SHAPE_RULES)]
        return frame.with_columns(condition.alias(_FAILS)).get_column(_FAILS)

    def _tally(self, index: int, rows: pl.DataFrame, piece: Piece) -> None:
        self._tallies[index - len(SHAPE_RULES)].add(piece, self._failing(index, rows), self._columns)

    def _tally_order(self, piece: Piece, above: pl.DataFrame | None) -> pl.DataFrame:
        """Count the rows of a piece that belong before the row above them; gives the keys of the piece's last row."""
        failing = _disorder(piece.ranked(self._sort_by), self._sort_by)
        if above is not None and _disorder(pl.concat([above, piece.slice(0, 1).frame(self._sort_by)]), self._sort_by)[1]:
            failing = failing.clone().scatter(0, values=True)
        self._disorder.add(piece, failing, self._columns)
        return piece.slice(piece.rows - 1, 1).frame(self._sort_by)

    def _judge_key(self, key: _Key) -> None:
        """Only rows whose key may be repeated are put before Great Expectations, as many at once as a piece has."""
        failing: list[Numbers] = []
        for numbers in key.repeated():
            candidates = self._rows(numbers, key.columns)
            self._note([key.plan.evaluate(to_pandas(candidates))[0]])
            failing.append(numbers[self._failing(key.index, candidates).to_numpy()])
        verdict = self._verdicts[key.index]
        self._verdicts[key.index] = counted(verdict, self._source.rows, key.missing)
        found = np.sort(np.concatenate(failing))
        if found.size:
            kept = self._rows(found[:ROWS_KEPT], self._columns)
            self._tallies[key.index - len(SHAPE_RULES)] = Tally(int(found.size), [kept])

    def _rows(self, numbers: Numbers, columns: Sequence[str]) -> pl.DataFrame:
        """The rows of the partition with these numbers, which come in order."""
        found, first = [pl.DataFrame(schema={name: self._schema[name] for name in columns})], 0
        for piece in self._source.pieces(columns, CHUNK_ROWS) if numbers.size else ():
            inside = numbers[(numbers >= first) & (numbers < first + piece.rows)] - first
            if inside.size:
                found.append(piece.frame(columns)[inside])
            first += piece.rows
        return pl.concat(found)


class _Key:
    """Which keys of a partition may be repeated: those whose hash is."""

    def __init__(self, index: int, columns: tuple[str, ...], plan: Plan) -> None:
        self.index, self.columns, self.plan = index, columns, plan
        self.missing = 0
        self._hashes: list[np.ndarray[Any, np.dtype[np.uint64]]] = []

    def note(self, rows: pl.DataFrame) -> None:
        self._hashes.append(rows.hash_rows().to_numpy())
        self.missing += rows.get_column(self.columns[0]).null_count() if len(self.columns) == 1 else 0

    def repeated(self) -> Iterator[Numbers]:
        """Numbers of rows whose hash another row has too; rows of one hash come together. At least one, perhaps empty, array."""
        hashes = np.concatenate(self._hashes)
        ordered = pl.Series(hashes).sort().to_numpy()  # faster than NumPy's sort, in which most of the search went
        twice = ordered[1:][ordered[1:] == ordered[:-1]]
        numbers = np.flatnonzero(np.isin(hashes, np.unique(twice))) if twice.size else np.empty(0, dtype=np.int64)
        parts = max(-(-numbers.size // CHUNK_ROWS), 1)
        for part in range(parts):
            yield numbers[hashes[numbers] % np.uint64(parts) == part]


def _filter(column: str | None, check: Any) -> pl.Expr:
    """The check's own filter."""
    condition: pl.Expr = check.failing() if column is None else check.failing(column)
    return condition


def _disorder(keys: pl.DataFrame, columns: Sequence[str]) -> pl.Series:
    return keys.with_columns(out_of_order(columns).alias(_FAILS)).get_column(_FAILS)
