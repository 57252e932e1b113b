"""20,000 random contracts against QuantLib's Black formula, calculator and implied deviation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import QuantLib as ql  # noqa: N813 - the name its own documentation uses

from flowlake.core.arrays import Float
from flowlake.quant import european

COUNT = 20_000


@pytest.fixture(scope="module")
def contracts() -> dict[str, Float]:
    rng = np.random.default_rng(20260105)
    years = rng.choice(np.array([1, 2, 7, 14, 30, 91, 182, 365, 730]), COUNT) / 365.0
    vol = np.exp(rng.uniform(math.log(0.03), math.log(3.0), COUNT))
    spot = np.exp(rng.uniform(math.log(1.0), math.log(6000.0), COUNT))
    strike = spot * np.exp(rng.uniform(-3.0, 3.0, COUNT) * vol * np.sqrt(years))
    return {
        "spot": spot,
        "strike": strike,
        "years": years,
        "vol": vol,
        "right": rng.choice(np.array([-1.0, 1.0]), COUNT),
        "rate": rng.uniform(-0.01, 0.08, COUNT),
        "dividend_yield": rng.uniform(0.0, 0.05, COUNT),
    }


def calculators(contracts: dict[str, Float]) -> list[ql.BlackCalculator]:
    made = []
    for i in range(COUNT):
        row = {name: float(values[i]) for name, values in contracts.items()}
        forward = row["spot"] * math.exp((row["rate"] - row["dividend_yield"]) * row["years"])
        payoff = ql.PlainVanillaPayoff(ql.Option.Call if row["right"] > 0 else ql.Option.Put, row["strike"])
        deviation = row["vol"] * math.sqrt(row["years"])
        made.append(ql.BlackCalculator(payoff, forward, deviation, math.exp(-row["rate"] * row["years"])))
    return made


def forwards(contracts: dict[str, Float]) -> tuple[Float, Float]:
    growth = (contracts["rate"] - contracts["dividend_yield"]) * contracts["years"]
    return contracts["spot"] * np.exp(growth), np.exp(-contracts["rate"] * contracts["years"])


def test_prices_and_greeks(contracts: dict[str, Float]) -> None:
    theirs = calculators(contracts)
    spot, years = contracts["spot"], contracts["years"]
    forward, discount = forwards(contracts)
    ours = european.greeks(**contracts)
    price = european.price(forward, contracts["strike"], years, contracts["vol"], contracts["right"], discount)
    scale = forward + contracts["strike"]
    assert (np.abs(price - [c.value() for c in theirs]) / scale).max() < 2e-15
    expected = {
        "delta": [c.delta(s) for c, s in zip(theirs, spot.tolist(), strict=True)],
        "gamma": [c.gamma(s) for c, s in zip(theirs, spot.tolist(), strict=True)],
        "vega": [c.vega(t) for c, t in zip(theirs, years.tolist(), strict=True)],
        "theta": [c.theta(s, t) for c, s, t in zip(theirs, spot.tolist(), years.tolist(), strict=True)],
        "rho": [c.rho(t) for c, t in zip(theirs, years.tolist(), strict=True)],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(getattr(ours, name), values, rtol=1e-9, atol=1e-9, err_msg=name)


def test_implied_vols(contracts: dict[str, Float]) -> None:
    forward, discount = forwards(contracts)
    strike, years, vol, right = (contracts[name] for name in ("strike", "years", "vol", "right"))
    price = european.price(forward, strike, years, vol, right, discount)
    ours = european.implied_vol(price, forward, strike, years, right, discount)
    assert not np.isnan(ours).any()
    # A price is a double: half a unit in its last place, and in that of forward and strike, is this much volatility.
    vega = european.greeks(**contracts).vega
    blur = np.spacing(forward + strike) * discount / vega
    assert (np.abs(ours - vol) <= 1e-12 + 4.0 * blur).all()
    # QuantLib's solver gives up on some; it is asked about those near the money.
    near = np.flatnonzero(np.abs(np.log(forward / strike)) < vol * np.sqrt(years))[::5]
    for i in near.tolist():
        theirs = ql.blackFormulaImpliedStdDev(
            ql.Option.Call if right[i] > 0 else ql.Option.Put,
            *(float(values[i]) for values in (strike, forward, price, discount)),
            0.0,
            0.9 * float(vol[i] * math.sqrt(years[i])),
            1e-14,
            200,
        )
        assert abs(ours[i] * math.sqrt(years[i]) - theirs) < 1e-11


def test_fused_agrees_with_the_two_steps(contracts: dict[str, Float]) -> None:
    forward, discount = forwards(contracts)
    price = european.price(forward, contracts["strike"], contracts["years"], contracts["vol"], contracts["right"], discount)
    market = {name: values for name, values in contracts.items() if name != "vol"}
    fused = european.implied_vol_greeks(price, **market)
    apart = european.greeks(vol=fused.iv, **market)
    assert not np.isnan(fused.iv).any()
    for name in fused._fields[1:]:
        np.testing.assert_allclose(getattr(fused, name), getattr(apart, name), rtol=2e-12, atol=1e-12, err_msg=name)
