"""Raw tables of the further option vendors: their rows and columns, with the contract spelled as everywhere in the lake.

Every table has `ticker`, which the parser spells `O:ROOTyymmddC00123000` from the vendor's own fields. Where those make no option
symbol it holds them as text, and curation rejects the row. Times are nanoseconds and prices dollars, whatever the file counts in.
"""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from flowlake.datasets.checks import OneOf
from flowlake.datasets.model import Column, Dataset, KnownAsStated, KnownAt, Layer
from flowlake.datasets.raw_columns import AFTER_CLOSE, EXTRA, ROW, count, integer, moment, number, price, table, text
from flowlake.datasets.raw_databento import DATABENTO

_VENDOR = "as the vendor gives it"

# Cboe DataShop -----------------------------------------------------------------------------------------------------------------

_DATASHOP_CONTRACT = (
    text("underlying_symbol", "Underlying; an index has the prefix `^`.", nullable=False),
    text("root", "Root of the option.", nullable=False),
    Column("expiration", pl.Date(), "Expiration date."),
    price("strike", "Strike.", nullable=False),
    text("option_type", "C call, P put.", nullable=False),
)
DATASHOP_OPTION_TRADES = table(
    "datashop_option_trades",
    "Cboe DataShop option trades with the best quote at the trade.",
    (
        *_DATASHOP_CONTRACT,
        moment("quote_datetime", "Time of the trade; New York time in the file."),
        integer("sequence_number", "Sequence number of the trade."),
        integer("exchange_id", "DataShop's id of the exchange."),
        count("trade_size", "Contracts.", nullable=False),
        price("trade_price", "Price.", nullable=False),
        integer("trade_condition_id", "DataShop's id of the sale condition."),
        integer("canceled_trade_condition_id", "Second condition of a cancel, as the vendor gives it.", nullable=True),
        price("best_bid", "National best bid; 0 where there is none."),
        price("best_ask", "National best offer; 0 where there is none."),
        number("trade_iv", f"Implied volatility of the trade, {_VENDOR}."),
        number("trade_delta", f"Delta of the trade, {_VENDOR}."),
        price("underlying_bid", "Bid of the underlying."),
        price("underlying_ask", "Ask of the underlying."),
        ROW,
        EXTRA,
    ),
    KnownAt("quote_datetime"),
    clock=("quote_datetime",),
)
DATASHOP_OPTION_EOD = table(
    "datashop_option_eod",
    "Cboe DataShop end-of-day summary: bars, the quote at 15:45 and at the close, and the morning's open interest.",
    (
        *_DATASHOP_CONTRACT,
        Column("quote_date", pl.Date(), "Session."),
        price("open", "First eligible price; 0 where there is none."),
        price("high", "Highest eligible price; 0 where there is none."),
        price("low", "Lowest eligible price; 0 where there is none."),
        price("close", "Last eligible price; 0 where there is none."),
        count("trade_volume", "Contracts traded."),
        count("bid_size_1545", "Size at the bid at 15:45, or 12:45 on a half day."),
        price("bid_1545", "Bid at 15:45, or 12:45 on a half day."),
        count("ask_size_1545", "Size at the ask at 15:45, or 12:45 on a half day."),
        price("ask_1545", "Ask at 15:45, or 12:45 on a half day."),
        price("underlying_bid_1545", "Bid of the underlying then."),
        price("underlying_ask_1545", "Ask of the underlying then."),
        number("implied_volatility_1545", f"Implied volatility then, {_VENDOR}."),
        number("delta_1545", f"Delta then, {_VENDOR}."),
        number("gamma_1545", f"Gamma then, {_VENDOR}."),
        count("bid_size_eod", "Size at the bid at the close."),
        price("bid_eod", "Bid at the close; 0 where there is none."),
        count("ask_size_eod", "Size at the ask at the close."),
        price("ask_eod", "Ask at the close; 0 where there is none."),
        price("underlying_bid_eod", "Bid of the underlying at the close; 0 for an index that has none."),
        price("underlying_ask_eod", "Ask of the underlying at the close; 0 for an index that has none."),
        price("vwap", "Mean price by volume."),
        count("open_interest", "Open contracts as published in the morning: of the close before."),
        ROW,
        EXTRA,
    ),
    AFTER_CLOSE,
)

# ThetaData ---------------------------------------------------------------------------------------------------------------------

