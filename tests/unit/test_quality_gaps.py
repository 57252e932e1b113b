"""Every kind of gap fires on a planted defect, with its cure, and clean sessions stay silent."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from flowlake.core import sessions
from flowlake.datasets.curated import OPTION_BARS_1D, OPTION_TRADES
from flowlake.datasets.model import UTC_NS, Output
from flowlake.datasets.quality import ACTIVITY, GAPS
from flowlake.datasets.raw import MASSIVE_OPTION_DAY
from flowlake.quality.activity import measure_activity
from flowlake.quality.audit import audit
from flowlake.quality.gaps import find_gaps

TODAY = date(2023, 11, 22)
PAST = sessions.sessions_between(sessions.offset(TODAY, -6), sessions.previous_session(TODAY))
PRINTS = {"SPY": 4000, "AAPL": 800, "TINY": 3}
FLAGS = [c.name for c in OPTION_TRADES.columns if c.dtype == pl.Boolean]


def option_trades(session: date, prints: dict[str, int] | None = None) -> pl.DataFrame:
    """A session of prints, uniform over time, other ones for every session."""
    rng = np.random.default_rng(session.toordinal())
    minutes = (sessions.close_utc(session) - sessions.open_utc(session)) / timedelta(minutes=1)
    parts = [
        pl.DataFrame(
            {
                "contract": [f"{underlying}240119C{strike * 1000:08d}" for strike in rng.integers(100, 120, count)],
                "underlying": underlying,
                "root": underlying,
                "offset_ms": rng.integers(0, int(minutes * 60_000), count),
                "price": rng.integers(1, 500, count) / 100,
                "size": rng.integers(1, 50, count),
            }
        )
        for underlying, count in (prints or PRINTS).items()
    ]
    frame = pl.concat(parts).with_columns(
        ts_utc=pl.lit(sessions.open_utc(session)).cast(UTC_NS) + pl.duration(milliseconds="offset_ms"),
        expiry=pl.lit(date(2024, 1, 19)),
        right=pl.lit("C"),
        strike=pl.col("contract").str.tail(8).cast(pl.Float64) / 1000,
        premium_usd=pl.lit(0.0),
        exchange=pl.lit(302),
        condition=pl.lit(209),
        conditions=pl.lit("209"),
        condition_group=pl.lit("regular"),
        **{name: pl.lit(True) for name in FLAGS},
    )
    return OPTION_TRADES.conform(frame, session)


def activity(session: date, frame: pl.DataFrame, name: str = "option_trades") -> pl.DataFrame:
    table = measure_activity({name: frame}, session).tables["activity"]
    return ACTIVITY.conform(table, session).with_columns(session=pl.lit(session))


HISTORY = pl.concat([activity(session, option_trades(session)) for session in PAST])


def listing(*rows: tuple[str, date], size: int = 1000) -> pl.DataFrame:
    schema = {"key": pl.String, "dataset": pl.String, "file_date": pl.Date, "size": pl.Int64, "etag": pl.String}
    return pl.DataFrame([(f"{name}/{day}", name, day, size, "e") for name, day in rows], schema=schema, orient="row")


FILE = listing(("massive_option_trades", TODAY))


def gaps(today: pl.DataFrame | None, files: pl.DataFrame = FILE, session: date = TODAY, history: pl.DataFrame = HISTORY) -> Output:
    measured = history if today is None else pl.concat([history, activity(session, today)])
    output = find_gaps({"activity": measured, "bucket_listing": files}, session)
    table = GAPS.conform(output.tables["gaps"], session)
    assert audit(GAPS, table, session).success
    assert len(output.findings) == table.height
    assert all(finding.cure and finding.row_count for finding in output.findings)
    assert all(str(session) in finding.what or finding.rule == "holiday_file" for finding in output.findings)
    return output


def kinds(output: Output) -> list[tuple[str, str, str]]:
    return output.tables["gaps"].select("dataset", "rule", "subject").rows()


@pytest.mark.parametrize("session", [TODAY, date(2023, 11, 24)], ids=["full day", "half day"])
def test_clean_sessions_are_silent(session: date) -> None:
    assert kinds(gaps(option_trades(session), listing(("massive_option_trades", session)), session)) == []


def without_aapl(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.filter(pl.col("underlying") != "AAPL")


def stopped(underlying: str | None) -> Callable[[pl.DataFrame], pl.DataFrame]:
    end = sessions.close_utc(TODAY) - timedelta(minutes=29)
    chosen = pl.lit(True) if underlying is None else pl.col("underlying") == underlying
    return lambda frame: frame.filter(~(chosen & (pl.col("ts_utc") >= end)))


def hole(frame: pl.DataFrame) -> pl.DataFrame:
    start = sessions.open_utc(TODAY) + timedelta(minutes=100)
    return frame.filter(~pl.col("ts_utc").is_between(start, start + timedelta(minutes=30)))


def doubled(frame: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([frame, frame]).sort(frame.columns)


def repeated(frame: pl.DataFrame) -> pl.DataFrame:
    earlier = option_trades(PAST[-1])
    shift = sessions.open_utc(TODAY) - sessions.open_utc(PAST[-1])
    return earlier.with_columns(pl.col("ts_utc", "known_at_utc") + shift)


def cut(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.gather_every(8)


@pytest.mark.parametrize(
    ("defect", "expected"),
    [
        (without_aapl, {("missing_underlying", "AAPL")}),
        (stopped("SPY"), {("early_stop", "SPY")}),
        (stopped(None), {("early_stop", "*"), ("early_stop", "SPY"), ("early_stop", "AAPL")}),
        (hole, {("missing_minutes", "*"), ("missing_minutes", "SPY"), ("missing_minutes", "AAPL")}),
        (doubled, {("doubled", "*")}),
        (repeated, {("stale_repeat", "*")}),
        (cut, {("few_rows", "*")}),
    ],
    ids=["missing_underlying", "early_stop", "truncated_tape", "missing_minutes", "doubled", "stale_repeat", "few_rows"],
)
def test_a_defect_is_found_and_nothing_else(defect: Callable[[pl.DataFrame], pl.DataFrame], expected: set[tuple[str, str]]) -> None:
    found = kinds(gaps(defect(option_trades(TODAY))))
    assert {(rule, subject) for _, rule, subject in found} == expected
    assert {dataset for dataset, _, _ in found} == {"option_trades"}


def test_the_finding_states_the_measure_and_the_expectation() -> None:
    row = gaps(stopped("SPY")(option_trades(TODAY))).tables["gaps"].row(0, named=True)
    assert (row["underlying"], row["measured"]) == ("SPY", 29.0)
    assert row["expected"] <= 2.0
    assert "SPY stops at 20:30 UTC, 29 minutes before the close" in row["what"]


def test_an_earlier_gap_does_not_excuse_the_next() -> None:
    bad = sessions.close_utc(PAST[-1]) - timedelta(minutes=29)
    cut_before = activity(PAST[-1], option_trades(PAST[-1]).filter(pl.col("ts_utc") < bad))
    history = pl.concat([HISTORY.filter(pl.col("session") != PAST[-1]), cut_before])
    found = kinds(gaps(stopped("SPY")(option_trades(TODAY)), history=history))
    assert ("option_trades", "early_stop", "SPY") in found


def test_a_missing_file_is_found_even_when_the_session_has_nothing() -> None:
    assert kinds(gaps(None, listing())) == [("massive_option_trades", "missing_file", "*")]


def test_a_raw_and_its_curated_table_report_a_missing_file_once() -> None:
    raw = HISTORY.filter(pl.col("underlying") == "*").with_columns(source=pl.lit("massive_option_trades"))
    found = kinds(gaps(None, listing(), history=pl.concat([HISTORY, raw])))
    assert found == [("massive_option_trades", "missing_file", "*")]


def test_files_dated_on_a_holiday_and_empty_files_are_found() -> None:
    thanksgiving = date(2023, 11, 23)
    files = pl.concat([FILE, listing(("massive_option_trades", thanksgiving), ("cboe_snapshot", thanksgiving))])
    found = kinds(gaps(option_trades(TODAY), files))
    assert found == [
        ("cboe_snapshot", "holiday_file", "2023-11-23"),
        ("massive_option_trades", "holiday_file", "2023-11-23"),
    ]
    empty = gaps(option_trades(TODAY), listing(("massive_option_trades", TODAY), size=20))
    assert kinds(empty) == [("massive_option_trades", "empty_file", "*")]


def test_reference_files_without_a_date_are_left_alone() -> None:
    files = pl.concat([FILE, FILE.with_columns(file_date=pl.lit(None, dtype=pl.Date), dataset=pl.lit("rates_file"))])
    assert kinds(gaps(option_trades(TODAY), files)) == []


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_short_past_says_nothing(count: int) -> None:
    history = HISTORY.filter(pl.col("session").is_in(PAST[:count]))
    found = kinds(gaps(stopped(None)(without_aapl(option_trades(TODAY))), listing(), history=history))
    assert found == []


def test_a_past_long_ago_says_nothing() -> None:
    later = sessions.offset(TODAY, 40)
    assert kinds(gaps(None, listing(), session=later)) == []


def test_without_any_input_there_is_an_empty_table() -> None:
    output = find_gaps({}, TODAY)
    assert output.tables["gaps"].height == 0
    assert audit(GAPS, GAPS.conform(output.tables["gaps"], TODAY), TODAY).success


def test_activity_measures_rows_volume_time_and_content() -> None:
    frame = option_trades(TODAY, {"SPY": 500, "TINY": 1})
    rows: dict[str, dict[str, Any]] = {row["underlying"]: row for row in activity(TODAY, frame).iter_rows(named=True)}
    assert set(rows) == {"*", "SPY", "TINY"}
    spy = frame.filter(pl.col("underlying") == "SPY")
    assert rows["SPY"]["rows"] == 500
    assert rows["*"]["rows"] == 501
    assert rows["SPY"]["volume"] == spy["size"].sum()
    minute = spy.select((pl.col("ts_utc") - pl.lit(sessions.open_utc(TODAY)).cast(UTC_NS)).dt.total_minutes()).to_series()
    present = sorted(set(minute))
    assert rows["SPY"]["minutes"] == len(present)
    assert rows["SPY"]["silent_end_minutes"] == 389 - present[-1]
    assert rows["SPY"]["longest_silence_minutes"] == max(b - a - 1 for a, b in zip([-1, *present], present, strict=False))


def test_activity_hash_ignores_order_and_time_but_not_content() -> None:
    frame = option_trades(TODAY)

    def total(changed: pl.DataFrame) -> str:
        table = measure_activity({"option_trades": changed}, TODAY).tables["activity"]
        return str(table.filter(pl.col("underlying") == "*")["content_hash"].item())

    first = pl.int_range(pl.len()) == 0
    assert total(frame) == total(frame.sample(fraction=1, shuffle=True, seed=1))
    assert total(frame) == total(frame.with_columns(pl.col("ts_utc") + timedelta(seconds=1)))
    assert total(frame) != total(frame.with_columns(pl.when(first).then(pl.col("size") + 1).otherwise("size").alias("size")))
    assert total(frame) != total(frame.with_columns(pl.when(first).then(pl.col("price") + 0.01).otherwise("price").alias("price")))


def test_activity_of_bars_and_raw_files() -> None:
    bars = pl.DataFrame({"ticker": ["O:A240119C00001000"] * 2, "volume": 3.0, "transactions": 1, "window_start": 0, "row": [0, 1]})
    raw = MASSIVE_OPTION_DAY.conform(
        bars.with_columns(open=1.0, high=1.0, low=1.0, close=1.0, extra=pl.lit(None, dtype=pl.String)), TODAY
    )
    row = activity(TODAY, raw, "massive_option_day").row(0, named=True)
    assert (row["underlying"], row["rows"], row["distinct_rows"], row["volume"], row["minutes"]) == ("*", 2, 1, 6.0, None)
    empty = measure_activity({"option_bars_1d": OPTION_BARS_1D.empty()}, TODAY).tables["activity"]
    assert empty.height == 0
    assert measure_activity({}, TODAY).tables["activity"].height == 0
