"""SVI slices: formulas against slow twins, fits on known, noisy and unusable quotes."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from scipy.special import ndtr

from flowlake.core.arrays import Float
from flowlake.quant.surface import (
    FitReason,
    JumpWings,
    Svi,
    SviFit,
    calendar_violation,
    fit_svi,
    lowest_g,
    svi_at_the_money,
    svi_butterfly,
    svi_delta_strike_vol,
    svi_from_jump_wings,
    svi_g,
    svi_risk_reversal,
    svi_skew,
    svi_to_jump_wings,
    svi_total_variance,
)

EQUITY = Svi(0.01, 0.1, -0.6, 0.02, 0.1)
VOGT = Svi(-0.0410, 0.1331, 0.3060, 0.3586, 0.4153)
K = np.linspace(-0.4, 0.3, 60)
YEARS = 0.25


def vols(parameters: Svi, k: Float = K, years: float = YEARS) -> Float:
    return np.sqrt(svi_total_variance(k, *parameters) / years)


def test_total_variance_and_g_against_a_slow_twin() -> None:
    """The derivatives of the twin are differences in 60 digits."""
    mpmath.mp.dps = 60
    for parameters in (EQUITY, VOGT, Svi(0.0, 1.2, 0.6, -0.3, 0.01)):
        a, b, rho, m, sigma = (mpmath.mpf(value) for value in parameters)

        def w(k: mpmath.mpf, a=a, b=b, rho=rho, m=m, sigma=sigma) -> mpmath.mpf:  # type: ignore[no-untyped-def]
            return a + b * (rho * (k - m) + mpmath.sqrt((k - m) ** 2 + sigma**2))

        for at in (-2.0, -0.31, -0.3, 0.0, 0.02, 0.3586, 0.9, 3.0):
            k = mpmath.mpf(at)
            first, second = mpmath.diff(w, k), mpmath.diff(w, k, 2)
            g = (1 - k * first / (2 * w(k))) ** 2 - first**2 / 4 * (1 / w(k) + mpmath.mpf(1) / 4) + second / 2
            assert svi_total_variance(at, *parameters) == pytest.approx(float(w(k)), rel=1e-13)
            assert svi_g(at, *parameters) == pytest.approx(float(g), rel=1e-11, abs=1e-12)


def test_g_has_the_sign_of_the_density() -> None:
    """g / sqrt(2 pi w) exp(-d2^2 / 2) is the density of the log-price: its mass is 1 and its mean price the forward."""
    k = np.linspace(-12.0, 8.0, 400_001)
    w = svi_total_variance(k, *EQUITY)
    d2 = -k / np.sqrt(w) - 0.5 * np.sqrt(w)
    density = svi_g(k, *EQUITY) * np.exp(-0.5 * d2 * d2) / np.sqrt(2.0 * math.pi * w)
    assert np.trapezoid(density, k) == pytest.approx(1.0, abs=1e-6)
    assert np.trapezoid(density * np.exp(k), k) == pytest.approx(1.0, abs=1e-6)


def test_arguments_broadcast_and_scalars_give_scalars() -> None:
    k = np.linspace(-1, 1, 5)[:, None]
    rho = np.array([-0.5, 0.0, 0.5])
    for function in (svi_total_variance, svi_g):
        found = function(k, 0.04, 0.1, rho, 0.0, 0.2)
        assert found.shape == (5, 3)
        assert found.dtype == np.float64
        scalar = function(-1, 0.04, 0.1, -0.5, 0, 0.2)
        assert isinstance(scalar, float)
        assert scalar == found[0, 0]
        assert function([], 0.04, 0.1, -0.5, 0, 0.2).shape == (0,)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_gives_nan(bad: float) -> None:
    for i in range(6):
        arguments = [0.1, *EQUITY]
        arguments[i] = bad
        assert math.isnan(svi_total_variance(*arguments))
        assert math.isnan(svi_g(*arguments))


def test_what_is_no_slice_gives_nan() -> None:
    for wrong in (EQUITY._replace(b=-0.1), EQUITY._replace(rho=1.01), EQUITY._replace(sigma=-0.1)):
        assert math.isnan(svi_total_variance(0.0, *wrong))
        assert math.isnan(svi_g(0.0, *wrong))
        assert math.isnan(lowest_g(wrong))
        assert math.isnan(svi_at_the_money(wrong, YEARS))
        assert math.isnan(svi_delta_strike_vol(wrong, YEARS, 0.25).vol)


def test_edges_of_the_domain() -> None:
    assert svi_total_variance(0.0, -1.0, 0.1, 0.0, 0.0, 0.1) == pytest.approx(-0.99)
    assert math.isnan(svi_g(0.0, -1.0, 0.1, 0.0, 0.0, 0.1))
    assert math.isnan(svi_g(0.0, 0.0, 0.0, 0.0, 0.0, 0.1))
    assert svi_g([-2.0, 0.0, 3.0], 0.04, 0.0, 0.0, 0.0, 0.1) == pytest.approx([1.0, 1.0, 1.0])
    kink = svi_g([-0.1, 0.0, 0.1], 0.04, 0.2, -0.3, 0.0, 0.0)
    assert np.isfinite(kink).tolist() == [True, False, True]
    assert svi_total_variance(0.3, 0.04, 0.2, 1.0, 0.0, 0.0) == pytest.approx(0.04 + 0.2 * 0.6)
    assert math.isnan(svi_total_variance(1e308, 0.0, 10.0, 0.0, -1e308, 0.1))


@pytest.mark.parametrize("parameters", [EQUITY, VOGT, Svi(0.02, 0.3, 0.0, 0.1, 0.2), Svi(0.02, 0.3, 0.4, 0.0, 0.2)])
def test_jump_wings_there_and_back(parameters: Svi) -> None:
    wings = svi_to_jump_wings(parameters, 0.5)
    np.testing.assert_allclose(svi_from_jump_wings(wings, 0.5), parameters, rtol=1e-9, atol=1e-12)
    step = 1e-6
    vol_up, vol_down = (math.sqrt(svi_total_variance(at, *parameters)) for at in (step, -step))
    assert wings.skew == pytest.approx((vol_up - vol_down) / (2 * step), abs=1e-8)
    k = np.linspace(-3, 3, 60_001)
    assert wings.lowest_variance == pytest.approx(svi_total_variance(k, *parameters).min() / 0.5, abs=1e-8)


def test_jump_wings_that_are_none() -> None:
    wings = svi_to_jump_wings(EQUITY, 0.5)
    flat = JumpWings(0.04, 0.0, 0.5, 0.5, 0.04)
    for wrong in (wings._replace(variance=0.0), wings._replace(put_wing=-1.0), wings._replace(skew=9.0), flat):
        assert all(math.isnan(value) for value in svi_from_jump_wings(wrong, 0.5))
    assert all(math.isnan(value) for value in svi_to_jump_wings(EQUITY._replace(a=-1.0), 0.5))
    assert all(math.isnan(value) for value in svi_to_jump_wings(EQUITY, 0.0))


@pytest.mark.parametrize("delta", [0.01, 0.1, 0.25, 0.5, 0.9, -0.01, -0.1, -0.25, -0.5])
def test_the_strike_at_a_delta_has_that_delta(delta: float) -> None:
    for years in (1e-4, 0.25, 3.0):
        scaled = Svi(EQUITY.a * years, EQUITY.b * years, EQUITY.rho, EQUITY.m, EQUITY.sigma)
        point = svi_delta_strike_vol(scaled, years, delta)
        s = point.vol * math.sqrt(years)
        assert ndtr(-point.log_moneyness / s + s / 2) - (1.0 if delta < 0 else 0.0) == pytest.approx(delta, abs=1e-12)
        assert point.vol == pytest.approx(math.sqrt(svi_total_variance(point.log_moneyness, *scaled) / years), rel=1e-14)


def test_readings_of_a_slice() -> None:
    call, put = (svi_delta_strike_vol(EQUITY, YEARS, delta).vol for delta in (0.25, -0.25))
    assert svi_risk_reversal(EQUITY, YEARS) == call - put < -0.01
    assert svi_skew(EQUITY, YEARS) == put - call
    atm = svi_at_the_money(EQUITY, YEARS)
    assert atm == pytest.approx(vols(EQUITY, np.zeros(1))[0])
    assert svi_butterfly(EQUITY, YEARS) == pytest.approx(0.5 * (call + put) - atm)
    flat = Svi(0.04, 0.0, 0.0, 0.0, 0.1)
    assert svi_risk_reversal(flat, 1.0, 0.1) == pytest.approx(0.0, abs=1e-15)
    with pytest.raises(ValueError, match="delta must lie"):
        svi_delta_strike_vol(EQUITY, YEARS, 25.0)


def test_a_slice_without_arbitrage_comes_back() -> None:
    found = fit_svi(K, vols(EQUITY), YEARS, np.full(K.size, 0.01))
    assert found.reason is FitReason.OK
    np.testing.assert_allclose(found.parameters, EQUITY, rtol=1e-5, atol=1e-7)
    assert found.rmse_vol < 1e-8
    assert found.max_error_vol < 1e-7
    assert found.inside_spread == 1.0
    assert found.strikes == K.size
    assert found.min_g == pytest.approx(lowest_g(EQUITY), abs=1e-5)
    assert lowest_g(EQUITY) == pytest.approx(0.25 - 0.16**2 / 16, abs=1e-4), "the limit in the left wing"
    assert (found.lowest, found.highest, found.years) == (-0.4, 0.3, YEARS)


@pytest.mark.parametrize("years", [1 / 365 / 24 / 60, 1 / 365, 7 / 365, 0.5, 5.0])
def test_a_slice_comes_back_at_any_maturity(years: float) -> None:
    """The same shape in units of the total volatility at the forward."""
    s = 0.25 * math.sqrt(years)
    made = Svi(0.4 * s * s, 0.3 * s, -0.5, 0.1 * s, 1.2 * s)
    k = np.linspace(-2.5, 2.0, 25) * s
    found = fit_svi(k, vols(made, k, years), years)
    assert found.reason is FitReason.OK
    assert found.rmse_vol < 1e-6
    assert math.isnan(found.inside_spread)


def test_quotes_with_arbitrage_get_the_nearest_slice_without() -> None:
    k = np.linspace(-1.5, 1.5, 41)
    found = fit_svi(k, vols(VOGT, k, 1.0), 1.0)
    assert found.reason is FitReason.OK
    grid = np.linspace(-5, 5, 20_001)
    assert svi_g(grid, *found.parameters).min() >= 0.0
    assert 0.0 <= found.min_g <= svi_g(grid, *found.parameters).min() + 1e-9
    assert found.rmse_vol < 0.008
    _, b, rho, _, _ = found.parameters
    assert b * (1 + abs(rho)) <= 2.0


def test_noise_within_the_spread_is_smoothed() -> None:
    rng = np.random.default_rng(7)
    half = 0.002 + 0.02 * np.abs(K)
    found = fit_svi(K, vols(EQUITY) + half * rng.uniform(-1, 1, K.size), YEARS, half)
    assert found.reason is FitReason.OK
    assert found.inside_spread > 0.9
    assert np.abs(vols(found.parameters) - vols(EQUITY)).max() < 0.01
    assert found.weighted_rmse_vol < found.rmse_vol


def test_wide_quotes_hardly_count() -> None:
    quoted = vols(EQUITY)
    quoted[:5] += 0.3
    half = np.where(np.arange(K.size) < 5, 0.5, 0.001)
    found = fit_svi(K, quoted, YEARS, half)
    assert abs(svi_at_the_money(found.parameters, YEARS) - svi_at_the_money(EQUITY, YEARS)) < 1e-4


def test_weights_and_rights_choose_quotes() -> None:
    quoted = vols(EQUITY)
    weights = np.ones(K.size)
    quoted[[3, 40]], weights[[3, 40]] = 9.0, 0.0
    found = fit_svi(K, quoted, YEARS, weights=weights)
    assert found.rmse_vol < 1e-8
    assert found.strikes == K.size - 2
    k = np.concatenate([K, K])
    right = np.repeat([1, -1], K.size)
    quoted = np.where(right * k >= 0, vols(EQUITY, k), 3.0)
    assert fit_svi(k, quoted, YEARS, right=right) == fit_svi(K, vols(EQUITY), YEARS)
    with pytest.raises(ValueError, match="right must be"):
        fit_svi(K, vols(EQUITY), YEARS, right=np.zeros(K.size))
    with pytest.raises(ValueError, match="not text"):
        fit_svi(K, vols(EQUITY), YEARS, right=["C"] * K.size)


def test_a_floor_is_not_crossed() -> None:
    near = fit_svi(K, vols(EQUITY), YEARS)
    below = Svi(EQUITY.a * 0.8, EQUITY.b, EQUITY.rho, EQUITY.m, EQUITY.sigma)
    free = fit_svi(K, vols(below, K, 0.3), 0.3)
    assert calendar_violation(near.parameters, free.parameters, -0.4, 0.3) == pytest.approx(0.2 * EQUITY.a, rel=1e-3)
    above = fit_svi(K, vols(below, K, 0.3), 0.3, floor=near)
    assert above.reason is FitReason.OK
    assert calendar_violation(near.parameters, above.parameters, -0.4, 0.3) <= 0.0
    assert above.min_g >= 0.0
    with pytest.raises(ValueError, match="TOO_FEW_STRIKES"):
        fit_svi(K, vols(EQUITY), YEARS, floor=fit_svi([0.1], [0.2], YEARS))


def test_calendar_violation_is_the_largest_on_the_range() -> None:
    far = Svi(0.012, 0.08, -0.2, 0.0, 0.15)
    k = np.linspace(-0.7, 0.9, 200_001)
    excess = svi_total_variance(k, *EQUITY) - svi_total_variance(k, *far)
    assert calendar_violation(EQUITY, far, -0.7, 0.9) == pytest.approx(float(excess.max()), abs=1e-9)
    assert calendar_violation(EQUITY, EQUITY) == 0.0
    assert math.isnan(calendar_violation(EQUITY, Svi(*(math.nan,) * 5)))
    for low, high in ((1.0, -1.0), (-math.inf, 1.0), (math.nan, 1.0)):
        with pytest.raises(ValueError, match="low must be below high"):
            calendar_violation(EQUITY, far, low, high)


def assert_abstains(found: SviFit, reason: FitReason) -> None:
    assert found.reason is reason
    assert all(math.isnan(value) for value in (*found.parameters, *found[1:9]))


def test_quotes_that_carry_no_slice() -> None:
    v = vols(EQUITY)
    for years in (0.0, -1.0, math.nan, math.inf):
        assert_abstains(fit_svi(K, v, years), FitReason.BAD_INPUT)
    assert_abstains(fit_svi([], [], YEARS), FitReason.NO_QUOTES)
    assert_abstains(fit_svi(K, np.full(K.size, math.nan), YEARS), FitReason.NO_QUOTES)
    assert_abstains(fit_svi(K, v, YEARS, right=np.sign(-K)), FitReason.NO_QUOTES)
    assert_abstains(fit_svi(K[::15], v[::15], YEARS), FitReason.TOO_FEW_STRIKES)
    assert_abstains(fit_svi(np.repeat(K[::15], 9), np.repeat(v[::15], 9), YEARS), FitReason.TOO_FEW_STRIKES)
    assert_abstains(fit_svi(K, v, YEARS, min_strikes=61), FitReason.TOO_FEW_STRIKES)
    assert_abstains(fit_svi(K[K > 0], v[K > 0], YEARS), FitReason.ONE_SIDED)
    assert_abstains(fit_svi(K[K < 0], v[K < 0], YEARS), FitReason.ONE_SIDED)
    apart = np.abs(K) > 0.22
    assert_abstains(fit_svi(K[apart], v[apart], YEARS), FitReason.GAP_AT_FORWARD)
    assert fit_svi(K[::15], v[::15], YEARS).strikes == 4


def test_quotes_beyond_any_slice_are_refused() -> None:
    jagged = np.where(np.arange(K.size) % 2 == 0, 0.2, 0.4)
    assert_abstains(fit_svi(K, jagged, YEARS), FitReason.POOR_FIT)
    assert_abstains(fit_svi(K, jagged, YEARS, np.full(K.size, 0.02)), FitReason.POOR_FIT)
    assert fit_svi(K, jagged, YEARS, np.full(K.size, 0.12)).reason is FitReason.OK


def test_quotes_that_do_not_count() -> None:
    clean = fit_svi(K, vols(EQUITY), YEARS, np.full(K.size, 0.01))
    k = np.concatenate([K, [0.0, math.nan, math.inf, 0.1, 0.1, 0.1, 0.1]])
    v = np.concatenate([vols(EQUITY), [math.nan, 0.2, 0.2, 0.0, -0.2, 9.0, 9.0]])
    h = np.concatenate([np.full(K.size, 0.01), [0.01, 0.01, 0.01, 0.01, 0.01, math.nan, -0.01]])
    assert fit_svi(k, v, YEARS, h) == clean


def test_locked_markets_do_not_divide_by_zero() -> None:
    assert fit_svi(K, vols(EQUITY), YEARS, np.zeros(K.size)).reason is FitReason.OK
    half = np.where(K > 0, 0.0, 0.01)
    assert fit_svi(K, vols(EQUITY), YEARS, half).rmse_vol < 1e-6


def test_shapes_that_differ_raise() -> None:
    with pytest.raises(ValueError, match="one-dimensional"):
        fit_svi([[0.1]], [[0.2]], YEARS)
    with pytest.raises(ValueError, match="vol must be as long"):
        fit_svi(K, [0.2], YEARS)
    with pytest.raises(ValueError, match="half_spread must be as long"):
        fit_svi(K, vols(EQUITY), YEARS, [0.1])
