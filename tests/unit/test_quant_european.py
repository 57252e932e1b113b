"""The public guards of `flowlake.quant.european`, and how its kernel is compiled."""

from __future__ import annotations

import math
import platform

import numpy as np
import pytest
from numba import njit

from flowlake.quant import _black, european
from flowlake.quant.european import ImpliedVolReason


@pytest.mark.parametrize("right", [0, 2, -2, math.nan, True + 1, np.array([1, -1, 0]), "C", "call", None])
def test_a_right_other_than_plus_or_minus_one_raises(right: object) -> None:
    for call in (
        lambda: european.price(100, 100, 1, 0.2, right),
        lambda: european.implied_vol(5, 100, 100, 1, right),
        lambda: european.implied_vol_reason(5, 100, 100, 1, right),
        lambda: european.greeks(100, 100, 1, 0.2, right, 0.0),
        lambda: european.implied_vol_greeks(5, 100, 100, 1, right, 0.0),
    ):
        with pytest.raises(ValueError, match=r"right must be \+1 for a call or -1 for a put"):
            call()


def test_arguments_broadcast_and_shapes_come_back() -> None:
    strike = np.array([90.0, 100.0, 110.0])
    vol = np.array([[0.1], [0.3]])
    price = european.price(100.0, strike, 0.5, vol, -1, 0.98)
    assert price.shape == (2, 3)
    assert price.dtype == np.float64
    np.testing.assert_allclose(european.implied_vol(price, 100.0, strike, 0.5, -1, 0.98), np.broadcast_to(vol, (2, 3)))
    assert isinstance(european.price(100, 100, 1, 0.2, 1), float)
    assert european.implied_vol([], [], [], [], []).shape == (0,)
    assert european.implied_vol_reason(price, 100.0, strike, 0.5, -1, 0.98).dtype == np.int8
    with pytest.raises(ValueError, match="shape"):
        european.price([1.0, 2.0], [1.0, 2.0, 3.0], 1, 0.2, 1)


def test_arrays_of_any_layout_and_type() -> None:
    strike = np.arange(80, 120, dtype=np.int32)
    price = european.price(100.0, strike, 0.5, 0.25, 1)
    backwards = european.implied_vol(price[::-1], np.float32(100.0), strike[::-1], 0.5, np.int8(1))
    np.testing.assert_allclose(backwards, 0.25, rtol=1e-12)


def test_prices_are_discounted_premiums() -> None:
    forward, strike, years, vol, discount = 105.0, 100.0, 1.0, 0.2, 0.95
    undiscounted = european.price(forward, strike, years, vol, 1)
    assert european.price(forward, strike, years, vol, 1, discount) == pytest.approx(discount * undiscounted, rel=1e-15)
    assert european.implied_vol(discount * undiscounted, forward, strike, years, 1, discount) == pytest.approx(vol, abs=1e-14)


def test_no_time_or_no_vol_leaves_the_intrinsic_value() -> None:
    np.testing.assert_array_equal(european.price([110, 90], 100, 0.0, 0.3, 1, 0.9), [9.0, 0.0])
    np.testing.assert_array_equal(european.price([110, 90], 100, 1.0, 0.0, -1, 0.9), [0.0, 9.0])


