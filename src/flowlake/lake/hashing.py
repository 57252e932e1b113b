"""Hashes of values, not of files: equal tables hash equally whatever wrote them."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import polars as pl


def data_hash(frame: pl.DataFrame) -> str:
    """SHA-256 over names, types and values, row by row order included.

    The frame must be normalised as `Dataset.conform` leaves it: declared column order and types, total order, no NaN.
    """
    digest = hashlib.sha256()
    for name in frame.columns:
        series = frame.get_column(name)
        digest.update(f"{name}:{series.dtype}:{series.len()}".encode())
        _update(digest, series)
    return digest.hexdigest()


def _update(digest: Any, series: pl.Series) -> None:
    if isinstance(series.dtype, pl.List):
        digest.update(series.list.len().fill_null(2**32 - 1).to_numpy().tobytes())
        series = series.explode()
    if series.null_count():
        digest.update(series.is_null().to_numpy().tobytes())
    if series.dtype == pl.String:
        texts = series.fill_null("")
        digest.update(texts.str.len_bytes().to_numpy().tobytes())
        digest.update(_text_bytes(texts))
        return
    physical = series.to_physical()
    filled = physical.fill_null(False) if physical.dtype == pl.Boolean else physical.fill_null(0)
    digest.update(filled.to_numpy().tobytes())


def _text_bytes(texts: pl.Series) -> memoryview:
    array = texts.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    _, offsets, data = array.buffers()
    if data is None:
        return memoryview(b"")
    ends = np.frombuffer(offsets, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    return memoryview(data)[ends[0] : ends[-1]]


def json_hash(value: object) -> str:
    """SHA-256 of the canonical JSON of plain data."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":"), default=str).encode()).hexdigest()
