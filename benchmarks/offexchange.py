"""Off-exchange prints: cost per million stock trades, and how much of what was planted in a market is found.

    python benchmarks/offexchange.py cost [MILLIONS ...]      1 and 3 million trades unless told otherwise
    python benchmarks/offexchange.py truth [SEED ...]         seeds 201 to 204 unless told otherwise

`cost`: a session of 2,000 stocks, four trades in ten off exchange, through curation and the activity of the session, and for
scale what polars needs to read the same table from Parquet and to group it by ticker, minute and exchange. Processor time on one
thread (set POLARS_MAX_THREADS=1); compiled code is warm. Peak memory is that of the process, the making of the rows included.
`truth`: markets of 12 underlyings and 80 sessions with a whole stock tape; the tables are the ones in docs/flow.md.
"""

from __future__ import annotations

import io
import sys
import time
from datetime import date

import numpy as np
import polars as pl

from flowlake.core import sessions
from flowlake.curate.offexchange import offexchange_prints
from flowlake.datasets.model import SESSION
from flowlake.datasets.registry import DATASETS
from flowlake.flow.lit import RULE_NAMES, lit_of, numbers, sides
from flowlake.flow.offexchange import executed, offexchange_activity
from flowlake.flow.offexchange_history import offexchange_accumulation
from flowlake.market import MarketSpec, build
from flowlake.pipeline.usage import peak_memory_bytes
from flowlake.sources import massive

DAY = date(2024, 3, 13)
SEEDS = (201, 202, 203, 204)
STOCKS = 2_000
TABLES = ("offexchange_activity", "offexchange_blocks", "offexchange_levels")


def conformed(name: str, frame: pl.DataFrame, session: date) -> pl.DataFrame:
    return DATASETS[name].conform(frame, session).with_columns(pl.lit(session, dtype=pl.Date).alias(SESSION))


def day_of(raw: pl.DataFrame, session: date, daily: pl.DataFrame | None = None) -> dict[str, pl.DataFrame]:
    """A session of raw stock trades through curation and activity, every table as the lake would hold it."""
    out = offexchange_prints({"massive_stock_trades": raw}, session).tables
    tables = {name: conformed(name, frame, session) for name, frame in out.items()}
    given = tables if daily is None else tables | {"equity_bars_1d": daily}
    made = offexchange_activity(given, session).tables
    return tables | {name: conformed(name, made[name], session) for name in TABLES}


# --- Cost ----------------------------------------------------------------------------------------------------------------------


def large_day(trades: int) -> pl.DataFrame:
    """Raw trades of a session with a heavy-tailed number of trades per stock, in the order of the lake."""
    rng = np.random.default_rng(7)
    weight = rng.pareto(1.2, STOCKS) + 0.05
    stock = np.sort(rng.choice(STOCKS, size=trades, p=weight / weight.sum()))
    opened, closed = (int(m.timestamp()) * 10**9 for m in (sessions.open_utc(DAY), sessions.close_utc(DAY)))
    sip = rng.integers(opened, closed, trades)
    off = rng.random(trades) < 0.4
    base = np.exp(rng.normal(4.0, 0.8, STOCKS))[stock]
    cents = np.rint(base * np.exp(rng.normal(0.0, 0.003, trades)) * 100.0)
    price = np.where(off & (rng.random(trades) < 0.5), cents + rng.integers(1, 100, trades) / 100.0, cents) / 100.0
    texts = np.array(["", "37", "14", "14,37", "41", "10,41", "2,41", "53,52,41", "12,37", "32"])
    chosen = rng.choice(texts.size, size=trades, p=[0.3, 0.3, 0.15, 0.12, 0.05, 0.03, 0.02, 0.01, 0.01, 0.01])
    size = np.where(
        off & (rng.random(trades) < 0.15), np.round(rng.random(trades) * 3 + 0.001, 3), np.ceil(rng.lognormal(3.7, 1.3, trades))
    )
    return (
        pl.DataFrame(
            {
                "ticker": pl.Series(np.array([f"S{i:04d}" for i in range(STOCKS)])[stock]),
                "conditions": pl.Series(texts[chosen]).replace("", None),
                "correction": pl.Series(["0"]).new_from_index(0, trades),
                "exchange": np.where(off, 4, 11),
                "id": pl.Series(np.arange(trades)).cast(pl.String),
                "participant_timestamp": sip - rng.integers(10_000, 900_000_000, trades),
                "price": np.maximum(price, 0.01),
                "sequence_number": np.arange(trades),
                "sip_timestamp": sip,
                "size": size,
                "tape": np.ones(trades, dtype=np.int64),
                "trf_id": np.where(off, 202, 0),
                "trf_timestamp": np.where(off, sip - 50_000, 0),
            }
        )
        .sort("ticker", "sip_timestamp")
        .with_columns(pl.int_range(pl.len(), dtype=pl.Int64).alias("row"), pl.lit(None, dtype=pl.String).alias("extra"))
    )


