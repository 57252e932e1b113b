"""Contradictions between quotes: what each trade locks in, by hand, and none where prices come from a model."""

from __future__ import annotations

import math

import numpy as np
import pytest

from flowlake.quant import american, european
from flowlake.quant.parity import (
    american_calendar,
    american_parity,
    butterfly,
    european_calendar,
    european_parity,
    theoretical,
    vertical,
)

NAN, INF = math.nan, math.inf
DISCOUNT = math.exp(-0.05 * 0.5)
# C - P = 100 - 2 - 98 exp(-rT) here.
FAIR = 98.0 - 98.0 * DISCOUNT


def test_european_parity_by_hand() -> None:
    found = european_parity(6.9, 7.1, 3.9, 4.1, 100.0, 98.0, 0.5, 0.05, dividends=2.0)
    assert found.lower_usd == found.upper_usd == pytest.approx(FAIR)
    assert found.deviation_usd == pytest.approx(3.0 - FAIR)
    # Sold at 6.9 and bought at 4.1 brings 2.8, more than the forward costs.
    assert found.conversion_usd == pytest.approx(2.8 - FAIR)
    assert found.reversal_usd == 0.0
    assert found.severity_usd == found.conversion_usd
    cheap = european_parity(3.9, 4.1, 3.9, 4.1, 100.0, 98.0, 0.5, 0.05, dividends=2.0)
    assert cheap.deviation_usd == pytest.approx(-FAIR)
    assert cheap.reversal_usd == cheap.severity_usd == pytest.approx(FAIR - 0.2)
    assert cheap.conversion_usd == 0.0


def test_the_spread_and_the_cost_of_the_underlying_come_off() -> None:
    assert european_parity(6.4, 7.6, 3.9, 4.1, 100.0, 98.0, 0.5, 0.05, dividends=2.0).severity_usd == 0.0
    one, other = (
        european_parity(6.9, 7.1, 3.9, 4.1, 100.0, 98.0, 0.5, 0.05, dividends=2.0, underlying_cost=cost) for cost in (0.0, 0.03)
    )
    assert one.severity_usd - other.severity_usd == pytest.approx(0.03)
    assert one.deviation_usd == other.deviation_usd


def test_a_yield_discounts_the_spot() -> None:
    found = european_parity(1, 1, 1, 1, 100.0, 98.0, 0.5, 0.05, dividend_yield=0.02)
    assert found.lower_usd == pytest.approx(100.0 * math.exp(-0.01) - 98.0 * DISCOUNT)


def test_american_bounds_by_hand() -> None:
    # Hull: S - D - K <= C - P <= S - K exp(-rT).
    found = american_parity(5.4, 5.6, 3.9, 4.1, 100.0, 98.0, 0.5, 0.05, dividends=2.0)
    assert found.lower_usd == pytest.approx(100.0 - 2.0 - 98.0)
    assert found.upper_usd == pytest.approx(100.0 - 98.0 * DISCOUNT)
    assert found.deviation_usd == found.severity_usd == 0.0
    dear = american_parity(9.4, 9.6, 3.9, 4.1, 100.0, 98.0, 0.5, 0.05, dividends=2.0)
    assert dear.conversion_usd == pytest.approx(9.4 - 4.1 - (100.0 - 98.0 * DISCOUNT))
    assert dear.deviation_usd == pytest.approx(5.5 - (100.0 - 98.0 * DISCOUNT))
    cheap = american_parity(3.0, 3.2, 3.9, 4.1, 100.0, 98.0, 0.5, 0.05, dividends=2.0)
    assert cheap.reversal_usd == pytest.approx(0.0 - (3.2 - 3.9))
    assert cheap.deviation_usd == pytest.approx(3.1 - 4.0)


