"""The variance strip by hand and at its edges, the index of two terms, and the replication of a variance swap."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowlake.core.arrays import Float
from flowlake.quant import european
from flowlake.quant.variance import replicated_variance, vix_style_index, vix_style_variance

YEARS, RATE = 0.1, 0.05
GROWTH = math.exp(YEARS * RATE)
# strike, call_bid, call_ask, put_bid, put_ask: the forward is 100 + 1 exp(rT).
STRIP = np.array(
    [
        [85.0, 16.0, 16.4, 0.1, 0.3],
        [90.0, 11.2, 11.6, 0.4, 0.6],
        [95.0, 7.0, 7.4, 1.1, 1.3],
        [100.0, 3.9, 4.1, 2.9, 3.1],
        [105.0, 1.7, 1.9, 5.6, 6.0],
        [115.0, 0.2, 0.4, 14.1, 14.5],
    ]
)


def strip(*changes: tuple[int, int, float]) -> list[Float]:
    rows = STRIP.copy()
    for row, column, value in changes:
        rows[row, column] = value
    return list(rows.T)


def test_by_hand() -> None:
    found = vix_style_variance(*strip(), YEARS, RATE)
    assert found.forward == pytest.approx(100.0 + GROWTH, rel=1e-15)
    assert found.k0 == 100.0
    assert found.strikes_used == 6
    assert found.reason == ""
    np.testing.assert_array_equal(found.strikes, STRIP[:, 0])
    terms = [(85, 5, 0.2), (90, 5, 0.5), (95, 5, 1.2), (100, 5, 3.5), (105, 7.5, 1.8), (115, 10, 0.3)]
    by_hand = [dk / k**2 * GROWTH * q for k, dk, q in terms]
    np.testing.assert_allclose(found.contributions, by_hand, rtol=1e-14)
    assert found.variance == pytest.approx(2 / YEARS * sum(by_hand) - (found.forward / 100.0 - 1.0) ** 2 / YEARS, rel=1e-13)


def test_the_forward_may_be_a_strike_itself() -> None:
    found = vix_style_variance(*strip((3, 1, 2.9), (3, 2, 3.1)), YEARS, RATE)
    assert (found.forward, found.k0) == (100.0, 100.0)


def test_a_lone_option_without_a_bid_is_left_out_and_two_end_the_walk() -> None:
    assert vix_style_variance(*strip((1, 3, 0.0)), YEARS, RATE).strikes.tolist() == [85, 95, 100, 105, 115]
    wide = np.vstack([STRIP, [[80.0, 21.0, 21.4, 0.1, 0.2], [75.0, 26.0, 26.4, 0.05, 0.1]]])
    wide[[0, 1], 3] = 0.0
    assert vix_style_variance(*wide.T, years=YEARS, rate=RATE).strikes.tolist() == [95, 100, 105, 115]
    wide[0, 3] = 0.05
    assert vix_style_variance(*wide.T, years=YEARS, rate=RATE).strikes.tolist() == [75, 80, 85, 95, 100, 105, 115]


@pytest.mark.parametrize(
    ("bid", "ask"), [(math.nan, math.nan), (0.5, math.nan), (0.7, 0.6), (-0.1, 0.2), (0.5, math.inf), (math.inf, math.inf)]
)
def test_what_is_no_quote_is_passed_over_and_ends_nothing(bid: float, ask: float) -> None:
    changes = [(1, 3, bid), (1, 4, ask), (2, 3, bid), (2, 4, ask)]
    assert vix_style_variance(*strip(*changes), YEARS, RATE).strikes.tolist() == [85, 100, 105, 115]


def test_an_option_that_is_not_there_parts_no_neighbours() -> None:
    wide = np.vstack([STRIP, [[80.0, 21.0, 21.4, 0.1, 0.2]]])
    wide[[0, 2], 3] = 0.0
    assert vix_style_variance(*wide.T, years=YEARS, rate=RATE).strikes.tolist() == [80, 90, 100, 105, 115]
    wide[1, 3:] = math.nan
    assert "no put below" in vix_style_variance(*wide.T, years=YEARS, rate=RATE).reason


def test_k0_is_sought_where_call_and_put_are_quoted() -> None:
    found = vix_style_variance(*strip((3, 3, math.nan), (2, 1, 7.6), (2, 2, 8.0)), YEARS, RATE)
    # At 105 the put is 4 above the call.
    assert found.forward == pytest.approx(105.0 - 4.0 * GROWTH)
    assert found.k0 == 95.0
    assert found.strikes.tolist() == [85, 90, 95, 100, 105, 115]


def test_the_lowest_of_equally_near_strikes_gives_the_forward() -> None:
    # At 105 put less call is 1 as call less put is at 100.
    found = vix_style_variance(*strip((4, 3, 2.7), (4, 4, 2.9)), YEARS, RATE)
    assert found.forward == pytest.approx(100.0 + GROWTH, rel=1e-15)


@pytest.mark.parametrize(
    ("columns", "years", "rate", "reason"),
    [
        (strip(), 0.0, RATE, "years must be positive"),
        (strip(), math.nan, RATE, "years must be positive"),
        (strip(), YEARS, math.nan, "years must be positive"),
        (strip(), YEARS, 1e6, "beyond bounds"),
        ([np.empty(0)] * 5, YEARS, RATE, "no strike has a quoted call and a quoted put"),
        ([*strip()[:3], np.zeros(6), np.zeros(6)], YEARS, RATE, "no strike has a quoted call and a quoted put"),
        ([column[4:] for column in strip()], YEARS, RATE, "lies at or below the forward"),
        ([column[3:] for column in strip()], YEARS, RATE, "no put below or no call above"),
        ([column[:4] for column in strip()], YEARS, RATE, "no put below or no call above"),
        (list(np.array([[96, 13, 13, 1e-3, 1e-3], [100, 8, 8, 1e-3, 1e-3], [109, 1e-3, 1e-3, 9, 9]]).T), 9.0, 0.0, "costs no more"),
    ],
)
def test_abstains_with_a_reason(columns: list[Float], years: float, rate: float, reason: str) -> None:
    found = vix_style_variance(*columns, years=years, rate=rate)
    assert math.isnan(found.variance)
    assert reason in found.reason
    assert found.strikes_used == found.strikes.size == found.contributions.size == 0


def test_wrong_arguments_raise() -> None:
    with pytest.raises(ValueError, match="of one length"):
        vix_style_variance(*strip()[:4], np.zeros(2), YEARS, RATE)
    with pytest.raises(ValueError, match="two entries for 85"):
        vix_style_variance(*strip((1, 0, 85.0)), YEARS, RATE)


def test_a_strike_that_is_no_number_is_left_out() -> None:
    expected = vix_style_variance(*strip(), YEARS, RATE)
    with_more = np.vstack([STRIP, np.full((3, 5), 0.5)])
    with_more[-3:, 0] = [math.nan, 0.0, math.inf]
    assert vix_style_variance(*with_more.T, years=YEARS, rate=RATE).variance == expected.variance


@settings(max_examples=50)
@given(order=st.permutations(range(6)), scale=st.sampled_from([0.25, 4.0, 64.0]))
def test_order_does_not_matter_and_nor_does_the_currency(order: list[int], scale: float) -> None:
    expected = vix_style_variance(*strip(), YEARS, RATE)
    found = vix_style_variance(*(scale * column[order] for column in strip()), YEARS, RATE)
    assert found.variance == expected.variance
    assert found.forward == scale * expected.forward
    assert found.contributions.tobytes() == expected.contributions.tobytes()


@pytest.mark.parametrize("vol", [0.1, 0.2, 0.6])
@pytest.mark.parametrize("years", [7 / 365, 0.25, 1.0])
def test_a_dense_flat_strip_gives_its_volatility_back(vol: float, years: float) -> None:
    spot, rate = 100.0, 0.03
    forward, discount = spot * math.exp(rate * years), math.exp(-rate * years)
    reach = 9.0 * vol * math.sqrt(years)
    strike = np.exp(np.linspace(math.log(forward) - reach, math.log(forward) + reach, 4001))
    call = european.price(forward, strike, years, vol, 1, discount)
    put = european.price(forward, strike, years, vol, -1, discount)
    found = vix_style_variance(strike, call, call, put, put, years, rate)
    assert math.sqrt(found.variance) == pytest.approx(vol, rel=2e-5)
    swap = replicated_variance(strike, call, put, forward, years, discount)
    assert math.sqrt(swap.variance) == pytest.approx(vol, rel=2e-5)


numbers = st.one_of(st.floats(), st.sampled_from([0.0, 1.0, 100.0, math.nan, math.inf, -math.inf, 5e-324, 1e308]))


@settings(max_examples=300)
@given(
    quotes=st.lists(st.tuples(numbers, numbers, numbers, numbers), max_size=8),
    years=numbers,
    rate=numbers,
    step=st.floats(0.01, 1e6),
)
def test_any_quotes_give_a_variance_or_a_reason(
    quotes: list[tuple[float, float, float, float]], years: float, rate: float, step: float
) -> None:
    strike = step * np.arange(1.0, len(quotes) + 1.0)
    columns = np.array(quotes, dtype=np.float64).reshape(-1, 4).T
    found = vix_style_variance(strike, *columns, years=years, rate=rate)
    assert (found.reason == "") == (0.0 < found.variance < math.inf)
    assert (found.reason != "") == math.isnan(found.variance)


def test_the_index_of_two_terms() -> None:
    # Total variance is linear in time: 20 and 40 days of a variance of 0.04 and 0.09 each.
    day = 1440
    expected = 100 * math.sqrt((20 * 0.04 * 0.5 + 40 * 0.09 * 0.5) / 30)
    assert vix_style_index(0.04, 20 * day, 0.09, 40 * day) == pytest.approx(expected, rel=1e-15)
    assert vix_style_index(0.04, 20 * day, 0.04, 40 * day) == pytest.approx(20.0, rel=1e-15)
    # At an expiry it is that expiry's volatility.
    assert vix_style_index(0.04, 20 * day, 0.09, 40 * day, 20 * day) == pytest.approx(20.0, rel=1e-15)
    assert vix_style_index(0.04, 20 * day, 0.09, 40 * day, 40 * day) == pytest.approx(30.0, rel=1e-15)
    np.testing.assert_allclose(vix_style_index([0.04, 0.09], 20 * day, [0.04, 0.09], 40 * day), [20.0, 30.0], rtol=1e-15)


@pytest.mark.parametrize(
    "terms",
    [
        (math.nan, 20, 0.04, 40),
        (0.04, 20, math.nan, 40),
        (-0.04, 20, 0.04, 40),
        (0.04, 40, 0.04, 20),
        (0.04, 30, 0.04, 30),
        (0.04, 31, 0.04, 40),
        (0.04, 20, 0.04, 29),
        (0.04, 0, 0.04, 40),
        (0.04, 20, 0.04, math.inf),
        (math.inf, 20, math.nan, 40),
    ],
)
def test_the_index_does_not_extrapolate(terms: tuple[float, float, float, float]) -> None:
    v1, n1, v2, n2 = terms
    assert math.isnan(vix_style_index(v1, n1 * 1440, v2, n2 * 1440))


def test_replication_holds_options_that_cover_the_log_payoff() -> None:
    strike = np.array([60.0, 80.0, 95.0, 100.0, 110.0, 140.0])
    price = np.ones(6)
    swap = replicated_variance(strike, price, price, 101.0, 0.5, 0.98)
    settle = np.linspace(60.0, 140.0, 401)
    held = (
        np.maximum(settle[:, None] - strike, 0.0) @ swap.call_weight + np.maximum(strike - settle[:, None], 0.0) @ swap.put_weight
    )
    wanted = 2 / 0.5 * ((settle - 100.0) / 100.0 - np.log(settle / 100.0))
    assert (held >= wanted - 1e-12).all()
    at = np.isin(settle, strike)
    np.testing.assert_allclose(held[at], wanted[at], atol=1e-12)
    assert swap.cost == pytest.approx(swap.put_weight.sum() + swap.call_weight.sum())
    assert swap.put_weight[0] == swap.call_weight[-1] == 0.0


def test_replication_abstains_and_refuses() -> None:
    strike, price = np.array([90.0, 100.0, 110.0]), np.ones(3)
    assert replicated_variance(strike, [math.nan, 1.0, 1.0], [1.0, 1.0, math.nan], 100.0, 1.0, 1.0).reason == ""
    assert "missing" in replicated_variance(strike, [1.0, math.nan, 1.0], price, 100.0, 1.0, 1.0).reason
    assert "both sides" in replicated_variance(strike, price, price, 95.0, 1.0, 1.0).reason
    assert "both sides" in replicated_variance([], [], [], 95.0, 1.0, 1.0).reason
    for bad in (0.0, -1.0, math.nan, math.inf):
        assert "must be positive" in replicated_variance(strike, price, price, 100.0, bad, 1.0).reason
        assert math.isnan(replicated_variance(strike, price, price, bad, 1.0, 1.0).variance)
    with pytest.raises(ValueError, match="split must be one of the strikes"):
        replicated_variance(strike, price, price, 100.0, 1.0, 1.0, split=95.0)
    with pytest.raises(ValueError, match="two entries"):
        replicated_variance([90.0, 90.0], [1.0, 1.0], [1.0, 1.0], 100.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="of one length"):
        replicated_variance(strike, price, price[:2], 100.0, 1.0, 1.0)
