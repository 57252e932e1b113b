"""Step `module_scores`: five scores, each in the underlying's own past."""

from __future__ import annotations

import json
import math
from datetime import date
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from flowlake.core import sessions
from flowlake.datasets.factors import FACTOR_PANEL
from flowlake.datasets.modules import MODULE_MIN_HISTORY, MODULE_SCORES, MODULE_SESSIONS, MODULES, VIOLATIONS
from flowlake.datasets.volatility import IV_RANKS
from flowlake.factors.modules import module_scores, score_in_past

T = date(2024, 6, 10)
NAMES = [module.name for module in MODULES]


def panel(values: list[dict[str, Any]], underlying: str = "AAPL", last: date = T) -> pl.DataFrame:
    """One row per session, the newest on `last`."""
    first = len(values) - 1
    rows = [{"underlying": underlying, **row, "session": sessions.offset(last, i - first)} for i, row in enumerate(values)]
    return pl.DataFrame(rows, schema={**FACTOR_PANEL.polars_schema(), "session": pl.Date()})


def run(frame: pl.DataFrame, ranks: pl.DataFrame | None = None) -> pl.DataFrame:
    inputs = {"factor_panel": frame} | ({} if ranks is None else {"iv_ranks": ranks})
    out = MODULE_SCORES.conform(module_scores(inputs, T).tables["module_scores"], T)
    for column in MODULE_SCORES.columns:
        for check in column.all_checks():
            assert out.filter(check.failing(column.name)).is_empty(), (column.name, check.describe())
    return out


def score(module: str, values: list[dict[str, Any]], ranks: pl.DataFrame | None = None) -> dict[str, Any]:
    (row,) = run(panel(values), ranks).filter(pl.col("module") == module).rows(named=True)
    return row


def test_score_by_hand() -> None:
    """100 past sessions, 0.20 to 0.299: their median is 0.2495."""
    past = [{"atm_iv_30d": 0.20 + 0.001 * i} for i in range(100)]
    row = score("iv_anomaly", [*past, {"atm_iv_30d": 0.2802}])
    assert row["median"] == pytest.approx(0.2495)
    assert row["mad"] == pytest.approx(1.4826 * 0.025)
    assert row["z"] == pytest.approx(0.0307 / (1.4826 * 0.025))
    assert row["percentile"] == pytest.approx(0.81)
    assert row["score"] == pytest.approx(62.0), "31 on either side of the median are nearer than 0.0307 to it"
    assert (row["direction"], row["history_sessions"], row["statistic"], row["reason"]) == ("high", 100, "atm_iv_30d", "")
    below = score("iv_anomaly", [*past, {"atm_iv_30d": 0.2188}])
    assert (below["score"], below["direction"]) == (pytest.approx(62.0), "low"), "as far on the other side"
    extreme = score("iv_anomaly", [*past, {"atm_iv_30d": 0.05}])
    assert (extreme["score"], extreme["percentile"], extreme["direction"]) == (100.0, 0.0, "low")


def test_equal_values_count_half() -> None:
    row = score("skew", [*[{"skew_25d": 0.03}] * 80, {"skew_25d": 0.03}])
    assert (row["score"], row["z"], row["direction"], row["mad"]) == (50.0, None, "", 0.0)
    moved = score("skew", [*[{"skew_25d": 0.03}] * 80, {"skew_25d": 0.05}])
    assert (moved["score"], moved["z"], moved["direction"]) == (100.0, None, "high")
    quiet = score(
        "mispricing", [*[{"parity_violation_bps": 0.0}] * 60, *[{"parity_violation_bps": 2.0}] * 20, dict.fromkeys(VIOLATIONS, 0.0)]
    )
    assert quiet["score"] == pytest.approx(100 * 0.5 * 60 / 80)


def test_a_short_past_gives_no_number() -> None:
    values = [{"atm_iv_30d": 0.2 + 0.001 * i} for i in range(MODULE_MIN_HISTORY + 1)]
    assert score("iv_anomaly", values)["score"] is not None
    short = score("iv_anomaly", values[1:])
    assert short["reason"] == "not enough history: 59 past sessions, 60 needed"
    assert [short[name] for name in ("score", "median", "mad", "z", "percentile")] == [None] * 5
    assert (short["value"], short["history_sessions"], short["direction"]) == (pytest.approx(0.26), 59, "")
    hole = [*values[:5], {"atm_iv_30d": None}, *values[6:]]
    assert score("iv_anomaly", hole)["reason"] == short["reason"], "a session without a value is no history"


