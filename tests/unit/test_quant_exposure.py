"""Gamma exposure under each dealer convention."""

from __future__ import annotations

import numpy as np
import pytest

from flowlake.quant.exposure import DEALER_SIDES, gamma_exposure


def test_dollars_per_one_per_cent() -> None:
    # 0.05 deltas per dollar x 1,000 contracts x 100 shares = 5,000 shares per dollar; 1 % of 200 is 2 dollars: 10,000 shares.
    assert gamma_exposure(0.05, 1000, 200.0, 1) == pytest.approx(10_000 * 200.0)
    assert gamma_exposure(0.05, 1000, 200.0, 1, multiplier=10) == pytest.approx(1_000 * 200.0)


@pytest.mark.parametrize(
    ("convention", "signs"),
    [("long_calls_short_puts", [1, -1]), ("short_calls_long_puts", [-1, 1]), ("absolute", [1, 1])],
)
def test_conventions(convention: str, signs: list[int]) -> None:
    assert np.sign(gamma_exposure(0.05, 10, 100.0, [1, -1], convention=convention)).tolist() == signs
    assert DEALER_SIDES[convention] == tuple(signs)


def test_the_default_is_long_calls_short_puts() -> None:
    np.testing.assert_array_equal(
        gamma_exposure(0.05, 10, 100.0, [1, -1]),
        gamma_exposure(0.05, 10, 100.0, [1, -1], convention="long_calls_short_puts"),
    )


def test_missing_values_stay_missing() -> None:
    assert np.isnan(gamma_exposure([np.nan, 0.1, 0.1], [1, np.nan, 1], [1, 1, np.nan], 1)).all()


def test_wrong_arguments_raise() -> None:
    with pytest.raises(ValueError, match="known: long_calls_short_puts, short_calls_long_puts, absolute"):
        gamma_exposure(0.05, 10, 100.0, 1, convention="naive")
    with pytest.raises(ValueError, match="right must be"):
        gamma_exposure(0.05, 10, 100.0, 0)
    with pytest.raises(TypeError):
        DEALER_SIDES["mine"] = (1.0, 1.0)  # type: ignore[index]
