"""What is kept of a stream of quotes: as the slow twin says, however the stream is cut, and enough for whoever reads quotes."""

from __future__ import annotations

from datetime import date
from itertools import pairwise
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from flowlake.core.sessions import close_utc
from flowlake.curate.conditions import policy_named
from flowlake.curate.contracts import contracts
from flowlake.curate.kept_quotes import KeptQuotes, print_times
from flowlake.curate.quotes import option_quotes_eod
from flowlake.curate.vendor_trades import option_trades
from flowlake.datasets import curated, raw
from flowlake.datasets.model import Inputs
from flowlake.datasets.policies import CONDITION_POLICY
from flowlake.datasets.raw_columns import KEPT_FOR
from flowlake.datasets.sides import QUOTE_SOURCES
from flowlake.flow.sides import trade_sides

SESSION = date(2024, 3, 13)
CLOSE = int(close_utc(SESSION).timestamp()) * 10**9
SOURCE = next(source for source in QUOTE_SOURCES if source.dataset == "massive_option_quotes")
TICKERS = ("O:SPY240315C00500000", "O:SPY240315P00500000", "O:AAPL1240315C00100000", "O:AAPL240315C00100000")
Row = dict[str, Any]

moments = st.one_of(st.integers(-6, 6), st.sampled_from([-120_000_000_000, -400_000_000_000])).map(lambda n: CLOSE + n)
prices = st.sampled_from([0.0, 1.0, 1.05, 1.1])
quotes = st.lists(
    st.fixed_dictionaries(
        {
            "ticker": st.sampled_from(TICKERS),
            "sip_timestamp": moments,
            "sequence_number": st.sampled_from([None, 1, 2]),
            "bid_price": prices,
            "ask_price": prices,
            "bid_size": st.just(5.0),
            "ask_size": st.just(9.0),
            "bid_exchange": st.just(302),
            "ask_exchange": st.just(302),
        }
    ),
    min_size=1,
    max_size=25,
)
prints = st.lists(st.tuples(st.sampled_from(TICKERS[:3]), moments), max_size=12)


def tape(trades: list[tuple[str, int]]) -> pl.DataFrame:
    rows = [
        {"ticker": ticker, "sip_timestamp": at, "price": 1.05, "size": 1.0, "conditions": "209", "exchange": 302, "row": i}
        for i, (ticker, at) in enumerate(trades)
    ]
    table = pl.DataFrame(rows, schema=raw.MASSIVE_OPTION_TRADES.polars_schema())
    return table.sort(raw.MASSIVE_OPTION_TRADES.sort_by).with_columns(session=pl.lit(SESSION))


def stream(rows: list[Row]) -> pl.DataFrame:
    schema = {name: dtype for name, dtype in raw.MASSIVE_OPTION_QUOTES.polars_schema().items() if name != KEPT_FOR.name}
    return pl.DataFrame([row | {"row": i} for i, row in enumerate(rows)], schema=schema)


def kept(table: pl.DataFrame, trades: list[tuple[str, int]], cuts: tuple[int, ...] = (), compact: int = 1_000_000) -> pl.DataFrame:
    times = print_times({"massive_option_trades": tape(trades)}, SESSION)
    found = KeptQuotes(SOURCE, times, SESSION, compact_rows=compact)
    bounds = sorted({0, table.height, *(min(cut, table.height) for cut in cuts)})
    for start, stop in pairwise(bounds):
        found.take(table[start:stop])
    assert found.taken == table.height
    return found.table().sort("row")


def slow(rows: list[Row], trades: list[tuple[str, int]]) -> dict[int, int]:
    """Row -> the moment that it is kept for, one question after another."""
    found: dict[int, int] = {}
    for ticker in TICKERS:
        order = lambda i: (rows[i]["sip_timestamp"], rows[i]["sequence_number"] or 0, i)  # noqa: E731
        mine = sorted((i for i, row in enumerate(rows) if row["ticker"] == ticker), key=order)
        asked = sorted({at for name, at in trades if name == ticker} | {CLOSE + 1})
        for moment in reversed(asked):
            if before := [i for i in mine if rows[i]["sip_timestamp"] < moment]:
                found[before[-1]] = moment
        if mine:
            found[mine[0]] = rows[mine[0]]["sip_timestamp"]
    return found


@settings(max_examples=300)
@given(quotes, prints, st.lists(st.integers(0, 25), max_size=4), st.sampled_from([1, 3, 1_000_000]))
def test_what_is_kept_is_what_the_slow_twin_keeps_however_the_stream_is_cut(
    rows: list[Row], trades: list[tuple[str, int]], cuts: list[int], compact: int
) -> None:
    found = kept(stream(rows), trades, tuple(cuts), compact)
    assert dict(found.select("row", KEPT_FOR.name).iter_rows()) == slow(rows, trades)
    assert found.drop(KEPT_FOR.name).equals(stream(rows).filter(pl.col("row").is_in(found["row"].implode())))


@given(quotes, prints, st.randoms(use_true_random=False))
def test_neither_the_order_of_the_file_nor_that_of_the_prints_matters(
    rows: list[Row], trades: list[tuple[str, int]], random: Any
) -> None:
    table = stream(rows)
    order = random.sample(range(table.height), table.height)
    assert kept(table[order], random.sample(trades, len(trades)), (5,)).equals(kept(table, trades))


@given(quotes, prints, moments)
def test_what_comes_later_changes_nothing_that_was_known(rows: list[Row], trades: list[tuple[str, int]], now: int) -> None:
    """Quotes and prints after a moment are taken away: what is kept for a moment until then stays as it was."""
    past = stream(rows).filter(pl.col("sip_timestamp") <= now)
    known = pl.col(KEPT_FOR.name) <= now
    then = kept(past, [(ticker, at) for ticker, at in trades if at <= now]) if past.height else None
    found = kept(stream(rows), trades).filter(known)
    assert found.height == 0 if then is None else found.equals(then.filter(known))


@settings(max_examples=150)
@given(quotes, prints)
def test_who_reads_quotes_is_answered_as_by_the_whole_stream(rows: list[Row], trades: list[tuple[str, int]]) -> None:
    whole = stream(rows).with_columns(pl.lit(0, dtype=pl.Int64).alias(KEPT_FOR.name))
    assert answers(kept(stream(rows), trades), trades) == answers(whole, trades)


def answers(table: pl.DataFrame, trades: list[tuple[str, int]]) -> list[list[tuple[Any, ...]]]:
    given: dict[str, pl.DataFrame] = {"massive_option_quotes": table.with_columns(session=pl.lit(SESSION))}
    if trades:
        given["massive_option_trades"] = tape(trades)
    with_master: Inputs = given | {"contracts": curated.CONTRACTS.conform(contracts(given, SESSION).tables["contracts"], SESSION)}
    eod = curated.OPTION_QUOTES_EOD.conform(option_quotes_eod(with_master, SESSION).tables["option_quotes_eod"], SESSION)
    told = [with_master["contracts"].rows(), eod.rows()]
    if trades:
        policy = {CONDITION_POLICY: policy_named("opra-massive").table()}
        made = option_trades(with_master | policy, SESSION).tables["option_trades"]
        printed = curated.OPTION_TRADES.conform(made, SESSION).with_columns(session=pl.lit(SESSION))
        told.append(trade_sides({**given, "option_trades": printed}, SESSION).tables["trade_sides"].rows())
    return told
