"""Chains of Cboe's delayed quotes, one file per index and date, captured after the close.

The first line is `# spot,7431.4600,ts,2026-06-13 15:30:32`; the header follows. Its time may be of the next day.
"""

from __future__ import annotations

import math
import re
from datetime import date, datetime

import polars as pl

from flowlake.core.errors import BadInputError
from flowlake.datasets.raw import CBOE_SNAPSHOT
from flowlake.sources.table import as_declared, read_columns
from flowlake.sources.text import plain_text

_FIRST_LINE = re.compile(r"#\s*spot,(?P<spot>[^,]+),ts,(?P<ts>\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2})\s*")
_FROM_FIRST_LINE = ("underlying", "spot", "captured_at")


def snapshot(key: str, body: bytes, file_date: date | None) -> pl.DataFrame:
    """Raw table `cboe_snapshot` of one file; the underlying is the folder that the file lies in.

    Raises BadInputError (see `table.read_columns`), `wrong_header` for a first line of another form, and `wrong_date` where the
    chain was captured before the date that the key gives.
    """
    text = plain_text(key, body)
    spot, captured_at = _first_line(key, text.split(b"\n", 1)[0].decode("utf-8"))
    if file_date is not None and datetime.fromisoformat(captured_at).date() < file_date:
        what = f"the chain was captured at {captured_at}, before {file_date}"
        raise BadInputError(key, "wrong_date", what, "put the file under the key of its own date, and fetch the right one")
    columns = [column for column in CBOE_SNAPSHOT.columns if column.name not in _FROM_FIRST_LINE]
    frame = read_columns(key, text, columns, lines_above_header=1)
    underlying = key.rsplit("/", 2)[-2].upper()
    return as_declared(
        frame.with_columns(
            pl.lit(underlying).alias("underlying"),
            pl.lit(spot).alias("spot"),
            pl.lit(captured_at).alias("captured_at"),
        ),
        CBOE_SNAPSHOT,
    )


def _first_line(key: str, line: str) -> tuple[float, str]:
    found = _FIRST_LINE.fullmatch(line)
    if found is None:
        what = f"the first line is {line[:120]!r}; expected '# spot,<level>,ts,<YYYY-MM-DD HH:MM:SS>'"
        raise BadInputError(key, "wrong_header", what, "check that the file under this key is what the key says")
    try:
        spot = float(found["spot"])
        datetime.fromisoformat(found["ts"])
    except ValueError as error:
        what = f"the first line is {line[:120]!r}: {error}"
        raise BadInputError(key, "bad_number", what, "correct the first line of the file") from error
    if not math.isfinite(spot):
        raise BadInputError(key, "bad_number", f"the first line gives the spot {spot}", "correct the first line of the file")
    return spot, found["ts"]
