"""Which key of the bucket feeds which raw dataset, and how its bytes are read."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Literal

import polars as pl

from flowlake.datasets import raw
from flowlake.datasets.model import Dataset
from flowlake.sources import cboe, house, lean, massive
from flowlake.sources.knowledge import as_known

__all__ = ["FEEDS", "Feed", "FeedMatch", "as_known", "match", "parse"]

Parser = Callable[[str, bytes, date | None], pl.DataFrame]


@dataclass(frozen=True)
class Feed:
    """A family of keys that feeds one raw dataset.

    `session`: the key carries the session's date, and the table lacks `known_at_utc`. `reference`: one table for all sessions,
    with `known_at_utc`; `as_known` cuts it for a session.
    """

    dataset: Dataset
    kind: Literal["session", "reference"]
    pattern: re.Pattern[str]
    parse: Parser


@dataclass(frozen=True)
class FeedMatch:
    feed: Feed
    file_date: date | None


_BY_MONTH = r"(?P<year>\d{4})/(?P<month>\d{2})/(?P<date>(?P=year)-(?P=month)-\d{2})"
_CSV = r"\.csv(?:\.gz)?"


def _daily(folder: str, dataset: Dataset, parse: Parser) -> Feed:
    return Feed(dataset, "session", re.compile(f"{folder}/{_BY_MONTH}{_CSV}"), parse)


def _reference(path: str, dataset: Dataset, parse: Parser) -> Feed:
    return Feed(dataset, "reference", re.compile(f"{path}{_CSV}"), parse)


FEEDS = (
    _daily("us_options_opra/trades_v1", raw.MASSIVE_OPTION_TRADES, massive.option_trades),
    _daily("us_options_opra/quotes_v1", raw.MASSIVE_OPTION_QUOTES, massive.option_quotes),
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
    ),
    _daily("reference/open_interest", raw.OPEN_INTEREST_FILE, house.open_interest),
    _reference("reference/corporate_actions", raw.CORPORATE_ACTIONS_FILE, house.corporate_actions),
    _reference("reference/rates", raw.RATES_FILE, house.rates),
    _reference("reference/contract_roots", raw.CONTRACT_ROOTS_FILE, house.contract_roots),
    _reference(r"lean/factor_files/[A-Za-z0-9._-]+", raw.LEAN_EVENTS, lean.factor_events),
    _reference(r"lean/map_files/[A-Za-z0-9._-]+", raw.LEAN_EVENTS, lean.map_events),
    _reference("lean/interest-rate", raw.LEAN_INTEREST_RATE, lean.interest_rate),
)


def match(key: str) -> FeedMatch | None:
    """The feed of a key (relative to the bucket's prefix) and the date in it; None for a key that feeds nothing."""
    for feed in FEEDS:
        found = feed.pattern.fullmatch(key)
        if found is None:
            continue
        if feed.kind == "reference":
            return FeedMatch(feed, None)
        try:
            return FeedMatch(feed, date.fromisoformat(found["date"]))
        except ValueError:  # the right form, but no day of the calendar, such as 2024-02-31
            return None
    return None


def parse(feed: Feed, key: str, body: bytes) -> pl.DataFrame:
    """The raw table of one object: the declared columns of `feed.dataset`, with `known_at_utc` if `feed.kind` is `reference`.

    Raises BadInputError naming key, row and what is wrong.
    """
    found = feed.pattern.fullmatch(key)
    if found is None:
        raise ValueError(f"{key} is no key of {feed.dataset.name}")
    file_date = date.fromisoformat(found["date"]) if feed.kind == "session" else None
    return feed.parse(key, body, file_date)
