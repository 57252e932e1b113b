"""No two runs on the same session at once: real processes on one lake, in a folder and on S3."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowlake.core.errors import BusyError, StorageError
from flowlake.core.settings import S3Access, Settings
from flowlake.datasets.registry import DATASETS
from flowlake.lake.claims import CLAIMS, Times, claimed
from flowlake.lake.partitions import history_path, partition_path
from flowlake.lake.store import LocalStore, S3Store, Store, open_store
from flowlake.market.s3server import S3Server
from integration.conftest import CleanLake
from integration.market_bucket import call, command, environment, lake_hashes, run_command, settings_for

DAY = date(2024, 1, 2)
SHORT = Times(poll_local=0.05, poll_s3=0.2, heartbeat=0.5, expiry=6.0)
"""Lapses that a test can wait for; the server states times in whole seconds."""

HOLDER = """
import sys
from datetime import date
from flowlake.core.errors import BusyError
from flowlake.core.settings import load_settings
from flowlake.lake.claims import Times, claimed
from flowlake.lake.store import open_store

name, first, last, wait, *times = sys.argv[1:]
settings = load_settings()
store = open_store(settings.lake, settings.lake_access)
days = date.fromisoformat(first), date.fromisoformat(last)
try:
    with claimed(store, name, *days, float(wait), times=Times(*map(float, times))) as claim:
        print("granted", flush=True)
        sys.stdin.readline()
        claim.check()
except BusyError as error:
    print(error.what, flush=True)
"""


class Holder:
    """A process that claims sessions, says so, and keeps them until it is told to end."""

    def __init__(self, place: Settings, name: str, first: str, last: str, wait: float = 60.0) -> None:
        times = [SHORT.poll_local, SHORT.poll_s3, SHORT.heartbeat, SHORT.expiry]
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, name, first, last, str(wait), *map(str, times)],
            env=environment(place),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def says(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def complains(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.readline().strip()

    def ends(self) -> str:
        """Let go; what it said after it was granted."""
        out, _ = self.process.communicate("\n", timeout=30)
        return out.strip()


@contextmanager
def holding(place: Settings, name: str, first: str, last: str, wait: float = 60.0) -> Iterator[Holder]:
    holder = Holder(place, name, first, last, wait)
    try:
        yield holder
    finally:
        holder.process.kill()
        holder.process.communicate()


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, s3: S3Server, tmp_path: Path) -> Settings:
    """A lake of one's own, in a folder or on S3."""
    lake = str(tmp_path / "lake") if request.param == "folder" else f"s3://other/claims-{uuid4().hex}"
    return settings_for(s3, "claims", lake)


def test_the_second_waits_says_for_whom_and_goes_on_when_the_first_ends(place: Settings) -> None:
    with (
        holding(place, "first-run", "2024-01-02", "2024-01-05") as first,
        holding(place, "elsewhere", "2024-01-08", "2024-02-01") as elsewhere,
    ):
        assert first.says() == elsewhere.says() == "granted", "sessions that do not overlap are worked on side by side"
        with holding(place, "second-run", "2024-01-05", "2024-01-05") as second:
            words = second.complains()
            assert words.startswith("flowlake: waits for run first-run, which works on 2024-01-02 to 2024-01-05 since 20")
            assert f"process {first.process.pid} on " in words
            first.ends()
            assert second.says() == "granted"
            assert second.ends() == ""
        assert elsewhere.ends() == ""
    store = open_store(place.lake, place.lake_access)
    assert [stat.path for stat in store.list(f"{CLAIMS}/") if stat.path.endswith(".json")] == []


def test_sigkill_frees_a_local_lake_at_once(tmp_path: Path, s3: S3Server) -> None:
    place = settings_for(s3, "claims", tmp_path / "lake")
    with holding(place, "killed", "2024-01-02", "2024-01-05") as first:
        assert first.says() == "granted"
        with holding(place, "next", "2024-01-03", "2024-01-03") as second:
            assert "killed" in second.complains()
            first.process.kill()
            began = time.monotonic()
            assert second.says() == "granted"
            assert time.monotonic() - began < 4.0, "nothing has to lapse"


