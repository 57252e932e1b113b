"""Raw layer: the vendor's rows and columns, typed as little as possible.

`row` is the zero-based data row of the vendor's file, so that any figure can be traced to a line. `extra` keeps columns that the
vendor added and nobody declared, as one JSON object a row: they are noted, not lost.
"""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from flowlake.datasets.checks import Between, Matches, OneOf
from flowlake.datasets.model import Column, Dataset, KnownAsStated, KnownAt, KnownAtClose, KnownNextMorning, Layer
from flowlake.datasets.raw_columns import AFTER_CLOSE, EXTRA, KEPT_FOR, OPTION_TICKER, ROW, SECTOR_NAME, integer, moment, text
from flowlake.datasets.raw_vendors import VENDORS


def _number(name: str, doc: str, unit: str = "", *, nullable: bool = False) -> Column:
    return Column(name, pl.Float64(), doc, unit=unit, nullable=nullable)


_PRICE = "USD per share"


def _bars(name: str, doc: str, ticker: Column, known: KnownAt | KnownAtClose) -> Dataset:
    return Dataset(
        name=name,
        layer=Layer.RAW,
        doc=doc,
        grain=("row",),
        columns=(
            ticker,
            _number("volume", "Volume; can be decimal for stocks."),
            _number("open", "First eligible price.", _PRICE),
            _number("close", "Last eligible price.", _PRICE),
            _number("high", "Highest eligible price.", _PRICE),
            _number("low", "Lowest eligible price.", _PRICE),
            moment("window_start", "Start of the bar; 00:00 New York for day bars."),
            integer("transactions", "Number of eligible trades, where the vendor has it.", nullable=True),
            ROW,
            EXTRA,
        ),
        sort_by=("ticker", "window_start", "row"),
        known=known,
    )


_OPTION = Column("ticker", pl.String(), "Option ticker with the prefix `O:`.", checks=(OPTION_TICKER,))
_STOCK = text("ticker", "Stock ticker as it was on the date.", nullable=False)

MASSIVE_OPTION_TRADES = Dataset(
    name="massive_option_trades",
    layer=Layer.RAW,
    doc="Massive flat file of OPRA trades. Rows have no unique key: identical rows can all be real.",
    grain=("row",),
    columns=(
        _OPTION,
        text("conditions", "Comma list of sale condition ids."),
        text("correction", "Correction indicator; empty in older files, 0 in newer ones."),
        integer("exchange", "Exchange id."),
        moment("participant_timestamp", "Exchange time, in older files only.", nullable=True),
        _number("price", "Price.", _PRICE),
        moment("sip_timestamp", "Time at the securities information processor."),
        _number("size", "Contracts.", "contracts"),
        ROW,
        EXTRA,
    ),
    sort_by=("ticker", "sip_timestamp", "row"),
    known=KnownAt("sip_timestamp"),
    runs=("ticker",),
)
MASSIVE_OPTION_QUOTES = Dataset(
    name="massive_option_quotes",
    layer=Layer.RAW,
    doc=(
        "Massive flat file of OPRA quotes (the NBBO), of which the first of each contract, the last before each print and the last "
        "of the session are kept. The file is read past and never stored."
    ),
    grain=("row",),
    columns=(
        _OPTION,
        integer("ask_exchange", "Exchange id of the ask."),
        _number("ask_price", "Best ask; 0 where there is none.", _PRICE),
        _number("ask_size", "Size at the ask.", "contracts"),
        integer("bid_exchange", "Exchange id of the bid."),
        _number("bid_price", "Best bid; 0 where there is none.", _PRICE),
        _number("bid_size", "Size at the bid.", "contracts"),
        integer("sequence_number", "Sequence number of the feed.", nullable=True),
        moment("sip_timestamp", "Time at the securities information processor."),
        KEPT_FOR,
        ROW,
        EXTRA,
    ),
    sort_by=("ticker", "sip_timestamp", "row"),
    known=KnownAt("kept_for"),
    retention_sessions=20,
)
MASSIVE_OPTION_MINUTE = _bars(
    "massive_option_minute",
    "Massive one-minute option bars.",
    _OPTION,
    KnownAt("window_start", timedelta(minutes=1)),
)
MASSIVE_OPTION_DAY = _bars("massive_option_day", "Massive daily option bars.", _OPTION, AFTER_CLOSE)
MASSIVE_STOCK_TRADES = Dataset(
    name="massive_stock_trades",
    layer=Layer.RAW,
    doc="Massive flat file of stock trades, on and off exchange.",
    grain=("row",),
    columns=(
        _STOCK,
        text("conditions", "Comma list of sale condition ids."),
        text("correction", "Correction indicator; empty or a number."),
        integer("exchange", "Exchange id; 4 is FINRA."),
        text("id", "Trade id of the exchange; not unique."),
        moment("participant_timestamp", "Exchange time.", nullable=True),
        _number("price", "Price.", _PRICE),
        integer("sequence_number", "Sequence number of the feed.", nullable=True),
        moment("sip_timestamp", "Time at the securities information processor."),
        _number("size", "Shares; can be decimal.", "shares"),
        integer("tape", "Tape: 1 A, 2 B, 3 C.", nullable=True),
        integer("trf_id", "Trade reporting facility; empty or 0 on exchange.", nullable=True),
        moment("trf_timestamp", "Time at the trade reporting facility; 0 on exchange.", nullable=True),
        ROW,
        EXTRA,
    ),
    sort_by=("ticker", "sip_timestamp", "row"),
    known=KnownAt("sip_timestamp"),
    retention_sessions=60,
)
MASSIVE_STOCK_MINUTE = _bars(
    "massive_stock_minute",
    "Massive one-minute stock bars, extended hours included.",
    _STOCK,
    KnownAt("window_start", timedelta(minutes=1)),
)
MASSIVE_STOCK_DAY = _bars("massive_stock_day", "Massive daily stock bars, unadjusted.", _STOCK, KnownAtClose())