_THETA_CONTRACT = (
    text("symbol", "Root of the option.", nullable=False),
    Column("expiration", pl.Date(), "Expiration date."),
    price("strike", "Strike.", nullable=False),
    text("right", "CALL or PUT.", nullable=False),
)
_FILE = text("source_file", "Key of the object: a session has one for each request.", nullable=False)
_BY_FILE = ("source_file", "row")
_THETA_TOP = (
    count("bid_size", "Size at the bid."),
    integer("bid_exchange", "ThetaData's id of the exchange of the bid.", nullable=True),
    price("bid", "National best bid; 0 where there is none."),
    integer("bid_condition", "ThetaData's id of the condition of the bid.", nullable=True),
    count("ask_size", "Size at the ask."),
    integer("ask_exchange", "ThetaData's id of the exchange of the ask.", nullable=True),
    price("ask", "National best offer; 0 where there is none."),
    integer("ask_condition", "ThetaData's id of the condition of the ask.", nullable=True),
)
THETADATA_OPTION_TRADES = table(
    "thetadata_option_trades",
    "ThetaData trades, with the last quote before each where the request was for trade_quote.",
    (
        *_THETA_CONTRACT,
        moment("trade_timestamp", "Time of the trade, to the millisecond."),
        moment("quote_timestamp", "Time of the quote beside it.", nullable=True),
        integer("sequence", "Sequence number; signed, so it can be negative."),
        *(integer(f"ext_condition{i}", "Further condition; 255 is none.", nullable=True) for i in range(1, 5)),
        integer("condition", "ThetaData's id of the sale condition."),
        count("size", "Contracts.", nullable=False),
        integer("exchange", "ThetaData's id of the exchange."),
        price("price", "Price.", nullable=False),
        *_THETA_TOP,
        _FILE,
        ROW,
        EXTRA,
    ),
    KnownAt("trade_timestamp"),
    grain=_BY_FILE,
    clock=("trade_timestamp",),
)
THETADATA_OPTION_EOD = table(
    "thetadata_option_eod",
    "ThetaData end-of-day report: the day's bar and the last quote.",
    (
        *_THETA_CONTRACT,
        moment("timestamp", "Time of the last trade; blank without one.", nullable=True),
        price("open", "First price; 0 without a trade."),
        price("high", "Highest price; 0 without a trade."),
        price("low", "Lowest price; 0 without a trade."),
        price("close", "Last price; 0 without a trade."),
        count("volume", "Contracts."),
        integer("count", "Number of trades.", nullable=True),
        *_THETA_TOP,
        number("implied_vol", f"Implied volatility, {_VENDOR}; 0 is none."),
        number("delta", f"Delta, {_VENDOR}."),
        number("gamma", f"Gamma, {_VENDOR}."),
        price("underlying_price", "Price of the underlying."),
        _FILE,
        ROW,
        EXTRA,
    ),
    AFTER_CLOSE,
    grain=_BY_FILE,
)
THETADATA_OPEN_INTEREST = table(
    "thetadata_open_interest",
    "ThetaData open interest, published about 06:30 New York: of the close before.",
    (
        *_THETA_CONTRACT,
        moment("timestamp", "Time of publication."),
        count("open_interest", "Open contracts.", nullable=False),
        _FILE,
        ROW,
        EXTRA,
    ),
    KnownAt("timestamp"),
    grain=_BY_FILE,
)

# Lean --------------------------------------------------------------------------------------------------------------------------

_MEMBER = text("member", "File within the archive; it names the contract.", nullable=False)
_BY_MEMBER = ("member", "row")
_LEAN_START = moment("window_start", "Start of the minute.")
LEAN_OPTION_MINUTE = table(
    "lean_option_minute",
    "Lean one-minute bars of option trades: one archive per root and session, one member per contract.",
    (
        _LEAN_START,
        price("open", "First price.", nullable=False),
        price("high", "Highest price.", nullable=False),
        price("low", "Lowest price.", nullable=False),
        price("close", "Last price.", nullable=False),
        count("volume", "Contracts.", nullable=False),
        _MEMBER,
        ROW,
    ),
    KnownAt("window_start", timedelta(minutes=1)),
    grain=_BY_MEMBER,
    clock=("window_start",),
)
LEAN_OPTION_QUOTES = table(
    "lean_option_quotes",
    "Lean one-minute bars of option quotes. An absent side is null.",
    (
        _LEAN_START,
        *(
            price(f"{side}_{part}", f"The {part} of the {side} in the minute.")
            for side in ("bid", "ask")
            for part in ("open", "high", "low", "close")
        ),
        count("bid_size", "Size at the last bid."),
        count("ask_size", "Size at the last ask."),
        _MEMBER,
        ROW,
    ),
    KnownAt("window_start", timedelta(minutes=1)),
    grain=_BY_MEMBER,
    clock=("window_start",),
)
LEAN_OPEN_INTEREST = table(
    "lean_open_interest",
    "Lean open interest, stamped about 06:30 New York: of the close before.",
    (moment("timestamp", "Time of publication."), count("open_interest", "Open contracts.", nullable=False), _MEMBER, ROW),
    KnownAt("timestamp"),
    grain=_BY_MEMBER,
)
LEAN_OPEN_INTEREST_DAILY = table(
    "lean_open_interest_daily",
    "Lean open interest of a year in one archive; here the session's rows. Of the close before, as in the minute files.",
    (
        Column("date", pl.Date(), "Date in whose morning it was published."),
        count("open_interest", "Open contracts.", nullable=False),
        _MEMBER,
        ROW,
    ),
    KnownAsStated("06:30 New York on the date"),
    grain=_BY_MEMBER,
)
LEAN_INDEX_MINUTE = Dataset(
    name="lean_index_minute",
    layer=Layer.RAW,
    doc="Lean one-minute bars of an index, in points; the file counts in Chicago time.",
    grain=("ticker", "row"),
    columns=(
        text("ticker", "Index.", nullable=False),
        _LEAN_START,
        *(Column(part, pl.Float64(), f"The {part} of the minute.", unit="points") for part in ("open", "high", "low", "close")),
        number("volume", "Ticks or 0; an index does not trade."),
        ROW,
    ),
    sort_by=("ticker", "window_start", "row"),
    known=KnownAt("window_start", timedelta(minutes=1)),
)

