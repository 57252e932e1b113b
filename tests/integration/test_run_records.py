"""What a run leaves of itself, at the command line and in JSON lines: who started it, what it did, how it ended."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest

from flowlake.core.settings import Settings
from flowlake.datasets.ops import INVOCATIONS, OPS, PUBLICATIONS, QUARANTINE
from flowlake.lake import journal
from flowlake.lake.lake import open_lake
from flowlake.lake.store import LocalStore, Store
from flowlake.market.s3server import S3Server
from flowlake.pipeline import trail
from flowlake.pipeline.comparison import DIFFERS, IDENTICAL, UNTRIED
from flowlake.pipeline.maintenance import prune
from flowlake.pipeline.plan import select
from flowlake.pipeline.reproduce import reproduce
from integration.market_bucket import call, command, environment, fill, run_all, run_command, small_market
from integration.test_cli import Cli, cli_of

MARKET = small_market(3, 2)
FIRST, SECOND, LAST = MARKET.days


@dataclass(frozen=True)
class Built:
    settings: Settings
    run_id: str


@pytest.fixture(scope="module")
def built(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A lake of three sessions. Nobody writes to it: tests that change something copy it."""
    folder = tmp_path_factory.mktemp("records")
    settings = replace(fill(s3, "records", MARKET, folder / "lake"), scratch=str(folder / "scratch"), parent_run="nightly/7")
    report = run_all(settings, MARKET)
    assert report.exit_code == 0
    return Built(settings, report.run_id)


@pytest.fixture
def empty(built: Built, tmp_path: Path) -> Settings:
    """The same bucket, and a lake that does not exist yet."""
    return replace(built.settings, lake=str(tmp_path / "lake"), scratch=str(tmp_path / "scratch"))


