"""iVolatility chains: the real sample, the file with a wrong column, dates of two and four digits, line endings, refusals."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowlake.sources import ivolatility
from unit.vendor_files import curated, parsed, raw_tables, refusal, rejected

DAY = date(2014, 8, 7)
KEY = "ivolatility/AAPL/2014-08-07.csv"
HEADER = (
    "symbol,exchange,company_name,date,stock_price_close,option_symbol,option_expiration,strike,call/put,style,ask,bid,mean_price,"
    "settlement,iv,volume,open_interest,stock_price_for_iv,forward_price,isinterpolated,delta,vega,gamma,theta,rho"
)
SAMPLE = "optionsuite_ivolatility/aapl_sample_ivolatility.csv"
BAD_COLUMN = "optionsuite_ivolatility/bad_column_name.csv"


def row(
    symbol: str = "AAPL  140816C00095000",
    day: str = "8/7/2014",
    expiry: str = "8/16/2014",
    strike: str = "95",
    right: str = "C",
    ask: str = "1.1",
    bid: str = "1.05",
    interpolated: str = "",
) -> str:
    return (
        f"AAPL,NASDAQ,APPLE INC,{day},94.48,{symbol},{expiry},{strike},{right},A,{ask},{bid},1.07,0,0.22,120,4500,94.48,,"
        f"{interpolated},0.45,0.05,0.08,-0.03,0.01"
    )


def text(*rows: str, end: str = "\n", header: str = HEADER) -> bytes:
    return end.join([header, *rows, ""]).encode()


def test_the_real_sample_is_read_whole(real_data: Path) -> None:
    table = ivolatility.option_eod(SAMPLE, (real_data / SAMPLE).read_bytes(), None)
    assert table.height == 3644
    assert table["date"].unique().sort().to_list() == [date(2014, 8, 7), date(2014, 8, 8)]
    assert (table["isinterpolated"] == "*").sum() == 1142
    assert table["ticker"].str.contains(r"^O:(AAPL|SPY)\d{6}[CP]\d{8}$").all(), "the symbol agrees with the columns beside it"


def test_the_real_sample_feeds_the_quotes_of_its_session(real_data: Path) -> None:
    body = (real_data / SAMPLE).read_bytes()
    raw = raw_tables(DAY, (KEY, body))
    table, findings = curated("option_quotes_eod", DAY, raw)
    assert rejected(findings) == {}
    assert table.height == 1822
    assert table["underlying"].unique().to_list() == ["AAPL"]
    assert table["spot"].unique().to_list() == [94.48]
    interpolated = raw["ivolatility_eod"].filter((pl.col("isinterpolated") == "*") & (pl.col("date") == DAY))
    assert table.filter(pl.col("contract").is_in(interpolated["ticker"].str.strip_prefix("O:").implode()))[
        "vendor_iv"
    ].null_count() == (interpolated.height)


def test_the_real_file_with_a_wrong_column_name_is_refused(real_data: Path) -> None:
    error = refusal(KEY, (real_data / BAD_COLUMN).read_bytes())
    assert error.rule == "missing_column"
    assert "column date is missing" in error.detail
    assert "bad_date_col_name" in error.detail


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_endings_the_byte_order_mark_and_short_years_change_nothing(end: str) -> None:
    wanted = parsed(KEY, text(row(), row("AAPL  140816P00095000", right="P")))[1]
    short = [row(day="8/7/14", expiry="8/16/14"), row("AAPL  140816P00095000", "08/07/14", "08/16/14", right="P")]
    assert parsed(KEY, b"\xef\xbb\xbf" + text(*short, end=end))[1].equals(wanted)


def test_a_side_that_nobody_quotes_is_absent_and_an_interpolated_volatility_is_none() -> None:
    rows = [row(bid="0"), row("AAPL  140816P00095000", right="P", interpolated="*")]
    table, findings = curated("option_quotes_eod", DAY, raw_tables(DAY, (KEY, text(*rows))))
    assert findings == ()
    assert table.select("bid", "ask", "vendor_iv", "vendor_delta", "spot").rows() == [
        (None, 1.1, 0.22, 0.45, 94.48),
        (1.05, 1.1, None, 0.45, 94.48),
    ]


def test_a_symbol_that_its_columns_contradict_is_rejected() -> None:
    good = [row(f"AAPL  140816C{95000 + 500 * i:08}", strike=str(95 + i / 2)) for i in range(300)]
    bad = [row(strike="96"), row(right="P"), row(expiry="8/22/2014")]
    table, findings = curated("option_quotes_eod", DAY, raw_tables(DAY, (KEY, text(*good, *bad))))
    assert table.height == 300
    assert rejected(findings)["impossible_contract"] == 3


@given(
    st.lists(
        st.tuples(
            st.dates(date(2005, 1, 1), date(2030, 12, 31)),
            st.integers(1, 99_999_999),
            st.sampled_from("CP"),
            st.integers(0, 10**6).map(lambda c: c / 100),
        ),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from(["{0.month}/{0.day}/{0.year}", "{0.month:02}/{0.day:02}/{0.year}", "{0.month}/{0.day}/{1:02}"]),
)
def test_chains_round_trip(rows: list[tuple[date, int, str, float]], form: str) -> None:
    """Expiry, strike in thousandths, right, bid."""
    lines = [
        row(f"SPY  {e:%y%m%d}{r}{k:08}", expiry=form.format(e, e.year % 100), strike=repr(k / 1000), right=r, bid=repr(b))
        for e, k, r, b in rows
    ]
    table = parsed(KEY, text(*lines))[1]
    assert table["ticker"].to_list() == [f"O:SPY{e:%y%m%d}{r}{k:08}" for e, k, r, _ in rows]
    assert table["option_expiration"].to_list() == [e for e, *_ in rows]
    assert table["bid"].to_list() == [b for *_, b in rows]


def test_refusals_name_the_row_and_the_cell() -> None:
    bad = refusal(KEY, text(row(), row(expiry="16.8.2014")))
    assert (bad.rule, bad.place) == ("bad_date", f"{KEY}, row 1")
    assert "16.8.2014" in bad.detail
    assert refusal(KEY, text(row(day="2/30/2014"))).rule == "bad_date"
    assert refusal(KEY, text(row(ask="one"))).rule == "bad_number"
    assert refusal(KEY, text(row())[:-40]).rule in ("ragged_row", "malformed_csv")
    assert refusal(KEY.replace("08-07", "08-06"), text(row())).rule == "wrong_date"
    assert refusal(KEY, b"").rule == "empty_file"