CBOE_SNAPSHOT = Dataset(
    name="cboe_snapshot",
    layer=Layer.RAW,
    doc="Option chains captured after the close from Cboe's delayed quotes; one file per underlying, all in one partition.",
    grain=("underlying", "row"),
    columns=(
        text("underlying", "Index that the file is about, from its key.", nullable=False),
        _number("strike", "Strike.", _PRICE),
        integer("dte", "Calendar days from the file's date to expiry."),
        Column("cp", pl.String(), "C call, P put.", checks=(OneOf(("C", "P")),)),
        integer("oi", "Open interest published in the morning of the file's date."),
        _number("gamma", "Vendor's gamma."),
        _number("delta", "Vendor's delta."),
        _number("iv", "Vendor's implied volatility per 1.00; 0 is no value."),
        _number("bid", "Bid; 0 where there is none.", _PRICE),
        _number("ask", "Ask; 0 where there is none.", _PRICE),
        _number("spot", "Index level in the file's first line.", "index points"),
        text("captured_at", "Capture time in the file's first line, as written; can be the next day.", nullable=False),
        ROW,
        EXTRA,
    ),
    sort_by=("underlying", "dte", "cp", "strike", "row"),
    known=AFTER_CLOSE,
)

OPEN_INTEREST_FILE = Dataset(
    name="open_interest_file",
    layer=Layer.RAW,
    doc="House file: open interest at the close of its date.",
    grain=("row",),
    columns=(_OPTION, _number("open_interest", "Open contracts.", "contracts"), ROW, EXTRA),
    sort_by=("ticker", "row"),
    known=KnownNextMorning(),
)

_REFERENCE = "Reference data: each partition holds the rows of the file that were known at the session's decision time."

