"""What the tests ask a running Airflow, and how they disturb the processes of its tasks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from flowlake.pipeline.local_airflow import LocalAirflow

DAGS = Path(__file__).resolve().parents[2] / "dags"
SESSION_DAG = "flowlake_session"
OTHER_DAGS = ("flowlake_late", "flowlake_models", "flowlake_backtest", "flowlake_maintenance", "flowlake_tell")
ENDED = frozenset({"success", "failed"})


@dataclass(frozen=True)
class TaskRun:
    """A task of a run, as Airflow tells it when the run has ended. Times are ISO-8601 in UTC."""

    stage: str
    state: str
    tries: int
    start: str
    end: str


@dataclass(frozen=True)
class SessionRun:
    session: str
    kind: str
    state: str
    tasks: dict[str, TaskRun]


def until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Wait for a true answer and return it; an AssertionError that says what was waited for."""
    end = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < end, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.5)
    return answer


def pause(airflow: LocalAirflow, dag_ids: Iterable[str], paused: bool = True) -> None:
    """Keep DAGs from running, or let them, whatever the clock says; waits until Airflow has read them."""
    for dag_id in dag_ids:
        until(lambda dag_id=dag_id: any(dag["dag_id"] == dag_id for dag in _all_dags(airflow)), 120, dag_id)
        airflow.request("PATCH", f"/dags/{dag_id}", {"is_paused": paused})


def _all_dags(airflow: LocalAirflow) -> list[dict[str, Any]]:
    return list(airflow.request("GET", "/dags?limit=100")["dags"])


def runs_of(airflow: LocalAirflow, dag_id: str = SESSION_DAG) -> list[dict[str, Any]]:
    return list(airflow.request("GET", f"/dags/{dag_id}/dagRuns?limit=100")["dag_runs"])


def wait_for_runs(airflow: LocalAirflow, sessions: Iterable[str], seconds: float) -> None:
    """Wait until each of the sessions has a run and all runs have ended."""
    wanted = set(sessions)

    def ended() -> bool:
        runs = runs_of(airflow)
        return wanted <= {run["partition_key"] for run in runs} and all(run["state"] in ENDED for run in runs)

    until(ended, seconds, f"the runs of {sorted(wanted)}")


def ask_for_backfill(airflow: LocalAirflow, first: str, last: str, **how: object) -> None:
    """Ask once Airflow has noted that the backfill before is over: it allows one at a time."""
    before = f"/backfills?dag_id={SESSION_DAG}"
    until(lambda: all(one["completed_at"] for one in airflow.request("GET", before)["backfills"]), 120, "the backfill before")
    asked = {"dag_id": SESSION_DAG, "from_date": f"{first}T00:00:00Z", "to_date": f"{last}T00:00:00Z"}
    airflow.request("POST", "/backfills", asked | how)


def run_once(airflow: LocalAirflow, dag_id: str, seconds: float) -> dict[str, Any]:
    """Start a DAG by hand and wait for its end; the run as Airflow tells it then."""
    pause(airflow, [dag_id], paused=False)
    asked = airflow.request("POST", f"/dags/{dag_id}/dagRuns", {"logical_date": None})
    path = f"/dags/{dag_id}/dagRuns/{asked['dag_run_id']}"
    until(lambda: airflow.request("GET", path)["state"] in ENDED, seconds, dag_id)
    return dict(airflow.request("GET", path))


def told(airflow: LocalAirflow) -> list[SessionRun]:
    """Every run of the session DAG with its tasks, ordered by session."""
    return sorted((_told(airflow, run) for run in runs_of(airflow)), key=lambda run: run.session)


def _told(airflow: LocalAirflow, run: dict[str, Any]) -> SessionRun:
    tasks = airflow.request("GET", f"/dags/{SESSION_DAG}/dagRuns/{run['dag_run_id']}/taskInstances?limit=100")["task_instances"]
    return SessionRun(
        run["partition_key"],
        run["run_type"],
        run["state"],
        {
            task["task_id"]: TaskRun(
                task["task_id"], task["state"], task["try_number"], task["start_date"] or "", task["end_date"] or ""
            )
            for task in tasks
        },
    )


@dataclass(frozen=True)
class Command:
    """A running `flowlake run --session D --step STAGE`, and the process of the task that started it."""

    session: str
    stage: str
    process: psutil.Process
    task: psutil.Process


def running_commands(airflow: LocalAirflow) -> list[Command]:
    """The commands that tasks of this Airflow run at this moment."""
    found = []
    for child in psutil.Process(airflow.processes["scheduler"].pid).children(recursive=True):
        try:
            words, parent = child.cmdline(), child.parent()
        except psutil.NoSuchProcess:
            continue
        if parent is not None and "flowlake.cli" in words and "--step" in words:
            found.append(Command(words[words.index("--session") + 1], words[words.index("--step") + 1], child, parent))
    return found


def left_over(variable: str, value: str) -> list[str]:
    """Processes, whosesoever child, that were started with this environment variable at this value."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(variable) == value and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def files_that_contain(folder: Path, text: str) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and text.encode() in path.read_bytes()]