def cost(millions: list[float]) -> None:
    day_of(large_day(20_000), DAY)
    print("| trades | curate | activity | ordering for the lake | together per million | read and group by polars | peak memory |")
    print("|---|---|---|---|---|---|---|")
    for million in millions:
        raw = large_day(int(million * 1e6))
        began = time.process_time()
        out = offexchange_prints({"massive_stock_trades": raw}, DAY).tables
        curated = time.process_time() - began
        began = time.process_time()
        tables = {name: conformed(name, frame, DAY) for name, frame in out.items()}
        ordered = time.process_time() - began
        began = time.process_time()
        offexchange_activity(tables, DAY)
        derived = time.process_time() - began
        peak = (peak_memory_bytes() or 0) / 1e9
        file = io.BytesIO()
        raw.write_parquet(file)
        file.seek(0)
        began = time.process_time()
        pl.read_parquet(file).group_by("ticker", pl.col("sip_timestamp") // (60 * 10**9), "exchange").agg(
            pl.col("size").sum(), pl.col("price").max()
        )
        rival = time.process_time() - began
        print(
            f"| {million:g} M | {curated:.2f} s | {derived:.2f} s | {ordered:.2f} s | {(curated + derived) / million:.2f} s | "
            f"{rival:.2f} s | {peak:.2f} GB |",
            flush=True,
        )


# --- Truth ---------------------------------------------------------------------------------------------------------------------


def market_tables(seed: int, days: int = 80) -> tuple[dict[str, pl.DataFrame], dict[str, pl.DataFrame]]:
    """Truth of a market and what the steps make of its files, all sessions together."""
    spec = MarketSpec(
        seed=seed,
        sessions=days,
        trades_per_underlying_session=20,
        episodes=0.0,
        decoys=0.0,
        include_reference=False,
        stock_tape_trades=4_000,
    )
    market = build(spec)
    made: dict[str, list[pl.DataFrame]] = {}
    for file in market.files():
        if "us_stocks_sip/trades_v1" not in file.key:
            continue
        session = date.fromisoformat(file.key.rsplit("/", 1)[1][:10])
        raw = DATASETS["massive_stock_trades"].conform(massive.stock_trades(file.key, file.body, session), session)
        for name, frame in day_of(raw, session).items():
            made.setdefault(name, []).append(frame)
    tables = {name: pl.concat(frames) for name, frames in made.items()}
    activity = tables["offexchange_activity"]
    tables["offexchange_accumulation"] = pl.concat(
        conformed(
            "offexchange_accumulation",
            offexchange_accumulation({"offexchange_activity": activity.filter(pl.col(SESSION) <= day)}, day).tables[
                "offexchange_accumulation"
            ],
            day,
        )
        for day in market.days
    )
    return market.truth(), tables


