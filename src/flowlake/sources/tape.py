"""Option trades from the pieces of a vendor's file to batches of the raw dataset, in memory that does not grow with the file.

A file that is not what such files are is not judged here: `WholeTableNeededError` says that the general reader must take it whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from isal import isal_zlib
from isal.igzip_lib import IsalError
from numpy.typing import NDArray

from flowlake.datasets.batch import Batch, Coded, Plain, Runs, WholeTableNeededError
from flowlake.datasets.model import KNOWN_AT
from flowlake.quant._instructions import BLOCK, WORD
from flowlake.sources import _tape
from flowlake.sources._cells import SPARE_ENDS
from flowlake.sources.contracts import midnight_ns
from flowlake.sources.text import GZIP_MAGIC

BATCH_ROWS = 262_144
_COMPRESSED = 1 << 16
_TEXT = 1 << 18
"""Bytes that are read, or inflated, at once."""
_ROOM = BATCH_ROWS + _TEXT // 4
"""Rows for which there is room at first; only a ticker with more rows than a batch needs more."""
_PADDING = bytes(BLOCK)
_GZIP = 31
_ROLES = {
    "ticker": _tape.TICKER,
    "conditions": _tape.CONDITIONS,
    "correction": _tape.CORRECTION,
    "exchange": _tape.EXCHANGE,
    "participant_timestamp": _tape.PARTICIPANT,
    "price": _tape.PRICE,
    "sip_timestamp": _tape.SIP,
    "size": _tape.SIZE,
}
_OPTIONAL = {"participant_timestamp"}


def pieces_of_file(path: Path) -> Iterator[bytes]:
    """The bytes of a file, a piece at a time."""
    with path.open("rb") as file:
        while piece := file.read(_COMPRESSED):
            yield piece


def pieces_of_body(body: bytes) -> Iterator[bytes]:
    """The same of an object in memory."""
    for start in range(0, len(body), _COMPRESSED):
        yield body[start : start + _COMPRESSED]


def option_trades(pieces: Iterable[bytes], file_date: date | None) -> Iterator[Batch]:
    """Batches of raw `massive_option_trades`, in its order: whole tickers, ascending, and within a ticker by time and row.

    `pieces` are those of a plain or gzipped file. Raises WholeTableNeededError, after batches were given too.
    """
    rows = _Rows()
    first, after = (0, 0) if file_date is None else (midnight_ns(file_date), midnight_ns(file_date + timedelta(days=1)))
    inside = total = 0
    for lines in _whole_lines(inflated(pieces)):
        if not rows.has_layout:
            lines = rows.take_header(lines)
        rows.read(lines)
        if rows.count >= BATCH_ROWS and (batch := rows.batch(leave_last=True)) is not None:
            total += batch.rows
            inside += _between(batch, first, after)
            yield batch
    batch = rows.batch(leave_last=False)
    if batch is None:
        raise WholeTableNeededError("there is no row")
    total += batch.rows
    inside += _between(batch, first, after)
    if file_date is not None and 2 * (total - inside) > total:
        raise WholeTableNeededError("most rows are of another date")
    yield batch


def _between(batch: Batch, first: int, after: int) -> int:
    moments = batch.plain("sip_timestamp").values
    if first <= moments.min() and moments.max() < after:
        return batch.rows
    return int(np.count_nonzero((moments >= first) & (moments < after)))


def inflated(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Text from plain or gzipped pieces, members one after the other, each with its checksum verified."""
    source = iter(pieces)
    head = next(source, b"")
    if not head.startswith(GZIP_MAGIC):
        yield head
        yield from source
        return
    member = isal_zlib.decompressobj(wbits=_GZIP)
    rest = head
    try:
        while True:
            while rest:
                if member.eof:
                    if not rest.startswith(GZIP_MAGIC):
                        raise WholeTableNeededError("something follows the gzip stream")
                    member = isal_zlib.decompressobj(wbits=_GZIP)
                text = member.decompress(rest, _TEXT)
                if text:
                    yield text
                rest = member.unused_data if member.eof else member.unconsumed_tail
            piece = next(source, None)
            if piece is None:
                break
            rest = piece
    except IsalError as error:  # type: ignore[misc]
        raise WholeTableNeededError(f"gzip is damaged: {error}") from error
    if not member.eof:
        raise WholeTableNeededError("the gzip stream ends early")


