"""Cboe DataShop trades and end-of-day files: columns, New York times, cancels, the cells of single exchanges, refusals."""

from __future__ import annotations

import gzip
import io
import zipfile
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowlake.core.sessions import at_et, close_utc
from flowlake.curate.vendor_codes import DATASHOP_CONDITIONS, DATASHOP_EXCHANGES
from unit.vendor_files import curated, parsed, raw_tables, refusal, rejected

DAY = date(2024, 3, 5)
TRADES = "cboe_datashop/option_trades/2024/03/UnderlyingOptionsTradesCalcs_2024-03-05.csv"
EOD = "cboe_datashop/option_eod/2024/03/UnderlyingOptionsEODCalcs_2024-03-05.zip"
TRADE_COLUMNS = (
    "underlying_symbol,quote_datetime,sequence_number,root,expiration,strike,option_type,exchange_id,trade_size,trade_price,"
    "trade_condition_id,canceled_trade_condition_id,best_bid,best_ask,trade_iv,trade_delta,underlying_bid,underlying_ask"
)
REGIONAL = ",number_of_exchanges,{exchange,bid_size,bid,ask_size,ask}[number_of_exchanges]"
EOD_COLUMNS = (
    "underlying_symbol,quote_date,root,expiration,strike,option_type,open,high,low,close,trade_volume,bid_size_1545,bid_1545,"
    "ask_size_1545,ask_1545,underlying_bid_1545,underlying_ask_1545,implied_underlying_price_1545,active_underlying_price_1545,"
    "implied_volatility_1545,delta_1545,gamma_1545,theta_1545,vega_1545,rho_1545,bid_size_eod,bid_eod,ask_size_eod,ask_eod,"
    "underlying_bid_eod,underlying_ask_eod,vwap,open_interest"
)


def trade(
    time: str = "10:00:00.123", size: int = 2, price: str = "1.25", condition: int = 18, venue: int = 5, quote: str = "1.2,1.3"
) -> str:
    return f"SPY,2024-03-05 {time},77,SPY,2024-03-15,510.000,C,{venue},{size},{price},{condition},0,{quote},0.15,0.51,512.10,512.12"


def eod(root: str = "SPY", strike: str = "510.000", bar: str = "1.2,1.4,1.1,1.3,25", close_quote: str = "10,1.25,12,1.35") -> str:
    snapshot = "5,1.2,6,1.3,512.0,512.1,512.05,512.05,0.15,0.51,0.02,-0.1,0.2,0.1"
    return f"^{root},2024-03-05,{root},2024-03-15,{strike},C,{bar},{snapshot},{close_quote},512.30,512.32,1.27,1234"


def text(header: str, *rows: str, end: str = "\n") -> bytes:
    return end.join([header, *rows, ""]).encode()


def zipped(body: bytes, name: str = "a.csv") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, body)
    return buffer.getvalue()


def test_a_trade_carries_the_lakes_ids_and_the_quote_beside_it() -> None:
    raw = raw_tables(DAY, (TRADES, text(TRADE_COLUMNS, trade(), trade(condition=95, venue=65))))
    assert raw["datashop_option_trades"].select("best_bid", "best_ask", "trade_iv").row(0) == (1.2, 1.3, 0.15)
    table, findings = curated("option_trades", DAY, raw)
    assert findings == ()
    row = table.row(0, named=True)
    assert (row["contract"], row["price"], row["size"], row["premium_usd"]) == ("SPY240315C00510000", 1.25, 2, 250.0)
    assert row["ts_utc"] == datetime(2024, 3, 5, 15, 0, 0, 123_000, UTC)
    assert table["exchange"].to_list() == [302, 304]
    assert table["condition"].to_list() == [209, 219]
    assert table["is_iso"].to_list() == [False, True]
    assert table["may_be_signed"].all()


def test_a_cancel_takes_its_print_back() -> None:
    rows = [trade(), trade("10:00:05.000", condition=40), trade("10:00:06.000", size=9, condition=40)]
    table, findings = curated("option_trades", DAY, raw_tables(DAY, (TRADES, text(TRADE_COLUMNS, *rows))))
    assert table.select("size", "is_cancelled").rows() == [(2, True)]
    assert rejected(findings) == {"unmatched_cancel": 1}


