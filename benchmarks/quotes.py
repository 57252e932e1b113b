"""What it costs to read past a file of quotes, against Polars.

    python benchmarks/quotes.py [MILLIONS ...]     5 and 20 million quotes unless told otherwise, a twentieth of them prints

The file is a gzipped CSV as the vendor writes it, in the order of its tickers. Ours reads it in pieces and keeps what stands before
a print or at the close; then the prints are joined with what was kept. Polars reads the file whole, or with its streaming engine,
and joins it with `join_asof`. All must find the same quotes. One thread, a process each; the clock is the processor time.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

os.environ.setdefault("POLARS_MAX_THREADS", "1")

import numpy as np
import polars as pl

from flowlake.core.sessions import open_utc
from flowlake.curate.kept_quotes import KeptQuotes
from flowlake.pipeline.usage import peak_memory_bytes
from flowlake.sources import massive

DAY = date(2024, 3, 5)
OPEN_NS = int(open_utc(DAY).timestamp()) * 10**9
SESSION_NS = 23_400 * 10**9
CONTRACTS_PER_MILLION = 400
PRINTS_PER_QUOTE = 0.05
CONTENDERS = ("flowlake", "polars", "polars, streaming engine")
VALUES = ("bid_price", "ask_price", "bid_size", "ask_size")


def moments(rng: np.random.Generator, contracts: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Contract and time of each row, in order; a few contracts have most rows."""
    weight = rng.pareto(1.3, contracts) + 0.05
    contract = np.sort(rng.choice(contracts, rows, p=weight / weight.sum()))
    at = OPEN_NS + rng.integers(0, SESSION_NS, rows)
    return contract, at[np.lexsort((at, contract))]


def write(folder: Path, millions: float) -> None:
    rng = np.random.default_rng(20240305)
    rows = int(millions * 1_000_000)
    contracts = max(int(millions * CONTRACTS_PER_MILLION), 10)
    tickers = pl.Series([f"O:A{i // 400:04}240315C{i % 400:05}000" for i in range(contracts)]).sort()
    contract, at = moments(rng, contracts, rows)
    bid = np.round(rng.lognormal(0.5, 1.0, contracts)[contract] + rng.integers(0, 40, rows) * 0.05, 2)
    pl.DataFrame(
        {
            "ticker": tickers.gather(contract),
            "ask_exchange": rng.integers(300, 320, rows),
            "ask_price": np.round(bid + rng.integers(1, 8, rows) * 0.05, 2),
            "ask_size": rng.integers(1, 200, rows),
            "bid_exchange": rng.integers(300, 320, rows),
            "bid_price": bid,
            "bid_size": rng.integers(1, 200, rows),
            "sequence_number": np.arange(rows),
            "sip_timestamp": at,
        }
    ).write_csv(folder / "quotes.csv")
    with (folder / "quotes.csv").open("rb") as plain, gzip.open(folder / "quotes.csv.gz", "wb", compresslevel=1) as packed:
        while block := plain.read(1 << 22):
            packed.write(block)
    (folder / "quotes.csv").unlink()
    contract, at = moments(rng, contracts, int(rows * PRINTS_PER_QUOTE))
    prints = pl.DataFrame({"ticker": tickers.gather(contract), "sip_timestamp": at // 10**6 * 10**6})
    prints.write_parquet(folder / "prints.parquet")


def joined(prints: pl.DataFrame, quotes: pl.LazyFrame, engine: str) -> pl.DataFrame:
    found = prints.lazy().join_asof(
        quotes, on="sip_timestamp", by="ticker", allow_exact_matches=False, check_sortedness=False, coalesce=True
    )
    return found.select("ticker", "sip_timestamp", *VALUES).collect(engine=engine)  # type: ignore[call-overload, no-any-return]


def contend(who: str, folder: Path) -> None:
    prints = pl.read_parquet(folder / "prints.parquet")
    path = folder / "quotes.csv.gz"
    warm = time.process_time()
    if who == "flowlake":
        given = prints.with_columns(price=1.0, size=1.0)
        kept = KeptQuotes.of("massive_option_quotes", {"massive_option_trades": given}, DAY)
        for piece in massive.option_quote_pieces(path, DAY):
            kept.take(piece)
        table = kept.table()
        found = joined(prints, table.lazy().select("ticker", "sip_timestamp", *VALUES), "in-memory")
        rows = table.height
    else:
        columns = ("ticker", "sip_timestamp", *VALUES)
        quotes = pl.scan_csv(path).select(columns)
        if who == "polars":
            quotes = quotes.collect(engine="in-memory").lazy()
        found = joined(prints, quotes, "in-memory" if who == "polars" else "streaming")
        rows = -1
    spent = time.process_time() - warm
    sums = [round(float(found[name].fill_null(0).sum()), 2) for name in VALUES]
    told = {"seconds": spent, "megabytes": peak_memory_bytes() / 1e6, "found": [found["bid_price"].count(), *sums], "kept": rows}
    sys.stdout.write(json.dumps(told))


def run(who: str, folder: Path) -> dict[str, float]:
    done = subprocess.run([sys.executable, __file__, "--one", who, str(folder)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def main(sizes: list[float]) -> None:
    print("| million quotes | | processor time | against ours | peak memory |\n|---|---|---|---|---|")
    for millions in sizes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write(folder, millions)
            run("flowlake", folder)  # fills the cache of compiled code
            told = {who: run(who, folder) for who in CONTENDERS}
            if len({tuple(found["found"]) for found in told.values()}) != 1:  # type: ignore[arg-type]
                raise SystemExit(f"they found different quotes: {told}")
            ours = told["flowlake"]
            for who, found in told.items():
                ratio = "" if who == "flowlake" else f"ours is {ours['seconds'] / found['seconds']:.2f} x"
                print(f"| {millions:g} | {who} | {found['seconds']:.1f} s | {ratio} | {found['megabytes']:,.0f} MB |")
            size = (folder / "quotes.csv.gz").stat().st_size / 1e6
            print(f"kept {ours['kept']:,.0f} of {millions * 1e6:,.0f} rows, {size:,.0f} MB gzipped", file=sys.stderr)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        contend(sys.argv[2], Path(sys.argv[3]))
    else:
        main([float(text) for text in sys.argv[1:]] or [5.0, 20.0])
