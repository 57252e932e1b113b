"""`flowlake airflow` as a person runs it: what it prints, what it refuses, and that it leaves no process, however it ends."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest

from flowlake.core.errors import UsageError
from flowlake.core.settings import load_settings
from flowlake.market.s3server import s3_server
from flowlake.pipeline import local_airflow as module
from integration.market_bucket import fill, small_market

DAGS = Path(__file__).resolve().parents[2] / "dags"
MARK = "LOCAL_AIRFLOW_TEST"
READY_SECONDS = 300.0
"""On a machine that does other things beside it; an idle one needs twenty."""
STOP_SECONDS = 25.0
"""Airflow is given 10 s and the S3 server 5; the rest is for a machine that others use too."""


@dataclass
class Started:
    """A running command, as the leader of a process group like the foreground group of a terminal."""

    process: subprocess.Popen[bytes]
    mark: str
    output: Path
    token: str = ""

    @property
    def said(self) -> str:
        return self.output.read_text(encoding="utf-8")

    def until_it_says(self, words: str) -> str:
        wait_until(lambda: words in self.said or self.process.poll() is not None, words, READY_SECONDS)
        assert words in self.said, self.said
        return self.said

    def signal(self, number: int) -> float:
        """Send a signal to the group as a terminal does; the seconds until the command has ended."""
        began = time.monotonic()
        os.killpg(self.process.pid, number)
        self.process.wait(STOP_SECONDS)
        return time.monotonic() - began

    def descendants(self) -> list[str]:
        """The command lines of all processes that were started by this command, also of those whose parent is gone."""
        found = []
        for process in psutil.process_iter():
            try:
                ours = process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE
                found += [" ".join(process.cmdline())] if ours and process.pid != self.process.pid else []
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    def url_and_password(self) -> tuple[str, str]:
        found = re.search(r"^(http://127\.0\.0\.1:\d+)   login admin   password (\S+)$", self.said, re.MULTILINE)
        assert found, self.said
        return found[1], found[2]

    def ask(self, path: str) -> Any:
        url, password = self.url_and_password()
        if not self.token:
            self.token = _json(f"{url}/auth/token", {"username": "admin", "password": password})["access_token"]
        return _json(url + path, None, self.token)


def _json(url: str, body: dict[str, str] | None, token: str = "") -> Any:
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data=data, headers=headers), timeout=60) as answer:
        return json.loads(answer.read())


def wait_until(true: Callable[[], Any], what: str, seconds: float) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.3)


def free_port() -> int:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        return int(holder.getsockname()[1])


def command(folder: Path, port: int, *more: object) -> list[str]:
    told = ["--folder", folder, "--dags", DAGS, "--port", port, "--sessions", 2, "--underlyings", 2, *more]
    return [sys.executable, "-m", "flowlake.cli", "airflow", *map(str, told)]


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FLOWLAKE_", "AIRFLOW"))}
    return kept | {"PYTHONUNBUFFERED": "1"} | more


@contextmanager
def started(folder: Path, *more: object, cwd: Path, variables: dict[str, str] | None = None) -> Iterator[Started]:
    mark, output = uuid4().hex, cwd / f"{uuid4().hex}.out"
    with output.open("wb") as out:
        process = subprocess.Popen(
            command(folder, free_port(), *more),
            cwd=cwd,
            env=environment(**{MARK: mark}, **(variables or {})),
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    one = Started(process, mark, output)
    try:
        yield one
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(STOP_SECONDS)


def refused(folder: Path, port: int, *more: object) -> tuple[int, str]:
    ended = subprocess.run(
        command(folder, port, *more), env=environment(), capture_output=True, text=True, check=False, timeout=120
    )
    return ended.returncode, ended.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for the starts of this file: each finds what the one before left behind."""
    return tmp_path_factory.mktemp("local-airflow")


@pytest.mark.real("airflow", "s3")
@pytest.mark.parametrize("line", ["Airflow's database", "Airflow's web pages", "Airflow's scheduler"])
@pytest.mark.timeout(900)
def test_ctrl_c_while_it_starts(folder: Path, line: str) -> None:
    with started(folder / "airflow", cwd=folder) as one:
        one.until_it_says(line)
        time.sleep(1.5)
        assert one.signal(signal.SIGINT) < STOP_SECONDS
        assert (one.process.returncode, one.said.splitlines()[-1]) == (0, "stopped")
        assert one.descendants() == []