def test_without_a_value_it_says_which() -> None:
    rows = run(panel([*[{"atm_iv_30d": 0.2, "skew_25d": 0.01}] * 80, {}]))
    assert rows["module"].to_list() == sorted(NAMES)
    assert rows["score"].null_count() == 5
    reasons = dict(zip(rows["module"], rows["reason"], strict=True))
    assert reasons["skew"] == "no value on this session: skew_25d is null"
    assert reasons["vol_spread"] == "no value on this session: iv_minus_har and iv_minus_rv are null"


def test_one_statistic_throughout_the_window() -> None:
    """The forecast is newer than the realised volatility: until it has a past of its own the other is scored, alone."""
    rng = np.random.default_rng(1)
    old = [{"iv_minus_rv": float(v)} for v in rng.normal(0.02, 0.01, 100)]
    new = [{"iv_minus_rv": float(v), "iv_minus_har": float(v) + 5.0} for v in rng.normal(0.02, 0.01, 120)]
    row = score("vol_spread", [*old, *new[:60]])
    assert (row["statistic"], row["history_sessions"]) == ("iv_minus_rv", 159)
    assert row["median"] < 1.0
    grown = score("vol_spread", [*old, *new[:61]])
    assert (grown["statistic"], grown["history_sessions"]) == ("iv_minus_har", 60)
    assert grown["median"] > 4.0
    young = score("vol_spread", new[:31])
    assert (young["statistic"], young["reason"]) == ("iv_minus_har", "not enough history: 30 past sessions, 60 needed")
    without = score("vol_spread", [*old, *new, {"iv_minus_rv": 0.02}])
    assert (without["statistic"], without["history_sessions"]) == ("iv_minus_rv", 220)


def test_gamma_exposure_is_measured_against_what_trades() -> None:
    def day(exposure: float, volume: float | None) -> dict[str, Any]:
        return {"gamma_exposure_usd": exposure, "spot_close": 50.0, "stock_volume": volume}

    past = [day(1e6 + 1e4 * i, 1e6) for i in range(70)]
    row = score("gamma_exposure", [*past, day(2e6, 1e6)])
    assert row["statistic"] == "gamma_exposure_of_volume"
    assert row["value"] == pytest.approx(2e6 / 50e6)
    assert row["score"] == 100.0
    busy = score("gamma_exposure", [*past, day(13.4e6, 10e6)])
    assert busy["score"] < 5.0, "ten times the exposure, ten times the volume"
    index = score("gamma_exposure", [*[day(1e6 + 1e4 * i, None) for i in range(70)], day(2e6, None)])
    assert (index["statistic"], index["value"]) == ("gamma_exposure_usd", 2e6)
    halted = score("gamma_exposure", [*past, day(2e6, 0.0)])
    assert halted["statistic"] == "gamma_exposure_usd"


def test_mispricing_is_the_largest_violation_where_there_are_quotes() -> None:
    past = [{"parity_violation_bps": 1.0 + 0.01 * i, "butterfly_violation_bps": 0.5, "surface_residual": 0.01} for i in range(80)]
    row = score("mispricing", [*past, {"parity_violation_bps": 0.2, "calendar_violation_bps": 1.305, "surface_residual": 0.9}])
    assert (row["statistic"], row["value"], row["direction"]) == ("largest_violation_bps", 1.305, "low")
    assert row["score"] == pytest.approx(100 * 31 / 80), "small is not unusual here"
    trades = score("mispricing", [{"surface_residual": 0.01 + 0.0001 * i} for i in range(81)])
    assert (trades["statistic"], trades["score"]) == ("surface_residual", 100.0)


def test_the_past_is_of_252_sessions_at_most() -> None:
    far = [{"atm_iv_30d": 9.0}] * 40
    row = score("iv_anomaly", [*far, *[{"atm_iv_30d": 0.2 + 1e-4 * i} for i in range(MODULE_SESSIONS)]])
    assert row["history_sessions"] == MODULE_SESSIONS - 1
    assert row["percentile"] == 1.0


