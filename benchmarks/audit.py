"""The audit of a partition of option prints against the same checks as plain SQL in DuckDB, one core.

    python benchmarks/audit.py [MILLIONS ...]

For each size (default 1, 3 and 10 million rows) a partition of `option_trades` is written as it is published: every declared
column, 4,500 underlyings, several hundred thousand contracts with symbols of full length, heavy-tailed activity. For the largest
one also the partition of `massive_option_trades` that it came from, whose rows are numbered: there uniqueness is judged too. Both
judge the file in a process of its own, in turn. The SQL is made from the same declaration: names, row count, every rule, and the
order. DuckDB counts the failing rows of every rule, as the audit does.

The clock starts when the libraries are loaded and a partition of 200,000 rows has been judged: a run judges thousands of
partitions, and what the first one costs is printed apart. Memory is the process's high-water mark, with everything.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from flowlake.core import sessions
from flowlake.curate import conditions
from flowlake.datasets import render
from flowlake.datasets.checks import Between, Matches, NotAbove, NotNull, OneOf, Unique
from flowlake.datasets.curated import OPTION_TRADES
from flowlake.datasets.model import Dataset
from flowlake.datasets.raw import MASSIVE_OPTION_TRADES
from flowlake.lake import partitions
from flowlake.pipeline.usage import peak_memory_bytes
from flowlake.quality.audit import audit_file

DAY = date(2024, 3, 13)
SIZES = (1.0, 3.0, 10.0)
DATASETS = {ds.name: ds for ds in (OPTION_TRADES, MASSIVE_OPTION_TRADES)}
UNDERLYINGS = 4_500
CONTRACTS_PER_MILLION_ROOT = 110_000
"""Contracts that trade grow with the square root of the rows: 350,000 on a day of ten million prints."""
RUNS = 3
WARM = 200_000
EXCHANGES = (300, 301, 302, 303, 304, 307, 308, 309, 312, 313, 315, 316, 318, 319, 320, 322, 323, 325)
CONDITIONS = {"209": 0.52, "219": 0.14, "227": 0.11, "232": 0.12, "233": 0.05, "236": 0.03, "208": 0.01, "229": 0.01, "237": 0.01}


# --- The partition -------------------------------------------------------------------------------------------------


def chain(rng: np.random.Generator, count: int) -> pl.DataFrame:
    """Contracts in the declared order, with a weight: few of them have most of the prints."""
    letters = np.array(list("ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
    lengths = rng.choice([2, 3, 4, 5], UNDERLYINGS, p=[0.05, 0.35, 0.55, 0.05])
    roots = np.array(["".join(rng.choice(letters, n)) for n in lengths])
    popularity = rng.pareto(1.1, UNDERLYINGS) + 0.05
    of = rng.choice(UNDERLYINGS, count, p=popularity / popularity.sum())
    days = rng.choice([2, 9, 16, 23, 37, 65, 93, 184, 310, 674], count)
    spot = np.exp(rng.normal(4.0, 0.8, UNDERLYINGS))[of]
    strike = np.maximum(np.round(spot * np.exp(rng.normal(0.0, 0.25, count)) * 2.0) / 2.0, 0.5)
    made = pl.DataFrame(
        {
            "root": roots[of],
            "expiry": pl.Series(np.datetime64(DAY) + days.astype("timedelta64[D]")).cast(pl.Date),
            "right": rng.choice(["C", "P"], count),
            "strike": strike,
            "weight": rng.pareto(1.2, count) + 0.02,
            "level": np.round(spot * 0.03 * rng.lognormal(0.0, 1.0, count), 2),
        }
    ).unique(["root", "expiry", "right", "strike"])
    thousandths = (pl.col("strike") * 1000).round().cast(pl.Int64).cast(pl.String).str.zfill(8)
    symbol = pl.concat_str("root", pl.col("expiry").dt.strftime("%y%m%d"), "right", thousandths)
    return made.with_columns(contract=symbol, underlying=pl.col("root")).sort("root", "expiry", "right", "strike")


def prints(rows: int) -> pl.DataFrame:
    """A session's tape in the declared columns and order."""
    rng = np.random.default_rng(20240313)
    contracts = chain(rng, int(CONTRACTS_PER_MILLION_ROOT * (rows / 1e6) ** 0.5) + 10)
    weight = contracts["weight"].to_numpy()
    counts = rng.multinomial(rows, weight / weight.sum())
    index = np.repeat(np.arange(contracts.height, dtype=np.int32), counts)
    open_ms = int(sessions.open_utc(DAY).timestamp() * 1000)
    millisecond = (rng.beta(0.6, 0.7, rows) * 23_400_000).astype(np.int64)
    moment = np.sort(index.astype(np.int64) * 100_000_000 + millisecond) % 100_000_000  # in order of time within each contract
    cents = np.maximum(np.round(contracts["level"].to_numpy()[index] * np.exp(rng.normal(0.0, 0.05, rows)) * 100.0), 1.0)
    size = np.minimum(rng.geometric(0.25, rows) * np.where(rng.random(rows) < 0.05, 10, 1), 20_000)
    texts, shares = list(CONDITIONS), np.array(list(CONDITIONS.values()))
    tape = pl.DataFrame(
        {
            "row": index,
            "ts_utc": pl.Series((open_ms + moment) * 1_000_000).cast(pl.Datetime("ns", "UTC")),
            "price": cents / 100.0,
            "size": size,
            "premium_usd": cents * size,
            "exchange": rng.choice(np.array(EXCHANGES), rows),
            "code": rng.choice(np.arange(len(texts), dtype=np.uint32), rows, p=shares / shares.sum()),
            "is_cancelled": rng.random(rows) < 0.001,
        }
    )
    decoded = conditions.decode(pl.Series(texts)).with_columns(code=pl.col("conditions").replace_strict(texts, range(len(texts))))
    named = contracts.drop("weight", "level").with_row_index("row").cast({"row": pl.Int32})
    full = tape.join(named, on="row", how="left", maintain_order="left").join(
        decoded.cast({"code": pl.UInt32}), on="code", how="left", maintain_order="left"
    )
    return full.with_columns(known_at_utc=pl.col("ts_utc")).select(
        pl.col(name).cast(dtype) for name, dtype in OPTION_TRADES.polars_schema().items()
    )


