"""What the DAGs share: a task runs the command that a person would type, and reads its exit code as a person would."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from typing import Any

from airflow.sdk import CronTriggerTimetable
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowRescheduleException, AirflowSkipException

OWNER = "flowlake"
TIME_ZONE = "America/New_York"
BUCKET_POOL = "flowlake_bucket"
CPU_POOL = "flowlake_cpu"
RETRY_SECONDS = int(os.environ.get("FLOWLAKE_RETRY_SECONDS", "300"))
RETRIES = {
    "retries": 4,
    "retry_delay": timedelta(seconds=RETRY_SECONDS),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(seconds=RETRY_SECONDS * 12),
}
EXIT_CODE = "exit_code"
DONE, QUARANTINED = 0, 3
POLL = timedelta(seconds=10)
FINISHED = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
GRACE_SECONDS = 20.0
"""What a command gets to end by itself before it is killed; a killed one leaves the lake as whole as any."""


def every(cron: str) -> CronTriggerTimetable:
    """A schedule in New York time, for a DAG without `start_date`: its first run is the next time to come.

    With a start in the past Airflow would run the last time that was missed, on the first day on an empty lake.
    """
    return CronTriggerTimetable(cron, timezone=TIME_ZONE, run_immediately=timedelta(minutes=10))


def flowlake(context: dict[str, Any], *arguments: str, fine: tuple[int, ...] = ()) -> None:
    """Run `flowlake ARGUMENTS`, its output in the task's log. Exit codes that are `fine` are as good as 0.

    Exit code 3 (something was quarantined) fails the task at once: to try again cures no file. Any other failure is retried.
    """
    code = _run(list(arguments), f"{context['dag'].dag_id}/{context['run_id']}")
    context["ti"].xcom_push(key=EXIT_CODE, value=code)
    if code in fine:
        return
    if code == QUARANTINED:
        raise AirflowFailException("something was quarantined: the lines above say what, why, and the cure")
    if code != DONE:
        raise AirflowException(f"exit code {code}: the last lines above say what happened and what to do")


def _run(arguments: list[str], parent: str) -> int:
    sys.stdout.write(f"$ flowlake {' '.join(arguments)}\n")
    # Airflow's own variables stay out: a task's process holds a masked address of the metadata database.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW__")}
    environment |= {"FLOWLAKE_PARENT_RUN": parent, "COLUMNS": "150", "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "flowlake.cli", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            for line in process.stdout or ():
                sys.stdout.write(line)
            return process.wait()
        finally:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """End a command whose task was stopped or ran out of time."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()


def session_of_run(context: dict[str, Any]) -> str:
    """The session of a run: its partition key, or without one the newest session that was due when it was triggered."""
    from session_timetable import newest_due

    run = context["dag_run"]
    return run.partition_key or str(newest_due(run.run_after or datetime.now(UTC)))


def wait_for_earlier(context: dict[str, Any], session: str, stages: list[str]) -> None:
    """Come back later while an earlier session, in a run of this DAG that is under way, has not finished `stages`.

    Finished is not succeeded: a session that failed holds up no other. Runs that have not started are not waited for, so that a
    limit on runs at once can never make two runs wait for each other.
    """
    ti = context["ti"]
    states = ti.get_task_states(dag_id=ti.dag_id, task_ids=stages) if stages else {}
    for run_id, tasks in sorted(states.items()):
        earlier = session_in(run_id)
        unfinished = sorted(name for name, state in tasks.items() if state not in FINISHED)
        if earlier is None or str(earlier) >= session or not unfinished:
            continue
        if ti.get_dagrun_state(ti.dag_id, run_id) == "running":
            sys.stdout.write(f"waits for {', '.join(unfinished)} of {earlier}\n")
            raise AirflowRescheduleException(datetime.now(UTC) + POLL)


def session_in(run_id: str) -> date | None:
    """The session that a run's id names: `backfill__2024-01-02__Ab3...`."""
    parts = run_id.split("__")
    try:
        return date.fromisoformat(parts[1]) if len(parts) > 2 else None
    except ValueError:
        return None


def go_on_only_after(context: dict[str, Any], stage: str) -> None:
    """Skip a stage whose predecessor did not run to its end. One that quarantined something did: what it could publish is there."""
    if context["ti"].xcom_pull(task_ids=stage, key=EXIT_CODE) not in (DONE, QUARANTINED):
        raise AirflowSkipException(f"{stage} did not finish: look at its log")


def fail_with(context: dict[str, Any], stages: list[str]) -> None:
    """Fail, so that the run is red, when one of the session's stages did not end well."""
    codes = {stage: context["ti"].xcom_pull(task_ids=stage, key=EXIT_CODE) for stage in stages}
    if bad := [stage for stage, code in codes.items() if code != DONE]:
        raise AirflowFailException(f"the session is not whole: see the log of {bad[0]}")