def test_american_bounds_where_rate_or_yield_is_negative() -> None:
    grown = 98.0 * math.exp(0.01 * 0.5)
    found = american_parity(1, 1, 1, 1, 100.0, 98.0, 0.5, -0.01)
    assert (found.lower_usd, found.upper_usd) == (pytest.approx(100.0 - grown), pytest.approx(100.0 - 98.0))
    found = american_parity(1, 1, 1, 1, 100.0, 98.0, 0.5, 0.0, dividend_yield=-0.01)
    assert (found.lower_usd, found.upper_usd) == (pytest.approx(2.0), pytest.approx(100.0 * math.exp(0.005) - 98.0))


@pytest.mark.parametrize("rate", [-0.02, 0.0, 0.05])
@pytest.mark.parametrize("dividend_yield", [-0.02, 0.0, 0.04])
def test_model_prices_keep_parity(rate: float, dividend_yield: float) -> None:
    spot, strike, years, vol = 100.0, np.linspace(50.0, 200.0, 61), 0.7, 0.3
    forward, discount = spot * math.exp((rate - dividend_yield) * years), math.exp(-rate * years)
    call, put = (european.price(forward, strike, years, vol, right, discount) for right in (1, -1))
    found = european_parity(call, call, put, put, spot, strike, years, rate, dividend_yield)
    np.testing.assert_array_equal(found.severity_usd, 0.0)
    np.testing.assert_allclose(found.deviation_usd, 0.0, atol=1e-12)
    call, put = (american.price(spot, strike, years, vol, right, rate, dividend_yield) for right in (1, -1))
    early = american_parity(call - 1e-4, call + 1e-4, put - 1e-4, put + 1e-4, spot, strike, years, rate, dividend_yield)
    np.testing.assert_array_equal(early.severity_usd, 0.0)


@pytest.mark.parametrize("parity", [european_parity, american_parity])
def test_parity_is_nan_where_something_is_missing(parity: object) -> None:
    assert callable(parity)
    good = [6.9, 7.1, 3.9, 4.1, 100.0, 98.0, 0.5, 0.05, 0.0, 2.0]
    for at, bad in [
        *((at, NAN) for at in range(10)),
        (0, 7.2),
        (1, INF),
        (2, -0.1),
        (4, 0.0),
        (5, -1.0),
        (6, -0.1),
        (6, INF),
        (9, INF),
    ]:
        values = list(good)
        values[at] = bad
        found = parity(*values)
        assert math.isnan(found.severity_usd), (at, bad)
        assert math.isnan(found.deviation_usd), (at, bad)
    assert parity(*([[]] * 4), 100.0, 98.0, 0.5, 0.05).severity_usd.shape == (0,)
    rows = parity([6.9, NAN], 7.1, 3.9, 4.1, 100.0, [98.0, 98.0], 0.5, 0.05)
    assert all(field.shape == (2,) for field in rows)
    # A quote of nothing is none: it would be bought for free.
    assert math.isnan(parity(6.9, 7.1, 0.0, 0.0, 100.0, 98.0, 0.5, 0.05).severity_usd)
    # One without a bid is: there is an ask to buy at.
    assert not math.isnan(parity(6.9, 7.1, 0.0, 0.1, 100.0, 98.0, 0.5, 0.05).severity_usd)


def test_verticals_by_hand() -> None:
    strike, bid, ask = [105, 100, 110], [4.0, 3.5, 1.0], [4.2, 3.7, 1.2]
    found = vertical(strike, bid, ask, 1)
    assert found.low_strike.tolist() == [100, 105]
    assert found.high_strike.tolist() == [105, 110]
    # The 105 call sells at 4.0, the 100 call costs 3.7.
    np.testing.assert_allclose(found.monotone_usd, [0.3, 0.0])
    np.testing.assert_array_equal(found.slope_usd, [0.0, 0.0])
    np.testing.assert_array_equal(found.severity_usd, found.monotone_usd)
    puts = vertical(strike, bid, ask, -1)
    # 105 less 100 is in order as puts; 110 should cost more than 105 and sells 4.0 - 1.2 below.
    np.testing.assert_allclose(puts.monotone_usd, [0.0, 2.8])


