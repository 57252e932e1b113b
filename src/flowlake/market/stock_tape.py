"""A whole tape of stock trades, on and off exchange, with what was planted in it.

Off exchange are retail orders improved by a fraction of a cent, midpoint crosses, trades at the quote, average price and package
prints whose price is not the market's, late reports, cancels, corrections, and now and then a print that is there twice because it
happened twice. Trade ids restart per facility.

Planted per session: blocks that the market absorbs, and blocks after which it moves by the square-root law, the move ebbing away
until the close; also blocks that say nothing of the moment (packages, late ones). Planted over five sessions: accumulation and
distribution (a higher share off exchange, and a leaning), and decoys that have only one of the two, or neither.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date

import numpy as np
import polars as pl

from flowlake.core.arrays import AnyArray, Float, Int
from flowlake.market.bars import BAR_COLUMNS
from flowlake.market.clock import FULL_SESSION_MINUTES, NS_PER_MINUTE, NS_PER_SECOND, SessionHours
from flowlake.market.paths import STEPS_PER_MINUTE, DayPath
from flowlake.market.spec import MarketSpec, generator
from flowlake.market.universe import Underlying

STORY_SESSIONS = 40
"""Off-exchange stories are drawn in blocks of so many sessions, at most one per underlying, in the last quarter of a block."""
STORY_LENGTH = 5
ACCUMULATION, DISTRIBUTION = "accumulation", "distribution"
SHARE_ONLY, LEAN_ONLY, VOLUME_ONLY, PACKAGES = "decoy:share", "decoy:lean", "decoy:volume", "decoy:packages"
_KINDS = (ACCUMULATION, DISTRIBUTION, SHARE_ONLY, LEAN_ONLY, VOLUME_ONLY, PACKAGES)
_STORY_CHANCE = 0.75
ABSORBED, MOVED, UNPRICED, LATE = "absorbed", "moved", "unpriced", "late"
_BLOCK_KINDS = (ABSORBED, MOVED, UNPRICED, LATE)
_BLOCK_SHARES = (0.4, 0.3, 0.2, 0.1)
_BLOCKS_PER_SESSION = 0.8
_FINRA = 4
_FACILITIES = (201, 202, 203)
_VENUES = (1, 2, 8, 10, 11, 12, 15, 19, 21)
_RETAIL, _MIDPOINT, _AT_QUOTE, _PACKAGE, _AVERAGE, _LATE, _LIT = range(7)
_NOT_NOW = (_PACKAGE, _AVERAGE, _LATE)
_CONDITIONS = {_PACKAGE: "53,52,41", _AVERAGE: "2,41", _LATE: "32"}
_NO_PRICE = ("37", "53,52,41", "2,41", "32", "12,37")
STORY_SCHEMA = {
    "underlying": pl.String,
    "kind": pl.String,
    "first_session": pl.Date,
    "last_session": pl.Date,
}
_STORY, _DAY, _BLOCK, _MEMBER = range(4)
"""Streams of random numbers within the purpose `stock_tape`."""


@dataclass(frozen=True, slots=True)
class TapeStory:
    """A higher share (`lift`, on the log-odds) and a leaning (`lean`, of the chance to buy) on sessions `first` to `last`."""

    underlying: int
    kind: str
    first: int
    last: int
    lift: float
    lean: float


@dataclass(frozen=True, slots=True)
class Block:
    """A planted block: when, which share of the session's other volume, and the log move that follows within `ramp` minutes."""

    kind: str
    minute: int
    share: float
    side: int
    move: float
    ramp: int


@dataclass(frozen=True, slots=True)
class TapeDay:
    """One underlying on one session: the vendor's trades, bars made of them, and what is true of them."""

    trades: pl.DataFrame
    minutes: pl.DataFrame
    day: pl.DataFrame
    truth: pl.DataFrame
    blocks: pl.DataFrame


