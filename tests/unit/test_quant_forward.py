"""The parity-implied forward on clean, stale and empty chains."""

from __future__ import annotations

import math

import numpy as np
import pytest

from flowlake.core.arrays import Float
from flowlake.quant import european
from flowlake.quant.forward import implied_forward

STRIKE = np.arange(70.0, 131.0, 2.5)
DISCOUNT = 0.985


def chain(forward: float = 101.37) -> tuple[Float, Float]:
    vol = 0.2 + 0.3 * np.log(STRIKE / forward) ** 2
    return (
        european.price(forward, STRIKE, 0.25, vol, 1, DISCOUNT),
        european.price(forward, STRIKE, 0.25, vol, -1, DISCOUNT),
    )


def test_a_clean_chain_gives_the_forward() -> None:
    call, put = chain()
    found = implied_forward(STRIKE, call, put, np.ones_like(STRIKE), DISCOUNT)
    assert found.forward == pytest.approx(101.37, abs=1e-10)
    assert found.strikes_used == STRIKE.size
    assert found.dispersion < 1e-10


def test_order_does_not_matter() -> None:
    call, put = chain()
    call = call + np.random.default_rng(3).normal(0, 0.05, call.size)
    order = np.random.default_rng(4).permutation(STRIKE.size)
    one = implied_forward(STRIKE, call, put, np.ones_like(STRIKE), DISCOUNT)
    assert one == implied_forward(STRIKE[order], call[order], put[order], np.ones_like(STRIKE), DISCOUNT)
    assert 0.0 < one.dispersion < 0.2


def test_stale_prints_move_it_hardly_at_all() -> None:
    call, put = chain()
    call[::4] *= 1.6
    put[1] = 9.0
    found = implied_forward(STRIKE, call, put, np.ones_like(STRIKE), DISCOUNT)
    assert found.forward == pytest.approx(101.37, abs=0.02)


def test_early_exercise_premium_far_in_the_money_does_not_drag_it() -> None:
    call, put = chain()
    put = np.maximum(put, STRIKE - 101.37 * DISCOUNT)
    assert implied_forward(STRIKE, call, put, np.ones_like(STRIKE), DISCOUNT).forward == pytest.approx(101.37, abs=0.02)


def test_weights_decide_between_two_camps() -> None:
    strike, put = np.full(5, 100.0), np.full(5, 3.0)
    call = np.array([3.0, 3.0, 3.0, 4.0, 4.0])
    assert implied_forward(strike, call, put, np.ones(5), 1.0).forward == 100.0
    assert implied_forward(strike, call, put, np.array([1, 1, 1, 9, 9.0]), 1.0).forward == 101.0


def test_strikes_without_both_prices_or_a_weight_do_not_count() -> None:
    call, put = chain()
    call[0], put[1], call[2], put[3] = math.nan, math.nan, 0.0, -1.0
    weights = np.ones_like(STRIKE)
    weights[4], weights[5] = 0.0, math.nan
    found = implied_forward(STRIKE, call, put, weights, DISCOUNT)
    assert found.strikes_used == STRIKE.size - 6
    assert found.forward == pytest.approx(101.37, abs=1e-10)


def test_what_cannot_be_determined_is_nan() -> None:
    empty = implied_forward([], [], [], [], 1.0)
    assert math.isnan(empty.forward)
    assert empty.strikes_used == 0
    one_sided = implied_forward([100.0], [5.0], [math.nan], [1.0], 1.0)
    assert math.isnan(one_sided.forward)
    single = implied_forward([100.0], [5.0], [4.0], [1.0], 1.0)
    assert single.forward == 101.0
    assert math.isnan(single.dispersion)
    for discount in (0.0, -1.0, math.nan, math.inf):
        assert math.isnan(implied_forward([100.0], [5.0], [4.0], [1.0], discount).forward)
    assert math.isnan(implied_forward([1.0], [1.0], [5.0], [1.0], 1.0).forward)


def test_wrong_arguments_raise() -> None:
    with pytest.raises(ValueError, match="of one length"):
        implied_forward([100.0, 101.0], [5.0], [4.0], [1.0], 1.0)
    with pytest.raises(ValueError, match="negative"):
        implied_forward([100.0], [5.0], [4.0], [-1.0], 1.0)
