"""Sixty sessions asked for at once, as on a first day: two of their files are corrupt, and half way all of Airflow is killed.

What comes out is the lake that commands make.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from dags.airflow_runs import (
    DAGS,
    ENDED,
    OTHER_DAGS,
    ask_for_backfill,
    left_over,
    pause,
    run_once,
    runs_of,
    told,
    until,
    wait_for_runs,
)
from flowlake.core.settings import Settings
from flowlake.market.s3server import S3Server
from flowlake.pipeline.local_airflow import LocalAirflow, bucket_variables, local_airflow
from flowlake.pipeline.maintenance import verify
from integration.market_bucket import bucket_of, call, command, fill, lake_hashes, small_market

pytestmark = [
    pytest.mark.real("airflow"),
    pytest.mark.timeout(3 * 3600),
    pytest.mark.skipif(os.environ.get("FLOWLAKE_SOAK") != "1", reason="takes half an hour: set FLOWLAKE_SOAK=1"),
]

PREFIX = "long"
SESSIONS = 60
CORRUPT = (20, 45)
"""Positions of the sessions whose trades cannot be read: flowlake_late looks back to the second, not to the first."""
LATE_SESSIONS = 20
GARBAGE = b"this is no gzip file"
KILLED_AFTER = 25
"""So many sessions have ended when Airflow is killed."""
PATIENCE_SECONDS = 2 * 3600.0


@contextmanager
def _airflow(settings: Settings, home: Path, night: date) -> Iterator[LocalAirflow]:
    """Airflow that schedules one night, the one after the backfill."""
    variables = bucket_variables(settings, night, night) | {"FLOWLAKE_RETRY_SECONDS": "2"}
    with local_airflow(home, DAGS, variables) as airflow:
        pause(airflow, OTHER_DAGS)
        yield airflow


def _ended(airflow: LocalAirflow) -> int:
    return sum(run["state"] in ENDED for run in runs_of(airflow))


def test_sixty_sessions(s3: S3Server, tmp_path: Path) -> None:
    market = small_market(SESSIONS + 1, 2, trades_per_underlying_session=30)
    *days, night = market.days
    further_back = days[CORRUPT[0]]
    settings, home = fill(s3, PREFIX, market, tmp_path / "lake"), tmp_path / "home"
    bucket = bucket_of(s3, PREFIX)
    corrupt = {str(days[i]): f"us_options_opra/trades_v1/{days[i]:%Y/%m}/{days[i]}.csv.gz" for i in CORRUPT}
    infos = {info.key: info for info in bucket.objects("us_options_opra/trades_v1/")}
    good = {key: bucket.fetch(infos[key], tmp_path / "good").path.read_bytes() for key in corrupt.values()}

    with _airflow(settings, home, night) as airflow:
        wait_for_runs(airflow, [str(night)], 600)
        for key in corrupt.values():
            bucket.put(key, GARBAGE)
        ask_for_backfill(airflow, str(days[0]), str(days[-1]), max_active_runs=4)
        until(lambda: _ended(airflow) > KILLED_AFTER, PATIENCE_SECONDS, f"{KILLED_AFTER} sessions")
        for process in airflow.processes.values():
            os.killpg(process.pid, signal.SIGKILL)
    assert left_over("AIRFLOW_HOME", str(home)) == []

    with _airflow(settings, home, night) as airflow:
        assert KILLED_AFTER < _ended(airflow) < SESSIONS, "killed half way"
        wait_for_runs(airflow, map(str, days), PATIENCE_SECONDS)
        states = {run.session: run.state for run in told(airflow)}
        assert states == {str(day): "failed" if str(day) in corrupt else "success" for day in market.days}
        for key, body in good.items():
            bucket.put(key, body)
        assert run_once(airflow, "flowlake_late", 1800)["state"] == "success"
        ask_for_backfill(airflow, str(further_back), str(further_back), reprocess_behavior="failed")
        # The run that failed stays, and a new one stands beside it.
        until(lambda: "success" in {run.state for run in told(airflow) if run.session == str(further_back)}, 600, "the rest")
    by_airflow = lake_hashes(settings.lake)
    assert [found for found in verify(settings) if found.problem] == []

    # The same in the same order by commands.
    other = replace(settings, lake=str(tmp_path / "other"))
    assert _run(other, "--session", night) == 0
    for key in corrupt.values():
        bucket.put(key, GARBAGE)
    codes = [_run(other, "--from", part[0], "--to", part[-1]) for part in (days[i : i + 10] for i in range(0, SESSIONS, 10))]
    assert codes == [0, 0, 3, 0, 3, 0]
    for key, body in good.items():
        bucket.put(key, body)
    assert _run(other, "--last", LATE_SESSIONS) == 0
    assert _run(other, "--session", further_back) == 0
    assert lake_hashes(other.lake) == by_airflow


def _run(settings: Settings, *arguments: object) -> int:
    return call(command("run", *arguments), settings).returncode
