"""The DAG files as Airflow reads them: found, quick, and every DAG carrying what an operator needs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from airflow.utils.file import list_py_file_paths

from dags.airflow_runs import DAGS
from dags.test_commands import FakeTask, context_of
from flowlake.cli import parser
from flowlake.pipeline.local_airflow import POOLS
from flowlake.pipeline.plan import STEPS, producers
from flowlake.pipeline.step import Stage

STAGES = [stage.value for stage in Stage]
DAG_IDS = {"flowlake_session", "flowlake_late", "flowlake_models", "flowlake_backtest", "flowlake_maintenance", "flowlake_tell"}
DAG_FILES = {"session.py", "late_data.py", "weekly.py", "maintenance.py", "tell.py"}
HEAVY = (
    "polars",
    "pandas",
    "numpy",
    "numba",
    "duckdb",
    "pyarrow",
    "boto3",
    "sklearn",
    "scipy",
    "great_expectations",
    "dask",
    "distributed",
)
TRIAGE = ("What a red task means", "When it fails")

PARSE = """
import json, os, sys, time
from airflow.dag_processing.dagbag import DagBag
before = set(sys.modules)
began = time.process_time()
bag = DagBag(sys.argv[1], safe_mode=True)
seconds = time.process_time() - began
heavy = [name for name in sys.argv[2:] if name in sys.modules and name not in before]
print(json.dumps({"seconds": seconds, "heavy": heavy, "ids": sorted(bag.dag_ids), "errors": bag.import_errors}))
"""


@pytest.fixture(scope="module")
def parsed() -> dict[str, Any]:
    """What a fresh interpreter, with nothing of ours imported yet, says after it has read the folder."""
    arguments = [sys.executable, "-W", "ignore", "-c", PARSE, str(DAGS), *HEAVY]
    said = subprocess.run(arguments, capture_output=True, text=True, timeout=300, check=True)
    found: dict[str, Any] = json.loads(said.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def bag() -> DagBag:
    return DagBag(DAGS, safe_mode=True)


def test_exactly_these_dags_and_no_error(parsed: dict[str, Any]) -> None:
    assert (set(parsed["ids"]), parsed["errors"]) == (DAG_IDS, {})


def test_reading_the_files_takes_less_than_a_second_and_no_heavy_library(parsed: dict[str, Any]) -> None:
    assert parsed["heavy"] == []
    assert parsed["seconds"] < 1.0


def test_safe_mode_finds_the_files_and_the_ignore_file_hides_the_plugins(tmp_path: Path) -> None:
    def found(folder: Path) -> set[str]:
        return {Path(path).relative_to(folder).as_posix() for path in list_py_file_paths(folder, safe_mode=True)}

    assert found(DAGS) == DAG_FILES
    shutil.copytree(DAGS, tmp_path / "dags", ignore=shutil.ignore_patterns("__pycache__", ".airflowignore"))
    assert found(tmp_path / "dags") > DAG_FILES, "without it Airflow would read the plugins as DAG files"


@pytest.mark.parametrize("dag_id", sorted(DAG_IDS))
def test_a_dag_has_what_an_operator_needs(bag: DagBag, dag_id: str) -> None:
    dag = bag.dags[dag_id]
    assert dag.description
    assert dag.tags
    assert not dag.catchup
    assert dag.max_active_runs in (1, 4)
    headings = [line.lstrip("# ") for line in (dag.doc_md or "").splitlines() if line.startswith("####")]
    assert any(heading in TRIAGE for heading in headings), headings
    for task in dag.tasks:
        assert task.owner == "flowlake"
        assert task.retries >= 3
        assert task.retry_delay.total_seconds() > 0
        assert task.max_retry_delay is not None
        assert task.execution_timeout is not None
        assert task.pool in POOLS, f"{task.task_id} asks for the pool {task.pool}, which nobody makes"


def test_the_stages_are_one_chain_and_each_goes_on_when_the_one_before_was_red(bag: DagBag) -> None:
    dag = bag.dags["flowlake_session"]
    assert [task.task_id for task in dag.topological_sort()] == STAGES
    for before, after in pairwise(STAGES):
        assert dag.get_task(after).upstream_task_ids == {before}
    assert {task.trigger_rule.value for task in dag.tasks} == {"all_done"}
    assert {task.pool for task in dag.tasks if task.task_id == "ingest"} == {"flowlake_bucket"}


def test_every_dataset_of_the_plan_is_an_asset_of_exactly_the_task_that_writes_it(bag: DagBag) -> None:
    written = [(asset.name, task.task_id) for dag in bag.dags.values() for task in dag.tasks for asset in task.outlets]
    assert len(written) == len(dict(written)), "an asset has two producers"
    assert dict(written) == {dataset: step.stage.value for dataset, step in producers().items()}
    uris = [asset.uri for dag in bag.dags.values() for task in dag.tasks for asset in task.outlets]
    assert len(set(uris)) == len(uris)


def test_a_stage_reads_what_its_steps_read_from_other_stages(bag: DagBag) -> None:
    dag = bag.dags["flowlake_session"]
    for name in STAGES:
        steps = [step for step in STEPS if step.stage.value == name]
        own = {dataset for step in steps for dataset in step.writes}
        read = {read.dataset for step in steps for read in step.reads} - own
        assert {asset.name for asset in dag.get_task(name).inlets} == read


class TypedError(Exception):
    """The command that a task would have run."""


def test_the_command_line_knows_every_command_that_a_task_types(bag: DagBag, monkeypatch: pytest.MonkeyPatch) -> None:
    def typed(context: dict[str, Any], *arguments: str, fine: tuple[int, ...] = ()) -> None:
        raise TypedError(*arguments)

    monkeypatch.setenv("FLOWLAKE_BACKUP", "backup")
    monkeypatch.setenv("FLOWLAKE_PUSHGATEWAY", "http://gateway:9091")
    commands = set()
    for dag in bag.dags.values():
        for task in dag.tasks:
            names = task.python_callable.__globals__
            monkeypatch.setitem(names, "flowlake", typed)
            for name, value in (
                ("go_on_only_after", None),
                ("wait_for_earlier", None),
                ("session_of_run", "2024-03-01"),
                ("fail_with", None),
            ):
                if name in names:
                    monkeypatch.setitem(names, name, lambda *_, value=value: value)
            with pytest.raises(TypedError) as stopped:
                task.python_callable(ti=None, dag_run=None)
            arguments = [str(word) for word in stopped.value.args]
            assert parser().parse_args(arguments).command, arguments
            commands.add(arguments[0])
    assert commands == {"run", "status", "models", "backtest", "verify", "backup", "prune", "alerts", "metrics"}


def replace_commands(bag: DagBag, monkeypatch: pytest.MonkeyPatch, ran: Callable[[list[str], str], int]) -> None:
    """Let `ran` answer instead of a command, in the module that the DAGs hold: Airflow may have loaded it beside ours."""
    task = bag.dags["flowlake_tell"].get_task("people").python_callable
    monkeypatch.setitem(task.__globals__["flowlake"].__globals__, "_run", ran)


def test_people_hear_of_the_newest_sessions_and_a_message_that_waits_is_no_failure(
    bag: DagBag, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed: list[list[str]] = []

    def ran(arguments: list[str], parent: str) -> int:
        typed.append(arguments)
        return 3

    replace_commands(bag, monkeypatch, ran)
    bag.dags["flowlake_tell"].get_task("people").python_callable(**context_of(FakeTask()))
    assert typed == [["alerts", "send", "--last", "5", "--within", "7"]]


def test_without_a_gateway_nothing_is_pushed(bag: DagBag, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLOWLAKE_PUSHGATEWAY", raising=False)
    with pytest.raises(AirflowSkipException):
        bag.dags["flowlake_tell"].get_task("prometheus").python_callable(**context_of(FakeTask()))


def test_a_stage_that_gave_up_makes_the_run_red(bag: DagBag, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies between is skipped; the last task, which gives the run its state, works and then fails."""
    replace_commands(bag, monkeypatch, lambda arguments, parent: 0)
    dag = bag.dags["flowlake_session"]
    ti = FakeTask(told={("ingest", "exit_code"): 0, ("curate", "exit_code"): 1})
    context = context_of(ti) | {"dag_run": SimpleNamespace(partition_key="2024-01-03")}
    for skipped in ("factors", "history", "signals"):
        with pytest.raises(AirflowSkipException):
            dag.get_task(skipped).python_callable(**context)
    ti.task_id = "check"
    with pytest.raises(AirflowFailException, match="see the log of curate"):
        dag.get_task("check").python_callable(**context)
    assert ti.told[("check", "exit_code")] == 0
