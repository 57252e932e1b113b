"""The market itself: sessions simulated in order, vendor files and the truth from one pass."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, time

import numpy as np
import polars as pl

from flowlake.core import sessions as calendar
from flowlake.core.arrays import Float
from flowlake.market import bars, defects, orders, quotes, reference, stock_tape, stocks, surface, tape
from flowlake.market.clock import SessionHours, at_et_ns, session_hours
from flowlake.market.listing import Listing
from flowlake.market.paths import REGIMES, DayPath, FactorDay, Paths
from flowlake.market.render import as_text, csv_bytes
from flowlake.market.spec import (
    CONTRACT_ROOTS,
    CORPORATE_ACTIONS,
    OPEN_INTEREST,
    OPTION_DAYS,
    OPTION_MINUTES,
    OPTION_QUOTES,
    OPTION_TRADES,
    RATES,
    SECTORS,
    STOCK_DAYS,
    STOCK_MINUTES,
    STOCK_TRADES,
    MarketSpec,
    VendorFile,
    generator,
)
from flowlake.market.stories import Stories, daily_sigma
from flowlake.market.universe import Underlying, underlyings

_ORDER_IDS_PER_UNDERLYING = 1_000_000
_DIVIDENDS_AHEAD = 5
EPISODE_SCHEMA = {
    "episode_id": pl.Int64,
    "underlying": pl.String,
    "kind": pl.String,
    "first_session": pl.Date,
    "last_session": pl.Date,
    "move_session": pl.Date,
    "direction": pl.Int8,
    "horizon": pl.Int64,
    "return": pl.Float64,
}


@dataclass(frozen=True, slots=True)
class SessionData:
    """One simulated session: vendor tables by dataset, and what really happened."""

    hours: SessionHours
    tables: dict[str, pl.DataFrame]
    trades: pl.DataFrame
    factor: FactorDay
    stock: dict[str, pl.DataFrame]


@dataclass(slots=True)
class _Parts:
    """What the underlyings of one session contribute to its files."""

    prints: list[pl.DataFrame]
    quotes: list[pl.DataFrame]
    open_interest: list[pl.DataFrame]
    stock_minutes: list[pl.DataFrame]
    stock_days: list[pl.DataFrame]
    stock_trades: list[pl.DataFrame]
    stock_truth: list[pl.DataFrame] = field(default_factory=list)
    stock_blocks: list[pl.DataFrame] = field(default_factory=list)


class Simulation:
    """The state of a market; `sessions` runs it once, in order."""

    def __init__(self, spec: MarketSpec) -> None:
        self.spec = spec
        self.members = underlyings(spec)
        self.stories = Stories(spec, self.members)
        self._paths = Paths(spec.seed, self.members)
        self._rates = reference.Rates(spec.seed)
        self._listings = [Listing(member) for member in self.members]
        self._flows = [orders.StoryFlow() for _ in self.members]

    def sessions(self) -> Iterator[SessionData]:
        for index in range(self.spec.sessions):
            hours = session_hours(self.spec.first_session, index)
            factor = self._paths.factor(hours)
            curve = self._rates.curve(hours)
            parts = _Parts([], [], [], [], [], [])
            for member in self.members:
                self._member(hours, member, factor, curve, parts)
            yield self._assembled(hours, factor, parts)

    def _member(self, hours: SessionHours, member: Underlying, factor: FactorDay, curve: Float, parts: _Parts) -> None:
        spec, story = self.spec, self.stories.of(hours.index, member.index)
        path = self._paths.member(hours, member, factor, story)
        planted: list[stock_tape.Block] = []
        if spec.stock_tape_trades and not member.is_index:
            planted = stock_tape.blocks_of(spec.seed, hours, member, path)
            path = stock_tape.with_moves(path, planted)
        vol = float(np.sqrt(path.variance))
        chain = self._listings[member.index].open_session(hours, path.previous_close, vol)
        rates = np.interp(chain.expiry_days, reference.TENOR_DAYS, curve)
        priced = surface.build(member, chain, path, rates, self._dividends(hours, member), story)

        spot = float(path.prices[0])
        weights = orders.contract_weights(chain, spot, vol)
        usual = spec.trades_per_underlying_session * member.activity
        usual_contracts = usual * orders.MEAN_ORDER_CONTRACTS
        if hours.index == 0:
            rng = generator(spec.seed, "open_interest", member.index)
            chain.open_interest[:] = tape.first_open_interest(rng, weights, usual_contracts)

        rng = generator(spec.seed, "tape", hours.index, member.index)
        moved = float(np.log(path.prices[-1] / path.previous_close)) / daily_sigma(member)
        mean_orders = usual * orders.activity(rng, hours, factor.regime, moved)
        placed = orders.joined(
            [
                orders.background(rng, member, chain, hours, weights, mean_orders, story),
                *self._flows[member.index].orders(rng, member, chain, hours, spot, vol, usual_contracts, story),
            ]
        )
        prints = tape.print_orders(rng, placed, priced, member.index * _ORDER_IDS_PER_UNDERLYING)
        open_interest = tape.settle(chain, prints)
        self._listings[member.index].close_session(chain, open_interest)

        parts.prints.append(tape.frame(chain, member.name, prints))
        if spec.include_quotes:
            rng = generator(spec.seed, "quotes", hours.index, member.index)
            parts.quotes.append(quotes.option_quotes(rng, priced, prints))
        if spec.include_reference:
            alive = chain.expiry_ns[chain.block] > hours.close_ns
            listed = pl.DataFrame({"ticker": chain.tickers, "open_interest": open_interest})
            parts.open_interest.append(listed.filter(pl.Series(alive)))
        share_factor = story.share_volume_factor(hours.index) if story else 1.0
        if not member.is_index and spec.stock_tape_trades:
            self._stock_tape(member, path, planted, share_factor, parts)
        elif not member.is_index and (spec.include_stock or spec.include_stock_trades):
            self._stock(member, path, share_factor, parts)

    def _stock(self, member: Underlying, path: DayPath, volume_factor: float, parts: _Parts) -> None:
        rng = generator(self.spec.seed, "stock", path.hours.index, member.index)
        if self.spec.include_stock:
            minutes = stocks.minute_bars(rng, member, path, volume_factor)
            parts.stock_minutes.append(minutes)
            parts.stock_days.append(stocks.day_bar(member, minutes, path))
        if self.spec.include_stock_trades:
            parts.stock_trades.append(stocks.sample_trades(rng, member, path, volume_factor))

    def _stock_tape(
        self, member: Underlying, path: DayPath, planted: list[stock_tape.Block], volume_factor: float, parts: _Parts
    ) -> None:
        story = stock_tape.story_of(self.spec, path.hours.index, member)
        made = stock_tape.tape_day(self.spec, member, path, planted, story, volume_factor)
        parts.stock_trades.append(made.trades)
        if self.spec.include_stock:
            parts.stock_minutes.append(made.minutes)
            parts.stock_days.append(made.day)
        parts.stock_truth.append(made.truth)
        parts.stock_blocks.append(made.blocks)

    def _dividends(self, hours: SessionHours, member: Underlying) -> tuple[tuple[int, float], ...]:
        coming = member.next_dividends(hours.index, _DIVIDENDS_AHEAD)
        first = self.spec.first_session
        return tuple((at_et_ns(calendar.offset(first, i), time(9, 30)), cash) for i, cash in coming)

    def _assembled(self, hours: SessionHours, factor: FactorDay, parts: _Parts) -> SessionData:
        # A ticker belongs to one underlying, whose prints are in order of arrival within a millisecond.
        prints = pl.concat(parts.prints).with_row_index("arrival")
        prints = prints.sort("ticker", "sip_timestamp", "arrival").drop("arrival")
        prints = prints.with_columns(bars.dollars(prints["price_cents"]).alias("price"))
        tables = {
            OPTION_TRADES: prints.select(
                "ticker",
                pl.col("condition").cast(pl.String).alias("conditions"),
                pl.lit(None, dtype=pl.String).alias("correction"),
                "exchange",
                "price",
                "sip_timestamp",
                "size",
            ),
            OPTION_MINUTES: bars.minute_bars(prints),
            OPTION_DAYS: bars.day_bars(prints, hours.midnight_ns),
        }
        if parts.quotes:
            tables[OPTION_QUOTES] = quotes.sequenced(parts.quotes)
        for dataset, found, key in (
            (STOCK_TRADES, parts.stock_trades, ("ticker", "sip_timestamp", "sequence_number")),
            (STOCK_MINUTES, parts.stock_minutes, ("ticker", "window_start")),
            (STOCK_DAYS, parts.stock_days, ("ticker",)),
            (OPEN_INTEREST, parts.open_interest, ("ticker",)),
        ):
            if found:
                tables[dataset] = pl.concat(found).sort(key)
        told = (("stock_trades", parts.stock_truth), ("stock_blocks", parts.stock_blocks))
        stock = {name: pl.concat(frames) for name, frames in told if frames}
        return SessionData(hours, tables, _truth_trades(hours, prints), factor, stock)


def _truth_trades(hours: SessionHours, prints: pl.DataFrame) -> pl.DataFrame:
    """The prints in file order with what is true of them; `row` is the data row of the undamaged trades file."""
    return prints.select(
        pl.lit(hours.day).alias("session"),
        pl.int_range(pl.len(), dtype=pl.Int64).alias("row"),
        "underlying",
        "ticker",
        "sip_timestamp",
        "price",
        "size",
        "condition",
        "exchange",
        "side",
        "is_opening",
        "oi_change",
        "order_id",
        "package_id",
        "episode_id",
        "is_cancelled",
    )


class Market:
    """A synthetic market. The same spec gives the same bytes; a longer one begins with the files of a shorter one.

    `files`, `republished` and `truth` may be called in any order and any number of times.
    """

    def __init__(self, spec: MarketSpec) -> None:
        self.spec = spec
        self._truth: dict[str, pl.DataFrame] = {}
        self._republished: tuple[VendorFile, ...] = ()

    @property
    def days(self) -> list[date]:
        """The trading dates of the market."""
        return [calendar.offset(self.spec.first_session, i) for i in range(self.spec.sessions)]

    def files(self) -> Iterator[VendorFile]:
        """All objects of the bucket as first published: reference tables, then the files session by session."""
        simulation = Simulation(self.spec)
        if self.spec.include_reference:
            yield from _reference_files(self.spec, simulation.members)
        trades: list[pl.DataFrame] = []
        factors: list[tuple[date, FactorDay]] = []
        again: list[VendorFile] = []
        stock: dict[str, list[pl.DataFrame]] = {}
        before: dict[str, pl.DataFrame] | None = None
        for data in simulation.sessions():
            rendered = defects.session_files(self.spec.seed, simulation.members, data.hours, data.tables, before, self.spec.defects)
            yield from rendered.first
            again += rendered.second
            trades.append(data.trades)
            factors.append((data.hours.day, data.factor))
            for name, table in data.stock.items():
                stock.setdefault(name, []).append(table)
            before = data.tables
        self._republished = tuple(again)
        self._truth = {
            "episodes": _truth_episodes(self.spec, simulation),
            "trades": pl.concat(trades),
            "sessions": _truth_sessions(factors),
            **{name: pl.concat(frames) for name, frames in stock.items()},
        }
        if self.spec.stock_tape_trades:
            self._truth["stock_stories"] = stock_tape.stories_frame(self.spec, simulation.members, self.days)

    def republished(self) -> tuple[VendorFile, ...]:
        """The second versions of files that the vendor replaces later, under the keys of the first."""
        self.truth()
        return self._republished

    def truth(self) -> dict[str, pl.DataFrame]:
        """What really happened: `episodes`, `trades` (every print of the undamaged tape) and `sessions`.

        - episodes: episode_id, underlying, kind (`informed` or `decoy:...`), first_session, last_session, move_session
          (null: no planted move; it may lie after the market's last session), direction, horizon (sessions that the
          move takes), return (of the planted move, simple).
        - trades: session, row, the vendor's fields, side (+1 buyer began it, -1 seller), is_opening (of who began it),
          oi_change (contracts), order_id (unique in a session; the fills of a sweep share it), package_id, episode_id.
        - sessions: session, regime, market_vol (annual, at the open), market_return (log).

        With a whole stock tape also `stock_trades` (side and kind of every trade), `stock_blocks` (planted blocks, `log_move` what
        the price did because of them) and `stock_stories` (accumulation, distribution and decoys).
        """
        if not self._truth:
            deque(self.files(), maxlen=0)
        return self._truth


def build(spec: MarketSpec) -> Market:
    return Market(spec)


def _reference_files(spec: MarketSpec, members: list[Underlying]) -> Iterator[VendorFile]:
    rates = reference.Rates(spec.seed)
    hours = (session_hours(spec.first_session, i) for i in range(spec.sessions))
    curves = [(h.day, rates.curve(h)) for h in hours]
    for key, table in (
        (CONTRACT_ROOTS, reference.contract_roots_table(spec, members)),
        (CORPORATE_ACTIONS, reference.corporate_actions_table(spec, members)),
        (RATES, reference.rates_table(curves)),
        (SECTORS, reference.sectors_table(spec, members)),
    ):
        if table.height:  # A market without splits and dividends has no file of them, one without stocks none of sectors.
            yield VendorFile(key, csv_bytes(as_text(table)))


def _truth_episodes(spec: MarketSpec, simulation: Simulation) -> pl.DataFrame:
    def day(index: int | None) -> date | None:
        return None if index is None else calendar.offset(spec.first_session, index)

    rows = [
        (
            s.episode_id,
            simulation.members[s.underlying].name,
            s.kind,
            day(s.first),
            day(s.last),
            day(s.move),
            s.direction,
            s.horizon,
            float(np.expm1(s.log_move)),
        )
        for s in simulation.stories.until(spec.sessions - 1)
    ]
    return pl.DataFrame(rows, schema=EPISODE_SCHEMA, orient="row")


def _truth_sessions(factors: list[tuple[date, FactorDay]]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "session": [day for day, _ in factors],
            "regime": [REGIMES[factor.regime] for _, factor in factors],
            "market_vol": [float(np.sqrt(252.0 * factor.variance)) for _, factor in factors],
            "market_return": [factor.total for _, factor in factors],
        }
    )
