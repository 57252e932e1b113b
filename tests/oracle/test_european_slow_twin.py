"""Volatilities and sensitivities against the definitions themselves, worked with 60 digits."""

from __future__ import annotations

import itertools
import math

import mpmath
import numpy as np
import pytest
from mpmath import mpf

from flowlake.quant import european

LOG_MONEYNESS = (0.0, 1e-9, 1e-4, 0.01, 0.1, 0.5, 1.0, 1.99, 2.01, 4.0)
TOTAL_VOL = (1e-6, 1e-4, 3e-3, 0.02, 0.1, 0.3, 0.8, 1.4, 1.59, 1.61, 1.75, 2.5, 5.0, 8.0, 12.0)


def twin_price(forward: float | mpf, strike: float | mpf, total_vol: mpf, right: int, discount: float | mpf = 1.0) -> mpf:
    forward, strike = mpf(forward), mpf(strike)
    d1 = mpmath.log(forward / strike) / total_vol + total_vol / 2
    return discount * right * (forward * mpmath.ncdf(right * d1) - strike * mpmath.ncdf(right * (d1 - total_vol)))


def twin_total_vol(price: float, forward: float, strike: float, right: int, start: float) -> mpf:
    """The total volatility of exactly this double; Newton on the logarithm of the price, or of its distance to the top."""
    top = mpf(forward if right > 0 else strike)
    s = mpf(start)
    for _ in range(100):
        value = twin_price(forward, strike, s, right)
        d1 = mpmath.log(mpf(forward) / mpf(strike)) / s + s / 2
        vega = mpf(forward) * mpmath.npdf(d1)
        if value < top / 2:
            step = mpmath.log(mpf(price) / value) * value / vega
        else:
            step = -mpmath.log((top - mpf(price)) / (top - value)) * (top - value) / vega
        s += step
        if abs(step) < mpf(10) ** -40 * s:
            return s
    raise AssertionError(f"no convergence at {price}, {forward}, {strike}")


@pytest.mark.parametrize("right", [1, -1])
def test_extreme_implied_vols(right: int) -> None:
    forward = 100.0
    checked = 0
    with mpmath.workdps(60):
        for x, s in itertools.product(LOG_MONEYNESS, TOTAL_VOL):
            strike = forward * math.exp(right * x)
            price = float(twin_price(forward, strike, mpf(s), right))
            room = (forward if right > 0 else strike) - price
            if price < 1e-290 or room < 1e-15 * forward:
                continue
            exact = twin_total_vol(price, forward, strike, right, s)
            for years in (1.0, 1e-4):
                found = float(european.implied_vol(price, forward, strike, years, right))
                # Near the top the distance to it, a difference of doubles, is what the price tells.
                assert abs(found * math.sqrt(years) - float(exact)) <= 4e-15 * max(1.0, float(exact)), (x, s, years)
                checked += 1
    assert checked > 150


def test_higher_greeks_are_the_derivatives() -> None:
    rng = np.random.default_rng(7)
    for right in (1, -1):
        for _ in range(12):
            spot, strike = rng.uniform(50, 150, 2)
            years, vol, rate, carry = rng.uniform(0.05, 2), rng.uniform(0.1, 1), rng.uniform(0, 0.1), rng.uniform(0, 0.05)

            def value(s: mpf, t: mpf, v: mpf, r: mpf, right: int = right, k: float = strike, q: float = carry) -> mpf:
                return twin_price(s * mpmath.exp((r - q) * t), k, v * mpmath.sqrt(t), right, mpmath.exp(-r * t))

            with mpmath.workdps(40):
                at = (mpf(spot), mpf(years), mpf(vol), mpf(rate))
                exact = {
                    "delta": mpmath.diff(value, at, (1, 0, 0, 0)),
                    "gamma": mpmath.diff(value, at, (2, 0, 0, 0)),
                    "vega": mpmath.diff(value, at, (0, 0, 1, 0)),
                    "theta": -mpmath.diff(value, at, (0, 1, 0, 0)),
                    "rho": mpmath.diff(value, at, (0, 0, 0, 1)),
                    "vanna": mpmath.diff(value, at, (1, 0, 1, 0)),
                    "volga": mpmath.diff(value, at, (0, 0, 2, 0)),
                    "charm": -mpmath.diff(value, at, (1, 1, 0, 0)),
                    "speed": mpmath.diff(value, at, (3, 0, 0, 0)),
                }
            ours = european.greeks(spot, strike, years, vol, right, rate, carry)
            for name, expected in exact.items():
                assert float(getattr(ours, name)) == pytest.approx(float(expected), rel=1e-9, abs=1e-11), name
