"""The services of `docker-compose.yml` as processes of this machine: their own commands, environment and healthchecks.

What a container has to itself is replaced in one place, `Place`: names of services become 127.0.0.1, ports free ones, and mounted
or image folders temporary ones. What the images' entry points do before the command is done here where it matters (PostgreSQL).
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from containers.compose_file import ROOT, Service, mounts
from dags import postgresql
from flowlake.market.s3server import KEEPER, _free_ports

IMAGE_PROGRAMS = {
    "chrislusf/seaweedfs": ("weed",),
    "postgres": (),  # its command begins with the program
    "prom/prometheus": ("prometheus",),
    "prom/pushgateway": ("prometheus-pushgateway", "pushgateway"),
}
"""The entry point of each foreign image as a program of this machine, by the names that it may have here."""
OWN_IMAGES = ("flowlake:", "flowlake-notebook:")
UNSTATED_PORTS = {
    "s3": ("master.port", "volume.port", "filer.port", "master.port.grpc", "volume.port.grpc", "filer.port.grpc", "s3.port.grpc")
}
"""Flags for ports that are a container's own affair, and would collide here."""
OPTIONAL_FLAGS = {"prometheus": ("--web.enable-otlp-receiver",)}
"""Flags that a build of this machine may not know: Debian's Prometheus leaves the receiver out."""
IMAGE_FOLDERS = ("/opt/airflow", "/lake", "/tmp")
"""Folders that the image has, where nothing is mounted over them."""
_LOOPBACK = "127.0.0.1"
_ENV = re.compile(r"^ENV (.*?[^\\])$", re.MULTILINE | re.DOTALL)


def image_environment() -> dict[str, str]:
    """`ENV` of the stage `runtime` in the Dockerfile."""
    stage = (ROOT / "Dockerfile").read_text(encoding="utf-8").split(" AS runtime\n")[1].split("\nFROM ")[0]
    found: dict[str, str] = {}
    for words in _ENV.findall(stage):
        found |= dict(word.split("=", 1) for word in shlex.split(words.replace("\\\n", " ")))
    return found


def search_path() -> str:
    """Where programs are looked for: the project's environment, PostgreSQL's folder, the system."""
    programs = postgresql.programs()
    return os.pathsep.join([str(Path(sys.executable).parent), *([str(programs)] if programs else []), os.environ["PATH"]])


def program_of(image: str) -> str | None:
    return next((name for name in IMAGE_PROGRAMS.get(image, ()) if shutil.which(name, path=search_path())), None)


@dataclass(frozen=True)
class Place:
    """Where things are on this machine that containers have to themselves."""

    folder: Path
    names: tuple[str, ...]
    ports: Mapping[str, int]

    @classmethod
    def of(cls, folder: Path, services: Mapping[str, Service]) -> Place:
        words = " ".join(word for service in services.values() for word in _words(service))
        ports = sorted({port for port in re.findall(r"(?<![\d.])(\d{4})(?![\d.])", words) if int(port) > 1024})
        ports += [flag for flags in UNSTATED_PORTS.values() for flag in flags]
        return cls(folder, tuple(services), dict(zip(ports, _free_ports(len(ports)), strict=True)))

    def folder_of(self, name: str, service: Service, target: str) -> Path:
        """What stands for `target`: a volume is one folder for all who name it, anything else is a service's own."""
        source = mounts(service).get(target, "")
        if source.startswith("./"):
            return self.folder / "mounted" / source
        return self.folder / "volumes" / source if source else self.folder / name / target.strip("/").replace("/", "-")

    def localised(self, name: str, service: Service, text: str) -> str:
        """`text` of this service with names, ports and paths of this machine."""
        names = "|".join((*self.names, "localhost"))
        text = re.sub(rf"(?:(?<=//)|(?<=[@=\"]))({names})(?=[:/]|$)", _LOOPBACK, text).replace("0.0.0.0", _LOOPBACK)
        text = re.sub(r"(?:(?<=[:=])|^)(\d{4})(?![\w.])", lambda found: str(self.ports.get(found[1], found[1])), text)
        paths = {target: self.folder_of(name, service, target) for target in (*mounts(service), *IMAGE_FOLDERS)}
        paths |= {"/opt/flowlake/.venv": Path(sys.prefix), "/opt/flowlake": ROOT}
        known = "|".join(re.escape(path) for path in sorted(paths, key=len, reverse=True))
        return re.sub(rf"(?<![\w./:])({known})(?=/|$)", lambda found: str(paths[found[1]]), text)