@pytest.fixture
def cli(built: Built, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    return cli_of(built.settings, monkeypatch, capfd)


def store_of(settings: Settings) -> Store:
    return LocalStore(Path(settings.lake))


def published(settings: Settings, run_id: str) -> set[tuple[str, date]]:
    rows = journal.records(store_of(settings), PUBLICATIONS).filter(pl.col("run_id") == run_id)
    return set(rows.select("dataset", "session").iter_rows())


# --- At the command line -----------------------------------------------------------------------------------------------


def test_runs_lists_runs(built: Built, cli: Cli) -> None:
    (row,) = cli("runs", "--json").json
    assert (row["run_id"], row["parent"], row["exit_code"], row["state"]) == (built.run_id, "nightly/7", 0, "ended")
    assert cli("runs", "--json", "--parent", "nightly/7", "--session", SECOND, "--last", 1).json == [row]
    assert cli("runs", "--json", "--parent", "other").json == []
    assert cli("runs", "--json", "--session", "2020-01-02").json == []
    assert built.run_id in cli("runs").out


def test_runs_shows_one_run_with_what_its_publications_rest_on(built: Built, cli: Cli) -> None:
    shown = cli("runs", built.run_id[:17], "--json").json
    rows = shown["publications"]
    assert {(row["dataset"], date.fromisoformat(row["session"])) for row in rows} == published(built.settings, built.run_id)
    trades = next(row for row in rows if row["dataset"] == "option_trades")
    assert trades["kept"] == "served"
    assert {"massive_option_trades", "contracts"} <= {record["dataset"] for record in trades["inputs"]}
    text = cli("runs", built.run_id)
    assert text.code == 0
    for words in ("nightly/7", "steps", "publications", trades["data_hash"][:16]):
        assert words in text.out
    assert cli("runs", "1999").code == 2
    assert cli("runs", built.run_id, "--last", 3).code == 2


def test_reproduce_tells_by_exit_code(built: Built, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ("reproduce", built.run_id, "--session", SECOND, "--step", "ingest_massive_option_trades", "curate_option_trades")
    said = cli(*asked, "--json")
    assert said.code == 0, said.err
    assert said.json["totals"] == {IDENTICAL: 2, DIFFERS: 0, UNTRIED: 0}
    unknown = cli("reproduce", "1999")
    assert (unknown.code, unknown.out) == (2, "")
    assert "there is no run '1999'" in unknown.err
    monkeypatch.setenv("FLOWLAKE_BUCKET_PREFIX", "records/empty")
    lost = cli(*asked)
    assert lost.code == 3
    assert f"not reproducible massive_option_trades {SECOND}" in lost.out


# --- Packed ------------------------------------------------------------------------------------------------------------


def test_packed_records_serve_revisions_and_reproduction(built: Built, tmp_path: Path) -> None:
    shutil.copytree(built.settings.lake, tmp_path / "lake")
    settings = replace(built.settings, lake=str(tmp_path / "lake"), scratch=str(tmp_path / "scratch"))
    rows = {ds.name: journal.records(store_of(settings), ds).height for ds in journal.PACKED}
    assert "were packed" in prune(settings, 30, dry_run=False)
    assert {ds.name: journal.records(store_of(settings), ds).height for ds in journal.PACKED} == rows
    assert list(Path(settings.lake, "ops").rglob("run=*/part.parquet")) == []
    lake = open_lake(settings=settings)
    assert lake.revision(built.run_id).read("signals").collect().equals(lake.read("signals").collect())
    assert reproduce(settings, built.run_id, SECOND, select(["curate"])).exit_code == 0
    assert run_all(settings, MARKET).total("built") == 0


# --- JSON lines --------------------------------------------------------------------------------------------------------


def test_events_are_json_lines_with_run_and_parent_and_no_secret(empty: Settings, tmp_path: Path) -> None:
    told = command("run", "--session", FIRST, "--no-data-docs", "--step", "ingest", "curate", "--log-format", "json")
    said = call(told, empty, FLOWLAKE_PARENT_RUN="dag/run 1")
    assert said.returncode == 0, said.stderr
    lines = [json.loads(line) for line in said.stderr.splitlines()]
    (run,) = trail.runs(store_of(empty))
    assert run["parent"] == "dag/run 1"
    assert {(line["run_id"], line["parent"]) for line in lines} == {(run["run_id"], "dag/run 1")}
    assert (lines[0]["event"], lines[-1]["event"]) == ("run_started", "run_finished")
    facts = {(line["dataset"], date.fromisoformat(line["session"])) for line in lines if line["event"] == "published"}
    assert facts == published(empty, run["run_id"])
    assert all(datetime.fromisoformat(line["ts"]).tzinfo is not None for line in lines)

    log = tmp_path / "events.jsonl"
    wrong = call(command("run", "--session", "2031-01-04", "--log", log), empty, FLOWLAKE_LOG_FORMAT="json")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("flowlake: there is no session from")
    ended = json.loads(log.read_text().splitlines()[-1])
    assert (ended["event"], ended["exit_code"], ended["parent"]) == ("run_finished", 2, "")

    held = "".join(journal.records(store_of(empty), ds).write_json() for ds in OPS if ds is not QUARANTINE)
    assert empty.bucket_endpoint in held
    for text in (said.stderr, said.stdout, log.read_text(), wrong.stderr, held):
        assert empty.bucket_secret.reveal() not in text


# --- Killed ------------------------------------------------------------------------------------------------------------


def test_a_killed_run_shows_without_an_end(empty: Settings) -> None:
    began = datetime.now(UTC)
    with subprocess.Popen(
        run_command(MARKET), env=environment(empty), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        while process.poll() is None and not any(Path(empty.lake).glob("raw/*/session=*/part.parquet")):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    (killed,) = trail.runs(store_of(empty))
    assert killed["started_at_utc"] >= began
    assert (killed["ended_at_utc"], killed["exit_code"], killed["state"]) == (None, None, "running or killed")
    assert "running or killed" in " ".join(call(command("runs"), empty).stdout.split())
    rows = journal.records(store_of(empty), INVOCATIONS)
    assert rows.get_column("run_id").to_list() == [killed["run_id"]]
