"""Trade sides and the quote join against slow twins that follow the definitions print by print, and what must not change them."""

from __future__ import annotations

from bisect import bisect_left
from fractions import Fraction
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from flowlake.flow import _side, nbbo, side
from flowlake.flow.direction import buy_probability

CENTS = st.integers(1, 40)
SIZES = st.integers(1, 4)
QUOTED = st.lists(st.tuples(CENTS, CENTS, CENTS, SIZES, SIZES, SIZES), min_size=1, max_size=30)
"""Prints: price, bid, ask in whole cents, size, bid size, ask size."""


def sign(value: Fraction) -> int:
    return (value > 0) - (value < 0)


def slow_tick(prices: list[int]) -> list[int]:
    out = []
    for i, price in enumerate(prices):
        earlier = [p for p in prices[:i] if p != price]
        out.append(sign(Fraction(price - earlier[-1])) if earlier else 0)
    return out


def slow_quote(price: int, bid: int, ask: int) -> int:
    return 0 if bid > ask else sign(price - Fraction(bid + ask, 2))


def columns(prints: list[tuple[int, ...]]) -> list[np.ndarray]:
    return [np.array(c, dtype=np.float64) for c in zip(*prints, strict=True)]


@given(QUOTED)
def test_slow_twins_in_exact_arithmetic(prints: list[tuple[int, ...]]) -> None:
    price, bid, ask, size, bid_size, ask_size = columns(prints)
    ticks = slow_tick([p[0] for p in prints])
    quotes = [slow_quote(*p[:3]) for p in prints]
    assert side.quote(price, bid, ask).tolist() == quotes
    assert side.tick(price).tolist() == ticks
    assert side.reverse_tick(price).tolist() == slow_tick([p[0] for p in prints][::-1])[::-1]
    assert side.lee_ready(price, bid, ask).tolist() == [q or t for q, t in zip(quotes, ticks, strict=True)]
    expected = [q if (p[0] == p[1]) != (p[0] == p[2]) else t for p, q, t in zip(prints, quotes, ticks, strict=True)]
    assert side.emo(price, bid, ask).tolist() == expected
    depths = [sign(Fraction(p[5] - p[4])) if p[2] >= p[1] and 2 * p[0] == p[1] + p[2] else 0 for p in prints]
    assert side.depth(price, bid, ask, bid_size, ask_size).tolist() == depths
    sizes = [0 if p[4] == p[5] else 1 if p[3] == p[4] else -1 if p[3] == p[5] else 0 for p in prints]
    assert side.trade_size(price, size, bid_size, ask_size).tolist() == sizes


@given(QUOTED)
def test_clnv_in_exact_arithmetic(prints: list[tuple[int, ...]]) -> None:
    # Counted in tenths of the spread's unit, so that 30 % of it is a whole number in doubles too.
    price, bid, ask = (10.0 * c for c in columns(prints)[:3])
    ticks = slow_tick([p[0] for p in prints])
    expected = []
    for (p, b, a, *_), tick in zip(prints, ticks, strict=True):
        reach = Fraction(3, 10) * (a - b)
        upper, lower = a - reach <= p <= a, b <= p <= b + reach
        expected.append(slow_quote(p, b, a) if upper != lower else tick)
    found = side.clnv(price, bid, ask)
    # A price at the limit of a band may fall to either side of it in doubles.
    at_limit = [3 * abs(a - b) in (10 * abs(p - b), 10 * abs(a - p)) or a == b for p, b, a, *_ in prints]
    assert [f for f, x in zip(found.tolist(), at_limit, strict=True) if not x] == [
        e for e, x in zip(expected, at_limit, strict=True) if not x
    ]


@given(QUOTED)
def test_buying_and_selling_are_mirror_images(prints: list[tuple[int, ...]]) -> None:
    price, bid, ask, size, bid_size, ask_size = columns(prints)
    mirrored = (-price, -ask, -bid)
    for rule in (side.quote, side.lee_ready, side.emo):
        np.testing.assert_array_equal(rule(*mirrored), -rule(price, bid, ask))
    np.testing.assert_array_equal(side.depth(*mirrored, ask_size, bid_size), -side.depth(price, bid, ask, bid_size, ask_size))
    np.testing.assert_array_equal(
        side.trade_size(price, size, ask_size, bid_size), -side.trade_size(price, size, bid_size, ask_size)
    )
    high = 100.0
    np.testing.assert_allclose(
        buy_probability(high - price, high - ask, high - bid), 1.0 - buy_probability(price, bid, ask), atol=1e-12
    )


PRINTS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 6), st.integers(1, 4), st.booleans()), max_size=40)
"""Contract, millisecond, price, whether it counts."""


def tape_tick(prints: list[tuple[int, int, int, bool]]) -> list[int]:
    contract, moment, price = (np.array([p[i] for p in prints], dtype=np.int64) for i in range(3))
    out = np.empty(len(prints), dtype=np.int8)
    _side.tape_tick(contract, moment, price, np.array([p[3] for p in prints], dtype=np.bool_), out)
    return out.tolist()


