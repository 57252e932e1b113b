"""Stock files: minute and day bars of the underlyings, and on demand a sample of their trades.

Minute bars cover the regular session and a few minutes before and after it; the day bar is the regular session. Some
volumes are decimal, as fractional shares make them. The trades are a sample and do not add up to the bars: their use
is the off-exchange prints among them (exchange 4 with a reporting facility).
"""

from __future__ import annotations

import numpy as np
import polars as pl

from flowlake.core.arrays import Float, Int
from flowlake.market.bars import BAR_COLUMNS
from flowlake.market.clock import FULL_SESSION_MINUTES, NS_PER_MINUTE
from flowlake.market.paths import STEPS_PER_MINUTE, DayPath
from flowlake.market.universe import Underlying

_SAMPLE_TRADES = 160
_FINRA = 4
_FACILITIES = (201, 202, 203)
_VENUES = (1, 2, 8, 10, 11, 12, 15, 19, 21)
_CLOSING_MINUTES = 30


def minute_bars(rng: np.random.Generator, member: Underlying, path: DayPath, volume_factor: float) -> pl.DataFrame:
    """Bars of the vendor's columns, extended hours included. A `volume_factor` above 3 falls on the close."""
    minutes = path.hours.minutes
    cents = np.maximum(np.rint(path.prices * 100.0), 1.0).astype(np.int64)
    steps = cents[np.arange(minutes)[:, None] * STEPS_PER_MINUTE + np.arange(STEPS_PER_MINUTE + 1)]
    regular = _table(
        member,
        start=path.hours.open_ns + np.arange(minutes) * NS_PER_MINUTE,
        prices=(steps[:, 0], steps[:, -1], steps.max(axis=1), steps.min(axis=1)),
        thousandths=_thousandths(rng, _shares(rng, member, minutes, volume_factor)),
    )
    return pl.concat([regular, _extended(rng, member, path)]).sort("window_start")


def day_bar(member: Underlying, minutes: pl.DataFrame, path: DayPath) -> pl.DataFrame:
    """The day bar from the minute bars of the regular session."""
    hours = path.hours
    regular = minutes.filter(pl.col("window_start").is_between(hours.open_ns, hours.close_ns, closed="left"))
    thousandths = int(np.rint(regular["volume"].to_numpy() * 1000.0).astype(np.int64).sum())
    return regular.select(
        pl.lit(member.name).alias("ticker"),
        pl.lit(thousandths / 1000.0).alias("volume"),
        pl.col("open").first(),
        pl.col("close").last(),
        pl.col("high").max(),
        pl.col("low").min(),
        pl.lit(hours.midnight_ns, dtype=pl.Int64).alias("window_start"),
        pl.col("transactions").sum(),
    )


def _shares(rng: np.random.Generator, member: Underlying, minutes: int, factor: float) -> Float:
    x = (np.arange(minutes) + 0.5) / minutes
    shape = 0.7 + 2.2 * np.exp(-x / 0.07) + 1.8 * np.exp(-(1.0 - x) / 0.05)
    if factor > 3.0:
        shape[-_CLOSING_MINUTES:] *= 4.0
    day = member.shares_per_session * factor * minutes / FULL_SESSION_MINUTES * rng.lognormal(-0.03, 0.25)
    return np.asarray(day * shape / shape.sum() * rng.lognormal(-0.06, 0.35, minutes))


def _thousandths(rng: np.random.Generator, shares: Float) -> Int:
    whole = np.maximum(np.floor(shares), 1.0).astype(np.int64) * 1000
    return whole + np.where(rng.random(len(shares)) < 0.04, rng.integers(1, 1000, len(shares)), 0)


def _extended(rng: np.random.Generator, member: Underlying, path: DayPath) -> pl.DataFrame:
    before = -1 - np.sort(rng.choice(90, size=12, replace=False))[::-1]
    after = path.hours.minutes + np.sort(rng.choice(60, size=8, replace=False))
    anchor = np.concatenate((np.linspace(path.previous_close, path.prices[0], 12), np.full(8, path.prices[-1])))
    cents = np.maximum(np.rint(anchor * np.exp(0.0004 * rng.standard_normal(20)) * 100.0), 1.0).astype(np.int64)
    shares = member.shares_per_session / FULL_SESSION_MINUTES * 0.05 * rng.lognormal(0.0, 0.8, 20)
    return _table(
        member,
        start=path.hours.open_ns + np.concatenate((before, after)) * NS_PER_MINUTE,
        prices=(cents, cents, cents, cents),
        thousandths=_thousandths(rng, shares),
    )


def _table(member: Underlying, start: Int, prices: tuple[Int, Int, Int, Int], thousandths: Int) -> pl.DataFrame:
    opening, closing, high, low = prices
    return pl.DataFrame(
        {
            "ticker": [member.name] * len(start),
            "volume": thousandths / 1000.0,
            "open": opening / 100.0,
            "close": closing / 100.0,
            "high": high / 100.0,
            "low": low / 100.0,
            "window_start": start,
            "transactions": np.maximum(thousandths // 90_000, 1),
        }
    ).select(BAR_COLUMNS)


def sample_trades(rng: np.random.Generator, member: Underlying, path: DayPath, volume_factor: float) -> pl.DataFrame:
    """A sample of trades of the vendor's columns; about three in ten are off exchange, larger when volume is."""
    count = _SAMPLE_TRADES
    hours = path.hours
    time_ns = np.sort(hours.open_ns + rng.integers(0, hours.close_ns - hours.open_ns, count))
    off_exchange = rng.random(count) < 0.3
    blocks = off_exchange & (rng.random(count) < 0.05 * volume_factor)
    size = np.where(blocks, rng.integers(50, 500, count) * 100, np.floor(rng.lognormal(3.6, 1.2, count)) + 1.0)
    size = np.where(off_exchange & (rng.random(count) < 0.1), np.round(rng.uniform(0.01, 3.0, count), 2), size)
    cents = path.at(time_ns) * 100.0
    price = np.where(off_exchange, np.round(cents * 100.0) / 10_000.0, np.rint(cents) / 100.0)
    reported = time_ns + rng.integers(200_000, 20_000_000, count)
    return (
        pl.DataFrame(
            {
                "ticker": [member.name] * count,
                "conditions": np.where(size < 100, "37", np.where(rng.random(count) < 0.1, "14,41", "")),
                "correction": np.zeros(count, dtype=np.int64),
                "exchange": np.where(off_exchange, _FINRA, rng.choice(_VENUES, size=count)),
                "id": np.arange(1, count + 1),
                "participant_timestamp": time_ns,
                "price": price,
                "sequence_number": np.arange(1, count + 1) * 17 + member.index,
                "sip_timestamp": reported,
                "size": size,
                "tape": np.full(count, 1 + member.index % 3),
                "trf_id": np.where(off_exchange, rng.choice(_FACILITIES, size=count), 0),
                "trf_timestamp": np.where(off_exchange, reported - 100_000, 0),
            }
        )
        .with_columns(pl.col("conditions").replace("", None))
        .sort("sip_timestamp", "sequence_number")
    )
