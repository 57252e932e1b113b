"""The probability that a buyer began a trade: where it speaks, where it is silent, and the declared table."""

from __future__ import annotations

import math

import numpy as np
import pytest

from flowlake.flow import direction
from flowlake.flow.direction import AGES_S, CALIBRATION, KINDS, PLACES, REACHES, Calibration, buy_probability

NAN = float("nan")


def test_a_print_at_the_offer_was_a_purchase_and_at_the_bid_a_sale() -> None:
    assert buy_probability(1.2, 1.0, 1.2) == CALIBRATION.ceiling
    assert buy_probability(1.0, 1.0, 1.2) == pytest.approx(1.0 - CALIBRATION.ceiling)


@pytest.mark.parametrize(
    ("price", "bid", "ask"),
    [(0.15, 0.10, 0.20), (1.1, 1.0, 1.2), (0.29, 0.28, 0.30), (2.35, 1.15, 3.55)],
)
def test_the_midpoint_is_found_in_dollars_and_is_unknown(price: float, bid: float, ask: float) -> None:
    assert math.isnan(buy_probability(price, bid, ask))


@pytest.mark.parametrize(
    ("price", "bid", "ask", "age_s"),
    [
        (1.0, NAN, 1.2, 0.0),
        (1.2, 1.0, NAN, 0.0),
        (NAN, 1.0, 1.2, 0.0),
        (1.2, 0.0, 1.2, 0.0),
        (1.2, 1.0, math.inf, 0.0),
        (math.inf, 1.0, 1.2, 0.0),
        (1.2, 1.2, 1.2, 0.0),
        (1.2, 1.3, 1.1, 0.0),
        (1.2, 1.0, 1.2, AGES_S[-1] + 1e-6),
        (1.2, 1.0, 1.2, -1e-9),
        (1.2, 1.0, 1.2, NAN),
    ],
)
def test_it_is_unknown_without_a_sound_and_fresh_quote(price: float, bid: float, ask: float, age_s: float) -> None:
    assert math.isnan(buy_probability(price, bid, ask, age_s))


def test_the_last_age_is_still_known() -> None:
    assert buy_probability(1.2, 1.0, 1.2, AGES_S[-1]) == pytest.approx(CALIBRATION.right[0][-1][4])


def test_every_cell_of_the_table_is_reached() -> None:
    # A spread of 2.00 around 10.00: half of it is 1.00, so the distance is the place.
    distances = (*REACHES, 0.9, 1.0, 1.5)
    for kind in range(len(KINDS)):
        for age, seconds in enumerate(AGES_S):
            for place, distance in enumerate(distances):
                right = min(max(CALIBRATION.right[kind][age][place], 0.5), CALIBRATION.ceiling)
                found = buy_probability([10.0 + distance, 10.0 - distance], 9.0, 11.0, seconds, bool(kind))
                np.testing.assert_allclose(found, [right, 1.0 - right])
    assert len(distances) == len(PLACES)


def test_the_table_is_declared_in_full_and_trust_fades_with_age() -> None:
    table = np.array(CALIBRATION.right)
    assert table.shape == (len(KINDS), len(AGES_S), len(PLACES))
    assert ((table >= 0.5) & (table <= 1.0)).all()
    assert (np.diff(table[0], axis=0) <= 0.0).all()
    assert CALIBRATION.version
    assert all(0.5 <= p <= CALIBRATION.fallback_ceiling for p in CALIBRATION.fallback())


def test_another_table_may_be_given() -> None:
    flat = Calibration("flat", (((0.4,) * len(PLACES),) * len(AGES_S), ((0.8,) * len(PLACES),) * len(AGES_S)), 0.7, 0.9, 0.1, 0.6)
    np.testing.assert_allclose(buy_probability(1.2, 1.0, 1.2, 0.0, [False, True], flat), [0.5, 0.7])
    assert flat.fallback() == (0.5, 0.6)


def test_arguments_broadcast_and_scalars_stay_scalars() -> None:
    assert np.ndim(buy_probability(1.2, 1.0, 1.2)) == 0
    assert buy_probability(np.ones((2, 3)), 0.5, [1.0, 1.2, 1.4], 0.0).shape == (2, 3)
    assert buy_probability([], 1.0, 1.2).shape == (0,)


def test_the_midpoint_test_is_exact_to_a_ten_thousandth() -> None:
    assert direction.at_midpoint(0.15, 0.1, 0.2)
    assert not direction.at_midpoint(0.1501, 0.1, 0.2)
    assert not direction.at_midpoint(NAN, 0.1, 0.2)
