"""The market as a series: one return and one volatility per session, from all underlyings of the factor panel."""

from __future__ import annotations

import polars as pl


def market_series(panel: pl.DataFrame) -> pl.DataFrame:
    """Per session: `market_return` (median log return) and `market_volatility` (median 20-session realized volatility).

    Medians, because one underlying's gap must not look like a market move, and because they do not depend on row order.
    `panel`: rows of `factor_panel` with `session`. The result is ordered by session; a value is null where no underlying has it.
    """
    return (
        panel.group_by("session")
        .agg(
            pl.col("log_return").median().alias("market_return"),
            pl.col("realized_vol_20d").median().alias("market_volatility"),
        )
        .sort("session")
    )
