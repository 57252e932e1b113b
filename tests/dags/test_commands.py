"""What tasks do beside computing: run the command, read its exit code, wait for earlier sessions, fail and skip."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import flowlake_commands
import psutil
import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowRescheduleException, AirflowSkipException
from flowlake_commands import FINISHED, fail_with, flowlake, go_on_only_after, session_in, session_of_run, wait_for_earlier
from hypothesis import given
from hypothesis import strategies as st

from flowlake.pipeline.step import Stage

STAGES = [stage.value for stage in Stage]
UNFINISHED = (None, "none", "scheduled", "queued", "running", "up_for_retry", "up_for_reschedule", "restarting", "deferred")


@dataclass
class FakeTask:
    """What Airflow gives a task of itself, over runs that are written down here."""

    dag_id: str = "flowlake_session"
    runs: dict[str, tuple[str, dict[str, str | None]]] = field(default_factory=dict)
    told: dict[tuple[str, str], Any] = field(default_factory=dict)
    task_id: str = "history"

    def get_task_states(self, dag_id: str, task_ids: list[str]) -> dict[str, dict[str, str | None]]:
        assert dag_id == self.dag_id
        return {run: {name: tasks.get(name) for name in task_ids} for run, (_, tasks) in self.runs.items()}

    def get_dagrun_state(self, dag_id: str, run_id: str) -> str:
        return self.runs[run_id][0]

    def xcom_push(self, key: str, value: Any) -> None:
        self.told[(self.task_id, key)] = value

    def xcom_pull(self, task_ids: str, key: str) -> Any:
        return self.told.get((task_ids, key))


def context_of(ti: FakeTask) -> dict[str, Any]:
    return {"ti": ti, "dag": SimpleNamespace(dag_id=ti.dag_id), "run_id": "scheduled__2024-01-03__x"}


def waits(runs: dict[str, tuple[str, dict[str, str | None]]], session: str, stages: list[str]) -> bool:
    try:
        wait_for_earlier(context_of(FakeTask(runs=runs)), session, stages)
    except AirflowRescheduleException as later:
        return later.reschedule_date > datetime.now(UTC)
    return False


# --- Order over sessions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", UNFINISHED)
def test_it_waits_for_an_earlier_session_that_is_under_way(state: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    assert waits({"scheduled__2024-01-02__a": ("running", {"history": state})}, "2024-01-03", ["history"])
    assert capsys.readouterr().out == "waits for history of 2024-01-02\n"


@pytest.mark.parametrize("state", sorted(FINISHED))
def test_it_does_not_wait_for_what_has_ended_well_or_not(state: str) -> None:
    assert not waits({"scheduled__2024-01-02__a": ("running", {"history": state})}, "2024-01-03", ["history"])


@pytest.mark.parametrize("state", ["queued", "success", "failed"])
def test_it_does_not_wait_for_a_run_that_does_not_run(state: str) -> None:
    assert not waits({"backfill__2024-01-02__a": (state, {"history": None})}, "2024-01-03", ["history"])


@pytest.mark.parametrize("run_id", ["backfill__2024-01-03__other", "scheduled__2024-01-04__a", "manual__2024-01-02", "own_name"])
def test_it_does_not_wait_for_its_own_session_a_later_one_or_a_run_of_no_session(run_id: str) -> None:
    assert not waits({run_id: ("running", {"history": "running"})}, "2024-01-03", ["history"])


def test_a_stage_that_looks_back_on_nothing_asks_for_nothing() -> None:
    assert not waits({"scheduled__2024-01-02__a": ("running", {"ingest": "running"})}, "2024-01-03", [])


RUN = st.tuples(
    st.integers(2, 12),
    st.sampled_from(["queued", "running", "success", "failed"]),
    st.lists(st.sampled_from([*UNFINISHED, *sorted(FINISHED)]), min_size=6, max_size=6),
)


@given(st.lists(RUN, min_size=1, max_size=8), st.sets(st.sampled_from(STAGES), min_size=1))
def test_no_two_runs_ever_wait_for_each_other(made: list[Any], stages: set[str]) -> None:
    """Whatever state runs are in: who waits, waits for an earlier session alone, so that the earliest that runs goes on."""
    runs = {
        f"backfill__2024-01-{day:02}__{n}": (state, dict(zip(STAGES, tasks, strict=True)))
        for n, (day, state, tasks) in enumerate(made)
    }
    going = sorted(f"2024-01-{day:02}" for day, state, _ in made if state == "running")
    if going:
        assert not waits(runs, going[0], sorted(stages))


@pytest.mark.parametrize(
    ("run_id", "session"),
    [
        ("backfill__2024-01-02__Ab3", date(2024, 1, 2)),
        ("scheduled__2024-01-02__Ab3", date(2024, 1, 2)),
        ("manual__2024-01-02T12:00:00+00:00__Ab3", None),
        ("backfill__2024-01-02", None),
        ("backfill__x__Ab3", None),
        ("2024-01-02", None),
        ("", None),
    ],
)
def test_the_session_in_a_run_id(run_id: str, session: date | None) -> None:
    assert session_in(run_id) == session


def test_the_session_of_a_run_is_its_key_or_else_the_newest_that_was_due() -> None:
    after = datetime(2023, 11, 25, 12, tzinfo=UTC)
    run = SimpleNamespace(partition_key="2024-01-02", run_after=after)
    assert session_of_run({"dag_run": run}) == "2024-01-02"
    run.partition_key = None
    assert session_of_run({"dag_run": run}) == "2023-11-22"


# --- Exit codes ------------------------------------------------------------------------------------------------------------------


def test_a_stage_is_skipped_when_the_one_before_did_not_come_to_an_end() -> None:
    ti = FakeTask()
    for code in (0, 3):
        ti.told[("ingest", "exit_code")] = code
        go_on_only_after(context_of(ti), "ingest")
    for unfinished in (1, 2, 4, -9, None):
        ti.told[("ingest", "exit_code")] = unfinished
        with pytest.raises(AirflowSkipException, match="ingest did not finish"):
            go_on_only_after(context_of(ti), "ingest")


def test_a_session_is_red_when_any_stage_was() -> None:
    ti = FakeTask(told={(name, "exit_code"): 0 for name in STAGES})
    fail_with(context_of(ti), STAGES)
    for bad in (3, 1, None):
        ti.told[("curate", "exit_code")] = bad
        with pytest.raises(AirflowFailException, match="see the log of curate"):
            fail_with(context_of(ti), STAGES)


@pytest.mark.parametrize(
    ("code", "raised"), [(3, AirflowFailException), (1, AirflowException), (4, AirflowException), (-9, AirflowException)]
)
def test_an_exit_code_is_kept_and_decides_whether_to_try_again(
    code: int, raised: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flowlake_commands, "_run", lambda arguments, parent: code)
    ti = FakeTask()
    with pytest.raises(raised) as failure:
        flowlake(context_of(ti), "run")
    assert isinstance(failure.value, AirflowFailException) == (code == 3), "Airflow tries again after any other exception"
    assert ti.told == {("history", "exit_code"): code}


# --- The command as a process ----------------------------------------------------------------------------------------------------


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets `_run` start a shell script in place of Python: a real process whose behaviour is known."""

    def become(script: str) -> None:
        path = tmp_path / "program"
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        path.chmod(0o755)
        monkeypatch.setattr(flowlake_commands, "sys", SimpleNamespace(executable=str(path), stdout=sys.stdout))

    return become


