"""Columns of tables as arrays, and long tables as matrices of underlyings and sessions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import numpy as np
import polars as pl

from flowlake.core.arrays import Float
from flowlake.datasets.model import SESSION


def floats(column: pl.Series) -> Float:
    """The values as floats, NaN where there is none."""
    return column.cast(pl.Float64).fill_null(np.nan).to_numpy()


def session_matrices(
    underlyings: pl.Series, long: pl.DataFrame, names: Sequence[str], window: Sequence[date | None]
) -> dict[str, Float]:
    """Each named column of `long` as underlyings x sessions of `window`; NaN where there is no value.

    `long` has a row per underlying and session, in any order; other underlyings and sessions are passed over.
    """
    row = pl.DataFrame({"underlying": underlyings, "row": np.arange(underlyings.len())})
    column = pl.DataFrame({SESSION: window, "column": np.arange(len(window))}, schema_overrides={SESSION: pl.Date()})
    cells = long.select("underlying", SESSION, *names).join(row, on="underlying").join(column, on=SESSION)
    places = cells["row"].to_numpy(), cells["column"].to_numpy()
    matrices = {}
    for name in names:
        matrices[name] = np.full((underlyings.len(), len(window)), np.nan)
        matrices[name][places] = floats(cells[name])
    return matrices
