"""The kernel that reads option quotes from the text of a vendor's file, as long as the file is what such files are.

At anything unusual it stops, and the general reader of `table` takes the text: nothing is decided here about bad input.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowlake.quant._compile import kernel
from flowlake.sources._cells import QUOTE, Bytes, Ends, cell_ends, decimals, integers, is_again, unquoted

_ASCII = 128
_PRINTABLE = 32


@kernel
def read_rows(
    buffer: Bytes,
    whole_cells: NDArray[np.int64],
    decimal_cells: NDArray[np.int64],
    ticker_cell: int,
    optional_cell: int,
    ends: Ends,
    begin: int,
    wholes: NDArray[np.int64],
    fractions: NDArray[np.float64],
    valid: NDArray[np.bool_],
    runs: NDArray[np.int64],
) -> tuple[int, int]:
    """Read whole lines to the arrays behind row `begin`; where the rows end, and in how many runs of equal tickers they come. -1
    where something is unusual.

    The last BLOCK bytes of `buffer` are zeros. `wholes[i]` becomes the numbers of the cell `whole_cells[i]`, `fractions` likewise;
    `valid` tells where the optional one is not blank. `runs[r]` is the first row of a run and where its ticker begins and ends.
    `ends` has room for a cell a byte and SPARE_ENDS, `runs` for a run a line.
    """
    cells = 1 + whole_cells.size + decimal_cells.size
    rows = cell_ends(buffer, cells, ends)
    end = begin + rows
    if rows < 0 or end > valid.size:
        return -1, 0
    for i in range(whole_cells.size):
        cell = whole_cells[i]
        if not integers(buffer, ends, cell, cells, wholes[i, begin:end], valid[begin:end], cell == optional_cell):
            return -1, 0
    for i in range(decimal_cells.size):
        if not decimals(buffer, ends, decimal_cells[i], cells, fractions[i, begin:end]):
            return -1, 0
    found = 0
    first = length = np.int64(0)
    for row in range(rows):
        k = row * cells + ticker_cell
        start = np.int64(ends[k]) + 1
        stop = np.int64(ends[k + 1])
        if stop - start == length > 0 and is_again(buffer, start, buffer, first, length):
            continue
        first, length = start, stop - start
        start, stop = unquoted(buffer, start, stop)
        if start == stop:
            return -1, 0
        for i in range(start, stop):
            if buffer[i] >= _ASCII or buffer[i] < _PRINTABLE or buffer[i] == QUOTE:
                return -1, 0
        runs[found, 0], runs[found, 1], runs[found, 2] = begin + row, start, stop
        found += 1
    return end, found
