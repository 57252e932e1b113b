"""Which raw table stands for a curated one when several vendors have a session, and how each says the same thing.

Every vendor's table is brought to the columns of the first vendor of its list, so that one set of rules screens them all. The lists
are in order of preference: a session's prints and bars come from one vendor, the first that has the session. Quotes and open
interest carry their `source`, so all of them are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date

import polars as pl

from flowlake.core.sessions import close_utc
from flowlake.curate import vendor_codes as codes
from flowlake.curate.timestamps import nanoseconds
from flowlake.datasets.model import Inputs

Translate = Callable[[pl.DataFrame, date], pl.DataFrame]
"""A raw table of the session in the columns that curation reads."""

MINUTE_NS = 60_000_000_000
OPEN_INTEREST_STATISTIC = 9
_NEW = 1
_NO_TIME = pl.lit(None, dtype=pl.Int64)
_NOTHING = pl.lit(None, dtype=pl.Float64)


def first_present(inputs: Inputs, order: Mapping[str, Translate]) -> str | None:
    """The first table of `order` that the session has; None where it has none."""
    return next((name for name in order if name in inputs), None)


def as_is(raw: pl.DataFrame, session: date) -> pl.DataFrame:
    """The table has the columns already."""
    return raw


# Prints: ticker, conditions, correction, exchange, participant_timestamp, price, sip_timestamp, size, row -----------------------


def _prints(raw: pl.DataFrame, time: str, price: str, size: str, exchange: pl.Expr, conditions: pl.Expr) -> pl.DataFrame:
    return raw.select(
        "ticker",
        conditions.alias("conditions"),
        pl.lit(None, dtype=pl.String).alias("correction"),
        exchange.alias("exchange"),
        _NO_TIME.alias("participant_timestamp"),
        pl.col(price).alias("price"),
        pl.col(time).alias("sip_timestamp"),
        pl.col(size).alias("size"),
        "row",
    )


def _databento_prints(raw: pl.DataFrame, session: date) -> pl.DataFrame:
    venue = codes.exchange("publisher_id", codes.DATABENTO_VENUES)
    trades = raw.filter(pl.col("action") == "T")
    return _prints(trades, "ts_event", "price", "size", venue, pl.lit(None, dtype=pl.String))


def _datashop_prints(raw: pl.DataFrame, session: date) -> pl.DataFrame:
    venue = codes.exchange("exchange_id", codes.DATASHOP_EXCHANGES)
    conditions = codes.condition("trade_condition_id", codes.DATASHOP_CONDITIONS)
    return _prints(raw, "quote_datetime", "trade_price", "trade_size", venue, conditions)


def _thetadata_prints(raw: pl.DataFrame, session: date) -> pl.DataFrame:
    venue = codes.exchange("exchange", codes.THETADATA_EXCHANGES)
    told = codes.condition("condition", codes.THETADATA_CONDITIONS)
    further = (codes.condition(f"ext_condition{i}", codes.THETADATA_CONDITIONS, codes.THETADATA_NONE) for i in range(1, 5))
    conditions = pl.concat_str([told, *further], separator=",", ignore_nulls=True)
    return _prints(without_overlap(raw), "trade_timestamp", "price", "size", venue, conditions)


def without_overlap(raw: pl.DataFrame) -> pl.DataFrame:
    """ThetaData prints, each once where several responses hold it; equal prints within one response are all kept."""
    print_columns = ["ticker", "trade_timestamp", "sequence", "exchange", "price", "size", "condition"]
    numbered = raw.sort("source_file", "row").with_columns(
        pl.int_range(pl.len()).over("source_file", *print_columns).alias("_occurrence")
    )
    return numbered.unique([*print_columns, "_occurrence"], keep="first", maintain_order=True).drop("_occurrence")


PRINTS: Mapping[str, Translate] = {
    "massive_option_trades": as_is,
    "databento_option_trades": _databento_prints,
    "datashop_option_trades": _datashop_prints,
    "thetadata_option_trades": _thetadata_prints,
}
PRINT_TIME_COLUMNS = {"massive_option_trades": ("ticker", "sip_timestamp")}
"""What of a tape tells which contracts traded when, where that is less than all of it."""
WITHOUT_CONDITIONS = frozenset({"databento_option_trades"})
"""Vendors that give no sale condition at all."""

# Bars: ticker, window_start, open, high, low, close, volume, transactions, row ---------------------------------------------------


def _databento_bars(raw: pl.DataFrame, session: date) -> pl.DataFrame:
    """One bar of the bars of all venues: highest, lowest and volume are exact.

    Which venue traded first and last the file does not say: open and close are those of the venue with the most volume.
    """
    largest = ["ticker", "ts_event", "is_venue", "volume", "publisher_id", "row"]
    ordered = raw.with_columns((pl.col("publisher_id") != codes.DATABENTO_CONSOLIDATED).alias("is_venue")).sort(
        largest, descending=[False, False, False, True, False, False]
    )
    has_consolidated = (~pl.col("is_venue")).any().over("ticker", "ts_event")
    counted = ordered.filter(pl.col("is_venue") != has_consolidated)
    merged = counted.group_by("ticker", "ts_event", maintain_order=True).agg(
        pl.col("open").first(),
        pl.col("high").max(),
        pl.col("low").min(),
        pl.col("close").first(),
        pl.col("volume").cast(pl.Int64).sum().cast(pl.Float64),
        pl.col("row").min(),
    )
    return merged.select(
        "ticker", pl.col("ts_event").alias("window_start"), "open", "high", "low", "close", "volume", _TRANSACTIONS, "row"
    )


_TRANSACTIONS = pl.lit(None, dtype=pl.Int64).alias("transactions")


def _databento_day(raw: pl.DataFrame, session: date) -> pl.DataFrame:
    """The file's day begins at 00:00 UTC, in the New York evening before."""
    return _databento_bars(raw, session).with_columns(_at_close(session).alias("window_start"))


