"""What `docker-compose.yml` promises: profiles, secrets, limits, and that every file and variable it names is there."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from containers.compose_file import (
    PROFILES,
    ROOT,
    MissingVariableError,
    assignments,
    bytes_of,
    deploy_module,
    env_file,
    interpolated,
    mounts,
    raw,
    services,
    used_variables,
)

EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")
BUCKET = ("FLOWLAKE_BUCKET_ENDPOINT", "FLOWLAKE_BUCKET_NAME", "FLOWLAKE_BUCKET_KEY_ID", "FLOWLAKE_BUCKET_SECRET")
SECRETS = {name for name in env_file(EXAMPLE) if name not in ("FLOWLAKE_BUCKET_ENDPOINT", "FLOWLAKE_BUCKET_NAME")}
SMALL_BYTES = 8 << 30


def filled() -> dict[str, str]:
    """Every secret that `.env.example` names, with a value that tells which it is."""
    return {name: f"value-of-{name}" for name in env_file(EXAMPLE)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain $$HOME", "plain $HOME"),
        ("${SET}/${SET:-other}", "here/here"),
        ("${UNSET:-other}:${EMPTY:-other}:${EMPTY-other}", "other:other:"),
        ("${UNSET:-${SET:?never}}", "here"),
        ("${UNSET}", ""),
        ("${SET:?never}", "here"),
    ],
)
def test_variables_are_filled_in_as_compose_does(text: str, expected: str) -> None:
    assert interpolated(text, {"SET": "here", "EMPTY": ""}) == expected


def test_a_demanded_variable_is_missed_with_its_message() -> None:
    with pytest.raises(MissingVariableError, match="PASSWORD: say it"):
        interpolated("x:${PASSWORD:?say it}@y", {"PASSWORD": ""})


def test_every_variable_stands_in_the_example_and_no_other_does() -> None:
    used = {use.name for use in used_variables()}
    assert len(used) > 20
    assert used == set(assignments(EXAMPLE))


def test_every_secret_is_demanded_and_has_no_value_in_the_repository() -> None:
    kinds: dict[str, set[str]] = {}
    for use in used_variables():
        kinds.setdefault(use.name, set()).add(use.kind)
    assert {name for name in env_file(EXAMPLE) if kinds[name] != {":?"}} == set()
    assert set(env_file(EXAMPLE).values()) == {""}
    looks_secret = re.compile(r"PASSWORD|SECRET|TOKEN|KEY")
    optional = {name for name in kinds if looks_secret.search(name)} - SECRETS
    assert {name: value for name, value in assignments(EXAMPLE).items() if name in optional and value} == {}
    for service in raw()["services"].values():
        for name, value in service.get("environment", {}).items():
            if looks_secret.search(name) and not name.endswith(("_FILE", "_USERS")):
                assert str(value).startswith("${"), f"{name} is written into the file"


@pytest.mark.parametrize("name", sorted(env_file(EXAMPLE)))
def test_without_a_demanded_variable_nothing_starts(name: str) -> None:
    with pytest.raises(MissingVariableError, match=name):
        services("small", filled() | {name: ""})


def test_a_profile_holds_what_it_says() -> None:
    small, full = (set(services(profile, filled())) for profile in PROFILES)
    airflow = {f"airflow-{part}" for part in ("init", "api-server", "scheduler", "dag-processor", "triggerer")}
    assert small >= {"postgres", *airflow, "pushgateway", "prometheus", "grafana", "watch"}
    assert full >= small | {"s3", "dask-scheduler", "dask-worker", "notebook"}
    assert set(raw()["services"]) == full, "every service belongs to a profile"


def test_the_small_profile_fits_into_eight_gigabytes() -> None:
    running = [service for name, service in services("small", filled()).items() if name != "airflow-init"]
    assert sum(bytes_of(service["mem_limit"]) for service in running) <= SMALL_BYTES * 0.97


@pytest.mark.parametrize("name", raw()["services"])
def test_a_service_is_kept_within_bounds(name: str) -> None:
    service = services("full", filled())[name]
    assert bytes_of(service["mem_limit"]) > 0
    assert service["restart"] == ("no" if name == "airflow-init" else "unless-stopped")
    assert "no-new-privileges:true" in service["security_opt"]
    assert not service.get("privileged")
    assert "network_mode" not in service
    assert all(published.startswith("127.0.0.1:") for published in service.get("ports", []))
    assert not any("docker.sock" in source for source in mounts(service).values())
    assert re.fullmatch(r"[\w./-]+:\S+", service["image"]), "an image without a version"
    assert not service["image"].endswith(":latest")
    check = service["healthcheck"]
    assert check == {"disable": True} if name == "airflow-init" else check["test"][0] == "CMD"
    if service["image"].startswith("flowlake:"):
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]


@pytest.mark.parametrize("profile", PROFILES)
def test_what_a_service_waits_for_is_in_its_profile_and_can_be_waited_for(profile: str) -> None:
    started = services(profile, filled())
    waited = [
        (name, other, how["condition"]) for name, made in started.items() for other, how in made.get("depends_on", {}).items()
    ]
    assert len(waited) >= 5
    for name, other, condition in waited:
        assert other in started, f"{name} waits for {other}, which {profile} does not start"
        ends = started[other]["healthcheck"].get("disable", False)
        assert condition == ("service_completed_successfully" if ends else "service_healthy")


def test_volumes_and_mounted_files_exist() -> None:
    whole = raw()
    named, bound = set(), set()
    for service in whole["services"].values():
        for source in mounts(service).values():
            (bound if source.startswith((".", "/")) else named).add(source)
    assert named - {""} == set(whole["volumes"])
    assert [path for path in bound if not (ROOT / path).exists()] == []
    used = {network for service in whole["services"].values() for network in service["networks"]}
    assert used == set(whole["networks"])


def test_a_secret_is_known_to_those_who_need_it() -> None:
    """Pages, DAG processor and triggerer hold no key of the bucket; the S3 server and Dask nothing of Airflow."""
    holders: dict[str, set[str]] = {name: set() for name in SECRETS}
    for service, made in services("full", filled() | {"FLOWLAKE_LAKE_KEY_ID": "other", "FLOWLAKE_LAKE_SECRET": "other"}).items():
        text = json.dumps(made)
        for name in SECRETS:
            if re.search(rf"value-of-{name}(?!_)", text):
                holders[name].add(service)
    airflow = {f"airflow-{part}" for part in ("init", "api-server", "scheduler", "dag-processor", "triggerer")}
    bucket = {"airflow-scheduler", "dask-worker", "notebook"}
    assert holders["FLOWLAKE_BUCKET_KEY_ID"] == holders["FLOWLAKE_BUCKET_SECRET"] == bucket
    assert holders["POSTGRES_PASSWORD"] == airflow | {"postgres"}
    assert holders["AIRFLOW_PASSWORD"] == {"airflow-init"}
    assert holders["AIRFLOW_JWT_SECRET"] == holders["AIRFLOW_FERNET_KEY"] == holders["AIRFLOW_API_SECRET"] == airflow
    assert holders["S3_SECRET"] == {"s3"}
    assert holders["GRAFANA_PASSWORD"] == {"grafana"}
    assert holders["JUPYTER_TOKEN"] == {"notebook"}


def test_settings_of_notifications_are_read_by_those_who_send_them() -> None:
    readers = {name for name, made in raw()["services"].items() if "alerts.env" in json.dumps(made.get("env_file", []))}
    assert readers == {"airflow-scheduler", "watch"}
    outboxes = {raw()["services"][name]["environment"]["FLOWLAKE_ALERT_OUTBOX"] for name in readers}
    assert len(outboxes) == 1, "both must know what was told"
    (outbox,) = outboxes
    assert all(mounts(raw()["services"][name])["/lake"] == "lake" for name in readers)
    assert outbox.startswith("/lake/")


def test_recent_tells_by_its_exit_code(tmp_path: Path) -> None:
    mark = tmp_path / "mark"

    def asked() -> tuple[int, str]:
        words = [sys.executable, str(ROOT / "deploy" / "recent.py"), str(mark), "300"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        return done.returncode, done.stderr

    assert asked() == (1, f"{mark}: No such file or directory\n")
    mark.touch()
    assert asked() == (0, "")
    os.utime(mark, (time.time() - 400, time.time() - 400))
    assert asked() == (1, f"{mark}: touched 400 s ago\n")


def test_grafana_finds_its_data_source_and_its_dashboards() -> None:
    """No program of Grafana is had in the tests: what its files name must be what the compose file gives."""
    started = services("small", filled())
    mounted = mounts(started["grafana"])
    provisioning = ROOT / mounted["/etc/grafana/provisioning"]
    sources = listed(provisioning / "datasources", "datasources")
    assert [source["url"] for source in sources] == ["http://prometheus:9090"]
    assert "--web.listen-address=0.0.0.0:9090" in started["prometheus"]["command"]
    assert set(started["grafana"]["networks"]) & set(started["prometheus"]["networks"])
    folders = [made["options"]["path"] for made in listed(provisioning / "dashboards", "providers")]
    boards = [path.read_text(encoding="utf-8") for folder in folders for path in (ROOT / mounted[folder]).glob("*.json")]
    assert len(boards) >= 2
    used = set(re.findall(r'"datasource": \{[^}]*"uid": "([^"]+)"', "\n".join(boards)))
    assert used == {source["uid"] for source in sources}


def listed(folder: Path, name: str) -> list[dict[str, Any]]:
    """What the files of a provisioning folder list under `name`."""
    return [item for path in sorted(folder.glob("*.yml")) for item in yaml.safe_load(path.read_text(encoding="utf-8"))[name]]


def test_no_secret_stands_in_a_command_or_a_healthcheck() -> None:
    """Command lines can be read by every user of a machine."""
    for name, service in services("full", filled()).items():
        shown = json.dumps([service.get("command"), service.get("entrypoint"), service.get("healthcheck")])
        assert "value-of-" not in shown, name


def test_profile_full_puts_the_lake_on_s3_and_steps_on_dask() -> None:
    full = env_file((ROOT / "deploy" / "full.env").read_text(encoding="utf-8"))
    scheduler = services("full", filled() | full)["airflow-scheduler"]["environment"]
    alone = services("small", filled())["airflow-scheduler"]["environment"]
    assert (alone["FLOWLAKE_LAKE"], alone["FLOWLAKE_DASK_SCHEDULER"]) == ("/lake", "")
    assert scheduler["FLOWLAKE_LAKE"].startswith("s3://lake/")
    assert scheduler["FLOWLAKE_DASK_SCHEDULER"] == "tcp://dask-scheduler:8786"
    assert scheduler["FLOWLAKE_LAKE_SECRET"] == "value-of-S3_SECRET"
    assert set(full) <= set(assignments(EXAMPLE))


def test_make_env_fills_every_secret_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / ".env.example").write_text(EXAMPLE, encoding="utf-8")
    make_env = deploy_module("make_env")
    assert make_env.main(tmp_path) == 0
    written = env_file((tmp_path / ".env").read_text(encoding="utf-8"))
    assert {name for name, value in written.items() if not value} == set(BUCKET)
    values = [value for value in written.values() if value]
    assert len(set(values)) == len(values) >= 8
    assert all(len(value) >= 43 for value in values)
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    said = capsys.readouterr().out
    assert not any(value in said for value in values)
    assert make_env.main(tmp_path) == 2, "an .env that exists is never written over"
    assert env_file((tmp_path / ".env").read_text(encoding="utf-8")) == written


def test_the_pools_are_those_of_the_dags() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "dags").rglob("*.py"))
    assert set(deploy_module("airflow_init").POOLS) == set(re.findall(r"_POOL = \"(\w+)\"", text))


def can_start(folder: Path, path: str, profile: str) -> tuple[int, str]:
    words = ["/bin/sh", str(ROOT / "deploy" / "can_start.sh"), profile]
    said = subprocess.run(words, cwd=folder, env={"PATH": path}, capture_output=True, text=True, check=False)
    return said.returncode, said.stderr


def test_make_up_says_what_is_missing(tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    assert can_start(tmp_path, str(programs), "large") == (2, "there is no profile 'large'\n  give PROFILE=small or PROFILE=full\n")
    assert "make env" in can_start(tmp_path, str(programs), "small")[1]
    (tmp_path / ".env").touch()
    assert "docker is not installed" in can_start(tmp_path, str(programs), "small")[1]
    docker = programs / "docker"
    for refused, expected in (("compose", "docker has no compose"), ("info", "does not answer"), ("nothing", "")):
        docker.write_text(f'#!/bin/sh\n[ "$1" != {refused} ]\n', encoding="utf-8")
        docker.chmod(0o755)
        code, said = can_start(tmp_path, str(programs), "full")
        assert expected in said
        assert code == (2 if expected else 0)


@pytest.fixture
def health() -> Iterator[tuple[str, dict[str, Any]]]:
    """A real server that answers with what the test puts there."""
    told: dict[str, Any] = {"code": 200, "body": "ok"}

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(told["code"])
            self.end_headers()
            self.wfile.write(told["body"].encode())

        def log_message(self, *_: object) -> None:
            """Nothing is printed."""

    server = HTTPServer(("127.0.0.1", 0), Answer)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/health", told
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


def test_healthy_tells_by_its_exit_code(health: tuple[str, dict[str, Any]]) -> None:
    url, told = health

    def asked(*parts: str) -> tuple[int, str]:
        words = [sys.executable, ROOT / "deploy" / "healthy.py", url, *parts]
        said = subprocess.run(words, capture_output=True, text=True, check=False)
        return said.returncode, said.stderr

    assert asked() == (0, "")
    assert asked("scheduler")[0] == 1, "no JSON"
    told["body"] = json.dumps({"scheduler": {"status": "healthy"}, "triggerer": {"status": "unhealthy"}})
    assert asked("scheduler") == (0, "")
    code, said = asked("scheduler", "triggerer")
    assert (code, "not healthy: triggerer" in said, "Traceback" in said) == (1, True, False)
    assert asked("dag_processor")[0] == 1, "a part that is not there"
    told["code"] = 503
    assert asked()[0] == 1
