"""Option prints: screening, conditions, cancels, premium."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from flowlake.curate.contracts import contracts
from flowlake.curate.trades import option_trades
from flowlake.datasets.curated import CONTRACTS, OPTION_TRADES
from flowlake.datasets.model import Output
from flowlake.datasets.raw import MASSIVE_OPTION_TRADES

SESSION = date(2023, 3, 13)
TEN_ET = datetime(2023, 3, 13, 14, tzinfo=UTC)
SPY = "O:SPY230327P00390000"


def ns(moment: datetime) -> int:
    return int(moment.timestamp()) * 10**9


def print_row(moment: datetime = TEN_ET, **more: Any) -> dict[str, Any]:
    return {
        "ticker": SPY,
        "conditions": "209",
        "exchange": 302,
        "price": 1.5,
        "sip_timestamp": ns(moment),
        "size": 2.0,
        **more,
    }


def curated(*rows: dict[str, Any]) -> tuple[pl.DataFrame, Output]:
    raw = pl.DataFrame(
        [{"row": i, **row} for i, row in enumerate(rows)], schema=MASSIVE_OPTION_TRADES.polars_schema()
    ).with_columns(session=pl.lit(SESSION))
    master = CONTRACTS.conform(contracts({"massive_option_trades": raw}, SESSION).tables["contracts"], SESSION)
    output = option_trades({"massive_option_trades": raw, "contracts": master}, SESSION)
    return OPTION_TRADES.conform(output.tables["option_trades"], SESSION), output


def rules(output: Output) -> dict[str, int]:
    return {finding.rule: finding.row_count for finding in output.findings}


def after(seconds: float) -> datetime:
    return TEN_ET + timedelta(seconds=seconds)


def test_one_print() -> None:
    table, output = curated(print_row(size=3.0, price=0.29))
    row = table.row(0, named=True)
    assert output.findings == ()
    assert (row["contract"], row["underlying"], row["strike"]) == ("SPY230327P00390000", "SPY", 390.0)
    assert (row["ts_utc"], row["known_at_utc"]) == (TEN_ET, TEN_ET)
    assert (row["size"], row["premium_usd"]) == (3, 87.0)
    assert (row["condition"], row["conditions"], row["condition_group"]) == (209, "209", "regular")
    assert (row["in_volume"], row["may_be_signed"], row["is_cancelled"]) == (True, True, False)


@pytest.mark.parametrize(
    ("price", "size", "premium"),
    [(0.29, 1, 29.0), (1.1, 3, 330.0), (0.0001, 1, 0.01), (32_767.15, 9_999_999, 327671467232.85 * 100)],
)
def test_the_premium_is_exact_to_a_ten_thousandth_dollar(price: float, size: int, premium: float) -> None:
    expected = round(price * 10_000) * size * 100 / 10_000
    assert curated(print_row(price=price, size=float(size)))[0]["premium_usd"].item() == expected
    assert expected == pytest.approx(premium)


def test_identical_prints_are_all_kept() -> None:
    table, output = curated(print_row(), print_row(), print_row())
    assert table.height == 3
    assert output.findings == ()


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        ({"ticker": "O:SPY230231P00390000"}, "impossible_contract"),
        ({"ticker": "O:SPY230310P00390000"}, "impossible_contract"),  # expired the session before
        ({"price": 0.0}, "price_not_positive"),
        ({"price": -1.0}, "price_not_positive"),
        ({"price": float("nan")}, "price_not_positive"),
        ({"size": 0.0}, "size_not_positive"),
        ({"size": 1.5}, "size_not_positive"),
        ({"size": float("inf")}, "size_not_positive"),
        ({"sip_timestamp": ns(TEN_ET - timedelta(days=1))}, "outside_session_date"),
        ({"sip_timestamp": ns(TEN_ET + timedelta(days=1))}, "outside_session_date"),
        ({"sip_timestamp": ns(datetime(2023, 3, 13, 7, 59, 59, tzinfo=UTC))}, "outside_trading_hours"),
        ({"sip_timestamp": ns(datetime(2023, 3, 14, 0, 15, 1, tzinfo=UTC))}, "outside_trading_hours"),
        ({"conditions": "248", "sip_timestamp": ns(datetime(2023, 3, 12, 23, 59, tzinfo=UTC))}, "outside_session_date"),
    ],
)
def test_an_impossible_row_is_rejected_with_its_number(broken: dict[str, Any], rule: str) -> None:
    table, output = curated(print_row(), print_row() | broken)
    assert table.height == 1
    (finding,) = output.findings
    assert (finding.rule, finding.kind, finding.dataset) == (rule, "rejected", "option_trades")
    assert finding.rows is not None
    assert finding.rows["row"].to_list() == [1]
    assert finding.rows.columns == [*MASSIVE_OPTION_TRADES.polars_schema(), "session"]
    assert finding.what.startswith("2023-03-13: 1 rows of massive_option_trades left out of option_trades: ")
    assert finding.cure


@pytest.mark.parametrize("hour", [0, 1, 8, 13])
def test_the_bounds_of_the_day_are_inside(hour: int) -> None:
    moments = {
        0: datetime(2023, 3, 13, 8, tzinfo=UTC),
        1: datetime(2023, 3, 14, 0, 15, tzinfo=UTC),
        8: datetime(2023, 3, 13, 13, 30, tzinfo=UTC),
        13: datetime(2023, 3, 13, 20, 15, tzinfo=UTC),
    }
    assert curated(print_row(moments[hour]))[0].height == 1


def test_global_trading_hours_begin_on_the_evening_before() -> None:
    evening = datetime(2023, 3, 13, 0, 30, tzinfo=UTC)
    table, output = curated(print_row(evening, conditions="248"), print_row(evening))
    assert table["condition"].to_list() == [248]
    assert rules(output) == {"outside_session_date": 1}


def test_a_row_that_breaks_several_rules_is_reported_once() -> None:
    output = curated(print_row(price=0.0, size=0.0, ticker="junk"))[1]
    assert rules(output) == {"impossible_contract": 1}


def test_a_cancel_marks_the_latest_earlier_identical_print_and_is_no_row() -> None:
    table, output = curated(print_row(after(0)), print_row(after(1)), print_row(after(2), conditions="201"), print_row(after(3)))
    assert table["is_cancelled"].to_list() == [False, True, False]
    assert table["may_be_signed"].to_list() == [True, False, True]
    assert table["in_volume"].all()
    assert output.findings == ()


@pytest.mark.parametrize(("condition", "cancelled"), [("201", 1), ("203", 1), ("205", 0), ("207", 1)])
def test_a_cancel_of_the_opening_report_takes_the_earliest_print(condition: str, cancelled: int) -> None:
    prints = [print_row(after(0)), print_row(after(5), conditions="227")]
    table, output = curated(*prints, print_row(after(9), conditions=condition))
    assert table["is_cancelled"].to_list() == [i == cancelled for i in range(2)]
    assert output.findings == ()


def test_a_cancel_of_the_opening_report_takes_what_no_other_took() -> None:
    """The first cancel came when there was one print; the opening report is then the next that stands."""
    rows = [print_row(after(0)), print_row(after(1), conditions="201"), *(print_row(after(t)) for t in (2, 3, 4))]
    table, _ = curated(*rows, print_row(after(5), conditions="205"))
    assert table["is_cancelled"].to_list() == [True, True, False, False]


@pytest.mark.parametrize("condition", ["201", "203", "205", "207"])
@pytest.mark.parametrize("different", [{"price": 1.51}, {"size": 3.0}, {"exchange": 303}, {"ticker": "O:SPY230327C00390000"}])
def test_a_cancel_of_something_else_is_rejected(condition: str, different: dict[str, Any]) -> None:
    table, output = curated(print_row(), print_row(after(1), conditions=condition, **different))
    assert table["is_cancelled"].to_list() == [False]
    assert rules(output) == {"unmatched_cancel": 1}
    assert output.findings[0].kind == "rejected"


def test_a_cancel_matches_only_earlier_prints() -> None:
    same_moment = curated(print_row(), print_row(conditions="201"))
    too_early = curated(print_row(after(5)), print_row(conditions="201"))
    for table, output in (same_moment, too_early):
        assert table["is_cancelled"].to_list() == [False]
        assert rules(output) == {"unmatched_cancel": 1}


def test_cancels_match_one_to_one() -> None:
    rows = [print_row(after(0)), print_row(after(0)), print_row(after(4))]
    cancels = [print_row(after(t), conditions="201") for t in (1, 2, 3)]
    table, output = curated(*rows, *cancels)
    assert table["is_cancelled"].to_list() == [True, True, False]
    assert rules(output) == {"unmatched_cancel": 1}
    assert output.findings[0].rows is not None
    assert output.findings[0].rows["sip_timestamp"].item() == ns(after(3))


def test_unknown_blank_and_late_conditions() -> None:
    table, output = curated(
        print_row(after(0), conditions="999"), print_row(after(1), conditions=None), print_row(after(2), conditions="202")
    )
    assert table["condition_group"].to_list() == ["unknown", "unreported", "late"]
    assert table["in_volume"].to_list() == [False, True, False]
    assert not table["may_be_signed"].any()
    assert table["is_late"].to_list() == [False, False, True]
    assert rules(output) == {"unknown_condition": 1, "blank_condition": 1}
    assert all(finding.kind == "note" for finding in output.findings)


def test_clock_skew_is_noted_and_the_print_stays() -> None:
    table, output = curated(
        print_row(participant_timestamp=ns(after(-6))),
        print_row(participant_timestamp=ns(after(-5))),
        print_row(participant_timestamp=None),
    )
    assert table.height == 3
    assert rules(output) == {"clock_skew": 1}


def test_a_note_shows_a_hundred_rows_and_counts_all() -> None:
    output = curated(*(print_row(conditions=None) for _ in range(150)))[1]
    assert rules(output) == {"blank_condition": 150}
    assert "150 rows" in output.findings[0].what
    assert output.findings[0].rows is not None
    assert output.findings[0].rows.height == 100


def test_a_file_without_a_good_row_gives_an_empty_table() -> None:
    table, output = curated(print_row(price=0.0))
    assert table.height == 0
    assert rules(output) == {"price_not_positive": 1}
