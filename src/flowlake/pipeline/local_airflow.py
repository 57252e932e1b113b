"""A whole Airflow on this machine: web pages, scheduler and DAG processor as processes of ours, gone when the block ends."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from flowlake.core.errors import FlowlakeError, UsageError
from flowlake.core.settings import Settings
from flowlake.market.build import build
from flowlake.market.s3server import KEEPER, s3_server
from flowlake.market.spec import MarketSpec
from flowlake.market.writer import write_bucket
from flowlake.report import terminal
from flowlake.sources.bucket import Bucket

if TYPE_CHECKING:
    import psutil

HOST = "127.0.0.1"
USER = "admin"
SERVERS = ("api-server", "dag-processor")
SCHEDULER = "scheduler"
TRIGGERER = "triggerer"
"""No DAG of ours needs it, but without it the first page that a person sees calls the installation unhealthy."""
POOLS = {"flowlake_bucket": 2, "flowlake_cpu": 2}
BUCKET = "flowlake"
SHOWN_SESSIONS = 5
"""Sessions of the synthetic market that the nightly DAG runs by itself; the others are for the first backfill."""
READY_SECONDS = 180.0
STOP_SECONDS = 10.0
DATABASE = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
REFUSED_SECONDS = 60.0
"""How long a request is repeated whose transaction failed. On SQLite the API server stands in its own way where a task begins
while a request is noted in its log of actions: it waits until SQLite gives up (5 s), takes it all back and answers with 500."""
DATABASE_ERROR = '"reason":"Database error"'
LOCK_SECONDS = 60
"""How long Airflow's processes but the API server wait for SQLite's lock. The server can hold it for the five seconds after which
it gives up waiting for itself; the scheduler would give up at the same moment, and its loop end while its process lives on."""


class AirflowError(FlowlakeError):
    """Airflow did not start, or refused a request."""


@dataclass
class LocalAirflow:
    """Where a running Airflow is and how to log in."""

    url: str
    password: str
    home: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _token: str = ""

    def request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Call Airflow's REST interface (`/api/v2/...`). Raises AirflowError with what it answered."""
        if not self._token:
            self._token = self._send("POST", "/auth/token", {"username": USER, "password": self.password})["access_token"]
        return self._send(method, f"/api/v2{path}", body)

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self._token}"} if self._token else {})
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(self.url + path, data=data, headers=headers, method=method)
        until = time.monotonic() + REFUSED_SECONDS
        while True:
            try:
                with urllib.request.urlopen(asked, timeout=60) as answer:
                    text = answer.read()
                return json.loads(text) if text else None
            except urllib.error.HTTPError as error:
                said = error.read().decode(errors="replace")[:500]
                if DATABASE_ERROR not in said or time.monotonic() > until:
                    raise AirflowError(f"{method} {path}: {error.code} {said}", f"see the logs in {self.home}") from None
            except (OSError, TimeoutError) as error:
                raise AirflowError(f"{method} {path}: {error}", f"see the logs in {self.home}") from None
            time.sleep(1.0)

    def answers(self) -> bool:
        """Whether tasks that start now can report."""
        try:
            self._send("GET", "/execution/health", None)
        except AirflowError:
            return False
        return True

    def healthy(self) -> bool:
        try:
            health = self._send("GET", "/api/v2/monitor/health", None)
        except AirflowError:
            return False
        return all(health[part]["status"] == "healthy" for part in ("metadatabase", "scheduler", "dag_processor"))


def _quiet(what: str) -> None:
    """Progress that nobody watches."""


