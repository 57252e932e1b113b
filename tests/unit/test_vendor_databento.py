"""Databento's OPRA files: records of every schema, symbols of the header, real fixtures, refusals."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, time, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import databento_dbn as dbn
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowlake.core.errors import BadInputError
from flowlake.core.sessions import at_et, close_utc
from flowlake.curate.vendor_codes import DATABENTO_VENUES
from flowlake.sources.contracts import midnight_ns
from unit.vendor_files import curated, parsed, raw_tables, refusal, rejected

DAY = date(2025, 2, 20)
CALL, PUT = "AAPL  250221C00250000", "SPXW  250221P06100000"
IDS = {CALL: 16783963, PUT: 42}
FIRST = midnight_ns(DAY)
OPEN_NS = FIRST + int(9.5 * 3600) * 10**9
FIXTURES = "databento/OPRA.PILLAR/test_data.{}.dbn.zst"


def key(schema: str, day: date = DAY) -> str:
    return f"databento/OPRA.PILLAR/{schema}/{day:%Y/%m}/{day}.dbn.zst"


def compressed(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def header(
    schema: str,
    *,
    ids: dict[str, int] | None = None,
    dataset: str = "OPRA.PILLAR",
    by_id: bool = False,
    first: date = DAY,
    last: date = DAY + timedelta(days=1),
    version: int = 3,
) -> bytes:
    named = IDS if ids is None else ids
    pairs = [(str(number), symbol) if by_id else (symbol, str(number)) for symbol, number in named.items()]
    mappings = [
        SimpleNamespace(raw_symbol=name, intervals=[SimpleNamespace(start_date=first, end_date=last, symbol=other)])
        for name, other in pairs
    ]
    metadata = dbn.Metadata(
        dataset,
        FIRST,
        dbn.SType.INSTRUMENT_ID if by_id else dbn.SType.RAW_SYMBOL,
        dbn.SType.RAW_SYMBOL if by_id else dbn.SType.INSTRUMENT_ID,
        dbn.Schema.from_str(schema),
        symbols=[name for name, _ in pairs],
        mappings=mappings,
        version=version,
    )
    return metadata.encode()


def file(schema: str, records: Sequence[Any], **more: Any) -> bytes:
    return compressed(header(schema, **more) + b"".join(bytes(record) for record in records))


def trade(
    ts: int = OPEN_NS, price: int = 240_000_000, size: int = 3, venue: int = 23, symbol: str = CALL, action: str = "T"
) -> Any:
    return dbn.TradeMsg(venue, IDS[symbol], ts, price, size, dbn.Action(action), dbn.Side.NONE, 0, ts + 209_000, sequence=7)


def consolidated(bid: int, ask: int, ts: int = OPEN_NS) -> Any:
    levels: Any = dbn.ConsolidatedBidAskPair(bid, ask, 11, 12, 20, 21)
    return dbn.CMBP1Msg(177, 23, IDS[CALL], ts, 240_000_000, 3, dbn.Action.TRADE, dbn.Side.NONE, ts + 1, levels=levels)


def quote(ts: int, bid: int = 320_000_000, ask: int = 340_000_000) -> Any:
    levels: Any = dbn.ConsolidatedBidAskPair(bid, ask, 104, 132, 29, 23)
    return dbn.CBBOMsg(193, 30, IDS[CALL], dbn.UNDEF_TIMESTAMP, dbn.UNDEF_PRICE, 0, dbn.Side.NONE, ts, levels=levels)


def bar(venue: int, prices: tuple[float, float, float, float], volume: int, ts: int = OPEN_NS, rtype: int = 33) -> Any:
    return dbn.OHLCVMsg(rtype, venue, IDS[CALL], ts, *(round(p * 10**9) for p in prices), volume)


def statistic(quantity: int, venue: int = 37, kind: Any = None, action: Any = None, symbol: str = CALL) -> Any:
    ts = FIRST + int(6.5 * 3600) * 10**9
    return dbn.StatMsg(
        venue, IDS[symbol], ts, ts + 5, dbn.UNDEF_TIMESTAMP, dbn.UNDEF_PRICE, quantity,
        kind or dbn.StatType.OPEN_INTEREST, update_action=action or dbn.StatUpdateAction.NEW,
    )  # fmt: skip


def definition(symbol: str = CALL, strike: float = 250.0, right: Any = None, expiry: date = date(2025, 2, 21)) -> Any:
    expires = (expiry - date(1970, 1, 1)).days * 86_400 * 10**9
    return dbn.InstrumentDefMsg(
        30, 99, FIRST + 1, FIRST + 2, dbn.UNDEF_PRICE, dbn.UNDEF_PRICE, symbol, "AAPL", "OPT",
        right or dbn.InstrumentClass.CALL, dbn.SecurityUpdateAction.ADD, expiration=expires,
        strike_price=round(strike * 10**9), underlying="AAPL",
    )  # fmt: skip


# Real files ----------------------------------------------------------------------------------------------------------------------


def real(real_data: Path, schema: str) -> tuple[str, bytes]:
    return key(schema), (real_data / FIXTURES.format(schema)).read_bytes()


def test_real_trades_have_a_contract_a_venue_and_no_condition(real_data: Path) -> None:
    raw = raw_tables(DAY, real(real_data, "trades"))
    table, findings = curated("option_trades", DAY, raw)
    assert rejected(findings) == {}
    assert table["contract"].unique().to_list() == ["AAPL250221C00250000"]
    assert table["price"].to_list() == [0.24, 0.2, 0.19, 0.19]
    assert table["size"].to_list() == [1, 2, 1, 4]
    assert table["exchange"].to_list() == [303, 308, 308, 320]
    assert table["condition"].to_list() == [0] * 4
    assert table["condition_group"].unique().to_list() == ["unreported"]
    assert not table["may_be_signed"].any()
    assert table["ts_utc"][0].isoformat() == "2025-02-20T14:30:00.817657+00:00"
    assert next(f.cure for f in findings if f.rule == "blank_condition").startswith("nothing to do")
    assert all("massive" not in f.what for f in findings)


def test_real_tbbo_is_the_same_prints_with_the_venues_own_quote(real_data: Path) -> None:
    trades = parsed(*real(real_data, "trades"))[1]
    beside = parsed(*real(real_data, "tbbo"))[1]
    quote_columns = ["bid_price", "ask_price", "bid_size", "ask_size", "quote_scope"]
    assert beside.drop(quote_columns).equals(trades.drop(quote_columns))
    assert beside.select(quote_columns).row(0) == (0.24, 0.25, 1.0, 4.0, "venue")
    assert trades["quote_scope"].null_count() == trades["bid_price"].null_count() == 4


@pytest.mark.parametrize("schema", ["cbbo-1s", "cbbo-1m"])
def test_real_quotes_begin_without_a_side(real_data: Path, schema: str) -> None:
    raw = raw_tables(DAY, real(real_data, schema))
    quotes = raw["databento_option_quotes"].sort("row")
    assert quotes.select("bid_price", "ask_price", "bid_size", "ask_size", "ts_event").row(0) == (None,) * 5
    table, findings = curated("option_quotes_eod", DAY, raw)
    assert rejected(findings) == {}
    last = quotes.row(-1, named=True)
    assert table.select("bid", "ask", "source").row(0) == (last["bid_price"], last["ask_price"], "databento_option_quotes")


def test_real_bars_of_several_venues_are_one_bar(real_data: Path) -> None:
    raw = raw_tables(DAY, real(real_data, "ohlcv-1m"))
    table, findings = curated("option_bars_1m", DAY, raw)
    assert rejected(findings) == {}
    # MPRL, XBXO, MXOP and XCBO in the minute of the open; XCBO has the most volume.
    assert table.select("open", "high", "low", "close", "volume").row(0) == (0.19, 0.38, 0.19, 0.35, 189)
    days, findings = curated("option_bars_1d", DAY, raw_tables(DAY, real(real_data, "ohlcv-1d")))
    assert rejected(findings) == {}
    assert days.select("open", "high", "low", "close", "volume").row(0) == (0.19, 0.49, 0.1, 0.11, 3474 + 8223 + 2750 + 1414)


def test_real_open_interest_is_of_the_session_before_and_counts_once(real_data: Path) -> None:
    raw = raw_tables(DAY, real(real_data, "statistics"))
    table, findings = curated("open_interest", DAY, raw)
    assert findings == ()
    row = table.row(0, named=True)
    assert (table.height, row["open_interest_close"], row["oi_session"]) == (1, 57_924, date(2025, 2, 19))
    assert row["known_at_utc"] == at_et(DAY, time(6, 30))


def test_real_definitions_feed_the_contract_master(real_data: Path) -> None:
    raw = raw_tables(DAY, real(real_data, "definition"))
    table, findings = curated("contracts", DAY, raw)
    assert findings == ()
    assert table.select("contract", "underlying", "strike", "expiry").row(0) == (
        "AAPL250221C00250000", "AAPL", 250.0, date(2025, 2, 21),
    )  # fmt: skip


@pytest.mark.parametrize("schema", ["mbp-1", "ohlcv-1h", "ohlcv-1s"])
def test_real_schemas_that_feed_nothing_are_refused_by_name(real_data: Path, schema: str) -> None:
    error = refusal(key("trades"), real(real_data, schema)[1])
    assert error.rule == "wrong_schema"
    assert schema in error.detail


# Layouts -------------------------------------------------------------------------------------------------------------------------

PRICES = st.integers(10_000_000, 10**13) | st.just(dbn.UNDEF_PRICE)


@given(
    st.lists(
        st.tuples(
            st.integers(FIRST, FIRST + 86_399 * 10**9), PRICES, st.integers(0, 2**32 - 1),
            st.sampled_from(sorted(DATABENTO_VENUES)), st.sampled_from(sorted(IDS)), st.sampled_from("TAC"),
        ),
        min_size=1,
        max_size=8,
    )
)  # fmt: skip
def test_trades_round_trip(rows: list[tuple[int, int, int, int, str, str]]) -> None:
    body = file("trades", [trade(*row) for row in rows])
    table = parsed(key("trades"), body)[1]
    assert table["ts_event"].to_list() == [row[0] for row in rows]
    assert table["price"].to_list() == [None if row[1] == dbn.UNDEF_PRICE else row[1] / 10**9 for row in rows]
    assert table["size"].to_list() == [float(row[2]) for row in rows]
    assert table["publisher_id"].to_list() == [row[3] for row in rows]
    assert table["ticker"].to_list() == ["O:" + row[4].replace(" ", "") for row in rows]
    assert table["action"].to_list() == [row[5] for row in rows]
    assert table["row"].to_list() == list(range(len(rows)))
    assert parsed(key("trades"), body)[1].equals(table)


@given(st.binary(max_size=200), st.integers(0, 400))
def test_damaged_bytes_are_refused_with_one_of_our_errors(noise: bytes, at: int) -> None:
    whole = header("trades") + bytes(trade()) * 3
    torn = whole[:at] + noise + whole[at:][: max(0, 300 - at)]
    for body in (noise, torn, compressed(torn)):
        try:
            table = parsed(key("trades"), body)[1]
        except BadInputError:
            continue
        assert table.height > 0


def test_a_file_may_be_plain_and_named_as_databento_names_it() -> None:
    body = header("trades") + bytes(trade())
    name, table = parsed("databento/OPRA.PILLAR/OPRA-20250221-ABCDEF/opra-pillar-20250220.trades.dbn", body)
    assert (name, table.height) == ("databento_option_trades", 1)


def test_the_header_may_map_ids_to_symbols_in_either_direction() -> None:
    one, other = (parsed(key("trades"), file("trades", [trade()], by_id=by_id))[1] for by_id in (False, True))
    assert one.equals(other)


def test_an_id_is_looked_up_on_the_date_of_the_file() -> None:
    later = {"first": DAY + timedelta(days=1), "last": DAY + timedelta(days=9)}
    assert refusal(key("trades"), file("trades", [trade()], **later)).rule == "no_symbols"
    assert parsed(key("trades"), file("trades", [trade()], last=DAY + timedelta(days=30)))[1].height == 1


def test_an_id_that_the_header_lacks_is_rejected_alone() -> None:
    body = file("trades", [trade(), trade(symbol=PUT), *[trade()] * 200], ids={CALL: IDS[CALL]})
    table, findings = curated("option_trades", DAY, raw_tables(DAY, (key("trades"), body)))
    assert table.height == 201
    assert rejected(findings) == {"impossible_contract": 1}
    assert "instrument 42" in str([f.rows for f in findings if f.rows is not None])


def test_what_is_no_trade_is_no_print_and_a_print_without_a_price_is_rejected() -> None:
    body = file("trades", [trade(), trade(action="C"), trade(price=dbn.UNDEF_PRICE)])
    table, findings = curated("option_trades", DAY, raw_tables(DAY, (key("trades"), body)))
    assert table.height == 1
    assert rejected(findings) == {"price_not_positive": 1}


def test_the_quote_of_all_venues_stands_beside_the_trade_in_tcbbo() -> None:
    body = file("tcbbo", [consolidated(230_000_000, 250_000_000), consolidated(dbn.UNDEF_PRICE, 250_000_000)])
    table = parsed(key("tcbbo"), body)[1]
    columns = ("bid_price", "ask_price", "bid_size", "ask_size", "quote_scope")
    assert table.select(columns).rows() == [(0.23, 0.25, 11.0, 12.0, "consolidated"), (None, 0.25, None, 12.0, "consolidated")]


def test_the_last_quote_before_the_close_counts() -> None:
    close = int(close_utc(DAY).timestamp()) * 10**9
    body = file("cbbo-1m", [quote(close - 60 * 10**9, 10**8), quote(close, 2 * 10**8), quote(close + 60 * 10**9, 3 * 10**8)])
    table, _ = curated("option_quotes_eod", DAY, raw_tables(DAY, (key("cbbo-1m"), body)))
    assert table.select("bid", "ask").row(0) == (0.2, 0.34)


def test_the_consolidated_bar_wins_over_those_of_venues() -> None:
    bars = [bar(20, (1, 3, 1, 2), 50), bar(30, (1, 4, 0.5, 3), 70), bar(22, (2, 4, 0.5, 3), 20)]
    table, _ = curated("option_bars_1m", DAY, raw_tables(DAY, (key("ohlcv-1m"), file("ohlcv-1m", bars))))
    assert table.select("open", "high", "low", "close", "volume").rows() == [(1.0, 4.0, 0.5, 3.0, 70)]


def test_the_order_of_the_records_changes_no_bar() -> None:
    bars = [bar(venue, (1 + venue / 10, 9, 1, 2 + venue / 10), 50) for venue in (20, 22, 23, 24)]
    one, other = (
        curated("option_bars_1m", DAY, raw_tables(DAY, (key("ohlcv-1m"), file("ohlcv-1m", order))))[0]
        for order in (bars, bars[::-1])
    )
    assert one.equals(other)
    assert one["open"].to_list() == [3.0]


def test_open_interest_that_venues_disagree_on_is_left_out() -> None:
    rows = [statistic(5), statistic(6, venue=31), statistic(9, symbol=PUT), statistic(1, kind=dbn.StatType.CLEARED_VOLUME)]
    table, findings = curated("open_interest", DAY, raw_tables(DAY, (key("statistics"), file("statistics", rows))))
    assert table.select("contract", "open_interest_close").rows() == [("SPXW250221P06100000", 9)]
    assert rejected(findings) == {"contradictory_rows": 2}


def test_a_deleted_statistic_does_not_count() -> None:
    rows = [statistic(5), statistic(7, action=dbn.StatUpdateAction.DELETE)]
    table, _ = curated("open_interest", DAY, raw_tables(DAY, (key("statistics"), file("statistics", rows))))
    assert table["open_interest_close"].to_list() == [5]


def test_statistics_of_the_first_version_count_in_32_bits() -> None:
    ts = FIRST + 1
    records = [
        dbn.StatMsgV1(37, IDS[CALL], ts, ts, dbn.UNDEF_TIMESTAMP, dbn.UNDEF_PRICE, q, dbn.StatType.OPEN_INTEREST)
        for q in (77, 2**31 - 1)
    ]
    table = parsed(key("statistics"), file("statistics", records, version=1))[1]
    assert table["quantity"].to_list() == [77, None]


def test_a_definition_that_contradicts_its_own_symbol_names_no_contract() -> None:
    rows = [definition(), definition(strike=251.0), definition(right=dbn.InstrumentClass.PUT), definition(expiry=DAY)]
    table, findings = curated("contracts", DAY, raw_tables(DAY, (key("definition"), file("definition", rows))))
    assert table["contract"].to_list() == ["AAPL250221C00250000"]
    assert rejected(findings) == {"impossible_contract": 3}


# Refusals ------------------------------------------------------------------------------------------------------------------------


def test_refusals() -> None:
    good = file("trades", [trade()] * 4)
    plain = header("trades") + bytes(trade()) * 4
    k = key("trades")
    assert refusal(k, b"").rule == "empty_file"
    assert refusal(k, good[:-5]).rule == "truncated_zstd"
    assert refusal(k, good[:40] + bytes(20) + good[60:]).rule in ("corrupt_zstd", "truncated_zstd")
    assert refusal(k, b"ticker,price\n").rule == "not_dbn"
    assert refusal(k, plain[:30]).rule == "not_dbn"
    assert refusal(k, header("trades")).rule == "empty_file"
    assert refusal(k, plain[:-5]).rule == "truncated_record"
    assert refusal(k, file("trades", [trade()], dataset="XNAS.ITCH")).rule == "wrong_dataset"
    assert refusal(key("tbbo"), file("tbbo", [trade()])).rule == "truncated_record"
    assert refusal(key("tbbo"), file("tbbo", [trade()] * 5)).rule == "mixed_records"
    assert refusal(k, file("ohlcv-1d", [bar(20, (1, 1, 1, 1), 1)])).rule == "wrong_schema"
    assert refusal(k, file("trades", [trade()], ids={})).rule == "no_symbols"
    assert refusal(key("trades", date(2025, 2, 21)), file("trades", [trade()] * 3, last=DAY + timedelta(9))).rule == "wrong_date"
    mixed = refusal(k, plain + bytes(quote(OPEN_NS)))
    assert (mixed.rule, mixed.place) == ("mixed_records", f"{k}, row 4")


def test_a_newer_version_is_refused_and_says_so() -> None:
    body = bytearray(header("trades") + bytes(trade()))
    body[3] = 9
    assert refusal(key("trades"), bytes(body)).rule == "wrong_version"


def test_a_stray_record_of_another_date_is_left_to_curation() -> None:
    body = file("trades", [trade()] * 300 + [trade(ts=OPEN_NS - 86_400 * 10**9)])
    table, findings = curated("option_trades", DAY, raw_tables(DAY, (key("trades"), body)))
    assert table.height == 300
    assert rejected(findings) == {"outside_session_date": 1}
