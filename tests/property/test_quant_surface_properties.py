"""What must hold of every slice, every fit and every surface, whatever the inputs."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.special import ndtr

from flowlake.quant.surface import (
    TENOR_DAYS,
    FitReason,
    NodeReason,
    Svi,
    calendar_violation,
    fit_svi,
    interpolate,
    lowest_g,
    risk_reversal,
    skew,
    surface_nodes,
    svi_delta_strike_vol,
    svi_from_jump_wings,
    svi_g,
    svi_to_jump_wings,
    svi_total_variance,
)

anything = st.one_of(
    st.floats(),
    st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf, 5e-324, 1e-300, 1e-12, 1.0, 1e300, -1.0]),
)
slices = st.builds(
    lambda lowest, b, rho, m, sigma: Svi(lowest - b * sigma * math.sqrt(1 - rho * rho), b, rho, m, sigma),
    st.floats(1e-4, 1.0),
    st.floats(1e-3, 1.0),
    st.floats(-0.95, 0.95),
    st.floats(-0.5, 0.5),
    st.floats(1e-2, 1.0),
)


@settings(max_examples=500)
@given(k=anything, a=anything, b=anything, rho=anything, m=anything, sigma=anything)
def test_formulas_give_a_number_or_nan(k: float, a: float, b: float, rho: float, m: float, sigma: float) -> None:
    w, g = svi_total_variance(k, a, b, rho, m, sigma), svi_g(k, a, b, rho, m, sigma)
    assert not math.isinf(w)
    assert not math.isinf(g)
    usable = all(math.isfinite(v) for v in (k, a, b, rho, m, sigma)) and b >= 0 and abs(rho) <= 1 and sigma >= 0
    assert usable or (math.isnan(w) and math.isnan(g))
    assert not (math.isnan(w) or w <= 0.0) or math.isnan(g)
    lowest = lowest_g(Svi(a, b, rho, m, sigma))
    assert math.isnan(lowest) or not math.isinf(lowest)


@settings(max_examples=300)
@given(parameters=slices, years=st.floats(1e-3, 5.0))
def test_jump_wings_give_the_slice_back(parameters: Svi, years: float) -> None:
    back = svi_from_jump_wings(svi_to_jump_wings(parameters, years), years)
    k = np.linspace(-1.0, 1.0, 21)
    beta = parameters.m / math.hypot(parameters.m, parameters.sigma)
    assume(abs(beta - parameters.rho) > 1e-3)  # at beta = rho the lowest point is at the forward and the two variances agree
    np.testing.assert_allclose(svi_total_variance(k, *back), svi_total_variance(k, *parameters), rtol=1e-5)


@settings(max_examples=300)
@given(parameters=slices)
def test_the_lowest_g_is_the_lowest(parameters: Svi) -> None:
    k = np.linspace(-6.0, 6.0, 4001)
    least = svi_g(k, *parameters).min()
    assert lowest_g(parameters) <= least + 1e-3 * (1.0 + abs(least))


@settings(max_examples=300)
@given(parameters=slices, years=st.floats(1e-3, 5.0), delta=st.floats(0.01, 0.99), is_call=st.booleans())
def test_a_delta_is_met_on_slices_without_arbitrage(parameters: Svi, years: float, delta: float, is_call: bool) -> None:
    assume(lowest_g(parameters) >= 0.0 and parameters.b * (1 + abs(parameters.rho)) < 1.9)
    signed = delta if is_call else -delta
    point = svi_delta_strike_vol(parameters, years, signed)
    s = point.vol * math.sqrt(years)
    assert abs(ndtr(-point.log_moneyness / s + s / 2) - (0.0 if is_call else 1.0) - signed) < 1e-9


@settings(max_examples=80)
@given(
    quotes=st.lists(st.tuples(anything, anything, anything, anything), max_size=30),
    years=anything,
    with_spreads=st.booleans(),
)
def test_any_quotes_give_a_sound_slice_or_a_reason(
    quotes: list[tuple[float, float, float, float]], years: float, with_spreads: bool
) -> None:
    k, v, h, weight = (np.array(column) for column in zip(*quotes, strict=True)) if quotes else (np.empty(0),) * 4
    found = fit_svi(k, v, years, h if with_spreads else None, weight)
    numbers = (*found.parameters, found.rmse_vol, found.max_error_vol, found.min_g)
    if found.reason is FitReason.OK:
        assert all(math.isfinite(value) for value in numbers)
        assert_sound(found.parameters)
    else:
        assert all(math.isnan(value) for value in numbers)


def assert_sound(parameters: Svi) -> None:
    a, b, rho, m, sigma = parameters
    assert b > 0.0
    assert abs(rho) < 1.0
    assert sigma > 0.0
    assert a + b * sigma * math.sqrt(1.0 - rho * rho) > 0.0
    assert b * (1.0 + abs(rho)) <= 2.0
    reach = 30.0 * (abs(m) + sigma)
    assert svi_g(np.linspace(m - reach, m + reach, 2001), *parameters).min() >= -1e-9


@settings(max_examples=100)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(5, 40), noise=st.floats(0.0, 0.1), years=st.floats(1e-4, 3.0))
def test_fits_of_noisy_smiles_are_sound_and_blind_to_order(seed: int, count: int, noise: float, years: float) -> None:
    rng = np.random.default_rng(seed)
    s = rng.uniform(0.1, 1.0) * math.sqrt(years)
    k = rng.uniform(-3.0, 3.0, count) * s
    v = (s / math.sqrt(years)) * (1.0 - 0.1 * k / s + 0.05 * (k / s) ** 2) * (1.0 + noise * rng.standard_normal(count))
    h = rng.uniform(0.5, 1.5, count) * (0.05 + noise)
    found = fit_svi(k, v, years, h)
    order = rng.permutation(count)
    assert repr(fit_svi(k[order], v[order], years, h[order])) == repr(found)
    if found.reason is FitReason.OK:
        assert_sound(found.parameters)
        fitted = np.sqrt(svi_total_variance(k, *found.parameters) / years)
        counted = v > 0.0
        assert math.isclose(found.max_error_vol, np.abs(fitted - v)[counted].max(), rel_tol=1e-9)
        assert found.rmse_vol <= found.max_error_vol + 1e-15


@settings(max_examples=100)
@given(seed=st.integers(0, 2**32 - 1))
def test_smooth_slices_are_met(seed: int) -> None:
    """A slice without arbitrage, sampled on both sides of the forward, comes back to a hundredth of a volatility point."""
    rng = np.random.default_rng(seed)
    s = rng.uniform(0.02, 0.6)
    made = Svi(0.0, rng.uniform(0.05, 0.4) * s, rng.uniform(-0.8, 0.5), rng.uniform(-0.5, 0.5) * s, rng.uniform(0.3, 2.0) * s)
    lowest = rng.uniform(0.5, 1.0) * s * s
    made = made._replace(a=lowest - made.b * made.sigma * math.sqrt(1 - made.rho**2))
    assume(lowest_g(made) >= 0.003)
    k = np.linspace(-3.0, 3.0, 31) * s
    v = np.sqrt(svi_total_variance(k, *made))
    assert fit_svi(k, v, 1.0).max_error_vol < 1e-4


@settings(max_examples=60)
@given(near=slices, far=slices)
def test_calendar_violation_bounds_the_difference(near: Svi, far: Svi) -> None:
    k = np.linspace(-1.0, 1.0, 2001)
    excess = svi_total_variance(k, *near) - svi_total_variance(k, *far)
    found = calendar_violation(near, far)
    assert found >= excess.max() - 1e-4 * (1.0 + abs(excess.max()))
    assert found <= excess.max() + 1e-3


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), expiries=st.integers(0, 6))
def test_nodes_lie_between_their_expiries(seed: int, expiries: int) -> None:
    rng = np.random.default_rng(seed)
    t = np.round(rng.uniform(0.0, 500.0, expiries), 1) / 365.0
    years = np.repeat(t, 15)
    s = 0.3 * np.sqrt(np.maximum(years, 1e-9))
    k = rng.uniform(-2.5, 2.5, years.size) * s
    vol = 0.3 * (1.0 - 0.1 * k / s + 0.03 * (k / s) ** 2) * rng.uniform(0.9, 1.1)
    found = surface_nodes(years, k, vol)
    order = rng.permutation(years.size)
    shuffled = surface_nodes(years[order], k[order], vol[order])
    assert found.vol.tobytes() == shuffled.vol.tobytes()
    assert found.reason.tobytes() == shuffled.reason.tobytes()
    given_ = np.isin(found.reason, [NodeReason.OK, NodeReason.HELD])
    assert (np.isfinite(found.vol) == given_).all()
    tenors = np.array(TENOR_DAYS) / 365.0
    for i, j in zip(*np.nonzero(found.reason == NodeReason.OK), strict=True):
        near, far = found.near_years[i, j], found.far_years[i, j]
        assert near <= tenors[i] <= far
        ends = [found.expiry_vol[found.expiry_years == end, j][0] ** 2 * end for end in (near, far)]
        assert min(ends) - 1e-12 <= found.vol[i, j] ** 2 * tenors[i] <= max(ends) + 1e-12
    last = t.max() if expiries else 0.0
    assert np.isnan(found.vol[tenors > last]).all()


@settings(max_examples=200)
@given(
    points=st.lists(st.tuples(st.floats(0.001, 5.0), st.floats(0.01, 3.0)), unique_by=lambda p: p[0], max_size=8),
    target=st.floats(-1.0, 6.0),
)
def test_interpolation_keeps_between_the_neighbours(points: list[tuple[float, float]], target: float) -> None:
    years, vol = ([p[i] for p in points] for i in (0, 1))
    found = interpolate(years, vol, target)
    inside = bool(points) and min(years) <= target <= max(years)
    assert math.isnan(found) != inside
    if inside:
        variances = [v * v * t for t, v in points]
        assert min(variances) * (1 - 1e-9) <= found**2 * target <= max(variances) * (1 + 1e-9)


@settings(max_examples=100)
@given(slope=st.floats(-0.3, 0.3), delta=st.floats(0.05, 0.45))
def test_skew_is_the_risk_reversal_turned(slope: float, delta: float) -> None:
    k = np.linspace(-1.0, 1.0, 21)
    v = 0.4 + slope * k
    assert skew(k, v, 0.25, delta) == -risk_reversal(k, v, 0.25, delta)
