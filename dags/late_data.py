"""The Airflow DAG `flowlake_late`: what arrived or was replaced after its session's night."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task
from flowlake_commands import CPU_POOL, OWNER, RETRIES, every, flowlake

DOC = """
### Late and republished files

Twice a day, over the newest 20 sessions of the bucket: open interest that came after the night, files that the vendor
replaced, sessions whose night failed. `stale` lists what is *due*, `mend` builds that and nothing else: whatever
still agrees with its inputs is left alone.

Signals and other windowed or fitted outputs that are out of date are **listed as restatable and not replaced**: what
was published stays what was known then. To replace them is a decision: `flowlake run --from D --to D --restate`.

#### When it fails

| task | meaning | do |
|---|---|---|
| stale | bucket or lake cannot be reached | the last lines of the log |
| mend, quarantined | a file is corrupt, and still so | replace it in the bucket; the next run takes it up |
| mend, exit code 4 | another run works on these sessions | nothing: the next run comes |
"""

SESSIONS = "20"

with DAG(
    dag_id="flowlake_late",
    description="Late open interest and republished files of the newest 20 sessions: build what is stale, and only that.",
    doc_md=DOC,
    schedule=every("0 14,20 * * *"),
    catchup=False,
    max_active_runs=1,
    tags=["flowlake"],
    default_args={"owner": OWNER, "pool": CPU_POOL, **RETRIES},
):

    @task(execution_timeout=timedelta(minutes=30))
    def stale(**context: Any) -> None:
        flowlake(context, "status", "--last", SESSIONS)

    @task(execution_timeout=timedelta(hours=6))
    def mend(**context: Any) -> None:
        flowlake(context, "run", "--last", SESSIONS, "--data-docs", "late")

    stale() >> mend()
