"""Step `module_scores`: five scores of each underlying, each in its own past."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import polars as pl

from flowlake.core import sessions
from flowlake.core.arrays import Bool, Float, Int
from flowlake.datasets.factors import FACTOR_PANEL
from flowlake.datasets.matrices import session_matrices
from flowlake.datasets.model import SESSION, Inputs, Output
from flowlake.datasets.modules import (
    MODULE_MIN_HISTORY,
    MODULE_SCORES,
    MODULE_SESSIONS,
    MODULES,
    RANKED_NODE,
    RANKS,
    STATISTICS,
    VIOLATIONS,
    Module,
)
from flowlake.datasets.scored import MAD_TO_SIGMA
from flowlake.datasets.volatility import IV_RANKS
from flowlake.factors import ranks
from flowlake.quant.robust import row_median

DIGITS = 6
"""Significant digits of the numbers in `details`."""


def module_scores(inputs: Inputs, session: date) -> Output:
    """A row per module and underlying of the session's `factor_panel`.

    Reads `factor_panel` of up to `MODULE_SESSIONS` sessions, each as it was published then and on today's share basis, and where
    they exist the `iv_ranks` of the session.
    """
    panel = inputs[FACTOR_PANEL.name].with_columns(_statistics())
    today = panel.filter(pl.col(SESSION) == session).join(_ranked(inputs, session), on="underlying", how="left").sort("underlying")
    window = sessions.sessions_between(session - timedelta(days=2 * MODULE_SESSIONS), session)[-MODULE_SESSIONS:]
    lines = session_matrices(today["underlying"], panel, [statistic.name for statistic in STATISTICS], window)
    return Output({MODULE_SCORES.name: pl.concat(_scored(module, today, lines) for module in MODULES)})


def _statistics() -> list[pl.Expr]:
    """The statistics that are no columns of the panel."""
    traded_usd = pl.col("spot_close") * pl.col("stock_volume")
    return [
        pl.when(traded_usd > 0).then(pl.col("gamma_exposure_usd") / traded_usd).alias("gamma_exposure_of_volume"),
        pl.max_horizontal(VIOLATIONS).alias("largest_violation_bps"),
    ]


def _ranked(inputs: Inputs, session: date) -> pl.DataFrame:
    """`underlying` and the place of the node that explains `iv_anomaly`."""
    tenor, node = RANKED_NODE
    return (
        inputs.get(IV_RANKS.name, IV_RANKS.empty())
        .filter((pl.col(SESSION) == session) & (pl.col("tenor_days") == tenor) & (pl.col("node") == node))
        .select("underlying", *RANKS)
    )


def _scored(module: Module, today: pl.DataFrame, lines: dict[str, Float]) -> pl.DataFrame:
    """The module's rows; `lines`: each statistic as underlyings x sessions, this session last."""
    names = np.array([statistic.name for statistic in module.statistics])
    candidates = np.stack([lines[name] for name in names])
    known = np.isfinite(candidates)
    chosen = _first_that_serves(known[:, :, -1], known[:, :, :-1].sum(axis=2))
    line = candidates[chosen, np.arange(today.height)]
    value, past = line[:, -1], line[:, :-1]
    scores = score_in_past(value, past, one_sided=module.one_sided)
    return today.select(
        "underlying",
        pl.lit(module.name).alias("module"),
        *(pl.Series(name, column).fill_nan(None) for name, column in scores.items()),
        pl.Series("value", value).fill_nan(None),
        pl.Series("history_sessions", np.isfinite(past).sum(axis=1)),
        pl.Series("statistic", names[chosen]),
        pl.struct(pl.col(name).round_sig_figs(DIGITS) for name in module.explained_by).struct.json_encode().alias("details"),
    ).with_columns(_direction(), _reason(module))


def _first_that_serves(has_value: Bool, counts: Int) -> Int:
    """Per column of statistics x underlyings: the first with a value and enough past, else the one with a value and most of it."""
    serves = has_value & (counts >= MODULE_MIN_HISTORY)
    most = np.argmax(np.where(has_value, counts, -1), axis=0)
    return np.asarray(np.where(serves.any(axis=0), np.argmax(serves, axis=0), most))


def score_in_past(value: Float, past: Float, *, one_sided: bool) -> dict[str, Float]:
    """`score`, `median`, `mad`, `z` and `percentile` of each value in its row of `past`, as the dataset documents them.

    `past`: series x sessions in any order, NaN where there is none. All NaN without a value or below `MODULE_MIN_HISTORY`.
    """
    known = np.isfinite(past)
    enough = (known.sum(axis=1) >= MODULE_MIN_HISTORY) & np.isfinite(value)
    median = row_median(past)
    away = np.abs(past - median[:, np.newaxis])
    found = {
        "score": 100.0 * (_share_below(value, past) if one_sided else _share_below(np.abs(value - median), away)),
        "median": median,
        "mad": MAD_TO_SIGMA * row_median(away),
        "z": ranks.robust_z(value, past),
        "percentile": ranks.percentile(value, past),
    }
    return {name: np.where(enough, numbers, np.nan) for name, numbers in found.items()}


def _share_below(value: Float, past: Float) -> Float:
    """Share of each row's past below the value, values equal to it counted as half; NaN without a past."""
    below = (past < value[:, np.newaxis]).sum(axis=1) + 0.5 * (past == value[:, np.newaxis]).sum(axis=1)
    count = np.isfinite(past).sum(axis=1)
    return np.asarray(np.divide(below, count, out=np.full(value.shape, np.nan), where=count > 0))


def _direction() -> pl.Expr:
    above = pl.col("value") - pl.col("median")
    return pl.when(above > 0).then(pl.lit("high")).when(above < 0).then(pl.lit("low")).otherwise(pl.lit("")).alias("direction")


def _reason(module: Module) -> pl.Expr:
    names = " and ".join(statistic.name for statistic in module.statistics)
    nothing = f"no value on this session: {names} {'is' if len(module.statistics) == 1 else 'are'} null"
    short = pl.format("not enough history: {} past sessions, {} needed", "history_sessions", pl.lit(MODULE_MIN_HISTORY))
    return (
        pl.when(pl.col("score").is_not_null())
        .then(pl.lit(""))
        .when(pl.col("value").is_null())
        .then(pl.lit(nothing))
        .otherwise(short)
        .alias("reason")
    )
