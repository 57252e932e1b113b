"""Option quotes from a sheet of a vendor's file (see `pieces`), where it is as plain as such files are."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from flowlake.datasets.raw import MASSIVE_OPTION_QUOTES
from flowlake.quant._instructions import BLOCK
from flowlake.sources import _quote_rows
from flowlake.sources._cells import SPARE_ENDS
from flowlake.sources.table import as_declared

_WHOLES = ("ask_exchange", "bid_exchange", "sip_timestamp", "sequence_number")
_DECIMALS = ("ask_price", "ask_size", "bid_price", "bid_size")
_TICKER, _OPTIONAL = "ticker", "sequence_number"
_COLUMNS = {_TICKER, *_WHOLES, *_DECIMALS}
_SHORTEST_LINE = 2 * len(_COLUMNS) - 1
"""A byte for each cell but the one that may be blank, and one behind each."""
_BLOCK_BYTES = 1 << 18
"""Of text that is read at once: what is noted of it stays in the processor's cache."""


def read(sheet: bytes) -> pl.DataFrame | None:
    """The rows below the header of `sheet`, as `massive.option_quotes` gives them; None where they are for the general reader."""
    first = sheet.find(b"\n") + 1
    if not first or not sheet[:first].isascii():
        return None
    names = [name.strip().lower() for name in sheet[:first].decode().rstrip("\r\n").split(",")]
    if len(names) != len(_COLUMNS) or set(names) != _COLUMNS or names[-1] == _TICKER:
        return None
    lines = sheet if sheet.endswith(b"\n") else sheet + b"\n"
    rows = _Rows(names, lines.count(b"\n", first))
    while first < len(lines):
        last = lines.rfind(b"\n", first, first + _BLOCK_BYTES) + 1 or lines.find(b"\n", first) + 1
        if not rows.read(b"".join((memoryview(lines)[first:last], bytes(BLOCK)))):
            return None
        first = last
    return rows.table() if rows.count else None


class _Rows:
    """The columns of a sheet while its lines are read."""

    def __init__(self, names: list[str], most: int) -> None:
        cells = [np.array([names.index(name) for name in group]) for group in (_WHOLES, _DECIMALS)]
        self._layout: tuple[Any, ...] = (*cells, names.index(_TICKER), names.index(_OPTIONAL))
        self._ends = np.empty(_BLOCK_BYTES + BLOCK + SPARE_ENDS, np.int32)
        self._wholes, self._decimals = np.empty((len(_WHOLES), most), np.int64), np.empty((len(_DECIMALS), most))
        self._valid = np.empty(most, np.bool_)
        self._runs = np.empty((_BLOCK_BYTES // _SHORTEST_LINE, 3), np.int64)
        self._starts: list[NDArray[np.int64]] = []
        self._tickers: list[str] = []
        self.count = 0

    def read(self, lines: bytes) -> bool:
        """Read whole lines, with their padding; False where something in them is unusual."""
        buffer = np.frombuffer(lines, np.uint8)
        if buffer.size > self._ends.size - SPARE_ENDS:
            return False  # a very long line
        into: list[Any] = [self._ends, self.count, self._wholes, self._decimals, self._valid, self._runs]
        end, found = _quote_rows.read_rows(buffer, *self._layout, *into)
        if end < 0:
            return False
        self._starts.append(self._runs[:found, 0].copy())
        self._tickers += [lines[first:last].decode("ascii") for first, last in self._runs[:found, 1:].tolist()]
        self.count = end
        return True

    def table(self) -> pl.DataFrame:
        rows = self.count
        lengths = np.diff(np.append(np.concatenate(self._starts), rows))
        of_row = np.repeat(np.arange(lengths.size, dtype=np.uint32), lengths)
        numbers = {name: pl.Series(values[:rows]) for name, values in zip(_WHOLES, self._wholes, strict=True)}
        numbers[_OPTIONAL] = numbers[_OPTIONAL].set(pl.Series(~self._valid[:rows]), None)
        columns = {
            _TICKER: pl.Series(self._tickers, dtype=pl.String).gather(of_row),
            **numbers,
            **{name: values[:rows] for name, values in zip(_DECIMALS, self._decimals, strict=True)},
            "row": np.arange(rows),
            "extra": pl.Series([None], dtype=pl.String).new_from_index(0, rows),
        }
        return as_declared(pl.DataFrame(columns), MASSIVE_OPTION_QUOTES)
