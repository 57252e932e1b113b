"""Every service of `docker-compose.yml`, started by its own command with its own environment, judged by its own healthcheck."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from containers.compose_file import ROOT, deploy_module, env_file, services
from containers.without_docker import Place, Project, missing_programs, service_ends, until
from dags import postgresql
from flowlake.core.errors import FlowlakeError
from flowlake.core.settings import S3Access, Secret, load_settings
from flowlake.lake.lake import open_lake
from flowlake.market.writer import write_bucket
from flowlake.sources.bucket import Bucket
from integration.market_bucket import small_market

pytestmark = pytest.mark.timeout(900)

READY_SECONDS = 400.0
"""On a machine that does other things beside it; an idle one needs twenty-five."""
ASKED_BY_OTHERS = ("airflow-api-server", "postgres")
"""Services that the healthchecks of others ask: they are stopped after those."""
SESSION = date(2023, 11, 21)
ALL = services("full", dict.fromkeys(env_file((ROOT / ".env.example").read_text(encoding="utf-8")), "set"))
RUNNING = [name for name, service in ALL.items() if not service_ends(service)]
MISSING = missing_programs(ALL)


def settings_of_a_user() -> dict[str, str]:
    """`.env` as `make env` writes it, its bucket filled in, over what profile `full` sets."""
    own = env_file(deploy_module("make_env").filled((ROOT / ".env.example").read_text(encoding="utf-8")))
    bucket = {
        "FLOWLAKE_BUCKET_ENDPOINT": "http://s3:8333",
        "FLOWLAKE_BUCKET_NAME": "lake",
        "FLOWLAKE_BUCKET_PREFIX": "vendor",
        "FLOWLAKE_BUCKET_KEY_ID": own["S3_KEY_ID"],
        "FLOWLAKE_BUCKET_SECRET": own["S3_SECRET"],
        # No session is due: this test runs one itself.
        "FLOWLAKE_NIGHTLY_FROM": "2023-11-21",
        "FLOWLAKE_NIGHTLY_TO": "2023-11-20",
    }
    return env_file((ROOT / "deploy" / "full.env").read_text(encoding="utf-8")) | own | bucket


@pytest.fixture(scope="module")
def variables() -> dict[str, str]:
    return settings_of_a_user()


@pytest.fixture(scope="module")
def project(variables: dict[str, str]) -> Iterator[Project]:
    postgresql.required_programs()
    chosen = {name: service for name, service in services("full", variables).items() if name not in MISSING}
    # Not below pytest's folder: that one is closed to other users, and PostgreSQL runs as one.
    with TemporaryDirectory(prefix="flowlake-compose-", ignore_cleanup_errors=True) as made:
        folder = Path(made)
        folder.chmod(0o755)
        started = Project(chosen, Place.of(folder, services("full", variables)))
        try:
            started.up(READY_SECONDS)
            yield started
        finally:
            started.down()


@pytest.mark.real("airflow", "postgresql", "dask", "prometheus")
@pytest.mark.parametrize("name", ALL)
def test_a_service_comes_up_and_is_healthy(project: Project, name: str) -> None:
    if name in MISSING:
        pytest.skip(MISSING[name])
    running = project.running[name]
    if service_ends(running.service):
        assert running.ended() == 0, running.log()
    else:
        assert running.ended() is None, running.log()
        assert running.healthy(), running.log()


def answer(url: str, body: Any = None, token: str = "") -> Any:
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    asked = urllib.request.Request(url, data=json.dumps(body).encode() if body else None, headers=headers)
    with urllib.request.urlopen(asked, timeout=60) as said:
        return json.loads(said.read())


def test_airflow_knows_the_login_the_dags_and_the_pools(project: Project, variables: dict[str, str]) -> None:
    url = f"http://127.0.0.1:{project.place.ports['8080']}"
    with pytest.raises(urllib.error.HTTPError, match="401"):
        answer(f"{url}/auth/token", {"username": "admin", "password": "admin"})
    token = answer(f"{url}/auth/token", {"username": "admin", "password": variables["AIRFLOW_PASSWORD"]})["access_token"]

    def dags_or_errors() -> bool:
        errors = answer(f"{url}/api/v2/importErrors", token=token)["import_errors"]
        return bool(errors) or answer(f"{url}/api/v2/dags", token=token)["total_entries"] == 6

    until(dags_or_errors, 120, project.running["airflow-dag-processor"].log)
    pools = {pool["name"]: pool["slots"] for pool in answer(f"{url}/api/v2/pools", token=token)["pools"]}
    assert (pools["flowlake_bucket"], pools["flowlake_cpu"]) == (2, 1)
    assert answer(f"{url}/api/v2/importErrors", token=token)["import_errors"] == []


def test_the_s3_server_wants_its_key(project: Project, variables: dict[str, str]) -> None:
    url = f"http://127.0.0.1:{project.place.ports['8333']}"
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{url}/lake", timeout=20)
    wrong = S3Access(url, "us-east-1", Secret(variables["S3_KEY_ID"]), Secret("0" * 64))
    with pytest.raises(FlowlakeError):
        Bucket(wrong, "lake").put("probe", b"probe")


def test_a_notebook_server_wants_its_token(project: Project, variables: dict[str, str]) -> None:
    url = f"http://127.0.0.1:{project.place.ports['8889']}/api/contents"
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(url, timeout=20)
    assert answer(f"{url}?token={variables['JUPYTER_TOKEN']}")["type"] == "directory"


def test_a_task_of_the_scheduler_computes_on_the_workers_into_the_lake(project: Project, variables: dict[str, str]) -> None:
    """What a DAG's task runs: from the bucket, on the Dask workers, into the lake of the S3 server, all as the file says."""
    scheduler = project.running["airflow-scheduler"]
    settings = load_settings(scheduler.environment, scheduler.home)
    market = small_market(1, 2, first_session=SESSION, trades_per_underlying_session=30)
    write_bucket(market, Bucket(settings.bucket_access, "lake", "vendor").put)
    said = scheduler.run("flowlake", "run", "--session", str(SESSION), "--no-data-docs", FLOWLAKE_PARENT_RUN="test/1")
    assert said.returncode == 0, said.stdout + said.stderr
    lake = open_lake(settings=settings)
    assert settings.lake == "s3://lake/options"
    assert lake.sql("select distinct executor from invocations").rows() == [("dask",)]
    assert lake.sql("select count(*) from option_trades").item() > 0
    for secret in (variables["FLOWLAKE_BUCKET_SECRET"], variables["POSTGRES_PASSWORD"], variables["AIRFLOW_JWT_SECRET"]):
        assert [name for name, running in project.running.items() if secret in running.log()] == []


