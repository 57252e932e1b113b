"""The Airflow DAGs `flowlake_models` and `flowlake_backtest`: once a week, what was fitted and whether it was worth anything."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task
from flowlake_commands import CPU_POOL, OWNER, RETRIES, every, flowlake

MODELS_DOC = """
### Models and calibrations of the week

A model is fitted on what was known at the end of a week and used from the next session on; calibrations follow every
session. Both are steps of the session itself, so that a backfill fits exactly what the night fitted. This DAG makes
sure that none of the week's is missing (`fit`), then shows what changed (`show`): training windows, states, the share
of labelled signals that moved.

#### When it fails

`fit`: as a red `signals` task of `flowlake_session`. `show` fails with exit code 1 when no model has been fitted yet:
it takes a history of 40 sessions.
"""

BACKTEST_DOC = """
### Backtest of the week

Whether the signals were worth anything, over the whole history: rolling windows, intervals, and simple baselines
beside them. Every trial is recorded, so that the number of looks is known (`flowlake sql "select * from trials"`).

#### When it fails

Exit code 2: there are no signals with complete outcomes yet. Exit code 1: the last lines of the log say what, and the
cure.
"""


def _weekly(dag_id: str, description: str, doc: str, cron: str) -> DAG:
    return DAG(
        dag_id=dag_id,
        description=description,
        doc_md=doc,
        schedule=every(cron),
        catchup=False,
        max_active_runs=1,
        tags=["flowlake", "weekly"],
        default_args={"owner": OWNER, "pool": CPU_POOL, **RETRIES},
    )


with _weekly("flowlake_models", "Models and calibrations: none of the week's missing, and what changed.", MODELS_DOC, "0 16 * * 6"):

    @task(execution_timeout=timedelta(hours=2))
    def fit(**context: Any) -> None:
        flowlake(context, "run", "--last", "5", "--step", "fit_models", "calibrate", "--data-docs", "models")

    @task(execution_timeout=timedelta(minutes=30))
    def show(**context: Any) -> None:
        flowlake(context, "models")

    fit() >> show()


with _weekly("flowlake_backtest", "Whether the signals were worth anything.", BACKTEST_DOC, "0 18 * * 6"):

    @task(execution_timeout=timedelta(hours=2))
    def backtest(**context: Any) -> None:
        flowlake(context, "backtest")

    backtest()
