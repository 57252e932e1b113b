"""A night as in production: Airflow's metadata in PostgreSQL, steps on a Dask cluster, and people and Prometheus told of it.

Airflow's own metrics are in that Prometheus too, sent as docker-compose.yml says, and every panel on them has data.
"""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from containers.compose_file import ROOT, env_file, program_at, services
from dags import postgresql
from dags.airflow_runs import DAGS, OTHER_DAGS, files_that_contain, left_over, pause, run_once, told, wait_for_runs
from flowlake.lake.lake import open_lake
from flowlake.market.s3server import S3Server
from flowlake.pipeline.local_airflow import DATABASE, SERVERS, TRIGGERER, bucket_variables, local_airflow
from integration.market_bucket import call, command, fill, lake_hashes, small_market
from integration.otlp_receiver import Received, otlp_receiver
from integration.prometheus_server import PACKAGE, Servers, eventually, get, servers
from integration.test_scale_out import started

pytestmark = [pytest.mark.real("airflow", "dask", "postgresql", "prometheus"), pytest.mark.timeout(900)]

NIGHT = "2023-11-22"
HOST = "127.0.0.1"


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A PostgreSQL server of our own on loopback, with a password: its address for SQLAlchemy, and the password."""
    programs = postgresql.required_programs()
    # Not below pytest's folder: that one is closed to other users.
    with TemporaryDirectory(prefix="flowlake-postgres-") as made:
        folder, password = Path(made), secrets.token_hex(12)
        data, port = folder / "data", _free_port()
        postgresql.make_database(folder, data, "airflow", password)
        options = f"-c listen_addresses={HOST} -c port={port} -c unix_socket_directories={folder} -c fsync=off"
        postgresql.call(folder, programs / "pg_ctl", "-D", data, "-l", folder / "log", "-w", "-o", options, "start")
        try:
            yield f"postgresql+psycopg2://airflow:{password}@{HOST}:{port}/postgres", password
        finally:
            postgresql.call(folder, programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")


def _free_port() -> int:
    with socket.socket() as held:
        held.bind((HOST, 0))
        return int(held.getsockname()[1])


def test_a_night_on_postgresql_and_a_dask_cluster(s3: S3Server, postgres: tuple[str, str], tmp_path: Path) -> None:
    """The lake is the one that commands make without either."""
    address, password = postgres
    market = small_market(2, 2, first_session=date.fromisoformat("2023-11-21"), trades_per_underlying_session=30)
    settings = fill(s3, "postgres", market, tmp_path / "lake")
    night = date.fromisoformat(NIGHT)
    home = tmp_path / "home"
    (tmp_path / "dask").mkdir()
    with (
        started(settings, tmp_path / "dask", 1) as dask,
        otlp_receiver() as received,
        servers(tmp_path, received.address) as monitoring,
    ):
        variables = bucket_variables(settings, night, night) | {DATABASE: address, "FLOWLAKE_DASK_SCHEDULER": dask.address}
        variables |= {"FLOWLAKE_PUSHGATEWAY": monitoring.gateway, "FLOWLAKE_ALERT_FILE_PATH": str(tmp_path / "told.jsonl")}
        variables |= metrics_variables() | {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": received.endpoint}
        variables |= {"OTEL_METRIC_EXPORT_INTERVAL": "1000"}
        began = time.time()
        with local_airflow(home, DAGS, variables, servers=(*SERVERS, TRIGGERER)) as airflow:
            pause(airflow, OTHER_DAGS)
            wait_for_runs(airflow, [NIGHT], 300)
            runs = told(airflow)
            tell = run_once(airflow, "flowlake_tell", 300)
            every_panel_has_data(monitoring)
            if folder := os.environ.get("FLOWLAKE_SCREENSHOTS"):
                draw_the_dashboard(monitoring, Path(folder), round(began))
        pushed = json.loads(get(f"{monitoring.gateway}/api/v1/metrics"))["data"]
    the_page_lists_what_was_sent(received)
    assert [(run.session, run.kind, run.state) for run in runs] == [(NIGHT, "scheduled", "success")]
    assert {task.state for task in runs[0].tasks.values()} == {"success"}
    assert tell["state"] == "success"
    assert [group["labels"]["instance"] for group in pushed] == [settings.lake]
    assert files_that_contain(home, "$ flowlake alerts send --last 5") != []
    ran = open_lake(settings=settings).sql("select distinct executor, split_part(parent, '/', 1) as dag from invocations")
    assert ran.rows() == [("dask", "flowlake_session")]
    alone = replace(settings, lake=str(tmp_path / "alone"))
    assert call(command("run", "--session", NIGHT), alone).returncode == 0
    assert lake_hashes(settings.lake) == lake_hashes(alone.lake)
    assert not (home / "airflow.db").exists(), "the runs are in PostgreSQL and nowhere else"
    assert _runs_of_sessions(address) == [(NIGHT, "success")]
    for secret in (settings.bucket_secret.reveal(), password):
        assert files_that_contain(home, secret) == []
        assert secret.encode() not in _dump(address)
    assert left_over("FLOWLAKE_LAKE", settings.lake) == []


def metrics_variables() -> dict[str, str]:
    """What docker-compose.yml tells Airflow's parts about their metrics."""
    filled = dict.fromkeys(env_file((ROOT / ".env.example").read_text(encoding="utf-8")), "set")
    told = services("small", filled)["airflow-scheduler"]["environment"]
    return {name: value for name, value in told.items() if name.startswith(("AIRFLOW__METRICS__", "OTEL_"))}


