"""A file of quotes in a real run: it is read past, and what the lake keeps of it answers as the whole file would."""

from __future__ import annotations

import gzip
import io
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from flowlake.core.settings import Settings
from flowlake.lake.lake import Lake, open_lake
from flowlake.market.s3server import S3Server
from flowlake.pipeline.plan import select
from flowlake.pipeline.run import Report
from integration.market_bucket import bucket_of, fill, lake_hashes, run_all, settings_for, small_market

MARKET = small_market(2, 2, include_quotes=True, include_stock=False, include_reference=False, trades_per_underlying_session=200)
STEPS = select(["ingest", "curate_sessions", "curate_contracts", "curate_option_trades", "curate_option_quotes_eod", "trade_sides"])
DAY = MARKET.days[1]
FILES = {file.key: file.body for file in MARKET.files()}
QUOTES, TRADES = (next(key for key in FILES if kind in key and f"{DAY}" in key) for kind in ("quotes_v1", "trades_v1"))
BETWEEN = 25
"""Quotes that come and go before each quote of the market, within the microsecond that it stands before its print."""


def busy() -> bytes:
    """The market's file of quotes among many others, plain and over a megabyte."""
    own = pl.read_csv(io.BytesIO(gzip.decompress(FILES[QUOTES])))
    others = [
        own.with_columns(pl.col("sip_timestamp") - 30 * n, pl.col("ask_price") + n, pl.col("bid_size") + n)
        for n in range(1, BETWEEN + 1)
    ]
    whole = pl.concat([own, *others]).sort("ticker", "sip_timestamp").with_columns(sequence_number=pl.int_range(1, pl.len() + 1))
    return whole.select(own.columns).write_csv().encode()


def built(settings: Settings, **request: object) -> Report:
    report = run_all(settings, MARKET, steps=STEPS, **request)
    assert report.exit_code == 0, [(r.step, r.status, r.detail) for r in report.results if r.status not in ("built", "absent")]
    return report


@pytest.fixture(scope="module")
def plain(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = fill(s3, "kept-plain", MARKET, tmp_path_factory.mktemp("kept") / "plain")
    built(settings)
    return settings


def rows(lake: Lake, name: str) -> pl.DataFrame:
    return lake.read(name, sessions=DAY).collect()


def test_of_a_file_over_the_limit_of_memory_what_stands_before_prints_is_kept(
    s3: S3Server, plain: Settings, tmp_path: Path
) -> None:
    settings = replace(fill(s3, "kept-busy", MARKET, tmp_path / "lake"), max_object_mb=1)
    bucket = bucket_of(s3, "kept-busy")
    body = busy()
    assert len(body) > 1_000_000
    bucket.put(QUOTES, gzip.compress(body, compresslevel=0))
    built(settings)
    here, there = open_lake(settings=settings), open_lake(settings=plain)
    kept = rows(here, "massive_option_quotes")
    assert kept.height < 0.06 * body.count(b"\n")
    assert kept["known_at_utc"].to_physical().to_list() == kept["kept_for"].to_list()
    for name in ("contracts", "option_quotes_eod", "trade_sides"):
        assert rows(here, name).equals(rows(there, name)), name
    assert (rows(here, "trade_sides")["rule"] == "quote").sum() > 100, "there was something to be answered"


def test_prints_that_come_later_find_their_quotes(s3: S3Server, plain: Settings, tmp_path: Path) -> None:
    settings = fill(s3, "kept-late", MARKET, tmp_path / "lake")
    bucket = bucket_of(s3, "kept-late")
    bucket._client.delete_object(Bucket=bucket.name, Key=f"kept-late/{TRADES}")
    built(settings)
    lake = open_lake(settings=settings)
    first = rows(lake, "massive_option_quotes")
    assert set(rows(lake, "option_quotes_eod")["contract"]) == set(rows(lake, "contracts")["contract"])
    bucket.put(TRADES, FILES[TRADES])
    report = built(settings)
    assert {(r.step, r.session) for r in report.results if r.status == "built"} >= {("ingest_massive_option_quotes", DAY)}
    assert rows(open_lake(settings=settings), "massive_option_quotes").height > first.height
    assert lake_hashes(settings.lake) == lake_hashes(plain.lake)
    again = run_all(settings, MARKET, steps=STEPS)
    assert {r.status for r in again.results} == {"fresh"}


def test_tapes_come_before_quotes_on_dask(s3: S3Server, plain: Settings, tmp_path: Path) -> None:
    settings = settings_for(s3, "kept-plain", tmp_path / "lake")
    built(settings, executor="dask", workers=2)
    assert lake_hashes(settings.lake) == lake_hashes(plain.lake)


def test_a_file_that_ends_early_is_held_and_named(s3: S3Server, plain: Settings, tmp_path: Path) -> None:
    settings = fill(s3, "kept-torn", MARKET, tmp_path / "lake")
    torn = gzip.compress(busy(), compresslevel=0)[:-2_000]
    bucket_of(s3, "kept-torn").put(QUOTES, torn)
    report = run_all(settings, MARKET, steps=STEPS)
    assert report.exit_code == 3
    held = {r.step: r.detail for r in report.results if r.status == "quarantined"}
    assert set(held) == {"ingest_massive_option_quotes"}
    assert "the gzip stream ends early" in held["ingest_massive_option_quotes"]
    large = replace(settings, lake=str(tmp_path / "other"), max_object_mb=1)
    report = run_all(large, MARKET, steps=STEPS)
    (detail,) = (r.detail for r in report.results if r.status == "quarantined")
    assert "it cannot be read piece by piece (the gzip stream ends early)" in detail
