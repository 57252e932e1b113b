"""Contract symbols go there and back; the order in which rows arrive never shows; cancels match as many prints as can be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from typing import Any

import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowlake.core.sessions import close_utc, open_utc
from flowlake.curate.bars import equity_bars_1m, option_bars_1d
from flowlake.curate.conditions import decode
from flowlake.curate.contracts import contracts
from flowlake.curate.expiries import FIRST_EXPIRY, LAST_EXPIRY
from flowlake.curate.open_interest import open_interest
from flowlake.curate.quotes import option_quotes_eod
from flowlake.curate.reference import corporate_actions
from flowlake.curate.symbols import contract_symbol, parse_tickers
from flowlake.curate.timestamps import nanoseconds
from flowlake.curate.trades import option_trades
from flowlake.datasets import curated as declared
from flowlake.datasets import raw as source
from flowlake.datasets.model import Dataset, Inputs, Output

SESSION = date(2026, 6, 15)
OPEN_NS = nanoseconds(open_utc(SESSION))
CLOSE_NS = nanoseconds(close_utc(SESSION))
Row = dict[str, Any]
Step = Callable[[Inputs, date], Output]

fast = settings(max_examples=60, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
roots = st.from_regex(r"\A[A-Z][A-Z0-9.]{0,8}\Z")
tickers = st.sampled_from(
    ["O:SPY260717C00600000", "O:SPY260717P00600000", "O:GOOG1260618C00200000", "O:SPX260618C07500000", "junk"]
)


@fast
@given(
    root=roots,
    expiry=st.dates(FIRST_EXPIRY, LAST_EXPIRY),
    right=st.sampled_from("CP"),
    thousandths=st.integers(1, 99_999_999),
)
def test_symbol_round_trip(root: str, expiry: date, right: str, thousandths: int) -> None:
    fields = pl.DataFrame({"root": [root], "expiry": [expiry], "right": [right], "strike_thousandths": [thousandths]}).with_columns(
        symbol=contract_symbol(*map(pl.col, ("root", "expiry", "right", "strike_thousandths")))
    )
    parsed = parse_tickers("O:" + fields["symbol"])
    assert parsed["problem"].item() is None
    assert parsed.select("root", "expiry", "right", "strike_thousandths", "contract").row(0) == fields.row(0)
    assert round(parsed["strike"].item() * 1000) == thousandths


@fast
@given(texts=st.lists(st.one_of(st.text(max_size=30), st.from_regex(r"\A(O:)?[A-Z]{0,4}[0-9]{4,7}[CP][0-9]{7,9}\Z"))))
def test_any_text_is_a_contract_or_has_a_problem(texts: list[str]) -> None:
    parsed = parse_tickers(pl.Series(texts, dtype=pl.String))
    assert parsed["ticker"].to_list() == sorted(set(texts))
    assert (parsed["problem"].is_null() == parsed["contract"].is_not_null()).all()
    good = parsed.filter(pl.col("problem").is_null())
    assert good["ticker"].to_list() == ("O:" + good["contract"]).to_list()


@fast
@given(text=st.one_of(st.none(), st.text(max_size=20), st.lists(st.integers(0, 260)).map(lambda x: ",".join(map(str, x)))))
def test_any_condition_text_decodes(text: str | None) -> None:
    row = decode(pl.Series([text], dtype=pl.String)).row(0, named=True)
    assert None not in [value for name, value in row.items() if name != "conditions"]
    assert not (row["may_be_signed"] and (row["is_multi_leg"] or row["is_cancel"] or not row["in_volume"]))


def trade_rows() -> st.SearchStrategy[Row]:
    return st.fixed_dictionaries(
        {
            "ticker": tickers,
            "conditions": st.sampled_from(["209", "232", "219,202", "201", "207", "999", None]),
            "exchange": st.sampled_from([300, 302]),
            "participant_timestamp": st.sampled_from([None, OPEN_NS]),
            "price": st.sampled_from([0.0, 1.5]),
            "sip_timestamp": st.integers(0, 4).map(lambda ms: OPEN_NS + ms * 10**6),
            "size": st.sampled_from([1.0, 1.5, 2.0]),
        }
    )


def bar_rows(names: st.SearchStrategy[str]) -> st.SearchStrategy[Row]:
    return st.fixed_dictionaries(
        {
            "ticker": names,
            "volume": st.sampled_from([1.0, 1.5, -1.0]),
            "open": st.just(1.0),
            "close": st.just(2.0),
            "high": st.sampled_from([2.0, 2.0, 1.5]),
            "low": st.just(1.0),
            "window_start": st.sampled_from([OPEN_NS, OPEN_NS + 60 * 10**9]),
        }
    )


def quote_rows() -> st.SearchStrategy[Row]:
    return st.fixed_dictionaries(
        {
            "ticker": tickers,
            "ask_price": st.sampled_from([0.0, 1.0, 2.0]),
            "ask_size": st.sampled_from([1.0, 5.0]),
            "bid_price": st.sampled_from([0.0, 1.5]),
            "bid_size": st.sampled_from([1.0, 5.0]),
            "sequence_number": st.sampled_from([None, 1, 2]),
            "sip_timestamp": st.sampled_from([CLOSE_NS - 10**9, CLOSE_NS, CLOSE_NS + 10**9]),
        }
    )


def snapshot_rows() -> st.SearchStrategy[Row]:
    return st.fixed_dictionaries(
        {
            "underlying": st.sampled_from(["SPX", "VIX", "AAPL"]),
            "strike": st.sampled_from([100.0, 7500.0]),
            "dte": st.sampled_from([-1, 1, 2, 3, 32]),
            "cp": st.sampled_from("CP"),
            "oi": st.sampled_from([-1, 0, 7]),
            "gamma": st.just(0.01),
            "delta": st.just(0.5),
            "iv": st.sampled_from([0.0, 0.2]),
            "bid": st.sampled_from([0.0, 1.0, 3.0]),
            "ask": st.sampled_from([0.0, 2.0]),
            "spot": st.just(7500.0),
            "captured_at": st.sampled_from(["2026-06-15 23:42:49", "2026-06-15 12:00:00", "?"]),
        }
    )


def event_rows() -> st.SearchStrategy[Row]:
    return st.fixed_dictionaries(
        {
            "underlying": st.sampled_from(["A", "B"]),
            "ex_date": st.just(date(2026, 6, 1)),
            "kind": st.sampled_from(["split", "cash_dividend", "symbol_change"]),
            "ratio": st.sampled_from([None, 0.0, 2.0]),
            "cash_amount_usd": st.sampled_from([None, -1.0, 0.5]),
            "new_symbol": st.sampled_from([None, "C"]),
            "known_at_utc": st.just(datetime(2026, 6, 1, tzinfo=UTC)),
        }
    )


def frame(dataset: Dataset, rows: Sequence[Row]) -> pl.DataFrame:
    numbered = [{"row": i, **row} for i, row in enumerate(rows)] if "row" in dataset.column_names else rows
    return pl.DataFrame(numbered, schema=dataset.polars_schema()).with_columns(session=pl.lit(SESSION))


def published(step: Step, dataset: Dataset, raw: Dataset, rows: pl.DataFrame) -> tuple[pl.DataFrame, list[Any]]:
    inputs = {raw.name: rows}
    master = contracts(inputs, SESSION) if raw.name != "corporate_actions_file" and "stock" not in raw.name else None
    if master is not None:
        inputs["contracts"] = declared.CONTRACTS.conform(master.tables["contracts"], SESSION)
    output = step(inputs, SESSION)
    found = [*(master.findings if master else ()), *output.findings]
    facts = [(f.rule, f.what, None if f.rows is None else f.rows.rows()) for f in found]
    return dataset.conform(output.tables[dataset.name], SESSION), facts


CASES: list[tuple[Step, Dataset, Dataset, st.SearchStrategy[Row]]] = [
    (contracts, declared.CONTRACTS, source.CBOE_SNAPSHOT, snapshot_rows()),
    (option_trades, declared.OPTION_TRADES, source.MASSIVE_OPTION_TRADES, trade_rows()),
    (option_bars_1d, declared.OPTION_BARS_1D, source.MASSIVE_OPTION_DAY, bar_rows(tickers)),
    (equity_bars_1m, declared.EQUITY_BARS_1M, source.MASSIVE_STOCK_MINUTE, bar_rows(st.sampled_from(["A", "B"]))),
    (option_quotes_eod, declared.OPTION_QUOTES_EOD, source.MASSIVE_OPTION_QUOTES, quote_rows()),
    (option_quotes_eod, declared.OPTION_QUOTES_EOD, source.CBOE_SNAPSHOT, snapshot_rows()),
    (open_interest, declared.OPEN_INTEREST, source.CBOE_SNAPSHOT, snapshot_rows()),
    (corporate_actions, declared.CORPORATE_ACTIONS, source.CORPORATE_ACTIONS_FILE, event_rows()),
]


@settings(fast, max_examples=200)
@given(data=st.data(), case=st.sampled_from(CASES))
def test_the_order_of_the_rows_never_shows(
    data: st.DataObject, case: tuple[Step, Dataset, Dataset, st.SearchStrategy[Row]]
) -> None:
    step, dataset, raw, one_row = case
    rows = frame(raw, data.draw(st.lists(one_row, max_size=14)))
    order = data.draw(st.permutations(range(rows.height)))
    table, facts = published(step, dataset, raw, rows)
    shuffled, shuffled_facts = published(step, dataset, raw, rows[order])
    assert table.equals(shuffled)
    assert facts == shuffled_facts


@settings(fast, max_examples=100)
@given(data=st.data(), case=st.sampled_from(CASES))
def test_what_is_published_keeps_every_declared_check(
    data: st.DataObject, case: tuple[Step, Dataset, Dataset, st.SearchStrategy[Row]]
) -> None:
    step, dataset, raw, one_row = case
    table, _ = published(step, dataset, raw, frame(raw, data.draw(st.lists(one_row, max_size=14))))
    for column in dataset.columns:
        for check in column.all_checks():
            assert table.filter(check.failing(column.name)).height == 0, (column.name, check.describe())
    for table_check in dataset.table_checks():
        assert table.filter(table_check.failing()).height == 0, table_check.describe()


@fast
@given(events=st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=16))
def test_no_pairing_cancels_more_prints_and_no_row_is_lost(events: list[tuple[int, bool]]) -> None:
    rows = [
        {
            "ticker": "O:SPY260717C00600000",
            "conditions": "201" if is_cancel else "209",
            "exchange": 300,
            "price": 1.0,
            "sip_timestamp": OPEN_NS + second * 10**9,
            "size": 1.0,
        }
        for second, is_cancel in events
    ]
    raw = source.MASSIVE_OPTION_TRADES
    table, facts = published(option_trades, declared.OPTION_TRADES, raw, frame(raw, rows))
    matched = table["is_cancelled"].sum()
    unmatched = sum(len(shown) for rule, _, shown in facts if rule == "unmatched_cancel")
    assert table.height + matched + unmatched == len(events)
    # Best possible: walk the cancels by time, each may use any strictly earlier print; pairs are interchangeable.
    free = 0
    best = 0
    for second in range(10):
        here = [is_cancel for moment, is_cancel in events if moment == second]
        used = min(free, sum(here))
        best += used
        free += len(here) - sum(here) - used
    assert matched == best
