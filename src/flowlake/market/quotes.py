"""Option quotes of small markets: the market in a contract just before each print, after the open and before the close.

A quote stands one microsecond before its print. Prints have whole milliseconds, so the quote that was in force at a
print is the one that set its price (late prints carry an older price, and may lie outside).
"""

from __future__ import annotations

import numpy as np
import polars as pl

from flowlake.market.surface import Surface
from flowlake.market.tape import EXCHANGES, Prints

_AHEAD_NS = 1_000
_SNAPSHOT_NS = 1_000_000_000


def option_quotes(rng: np.random.Generator, surface: Surface, prints: Prints) -> pl.DataFrame:
    """Rows of the vendor's quote columns, unsorted, with sequence numbers yet to be given."""
    chain, hours = surface.chain, surface.path.hours
    everything = np.arange(len(chain))
    times = (
        np.full(len(chain), hours.open_ns + _SNAPSHOT_NS // 1000),
        prints.time_ns,
        np.full(len(chain), hours.close_ns - _SNAPSHOT_NS),
    )
    contract = np.concatenate((everything, prints.contract, everything))
    time_ns = np.concatenate(times)
    market = surface.quotes(contract, time_ns)
    has_bid = market.bid > 0
    count = len(contract)
    ticker = pl.Series("ticker", chain.tickers, dtype=pl.String).gather(pl.Series(contract))
    return pl.DataFrame(
        {
            "ticker": ticker,
            "ask_exchange": rng.choice(EXCHANGES, size=count),
            "ask_price": market.ask / 100.0,
            "ask_size": rng.integers(1, 120, count),
            "bid_exchange": np.where(has_bid, rng.choice(EXCHANGES, size=count), 0),
            "bid_price": market.bid / 100.0,
            "bid_size": np.where(has_bid, rng.integers(1, 120, count), 0),
            "sip_timestamp": time_ns - _AHEAD_NS,
        }
    ).unique(subset=["ticker", "sip_timestamp"], keep="first", maintain_order=True)


def sequenced(parts: list[pl.DataFrame]) -> pl.DataFrame:
    """All quotes of a session in file order, numbered in the order of their times."""
    joined = pl.concat(parts).sort("sip_timestamp", "ticker").with_row_index("sequence_number", offset=1)
    columns = ["ticker", "ask_exchange", "ask_price", "ask_size", "bid_exchange", "bid_price", "bid_size"]
    return joined.sort("ticker", "sip_timestamp").select(*columns, pl.col("sequence_number").cast(pl.Int64), "sip_timestamp")
