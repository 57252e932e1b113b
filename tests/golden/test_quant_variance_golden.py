"""Printed examples: Cboe's VIX white papers, and the variance swap of Demeterfi, Derman, Kamal and Zou (1999)."""

from __future__ import annotations

import math

import numpy as np
import pytest

from flowlake.quant import european
from flowlake.quant.variance import VixStyleVariance, replicated_variance, vix_style_index, vix_style_variance
from golden import vix_white_paper as paper

DAY = 1440
YEAR = 365 * DAY


def term_2009(near: bool) -> VixStyleVariance:
    """White paper of 2009: 9 and 37 days, a rate of 0.38 %."""
    puts, calls = (paper.NEAR_2009_PUTS, paper.NEAR_2009_CALLS) if near else (paper.NEXT_2009_PUTS, paper.NEXT_2009_CALLS)
    strip = paper.columns(paper.quotes(puts), paper.quotes(calls))
    return vix_style_variance(*strip, years=(9 if near else 37) * DAY / YEAR, rate=0.0038)


def term_2014(near: bool, years: float, rate: float) -> VixStyleVariance:
    puts, calls = (paper.NEAR_2014_PUTS, paper.NEAR_2014_CALLS) if near else (paper.NEXT_2014_PUTS, paper.NEXT_2014_CALLS)
    return vix_style_variance(*paper.columns(paper.midpoints(puts), paper.midpoints(calls)), years=years, rate=rate)


def test_the_white_paper_of_2009() -> None:
    near, following = term_2009(True), term_2009(False)
    assert round(near.forward, 5) == 920.50005
    assert round(following.forward, 5) == 921.00039
    assert near.k0 == following.k0 == 920.0
    # Of the near calls 1220 is the last: two neighbours above it have no bid, and 1250, which has one, comes too late.
    assert (near.strikes[0], near.strikes[-1]) == (400.0, 1220.0)
    # The next 425 put has no bid and is left out alone.
    assert (following.strikes[0], following.strikes[-1]) == (200.0, 1160.0)
    assert 425.0 not in following.strikes
    assert round(near.variance, 4) == 0.4728
    assert round(following.variance, 4) == 0.3668
    index = vix_style_index(near.variance, 9 * DAY, following.variance, 37 * DAY)
    assert round(float(index) / 100.0, 7) == 0.6121800
    assert round(float(index), 2) == 61.22


def test_the_white_papers_of_2014_and_2019() -> None:
    # Years are printed with 7 decimals, and so are the variances exact to about 1e-8.
    near, following = term_2014(True, 0.0683486, 0.000305), term_2014(False, 0.0882686, 0.000286)
    assert round(near.forward, 5) == 1962.89996
    assert round(following.forward, 5) == 1962.40006
    assert near.k0 == following.k0 == 1960.0
    assert near.variance == pytest.approx(0.01846292, abs=2e-8)
    assert following.variance == pytest.approx(0.01882101, abs=2e-8)
    index = float(vix_style_index(near.variance, 35924, following.variance, 46394))
    assert index == pytest.approx(13.685821, abs=2e-6)
    assert round(index, 2) == 13.69


def test_the_later_methodology_with_its_printed_sums() -> None:
    near, following = term_2014(True, 34484 / YEAR, 0.00031664), term_2014(False, 44954 / YEAR, 0.00028797)
    assert round(near.forward, 5) == 1962.89996
    assert round(following.forward, 5) == 1962.40006
    assert round(math.fsum(near.contributions), 10) == 0.0006320516
    assert round(math.fsum(following.contributions), 10) == 0.0008314016
    assert near.variance == pytest.approx(0.019233906, abs=1e-9)
    assert following.variance == pytest.approx(0.019423884, abs=1e-9)
    index = float(vix_style_index(near.variance, 34484, following.variance, 44954))
    assert round(index / 100.0, 8) == 0.13927842
    assert round(index, 2) == 13.93


def test_the_strips_end_where_the_white_papers_end_them() -> None:
    near, following = term_2014(True, 34484 / YEAR, 0.00031664), term_2014(False, 44954 / YEAR, 0.00028797)
    # 1350 and 1355 have bids, but below 1360 and 1365, which have none; likewise 2225.
    assert (near.strikes[0], near.strikes[-1]) == (1370.0, 2125.0)
    assert (following.strikes[0], following.strikes[-1]) == (1275.0, 2200.0)
    assert not {1405.0, 1415.0, 2120.0} & set(near.strikes.tolist())
    # dK of the next 1325 put is printed as (1350 - 1275)/2 = 37.5.
    growth = math.exp(0.00028797 * 44954 / YEAR)
    at = following.strikes.tolist().index(1325.0)
    assert following.contributions[at] == pytest.approx(37.5 / 1325.0**2 * growth * 0.15, rel=1e-12)
    assert near.contributions[0] == pytest.approx(5.0 / 1370.0**2 * math.exp(0.00031664 * 34484 / YEAR) * 0.2, rel=1e-12)


# Table 1: strike, volatility in points, weight, value per option (of few digits), contribution.
DDKZ_PUTS = """
50 30 163.04 .0004 55 29 134.63 .0035 60 28 113.05 .0241 65 27 96.27 .1289 70 26 82.98 .5560 75 25 72.26 1.9939 80 24 63.49 6.0829
85 23 56.23 16.0459 90 22 50.15 37.0260 95 21 45.00 75.3616 100 20 20.98 70.3615
"""
DDKZ_CALLS = """
100 20 19.63 89.8691 105 19 36.83 83.1580 110 18 33.55 29.7752 115 17 30.69 7.9130 120 16 28.19 1.4119 125 15 25.98 .1476
130 14 24.02 .0075 135 13 22.27 .0001
"""


def test_the_variance_swap_of_demeterfi_derman_kamal_and_zou() -> None:
    # Three months are 90 days: the printed weights are those of 90/365 years. The lines end at 45 and 140.
    years, rate, spot = 90 / 365, 0.05, 100.0
    forward, discount = spot * math.exp(rate * years), math.exp(-rate * years)
    strike = np.arange(45.0, 141.0, 5.0)
    vol = 0.20 - 0.01 * (strike - 100.0) / 5.0
    call = european.price(forward, strike, years, vol, 1, discount)
    put = european.price(forward, strike, years, vol, -1, discount)
    swap = replicated_variance(strike, call, put, forward, years, discount, split=spot)
    # The paper counts variance in squared volatility points: 1e4 times ours.
    for text, weight, price in ((DDKZ_PUTS, swap.put_weight, put), (DDKZ_CALLS, swap.call_weight, call)):
        rows = np.array(text.split(), dtype=np.float64).reshape(-1, 4)
        at = np.searchsorted(strike, rows[:, 0])
        np.testing.assert_allclose(100.0 * vol[at], rows[:, 1])
        np.testing.assert_array_equal(np.round(1e4 * weight[at], 2), rows[:, 2])
        np.testing.assert_allclose(1e4 * weight[at] * price[at], rows[:, 3], atol=6e-5)
        others = np.delete(weight, at)
        np.testing.assert_array_equal(others, 0.0)
    assert round(1e4 * swap.cost, 4) == 419.8671
    assert round(100.0 * math.sqrt(swap.variance), 3) == 20.467
