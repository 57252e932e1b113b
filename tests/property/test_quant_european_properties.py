"""What must hold of every European option, whatever the inputs."""

from __future__ import annotations

import math
import sys

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from flowlake.quant import european
from flowlake.quant.european import ImpliedVolReason

EPS = sys.float_info.epsilon
anything = st.one_of(
    st.floats(),
    st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf, 5e-324, 1e-300, 1e-12, 1.0, 100.0, 1e300, -1.0]),
)
money = st.floats(1e-3, 1e5)
rights = st.sampled_from([1, -1])
times = st.floats(1e-9, 30.0)
vols = st.floats(1e-3, 8.0)
discounts = st.floats(0.5, 1.1)


@settings(max_examples=600)
@given(price=anything, forward=anything, strike=anything, years=anything, right=rights, discount=anything)
def test_any_input_gives_nan_with_a_reason_or_a_vol_that_reprices(
    price: float, forward: float, strike: float, years: float, right: int, discount: float
) -> None:
    vol = float(european.implied_vol(price, forward, strike, years, right, discount))
    reason = ImpliedVolReason(int(european.implied_vol_reason(price, forward, strike, years, right, discount)))
    assert (reason is ImpliedVolReason.OK) == (not math.isnan(vol))
    if reason is ImpliedVolReason.OK:
        assert 0.0 < vol < math.inf
        # Undiscounted, and as quarters: forward plus strike and discount times forward may overflow.
        back = float(european.price(forward, strike, years, vol, right))
        assert abs(back / 4 - price / discount / 4) <= 64 * EPS * (forward / 4 + strike / 4) + 1e-320


@settings(max_examples=600)
@given(forward=money, ratio=st.floats(0.02, 50.0), years=times, price=st.floats(0.0, 1.0), right=rights, discount=discounts)
def test_any_market_price_inverts(forward: float, ratio: float, years: float, price: float, right: int, discount: float) -> None:
    """Any price strictly between its bounds has a volatility, and that volatility gives the price back."""
    strike = forward * ratio
    low = max(right * (forward - strike), 0.0)
    high = forward if right > 0 else strike
    premium = discount * (low + price * (high - low))
    vol = float(european.implied_vol(premium, forward, strike, years, right, discount))
    noise = 4 * EPS * (forward + strike)
    if low + noise < premium / discount < high - noise:
        back = float(european.price(forward, strike, years, vol, right, discount))
        assert abs(back - premium) <= 64 * EPS * discount * (forward + strike)


@settings(max_examples=500)
@given(forward=money, k=st.floats(-3.0, 3.0), years=times, vol=vols, right=rights, discount=discounts)
def test_the_vol_comes_back(forward: float, k: float, years: float, vol: float, right: int, discount: float) -> None:
    s = vol * math.sqrt(years)
    strike = forward * math.exp(k * s)
    premium = float(european.price(forward, strike, years, vol, right, discount))
    found = float(european.implied_vol(premium, forward, strike, years, right, discount))
    d1 = -k + s / 2
    vega = forward * math.exp(-d1 * d1 / 2) * math.sqrt(years / (2 * math.pi))
    blur = EPS * (forward + strike) / vega
    if blur < 1e-3:
        assert abs(found - vol) <= 8 * blur + 1e-12


@settings(max_examples=300)
@given(forward=money, ratio=st.floats(0.05, 20.0), years=times, vol=vols, discount=discounts)
def test_parity_and_bounds(forward: float, ratio: float, years: float, vol: float, discount: float) -> None:
    strike = forward * ratio
    call, put = european.price(forward, strike, years, vol, np.array([1, -1]), discount)
    unit = EPS * discount * (forward + strike)
    assert abs(call - put - discount * (forward - strike)) <= 4 * unit
    assert discount * max(forward - strike, 0.0) - unit <= call <= discount * forward + unit
    assert discount * max(strike - forward, 0.0) - unit <= put <= discount * strike + unit


@settings(max_examples=300)
@given(forward=money, ratio=st.floats(0.1, 10.0), years=times, right=rights, fractions=st.lists(st.floats(0, 1), min_size=2))
def test_vol_rises_with_price(forward: float, ratio: float, years: float, right: int, fractions: list[float]) -> None:
    strike = forward * ratio
    low = max(right * (forward - strike), 0.0)
    high = forward if right > 0 else strike
    prices = low + np.sort(np.array(fractions)) * (high - low)
    vol = european.implied_vol(prices, forward, strike, years, right)
    vol = vol[~np.isnan(vol)] * math.sqrt(years)
    assert (np.diff(vol) >= -1e-14 * np.maximum(1.0, vol[1:])).all()


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), cut=st.integers(0, 63))
def test_a_result_depends_on_nothing_but_its_own_inputs(seed: int, cut: int) -> None:
    """The same bits whatever stands beside it in the array: in the vectorised body of the loop or in its remainder."""
    rng = np.random.default_rng(seed)
    n = 64
    spot, strike, years = rng.uniform(50, 150, n), rng.uniform(50, 150, n), rng.uniform(0.01, 2, n)
    right = rng.choice(np.array([-1, 1]), n)
    price = rng.uniform(0.0, 60.0, n)
    whole = np.stack(european.implied_vol_greeks(price, spot, strike, years, right, 0.03, 0.01))
    part = np.stack(european.implied_vol_greeks(*(a[cut:] for a in (price, spot, strike, years, right)), 0.03, 0.01))
    assert whole[:, cut:].tobytes() == part.tobytes()
    vol = european.implied_vol(price, spot, strike, years, right)
    vol_part = european.implied_vol(*(a[cut:] for a in (price, spot, strike, years, right)))
    assert vol[cut:].tobytes() == vol_part.tobytes()


@settings(max_examples=300)
@given(a=anything, b=anything, c=anything, d=anything, e=anything, f=anything, right=rights)
def test_greeks_never_raise(a: float, b: float, c: float, d: float, e: float, f: float, right: int) -> None:
    values = european.greeks(a, b, c, d, right, e, f)
    usable = all(0.0 < v < math.inf for v in (a, b, c, d)) and math.isfinite(e) and math.isfinite(f)
    if not usable:
        assert all(math.isnan(float(v)) for v in values)
    fused = european.implied_vol_greeks(d, a, b, c, right, e, f)
    if math.isnan(float(fused.iv)):
        assert all(math.isnan(float(v)) for v in fused)
    price = float(european.price(a, b, c, d, right, e))
    assert math.isnan(price) or price >= 0.0