def test_on_s3_a_live_claim_is_respected_and_a_dead_one_lapses(s3: S3Server) -> None:
    place = settings_for(s3, "claims", f"s3://other/claims-{uuid4().hex}")
    with holding(place, "killed", "2024-01-02", "2024-01-05") as first:
        assert first.says() == "granted"
        time.sleep(SHORT.expiry + 1.5)
        with holding(place, "impatient", "2024-01-02", "2024-01-02", wait=0) as impatient:
            assert impatient.says().startswith("busy: run killed, which works on 2024-01-02 to 2024-01-05")
        with holding(place, "next", "2024-01-03", "2024-01-03") as second:
            assert "killed" in second.complains()
            first.process.kill()
            began = time.monotonic()
            assert second.says() == "granted"
            assert SHORT.expiry - SHORT.heartbeat - 1.0 < time.monotonic() - began < SHORT.expiry + 20.0


def test_on_s3_a_run_that_slept_too_long_ends(s3: S3Server) -> None:
    place = settings_for(s3, "claims", f"s3://other/claims-{uuid4().hex}")
    with (
        holding(place, "sleeper", "2024-01-02", "2024-01-05") as first,
        holding(place, "bystander", "2024-02-01", "2024-02-01") as bystander,
    ):
        assert first.says() == bystander.says() == "granted"
        first.process.send_signal(signal.SIGSTOP)
        with holding(place, "next", "2024-01-03", "2024-01-03") as second:
            assert second.says() == "granted"
            first.process.send_signal(signal.SIGCONT)
            time.sleep(2 * SHORT.heartbeat)
            assert first.ends().startswith("the claim on 2024-01-02 to 2024-01-05 lapsed")
            assert second.ends() == "", "the sleeper took nothing away from who came after it"
        assert bystander.ends() == ""


def test_of_two_that_start_at_the_same_instant_one_goes_first(place: Settings) -> None:
    store = open_store(place.lake, place.lake_access)
    for _ in range(3):
        together = threading.Barrier(2)
        granted: list[str] = []
        refused: list[str] = []
        ended = threading.Event()

        def start(name: str) -> None:
            together.wait()  # noqa: B023 - joined before the next round
            try:
                with claimed(store, name, DAY, DAY, 0.0, times=SHORT):
                    granted.append(name)  # noqa: B023
                    ended.wait(20)  # noqa: B023
            except BusyError as error:
                refused.append(error.what)  # noqa: B023
                ended.set()  # noqa: B023

        threads = [threading.Thread(target=start, args=(f"run-{n}",)) for n in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(granted) == len(refused) == 1
        assert granted[0] in refused[0]


def never_two_at_once(store: Store, spans: list[tuple[int, int]]) -> None:
    """All spans are claimed at once by threads; nobody is ever granted what another holds, and everybody is granted in the end."""
    held: set[int] = set()
    guard = threading.Lock()
    granted: list[int] = []
    trouble: list[str] = []

    def work(n: int) -> None:
        start, length = spans[n]
        days = set(range(start, start + length))
        with claimed(store, f"run-{n}", DAY + timedelta(start), DAY + timedelta(start + length - 1), 60, lambda _: None, SHORT):
            with guard:
                if held & days:
                    trouble.append(f"{spans[n]} beside {sorted(held)}")
                held.update(days)
            time.sleep(0.002)
            with guard:
                held.difference_update(days)
                granted.append(n)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(len(spans))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert trouble == []
    assert sorted(granted) == list(range(len(spans)))


SPANS = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 8)), min_size=2, max_size=6)


@given(SPANS)
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_overlap_is_ever_granted_in_a_folder(tmp_path: Path, spans: list[tuple[int, int]]) -> None:
    never_two_at_once(LocalStore(tmp_path / uuid4().hex), spans)


@given(SPANS)
@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_overlap_is_ever_granted_on_s3(s3: S3Server, spans: list[tuple[int, int]]) -> None:
    never_two_at_once(S3Store(f"s3://other/claims-{uuid4().hex}", s3.access), spans)


def test_a_claim_of_three_years_is_one_open_file(tmp_path: Path) -> None:
    store = open_store(str(tmp_path), S3Access())
    before = len(list(Path("/dev/fd").iterdir()))
    with claimed(store, "backfill", date(2021, 1, 4), date(2023, 12, 29)):
        assert len(list(Path("/dev/fd").iterdir())) == before + 1
        told = json.loads((tmp_path / CLAIMS / "backfill.json").read_text())
        assert (told["first"], told["last"]) == ("2021-01-04", "2023-12-29")


