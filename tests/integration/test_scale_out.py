"""A Dask cluster as an operator starts it: real schedulers and workers, and everything that may break or leak."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from flowlake.core.errors import ClusterError
from flowlake.core.settings import Secret, Settings
from flowlake.pipeline import cluster as cluster_module
from flowlake.pipeline.maintenance import verify
from integration.conftest import CleanLake
from integration.market_bucket import call, lake_hashes, run_command
from integration.test_executors import Process, free_port, running, wait_for


@dataclass(frozen=True)
class Cluster:
    address: str
    scheduler: Process
    workers: tuple[Process, ...]
    folder: Path

    def logs(self) -> str:
        return "\n".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("*/log")))


@contextmanager
def started(settings: Settings, folder: Path, workers: int = 2, *worker_arguments: str) -> Iterator[Cluster]:
    """`dask scheduler` and `dask worker`s with their nannies; the workers find the keys in their environment."""
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    with ExitStack() as stack:
        arguments = ("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard", "--no-jupyter")
        scheduler = stack.enter_context(running(settings, folder / "scheduler", *arguments))
        worker = ("worker", address, "--host", "127.0.0.1", "--nthreads", "1", "--no-dashboard", *worker_arguments)
        found = tuple(stack.enter_context(running(settings, folder / f"worker-{n}", *worker)) for n in range(workers))
        made = Cluster(address, scheduler, found, folder)
        wait_for(lambda: made.logs().count("Register worker") >= workers)
        yield made


@pytest.fixture
def fresh(clean: CleanLake, tmp_path: Path) -> Settings:
    """The clean run's bucket, and a lake that is still empty."""
    return replace(clean.settings, lake=str(tmp_path / "lake"), scratch=str(tmp_path / "scratch"))


def short_run(clean: CleanLake, *arguments: object) -> list[str]:
    """`flowlake run` over the first two sessions of the clean run."""
    return run_command(clean.market, "--to", clean.market.days[1], *arguments)


def of_short_run(clean: CleanLake) -> dict[str, str]:
    """What the clean run published for these two sessions: nothing of it rests on later ones."""
    days = [f"/session={day}/" for day in clean.market.days[:2]]
    return {path: found for path, found in clean.hashes.items() if any(day in path for day in days)}


def when_published(settings: Settings, share: float, clean: CleanLake) -> None:
    """Wait until a run has published that share of its lake."""
    lake = Path(settings.lake)
    wait_for(lambda: len(list(lake.glob("*/*/session=*/part.parquet"))) >= share * len(of_short_run(clean)), 240)


def test_a_worker_is_killed_and_no_key_is_seen_anywhere(
    clean: CleanLake, fresh: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scheduler logs all it can; its whole state is dumped while it works, tasks and their arguments included."""
    from distributed import Client

    monkeypatch.setenv("DASK_LOGGING__DISTRIBUTED", "debug")
    dump = tmp_path / "dump"

    def disturb(address: str) -> None:
        when_published(fresh, 0.3, clean)
        with Client(address, set_as_default=False) as client:
            client.dump_cluster_state(str(dump), format="msgpack")
            victim = next(iter(client.run(os.getpid).values()))
        os.kill(victim, signal.SIGKILL)

    with started(fresh, tmp_path) as dask:
        disturber = threading.Thread(target=disturb, args=(dask.address,))
        disturber.start()
        said = call(short_run(clean, "--scheduler", dask.address), fresh)
        disturber.join()
        logs = dask.logs()
    assert said.returncode == 0, said.stdout + said.stderr
    assert lake_hashes(fresh.lake) == of_short_run(clean)
    assert [found for found in verify(fresh) if found.problem] == []
    assert "DEBUG" in logs
    assert "was killed by signal 9" in logs or "Restarting worker" in logs
    seen = {
        "logs": logs.encode(),
        "state": next(tmp_path.glob("dump*")).read_bytes(),
        "output": (said.stdout + said.stderr).encode(),
        "records": b"".join(path.read_bytes() for path in (Path(fresh.lake) / "ops").rglob("*.parquet")),
    }
    assert len(seen["state"]) > 10_000
    for secret in (fresh.bucket_key_id, fresh.bucket_secret):
        assert [where for where, text in seen.items() if secret.reveal().encode() in text] == []


def test_the_scheduler_dies_and_a_rerun_completes(clean: CleanLake, fresh: Settings, tmp_path: Path) -> None:
    with started(fresh, tmp_path) as dask:

        def kill() -> None:
            when_published(fresh, 0.3, clean)
            dask.scheduler.kill()

        killer = threading.Thread(target=kill)
        killer.start()
        said = call(short_run(clean, "--scheduler", dask.address), fresh)
        killer.join()
    assert (said.returncode, "the Dask scheduler was lost" in said.stderr) == (1, True), said.stderr
    assert "Traceback" not in said.stderr
    assert "run the same command again" in said.stderr
    assert [found for found in verify(fresh) if found.problem] == []
    again = call(short_run(clean), fresh)
    assert again.returncode == 0, again.stderr
    assert lake_hashes(fresh.lake) == of_short_run(clean)


ANOTHER_DISK = """
from pathlib import Path
from flowlake.lake import store

class Elsewhere(store.LocalStore):
    def __init__(self, root):
        super().__init__(Path(ELSEWHERE))

store.LocalStore = Elsewhere
"""
OLDER = """
import flowlake
flowlake.__version__ = "0.0.1"
"""
FRAGILE = """
import os
from flowlake.pipeline import execute
execute.Context.__init__ = lambda *_, **__: os._exit(9)
"""


def refused(settings: Settings, clean: CleanLake, folder: Path, preload: str) -> str:
    """What a run says on a cluster whose workers are as the preloaded code makes them."""
    script = folder / "preload.py"
    script.write_text(preload)
    with started(settings, folder, 1, "--preload", str(script)) as dask:
        said = call(short_run(clean, "--scheduler", dask.address), settings)
    assert (said.returncode, "Traceback" in said.stderr) == (1, False), said.stderr
    return said.stderr


def test_a_worker_with_another_disk_under_the_lakes_name(clean: CleanLake, fresh: Settings, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    said = refused(fresh, clean, tmp_path, ANOTHER_DISK.replace("ELSEWHERE", repr(str(elsewhere))))
    assert f"does not see the lake {fresh.lake}" in said
    assert "cure: all workers must reach the same lake" in said
    assert not elsewhere.exists()


def test_a_worker_with_another_version(clean: CleanLake, fresh: Settings, tmp_path: Path) -> None:
    said = refused(fresh, clean, tmp_path, OLDER)
    assert "has flowlake=0.0.1, and the command flowlake=" in said


def test_workers_that_die_of_a_task(clean: CleanLake, fresh: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "0")
    said = refused(fresh, clean, tmp_path, FRAGILE)
    assert "ended 1 Dask workers, one after another" in said


def test_workers_without_keys(clean: CleanLake, fresh: Settings, tmp_path: Path) -> None:
    with started(replace(fresh, bucket_secret=Secret("")), tmp_path, 1) as dask:
        said = call(short_run(clean, "--scheduler", dask.address), fresh)
    assert (said.returncode, "has no FLOWLAKE_BUCKET_SECRET\n" in said.stderr) == (1, True), said.stderr
    assert "FLOWLAKE_SECRETS_FILE" in said.stderr


def test_a_scheduler_without_workers(fresh: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "WORKERS_SECONDS", 0.5)
    with (
        started(fresh, tmp_path, 0) as dask,
        pytest.raises(ClusterError, match="has no worker"),
        cluster_module.connected(dask.address),
    ):
        raise AssertionError("there is nobody to work")
