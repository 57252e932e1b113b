"""Records of runs: what they hold, how they are packed, and the events that tell the same while it happens."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from flowlake.core import events
from flowlake.core.errors import StorageError, UsageError
from flowlake.core.settings import Secret, Settings, described, load_settings, without_secrets
from flowlake.datasets.ops import AUDITS, FINDINGS, INVOCATIONS, PUBLICATIONS, RUNS
from flowlake.lake import journal
from flowlake.lake.hashing import data_hash
from flowlake.lake.journal import Journal, Packing, pack, records
from flowlake.lake.lake import Lake
from flowlake.lake.overlay import Kept, OverlayStore
from flowlake.lake.store import LocalStore, file_hash
from flowlake.pipeline import trail
from flowlake.pipeline.invocation import Asked, recorded

KEY, SECRET = "PLANTEDKEY0123456789", "planted+Secret/0123456789"
DAY = date(2024, 3, 4)
SETTINGS = Settings(
    lake="lake", bucket_endpoint=f"https://user:{SECRET}@s3.example", bucket_key_id=Secret(KEY), bucket_secret=Secret(SECRET)
)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "lake")


def step_row(step: str, session: date = DAY, status: str = "built") -> journal.Row:
    return {
        "step": step,
        "session": session,
        "status": status,
        "detail": "",
        "started_at_utc": datetime.now(UTC),
        "seconds": 0.1,
        "rows": 3,
        "inputs_key": "",
        "command": "run",
        "code": "0",
        "libraries": "",
    }


def publication(name: str, session: date = DAY) -> journal.Row:
    return {
        "dataset": name,
        "session": session,
        "published_at_utc": datetime.now(UTC),
        "data_hash": "d",
        "file_hash": f"{name}-{session}",
        "replaced_hash": "",
        "rows": 3,
        "bytes": 9,
    }


def run_once(store: LocalStore, *steps: str, parent: str = "", last: date = DAY) -> str:
    """A run that says that it built these steps, and published a table for each."""
    settings = Settings(lake=store.root, parent_run=parent)
    with recorded(store, settings, Asked("run", DAY, last, steps, "local")) as running:
        running.records.add("runs", [step_row(step) for step in steps])
        running.records.add("publications", [publication(step) for step in steps])
        running.statuses.update({"built": len(steps)})
    return running.run_id


def files(store: LocalStore) -> list[str]:
    return sorted(stat.path for stat in store.list("ops/"))


def held(store: LocalStore) -> dict[str, list[tuple[object, ...]]]:
    """Rows by dataset, in an order that does not depend on files."""
    return {ds.name: sorted(records(store, ds).rows(), key=repr) for ds in journal.PACKED}


# --- Runs as a whole ---------------------------------------------------------------------------------------------------


def test_a_run_is_written_down_with_its_parent_its_counts_and_its_end(store: LocalStore) -> None:
    run_id = run_once(store, "rates", "contracts", parent="nightly/7")
    (row,) = trail.runs(store)
    assert (row["run_id"], row["parent"], row["action"], row["state"]) == (run_id, "nightly/7", "run", "ended")
    assert (row["exit_code"], row["built"], row["failed"], row["steps"]) == (0, 2, 0, "rates contracts")
    assert row["ended_at_utc"] >= row["started_at_utc"]
    assert json.loads(row["config"])["bucket_secret"] == "not set"


def test_the_parent_comes_from_the_environment() -> None:
    assert load_settings({"FLOWLAKE_PARENT_RUN": "dag/run 1"}).parent_run == "dag/run 1"
    assert load_settings({"FLOWLAKE_LOG_FORMAT": "json"}).log_format == "json"
    with pytest.raises(UsageError, match="log_format is 'xml'"):
        load_settings({"FLOWLAKE_LOG_FORMAT": "xml"})


def test_an_error_ends_a_run_with_its_words_and_exit_code(store: LocalStore) -> None:
    with pytest.raises(UsageError), recorded(store, SETTINGS, Asked("run")):
        raise UsageError("no such thing", "look")
    (row,) = trail.runs(store)
    assert (row["exit_code"], row["error"], row["state"]) == (2, "no such thing", "ended")


def test_a_killed_run_has_no_end_and_its_steps_are_counted(store: LocalStore) -> None:
    script = f"""
