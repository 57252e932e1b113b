"""Who began a trade: the classical rules, over arrays.

Conventions of every function here:

- the result is int8: +1 the buyer began it, -1 the seller did, 0 the rule does not say. No rule guesses: where the literature signs
  what is left at random, here it is 0;
- arguments broadcast against each other; scalars in, a scalar out;
- rules that compare prints with one another (`tick`, `reverse_tick` and all that fall back on them) take the prints of one contract
  in their order, in one dimension. Files with milliseconds do not give that order: the step `trade_sides` compares with earlier
  milliseconds only (`_side.tape_tick`);
- a missing value is NaN. There is no midpoint where a quote is missing or crossed; that of a locked one is its price;
- prices are compared as the doubles that they are, but for "at the bid", "at the ask" and the midpoint of the depth rule, which
  allow 1e-4 and 1e-5 of the price. 0.15 against 0.10 and 0.20 lies below their midpoint, which is 0.15000000000000002. Whole
  numbers of ticks have no such doubts: the pipeline compares ten-thousandths. Sizes are compared as they are.

`reverse_tick`, and `gsu` unless told otherwise, look ahead: they use later prints, and no live step calls them.

`buy_probability`, from `direction`, is the best available answer: a probability where the quote tells, NaN where it does not.

Sources: Lee and Ready, Journal of Finance 46 (1991); Ellis, Michaely and O'Hara, Journal of Financial and Quantitative Analysis 35
(2000); Chakrabarty, Li, Nguyen and Van Ness, Journal of Banking & Finance 31 (2007); Grauer, Schuster and Uhrig-Homburg, "Option
Trade Classification", SSRN 4098475 (2023).
"""

from __future__ import annotations

import numpy as np

from flowlake.core.arrays import ArrayLike, Bool, Float
from flowlake.flow import _side
from flowlake.flow._side import Sides
from flowlake.flow.direction import buy_probability

__all__ = [
    "buy_probability",
    "clnv",
    "depth",
    "emo",
    "gsu",
    "lee_ready",
    "quote",
    "reverse_tick",
    "tick",
    "trade_size",
]

TOUCH_ATOL, TOUCH_RTOL = 1e-4, 1e-5
"""How far from a quote a price still is at it, in the unit of the price and as a share of the quote."""
CLNV_REACH = 0.3
"""Share of the spread, from either quote inwards, in which the rule of Chakrabarty and others trusts the quote."""


def quote(price: ArrayLike, bid: ArrayLike, ask: ArrayLike) -> Sides:
    """Quote rule: above the midpoint a buy, below it a sell; 0 at the midpoint, and without a quote or with a crossed one."""
    return _sides(_quote(*_broadcast(price, bid, ask)))


def tick(price: ArrayLike) -> Sides:
    """Tick test: against the last price before that differs, higher is a buy; 0 until a price has differed."""
    return _sides(_tick(*_broadcast(price)))


def reverse_tick(price: ArrayLike) -> Sides:
    """Reverse tick test: against the next price that differs, higher is a buy; 0 after the last change. LOOKS AHEAD."""
    return _sides(_reverse_tick(*_broadcast(price)))


def lee_ready(price: ArrayLike, bid: ArrayLike, ask: ArrayLike) -> Sides:
    """Lee and Ready: the quote rule; where it does not say, the tick test."""
    p, b, a = _broadcast(price, bid, ask)
    return _sides(_first(_quote(p, b, a), _tick(p)))


def emo(price: ArrayLike, bid: ArrayLike, ask: ArrayLike) -> Sides:
    """Ellis, Michaely and O'Hara: at the bid or at the ask (not both) the quote rule, elsewhere the tick test.

    At the only quote of a one-sided market, and at a quote of a crossed one, the quote rule does not say: 0.
    """
    p, b, a = _broadcast(price, bid, ask)
    return _sides(np.where(_at(p, a) ^ _at(p, b), _quote(p, b, a), _tick(p)))


def clnv(price: ArrayLike, bid: ArrayLike, ask: ArrayLike) -> Sides:
    """Chakrabarty, Li, Nguyen and Van Ness: within 30 % of the spread from the bid or the ask, inside it, the quote rule; elsewhere
    (the middle 40 %, and outside the quotes) the tick test. Both limits of a band belong to it.
    """
    p, b, a = _broadcast(price, bid, ask)
    with np.errstate(invalid="ignore", over="ignore"):
        upper = ((1.0 - CLNV_REACH) * a + CLNV_REACH * b <= p) & (p <= a)
        lower = (b <= p) & (p <= CLNV_REACH * a + (1.0 - CLNV_REACH) * b)
    return _sides(np.where(upper ^ lower, _quote(p, b, a), _tick(p)))