CORPORATE_ACTIONS_FILE = Dataset(
    name="corporate_actions_file",
    layer=Layer.RAW,
    doc=f"House file of corporate actions. {_REFERENCE}",
    grain=("underlying", "ex_date", "kind"),
    columns=(
        text("underlying", "Ticker before the event.", nullable=False),
        Column("ex_date", pl.Date(), "First session on which the event is in the price."),
        Column(
            "kind",
            pl.String(),
            "Kind of event.",
            checks=(OneOf(("split", "cash_dividend", "special_dividend", "symbol_change")),),
        ),
        _number("ratio", "New shares per old, for a split.", nullable=True),
        _number("cash_amount_usd", "Cash per share, for a dividend.", _PRICE, nullable=True),
        text("new_symbol", "Ticker after the event, for a symbol change."),
        Column("announced_at_utc", pl.Datetime("ns", "UTC"), "Announcement, where it is known.", nullable=True),
    ),
    sort_by=("underlying", "ex_date", "kind"),
    known=KnownAsStated("the announcement, else the ex-date 00:00 New York"),
    may_be_empty=True,
)
LEAN_EVENTS = Dataset(
    name="lean_events",
    layer=Layer.RAW,
    doc=(
        "Events derived from Lean factor and map files: each from two adjacent rows, because the files' cumulative factors "
        f"contain the future. {_REFERENCE}"
    ),
    grain=("underlying", "ex_date", "kind"),
    columns=CORPORATE_ACTIONS_FILE.columns,
    sort_by=("underlying", "ex_date", "kind"),
    known=KnownAsStated("the ex-date 00:00 New York"),
    may_be_empty=True,
)
RATES_FILE = Dataset(
    name="rates_file",
    layer=Layer.RAW,
    doc=f"House file of interest rates. {_REFERENCE} Only the newest date's curve is kept.",
    grain=("date", "tenor_days"),
    columns=(
        Column("date", pl.Date(), "Date of the curve."),
        Column("tenor_days", pl.Int64(), "Tenor.", unit="days", checks=(Between(1),)),
        Column("rate", pl.Float64(), "Continuously compounded rate.", unit="per year, decimal", checks=(Between(-0.2, 1.0),)),
    ),
    sort_by=("date", "tenor_days"),
    known=KnownAsStated("the next session 09:00 New York"),
    may_be_empty=True,
)
LEAN_INTEREST_RATE = Dataset(
    name="lean_interest_rate",
    layer=Layer.RAW,
    doc=f"US primary credit rate from Lean, a row per change. {_REFERENCE} Only the rate in force is kept.",
    grain=("date",),
    columns=(
        Column("date", pl.Date(), "First day of the rate."),
        Column("rate_percent", pl.Float64(), "Annual rate.", unit="percent", checks=(Between(-20.0, 100.0),)),
    ),
    sort_by=("date",),
    known=KnownAsStated("the next session 09:00 New York"),
    may_be_empty=True,
)
CONTRACT_ROOTS_FILE = Dataset(
    name="contract_roots_file",
    layer=Layer.RAW,
    doc=f"House file of option roots. {_REFERENCE}",
    grain=("root", "valid_from"),
    columns=(
        text("root", "Root of the option symbol.", nullable=False),
        text("underlying", "What the contract delivers or settles on.", nullable=False),
        Column("multiplier", pl.Float64(), "Shares or dollars per point.", checks=(Between(0, above=True),)),
        Column("exercise", pl.String(), "Exercise style.", checks=(OneOf(("american", "european")),)),
        Column("settlement", pl.String(), "am: opening prices, pm: close.", checks=(OneOf(("am", "pm")),)),
        Column("valid_from", pl.Date(), "First day."),
        Column("valid_to", pl.Date(), "Last day; empty while valid.", nullable=True),
    ),
    sort_by=("root", "valid_from"),
    known=KnownAsStated("valid_from 00:00 New York"),
    may_be_empty=True,
)
SECTORS_FILE = Dataset(
    name="sectors_file",
    layer=Layer.RAW,
    doc=f"House file of the sector that each underlying belongs to. {_REFERENCE}",
    grain=("underlying", "valid_from"),
    columns=(
        text("underlying", "Ticker as it was on the date.", nullable=False),
        Column("sector", pl.String(), "Sector, in words of your own.", checks=(Matches(f"^{SECTOR_NAME}$"),)),
        Column("valid_from", pl.Date(), "First day; it ends where a later row of the underlying begins."),
        Column("published_at_utc", pl.Datetime("ns", "UTC"), "Publication, where it is known.", nullable=True),
    ),
    sort_by=("underlying", "valid_from"),
    known=KnownAsStated("the publication, else valid_from 00:00 New York"),
    may_be_empty=True,
)

RAW = (
    MASSIVE_OPTION_TRADES,
    MASSIVE_OPTION_QUOTES,
    MASSIVE_OPTION_MINUTE,
    MASSIVE_OPTION_DAY,
    MASSIVE_STOCK_TRADES,
    MASSIVE_STOCK_MINUTE,
    MASSIVE_STOCK_DAY,
    CBOE_SNAPSHOT,
    OPEN_INTEREST_FILE,
    CORPORATE_ACTIONS_FILE,
    LEAN_EVENTS,
    RATES_FILE,
    LEAN_INTEREST_RATE,
    CONTRACT_ROOTS_FILE,
    SECTORS_FILE,
    *VENDORS,
)