@contextmanager
def local_airflow(
    home: Path,
    dags: Path,
    variables: Mapping[str, str],
    port: int = 0,
    parallelism: int = 4,
    servers: Sequence[str] = SERVERS,
    starting: Callable[[str], None] = _quiet,
) -> Iterator[LocalAirflow]:
    """Start Airflow with the DAGs in `dags`; its tasks see `variables`. Everything that it started has ended with the block.

    State (metadata in SQLite, logs, keys, password) stays in `home`; AIRFLOW__DATABASE__SQL_ALCHEMY_CONN names another database.
    A task that the end of the block cuts short begins again at the next start in the same `home`. `starting` is told what comes
    next. Raises UsageError where Airflow is not installed, the port is taken or another Airflow uses `home`, and AirflowError
    where it does not come up.
    """
    if find_spec("airflow") is None:
        raise UsageError("Airflow is not installed", "install it with: pip install 'flowlake[airflow]'")
    if not (dags / "plan.json").is_file():
        raise UsageError(f"{dags} is not flowlake's folder of DAGs", "give --dags, the folder `dags` of the repository")
    home = home.resolve()
    home.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(_only_one(home))
        port = _free_port(port)
        password = _kept(home / "password.json", lambda: json.dumps({USER: secrets.token_urlsafe(12)}))
        environment = _environment(home, dags.resolve(), port, parallelism, variables)
        airflow = LocalAirflow(f"http://{HOST}:{port}", json.loads(password)[USER], home)
        starting("Airflow's database")
        _migrate(environment, home)
        starting("Airflow's web pages")
        stack.callback(_stop_all, airflow.processes)
        for name in servers:
            airflow.processes[name] = _start(name, environment, home, port)
        _wait_until(airflow, airflow.answers)
        for pool, slots in POOLS.items():
            _set_pool(airflow, pool, slots)
        # Last: a task that finds nobody to report to has failed, and would be tried again only after minutes.
        starting("Airflow's scheduler")
        airflow.processes[SCHEDULER] = _start(SCHEDULER, environment, home, port)
        _wait_until(airflow, airflow.healthy)
        _wait_for_dags(airflow)
        yield airflow