# OptionsDX and iVolatility -----------------------------------------------------------------------------------------------------

OPTIONSDX_EOD = table(
    "optionsdx_eod",
    "OptionsDX end-of-day chain of the session, from the file of its month. Call and put, one row there, have a row each.",
    (
        moment("quote_unixtime", "Time of the quotes."),
        Column("quote_date", pl.Date(), "Session."),
        price("underlying_last", "Last price of the underlying."),
        Column("expire_date", pl.Date(), "Expiration date."),
        price("strike", "Strike.", nullable=False),
        Column("right", pl.String(), "C call, P put.", checks=(OneOf(("C", "P")),)),
        price("bid", "Bid; 0 or blank where there is none."),
        price("ask", "Ask; 0 or blank where there is none."),
        count("bid_size", "First number of the size `10 x 12`."),
        count("ask_size", "Second number of the size `10 x 12`."),
        price("last", "Last price."),
        count("volume", "Contracts."),
        number("iv", f"Implied volatility, {_VENDOR}."),
        number("delta", f"Delta, {_VENDOR}."),
        number("gamma", f"Gamma, {_VENDOR}."),
        number("theta", f"Theta, {_VENDOR}."),
        number("vega", f"Vega, {_VENDOR}."),
        number("rho", f"Rho, {_VENDOR}."),
        _FILE,
        ROW,
        EXTRA,
    ),
    KnownAsStated("the close of the session + 15 min"),
    grain=("source_file", "row", "right"),
)
IVOLATILITY_EOD = table(
    "ivolatility_eod",
    "iVolatility end-of-day chain.",
    (
        text("symbol", "Underlying.", nullable=False),
        Column("date", pl.Date(), "Session."),
        price("stock_price_close", "Close of the underlying."),
        text("option_symbol", "OCC symbol with blanks.", nullable=False),
        Column("option_expiration", pl.Date(), "Expiration date."),
        price("strike", "Strike.", nullable=False),
        text("call_put", "C call, P put.", nullable=False),
        text("style", "A American, E European."),
        price("ask", "Ask; 0 where there is none."),
        price("bid", "Bid; 0 where there is none."),
        price("mean_price", f"Price between bid and ask, {_VENDOR}."),
        price("settlement", "Settlement price; 0 where there is none."),
        number("iv", f"Implied volatility, {_VENDOR}."),
        count("volume", "Contracts."),
        count("open_interest", "Open contracts."),
        text("isinterpolated", "`*` where the volatility is not from a market price."),
        number("delta", f"Delta, {_VENDOR}."),
        number("gamma", f"Gamma, {_VENDOR}."),
        number("theta", f"Theta, {_VENDOR}."),
        number("vega", f"Vega, {_VENDOR}."),
        number("rho", f"Rho, {_VENDOR}."),
        _FILE,
        ROW,
        EXTRA,
    ),
    AFTER_CLOSE,
    grain=_BY_FILE,
)

VENDORS = (
    *DATABENTO,
    DATASHOP_OPTION_TRADES,
    DATASHOP_OPTION_EOD,
    THETADATA_OPTION_TRADES,
    THETADATA_OPTION_EOD,
    THETADATA_OPEN_INTEREST,
    LEAN_OPTION_MINUTE,
    LEAN_OPTION_QUOTES,
    LEAN_OPEN_INTEREST,
    LEAN_OPEN_INTEREST_DAILY,
    LEAN_INDEX_MINUTE,
    OPTIONSDX_EOD,
    IVOLATILITY_EOD,
)
