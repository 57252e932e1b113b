"""Step `factor_panel`: each underlying's factors of the session, and their place in its own past."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import polars as pl

from flowlake.core import sessions
from flowlake.core.arrays import Float
from flowlake.datasets.factors import (
    FACTOR_PANEL,
    HISTORY_SESSIONS,
    MIN_HISTORY,
    PASSED_THROUGH,
    REALIZED_RETURNS,
    REPEATED,
    SCORED,
)
from flowlake.datasets.model import SESSION, Inputs, Output
from flowlake.factors import robust
from flowlake.factors.prices import present
from flowlake.factors.reasons import not_available
from flowlake.quant import realized


def factor_panel(inputs: Inputs, session: date) -> Output:
    """One row per underlying that has `daily_factors` on the session.

    Reads `daily_factors` of up to `HISTORY_SESSIONS` sessions, this one included, and where it exists `equity_bars_1d` of up to
    `CLOSE_SESSIONS`; both split-adjusted to the session's basis.
    """
    daily = (
        inputs["daily_factors"]
        .filter(pl.col(SESSION) <= session)
        .with_columns((pl.col("open_interest_close") - pl.col("open_interest_open")).alias("open_interest_change"))
        .sort("underlying", SESSION)
    )
    daily = daily.with_columns(_repeated(daily[SESSION]))
    today = daily.filter(pl.col(SESSION) == session)
    past = daily.filter(pl.col(SESSION) < session).filter(pl.col(SESSION).rank("dense", descending=True) <= HISTORY_SESSIONS - 1)
    rows = today.select(
        "underlying",
        *(column.name for column in PASSED_THROUGH),
        "open_interest_change",
        *REPEATED,
        "not_available",
        pl.when(pl.col("option_volume") > 0)
        .then(pl.col("open_interest_change") / pl.col("option_volume"))
        .alias("oi_change_ratio"),
    ).with_columns(_price_columns(today["underlying"], daily, inputs, session))
    rows = rows.with_columns((pl.col("atm_iv_30d") - pl.col("realized_vol_20d")).alias("iv_minus_rv"))
    rows = rows.with_columns(_history_columns(rows, past))
    own = not_available(_reasons(session))
    listed = pl.concat_list("not_available", own).list.sort().alias("not_available")
    return Output({FACTOR_PANEL.name: rows.with_columns(listed).sort("underlying")})


def _repeated(days: pl.Series) -> list[pl.Expr]:
    """The factors of `REPEATED`, for rows of the sessions `days` in order of underlying and session.

    Null where an underlying's row before is not of the session before.
    """
    before = {day: sessions.previous_session(day) for day in days.unique().to_list()}
    expected = pl.col(SESSION).replace_strict(before, default=None, return_dtype=pl.Date())
    follows = pl.col(SESSION).shift(1).over("underlying") == expected
    columns = []
    for name, source in REPEATED.items():
        now, earlier = pl.col(source), pl.col(source).shift(1).over("underlying")
        known = follows & now.is_not_null() & earlier.is_not_null()  # the least of a null and a number is the number
        columns.append(pl.when(known).then(pl.min_horizontal(now, earlier)).alias(name))
    return columns


def _price_columns(underlyings: pl.Series, daily: pl.DataFrame, inputs: Inputs, session: date) -> list[pl.Series]:
    """`log_return` and `realized_vol_20d` of the closes of the last sessions of the calendar, without gaps."""
    window = sessions.sessions_between(session - timedelta(days=3 * REALIZED_RETURNS), session)[-(REALIZED_RETURNS + 1) :]
    closes = _matrix(underlyings, _closes(daily, inputs), "close", window)
    returns = np.full(underlyings.len(), np.nan)
    if len(window) > 1:
        both = np.isfinite(closes[:, -1]) & np.isfinite(closes[:, -2])
        ratio = np.divide(closes[:, -1], closes[:, -2], out=np.ones(underlyings.len()), where=both)
        returns = np.where(both, np.log(ratio), np.nan)
    full = len(window) == REALIZED_RETURNS + 1
    vols = [realized.close_to_close(line, line, line, line) if full and np.isfinite(line).all() else np.nan for line in closes]
    return [_column("log_return", returns), _column("realized_vol_20d", np.array(vols, dtype=np.float64))]


def _closes(daily: pl.DataFrame, inputs: Inputs) -> pl.DataFrame:
    """`underlying`, `session`, `close`: of the daily stock bar, else `spot_close`."""
    spots = daily.select("underlying", SESSION, pl.col("spot_close").alias("close"))
    bars = present(inputs, "equity_bars_1d")
    if bars is None:
        return spots
    stacked = pl.concat([bars.select("underlying", SESSION, "close"), spots])
    return stacked.unique(["underlying", SESSION], keep="first", maintain_order=True)


def _history_columns(rows: pl.DataFrame, past: pl.DataFrame) -> list[pl.Series]:
    window = past[SESSION].unique().sort().to_list()
    underlyings = rows["underlying"]
    columns = []
    for scored in SCORED:
        history = _matrix(underlyings, past, scored.name, window)
        columns.append(_column(scored.column, robust.score(scored, _values(rows, scored.name), history)))
    volatility = _matrix(underlyings, past, "atm_iv_30d", window)
    columns.append(_column("atm_iv_30d_percentile", robust.share_below(_values(rows, "atm_iv_30d"), volatility)))
    counts = past.group_by("underlying").agg(pl.len().cast(pl.Int64).alias("history_sessions"))
    count = rows.select("underlying").join(counts, on="underlying", how="left", maintain_order="left")
    return [*columns, count["history_sessions"].fill_null(0)]


def _matrix(underlyings: pl.Series, long: pl.DataFrame, value: str, window: list[date]) -> Float:
    """`value` as underlyings x sessions of `window`; NaN where there is none."""
    out = np.full((underlyings.len(), len(window)), np.nan)
    row = pl.DataFrame({"underlying": underlyings, "row": np.arange(underlyings.len())})
    column = pl.DataFrame({SESSION: window, "column": np.arange(len(window))}, schema_overrides={SESSION: pl.Date()})
    cells = long.join(row, on="underlying").join(column, on=SESSION).filter(pl.col(value).is_not_null())
    out[cells["row"].to_numpy(), cells["column"].to_numpy()] = cells[value].cast(pl.Float64).to_numpy()
    return out


def _values(rows: pl.DataFrame, name: str) -> Float:
    return rows[name].cast(pl.Float64).fill_null(np.nan).to_numpy()


def _column(name: str, values: Float) -> pl.Series:
    return pl.Series(name, values, dtype=pl.Float64()).fill_nan(None)


def _reasons(session: date) -> dict[str, str | pl.Expr]:
    closes = f"fewer than {REALIZED_RETURNS + 1} consecutive closes"
    reasons: dict[str, str | pl.Expr] = {
        "log_return": f"no close on {session} or on the session before",
        "realized_vol_20d": closes,
        "iv_minus_rv": "atm_iv_30d or realized_vol_20d is null",
        "open_interest_change": "open interest of both sessions is not there",
        "oi_change_ratio": "open_interest_change is null, or nothing traded",
        **{name: f"{source} of this session or of the session before is not there" for name, source in REPEATED.items()},
    }
    short = pl.format("the past holds fewer than {} values, or does not vary", pl.lit(MIN_HISTORY))
    for scored in SCORED:
        reasons[scored.column] = pl.when(pl.col(scored.name).is_null()).then(pl.lit(f"{scored.name} is null")).otherwise(short)
    reasons["atm_iv_30d_percentile"] = pl.when(pl.col("atm_iv_30d").is_null()).then(pl.lit("atm_iv_30d is null")).otherwise(short)
    return reasons
