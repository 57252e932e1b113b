"""Steps `iv_surface` and `iv_ranks` on sessions whose answers are known."""

from __future__ import annotations

import math
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from flowlake.core import sessions
from flowlake.datasets import curated
from flowlake.datasets.factors import OPTION_IV
from flowlake.datasets.volatility import DELTA_NODES, IV_RANKS, IV_SURFACE, NODES, RANK_MIN_HISTORY, RANK_SESSIONS, TENOR_DAYS
from flowlake.factors import ranks
from flowlake.factors.ranks import iv_ranks
from flowlake.factors.surfaces import iv_surface
from flowlake.quant import european, surface
from unit.test_factors_option_iv import CLOSE, T, table

FORWARD = 100.0
DAYS = (10, 40, 200)
PARAMETERS = {10: (0.0005, 0.02, -0.4, 0.0, 0.08), 40: (0.0022, 0.05, -0.4, 0.0, 0.12), 200: (0.012, 0.12, -0.4, 0.0, 0.2)}


def chain(days: tuple[int, ...] = DAYS, strikes: np.ndarray | None = None, **more: Any) -> list[dict[str, Any]]:
    """Contracts with the volatilities of known slices; each row is one of `option_iv` with its `expires_utc`."""
    rows = []
    for day in days:
        expiry = T + timedelta(days=day)
        for strike in np.linspace(70.0, 135.0, 27) if strikes is None else strikes:
            k, years = math.log(strike / FORWARD), day / 365
            vol = math.sqrt(float(surface.svi_total_variance(k, *PARAMETERS[day])) / years)
            right = "C" if k >= 0 else "P"
            rows.append(
                {
                    "contract": f"XYZ{expiry:%y%m%d}{right}{round(strike * 1000):08d}",
                    "underlying": "XYZ",
                    "root": "XYZ",
                    "expiry": expiry,
                    "right": right,
                    "strike": float(strike),
                    "exercise": "american",
                    "expires_utc": CLOSE + timedelta(days=day),
                    "iv": vol,
                    "forward": FORWARD,
                    "years": years,
                    "vega": float(european.greeks(FORWARD, strike, years, vol, 1, 0.0).vega),
                    "quality": "ok",
                    **more,
                }
            )
    return rows


