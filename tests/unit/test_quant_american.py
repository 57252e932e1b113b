"""American options: when they are European, what dividends do, and the way back from a price to its volatility."""

from __future__ import annotations

import math

import numpy as np
import pytest

from flowlake.quant import american, european

TIMES, AMOUNTS = [0.1, 0.35], [1.2, 0.8]
STRIKE = np.array([85.0, 95.0, 100.0, 105.0, 115.0])


def test_a_call_without_dividends_is_european() -> None:
    forward, discount = 100.0 * math.exp(0.05 * 0.5), math.exp(-0.05 * 0.5)
    expected = european.price(forward, STRIKE, 0.5, 0.3, 1, discount)
    np.testing.assert_allclose(american.price(100.0, STRIKE, 0.5, 0.3, 1, 0.05), expected, rtol=1e-14)
    # A dividend after the expiry changes nothing; one before it does.
    after = american.price(100.0, STRIKE, 0.5, 0.3, 1, 0.05, 0.0, [0.6], [2.0])
    np.testing.assert_allclose(after, expected, rtol=1e-14)
    assert (american.price(100.0, STRIKE, 0.5, 0.3, 1, 0.05, 0.0, [0.4], [2.0]) < expected - 0.1).all()


def test_the_tree_without_early_exercise_is_the_formula() -> None:
    """Deep in a low-rate world nobody exercises a put early, and the tree has to find that out by itself."""
    ours = american.price(100.0, 60.0, 0.5, 0.3, -1, 1e-9, 0.05)
    forward = 100.0 * math.exp((1e-9 - 0.05) * 0.5)
    assert ours == pytest.approx(float(european.price(forward, 60.0, 0.5, 0.3, -1, math.exp(-0.5e-9))), rel=1e-4)


def test_never_below_european_or_immediate_exercise() -> None:
    for right in (1, -1):
        held = 100.0 - sum(a * math.exp(-0.04 * t) for t, a in zip(TIMES, AMOUNTS, strict=True))
        lower = european.price(held * math.exp(0.04 * 0.5), STRIKE, 0.5, 0.25, right, math.exp(-0.04 * 0.5))
        ours = american.price(100.0, STRIKE, 0.5, 0.25, right, 0.04, 0.0, TIMES, AMOUNTS)
        assert (ours >= lower - 2e-3).all()
        assert (ours >= right * (100.0 - STRIKE)).all()


def test_a_large_dividend_makes_a_deep_call_worth_its_exercise_today() -> None:
    value = float(american.price(100.0, 50.0, 0.5, 0.1, 1, 0.0, 0.0, [0.001], [10.0]))
    assert value == pytest.approx(50.0, abs=1e-9)


def test_a_call_is_exercised_just_before_the_ex_date() -> None:
    """Almost no volatility: the value is known. Interest on the strike is saved up to the ex-date, which no step meets."""
    value = float(american.price(100.0, 80.0, 0.5, 0.005, 1, 0.06, 0.0, [0.2513], [5.0]))
    assert value == pytest.approx(100.0 - 80.0 * math.exp(-0.06 * 0.2513), abs=1e-6)


def test_a_put_waits_for_the_ex_date() -> None:
    value = float(american.price(100.0, 120.0, 0.5, 0.005, -1, 0.02, 0.0, [0.2513], [5.0]))
    at_ex_date = 120.0 * math.exp(-0.02 * 0.2513) - (100.0 - 5.0 * math.exp(-0.02 * 0.2513))
    assert value == pytest.approx(at_ex_date, abs=1e-6)
    assert value > 20.0


@pytest.mark.parametrize("dividends", [(None, None), (TIMES, AMOUNTS)])
@pytest.mark.parametrize("right", [1, -1])
def test_the_vol_comes_back(right: int, dividends: tuple[list[float] | None, list[float] | None]) -> None:
    vol = np.array([[0.12], [0.3], [0.9]])
    price = american.price(100.0, STRIKE, 0.5, vol, right, 0.04, 0.01, *dividends)
    found = american.implied_vol(price, 100.0, STRIKE, 0.5, right, 0.04, 0.01, *dividends)
    exercised = price <= np.maximum(right * (100.0 - STRIKE), 0.0) + 1e-4
    np.testing.assert_allclose(found[~exercised], np.broadcast_to(vol, price.shape)[~exercised], atol=1e-8)
    assert np.isnan(american.implied_vol(20.0, 100.0, 120.0, 0.5, -1, 0.5))


def test_prices_without_a_vol_are_nan() -> None:
    for premium in (-1.0, 0.0, 20.0, 120.0, 150.0, math.nan, math.inf):
        assert math.isnan(float(american.implied_vol(premium, 100.0, 120.0, 0.5, -1, 0.04)))
        assert math.isnan(float(american.implied_vol(premium, 120.0, 100.0, 0.5, 1, 0.04, 0.0, [0.2], [1.0])))


def test_missing_or_senseless_inputs_are_nan() -> None:
    good = [100.0, 100.0, 0.5, 0.3, -1, 0.04, 0.01]
    for position in (0, 1, 2, 3, 5, 6):
        for bad in (math.nan, math.inf, -math.inf) + ((0.0, -1.0) if position < 4 else ()):
            for right, dividends in ((-1, ()), (1, ()), (1, ([0.2], [1.0]))):
                arguments = list(good)
                arguments[position], arguments[4] = bad, right
                assert math.isnan(float(american.price(*arguments, *dividends))), (position, bad, right)
                assert all(math.isnan(float(v)) for v in american.greeks(*arguments, *dividends)), (position, bad, right)
                if position != 3:
                    rest = [v for i, v in enumerate(arguments) if i != 3]
                    assert math.isnan(float(american.implied_vol(5.0, *rest, *dividends)))
    assert math.isnan(float(american.price(100.0, 100.0, 0.5, 0.3, 1, 0.04, 0.0, [0.2], [150.0])))


def test_wrong_arguments_raise() -> None:
    with pytest.raises(ValueError, match="right must be"):
        american.price(100, 100, 1, 0.2, 0, 0.05)
    with pytest.raises(ValueError, match="both or neither"):
        american.price(100, 100, 1, 0.2, 1, 0.05, 0.0, [0.5])
    with pytest.raises(ValueError, match="of one length"):
        american.greeks(100, 100, 1, 0.2, 1, 0.05, 0.0, [0.5], [1.0, 2.0])
    for times, amounts in (([0.5], [-1.0]), ([math.nan], [1.0]), ([0.5], [math.inf])):
        with pytest.raises(ValueError, match="finite, and no amount negative"):
            american.implied_vol(5, 100, 100, 1, 1, 0.05, 0.0, times, amounts)


def test_shapes_and_order_of_dividends() -> None:
    assert american.price(100.0, STRIKE, [[0.25], [0.5]], 0.3, -1, 0.04).shape == (2, 5)
    assert isinstance(american.price(100.0, 100.0, 0.5, 0.3, -1, 0.04), float)
    assert american.price([], [], [], [], [], []).shape == (0,)
    one = american.price(100.0, STRIKE, 0.5, 0.3, 1, 0.04, 0.0, TIMES, AMOUNTS)
    np.testing.assert_array_equal(one, american.price(100.0, STRIKE, 0.5, 0.3, 1, 0.04, 0.0, TIMES[::-1], AMOUNTS[::-1]))
