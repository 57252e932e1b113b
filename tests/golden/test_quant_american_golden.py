"""American option values from print. Each table says how near its printed values are to the truth, and how near ours have to be."""

from __future__ import annotations

import math

import numpy as np
import pytest

from flowlake.quant import american, european


def test_andersen_lake_offengenden() -> None:
    """Andersen, Lake and Offengenden, "High-performance American option pricing", J. of Computational Finance 20 (2016), table 2.

    Premium of early exercise of a put, strike and spot 100, one year, rate and yield 5 %, volatility 25 %.
    """
    put = float(european.price(100.0, 100.0, 1.0, 0.25, -1, math.exp(-0.05)))
    value = float(american.price(100.0, 100.0, 1.0, 0.25, -1, 0.05, 0.05))
    assert value - put == pytest.approx(0.106952702747, abs=1e-3)


# Rows: volatility 0.2, 0.3, 0.4 and within each strike 35, 40, 45; columns: 0.0833, 0.3333, 0.5833 years.
GESKE_JOHNSON = [
    [0.0062, 0.1999, 0.4321],
    [0.8521, 1.5760, 1.9827],
    [4.9969, 5.0951, 5.2719],
    [0.0771, 0.6969, 1.2194],
    [1.3081, 2.4817, 3.1733],
    [5.0600, 5.7012, 6.2365],
    [0.2466, 1.3447, 2.1568],
    [1.7659, 3.3835, 4.3556],
    [5.2868, 6.5093, 7.3831],
]
HUANG_SUBRAHMANYAM_YU = [
    [0.0062, 0.2004, 0.4328],
    [0.8522, 1.5798, 1.9904],
    [5.0000, 5.0883, 5.2670],
    [0.0774, 0.6975, 1.2198],
    [1.3099, 2.4825, 3.1696],
    [5.0597, 5.7056, 6.2436],
    [0.2466, 1.3460, 2.1549],
    [1.7681, 3.3874, 4.3526],
    [5.2868, 6.5099, 7.3830],
]


@pytest.mark.parametrize(
    ("printed", "largest"),
    [
        # Geske and Johnson, "The American put option valued analytically", Journal of Finance 39 (1984), table I: an
        # extrapolation of four values, up to 0.008 from the truth.
        pytest.param(GESKE_JOHNSON, 1e-2, id="Geske-Johnson"),
        # Huang, Subrahmanyam and Yu, "Pricing and hedging American options", Review of Financial Studies 9 (1996): the same
        # puts by a binomial tree of 10,000 steps.
        pytest.param(HUANG_SUBRAHMANYAM_YU, 2.5e-3, id="Huang-Subrahmanyam-Yu"),
    ],
)
def test_puts_on_a_stock_of_40(printed: list[list[float]], largest: float) -> None:
    vol = np.repeat([0.2, 0.3, 0.4], 3)[:, None]
    strike = np.tile([35.0, 40.0, 45.0], 3)[:, None]
    value = american.price(40.0, strike, [[0.0833, 0.3333, 0.5833]], vol, -1, 0.0488)
    np.testing.assert_allclose(value, printed, atol=largest)


@pytest.mark.parametrize(
    ("vol", "rate", "dividend_yield", "printed"),
    [
        (0.2, 0.03, 0.07, [0.219, 1.386, 4.783, 11.098, 20.000]),
        (0.4, 0.03, 0.07, [2.689, 5.722, 10.239, 16.181, 23.360]),
        (0.3, 0.00, 0.07, [1.037, 3.123, 7.035, 12.955, 20.717]),
        (0.3, 0.07, 0.03, [1.664, 4.495, 9.250, 15.798, 23.706]),
    ],
)
def test_broadie_detemple(vol: float, rate: float, dividend_yield: float, printed: list[float]) -> None:
    """Broadie and Detemple, "American option valuation", Review of Financial Studies 9 (1996), table 1.

    Calls of six months, strike 100. The printed true values come from a binomial tree of 15,000 steps.
    """
    value = american.price([80.0, 90.0, 100.0, 110.0, 120.0], 100.0, 0.5, vol, 1, rate, dividend_yield)
    np.testing.assert_allclose(value, printed, atol=5.5e-3)


def test_roll_geske_whaley() -> None:
    """Haug, "The Complete Guide to Option Pricing Formulas", 2nd ed. (2007), chapter 9: a call with one cash dividend, 4.3860.

    The formula is exact in the escrowed model.
    """
    value = float(american.price(80.0, 82.0, 0.3333, 0.30, 1, 0.06, 0.0, [0.25], [4.0]))
    assert value == pytest.approx(4.3860, abs=1.5e-3)
