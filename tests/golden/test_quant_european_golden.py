"""Worked examples printed in Haug, "The Complete Guide to Option Pricing Formulas", 2nd ed. (2007), chapters 1 and 2."""

from __future__ import annotations

import math

import pytest

from flowlake.quant import european

CALL, PUT = 1, -1


@pytest.mark.parametrize(
    ("spot", "strike", "years", "rate", "dividend_yield", "vol", "right", "printed"),
    [
        pytest.param(60, 65, 0.25, 0.08, 0.0, 0.30, CALL, 2.1334, id="Black-Scholes"),
        pytest.param(100, 95, 0.5, 0.10, 0.05, 0.20, PUT, 2.4648, id="Merton"),
        pytest.param(19, 19, 0.75, 0.10, 0.10, 0.28, CALL, 1.7011, id="Black-76 call"),
        pytest.param(19, 19, 0.75, 0.10, 0.10, 0.28, PUT, 1.7011, id="Black-76 put"),
        pytest.param(1.56, 1.60, 0.5, 0.06, 0.08, 0.12, CALL, 0.0291, id="Garman-Kohlhagen"),
    ],
)
def test_printed_prices(
    spot: float, strike: float, years: float, rate: float, dividend_yield: float, vol: float, right: int, printed: float
) -> None:
    forward = spot * math.exp((rate - dividend_yield) * years)
    value = float(european.price(forward, strike, years, vol, right, math.exp(-rate * years)))
    assert round(value, 4) == printed


@pytest.mark.parametrize(
    ("greek", "spot", "strike", "years", "rate", "carry", "vol", "right", "printed"),
    [
        ("delta", 105, 100, 0.5, 0.10, 0.0, 0.36, CALL, 0.5946),
        ("delta", 105, 100, 0.5, 0.10, 0.0, 0.36, PUT, -0.3566),
        ("gamma", 55, 60, 0.75, 0.10, 0.10, 0.30, CALL, 0.0278),
        ("vega", 55, 60, 0.75, 0.10, 0.10, 0.30, PUT, 18.9358),
        ("theta", 430, 405, 0.0833, 0.07, 0.02, 0.20, PUT, -31.1924),
        ("rho", 72, 75, 1.0, 0.09, 0.09, 0.19, CALL, 38.7325),
        ("vanna", 90, 80, 0.25, 0.05, 0.05, 0.20, PUT, -1.0008),
        ("volga", 90, 130, 0.75, 0.05, 0.0, 0.28, CALL, 92.3444),
        ("charm", 105, 90, 0.25, 0.14, 0.0, 0.24, PUT, 0.3700),
        ("speed", 50, 48, 0.0833, 0.06, 0.01, 0.20, CALL, -0.0291),
    ],
)
def test_printed_greeks(
    greek: str, spot: float, strike: float, years: float, rate: float, carry: float, vol: float, right: int, printed: float
) -> None:
    values = european.greeks(spot, strike, years, vol, right, rate, rate - carry)
    assert round(float(getattr(values, greek)), 4) == printed