def judged_blocks(truth: dict[str, pl.DataFrame], tables: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """Planted blocks with the verdict on each, `none` where it is no block."""
    found = tables["offexchange_blocks"].select(
        SESSION,
        "underlying",
        pl.col("ts_utc").cast(pl.Int64).alias("sip_timestamp"),
        "price",
        "size",
        "verdict",
        "absorbed_probability",
    )
    # A block can be there twice because it happened twice: one verdict each is enough.
    key = [SESSION, "underlying", "sip_timestamp", "price", "size"]
    joined = truth["stock_blocks"].join(found.unique(key, keep="first"), on=key, how="left")
    return joined.with_columns(pl.col("verdict").fill_null("none"))


def signed_prints(truth: dict[str, pl.DataFrame], tables: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """Rule, inferred and true side of the prints of every tenth session."""
    parts = []
    told = truth["stock_trades"].filter((pl.col("exchange") == 4) & pl.col("correction").is_in((0, 1, 8)))
    for day in sorted(tables["offexchange_prints"][SESSION].unique())[::10]:
        prints = tables["offexchange_prints"].filter(pl.col(SESSION) == day)
        bars = tables["lit_bars_1m"].filter(pl.col(SESSION) == day).sort("underlying", "ts_utc")
        kind = pl.Enum(pl.concat([prints["underlying"], bars["underlying"]]).unique().sort())
        group = numbers(prints["underlying"], kind)
        lit = lit_of(bars, numbers(bars["underlying"], kind))
        side, rule = sides(prints["price"].to_numpy(), prints["has_current_price"].to_numpy(), group, executed(prints), lit)
        key = ["ticker", "sip_timestamp", "price", "size"]
        found = prints.select(
            pl.col("underlying").alias("ticker"), pl.col("ts_utc").cast(pl.Int64).alias("sip_timestamp"), "price", "size"
        ).with_columns(pl.Series("inferred", side), pl.Series("rule", rule))
        parts.append(found.join(told.filter(pl.col(SESSION) == day).unique(key), on=key).select("inferred", "rule", "side", "size"))
    return pl.concat(parts)


def truth(seeds: list[int]) -> None:
    blocks, prints, stories, alarms = [], [], [], []
    judged = 0
    for seed in seeds:
        told, tables = market_tables(seed)
        blocks.append(judged_blocks(told, tables))
        prints.append(signed_prints(told, tables))
        caught, raised = judged_stories(told, tables)
        stories.append(caught)
        alarms.append(raised)
        judged += tables["offexchange_accumulation"]["state"].count()
    print_blocks(pl.concat(blocks))
    print_sides(pl.concat(prints))
    print_stories(pl.concat(stories), pl.concat(alarms), judged)


def print_blocks(blocks: pl.DataFrame) -> None:
    verdicts = ["absorbed", "moved", "unclear", "no_current_price", "near_close", "no_lit_prices", "none"]
    print(f"\n| planted | blocks | {' | '.join(verdicts)} |\n|---|---|{'---|' * len(verdicts)}")
    for kind in ("absorbed", "moved", "unpriced", "late"):
        mine = blocks.filter(pl.col("kind") == kind)
        print(f"| {kind} | {mine.height} | " + " | ".join(str((mine["verdict"] == v).sum()) for v in verdicts) + " |")
    called = blocks.filter(pl.col("verdict") == "absorbed")
    true = (called["kind"] == "absorbed").sum()
    all_absorbed = (blocks["kind"] == "absorbed").sum()
    print(f"\nabsorbed: precision {true / called.height:.2f}, recall {true / all_absorbed:.2f}")
    print("\n| probability | blocks | truly absorbed |\n|---|---|---|")
    known = blocks.filter(pl.col("absorbed_probability").is_not_null() & pl.col("kind").is_in(("absorbed", "moved")))
    # Planted 4 : 3; weighed to the even odds that the probability assumes.
    weight = (
        pl.when(pl.col("kind") == "moved")
        .then((known["kind"] == "absorbed").sum() / (known["kind"] == "moved").sum())
        .otherwise(1.0)
    )
    for low in (0.0, 0.2, 0.4, 0.6, 0.8):
        mine = known.filter(pl.col("absorbed_probability").is_between(low, low + 0.2, closed="left")).with_columns(weight=weight)
        share = mine.filter(pl.col("kind") == "absorbed")["weight"].sum() / max(mine["weight"].sum(), 1e-9)
        print(f"| {low:.1f} to {low + 0.2:.1f} | {mine.height} | {share:.2f} |")


def print_sides(prints: pl.DataFrame) -> None:
    print("\n| rule | share of prints | right |\n|---|---|---|")
    for number, name in RULE_NAMES.items():
        mine = prints.filter(pl.col("rule") == number)
        signed = mine.filter(pl.col("inferred") != 0)
        right = f"{(signed['inferred'] == signed['side']).mean():.2f}" if signed.height else "abstains"
        print(f"| {name} | {mine.height / prints.height:.2f} | {right} |")


def judged_stories(truth: dict[str, pl.DataFrame], tables: dict[str, pl.DataFrame]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Each story with whether a state was raised from its third session until two after its end; and every raised state."""
    found = tables["offexchange_accumulation"]
    days = sorted(found[SESSION].unique())
    place = {day: i for i, day in enumerate(days)}
    raised = found.filter(pl.col("state").is_in(("accumulation", "distribution"))).select(
        SESSION, "underlying", "state", "is_quiet"
    )
    rows, explained = [], []
    for underlying, kind, first, last in truth["stock_stories"].iter_rows():
        span = days[place[first] : place[last] + 3]
        mine = raised.filter((pl.col("underlying") == underlying) & pl.col(SESSION).is_in(span))
        explained.append(mine.with_columns(pl.lit(kind).alias("kind")))
        rows.append((kind, (mine["state"] == "accumulation").any(), (mine["state"] == "distribution").any()))
    stories = pl.DataFrame(rows, schema=["kind", "accumulation", "distribution"], orient="row")
    within = pl.concat(explained) if explained else raised.with_columns(pl.lit("").alias("kind"))
    alarms = raised.join(within.select(SESSION, "underlying", "kind"), on=[SESSION, "underlying"], how="left")
    return stories, alarms.select("state", pl.col("kind").fill_null("none"))


def print_stories(stories: pl.DataFrame, alarms: pl.DataFrame, judged: int) -> None:
    print("\n| planted | stories | called accumulation | called distribution |\n|---|---|---|---|")
    for kind in sorted(stories["kind"].unique()):
        mine = stories.filter(pl.col("kind") == kind)
        print(f"| {kind} | {mine.height} | {mine['accumulation'].sum()} | {mine['distribution'].sum()} |")
    right = alarms.filter(pl.col("state") == pl.col("kind")).height
    precision = right / max(alarms.height, 1)
    print(f"\n{alarms.height} of {judged} judged underlying-sessions were called; {right} inside such a story ({precision:.2f})")
    print(alarms.group_by("kind").len().sort("kind"))


if __name__ == "__main__":
    what, arguments = (sys.argv[1] if len(sys.argv) > 1 else "truth"), sys.argv[2:]
    if what == "cost":
        cost([float(a) for a in arguments] or [1.0, 3.0])
    else:
        truth([int(a) for a in arguments] or list(SEEDS))
