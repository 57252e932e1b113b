"""Real vendor files through their parsers and the curate steps."""

from __future__ import annotations

import math
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from flowlake.core.sessions import is_session
from flowlake.curate.bars import equity_bars_1m, option_bars_1d, option_bars_1m
from flowlake.curate.contracts import contracts
from flowlake.curate.open_interest import open_interest
from flowlake.curate.quotes import option_quotes_eod
from flowlake.curate.reference import corporate_actions, rates
from flowlake.curate.trades import option_trades
from flowlake.datasets import curated as declared
from flowlake.datasets import raw as raw_declared
from flowlake.datasets.model import Dataset, Inputs, Output
from flowlake.sources import feeds
from unit.vendor_files import kept

RAW = {dataset.name: dataset for dataset in raw_declared.RAW}
SAMPLE = date(2023, 3, 13)
MINUTE_DATES = [
    date(2013, 6, 28),
    date(2013, 7, 2),
    *(date(2014, 6, d) for d in (5, 6, 9)),
    *(date(2015, 12, d) for d in (23, 24, 28)),
    *(date(2021, 1, d) for d in (4, 5, 6, 7, 8, 14)),
    date(2023, 6, 26),
    date(2023, 8, 3),
]
SNAPSHOT_DATES = [
    day
    for day in (date(2026, month, d) for month, days in ((6, range(12, 31)), (7, range(1, 17))) for d in days)
    if is_session(day)
]


def read(folder: Path, key: str) -> tuple[str, pl.DataFrame, date | None]:
    found = feeds.match(key)
    assert found is not None, key
    return found.feed.dataset.name, feeds.parse(found.feed, key, (folder / key).read_bytes()), found.file_date


def session_inputs(folder: Path, session: date, *keys: str) -> Inputs:
    tables: dict[str, list[pl.DataFrame]] = {}
    for key in keys:
        name, table, file_date = read(folder, key)
        assert file_date == session
        tables.setdefault(name, []).append(table)
    whole = {name: kept(name, pl.concat(parts), session) for name, parts in tables.items()}
    raw = {name: with_session(RAW[name].conform(table, session), session) for name, table in whole.items()}
    master = checked(contracts(raw, session), declared.CONTRACTS, session)
    return raw | {"contracts": with_session(master, session)}


def with_session(table: pl.DataFrame, session: date) -> pl.DataFrame:
    return table.with_columns(session=pl.lit(session))


def checked(output: Output, dataset: Dataset, session: date) -> pl.DataFrame:
    """The published table; nothing may have been rejected, and every declared check must hold."""
    assert [f.what for f in output.findings if f.kind == "rejected"] == []
    table = dataset.conform(output.tables[dataset.name], session)
    for column in dataset.columns:
        for check in column.all_checks():
            assert table.filter(check.failing(column.name)).height == 0, (column.name, check.describe())
    for table_check in dataset.table_checks():
        assert table.filter(table_check.failing()).height == 0, table_check.describe()
    return table


def massive(kind: str, session: date) -> str:
    return f"{kind}/{session:%Y/%m}/{session}.csv.gz"


def test_the_sample_trades_reproduce_the_vendors_day_bar(real_data: Path) -> None:
    keys = (massive("us_options_opra/trades_v1", SAMPLE), massive("us_options_opra/day_aggs_v1", SAMPLE))
    inputs = session_inputs(real_data, SAMPLE, *keys)
    trades = checked(option_trades(inputs, SAMPLE), declared.OPTION_TRADES, SAMPLE)
    bar = checked(option_bars_1d(inputs, SAMPLE), declared.OPTION_BARS_1D, SAMPLE).row(0, named=True)
    counted = trades.filter("in_volume")
    prices = trades.filter("sets_price")["price"]
    assert counted["size"].sum() == bar["volume"] == 200
    assert counted.height == bar["transactions"] == 62
    assert (prices[0], prices.max(), prices.min(), prices[-1]) == (bar["open"], bar["high"], bar["low"], bar["close"])
    assert trades["condition_group"].value_counts().sort("condition_group").rows() == [
        ("auction", 20),
        ("iso", 1),
        ("multi_leg", 5),
        ("regular", 36),
    ]
    assert trades["premium_usd"].sum() == (trades["price"] * 100).round().cast(pl.Int64).dot(trades["size"])


@pytest.mark.parametrize("session", MINUTE_DATES, ids=str)
def test_minute_and_day_bars_of_real_dates(real_data: Path, session: date) -> None:
    keys = (massive("us_options_opra/minute_aggs_v1", session), massive("us_options_opra/day_aggs_v1", session))
    inputs = session_inputs(real_data, session, *keys)
    minutes = checked(option_bars_1m(inputs, session), declared.OPTION_BARS_1M, session)
    days = checked(option_bars_1d(inputs, session), declared.OPTION_BARS_1D, session)
    assert minutes.height == inputs["massive_option_minute"].height
    summed = minutes.group_by("contract").agg(pl.col("volume").sum()).sort("contract")
    assert summed.equals(days.select("contract", "volume").sort("contract"))


def test_strikes_after_a_split_and_saturday_expirations(real_data: Path) -> None:
    session = date(2014, 6, 9)
    master = session_inputs(real_data, session, massive("us_options_opra/day_aggs_v1", session))["contracts"]
    assert 99.29 in master["strike"].to_list()
    assert (master["strike_thousandths"] == (master["strike"] * 1000).round()).all()
    june = master.filter(pl.col("expiry") == date(2014, 6, 21))
    assert june.height > 0
    assert june["last_trading_session"].unique().to_list() == [date(2014, 6, 20)]


