"""What must hold of every American option, whatever the inputs."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from flowlake.quant import _american, american, european

anything = st.one_of(
    st.floats(),
    st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf, 5e-324, 1e-12, 0.05, 1.0, 100.0, 1e300, -1.0]),
)
rights = st.sampled_from([1, -1])
dividends = st.lists(st.tuples(st.floats(-0.1, 2.0), st.floats(0.0, 5.0)), max_size=4)


@settings(max_examples=150)
@given(a=anything, b=anything, c=anything, d=anything, e=anything, f=anything, right=rights, paid=dividends)
def test_any_input_gives_nan_or_a_finite_answer(
    a: float, b: float, c: float, d: float, e: float, f: float, right: int, paid: list[tuple[float, float]]
) -> None:
    times, amounts = [t for t, _ in paid], [v for _, v in paid]
    price = float(american.price(a, b, c, d, right, e, f, times, amounts))
    assert math.isnan(price) or 0.0 <= price < math.inf
    greeks = american.greeks(a, b, c, d, right, e, f, times, amounts)
    assert len(greeks) == 5
    vol = float(american.implied_vol(d, a, b, c, right, e, f, times, amounts))
    assert math.isnan(vol) or 0.0 < vol < math.inf


@settings(max_examples=150)
@given(
    k=st.floats(50.0, 200.0),
    years=st.floats(1 / 365, 2.0),
    vols=st.tuples(st.floats(0.05, 2.0), st.floats(0.05, 2.0)),
    right=rights,
    rate=st.floats(-0.02, 0.1),
    carry=st.floats(0.0, 0.08),
    paid=dividends,
)
def test_price_rises_with_vol_stays_in_bounds_and_inverts(
    k: float,
    years: float,
    vols: tuple[float, float],
    right: int,
    rate: float,
    carry: float,
    paid: list[tuple[float, float]],
) -> None:
    times, amounts = [t for t, _ in paid], [v for _, v in paid]
    price = american.price(100.0, k, years, np.sort(vols), right, rate, carry, times, amounts)
    # The tree approximates: it may miss monotonicity by its own error, no more.
    assert price[0] <= price[1] * (1 + 2e-3) + 2e-3
    assert (price >= max(right * (100.0 - k), 0.0) - 1e-9).all()
    assert (price <= (100.0 if right > 0 else k * math.exp(max(-rate, 0.0) * years)) * (1 + 1e-9)).all()
    found = american.implied_vol(price, 100.0, k, years, right, rate, carry, times, amounts)
    known = ~np.isnan(found)
    back = american.price(100.0, k, years, np.where(known, found, 0.3), right, rate, carry, times, amounts)
    # An ex-date within the day makes corners, and by rounding jumps, of the price in the volatility.
    is_near = any(0.0 < t < 1 / 365 for t in times)
    np.testing.assert_allclose(back[known], price[known], atol=2e-5 if is_near else 1e-7, rtol=1e-9)


@settings(max_examples=150)
@given(
    a=anything, b=anything, c=anything, d=anything, e=anything, f=anything, right=rights,
    paid=st.lists(st.tuples(st.floats(-0.1, 2.0) | st.just(math.nan), st.floats(0.0, 5.0)), min_size=2, max_size=2),
)  # fmt: skip
def test_any_input_to_the_fused_call_gives_nan_with_a_reason_or_a_finite_vol(
    a: float, b: float, c: float, d: float, e: float, f: float, right: int, paid: list[tuple[float, float]]
) -> None:
    times = np.array([[t for t, _ in paid]])
    amounts = np.where(np.isnan(times), math.nan, [[v for _, v in paid]])
    found = american.implied_vol_greeks(a, b, c, d, right, e, f, times, amounts)
    reason = american.implied_vol_reason(a, b, c, d, right, e, f, times, amounts)
    assert (reason[0] == american.ImpliedVolReason.OK) == (not math.isnan(found.iv[0]))
    if math.isnan(found.iv[0]):
        assert all(math.isnan(value[0]) for value in found)
    else:
        assert 0.0 < found.iv[0] < math.inf


@settings(max_examples=150)
@given(
    deviations=st.floats(-6.0, 6.0),
    years=st.sampled_from([1 / 525_600, 1 / 8_760, 1 / 365, 7 / 365, 0.25, 1.0, 3.0]),
    vol=st.floats(0.05, 2.0),
    right=rights,
    rate=st.floats(-0.02, 0.1),
    carry=st.floats(0.0, 0.08),
    paid=dividends,
)
def test_between_european_and_the_most_that_exercise_could_pay(
    deviations: float, years: float, vol: float, right: int, rate: float, carry: float, paid: list[tuple[float, float]]
) -> None:
    """From one minute to three years, from deep in the money to six deviations out of it."""
    times, amounts = [t for t, _ in paid], [v for _, v in paid]
    strike = 100.0 * math.exp(max(min(deviations * vol * math.sqrt(years), 3.0), -3.0))
    value = float(american.price(100.0, strike, years, vol, right, rate, carry, times, amounts))
    held = 100.0 - sum(v * math.exp(-rate * max(t, _american.NEAREST)) for t, v in paid if 0.0 < t <= years)
    plain = float(european.price(held * math.exp((rate - carry) * years), strike, years, vol, right, math.exp(-rate * years)))
    # The last digit of the stock, in the tail of a distribution that narrow.
    rounding = 1e-15 * max(abs(deviations), 1.0) / (vol * math.sqrt(years))
    assert value >= plain * (1.0 - 1e-12 - rounding)
    assert value >= right * (100.0 - strike) - 1e-12
    # Early exercise gains no more than the interest on the strike (put), or the dividends and the yield (call).
    interest = strike * abs(math.expm1(-rate * years))
    paid_out = 100.0 - held + 100.0 * -math.expm1(-carry * years)
    assert value <= plain + interest + paid_out + 1e-9
    # A price that stands out of the value of exercise determines a volatility, which gives it back.
    if value - max(right * (100.0 - strike), 0.0) > 1e-5 and value < 0.99 * (100.0 if right > 0 else strike):
        found = float(american.implied_vol(value, 100.0, strike, years, right, rate, carry, times, amounts))
        if not math.isnan(found):
            back = float(american.price(100.0, strike, years, found, right, rate, carry, times, amounts))
            assert abs(back - value) <= 1e-7 + 1e-9 * value


@settings(max_examples=100)
@given(
    strike=st.floats(60.0, 160.0),
    years=st.floats(1 / 365, 2.0),
    vol=st.floats(0.08, 1.0),
    right=rights,
    rate=st.floats(0.0, 0.08),
    paid=dividends,
)
def test_a_call_rises_with_the_stock_and_a_put_falls(
    strike: float, years: float, vol: float, right: int, rate: float, paid: list[tuple[float, float]]
) -> None:
    times, amounts = [t for t, _ in paid], [v for _, v in paid]
    spot = np.linspace(80.0, 125.0, 10)
    value = american.price(spot, strike, years, vol, right, rate, 0.0, times, amounts)
    steps = right * np.diff(value)
    # Up to the error of the grid, and by no more than the stock itself.
    assert (steps >= -2e-3).all()
    assert (steps <= np.diff(spot) + 2e-3).all()


@settings(max_examples=150)
@given(
    deviations=st.floats(-6.0, 6.0),
    years=st.floats(1 / 8_760, 3.0),
    vol=st.floats(0.05, 2.0),
    right=rights,
    rate=st.floats(-0.02, 0.1),
    carry=st.floats(-0.02, 0.08),
    paid=dividends,
)
def test_a_long_option_is_never_hurt_by_volatility_and_is_convex(
    deviations: float, years: float, vol: float, right: int, rate: float, carry: float, paid: list[tuple[float, float]]
) -> None:
    times, amounts = [t for t, _ in paid], [v for _, v in paid]
    # Around the boundary of exercise, which is where differences of grids cross zero.
    strike = 100.0 * np.exp(np.clip(deviations * vol * math.sqrt(years), -3.0, 3.0) + np.linspace(-0.05, 0.05, 21))
    found = american.greeks(100.0, strike, years, vol, right, rate, carry, times, amounts)
    assert (found.vega >= 0.0).all()
    assert (found.gamma >= 0.0).all()
    price = american.price(100.0, strike, years, vol, right, rate, carry, times, amounts)
    solved = american.implied_vol_greeks(price, 100.0, strike, years, right, rate, carry, times, amounts)
    known = np.isfinite(solved.iv)
    assert (solved.vega[known] >= 0.0).all()
    assert (solved.gamma[known] >= 0.0).all()
