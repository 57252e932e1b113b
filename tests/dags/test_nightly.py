"""Nights, a gap, a backfill with a corrupt file and killed processes, and the mending of it: real Airflow on a real S3 server.

To start Airflow is what costs: the story is told once, by two starts of one home, and each test looks at one side of it.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from dags.airflow_runs import (
    DAGS,
    OTHER_DAGS,
    SESSION_DAG,
    Command,
    SessionRun,
    ask_for_backfill,
    files_that_contain,
    left_over,
    pause,
    run_once,
    running_commands,
    runs_of,
    told,
    until,
    wait_for_runs,
)
from flowlake.core.sessions import next_session
from flowlake.core.settings import Settings
from flowlake.market import Market
from flowlake.market.s3server import S3Server
from flowlake.pipeline.local_airflow import AirflowError, LocalAirflow, bucket_variables, local_airflow
from flowlake.pipeline.maintenance import verify
from flowlake.pipeline.plan import by_name
from integration.market_bucket import BUCKET, bucket_of, call, command, fill, lake_hashes, republish, small_market
from integration.test_security import shown

pytestmark = [pytest.mark.real("airflow"), pytest.mark.timeout(3600)]

PREFIX = "nightly"
BACKFILLED = ("2023-11-08", "2023-11-09", "2023-11-10", "2023-11-13", "2023-11-14")
BACKFILLED += ("2023-11-15", "2023-11-16", "2023-11-17", "2023-11-20", "2023-11-21")
NIGHTS = ("2023-11-22", "2023-11-24", "2023-11-27")
"""The 23rd is Thanksgiving, the 24th a half day, the 25th and 26th a weekend."""
MISSED = ("2023-11-28", "2023-11-29")
EVERY = BACKFILLED + NIGHTS + MISSED
CORRUPT = "2023-11-13"
CORRUPT_KEY = f"us_options_opra/trades_v1/2023/11/{CORRUPT}.csv.gz"
GARBAGE = b"this is no gzip file"
AGAIN = ("2023-11-21", "2023-11-22", "2023-11-24")
"""Asked for once more at the end, when the vendor has republished the trades of the first and its run has been deleted."""
REPUBLISHED = AGAIN[0]
REPUBLISHED_KEY = f"us_options_opra/trades_v1/2023/11/{REPUBLISHED}.csv.gz"
INJECTION = "'; DROP TABLE x; --"
WINDOWED = ("history", "signals", "check")


@dataclass
class Story:
    """What happened, in the order in which it happened."""

    market: Market
    settings: Settings
    home: Path
    first_published: bytes = b""
    nights: list[SessionRun] = field(default_factory=list)
    after_gap: list[SessionRun] = field(default_factory=list)
    backfilled: list[SessionRun] = field(default_factory=list)
    killed: list[tuple[str, Command]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    runs_after_refusals: int = 0
    late: dict[str, Any] = field(default_factory=dict)
    mended: dict[str, str] = field(default_factory=dict)
    again: list[SessionRun] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    seconds: dict[str, float] = field(default_factory=dict)


@pytest.fixture(scope="module")
def story(
    s3: S3Server, tmp_path_factory: pytest.TempPathFactory, record_testsuite_property: Callable[[str, object], None]
) -> Story:
    folder = tmp_path_factory.mktemp("nightly")
    first = date.fromisoformat(BACKFILLED[0])
    market = small_market(len(EVERY), 2, first_session=first, trades_per_underlying_session=30)
    told_story = Story(market, fill(s3, PREFIX, market, folder / "lake"), folder / "home")
    good, told_story.first_published = _read(s3, CORRUPT_KEY), _read(s3, REPUBLISHED_KEY)
    with _airflow(told_story, NIGHTS[-1]) as airflow:
        wait_for_runs(airflow, NIGHTS, 600)
        told_story.nights = told(airflow)
        _mark(told_story, "nights")
    with _airflow(told_story, MISSED[-1]) as airflow:
        wait_for_runs(airflow, MISSED, 600)
        told_story.after_gap = told(airflow)
        _mark(told_story, "missed")
        bucket_of(s3, PREFIX).put(CORRUPT_KEY, GARBAGE)
        _backfill(airflow, told_story)
        told_story.backfilled = [run for run in told(airflow) if run.kind == "backfill"]
        _mark(told_story, "backfill")
        _refusals(airflow, told_story)
        bucket_of(s3, PREFIX).put(CORRUPT_KEY, good)
        told_story.late = run_once(airflow, "flowlake_late", 600)
        told_story.mended = lake_hashes(told_story.settings.lake)
        _mark(told_story, "mended")
        _once_more(airflow, told_story, s3)
        _mark(told_story, "once more")
    record_testsuite_property("seconds", told_story.seconds)
    return told_story


def _read(s3: S3Server, key: str) -> bytes:
    body: bytes = bucket_of(s3, PREFIX)._client.get_object(Bucket=BUCKET, Key=f"{PREFIX}/{key}")["Body"].read()
    return body


def _mark(told_story: Story, name: str) -> None:
    told_story.seconds[name] = round(time.monotonic() - told_story.started, 1)


@contextmanager
def _airflow(told_story: Story, last: str) -> Iterator[LocalAirflow]:
    """Airflow with the nights up to `last`, and no other DAG, whatever the clock says."""
    variables = bucket_variables(told_story.settings, date.fromisoformat(NIGHTS[0]), date.fromisoformat(last))
    with local_airflow(told_story.home, DAGS, variables | {"FLOWLAKE_RETRY_SECONDS": "2"}) as airflow:
        pause(airflow, OTHER_DAGS)
        yield airflow


def _backfill(airflow: LocalAirflow, told_story: Story) -> None:
    ask_for_backfill(airflow, BACKFILLED[0], BACKFILLED[-1], max_active_runs=3)
    for what, stage in (("command", "curate"), ("task", "factors")):
        victim = until(lambda stage=stage: _first(airflow, stage), 600, f"a command of {stage}")
        (victim.process if what == "command" else victim.task).kill()
        told_story.killed.append((what, victim))
    wait_for_runs(airflow, BACKFILLED, 1500)


def _first(airflow: LocalAirflow, stage: str) -> Command | None:
    return next((found for found in running_commands(airflow) if found.stage == stage and found.session != CORRUPT), None)


def _refusals(airflow: LocalAirflow, told_story: Story) -> None:
    for key in (INJECTION, "../../x", "2023-11-25"):
        try:
            airflow.request("POST", f"/dags/{SESSION_DAG}/dagRuns", {"logical_date": None, "partition_key": key})
        except AirflowError as error:
            told_story.refused.append(str(error))
    told_story.runs_after_refusals = len(runs_of(airflow))


def _once_more(airflow: LocalAirflow, told_story: Story, s3: S3Server) -> None:
    republish(s3, PREFIX, REPUBLISHED_KEY, lambda lines: lines[:-1])
    gone = next(run["dag_run_id"] for run in runs_of(airflow) if run["partition_key"] == REPUBLISHED)
    airflow.request("DELETE", f"/dags/{SESSION_DAG}/dagRuns/{gone}")
    ask_for_backfill(airflow, AGAIN[0], AGAIN[-1], max_active_runs=3, reprocess_behavior="completed")
    until(lambda: {run["partition_key"] for run in runs_of(airflow) if run["run_type"] == "backfill"} >= set(AGAIN), 60, "its runs")
    wait_for_runs(airflow, AGAIN, 600)
    told_story.again = [run for run in told(airflow) if run.session in AGAIN and run.kind == "backfill"]


def states(runs: list[SessionRun]) -> dict[str, str]:
    return {run.session: run.state for run in runs}


def test_nights_run_each_session_once_and_no_holiday(story: Story) -> None:
    assert [(run.session, run.kind, run.state) for run in story.nights] == [(day, "scheduled", "success") for day in NIGHTS]
    assert {task.state for run in story.nights for task in run.tasks.values()} == {"success"}


def test_after_a_gap_exactly_the_missed_sessions_run(story: Story) -> None:
    assert [(run.session, run.kind, run.state) for run in story.after_gap] == [
        (day, "scheduled", "success") for day in NIGHTS + MISSED
    ]
    assert story.after_gap[: len(NIGHTS)] == story.nights
    assert {task.state for run in story.after_gap for task in run.tasks.values()} == {"success"}


def test_a_corrupt_file_fails_its_session_and_no_other(story: Story) -> None:
    assert states(story.backfilled) == {day: "failed" if day == CORRUPT else "success" for day in BACKFILLED}
    bad = next(run for run in story.backfilled if run.session == CORRUPT)
    assert {name: task.state for name, task in bad.tasks.items()} == {
        "ingest": "failed",
        "curate": "success",
        "factors": "success",
        "history": "success",
        "signals": "success",
        "check": "failed",
    }
    assert bad.tasks["ingest"].tries == 1, "a corrupt file is not cured by trying again"


def test_killed_processes_are_recovered_by_a_retry(story: Story) -> None:
    assert [what for what, _ in story.killed] == ["command", "task"]
    for what, victim in story.killed:
        task = next(run for run in story.backfilled if run.session == victim.session).tasks[victim.stage]
        assert (task.state, task.tries >= 2) == ("success", True), what


def test_windowed_stages_ran_in_the_order_of_sessions(story: Story) -> None:
    """A task may start, and see that it has to wait: what counts is when it gave its command."""
    for stage in WINDOWED:
        for earlier, later in pairwise(story.backfilled):
            assert moment(earlier.tasks[stage].end) <= commanded(story.home, later.session, stage), (later.session, stage)
    ingests = [run.tasks["ingest"] for run in story.backfilled]
    assert any(moment(later.start) < moment(earlier.end) for earlier, later in pairwise(ingests)), "nothing ran beside"


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def commanded(home: Path, session: str, stage: str) -> datetime:
    """When the task of a backfilled session first gave its command, from its log."""
    logs = sorted(home.glob(f"logs/dag_id={SESSION_DAG}/run_id=backfill__{session}__*/task_id={stage}/attempt=*.log"))
    lines = [json.loads(line) for log in logs for line in log.read_text(encoding="utf-8").splitlines()]
    return min(moment(line["timestamp"]) for line in lines if line["event"].startswith("$ flowlake run"))


def test_keys_that_are_no_sessions_make_no_run(story: Story) -> None:
    assert len(story.refused) == 3
    assert all(": 4" in said and "is no session" in said for said in story.refused), story.refused
    assert story.runs_after_refusals == len(EVERY)


def test_the_lake_is_the_one_that_commands_make_in_one_process(story: Story, s3: S3Server, tmp_path: Path) -> None:
    """The same sessions in the same order from the same bucket, corrupt file and mending included: equal to the byte."""
    assert story.late["state"] == "success"
    settings = replace(story.settings, lake=str(tmp_path / "lake"))
    good, republished = _read(s3, CORRUPT_KEY), _read(s3, REPUBLISHED_KEY)
    bucket = bucket_of(s3, PREFIX)
    bucket.put(REPUBLISHED_KEY, story.first_published)
    for first, last in ((NIGHTS[0], NIGHTS[-1]), (MISSED[0], MISSED[-1])):
        assert _run(settings, "--from", first, "--to", last) == 0
    bucket.put(CORRUPT_KEY, GARBAGE)
    assert _run(settings, "--from", BACKFILLED[0], "--to", BACKFILLED[-1]) == 3
    bucket.put(CORRUPT_KEY, good)
    assert _run(settings, "--last", "20") == 0
    assert lake_hashes(settings.lake) == story.mended
    bucket.put(REPUBLISHED_KEY, republished)
    assert _run(settings, "--from", AGAIN[0], "--to", AGAIN[-1]) == 0
    assert lake_hashes(story.settings.lake) == lake_hashes(settings.lake)
    assert [found for found in verify(story.settings) if found.problem] == []


def _run(settings: Settings, *arguments: str) -> int:
    return call(command("run", *arguments), settings).returncode


def test_sessions_asked_for_again_build_what_is_stale_and_nothing_else(story: Story) -> None:
    """Also where their runs were deleted: what is stale is known from the lake, not from Airflow's memory."""
    assert states(story.again) == dict.fromkeys(AGAIN, "success")
    now = lake_hashes(story.settings.lake)
    changed = {path for path in now.keys() | story.mended.keys() if now.get(path) != story.mended.get(path)}
    assert any("/option_trades/" in path for path in changed)
    # The flow factors of a session take the deltas of the one before.
    after = {path for path in changed if path.split("/")[1] in by_name()["flow_factors"].writes}
    assert {path.split("session=")[1][:10] for path in changed - after} == {REPUBLISHED}
    assert {path.split("session=")[1][:10] for path in after} == {REPUBLISHED, str(next_session(date.fromisoformat(REPUBLISHED)))}


def test_nothing_that_airflow_wrote_holds_the_buckets_keys(story: Story) -> None:
    with sqlite3.connect(story.home / "airflow.db") as database:
        assert database.execute("select count(*) from dag_run").fetchone()[0] >= len(EVERY)
    assert len(files_that_contain(story.home, "flowlake run --session")) >= 6 * len(EVERY), "the tasks' logs are among the files"
    written = [path for path in Path(story.settings.lake).rglob("*") if path.is_file()]
    assert {path.suffix for path in written} >= {".parquet", ".html"}
    for secret in (story.settings.bucket_secret, story.settings.bucket_key_id):
        assert files_that_contain(story.home, secret.reveal()) == []
        assert [path for path in written if secret.reveal() in shown(path)] == []


def test_nothing_outlives_the_block(story: Story) -> None:
    assert left_over("FLOWLAKE_LAKE", story.settings.lake) == []
    assert left_over("AIRFLOW_HOME", str(story.home)) == []