def test_details_are_json() -> None:
    values = [{"atm_iv_30d": 0.2 + 0.001 * i, "term_slope": -0.0123456789, "violations": 7} for i in range(70)]
    place = {"underlying": "AAPL", "node": "atm_iv", "iv": 0.3, "iv_z": 2.5, "iv_percentile": 0.75, "iv_rank": 1.25}
    others = [place | {"tenor_days": 60, "iv_rank": 9.0}, place | {"tenor_days": 30, "node": "put_25d_iv", "iv_rank": 8.0}]
    ranks = pl.DataFrame([place | {"tenor_days": 30}, *others], schema=IV_RANKS.polars_schema()).with_columns(session=pl.lit(T))
    found = {module: json.loads(score(module, values, ranks)["details"]) for module in NAMES}
    assert found["iv_anomaly"] == {
        "iv_z": 2.5,
        "iv_percentile": 0.75,
        "iv_rank": 1.25,
        "half_life_sessions": None,
        "term_slope": -0.0123457,
        "call_iv_change_21s": None,
        "put_iv_change_21s": None,
    }
    assert found["mispricing"]["violations"] == 7
    for module in MODULES:
        assert tuple(found[module.name]) == module.explained_by
    assert set(json.loads(score("iv_anomaly", values)["details"])) == set(found["iv_anomaly"]), "without ranks too"


def market(seed: int) -> pl.DataFrame:
    """Three underlyings over 90 sessions, with holes and ties."""
    rng = np.random.default_rng(seed)
    names = [c.name for c in FACTOR_PANEL.columns if c.dtype == pl.Float64()]
    frames = []
    for underlying in ("AAA", "BBB", "CCC"):
        rows = [
            {name: None if rng.random() < 0.2 else round(float(rng.normal()), 1) for name in names}
            for _ in range(rng.integers(62, 90))
        ]
        frames.append(panel(rows, underlying))
    return pl.concat(frames)


@settings(max_examples=10, derandomize=True)
@given(st.integers(0, 10_000))
def test_neither_the_order_of_rows_nor_the_neighbours_nor_the_future_show(seed: int) -> None:
    frame = market(seed)
    expected = run(frame)
    assert expected["score"].drop_nulls().len() > 0
    assert_frame_equal(run(frame.sample(fraction=1.0, shuffle=True, seed=seed)), expected, check_exact=True)
    assert_frame_equal(
        run(frame.filter(pl.col("underlying") == "BBB")), expected.filter(pl.col("underlying") == "BBB"), check_exact=True
    )
    later = frame.filter(pl.col("session") == T).with_columns(
        pl.lit(sessions.next_session(T)).alias("session"), pl.selectors.float() * 7.0 + 1.0
    )
    assert_frame_equal(run(pl.concat([frame, later])), expected, check_exact=True)


_NUMBERS = st.floats(-1e9, 1e9) | st.integers(-9, 9).map(float)
_PAST = _NUMBERS | st.just(math.nan)


@settings(max_examples=100, derandomize=True)
@given(
    past=st.lists(_PAST, max_size=MODULE_MIN_HISTORY) | st.lists(_PAST, min_size=MODULE_MIN_HISTORY + 10, max_size=120),
    values=st.lists(_NUMBERS, min_size=2, max_size=8),
    one_sided=st.booleans(),
)
def test_a_score_rises_with_how_extreme_the_value_is(past: list[float], values: list[float], one_sided: bool) -> None:
    known = [x for x in past if not math.isnan(x)]
    history = np.array([past] * len(values)).reshape(len(values), -1)
    found = score_in_past(np.array(values), history, one_sided=one_sided)
    if len(known) < MODULE_MIN_HISTORY:
        assert all(np.isnan(column).all() for column in found.values())
        return
    centre = float(np.median(known))
    extreme = np.array(values) if one_sided else np.abs(np.array(values) - found["median"])
    assert found["median"][0] == pytest.approx(centre)
    order = np.argsort(extreme, kind="stable")
    assert (np.diff(found["score"][order]) >= 0).all()
    assert ((found["score"] >= 0) & (found["score"] <= 100)).all()
    assert ((found["percentile"] >= 0) & (found["percentile"] <= 1)).all()