@pytest.mark.parametrize(
    ("price", "forward", "strike", "years", "right", "discount", "reason"),
    [
        (5.0, 100, 100, 1.0, 1, 1.0, ImpliedVolReason.OK),
        (0.0, 100, 110, 1.0, 1, 1.0, ImpliedVolReason.BELOW_INTRINSIC),
        (-1.0, 100, 110, 1.0, 1, 1.0, ImpliedVolReason.BELOW_INTRINSIC),
        (10.0, 110, 100, 1.0, 1, 1.0, ImpliedVolReason.BELOW_INTRINSIC),
        (0.97 * (150.3 - 50.3), 150.3, 50.3, 1.0, 1, 0.97, ImpliedVolReason.BELOW_INTRINSIC),
        (9.9, 100, 110, 1.0, -1, 1.0, ImpliedVolReason.BELOW_INTRINSIC),
        (100.0, 100, 110, 1.0, 1, 1.0, ImpliedVolReason.ABOVE_MAXIMUM),
        (99.0, 100, 110, 1.0, 1, 0.99, ImpliedVolReason.ABOVE_MAXIMUM),
        (111.0, 100, 110, 1.0, -1, 1.0, ImpliedVolReason.ABOVE_MAXIMUM),
        (math.nan, 100, 110, 1.0, -1, 1.0, ImpliedVolReason.BAD_INPUT),
        (math.inf, 100, 110, 1.0, -1, 1.0, ImpliedVolReason.BAD_INPUT),
        (5.0, 0.0, 110, 1.0, -1, 1.0, ImpliedVolReason.BAD_INPUT),
        (5.0, 100, -5.0, 1.0, -1, 1.0, ImpliedVolReason.BAD_INPUT),
        (5.0, 100, 100, 0.0, -1, 1.0, ImpliedVolReason.BAD_INPUT),
        (5.0, 100, 100, -1.0, -1, 1.0, ImpliedVolReason.BAD_INPUT),
        (5.0, 100, 100, math.inf, -1, 1.0, ImpliedVolReason.BAD_INPUT),
        (5.0, 100, 100, 1.0, -1, 0.0, ImpliedVolReason.BAD_INPUT),
        (-5.0, 100, 100, 1.0, -1, -1.0, ImpliedVolReason.BAD_INPUT),
        (5.0, 100, 100, 1.0, -1, math.inf, ImpliedVolReason.BAD_INPUT),
    ],
)
def test_reasons(
    price: float, forward: float, strike: float, years: float, right: int, discount: float, reason: ImpliedVolReason
) -> None:
    assert ImpliedVolReason(int(european.implied_vol_reason(price, forward, strike, years, right, discount))) is reason
    vol = float(european.implied_vol(price, forward, strike, years, right, discount))
    assert math.isnan(vol) == (reason is not ImpliedVolReason.OK)


def test_fused_on_both_sides_of_the_switch_to_the_search() -> None:
    """Total volatility 1.5 is solved by the straight line, 1.9 by the search; both give the same as the two steps apart."""
    for total in (1.5, 1.9):
        forward, discount = 100.0 * math.exp(0.02), math.exp(-0.03)
        price = european.price(forward, 120.0, 1.0, total, np.array([1, -1]), discount)
        fused = european.implied_vol_greeks(price, 100.0, 120.0, 1.0, np.array([1, -1]), 0.03, 0.01)
        apart = european.greeks(100.0, 120.0, 1.0, total, np.array([1, -1]), 0.03, 0.01)
        np.testing.assert_allclose(fused.iv, total, rtol=1e-13)
        for name in fused._fields[1:]:
            np.testing.assert_allclose(getattr(fused, name), getattr(apart, name), rtol=1e-12)


def test_exponential_over_its_whole_range() -> None:
    """Rates and times reach the kernel's own exponential, which is not libm's."""
    for rate in (-600.0, -20.0, -3.3, 0.0, 0.05, 3.3, 20.0, 600.0):
        price = european.price(100.0, 100.0, 1.0, 0.3, 1, math.exp(-rate))
        fused = european.implied_vol_greeks(price, 100.0 * math.exp(-rate) * math.exp(rate), 100.0, 1.0, 1, rate, rate)
        assert fused.iv == pytest.approx(0.3, abs=1e-12)


@pytest.mark.parametrize("kernel", ["fill_implied_vols", "fill_implied_vol_greeks"])
def test_the_loop_is_vectorised(kernel: str) -> None:
    """A branch or a call that slips into the straight-line part costs a factor of four and no other test would notice."""
    packed = {"x86_64": ("vfmadd", "pd"), "AMD64": ("vfmadd", "pd"), "aarch64": ("fmla", ".2d"), "arm64": ("fmla", ".2d")}
    if platform.machine() not in packed:
        pytest.skip(f"the names of packed instructions on {platform.machine()} are not known to this test")
    operation, lanes = packed[platform.machine()]
    compiled = njit(error_model="numpy")(getattr(_black, kernel).py_func)
    vector = np.ones(8)
    out = np.empty(8) if kernel == "fill_implied_vols" else np.empty((6, 8))
    compiled(out, *([vector] * (6 if kernel == "fill_implied_vols" else 7)))
    (assembly,) = compiled.inspect_asm().values()
    count = sum(1 for line in assembly.splitlines() if operation in line and lanes in line)
    assert count > 60, f"{count} packed fused multiply-adds: the loop of {kernel} is no longer vectorised"