def test_a_lake_where_no_file_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(StorageError, match="cannot claim sessions") as caught,
        claimed(LocalStore(tmp_path / "file" / "lake"), "run", DAY, DAY),
    ):
        raise AssertionError("nothing was claimed")
    assert "must be writable" in caught.value.cure


def test_a_full_disk_leaves_no_half_claim(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, hard))
    try:
        with pytest.raises(StorageError, match="cannot claim sessions"), claimed(store, "full", DAY, DAY):
            raise AssertionError("nothing was claimed")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list((tmp_path / CLAIMS).glob("*.json")) == []
    with claimed(store, "next", DAY, DAY, 0.0):
        assert [path.stem for path in (tmp_path / CLAIMS).glob("*.json")] == ["next"]


def test_a_store_that_lists_late_is_refused(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(S3Store, "modified", lambda *_: {})
    with (
        pytest.raises(StorageError, match=r"does not list _claims/run\.json, which was just written"),
        claimed(S3Store(f"s3://other/claims-{uuid4().hex}", s3.access), "run", DAY, DAY),
    ):
        raise AssertionError("nothing was claimed")


def test_who_came_first_goes_first(tmp_path: Path) -> None:
    """A short request behind a long one that waits does not overtake it again and again."""
    store = LocalStore(tmp_path)
    order: list[str] = []

    def work(name: str, first: date, last: date) -> None:
        with claimed(store, name, first, last, 30, lambda _: None, SHORT):
            order.append(name)

    with claimed(store, "a", DAY, DAY):
        threads = []
        for name, first in (("long", DAY), ("short", DAY + timedelta(5))):
            threads.append(threading.Thread(target=work, args=(name, first, DAY + timedelta(5))))
            threads[-1].start()
            while not (tmp_path / CLAIMS / f"{name}.json").exists():
                time.sleep(0.01)
        time.sleep(0.2)
        assert order == []
    for thread in threads:
        thread.join()
    assert order == ["long", "short"]


def test_two_commands_at_once_do_the_work_once(clean: CleanLake, tmp_path: Path) -> None:
    place = replace(clean.settings, lake=str(tmp_path / "lake"), scratch=str(tmp_path / "scratch"))
    both = [
        subprocess.Popen(
            run_command(clean.market), env=environment(place), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sorted("nothing to do" in out for out, _ in said) == [False, True]
    assert sum("flowlake: waits for run" in err for _, err in said) == 1
    assert lake_hashes(place.lake) == clean.hashes


def test_commands_that_may_not_wait_end_with_4(s3: S3Server, clean: CleanLake, tmp_path: Path) -> None:
    place = clean.copy(s3, "claims-busy", tmp_path)
    day = clean.market.days[1]
    signals = DATASETS["signals"]
    store = open_store(place.lake, place.lake_access)
    store.copy(partition_path(signals, day), history_path(signals, day, "0" * 64))
    assert call(command("backup", "--to", tmp_path / "backup"), place).returncode == 0
    with claimed(store, "holder", day, day):
        for arguments in (
            run_command(clean.market, "--wait", 0),
            command("restore", "signals", day, "0", "--wait", 0),
            command("recover", "--from", tmp_path / "backup", "--wait", 0),
        ):
            said = call(arguments, place)
            assert said.returncode == 4, said.stdout + said.stderr
            assert said.stderr.startswith(f"flowlake: busy: run holder, which works on {day} since 20")
            assert "Traceback" not in said.stderr
        assert call(command("status", "--session", day), place).returncode == 0
        assert (Path(place.lake) / CLAIMS / "holder.json").exists()
        assert lake_hashes(place.lake) == clean.hashes
        assert call(command("verify"), place).returncode == 0
        assert call(command("backup", "--to", tmp_path / "backup", "--everything"), place).returncode == 0
        assert not (tmp_path / "backup" / CLAIMS).exists()
        others = call(command("run", "--session", clean.market.days[2], "--no-data-docs", "--wait", 0), place)
        assert others.returncode == 0, others.stderr
