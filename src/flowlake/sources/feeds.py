"""Which key of the bucket feeds which raw dataset, and how its bytes are read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Literal

import polars as pl

from flowlake.datasets import raw, raw_databento
from flowlake.datasets import raw_vendors as vendor
from flowlake.datasets.batch import Batch
from flowlake.datasets.model import Dataset
from flowlake.sources import (
    cboe,
    databento,
    datashop,
    house,
    ivolatility,
    lean,
    lean_options,
    massive,
    optionsdx,
    thetadata,
)
from flowlake.sources.knowledge import as_known

__all__ = ["FEEDS", "Feed", "FeedMatch", "as_known", "match", "parse"]

Parser = Callable[[str, bytes, date | None], pl.DataFrame]
BatchParser = Callable[[Path, date], Iterator[Batch]]
"""Reads a file in batches of its dataset's order; raises WholeTableNeededError where that is not enough."""
PieceReader = Callable[[Path, date], Iterator[pl.DataFrame]]
"""Reads a file some rows at a time, in the file's order; raises as `BatchParser`."""


@dataclass(frozen=True)
class Feed:
    """A family of keys that feeds one raw dataset.

    `session`: the key carries the session's date, and the table lacks `known_at_utc`. `reference`: one table for all sessions,
    with `known_at_utc`; `as_known` cuts it for a session. `period`: the same, for the sessions of the month or year in the key.
    """

    dataset: Dataset
    kind: Literal["session", "reference", "period"]
    pattern: re.Pattern[str]
    parse: Parser
    many: bool = False
    """A session may have several files, such as one per underlying; otherwise a second file is refused."""
    batches: BatchParser | None = None
    """For files too large to be held; `parse` reads the same table, and takes those that this cannot."""
    pieces: PieceReader | None = None
    """For quotes, of which the lake keeps those that stand before a print: the same rows as `parse`, some at a time."""


@dataclass(frozen=True)
class FeedMatch:
    feed: Feed
    file_date: date | None
    period: str = ""
    """`YYYY` or `YYYYMM` of a file with the rows of many sessions; blank where it is for one session or for all."""


_BY_MONTH = r"(?P<year>\d{4})/(?P<month>\d{2})/(?P<date>(?P=year)-(?P=month)-\d{2})"
_CSV = r"\.csv(?:\.gz)?"


def _daily(folder: str, dataset: Dataset, parse: Parser) -> Feed:
    return Feed(dataset, "session", re.compile(f"{folder}/{_BY_MONTH}{_CSV}"), parse)


def _reference(path: str, dataset: Dataset, parse: Parser) -> Feed:
    return Feed(dataset, "reference", re.compile(f"{path}{_CSV}"), parse)


def _databento(schemas: str, dataset: Dataset, parse: Parser) -> tuple[Feed, ...]:
    """Under the lake's own keys, and under the names that Databento gives to the files of a batch job."""
    folder = r"databento/OPRA\.PILLAR"
    job = rf"(?:[A-Za-z0-9._-]+/)?opra-pillar-(?P<date>\d{{8}})\.(?:{schemas})"
    forms = (rf"{folder}/(?:{schemas})/{_BY_MONTH}", rf"{folder}/{job}")
    return tuple(Feed(dataset, "session", re.compile(rf"{form}\.dbn(?:\.zst)?"), parse) for form in forms)


def _datashop(folder: str, dataset: Dataset, parse: Parser) -> Feed:
    """The name may have the prefix that DataShop gives it, such as `UnderlyingOptionsEODCalcs_`."""
    name = r"\d{4}/\d{2}/(?:[A-Za-z0-9]+_)?(?P<date>\d{4}-\d{2}-\d{2})\.(?:csv(?:\.gz)?|zip)"
    return Feed(dataset, "session", re.compile(f"cboe_datashop/{folder}/{name}"), parse)


def _thetadata(endpoints: str, dataset: Dataset, parse: Parser) -> Feed:
    """One file a session, or a folder of responses."""
    return Feed(
        dataset, "session", re.compile(rf"thetadata/(?:{endpoints})/{_BY_MONTH}(?:/[A-Za-z0-9._-]+)?{_CSV}"), parse, many=True
    )


def _lean_minute(folders: str, kind: str, dataset: Dataset, parse: Parser) -> Feed:
    name = rf"lean/(?:{folders})/usa/minute/[a-z0-9.]+/(?P<date>\d{{8}})_{kind}(?:\.zip)+"
    return Feed(dataset, "session", re.compile(name), parse, many=True)


def _chain(folder: str, dataset: Dataset, parse: Parser) -> Feed:
    """One file per underlying and session."""
    name = rf"{folder}/[A-Za-z0-9.^_-]+/(?P<date>\d{{4}}-\d{{2}}-\d{{2}}){_CSV}"
    return Feed(dataset, "session", re.compile(name), parse, many=True)


def _period(name: str, dataset: Dataset, parse: Parser) -> Feed:
    return Feed(dataset, "period", re.compile(name), parse, many=True)


_STYLE = "_(?:american|european)"

