"""Real files of other vendors through a whole run: a bucket without a single file of the first vendor."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from flowlake.core.sessions import close_utc
from flowlake.core.settings import Settings
from flowlake.lake.lake import Lake
from flowlake.lake.store import open_store
from flowlake.market.s3server import S3Server
from flowlake.pipeline.plan import select
from flowlake.pipeline.run import Report, Request, run
from integration.market_bucket import bucket_of, settings_for
from unit import test_vendor_optionsdx as optionsdx

INDEX, THETA, DATABENTO = date(2021, 1, 4), date(2024, 6, 14), date(2025, 2, 20)
SCHEMAS = ("trades", "cbbo-1m", "ohlcv-1m", "ohlcv-1d", "statistics", "definition")
STEPS = ["ingest", "curate", "option_iv"]


def bodies(real_data: Path) -> Iterator[tuple[str, bytes]]:
    """Keys as the bucket has them, and for files without a date in their name the key of their session."""
    for folder in ("lean/indexoption/usa/minute/spx", "lean/indexoption/usa/minute/spxw", "lean/index/usa/minute/spx"):
        for path in sorted((real_data / folder).glob("20210104_*")):
            yield f"{folder}/{path.name}", path.read_bytes()
    for name, endpoint in (("trade_quote", "trade_quote"), ("greeks_eod", "greeks_eod")):
        body = (real_data / f"thetadata/option_history_{name}.csv").read_bytes()
        yield f"thetadata/option_history_{endpoint}/2024/06/2024-06-14/SPY.csv", body
    for schema in SCHEMAS:
        body = (real_data / f"databento/OPRA.PILLAR/test_data.{schema}.dbn.zst").read_bytes()
        yield f"databento/OPRA.PILLAR/{schema}/2025/02/2025-02-20.dbn.zst", body


@pytest.fixture(scope="module")
def settings(s3: S3Server, real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    folder = tmp_path_factory.mktemp("vendors")
    bucket = bucket_of(s3, "vendors")
    for key, body in bodies(real_data):
        bucket.put(key, body)
    yield settings_for(s3, "vendors", folder / "lake")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def reports(settings: Settings) -> dict[date, Report]:
    return {day: run(settings, Request(day, day, steps=select(STEPS))) for day in (INDEX, THETA, DATABENTO)}


@pytest.fixture(scope="module")
def lake(settings: Settings, reports: dict[date, Report]) -> Lake:
    return Lake(open_store(settings.lake, settings.lake_access))


def table(lake: Lake, name: str, day: date) -> pl.DataFrame:
    return lake.read(name, sessions=day).collect()


def built(reports: dict[date, Report], day: date) -> set[str]:
    bad = [(r.step, r.detail) for r in reports[day].results if r.status in ("failed", "quarantined", "held")]
    assert bad == []
    return {r.step for r in reports[day].results if r.status == "built"}


def test_nothing_fails_and_nothing_is_held(reports: dict[date, Report]) -> None:
    assert {"curate_option_quotes_eod", "curate_open_interest", "curate_equity_bars_1m", "option_iv"} <= built(reports, INDEX)
    assert {"curate_option_trades", "curate_option_bars_1d", "curate_option_quotes_eod", "option_iv"} <= built(reports, THETA)
    databento = {f"curate_{name}" for name in ("option_trades", "option_bars_1m", "option_bars_1d", "open_interest", "contracts")}
    assert databento | {"curate_option_quotes_eod", "option_iv"} <= built(reports, DATABENTO)


def test_index_options_find_their_spot_in_the_index_minutes(lake: Lake) -> None:
    """Lean's index counts in Chicago time: read as New York time it would lie an hour off, and say nothing of the close."""
    iv = table(lake, "option_iv", INDEX)
    minutes = table(lake, "equity_bars_1m", INDEX)
    regular = minutes.filter("is_regular").sort("ts_utc")
    quoted = iv.filter(pl.col("iv").is_not_null() & (pl.col("price_source") == "quote_mid"))
    assert quoted.height >= 3
    assert set(quoted["spot"]) <= set(regular["close"])
    at_close = quoted.filter(pl.col("ts_utc") == pl.col("ts_utc").max())
    assert at_close["spot"].unique().to_list() == [regular["close"][-1]]
    assert quoted["iv"].is_between(0.1, 0.7).all()


def test_prints_of_another_vendor_are_prints(lake: Lake) -> None:
    trades = table(lake, "option_trades", THETA)
    assert (trades.height, trades["size"].sum()) == (98, 682)
    assert trades.filter("is_multi_leg").height == 77
    assert table(lake, "option_trades", DATABENTO)["exchange"].to_list() == [303, 308, 308, 320]
    assert table(lake, "option_quotes_eod", THETA).select("bid", "ask").row(0) == (42.39, 43.25)


def test_a_second_run_finds_everything_fresh(settings: Settings, lake: Lake) -> None:
    again = run(settings, Request(DATABENTO, DATABENTO, steps=select(STEPS)))
    assert {r.status for r in again.results if r.step.startswith("ingest_databento")} == {"fresh"}
    assert {r.status for r in again.results} <= {"fresh", "absent", "blocked"}


def test_two_files_for_one_partition_are_held(settings: Settings, lake: Lake, s3: S3Server) -> None:
    """The same session's trades under two schemas: which of them counts, nobody says."""
    bucket_of(s3, "vendors").put("databento/OPRA.PILLAR/tbbo/2025/02/2025-02-20.dbn.zst", b"any")
    report = run(settings, Request(DATABENTO, DATABENTO, steps=select(["ingest_databento_option_trades"])))
    assert [r.status for r in report.results] == ["quarantined"]
    assert "2 objects feed one partition" in report.results[0].detail


def test_a_month_in_one_file_restates_only_the_sessions_whose_rows_changed(s3: S3Server, tmp_path: Path) -> None:
    first, second = date(2023, 1, 3), date(2023, 1, 4)
    bucket = bucket_of(s3, "month")

    def put(bid_of_the_second: float) -> None:
        unix = int(close_utc(second).timestamp())
        rows = [optionsdx.row(), optionsdx.row(QUOTE_DATE=second, QUOTE_UNIXTIME=unix, C_BID=bid_of_the_second)]
        bucket.put("optionsdx/SPY/spy_eod_202301.txt", optionsdx.text(*rows))

    settings = settings_for(s3, "month", tmp_path / "lake")

    def statuses() -> dict[date, str]:
        report = run(settings, Request(first, second, steps=select(["ingest", "curate"])))
        return {r.session: r.status for r in report.results if r.step == "curate_option_quotes_eod"}

    put(6.5)
    assert statuses() == {first: "built", second: "built"}
    assert statuses() == {first: "fresh", second: "fresh"}
    put(6.25)
    assert statuses() == {first: "fresh", second: "built"}
    lake = Lake(open_store(settings.lake, settings.lake_access))
    assert table(lake, "option_quotes_eod", second).filter(right="C")["bid"].to_list() == [6.25]
    assert table(lake, "option_quotes_eod", first).filter(right="C")["bid"].to_list() == [7.0]
