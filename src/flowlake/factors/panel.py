"""Step `factor_panel`: each underlying's factors of the session, and their place in its own past."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta

import numpy as np
import polars as pl

from flowlake.core import sessions
from flowlake.core.arrays import Float
from flowlake.datasets.absent import not_available, present
from flowlake.datasets.curated import EQUITY_BARS_1D
from flowlake.datasets.factors import (
    CLOSE_SESSIONS,
    FACTOR_PANEL,
    HAR_MIN_RETURNS,
    HISTORY_SESSIONS,
    IV_CHANGE_SESSIONS,
    PASSED_THROUGH,
    REALIZED_RETURNS,
    REPEATED,
    SCORED,
)
from flowlake.datasets.matrices import floats, session_matrices
from flowlake.datasets.model import SESSION, Inputs, Output
from flowlake.datasets.scored import MIN_HISTORY
from flowlake.factors.flow_columns import flow_columns
from flowlake.factors.forecasts import har_forecast
from flowlake.quant import realized, robust

# Opens, highs, lows, closes and a length to a volatility per bar, of the window of that length that ends there.
_Rolling = Callable[[Float, Float, Float, Float, int], Float]


def factor_panel(inputs: Inputs, session: date) -> Output:
    """One row per underlying that has `daily_factors` on the session.

    Reads `daily_factors` of up to `HISTORY_SESSIONS` sessions, this one included, and where they exist `equity_bars_1d` of up to
    `CLOSE_SESSIONS`, both split-adjusted to the session's basis, and `flow_factors` and `flow_scores` of the session.
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
    )
    rows = rows.with_columns(_price_columns(today["underlying"], daily, inputs, session))
    rows = rows.with_columns(_range_columns(today["underlying"], inputs, session))
    rows = rows.with_columns(
        (pl.col("atm_iv_30d") - pl.col(other)).alias(name)
        for name, other in (
            ("iv_minus_rv", "realized_vol_20d"),
            ("iv_minus_rv_yz", "realized_vol_yz_20d"),
            ("iv_minus_har", "har_forecast_21d"),
        )
    )
    rows = rows.with_columns(_change_columns(rows, daily, session))
    rows = rows.with_columns(_history_columns(rows, past))
    rows = rows.join(flow_columns(rows["underlying"], inputs, session), on="underlying", how="left")
    own = not_available(_reasons(session))
    listed = pl.concat_list("not_available", own, "flow_not_available").list.sort().alias("not_available")
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
    """`log_return`, `realized_vol_20d` and `har_forecast_21d` of the closes of the last sessions of the calendar, without gaps."""
    closes = session_matrices(underlyings, _closes(daily, inputs), ["close"], _window(session, CLOSE_SESSIONS))["close"]
    both = np.isfinite(closes[:, 1:]) & np.isfinite(closes[:, :-1])
    ratios = np.divide(closes[:, 1:], closes[:, :-1], out=np.ones(both.shape), where=both)
    returns = np.where(both, np.log(ratios), np.nan)
    last = closes[:, -(REALIZED_RETURNS + 1) :]
    return [
        _column("log_return", returns[:, -1]),
        _column("realized_vol_20d", _of_windows(realized.rolling_close_to_close, last, last, last, last)),
        _column("har_forecast_21d", har_forecast(returns)),
    ]


def _range_columns(underlyings: pl.Series, inputs: Inputs, session: date) -> list[pl.Series]:
    """Realised volatilities that need open, high and low, so daily stock bars; Yang and Zhang's the close before them too."""
    window = _window(session, REALIZED_RETURNS + 1)
    bars = present(inputs, "equity_bars_1d")
    if bars is None:
        bars = EQUITY_BARS_1D.empty()
    prices = session_matrices(underlyings, bars, ["open", "high", "low", "close"], window)
    with_gap = [prices[name] for name in ("open", "high", "low", "close")]
    without = [lines[:, 1:] for lines in with_gap]
    return [
        _column("realized_vol_yz_20d", _of_windows(realized.rolling_yang_zhang, *with_gap)),
        _column("realized_vol_parkinson_20d", _of_windows(realized.rolling_parkinson, *without)),
        _column("realized_vol_garman_klass_20d", _of_windows(realized.rolling_garman_klass, *without)),
    ]