def test_a_spread_may_not_cost_more_than_its_width() -> None:
    bid, ask = [9.0, 3.0], [9.2, 3.2]
    np.testing.assert_allclose(vertical([100, 105], bid, ask, 1).slope_usd, [9.0 - 3.2 - 5.0])
    np.testing.assert_allclose(vertical([100, 105], bid, ask, 1, 0.9).slope_usd, [9.0 - 3.2 - 4.5])
    np.testing.assert_allclose(vertical([100, 105], bid[::-1], ask[::-1], -1).slope_usd, [9.0 - 3.2 - 5.0])
    assert np.isnan(vertical([100, 105], bid, ask, 1, NAN).severity_usd).all()


def test_butterflies_by_hand() -> None:
    # Unequal spacing: 105 is worth at most 2/3 of 100 and 1/3 of 115.
    found = butterfly([115, 100, 105], [0.9, 6.0, 5.0], [1.2, 6.3, 5.1])
    assert (found.low_strike, found.middle_strike, found.high_strike) == ([100], [105], [115])
    np.testing.assert_allclose(found.severity_usd, [5.0 - (2 * 6.3 + 1.2) / 3])
    assert butterfly([100, 105, 115], [6.0, 4.5, 0.9], [6.3, 4.6, 1.2]).severity_usd.tolist() == [0.0]


@pytest.mark.parametrize("right", [1, -1])
def test_model_prices_violate_nothing(right: int) -> None:
    strike = np.array([50.0, 60, 75, 80, 85, 90, 92.5, 95, 100, 105, 107, 120, 150])
    for price, discount in (
        (european.price(101.0, strike, 0.5, 0.3, right, 0.97), 0.97),
        (american.price(100.0, strike, 0.5, 0.3, right, 0.06, 0.02), 1.0),
    ):
        spreads = vertical(strike, price - 1e-4, price + 1e-4, right, discount)
        np.testing.assert_array_equal(spreads.severity_usd, 0.0)
        np.testing.assert_array_equal(butterfly(strike, price - 1e-4, price + 1e-4).severity_usd, 0.0)
    exact = european.price(101.0, strike, 0.5, 0.3, right, 0.97)
    np.testing.assert_array_equal(vertical(strike, exact, exact, right, 0.97).severity_usd, 0.0)
    np.testing.assert_array_equal(butterfly(strike, exact, exact).severity_usd, 0.0)


def test_chains_with_holes() -> None:
    strike, bid, ask = [100.0, 105, 110, 115], [6.0, NAN, 3.0, 2.0], [6.2, 4.4, 3.2, 2.2]
    np.testing.assert_array_equal(np.isnan(vertical(strike, bid, ask, 1).severity_usd), [True, True, False])
    np.testing.assert_array_equal(np.isnan(butterfly(strike, bid, ask).severity_usd), [True, True])
    # A strike that is no number is left out with its quote.
    more = vertical([*strike, NAN, 0.0, INF], [*bid, 1.0, 1.0, 1.0], [*ask, 1.0, 1.0, 1.0], 1)
    np.testing.assert_array_equal(more.severity_usd, vertical(strike, bid, ask, 1).severity_usd)
    for count in range(3):
        assert butterfly(strike[:count], bid[:count], ask[:count]).severity_usd.shape == (0,)
        assert vertical(strike[:count], bid[:count], ask[:count], 1).severity_usd.shape == (max(count - 1, 0),)
    with pytest.raises(ValueError, match="two entries for 100"):
        butterfly([100.0, 100.0], [1.0, 1.0], [1.0, 1.0])
    with pytest.raises(ValueError, match="of one length"):
        vertical([100.0, 105.0], [1.0, 1.0], [1.0], 1)
    for right in (0, [1, 1], NAN):
        with pytest.raises(ValueError, match="right must be"):
            vertical([100.0, 105.0], [1.0, 1.0], [1.0, 1.0], right)  # type: ignore[arg-type]