def test_prometheus_scrapes_the_pushgateway_and_has_the_rules(project: Project) -> None:
    if missing := {"prometheus", "pushgateway"} & MISSING.keys():
        pytest.skip("; ".join(MISSING[name] for name in missing))
    url = f"http://127.0.0.1:{project.place.ports['9090']}/api/v1"

    def scraped() -> bool:
        targets = answer(f"{url}/targets")["data"]["activeTargets"]
        return {target["labels"]["job"] for target in targets if target["health"] == "up"} == {"prometheus", "pushgateway"}

    until(scraped, 120, project.running["prometheus"].log)
    assert answer(f"{url}/rules")["data"]["groups"]
    address = project.running["airflow-scheduler"].environment["FLOWLAKE_PUSHGATEWAY"]
    assert address == f"http://127.0.0.1:{project.place.ports['9091']}", "where tasks push to"


@pytest.mark.parametrize("name", [*(name for name in RUNNING if name not in ASKED_BY_OTHERS), *ASKED_BY_OTHERS])
def test_a_healthcheck_notices_when_its_service_is_gone(project: Project, name: str) -> None:
    """Last in this file, and who is asked by others after them: nothing is left running after it."""
    if name in MISSING:
        pytest.skip(MISSING[name])
    if name not in ASKED_BY_OTHERS:
        for other, process in project.running.items():
            if other not in ASKED_BY_OTHERS:
                process.begin_to_stop()
    running = project.running[name]
    running.stop()
    assert not running.healthy()