def run(rows: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    inputs = {
        "option_iv": table(OPTION_IV, [{k: v for k, v in row.items() if k != "expires_utc"} for row in rows]),
        "contracts": table(curated.CONTRACTS, [{k: row[k] for k in ("contract", "underlying", "expires_utc")} for row in rows]),
    }
    out = IV_SURFACE.conform(iv_surface(inputs, T).tables["iv_surface"], T)
    return {row["tenor_days"]: row for row in out.rows(named=True)}


def total_variance(day: int, k: float) -> float:
    return float(surface.svi_total_variance(k, *PARAMETERS[day]))


def test_tenors_lie_linear_in_total_variance_between_the_expiries() -> None:
    found = run(chain())
    for tenor, near, far in ((14, 10, 40), (30, 10, 40), (60, 40, 200), (90, 40, 200), (180, 40, 200)):
        share = (tenor - near) / (far - near)
        row = found[tenor]
        for column, k in (("atm_iv", 0.0), ("iv_90_pct", math.log(0.9)), ("iv_120_pct", math.log(1.2))):
            variance = (1 - share) * total_variance(near, k) + share * total_variance(far, k)
            assert row[column] == pytest.approx(math.sqrt(variance / (tenor / 365)), abs=2e-4), (tenor, column)
        assert row["skew_25d"] == pytest.approx(row["put_25d_iv"] - row["call_25d_iv"])
        assert row["butterfly_25d"] == pytest.approx(0.5 * (row["put_25d_iv"] + row["call_25d_iv"]) - row["atm_iv"])
        assert row["skew_25d"] > 0, "the slices lean to the left"
        assert (row["near_days"], row["far_days"]) == pytest.approx((near, far))
        assert (row["strikes"], row["reason"]) == (54, "")
        assert row["fit_rmse"] < 1e-3


def test_nothing_is_read_before_the_first_or_after_the_last_expiry() -> None:
    found = run(chain())
    assert found[7]["reason"] == "held"
    assert found[7]["atm_iv"] == pytest.approx(math.sqrt(total_variance(10, 0.0) / (10 / 365)), abs=2e-4)
    assert (found[365]["atm_iv"], found[365]["reason"], found[365]["strikes"]) == (None, "after_last", None)
    late = run(chain((200,)))
    assert {tenor: late[tenor]["reason"] for tenor in TENOR_DAYS} == dict.fromkeys((7, 14, 30, 60, 90), "before_first") | {
        180: "held",
        365: "after_last",
    }


def test_wings_that_no_slice_meets_do_not_bend_the_middle() -> None:
    """A tick is points of volatility for the cheapest options; the nodes near the forward keep to their own quotes."""
    bent = [row | {"iv": row["iv"] + max(0.0, abs(math.log(row["strike"] / FORWARD)) - 0.2)} for row in chain((40,))]
    row = run(bent)[30]
    true = run(chain((40,)))[30]
    for column, bound in (("atm_iv", 5e-4), ("put_25d_iv", 3e-3), ("call_25d_iv", 1e-3)):
        assert row[column] == pytest.approx(true[column], abs=bound), column


def test_nodes_outside_the_quotes_are_null() -> None:
    row = run(chain(strikes=np.array([94.0, 97.0, 99.0, 101.0, 103.0, 106.0])))[30]
    assert row["atm_iv"] is not None
    assert row["iv_95_pct"] is not None
    assert (row["iv_80_pct"], row["iv_120_pct"], row["put_10d_iv"], row["skew_10d"]) == (None, None, None, None)


def test_a_few_strikes_or_one_side_carry_no_surface() -> None:
    for strikes in ([95.0, 100.0, 105.0], [101.0, 103.0, 105.0, 107.0, 109.0, 111.0]):
        found = run(chain(strikes=np.array(strikes)))
        assert {row["atm_iv"] for row in found.values()} == {None}
        assert {row["reason"] for row in found.values()} == {"no_expiry"}


def test_contracts_without_a_volatility_or_in_the_money_take_no_part() -> None:
    spoilt = [
        row | {"contract": f"{row['contract']}x", "right": "P" if row["right"] == "C" else "C", "iv": 3.0} for row in chain()
    ] + [row | {"contract": f"{row['contract']}y", "quality": "below_intrinsic", "iv": None} for row in chain()]
    assert run(chain() + spoilt) == run(chain())


def test_the_expiry_of_the_session_stands_apart() -> None:
    """Its contracts are past at the close: each was priced some hours before, and the tenors take no notice of them."""
    hours = 3.0
    rows = []
    for row in chain((10,)):
        today = {"expiry": T, "expires_utc": CLOSE, "contract": f"{row['contract']}z", "years": hours / 24 / 365, "iv": 0.5}
        rows.append(row | today)
    found = run(chain() + rows)
    assert found[0]["atm_iv"] == pytest.approx(0.5, abs=1e-3)
    assert found[0]["near_days"] == pytest.approx(hours / 24)
    assert {tenor: row for tenor, row in found.items() if tenor} == run(chain())


def test_the_order_of_the_rows_does_not_show() -> None:
    rows = chain()
    assert run(rows[::-1]) == run(rows)


# --- Ranks -----------------------------------------------------------------------------------------------------------------------

DAYS_BEFORE = sessions.sessions_between(date(2023, 1, 3), T)


def surfaces(values: dict[date, float], column: str = "atm_iv") -> pl.DataFrame:
    rows = [{"underlying": "XYZ", "tenor_days": 30, column: value, "reason": "", "session": day} for day, value in values.items()]
    return pl.DataFrame(rows, schema={**IV_SURFACE.polars_schema(), "session": pl.Date()})


def ranked(values: dict[date, float]) -> dict[str, Any]:
    out = IV_RANKS.conform(iv_ranks({"iv_surface": surfaces(values)}, T).tables["iv_ranks"], T)
    assert out.height == 1
    return out.row(0, named=True)


def test_a_node_in_its_own_past() -> None:
    past = DAYS_BEFORE[-101:-1]
    values = {day: 0.20 + 0.001 * i for i, day in enumerate(past)} | {T: 0.35}
    row = ranked(values)
    history = np.array([values[day] for day in past])
    centre = np.median(history)
    assert (row["node"], row["iv"], row["history_sessions"]) == ("atm_iv", 0.35, 100)
    assert row["iv_z"] == pytest.approx((0.35 - centre) / (1.4826 * np.median(np.abs(history - centre))))
    assert row["iv_percentile"] == 1.0
    assert row["iv_rank"] == pytest.approx((0.35 - 0.20) / (0.299 - 0.20)), "a new extreme lies above 1"


def test_too_short_a_past_gives_no_rank_but_says_how_short() -> None:
    values = {day: 0.2 + 0.001 * i for i, day in enumerate(DAYS_BEFORE[-RANK_MIN_HISTORY:])}
    row = ranked(values)
    assert row["history_sessions"] == RANK_MIN_HISTORY - 1
    assert [row[name] for name in ("iv_z", "iv_percentile", "iv_rank", "half_life_sessions")] == [None] * 4


def test_a_past_that_does_not_vary_has_no_deviation_and_no_range() -> None:
    row = ranked(dict.fromkeys(DAYS_BEFORE[-100:-1], 0.2) | {T: 0.3})
    assert (row["iv_z"], row["iv_rank"], row["iv_percentile"]) == (None, None, 1.0)


def test_only_the_last_sessions_count() -> None:
    far = dict.fromkeys(DAYS_BEFORE[:-RANK_SESSIONS], 9.0)
    near = {day: 0.2 + 0.0001 * i for i, day in enumerate(DAYS_BEFORE[-RANK_SESSIONS:])}
    assert ranked(near | far) == ranked(near)


def test_the_half_life_of_a_first_order_autoregression() -> None:
    rng = np.random.default_rng(5)
    phi, series = 0.9, np.empty((200, 251))
    series[:, 0] = rng.normal(size=200)
    for i in range(1, 251):
        series[:, i] = phi * series[:, i - 1] + math.sqrt(1 - phi**2) * rng.normal(size=200)
    found = ranks.half_life(series)
    assert np.isfinite(found).mean() > 0.95
    biased = phi - (1 + 3 * phi) / 250
    assert np.nanmedian(found) == pytest.approx(-math.log(2) / math.log(biased), rel=0.15)
    assert np.isnan(ranks.half_life(np.cumsum(np.ones((1, 100)), axis=1) ** 2)).all(), "a series that runs away has none"


def test_every_node_of_the_surface_is_ranked() -> None:
    assert set(DELTA_NODES.values()) <= set(NODES)
    frames = [surfaces({T: 0.2}, column) for column in NODES]
    merged = frames[0].with_columns(pl.lit(0.2).alias(column) for column in NODES)
    out = iv_ranks({"iv_surface": merged}, T).tables["iv_ranks"]
    assert sorted(out["node"].to_list()) == sorted(NODES)
    assert tuple(surface.TENOR_DAYS) == TENOR_DAYS
