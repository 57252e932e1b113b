"""What is not there: inputs without rows, and the reasons that a row gives for its nulls."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from flowlake.datasets.model import Inputs


def present(inputs: Inputs, name: str) -> pl.DataFrame | None:
    """The input, or None where it does not exist or holds no row."""
    frame = inputs.get(name)
    return None if frame is None or frame.is_empty() else frame


def not_available(reasons: Mapping[str, str | pl.Expr]) -> pl.Expr:
    """Column `not_available`: `factor: reason` for each factor that is null in a row, sorted by factor."""
    texts = [
        pl.when(pl.col(factor).is_null()).then(
            pl.concat_str(pl.lit(f"{factor}: "), pl.lit(reason) if isinstance(reason, str) else reason)
        )
        for factor, reason in sorted(reasons.items())
    ]
    return pl.concat_list(texts).list.drop_nulls().alias("not_available")
