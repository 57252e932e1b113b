"""The Airflow DAG `flowlake_tell`: people and Prometheus hear how the newest sessions stand."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task
from airflow.sdk.exceptions import AirflowSkipException
from flowlake_commands import CPU_POOL, OWNER, RETRIES, every, flowlake

DOC = """
### Notifications and metrics

Every half hour: `people` evaluates the triggers on the newest sessions and delivers what is new, and what could not be
delivered before; nothing is told twice. `prometheus` pushes the state of the lake to `FLOWLAKE_PUSHGATEWAY`, or is
skipped where that is not set. Neither waits for a session to be whole: that one failed is what should be told.

Channels are set up by `FLOWLAKE_ALERT_...`; without one `people` says so in its log and ends well.

#### When it fails

| task | meaning | do |
|---|---|---|
| people, exit code 1 | a message was refused or given up | `flowlake alerts status`, then `flowlake alerts flush --retry` |
| people, exit code 2 | a setting of a channel is missing or wrong | the log names it |
| prometheus | the gateway does not answer | the log; a later run pushes newer figures |
"""

SESSIONS = "5"
WITHIN_DAYS = "7"
WAITING = 3
"""Exit code of `alerts`: a message waits for another attempt, which the next run makes."""

with DAG(
    dag_id="flowlake_tell",
    description="Notifications of the newest sessions, and metrics for Prometheus.",
    doc_md=DOC,
    schedule=every("5,35 * * * *"),
    catchup=False,
    max_active_runs=1,
    tags=["flowlake"],
    # Before whatever else waits for a slot: it takes seconds, and somebody may have to get up.
    default_args={"owner": OWNER, "pool": CPU_POOL, "priority_weight": 10, **RETRIES},
):

    @task(execution_timeout=timedelta(minutes=20))
    def people(**context: Any) -> None:
        flowlake(context, "alerts", "send", "--last", SESSIONS, "--within", WITHIN_DAYS, fine=(WAITING,))

    @task(execution_timeout=timedelta(minutes=10))
    def prometheus(**context: Any) -> None:
        if not os.environ.get("FLOWLAKE_PUSHGATEWAY"):
            raise AirflowSkipException("FLOWLAKE_PUSHGATEWAY is not set: the address of a Pushgateway")
        flowlake(context, "metrics", "push")

    people()
    prometheus()
