"""Every kind of bad input, through the command line and a real S3 server: a clear message, a quarantine or a retry, nothing lost.

Each test starts from a lake that holds the first session, spoils something of the second in a bucket of its own, runs, looks at
what the command said and at what the lake serves, then puts the good object back and expects the lake of a bucket that was
never spoilt.
"""

from __future__ import annotations

import errno
import gzip
import http.client
import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import polars as pl
import pytest

from flowlake.cli import main
from flowlake.core.settings import Secret, Settings
from flowlake.datasets.registry import DATASETS
from flowlake.lake import store as store_module
from flowlake.lake.journal import records
from flowlake.lake.lake import Lake, open_lake
from flowlake.market.s3server import S3Server
from flowlake.pipeline import ingest as ingest_module
from flowlake.sources.bucket import Bucket, Retry
from integration.market_bucket import bucket_of, call, environment, lake_hashes, run_command, settings_for, small_market

MARKET = small_market(2, 2, include_quotes=False)
FIRST, SECOND = MARKET.days
BEFORE, TODAY = f"{FIRST:%Y/%m/%Y-%m-%d}.csv.gz", f"{SECOND:%Y/%m/%Y-%m-%d}.csv.gz"
TRADES = f"us_options_opra/trades_v1/{TODAY}"
MINUTES = f"us_options_opra/minute_aggs_v1/{TODAY}"
DAYS = f"us_options_opra/day_aggs_v1/{TODAY}"
CHAIN = f"cboe_snapshots/VIX/{SECOND}.csv"
NANOSECONDS = 10**9
UNTIL_CURATED = ("--step", "ingest", "curate")
GOOD_CHAIN = (
    f"# spot,13.2,ts,{SECOND} 22:00:00\n"
    "strike,dte,cp,oi,gamma,delta,iv,bid,ask\n"
    "13,14,C,100,0.1,0.55,0.8,1.10,1.20\n"
    "13,14,P,100,0.1,-0.45,0.8,0.90,1.00\n"
    "14,14,C,50,0.1,0.40,0.8,0.70,0.80\n"
).encode()


# --- Helpers -------------------------------------------------------------------------------------------------------------------


def lines_of(body: bytes) -> list[str]:
    return gzip.decompress(body).decode().splitlines()


def packed(lines: list[str]) -> bytes:
    return gzip.compress("".join(f"{line}\n" for line in lines).encode(), mtime=0)


def with_cells(body: bytes, column: str, change: Callable[[int, str], str]) -> bytes:
    """The file with `change(row, cell)` in place of each cell of a column."""
    header, *rows = lines_of(body)
    at = header.split(",").index(column)
    changed = []
    for number, row in enumerate(rows):
        cells = row.split(",")
        cells[at] = change(number, cells[at])
        changed.append(",".join(cells))
    return packed([header, *changed])


def with_cell(body: bytes, column: str, value: str, *rows: int) -> bytes:
    return with_cells(body, column, lambda row, cell: value if row in rows else cell)


def without_column(body: bytes, column: str) -> bytes:
    table = [line.split(",") for line in lines_of(body)]
    at = table[0].index(column)
    return packed([",".join(cells[:at] + cells[at + 1 :]) for cells in table])


def with_column(body: bytes, column: str, value: Callable[[dict[str, str]], str]) -> bytes:
    header, *rows = lines_of(body)
    names = header.split(",")
    return packed([f"{header},{column}", *(f"{row},{value(dict(zip(names, row.split(','), strict=True)))}" for row in rows)])


def moved(body: bytes, column: str, by: timedelta, *rows: int) -> bytes:
    """Timestamps later by `by`, in these rows or in all."""
    step = int(by.total_seconds()) * NANOSECONDS
    return with_cells(body, column, lambda row, cell: str(int(cell) + step) if not rows or row in rows else cell)


@dataclass(frozen=True)
class Ran:
    code: int
    out: str

    def __contains__(self, text: str) -> bool:
        return text in self.out


