"""The population stability index against a sum by hand, and what it must not depend on."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowlake.quant.stability import CHANCE_PROBABILITY, population_stability

REFERENCE = np.arange(1.0, 101.0)
"""Ten values in each of ten bins."""


def test_by_hand() -> None:
    """Half of the current values lie in the lowest bin, half in the highest, none between."""
    current = np.concatenate([np.full(10, 0.5), np.full(10, 200.0)])
    ends = 2 * (0.5 - 0.1) * math.log(0.5 / 0.1)
    empty = 8 * (0.025 - 0.1) * math.log(0.025 / 0.1)  # half a value of twenty
    assert population_stability(REFERENCE, current).index == pytest.approx(ends + empty, rel=1e-12)


def test_equal_shares_are_zero() -> None:
    assert population_stability(REFERENCE, REFERENCE[::2]).index == pytest.approx(0.0, abs=1e-12)


def test_two_bins_by_hand() -> None:
    """A factor that is 0 for nine tenths has one quantile but 0: what is above it is the second bin."""
    reference = np.array([0.0] * 90 + [5.0] * 10)
    current = np.array([0.0] * 5 + [9.0] * 5)
    # The ninth decile lies between 0 and 5: the bins end at 0 and there.
    (edge,) = np.unique(np.quantile(reference, 0.9))
    assert 0.0 < edge < 5.0
    floor = 0.5 / 100, 0.5 / 10
    expected = (0.5 - 0.9) * math.log(0.5 / 0.9) + (floor[1] - floor[0]) * math.log(floor[1] / floor[0]) + 0.4 * math.log(5)
    assert population_stability(reference, current).index == pytest.approx(expected)


def test_chance_is_rarely_exceeded_where_nothing_changed() -> None:
    drawn = np.random.default_rng(7)
    found = [population_stability(drawn.normal(size=600), drawn.normal(size=120)) for _ in range(2_000)]
    exceeded = sum(one.index > one.chance for one in found) / len(found)
    assert exceeded <= 3 * (1 - CHANCE_PROBABILITY)
    assert np.mean([one.index for one in found]) == pytest.approx(9 * (1 / 600 + 1 / 120), rel=0.15)


def test_a_shift_is_seen() -> None:
    drawn = np.random.default_rng(7)
    found = population_stability(drawn.normal(size=600), drawn.normal(1.0, size=120))
    assert found.index > 3 * found.chance


def test_nothing_is_said_of_nothing() -> None:
    for reference, current in (([], [1.0]), ([1.0], []), ([math.nan], [1.0])):
        found = population_stability(reference, current)
        assert math.isnan(found.index)
        assert math.isnan(found.chance)


_SAMPLES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60)


@given(_SAMPLES, _SAMPLES)
def test_order_scale_and_missing_values_change_nothing(reference: list[float], current: list[float]) -> None:
    found = population_stability(reference, current)
    assert found.index >= 0.0 or found.index == pytest.approx(0.0, abs=1e-9)
    assert population_stability(reference[::-1], [math.nan, *current[::-1], math.inf]) == found
    doubled = population_stability(np.array(reference) * 2.0, np.array(current) * 2.0)
    assert doubled.index == pytest.approx(found.index, abs=1e-12)
