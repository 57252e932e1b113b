"""A real Prometheus and a real Pushgateway on free ports of this machine, and what a test asks them."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

import pytest

from flowlake import monitoring

PACKAGE = Path(monitoring.__file__).parent
SECONDS = 90.0
ALSO = """
  - job_name: also
    honor_labels: true
    static_configs:
      - targets: ["{address}"]
"""
Found = TypeVar("Found")
_open = build_opener(ProxyHandler({})).open


def program(*names: str) -> str:
    """The first of these programs that is installed; skips the test where none is."""
    for name in names:
        if (path := shutil.which(name)) is not None:
            return path
    pytest.skip(f"no {names[0]} here: install Debian's packages prometheus and prometheus-pushgateway")


def get(url: str) -> str:
    with _open(url, timeout=30) as answer:
        body: bytes = answer.read()
        return body.decode()


def eventually(look: Callable[[], Found]) -> Found:
    """What `look` gives as soon as it is not empty; its last answer when the time is over."""
    end = time.monotonic() + SECONDS
    while True:
        try:
            found = look()
        except (OSError, ValueError) as error:
            if isinstance(error, HTTPError) and error.code == 400:
                raise AssertionError(error.read().decode()) from error
            if time.monotonic() > end:
                raise
        else:
            if found or time.monotonic() > end:
                return found
        time.sleep(0.2)


@dataclass(frozen=True)
class Servers:
    """Addresses of both."""

    gateway: str
    prometheus: str

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Labels and value of every series, now."""
        answer = json.loads(get(f"{self.prometheus}/api/v1/query?{urlencode({'query': expression})}"))
        return list(answer["data"]["result"])

    def rules(self) -> dict[str, dict[str, Any]]:
        groups = json.loads(get(f"{self.prometheus}/api/v1/rules"))["data"]["groups"]
        return {rule["name"]: rule for group in groups for rule in group["rules"]}


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def _running(arguments: list[str], log: Path, ready: str) -> Iterator[None]:
    with log.open("w") as out, subprocess.Popen(arguments, stdout=out, stderr=subprocess.STDOUT) as process:
        try:
            eventually(lambda: get(ready) or process.poll() is not None)
            assert process.poll() is None, log.read_text()
            yield
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def pushgateway(folder: Path) -> Iterator[str]:
    address = f"127.0.0.1:{free_port()}"
    # Debian's build remembers by default what other runs pushed.
    arguments = [program("prometheus-pushgateway", "pushgateway"), f"--web.listen-address={address}", "--persistence.file="]
    with _running(arguments, folder / "pushgateway.log", f"http://{address}/-/ready"):
        yield f"http://{address}"


@contextmanager
def servers(folder: Path, also: str = "") -> Iterator[Servers]:
    """Both, with the shipped configuration and rules; only addresses and intervals are those of a test. `also` is scraped too."""
    binary, address = program("prometheus"), f"127.0.0.1:{free_port()}"
    with pushgateway(folder) as gateway:
        shutil.copytree(PACKAGE / "prometheus", folder / "config")
        file = folder / "config" / "prometheus.yml"
        config = file.read_text()
        for shipped, here in (("pushgateway:9091", gateway.removeprefix("http://")), ("localhost:9090", address), ("30s", "1s")):
            assert shipped in config
            config = config.replace(shipped, here)
        rules = folder / "config" / "alerts.yml"
        rules.write_text(re.sub(r"for: \d+[hm]", "for: 1s", rules.read_text()))
        file.write_text(config + (ALSO.format(address=also) if also else ""))
        arguments = [binary, f"--config.file={file}", f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={address}"]
        with _running(arguments, folder / "prometheus.log", f"http://{address}/-/ready"):
            yield Servers(gateway, f"http://{address}")