import os, signal
from datetime import UTC, date, datetime
from pathlib import Path
from flowlake.core.settings import Settings
from flowlake.lake.store import LocalStore
from flowlake.pipeline.invocation import Asked, recorded
with recorded(LocalStore(Path({store.root!r})), Settings(lake={store.root!r}), Asked("run", date(2024, 3, 4))) as running:
    row = dict(step="rates", session=date(2024, 3, 4), status="held", detail="", started_at_utc=datetime.now(UTC), seconds=0.1)
    running.records.add("runs", [row | dict(rows=0, inputs_key="", command="", code="", libraries="")])
    running.records.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script], timeout=60, check=False).returncode == -9
    (row,) = trail.runs(store)
    assert (row["ended_at_utc"], row["exit_code"], row["state"], row["held"]) == (None, None, "running or killed", 1)


def test_runs_are_found_by_session_parent_and_unique_prefix(store: LocalStore) -> None:
    first = run_once(store, "rates", parent="a")
    second = run_once(store, "rates", parent="b", last=DAY + timedelta(days=3))
    found = trail.runs(store)
    assert [row["run_id"] for row in found] == [second, first]
    assert [row["run_id"] for row in trail.matching(found, 1)] == [second]
    assert [row["run_id"] for row in trail.matching(found, 9, parent="a")] == [first]
    assert [row["run_id"] for row in trail.matching(found, 9, DAY + timedelta(days=2))] == [second]
    assert trail.find_run(found, first)["run_id"] == first
    with pytest.raises(UsageError, match="there is no run '1999'"):
        trail.find_run(found, "1999")
    with pytest.raises(UsageError, match="2 runs start with '2'"):
        trail.find_run(found, "2")


def test_runs_of_a_version_without_invocations_are_listed_from_their_steps(store: LocalStore) -> None:
    old = Journal(store, "20230101T000000-00000000")
    old.add("runs", [step_row("rates"), step_row("contracts", status="failed")])
    old.flush()
    (row,) = trail.runs(store)
    assert (row["run_id"], row["state"], row["built"], row["failed"]) == (old.run_id, "not recorded", 1, 1)
    assert row["steps"].split() == [name for name in ("rates", "contracts") if name in row["steps"].split()]


# --- Packing -----------------------------------------------------------------------------------------------------------


def test_packing_keeps_every_row_and_leaves_one_file_a_dataset(store: LocalStore) -> None:
    ids = {run_once(store, "rates", "contracts") for _ in range(3)}
    before = held(store)
    assert pack(store, "packer", datetime.now(UTC)) == Packing(files=9)
    assert files(store) == [f"ops/{name}/packed=packer/part.parquet" for name in ("invocations", "publications", "runs")]
    assert held(store) == before
    assert {row["run_id"] for row in trail.runs(store)} == ids
    later = run_once(store, "rates")
    pack(store, "second", datetime.now(UTC))
    assert {path.split("/")[2] for path in files(store)} == {"packed=second"}
    assert journal.run_ids(store, RUNS) == {*ids, later}
    for run_id in ids:
        assert Lake(store).revision(run_id).view.run_id == run_id


class DiesBeforeDeleting(LocalStore):
    def delete(self, path: str) -> None:
        raise KeyboardInterrupt(path)


def test_a_kill_between_pack_and_delete_leaves_no_double_rows(store: LocalStore) -> None:
    run_once(store, "rates")
    run_once(store, "contracts")
    before = held(store)
    with pytest.raises(KeyboardInterrupt):
        pack(DiesBeforeDeleting(Path(store.root)), "killed", datetime.now(UTC))
    assert any("/packed=killed/" in path for path in files(store))
    assert any("/run=" in path for path in files(store))
    assert held(store) == before
    pack(store, "again", datetime.now(UTC))
    assert {path.split("/")[2] for path in files(store)} == {"packed=again"}
    assert held(store) == before


class AnotherPacksFirst(LocalStore):
    """While this one is about to write its first pack, another packer does the whole work."""

    packed = False

    def write(self, path: str, body: bytes):  # type: ignore[no-untyped-def]
        if not self.packed:
            self.packed = True
            pack(LocalStore(Path(self.root)), "other", datetime.now(UTC))
        return super().write(path, body)


def test_two_packers_lose_nothing_and_double_nothing(store: LocalStore) -> None:
    for step in ("rates", "contracts", "option_iv"):
        run_once(store, step)
    before = held(store)
    pack(AnotherPacksFirst(Path(store.root)), "one", datetime.now(UTC))
    assert held(store) == before


