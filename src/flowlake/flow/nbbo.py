"""The quote in force at each print: an as-of join of prints with a stream of quotes.

A print takes the last quote of its contract strictly before its own time. A quote of the very same time may be the one that the
print left behind, and files with milliseconds put many of both into one moment. Quotes arrive
in batches and are never held together: memory grows with the prints, not with the quotes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from flowlake.core.arrays import AnyArray, Bool, Float, Int
from flowlake.flow import _nbbo


class Quotes(NamedTuple):
    """A batch of quotes, sorted by contract and time; among those of one time the last one stands.

    Contracts are numbers, the same as those of the prints. A price that is 0, negative or NaN is no quote on that side.
    """

    contract: AnyArray
    ts_ns: Int
    bid: AnyArray
    ask: AnyArray
    bid_size: AnyArray
    ask_size: AnyArray


class Nbbo(NamedTuple):
    """One row per print; NaN where a side is absent or its quote too old, sizes included."""

    bid: Float
    ask: Float
    bid_size: Float
    ask_size: Float
    age_ns: Int
    """From the quote to the print, also of a quote that is too old; -1 where the contract had none before the print."""
    is_stale: Bool
    """There is a quote and it is older than allowed."""
    is_dated: Bool
    """The time of the quote is its own. Where it is not, `age_ns` is the least that the age can be."""

    @property
    def is_locked_or_crossed(self) -> Bool:
        """The bid is at or above the ask: such a market says nothing of who began a trade."""
        return np.asarray(self.bid >= self.ask)


def as_of(
    contract: AnyArray,
    ts_ns: Int,
    batches: Iterable[Quotes],
    *,
    max_age_ns: int,
) -> Nbbo:
    """Join prints, sorted by contract and time, with the batches of one stream of quotes that is sorted likewise across batches.

    A quote older than `max_age_ns` is not taken to be in force. Raises ValueError where prints or quotes are out of order: the
    result would be wrong without a sign of it.
    """
    _check_order("print", contract, ts_ns)
    count = contract.size
    prices = (np.empty(count), np.empty(count), np.empty(count), np.empty(count))
    found = Nbbo(*prices, np.empty(count, np.int64), np.empty(count, np.bool_), np.ones(count, np.bool_))
    held, done = _NO_QUOTES, 0
    for batch in batches:
        if batch.contract.size:
            _check_order("quote", batch.contract, batch.ts_ns)
            _check_follows(held, batch)
            before = held if held.contract.size else _rows(batch, slice(0))
            done = _join(contract, ts_ns, done, batch, before, False, max_age_ns, found)
            held = _rows(batch, slice(-1, None))
    _join(contract, ts_ns, done, _rows(held, slice(0)), held, True, max_age_ns, found)
    return found


def unquoted(count: int) -> Nbbo:
    """What `as_of` gives so many prints where there are no quotes; the four prices and sizes are one array."""
    absent = np.full(count, np.nan)
    dated = np.ones(count, np.bool_)
    return Nbbo(absent, absent, absent, absent, np.full(count, _nbbo.NO_AGE, np.int64), np.zeros(count, np.bool_), dated)


_NO_QUOTES = Quotes(*(np.empty(0, dtype) for dtype in (np.int64, np.int64, *[np.float64] * 4)))


def _rows(quotes: Quotes, chosen: slice) -> Quotes:
    return Quotes(*(column[chosen].copy() for column in quotes))


def _join(
    contract: AnyArray,
    ts_ns: Int,
    done: int,
    batch: Quotes,
    held: Quotes,
    is_last: bool,
    max_age_ns: int,
    found: Nbbo,
) -> int:
    prints = (contract, ts_ns, done)
    quotes = (batch.contract, batch.ts_ns, batch[2:])
    before = (held.contract, held.ts_ns, held[2:])
    return _nbbo.join(*prints, *quotes, *before, is_last, max_age_ns, found[:4], found.age_ns, found.is_stale)


def _check_order(what: str, contract: AnyArray, ts_ns: Int) -> None:
    found = _nbbo.first_disorder(contract, ts_ns)
    if found >= 0:
        raise ValueError(f"{what} {found} lies before the one above it: sort by contract and time")


def _check_follows(held: Quotes, batch: Quotes) -> None:
    if held.contract.size and (held.contract[0], held.ts_ns[0]) > (batch.contract[0], batch.ts_ns[0]):
        raise ValueError("a batch of quotes begins before the end of the one before it: give them in order of contract and time")
