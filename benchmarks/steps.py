"""Peak memory and core-seconds of every step of the plan, as a function of the option prints of a session.

    python benchmarks/steps.py [--opra | --together] [MILLIONS ...]

For each size a synthetic session of about so many prints (default 0.25, 0.5, 1 and 2 million) is put behind the S3 server of this
machine: a whole market of 24 underlyings, or with `--opra` the trades file alone of 4,500. Each step runs in a process of its own,
on the lake that the steps before it left; its peak is the high-water mark of resident memory that the system kept of that process,
imports included, its core-seconds are those of the step with its reading, audit and publishing, and of the libraries and compiled
code that these load: most of the fixed part. A straight line through the sizes gives the fixed part and that per million prints.
With `--opra` the steps of the tape are also run by one command, `flowlake run --step ...`, into a lake of their own: that loads
libraries once, as a nightly run does. With `--together` nothing else is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from enum import StrEnum
from pathlib import Path

import ingest
import numpy as np

from flowlake.core.settings import Settings, load_settings
from flowlake.lake.lake import open_lake
from flowlake.market import MarketSpec, build, write_bucket
from flowlake.market.s3server import S3Server, s3_server
from flowlake.pipeline.execute import Context, Options, Task, execute
from flowlake.pipeline.ingest import list_bucket
from flowlake.pipeline.local_airflow import bucket_variables
from flowlake.pipeline.plan import by_name
from flowlake.pipeline.run import Request, plan_tasks
from flowlake.sources.bucket import Bucket, open_bucket

SIZES = (0.25, 0.5, 1.0, 2.0)
TAPE = (
    *("ingest_massive_option_trades", "curate_sessions", "curate_corporate_actions", "curate_contracts", "curate_sale_conditions"),
    *("curate_option_trades", "trade_sides", "flow_packets", "flow_receipts", "flow_factors", "flow_hits", "flow_scores"),
)
"""The steps that read the tape or what is made of it, and what these need."""
DAY = ingest.DAY
BUCKET = "flowlake"
ROWS_REJECTED = 3
"""Exit code of a run that has something for a person to look at: here the cancels of which no trade is on the tape."""
ONE_COMMAND = "the tape by one command"
GROUPS = {"the tape's steps": TAPE, "all": ()}
"""Sums that are told; no name stands for all steps."""
UNDERLYINGS = 24
PRINTS_PER_ORDER = 1.12
"""About how many prints an order makes on this market; only the sizes' labels rest on it, the fit counts the rows."""


class Kind(StrEnum):
    """What is measured, by its option."""

    MARKET = "market"
    OPRA = "opra"
    TOGETHER = "together"


def tasks(settings: Settings) -> dict[str, Task]:
    listing = list_bucket(open_bucket(settings), {})
    return {task.step.name: task for task in plan_tasks(listing, Request(DAY, DAY, tuple(by_name().values())))}


def measure(name: str) -> None:
    """In a process of its own: run one step and print its status, its peak in MB and its core-seconds."""
    settings = load_settings()
    task, context = tasks(settings)[name], Context(settings, Options("steps"))
    task.step.load() if task.step.function else None
    began = time.process_time()
    result = execute(task, context)
    print(json.dumps([result.status, result.detail, (result.peak_memory_bytes or 0) / 2**20, time.process_time() - began]))


def environment(settings: Settings) -> dict[str, str]:
    """What tells a process of its own these settings."""
    own = {"FLOWLAKE_SCRATCH": settings.scratch, "FLOWLAKE_MAX_OBJECT_MB": str(settings.max_object_mb)}
    return os.environ | bucket_variables(settings, DAY, DAY) | own


def measured(settings: Settings, name: str) -> tuple[float, float]:
    said = subprocess.run(
        [sys.executable, __file__, "--step", name],
        env=environment(settings),
        capture_output=True,
        text=True,
        check=True,
        timeout=3000,
    )
    status, detail, peak, seconds = json.loads(said.stdout.splitlines()[-1])
    if status not in ("built", "absent", "blocked"):
        raise SystemExit(f"{name}: {status} {detail}")
    return float(peak), float(seconds)


