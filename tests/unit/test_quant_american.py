"""American options: when they are European, what dividends do, and the way back from a price to its volatility."""

from __future__ import annotations

import math
import platform
from typing import Any, cast

import numpy as np
import pytest
from numba import njit

from flowlake.quant import _american, american, european

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


def test_a_nan_in_one_of_the_two_is_no_padding() -> None:
    for times, amounts in (([[0.1, math.nan]], [[1.0, 2.0]]), ([[0.1, 0.2]], [[1.0, math.nan]])):
        with pytest.raises(ValueError, match="NaN in both"):
            american.price(100, 100, 1, 0.2, 1, 0.05, 0.0, times, amounts)
    with pytest.raises(ValueError, match="not text"):
        american.implied_vol_greeks(5, 100, 100, 1, "C", 0.05)


def test_each_contract_may_have_dividends_of_its_own() -> None:
    """Rows are padded with NaN and in any order; each gives the bits of a call with that row alone."""
    times = np.array([[0.1, math.nan, math.nan], [0.35, 0.1, math.nan], [math.nan, math.nan, math.nan], [0.4, 0.6, 0.2]])
    amounts = np.where(np.isnan(times), math.nan, [[1.2, 0.8, 0.5]])
    right = np.array([-1.0, 1.0, -1.0, 1.0])
    together = american.price(100.0, 101.0, 0.5, 0.3, right, 0.04, 0.0, times, amounts)
    vols = american.implied_vol_greeks(together, 100.0, 101.0, 0.5, right, 0.04, 0.0, times, amounts)
    for i in range(4):
        known = ~np.isnan(times[i])
        alone = (times[i][known], amounts[i][known])
        assert american.price(100.0, 101.0, 0.5, 0.3, right[i], 0.04, 0.0, *alone) == together[i]
        np.testing.assert_array_equal(
            american.implied_vol_greeks(together[i], 100.0, 101.0, 0.5, right[i], 0.04, 0.0, *alone), [v[i] for v in vols]
        )
    # Two axes of contracts, dividends along the inner one.
    assert american.price(100.0, [[99.0], [101.0]], 0.5, 0.3, right, 0.04, 0.0, times, amounts).shape == (2, 4)
    assert american.price(100.0, 100.0, 0.5, 0.3, 1, 0.04, 0.0, times, amounts).shape == (4,)
    assert american.price([], 100.0, 0.5, 0.3, 1, 0.04, 0.0, np.empty((0, 2)), np.empty((0, 2))).shape == (0,)


def test_the_place_in_the_array_does_not_matter() -> None:
    rng = np.random.default_rng(1)
    count = 300
    rows = (
        rng.uniform(80, 120, count),
        rng.uniform(0.002, 1.5, count),
        rng.uniform(0.1, 0.6, count),
        rng.choice([-1.0, 1.0], count),
    )
    order = rng.permutation(count)

    def found(strike: np.ndarray, years: np.ndarray, vol: np.ndarray, right: np.ndarray) -> np.ndarray:
        value = american.price(100.0, strike, years, vol, right, 0.04, 0.0, TIMES, AMOUNTS)
        return np.stack([value, *american.implied_vol_greeks(value, 100.0, strike, years, right, 0.04, 0.0, TIMES, AMOUNTS)])

    np.testing.assert_array_equal(found(*rows)[:, order], found(*(row[order] for row in rows)))


def test_dividends_that_do_not_count() -> None:
    """Now or before, after the expiry, or nothing: as if there were none."""
    for right in (1, -1):
        expected = american.price(100.0, STRIKE, 0.5, 0.3, right, 0.04)
        gone = american.price(100.0, STRIKE, 0.5, 0.3, right, 0.04, 0.0, [-0.1, 0.0, 0.5001, 0.2], [1.0, 2.0, 3.0, 0.0])
        np.testing.assert_array_equal(gone, expected)


def test_an_ex_date_on_the_expiry_itself() -> None:
    """A call is exercised the evening before, hence a European one on the strike less the dividend; a put gains all of it."""
    held = 100.0 - 2.0 * math.exp(-0.05 * 0.25)
    forward, discount = held * math.exp(0.05 * 0.25), math.exp(-0.05 * 0.25)
    call = american.price(100.0, STRIKE, 0.25, 0.2, 1, 0.05, 0.0, [0.25], [2.0])
    np.testing.assert_allclose(call, european.price(forward, STRIKE - 2.0, 0.25, 0.2, 1, discount), rtol=5e-6)
    just_before = american.price(100.0, STRIKE, 0.25, 0.2, 1, 0.05, 0.0, [0.25 - 1e-7], [2.0])
    np.testing.assert_allclose(just_before, call, atol=2e-3)
    put = american.price(100.0, STRIKE, 0.25, 0.2, -1, 0.05, 0.0, [0.25], [2.0])
    assert (put >= european.price(forward, STRIKE, 0.25, 0.2, -1, discount)).all()
    # A dividend above the strike: the call is exercised for certain.
    assert american.price(100.0, 50.0, 0.25, 0.2, 1, 0.05, 0.0, [0.25], [60.0]) == pytest.approx(100.0 - 50.0 * discount, abs=1e-6)