def test_a_run_under_way_is_not_packed_and_one_silent_for_a_day_is(store: LocalStore) -> None:
    run_once(store, "rates")
    with recorded(store, SETTINGS, Asked("run", DAY, DAY)) as running:
        running.records.add("runs", [step_row("contracts")])
        running.records.flush()
        before = held(store)
        pack(store, "packer", datetime.now(UTC))
        assert f"ops/runs/run={running.run_id}/part.parquet" in files(store)
        assert held(store) == before
        pack(store, "tomorrow", datetime.now(UTC) + timedelta(days=1, minutes=1))
        assert not any("/run=" in path for path in files(store))
        assert held(store) == before
        running.records.add("runs", [step_row("option_iv")])
    steps = records(store, RUNS).filter(pl.col("run_id") == running.run_id)
    assert steps.get_column("step").to_list() == ["contracts", "option_iv"]


def test_pruned_step_records_leave_publications_and_invocations(store: LocalStore) -> None:
    run_once(store, "rates")
    before = held(store)
    later = datetime.now(UTC) + timedelta(days=10)
    asked = (store, "packer", later, (RUNS, AUDITS, FINDINGS), timedelta(days=5))
    assert pack(*asked, dry_run=True).dropped == (("runs", 1),)
    assert held(store) == before
    assert pack(*asked).dropped == (("runs", 1),)
    assert records(store, RUNS).is_empty()
    for ds in (PUBLICATIONS, INVOCATIONS):
        assert sorted(records(store, ds).rows(), key=repr) == before[ds.name]


# --- Events ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """Where events go during a test."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(events.JsonLines(lambda text: without_secrets(text, SETTINGS)))
    level = events.EVENTS.level
    events.EVENTS.addHandler(handler)
    events.EVENTS.setLevel(logging.INFO)
    yield stream
    events.EVENTS.removeHandler(handler)
    events.EVENTS.setLevel(level)


def test_every_event_is_a_json_line_with_run_and_parent(store: LocalStore, lines: io.StringIO) -> None:
    run_id = run_once(store, "rates", parent="nightly/7")
    events.emit("outside", session=DAY)
    told = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert [line["event"] for line in told] == ["run_started", "run_finished", "outside"]
    assert [(line["run_id"], line["parent"]) for line in told] == [(run_id, "nightly/7")] * 2 + [("", "")]
    assert (told[1]["exit_code"], told[1]["built"], told[2]["session"]) == (0, 1, str(DAY))
    assert all(datetime.fromisoformat(line["ts"]).utcoffset() == timedelta(0) for line in told)


def test_no_secret_is_written_or_told(store: LocalStore, lines: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["flowlake", "run", "--scheduler", f"tcp://me:{SECRET}@host:8786", KEY])
    settings = Settings(
        lake="lake",
        bucket_endpoint=SETTINGS.bucket_endpoint,
        bucket_key_id=SETTINGS.bucket_key_id,
        bucket_secret=SETTINGS.bucket_secret,
        parent_run=f"started with {SECRET}",
    )
    events.emit("nested", what={"list": [f"a {SECRET}", KEY]})
    with pytest.raises(StorageError), recorded(store, settings, Asked("run", DAY, DAY)):
        raise StorageError(f"the endpoint refused {KEY} with {SECRET}", "look")
    row = records(store, INVOCATIONS).row(0, named=True)
    assert row["exit_code"] == 1
    assert row["error"] == "the endpoint refused *** with ***"
    assert row["command"] == "run --scheduler tcp://***@host:8786 ***"
    for text in (json.dumps(row, default=str), lines.getvalue(), json.dumps(described(settings))):
        assert "***" in text
        assert KEY not in text
        assert SECRET not in text


# --- The overlay -------------------------------------------------------------------------------------------------------


def test_an_overlay_writes_nothing_below_and_refuses_a_file_that_was_altered(tmp_path: Path) -> None:
    below, own = LocalStore(tmp_path / "below"), LocalStore(tmp_path / "own")
    frame = pl.DataFrame({"x": [1, 2]})
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    stat = below.write("raw/a/session=2024-03-04/part.parquet", buffer.getvalue())
    below.write("raw/a/session=2024-03-05/part.parquet", b"out of sight")
    kept = Kept(stat, file_hash(buffer.getvalue()), data_hash(frame))
    overlay = OverlayStore(below, own, {stat.path: kept})
    assert [found.path for found in overlay.list("raw/")] == [stat.path]
    assert overlay.read(stat.path) == buffer.getvalue()
    overlay.write(stat.path, b"mine")
    assert (overlay.read(stat.path), below.read(stat.path)) == (b"mine", buffer.getvalue())
    overlay.show(stat.path, kept)
    assert overlay.read(stat.path) == buffer.getvalue()
    below.write(stat.path, buffer.getvalue()[:-1] + b"?")
    with pytest.raises(StorageError):
        overlay.read(stat.path)
    overlay.delete(stat.path)
    assert overlay.stat(stat.path) is None
    assert below.stat(stat.path) is not None
