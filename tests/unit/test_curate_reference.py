"""Corporate actions, rates and sectors."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pytest

from flowlake.curate.reference import corporate_actions, rates, sectors
from flowlake.datasets.curated import CORPORATE_ACTIONS, RATES, SECTORS
from flowlake.datasets.model import Dataset, Output
from flowlake.datasets.raw import CORPORATE_ACTIONS_FILE, LEAN_EVENTS, LEAN_INTEREST_RATE, RATES_FILE, SECTORS_FILE

SESSION = date(2020, 8, 31)
KNOWN = datetime(2020, 7, 30, 20, 30, tzinfo=UTC)


def raw(dataset: Dataset, *rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=dataset.polars_schema()).with_columns(session=pl.lit(SESSION))


def event(**more: Any) -> dict[str, Any]:
    split = {"underlying": "AAPL", "ex_date": date(2020, 8, 31), "kind": "split", "ratio": 4.0}
    return {**split, "known_at_utc": KNOWN, **more}


def actions(house: list[dict[str, Any]], lean: list[dict[str, Any]]) -> tuple[pl.DataFrame, Output]:
    inputs = {"corporate_actions_file": raw(CORPORATE_ACTIONS_FILE, *house), "lean_events": raw(LEAN_EVENTS, *lean)}
    output = corporate_actions(inputs, SESSION)
    return CORPORATE_ACTIONS.conform(output.tables["corporate_actions"], SESSION), output


def curve(**inputs: pl.DataFrame) -> tuple[pl.DataFrame, Output]:
    output = rates(inputs, SESSION)
    return RATES.conform(output.tables["rates"], SESSION), output


def rules(output: Output) -> dict[str, int]:
    return {finding.rule: finding.row_count for finding in output.findings}


def test_the_house_file_wins_and_lean_fills_in() -> None:
    ex_midnight = datetime(2020, 8, 31, 4, tzinfo=UTC)
    lean = [
        event(known_at_utc=ex_midnight, ratio=4.0001),
        event(known_at_utc=ex_midnight, kind="cash_dividend", ratio=None, cash_amount_usd=0.82),
    ]
    table, output = actions([event(announced_at_utc=KNOWN)], lean)
    assert output.findings == ()
    assert table.select("kind", "ratio", "cash_amount_usd", "known_at_utc", "source").rows() == [
        ("cash_dividend", None, 0.82, ex_midnight, "lean_events"),
        ("split", 4.0, None, KNOWN, "corporate_actions_file"),
    ]


def test_sources_that_disagree_are_noted() -> None:
    table, output = actions([event()], [event(ratio=7.0)])
    assert table["ratio"].to_list() == [4.0]
    assert rules(output) == {"sources_disagree": 1}
    assert output.findings[0].kind == "note"


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        ({"ratio": 0.0}, "ratio_not_positive"),
        ({"ratio": -2.0}, "ratio_not_positive"),
        ({"ratio": None}, "ratio_not_positive"),
        ({"kind": "cash_dividend", "cash_amount_usd": 1.0, "ratio": 0.0}, "ratio_not_positive"),
        ({"kind": "cash_dividend", "ratio": None}, "cash_amount_invalid"),
        ({"kind": "special_dividend", "ratio": None, "cash_amount_usd": -0.1}, "cash_amount_invalid"),
        ({"kind": "symbol_change", "ratio": None}, "new_symbol_missing"),
        ({"kind": "merger", "ratio": None}, "unknown_kind"),
    ],
)
def test_an_impossible_event_is_rejected_and_the_other_source_used(broken: dict[str, Any], rule: str) -> None:
    table, output = actions([event(**broken)], [event()])
    assert table["source"].to_list() == ["lean_events"]
    assert rules(output) == {rule: 1}
    assert output.findings[0].kind == "rejected"


def test_contradictory_events_of_one_source_are_rejected() -> None:
    table, output = actions([event(), event(ratio=5.0)], [])
    assert table.height == 0
    assert rules(output) == {"contradictory_rows": 2}


def test_without_sources_there_are_no_events_and_no_rates() -> None:
    assert CORPORATE_ACTIONS.conform(corporate_actions({}, SESSION).tables["corporate_actions"], SESSION).height == 0
    assert curve()[0].height == 0


def house_curve(*rates_by_tenor: tuple[int, float]) -> pl.DataFrame:
    return raw(RATES_FILE, *({"date": date(2020, 8, 28), "tenor_days": tenor, "rate": rate} for tenor, rate in rates_by_tenor))


LEAN = raw(
    LEAN_INTEREST_RATE,
    {"date": date(2020, 3, 4), "rate_percent": 1.75},
    {"date": date(2020, 3, 16), "rate_percent": 0.25},
)


def test_the_house_curve_wins() -> None:
    table, output = curve(rates_file=house_curve((30, 0.001), (365, 0.002)), lean_interest_rate=LEAN)
    assert table.select("tenor_days", "rate", "source").rows() == [
        (30, 0.001, "rates_file"),
        (365, 0.002, "rates_file"),
    ]
    assert table["known_at_utc"].unique().item() == datetime(2020, 9, 1, 13, tzinfo=UTC)
    assert output.findings == ()


def test_the_lean_rate_in_force_is_compounded_continuously() -> None:
    for empty in ({}, {"rates_file": house_curve()}):
        table, _ = curve(**empty, lean_interest_rate=LEAN)
        assert table.select("date", "tenor_days", "source").rows() == [(date(2020, 3, 16), 1, "lean_interest_rate")]
        assert table["rate"].item() == pytest.approx(math.log(1.0025), rel=1e-14)


def test_an_old_rate_is_used_and_told() -> None:
    ended = raw(LEAN_INTEREST_RATE, {"date": date(2018, 12, 20), "rate_percent": 3.0})
    table, output = curve(lean_interest_rate=ended)
    assert table["rate"].item() == pytest.approx(math.log(1.03), rel=1e-14)
    assert rules(output) == {"old_rate": 1}
    assert "2018-12-20" in output.findings[0].what


def test_a_curve_that_contradicts_itself_is_rejected() -> None:
    table, output = curve(rates_file=house_curve((30, 0.001), (30, 0.002), (60, 0.003)))
    assert table["tenor_days"].to_list() == [60]
    assert rules(output) == {"contradictory_rows": 2}


@pytest.mark.parametrize(
    ("valid_from", "known", "sector"),
    [
        (SESSION, "08:59:59", "Utilities"),
        (SESSION, "09:00:01", "Energy"),  # told during the session: its first minutes could not know
        (date(2020, 8, 3), "09:00:01", "Energy"),
        (date(2020, 9, 1), "08:00:00", "Energy"),  # known, and not yet in force
    ],
)
def test_a_sector_holds_from_its_day_on_sessions_that_begin_after_it_was_known(valid_from: date, known: str, sector: str) -> None:
    told = datetime.fromisoformat(f"2020-08-31T{known}-04:00").astimezone(UTC)
    since = {"valid_from": date(2015, 1, 2), "known_at_utc": datetime(2015, 1, 2, 5, tzinfo=UTC)}
    moves = {"underlying": "ABC", "sector": "Utilities", "valid_from": valid_from, "known_at_utc": told}
    rows = [moves, {"underlying": "ABC", "sector": "Energy", **since}, {"underlying": "XYZ", "sector": "Health Care", **since}]
    table = SECTORS.conform(sectors({"sectors_file": raw(SECTORS_FILE, *rows)}, SESSION).tables["sectors"], SESSION)
    assert table.select("underlying", "sector").rows() == [("ABC", sector), ("XYZ", "Health Care")]


def test_without_the_file_no_underlying_has_a_sector() -> None:
    assert SECTORS.conform(sectors({}, SESSION).tables["sectors"], SESSION).height == 0
