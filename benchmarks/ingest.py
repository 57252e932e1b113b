"""A day of option trades from gzipped CSV to Parquet: processor time and memory, against rivals in the same run.

    python benchmarks/ingest.py [MILLIONS ...] [--runs N]

The day is made up and always the same: 4,500 underlyings of very different activity, sorted by ticker and time as the vendor's
files are. The rivals read the same file and write the same rows, with zstd: polars as they come, DuckDB sorted by ticker and time.
Neither parses contracts, decodes conditions or matches cancels; ours does. Each contender is a process of its own; `CPU` is its
processor time with all its threads, start-up taken off, `peak` the most memory it ever held.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import zlib
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from flowlake.datasets.batch import Stream
from flowlake.lake.columnar import PartitionWriter
from flowlake.pipeline.usage import peak_memory_bytes

DAY = date(2024, 3, 13)
OPEN_NS = 1_710_336_600_000_000_000
MINUTES = 390
UNDERLYINGS = 4_500
PER_CONTRACT = 20
"""Prints per traded contract on average: a real day of ten million has about half a million contracts."""
CONDITIONS = np.array(["209", "219", "227", "232", "233", "229", "231", "238", "240", "208", "207", "206", "228", '"209,219"'])
SHARES = np.array([0.5, 0.13, 0.12, 0.13, 0.03, 0.01, 0.015, 0.03, 0.01, 0.0197, 0.0001, 0.0002, 0.0048, 0.0002])
EXCHANGES = np.array([300, 301, 302, 303, 304, 307, 308, 309, 312, 313, 315, 316, 318, 319, 320, 322, 323, 325])


def day_of_trades(rows: int) -> pl.DataFrame:
    """The columns of the vendor's file, `rows` rows, sorted by ticker and time."""
    rng = np.random.default_rng(5)
    activity = 1.0 / np.arange(1, UNDERLYINGS + 1) ** 1.1
    letters = np.array(list("ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
    names = np.unique(["".join(rng.choice(letters, n)) for n in rng.choice([2, 3, 4], UNDERLYINGS * 2, p=[0.1, 0.45, 0.45])])
    names = rng.permutation(names)[:UNDERLYINGS]
    contracts = rows // PER_CONTRACT
    of = np.minimum(rng.choice(UNDERLYINGS, contracts, p=activity / activity.sum()), UNDERLYINGS - 1)
    spot = np.round(np.exp(rng.normal(4.2, 0.8, UNDERLYINGS)), 0)[of]
    days = rng.choice(
        [2, 9, 16, 23, 37, 65, 93, 184, 310, 674], contracts, p=[0.3, 0.2, 0.12, 0.1, 0.1, 0.06, 0.05, 0.03, 0.02, 0.02]
    )
    moneyness = rng.normal(0.0, 0.05 + 0.01 * np.sqrt(days))
    strike = np.maximum(np.round(spot * np.exp(moneyness) * 2) / 2, 0.5)
    call = rng.random(contracts) < 0.55
    value = np.maximum(np.where(call, spot - strike, strike - spot), 0.0) + spot * 0.03 * np.sqrt(days / 30) * np.exp(
        -(moneyness**2) * 20
    )
    table = (
        pl.DataFrame(
            {
                "root": names[of],
                "expiry": np.array([f"{DAY + timedelta(days=int(d)):%y%m%d}" for d in range(700)])[days],
                "right": np.where(call, "C", "P"),
                "strike": (strike * 1000).astype(np.int64),
                "value": value,
            }
        )
        .with_columns(ticker=pl.concat_str(pl.lit("O:"), "root", "expiry", "right", pl.col("strike").cast(pl.String).str.zfill(8)))
        .unique("ticker")
        .sort("ticker")
    )
    weight = rng.pareto(1.1, table.height) + 0.05
    counts = np.minimum(1 + np.floor(weight / weight.sum() * (rows - table.height)).astype(np.int64), rows // 50)
    counts[: rows - int(counts.sum())] += 1
    counts[0] += rows - int(counts.sum())
    which = np.repeat(np.arange(table.height), counts)
    moment = OPEN_NS + (rng.beta(0.7, 0.8, rows) * MINUTES * 60_000).astype(np.int64) * 1_000_000
    moment = moment[np.lexsort((moment, which))]
    burst = rng.random(rows) < 0.15  # several fills of one order print in one millisecond
    burst[1:] &= which[1:] == which[:-1]
    burst[0] = False
    moment = moment[np.maximum.accumulate(np.where(burst, 0, np.arange(rows)))]
    cents = np.maximum(np.round(table["value"].to_numpy()[which] * (1 + 0.03 * rng.normal(size=rows)) * 100), 1).astype(np.int64)
    size = np.minimum(1 + np.floor(rng.pareto(1.3, rows) * 1.5), 5_000).astype(np.int64)
    return pl.DataFrame(
        {
            "ticker": table["ticker"].gather(which),
            "conditions": CONDITIONS[rng.choice(CONDITIONS.size, rows, p=SHARES / SHARES.sum())],
            "correction": np.zeros(rows, np.int8),
            "exchange": EXCHANGES[rng.integers(0, EXCHANGES.size, rows)],
            "price": cents / 100,
            "sip_timestamp": moment,
            "size": size,
        }
    )


def write_day(path: Path, rows: int) -> None:
    text = path.with_suffix(".text")
    day_of_trades(rows).write_csv(text, quote_style="never")
    squeezer = zlib.compressobj(6, wbits=31)
    with text.open("rb") as plain, path.open("wb") as squeezed:
        while piece := plain.read(1 << 22):
            squeezed.write(squeezer.compress(piece))
        squeezed.write(squeezer.flush())
    text.unlink()


# --- Contenders: each reads `source` and writes below `folder` ----------------------------------------------------------------

_TYPES = {"conditions": pl.String(), "correction": pl.String(), "price": pl.Float64(), "size": pl.Float64()}


def polars(source: Path, folder: Path) -> None:
    pl.read_csv(source, schema_overrides=_TYPES).write_parquet(folder / "polars.parquet", compression="zstd")


def polars_streaming(source: Path, folder: Path) -> None:
    pl.scan_csv(source, schema_overrides=_TYPES).sink_parquet(folder / "polars.parquet", compression="zstd")


def duckdb_sorted(source: Path, folder: Path) -> None:
    import duckdb

    types = "{'conditions': 'VARCHAR', 'correction': 'VARCHAR', 'price': 'DOUBLE', 'size': 'DOUBLE'}"
    rows = f"select * from read_csv('{source}', types={types}) order by ticker, sip_timestamp"
    duckdb.sql(f"copy ({rows}) to '{folder / 'duckdb.parquet'}' (format parquet, compression zstd)")


def curated(source: Path, folder: Path) -> None:
    """Contracts parsed, conditions decoded, cancels matched, impossible rows left out, sorted."""
    from flowlake.curate import tape
    from flowlake.sources import massive

    stream = tape.stream(massive.option_trade_batches(source, DAY), tape.terms_of_names(DAY), DAY)
    written(folder / "curated.parquet", stream)


def raw(source: Path, folder: Path) -> None:
    from flowlake.datasets.raw import MASSIVE_OPTION_TRADES
    from flowlake.pipeline.ingest import raw_stream
    from flowlake.sources import massive

    written(folder / "raw.parquet", raw_stream(massive.option_trade_batches(source, DAY), MASSIVE_OPTION_TRADES, DAY))


def raw_then_curated(source: Path, folder: Path) -> None:
    """As the pipeline goes: the file to the raw partition, and that one to the curated partition."""
    from flowlake.curate import tape
    from flowlake.datasets.raw import MASSIVE_OPTION_TRADES
    from flowlake.lake.batches import batches_of

    raw(source, folder)
    stream = tape.stream(batches_of(folder / "raw.parquet", MASSIVE_OPTION_TRADES), tape.terms_of_names(DAY), DAY)
    written(folder / "curated.parquet", stream)


def hash_of_both(source: Path, folder: Path) -> None:
    """What the lineage of both partitions costs beside: the hash of all values, read back from the files."""
    from flowlake.lake.hashing import file_data_hash

    for name in ("raw", "curated"):
        file_data_hash(folder / f"{name}.parquet")


def written(path: Path, stream: Stream) -> None:
    with path.open("wb") as file:
        writer = PartitionWriter(file, stream.dataset)
        for batch in stream.batches:
            writer.write(batch)
        writer.close({})


CONTENDERS = {
    "polars": polars,
    "polars, streaming": polars_streaming,
    "DuckDB, sorted": duckdb_sorted,
    "flowlake, raw": raw,
    "flowlake, curated": curated,
    "flowlake, raw then curated": raw_then_curated,
    "flowlake, hash of both": hash_of_both,
}


def contend(name: str, source: Path, folder: Path, small: Path) -> None:
    """One contender in this process: warm on a small file (compiled code is loaded, libraries are imported), then measured."""
    work = CONTENDERS[name]
    if work is not hash_of_both:
        with tempfile.TemporaryDirectory() as aside:
            work(small, Path(aside))
    before, began = time.process_time(), time.perf_counter()
    work(source, folder)
    spent = {"cpu": time.process_time() - before, "wall": time.perf_counter() - began}
    print(json.dumps({**spent, "peak_mb": (peak_memory_bytes() or 0) / 2**20}))


def made_aside(path: Path, rows: int) -> None:
    """Write a day in a process of its own: a contender's peak would begin with the memory of the process that started it."""
    subprocess.run([sys.executable, __file__, "--write", str(path), str(rows)], check=True)


def measured(name: str, source: Path, folder: Path, small: Path, runs: int) -> dict[str, float]:
    """The least of some runs: on a busy machine the others measure the neighbours."""
    told = [sys.executable, __file__, "--contender", name, str(source), str(folder), str(small)]
    found = [json.loads(subprocess.run(told, check=True, capture_output=True, text=True).stdout) for _ in range(runs)]
    return {key: min(run[key] for run in found) for key in found[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description="Option trades from CSV to Parquet: ours against rivals.")
    parser.add_argument("millions", nargs="*", type=float, default=[1.0, 3.0, 10.0], help="rows (default: 1 3 10)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each contender (default: 3)")
    parser.add_argument("--contender", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--write", nargs=2, help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.write:
        write_day(Path(told.write[0]), int(told.write[1]))
        return
    if told.contender:
        name, *paths = told.contender
        contend(name, *(Path(path) for path in paths))
        return
    with tempfile.TemporaryDirectory(prefix="flowlake-ingest-") as place:
        folder = Path(place)
        made_aside(small := folder / "small.csv.gz", 50_000)
        for millions in told.millions:
            rows = int(millions * 1_000_000)
            made_aside(source := folder / "day.csv.gz", rows)
            print(f"\n{rows:,} trades, {source.stat().st_size / 1e6:.0f} MB gzipped\n")
            print(f"{'':28}{'CPU s':>8}{'wall s':>8}{'us/row':>8}{'peak MB':>9}{'of polars':>11}{'of DuckDB':>11}")
            results = {name: measured(name, source, folder, small, told.runs) for name in CONTENDERS}
            for name, found in results.items():
                ratios = [found["cpu"] / results[rival]["cpu"] for rival in ("polars", "DuckDB, sorted")]
                print(
                    f"{name:28}{found['cpu']:8.2f}{found['wall']:8.2f}{found['cpu'] / rows * 1e6:8.2f}{found['peak_mb']:9.0f}"
                    f"{ratios[0]:9.2f} x{ratios[1]:9.2f} x"
                )


if __name__ == "__main__":
    main()
