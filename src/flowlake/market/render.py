"""From tables to the bytes of vendor files: CSV in the vendor's spelling, gzip with a fixed time."""

from __future__ import annotations

import gzip
import io

import polars as pl

_LEVEL = 2


def as_text(table: pl.DataFrame) -> pl.DataFrame:
    """Every column as the text that the vendor writes: whole numbers without `.0`, missing values empty."""
    return table.with_columns(
        pl.col(pl.Float64).cast(pl.String).str.strip_suffix(".0"),
        pl.col(pl.Int8, pl.Int64, pl.UInt32, pl.Date).cast(pl.String),
    )


def csv_bytes(text: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    text.write_csv(buffer)
    return buffer.getvalue()


def compressed(csv: bytes) -> bytes:
    return gzip.compress(csv, compresslevel=_LEVEL, mtime=0)