def slow_tape_tick(prints: list[tuple[int, int, int, bool]]) -> list[int]:
    """Walk back millisecond by millisecond to the first price that differs; stop at one with several."""
    out = []
    for contract, moment, price, _ in prints:
        answer = 0
        for earlier in sorted({m for c, m, _, counts in prints if c == contract and m < moment and counts}, reverse=True):
            at = {p for c, m, p, counts in prints if (c, m) == (contract, earlier) and counts}
            if len(at) > 1:
                break
            if at != {price}:
                answer = sign(Fraction(price - at.pop()))
                break
        out.append(answer)
    return out


@given(PRINTS)
def test_the_tape_against_its_slow_twin(prints: list[tuple[int, int, int, bool]]) -> None:
    ordered = sorted(prints, key=lambda p: p[:2])
    assert tape_tick(ordered) == slow_tape_tick(ordered)


@given(PRINTS, st.randoms(use_true_random=False))
def test_order_inside_a_millisecond_does_not_matter(prints: list[tuple[int, int, int, bool]], random: object) -> None:
    ordered = sorted(prints, key=lambda p: p[:2])
    shuffled = list(prints)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    shuffled.sort(key=lambda p: p[:2])
    assert sorted(zip(ordered, tape_tick(ordered), strict=True)) == sorted(zip(shuffled, tape_tick(shuffled), strict=True))


@given(PRINTS, st.integers(0, 6), st.integers(1, 4))
def test_later_prints_change_no_earlier_side(prints: list[tuple[int, int, int, bool]], moment: int, price: int) -> None:
    before = sorted([p for p in prints if p[1] < moment], key=lambda p: p[:2])
    after = sorted([*before, *((c, moment, price, True) for c in range(3))], key=lambda p: p[:2])
    found = [s for p, s in zip(after, tape_tick(after), strict=True) if p[1] < moment]
    assert found == tape_tick(before)


QUOTES = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 12), st.sampled_from([0, 1, 2, 3, 4]), st.sampled_from([0, 1, 2, 3, 4])),
    max_size=40,
)
"""Contract, time, bid, ask."""
TRADES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), max_size=25)


def joined(trades: list[tuple[int, int]], quotes: list[tuple[int, int, int, int]], cuts: list[int], age: int) -> nbbo.Nbbo:
    contract, ts = (np.array([t[i] for t in trades], dtype=np.int64) for i in range(2))
    table = [np.array([q[i] for q in quotes], dtype=np.int64) for i in range(4)]
    bounds = sorted({0, len(quotes), *(min(cut, len(quotes)) for cut in cuts)})
    batches = [
        nbbo.Quotes(*(c[a:b] for c in table[:2]), *(c[a:b].astype(np.float64) for c in [*table[2:], 10 * table[2], 10 * table[3]]))
        for a, b in pairwise(bounds)
    ]
    return nbbo.as_of(contract, ts, iter(batches), max_age_ns=age)


@settings(max_examples=200)
@given(TRADES, QUOTES, st.lists(st.integers(0, 40), max_size=6), st.integers(0, 12))
def test_the_join_against_its_slow_twin_however_the_quotes_are_cut(
    trades: list[tuple[int, int]], quotes: list[tuple[int, int, int, int]], cuts: list[int], age: int
) -> None:
    trades, quotes = sorted(trades), sorted(quotes, key=lambda q: q[:2])
    found = joined(trades, quotes, cuts, age)
    for i, (contract, ts) in enumerate(trades):
        own = [q for q in quotes if q[0] == contract]
        place = bisect_left([q[1] for q in own], ts)
        if not place:
            assert found.age_ns[i] == -1
            assert np.isnan([found.bid[i], found.ask[i], found.bid_size[i], found.ask_size[i]]).all()
            assert not found.is_stale[i]
            continue
        _, at, bid, ask = own[place - 1]
        assert found.age_ns[i] == ts - at
        assert found.is_stale[i] == (ts - at > age)
        for value, price, lots in ((bid, found.bid[i], found.bid_size[i]), (ask, found.ask[i], found.ask_size[i])):
            if value > 0 and ts - at <= age:
                assert (price, lots) == (value, 10 * value)
            else:
                assert np.isnan([price, lots]).all()
    with_both = (found.bid > 0) & (found.ask > 0)
    np.testing.assert_array_equal(found.is_locked_or_crossed, with_both & (found.bid >= found.ask))


@given(TRADES, QUOTES, st.integers(0, 12))
def test_later_quotes_change_no_earlier_print(
    trades: list[tuple[int, int]], quotes: list[tuple[int, int, int, int]], cut: int
) -> None:
    trades, quotes = sorted(trades), sorted(quotes, key=lambda q: q[:2])
    early = [t for t in trades if t[1] <= cut]
    whole = joined(trades, quotes, [], 12)
    known = joined(early, [q for q in quotes if q[1] < cut], [], 12)
    kept = np.array([t[1] <= cut for t in trades], dtype=np.bool_)
    for a, b in zip(whole, known, strict=True):
        np.testing.assert_array_equal(a[kept], b)
