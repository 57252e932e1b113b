"""The Airflow DAG `flowlake_maintenance`: verify the lake, back it up, apply retention."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task
from airflow.sdk.exceptions import AirflowSkipException
from flowlake_commands import CPU_POOL, OWNER, RETRIES, every, flowlake

DOC = """
### Keeping the lake

Every Sunday morning: `verify` reads each partition and compares its values with the hash in its footer; `backup`
copies what the bucket could not give back (run records, signals as they were published, history, the outbox) to
`FLOWLAKE_BACKUP`, or is skipped where that is not set; `prune` applies retention. Nothing is pruned from a lake that
did not verify, or that could not be backed up.

#### When it fails

| task | meaning | do |
|---|---|---|
| verify | a partition is damaged; the log names it | `flowlake restore DATASET SESSION`, or delete the file and run the session |
| backup | the place cannot be written | see the log |
| prune | the lake cannot be written | see the log |
"""

with DAG(
    dag_id="flowlake_maintenance",
    description="Verify, back up, apply retention.",
    doc_md=DOC,
    schedule=every("0 6 * * 0"),
    catchup=False,
    max_active_runs=1,
    tags=["flowlake", "weekly"],
    default_args={"owner": OWNER, "pool": CPU_POOL, **RETRIES},
):

    @task(execution_timeout=timedelta(hours=12))
    def verify(**context: Any) -> None:
        flowlake(context, "verify")

    @task(execution_timeout=timedelta(hours=6))
    def backup(**context: Any) -> None:
        place = os.environ.get("FLOWLAKE_BACKUP", "")
        if not place:
            raise AirflowSkipException("FLOWLAKE_BACKUP is not set: a folder, or s3://bucket/prefix")
        flowlake(context, "backup", "--to", place)

    @task(execution_timeout=timedelta(hours=2), trigger_rule="none_failed")
    def prune(**context: Any) -> None:
        flowlake(context, "prune")

    verify() >> backup() >> prune()
