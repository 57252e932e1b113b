"""Step: outcomes that became complete at the close of a session.

An outcome starts at the first tradable price at or after the signal could be acted on, and ends at the close of this session,
`h` sessions after the signal's. It is filed under the session that completes it, so that reading outcomes up to t can never
show a price after t. Prices arrive split-adjusted to this session; dividends are left in.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import numpy as np
import polars as pl

from flowlake.core.arrays import Float
from flowlake.core.sessions import actionable_at, close_utc, offset, open_utc, sessions_between
from flowlake.datasets.factors import FACTOR_PANEL
from flowlake.datasets.model import KNOWN_AT, UTC_NS, Inputs, Output
from flowlake.datasets.signals import OUTCOMES, SIGMAS, TOP_SHARE

HORIZONS = (1, 5)
LOOK_BACK_SESSIONS = max(HORIZONS) + 1
"""Sessions of the factor panel and the stock bars, this one included."""
TOP_SESSIONS = 60
"""Earlier sessions whose outcomes, with this one's, give the threshold of the largest moves."""
MIN_TOP_LABELS = 100
SESSIONS_PER_YEAR = 252

_ENTRY = {
    "underlying": pl.String(),
    "entry_utc": UTC_NS,
    "entry_price": pl.Float64(),
    "entry_source": pl.String(),
}


def complete_outcomes(inputs: Inputs, session: date) -> Output:
    """Outcomes of every underlying that had factors on the signal session, for each horizon.

    Inputs: `factor_panel` of LOOK_BACK_SESSIONS, which may lack this session's where stock bars have its close; optional:
    `equity_bars_1d` and `equity_bars_1m` of LOOK_BACK_SESSIONS, and `outcomes` of the TOP_SESSIONS before this one.
    Without any panel there was no signal, and there are no outcomes.
    """
    inputs = {"factor_panel": FACTOR_PANEL.empty(), **inputs}
    frames = [_horizon(inputs, session, horizon) for horizon in HORIZONS]
    names = [name for name in OUTCOMES.polars_schema() if name != KNOWN_AT]
    return Output({"outcomes": pl.concat(frames).select(names).sort(*OUTCOMES.sort_by)})


def _horizon(inputs: Inputs, session: date, horizon: int) -> pl.DataFrame:
    signal_session = offset(session, -horizon)
    panel = inputs["factor_panel"]
    actionable = actionable_at(signal_session)
    closes = close_prices(panel, inputs.get("equity_bars_1d"))
    then = _volatilities(panel.filter(pl.col("session") == signal_session))
    entries = first_tradable(inputs, signal_session, session)
    rows = (
        then.join(entries, on="underlying", how="left")
        .join(_at(closes, session, "exit_price", "exit_source"), on="underlying", how="left")
        .join(_at(closes, signal_session, "_then", "_then_source"), on="underlying", how="left")
        .sort("underlying")
        .with_columns(
            pl.lit(signal_session).alias("signal_session"),
            pl.lit(horizon, dtype=pl.Int64).alias("horizon_sessions"),
            pl.lit(actionable, dtype=UTC_NS).alias("actionable_at_utc"),
            (pl.col("exit_price") / pl.col("entry_price") - 1.0).alias("forward_return"),
            pl.when(pl.col("exit_source") == pl.col("_then_source"))
            .then(pl.col("exit_price") / pl.col("_then") - 1.0)
            .alias("from_close_return"),
            (pl.col("volatility") * np.sqrt(horizon / SESSIONS_PER_YEAR)).alias("expected_move"),
            _reason(actionable, session).alias("reason"),
        )
    )
    return _labelled(rows, inputs.get("outcomes"), session, horizon)


def _reason(actionable: datetime, session: date) -> pl.Expr:
    return (
        pl.when(pl.col("exit_price").is_null())
        .then(pl.lit(f"there is no close of {session}"))
        .when(pl.col("entry_price").is_null())
        .then(pl.lit(f"there is no tradable price from {actionable:%Y-%m-%d %H:%M} UTC to before the close of {session}"))
        .otherwise(pl.lit(None, dtype=pl.String))
    )


def _volatilities(panel: pl.DataFrame) -> pl.DataFrame:
    """Volatility of each underlying as it was known with the signal: realized, else implied; null where both are missing."""
    realized, implied = pl.col("realized_vol_20d"), pl.col("atm_iv_30d")
    return panel.select(
        "underlying",
        pl.when(realized > 0).then(realized).when(implied > 0).then(implied).alias("volatility"),
        pl.when(realized > 0)
        .then(pl.lit("realized_vol_20d"))
        .when(implied > 0)
        .then(pl.lit("atm_iv_30d"))
        .otherwise(pl.lit(None, dtype=pl.String))
        .alias("volatility_source"),
    ).sort("underlying")


def close_prices(panel: pl.DataFrame, bars: pl.DataFrame | None) -> pl.DataFrame:
    """Columns session, underlying, price, source: the daily bar's close, else the panel's spot at the close."""
    spots = panel.filter(pl.col("spot_close").is_not_null()).select(
        "session", "underlying", pl.col("spot_close").alias("price"), pl.lit("spot_close").alias("source")
    )
    if bars is None:
        return spots.sort("session", "underlying")
    daily = bars.select("session", "underlying", pl.col("close").alias("price"), pl.lit("day_close").alias("source"))
    return (
        pl.concat([daily, spots]).unique(["session", "underlying"], keep="first", maintain_order=True).sort("session", "underlying")
    )


