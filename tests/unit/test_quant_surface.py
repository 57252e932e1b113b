"""Reading a surface between its points."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import ndtr

from flowlake.quant.surface import (
    NODES,
    TENOR_DAYS,
    FitReason,
    NodeReason,
    SurfaceNodes,
    Svi,
    at_the_money,
    butterfly,
    delta_strike_vol,
    interpolate,
    risk_reversal,
    skew,
    surface_nodes,
    svi_at_the_money,
    svi_delta_strike_vol,
    svi_total_variance,
    term_slope,
)

K = np.linspace(-0.5, 0.5, 41)


def smile(k: np.ndarray) -> np.ndarray:
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


@pytest.mark.parametrize("bad", [0.0, -0.2, math.nan, math.inf])
def test_a_volatility_that_is_none_is_left_out(bad: float) -> None:
    assert np.isnan(interpolate([0.1, 0.3], [0.3, bad], 0.2))
    assert np.isnan(at_the_money([-0.1, 0.1], [bad, 0.2]))
    assert at_the_money([-0.1, 0.0, 0.1], [0.3, bad, 0.2]) == pytest.approx(0.25)
    assert risk_reversal([*K, 0.013], [*smile(K), bad], 0.25) == risk_reversal(K, smile(K), 0.25)


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
    point = delta_strike_vol(K[::-1], smile(K)[::-1], years, delta)
    s = point.vol * math.sqrt(years)
    d1 = -point.log_moneyness / s + s / 2
    assert ndtr(d1) - (1.0 if delta < 0 else 0.0) == pytest.approx(delta, abs=1e-12)
    assert point.vol == pytest.approx(float(np.interp(point.log_moneyness, K, smile(K))), rel=1e-14)


def test_a_flat_smile_has_no_reversal_and_no_butterfly() -> None:
    flat = np.full(K.size, 0.3)
    assert risk_reversal(K, flat, 0.25) == pytest.approx(0.0, abs=1e-15)
    assert butterfly(K, flat, 0.25) == pytest.approx(0.0, abs=1e-15)


def test_signs_of_reversal_and_butterfly() -> None:
    assert risk_reversal(K, smile(K), 0.25) < -0.01
    assert risk_reversal(K, smile(-K), 0.25) > 0.01
    assert butterfly(K, 0.2 + K**2, 0.25) > 0.004
    assert skew(K, smile(K), 0.25) == -risk_reversal(K, smile(K), 0.25)
    call, put = (delta_strike_vol(K, smile(K), 0.25, d).vol for d in (0.25, -0.25))
    assert risk_reversal(K, smile(K), 0.25) == call - put
    assert butterfly(K, smile(K), 0.25) == pytest.approx((call + put) / 2 - 0.22, abs=1e-12)


def test_a_smile_that_does_not_reach_gives_nan() -> None:
    near = np.abs(K) < 0.03
    assert math.isnan(delta_strike_vol(K[near], smile(K[near]), 0.25, 0.1).vol)
    assert math.isnan(risk_reversal(K[near], smile(K[near]), 0.25, 0.1))
    assert math.isnan(at_the_money(K[K > 0.01], smile(K[K > 0.01])))
    assert math.isnan(at_the_money([], []))
    assert math.isnan(delta_strike_vol([], [], 0.25, 0.25).vol)
    assert math.isnan(delta_strike_vol(K, smile(K), 0.0, 0.25).vol)
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
        delta_strike_vol(K, smile(K), 0.25, delta)


def test_term_slope_is_far_less_near() -> None:
    years = [20 / 365, 45 / 365, 120 / 365]
    vol = [0.2, 0.25, 0.3]
    near, far = interpolate(years, vol, [30 / 365, 90 / 365])
    assert term_slope(years, vol) == far - near > 0
    assert term_slope(years, vol, 45 / 365, 120 / 365) == pytest.approx(0.05)
    assert math.isnan(term_slope(years[:2], vol[:2]))


# --- Nodes of a whole chain ------------------------------------------------------------------------------------------


def shape(years: float) -> Svi:
    """Slices whose volatility has the same shape over k / sqrt(years), with a level of 30 %, and no arbitrage between them."""
    s = 0.3 * math.sqrt(years)
    return Svi(0.5 * s * s, 0.25 * s, -0.4, 0.0, 1.6 * s)


def chain(*days: float, reach: float = 2.5, count: int = 21) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    years = np.repeat(np.array(days) / 365.0, count)
    k = np.tile(np.linspace(-reach, reach, count), len(days)) * 0.3 * np.sqrt(years)
    variance = np.concatenate([svi_total_variance(k[years == t], *shape(t)) for t in np.array(days) / 365.0])
    return years, k, np.sqrt(variance / years)


def column(found: SurfaceNodes, name: str) -> np.ndarray:
    return found.vol[:, NODES.index(name)]


def test_nodes_of_a_known_surface() -> None:
    found = surface_nodes(*chain(5, 12, 26, 40, 75, 120, 250, 400))
    assert found.vol.shape == found.reason.shape == (len(TENOR_DAYS), len(NODES))
    assert (found.reason == NodeReason.OK).all()
    made = [shape(days / 365) for days in TENOR_DAYS]
    for name, delta in (("p10", -0.1), ("p25", -0.25), ("c25", 0.25), ("c10", 0.1)):
        expected = [svi_delta_strike_vol(p, d / 365, delta).vol for p, d in zip(made, TENOR_DAYS, strict=True)]
        np.testing.assert_allclose(column(found, name), expected, atol=3e-4)
    np.testing.assert_allclose(
        column(found, "atm"), [svi_at_the_money(p, d / 365) for p, d in zip(made, TENOR_DAYS, strict=True)], atol=1e-6
    )
    assert all(fit.reason is FitReason.OK for fit in found.fits)
    assert found.expiry_vol.shape == (8, len(NODES))
    assert math.isnan(found.calendar_violation[0])
    assert (found.calendar_violation[1:] <= 0.0).all()


def test_readings_of_the_nodes() -> None:
    found = surface_nodes(*chain(5, 40, 400))
    p10, p25, atm, c25, c10 = (column(found, name) for name in ("p10", "p25", "atm", "c25", "c10"))
    np.testing.assert_array_equal(found.risk_reversal_25d, c25 - p25)
    np.testing.assert_array_equal(found.risk_reversal_10d, c10 - p10)
    np.testing.assert_array_equal(found.skew_25d, p25 - c25)
    np.testing.assert_array_equal(found.butterfly_25d, (c25 + p25) / 2 - atm)
    np.testing.assert_array_equal(found.butterfly_10d, (c10 + p10) / 2 - atm)
    assert (found.skew_25d > 0).all()
    assert found.term_slope == pytest.approx(atm[4] - atm[2], abs=1e-15)


def test_between_expiries_total_variance_is_linear_at_equal_delta() -> None:
    found = surface_nodes(*chain(20, 50))
    row = TENOR_DAYS.index(30)
    w = found.expiry_vol**2 * found.expiry_years[:, None]
    np.testing.assert_allclose(found.vol[row] ** 2 * 30 / 365, w[0] * 2 / 3 + w[1] / 3, rtol=1e-12)
    assert (found.near_years[row] == 20 / 365).all()
    assert (found.far_years[row] == 50 / 365).all()


def test_an_expiry_at_the_tenor_is_the_node() -> None:
    found = surface_nodes(*chain(10, 30, 50))
    np.testing.assert_array_equal(found.vol[TENOR_DAYS.index(30)], found.expiry_vol[1])


def test_nothing_after_the_last_expiry_and_little_before_the_first() -> None:
    found = surface_nodes(*chain(35, 100))
    reasons = dict(zip(TENOR_DAYS, found.reason[:, 0].tolist(), strict=True))
    assert reasons == {
        7: NodeReason.BEFORE_FIRST,
        14: NodeReason.BEFORE_FIRST,
        30: NodeReason.HELD,
        60: NodeReason.OK,
        90: NodeReason.OK,
        180: NodeReason.AFTER_LAST,
        365: NodeReason.AFTER_LAST,
    }
    np.testing.assert_array_equal(found.vol[TENOR_DAYS.index(30)], found.expiry_vol[0])
    assert np.isnan(found.vol[[0, 1, 5, 6]]).all()


def test_todays_expiry_stands_apart() -> None:
    with_today = surface_nodes(*chain(0.2, 8, 40, 400))
    without = surface_nodes(*chain(8, 40, 400))
    np.testing.assert_array_equal(with_today.vol, without.vol)
    np.testing.assert_array_equal(with_today.zero_dte_vol, with_today.expiry_vol[0])
    assert (with_today.zero_dte_reason == NodeReason.OK).all()
    assert np.isnan(without.zero_dte_vol).all()
    assert (without.zero_dte_reason == NodeReason.NO_EXPIRY).all()
    assert np.isnan(with_today.calendar_violation[:2]).all(), "nor does it bind the next expiry"
    only = surface_nodes(*chain(0.2))
    assert (only.reason == NodeReason.NO_EXPIRY).all()


def test_a_delta_beyond_the_quotes_is_no_node() -> None:
    found = surface_nodes(*chain(20, 50, reach=1.0))
    row = found.expiry_reason[0].tolist()
    assert row == [NodeReason.OK, NodeReason.OUTSIDE_STRIKES, NodeReason.OK, NodeReason.OK, NodeReason.OUTSIDE_STRIKES]
    assert np.isnan(found.vol[:, NODES.index("p10")]).all()
    assert (found.reason[:, NODES.index("p10")] == NodeReason.NO_EXPIRY).all()
    assert np.isfinite(found.vol[TENOR_DAYS.index(30), NODES.index("p25")])


def test_an_expiry_without_a_slice_is_stepped_over() -> None:
    years, k, vol = chain(20, 35, 50)
    dropped = (years == 35 / 365) & (k > 0)
    found = surface_nodes(years[~dropped], k[~dropped], vol[~dropped])
    assert [fit.reason for fit in found.fits] == [FitReason.OK, FitReason.ONE_SIDED, FitReason.OK]
    assert (found.expiry_reason[1] == NodeReason.NO_SLICE).all()
    np.testing.assert_array_equal(found.vol, surface_nodes(*chain(20, 50)).vol)


def test_a_slice_below_the_one_before_is_fitted_again() -> None:
    years, k, vol = chain(20, 21)
    vol = np.where(years > 20.5 / 365, 0.97 * vol, vol)
    half = np.full(k.size, 0.02)
    found = surface_nodes(years, k, vol, half)
    assert found.calendar_violation[1] <= 0.0
    assert found.fits[1].rmse_vol > 0.001
    far_below = np.where(years > 20.5 / 365, 0.6 * vol, vol)
    kept = surface_nodes(years, k, far_below, np.full(k.size, 1e-4))
    assert kept.fits[1].reason is FitReason.OK
    assert kept.calendar_violation[1] > 0.0


def test_chains_without_quotes() -> None:
    for arguments in (([], [], []), ([math.nan, -1.0, 0.0, math.inf], [0.0] * 4, [0.2] * 4)):
        found = surface_nodes(*arguments)
        assert (found.reason == NodeReason.NO_EXPIRY).all()
        assert np.isnan(found.vol).all()
        assert found.fits == ()
    with pytest.raises(ValueError, match="of one length"):
        surface_nodes([0.1], [0.1, 0.2], [0.2])
    with pytest.raises(ValueError, match="of one length"):
        surface_nodes([0.1], [0.1], [0.2], half_spread=[0.1, 0.2])


def test_rights_leave_in_the_money_quotes_out() -> None:
    years, k, vol = chain(20, 50)
    right = np.where(k >= 0, 1, -1)
    both = [np.concatenate(pair) for pair in ((years, years), (k, k), (vol, vol * 3), (right, -right))]
    otm = k != 0  # at the forward both sides count
    kept = np.concatenate([np.ones(k.size, dtype=bool), otm])
    found = surface_nodes(*(column[kept] for column in both[:3]), right=both[3][kept])
    np.testing.assert_array_equal(found.vol, surface_nodes(years, k, vol).vol)
    with pytest.raises(ValueError, match="not text"):
        surface_nodes([0.1], [0.1], [0.2], right=["C"])