@dataclass
class World:
    """A bucket and a lake of one test, and the command line that works on them."""

    server: S3Server
    settings: Settings
    prefix: str
    good: dict[str, bytes]
    monkeypatch: pytest.MonkeyPatch
    capture: pytest.CaptureFixture[str]

    @property
    def root(self) -> Path:
        return Path(self.settings.lake)

    @property
    def lake(self) -> Lake:
        return open_lake(settings=self.settings)

    def put(self, key: str, body: bytes) -> None:
        bucket_of(self.server, self.prefix).put(key, body)

    def delete(self, key: str) -> None:
        bucket_of(self.server, self.prefix)._client.delete_object(Bucket="flowlake", Key=f"{self.prefix}/{key}")

    def flowlake(self, *arguments: object) -> Ran:
        """A command in this process; whatever it says holds neither a traceback nor a key."""
        for name, value in environment(self.settings, COLUMNS="400").items():
            if name.startswith("FLOWLAKE_") or name == "COLUMNS":
                self.monkeypatch.setenv(name, value)
        self.capture.readouterr()
        code = main([str(argument) for argument in arguments])
        shown = self.capture.readouterr()
        ran = Ran(code, shown.out + shown.err)
        assert "Traceback" not in ran, ran.out
        assert_no_key(self.settings, ran.out.encode())
        return ran

    def run(self, *arguments: object) -> Ran:
        return self.flowlake("run", "--from", FIRST, "--to", SECOND, "--no-data-docs", *arguments)

    def quarantined(self, dataset: str) -> dict[str, object]:
        """The only quarantine entry of a dataset."""
        found = self.lake.sql("select * from quarantine where dataset = ?", [dataset])
        assert found.height == 1, found
        return found.row(0, named=True)

    def kept_rows(self, dataset: str, name: str = "rows") -> pl.DataFrame:
        """What quarantine keeps beside an entry."""
        return pl.read_parquet(self.root / str(self.quarantined(dataset)["folder"]) / f"{name}.parquet")

    def served(self, dataset: str) -> bool:
        return SECOND in self.lake.sessions(dataset)


@dataclass(frozen=True)
class Clean:
    """What a bucket that was never spoilt gives: the lake of both sessions, and a lake that stopped after the first."""

    good: dict[str, bytes]
    both: dict[str, str]
    first: Path
    hashes_of_first: dict[str, str]


