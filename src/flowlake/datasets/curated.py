"""Curated layer: one standard schema whatever the vendor. Prices are raw: the as-of reader applies splits."""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from flowlake.datasets.checks import Between, Check, Matches, NotAbove, OneOf
from flowlake.datasets.model import (
    UTC_NS,
    Adjust,
    Column,
    Dataset,
    KnownAsStated,
    KnownAt,
    KnownAtClose,
    KnownAtDecision,
    Layer,
)
from flowlake.datasets.raw_columns import SECTOR_NAME

POSITIVE: tuple[Check, ...] = (Between(0, above=True),)
NOT_NEGATIVE: tuple[Check, ...] = (Between(0),)
CONTRACT_KEY = ("root", "expiry", "right", "strike")
"""Order of every per-contract table. It is also the order of the contract symbol, field by field."""

CONTRACT_COLUMNS = (
    Column(
        "contract",
        pl.String(),
        "OCC symbol without blanks: root, expiry YYMMDD, C or P, strike in thousandths (8 digits).",
        checks=(Matches(r"^[A-Z0-9.]{1,9}[0-9]{6}[CP][0-9]{8}$"),),
    ),
    Column("underlying", pl.String(), "Ticker of what the contract delivers or settles on."),
    Column("root", pl.String(), "Root of the symbol; differs from the underlying for index weeklies and adjusted contracts."),
    Column("expiry", pl.Date(), "Expiration date in the symbol (a Saturday for monthlies before 2015-02)."),
    Column("right", pl.String(), "C call, P put.", checks=(OneOf(("C", "P")),)),
    Column("strike", pl.Float64(), "Strike.", unit="USD per share", checks=POSITIVE, adjust=Adjust.PRICE),
)
UNDERLYING = Column("underlying", pl.String(), "Ticker.")


def _price(name: str, doc: str) -> Column:
    return Column(name, pl.Float64(), doc, unit="USD per share", checks=POSITIVE, adjust=Adjust.PRICE)


_OHLC = (
    _price("open", "First price."),
    _price("high", "Highest price."),
    _price("low", "Lowest price."),
    _price("close", "Last price."),
)
_OHLC_CHECKS = (NotAbove("low", "open"), NotAbove("low", "close"), NotAbove("open", "high"), NotAbove("close", "high"))
_TRANSACTIONS = Column("transactions", pl.Int64(), "Number of trades, where the vendor has it.", nullable=True, checks=NOT_NEGATIVE)
_CONTRACT_VOLUME = Column("volume", pl.Int64(), "Contracts.", unit="contracts", checks=NOT_NEGATIVE, adjust=Adjust.CONTRACTS)
_SHARE_VOLUME = Column("volume", pl.Float64(), "Shares; can be decimal.", unit="shares", checks=NOT_NEGATIVE, adjust=Adjust.SHARES)


def _flag(name: str, doc: str) -> Column:
    return Column(name, pl.Boolean(), doc)