@pytest.mark.real("airflow", "s3")
@pytest.mark.timeout(1800)
def test_it_runs_is_stopped_within_a_task_goes_on_and_is_killed(folder: Path) -> None:
    with started(folder / "airflow", cwd=folder) as one:
        said = one.until_it_says("Ctrl-C stops everything")
        url, password = one.url_and_password()
        assert "2024-01-02 to 2024-01-03 of a synthetic market by itself" in said
        assert "Warning" not in said
        assert {dag["dag_id"] for dag in one.ask("/api/v2/dags")["dags"]} >= {"flowlake_session"}
        assert {part["status"] for part in one.ask("/api/v2/monitor/health").values()} == {"healthy"}
        assert {"flowlake_bucket", "flowlake_cpu"} <= {pool["name"] for pool in one.ask("/api/v2/pools")["pools"]}

        port = int(url.rpartition(":")[2])
        code, error = refused(folder / "other", port)
        assert (code, f"port {port}" in error, "--port" in error) == (2, True, True), error
        code, error = refused(folder / "airflow", free_port())
        assert (code, "another Airflow is running in" in error, "--folder" in error) == (2, True, True), error

        wait_until(lambda: any("--step" in line for line in one.descendants()), "a task's command", READY_SECONDS)
        os.killpg(one.process.pid, signal.SIGINT)  # impatient: twice
        assert one.signal(signal.SIGINT) < STOP_SECONDS
        assert (one.process.returncode, one.said.splitlines()[-1]) == (0, "stopped")
        assert one.descendants() == []

    # A task that had to wait for its next try would come too late.
    with started(folder / "airflow", cwd=folder, variables={"FLOWLAKE_RETRY_SECONDS": "3600"}) as again:
        again.until_it_says("Ctrl-C stops everything")
        assert again.url_and_password()[1] == password

        def runs() -> dict[str, str]:
            return {r["partition_key"]: r["state"] for r in again.ask("/api/v2/dags/flowlake_session/dagRuns")["dag_runs"]}

        done = {"2024-01-02": "success", "2024-01-03": "success"}
        wait_until(lambda: runs() == done, "the sessions that were cut short", 900)
        assert again.descendants() != []
        again.process.kill()
        again.process.wait()
        wait_until(lambda: not again.descendants(), "the end of what a killed command had started", 60)


@pytest.mark.real("airflow", "s3")
@pytest.mark.timeout(900)
def test_the_bucket_of_the_settings_and_sigterm(tmp_path: Path) -> None:
    market = small_market(1, 2, first_session=date(2023, 11, 22))
    day = str(market.days[0])
    with s3_server(["flowlake"]) as server:
        settings = fill(server, "own", market, tmp_path / "unused")
        (tmp_path / "flowlake.toml").write_text(
            f'lake = "my-lake"\nbucket_name = "{settings.bucket_name}"\nbucket_prefix = "{settings.bucket_prefix}"\n'
            f'bucket_endpoint = "{settings.bucket_endpoint}"\nbucket_region = "{settings.bucket_region}"\n'
        )
        keys = {
            "FLOWLAKE_BUCKET_KEY_ID": settings.bucket_key_id.reveal(),
            "FLOWLAKE_BUCKET_SECRET": settings.bucket_secret.reveal(),
        }
        nightly = {"FLOWLAKE_NIGHTLY_FROM": day, "FLOWLAKE_NIGHTLY_TO": day}
        with started(tmp_path / "airflow", cwd=tmp_path, variables=keys | nightly) as one:
            said = one.until_it_says("Ctrl-C stops everything")
            assert f"Bucket {settings.bucket_name}, lake {tmp_path / 'my-lake'}" in said
            assert "synthetic" not in said
            published = tmp_path / "my-lake" / "raw" / "massive_option_trades"
            wait_until(lambda: list(published.rglob("*.parquet")), "a partition", READY_SECONDS)
            assert one.signal(signal.SIGTERM) < STOP_SECONDS
            assert one.process.returncode == 0
            assert one.descendants() == []
    assert not any(
        value in path.read_text(errors="replace") for path in (tmp_path / "airflow").rglob("*.log") for value in keys.values()
    )


@pytest.mark.real("airflow")
@pytest.mark.timeout(900)
def test_dags_that_cannot_be_imported(tmp_path: Path) -> None:
    broken = tmp_path / "dags"
    shutil.copytree(DAGS / "plugins", broken / "plugins")
    (broken / "plan.json").write_text("[]")
    (broken / "wrong.py").write_text("# a DAG of airflow\n\nraise RuntimeError('a stage is missing')\n")
    with (
        pytest.raises(module.AirflowError, match=r"wrong\.py cannot be imported: RuntimeError: a stage is missing"),
        module.local_airflow(tmp_path / "home", broken, {}),
    ):
        pytest.fail("it started")


def test_airflow_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'flowlake\[airflow\]'"), module.local_airflow(tmp_path, DAGS, {}):
        pytest.fail("it started")


def test_a_folder_without_dags(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--dags"), module.local_airflow(tmp_path / "home", tmp_path, {}):
        pytest.fail("it started")
    assert not (tmp_path / "home").exists()


def test_tasks_are_told_what_the_settings_say() -> None:
    given = {"FLOWLAKE_LAKE": "/lake", "FLOWLAKE_BUCKET_NAME": "b", "FLOWLAKE_BUCKET_SECRET": "s", "FLOWLAKE_BUCKET_PREFIX": "p"}
    told = module.bucket_variables(load_settings(given, Path("/")), date(2024, 1, 2), date(2024, 1, 3))
    assert given.items() <= told.items()
    assert (told["FLOWLAKE_NIGHTLY_FROM"], told["FLOWLAKE_NIGHTLY_TO"]) == ("2024-01-02", "2024-01-03")