def _words(service: Service) -> list[str]:
    """Where ports are named: in commands, healthchecks and what is published; a variable may hold other numbers."""
    return [str(word) for word in [*service.get("command", []), *_test_of(service), *service.get("ports", [])]]


def _test_of(service: Service) -> list[str]:
    return list(service.get("healthcheck", {}).get("test", []))


@dataclass
class Running:
    """One service as a process."""

    name: str
    service: Service
    place: Place
    home: Path
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.home.mkdir(parents=True)
        for target in mounts(self.service):
            self._mount(target)
        own = str(self.service["image"]).startswith(OWN_IMAGES)
        told = (image_environment() if own else {}) | {
            key: str(value) for key, value in self.service.get("environment", {}).items()
        }
        # In a checkout the kernels lie beside the source, where other tests have compiled them already.
        told.pop("NUMBA_CACHE_DIR", None)
        told.pop("PATH", None)
        inherited = {key: os.environ[key] for key in ("LANG", "TZ") if key in os.environ}
        localised = {key: self.place.localised(self.name, self.service, value) for key, value in told.items()}
        self.environment = {"HOME": str(self.home), "PATH": search_path(), "PYTHONWARNINGS": "ignore"} | inherited | localised
        if self.name == "postgres":
            _initialise(self)
        with (self.home / "log").open("wb") as log:
            self.process = subprocess.Popen(
                ["/bin/sh", "-c", KEEPER, "sh", *self.command()],
                cwd=self.home,
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _mount(self, target: str) -> None:
        """An empty folder, or for files of the repository a copy with the names and ports of this machine."""
        source, folder = mounts(self.service)[target], self.place.folder_of(self.name, self.service, target)
        folder.mkdir(parents=True, exist_ok=True)
        if source.startswith("./"):
            for file in (ROOT / source).iterdir():
                text = file.read_text(encoding="utf-8")
                (folder / file.name).write_text(self.place.localised(self.name, self.service, text), encoding="utf-8")

    def command(self) -> list[str]:
        image = str(self.service["image"]).rpartition(":")[0]
        entry = self.service.get("entrypoint", [found] if (found := program_of(image)) else [])
        words = [self.place.localised(self.name, self.service, str(word)) for word in [*entry, *self.service.get("command", [])]]
        if optional := OPTIONAL_FLAGS.get(self.name):
            known = subprocess.run([words[0], "--help"], env=self.environment, capture_output=True, text=True, check=False)
            words = [word for word in words if word not in optional or word in known.stdout + known.stderr]
        words += [f"-{flag}={self.place.ports[flag]}" for flag in UNSTATED_PORTS.get(self.name, ())]
        if self.name == "notebook" and os.geteuid() == 0:
            words.append("--allow-root")  # the container has a user of its own, who could not read the checkout of root here
        if self.name == "postgres":
            words += ["-c", f"unix_socket_directories={self.data}", "-c", f"listen_addresses={_LOOPBACK}"]
            return [*postgresql.as_other_user(), *words]
        return words

    @property
    def data(self) -> Path:
        return Path(self.environment["PGDATA"])

    def log(self) -> str:
        return (self.home / "log").read_text(encoding="utf-8", errors="replace")

    def healthy(self) -> bool:
        """What the healthcheck of the service says, run as the container would: in its environment."""
        kind, *words = [self.place.localised(self.name, self.service, str(word)) for word in _test_of(self.service)]
        assert kind == "CMD"
        ended = subprocess.run(words, env=self.environment, cwd=self.home, capture_output=True, timeout=60, check=False)
        return ended.returncode == 0

    def may_be_healthy(self) -> bool:
        """Whether somebody listens where the healthcheck asks: to look costs nothing, to run a healthcheck costs a process."""
        asked = " ".join(self.place.localised(self.name, self.service, str(word)) for word in _test_of(self.service))
        ports = [int(port) for port in re.findall(r"(?::|-p )(\d{4,5})\b", asked)]
        return all(_listens(port) for port in ports)

    def run(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Another command in this service, as `docker compose exec` would run it."""
        environment = self.environment | variables
        return subprocess.run(words, env=environment, cwd=self.home, capture_output=True, text=True, timeout=300, check=False)

    def ended(self) -> int | None:
        assert self.process is not None
        return self.process.poll()

    def begin_to_stop(self) -> None:
        """Ask its keeper to end the process and all that it started: it does so when its standard input closes."""
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()

    def stop(self) -> None:
        """The same, and wait for it."""
        self.begin_to_stop()
        if self.process is None:
            return
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as asking:
        asking.settimeout(1.0)
        return asking.connect_ex((_LOOPBACK, port)) == 0


def _initialise(postgres: Running) -> None:
    """What the image's entry point does with an empty volume: a cluster, its user with a password, and the database."""
    told, data = postgres.environment, postgres.data
    postgresql.make_database(data.parent, data, told["POSTGRES_USER"], told["POSTGRES_PASSWORD"])
    single = [*postgresql.as_other_user(), "postgres", "--single", "-D", str(data), "postgres"]
    made = subprocess.run(
        single,
        input=f"create database {told['POSTGRES_DB']}\n",
        env=told,
        cwd=data.parent,
        text=True,
        capture_output=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr


def until(condition: Callable[[], bool], seconds: float, why_not: Callable[[], str]) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, why_not()
        time.sleep(0.3)


@dataclass
class Project:
    """All services of a profile, started in the order that `depends_on` gives."""

    services: Mapping[str, Service]
    place: Place
    running: dict[str, Running] = field(default_factory=dict)
    healthy: set[str] = field(default_factory=set)

    def up(self, seconds: float) -> None:
        """Like `docker compose up --wait`: start what may start, until all are healthy or have ended well."""
        until(self._all_settled, seconds, lambda: f"not healthy: {sorted(set(self.services) - self.healthy)}\n{self.logs()}")

    def _all_settled(self) -> bool:
        for name, service in self.services.items():
            if name not in self.running and self._may_start(service):
                made = Running(name, service, self.place, self.place.folder / name)
                self.running[name] = made  # first: what fails half-way is ended with the rest
                made.start()
        for name, running in self.running.items():
            if name in self.healthy:
                continue
            ended = running.ended()
            if service_ends(running.service):
                assert ended in (None, 0), f"{name} ended with {ended}:\n{running.log()}"
                settled = ended == 0
            else:
                assert ended is None, f"{name} ended with {ended}:\n{running.log()}"
                settled = running.may_be_healthy() and running.healthy()
            if settled:
                self.healthy.add(name)
        return self.healthy == set(self.services)

    def _may_start(self, service: Service) -> bool:
        return all(name in self.healthy for name in service.get("depends_on", {}))

    def logs(self, lines: int = 15) -> str:
        tails = {name: running.log().splitlines()[-lines:] for name, running in self.running.items() if name not in self.healthy}
        return "\n".join(f"== {name}\n" + "\n".join(tail) for name, tail in tails.items())

    def down(self) -> None:
        for running in self.running.values():
            running.begin_to_stop()
        for running in reversed(list(self.running.values())):
            running.stop()


def service_ends(service: Service) -> bool:
    return bool(service.get("healthcheck", {}).get("disable"))


def missing_programs(services: Mapping[str, Service]) -> dict[str, str]:
    """Services whose program cannot be had here -> why."""
    missing = {}
    for name, service in services.items():
        image = str(service["image"]).rpartition(":")[0]
        if f"{image}:".startswith(OWN_IMAGES) or image == "postgres":
            continue
        if image not in IMAGE_PROGRAMS:
            missing[name] = f"no program of {image} is known here"
        elif program_of(image) is None:
            missing[name] = f"{IMAGE_PROGRAMS[image][0]} is not installed"
    return missing
