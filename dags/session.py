"""The Airflow DAG `flowlake_session`: one run per exchange session, every night by itself, and for past sessions by backfill."""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Asset, task
from flowlake_commands import (
    BUCKET_POOL,
    CPU_POOL,
    OWNER,
    RETRIES,
    fail_with,
    flowlake,
    go_on_only_after,
    session_of_run,
    wait_for_earlier,
)
from session_timetable import SessionTimetable

DOC = """
### One exchange session, from the bucket to signals

Runs each night for the newest session, after 09:00 New York on the next session and the vendor's publication. **Past
sessions**: *Trigger* → *Backfill*, both dates, *Run Backfill* (*Missing and Errored Runs* takes up red ones as well);
weekends and holidays make no run. A session that is already whole costs a few seconds.

Every task runs `flowlake run --session D --step STAGE`, and its log ends with the table that the command prints.
Sessions run beside one another; what looks back (`factors`, `history`, `signals`, `check`) waits, as *up for
reschedule*, until earlier sessions that are under way are past the stages that it reads.

#### What a red task means

| task | meaning | do |
|---|---|---|
| ingest, no file | not published yet; retried for about an hour | *Clear* it later, or wait for `flowlake_late` |
| ingest, quarantined | a file is corrupt; later tasks went on without it | replace it; `flowlake_late` takes it up |
| any, exit code 1 | bucket or disk, or a defect | the last lines of the log; *Clear* the task once the cause is gone |
| any, killed | out of memory, machine stopped | nothing: it is retried, and nothing is lost |
| skipped | the task before it did not finish | *Clear* the first red task with *downstream* |
| check | some task of the session did not end well; it is never skipped, so that the run is red | start at the first red one |

A red session does not hold up the others. To rebuild one: *Clear* it. What is not stale is not built again.
"""

STAGES = json.loads((Path(__file__).parent / "plan.json").read_text(encoding="utf-8"))
NAMES = [stage["stage"] for stage in STAGES]
FIRST, LAST = NAMES[0], NAMES[-1]
HOURS = {"ingest": 3, "factors": 4}


def _assets(names: list[str]) -> list[Asset]:
    return [Asset(name=name, uri=f"x-flowlake://lake/{name}", group="flowlake") for name in names]


def _stage_task(stage: dict[str, Any], before: str | None) -> Any:
    name = stage["stage"]

    @task(
        task_id=name,
        trigger_rule="all_done",
        pool=BUCKET_POOL if name == FIRST else CPU_POOL,
        execution_timeout=timedelta(hours=HOURS.get(name, 2)),
        inlets=_assets(stage["reads"]),
        outlets=_assets(stage["writes"]),
        doc_md=f"`flowlake run --session D --step {name}`: {', '.join(stage['steps'])}",
    )
    def run(**context: Any) -> None:
        if before is not None and name != LAST:
            go_on_only_after(context, before)
        session = session_of_run(context)
        wait_for_earlier(context, session, stage["waits_for_earlier"])
        flowlake(context, "run", "--session", session, "--step", name, "--data-docs", f"{session}-{name}")
        if name == LAST:
            # Airflow calls a run by its last task: skipped like the others, it would make a failed session green.
            fail_with(context, NAMES)

    return run()


with DAG(
    dag_id="flowlake_session",
    description="Each exchange session: fetch, audit, publish, factors, signals. Nightly; past sessions by backfill.",
    doc_md=DOC,
    schedule=SessionTimetable(os.environ.get("FLOWLAKE_NIGHTLY_FROM", ""), os.environ.get("FLOWLAKE_NIGHTLY_TO", "")),
    start_date=datetime(2003, 1, 2),  # noqa: DTZ001 - Airflow reads it as UTC; no session before it can be asked for
    catchup=False,
    max_active_runs=4,
    tags=["flowlake", "nightly", "backfill"],
    default_args={"owner": OWNER, **RETRIES},
):
    done: list[Any] = []
    for stage in STAGES:
        made = _stage_task(stage, done[-1].operator.task_id if done else None)
        if done:
            done[-1] >> made
        done.append(made)
