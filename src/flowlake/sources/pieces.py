"""Files that are too large to be held, taken apart into small ones of the same form, which the ordinary parsers read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date

import polars as pl

from flowlake.datasets.batch import WholeTableNeededError
from flowlake.sources.contracts import rows_of_date

SHEET_BYTES = 8_000_000
_LONGEST_LINE = 1_000_000


def sheets(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The text of a CSV in sheets of about `size` bytes, each of whole lines below the header of the file.

    Raises WholeTableNeededError where a line has no end.
    """
    header = b""
    held: list[bytes] = []
    many = given = 0
    for piece in pieces:
        held.append(piece)
        many += len(piece)
        if many < size:
            continue
        text = b"".join(held)
        start = 0
        if not header:
            start = text.find(b"\n") + 1
            header = text[:start]
        while header and len(text) - start >= size:
            end = (text.rfind(b"\n", start, start + size) + 1) or (text.find(b"\n", start + size) + 1)
            if not end:
                break
            yield header + text[start:end]
            start, given = end, given + 1
        held, many = [text[start:]], len(text) - start
        if many > size + _LONGEST_LINE:
            raise WholeTableNeededError("a line is very long")
    rest = b"".join(held)
    if rest.strip() or not given:
        yield header + rest


@dataclass
class Dated:
    """Counts the rows of a file that are of its date, in the column `clock`."""

    clock: str
    file_date: date
    rows: int = 0
    inside: int = 0

    def checked(self, piece: pl.DataFrame) -> pl.DataFrame:
        """The piece, counted."""
        self.rows += piece.height
        self.inside += rows_of_date(piece[self.clock], self.file_date)
        return piece

    def check(self) -> None:
        """WholeTableNeededError where most rows are of another date."""
        if 2 * self.inside < self.rows:
            raise WholeTableNeededError("most rows are of another date")