def every_panel_has_data(monitoring: Servers) -> None:
    board = json.loads((PACKAGE / "grafana/dashboards/airflow.json").read_text(encoding="utf-8"))
    asked = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    assert len(asked) >= 15
    for expression in asked:
        found = eventually(lambda query=expression: monitoring.query(query))
        assert found, expression
        assert all(math.isfinite(float(series["value"][1])) for series in found)
    by_state = "sum by (dag_id, state) (max_over_time(airflow_ti_finish_total[1d]))"
    ended = {tuple(sorted(one["metric"].items())): float(one["value"][1]) for one in monitoring.query(by_state)}
    assert ended[("dag_id", "flowlake_session"), ("state", "success")] == 6, "each task's process counts its own end"
    alive = "sum(increase(airflow_scheduler_heartbeat_total[1m]))"
    assert eventually(lambda: [one for one in monitoring.query(alive) if float(one["value"][1]) > 0])


def draw_the_dashboard(monitoring: Servers, folder: Path, began: int) -> None:
    drawing = program_at(ROOT / "docs/draw_dashboards.py")
    board = json.loads((PACKAGE / "grafana/dashboards/airflow.json").read_text(encoding="utf-8"))
    span = drawing.Span(began, round(time.time()), 2, "minutes", 60)
    drawing.draw(board, monitoring.prometheus, span, folder / "dashboard-airflow.png")


def the_page_lists_what_was_sent(received: Received) -> None:
    """Names and kinds, and the variables to send them; nothing is sent beside them."""
    text = (ROOT / "docs/monitoring.md").read_text(encoding="utf-8")
    stated = dict(re.findall(r"^\| `(airflow_\w+)` \| (\w+) \|", text, re.MULTILINE))
    assert received.kinds == stated
    assert received.unwanted == set()
    variables = dict(re.findall(r"^(AIRFLOW__METRICS__\w+|OTEL_\w+)=(\S+)$", text, re.MULTILINE))
    assert variables == metrics_variables()


def _runs_of_sessions(address: str) -> list[tuple[str, str]]:
    import sqlalchemy

    query = sqlalchemy.text("select partition_key, state from dag_run where dag_id = 'flowlake_session'")
    with sqlalchemy.create_engine(address).connect() as connection:
        return [tuple(row) for row in connection.execute(query)]


def _dump(address: str) -> bytes:
    """Everything in the database as text."""
    programs = postgresql.programs()
    assert programs is not None
    plain = address.replace("+psycopg2", "")
    return subprocess.run([programs / "pg_dump", "--data-only", plain], capture_output=True, check=True).stdout