def _at(closes: pl.DataFrame, session: date, price: str, source: str) -> pl.DataFrame:
    return closes.filter(pl.col("session") == session).select(
        "underlying", pl.col("price").alias(price), pl.col("source").alias(source)
    )


def first_tradable(inputs: Inputs, signal_session: date, last_session: date) -> pl.DataFrame:
    """Per underlying the first price at or after the signal could be acted on and before the close of `last_session`.

    The earliest of: the open of a regular minute bar that starts then or later, and the open of a day bar whose session opens
    then or later (the minute bar where both are of one moment). For an underlying without day bars also the spot at a close.
    Columns: underlying, entry_utc, entry_price, entry_source.
    """
    actionable = actionable_at(signal_session)
    later = sessions_between(offset(signal_session, 1), last_session)
    found = [
        _minute_entries(inputs.get("equity_bars_1m"), actionable, later),
        _day_entries(inputs.get("equity_bars_1d"), actionable, later),
        _spot_entries(inputs["factor_panel"], inputs.get("equity_bars_1d"), actionable, later),
    ]
    in_time = pl.concat(found).sort("underlying", "entry_utc", maintain_order=True)
    return in_time.unique("underlying", keep="first", maintain_order=True)


def _minute_entries(bars: pl.DataFrame | None, actionable: datetime, later: list[date]) -> pl.DataFrame:
    if bars is None:
        return pl.DataFrame(schema=_ENTRY)
    start, end = pl.lit(actionable, dtype=UTC_NS), pl.lit(close_utc(later[-1]), dtype=UTC_NS)
    eligible = bars.filter(
        pl.col("is_regular") & pl.col("session").is_in(later) & (pl.col("ts_utc") >= start) & (pl.col("ts_utc") < end)
    )
    return _first(eligible, "ts_utc", "open", "minute_open")


def _day_entries(bars: pl.DataFrame | None, actionable: datetime, later: list[date]) -> pl.DataFrame:
    opens = {day: open_utc(day) for day in later if open_utc(day) >= actionable}
    if bars is None or not opens:
        return pl.DataFrame(schema=_ENTRY)
    return _first(_stamped(bars, opens), "_at", "open", "day_open")


def _spot_entries(panel: pl.DataFrame, bars: pl.DataFrame | None, actionable: datetime, later: list[date]) -> pl.DataFrame:
    closes = {day: close_utc(day) for day in later[:-1] if close_utc(day) >= actionable}
    spots = panel.filter(pl.col("spot_close").is_not_null())
    if bars is not None:
        spots = spots.filter(~pl.col("underlying").is_in(bars["underlying"].unique().sort().implode()))
    if not closes:
        return pl.DataFrame(schema=_ENTRY)
    return _first(_stamped(spots, closes), "_at", "spot_close", "spot_close")


def _stamped(frame: pl.DataFrame, moments: dict[date, datetime]) -> pl.DataFrame:
    """Rows of the sessions in `moments`, with that moment as `_at`."""
    table = pl.DataFrame({"session": list(moments), "_at": list(moments.values())}, schema={"session": pl.Date(), "_at": UTC_NS})
    return frame.join(table, on="session", how="inner")


def _first(frame: pl.DataFrame, moment: str, price: str, source: str) -> pl.DataFrame:
    return (
        frame.sort("underlying", moment)
        .unique("underlying", keep="first", maintain_order=True)
        .select(
            "underlying",
            pl.col(moment).alias("entry_utc"),
            pl.col(price).alias("entry_price"),
            pl.lit(source).alias("entry_source"),
        )
    )


def _labelled(rows: pl.DataFrame, earlier: pl.DataFrame | None, session: date, horizon: int) -> pl.DataFrame:
    size = pl.col("forward_return").abs()
    sizes = [_sizes(rows)]
    if earlier is not None:
        sizes.append(_sizes(earlier.filter((pl.col("session") < session) & (pl.col("horizon_sessions") == horizon))))
    threshold = top_threshold(np.concatenate(sizes))
    return rows.with_columns(
        (size > SIGMAS * pl.col("expected_move")).alias("is_significant_sigma"),
        (size > pl.lit(threshold, dtype=pl.Float64)).alias("is_significant_top"),
        pl.lit(threshold, dtype=pl.Float64).alias("top_threshold"),
        pl.lit(sum(map(len, sizes)), dtype=pl.Int64).alias("top_threshold_labels"),
    )


def _sizes(outcomes: pl.DataFrame) -> Float:
    return np.asarray(np.abs(outcomes["forward_return"].drop_nulls().to_numpy().astype(np.float64)))


def top_threshold(sizes: Float) -> float | None:
    """Absolute return that TOP_SHARE of `sizes` exceed; None below MIN_TOP_LABELS of them."""
    if len(sizes) < MIN_TOP_LABELS:
        return None
    return float(np.quantile(sizes, 1.0 - TOP_SHARE))


def parameters() -> dict[str, Any]:
    """What defines the labels, for the record of a backtest."""
    return {
        "horizons": list(HORIZONS),
        "sigmas": SIGMAS,
        "top_share": TOP_SHARE,
        "top_sessions": TOP_SESSIONS,
        "min_top_labels": MIN_TOP_LABELS,
    }
