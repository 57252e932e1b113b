"""How well trade sides are known, on synthetic markets whose truth is known; and the table of probabilities itself.

    python benchmarks/sides.py           measure the shipped table on markets that it was not fitted to
    python benchmarks/sides.py --fit     fit a table on the other markets and print it, ready for `flowlake.flow.direction`

Each market runs through parsing, curation and the step `trade_sides`. Its file of quotes has one just before every print; quotes
are then left out at random, so that prints meet older ones. A synthetic market is kinder than a real one: prices there hardly ever
lie on the wrong side of a fresh midpoint.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from datetime import date

import numpy as np
import polars as pl

from flowlake.curate.contracts import contracts
from flowlake.curate.trades import option_trades
from flowlake.datasets.curated import CONTRACTS, OPTION_TRADES
from flowlake.datasets.model import Dataset
from flowlake.flow import direction, side
from flowlake.flow.direction import AGES_S, CALIBRATION, KINDS, PLACES
from flowlake.flow.sides import trade_sides
from flowlake.market import MarketSpec, build
from flowlake.sources import massive

FITTED_ON = range(200, 212)
MEASURED_ON = range(300, 308)
KEPT = (1.0, 0.3, 0.1, 0.03, 0.01)
"""Shares of the quotes that are kept, one after the other."""
PSEUDO_PRINTS = 200.0
"""Weight of the next older age in a cell, and of electronic prints in a cell of crosses: thin cells lean on their neighbours."""
_PRICES = ("price", "bid", "ask")
_SAME = ("contract", "ts_utc", "price", "size", "condition", "exchange")


def sessions(seed: int) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """Curated prints with their true `side`, and raw quotes, session by session."""
    market = build(
        MarketSpec(
            seed=seed, sessions=2, underlyings=4, trades_per_underlying_session=4000, include_quotes=True, split_session=None
        )
    )
    files = {file.key: file.body for file in market.files() if "us_options_opra" in file.key}
    truth = market.truth()["trades"].with_columns(
        pl.col("ticker").str.strip_prefix("O:").alias("contract"),
        pl.col("sip_timestamp").cast(pl.Datetime("ns")).dt.replace_time_zone("UTC").alias("ts_utc"),
    )
    for day in market.days:
        keys = {name: next(key for key in files if name in key and f"{day}" in key) for name in ("trades_v1", "quotes_v1")}
        raw = massive.option_trades(keys["trades_v1"], files[keys["trades_v1"]], day).with_columns(session=pl.lit(day))
        quotes = massive.option_quotes(keys["quotes_v1"], files[keys["quotes_v1"]], day).with_columns(session=pl.lit(day))
        master = conformed(CONTRACTS, contracts({"massive_option_trades": raw}, day).tables["contracts"], day)
        found = option_trades({"massive_option_trades": raw, "contracts": master}, day).tables["option_trades"]
        yield with_truth(conformed(OPTION_TRADES, found, day), truth.filter(pl.col("session") == day)), quotes


def conformed(dataset: Dataset, frame: pl.DataFrame, day: date) -> pl.DataFrame:
    return dataset.conform(frame, day).with_columns(session=pl.lit(day))


def with_truth(prints: pl.DataFrame, truth: pl.DataFrame) -> pl.DataFrame:
    """Adds `side`. Prints that are the same in every field take their sides in the order of the file."""
    known = truth.sort("row").select(*_SAME, "side", pl.int_range(pl.len()).over(_SAME).alias("copy"))
    numbered = prints.with_columns(pl.int_range(pl.len()).over(_SAME).alias("copy"))
    return numbered.join(known, on=[*_SAME, "copy"], how="left", maintain_order="left").drop("copy")


def signed(seeds: range, kept: float) -> pl.DataFrame:
    """The output of `trade_sides` for the prints that may be signed, with price, kind and true side."""
    parts = []
    for seed in seeds:
        for prints, quotes in sessions(seed):
            day = prints["session"][0]
            thin = quotes.sample(fraction=kept, seed=seed) if kept < 1.0 else quotes
            out = trade_sides({"option_trades": prints.drop("side"), "massive_option_quotes": thin}, day).tables["trade_sides"]
            told = prints.select("price", "side", "size", (pl.col("is_cross") | pl.col("is_floor")).alias("negotiated"))
            parts.append(pl.concat([out, told], how="horizontal").filter(~pl.col("reason").is_in(["not_single_leg", "not_signed"])))
    return pl.concat(parts)


def fit(rows: pl.DataFrame) -> None:
    """Print the share of prints on which the quote rule was right: kind x age x place."""
    quoted = rows.filter(pl.col("bid").is_not_null() & pl.col("ask").is_not_null())
    found = direction.evidence(
        *(quoted[c].to_numpy() for c in ("price", "bid", "ask")), quoted["quote_age_ms"] / 1e3, quoted["negotiated"]
    )
    says = found.side != 0
    shape = (len(KINDS), len(AGES_S), len(PLACES))
    prints, right = np.zeros(shape), np.zeros(shape)
    cells = (found.kind[says], found.age[says], found.place[says])
    np.add.at(prints, cells, 1.0)
    np.add.at(right, cells, (found.side == quoted["side"].to_numpy())[says])
    table = np.empty(shape)
    for kind in range(shape[0]):
        for age in reversed(range(shape[1])):
            lean = np.full(shape[2], 0.5) if age == shape[1] - 1 else table[kind, age + 1]
            lean = lean if kind == 0 else table[0, age]
            table[kind, age] = (right[kind, age] + PSEUDO_PRINTS * lean) / (prints[kind, age] + PSEUDO_PRINTS)
    print("    right=(")
    for kind in range(shape[0]):
        print(f"        (  # {KINDS[kind]}")
        for age in range(shape[1]):
            print("            (" + ", ".join(f"{v:.3f}" for v in table[kind, age]) + f"),  # up to {AGES_S[age]:g} s")
        print("        ),")
    print("    ),")
    print("prints per cell:", prints.astype(int).tolist())
    for rule in ("tick_fallback", "depth_fallback"):
        said = rows.filter(pl.col("rule") == rule)
        print(f"{rule}: right {(said['fallback_side'] == said['side']).mean():.3f} of {said.height:,}")


def measure(rows: pl.DataFrame) -> dict[str, float]:
    """Coverage by prints and contracts, share of sides that are right, Brier score, expected calibration error."""
    known = rows.filter(pl.col("buy_probability").is_not_null())
    p, bought = known["buy_probability"].to_numpy(), known["side"].to_numpy() > 0
    table = reliability(rows)
    weight = table["prints"].to_numpy() / max(known.height, 1)
    return {
        "known": known.height / rows.height,
        "known volume": known["size"].sum() / rows["size"].sum(),
        "right": float(((p > 0.5) == bought).mean()),
        "stated": float(np.maximum(p, 1.0 - p).mean()),
        "Brier": float(((p - bought) ** 2).mean()),
        "ECE": float((weight * np.abs(table["stated"].to_numpy() - table["bought"].to_numpy())).sum()),
    }


def reliability(rows: pl.DataFrame) -> pl.DataFrame:
    """Prints by stated probability of a buyer: what was stated, and how many were bought."""
    tenth = (pl.col("buy_probability") * 10.0).floor().clip(0, 9).cast(pl.Int64).alias("tenth")
    known = rows.filter(pl.col("buy_probability").is_not_null()).with_columns(tenth)
    means = (
        pl.len().alias("prints"),
        pl.col("buy_probability").mean().alias("stated"),
        (pl.col("side") > 0).mean().alias("bought"),
    )
    return known.group_by("tenth").agg(*means).sort("tenth")


def rules(seeds: range) -> pl.DataFrame:
    """Each classical rule on the whole stream of quotes, contract by contract: share signed, share of those right."""
    counts: dict[str, list[int]] = {}
    for seed in seeds:
        for prints, quotes in sessions(seed):
            out = trade_sides({"option_trades": prints.drop("side"), "massive_option_quotes": quotes}, prints["session"][0])
            told = prints.select("price", "side", pl.col("size").cast(pl.Float64)).hstack(out.tables["trade_sides"].drop("rule"))
            single = told.filter(~pl.col("reason").is_in(["not_single_leg", "not_signed"]))
            for _, one in single.group_by("contract", maintain_order=True):
                columns = ("price", "size", "bid", "ask", "bid_size", "ask_size")
                price, size, bid, ask, *sizes = ((one[c].to_numpy() * (1e4 if c in _PRICES else 1.0)).round() for c in columns)
                for name, found in {
                    "quote": side.quote(price, bid, ask),
                    "tick": side.tick(price),
                    "reverse tick (looks ahead)": side.reverse_tick(price),
                    "Lee-Ready": side.lee_ready(price, bid, ask),
                    "EMO": side.emo(price, bid, ask),
                    "CLNV": side.clnv(price, bid, ask),
                    "depth": side.depth(price, bid, ask, *sizes),
                    "trade size": side.trade_size(price, size, *sizes),
                    "GSU (looks ahead)": side.gsu(price, size, bid, ask, *sizes),
                    "GSU, tick test last": side.gsu(price, size, bid, ask, *sizes, look_ahead=False),
                }.items():
                    total = counts.setdefault(name, [0, 0, 0])
                    right = int((found == one["side"].to_numpy()).sum())
                    for i, value in enumerate((found.size, int((found != 0).sum()), right)):
                        total[i] += value
    return pl.DataFrame(
        [(n, said / count, right / max(said, 1)) for n, (count, said, right) in counts.items()],
        orient="row",
        schema=["rule", "signed", "right"],
    )


def plot(table: pl.DataFrame, path: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6, 3.4), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    axes.scatter(table["stated"], table["bought"], s=np.sqrt(table["prints"].to_numpy()) / 2.0)
    axes.set(xlabel="stated probability of a buyer", ylabel="share bought", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", action="store_true", help="fit a table and print it")
    parser.add_argument("--plot", metavar="PNG", help="also draw the reliability curve")
    asked = parser.parse_args()
    if asked.fit:
        fit(pl.concat([signed(FITTED_ON, kept) for kept in KEPT]))
        return
    print(
        f"table {CALIBRATION.version}, markets {MEASURED_ON.start} to {MEASURED_ON.stop - 1}, single-leg prints reported on time\n"
    )
    print("quotes kept       " + "".join(f"{name:>14}" for name in ("known", "known volume", "right", "stated", "Brier", "ECE")))
    parts = []
    for kept in KEPT:
        parts.append(signed(MEASURED_ON, kept))
        print(f"{kept:<18.0%}" + "".join(f"{value:14.3f}" for value in measure(parts[-1]).values()))
    pooled = pl.concat(parts)
    print(f"{'all':<18}" + "".join(f"{value:14.3f}" for value in measure(pooled).values()))
    print("\nreliability, all together\n")
    table = reliability(pooled)
    print(f"{'stated':>10}{'bought':>10}{'prints':>12}")
    for row in table.iter_rows(named=True):
        print(f"{row['stated']:10.3f}{row['bought']:10.3f}{row['prints']:12,}")
    older = reliability(pooled.filter(pl.col("quote_age_ms") > 1_000.0))
    print("\nreliability, quotes older than a second\n")
    print(f"{'stated':>10}{'bought':>10}{'prints':>12}")
    for row in older.iter_rows(named=True):
        print(f"{row['stated']:10.3f}{row['bought']:10.3f}{row['prints']:12,}")
    print("\nfallbacks, where no probability is stated\n")
    for rule in ("depth_fallback", "tick_fallback"):
        said = pooled.filter(pl.col("rule") == rule)
        stated = CALIBRATION.fallback()[0 if rule == "depth_fallback" else 1]
        print(f"{rule:<18} stated {stated:.3f}, right {(said['fallback_side'] == said['side']).mean():.3f} of {said.height:,}")
    print("\nclassical rules, every quote kept\n")
    print(f"{'':<28}{'signed':>10}{'right':>10}")
    for row in rules(MEASURED_ON).iter_rows(named=True):
        print(f"{row['rule']:<28}{row['signed']:10.3f}{row['right']:10.3f}")
    if asked.plot:
        plot(older, asked.plot)


if __name__ == "__main__":
    main()
