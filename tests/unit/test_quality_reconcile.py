"""Trades, minute bars and day bars against each other: silent when they agree, exact and explained when they do not."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from flowlake.datasets.curated import OPTION_BARS_1D, OPTION_BARS_1M, OPTION_TRADES
from flowlake.datasets.model import Output
from flowlake.datasets.quality import RECONCILIATION
from flowlake.quality.audit import audit
from flowlake.quality.reconcile import reconcile

SESSION = date(2024, 3, 4)
OPEN = datetime(2024, 3, 4, 14, 30, tzinfo=UTC)
FLAGS = [c.name for c in OPTION_TRADES.columns if c.dtype == pl.Boolean]


def contract(strike: int) -> dict[str, Any]:
    return {
        "contract": f"SPY240315C{strike * 1000:08d}",
        "underlying": "SPY",
        "root": "SPY",
        "expiry": date(2024, 3, 15),
        "right": "C",
        "strike": float(strike),
    }


def trade(strike: int, minute: float, price: float, size: int, **flags: bool | int) -> dict[str, Any]:
    row = contract(strike) | dict.fromkeys(FLAGS, False) | {"in_volume": True, "sets_price": True}
    row |= {"ts_utc": OPEN + timedelta(minutes=minute), "price": price, "size": size, "premium_usd": price * size * 100}
    row |= {"exchange": 302, "condition": 209, "conditions": "209", "condition_group": "regular"}
    return row | flags


def trades(*rows: dict[str, Any]) -> pl.DataFrame:
    return OPTION_TRADES.conform(pl.DataFrame(list(rows)), SESSION).with_columns(session=pl.lit(SESSION))


def bar(
    strike: int, ohlc: tuple[float, float, float, float], volume: int, count: int | None, minute: int | None = None
) -> dict[str, Any]:
    row = (
        contract(strike)
        | dict(zip(("open", "high", "low", "close"), ohlc, strict=True))
        | {"volume": volume, "transactions": count}
    )
    return row if minute is None else row | {"ts_utc": OPEN + timedelta(minutes=minute)}


def day(*rows: dict[str, Any]) -> pl.DataFrame:
    schema = {"transactions": pl.Int64()}
    return OPTION_BARS_1D.conform(pl.DataFrame(list(rows), schema_overrides=schema), SESSION).with_columns(session=pl.lit(SESSION))


def minutes(*rows: dict[str, Any]) -> pl.DataFrame:
    schema = {"transactions": pl.Int64()}
    return OPTION_BARS_1M.conform(pl.DataFrame(list(rows), schema_overrides=schema), SESSION).with_columns(session=pl.lit(SESSION))


TRADES = trades(trade(500, 0.1, 1.0, 3), trade(500, 0.5, 1.5, 2), trade(500, 7, 0.5, 5), trade(510, 3, 2.0, 1))
MINUTES = minutes(
    bar(500, (1.0, 1.5, 1.0, 1.5), 5, 2, 0), bar(500, (0.5, 0.5, 0.5, 0.5), 5, 1, 7), bar(510, (2.0, 2.0, 2.0, 2.0), 1, 1, 3)
)
DAYS = day(bar(500, (1.0, 1.5, 0.5, 0.5), 10, 3), bar(510, (2.0, 2.0, 2.0, 2.0), 1, 1))


def residuals(output: Output) -> list[tuple[Any, ...]]:
    table = output.tables["reconciliation"].filter(pl.col("contract") != "*")
    return table.sort("pair", "measure", "contract").select("pair", "measure", "residual", "reason").rows()


def test_equal_sources_have_only_summaries_and_no_finding() -> None:
    output = reconcile({"option_trades": TRADES, "option_bars_1m": MINUTES, "option_bars_1d": DAYS}, SESSION)
    table = output.tables["reconciliation"]
    assert residuals(output) == []
    assert output.findings == ()
    assert table.height == 3 * 6
    volume = table.filter((pl.col("pair") == "trades~1d") & (pl.col("measure") == "volume")).row(0, named=True)
    assert (volume["left_value"], volume["right_value"], volume["contracts_compared"], volume["contracts_equal"]) == (11, 11, 2, 2)
    assert audit(RECONCILIATION, RECONCILIATION.conform(table, SESSION), SESSION).success


@pytest.mark.parametrize(
    ("inputs", "pairs"),
    [
        ({}, set()),
        ({"option_bars_1d": DAYS}, set()),
        ({"option_bars_1m": MINUTES, "option_bars_1d": DAYS}, {"1m~1d"}),
        ({"option_trades": TRADES, "option_bars_1d": DAYS}, {"trades~1d"}),
    ],
)
def test_what_exists_is_compared(inputs: dict[str, pl.DataFrame], pairs: set[str]) -> None:
    output = reconcile(inputs, SESSION)
    assert set(output.tables["reconciliation"]["pair"]) == pairs
    conformed = RECONCILIATION.conform(output.tables["reconciliation"], SESSION)
    assert audit(RECONCILIATION, conformed, SESSION).success


@pytest.mark.parametrize("counted", [True, False])
def test_a_cancelled_print_explains_its_residual(counted: bool) -> None:
    """Whether the flags count it and the vendor does not, or the other way round."""
    cancelled = trade(500, 9, 9.0, 4, is_cancelled=True, in_volume=counted, sets_price=counted)
    with_it = day(bar(500, (1.0, 9.0, 0.5, 9.0), 14, 4), bar(510, (2.0, 2.0, 2.0, 2.0), 1, 1))
    frame = trades(*TRADES.drop("session", "known_at_utc").to_dicts(), cancelled)
    output = reconcile({"option_trades": frame, "option_bars_1d": DAYS if counted else with_it}, SESSION)
    sign = 1 if counted else -1
    assert residuals(output) == [
        ("trades~1d", "close", 8.5 * sign, "cancelled"),
        ("trades~1d", "high", 7.5 * sign, "cancelled"),
        ("trades~1d", "transactions", 1.0 * sign, "cancelled"),
        ("trades~1d", "volume", 4.0 * sign, "cancelled"),
    ]
    assert output.findings == ()


def test_a_late_print_explains_its_residual() -> None:
    late = trade(510, 30, 2.0, 7, is_late=True, in_volume=False, sets_price=False)
    frame = trades(*TRADES.drop("session", "known_at_utc").to_dicts(), late)
    days = day(bar(500, (1.0, 1.5, 0.5, 0.5), 10, 3), bar(510, (2.0, 2.0, 2.0, 2.0), 8, 2))
    output = reconcile({"option_trades": frame, "option_bars_1d": days}, SESSION)
    assert residuals(output) == [("trades~1d", "transactions", -1.0, "late"), ("trades~1d", "volume", -7.0, "late")]
    assert output.findings == ()


def test_a_late_opening_is_in_the_bars_and_stands_for_no_other_late_print() -> None:
    """A policy that counts D too: its volume is what the bars lack, not its volume and that of the late opening."""
    opening = trade(510, 1, 2.0, 5, is_late=True, condition=208)
    late = trade(510, 30, 2.0, 7, is_late=True, condition=204)
    frame = trades(*TRADES.drop("session", "known_at_utc").to_dicts(), opening, late)
    days = day(bar(500, (1.0, 1.5, 0.5, 0.5), 10, 3), bar(510, (2.0, 2.0, 2.0, 2.0), 6, 2))
    output = reconcile({"option_trades": frame, "option_bars_1d": days}, SESSION)
    assert residuals(output) == [("trades~1d", "transactions", 1.0, "late"), ("trades~1d", "volume", 7.0, "late")]
    assert output.findings == ()


def test_missing_minutes_are_named_and_found() -> None:
    output = reconcile(
        {"option_trades": TRADES, "option_bars_1m": MINUTES.filter(pl.col("low") > 0.5), "option_bars_1d": DAYS}, SESSION
    )
    assert ("trades~1m", "volume", 5.0, "missing_minutes") in residuals(output)
    assert ("1m~1d", "volume", -5.0, "missing_minutes") in residuals(output)
    assert ("trades~1m", "low", -0.5, "missing_minutes") in residuals(output)
    found = {(f.dataset, f.rule) for f in output.findings}
    assert ("option_bars_1m", "volume_disagrees") in found
    message = next(f for f in output.findings if f.rule == "volume_disagrees")
    assert "minute bars are missing" in message.what
    assert message.row_count == 1
    assert "2024-03-04" in message.cure


def test_an_unexplained_volume_is_a_finding_of_the_source_that_has_less() -> None:
    short = day(bar(500, (1.0, 1.5, 0.5, 0.5), 4, 3), bar(510, (2.0, 2.0, 2.0, 2.0), 1, 1))
    output = reconcile({"option_trades": TRADES, "option_bars_1d": short}, SESSION)
    assert residuals(output) == [("trades~1d", "volume", 6.0, "unexplained")]
    assert [(f.dataset, f.rule, f.row_count) for f in output.findings] == [("option_bars_1d", "volume_disagrees", 1)]


def test_a_contract_that_one_source_lacks_counts_as_zero() -> None:
    output = reconcile({"option_trades": TRADES, "option_bars_1d": DAYS.filter(pl.col("strike") == 500)}, SESSION)
    assert residuals(output) == [
        ("trades~1d", "transactions", 1.0, "unexplained"),
        ("trades~1d", "volume", 1.0, "unexplained"),
    ]
    assert output.findings[0].dataset == "option_bars_1d"


def test_unknown_transactions_are_not_compared() -> None:
    bars = day(bar(500, (1.0, 1.5, 0.5, 0.5), 10, None), bar(510, (2.0, 2.0, 2.0, 2.0), 1, None))
    output = reconcile({"option_trades": TRADES, "option_bars_1d": bars}, SESSION)
    assert residuals(output) == []
    row = output.tables["reconciliation"].filter(pl.col("measure") == "transactions").row(0, named=True)
    assert (row["contracts_compared"], row["left_value"]) == (0, None)


def test_prints_of_one_moment_may_open_and_close_in_any_order() -> None:
    tied = trades(*(trade(500, 1, price, 1) for price in (1.0, 2.0, 3.0)))
    for first in (1.0, 2.0, 3.0):
        for last in (1.0, 2.0, 3.0):
            output = reconcile({"option_trades": tied, "option_bars_1d": day(bar(500, (first, 3.0, 1.0, last), 3, 3))}, SESSION)
            assert residuals(output) == []
    off = reconcile({"option_trades": tied, "option_bars_1d": day(bar(500, (2.5, 3.0, 1.0, 1.0), 3, 3))}, SESSION)
    assert residuals(off) == [("trades~1d", "open", -1.5, "unexplained")]
    assert [f.rule for f in off.findings] == ["prices_disagree"]


def test_prints_that_set_no_price_count_in_volume_only() -> None:
    frame = trades(trade(500, 1, 1.0, 2), trade(500, 2, 99.0, 3, sets_price=False))
    output = reconcile({"option_trades": frame, "option_bars_1d": day(bar(500, (1.0, 1.0, 1.0, 1.0), 5, 2))}, SESSION)
    assert residuals(output) == []
