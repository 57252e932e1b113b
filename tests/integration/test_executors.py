"""The same lake from every executor, also when a worker is killed."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from flowlake.core.settings import Settings
from flowlake.pipeline.maintenance import verify
from integration.conftest import CleanLake
from integration.market_bucket import call, environment, lake_hashes, run_command

Process = subprocess.Popen[bytes]


@contextmanager
def running(settings: Settings, folder: Path, *arguments: str) -> Iterator[Process]:
    """One process of a Dask cluster, in a current folder of its own; ended with the block."""
    folder.mkdir()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dask", *arguments], cwd=folder, env=environment(settings), stdout=log, stderr=subprocess.STDOUT
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(20)


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.01)


@contextmanager
def cluster(settings: Settings, folder: Path, workers: int) -> Iterator[tuple[str, list[Process]]]:
    """A scheduler and workers as real processes on loopback; the address, and the workers."""
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    with ExitStack() as stack:
        scheduler = ("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard", "--no-jupyter")
        stack.enter_context(running(settings, folder / "scheduler", *scheduler))
        worker = ("worker", address, "--host", "127.0.0.1", "--nthreads", "1", "--no-nanny", "--no-dashboard")
        found = [stack.enter_context(running(settings, folder / f"worker-{n}", *worker)) for n in range(workers)]
        wait_for(lambda: all(b"Registered to" in (folder / f"worker-{n}" / "log").read_bytes() for n in range(workers)))
        yield address, found


@pytest.mark.real("dask")
def test_processes_of_this_machine_give_the_same_lake(clean: CleanLake, tmp_path: Path) -> None:
    settings = replace(clean.settings, lake=str(tmp_path / "lake"), scratch=str(tmp_path / "scratch"))
    said = call(run_command(clean.market, "--executor", "dask", "--workers", 2), settings)
    assert said.returncode == 0, said.stdout + said.stderr
    assert lake_hashes(settings.lake) == clean.hashes
    again = call(run_command(clean.market), settings)
    assert "nothing to do" in again.stdout, "what one executor built is fresh to another"


def test_a_killed_worker_of_a_cluster_loses_nothing(clean: CleanLake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lake is named relative to the folder of the command: workers, who have others, must find the same."""
    monkeypatch.chdir(tmp_path)
    settings = replace(clean.settings, lake="lake", scratch=str(tmp_path / "scratch"))
    lake = tmp_path / "lake"

    def kill_when_half_done(worker: Process) -> None:
        wait_for(lambda: len(list(lake.glob("*/*/session=*/part.parquet"))) >= len(clean.hashes) // 2, 240)
        worker.kill()

    with cluster(settings, tmp_path, workers=2) as (address, workers):
        killer = threading.Thread(target=kill_when_half_done, args=(workers[1],))
        killer.start()
        said = call(run_command(clean.market, "--scheduler", address), settings)
        killer.join()
        assert workers[1].wait(20) == -9
        assert workers[0].poll() is None
    assert said.returncode == 0, said.stdout + said.stderr
    assert lake_hashes(lake) == clean.hashes
    assert not list(tmp_path.glob("worker-*/lake"))
    assert [found for found in verify(settings) if found.problem] == []


def test_a_scheduler_that_is_not_there(clean: CleanLake, tmp_path: Path) -> None:
    settings = replace(clean.settings, lake=str(tmp_path / "lake"))
    said = call(run_command(clean.market, "--scheduler", f"tcp://127.0.0.1:{free_port()}"), settings)
    assert (said.returncode, "no Dask scheduler answers" in said.stderr, "Traceback" in said.stderr) == (2, True, False)