def _lean_minute(raw: pl.DataFrame, session: date) -> pl.DataFrame:
    return raw.with_columns(_TRANSACTIONS)


def _lean_index(raw: pl.DataFrame, session: date) -> pl.DataFrame:
    """Bars of an index as bars of a stock that nobody trades: what the file counts as volume are not shares."""
    return raw.with_columns(_TRANSACTIONS, volume=pl.lit(0.0))


def _day_of_chain(raw: pl.DataFrame, session: date, volume: str, transactions: pl.Expr) -> pl.DataFrame:
    """Bars of a chain's rows, without the contracts that had no eligible trade: their prices are 0."""
    traded = raw.filter((pl.col(volume) > 0) & (pl.col("close") != 0))
    return traded.select(
        "ticker",
        _at_close(session).alias("window_start"),
        *("open", "high", "low", "close"),
        pl.col(volume).alias("volume"),
        transactions.alias("transactions"),
        "row",
    )


def _datashop_day(raw: pl.DataFrame, session: date) -> pl.DataFrame:
    return _day_of_chain(raw, session, "trade_volume", _NO_TIME)


def _thetadata_day(raw: pl.DataFrame, session: date) -> pl.DataFrame:
    return _day_of_chain(raw, session, "volume", pl.col("count"))


def _at_close(session: date) -> pl.Expr:
    return pl.lit(nanoseconds(close_utc(session)), dtype=pl.Int64)


MINUTE_BARS: Mapping[str, Translate] = {
    "massive_option_minute": as_is,
    "databento_option_minute": _databento_bars,
    "lean_option_minute": _lean_minute,
}
DAY_BARS: Mapping[str, Translate] = {
    "massive_option_day": as_is,
    "databento_option_day": _databento_day,
    "datashop_option_eod": _datashop_day,
    "thetadata_option_eod": _thetadata_day,
}

INDEX_MINUTE_BARS: Mapping[str, Translate] = {"lean_index_minute": _lean_index}

# Quotes: ticker, sip_timestamp, bid_price, ask_price, bid_size, ask_size, spot, vendor_iv, vendor_delta, vendor_gamma, row -----


def _quotes(raw: pl.DataFrame, time: pl.Expr, quote: Mapping[str, pl.Expr]) -> pl.DataFrame:
    absent = ("bid_size", "ask_size", "spot", "vendor_iv", "vendor_delta", "vendor_gamma")
    named = {**dict.fromkeys(absent, _NOTHING), **quote}
    return raw.select("ticker", time.alias("sip_timestamp"), *(value.alias(name) for name, value in named.items()), "row")


def _sides(bid: str, ask: str, bid_size: str, ask_size: str) -> dict[str, pl.Expr]:
    """A side that is blank is a side that nobody quotes: 0, as in the first vendor's files."""
    prices = {"bid_price": pl.col(bid).fill_null(0.0), "ask_price": pl.col(ask).fill_null(0.0)}
    return {**prices, "bid_size": pl.col(bid_size), "ask_size": pl.col(ask_size)}


def _databento_quotes(raw: pl.DataFrame, session: date) -> pl.DataFrame:
    return _quotes(raw, pl.col("ts_recv"), _sides("bid_price", "ask_price", "bid_size", "ask_size"))


def _lean_quotes(raw: pl.DataFrame, session: date) -> pl.DataFrame:
    """The last quote of a minute is in force at its end."""
    return _quotes(raw, pl.col("window_start") + MINUTE_NS, _sides("bid_close", "ask_close", "bid_size", "ask_size"))