def _of_windows(rolling: _Rolling, open: Float, high: Float, low: Float, close: Float) -> Float:
    """One volatility per row: the rows one behind the other, and of the windows over them those that are a row."""
    length = open.shape[1]
    return rolling(open.ravel(), high.ravel(), low.ravel(), close.ravel(), length)[length - 1 :: length]


def _window(session: date, count: int) -> list[date | None]:
    """The last `count` sessions up to `session`; None for those before the calendar begins."""
    known = sessions.sessions_between(session - timedelta(days=2 * count + 10), session)[-count:]
    return [*[None] * (count - len(known)), *known]


def _change_columns(rows: pl.DataFrame, daily: pl.DataFrame, session: date) -> list[pl.Series]:
    """Today's values against those of one earlier session."""
    window = _window(session, IV_CHANGE_SESSIONS + 1)
    then = session_matrices(rows["underlying"], daily, ["atm_call_iv_30d", "atm_put_iv_30d"], window[:1])
    implied = session_matrices(rows["underlying"], daily, ["implied_move_1d"], window[-2:-1])
    move = implied["implied_move_1d"][:, 0]
    ratio = np.divide(np.abs(floats(rows["log_return"])), move, out=np.full(move.shape, np.nan), where=move > 0.0)
    changes = [
        _column(f"{side}_iv_change_21s", floats(rows[f"atm_{side}_iv_30d"]) - then[f"atm_{side}_iv_30d"][:, 0])
        for side in ("call", "put")
    ]
    return [*changes, _column("realized_over_implied_move", ratio)]


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
    history = session_matrices(rows["underlying"], past, [scored.name for scored in SCORED], window)
    columns = [_column(scored.column, robust.score(scored, floats(rows[scored.name]), history[scored.name])) for scored in SCORED]
    columns.append(_column("atm_iv_30d_percentile", robust.share_below(floats(rows["atm_iv_30d"]), history["atm_iv_30d"])))
    counts = past.group_by("underlying").agg(pl.len().cast(pl.Int64).alias("history_sessions"))
    count = rows.select("underlying").join(counts, on="underlying", how="left", maintain_order="left")
    return [*columns, count["history_sessions"].fill_null(0)]


def _column(name: str, values: Float) -> pl.Series:
    return pl.Series(name, values, dtype=pl.Float64()).fill_nan(None)


def _reasons(session: date) -> dict[str, str | pl.Expr]:
    closes = f"fewer than {REALIZED_RETURNS + 1} consecutive closes"
    bars = "fewer than {} consecutive daily stock bars"
    reasons: dict[str, str | pl.Expr] = {
        "log_return": f"no close on {session} or on the session before",
        "realized_vol_20d": closes,
        "iv_minus_rv": "atm_iv_30d or realized_vol_20d is null",
        "realized_vol_yz_20d": bars.format(REALIZED_RETURNS + 1),
        "realized_vol_parkinson_20d": bars.format(REALIZED_RETURNS),
        "realized_vol_garman_klass_20d": bars.format(REALIZED_RETURNS),
        "iv_minus_rv_yz": "atm_iv_30d or realized_vol_yz_20d is null",
        "har_forecast_21d": f"fewer than {HAR_MIN_RETURNS} daily returns without a gap",
        "iv_minus_har": "atm_iv_30d or har_forecast_21d is null",
        **{
            f"{side}_iv_change_21s": f"atm_{side}_iv_30d of this session or of {IV_CHANGE_SESSIONS} sessions before is not there"
            for side in ("call", "put")
        },
        "realized_over_implied_move": "log_return is null, or the session before has no implied_move_1d",
        "open_interest_change": "open interest of both sessions is not there",
        "oi_change_ratio": "open_interest_change is null, or nothing traded",
        **{name: f"{source} of this session or of the session before is not there" for name, source in REPEATED.items()},
    }
    short = pl.format("the past holds fewer than {} values, or does not vary", pl.lit(MIN_HISTORY))
    for scored in SCORED:
        reasons[scored.column] = pl.when(pl.col(scored.name).is_null()).then(pl.lit(f"{scored.name} is null")).otherwise(short)
    reasons["atm_iv_30d_percentile"] = pl.when(pl.col("atm_iv_30d").is_null()).then(pl.lit("atm_iv_30d is null")).otherwise(short)
    return reasons
