"""Option and stock bars."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from flowlake.curate.bars import equity_bars_1d, equity_bars_1m, option_bars_1d, option_bars_1m
from flowlake.curate.contracts import contracts
from flowlake.datasets import curated as declared
from flowlake.datasets.model import Dataset, Inputs, Output
from flowlake.datasets.raw import (
    MASSIVE_OPTION_DAY,
    MASSIVE_OPTION_MINUTE,
    MASSIVE_STOCK_DAY,
    MASSIVE_STOCK_MINUTE,
)

SESSION = date(2015, 12, 24)
OPEN = datetime(2015, 12, 24, 14, 30, tzinfo=UTC)
MIDNIGHT = datetime(2015, 12, 24, 5, tzinfo=UTC)
Step = Callable[[Inputs, date], Output]
CASES: dict[str, tuple[Step, Dataset, Dataset, str, datetime]] = {
    "option_bars_1m": (option_bars_1m, MASSIVE_OPTION_MINUTE, declared.OPTION_BARS_1M, "O:GOOG151231C00750000", OPEN),
    "option_bars_1d": (option_bars_1d, MASSIVE_OPTION_DAY, declared.OPTION_BARS_1D, "O:GOOG151231C00750000", MIDNIGHT),
    "equity_bars_1m": (equity_bars_1m, MASSIVE_STOCK_MINUTE, declared.EQUITY_BARS_1M, "GOOG", OPEN),
    "equity_bars_1d": (equity_bars_1d, MASSIVE_STOCK_DAY, declared.EQUITY_BARS_1D, "GOOG", MIDNIGHT),
}
every_case = pytest.mark.parametrize("case", CASES)


def ns(moment: datetime) -> int:
    return int(moment.timestamp()) * 10**9


def bar(case: str, **more: Any) -> dict[str, Any]:
    figures = {"open": 2.0, "high": 3.0, "low": 1.0, "close": 2.5, "volume": 7.0}
    return {"ticker": CASES[case][3], "window_start": ns(CASES[case][4]), **figures, **more}


def curated(case: str, *rows: dict[str, Any]) -> tuple[pl.DataFrame, Output]:
    step, source, dataset, _, _ = CASES[case]
    numbered = [{"row": i, **row} for i, row in enumerate(rows)]
    raw = pl.DataFrame(numbered, schema=source.polars_schema()).with_columns(session=pl.lit(SESSION))
    inputs = {source.name: raw}
    if case.startswith("option"):
        inputs["contracts"] = declared.CONTRACTS.conform(contracts(inputs, SESSION).tables["contracts"], SESSION)
    output = step(inputs, SESSION)
    return dataset.conform(output.tables[dataset.name], SESSION), output


def rules(output: Output) -> dict[str, int]:
    return {finding.rule: finding.row_count for finding in output.findings}


@every_case
def test_one_bar(case: str) -> None:
    table, output = curated(case, bar(case))
    row = table.row(0, named=True)
    assert output.findings == ()
    assert (row["open"], row["high"], row["low"], row["close"], row["volume"]) == (2.0, 3.0, 1.0, 2.5, 7)
    assert row["transactions"] is None
    assert row["underlying"] == "GOOG"
    if case.endswith("1m"):
        assert row["ts_utc"] == OPEN
        assert row["known_at_utc"] == OPEN + timedelta(minutes=1)


@every_case
@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        ({"low": 0.0}, "price_not_positive"),
        ({"close": -1.0, "low": -1.0}, "price_not_positive"),
        ({"open": float("nan")}, "price_not_positive"),
        ({"high": float("inf")}, "price_not_positive"),
        ({"volume": float("nan")}, "volume_negative"),
        ({"high": 0.5}, "prices_out_of_order"),
        ({"open": 3.5}, "prices_out_of_order"),
        ({"close": 0.9}, "prices_out_of_order"),
        ({"volume": -1.0}, "volume_negative"),
        ({"transactions": -1}, "volume_negative"),
        ({"window_start": ns(MIDNIGHT - timedelta(seconds=1))}, "outside_session_date"),
        ({"window_start": ns(MIDNIGHT + timedelta(days=1))}, "outside_session_date"),
    ],
)
def test_an_impossible_bar_is_rejected(case: str, broken: dict[str, Any], rule: str) -> None:
    table, output = curated(case, bar(case, **broken))
    assert table.height == 0
    assert rules(output) == {rule: 1}
    assert output.findings[0].kind == "rejected"
    assert output.findings[0].dataset == case


@pytest.mark.parametrize("case", ["option_bars_1m", "option_bars_1d"])
def test_option_bars_need_a_possible_contract_and_whole_contracts(case: str) -> None:
    table, output = curated(case, bar(case, ticker="O:GOOG150230C00750000"), bar(case, volume=1.5))
    assert table.height == 0
    assert rules(output) == {"impossible_contract": 1, "volume_fractional": 1}


@pytest.mark.parametrize("case", ["equity_bars_1m", "equity_bars_1d"])
def test_stock_volume_may_be_decimal(case: str) -> None:
    assert curated(case, bar(case, volume=1.5))[0]["volume"].item() == 1.5


@every_case
def test_identical_bars_count_once_with_a_note(case: str) -> None:
    table, output = curated(case, bar(case), bar(case), bar(case))
    assert table.height == 1
    assert rules(output) == {"repeated_row": 3}
    assert output.findings[0].kind == "note"
    assert "2 were dropped" in output.findings[0].what


@every_case
def test_contradictory_bars_are_all_rejected(case: str) -> None:
    other = "O:GOOG151231P00750000" if case.startswith("option") else "AAPL"
    table, output = curated(case, bar(case), bar(case, volume=8.0), bar(case), bar(case, ticker=other))
    assert table.height == 1
    assert {f.rule: (f.kind, f.row_count) for f in output.findings} == {
        "repeated_row": ("note", 2),
        "contradictory_rows": ("rejected", 3),
    }


def test_the_regular_session_of_a_half_day() -> None:
    minutes = [
        OPEN - timedelta(minutes=1),
        OPEN,
        datetime(2015, 12, 24, 17, 59, tzinfo=UTC),
        datetime(2015, 12, 24, 18, 0, tzinfo=UTC),
    ]
    table, _ = curated("equity_bars_1m", *(bar("equity_bars_1m", window_start=ns(m)) for m in minutes))
    assert table["is_regular"].to_list() == [False, True, True, False]