def stories(spec: MarketSpec, members: list[Underlying], last_index: int) -> list[TapeStory]:
    """Stories that begin up to a session, by time."""
    found = [
        story
        for block in range(last_index // STORY_SESSIONS + 1)
        for member in members
        if not member.is_index and (story := _story(spec.seed, block, member.index)) is not None
    ]
    return sorted((s for s in found if s.first <= last_index), key=lambda s: (s.first, s.underlying))


def story_of(spec: MarketSpec, session_index: int, member: Underlying) -> TapeStory | None:
    """The story of an underlying on a session."""
    story = _story(spec.seed, session_index // STORY_SESSIONS, member.index)
    return story if story is not None and story.first <= session_index <= story.last else None


def _story(seed: int, block: int, member: int) -> TapeStory | None:
    rng = generator(seed, "stock_tape", _STORY, block, member)
    chance, kind = rng.random(), _KINDS[int(rng.integers(len(_KINDS)))]
    first = (block + 1) * STORY_SESSIONS - int(rng.integers(STORY_LENGTH, STORY_SESSIONS // 4 + 1))
    lift, lean, side = float(rng.uniform(0.25, 0.7)), float(rng.uniform(0.06, 0.2)), int(rng.choice((-1, 1)))
    if chance > _STORY_CHANCE:
        return None
    lifted = kind in (ACCUMULATION, DISTRIBUTION, SHARE_ONLY, PACKAGES)
    leaning = {ACCUMULATION: 1, DISTRIBUTION: -1, LEAN_ONLY: side, PACKAGES: side}.get(kind, 0)
    return TapeStory(member, kind, first, first + STORY_LENGTH - 1, lift if lifted else 0.0, lean * leaning)


def blocks_of(seed: int, hours: SessionHours, member: Underlying, path: DayPath) -> list[Block]:
    """Blocks of an underlying on a session, by time."""
    rng = generator(seed, "stock_tape", _BLOCK, hours.index, member.index)
    sigma = float(np.sqrt(0.75 * path.variance / 252.0 * hours.minutes / FULL_SESSION_MINUTES))
    made = []
    for _ in range(int(rng.poisson(_BLOCKS_PER_SESSION))):
        kind = _BLOCK_KINDS[int(rng.choice(len(_BLOCK_KINDS), p=_BLOCK_SHARES))]
        share = float(np.clip(rng.lognormal(np.log(0.06), 0.7), 0.015, 0.35))
        side = int(rng.choice((-1, 1)))
        size = sigma * float(np.sqrt(share) * rng.uniform(0.7, 1.3))
        minute, ramp = int(rng.integers(5, hours.minutes - 40)), int(rng.integers(4, 13))
        made.append(Block(kind, minute, share, side, side * size if kind == MOVED else 0.0, ramp))
    return sorted(made, key=lambda b: (b.minute, b.share))


def with_moves(path: DayPath, blocks: list[Block]) -> DayPath:
    """The path with the moves that follow blocks; they have ebbed away at the close, so that the next session is the same."""
    steps = np.arange(len(path.prices)) / STEPS_PER_MINUTE
    total = np.zeros(len(path.prices))
    for block in blocks:
        rise = np.clip((steps - block.minute) / block.ramp, 0.0, 1.0)
        ebb = np.clip((steps - block.minute - 30.0) / (path.hours.minutes - block.minute - 30.0), 0.0, 1.0)
        total += block.move * rise * (1.0 - ebb)
    return replace(path, prices=path.prices * np.exp(total))


def tape_day(
    spec: MarketSpec, member: Underlying, path: DayPath, blocks: list[Block], story: TapeStory | None, volume_factor: float
) -> TapeDay:
    """The tape of an underlying on a session; `path` holds the moves of the blocks already."""
    hours = path.hours
    constant = generator(spec.seed, "stock_tape", _MEMBER, member.index)
    usual_share, retail = float(constant.uniform(0.33, 0.48)), float(constant.uniform(0.3, 0.5))
    rng = generator(spec.seed, "stock_tape", _DAY, hours.index, member.index)
    if story is not None and story.kind == VOLUME_ONLY:
        volume_factor *= 3.0
    mean = spec.stock_tape_trades * hours.minutes / FULL_SESSION_MINUTES * volume_factor * rng.lognormal(-0.02, 0.2)
    count = max(int(rng.poisson(mean)), 50)
    odds = np.log(usual_share / (1.0 - usual_share)) + 0.12 * rng.standard_normal()
    chance_of_buy = 0.5 + 0.02 * rng.standard_normal()
    packages = 0.03
    if story is not None:
        odds += story.lift
        chance_of_buy += story.lean
        if story.kind == PACKAGES:  # all of the lift, so that other prints keep their proportion to lit ones
            packages = 1.0 - (1.0 - packages) * float(np.exp(-story.lift))
    # Busy at both ends of the session.
    time_ns = hours.open_ns + (np.sort(rng.beta(0.75, 0.75, count)) * (hours.close_ns - 1 - hours.open_ns)).astype(np.int64)
    is_off = rng.random(count) < 1.0 / (1.0 + np.exp(-odds))
    others = (1.0 - packages) * np.array([retail, 0.81 - retail, 0.15, 0.0, 0.03, 0.01])
    kind = np.where(is_off, rng.choice(6, size=count, p=others + packages * np.eye(6)[_PACKAGE]), _LIT)
    side = np.where(rng.random(count) < np.where(is_off, chance_of_buy, 0.5), 1, -1)
    size = np.ceil(rng.lognormal(np.where(kind == _PACKAGE, 5.2, 4.0), 1.1))
    size = np.where((kind == _RETAIL) & (rng.random(count) < 0.15), np.round(rng.uniform(0.001, 3.0, count), 3), size)
    table = _rows(rng, member, path, time_ns, kind, side, size)
    planted, told = _block_rows(rng, member, path, blocks, float(size.sum()))
    table = pl.concat([table, planted, _extended_rows(rng, member, path, max(count // 60, 2))])
    table = _with_messages(rng, table, hours)
    # Ids restart per facility and exchange: two trades of a ticker can share one.
    order = ["sip_timestamp", "participant_timestamp", "price", "size", "kind"]
    table = table.sort(order).with_columns(
        (pl.int_range(pl.len()).over("exchange", "trf_id") + 1).alias("id"),
        (pl.int_range(pl.len()) * 17 + member.index).alias("sequence_number"),
    )
    truth = table.select(
        pl.lit(hours.day).alias("session"), "ticker", "sip_timestamp", "exchange", "price", "size", "side", "kind", "correction"
    )
    return TapeDay(_vendor(table), *_bars(table, hours), truth, told)


def _quote(rng: np.random.Generator, path: DayPath, time_ns: Int) -> tuple[Int, Int]:
    """Bid and ask in cents around the path; the spread is about 4 basis points and now and then a cent wider."""
    middle = path.at(time_ns) * 100.0
    spread = np.maximum(np.rint(middle * 0.0004), 1.0) + (rng.random(time_ns.size) < 0.4)
    bid = np.maximum(np.rint(middle - spread / 2.0), 1.0).astype(np.int64)
    return bid, bid + spread.astype(np.int64)


def _rows(
    rng: np.random.Generator, member: Underlying, path: DayPath, time_ns: Int, kind: Int, side: Int, size: Float
) -> pl.DataFrame:
    """Trades of the vendor's columns with `side` and `kind`, prices in ten-thousandths of a dollar until the last line."""
    count = time_ns.size
    bid, ask = _quote(rng, path, time_ns)
    touch = np.where(side > 0, ask, bid) * 100
    # Most improvement is below 0.4 of a cent; an eighth is so large that the fraction points to the wrong side.
    small, large = rng.integers(1, 40, count), rng.integers(61, 95, count)
    improvement = np.where(rng.random(count) < 0.875, small, large)
    style = rng.random(count)
    improvement = np.where(style < 0.2, 0, np.where(style < 0.35, 50, improvement))
    retail = touch - side * improvement
    elsewhere = np.rint((bid + ask) * 50.0 * np.exp(rng.normal(0.0, 0.01, count))).astype(np.int64)
    earlier, _ = _quote(rng, path, np.maximum(time_ns - rng.integers(20, 120, count) * NS_PER_MINUTE, path.hours.open_ns))
    price = np.select(
        [kind == _RETAIL, kind == _MIDPOINT, (kind == _PACKAGE) | (kind == _AVERAGE), kind == _LATE],
        [retail, (bid + ask) * 50, elsewhere, earlier * 100],
        touch,
    )
    is_off = kind != _LIT
    reported = time_ns + np.where(is_off, rng.integers(1_000_000, 900_000_000, count), rng.integers(20_000, 900_000, count))
    executed = np.where(kind == _LATE, reported - rng.integers(20, 120, count) * NS_PER_MINUTE, time_ns)
    return _table(rng, member, executed, reported, np.maximum(price, 1), size, side, kind)


def _table(
    rng: np.random.Generator, member: Underlying, executed: Int, reported: Int, price: Int, size: Float, side: Int, kind: Int
) -> pl.DataFrame:
    count = price.size
    is_off = kind != _LIT
    iso = (kind == _LIT) & (rng.random(count) < 0.3)
    marks: AnyArray = np.where(iso, np.where(size < 100, "14,37", "14"), np.where(size < 100, "37", ""))
    for number, text in _CONDITIONS.items():
        marks = np.where(kind == number, text, marks)
    return pl.DataFrame(
        {
            "ticker": pl.Series([member.name] * count, dtype=pl.String),
            "conditions": pl.Series(marks.astype(str), dtype=pl.String).replace("", None),
            "correction": np.zeros(count, dtype=np.int64),
            "exchange": np.where(is_off, _FINRA, rng.choice(_VENUES, size=count)).astype(np.int64),
            "participant_timestamp": executed.astype(np.int64),
            "price": price / 10_000.0,
            "sip_timestamp": reported.astype(np.int64),
            "size": size.astype(np.float64),
            "tape": np.full(count, 1 + member.index % 3, dtype=np.int64),
            "trf_id": np.where(is_off, rng.choice(_FACILITIES, size=count), 0).astype(np.int64),
            "trf_timestamp": np.where(is_off, reported - 50_000, 0).astype(np.int64),
            "side": side.astype(np.int64),
            "kind": kind.astype(np.int64),
        }
    )


def _block_rows(
    rng: np.random.Generator, member: Underlying, path: DayPath, blocks: list[Block], volume: float
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The blocks as trades, and as truth."""
    hours = path.hours
    minute = np.array([b.minute for b in blocks], dtype=np.int64)
    time_ns = hours.open_ns + minute * NS_PER_MINUTE + rng.integers(0, NS_PER_MINUTE, minute.size)
    size = np.maximum(np.rint(np.array([b.share for b in blocks]) * volume / 100.0) * 100.0, 100.0)
    number = {UNPRICED: _PACKAGE, LATE: _LATE}
    kind = np.array([number.get(b.kind, _MIDPOINT) for b in blocks], dtype=np.int64)
    side = np.array([b.side for b in blocks], dtype=np.int64)
    rows = _rows(rng, member, path, time_ns, kind, side, size)
    told = rows.select(
        pl.lit(hours.day).alias("session"),
        pl.col("ticker").alias("underlying"),
        "sip_timestamp",
        "price",
        "size",
        pl.Series("kind", [b.kind for b in blocks], dtype=pl.String),
        pl.Series("side", side),
        pl.Series("log_move", [b.move for b in blocks], dtype=pl.Float64),
    )
    return rows, told


def _extended_rows(rng: np.random.Generator, member: Underlying, path: DayPath, count: int) -> pl.DataFrame:
    """Trades before the open and after the close, marked Form T."""
    hours = path.hours
    before = rng.random(count) < 0.5
    away = rng.integers(1, 90 * 60, count) * NS_PER_SECOND
    time_ns = np.where(before, hours.open_ns - away, hours.close_ns + away)
    kind = np.where(rng.random(count) < 0.4, _AT_QUOTE, _LIT)
    rows = _rows(
        rng, member, path, time_ns, kind, np.where(rng.random(count) < 0.5, 1, -1), np.ceil(rng.lognormal(4.0, 1.0, count))
    )
    return rows.with_columns(pl.when(pl.col("size") < 100).then(pl.lit("12,37")).otherwise(pl.lit("12")).alias("conditions"))


def _with_messages(rng: np.random.Generator, table: pl.DataFrame, hours: SessionHours) -> pl.DataFrame:
    """Some trades cancelled (8, and the message 10), some corrected (1, and the message 12), some there twice."""
    draw = pl.Series("draw", rng.random(table.height))
    drawn = table.with_columns(draw)
    later = (pl.col("sip_timestamp") + NS_PER_MINUTE).clip(upper_bound=hours.close_ns + 150 * NS_PER_MINUTE)
    cancelled, corrected = pl.col("draw") < 0.001, pl.col("draw").is_between(0.001, 0.0015, closed="left")
    marked = drawn.with_columns(
        pl.when(cancelled).then(8).when(corrected).then(1).otherwise(pl.col("correction")).cast(pl.Int64).alias("correction")
    )
    cancels = drawn.filter(cancelled).with_columns(pl.lit(10, dtype=pl.Int64).alias("correction"), later.alias("sip_timestamp"))
    before = drawn.filter(corrected).with_columns(
        pl.lit(12, dtype=pl.Int64).alias("correction"), later.alias("sip_timestamp"), pl.col("size") + 100.0
    )
    twice = drawn.filter(pl.col("draw") > 0.997)
    return pl.concat([marked, cancels, before, twice]).drop("draw")


def _vendor(table: pl.DataFrame) -> pl.DataFrame:
    return table.select(
        "ticker",
        "conditions",
        "correction",
        "exchange",
        "id",
        "participant_timestamp",
        "price",
        "sequence_number",
        "sip_timestamp",
        "size",
        "tape",
        "trf_id",
        "trf_timestamp",
    )


def _bars(table: pl.DataFrame, hours: SessionHours) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Minute bars and the day bar of these very trades; prices of trades that may set one, volume of all that stand."""
    standing = table.filter(pl.col("correction").is_in((0, 1))).with_columns(
        window_start=pl.col("sip_timestamp") // NS_PER_MINUTE * NS_PER_MINUTE,
        thousandths=(pl.col("size") * 1000.0).round().cast(pl.Int64),
    )
    priced = standing.filter(~pl.col("conditions").is_in(_NO_PRICE).fill_null(False))
    price = pl.col("price")

    def bars(volumes: pl.DataFrame, prices: pl.DataFrame) -> pl.DataFrame:
        key = ["ticker", "window_start"]
        total = volumes.group_by(key).agg(
            (pl.col("thousandths").sum() / 1000.0).alias("volume"), pl.len().cast(pl.Int64).alias("transactions")
        )
        figures = prices.group_by(key).agg(
            price.first().alias("open"), price.last().alias("close"), price.max().alias("high"), price.min().alias("low")
        )
        return figures.join(total, on=key).sort(key).select(BAR_COLUMNS)

    day = pl.lit(hours.midnight_ns, dtype=pl.Int64).alias("window_start")
    regular = pl.col("sip_timestamp").is_between(hours.open_ns, hours.close_ns, closed="left")
    return bars(standing, priced), bars(standing.with_columns(day), priced.filter(regular).with_columns(day))


def stories_frame(spec: MarketSpec, members: list[Underlying], days: list[date]) -> pl.DataFrame:
    """The truth about stories; their last session is cut to the market's."""
    names = {m.index: m.name for m in members}
    rows = [
        (names[s.underlying], s.kind, days[s.first], days[min(s.last, len(days) - 1)])
        for s in stories(spec, members, spec.sessions - 1)
    ]
    return pl.DataFrame(rows, schema=STORY_SCHEMA, orient="row")