SESSIONS = Dataset(
    name="sessions",
    layer=Layer.CURATED,
    doc="The trading session: hours, neighbours, and when its numbers may be used.",
    grain=("calendar",),
    columns=(
        Column("calendar", pl.String(), "Exchange calendar.", checks=(OneOf(("XNYS",)),)),
        Column("open_utc", UTC_NS, "Opening of the regular session."),
        Column("close_utc", UTC_NS, "Close of the regular session."),
        _flag("is_half_day", "The session closes before 16:00 New York."),
        Column("previous_session", pl.Date(), "Session before."),
        Column("next_session", pl.Date(), "Session after."),
        Column("decision_utc", UTC_NS, "D(t): 09:00 New York on the next session."),
        Column("actionable_utc", UTC_NS, "D(t), or the vendor's publication where that is later."),
    ),
    sort_by=("calendar",),
    known=KnownAt("open_utc"),
)
CONTRACTS = Dataset(
    name="contracts",
    layer=Layer.CURATED,
    doc="Contract master: every contract seen in the session's option files.",
    grain=("contract",),
    columns=(
        *CONTRACT_COLUMNS,
        Column("strike_thousandths", pl.Int64(), "Strike as an exact integer.", unit="USD/1000", checks=POSITIVE),
        Column("multiplier", pl.Float64(), "Shares delivered, or dollars per index point.", checks=POSITIVE),
        Column("exercise", pl.String(), "Exercise style.", checks=(OneOf(("american", "european")),)),
        Column("settlement", pl.String(), "am: opening prices, pm: close.", checks=(OneOf(("am", "pm")),)),
        _flag("is_adjusted", "The root ends in a digit: the deliverable was changed by a corporate action."),
        Column("last_trading_session", pl.Date(), "Last session on which the contract trades."),
        Column("expires_utc", UTC_NS, "Moment whose prices settle the contract; time to expiry is measured to it."),
    ),
    sort_by=CONTRACT_KEY,
    known=KnownAtClose(timedelta(minutes=15)),
)
OPTION_TRADES = Dataset(
    name="option_trades",
    layer=Layer.CURATED,
    doc="Option prints with decoded sale conditions. Identical prints can all be real; order inside a millisecond is undefined.",
    grain=("contract", "ts_utc", "exchange", "price", "size"),
    unique=False,
    columns=(
        *CONTRACT_COLUMNS,
        Column("ts_utc", UTC_NS, "Time at the securities information processor (milliseconds in older files)."),
        _price("price", "Price."),
        Column("size", pl.Int64(), "Contracts.", unit="contracts", checks=POSITIVE, adjust=Adjust.CONTRACTS),
        Column("premium_usd", pl.Float64(), "Price x size x multiplier, exact to 1/10,000 dollar.", unit="USD"),
        Column("exchange", pl.Int64(), "Vendor's exchange id."),
        Column("condition", pl.Int64(), "First sale condition id; 0 where the file has none."),
        Column("conditions", pl.String(), "All sale condition ids as written.", nullable=True),
        Column("condition_group", pl.String(), "Group of the condition under the policy, such as regular or multi_leg."),
        _flag("in_volume", "Counts in the vendor's bar volume."),
        _flag("sets_price", "May set a bar's open, high, low or close."),
        _flag("may_be_signed", "Single-leg, on time and not cancelled: its direction may be inferred."),
        _flag("in_baseline", "Ordinary trading, reported on time: enters packets and baselines, unless cancelled."),
        _flag("is_iso", "Intermarket sweep order; says nothing of several venues being hit."),
        _flag("is_auction", "Auction; a single-leg one that was not swept is the usual proxy for retail flow."),
        _flag("is_cross", "Cross."),
        _flag("is_floor", "Traded on a floor."),
        _flag("is_multi_leg", "Leg of a multi-leg package."),
        _flag("is_stock_tied", "Leg of a package with stock."),
        _flag("is_late", "Reported late or out of sequence."),
        _flag("is_cancelled", "A later cancel message was matched to this print."),
    ),
    sort_by=(*CONTRACT_KEY, "ts_utc"),
    known=KnownAt("ts_utc"),
    runs=tuple(column.name for column in CONTRACT_COLUMNS),
)
OPTION_BARS_1M = Dataset(
    name="option_bars_1m",
    layer=Layer.CURATED,
    doc="One-minute option bars; a bar exists only where an eligible trade does.",
    grain=("contract", "ts_utc"),
    columns=(*CONTRACT_COLUMNS, Column("ts_utc", UTC_NS, "Start of the minute."), *_OHLC, _CONTRACT_VOLUME, _TRANSACTIONS),
    sort_by=(*CONTRACT_KEY, "ts_utc"),
    known=KnownAt("ts_utc", timedelta(minutes=1)),
    checks=_OHLC_CHECKS,
)
OPTION_BARS_1D = Dataset(
    name="option_bars_1d",
    layer=Layer.CURATED,
    doc="Daily option bars.",
    grain=("contract",),
    columns=(*CONTRACT_COLUMNS, *_OHLC, _CONTRACT_VOLUME, _TRANSACTIONS),
    sort_by=CONTRACT_KEY,
    known=KnownAtClose(timedelta(minutes=15)),
    checks=_OHLC_CHECKS,
)
OPTION_QUOTES_EOD = Dataset(
    name="option_quotes_eod",
    layer=Layer.CURATED,
    doc="The last quote of each contract at or before the close. A side that is absent is null, never 0.",
    grain=("contract", "source"),
    columns=(
        *CONTRACT_COLUMNS,
        Column("ts_utc", UTC_NS, "Moment of the quote; the close where the vendor gives only the capture."),
        Column("bid", pl.Float64(), "Bid.", unit="USD per share", nullable=True, checks=POSITIVE, adjust=Adjust.PRICE),
        Column("ask", pl.Float64(), "Ask.", unit="USD per share", nullable=True, checks=POSITIVE, adjust=Adjust.PRICE),
        Column(
            "bid_size", pl.Float64(), "Size at the bid.", "contracts", nullable=True, checks=NOT_NEGATIVE, adjust=Adjust.CONTRACTS
        ),
        Column(
            "ask_size", pl.Float64(), "Size at the ask.", "contracts", nullable=True, checks=NOT_NEGATIVE, adjust=Adjust.CONTRACTS
        ),
        Column("spot", pl.Float64(), "Underlying in the vendor's file.", nullable=True, checks=POSITIVE, adjust=Adjust.PRICE),
        Column("vendor_iv", pl.Float64(), "Vendor's implied volatility.", unit="per 1.00", nullable=True, checks=POSITIVE),
        Column("vendor_delta", pl.Float64(), "Vendor's delta.", nullable=True, checks=(Between(-1.0001, 1.0001),)),
        Column("vendor_gamma", pl.Float64(), "Vendor's gamma.", nullable=True, adjust=Adjust.INVERSE_PRICE),
        _flag("root_is_inferred", "The vendor gives no root: it was inferred from the expiry and the pair of rows."),
        Column("source", pl.String(), "Raw dataset."),
    ),
    sort_by=CONTRACT_KEY,
    known=KnownAtClose(timedelta(minutes=15)),
    checks=(NotAbove("bid", "ask"),),
)
OPEN_INTEREST = Dataset(
    name="open_interest",
    layer=Layer.CURATED,
    doc="Open interest known by the decision time, with the session at whose close it holds.",
    grain=("contract", "oi_session", "source"),
    columns=(
        *CONTRACT_COLUMNS,
        Column("oi_session", pl.Date(), "Session at whose close it holds: this one, or the one before for Cboe snapshots."),
        Column(
            "open_interest_close",
            pl.Int64(),
            "Open contracts at the close of `oi_session`.",
            unit="contracts",
            checks=NOT_NEGATIVE,
            adjust=Adjust.CONTRACTS,
        ),
        _flag("root_is_inferred", "The vendor gives no root: it was inferred from the expiry and the pair of rows."),
        Column("source", pl.String(), "Raw dataset."),
    ),
    sort_by=CONTRACT_KEY,
    known=KnownAsStated("06:30 New York on the session after `oi_session`"),
)
EQUITY_BARS_1M = Dataset(
    name="equity_bars_1m",
    layer=Layer.CURATED,
    doc="One-minute stock bars, raw prices, extended hours included.",
    grain=("underlying", "ts_utc"),
    columns=(
        UNDERLYING,
        Column("ts_utc", UTC_NS, "Start of the minute."),
        *_OHLC,
        _SHARE_VOLUME,
        _TRANSACTIONS,
        _flag("is_regular", "Inside the regular session."),
    ),
    sort_by=("underlying", "ts_utc"),
    known=KnownAt("ts_utc", timedelta(minutes=1)),
    checks=_OHLC_CHECKS,
)
EQUITY_BARS_1D = Dataset(
    name="equity_bars_1d",
    layer=Layer.CURATED,
    doc="Daily stock bars of the regular session, raw prices.",
    grain=("underlying",),
    columns=(UNDERLYING, *_OHLC, _SHARE_VOLUME, _TRANSACTIONS),
    sort_by=("underlying",),
    known=KnownAtClose(),
    checks=_OHLC_CHECKS,
)
CORPORATE_ACTIONS = Dataset(
    name="corporate_actions",
    layer=Layer.CURATED,
    doc="Every corporate action known at the session's decision time.",
    grain=("underlying", "ex_date", "kind"),
    columns=(
        UNDERLYING,
        Column("ex_date", pl.Date(), "First session on which the event is in the price."),
        Column(
            "kind",
            pl.String(),
            "Kind of event.",
            checks=(OneOf(("split", "cash_dividend", "special_dividend", "symbol_change")),),
        ),
        Column("ratio", pl.Float64(), "New shares per old, for a split.", nullable=True, checks=POSITIVE),
        Column("cash_amount_usd", pl.Float64(), "Cash per share.", unit="USD", nullable=True, checks=NOT_NEGATIVE),
        Column("new_symbol", pl.String(), "Ticker after a symbol change.", nullable=True),
        Column("announced_at_utc", UTC_NS, "Announcement, where it is known.", nullable=True),
        Column("source", pl.String(), "Raw dataset; the house file wins over Lean for the same event."),
    ),
    sort_by=("underlying", "ex_date", "kind"),
    known=KnownAsStated("the announcement, else the ex-date 00:00 New York"),
    may_be_empty=True,
)
RATES = Dataset(
    name="rates",
    layer=Layer.CURATED,
    doc="The interest rate curve known at the session's decision time.",
    grain=("tenor_days",),
    columns=(
        Column("date", pl.Date(), "Date of the curve."),
        Column("tenor_days", pl.Int64(), "Tenor; 1 for a policy rate that stands for the whole curve.", unit="days"),
        Column("rate", pl.Float64(), "Continuously compounded rate.", unit="per year, decimal"),
        Column("source", pl.String(), "Raw dataset; the house file wins over Lean."),
    ),
    sort_by=("tenor_days",),
    known=KnownAtDecision(),
    may_be_empty=True,
)
SECTORS = Dataset(
    name="sectors",
    layer=Layer.CURATED,
    doc="The sector of each underlying: its newest row in force, of those known at 09:00 New York on the session itself.",
    grain=("underlying",),
    columns=(
        UNDERLYING,
        Column("sector", pl.String(), "Sector, as the house file names it.", checks=(Matches(f"^{SECTOR_NAME}$"),)),
        Column("valid_from", pl.Date(), "First day in this sector."),
    ),
    sort_by=("underlying",),
    known=KnownAsStated("the publication, else valid_from 00:00 New York"),
    may_be_empty=True,
)

CURATED = (
    SESSIONS,
    CONTRACTS,
    OPTION_TRADES,
    OPTION_BARS_1M,
    OPTION_BARS_1D,
    OPTION_QUOTES_EOD,
    OPEN_INTEREST,
    EQUITY_BARS_1M,
    EQUITY_BARS_1D,
    CORPORATE_ACTIONS,
    RATES,
    SECTORS,
)