def _datashop_quotes(raw: pl.DataFrame, session: date) -> pl.DataFrame:
    """The quote at the close. The vendor's volatility and greeks are of 15:45 and stay in the raw table."""
    bid, ask = (pl.when(pl.col(f"underlying_{side}_eod") > 0).then(f"underlying_{side}_eod") for side in ("bid", "ask"))
    sides = _sides("bid_eod", "ask_eod", "bid_size_eod", "ask_size_eod")
    return _quotes(raw, _at_close(session), {**sides, "spot": (bid + ask) / 2})


def _thetadata_quotes(raw: pl.DataFrame, session: date) -> pl.DataFrame:
    vendor = {"vendor_iv": pl.col("implied_vol"), "vendor_delta": pl.col("delta"), "vendor_gamma": pl.col("gamma")}
    sides = _sides("bid", "ask", "bid_size", "ask_size")
    return _quotes(raw, _at_close(session), {**sides, **vendor, "spot": pl.col("underlying_price")})


def _optionsdx_quotes(raw: pl.DataFrame, session: date) -> pl.DataFrame:
    vendor = {"vendor_iv": pl.col("iv"), "vendor_delta": pl.col("delta"), "vendor_gamma": pl.col("gamma")}
    time = pl.min_horizontal(pl.col("quote_unixtime"), _at_close(session))
    return _quotes(raw, time, {**_sides("bid", "ask", "bid_size", "ask_size"), **vendor, "spot": pl.col("underlying_last")})


def _ivolatility_quotes(raw: pl.DataFrame, session: date) -> pl.DataFrame:
    """Of the session's rows; a volatility that the vendor interpolated is none."""
    own = raw.filter(pl.col("date") == session)
    made = pl.col("isinterpolated") == "*"
    iv = pl.when(~made.fill_null(False)).then("iv")
    vendor = {"vendor_iv": iv, "vendor_delta": pl.col("delta"), "vendor_gamma": pl.col("gamma")}
    prices = {"bid_price": pl.col("bid").fill_null(0.0), "ask_price": pl.col("ask").fill_null(0.0)}
    return _quotes(own, _at_close(session), {**prices, **vendor, "spot": pl.col("stock_price_close")})


QUOTE_STREAMS: Mapping[str, Translate] = {
    "databento_option_quotes": _databento_quotes,
    "lean_option_quotes": _lean_quotes,
}
"""Quotes through the day: of each contract the last one before the close counts."""
QUOTE_CHAINS: Mapping[str, Translate] = {
    "datashop_option_eod": _datashop_quotes,
    "thetadata_option_eod": _thetadata_quotes,
    "optionsdx_eod": _optionsdx_quotes,
    "ivolatility_eod": _ivolatility_quotes,
}
"""One row per contract: two that differ contradict each other."""

# Open interest of the close before, published in the morning: ticker, open_interest, row ----------------------------------------


def not_expired(raw: pl.DataFrame, session: date) -> pl.DataFrame:
    """The rows whose contract lives on the session; a ticker without a readable expiry is left for screening.

    The figure of the close before still has the contracts that expired then: no fault of the file, and no open interest any more.
    """
    expiry = pl.col("ticker").str.slice(-15, 6).str.to_date("%y%m%d", strict=False)
    return raw.filter((expiry >= session).fill_null(True))


def _databento_open_interest(raw: pl.DataFrame, session: date) -> pl.DataFrame:
    """Every venue repeats the figure, so equal ones count once."""
    stated = raw.filter((pl.col("stat_type") == OPEN_INTEREST_STATISTIC) & (pl.col("update_action") == _NEW))
    distinct = not_expired(stated, session).sort("row").unique(["ticker", "quantity"], keep="first", maintain_order=True)
    return distinct.select("ticker", pl.col("quantity").cast(pl.Float64).alias("open_interest"), "row")


def _stated_open_interest(raw: pl.DataFrame, session: date) -> pl.DataFrame:
    return not_expired(raw, session).select("ticker", "open_interest", "row")


MORNING_OPEN_INTEREST: Mapping[str, Translate] = {
    "databento_statistics": _databento_open_interest,
    "datashop_option_eod": _stated_open_interest,
    "thetadata_open_interest": _stated_open_interest,
    "lean_open_interest": _stated_open_interest,
    "lean_open_interest_daily": _stated_open_interest,
}

OF_THE_CLOSE_BEFORE = frozenset(
    {"databento_statistics", "thetadata_open_interest", "lean_open_interest", "lean_open_interest_daily"}
)
"""Raw tables that may name contracts which expired at the close before."""
_TRANSLATED = (PRINTS, MINUTE_BARS, DAY_BARS, QUOTE_STREAMS, QUOTE_CHAINS, MORNING_OPEN_INTEREST)
TICKER_SOURCES = (
    *dict.fromkeys(name for order in _TRANSLATED for name, translate in order.items() if translate is not as_is),
    "databento_definitions",
)
"""Raw tables of these vendors that name contracts."""