def _whole_lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The text cut behind line ends, with a block of padding; a line end is added to the last line if it lacks one."""
    held = b""
    for piece in pieces:
        end = piece.rfind(b"\n") + 1
        if end:
            yield b"".join((held, memoryview(piece)[:end], _PADDING))
            held = piece[end:]
        else:
            held += piece
        if len(held) > _TEXT:
            raise WholeTableNeededError("a line is very long")
    if held:
        yield held + b"\n" + _PADDING


@dataclass
class _Columns:
    """A cell per row, as the kernel fills them; the exchange time has none where the file does not have the column."""

    conditions: NDArray[np.int32]
    corrections: NDArray[np.int32]
    exchange: NDArray[np.int64]
    participant: NDArray[np.int64]
    has_participant: NDArray[np.bool_]
    price: NDArray[np.float64]
    sip: NDArray[np.int64]
    size: NDArray[np.float64]

    @classmethod
    def empty(cls, rows: int, has_exchange_time: bool) -> _Columns:
        timed = rows if has_exchange_time else 0
        return cls(
            np.empty(rows, np.int32),
            np.empty(rows, np.int32),
            np.empty(rows, np.int64),
            np.empty(timed, np.int64),
            np.empty(timed, np.bool_),
            np.empty(rows, np.float64),
            np.empty(rows, np.int64),
            np.empty(rows, np.float64),
        )

    def all(self) -> tuple[NDArray[Any], ...]:
        return tuple(vars(self).values())

    def part(self, start: int, stop: int) -> _Columns:
        return _Columns(*(column[start:stop] for column in self.all()))

    def in_order(self, order: NDArray[np.int64]) -> _Columns:
        return _Columns(*(column[order] if column.size else column for column in self.all()))

    def begin_with(self, other: _Columns) -> None:
        for mine, theirs in zip(self.all(), other.all(), strict=True):
            mine[: theirs.size] = theirs


class _Rows:
    """Rows that were read and not yet given away."""

    def __init__(self) -> None:
        self._layout: NDArray[np.int64] | None = None
        self._words = (_tape.Vocabulary(), _tape.Vocabulary())
        self._texts = [pl.Series(dtype=pl.String), pl.Series(dtype=pl.String)]
        self._given = 0
        self._has_exchange_time = False
        self._room = _ROOM
        self._columns = _Columns.empty(0, False)
        self._ticker_text = np.empty(1 << 22, np.uint8)
        self._ticker_ends = np.zeros(self._room + 2, np.int64)
        self._run_starts = np.empty(self._room + 1, np.int64)
        self._cell_ends = np.empty(0, np.int32)
        self._state = np.zeros(3, np.int64)

    @property
    def count(self) -> int:
        return int(self._state[0])

    @property
    def has_layout(self) -> bool:
        return self._layout is not None

    def take_header(self, lines: bytes) -> bytes:
        """Note which column stands where; gives the lines below."""
        end = lines.index(b"\n") + 1
        if not lines[:end].isascii() or b'"' in lines[:end]:
            raise WholeTableNeededError("the header is unusual")
        names = [name.strip().lower() for name in lines[:end].decode().rstrip("\r\n").split(",")]
        if len(set(names)) != len(names) or not set(names) <= _ROLES.keys() or not _ROLES.keys() - _OPTIONAL <= set(names):
            raise WholeTableNeededError("the columns are not those of option trades alone")
        if _ROLES[names[-1]] <= _tape.CORRECTION:
            raise WholeTableNeededError("the last column is a text")
        self._layout = np.array([_ROLES[name] for name in names], np.int64)
        self._has_exchange_time = _tape.PARTICIPANT in self._layout
        self._columns = self._empty_columns()
        return lines[end:]

    def _empty_columns(self) -> _Columns:
        return _Columns.empty(self._room, self._has_exchange_time)

    def read(self, lines: bytes) -> None:
        """Read whole lines, with their padding, behind the rows that are here."""
        assert self._layout is not None
        self._make_room(self.count + len(lines) // self._layout.size + 1, len(lines))
        buffer = np.frombuffer(lines, np.uint8)
        places = (self._cell_ends, self._ticker_text, self._ticker_ends, self._run_starts)
        conditions, corrections = self._words
        arrays: list[Any] = [*places, *self._columns.all(), self._state, conditions.arrays, corrections.arrays]
        if not _tape.read_rows(buffer, self._layout, *arrays):
            raise WholeTableNeededError(f"something behind row {self._given + self.count} is unusual")

    def _make_room(self, rows: int, text: int) -> None:
        used = int(self._ticker_ends[self._state[1]])
        if used + text + WORD > self._ticker_text.size:
            self._ticker_text = np.concatenate([self._ticker_text[:used], np.empty(used + 2 * text + WORD, np.uint8)])
        if text + SPARE_ENDS > self._cell_ends.size:
            self._cell_ends = np.empty(2 * text + SPARE_ENDS, np.int32)
        if rows <= self._room:
            return
        self._room = 2 * rows
        columns = self._empty_columns()
        columns.begin_with(self._columns.part(0, self.count))
        self._columns = columns
        tickers = int(self._state[1])
        self._ticker_ends = np.concatenate([self._ticker_ends[: tickers + 1], np.empty(self._room + 1, np.int64)])
        self._run_starts = np.concatenate([self._run_starts[:tickers], np.empty(self._room + 1, np.int64)])

    def batch(self, *, leave_last: bool) -> Batch | None:
        """The rows that are here, but for those of the last ticker where more of them may come; None where that is nothing."""
        tickers = int(self._state[1]) - leave_last
        rows = int(self._run_starts[tickers]) if leave_last else self.count
        if not rows:
            return None
        batch = self._made(rows, tickers)
        self._given += rows
        if leave_last:
            self._keep_last(rows, tickers)
        return batch

    def _keep_last(self, rows: int, tickers: int) -> None:
        left = self.count - rows
        given = self._columns
        if 2 * left <= _ROOM:
            self._room = _ROOM
        self._columns = self._empty_columns()
        self._columns.begin_with(given.part(rows, self.count))
        first, end = int(self._ticker_ends[tickers]), int(self._ticker_ends[tickers + 1])
        self._ticker_text[: end - first] = self._ticker_text[first:end].copy()
        self._ticker_ends[:2] = 0, end - first
        self._run_starts[0] = 0
        self._state[:] = left, 1, bool(np.any(np.diff(self._columns.sip[:left]) < 0))

    def _made(self, rows: int, tickers: int) -> Batch:
        columns = self._columns.part(0, rows)
        starts = np.append(self._run_starts[:tickers], rows)
        lengths = np.diff(starts)
        numbers = np.arange(self._given, self._given + rows)
        if self._state[2]:
            order = np.lexsort((columns.sip, np.repeat(np.arange(tickers), lengths)))
            columns, numbers = columns.in_order(order), numbers[order]
        self._texts = [
            pl.Series(words.texts, dtype=pl.String) if words.count[0] != texts.len() else texts
            for words, texts in zip(self._words, self._texts, strict=True)
        ]
        sip = Plain(columns.sip)
        if self._has_exchange_time:
            exchange_time = Plain(columns.participant, None if columns.has_participant.all() else columns.has_participant)
        else:
            exchange_time = Plain(np.broadcast_to(np.int64(0), rows), np.broadcast_to(np.False_, rows))
        return Batch(
            rows,
            {
                "ticker": Runs(lengths, self._tickers(tickers)),
                "conditions": Coded(columns.conditions, self._texts[0]),
                "correction": Coded(columns.corrections, self._texts[1]),
                "exchange": Plain(columns.exchange),
                "participant_timestamp": exchange_time,
                "price": Plain(columns.price),
                "sip_timestamp": sip,
                "size": Plain(columns.size),
                "row": Plain(numbers),
                "extra": Coded(np.full(rows, -1, np.int32), pl.Series(dtype=pl.String)),
                KNOWN_AT: sip,
            },
        )

    def _tickers(self, count: int) -> pl.Series:
        ends = self._ticker_ends[: count + 1].copy()
        text = self._ticker_text[: ends[-1]].copy()
        return pl.Series(pa.LargeStringArray.from_buffers(count, pa.py_buffer(ends), pa.py_buffer(text)))