def test_american_calendars() -> None:
    found = american_calendar(
        [5.0, 4.0, 5.0, NAN, 5.2], [5.2, 4.2, 5.2, 5.2, 5.1], [4.5, 4.5, 4.5, 4.5, 4.5], [4.7, 4.7, NAN, 4.7, 4.7]
    )
    np.testing.assert_allclose(found, [0.3, 0.0, NAN, NAN, NAN])
    assert american_calendar(5.0, 5.2, 4.5, 4.7) == pytest.approx(0.3)


def test_european_calendars() -> None:
    near_forward, far_forward, near_discount, far_discount = 101.0, 103.0, 0.99, 0.97
    ratio = near_discount * near_forward / (far_discount * far_forward)
    far_strike = 100.0 * far_forward / near_forward
    carry = (near_forward, far_forward, near_discount, far_discount)
    found = european_calendar(5.0, 5.2, 4.5, 4.7, 100.0, far_strike, *carry, 1)
    assert found == pytest.approx(5.0 - ratio * 4.7)
    assert european_calendar(4.0, 4.2, 4.5, 4.7, 100.0, far_strike, *carry, 1) == 0.0
    # Further in the money it covers all the more; further out there is no bound.
    strikes = [far_strike - 1.0, far_strike + 1.0]
    np.testing.assert_allclose(european_calendar(5.0, 5.2, 4.5, 4.7, 100.0, strikes, *carry, 1), [5.0 - ratio * 4.7, NAN])
    np.testing.assert_allclose(european_calendar(5.0, 5.2, 4.5, 4.7, 100.0, strikes, *carry, -1), [NAN, 5.0 - ratio * 4.7])
    for at in range(10):
        values: list[float] = [5.0, 5.2, 4.5, 4.7, 100.0, far_strike, *carry]
        values[at] = NAN
        assert math.isnan(european_calendar(*values, 1))


@pytest.mark.parametrize("right", [1, -1])
def test_a_growing_total_variance_has_no_european_calendar(right: int) -> None:
    moneyness = np.linspace(0.5, 1.8, 27)
    near = european.price(101.0, 101.0 * moneyness, 0.2, 0.30, right, 0.99)
    for vol, violated in ((0.2, False), (0.1, True)):
        far = european.price(103.0, 103.0 * moneyness, 0.5, vol, right, 0.97)
        found = european_calendar(near, near, far, far, 101.0 * moneyness, 103.0 * moneyness, 101.0, 103.0, 0.99, 0.97, right)
        assert (found > 1e-3).any() == violated
        assert violated or (found == 0.0).all()


def test_theoretical_against_market() -> None:
    found = theoretical([5.25, 5.1, 4.9, 4.7], 4.9, 5.1)
    np.testing.assert_allclose(found.mid_usd, 5.0)
    np.testing.assert_allclose(found.difference_usd, [0.25, 0.1, -0.1, -0.3])
    np.testing.assert_allclose(found.half_spreads, [2.5, 1.0, -1.0, -3.0])
    np.testing.assert_allclose(found.edge_usd, [0.15, 0.0, 0.0, -0.2], atol=1e-15)
    locked = theoretical(5.25, 5.0, 5.0)
    assert (locked.difference_usd, locked.edge_usd) == (0.25, 0.25)
    assert math.isnan(locked.half_spreads)
    for model, bid, ask in [(NAN, 4.9, 5.1), (INF, 4.9, 5.1), (5.0, NAN, 5.1), (5.0, 4.9, NAN), (5.0, 5.2, 5.1), (5.0, 0.0, 0.0)]:
        assert math.isnan(theoretical(model, bid, ask).difference_usd)
        assert math.isnan(theoretical(model, bid, ask).edge_usd)
    assert theoretical([], [], []).edge_usd.shape == (0,)