def depth(price: ArrayLike, bid: ArrayLike, ask: ArrayLike, bid_size: ArrayLike, ask_size: ArrayLike) -> Sides:
    """Depth rule: at the midpoint, a buy where more is offered than bid for, a sell where less is; 0 off the midpoint."""
    return _sides(_depth(*_broadcast(price, bid, ask, bid_size, ask_size)))


def trade_size(price: ArrayLike, size: ArrayLike, bid_size: ArrayLike, ask_size: ArrayLike) -> Sides:
    """Trade size rule: a buy where the size is that of the bid, a sell where it is that of the ask; 0 where both sizes are equal.

    It reads a customer's limit order being filled: a trade of the whole bid is one that the bidder wanted. The price plays no part,
    but a trade without one is not signed.
    """
    p, *sizes = _broadcast(price, size, bid_size, ask_size)
    return _sides(np.where(np.isnan(p), np.int8(0), _trade_size(*sizes)))


def gsu(
    price: ArrayLike,
    size: ArrayLike,
    bid: ArrayLike,
    ask: ArrayLike,
    bid_size: ArrayLike,
    ask_size: ArrayLike,
    exchange_bid: ArrayLike = np.nan,
    exchange_ask: ArrayLike = np.nan,
    exchange_bid_size: ArrayLike | None = None,
    exchange_ask_size: ArrayLike | None = None,
    *,
    look_ahead: bool = True,
) -> Sides:
    """The stacked rule of Grauer, Schuster and Uhrig-Homburg: the first of these that says.

    Trade size rule (on the sizes of the trading exchange, those of the NBBO where none are given), quote rule on the NBBO, quote
    rule on the exchange's quote, depth rule on the NBBO, depth rule on the exchange's quote, reverse tick test. The last LOOKS
    AHEAD; `look_ahead=False` puts the tick test in its place.
    """
    venue_sizes = (
        bid_size if exchange_bid_size is None else exchange_bid_size,
        ask_size if exchange_ask_size is None else exchange_ask_size,
    )
    p, s, b, a, bs, as_, xb, xa, xbs, xas = _broadcast(
        price, size, bid, ask, bid_size, ask_size, exchange_bid, exchange_ask, *venue_sizes
    )
    stacked = _first(
        _trade_size(s, xbs, xas),
        _quote(p, b, a),
        _quote(p, xb, xa),
        _depth(p, b, a, bs, as_),
        _depth(p, xb, xa, xbs, xas),
        _reverse_tick(p) if look_ahead else _tick(p),
    )
    return _sides(np.where(np.isnan(p), np.int8(0), stacked))


def _broadcast(*values: ArrayLike) -> list[Float]:
    return list(np.broadcast_arrays(*(np.asarray(value, dtype=np.float64) for value in values)))


def _sides(found: Sides) -> Sides:
    return np.asarray(found, dtype=np.int8)[()]


def _first(*rules: Sides) -> Sides:
    """The answer of the first rule that gives one."""
    answer = rules[0]
    for rule in rules[1:]:
        answer = np.where(answer != 0, answer, rule)
    return answer


def _above_less_below(value: Float, reference: Float) -> Sides:
    return np.asarray((value > reference).astype(np.int8) - (value < reference).astype(np.int8), dtype=np.int8)


def _middle(bid: Float, ask: Float) -> Float:
    with np.errstate(invalid="ignore", over="ignore"):
        return np.where(ask >= bid, 0.5 * (ask + bid), np.nan)


def _at(value: Float, reference: Float) -> Bool:
    return np.isclose(value, reference, rtol=TOUCH_RTOL, atol=TOUCH_ATOL)


def _quote(price: Float, bid: Float, ask: Float) -> Sides:
    return _above_less_below(price, _middle(bid, ask))


def _depth(price: Float, bid: Float, ask: Float, bid_size: Float, ask_size: Float) -> Sides:
    at_middle = _at(_middle(bid, ask), price)
    return np.where(at_middle, _above_less_below(ask_size, bid_size), np.int8(0))


def _trade_size(size: Float, bid_size: Float, ask_size: Float) -> Sides:
    differ = ask_size != bid_size
    is_bid, is_ask = (size == bid_size) & differ, (size == ask_size) & differ
    return np.where(is_bid, np.int8(1), np.where(is_ask, np.int8(-1), np.int8(0)))


def _tick(price: Float) -> Sides:
    if price.ndim > 1:
        raise ValueError(f"prices have {price.ndim} dimensions; give those of one contract, in order, in one dimension")
    side = np.zeros(price.size, dtype=np.int8)
    _side.tick(np.ascontiguousarray(price).reshape(-1), side)
    return side.reshape(price.shape)


def _reverse_tick(price: Float) -> Sides:
    """The tick test of the prints in reverse: the next price that differs is then the last one."""
    return _tick(price[::-1])[::-1] if price.ndim else _tick(price)
