"""The lit market beside off-exchange prints: minute bars as arrays, their volatility, and the side that they lend to a print.

The side of a print is inferred only where something speaks for it, and it is never more than a leaning:

- `subpenny`: a fraction of a cent above 0.6 of a cent is a buyer's, below 0.4 a seller's (Boehmer, Jones, Zhang and Zhang 2021:
  wholesalers improve retail orders by a fraction of a cent). Prices of at least a dollar only, below it a fraction is a tick.
- `midpoint`: a fraction of 0.4 to 0.6 of a cent: no side.
- `lit_range`: a whole cent in the top or bottom fifth of what exchanges traded at in the same minute, where they made at least
  five trades at more than one price.
- `none`: anything else, and every print whose price is not of the moment.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from flowlake.core.arrays import Bool, Float, Int
from flowlake.datasets.matrices import floats
from flowlake.datasets.offexchange import MILLIONTHS, MIN_LIT_RETURNS

MINUTE_NS = 60 * 10**9
CENT = 10_000
SUBPENNY_SELL, SUBPENNY_BUY = 4_000, 6_000
"""A cent, and the bounds of a fraction of it, in millionths of a dollar."""
RANGE_EDGE = 0.2
RANGE_TRADES = 5
NONE, SUBPENNY, LIT_RANGE, MIDPOINT = range(4)
RULE_NAMES = {NONE: "none", SUBPENNY: "subpenny", LIT_RANGE: "lit_range", MIDPOINT: "midpoint"}


@dataclass(frozen=True)
class Lit:
    """Lit minute bars as arrays: `key` is name << 32 | minute, ascending; prices are NaN where no trade may set one."""

    key: Int
    high: Float
    low: Float
    close: Float
    transactions: Int
    is_regular: Bool


def numbers(names: pl.Series, kind: pl.Enum) -> Int:
    return names.cast(kind).to_physical().cast(pl.Int64).to_numpy()


def key_of(group: Int, minute: Int) -> Int:
    return np.asarray((group << 32) | minute)


def lit_of(bars: pl.DataFrame, group: Int) -> Lit:
    minute = bars["ts_utc"].cast(pl.Int64).to_numpy() // MINUTE_NS
    high, low, close = (floats(bars[name]) for name in ("high", "low", "close"))
    return Lit(key_of(group, minute), high, low, close, bars["transactions"].to_numpy(), bars["is_regular"].to_numpy())


def minute_volatility(key: Int, close: Float, names: int) -> Float:
    """Per name, the standard deviation of a log return per minute, by bipower variation; NaN below `MIN_LIT_RETURNS` returns.

    `key` is name << 32 | minute, ascending; a return over a gap of g minutes counts as one of a minute, divided by sqrt(g).
    """
    out = np.full(names, np.nan)
    group, gap = (key >> 32)[1:], np.diff(key)
    same = group == (key >> 32)[:-1]
    size = np.abs(np.diff(np.log(close))) / np.sqrt(np.where(same, gap, 1))
    product = size[1:] * size[:-1]
    both = same[1:] & same[:-1]
    owner = group[1:][both]
    pairs = np.bincount(owner, minlength=names)
    total = np.bincount(owner, weights=product[both], minlength=names)  # in the order of the rows
    enough = pairs >= MIN_LIT_RETURNS
    out[enough] = np.sqrt(np.pi / 2.0 * total[enough] / pairs[enough])
    out[out == 0.0] = np.nan
    return out


def sides(price: Float, is_current: Bool, group: Int, executed: Int, lit: Lit) -> tuple[Int, Int]:
    """Side (1, -1, 0 unknown) and rule of each print; `executed` in nanoseconds since 1970, `group` the number of its name."""
    side = np.zeros(price.size, dtype=np.int64)
    rule = np.full(price.size, NONE, dtype=np.int64)
    millionths = np.rint(price * MILLIONTHS).astype(np.int64)
    fraction = millionths % CENT
    usable = is_current & (millionths >= MILLIONTHS)
    low, high = usable & (fraction > 0) & (fraction < SUBPENNY_SELL), usable & (fraction > SUBPENNY_BUY)
    side[low], side[high] = -1, 1
    rule[low | high] = SUBPENNY
    rule[usable & (fraction >= SUBPENNY_SELL) & (fraction <= SUBPENNY_BUY)] = MIDPOINT

    whole = np.flatnonzero(is_current & ((fraction == 0) | (millionths < MILLIONTHS)))
    place, found = lookup(lit.key, key_of(group[whole], executed[whole] // MINUTE_NS))
    if lit.key.size:
        top, bottom = lit.high[place], lit.low[place]
        span = top - bottom
        found &= (span > 0.0) & (lit.transactions[place] >= RANGE_TRADES)
        share = np.divide(price[whole] - bottom, span, out=np.full(whole.size, np.nan), where=found)
        near = found & (share >= -1.0) & (share <= 2.0)  # further out it is no print of this minute's market
        buys, sells = whole[near & (share >= 1.0 - RANGE_EDGE)], whole[near & (share <= RANGE_EDGE)]
        side[buys], side[sells] = 1, -1
        rule[buys] = rule[sells] = LIT_RANGE
    return side, rule


def lookup(keys: Int, wanted: Int) -> tuple[Int, Bool]:
    """Index of each wanted key, and whether it is there."""
    if not keys.size:
        return np.zeros(wanted.size, dtype=np.int64), np.zeros(wanted.size, dtype=np.bool_)
    place = np.minimum(np.searchsorted(keys, wanted), keys.size - 1)
    return place, keys[place] == wanted


def last_price(keys: Int, closes: Float, name: Int, minute: Int, oldest: int) -> Float:
    """Close of the last bar of the name up to that minute, NaN where it is older than `oldest` minutes."""
    out = np.full(name.size, np.nan)
    if keys.size:
        wanted = key_of(name, minute)
        place = np.searchsorted(keys, wanted, side="right") - 1
        found = place >= 0
        age = wanted - keys[np.maximum(place, 0)]
        found &= (age >= 0) & (age < oldest)
        out[found] = closes[place[found]]
    return out