def together(settings: Settings) -> tuple[float, float]:
    """Peak in MB and core-seconds of one command that runs the steps of the tape."""
    command = [sys.executable, "-m", "flowlake.cli", "run", "--session", str(DAY), "--step", *TAPE]
    running = subprocess.Popen(command, env=environment(settings), stdout=sys.stderr)
    _, status, used = os.wait4(running.pid, 0)
    if os.waitstatus_to_exitcode(status) not in (0, ROWS_REJECTED):
        raise SystemExit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    return used.ru_maxrss / 1024, used.ru_utime + used.ru_stime


def fill_with_market(bucket: Bucket, millions: float) -> None:
    orders = round(millions * 1e6 / UNDERLYINGS / PRINTS_PER_ORDER)
    market = build(MarketSpec(sessions=1, first_session=DAY, underlyings=UNDERLYINGS, trades_per_underlying_session=orders))
    write_bucket(market, bucket.put)


def fill_with_tape(bucket: Bucket, millions: float, folder: Path) -> None:
    path = folder / "day.csv.gz"
    ingest.write_day(path, round(millions * 1e6))
    bucket.put(f"us_options_opra/trades_v1/{ingest.DAY:%Y/%m/%Y-%m-%d}.csv.gz", path.read_bytes())
    path.unlink()


def one_size(server: S3Server, folder: Path, millions: float, kind: Kind) -> tuple[float, float, dict[str, tuple[float, float]]]:
    """Million prints, MB of the trades object, and the peak in MB and the core-seconds of every step."""
    prefix = f"size-{millions}"
    bucket = Bucket(server.access, BUCKET, prefix)
    if kind is Kind.MARKET:
        fill_with_market(bucket, millions)
    else:
        fill_with_tape(bucket, millions, folder)
    settings = replace(server.settings(folder / prefix, prefix, folder / f"{prefix}-scratch"), max_object_mb=100_000)
    found = {}
    for name in tasks(settings) if kind is not Kind.TOGETHER else ():
        found[name] = measured(settings, name)
        print(f"{millions} {name}: {found[name][0]:.0f} MB, {found[name][1]:.1f} s", file=sys.stderr, flush=True)
    if kind is not Kind.MARKET:
        settings = replace(settings, lake=str(folder / f"{prefix}-together"))
        found[ONE_COMMAND] = together(settings)
    rows = open_lake(settings=settings).sql("select count(*) as n from option_trades")["n"][0]
    size = next(o.size for o in bucket.objects() if "us_options_opra/trades" in o.key)
    return rows / 1e6, size / 1e6, found


def main(sizes: tuple[float, ...], kind: Kind) -> None:
    with tempfile.TemporaryDirectory(prefix="flowlake-steps-") as home, s3_server([BUCKET]) as server:
        found = [one_size(server, Path(home), size, kind) for size in sizes]
    prints = np.array([one[0] for one in found])
    print("prints, millions:         " + "".join(f"{p:9.2f}" for p in prints))
    print("trades object, MB:        " + "".join(f"{one[1]:9.1f}" for one in found))
    for which, what, digits in ((0, "peak MB of", 0), (1, "core-seconds of", 1)):
        print(f"\n{what:26}" + "".join(f"{p:9.2f}" for p in prints) + f"{'fixed':>9}{'per M':>9}")
        table = {name: np.array([one[2][name][which] for one in found]) for name in found[0][2]}
        if which:
            for group, names in GROUPS.items():
                if len(members := [table[name] for name in names or table if name in table and name != ONE_COMMAND]) > 1:
                    table[group] = np.sum(members, axis=0)
        for name, values in table.items():
            slope, fixed = np.polyfit(prints, values, 1) if len(found) > 1 else (np.nan, np.nan)
            print(f"{name:26}" + "".join(f"{v:9.{digits}f}" for v in (*values, fixed, slope)))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--step"]:
        measure(sys.argv[2])
    else:
        sizes = tuple(float(word) for word in sys.argv[1:] if not word.startswith("--"))
        main(sizes or SIZES, next((kind for kind in Kind if f"--{kind.value}" in sys.argv[1:]), Kind.MARKET))
