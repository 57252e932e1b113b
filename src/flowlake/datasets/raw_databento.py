"""Raw tables of Databento's OPRA files: see `raw_vendors`."""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from flowlake.datasets.checks import OneOf
from flowlake.datasets.model import Column, KnownAt
from flowlake.datasets.raw_columns import AFTER_CLOSE, KEPT_FOR, ROW, count, integer, moment, price, table, text

_PUBLISHER = integer("publisher_id", "Databento's id of the venue; 30 is the consolidated feed.")
_INSTRUMENT = integer("instrument_id", "Databento's id of the contract, valid within the day alone.")
_EVENT = moment("ts_event", "Time of the event at the venue or the processor.", nullable=True)
_TOP = (
    price("bid_price", "Bid; null where there is none."),
    price("ask_price", "Ask; null where there is none."),
    count("bid_size", "Size at the bid."),
    count("ask_size", "Size at the ask."),
)

DATABENTO_OPTION_TRADES = table(
    "databento_option_trades",
    "Databento OPRA trades (schema trades, tbbo or tcbbo). There is no sale condition.",
    (
        _INSTRUMENT,
        _PUBLISHER,
        moment("ts_event", "Time of the trade at the processor."),
        moment("ts_recv", "Time at which Databento received it."),
        price("price", "Price; null where the file has none."),
        count("size", "Contracts."),
        text("action", "T for a trade; other actions are no trade.", nullable=False),
        text("side", "Aggressor as the venue gives it; N where it gives none.", nullable=False),
        integer("flags", "Bit field of the record."),
        integer("sequence", "Sequence number of the venue's message; tcbbo has none.", nullable=True),
        *_TOP,
        Column(
            "quote_scope",
            pl.String(),
            "Whose quote stands beside the trade: that of the venue (tbbo) or of all venues (tcbbo).",
            nullable=True,
            checks=(OneOf(("venue", "consolidated")),),
        ),
        ROW,
    ),
    KnownAt("ts_event"),
    clock=("ts_event",),
)
DATABENTO_OPTION_QUOTES = table(
    "databento_option_quotes",
    "Databento's consolidated quote of OPRA at the end of each second or minute (schema cbbo-1s or cbbo-1m), of which the "
    "first of each contract, the last before each print and the last of the session are kept.",
    (
        _INSTRUMENT,
        _PUBLISHER,
        moment("ts_recv", "End of the interval: the quote is in force then."),
        moment("ts_event", "Time of the last trade; null before the first.", nullable=True),
        *_TOP,
        KEPT_FOR,
        ROW,
    ),
    KnownAt("kept_for"),
    clock=("ts_recv",),
    retention_sessions=20,
)
_DATABENTO_BAR = (
    _INSTRUMENT,
    _PUBLISHER,
    moment("ts_event", "Start of the bar, in UTC also for a day."),
    price("open", "First price on the venue."),
    price("high", "Highest price on the venue."),
    price("low", "Lowest price on the venue."),
    price("close", "Last price on the venue."),
    count("volume", "Contracts on the venue."),
    ROW,
)
DATABENTO_OPTION_MINUTE = table(
    "databento_option_minute",
    "Databento one-minute bars of OPRA trades (schema ohlcv-1m), a row per venue.",
    _DATABENTO_BAR,
    KnownAt("ts_event", timedelta(minutes=1)),
    clock=("ts_event",),
)
DATABENTO_OPTION_DAY = table(
    "databento_option_day",
    "Databento daily bars of OPRA trades (schema ohlcv-1d), a row per venue.",
    _DATABENTO_BAR,
    AFTER_CLOSE,
    clock=("ts_event",),
)
DATABENTO_STATISTICS = table(
    "databento_statistics",
    "Databento statistics of OPRA. Type 9 is open interest: of the close before, published in the morning, repeated by each venue.",
    (
        _INSTRUMENT,
        _PUBLISHER,
        _EVENT,
        moment("ts_recv", "Time at which Databento received it."),
        moment("ts_ref", "Time that the figure refers to, where the venue says so.", nullable=True),
        integer("stat_type", "Kind of statistic."),
        integer("quantity", "Figure of a statistic that is a count.", nullable=True),
        price("price", "Figure of a statistic that is a price."),
        integer("update_action", "1 new, 2 deleted."),
        ROW,
    ),
    KnownAt("ts_recv"),
)
DATABENTO_DEFINITIONS = table(
    "databento_definitions",
    "Databento instrument definitions of OPRA: every contract that was listed on the date.",
    (
        _INSTRUMENT,
        _PUBLISHER,
        moment("ts_recv", "Time at which Databento received it."),
        text("raw_symbol", "OCC symbol with blanks.", nullable=False),
        text("instrument_class", "C call, P put.", nullable=False),
        text("underlying", "Underlying."),
        Column("expiration", pl.Date(), "Expiration date.", nullable=True),
        price("strike_price", "Strike."),
        integer("contract_multiplier", "Shares per contract, where the venue states it.", nullable=True),
        text("security_update_action", "A added, M modified, D deleted.", nullable=False),
        ROW,
    ),
    KnownAt("ts_recv"),
)

DATABENTO = (
    DATABENTO_OPTION_TRADES,
    DATABENTO_OPTION_QUOTES,
    DATABENTO_OPTION_MINUTE,
    DATABENTO_OPTION_DAY,
    DATABENTO_STATISTICS,
    DATABENTO_DEFINITIONS,
)
