"""Peak memory of every step of the plan, as a function of the option prints of a session.

    python benchmarks/steps.py [MILLIONS ...]

For each size a synthetic session of about so many prints (default 0.25, 0.5, 1 and 2 million) is put behind the S3 server of this
machine. Each step runs in a process of its own, on the lake that the steps before it left; its peak is the high-water mark of
resident memory that the system kept of that process, imports included. A straight line through the sizes gives MB + MB per million
prints.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

import numpy as np

from flowlake.core.settings import Settings, load_settings
from flowlake.lake.lake import open_lake
from flowlake.market import MarketSpec, build, write_bucket
from flowlake.market.s3server import S3Server, s3_server
from flowlake.pipeline.execute import Context, Options, execute
from flowlake.pipeline.ingest import list_bucket
from flowlake.pipeline.local_airflow import bucket_variables
from flowlake.pipeline.plan import by_name
from flowlake.pipeline.run import Request, plan_tasks
from flowlake.sources.bucket import Bucket, open_bucket

SIZES = (0.25, 0.5, 1.0, 2.0)
DAY = date(2024, 1, 2)
BUCKET = "flowlake"
UNDERLYINGS = 24
PRINTS_PER_ORDER = 1.12
"""About how many prints an order makes on this market; only the sizes' labels rest on it, the fit counts the rows."""


def tasks(settings: Settings) -> dict[str, object]:
    listing = list_bucket(open_bucket(settings), {})
    return {task.step.name: task for task in plan_tasks(listing, Request(DAY, DAY, tuple(by_name().values())))}


def measure(name: str) -> None:
    """In a process of its own: run one step and print its status, and its peak in MB."""
    settings = load_settings()
    result = execute(tasks(settings)[name], Context(settings, Options("memory")))  # type: ignore[arg-type]
    print(json.dumps([result.status, result.detail, peak_mb()]))


def peak_mb() -> float:
    """High-water mark of this process's resident memory. Not `ru_maxrss`: that is inherited from whoever started the process."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) / 1024


def measured(settings: Settings, name: str) -> float:
    told = bucket_variables(settings, DAY, DAY) | {"FLOWLAKE_SCRATCH": settings.scratch}
    said = subprocess.run(
        [sys.executable, __file__, "--step", name], env=os.environ | told, capture_output=True, text=True, check=True, timeout=900
    )
    status, detail, peak = json.loads(said.stdout.splitlines()[-1])
    if status not in ("built", "absent", "blocked"):
        raise SystemExit(f"{name}: {status} {detail}")
    return float(peak)


def one_size(server: S3Server, folder: Path, millions: float) -> tuple[float, float, dict[str, float]]:
    """Million prints, MB of the trades object, and the peak of every step in MB."""
    orders = round(millions * 1e6 / UNDERLYINGS / PRINTS_PER_ORDER)
    market = build(MarketSpec(sessions=1, first_session=DAY, underlyings=UNDERLYINGS, trades_per_underlying_session=orders))
    prefix = f"size-{millions}"
    bucket = Bucket(server.access, BUCKET, prefix)
    write_bucket(market, bucket.put)
    access = server.access
    settings = Settings(
        lake=str(folder / prefix),
        bucket_endpoint=access.endpoint,
        bucket_name=BUCKET,
        bucket_prefix=prefix,
        bucket_region=access.region,
        bucket_key_id=access.key_id,
        bucket_secret=access.secret,
        scratch=str(folder / f"{prefix}-scratch"),
    )
    peaks = {}
    for name in tasks(settings):
        peaks[name] = measured(settings, name)
        print(f"{millions} {name}: {peaks[name]:.0f} MB", file=sys.stderr, flush=True)
    rows = open_lake(settings=settings).sql("select count(*) as n from option_trades")["n"][0]
    size = next(o.size for o in bucket.objects() if "us_options_opra/trades" in o.key)
    return rows / 1e6, size / 1e6, peaks


def main(sizes: tuple[float, ...]) -> None:
    with tempfile.TemporaryDirectory(prefix="flowlake-memory-") as home, s3_server([BUCKET]) as server:
        found = [one_size(server, Path(home), size) for size in sizes]
    prints = np.array([one[0] for one in found])
    print("prints, millions:         " + "".join(f"{p:9.2f}" for p in prints))
    print("trades object, MB:        " + "".join(f"{one[1]:9.1f}" for one in found))
    print(f"\n{'peak MB of':26}" + "".join(f"{p:9.2f}" for p in prints) + f"{'fixed':>9}{'per M':>9}")
    for name in found[0][2]:
        peaks = np.array([one[2][name] for one in found])
        slope, fixed = np.polyfit(prints, peaks, 1) if len(found) > 1 else (np.nan, np.nan)
        print(f"{name:26}" + "".join(f"{p:9.0f}" for p in peaks) + f"{fixed:9.0f}{slope:9.0f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--step"]:
        measure(sys.argv[2])
    else:
        main(tuple(map(float, sys.argv[1:])) or SIZES)