def test_ids_that_nobody_documents_are_unknown_and_said_so() -> None:
    table, findings = curated("option_trades", DAY, raw_tables(DAY, (TRADES, text(TRADE_COLUMNS, trade(condition=250, venue=3)))))
    row = table.row(0, named=True)
    assert (row["exchange"], row["condition"], row["condition_group"], row["in_volume"]) == (0, 0, "unknown", False)
    assert [f.rule for f in findings] == ["unknown_condition"]
    assert "datashop_option_trades" in findings[0].what


@pytest.mark.parametrize("cells", ["", "2,5,10,1.2,11,1.3,6,12,1.2,13,1.4", ",,,,,"])
def test_the_quotes_of_single_exchanges_are_left_out(cells: str) -> None:
    rows = [f"{trade()},{cells}", f"{trade(size=7)},1,5,10,1.2,11,1.3"]
    table = parsed(TRADES, text(TRADE_COLUMNS + REGIONAL, *rows))[1]
    assert table["trade_size"].to_list() == [2.0, 7.0]
    assert table["underlying_ask"].to_list() == [512.12, 512.12]
    assert table["extra"].null_count() == 2


def test_files_without_the_calculated_columns() -> None:
    dropped = ("trade_iv", "trade_delta")
    names = TRADE_COLUMNS.split(",")
    cells = [cell for name, cell in zip(names, trade().split(","), strict=True) if name not in dropped]
    body = text(",".join(name for name in names if name not in dropped), ",".join(cells))
    assert parsed(TRADES, body)[1].select("trade_iv", "trade_delta").row(0) == (None, None)
    bare = EOD_COLUMNS.replace("implied_volatility_1545,delta_1545,gamma_1545,theta_1545,vega_1545,rho_1545,", "")
    row = eod().replace("0.15,0.51,0.02,-0.1,0.2,0.1,", "")
    assert parsed(EOD, text(bare, row))[1].select("implied_volatility_1545", "bid_eod").row(0) == (None, 1.25)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_endings_compression_and_spelling_change_nothing(end: str) -> None:
    wanted = parsed(TRADES, text(TRADE_COLUMNS, trade()))[1]
    body = text(TRADE_COLUMNS.title(), trade(), end=end)
    for spelled in (body, b"\xef\xbb\xbf" + body, gzip.compress(body), zipped(body)):
        assert parsed(TRADES, spelled)[1].equals(wanted)


def test_an_end_of_day_row_feeds_quotes_bars_open_interest_and_contracts() -> None:
    rows = [eod(), eod(strike="515.000", bar="0,0,0,0,0", close_quote="0,0,12,0.05"), eod("SPXW", "5100.000")]
    raw = raw_tables(DAY, (EOD, zipped(text(EOD_COLUMNS, *rows))))
    quotes, findings = curated("option_quotes_eod", DAY, raw)
    assert findings == ()
    assert quotes.select("contract", "bid", "ask", "bid_size", "ask_size", "spot").rows() == [
        ("SPXW240315C05100000", 1.25, 1.35, 10.0, 12.0, 512.31),
        ("SPY240315C00510000", 1.25, 1.35, 10.0, 12.0, 512.31),
        ("SPY240315C00515000", None, 0.05, None, 12.0, 512.31),
    ]
    assert quotes["ts_utc"].unique().to_list() == [close_utc(DAY)]
    assert quotes["vendor_iv"].null_count() == 3
    bars, _ = curated("option_bars_1d", DAY, raw)
    assert bars["contract"].to_list() == ["SPXW240315C05100000", "SPY240315C00510000"]
    assert bars.select("open", "high", "low", "close", "volume").row(1) == (1.2, 1.4, 1.1, 1.3, 25)
    open_interest, _ = curated("open_interest", DAY, raw)
    assert open_interest["open_interest_close"].to_list() == [1234] * 3
    assert open_interest["oi_session"].unique().to_list() == [date(2024, 3, 4)]
    assert open_interest["underlying"].unique().sort().to_list() == ["SPX", "SPY"]


def test_a_root_or_strike_that_makes_no_symbol_is_rejected_row_by_row() -> None:
    rows = [eod(), *(eod(strike=f"{100 + i}.000") for i in range(300)), eod(strike="510.0005"), eod(root="S PY"), eod(strike="-1")]
    quotes, findings = curated("option_quotes_eod", DAY, raw_tables(DAY, (EOD, text(EOD_COLUMNS, *rows))))
    assert quotes.height == 301
    assert rejected(findings)["impossible_contract"] == 3


