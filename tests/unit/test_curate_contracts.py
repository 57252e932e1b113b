"""The sessions table and the contract master."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pytest

from flowlake.curate.contracts import contracts
from flowlake.curate.sessions import sessions
from flowlake.datasets.curated import CONTRACTS, SESSIONS
from flowlake.datasets.model import Dataset, Output
from flowlake.datasets.raw import CBOE_SNAPSHOT, CONTRACT_ROOTS_FILE, MASSIVE_OPTION_DAY, OPEN_INTEREST_FILE

SESSION = date(2026, 6, 15)


def raw(dataset: Dataset, *rows: dict[str, Any]) -> pl.DataFrame:
    numbered = [{"row": i, **row} for i, row in enumerate(rows)]
    return pl.DataFrame(numbered, schema=dataset.polars_schema()).with_columns(session=pl.lit(SESSION))


def day_bars(*tickers: str) -> pl.DataFrame:
    return raw(MASSIVE_OPTION_DAY, *({"ticker": ticker} for ticker in tickers))


def quote(strike: float, dte: int, cp: str = "C", underlying: str = "SPX", **more: Any) -> dict[str, Any]:
    return {"underlying": underlying, "strike": strike, "dte": dte, "cp": cp, **more}


def master(session: date = SESSION, **inputs: pl.DataFrame) -> tuple[pl.DataFrame, Output]:
    output = contracts(inputs, session)
    return CONTRACTS.conform(output.tables["contracts"], session), output


def rules(output: Output) -> dict[str, int]:
    return {finding.rule: finding.row_count for finding in output.findings}


def test_the_sessions_table_of_a_half_day() -> None:
    row = SESSIONS.conform(sessions({}, date(2015, 12, 24)).tables["sessions"], date(2015, 12, 24)).row(0, named=True)
    assert row["is_half_day"]
    assert row["open_utc"] == datetime(2015, 12, 24, 14, 30, tzinfo=UTC)
    assert row["close_utc"] == datetime(2015, 12, 24, 18, 0, tzinfo=UTC)
    assert (row["previous_session"], row["next_session"]) == (date(2015, 12, 23), date(2015, 12, 28))
    assert row["decision_utc"] == datetime(2015, 12, 28, 14, 0, tzinfo=UTC)
    assert row["actionable_utc"] == row["decision_utc"]


@pytest.mark.parametrize(
    ("ticker", "last_trading_session", "expires_utc"),
    [
        # A PM-settled stock option on an ordinary Friday, on a half day, on a Saturday, on a holiday.
        ("O:AAPL260717C00200000", date(2026, 7, 17), datetime(2026, 7, 17, 20, tzinfo=UTC)),
        ("O:AAPL151224C00100000", date(2015, 12, 24), datetime(2015, 12, 24, 18, tzinfo=UTC)),
        ("O:AAPL140621C00099290", date(2014, 6, 20), datetime(2014, 6, 20, 20, tzinfo=UTC)),
        ("O:AAPL260619C00200000", date(2026, 6, 18), datetime(2026, 6, 18, 20, tzinfo=UTC)),
        # AM-settled: the opening prices of the expiry settle it, so it stops trading the session before.
        ("O:SPX260618C07500000", date(2026, 6, 17), datetime(2026, 6, 18, 13, 30, tzinfo=UTC)),
        ("O:SPXW260618C07500000", date(2026, 6, 18), datetime(2026, 6, 18, 20, tzinfo=UTC)),
        ("O:VIX260722C00020000", date(2026, 7, 21), datetime(2026, 7, 22, 13, 30, tzinfo=UTC)),
        ("O:SPX140621C01900000", date(2014, 6, 19), datetime(2014, 6, 20, 13, 30, tzinfo=UTC)),
    ],
)
def test_last_trading_session_and_expiry(ticker: str, last_trading_session: date, expires_utc: datetime) -> None:
    session = date(2014, 6, 9)
    row = master(session, massive_option_day=day_bars(ticker))[0].row(0, named=True)
    assert row["contract"] == ticker.removeprefix("O:")
    assert row["last_trading_session"] == last_trading_session
    assert row["expires_utc"] == expires_utc


def test_every_source_adds_its_contracts_once() -> None:
    table, output = master(
        massive_option_day=day_bars("O:SPY260717C00600000", "O:SPY260717C00600000"),
        open_interest_file=raw(OPEN_INTEREST_FILE, {"ticker": "O:SPY260717C00600000"}, {"ticker": "O:A260717C00100000"}),
        cboe_snapshot=raw(CBOE_SNAPSHOT, quote(20.0, 2, underlying="VIX"), quote(7500.0, 1)),
    )
    assert table["contract"].to_list() == [
        "A260717C00100000",
        "SPXW260616C07500000",
        "SPY260717C00600000",
        "VIX260617C00020000",
    ]
    assert table["underlying"].to_list() == ["A", "SPX", "SPY", "VIX"]
    assert output.findings == ()


def test_impossible_and_expired_tickers_are_rejected_with_the_reason() -> None:
    table, output = master(
        massive_option_day=day_bars("O:SPY260717C00600000", "O:SPY260717C00000000", "junk", "O:SPY260612C00600000")
    )
    assert table["contract"].to_list() == ["SPY260717C00600000"]
    assert rules(output) == {"impossible_contract": 2, "expired_contract": 1}
    assert all(finding.kind == "rejected" for finding in output.findings)
    assert output.findings[0].rows is not None
    assert output.findings[0].rows["ticker"].to_list() == ["O:SPY260717C00000000", "junk"]
    assert "2026-06-15: 2 rows of massive_option_day left out of contracts" in output.findings[0].what


def test_an_adjusted_root_is_noted_until_the_house_file_has_it() -> None:
    bars = day_bars("O:GOOG1260717C00600000")
    table, output = master(massive_option_day=bars)
    assert rules(output) == {"assumed_deliverable": 1}
    assert table.select("underlying", "multiplier", "is_adjusted").row(0) == ("GOOG", 100.0, True)
    roots = pl.DataFrame(
        [("GOOG1", "GOOGL", 10.0, "american", "pm", date(2020, 1, 1), None, None)],
        schema=CONTRACT_ROOTS_FILE.polars_schema(),
        orient="row",
    )
    table, output = master(massive_option_day=bars, contract_roots_file=roots)
    assert output.findings == ()
    assert table.select("underlying", "multiplier", "is_adjusted").row(0) == ("GOOGL", 10.0, True)


def snapshot_roots(*rows: dict[str, Any]) -> tuple[list[str], Output]:
    table, output = master(cboe_snapshot=raw(CBOE_SNAPSHOT, *rows))
    return table["contract"].to_list(), output


def test_two_blocks_tell_the_roots_of_a_shared_date_apart() -> None:
    # Root by root: SPX (18 June, 17 July), then SPXW (16 June, 18 June).
    found, output = snapshot_roots(quote(7500, 3), quote(7500, 32), quote(7500, 1), quote(7500, 3))
    assert found == ["SPX260618C07500000", "SPX260717C07500000", "SPXW260616C07500000", "SPXW260618C07500000"]
    assert output.findings == ()


def test_an_impossible_row_does_not_break_the_blocks() -> None:
    rows = [quote(7500, 3), quote(7500, 32), quote(7500, -1), quote(7500, 1), quote(7500, -1), quote(7500, 3)]
    found, output = snapshot_roots(*rows)
    assert found == ["SPX260618C07500000", "SPX260717C07500000", "SPXW260616C07500000", "SPXW260618C07500000"]
    assert rules(output) == {"impossible_contract": 2}


def test_the_block_order_may_be_the_other_way_round() -> None:
    found, _ = snapshot_roots(quote(7500, 1), quote(7400, 3), quote(7500, 32), quote(7500, 3))
    assert found == ["SPX260618C07500000", "SPXW260616C07500000", "SPXW260618C07400000", "SPXW260717C07500000"]


def test_without_blocks_single_contracts_are_the_monthly_roots_and_repeated_ones_are_refused() -> None:
    found, output = snapshot_roots(quote(7500, 1), quote(7400, 3), quote(7500, 3), quote(7500, 3), quote(7500, 32))
    assert found == ["SPX260717C07500000", "SPXW260616C07500000"]
    assert rules(output) == {"ambiguous_root": 3}


def test_a_stock_chain_has_one_root() -> None:
    found, _ = snapshot_roots(quote(200, 1, underlying="AAPL"), quote(200, 3, "P", underlying="AAPL"))
    assert found == ["AAPL260616C00200000", "AAPL260618P00200000"]


@pytest.mark.parametrize(
    "row",
    [
        quote(0, 1),
        quote(-5, 1),
        quote(7500.00001, 1),
        quote(7500, -1),
        quote(7500, 1, "X"),
        quote(7500, 4000),
        quote(7500, -20_000),
        quote(7500, 10**15),
    ],
)
def test_impossible_snapshot_rows_are_rejected(row: dict[str, Any]) -> None:
    found, output = snapshot_roots(quote(7400, 1), row)
    assert found == ["SPXW260616C07400000"]
    assert rules(output) == {"impossible_contract": 1}


def test_no_input_gives_an_empty_master() -> None:
    table, output = master()
    assert table.height == 0
    assert output.findings == ()