FEEDS = (
    replace(
        _daily("us_options_opra/trades_v1", raw.MASSIVE_OPTION_TRADES, massive.option_trades),
        batches=massive.option_trade_batches,
    ),
    replace(
        _daily("us_options_opra/quotes_v1", raw.MASSIVE_OPTION_QUOTES, massive.option_quotes),
        pieces=massive.option_quote_pieces,
    ),
    _daily("us_options_opra/minute_aggs_v1", raw.MASSIVE_OPTION_MINUTE, massive.option_minute),
    _daily("us_options_opra/day_aggs_v1", raw.MASSIVE_OPTION_DAY, massive.option_day),
    _daily("us_stocks_sip/trades_v1", raw.MASSIVE_STOCK_TRADES, massive.stock_trades),
    _daily("us_stocks_sip/minute_aggs_v1", raw.MASSIVE_STOCK_MINUTE, massive.stock_minute),
    _daily("us_stocks_sip/day_aggs_v1", raw.MASSIVE_STOCK_DAY, massive.stock_day),
    Feed(
        raw.CBOE_SNAPSHOT,
        "session",
        re.compile(rf"cboe_snapshots/[A-Z0-9.^_-]+/(?P<date>\d{{4}}-\d{{2}}-\d{{2}}){_CSV}"),
        cboe.snapshot,
        many=True,
    ),
    _daily("reference/open_interest", raw.OPEN_INTEREST_FILE, house.open_interest),
    _reference("reference/corporate_actions", raw.CORPORATE_ACTIONS_FILE, house.corporate_actions),
    _reference("reference/rates", raw.RATES_FILE, house.rates),
    _reference("reference/contract_roots", raw.CONTRACT_ROOTS_FILE, house.contract_roots),
    _reference("reference/sectors", raw.SECTORS_FILE, house.sectors),
    _reference(r"lean/factor_files/[A-Za-z0-9._-]+", raw.LEAN_EVENTS, lean.factor_events),
    _reference(r"lean/map_files/[A-Za-z0-9._-]+", raw.LEAN_EVENTS, lean.map_events),
    _reference("lean/interest-rate", raw.LEAN_INTEREST_RATE, lean.interest_rate),
    *_databento("trades|tbbo|tcbbo", raw_databento.DATABENTO_OPTION_TRADES, databento.option_trades),
    *(
        replace(feed, pieces=databento.option_quote_pieces)
        for feed in _databento("cbbo-1s|cbbo-1m", raw_databento.DATABENTO_OPTION_QUOTES, databento.option_quotes)
    ),
    *_databento("ohlcv-1m", raw_databento.DATABENTO_OPTION_MINUTE, databento.option_minute),
    *_databento("ohlcv-1d", raw_databento.DATABENTO_OPTION_DAY, databento.option_day),
    *_databento("statistics", raw_databento.DATABENTO_STATISTICS, databento.statistics),
    *_databento("definition", raw_databento.DATABENTO_DEFINITIONS, databento.definitions),
    _datashop("option_trades", vendor.DATASHOP_OPTION_TRADES, datashop.option_trades),
    _datashop("option_eod", vendor.DATASHOP_OPTION_EOD, datashop.option_eod),
    _thetadata("option_history_trade_quote", vendor.THETADATA_OPTION_TRADES, thetadata.option_trades),
    _thetadata("option_history_(?:greeks_)?eod", vendor.THETADATA_OPTION_EOD, thetadata.option_eod),
    _thetadata("option_history_open_interest", vendor.THETADATA_OPEN_INTEREST, thetadata.open_interest),
    _lean_minute("option|indexoption", f"trade{_STYLE}", vendor.LEAN_OPTION_MINUTE, lean_options.option_minute),
    _lean_minute("option|indexoption", f"quote{_STYLE}", vendor.LEAN_OPTION_QUOTES, lean_options.option_quotes),
    _lean_minute("option|indexoption", f"openinterest{_STYLE}", vendor.LEAN_OPEN_INTEREST, lean_options.open_interest),
    _lean_minute("index", "trade", vendor.LEAN_INDEX_MINUTE, lean_options.index_minute),
    _period(
        rf"lean/(?:option|indexoption)/usa/daily/[a-z0-9.]+_(?P<year>\d{{4}})_openinterest{_STYLE}\.zip",
        vendor.LEAN_OPEN_INTEREST_DAILY,
        lean_options.open_interest_of_a_year,
    ),
    _period(
        r"optionsdx/[A-Za-z0-9.^_-]+/(?:[A-Za-z0-9.-]+_)*(?P<year>\d{4})(?P<month>0[1-9]|1[0-2])\.(?:txt|csv)(?:\.gz)?",
        vendor.OPTIONSDX_EOD,
        optionsdx.option_eod,
    ),
    _chain("ivolatility", vendor.IVOLATILITY_EOD, ivolatility.option_eod),
)


def match(key: str) -> FeedMatch | None:
    """The feed of a key (relative to the bucket's prefix) and the date in it; None for a key that feeds nothing."""
    for feed in FEEDS:
        found = feed.pattern.fullmatch(key)
        if found is None:
            continue
        if feed.kind == "reference":
            return FeedMatch(feed, None)
        if feed.kind == "period":
            return FeedMatch(feed, None, "".join(found.groups()))
        try:
            return FeedMatch(feed, date.fromisoformat(found["date"]))
        except ValueError:  # the right form, but no day of the calendar, such as 2024-02-31
            return None
    return None


def parse(feed: Feed, key: str, body: bytes) -> pl.DataFrame:
    """The raw table of one object: the declared columns of `feed.dataset`, with `known_at_utc` unless `feed.kind` is `session`, and
    without `kept_for` where there is `feed.pieces`.

    Raises BadInputError naming key, row and what is wrong.
    """
    found = feed.pattern.fullmatch(key)
    if found is None:
        raise ValueError(f"{key} is no key of {feed.dataset.name}")
    file_date = date.fromisoformat(found["date"]) if feed.kind == "session" else None
    return feed.parse(key, body, file_date)