def test_regular_minutes_of_a_real_half_day(real_data: Path) -> None:
    session = date(2015, 12, 24)
    inputs = session_inputs(real_data, session, massive("us_stocks_sip/minute_aggs_v1", session))
    bars = checked(equity_bars_1m(inputs, session), declared.EQUITY_BARS_1M, session)
    regular = bars.filter("is_regular")["ts_utc"].dt.convert_time_zone("America/New_York").dt.strftime("%H:%M")
    assert (regular.min(), regular.max()) == ("09:30", "12:59")
    assert bars.filter(~pl.col("is_regular")).height > 0


def test_the_sample_quotes_give_the_last_of_the_file(real_data: Path) -> None:
    session = date(2023, 3, 28)
    inputs = session_inputs(real_data, session, massive("us_options_opra/quotes_v1", session))
    row = checked(option_quotes_eod(inputs, session), declared.OPTION_QUOTES_EOD, session).row(0, named=True)
    raw = inputs["massive_option_quotes"]
    last = raw.sort("sip_timestamp", "sequence_number").row(-1, named=True)
    assert (row["bid"], row["ask"]) == (last["bid_price"], last["ask_price"])


@pytest.mark.parametrize("session", SNAPSHOT_DATES, ids=str)
def test_snapshots_load_with_a_unique_contract_each(real_data: Path, session: date) -> None:
    inputs = session_inputs(real_data, session, *(f"cboe_snapshots/{u}/{session}.csv.gz" for u in ("SPX", "VIX")))
    rows = inputs["cboe_snapshot"]
    quotes = checked(option_quotes_eod(inputs, session), declared.OPTION_QUOTES_EOD, session)
    interest = checked(open_interest(inputs, session), declared.OPEN_INTEREST, session)
    assert rows.height == quotes.height == interest.height == inputs["contracts"].height
    assert set(quotes["root"]) == {"SPX", "SPXW", "VIX", "VIXW"}
    assert interest["open_interest_close"].sum() == rows["oi"].sum()
    inferred = quotes.filter("root_is_inferred")
    assert set(inferred["root"]) == {"SPX", "SPXW"}
    assert set(quotes.filter(pl.col("root") == "SPX")["expiry"]) <= set(inferred["expiry"])


@pytest.mark.parametrize("session", SNAPSHOT_DATES[:3], ids=str)
def test_the_calendar_finds_the_two_blocks_of_the_vix_file(real_data: Path, session: date) -> None:
    """The file of an underlying whose roots the calendar tells apart is written root by root: the rule used for SPX."""
    inputs = session_inputs(real_data, session, f"cboe_snapshots/VIX/{session}.csv.gz")
    rows = inputs["cboe_snapshot"].sort("row")
    block = (rows["dte"].diff() < 0).fill_null(value=False).cum_sum()
    dates = rows.with_columns(block=block).group_by("block").agg(pl.col("dte").unique()).sort("block")["dte"].to_list()
    master = inputs["contracts"].with_columns(dte=(pl.col("expiry") - pl.lit(session)).dt.total_days())
    for root, of_block in zip(("VIX", "VIXW"), dates, strict=True):
        assert set(master.filter(pl.col("root") == root)["dte"]) == set(of_block)


def test_contracts_that_settled_in_the_morning_have_no_quote(real_data: Path) -> None:
    """Independent evidence for the inferred roots: on its last day SPX has settled at the open, SPXW trades to the close."""
    session = date(2026, 6, 18)
    inputs = session_inputs(real_data, session, f"cboe_snapshots/SPX/{session}.csv.gz")
    quotes = checked(option_quotes_eod(inputs, session), declared.OPTION_QUOTES_EOD, session)
    today = quotes.filter(pl.col("expiry") == session)
    settled = today.filter(pl.col("root") == "SPX")
    trading = today.filter(pl.col("root") == "SPXW")
    assert (settled.height, trading.height) == (1113, 1001)
    assert settled["ask"].null_count() == settled.height
    assert trading["ask"].null_count() == 0


def known(folder: Path, session: date, *keys: str) -> dict[str, pl.DataFrame]:
    tables: dict[str, list[pl.DataFrame]] = {}
    for key in keys:
        name, table, _ = read(folder, key)
        tables.setdefault(name, []).append(table)
    return {
        name: with_session(RAW[name].conform(feeds.as_known(name, pl.concat(parts), session), session), session)
        for name, parts in tables.items()
    }


def test_splits_of_the_factor_files(real_data: Path) -> None:
    inputs = known(real_data, date(2021, 1, 4), "lean/factor_files/aapl.csv", "lean/factor_files/uso.csv")
    table = checked(corporate_actions(inputs, date(2021, 1, 4)), declared.CORPORATE_ACTIONS, date(2021, 1, 4))
    splits = table.filter(pl.col("kind") == "split").select("underlying", "ex_date", pl.col("ratio").round(3)).rows()
    assert ("AAPL", date(2014, 6, 9), 7.0) in splits
    assert ("AAPL", date(2020, 8, 31), 4.0) in splits
    assert ("USO", date(2020, 4, 29), 0.125) in splits
    assert table["ex_date"].max() <= date(2021, 1, 5)


def test_the_discount_rate_in_force(real_data: Path) -> None:
    session = date(2021, 1, 4)
    table = checked(rates(known(real_data, session, "lean/interest-rate.csv"), session), declared.RATES, session)
    assert table["rate"].item() == pytest.approx(math.log(1.0025))
