"""Reading a surface between its points."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import ndtr

from flowlake.quant.surface import at_the_money, butterfly, delta_strike_vol, interpolate, risk_reversal

K = np.linspace(-0.5, 0.5, 41)


def skew(k: np.ndarray) -> np.ndarray:
    return 0.22 - 0.15 * k + 0.4 * k**2


def test_interpolate_is_linear_in_total_variance() -> None:
    found = interpolate([0.1, 0.3], [0.3, 0.2], [0.1, 0.2, 0.3])
    np.testing.assert_allclose(found, [0.3, math.sqrt((0.009 + 0.012) / 2 / 0.2), 0.2], rtol=1e-14)


def test_interpolate_does_not_extrapolate() -> None:
    found = interpolate([0.1, 0.3], [0.3, 0.2], [0.0, 0.0999, 0.3001, -1.0, math.nan])
    assert np.isnan(found).all()
    assert np.isnan(interpolate([], [], 0.2))
    assert interpolate([0.2], [0.3], 0.2) == pytest.approx(0.3)


def test_interpolate_leaves_out_missing_expiries_and_sorts() -> None:
    assert interpolate([0.3, 0.2, 0.1], [0.2, math.nan, 0.3], 0.2) == interpolate([0.1, 0.3], [0.3, 0.2], 0.2)
    assert isinstance(interpolate([0.1, 0.3], [0.3, 0.2], 0.2), float)


def test_interpolate_raises_for_wrong_expiries() -> None:
    with pytest.raises(ValueError, match="two entries"):
        interpolate([0.1, 0.1], [0.3, 0.2], 0.1)
    with pytest.raises(ValueError, match="positive"):
        interpolate([0.0, 0.1], [0.3, 0.2], 0.1)
    with pytest.raises(ValueError, match="one length"):
        interpolate([0.1], [0.3, 0.2], 0.1)


@pytest.mark.parametrize("delta", [0.1, 0.25, 0.5, 0.75, -0.1, -0.25, -0.5])
def test_the_point_at_a_delta_has_that_delta(delta: float) -> None:
    years = 0.25
    point = delta_strike_vol(K[::-1], skew(K)[::-1], years, delta)
    s = point.vol * math.sqrt(years)
    d1 = -point.log_moneyness / s + s / 2
    assert ndtr(d1) - (1.0 if delta < 0 else 0.0) == pytest.approx(delta, abs=1e-12)
    assert point.vol == pytest.approx(float(np.interp(point.log_moneyness, K, skew(K))), rel=1e-14)


def test_a_flat_smile_has_no_reversal_and_no_butterfly() -> None:
    flat = np.full(K.size, 0.3)
    assert risk_reversal(K, flat, 0.25) == pytest.approx(0.0, abs=1e-15)
    assert butterfly(K, flat, 0.25) == pytest.approx(0.0, abs=1e-15)


def test_signs_of_reversal_and_butterfly() -> None:
    assert risk_reversal(K, skew(K), 0.25) < -0.01
    assert risk_reversal(K, skew(-K), 0.25) > 0.01
    assert butterfly(K, 0.2 + K**2, 0.25) > 0.004
    call, put = (delta_strike_vol(K, skew(K), 0.25, d).vol for d in (0.25, -0.25))
    assert risk_reversal(K, skew(K), 0.25) == call - put
    assert butterfly(K, skew(K), 0.25) == pytest.approx((call + put) / 2 - 0.22, abs=1e-12)


def test_a_smile_that_does_not_reach_gives_nan() -> None:
    near = np.abs(K) < 0.03
    assert math.isnan(delta_strike_vol(K[near], skew(K[near]), 0.25, 0.1).vol)
    assert math.isnan(risk_reversal(K[near], skew(K[near]), 0.25, 0.1))
    assert math.isnan(at_the_money(K[K > 0.01], skew(K[K > 0.01])))
    assert math.isnan(at_the_money([], []))
    assert math.isnan(delta_strike_vol([], [], 0.25, 0.25).vol)
    assert math.isnan(delta_strike_vol(K, skew(K), 0.0, 0.25).vol)
    assert math.isnan(delta_strike_vol(K, np.full(K.size, math.nan), 0.25, 0.25).vol)


def test_a_crooked_smile_gives_the_crossing_nearest_to_the_forward() -> None:
    k = np.array([-0.1, 0.0, 0.1, 0.2, 0.3])
    vol = np.array([0.2, 0.2, 0.2, 0.2, 2.0])
    assert delta_strike_vol(k, vol, 1.0, 0.35).log_moneyness == pytest.approx(
        delta_strike_vol(k[:-1], vol[:-1], 1.0, 0.35).log_moneyness
    )


@pytest.mark.parametrize("delta", [0.0, 1.0, -1.0, 25.0, math.nan])
def test_a_delta_that_is_none_raises(delta: float) -> None:
    with pytest.raises(ValueError, match="delta must lie"):
        delta_strike_vol(K, skew(K), 0.25, delta)
