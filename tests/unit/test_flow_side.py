"""The classical rules of who began a trade: their definitions, case by case, and the tick test of a whole tape."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from flowlake.flow import _side, side
from flowlake.flow._side import Sides

NAN = float("nan")
INF = float("inf")


def told(sides: Sides) -> list[int]:
    assert np.asarray(sides).dtype == np.int8
    return np.asarray(sides).tolist()


@pytest.mark.parametrize(
    ("price", "bid", "ask", "expected"),
    [
        (1.5, 1.0, 3.0, -1),
        (2.5, 1.0, 3.0, 1),
        (2.0, 1.0, 3.0, 0),  # at the midpoint
        (1.0, 1.0, 3.0, -1),
        (3.0, 1.0, 3.0, 1),
        (0.5, 1.0, 3.0, -1),  # outside
        (9.0, 1.0, 3.0, 1),
        (2.0, 2.0, 2.0, 0),  # locked: its price is the midpoint
        (2.1, 2.0, 2.0, 1),
        (1.5, 3.0, 1.0, 0),  # crossed
        (1.0, NAN, 1.0, 0),
        (1.0, 1.0, NAN, 0),
        (NAN, 1.0, 3.0, 0),
        (1.0, 0.0, 1.0, 1),  # a bid of 0 is a number like any other
        (1.0, 1.0, INF, -1),
    ],
)
def test_quote(price: float, bid: float, ask: float, expected: int) -> None:
    assert told(side.quote([price], [bid], [ask])) == [expected]


@pytest.mark.parametrize(
    ("prices", "expected", "reversed_"),
    [
        ([], [], []),
        ([5.0], [0], [0]),
        ([5.0, 5.0], [0, 0], [0, 0]),
        ([1.0, 2.0, 2.0, 1.0, 1.0, 3.0], [0, 1, 1, -1, -1, 1], [-1, 1, 1, -1, -1, 0]),
        ([1.0, NAN, 1.0, NAN, 2.0, NAN, 2.0], [0, 0, 0, 0, 1, 0, 1], [-1, 0, -1, 0, 0, 0, 0]),
        ([NAN, NAN], [0, 0], [0, 0]),
        ([1.0, INF, 2.0], [0, 1, -1], [-1, 1, 0]),
        ([0.0, -1.0, 0.0], [0, -1, 1], [1, -1, 0]),
    ],
)
def test_tick_and_its_reverse(prices: list[float], expected: list[int], reversed_: list[int]) -> None:
    assert told(side.tick(prices)) == expected
    assert told(side.reverse_tick(prices)) == reversed_


def test_the_reverse_tick_test_looks_ahead_and_the_tick_test_does_not() -> None:
    assert told(side.reverse_tick([1.0, 1.0, 2.0]))[0] != told(side.reverse_tick([1.0, 1.0, 0.5]))[0]
    assert told(side.tick([1.0, 1.0, 2.0]))[:2] == told(side.tick([1.0, 1.0, 0.5]))[:2]


def test_lee_ready_ticks_where_the_quote_rule_is_silent() -> None:
    prices = [1.0, 2.0, 2.0, 2.0, 2.0]
    bid = [0.5, 1.0, 3.0, NAN, 2.5]
    ask = [1.0, 3.0, 1.0, 3.0, 3.5]
    # above; midpoint, up; crossed, up; one-sided, up; below
    assert told(side.lee_ready(prices, bid, ask)) == [1, 1, 1, 1, -1]
    assert told(side.lee_ready([2.0], [1.0], [3.0])) == [0]


def test_emo_trusts_the_quote_only_at_the_touch() -> None:
    prices = [2.0, 1.0, 3.0, 2.9, 2.9, 2.9]
    bid = [1.0, 1.0, 1.0, 1.0, 2.9, NAN]
    ask = [3.0, 3.0, 3.0, 3.0, 2.9, 2.9]
    # midpoint, no tick yet; bid; ask; inside, down from 3; locked, tick; at the only quote: nothing
    assert told(side.emo(prices, bid, ask)) == [0, -1, 1, -1, -1, 0]
    # 0.0999 is not the bid in doubles and is at it in cents
    assert told(side.emo([0.1 + 0.2, 0.3], [0.3, 0.3], [0.5, 0.5])) == [-1, -1]


def test_clnv_trusts_the_quote_in_the_outer_thirty_per_cent_and_not_outside() -> None:
    #        bid  ->30%  beyond  ->70%  ask   above  below
    prices = [10.0, 13.0, 13.5, 17.0, 20.0, 20.5, 9.0]
    assert told(side.clnv(prices, 10.0, 20.0)) == [-1, -1, 1, 1, 1, 1, -1]
    assert told(side.clnv([21.0, 20.5], 10.0, 20.0)) == [0, -1]  # a downtick above the ask is a sale
    assert told(side.clnv([11.0, 12.0], 20.0, 10.0)) == [0, 1]  # crossed: tick
    assert told(side.clnv([11.0, 12.0], NAN, 10.0)) == [0, 1]


@pytest.mark.parametrize(
    ("price", "bid_size", "ask_size", "expected"),
    [(2.0, 5, 9, 1), (2.0, 9, 5, -1), (2.0, 5, 5, 0), (2.5, 5, 9, 0), (2.0, NAN, 9, 0), (NAN, 5, 9, 0), (2.00001, 5, 9, 1)],
)
def test_depth(price: float, bid_size: float, ask_size: float, expected: int) -> None:
    assert told(side.depth([price], 1.0, 3.0, bid_size, ask_size)) == [expected]
    assert told(side.depth([price], 3.0, 1.0, bid_size, ask_size)) == [0]


@pytest.mark.parametrize(
    ("size", "bid_size", "ask_size", "expected"),
    [
        (5, 5, 9, 1),
        (9, 5, 9, -1),
        (5, 5, 5, 0),
        (4, 5, 9, 0),
        (5, 5, NAN, 1),
        (5, NAN, 5, -1),
        (NAN, 5, 9, 0),
        (NAN, NAN, NAN, 0),
        (100_000, 100_001, 5, 0),
        (100_000, 5, 100_001, 0),
        (100_001, 100_001, 100_000, 1),
        (100_000, 100_001, 100_000, -1),
    ],
)
def test_trade_size(size: float, bid_size: float, ask_size: float, expected: int) -> None:
    assert told(side.trade_size([1.0], size, bid_size, ask_size)) == [expected]
    assert told(side.trade_size([NAN], size, bid_size, ask_size)) == [0]


def test_gsu_stacks_its_rules_in_order() -> None:
    price = [1.2, 1.2, 1.5, 1.5, 1.5]
    size = [7, 1, 1, 1, 1]
    sizes = ([7, 7, 7, 7, 7], [9, 9, 9, 7, 7])
    # the size of the bid; below the midpoint; midpoint with more offered; midpoint, even sizes: the next price that differs, none
    assert told(side.gsu(price, size, 1.0, 2.0, *sizes)) == [1, -1, 1, 0, 0]
    assert told(side.gsu(price, size, 1.0, 2.0, *sizes, look_ahead=False)) == [1, -1, 1, 1, 1]
    # the exchange's quote speaks where the NBBO is at its midpoint, before the depth of either
    assert told(side.gsu([1.5], [1], 1.0, 2.0, 7, 9, 1.45, 1.95, 3, 3)) == [-1]
    # the trade size rule reads the exchange's sizes
    assert told(side.gsu([1.2], [3], 1.0, 2.0, 7, 9, 1.0, 2.0, 3, 4)) == [1]


RULES: list[tuple[Callable[..., Sides], int]] = [
    (side.quote, 3),
    (side.tick, 1),
    (side.reverse_tick, 1),
    (side.lee_ready, 3),
    (side.emo, 3),
    (side.clnv, 3),
    (side.depth, 5),
    (side.trade_size, 4),
    (side.gsu, 6),
]


@pytest.mark.parametrize(("rule", "arguments"), RULES)
def test_shapes_and_what_is_missing(rule: Callable[..., Sides], arguments: int) -> None:
    scalar = rule(*[1.0] * arguments)
    assert np.ndim(scalar) == 0
    assert told(rule(*[np.zeros(0)] * arguments)) == []
    assert told(rule(*[np.full(3, NAN)] * arguments)) == [0, 0, 0]
    assert told(rule([NAN], *[1.0] * (arguments - 1))) == [0]
    assert told(rule(pl.Series([None, None], dtype=pl.Float64), *[1] * (arguments - 1))) == [0, 0]
    assert rule([1, 2, 3], *[[2, 2, 2]] * (arguments - 1)).shape == (3,)
    if arguments > 1:
        with pytest.raises(ValueError):
            rule(np.ones(3), *[np.ones(2)] * (arguments - 1))


@pytest.mark.parametrize("rule", [side.tick, side.reverse_tick])
def test_an_order_needs_one_dimension(rule: Callable[..., Sides]) -> None:
    with pytest.raises(ValueError, match="one dimension"):
        rule(np.ones((2, 2)))


def test_the_arguments_are_left_alone() -> None:
    price, bid, ask = np.array([1.0, 2.0, NAN]), np.array([1.0, NAN, 1.0]), np.array([2.0, 2.0, 2.0])
    kept = [a.copy() for a in (price, bid, ask)]
    for rule in (side.lee_ready, side.emo, side.clnv):
        rule(price, bid, ask)
    for before, after in zip(kept, (price, bid, ask), strict=True):
        np.testing.assert_array_equal(before, after)


def tape(*prints: tuple[int, int, int] | tuple[int, int, int, bool]) -> list[int]:
    """Sides of (contract, millisecond, price[, counts])."""
    columns = [[row[i] if len(row) > i else True for row in prints] for i in range(4)]
    contract, moment, price = (np.array(c, dtype=np.int64) for c in columns[:3])
    sides = np.full(len(prints), 9, dtype=np.int8)
    _side.tape_tick(contract, moment, price, np.array(columns[3], dtype=np.bool_), sides)
    return sides.tolist()


def test_a_tape_is_compared_with_earlier_milliseconds_only() -> None:
    assert tape((0, 1, 100), (0, 2, 101), (0, 2, 99), (0, 3, 100)) == [0, 1, -1, 0]  # the millisecond 2 had two prices
    assert tape((0, 1, 100), (0, 1, 101)) == [0, 0]
    assert tape((0, 1, 100), (0, 2, 101), (0, 2, 101), (0, 3, 101)) == [0, 1, 1, 1]  # a zero tick carries the last change
    assert tape((0, 1, 100), (0, 2, 101), (0, 2, 99), (0, 3, 105), (0, 4, 105), (0, 5, 106)) == [0, 1, -1, 0, 0, 1]


def test_a_tape_starts_afresh_with_each_contract() -> None:
    assert tape((0, 1, 100), (0, 2, 101), (1, 3, 105), (1, 4, 104)) == [0, 1, 0, -1]
    assert tape((0, 5, 100), (1, 5, 100), (2, 5, 100)) == [0, 0, 0]


def test_prints_that_do_not_count_set_no_price_and_get_a_side() -> None:
    assert tape((0, 1, 100), (0, 2, 90, False), (0, 3, 99)) == [0, -1, -1]
    assert tape((0, 1, 100), (0, 2, 101), (0, 2, 99, False), (0, 3, 102)) == [0, 1, -1, 1]
    assert tape((0, 1, 100, False), (0, 2, 101)) == [0, 0]


def test_an_empty_tape() -> None:
    assert tape() == []
