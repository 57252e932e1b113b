"""Contract symbols, expiration dates and root terms."""

from __future__ import annotations

from datetime import date

import polars as pl
import pytest

from flowlake.curate.expiries import is_monthly, is_vix_monthly, monthly_session, settlement_session
from flowlake.curate.roots import root_terms
from flowlake.curate.symbols import contract_symbol, parse_tickers
from flowlake.datasets.raw import CONTRACT_ROOTS_FILE
from flowlake.datasets.roots import KNOWN_ROOTS, VOLATILITY_INDEXES

GOOD = {
    "O:SPY230327P00390000": ("SPY", date(2023, 3, 27), "P", 390.0, 390_000),
    "O:AAPL140621C00099290": ("AAPL", date(2014, 6, 21), "C", 99.29, 99_290),
    "O:GOOG1150117P01000500": ("GOOG1", date(2015, 1, 17), "P", 1000.5, 1_000_500),
    "O:F240216C00000500": ("F", date(2024, 2, 16), "C", 0.5, 500),
    "O:SPXW261231C99999999": ("SPXW", date(2026, 12, 31), "C", 99_999.999, 99_999_999),
}


@pytest.mark.parametrize("ticker", GOOD)
def test_ticker_to_fields_and_back(ticker: str) -> None:
    row = parse_tickers(pl.Series([ticker])).row(0, named=True)
    root, expiry, right, strike, thousandths = GOOD[ticker]
    assert row == {
        "ticker": ticker,
        "contract": ticker.removeprefix("O:"),
        "root": root,
        "expiry": expiry,
        "right": right,
        "strike": strike,
        "strike_thousandths": thousandths,
        "problem": None,
    }
    symbol = contract_symbol(pl.col("root"), pl.col("expiry"), pl.col("right"), pl.col("strike_thousandths"))
    assert parse_tickers(pl.Series([ticker])).select(symbol).item() == ticker.removeprefix("O:")


@pytest.mark.parametrize(
    ("ticker", "why"),
    [
        ("O:SPY230327X00390000", "form"),
        ("SPY230327P00390000", "form"),
        ("O:230327P00390000", "form"),
        ("O:SPY230327P0039000", "form"),
        ("O:spy230327P00390000", "form"),
        ("O:SPY23032٧P00390000", "form"),  # an Arabic digit is a digit to many regular expressions
        ("O:SPY230231P00390000", "no date"),
        ("O:SPY231301P00390000", "no date"),
        ("O:SPY991218P00390000", "calendar"),
        ("O:SPY230327P00000000", "strike is 0"),
    ],
)
def test_impossible_tickers_say_why_and_have_no_fields(ticker: str, why: str) -> None:
    row = parse_tickers(pl.Series([ticker])).row(0, named=True)
    assert why in row["problem"]
    assert row["contract"] is None
    assert row["strike"] is None


def test_each_distinct_ticker_is_parsed_once_and_in_order() -> None:
    parsed = parse_tickers(pl.Series(["O:SPY230327P00390000", "O:AAPL140621C00099290", "O:SPY230327P00390000"]))
    assert parsed["ticker"].to_list() == ["O:AAPL140621C00099290", "O:SPY230327P00390000"]


@pytest.mark.parametrize(
    ("expiry", "settles"),
    [
        (date(2014, 6, 21), date(2014, 6, 20)),  # Saturday
        (date(2014, 4, 19), date(2014, 4, 17)),  # Saturday after Good Friday
        (date(2026, 6, 19), date(2026, 6, 18)),  # Juneteenth
        (date(2026, 7, 16), date(2026, 7, 16)),
    ],
)
def test_settlement_session(expiry: date, settles: date) -> None:
    assert settlement_session(expiry) == settles


def test_monthly_expirations() -> None:
    assert monthly_session(2026, 6) == date(2026, 6, 18)
    assert monthly_session(2026, 7) == date(2026, 7, 17)
    assert is_monthly(date(2026, 6, 18))
    assert is_monthly(date(2014, 6, 21))
    assert not is_monthly(date(2026, 7, 16))
    assert not is_monthly(date(2026, 7, 24))


def test_vix_monthlies_settle_thirty_days_before_the_next_monthly() -> None:
    assert is_vix_monthly(date(2026, 6, 17))
    assert is_vix_monthly(date(2026, 7, 22))
    assert is_vix_monthly(date(2026, 5, 19))  # a Tuesday, since June's monthly is a Thursday
    assert not is_vix_monthly(date(2026, 6, 24))


def terms(root: str, house_file: pl.DataFrame | None = None, session: date = date(2026, 6, 15)) -> tuple[object, ...]:
    return root_terms(pl.Series([root]), house_file, session).row(0)


def test_terms_of_index_stock_and_adjusted_roots() -> None:
    assert terms("SPXW") == ("SPXW", "SPX", 100.0, "european", "pm", False, False)
    assert terms("SPX") == ("SPX", "SPX", 100.0, "european", "am", False, False)
    assert terms("OEX") == ("OEX", "OEX", 100.0, "american", "pm", False, False)
    assert terms("VIXW") == ("VIXW", "VIX", 100.0, "european", "am", False, False)
    assert terms("AAPL") == ("AAPL", "AAPL", 100.0, "american", "pm", False, False)
    assert terms("GOOG1") == ("GOOG1", "GOOG", 100.0, "american", "pm", True, True)


def test_every_volatility_index_is_the_underlying_of_a_known_root() -> None:
    assert set(VOLATILITY_INDEXES) <= {underlying for underlying, *_ in KNOWN_ROOTS.values()}


def test_the_house_file_wins_while_it_is_valid_and_the_newest_row_counts() -> None:
    rows = [
        ("GOOG1", "GOOGL", 10.0, "american", "pm", date(2014, 4, 3), date(2014, 12, 31), None),
        ("GOOG1", "GOOG", 50.0, "american", "pm", date(2014, 6, 1), None, None),
        ("SPX", "SPX", 100.0, "european", "pm", date(2030, 1, 1), None, None),
    ]
    house_file = pl.DataFrame(rows, schema=CONTRACT_ROOTS_FILE.polars_schema(), orient="row")
    assert terms("GOOG1", house_file, date(2014, 5, 1)) == ("GOOG1", "GOOGL", 10.0, "american", "pm", True, False)
    assert terms("GOOG1", house_file, date(2014, 7, 1)) == ("GOOG1", "GOOG", 50.0, "american", "pm", True, False)
    assert terms("GOOG1", house_file, date(2014, 1, 2))[-1] is True
    assert terms("SPX", house_file)[4] == "am"
