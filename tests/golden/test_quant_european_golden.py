"""Worked examples and a table printed in Haug, "The Complete Guide to Option Pricing Formulas".

The examples are those of the 2nd edition (2007), chapters 1 and 2; three and the table are of the 1st (1998), pages 8, 24 and 27.
"""

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
        pytest.param(75, 70, 0.5, 0.10, 0.05, 0.35, PUT, 4.0870, id="generalized Black-Scholes"),
        pytest.param(42, 40, 0.75, 0.04, 0.08, 0.35, CALL, 5.0975, id="beside an American call"),
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
        ("gamma", 55, 60, 0.75, 0.10, 0.10, 0.30, PUT, 0.0278),
        ("vega", 55, 60, 0.75, 0.10, 0.10, 0.30, CALL, 18.9358),
        ("vega", 55, 60, 0.75, 0.10, 0.10, 0.30, PUT, 18.9358),
        ("vega", 55, 60, 0.75, 0.105, 0.0695, 0.30, CALL, 18.5027),
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


def test_printed_elasticity() -> None:
    spot, strike, years, rate, vol = 105, 100, 0.5, 0.10, 0.36
    delta = float(european.greeks(spot, strike, years, vol, PUT, rate, rate).delta)
    price = float(european.price(spot, strike, years, vol, PUT, math.exp(-rate * years)))
    assert round(delta * spot / price, 4) == -4.8775


# European options on a future: strike 100, rate 10 %; rows are years, vol and the prices at futures of 90, 100 and 110.
PRINTED_TABLE = {
    CALL: [
        (0.1, 0.15, 0.0205, 1.8734, 9.9413),
        (0.1, 0.25, 0.3150, 3.1217, 10.3556),
        (0.1, 0.35, 0.9474, 4.3693, 11.1381),
        (0.5, 0.15, 0.8069, 4.0232, 10.5769),
        (0.5, 0.25, 2.7026, 6.6997, 12.7857),
        (0.5, 0.35, 4.9329, 9.3679, 15.3086),
    ],
    PUT: [
        (0.1, 0.15, 9.9210, 1.8734, 0.0408),
        (0.1, 0.25, 10.2155, 3.1217, 0.4551),
        (0.1, 0.35, 10.8479, 4.3693, 1.2376),
        (0.5, 0.15, 10.3192, 4.0232, 1.0646),
        (0.5, 0.25, 12.2149, 6.6997, 3.2734),
        (0.5, 0.35, 14.4452, 9.3679, 5.7963),
    ],
}


@pytest.mark.parametrize("right", [CALL, PUT])
def test_printed_table_of_options_on_a_future(right: int) -> None:
    for years, vol, *printed in PRINTED_TABLE[right]:
        values = european.price([90, 100, 110], 100, years, vol, right, math.exp(-0.10 * years))
        # The book's normal distribution is a polynomial: 1.8734 is printed for 1.87334.
        assert values.tolist() == pytest.approx(printed, abs=1e-4)
