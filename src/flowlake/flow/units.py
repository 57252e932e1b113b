"""Sums of integers and the numbers that they stand for; how far a strike is out of the money."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from flowlake.datasets.matrices import floats

TEN_THOUSANDTHS = 10_000


def scaled(value: pl.Expr) -> pl.Expr:
    """In whole ten-thousandths; null stays null."""
    return (value * TEN_THOUSANDTHS).round().cast(pl.Int64)


def outwards(is_call: pl.Expr) -> pl.Expr:
    """ln(strike / spot), positive out of the money."""
    return (pl.col("strike") / pl.col("spot")).log() * pl.when(is_call).then(1.0).otherwise(-1.0)


def in_units(frame: pl.DataFrame, names: Iterable[str], parts: int = TEN_THOUSANDTHS) -> pl.DataFrame:
    """The frame with each of the named columns of integers over `parts`, the double nearest to it; null stays null.

    Polars multiplies a column by the reciprocal of a number, unless the column has one row: the last bit would be wrong, and would
    depend on how many rows there are.
    """
    return frame.with_columns(pl.Series(name, floats(frame[name]) / parts, dtype=pl.Float64()).fill_nan(None) for name in names)