def test_a_dividend_below_the_interest_does_not_make_a_call_exercise() -> None:
    """Interest on the strike from the ex-date to the expiry is 60 (1 - exp(-0.05 0.4)) = 1.188."""
    for amount, early in ((1.18, False), (2.0, True)):
        held = 100.0 - amount * math.exp(-0.05 * 0.1)
        plain = european.price(held * math.exp(0.05 * 0.5), 60.0, 0.5, 0.2, 1, math.exp(-0.05 * 0.5))
        value = american.price(100.0, 60.0, 0.5, 0.2, 1, 0.05, 0.0, [0.1], [amount])
        assert (value > plain + 0.1) if early else (value == pytest.approx(float(plain), rel=1e-14))


def test_reasons() -> None:
    reason = american.ImpliedVolReason
    put = american.implied_vol_reason([20.0, 19.0, 25.0, 120.0, 200.0, math.nan, math.inf], 100.0, 120.0, 0.5, -1, 0.04)
    assert put.dtype == np.int8
    assert [reason(int(code)).name for code in put] == [
        "BELOW_INTRINSIC", "BELOW_INTRINSIC", "OK", "ABOVE_MAXIMUM", "ABOVE_MAXIMUM", "BAD_INPUT", "BAD_INPUT",
    ]  # fmt: skip
    assert american.implied_vol_reason(5.0, 100.0, 100.0, 0.0, 1, 0.04) == reason.BAD_INPUT
    assert american.implied_vol_reason(5.0, 100.0, 100.0, 0.5, 1, 0.04, 0.0, [0.1], [200.0]) == reason.BAD_INPUT
    prices = np.linspace(0.0, 110.0, 56)
    for right, dividends in ((1, (TIMES, AMOUNTS)), (-1, (TIMES, AMOUNTS)), (-1, ()), (1, ())):
        known = ~np.isnan(american.implied_vol(prices, 100.0, 95.0, 0.5, right, 0.04, 0.0, *dividends))
        codes = american.implied_vol_reason(prices, 100.0, 95.0, 0.5, right, 0.04, 0.0, *dividends)
        np.testing.assert_array_equal(codes == reason.OK, known)


def test_the_fused_call_gives_what_the_two_give() -> None:
    value = american.price(100.0, STRIKE, 0.5, 0.3, -1, 0.04, 0.0, TIMES, AMOUNTS)
    fused = american.implied_vol_greeks(value, 100.0, STRIKE, 0.5, -1, 0.04, 0.0, TIMES, AMOUNTS)
    np.testing.assert_array_equal(fused.iv, american.implied_vol(value, 100.0, STRIKE, 0.5, -1, 0.04, 0.0, TIMES, AMOUNTS))
    apart = american.greeks(100.0, STRIKE, 0.5, fused.iv, -1, 0.04, 0.0, TIMES, AMOUNTS)
    for name in apart._fields:
        np.testing.assert_allclose(getattr(fused, name), getattr(apart, name), rtol=1e-4, atol=1e-6)


def test_where_exercise_now_is_best() -> None:
    found = american.greeks(100.0, 140.0, 0.5, 0.15, -1, 0.05)
    assert tuple(float(v) for v in found) == (-1.0, 0.0, 0.0, 0.0, 0.0)


def test_the_loops_over_nodes_are_vectorised() -> None:
    """A loop over nodes that is unrolled to scalars, as LLVM likes to do with short ones, costs a factor of three."""
    packed = {"x86_64": ("vfmadd", "pd"), "AMD64": ("vfmadd", "pd"), "aarch64": ("fmla", ".2d"), "arm64": ("fmla", ".2d")}
    if platform.machine() not in packed:
        pytest.skip(f"the names of packed instructions on {platform.machine()} are not known to this test")
    operation, lanes = packed[platform.machine()]
    compiled = njit(error_model="numpy")(cast(Any, _american.premiums))
    work, ahead = np.zeros(_american.WORKSPACE), np.zeros((3, 2))
    compiled(work, 100.0, 100.0, 0.5, 0.3, -1.0, 0.04, 0.0, ahead, 0, _american.ALWAYS, 40)
    (assembly,) = compiled.inspect_asm().values()
    lines = [line for line in assembly.splitlines() if operation in line]
    count = sum(1 for line in lines if lanes in line)
    assert count > 100, f"{count} packed fused multiply-adds of {len(lines)}: the loops are no longer vectorised"


