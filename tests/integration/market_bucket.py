"""A small market in the real S3 server, and how a lake made from it is run and compared. Shared by the integration tests."""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from flowlake.core.settings import Settings
from flowlake.market import Market, MarketSpec, build, write_bucket
from flowlake.market.s3server import S3Server
from flowlake.pipeline.run import Report, Request, run
from flowlake.sources.bucket import Bucket

BUCKET = "flowlake"
LAYERS = ("raw", "curated", "derived", "labels")
"""Where equal inputs give equal bytes; the records of runs, history, quarantine and the index are not compared."""


@cache
def small_market(sessions: int = 5, underlyings: int = 3, **spec: Any) -> Market:
    """A market of a few hundred prints a session; the same object for the same arguments."""
    spec.setdefault("trades_per_underlying_session", 60)
    return build(MarketSpec(sessions=sessions, underlyings=underlyings, **spec))


def fill(server: S3Server, prefix: str, market: Market, lake: Path | str) -> Settings:
    """Write the market below a prefix of its own; settings that read it into `lake`, a folder or `s3://other/...`."""
    write_bucket(market, bucket_of(server, prefix).put)
    return settings_for(server, prefix, lake)


def bucket_of(server: S3Server, prefix: str) -> Bucket:
    return Bucket(server.access, BUCKET, prefix)


def settings_for(server: S3Server, prefix: str, lake: Path | str, scratch: Path | str = "") -> Settings:
    """Settings for a bucket that was filled before, for example to make a second lake of it."""
    return server.settings(lake, prefix, scratch)


def run_all(settings: Settings, market: Market, **request: Any) -> Report:
    """Run every session of the market in this process; the arguments are those of `Request`."""
    return run(settings, Request(market.days[0], market.days[-1], **request))


def environment(settings: Settings, **variables: str) -> dict[str, str]:
    """The environment in which a subprocess reads exactly these settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FLOWLAKE_")}
    told = {
        "FLOWLAKE_LAKE": settings.lake,
        "FLOWLAKE_BUCKET_ENDPOINT": settings.bucket_endpoint,
        "FLOWLAKE_BUCKET_NAME": settings.bucket_name,
        "FLOWLAKE_BUCKET_PREFIX": settings.bucket_prefix,
        "FLOWLAKE_BUCKET_REGION": settings.bucket_region,
        "FLOWLAKE_BUCKET_KEY_ID": settings.bucket_key_id.reveal(),
        "FLOWLAKE_BUCKET_SECRET": settings.bucket_secret.reveal(),
        "FLOWLAKE_SCRATCH": settings.scratch,
        "COLUMNS": "200",
    }
    return kept | told | variables


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "flowlake.cli", *map(str, arguments)]


def run_command(market: Market, *arguments: object) -> list[str]:
    """`flowlake run` over every session of the market."""
    return command("run", "--from", market.days[0], "--to", market.days[-1], "--no-data-docs", *arguments)


def call(arguments: list[str], settings: Settings, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end with these settings; what it printed, and its exit code."""
    environ = environment(settings, **variables)
    return subprocess.run(arguments, env=environ, capture_output=True, text=True, timeout=300, check=False)


def lake_hashes(root: Path | str) -> dict[str, str]:
    """Relative path -> SHA-256 of every file that equal inputs must give equally."""
    folder = Path(root)
    files = (path for layer in LAYERS for path in sorted((folder / layer).rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def republish(server: S3Server, prefix: str, key: str, change: Callable[[list[str]], list[str]]) -> None:
    """Put a changed version of a gzipped CSV under its key; `change` is given the lines, the header first.

    The bytes differ from the market's even where the lines do not: they are compressed at another level.
    """
    bucket = bucket_of(server, prefix)
    old = bucket._client.get_object(Bucket=BUCKET, Key=f"{prefix}/{key}")["Body"].read()
    lines = change(gzip.decompress(old).decode().splitlines())
    bucket.put(key, gzip.compress("".join(f"{line}\n" for line in lines).encode(), compresslevel=1, mtime=0))
