"""Sums of integers, and the numbers that they stand for."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl

TEN_THOUSANDTHS = 10_000


def scaled(value: pl.Expr) -> pl.Expr:
    """In whole ten-thousandths; null stays null."""
    return (value * TEN_THOUSANDTHS).round().cast(pl.Int64)


def in_units(frame: pl.DataFrame, names: Iterable[str], parts: int = TEN_THOUSANDTHS) -> pl.DataFrame:
    """The frame with each of the named columns of integers over `parts`, the double nearest to it; null stays null.

    Polars multiplies a column by the reciprocal of a number, unless the column has one row: the last bit would be wrong, and would
    depend on how many rows there are.
    """
    columns = []
    for name in names:
        numbers = frame[name].cast(pl.Float64).fill_null(np.nan).to_numpy() / parts
        columns.append(pl.Series(name, numbers, dtype=pl.Float64()).fill_nan(None))
    return frame.with_columns(columns)