@pytest.fixture(scope="module")
def clean(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Clean:
    from flowlake.pipeline.run import Request, run

    good = {file.key: file.body for file in MARKET.files()} | {CHAIN: GOOD_CHAIN}
    bucket = bucket_of(s3, "bad-input-clean")
    for key, body in good.items():
        bucket.put(key, body)
    folder = tmp_path_factory.mktemp("clean")
    settings = settings_for(s3, "bad-input-clean", folder / "lake", folder / "scratch")
    assert run(settings, Request(FIRST, FIRST)).exit_code == 0
    shutil.copytree(folder / "lake", folder / "first")
    assert run(settings, Request(FIRST, SECOND)).exit_code == 0
    return Clean(good, lake_hashes(folder / "lake"), folder / "first", lake_hashes(folder / "first"))


@pytest.fixture
def world(
    s3: S3Server,
    clean: Clean,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Iterator[World]:
    monkeypatch.setattr(Retry, "wait", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    shutil.copytree(clean.first, tmp_path / "lake")
    prefix = f"bad-input/{request.node.name}".replace("[", "-").replace("]", "")
    settings = settings_for(s3, prefix, tmp_path / "lake", tmp_path / "scratch")
    made = World(s3, settings, prefix, clean.good, monkeypatch, capfd)
    for key, body in clean.good.items():
        made.put(key, body)
    yield made
    assert not (tmp_path / "flowlake-error.txt").exists(), "a condition that users meet must not be unexpected"
    assert_no_key(made.settings, *(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()))
    for name in ("runs", "findings", "objects", "quarantine"):
        assert_no_key(made.settings, made.lake.sql(f"select * from {name}").write_json().encode())


def assert_no_key(settings: Settings, *texts: bytes) -> None:
    for key in (settings.bucket_key_id, settings.bucket_secret):
        assert len(key.reveal()) > 8
        assert not any(key.reveal().encode() in text for text in texts)


def assert_nothing_good_is_lost(world: World, clean: Clean, *spoilt: str) -> None:
    """The first session is as it was, and all raw files of the second but the spoilt ones are there as they should be."""
    now = lake_hashes(world.root)
    assert {path: now.get(path) for path in clean.hashes_of_first} == clean.hashes_of_first
    raw = {path: sha for path, sha in clean.both.items() if path.startswith("raw/") and path.split("/")[1] not in spoilt}
    assert len(raw) > 10
    assert {path: now.get(path) for path in raw} == raw


def assert_repaired(world: World, clean: Clean, whole: bool = False) -> None:
    """With good objects in the bucket the next run builds what was held, and the lake is that of a clean bucket."""
    steps = () if whole else UNTIL_CURATED
    ran = world.run(*steps)
    assert ran.code == 0, ran.out
    if whole:
        assert world.run("--restate").code == 0
    layers = ("raw/", "curated/", "derived/", "labels/") if whole else ("raw/", "curated/")
    expected = {path: sha for path, sha in clean.both.items() if path.startswith(layers)}
    now = {path: sha for path, sha in lake_hashes(world.root).items() if path.startswith(layers)}
    assert now == expected


# --- Files that cannot be read: the partition is held --------------------------------------------------------------------------


@dataclass(frozen=True)
class BadFile:
    """`spoil` changes the good body; `says` must all stand in what the command prints."""

    name: str
    rule: str
    says: tuple[str, ...]
    spoil: Callable[[bytes], bytes]
    key: str = TRADES
    dataset: str = "massive_option_trades"


BAD_FILES = (
    BadFile("truncated_gzip", "truncated_gzip", ("ends early", "fetch the object again"), lambda b: b[: len(b) * 6 // 10]),
    BadFile("wrong_header", "wrong_header", ("expected ticker",), lambda b: packed(["some,other,table", *lines_of(b)[1:]])),
    BadFile(
        "missing_column", "missing_column", ("price is missing", "every documented column"), lambda b: without_column(b, "price")
    ),
    BadFile(
        "bad_number", "bad_number", ("row 7", "line 9", "'abc'", "correct the value"), lambda b: with_cell(b, "price", "abc", 7)
    ),
    BadFile("empty_object", "empty_file", ("no bytes",), lambda b: b""),
    BadFile("only_a_header", "empty_file", ("no data row",), lambda b: packed(lines_of(b)[:1])),
    BadFile(
        "wrong_date",
        "wrong_date",
        (f"not of {SECOND}", f"middle row is of {FIRST}", "under the key of its own date"),
        lambda b: moved(b, "sip_timestamp", timedelta(days=-1)),
    ),
    BadFile(
        "not_utf8",
        "encoding",
        ("line 3", "0xe9", "UTF-8"),
        lambda b: gzip.compress(gzip.decompress(b).replace(b"\n", b"\xe9\n", 3).replace(b"\xe9\n", b"\n", 2), mtime=0),
    ),
    BadFile(
        "minutes_of_another_day",
        "wrong_date",
        (f"not of {SECOND}",),
        lambda b: moved(b, "window_start", timedelta(days=30)),
        MINUTES,
        "massive_option_minute",
    ),
    BadFile(
        "ragged_row",
        "ragged_row",
        ("row 4", "cells"),
        lambda b: packed([line + (",1,2" if at == 5 else "") for at, line in enumerate(lines_of(b))]),
        DAYS,
        "massive_option_day",
    ),
    BadFile(
        "snapshot_without_its_first_line",
        "wrong_header",
        ("the first line is", "# spot"),
        lambda b: b.split(b"\n", 1)[1],
        CHAIN,
        "cboe_snapshot",
    ),
)


@pytest.mark.parametrize("bad", BAD_FILES, ids=lambda bad: bad.name)
def test_a_file_that_cannot_be_read_is_held(bad: BadFile, world: World, clean: Clean) -> None:
    world.put(bad.key, bad.spoil(world.good[bad.key]))
    ran = world.run(*UNTIL_CURATED)
    assert ran.code == 3
    assert bad.key in ran
    for text in (f"quarantined ingest_{bad.dataset} {SECOND}", *bad.says):
        assert text in ran, ran.out
    entry = world.quarantined(bad.dataset)
    assert (entry["kind"], entry["rule"], entry["session"]) == ("held", bad.rule, SECOND)
    assert entry["what"]
    assert entry["cure"]
    assert not world.served(bad.dataset)
    assert_nothing_good_is_lost(world, clean, bad.dataset)
    world.put(bad.key, world.good[bad.key])
    assert_repaired(world, clean)


def test_what_is_held_is_skipped_until_retry_or_another_file(world: World, clean: Clean) -> None:
    world.put(TRADES, world.good[TRADES][:-100])
    first = world.run()
    assert first.code == 3
    assert f"quarantined ingest_massive_option_trades {SECOND}" in first
    assert "blocked, for want of an input" in first
    assert "curate_option_trades (1)" in first
    downloads = records(world.lake.store, DATASETS["objects"]).height

    again = world.run()
    assert again.code == 3
    assert f"held ingest_massive_option_trades {SECOND}" in again
    assert "ends early" in again
    assert "quarantined" not in again
    assert f"held ingest_massive_option_trades {SECOND}" in world.flowlake("status", "--session", SECOND)

    retried = world.run("--retry")
    assert retried.code == 3
    assert f"quarantined ingest_massive_option_trades {SECOND}" in retried
    assert world.quarantined("massive_option_trades")["kind"] == "held"
    assert records(world.lake.store, DATASETS["objects"]).height == downloads, "the bytes are the same: nothing new to record"

    assert_nothing_good_is_lost(world, clean, "massive_option_trades")
    world.put(TRADES, world.good[TRADES])
    assert_repaired(world, clean, whole=True)


def test_the_last_good_partition_goes_on_serving(world: World, clean: Clean) -> None:
    """A bad file over a good one: what was served is served, and everything derived from it stays."""
    assert world.run().code == 0
    assert lake_hashes(world.root) == clean.both
    world.put(TRADES, without_column(world.good[TRADES], "sip_timestamp"))
    ran = world.run()
    assert ran.code == 3
    assert "sip_timestamp is missing" in ran
    assert lake_hashes(world.root) == clean.both
    assert world.lake.read("option_trades", SECOND).collect().height > 100
    world.put(TRADES, world.good[TRADES])
    fresh = world.run()
    assert fresh.code == 0
    assert "quarantined" not in fresh
    assert lake_hashes(world.root) == clean.both


def test_yesterdays_file_under_todays_name(world: World, clean: Clean) -> None:
    kinds = ("us_options_opra/trades_v1", "us_options_opra/day_aggs_v1", "us_stocks_sip/minute_aggs_v1")
    datasets = ("massive_option_trades", "massive_option_day", "massive_stock_minute")
    for kind in kinds:
        world.put(f"{kind}/{TODAY}", world.good[f"{kind}/{BEFORE}"])
    ran = world.run(*UNTIL_CURATED)
    assert ran.code == 3
    for kind, dataset in zip(kinds, datasets, strict=True):
        assert f"{kind}/{TODAY}: " in ran
        assert world.quarantined(dataset)["rule"] == "wrong_date"
    assert_nothing_good_is_lost(world, clean, *datasets)
    for kind in kinds:
        world.put(f"{kind}/{TODAY}", world.good[f"{kind}/{TODAY}"])
    assert_repaired(world, clean)


def test_two_objects_for_one_partition(world: World, clean: Clean) -> None:
    twin = TRADES.removesuffix(".gz")
    world.put(twin, gzip.decompress(world.good[TRADES]))
    ran = world.run(*UNTIL_CURATED)
    assert ran.code == 3
    assert f"2 objects feed one partition: {twin}, {TRADES}" in ran
    assert "remove all but one" in ran
    assert world.quarantined("massive_option_trades")["rule"] == "two_files"
    assert_nothing_good_is_lost(world, clean, "massive_option_trades")
    world.delete(twin)
    assert_repaired(world, clean)


# --- Rows that cannot be right: they are left out, in the open -----------------------------------------------------------------


def utc_of_second(hour: int, days: int = 0) -> str:
    moment = datetime(SECOND.year, SECOND.month, SECOND.day, hour, tzinfo=UTC) + timedelta(days=days)
    return str(int(moment.timestamp()) * NANOSECONDS)


@dataclass(frozen=True)
class BadRows:
    """`rows` rows of the file are spoilt; they are left out of `dataset` under `rule`, and kept in quarantine."""

    name: str
    dataset: str
    rule: str
    rows: int
    says: str
    spoil: Callable[[bytes], bytes]
    key: str = TRADES


BAD_ROWS = (
    BadRows(
        "impossible_contract",
        "option_trades",
        "impossible_contract",
        2,
        "names no possible",
        lambda b: with_cell(with_cell(b, "ticker", "O:NOT A TICKER", 3), "ticker", "O:LOQA240231C00019000", 5),
    ),
    BadRows(
        "price_not_positive",
        "option_trades",
        "price_not_positive",
        3,
        "the price is not above 0",
        lambda b: with_cell(with_cell(b, "price", "-1.25", 3, 5), "price", "0", 9),
    ),
    BadRows(
        "size_not_whole", "option_trades", "size_not_positive", 1, "not a whole number", lambda b: with_cell(b, "size", "1.5", 8)
    ),
    BadRows(
        "outside_the_hours",
        "option_trades",
        "outside_trading_hours",
        2,
        "lies outside 04:00",
        lambda b: with_cell(b, "sip_timestamp", utc_of_second(7), 3, 4),
    ),
    BadRows(
        "outside_the_date",
        "option_trades",
        "outside_session_date",
        1,
        "outside the session's New York date",
        lambda b: with_cell(b, "sip_timestamp", utc_of_second(7, days=1), 3),
    ),
    BadRows(
        "after_the_decision",
        "massive_option_trades",
        "known_after_decision",
        1,
        "carry a time after",
        lambda b: with_cell(b, "sip_timestamp", utc_of_second(20, days=1), 3),
    ),
    BadRows(
        "bar_with_low_above_high",
        "option_bars_1d",
        "prices_out_of_order",
        1,
        "low is above high",
        lambda b: with_cell(b, "low", "9999", 2),
        DAYS,
    ),
    BadRows(
        "bid_above_ask",
        "option_quotes_eod",
        "crossed_quote",
        1,
        "the bid is above the ask",
        lambda b: b.replace(b"1.10,1.20", b"1.30,1.20"),
        CHAIN,
    ),
)


@pytest.mark.parametrize("bad", BAD_ROWS, ids=lambda bad: bad.name)
def test_a_few_impossible_rows_are_left_out_and_kept(bad: BadRows, world: World, clean: Clean) -> None:
    spoilt = bad.spoil(world.good[bad.key])
    assert spoilt != world.good[bad.key]
    world.put(bad.key, spoilt)
    ran = world.run(*UNTIL_CURATED)
    assert ran.code == 3, ran.out
    assert bad.rule in ran
    assert bad.says in ran
    assert str(SECOND) in ran
    entry = world.quarantined(bad.dataset)
    assert (entry["kind"], entry["rule"], entry["rows"]) == ("rows", bad.rule, bad.rows)
    assert entry["cure"]
    kept = world.kept_rows(bad.dataset)
    assert kept.height == bad.rows
    assert "row" in kept.columns, "a rejected row names its line in the file"
    good = pl.read_parquet(world.root / f"{DATASETS[bad.dataset].layer.value}/{bad.dataset}/session={SECOND}/part.parquet")
    assert good.height + bad.rows == rows_of_clean(clean, bad)
    assert_nothing_good_is_lost(
        world, clean, *{DATASETS[f].name for f in ("massive_option_trades", "massive_option_day", "cboe_snapshot")}
    )
    world.put(bad.key, world.good[bad.key])
    assert_repaired(world, clean)


def rows_of_clean(clean: Clean, bad: BadRows) -> int:
    """Rows that the undamaged file gives: none of them is rejected, and cancel messages are no prints."""
    lake = open_lake(str(clean.first.parent / "lake"))
    return lake.read(bad.dataset, SECOND).collect().height


def test_many_impossible_rows_hold_the_partition(world: World, clean: Clean) -> None:
    """Above one percent of the rows it is the file that cannot be trusted: the candidate is kept whole, nothing is published."""
    world.put(TRADES, with_cell(world.good[TRADES], "price", "-1", *range(40, 60)))
    ran = world.run(*UNTIL_CURATED)
    assert ran.code == 3
    assert f"quarantined curate_option_trades {SECOND}" in ran
    assert "20 of " in ran
    assert "were rejected" in ran
    assert "the price is not above 0" in ran
    entry = world.quarantined("option_trades")
    assert (entry["kind"], entry["rule"]) == ("held", "too_many_rejected")
    assert world.kept_rows("option_trades")["price"].to_list() == [-1.0] * 20
    assert world.kept_rows("option_trades", "candidate").height > 100
    assert not world.served("option_trades")
    assert world.served("option_bars_1d")
    assert f"held curate_option_trades {SECOND}" in world.run(*UNTIL_CURATED)
    assert f"quarantined curate_option_trades {SECOND}" in world.run(*UNTIL_CURATED, "--retry")
    world.put(TRADES, world.good[TRADES])
    assert_repaired(world, clean)


def test_an_audit_that_fails_keeps_candidate_and_failing_rows(world: World, clean: Clean) -> None:
    """A right that is neither C nor P breaks a declared check of the raw table."""
    world.put(CHAIN, GOOD_CHAIN.replace(b"13,14,P", b"13,14,X"))
    ran = world.run(*UNTIL_CURATED)
    assert ran.code == 3
    assert f"quarantined ingest_cboe_snapshot {SECOND}: cboe_snapshot {SECOND}: " in ran
    assert "cp" in ran
    assert "1 rows fail" in ran
    assert "look at the rows in quarantine" in ran
    assert world.quarantined("cboe_snapshot")["rule"] == "audit"
    assert world.kept_rows("cboe_snapshot", "candidate").height == 3
    assert world.kept_rows("cboe_snapshot")["cp"].to_list() == ["X"]
    audits = world.lake.sql("select * from audits where dataset = 'cboe_snapshot' and not passed")
    assert audits["session"].to_list() == [SECOND]
    world.put(CHAIN, GOOD_CHAIN)
    assert_repaired(world, clean)


# --- What is odd but can be used: it is noted ----------------------------------------------------------------------------------


def test_an_extra_column_is_noted_and_kept(world: World, clean: Clean) -> None:
    world.put(TRADES, with_column(world.good[TRADES], "surprise", lambda cells: cells["price"]))
    ran = world.run(*UNTIL_CURATED)
    assert ran.code == 0
    assert "extra_columns" in ran
    assert "not declared: surprise" in ran
    kept = world.lake.read("massive_option_trades", SECOND).collect()
    assert all(json.loads(extra) == {"surprise": _as_written(price)} for extra, price in kept.select("extra", "price").rows())
    trades = world.lake.read("option_trades", SECOND).collect()
    world.put(TRADES, world.good[TRADES])
    assert_repaired(world, clean)
    assert trades.equals(world.lake.read("option_trades", SECOND).collect())


def _as_written(price: float) -> str:
    return str(price).removesuffix(".0")


def test_an_unknown_condition_is_noted_and_counts_for_nothing(world: World, clean: Clean) -> None:
    regular = next(i for i, line in enumerate(lines_of(world.good[TRADES])[1:]) if line.split(",")[1] == "227")
    world.put(TRADES, with_cell(world.good[TRADES], "conditions", "999", regular))
    ran = world.run(*UNTIL_CURATED)
    assert ran.code == 0
    assert "unknown_condition" in ran
    assert "neither in the volume nor signed" in ran
    odd = world.lake.read("option_trades", SECOND).filter(pl.col("condition") == 999).collect()
    assert odd.select("in_volume", "sets_price", "may_be_signed").rows() == [(False, False, False)]
    findings = world.lake.sql("select cure from findings where rule = 'unknown_condition'")
    assert findings["cure"].to_list() == ["add the condition to the policy under a new version"]
    world.put(TRADES, world.good[TRADES])
    assert_repaired(world, clean)


def test_clock_skew_is_noted(world: World, clean: Clean) -> None:
    late = {3, 8}
    rows = iter(range(10**6))

    def participant(cells: dict[str, str]) -> str:
        return str(int(cells["sip_timestamp"]) - (11 * NANOSECONDS if next(rows) in late else 1000))

    world.put(TRADES, with_column(world.good[TRADES], "participant_timestamp", participant))
    ran = world.run(*UNTIL_CURATED)
    assert ran.code == 0
    assert "clock_skew" in ran
    assert "more than 5 s" in ran
    found = world.lake.sql("select rows, cure from findings where rule = 'clock_skew'")
    assert found["rows"].to_list() == [len(late)]
    assert found["cure"][0]
    world.put(TRADES, world.good[TRADES])
    assert_repaired(world, clean)


@pytest.mark.parametrize("ending", [b"\r", b"\r\n"], ids=["cr", "crlf"])
def test_line_endings_do_not_matter(ending: bytes, world: World, clean: Clean) -> None:
    for key in (TRADES, MINUTES):
        world.put(key, gzip.compress(gzip.decompress(world.good[key]).replace(b"\n", ending), mtime=0))
    ran = world.run(*UNTIL_CURATED)
    assert ran.code == 0
    expected = open_lake(str(clean.first.parent / "lake"))
    for dataset in ("massive_option_trades", "massive_option_minute", "option_trades", "option_bars_1m"):
        assert world.lake.read(dataset, SECOND).collect().equals(expected.read(dataset, SECOND).collect())


def test_a_doubled_file(world: World, clean: Clean) -> None:
    """Every row twice would double volume and premium: the files are held, what else there is of the session goes on."""
    for key in (TRADES, MINUTES):
        header, *rows = lines_of(world.good[key])
        world.put(key, packed([header, *rows, *rows]))
    ran = world.run()
    assert ran.code == 3
    assert "each row stands there 2.0 times" in ran
    open_ = world.lake.sql("select dataset, rule, cure from quarantine where session = ?", [SECOND])
    assert open_["dataset"].to_list() == ["massive_option_minute", "massive_option_trades"]
    assert set(open_["rule"]) == {"doubled_file"}
    assert all(open_["cure"])
    assert world.lake.sql("select count(*) from option_trades where session = ?", [SECOND]).item() == 0
    assert world.lake.sql("select count(*) from option_bars_1d where session = ?", [SECOND]).item() > 0
    for key in (TRADES, MINUTES):
        world.put(key, world.good[key])
    assert_repaired(world, clean, whole=True)
    assert world.lake.sql("select count(*) from quarantine where session = ?", [SECOND]).item() == 0, "a cured entry is closed"


# --- A bucket that misbehaves: nothing is quarantined, and the next run goes on ------------------------------------------------


CODES = {503: "SlowDown", 403: "AccessDenied"}


class Proxy(ThreadingHTTPServer):
    """In front of the real server; `answer(method, path)` gives a status to refuse with, 0 to hang up, or None to pass on."""

    daemon_threads = True

    def __init__(self, upstream: str, answer: Callable[[str, str], int | None]) -> None:
        super().__init__(("127.0.0.1", 0), ProxyHandler)
        self.upstream = upstream.removeprefix("http://")
        self.answer = answer
        self.refused = 0


class ProxyHandler(BaseHTTPRequestHandler):
    server: Proxy
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        status = self.server.answer(self.command, self.path)
        if status is None:
            self._pass_on()
            return
        self.server.refused += 1
        self.close_connection = not status
        if status:
            body = f"<Error><Code>{CODES[status]}</Code><Message>no</Message></Error>".encode()
            self._send(status, [("Content-Type", "application/xml")], body)

    def _pass_on(self) -> None:
        connection = http.client.HTTPConnection(self.server.upstream, timeout=30)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        body = response.read()
        dropped = {"transfer-encoding", "content-length", "connection"}
        self._send(response.status, [(n, v) for n, v in response.getheaders() if n.lower() not in dropped], body)
        connection.close()

    def _send(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not worth a line."""


@contextmanager
def proxy(world: World, answer: Callable[[str, str], int | None]) -> Iterator[Proxy]:
    """The world's bucket is reached by way of a proxy for the length of the block."""
    direct = world.settings
    server = Proxy(direct.bucket_endpoint, answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    world.settings = replace(direct, bucket_endpoint=f"http://127.0.0.1:{server.server_address[1]}")
    try:
        yield server
    finally:
        world.settings = direct
        server.shutdown()
        server.server_close()
        thread.join()


def test_an_object_that_changes_while_it_is_read(world: World, clean: Clean) -> None:
    """Between listing and download the vendor replaces the file: nothing of either version is mixed, the next run takes the new."""
    listed = ingest_module.list_bucket
    world.put(TRADES, world.good[TRADES][:-1])

    def then_replaced(bucket: Bucket, known: dict[tuple[str, str, int], str], skip: str) -> ingest_module.Listing:
        listing = listed(bucket, known, skip)
        world.put(TRADES, world.good[TRADES])
        return listing

    with world.monkeypatch.context() as patch:
        patch.setattr("flowlake.pipeline.run.list_bucket", then_replaced)
        ran = world.run(*UNTIL_CURATED)
    assert ran.code == 1
    assert f"failed ingest_massive_option_trades {SECOND}" in ran
    assert f"{TRADES} was replaced while it was being read" in ran
    assert "run again: the new version is listed and fetched" in ran
    assert world.lake.sql("select * from quarantine").height == 0
    assert_nothing_good_is_lost(world, clean, "massive_option_trades")
    assert_repaired(world, clean)


def test_throttling_is_waited_out(world: World, clean: Clean) -> None:
    asked: dict[str, int] = {}

    def busy_twice(method: str, path: str) -> int | None:
        asked[path] = asked.get(path, 0) + 1
        return 503 if asked[path] <= 2 else None

    with proxy(world, busy_twice) as server:
        ran = world.run(*UNTIL_CURATED)
    assert ran.code == 0, ran.out
    assert server.refused > 10
    assert_repaired(world, clean)


def test_throttling_without_end_fails_that_file_alone(world: World, clean: Clean) -> None:
    with proxy(world, lambda method, path: 503 if "trades_v1" in path and path.endswith(TODAY) else None):
        ran = world.run(*UNTIL_CURATED)
    assert ran.code == 1
    assert f"failed ingest_massive_option_trades {SECOND}" in ran
    assert "refused 6 times (SlowDown)" in ran
    assert "smaller FLOWLAKE_DOWNLOAD_WORKERS" in ran
    assert world.lake.sql("select * from quarantine").height == 0, "the file may be good"
    assert_nothing_good_is_lost(world, clean, "massive_option_trades")
    assert_repaired(world, clean)


def test_one_object_denied(world: World, clean: Clean) -> None:
    with proxy(world, lambda method, path: 403 if path.endswith(TODAY) and "day_aggs" in path and "opra" in path else None):
        ran = world.run(*UNTIL_CURATED)
    assert ran.code == 1
    assert f"failed ingest_massive_option_day {SECOND}" in ran
    assert f"{DAYS}: " in ran
    assert "denied access (AccessDenied)" in ran
    assert_nothing_good_is_lost(world, clean, "massive_option_day")
    assert_repaired(world, clean)


def test_what_is_frozen_waits_for_a_file_that_could_not_be_had(world: World, clean: Clean) -> None:
    """A windowed output is not replaced when its input comes later, so it must not be made without a file that is there."""
    with proxy(world, lambda method, path: 403 if "trades_v1" in path and path.endswith(TODAY) else None):
        ran = world.run()
    assert ran.code == 1
    waiting = world.lake.sql("select step, detail from runs where status = 'blocked' and detail like 'waits for%' order by step")
    assert {"factor_panel", "score_signals", "complete_outcomes"} <= set(waiting["step"])
    assert waiting["detail"].str.contains(f"massive_option_trades of {SECOND}").all()
    assert world.lake.sql("select count(*) from daily_factors where session = ?", [SECOND]).item() > 0, "this one restates itself"
    assert world.lake.sql("select count(*) from factor_panel where session = ?", [SECOND]).item() == 0
    ran = world.run()
    assert ran.code == 0, ran.out
    assert "restatable" not in ran
    assert lake_hashes(world.root) == clean.both


def test_without_its_corporate_actions_nothing_is_adjusted_wrongly(world: World, clean: Clean) -> None:
    """A file that cannot be read blocks what would read earlier prices as if nothing had happened since."""
    header = "underlying,ex_date,kind,ratio,cash_amount_usd,new_symbol,announced_at_utc\n"
    key = "reference/corporate_actions.csv"
    world.put(key, f"{header}SYNI,2024-13-01,split,2,,,\n".encode())
    ran = world.flowlake("run", "--session", SECOND, "--no-data-docs")
    assert ran.code == 3
    assert "bad_date" in world.lake.sql("select rule from quarantine")["rule"].to_list()
    blocked = dict(world.lake.sql("select step, detail from runs where status = 'blocked'").iter_rows())
    assert "held in quarantine" in blocked["curate_corporate_actions"]
    assert "needs corporate_actions" in blocked["daily_factors"]
    assert world.lake.sql("select count(*) from option_trades where session = ?", [SECOND]).item() > 0
    world.put(key, header.encode())
    assert world.run().code == 0
    assert lake_hashes(world.root) == clean.both


def test_an_object_too_large_for_memory_is_not_even_fetched(world: World, clean: Clean) -> None:
    world.monkeypatch.setenv("FLOWLAKE_MAX_OBJECT_MB", "1")
    world.put(TRADES, b"\x1f\x8b" + bytes(1_100_000))
    ran = world.run(*UNTIL_CURATED)
    assert ran.code == 3
    assert "the limit is 1 MB" in ran
    assert "FLOWLAKE_SKIP_FEEDS=massive_option_trades" in ran
    world.monkeypatch.setenv("FLOWLAKE_SKIP_FEEDS", "massive_option_trades")
    skipping = world.run(*UNTIL_CURATED)
    assert skipping.code == 0, skipping.out
    assert not world.served("massive_option_trades")


def test_wrong_keys(world: World, clean: Clean) -> None:
    right = world.settings
    world.settings = replace(right, bucket_secret=Secret("not-the-secret-of-anyone"))
    for command in (("run", "--session", SECOND), ("status", "--session", SECOND), ("doctor",)):
        ran = world.flowlake(*command)
        assert ran.code == 1
        assert "denied access (SignatureDoesNotMatch)" in ran
        assert "FLOWLAKE_BUCKET_SECRET" in ran
    assert lake_hashes(world.root) == clean.hashes_of_first
    world.settings = right
    assert_repaired(world, clean)


# By name and not by count: files are fetched several at a time, and three of one feed of six would build nothing.
@pytest.mark.parametrize(
    "answered",
    [(), ("list-type", "/reference/", "/us_options_opra/")],
    ids=["away", "gone after three files of the session"],
)
def test_a_bucket_that_disappears(answered: tuple[str, ...], world: World, clean: Clean) -> None:
    """What was built is kept; when the bucket answers, the same command goes on."""

    def gone(method: str, path: str) -> int | None:
        return None if any(part in path for part in answered) else 0

    with proxy(world, gone):
        ran = world.run(*UNTIL_CURATED)
    assert ran.code == 1
    assert "could not be reached or broke off, 6 times" in ran
    assert ("again when the bucket answers" if answered else "check the network and FLOWLAKE_BUCKET_ENDPOINT") in ran
    assert world.lake.sql("select * from quarantine").height == 0
    now = lake_hashes(world.root)
    assert {path: now[path] for path in clean.hashes_of_first} == clean.hashes_of_first
    assert all(clean.both[path] == sha for path, sha in now.items())
    assert len(now) > len(clean.hashes_of_first) or not answered
    assert_repaired(world, clean)


def test_an_endpoint_where_nobody_listens(world: World, clean: Clean) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        world.settings = replace(world.settings, bucket_endpoint=f"http://127.0.0.1:{free.getsockname()[1]}")
        ran = world.run()
    assert ran.code == 1
    assert f"{world.settings.bucket_endpoint} could not be reached or broke off, 6 times" in ran
    assert "cure: check the network and FLOWLAKE_BUCKET_ENDPOINT" in ran
    assert lake_hashes(world.root) == clean.hashes_of_first


# --- A lake that cannot be written ---------------------------------------------------------------------------------------------


def assert_stopped_for_space(world: World, clean: Clean, code: int, shown: str) -> None:
    assert code == 1
    assert "no space left" in shown, shown
    assert "cure: free space" in shown
    assert "Traceback" not in shown
    now = lake_hashes(world.root)
    assert {path: now[path] for path in clean.hashes_of_first} == clean.hashes_of_first
    assert all(clean.both[path] == sha for path, sha in now.items()), "a part of a file must never be served"


@pytest.mark.parametrize("writes", [1, 9, 16])
def test_a_disk_that_is_full_after_some_writes(writes: int, world: World, clean: Clean) -> None:
    done = []
    really = os.fsync

    def fsync(descriptor: int) -> None:
        done.append(descriptor)
        if len(done) > writes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        really(descriptor)

    with world.monkeypatch.context() as patch:
        patch.setattr(store_module.os, "fsync", fsync)
        ran = world.run(*UNTIL_CURATED)
    assert_stopped_for_space(world, clean, ran.code, ran.out)
    assert not list((world.root / "_staging").glob("*.tmp"))
    assert_repaired(world, clean)


def test_a_disk_that_is_really_full(world: World, clean: Clean, tmp_path: Path) -> None:
    """A file system of its own with room for the first session and little more, and a process of its own."""
    full = tmp_path / "full"
    full.mkdir()
    pages = sum(-(-path.stat().st_size // 4096) for path in world.root.rglob("*") if path.is_file())
    mount = ["mount", "-t", "tmpfs", "-o", f"size={4096 * (pages + 12)}", "tmpfs", str(full)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.strip()}")
    try:
        shutil.copytree(world.root, full / "lake")
        world.settings = replace(world.settings, lake=str(full / "lake"))
        ran = call(run_command(MARKET), world.settings)
        assert_stopped_for_space(world, clean, ran.returncode, ran.stdout + ran.stderr)
        assert_no_key(world.settings, ran.stdout.encode(), ran.stderr.encode())
        subprocess.run(["mount", "-o", "remount,size=64m", str(full)], check=True)
        assert_repaired(world, clean)
    finally:
        world.settings = replace(world.settings, lake=str(tmp_path / "lake"))
        subprocess.run(["umount", str(full)], check=True)