@contextmanager
def _only_one(home: Path) -> Iterator[None]:
    """Hold `home` against another start; the system lets go of it however this process ends."""
    import fcntl  # not on Windows, where Airflow does not run either

    with (home / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another Airflow is running in {home}", "use that one, stop it, or give another --folder") from None
        yield


def _environment(home: Path, dags: Path, port: int, parallelism: int, variables: Mapping[str, str]) -> dict[str, str]:
    told = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(dags / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": str(parallelism),
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://{HOST}:{port}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "password.json"),
        "AIRFLOW__CORE__FERNET_KEY": _kept(home / "fernet.key", _fernet_key),
        "AIRFLOW__API__BASE_URL": f"http://{HOST}:{port}",
        "AIRFLOW__API__HOST": HOST,
        "AIRFLOW__API__INSTANCE_NAME": "flowlake",
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API__SECRET_KEY": _kept(home / "api.key", lambda: secrets.token_hex(32)),
        "AIRFLOW__API_AUTH__JWT_SECRET": _kept(home / "jwt.key", lambda: secrets.token_hex(32)),
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "30",
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",  # a busy machine is no failed task
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "PYTHONWARNINGS": "ignore",
    }
    return dict(os.environ) | told | dict(variables)


def _fernet_key() -> str:
    import base64

    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


def _kept(path: Path, make: Any) -> str:
    """A secret that is made once and then stays, readable by its owner alone."""
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(make(), encoding="utf-8")
    return path.read_text(encoding="utf-8")


def _free_port(wanted: int) -> int:
    """`wanted` if nobody listens there, or for 0 any port that is free."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: connections that linger are no hindrance
        try:
            holder.bind((HOST, wanted))
        except OSError as error:
            raise UsageError(f"port {wanted} cannot be used: {error.strerror}", "give another one with --port") from None
        return cast("int", holder.getsockname()[1])


def _migrate(environment: Mapping[str, str], home: Path) -> None:
    """Make or bring up to date the metadata database. One in SQLite that was never finished is made anew."""
    done, log = home / "migrated", home / "migrate.log"
    if not done.exists() and DATABASE not in environment:
        for left in home.glob("airflow.db*"):
            left.unlink()
    with log.open("wb") as out:
        ended = subprocess.run(
            [sys.executable, "-m", "airflow", "db", "migrate"], env=dict(environment), stdout=out, stderr=out, check=False
        )
    if ended.returncode:
        raise AirflowError("Airflow's database could not be made", f"see {log}: {_last_line(log)}")
    done.touch()


def _start(name: str, environment: Mapping[str, str], home: Path, port: int) -> subprocess.Popen[bytes]:
    """Start one process of Airflow; it is told to end when its standard input closes, so also when this process is killed."""
    options = {
        "api-server": ["--port", str(port), "--host", HOST],
        "scheduler": ["--skip-serve-logs"],  # logs are read from their files
        TRIGGERER: ["--skip-serve-logs"],
    }
    if name != "api-server" and DATABASE not in environment:
        environment = {**environment, DATABASE: f"sqlite:///{home.resolve()}/airflow.db?timeout={LOCK_SECONDS}"}
    with (home / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            ["/bin/sh", "-c", KEEPER, "sh", sys.executable, "-m", "airflow", name, *options.get(name, [])],
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _wait_until(airflow: LocalAirflow, ready: Callable[[], bool]) -> None:
    until = time.monotonic() + READY_SECONDS
    while time.monotonic() < until:
        for name, process in airflow.processes.items():
            if process.poll() is not None:
                log = airflow.home / f"{name}.log"
                raise AirflowError(f"Airflow's {name} ended at once", f"see {log}: {_last_line(log)}")
        if ready():
            return
        time.sleep(0.5)
    raise AirflowError(f"Airflow was not ready within {READY_SECONDS:.0f} s", f"see the logs in {airflow.home}")


def _wait_for_dags(airflow: LocalAirflow) -> None:
    until = time.monotonic() + READY_SECONDS
    while not airflow.request("GET", "/dags")["total_entries"]:
        if errors := airflow.request("GET", "/importErrors")["import_errors"]:
            last = errors[0]["stack_trace"].strip().splitlines()[-1]
            raise AirflowError(f"{errors[0]['filename']} cannot be imported: {last}", "correct it, or the environment")
        if time.monotonic() > until:
            raise AirflowError("Airflow found no DAG", f"see {airflow.home / 'dag-processor.log'}")
        time.sleep(0.5)


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"


def _set_pool(airflow: LocalAirflow, name: str, slots: int) -> None:
    known = {pool["name"] for pool in airflow.request("GET", "/pools")["pools"]}
    if name not in known:
        airflow.request("POST", "/pools", {"name": name, "slots": slots, "description": "", "include_deferred": False})


def _stop_all(processes: Mapping[str, subprocess.Popen[bytes]]) -> None:
    """End the processes and whatever they started.

    The scheduler would wait for the tasks that run, for hours if need be. They are killed instead, which costs little: the lake is
    whole at any moment, and the next start finds tasks without a process and begins them again at once, as one more try.
    """
    import psutil

    for process in processes.values():
        if process.stdin is not None:
            process.stdin.close()
    tasks = _killed_below(processes[SCHEDULER]) if SCHEDULER in processes else []
    until = time.monotonic() + STOP_SECONDS
    for process in processes.values():
        try:
            process.wait(max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    sessions = {process.pid for process in processes.values()}
    while left := [one for one in (*tasks, *_in_sessions(sessions)) if _lives(one)]:
        if time.monotonic() > until:
            for one in left:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
            return
        time.sleep(0.05)


def _in_sessions(leaders: Set[int]) -> list[psutil.Process]:
    """Processes of the sessions that these began, also where the leader has ended."""
    import psutil

    found = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError):
            found += [process] if os.getsid(process.pid) in leaders else []
    return found


def _lives(task: psutil.Process) -> bool:
    """Whether it still runs; one that only waits for its parent to take note, which in a container may be never, does not."""
    import psutil

    try:
        return bool(task.is_running() and task.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _killed_below(keeper: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Kill what the program under `keeper` started: tasks and their commands.

    They are halted and looked up once more before, so that none starts another between being found and being killed. What was
    halted is killed even if the second look finds it no more: the keeper may have ended meanwhile.
    """
    import psutil

    found: dict[int, psutil.Process] = {}
    for _ in range(2):
        below: list[psutil.Process] = []
        with suppress(psutil.NoSuchProcess):
            for program in psutil.Process(keeper.pid).children():
                with suppress(psutil.NoSuchProcess):
                    below += program.children(recursive=True)
        for child in below:
            with suppress(psutil.NoSuchProcess):
                child.suspend()
                found[child.pid] = child
    for child in found.values():
        with suppress(psutil.NoSuchProcess):
            child.kill()
    return list(found.values())


def serve(settings: Settings, folder: Path, dags: Path, port: int, spec: MarketSpec) -> int:
    """Run Airflow until Ctrl-C: on the bucket of the settings, or without one on a synthetic market behind an S3 server."""
    out = terminal.console()

    def say(text: str) -> None:
        out.print(text, highlight=False, soft_wrap=True)  # whole paths, to be copied

    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(sign, _interrupt)
    began = time.monotonic()

    def starting(what: str) -> None:
        say(f"{time.monotonic() - began:4.0f} s  {what} ...")

    try:
        with ExitStack() as stack:
            if settings.bucket_name:
                variables, hint = _bucket_of(settings)
            else:
                variables, hint = _synthetic(stack, folder, spec, starting)
            airflow = stack.enter_context(
                local_airflow(folder / "home", dags, variables, port, servers=(*SERVERS, TRIGGERER), starting=starting)
            )
            say(f"{time.monotonic() - began:4.0f} s  ready\n")
            say(f"[bold]{airflow.url}[/bold]   login {USER}   password {airflow.password}\n\n{hint}")
            say(f"Airflow's own logs are in {airflow.home}. Ctrl-C stops everything; the next start goes on from there.")
            while all(process.poll() is None for process in airflow.processes.values()):
                time.sleep(1.0)
            ended = next(name for name, process in airflow.processes.items() if process.poll() is not None)
            log = airflow.home / f"{ended}.log"
            raise AirflowError(f"Airflow's {ended} ended by itself", f"see {log}: {_last_line(log)}")
    except KeyboardInterrupt:
        say("stopped")
        return 0


def _interrupt(number: int, frame: object) -> None:
    """Begin to stop, once: a second Ctrl-C must not cut the stopping short."""
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(sign, signal.SIG_IGN)
    raise KeyboardInterrupt


def _bucket_of(settings: Settings) -> tuple[dict[str, str], str]:
    """For the bucket of the settings, which the tasks read as this process did: the lake, whatever folder a task is in."""
    lake = settings.lake if "://" in settings.lake else str(Path(settings.lake).resolve())
    return {"FLOWLAKE_LAKE": lake}, (
        f"Bucket {settings.bucket_name}, lake {lake}.\n"
        "The DAG flowlake_session runs each new session once its files are published.\n"
        "For past sessions: flowlake_session, Trigger, Backfill, their dates, Run Backfill."
    )


def _synthetic(stack: ExitStack, folder: Path, spec: MarketSpec, starting: Callable[[str], None]) -> tuple[dict[str, str], str]:
    """A synthetic market in an S3 server: what the tasks must be told, and what a person should do with it."""
    starting(f"a synthetic market of {spec.underlyings} underlyings and {spec.sessions} sessions, behind an S3 server")
    market = build(spec)
    server = stack.enter_context(s3_server([BUCKET]))
    write_bucket(market, Bucket(server.access, BUCKET).put)
    lake = (folder / "lake").resolve()
    shown = market.days[:SHOWN_SESSIONS]
    rest = market.days[SHOWN_SESSIONS:]
    hint = f"The DAG flowlake_session runs {shown[0]} to {shown[-1]} of a synthetic market by itself."
    if rest:
        hint += f" For the rest:\nflowlake_session, Trigger, Backfill, {rest[0]} to {rest[-1]}, Run Backfill."
    hint += f"\nThe lake is {lake}."
    return bucket_variables(server.settings(lake), shown[0], shown[-1]), hint


def bucket_variables(settings: Settings, first: date, last: date) -> dict[str, str]:
    """The environment in which tasks read these settings and the nightly DAG schedules `first` to `last`."""
    return {
        "FLOWLAKE_LAKE": settings.lake,
        "FLOWLAKE_BUCKET_ENDPOINT": settings.bucket_endpoint,
        "FLOWLAKE_BUCKET_REGION": settings.bucket_region,
        "FLOWLAKE_BUCKET_NAME": settings.bucket_name,
        "FLOWLAKE_BUCKET_PREFIX": settings.bucket_prefix,
        "FLOWLAKE_BUCKET_KEY_ID": settings.bucket_key_id.reveal(),
        "FLOWLAKE_BUCKET_SECRET": settings.bucket_secret.reveal(),
        "FLOWLAKE_NIGHTLY_FROM": str(first),
        "FLOWLAKE_NIGHTLY_TO": str(last),
    }
