"""Step `flow_scores`: each underlying's flow against its own past: by minute, by session, and against what was to be expected."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta

import numpy as np
import polars as pl

from flowlake.core import sessions
from flowlake.core.arrays import Float, Int
from flowlake.datasets.flow_factors import (
    EXPECTED_MIN_SESSIONS,
    EXPECTED_SESSIONS,
    FLOW_ABNORMALITY,
    FLOW_FACTORS,
    FLOW_KINDS,
    FLOW_PROFILES,
    FLOW_SCORED,
    FLOW_SCORES,
    FLOW_SESSIONS,
    KIND_HIGHEST,
    PROFILE_FLOOR,
    PROFILE_MIN_HISTORY,
    PROFILE_SESSIONS,
    TIDE_SCORED,
    UNUSUAL_Z,
    FlowKind,
)
from flowlake.datasets.matrices import session_matrices
from flowlake.datasets.model import SESSION, UTC_NS, Inputs, Output
from flowlake.datasets.roots import VOLATILITY_INDEXES
from flowlake.datasets.scored import MAD_TO_SIGMA
from flowlake.flow._minutes import fill_minute_scores
from flowlake.flow._regression import fill_expectations
from flowlake.quant import robust

INDEX_MINUTES = 15
"""Index options trade this much longer than stocks."""
_DAILY = ("option_volume", "atm_iv_30d", "spot_close")


def flow_scores(inputs: Inputs, session: date) -> Output:
    """Reads `flow_factors` of up to `FLOW_SESSIONS` sessions, `flow_profiles` of up to `PROFILE_SESSIONS` and, where they exist,
    `daily_factors` of up to `EXPECTED_SESSIONS`, all on the session's share basis.
    """
    factors = inputs[FLOW_FACTORS.name].filter(pl.col(SESSION) <= session)
    today = factors.filter(pl.col(SESSION) == session).sort("underlying")
    minutes = minute_scores(inputs[FLOW_PROFILES.name], session)
    rows = today.select("underlying").with_columns(
        *_factor_scores(today["underlying"], factors), *_tide_scores(today, factors), *_expectations(today, inputs, session)
    )
    peaks = minutes.group_by("underlying").agg(
        pl.col("cumulative_premium_z").max().alias("peak_premium_z"),
        (pl.col("premium_z") >= UNUSUAL_Z).sum().cast(pl.Float64).alias("unusual_minutes"),
    )
    rows = rows.join(peaks, on="underlying", how="left").with_columns(map(_sum_of_kind, FLOW_KINDS))
    return Output(
        {
            FLOW_SCORES.name: rows.sort("underlying"),
            FLOW_ABNORMALITY.name: minutes,
        }
    )


# --- By minute ---------------------------------------------------------------------------------------------------------------


def minute_scores(profiles: pl.DataFrame, session: date) -> pl.DataFrame:
    """The table `flow_abnormality` of the profiles of this and earlier sessions."""
    days = profiles.filter(pl.col(SESSION) <= session)[SESSION].unique().sort().tail(PROFILE_SESSIONS)
    # The lists are large: rows are chosen and put in order by their numbers, so that the lists are copied once.
    numbered = profiles.select("underlying", SESSION).with_row_index("row").sort("underlying", SESSION)
    chosen = numbered.filter(pl.col(SESSION) == session)
    before = numbered.filter((pl.col(SESSION) < session) & pl.col(SESSION).is_in(days.implode()))
    today = profiles[chosen["row"]]
    past = profiles[before.join(chosen, on="underlying", how="semi", maintain_order="left")["row"]]
    counts = (
        today.select("underlying").join(past.group_by("underlying").agg(pl.len()), on="underlying", how="left").sort("underlying")
    )
    closes = {day: _closing_minute(day) for day in days.to_list()}
    minute, cents = _flat(today)
    past_minute, past_cents = _flat(past)
    out = np.empty((6, minute.size))
    fill_minute_scores(
        out,
        _begins(today["minutes"].list.len()),
        minute,
        cents,
        _begins(counts["len"].fill_null(0)),
        past[SESSION].replace_strict(closes, return_dtype=pl.Int64()).to_numpy(),
        _begins(past["minutes"].list.len()),
        past_minute,
        past_cents,
        PROFILE_MIN_HISTORY,
        MAD_TO_SIGMA,
        PROFILE_FLOOR,
    )
    midnight = pl.lit(sessions.at_et(session, time(0)), dtype=UTC_NS)
    median, score, total, total_median, total_score, count = out
    # The clock does not change on a trading day, so that a minute of the day is so long after midnight.
    return (
        today.select("underlying", "minutes")
        .explode("minutes", empty_as_null=False)
        .select(
            "underlying",
            (midnight + pl.duration(minutes=pl.col("minutes"))).cast(UTC_NS).alias("ts_utc"),
            pl.Series("premium_usd", cents / 100.0),
            pl.Series("typical_premium_usd", median),
            pl.Series("premium_z", score).fill_nan(None),
            pl.Series("cumulative_premium_usd", total),
            pl.Series("typical_cumulative_premium_usd", total_median),
            pl.Series("cumulative_premium_z", total_score).fill_nan(None),
            pl.Series("history_sessions", count).cast(pl.Int64),
        )
        .filter(pl.col("history_sessions") >= PROFILE_MIN_HISTORY)
        .sort("underlying", "ts_utc")
    )


def _closing_minute(session: date) -> int:
    """Minute of the New York day from which a session has no regular trading, index options among it."""
    close: datetime = sessions.close_utc(session).astimezone(sessions.NEW_YORK) + timedelta(minutes=INDEX_MINUTES)
    return close.hour * 60 + close.minute


def _begins(lengths: pl.Series) -> Int:
    return np.concatenate([[0], np.cumsum(lengths.to_numpy().astype(np.int64))]).astype(np.int64)


def _flat(profiles: pl.DataFrame) -> tuple[Int, Int]:
    """Minutes and their premium in cents, of all rows one behind the other."""
    minutes, cents = (profiles[name].explode(empty_as_null=False).to_numpy() for name in ("minutes", "minute_premium_cents"))
    return minutes, cents


# --- By session --------------------------------------------------------------------------------------------------------------


def _factor_scores(underlyings: pl.Series, factors: pl.DataFrame) -> list[pl.Series]:
    """The scores of `FLOW_SCORED` and `score_sessions`."""
    days = factors[SESSION].unique().sort().tail(FLOW_SESSIONS).to_list()
    counted = factors.with_columns(pl.lit(1.0).alias("there"))
    lines = session_matrices(underlyings, counted, [*(scored.name for scored in FLOW_SCORED), "there"], days)
    scores = [_column(s.column, robust.score(s, lines[s.name][:, -1], lines[s.name][:, :-1])) for s in FLOW_SCORED]
    return [*scores, pl.Series("score_sessions", np.isfinite(lines["there"][:, :-1]).sum(axis=1).astype(np.int64))]


def _tide_scores(today: pl.DataFrame, factors: pl.DataFrame) -> list[pl.Series]:
    """The scores of `TIDE_SCORED`. The past is that of the scope, as any underlying of it tells, and not of the underlying's own
    sessions: one that is new, or that has moved to another sector, gets the score that all others of the scope get.
    """
    days = factors[SESSION].unique().sort().tail(FLOW_SESSIONS).to_list()
    scores = []
    for scored in TIDE_SCORED:
        of_sector = scored.name == "sector_tide_usd"
        scope = pl.when(of_sector).then("sector").otherwise(pl.lit("")).alias("underlying")
        keyed = factors.select(scope, SESSION, scored.name).drop_nulls().unique(["underlying", SESSION])
        names = keyed["underlying"].unique().sort()
        line = session_matrices(names, keyed, [scored.name], days)[scored.name]
        of_scope = dict(zip(names, robust.score(scored, line[:, -1], line[:, :-1]), strict=True))
        mine = today.select(scope).to_series().replace_strict(of_scope, default=None, return_dtype=pl.Float64())
        scores.append(mine.fill_nan(None).alias(scored.column))
    return scores


def _sum_of_kind(kind: FlowKind) -> pl.Expr:
    """How unusual a kind of flow is, all its scores together; a missing score counts as 0, null where all are missing."""
    unusual = [*map(pl.col, kind.one_sided), *(pl.col(name).abs() for name in kind.two_sided)]
    squares = [score.clip(0.0, KIND_HIGHEST).pow(2).fill_null(0.0) for score in unusual]
    there = pl.any_horizontal(score.is_not_null() for score in unusual)
    return pl.when(there).then((pl.sum_horizontal(squares) / len(unusual)).sqrt()).alias(kind.column)


def _expectations(today: pl.DataFrame, inputs: Inputs, session: date) -> list[pl.Series]:
    """Volume against its regression on the market, volatility and returns, of this and of the session before."""
    daily = inputs.get("daily_factors")
    names = ("expected_option_volume", "volume_residual", "volume_residual_z")
    if daily is None or daily.is_empty():
        nothing = np.full(today.height, np.nan)
        zero = np.zeros(today.height, dtype=np.int64)
        return [*(_column(name, nothing) for name in names), pl.Series("regression_sessions", zero), pl.Series("regressors", zero)]
    days = sessions.sessions_between(session - timedelta(days=2 * EXPECTED_SESSIONS), session)[-EXPECTED_SESSIONS:]
    everyone = daily["underlying"].unique().sort()
    lines = session_matrices(everyone, daily, _DAILY, days)
    volume = np.log1p(lines["option_volume"])
    spot = lines["spot_close"]
    returns = np.full(spot.shape, np.nan)
    returns[:, 1:] = np.log(spot[:, 1:] / spot[:, :-1])
    is_index = everyone.is_in(today.filter("is_index")["underlying"].implode()).to_numpy()
    in_market = ~everyone.is_in(VOLATILITY_INDEXES).to_numpy()
    iv, market_return = (
        np.broadcast_to(_market_of(each[in_market], is_index[in_market]), volume.shape) for each in (lines["atm_iv_30d"], returns)
    )
    now = np.stack([_median_of_others(volume), iv, returns, market_return])
    before = np.full((len(now) + 1, *volume.shape), np.nan)
    before[:-1, :, 1:] = now[:, :, :-1]
    before[-1, :, 1:] = volume[:, :-1]
    out = np.empty((4, everyone.len()))
    fill_expectations(out, volume, np.concatenate([now, before]), EXPECTED_MIN_SESSIONS)
    residual = volume[:, -1] - out[0]
    found = {
        "expected_option_volume": np.maximum(np.expm1(out[0]), 0.0),
        "volume_residual": residual,
        "volume_residual_z": np.divide(residual, out[1], out=np.full(residual.shape, np.nan), where=out[1] > 0.0),
    }
    places = np.searchsorted(everyone.to_numpy(), today["underlying"].to_numpy())
    inside = np.minimum(places, everyone.len() - 1)
    is_there = everyone.gather(inside).eq(today["underlying"]).to_numpy()
    columns = [_column(name, np.where(is_there, found[name][inside], np.nan)) for name in names]
    counts = [
        pl.Series(name, np.where(is_there, out[row][inside], 0.0).astype(np.int64))
        for name, row in (("regression_sessions", 2), ("regressors", 3))
    ]
    return [*columns, *counts]


def _market_of(lines: Float, is_index: np.ndarray) -> Float:
    """Median over indexes on each session, else over all underlyings."""
    of_indexes = _market_median(lines[is_index])
    return np.where(np.isfinite(of_indexes), of_indexes, _market_median(lines))


def _median_of_others(lines: Float) -> Float:
    """On each session the median over all other rows; NaN where there is no other."""
    order = np.argsort(lines, axis=0, kind="stable")  # NaN goes last
    rank = np.argsort(order, axis=0, kind="stable")
    ordered = np.take_along_axis(lines, order, axis=0)
    known = np.isfinite(lines)
    count = known.sum(axis=0) - known  # of the others
    rank = np.where(known, rank, len(lines))
    middle = []
    for place in ((count - 1) // 2, count // 2):
        skipped = place + (place >= rank)
        middle.append(np.take_along_axis(ordered, np.clip(skipped, 0, len(lines) - 1), axis=0))
    return np.where(count > 0, 0.5 * (middle[0] + middle[1]), np.nan)


def _market_median(lines: Float) -> Float:
    return robust.row_median(np.ascontiguousarray(lines.T))


def _column(name: str, values: Float) -> pl.Series:
    return pl.Series(name, values, dtype=pl.Float64()).fill_nan(None)