def test_the_same_contract_twice_with_other_quotes_is_left_out() -> None:
    rows = [eod(), eod(close_quote="10,1.26,12,1.35"), eod(strike="515.000"), eod(strike="515.000")]
    quotes, findings = curated("option_quotes_eod", DAY, raw_tables(DAY, (EOD, text(EOD_COLUMNS, *rows))))
    assert quotes["contract"].to_list() == ["SPY240315C00515000"]
    assert rejected(findings) == {"contradictory_rows": 2}


@given(
    st.lists(
        st.tuples(
            st.integers(0, 86_399_999),
            st.integers(1, 10**6),
            st.integers(1, 10**8).map(lambda c: c / 100),
            st.sampled_from(sorted(DATASHOP_CONDITIONS)),
            st.sampled_from(sorted(DATASHOP_EXCHANGES)),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_trades_round_trip(rows: list[tuple[int, int, float, int, int]]) -> None:
    """Millisecond of the day, size, price, condition, exchange."""
    lines = []
    for ms, size, price, condition, venue in rows:
        clock = f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02}.{ms % 1000:03}"
        lines.append(trade(clock, size, repr(price), condition, venue))
    table = parsed(TRADES, text(TRADE_COLUMNS, *lines))[1]
    midnight = int(at_et(DAY, datetime.min.time()).timestamp()) * 10**9
    assert table["quote_datetime"].to_list() == [midnight + ms * 10**6 for ms, *_ in rows]
    assert table["trade_size"].to_list() == [size for _, size, *_ in rows]
    assert table["trade_price"].to_list() == [price for _, _, price, *_ in rows]
    assert table["trade_condition_id"].to_list() == [condition for *_, condition, _ in rows]
    assert table["exchange_id"].to_list() == [venue for *_, venue in rows]


def test_refusals_name_the_row_and_the_cell() -> None:
    assert refusal(TRADES, b"").rule == "empty_file"
    assert refusal(TRADES, text(TRADE_COLUMNS)).rule == "empty_file"
    assert refusal(TRADES, text(TRADE_COLUMNS.replace("best_bid,", ""), trade().replace("1.2,", ""))).rule == "missing_column"
    ragged = refusal(TRADES, text(TRADE_COLUMNS, trade(), trade() + ",1"))
    assert (ragged.rule, ragged.place) == ("ragged_row", f"{TRADES}, row 1")
    late = refusal(TRADES, text(TRADE_COLUMNS, trade(), trade("25:00:00")))
    assert (late.rule, late.place) == ("bad_time", f"{TRADES}, row 1")
    assert "25:00:00" in late.detail
    assert refusal(TRADES, text(TRADE_COLUMNS, trade(price="n/a"))).rule == "bad_number"
    assert refusal(TRADES, text(TRADE_COLUMNS, trade().replace("2024-03-15", "15/03/2024"))).rule == "bad_date"
    assert refusal(TRADES.replace("2024-03-05", "2024-03-06"), text(TRADE_COLUMNS, trade())).rule == "wrong_date"
    assert refusal(EOD.replace("03-05", "03-06"), text(EOD_COLUMNS, eod())).rule == "wrong_date"


def test_a_time_that_the_change_of_clocks_skips_is_refused() -> None:
    key = TRADES.replace("2024-03-05", "2024-03-10")
    assert refusal(key, text(TRADE_COLUMNS, trade("02:30:00").replace("2024-03-05", "2024-03-10"))).rule == "bad_time"


def test_archives_are_refused_for_what_they_are() -> None:
    body = zipped(text(EOD_COLUMNS, eod()))
    assert refusal(EOD, body[:-30]).rule == "truncated_zip"
    broken = bytearray(body)
    broken[60] ^= 0xFF
    assert refusal(EOD, bytes(broken)).rule == "corrupt_zip"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.csv", "x")
        archive.writestr("b.csv", "y")
    assert refusal(EOD, buffer.getvalue()).rule == "several_members"
    empty = io.BytesIO()
    zipfile.ZipFile(empty, "w").close()
    assert refusal(EOD, empty.getvalue()).rule == "empty_file"
