"""Derived layer, order flow: the quote in force at every option print, and what it says of who began the trade."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from flowlake.datasets.checks import Between, Check, OneOf
from flowlake.datasets.curated import CONTRACT_COLUMNS, UNDERLYING
from flowlake.datasets.model import UTC_NS, Adjust, Column, Dataset, KnownAt, Layer

QUOTE, DEPTH_FALLBACK, TICK_FALLBACK, NONE = "quote", "depth_fallback", "tick_fallback", "none"
SIDE_RULES = (QUOTE, DEPTH_FALLBACK, TICK_FALLBACK, NONE)
SIDE_REASONS = (
    "",
    "not_single_leg",
    "not_signed",
    "no_quote",
    "stale_quote",
    "one_sided_quote",
    "locked_or_crossed",
    "at_midpoint",
)
"""Why `buy_probability` is null; the first that holds."""

PRINT_COLUMNS = (
    *("underlying", "contract", "ts_utc", "price", "size", "sets_price", "may_be_signed"),
    *("is_cross", "is_floor", "is_multi_leg", "is_stock_tied", "is_late", "is_cancelled"),
    "condition_group",
)
"""Columns of `option_trades` that a side rests on."""


@dataclass(frozen=True)
class QuoteSource:
    """A raw table with quotes: its columns, the order of rows of one time, and the trade that a quote stands beside."""

    dataset: str
    ts: str
    bid: str = "bid_price"
    ask: str = "ask_price"
    sizes: tuple[str, str] | None = ("bid_size", "ask_size")
    order: tuple[str, ...] = ("row",)
    beside: tuple[str, str, str] | None = None
    """Time, price and size of the trade in the same row, where there is one."""
    known_after_ns: int = 0
    """From the time in the file to the quote being in force: the length of a bar whose last quote it is."""
    only: tuple[str, str] | None = None
    """Rows to read: a column and its value."""
    is_dated: bool = True
    """`ts` is when the quote was made; else it is the time of the trade that the quote stands beside, and older it may well be."""

    @property
    def columns(self) -> tuple[str, ...]:
        """What is read of the table."""
        chosen = (self.only[0],) if self.only else ()
        named = ("ticker", self.ts, self.bid, self.ask, *(self.sizes or ()), *self.order, *chosen, *(self.beside or ()))
        return tuple(dict.fromkeys(named))


QUOTE_SOURCES = (
    QuoteSource(
        "thetadata_option_trades",
        "quote_timestamp",
        "bid",
        "ask",
        order=("source_file", "row"),
        beside=("trade_timestamp", "price", "size"),
    ),
    QuoteSource(
        "datashop_option_trades",
        "quote_datetime",
        "best_bid",
        "best_ask",
        sizes=None,
        order=("sequence_number", "row"),
        beside=("quote_datetime", "trade_price", "trade_size"),
        is_dated=False,
    ),
    QuoteSource(
        "databento_option_trades",
        "ts_event",
        order=("sequence", "row"),
        beside=("ts_event", "price", "size"),
        only=("quote_scope", "consolidated"),
        is_dated=False,
    ),
    QuoteSource("massive_option_quotes", "sip_timestamp", order=("sequence_number", "row")),
    QuoteSource("databento_option_quotes", "ts_recv"),
    QuoteSource(
        "lean_option_quotes",
        "window_start",
        "bid_close",
        "ask_close",
        order=("member", "row"),
        known_after_ns=60 * 10**9,
    ),
)
"""The first that has a quote for a print wins. A quote of the trading venue alone is not the national best: it is not read."""

_POSITIVE: tuple[Check, ...] = (Between(0, above=True),)
_NOT_NEGATIVE: tuple[Check, ...] = (Between(0),)
_SHARE: tuple[Check, ...] = (Between(0, 1),)


def _price(name: str, doc: str) -> Column:
    return Column(name, pl.Float64(), doc, unit="USD per share", nullable=True, checks=_POSITIVE, adjust=Adjust.PRICE)


def _size(name: str, doc: str) -> Column:
    return Column(name, pl.Float64(), doc, unit="contracts", nullable=True, checks=_NOT_NEGATIVE, adjust=Adjust.CONTRACTS)


TRADE_SIDES = Dataset(
    name="trade_sides",
    layer=Layer.DERIVED,
    doc=(
        "One row per print of `option_trades`, in its order: the quote in force at the print, and the probability that a buyer "
        "began the trade. It is null wherever the quote does not tell; what the prices of earlier prints or the sizes of the quote "
        "hint at stands apart, as a fallback little better than a coin."
    ),
    grain=("print_no",),
    columns=(
        UNDERLYING,
        CONTRACT_COLUMNS[0],
        Column("ts_utc", UTC_NS, "Time of the print."),
        Column("print_no", pl.UInt32(), "Place of the print in the session's partition of `option_trades`, from 0."),
        _price("bid", "Best bid in force; null without one, and where the quote is too old."),
        _price("ask", "Best offer in force; null without one, and where the quote is too old."),
        _size("bid_size", "Size at the bid."),
        _size("ask_size", "Size at the offer."),
        Column(
            "quote_age_ms",
            pl.Float64(),
            "From the quote to the print, also of a quote that is too old; null without a quote, and where the vendor does not say "
            "when its quote was made (Cboe DataShop, Databento tcbbo).",
            unit="ms",
            nullable=True,
            checks=_NOT_NEGATIVE,
        ),
        Column(
            "is_locked_or_crossed",
            pl.Boolean(),
            "The bid is at or above the offer: the quote is not used. Null without both sides.",
            nullable=True,
        ),
        Column("rule", pl.String(), "What the side rests on, the fallbacks included.", checks=(OneOf(SIDE_RULES),)),
        Column(
            "buy_probability",
            pl.Float64(),
            "Probability that a buyer began the trade, calibrated on a synthetic market; null where it is not known.",
            nullable=True,
            checks=_SHARE,
        ),
        Column(
            "fallback_side",
            pl.Int8(),
            "Where buy_probability is null: +1 buy or -1 sell by the depth rule at the midpoint, else by the tick test; null where "
            "they do not say.",
            nullable=True,
            checks=(OneOf((-1, 1)),),
        ),
        Column(
            "fallback_probability",
            pl.Float64(),
            "Probability of a buyer by the fallback, deliberately near a half.",
            nullable=True,
            checks=_SHARE,
        ),
        Column(
            "reason",
            pl.String(),
            "Why buy_probability is null; empty otherwise. `not_signed`: late, not in the volume, or without a sale condition.",
            checks=(OneOf(SIDE_REASONS),),
        ),
    ),
    sort_by=("print_no",),
    known=KnownAt("ts_utc"),
    may_be_empty=True,
    in_parts=True,
)
