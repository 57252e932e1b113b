"""From orders to the option tape of one underlying and session, with the truth beside every print.

One-legged orders print once per fill, sweeps on several venues within a few milliseconds; packages print all legs on
one venue in one millisecond. Automatic trades and sweeps take the touch or a tick inside, auctions improve on it, legs of
packages print anywhere inside. A few prints are reported late (at their own price, minutes after), a few are
cancelled by a second message, a few proprietary prints accompany an eligible one. Prints that may not count into a bar's
volume have no effect on open interest, so that a change of open interest never exceeds the volume of the bars.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from flowlake.core.arrays import AnyArray, Bool, Float, Int
from flowlake.market.listing import Chain
from flowlake.market.orders import AUCTION, AUTO, MAX_LEGS, PACKAGE, RARE, SWEEP, Orders
from flowlake.market.surface import Surface

EXCHANGES = np.array([302, 325, 300, 312, 313, 316, 304, 315, 319, 308, 307, 309, 301, 320, 322, 323, 303, 318])
_EXCHANGE_SHARES = np.array([14, 14, 12, 9, 8, 7, 6, 5, 4, 4, 3, 3, 3, 3, 2, 2, 0.5, 0.5]) / 100.0
_AUCTION_EXCHANGES = np.array([302, 300, 304, 312, 308, 301, 323])
_CANCEL_IDS, _LATE_IDS, _PROPRIETARY_IDS = (201, 203, 205, 207), (202, 204, 206), (246, 247, 248)
_LATE_SHARE, _CANCEL_SHARE, _PROPRIETARY_SHARE = 0.003, 0.0015, 0.0004
NO_GROUP = -1

COLUMNS = {
    "ticker": pl.String,
    "condition": pl.Int64,
    "exchange": pl.Int64,
    "price_cents": pl.Int64,
    "sip_timestamp": pl.Int64,
    "size": pl.Int64,
    "side": pl.Int8,
    "is_opening": pl.Boolean,
    "oi_change": pl.Int64,
    "order_id": pl.Int64,
    "package_id": pl.Int64,
    "episode_id": pl.Int64,
    "is_cancelled": pl.Boolean,
}


@dataclass(slots=True)
class Prints:
    """Prints as arrays of one length; the truth columns are `side` to `is_cancelled` of `COLUMNS`."""

    contract: Int
    condition: Int
    exchange: Int
    price_cents: Int
    time_ns: Int
    size: Int
    side: Int
    is_opening: Bool
    oi_change: Int
    order_id: Int
    package_id: Int
    episode_id: Int
    is_cancelled: Bool

    def copies(self, chosen: Int) -> Prints:
        return Prints(*(column[chosen].copy() for column in self._columns()))

    def joined(self, *others: Prints) -> Prints:
        parts = [self._columns(), *(other._columns() for other in others)]
        return Prints(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))

    def _columns(self) -> list[AnyArray]:
        return [getattr(self, name) for name in self.__slots__]


def heavy_tailed_sizes(rng: np.random.Generator, count: int) -> Int:
    """Contracts per print: half one-lots, a log-normal body, and 0.8 % blocks with a Pareto tail up to 5,000."""
    u = rng.random(count)
    body = 1 + np.floor(rng.lognormal(0.9, 1.05, count))
    block = np.minimum(60.0 * (1.0 - rng.random(count)) ** (-1.0 / 1.4), 5000.0)
    return np.where(u < 0.45, 1, np.where(u < 0.992, body, block)).astype(np.int64)


def print_orders(rng: np.random.Generator, orders: Orders, surface: Surface, order_base: int) -> Prints:
    """The tape of the orders, unsorted. `order_base` makes order ids unique within the session."""
    package = orders.kind == PACKAGE
    leg_count = (orders.legs >= 0).sum(axis=1)
    count = np.where(package, leg_count, orders.fills)
    parent = np.repeat(np.arange(len(orders)), count)
    place = np.arange(len(parent)) - np.repeat(np.cumsum(count) - count, count)
    leg = np.where(package[parent], np.minimum(place, MAX_LEGS - 1), 0)
    contract = orders.legs[parent, leg]
    kind = orders.kind[parent]
    hours = surface.path.hours
    late_ms = np.where(kind == SWEEP, place // 4, 0)
    time_ms = np.minimum(orders.time_ms[parent] + late_ms, hours.minutes * 60_000 - 1)
    time_ns = hours.open_ns + time_ms * 1_000_000
    side = orders.signs[parent, leg]
    size = _sizes(rng, orders, parent, package[parent])
    opening = orders.opening[parent, leg]
    closes_itself = rng.random(len(orders))[parent] < 0.5
    prints = Prints(
        contract=contract,
        condition=orders.condition[parent],
        exchange=_exchanges(rng, orders, parent, place),
        price_cents=_prices(rng, surface, contract, time_ns, side, kind),
        time_ns=time_ns,
        size=size,
        side=side,
        is_opening=(opening > 0) | ((opening == 0) & ~closes_itself) | ((orders.episode[parent] >= 0) & (opening >= 0)),
        oi_change=opening * size,
        order_id=order_base + parent,
        package_id=np.where(package[parent], order_base + parent, NO_GROUP),
        episode_id=orders.episode[parent],
        is_cancelled=np.zeros(len(parent), dtype=bool),
    )
    return _with_odd_messages(rng, prints, kind, hours.close_ns)


def _sizes(rng: np.random.Generator, orders: Orders, parent: Int, package: Bool) -> Int:
    per_order = heavy_tailed_sizes(rng, len(orders))[parent]
    per_print = heavy_tailed_sizes(rng, len(parent))
    usual = np.where(package, per_order, per_print)
    jitter_order = rng.uniform(0.5, 1.5, len(orders))[parent]
    jitter_print = rng.uniform(0.4, 1.6, len(parent))
    stated = orders.size[parent] * np.where(package, jitter_order, jitter_print)
    return np.asarray(np.where(stated > 0.0, np.maximum(np.rint(stated), 1.0), usual), dtype=np.int64)


def _exchanges(rng: np.random.Generator, orders: Orders, parent: Int, place: Int) -> Int:
    single = rng.choice(len(EXCHANGES), size=len(orders), p=_EXCHANGE_SHARES / _EXCHANGE_SHARES.sum())
    auction = rng.choice(_AUCTION_EXCHANGES, size=len(orders))
    in_auction = np.isin(orders.kind, (AUCTION, PACKAGE, RARE))
    venues = EXCHANGES[(single[parent] + place) % len(EXCHANGES)]
    return np.asarray(np.where(in_auction[parent], auction[parent], venues), dtype=np.int64)


def _prices(rng: np.random.Generator, surface: Surface, contract: Int, time_ns: Int, side: Int, kind: Int) -> Int:
    """Prices in cents at or inside the bid and ask of the moment, never below one tick."""
    quotes = surface.quotes(contract, time_ns)
    bid, ask = quotes.bid.astype(np.float64), quotes.ask.astype(np.float64)
    middle, half = (bid + ask) / 2.0, (ask - bid) / 2.0
    u = rng.random(len(contract))
    reach = np.where(u < 0.75, 1.0, u)
    reach = np.where(kind == AUCTION, np.where(u < 0.3, 1.0, 0.1 + 0.8 * u), reach)
    reach = np.where(kind == SWEEP, 1.0, reach)
    reach = np.where((kind == PACKAGE) | (kind == RARE), 1.1 * u - 0.3, reach)
    raw = middle + side * reach * half
    tick = np.where((kind == AUTO) | (kind == SWEEP), surface.ticks(100.0 * quotes.value), 1.0)
    on_grid = np.where(side > 0, np.ceil(raw / tick - 1e-9), np.floor(raw / tick + 1e-9)) * tick
    return np.asarray(np.clip(on_grid, np.maximum(bid, tick), ask), dtype=np.int64)


def _with_odd_messages(rng: np.random.Generator, prints: Prints, kind: Int, close_ns: int) -> Prints:
    """Make a few prints late, cancel a few, and let a few proprietary prints accompany others."""
    plain = (kind == AUTO) | (kind == AUCTION)
    no_story = prints.episode_id == NO_GROUP
    u = rng.random(len(kind))
    delay = (rng.uniform(1.0, 30.0, len(kind)) * 60_000).astype(np.int64) * 1_000_000
    late = plain & no_story & (u < _LATE_SHARE) & (prints.time_ns + delay < close_ns)
    after = (rng.uniform(2.0, 600.0, len(kind)) * 1_000).astype(np.int64) * 1_000_000
    cancelled = plain & no_story & (u > 1.0 - _CANCEL_SHARE) & (prints.time_ns + after < close_ns)
    accompanied = plain & no_story & (np.abs(u - 0.5) < _PROPRIETARY_SHARE / 2)

    prints.time_ns[late] += delay[late]
    prints.condition[late] = rng.choice(_LATE_IDS, size=int(late.sum()))
    prints.is_cancelled |= cancelled
    prints.oi_change[late | cancelled] = 0

    cancels = prints.copies(np.flatnonzero(cancelled))
    cancels.time_ns += after[cancelled]
    cancels.condition = rng.choice(_CANCEL_IDS, size=len(cancels.contract), p=(0.7, 0.1, 0.1, 0.1))
    cancels.is_cancelled[:] = False

    beside = prints.copies(np.flatnonzero(accompanied))
    beside.condition = rng.choice(_PROPRIETARY_IDS, size=len(beside.contract))
    beside.size = heavy_tailed_sizes(rng, len(beside.contract)) * 10
    beside.oi_change[:] = 0
    return prints.joined(cancels, beside)


def settle(chain: Chain, prints: Prints) -> Int:
    """Open interest at the close. Where more would close than is open, the closing trades only changed hands."""
    change = np.bincount(prints.contract, weights=prints.oi_change, minlength=len(chain)).astype(np.int64)
    short = chain.open_interest + change < 0
    prints.oi_change[short[prints.contract] & (prints.oi_change < 0)] = 0
    change = np.bincount(prints.contract, weights=prints.oi_change, minlength=len(chain)).astype(np.int64)
    return chain.open_interest + change


def first_open_interest(rng: np.random.Generator, weights: Float, usual_contracts: float) -> Int:
    """Open interest that the market starts with: about eight days of volume, unevenly spread."""
    return np.floor(8.0 * usual_contracts * weights * rng.lognormal(0.0, 1.0, len(weights))).astype(np.int64)


def frame(chain: Chain, underlying: str, prints: Prints) -> pl.DataFrame:
    """The prints as a table of `COLUMNS` and `underlying`, by ticker, time and order of arrival."""
    ticker = pl.Series("ticker", chain.tickers, dtype=pl.String).gather(pl.Series(prints.contract))
    groups = {"package_id", "episode_id"}
    columns = {
        "ticker": ticker,
        **{name: getattr(prints, "time_ns" if name == "sip_timestamp" else name) for name in COLUMNS if name != "ticker"},
    }
    table = pl.DataFrame(columns, schema=COLUMNS).with_columns(
        pl.lit(underlying).alias("underlying"),
        *(pl.when(pl.col(g) == NO_GROUP).then(None).otherwise(pl.col(g)).alias(g) for g in sorted(groups)),
    )
    return table.with_row_index("arrival").sort("ticker", "sip_timestamp", "arrival").drop("arrival")
