"""What must hold of every American option, whatever the inputs."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from flowlake.quant import american

anything = st.one_of(
    st.floats(),
    st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf, 5e-324, 1e-12, 0.05, 1.0, 100.0, 1e300, -1.0]),
)
rights = st.sampled_from([1, -1])
dividends = st.lists(st.tuples(st.floats(-0.1, 2.0), st.floats(0.0, 5.0)), max_size=4)


@settings(max_examples=150, deadline=None)
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


@settings(max_examples=150, deadline=None)
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
    np.testing.assert_allclose(back[known], price[known], atol=1e-7, rtol=1e-9)
