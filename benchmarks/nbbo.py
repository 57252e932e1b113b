"""The as-of join of option prints with quotes against the strongest rivals, one core.

    python benchmarks/nbbo.py [PRINTS QUOTES]     5,000,000 and 50,000,000 unless told otherwise

Two contests. In memory: both sides hold the columns, sorted by contract and time. From Parquet: the quotes are in a file as the
lake writes it. Ours reads it in batches, polars whole and also with its streaming engine, all through polars' own reader; each
contender is a process of its own, whose peak memory is told. DuckDB takes part with a tenth of the rows: it needs far longer. The
clock is the processor time; each figure is the best of several runs, and no figure is shown unless all contenders found the same.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("POLARS_MAX_THREADS", "1")

import duckdb
import numpy as np
import polars as pl

from flowlake.flow import nbbo
from flowlake.flow.nbbo import Nbbo, Quotes
from flowlake.pipeline.usage import peak_memory_bytes

SESSION_NS = 23_400 * 10**9
PER_CONTRACT = 2_500
"""Quotes per contract on average; a few contracts have most of them."""
BATCH = 131_072
FOR_EVER = SESSION_NS
VALUES = ("bid", "ask", "bid_size", "ask_size")
RUNS = 3


def sizes(rng: np.random.Generator, rows: int, contracts: int) -> np.ndarray:
    """Rows per contract, heavy-tailed."""
    weight = rng.pareto(1.3, contracts) + 0.05
    return np.bincount(rng.choice(contracts, rows, p=weight / weight.sum()), minlength=contracts)


def clock(rng: np.random.Generator, counts: np.ndarray) -> np.ndarray:
    """Times of each contract in order, over the session."""
    gaps = np.cumsum(rng.exponential(size=int(counts.sum())))
    first = np.repeat(np.concatenate([[0.0], gaps])[np.concatenate([[0], np.cumsum(counts)[:-1]])], counts)
    last = np.repeat(gaps[np.maximum(np.cumsum(counts) - 1, 0)], counts)
    return ((gaps - first) / (last - first + 1e-9) * SESSION_NS).astype(np.int64)


def made(prints: int, quotes: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    rng = np.random.default_rng(20240313)
    contracts = max(quotes // PER_CONTRACT, 10)
    counts = sizes(rng, quotes, contracts)
    level = rng.lognormal(0.5, 1.0, contracts)
    contract = np.repeat(np.arange(contracts, dtype=np.uint32), counts)
    bid = np.round(np.repeat(level, counts) + rng.integers(-20, 20, quotes) * 0.05, 2).clip(0.0)
    table = pl.DataFrame(
        {
            "contract": contract,
            "ts_ns": clock(rng, counts),
            "bid": bid,
            "ask": np.round(bid + rng.integers(1, 8, quotes) * 0.05, 2),
            "bid_size": rng.integers(1, 200, quotes).astype(np.int32),
            "ask_size": rng.integers(1, 200, quotes).astype(np.int32),
        }
    )
    traded = sizes(rng, prints, contracts)
    tape = {"contract": np.repeat(np.arange(contracts, dtype=np.uint32), traded), "ts_ns": clock(rng, traded) // 10**6 * 10**6}
    return pl.DataFrame(tape), table


def batch(columns: dict[str, np.ndarray]) -> Quotes:
    return Quotes(columns["contract"], columns["ts_ns"], *(columns[name] for name in VALUES))


def ours(prints: pl.DataFrame, quotes: Iterator[Quotes] | list[Quotes]) -> Nbbo:
    return nbbo.as_of(prints["contract"].to_numpy(), prints["ts_ns"].to_numpy(), quotes, max_age_ns=FOR_EVER)


def from_file(path: str) -> Iterator[Quotes]:
    for rows in pl.scan_parquet(path).collect_batches(chunk_size=BATCH, maintain_order=True):
        yield batch({column.name: column.to_numpy() for column in rows.iter_columns()})


def polars_join(prints: pl.DataFrame, quotes: pl.DataFrame) -> pl.DataFrame:
    return prints.join_asof(quotes, on="ts_ns", by="contract", allow_exact_matches=False, check_sortedness=False)


def duckdb_join(prints: str, quotes: str) -> pl.DataFrame:
    with duckdb.connect(config={"threads": 1}) as connection:
        found = connection.sql(
            f"select p.contract, p.ts_ns, q.bid, q.ask, q.bid_size, q.ask_size from read_parquet('{prints}') p "
            f"asof left join read_parquet('{quotes}') q "
            "on p.contract = q.contract and p.ts_ns > q.ts_ns"
        ).pl()
    return found.sort("contract", "ts_ns")


def polars_streaming(prints: str, quotes: str) -> pl.DataFrame:
    lazy = pl.scan_parquet(prints).join_asof(
        pl.scan_parquet(quotes), on="ts_ns", by="contract", allow_exact_matches=False, check_sortedness=False
    )
    return lazy.collect(engine="streaming")


RIVALS: dict[str, Callable[[str, str], pl.DataFrame]] = {
    "polars": lambda prints, quotes: polars_join(pl.read_parquet(prints), pl.read_parquet(quotes)),
    "polars, streaming engine": polars_streaming,
    "duckdb": duckdb_join,
}


def seconds(work: Callable[..., object], *arguments: object) -> float:
    taken = []
    for _ in range(RUNS):
        began = time.process_time()
        work(*arguments)
        taken.append(time.process_time() - began)
    return min(taken)


def fingerprint(bid: pl.Series, ask_size: pl.Series) -> list[float]:
    """What contenders in processes of their own must agree on. A bid of 0 is no bid for us."""
    has = bid.fill_nan(None).fill_null(0.0) > 0
    return [int(has.sum()), float((bid.filter(has) * 100).round().cast(pl.Int64).sum()), float(ask_size.fill_nan(None).sum())]


def contender(name: str, prints: str, quotes: str) -> None:
    """One contest from Parquet, in this process; prints seconds, peak memory and fingerprint as JSON."""
    if name == "flowlake":
        ours(pl.read_parquet(prints, n_rows=1), from_file(quotes))  # loads the compiled code
    began = time.process_time()
    if name == "flowlake":
        found = ours(pl.read_parquet(prints), from_file(quotes))
        columns = pl.Series(found.bid), pl.Series(found.ask_size)
    else:
        frame = RIVALS[name](prints, quotes)
        columns = frame["bid"], frame["ask_size"].cast(pl.Float64)
    took, peak = time.process_time() - began, (peak_memory_bytes() or 0) / 2**20
    print(json.dumps({"seconds": took, "peak_mb": peak, "fingerprint": fingerprint(*columns)}))


def contest(names: list[str], prints: str, quotes: str) -> None:
    results = {}
    for name in names:
        command = [sys.executable, __file__, "--contender", name, prints, quotes]
        runs = [json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout) for _ in range(2)]
        results[name] = min(runs, key=lambda run: run["seconds"])
    agreed = {json.dumps(result["fingerprint"]) for result in results.values()}
    if len(agreed) > 1:
        raise SystemExit(f"contenders disagree: {results}")
    for name, result in results.items():
        ratio = results["flowlake"]["seconds"] / result["seconds"]
        print(f"{name:28}{result['seconds']:10.2f} s{ratio:10.2f} x{result['peak_mb']:12,.0f} MB")


def main(prints: int, quotes: int) -> None:
    tape, table = made(prints, quotes)
    arrays = batch({name: table[name].to_numpy() for name in table.columns})
    joined, rival = ours(tape, [arrays]), polars_join(tape, table)
    for name in VALUES:
        theirs = rival[name].cast(pl.Float64).fill_null(np.nan).to_numpy()
        no_quote = np.isnan(theirs) | (rival["bid" if "bid" in name else "ask"].fill_null(0.0).to_numpy() <= 0)
        np.testing.assert_array_equal(getattr(joined, name), np.where(no_quote, np.nan, theirs))
    own, other = seconds(ours, tape, [arrays]), seconds(polars_join, tape, table)
    print(f"{prints:,} prints, {quotes:,} quotes, {table['contract'].n_unique():,} contracts; ours over theirs\n\nin memory\n")
    print(f"{'flowlake':28}{own:10.2f} s{1.0:10.2f} x\n{'polars join_asof(by=)':28}{other:10.2f} s{own / other:10.2f} x")
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / name) for name in ("prints.parquet", "quotes.parquet")]
        del arrays, joined, rival
        tape.write_parquet(paths[0], row_group_size=BATCH)
        table.write_parquet(paths[1], compression="zstd", compression_level=3, row_group_size=BATCH)
        few = [path + ".few" for path in paths]
        for frame, path, count in ((tape, few[0], prints // 10), (table, few[1], quotes // 10)):
            last = frame["contract"][count]
            frame.filter(pl.col("contract") < last).write_parquet(path, row_group_size=BATCH)
        del tape, table
        print("\nfrom Parquet, peak memory of the process\n")
        contest(["flowlake", "polars", "polars, streaming engine"], *paths)
        print("\nfrom Parquet, about a tenth of the rows\n")
        contest(["flowlake", "polars", "duckdb"], *few)


if __name__ == "__main__":
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    if sys.argv[1:2] == ["--contender"]:
        contender(*sys.argv[2:5])
    else:
        main(*(int(a) for a in sys.argv[1:]) if len(sys.argv) == 3 else (5_000_000, 50_000_000))