def test_shapes_and_order_of_dividends() -> None:
    assert american.price(100.0, STRIKE, [[0.25], [0.5]], 0.3, -1, 0.04).shape == (2, 5)
    assert isinstance(american.price(100.0, 100.0, 0.5, 0.3, -1, 0.04), float)
    assert american.price([], [], [], [], [], []).shape == (0,)
    one = american.price(100.0, STRIKE, 0.5, 0.3, 1, 0.04, 0.0, TIMES, AMOUNTS)
    np.testing.assert_array_equal(one, american.price(100.0, STRIKE, 0.5, 0.3, 1, 0.04, 0.0, TIMES[::-1], AMOUNTS[::-1]))
    times, amounts = np.array([[np.nan, 0.3, 0.1], [0.2, np.nan, np.nan]]), np.array([[np.nan, 3.0, 1.0], [2.0, np.nan, np.nan]])
    found = american.price(100.0, 90.0, 0.5, 0.3, 1, 0.04, 0.0, times, amounts)
    apart = [american.price(100.0, 90.0, 0.5, 0.3, 1, 0.04, 0.0, *paid) for paid in (([0.1, 0.3], [1.0, 3.0]), ([0.2], [2.0]))]
    np.testing.assert_array_equal(found, apart)


def test_what_is_exercised_now_has_nothing_but_delta() -> None:
    found = american.exposure_greeks(100.0, [160.0, 40.0], 0.5, 0.2, [-1, 1], 0.05, [0.0, 0.2])
    np.testing.assert_array_equal(np.array(found), [[-1.0, 1.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])


def test_exposure_greeks_of_what_is_never_exercised_early_are_those_of_the_formula() -> None:
    """A call whose dividend is less than the interest on its strike; what is set apart for it grows as time passes."""
    ours = american.exposure_greeks(100.0, STRIKE, 0.5, 0.3, 1, 0.05, 0.0, [0.2], [0.3])
    aside = 0.3 * math.exp(-0.05 * 0.2)
    plain = european.greeks(100.0 - aside, STRIKE, 0.5, 0.3, 1, 0.05)
    for name in ("delta", "gamma", "vanna"):
        np.testing.assert_allclose(getattr(ours, name), getattr(plain, name), rtol=1e-12)
    later, earlier = (
        european.greeks(100.0 - 0.3 * math.exp(-0.05 * (0.2 - dt)), STRIKE, 0.5 - dt, 0.3, 1, 0.05).delta for dt in (1e-5, -1e-5)
    )
    np.testing.assert_allclose(ours.charm, (later - earlier) / 2e-5, rtol=1e-6, atol=1e-6)


def test_charm_does_not_look_beyond_an_ex_date() -> None:
    """Tomorrow's dividend is worth exercising a call for; with the ex-date behind, another option would be valued."""
    near = american.exposure_greeks(100.0, 90.0, 0.5, 0.25, 1, 0.03, 0.0, [1 / 365], [2.0])
    before, now = (american.greeks(100.0, 90.0, 0.5 + dt, 0.25, 1, 0.03, 0.0, [1 / 365 + dt], [2.0]).delta for dt in (0.025, 0.0))
    assert float(near.charm) == pytest.approx(float(now - before) / 0.025, abs=0.05)


def test_a_price_next_to_that_of_exercise_is_inverted() -> None:
    """A dividend two seconds away, on a call that one would exercise today but for a thousandth of a cent.

    Up to a volatility of 3.767 the price is that of exercise, without a slope: a secant that starts there goes nowhere.
    """
    paid = ([5.960464477539063e-08], [1.0])
    target = float(american.price(100.0, 50.0, 0.015625, 2.0, 1, 0.0, 0.0625, *paid))
    targets = np.array([50.0 + 1e-8, 50.0 + 1e-6, target, 50.0001, 50.01])
    vol = american.implied_vol(targets, 100.0, 50.0, 0.015625, 1, 0.0, 0.0625, *paid)
    back = american.price(100.0, 50.0, 0.015625, vol, 1, 0.0, 0.0625, *paid)
    np.testing.assert_allclose(back, targets, rtol=0.0, atol=1e-7)


def test_prices_of_any_contract_are_inverted() -> None:
    """Next to the price of exercise the curve has corners and, by rounding, jumps: one in some ten thousand is less exact there."""
    rng = np.random.default_rng(3)
    n = 20_000
    strike, vol, years = rng.uniform(50.0, 200.0, n), rng.uniform(0.05, 2.0, n), np.exp(rng.uniform(math.log(1 / 365), 0.7, n))
    right, rate = rng.choice([1.0, -1.0], n), rng.uniform(-0.02, 0.1, n)
    carry = np.where(rng.random(n) < 0.5, 0.0, rng.uniform(0.0, 0.08, n))
    near = rng.random((n, 2)) < 0.3
    times = np.sort(np.where(near, 10.0 ** rng.uniform(-9.0, -1.0, (n, 2)), rng.uniform(0.0, 2.0, (n, 2))), axis=1)
    amounts = rng.uniform(0.0, 5.0, (n, 2)) * (rng.random((n, 2)) < 0.6)
    price = american.price(100.0, strike, years, vol, right, rate, carry, times, amounts)
    found = american.implied_vol(price, 100.0, strike, years, right, rate, carry, times, amounts)
    known = ~np.isnan(found)
    assert known.mean() > 0.85
    error = np.abs(american.price(100.0, strike, years, np.where(known, found, 0.3), right, rate, carry, times, amounts) - price)[
        known
    ]
    assert np.quantile(error, 0.999) < 1e-8
    assert error.max() < 2e-5