def test_the_real_command_is_run_and_its_output_is_in_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    flowlake(context_of(ti := FakeTask()), "--version")
    assert ti.told == {("history", "exit_code"): 0}
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "$ flowlake --version"
    assert shown[1].startswith("flowlake ")


def test_output_of_both_kinds_the_exit_code_and_an_environment_without_airflows(
    program: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "masked")
    monkeypatch.setenv("FLOWLAKE_LAKE", "kept")
    program('echo "arguments $*"; echo "parent $FLOWLAKE_PARENT_RUN lake $FLOWLAKE_LAKE"; env | grep -c "^AIRFLOW__" >&2; exit 7')
    assert flowlake_commands._run(["run", "--session", "2024-01-02"], "dag/run") == 7
    assert capsys.readouterr().out.splitlines() == [
        "$ flowlake run --session 2024-01-02",
        "arguments -m flowlake.cli run --session 2024-01-02",
        "parent dag/run lake kept",
        "0",
    ]


class StoppedAtOutput(io.StringIO):
    """A log that the task is stopped at, as a time limit or a person does it, once the command has said its number."""

    def write(self, text: str) -> int:
        if text.startswith("number "):
            self.number = int(text.split()[1])
            raise KeyboardInterrupt
        return super().write(text)


@pytest.mark.parametrize("stubborn", [False, True])
def test_a_command_ends_with_its_task(stubborn: bool, program: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flowlake_commands, "GRACE_SECONDS", 0.5)
    program(f"{'trap : TERM' if stubborn else ''}\necho number $$\nwhile :; do sleep 0.1; done")
    log = StoppedAtOutput()
    monkeypatch.setattr(flowlake_commands.sys, "stdout", log)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        flowlake_commands._run([], "dag/run")
    assert not psutil.pid_exists(log.number)
    assert (time.monotonic() - began >= 0.5) == stubborn
    assert all(child.pid != log.number for child in psutil.Process(os.getpid()).children(recursive=True))