def as_delivered(table: pl.DataFrame) -> pl.DataFrame:
    """The raw partition of the same prints."""
    made = table.with_columns(
        ticker="O:" + pl.col("contract"),
        correction=pl.lit("0"),
        participant_timestamp=pl.lit(None),
        sip_timestamp=pl.col("ts_utc").to_physical(),
        row=pl.int_range(pl.len()),
        extra=pl.lit(None),
    )
    return made.select(pl.col(name).cast(dtype) for name, dtype in MASSIVE_OPTION_TRADES.polars_schema().items())


def write_partition(name: str, path: Path, rows: int) -> None:
    table = prints(rows) if name == OPTION_TRADES.name else as_delivered(prints(rows))
    for file, part in ((path, table), (path.with_suffix(".warm"), table.head(WARM))):
        file.write_bytes(partitions.encode(DATASETS[name], part))


# --- The same checks in SQL ----------------------------------------------------------------------------------------


def failing_sql(column: str | None, check: Any) -> str:
    match check:
        case NotNull():
            return f'"{column}" is null'
        case Between(low=low, high=high, above=above):
            parts = [] if low is None else [f'"{column}" {"<=" if above else "<"} {low}']
            return " or ".join(parts if high is None else [*parts, f'"{column}" > {high}'])
        case OneOf(values=values):
            return f'"{column}" not in ({", ".join(repr(value) for value in values)})'
        case Matches(pattern=pattern):
            return f"not regexp_matches(\"{column}\", '{pattern}')"
        case NotAbove(lower=lower, upper=upper):
            return f'"{lower}" > "{upper}"'
    raise SystemExit(f"no SQL for {check}")


def out_of_order_sql(columns: tuple[str, ...]) -> str:
    wrong = "false"
    for name in reversed(columns):
        value, above = f'"{name}"', f'"above_{name}"'
        less = f"coalesce({value} < {above}, {value} is not null and {above} is null)"
        wrong = f"({less} or ({value} is not distinct from {above} and {wrong}))"
    return wrong


