"""The detectors on the synthetic market's files, read and curated for real: planted defects are found, and only those."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from functools import cache
from pathlib import Path

import polars as pl
import pytest

from flowlake.core import sessions
from flowlake.curate import bars, contracts, trades
from flowlake.datasets.model import Inputs
from flowlake.datasets.registry import DATASETS
from flowlake.market import Defect, MarketSpec, build
from flowlake.quality.activity import measure_activity
from flowlake.quality.audit import audit
from flowlake.quality.gaps import find_gaps
from flowlake.quality.reconcile import reconcile
from flowlake.sources import feeds

FIRST = date(2024, 1, 2)
SESSIONS = 5
LAST = SESSIONS - 1
MINUTES = "us_options_opra/minute_aggs_v1"
CURATED = {
    "option_trades": trades.option_trades,
    "option_bars_1m": bars.option_bars_1m,
    "option_bars_1d": bars.option_bars_1d,
}


class Night:
    """The lake of a market in memory: raw, curated, activity; and what the quality steps say of each session."""

    def __init__(self, defects: Iterable[Defect]) -> None:
        spec = MarketSpec(
            sessions=SESSIONS, underlyings=4, trades_per_underlying_session=1500, defects=tuple(defects), include_stock=False
        )
        self.raw: dict[tuple[str, date], pl.DataFrame] = {}
        self.files: list[tuple[str, str, date | None, int, str]] = []
        for file in build(spec).files():
            found = feeds.match(file.key)
            assert found is not None, file.key
            dataset, day = found.feed.dataset, found.file_date
            self.files.append((file.key, dataset.name, day, len(file.body), "etag"))
            if day is not None and sessions.is_session(day):
                raw = dataset.conform(feeds.parse(found.feed, file.key, file.body), day)
                self.raw[dataset.name, day] = raw.with_columns(session=pl.lit(day))
        self.activity = pl.concat([self._activity(day) for day in self.days])

    @property
    def days(self) -> list[date]:
        return [sessions.offset(FIRST, i) for i in range(SESSIONS)]

    @cache  # noqa: B019
    def inputs(self, day: date) -> Inputs:
        """Raw and curated tables of a session; a curated table that its audit refuses is held back."""
        tables = {name: frame for (name, of), frame in self.raw.items() if of == day}
        if not any(name.startswith("massive_option") for name in tables):
            return tables
        tables["contracts"] = DATASETS["contracts"].conform(contracts.contracts(tables, day).tables["contracts"], day)
        for name, step in CURATED.items():
            ds = DATASETS[name]
            if CURATED_FROM[name] in tables:
                frame = ds.conform(step(tables, day).tables[name], day)
                if audit(ds, frame, day).success:
                    tables[name] = frame.with_columns(session=pl.lit(day))
        return tables

    def _activity(self, day: date) -> pl.DataFrame:
        ds = DATASETS["activity"]
        table = ds.conform(measure_activity(self.inputs(day), day).tables["activity"], day)
        assert not table.height or audit(ds, table, day).success
        return table.with_columns(session=pl.lit(day))

    def gaps(self, day: date) -> set[tuple[str, str, str]]:
        after = sessions.next_session(day)
        schema = {"key": pl.String, "dataset": pl.String, "file_date": pl.Date, "size": pl.Int64, "etag": pl.String}
        dated = [file for file in self.files if file[2] is not None and day <= file[2] < after]
        listing = pl.DataFrame(dated, schema=schema, orient="row")
        known = self.activity.filter(pl.col("session") <= day)
        output = find_gaps({"activity": known, "bucket_listing": listing}, day)
        return set(output.tables["gaps"].select("dataset", "rule", "subject").rows())


CURATED_FROM = {
    "option_trades": "massive_option_trades",
    "option_bars_1m": "massive_option_minute",
    "option_bars_1d": "massive_option_day",
}


@pytest.fixture(scope="module")
def clean() -> Night:
    return Night(())


def test_a_clean_market_is_silent(clean: Night) -> None:
    assert {day: clean.gaps(day) for day in clean.days} == {day: set() for day in clean.days}


def test_a_clean_market_reconciles(clean: Night) -> None:
    for day in clean.days:
        output = reconcile(clean.inputs(day), day)
        assert [finding.what for finding in output.findings] == []
        table = output.tables["reconciliation"]
        assert set(table["pair"]) == {"trades~1m", "trades~1d", "1m~1d"}
        unexplained = table.filter((pl.col("reason") == "unexplained") & pl.col("measure").is_in(["volume", "transactions"]))
        assert unexplained.rows() == []


def test_planted_defects_are_found() -> None:
    day = sessions.offset(FIRST, LAST)

    def found(*defects: Defect) -> set[tuple[str, str]]:
        return {(rule, dataset) for dataset, rule, _ in Night(defects).gaps(day)}

    two = found(Defect("truncated_tape", LAST), Defect("missing_minutes", LAST, MINUTES, start_minute=120))
    assert {("early_stop", "option_trades"), ("missing_minutes", "option_bars_1m")} <= two
    assert not {("missing_minutes", "option_trades"), ("early_stop", "option_bars_1m")} & two
    two = found(Defect("doubled_file", LAST), Defect("missing_underlying", LAST, MINUTES))
    assert {("doubled", "massive_option_trades"), ("missing_underlying", "option_bars_1m")} <= two
    assert found(Defect("missing_session", LAST)) == {("missing_file", "massive_option_trades")}


def test_a_session_without_any_file_and_a_holiday_file_are_found() -> None:
    night = Night((Defect("missing_session", LAST, dataset=None), Defect("holiday_file", 3)))
    lacking = {dataset for dataset, rule, _ in night.gaps(sessions.offset(FIRST, LAST)) if rule == "missing_file"}
    assert {"massive_option_trades", "massive_option_minute", "massive_option_day"} <= lacking
    on_holiday = [night.gaps(day) for day in night.days]
    assert sum(rule == "holiday_file" for found in on_holiday for _, rule, _ in found) == 1


def test_missing_minutes_break_the_reconciliation() -> None:
    night = Night((Defect("missing_minutes", LAST, MINUTES, start_minute=120),))
    day = sessions.offset(FIRST, LAST)
    output = reconcile(night.inputs(day), day)
    assert {(f.dataset, f.rule) for f in output.findings if f.rule == "volume_disagrees"} == {
        ("option_bars_1m", "volume_disagrees")
    }
    assert "missing_minutes" in set(output.tables["reconciliation"]["reason"])


def test_the_vendors_own_sample_reconciles(real_data: Path) -> None:
    """62 prints of one contract and the day bar that the vendor's documentation prints for it."""
    day = date(2023, 3, 13)
    tables: dict[str, pl.DataFrame] = {}
    for folder in ("trades_v1", "day_aggs_v1"):
        key = f"us_options_opra/{folder}/2023/03/2023-03-13.csv.gz"
        found = feeds.match(key)
        assert found is not None
        raw = feeds.parse(found.feed, key, (real_data / key).read_bytes())
        tables[found.feed.dataset.name] = found.feed.dataset.conform(raw, day).with_columns(session=pl.lit(day))
    tables["contracts"] = DATASETS["contracts"].conform(contracts.contracts(tables, day).tables["contracts"], day)
    for name in ("option_trades", "option_bars_1d"):
        frame = DATASETS[name].conform(CURATED[name](tables, day).tables[name], day)
        assert audit(DATASETS[name], frame, day).success
        tables[name] = frame
    output = reconcile(tables, day)
    assert output.findings == ()
    rows = output.tables["reconciliation"].select("measure", "contract", "left_value", "right_value", "residual").rows()
    assert ("volume", "*", 200.0, 200.0, 0.0) in rows
    assert ("transactions", "*", 62.0, 62.0, 0.0) in rows
    assert {contract for _, contract, *_ in rows} == {"*"}
