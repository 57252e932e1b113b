"""Skew factors of `daily_factors` on chains whose volatilities are known."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from flowlake.datasets import curated
from flowlake.datasets.factors import OPTION_IV
from flowlake.datasets.volatility import IV_SURFACE
from flowlake.factors import skews
from flowlake.quant import american, european
from unit.test_factors_daily import CALL, CLOSE, T, interest, leg, master, run, stock, table

RATE = 0.04
STRIKES = (90.0, 95.0, 100.0, 105.0, 110.0)
PLENTY = 50


def priced(right: str, strike: float, vol: float, days: int = 30, dividend: float = 0.0, **more: Any) -> dict[str, Any]:
    """A row of `option_iv` at the close, spot 100, that `vol` prices on the forward of spot, `RATE` and a dividend in ten days.

    Its `forward` is 3 % lower, as parity gives it for a stock that is dear to borrow.
    """
    years = days / 365
    side = 1 if right == "C" else -1
    discount = math.exp(-RATE * years)
    ahead = np.array([10 / 365 - 6.5 / 24 / 365])
    held = 100.0 - dividend * math.exp(-RATE * ahead[0])
    row = {**leg(right, strike, days), "ts_utc": CLOSE, "spot": 100.0, "spot_source": "equity_bars_1m", "exercise": "european"}
    row |= {"forward": 0.97 * held / discount, "discount": discount, "rate_source": "rates", "years": years}
    row |= {"iv": vol, "quality": "ok"} | more
    if row["exercise"] == "american":
        paid = (ahead, np.array([dividend]))
        price = float(american.price(100.0, strike, years, vol, side, RATE, 0.0, *paid))
    else:
        price = float(european.price(held / discount, strike, years, vol, side, discount))
    return {"price": price, **row}


def found(rows: list[dict[str, Any]], held: dict[str, int] | None = None, dividend: float = 0.0, **more: Any) -> dict[str, Any]:
    """The row of `daily_factors`; `held` is open interest by contract, of all contracts `PLENTY` where it is not given."""
    legs = [{name: row[name] for name in CALL} for row in rows]
    reports = [interest(each, PLENTY if held is None else held.get(each["contract"], 0)) for each in legs]
    paid = {"underlying": "XYZ", "ex_date": T + timedelta(days=20), "kind": "cash_dividend", "cash_amount_usd": dividend}
    inputs = {
        "contracts": master(*({**each, "exercise": row["exercise"]} for each, row in zip(legs, rows, strict=True))),
        "option_iv": table(OPTION_IV, rows),
        "open_interest": table(curated.OPEN_INTEREST, reports),
        "rates": table(curated.RATES, [{"tenor_days": 30, "rate": RATE}]),
    }
    if dividend:
        inputs["corporate_actions"] = table(curated.CORPORATE_ACTIONS, [{**paid, "ex_date": T + timedelta(days=10)}])
    return run(**(inputs | more))


def both(call_vol: float, put_vol: float, **more: Any) -> list[dict[str, Any]]:
    vols = {"C": call_vol, "P": put_vol}
    return [priced(right, strike, vol, **more) for strike in STRIKES for right, vol in vols.items()]


@pytest.mark.parametrize("exercise", ["european", "american"])
@pytest.mark.parametrize("dividend", [0.0, 2.0])
def test_calls_dear_against_the_carry_make_the_spread_positive(exercise: str, dividend: float) -> None:
    row = found(both(0.25, 0.2, dividend=dividend, exercise=exercise), dividend=dividend)
    assert row["call_put_iv_spread"] == pytest.approx(0.05, abs=2e-4 if exercise == "american" else 1e-9)
    assert row["atm_call_iv_30d"] == pytest.approx(0.25, abs=2e-4 if exercise == "american" else 1e-9)
    assert row["atm_put_iv_30d"] == pytest.approx(0.2, abs=2e-4 if exercise == "american" else 1e-9)
    cheap = found(both(0.2, 0.25, dividend=dividend, exercise=exercise), dividend=dividend)
    assert cheap["call_put_iv_spread"] == pytest.approx(-0.05, abs=2e-4 if exercise == "american" else 1e-9)


def test_an_unknown_dividend_is_what_the_spread_shows() -> None:
    rows = both(0.2, 0.2, dividend=2.0)
    assert found(rows, dividend=2.0)["call_put_iv_spread"] == pytest.approx(0.0, abs=1e-9)
    assert found(rows)["call_put_iv_spread"] < -0.05, "on a forward without the dividend calls look cheap"


def test_pairs_weigh_by_their_mean_open_interest() -> None:
    vols = {95.0: (0.30, 0.2, 10, 30), 100.0: (0.25, 0.2, 100, 0), 105.0: (0.2, 0.24, 4, 4), 110.0: (0.9, 0.1, 0, 0)}
    rows, held, weighted, total = [], {}, 0.0, 0.0
    for strike, (call_vol, put_vol, calls, puts) in vols.items():
        pair = [priced("C", strike, call_vol), priced("P", strike, put_vol)]
        rows += pair
        held |= {pair[0]["contract"]: calls, pair[1]["contract"]: puts}
        weighted += (calls + puts) / 2 * (call_vol - put_vol)
        total += (calls + puts) / 2
    assert found(rows, held)["call_put_iv_spread"] == pytest.approx(weighted / total, abs=1e-9)
    alone = {contract: count for contract, count in held.items() if count > 4}
    assert found(rows, alone)["call_put_iv_spread"] is None, "two pairs are too few"


def test_a_spread_needs_open_interest_volatilities_and_a_spot_of_its_own() -> None:
    rows = both(0.25, 0.2)
    bare = found(rows, open_interest=pl.DataFrame())
    assert bare["call_put_iv_spread"] is None
    assert "call_put_iv_spread: needs open_interest" in bare["not_available"]
    assert found(rows, {})["call_put_iv_spread"] is None
    circular = found([{**row, "spot_source": "parity_forward"} for row in rows])
    assert circular["call_put_iv_spread"] is None
    assert circular["atm_call_iv_30d"] == pytest.approx(0.25, abs=1e-9), "a level it still has"
    unsolved = [{**row, "price": 1e-6} if row["right"] == "C" and row["strike"] <= 100.0 else row for row in rows]
    assert found(unsolved)["call_put_iv_spread"] is None, "below the value of exercise there is no volatility: two pairs are left"
    one_short = [{**row, "price": 1e-6} if row["right"] == "C" and row["strike"] <= 95.0 else row for row in rows]
    assert found(one_short)["call_put_iv_spread"] == pytest.approx(0.05, abs=1e-9)
    unsound = [{**row, "quality": "wide_quote"} if row["strike"] != 100.0 else row for row in rows]
    assert found(unsound)["call_put_iv_spread"] is None


def test_without_a_rate_calls_and_puts_cannot_be_compared() -> None:
    rows = [{**row, "rate_source": "none"} for row in both(0.25, 0.2)]
    row = found(rows, rates=pl.DataFrame())
    assert [row[name] for name in ("call_put_iv_spread", "atm_call_iv_30d", "atm_put_iv_30d")] == [None] * 3
    assert "atm_call_iv_30d: needs rates" in row["not_available"]
    assert row["smirk"] == pytest.approx(-0.05, abs=1e-12), "on the forward of parity it needs none"


def test_the_smirk_takes_the_put_nearest_to_95_and_the_call_nearest_to_the_spot() -> None:
    rows = [
        priced("P", 79.0, 0.9),
        priced("P", 90.0, 0.5),
        priced("P", 94.0, 0.4),
        priced("P", 96.0, 0.8),
        priced("C", 98.0, 0.7),
        priced("C", 101.0, 0.22),
        priced("C", 106.0, 0.6),
    ]
    assert found(rows)["smirk"] == pytest.approx(0.18, abs=1e-9)
    on_the_edges = [priced("P", 95.0, 0.33), priced("C", 105.0, 0.23)]
    assert found(on_the_edges)["smirk"] == pytest.approx(0.1, abs=1e-9)
    assert found([priced("P", 80.0, 0.33), priced("C", 95.0, 0.23)])["smirk"] == pytest.approx(0.1, abs=1e-9)
    assert found([row for row in rows if row["strike"] not in (98.0, 101.0)])["smirk"] is None
    assert found([row for row in rows if row["right"] == "C"])["smirk"] is None


def test_the_smirk_is_of_the_expiry_nearest_to_thirty_days_that_has_both() -> None:
    def expiry(days: int, put_vol: float) -> list[dict[str, Any]]:
        return [priced("P", 94.0, put_vol, days), priced("C", 100.0, 0.2, days)]

    only_call = [priced("C", 100.0, 0.2, 30)]
    assert found(expiry(16, 0.3) + only_call + expiry(51, 0.4))["smirk"] == pytest.approx(0.1, abs=1e-9)
    assert found(expiry(9, 0.3) + expiry(61, 0.4))["smirk"] is None
    assert found(expiry(10, 0.3) + expiry(60, 0.4))["smirk"] == pytest.approx(0.1, abs=1e-9)


def test_calls_alone_are_linear_in_total_variance_between_expiries() -> None:
    row = found(both(0.2, 0.3, days=20) + both(0.3, 0.25, days=40))
    assert row["atm_call_iv_30d"] == pytest.approx(math.sqrt((0.2**2 * 20 + 0.3**2 * 40) / 2 / 30), rel=1e-9)
    assert row["atm_put_iv_30d"] == pytest.approx(math.sqrt((0.3**2 * 20 + 0.25**2 * 40) / 2 / 30), rel=1e-9)


def test_the_volatility_at_the_forward_lies_between_the_strikes_around_it() -> None:
    forward = 100.0 * math.exp(RATE * 30 / 365)
    vols = {96.0: 0.3, 98.0: 0.28, 103.0: 0.2}
    row = found([priced("C", strike, vol) for strike, vol in vols.items()])
    share = math.log(forward / 98.0) / math.log(103.0 / 98.0)
    assert row["atm_call_iv_30d"] == pytest.approx(0.28 + share * (0.2 - 0.28), rel=1e-9)
    assert row["atm_put_iv_30d"] is None
    assert found([priced("C", strike, 0.2) for strike in (98.0, 103.0)])["atm_call_iv_30d"] is None, "three contracts"
    assert found([priced("C", strike, 0.2) for strike in (101.0, 103.0, 105.0)])["atm_call_iv_30d"] is None, "on both sides"
    assert found([priced("C", strike, 0.2) for strike in (98.0, 103.0, 120.0)])["atm_call_iv_30d"] is None, "near the forward"
    assert found([priced("C", strike, 0.2, 20) for strike in (98.0, 100.0, 103.0)])["atm_call_iv_30d"] is None, "near 30 days"


def test_contracts_at_the_forward_itself() -> None:
    forward = 100.0 * math.exp(RATE * 30 / 365)
    row = found([priced("C", strike, vol) for strike, vol in ((98.0, 0.3), (forward, 0.25), (103.0, 0.2))])
    assert row["atm_call_iv_30d"] == pytest.approx(0.25, rel=1e-9)


def test_a_quote_of_the_last_minute_is_solved_at_the_close() -> None:
    late = {"ts_utc": CLOSE - timedelta(seconds=30), "price_source": "quote_mid"}
    rows = [{**row, "spot": 99.0, **late} for row in both(0.25, 0.2)]
    assert found(rows, equity_bars_1d=stock(100.0))["call_put_iv_spread"] == pytest.approx(0.05, abs=1e-9)
    earlier = [{**row, "ts_utc": CLOSE - timedelta(seconds=90)} for row in rows]
    assert abs(found(earlier, equity_bars_1d=stock(100.0))["call_put_iv_spread"] - 0.05) > 0.05
    traded = [{**row, "price_source": "trade"} for row in rows]
    assert abs(found(traded, equity_bars_1d=stock(100.0))["call_put_iv_spread"] - 0.05) > 0.05


def test_parts_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = both(0.25, 0.2, dividend=2.0, exercise="american")
    whole = found(rows, dividend=2.0)
    monkeypatch.setattr(skews, "CHUNK", 3)
    assert found(rows, dividend=2.0) == whole


def test_no_volatility_at_all() -> None:
    row = found([{**each, "quality": "no_spot", "spot": None} for each in both(0.25, 0.2)])
    names = ("call_put_iv_spread", "smirk", "atm_call_iv_30d", "atm_put_iv_30d")
    assert [row[name] for name in names] == [None] * 4
    assert {text.split(":")[0] for text in row["not_available"]} >= set(names)


def node(days: int, atm: float | None, **more: Any) -> dict[str, Any]:
    return {"underlying": "XYZ", "tenor_days": days, "atm_iv": atm, "reason": "" if atm else "no_slice", **more}


def of_surface(*nodes: dict[str, Any]) -> dict[str, Any]:
    return found(both(0.2, 0.2), iv_surface=table(IV_SURFACE, list(nodes)))


def test_the_surface_is_read_at_its_tenors() -> None:
    row = of_surface(
        node(0, 0.9),
        node(7, None, fit_rmse=0.5),
        node(14, 0.35),
        node(30, 0.3, butterfly_25d=0.01, skew_10d=0.08, fit_rmse=0.002, butterfly_10d=9.0, skew_25d=9.0),
        node(90, 0.26, butterfly_25d=8.0, skew_10d=8.0, fit_rmse=8.0),
    )
    assert row["term_slope"] == pytest.approx(-0.04)
    assert (row["butterfly_25d_30d"], row["skew_10d_30d"], row["surface_residual"]) == (0.01, 0.08, 0.002)
    assert row["implied_move_1d"] == pytest.approx(0.35 * math.sqrt(2 / math.pi) / math.sqrt(252), rel=1e-12)
    # The mean of |x| under a normal distribution, by quadrature.
    x = np.linspace(-10, 10, 200_001)
    density = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    assert row["implied_move_1d"] == pytest.approx(0.35 / math.sqrt(252) * float(np.trapezoid(np.abs(x) * density, x)), rel=1e-6)


def test_nodes_that_the_surface_lacks() -> None:
    row = of_surface(node(60, 0.3), node(90, 0.3))
    names = ("term_slope", "butterfly_25d_30d", "skew_10d_30d", "implied_move_1d", "surface_residual")
    assert [row[name] for name in names] == [None] * 5
    assert "term_slope: the surface lacks atm_iv at 30 or at 90 days" in row["not_available"]
    assert "implied_move_1d: needs iv_surface" in found(both(0.2, 0.2))["not_available"]
    assert of_surface(node(30, 0.3))["term_slope"] is None