class InDuckDB:
    """Every rule of a dataset in a few statements: names, counts of failing rows, keys, order."""

    def __init__(self, ds: Dataset) -> None:
        import duckdb

        self.ds = ds
        self.connection = duckdb.connect()
        self.connection.execute("set threads = 1; set enable_progress_bar = false")

    def count(self, path: Path) -> list[int]:
        source = f"read_parquet('{path}')"
        described = self.connection.sql(f"describe select * from {source}").fetchall()
        wrong_shape = int([row[0] for row in described] != list(self.ds.polars_schema()))
        rules = render.rules(self.ds)
        by_row = [(column, check) for column, check in rules if not isinstance(check, Unique)]
        counted = ", ".join(f"count_if({failing_sql(column, check)})" for column, check in by_row)
        rows, *failing = self.connection.sql(f"select count(*), {counted} from {source}").fetchall()[0]
        twice = [self._duplicates(source, check.key) for _, check in rules if isinstance(check, Unique)]
        lags = ", ".join(f'"{name}", lag("{name}") over () as "above_{name}"' for name in self.ds.sort_by)
        ordered = f"select row_number() over () as n, {lags} from {source}"
        condition = out_of_order_sql(self.ds.sort_by)
        disorder = self.connection.sql(f"select count_if(n > 1 and {condition}) from ({ordered})").fetchall()[0][0]
        return [wrong_shape, int(rows == 0), *failing, *twice, disorder]

    def _duplicates(self, source: str, key: tuple[str, ...]) -> int:
        names = ", ".join(f'"{name}"' for name in key)
        found = self.connection.sql(f"select sum(n) from (select count(*) as n from {source} group by {names} having n > 1)")
        return int(found.fetchall()[0][0] or 0)


# --- Measuring -----------------------------------------------------------------------------------------------------


def judged_by_flowlake(ds: Dataset, path: Path) -> list[int]:
    result = audit_file(ds, path, DAY)
    return [len(result.failures), sum(failure.count for failure in result.failures)]


def measure(who: str, name: str, path: Path) -> None:
    """In a process of its own: judge the small partition, then the large one; print what it took and what was found."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    ds = DATASETS[name]
    judge = partial(judged_by_flowlake, ds) if who == "flowlake" else InDuckDB(ds).count
    first = time.process_time()
    judge(path.with_suffix(".warm"))
    began, wall = time.process_time(), time.perf_counter()
    found = judge(path)
    cpu, elapsed = time.process_time() - began, time.perf_counter() - wall
    peak = (peak_memory_bytes() or 0) / 2**20
    print(json.dumps({"first": began - first, "cpu": cpu, "wall": elapsed, "peak": peak, "failing": sum(found)}))


def process(*arguments: str) -> str:
    told = os.environ | {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1", "GX_ANALYTICS_ENABLED": "false"}
    return subprocess.run(
        [sys.executable, __file__, *arguments], env=told, stdout=subprocess.PIPE, text=True, check=True, timeout=1800
    ).stdout


def compared(name: str, rows: int) -> None:
    with tempfile.TemporaryDirectory(prefix="flowlake-audit-") as home:
        path = Path(home) / "part.parquet"
        process("--write", name, str(path), str(rows))
        runs: dict[str, list[dict[str, float]]] = {"flowlake": [], "DuckDB SQL": []}
        for _ in range(RUNS):
            for who, found in runs.items():
                found.append(json.loads(process("--measure", who, name, str(path)).splitlines()[-1]))
        size = path.stat().st_size / 1e6
    middle = {who: {key: statistics.median(run[key] for run in found) for key in found[0]} for who, found in runs.items()}
    ds = DATASETS[name]
    print(f"{name}: {rows:,} rows, {len(ds.polars_schema())} columns, {len(render.rules(ds)) + 4} rules, {size:.0f} MB")
    for who, m in middle.items():
        print(f"  {who:12}{m['cpu']:8.2f}{m['wall']:8.2f}{m['peak']:9.0f}{m['first']:9.2f}")
        if m["failing"]:
            raise SystemExit(f"{who} finds {m['failing']:.0f} failures in a partition that is right")
    ours, theirs = middle["flowlake"], middle["DuckDB SQL"]
    print(f"  {'ratio':12}{ours['cpu'] / theirs['cpu']:8.2f}{ours['wall'] / theirs['wall']:8.2f}", flush=True)


def main(sizes: tuple[float, ...]) -> None:
    print(f"one core, medians of {RUNS}\n{'':14}{'CPU s':>8}{'wall s':>8}{'peak MB':>9}{'first s':>9}")
    for millions in sizes:
        compared(OPTION_TRADES.name, round(millions * 1e6))
    compared(MASSIVE_OPTION_TRADES.name, round(max(sizes) * 1e6))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        write_partition(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
    elif sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2], sys.argv[3], Path(sys.argv[4]))
    else:
        main(tuple(map(float, sys.argv[1:])) or SIZES)
