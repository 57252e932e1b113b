"""Hits of the rules of unusual flow against the truth of the synthetic market.

    python benchmarks/hits.py [SEED ...]

Seeds 301 to 304 unless told otherwise, each a market of 12 underlyings and 24 sessions with quotes; the pipeline runs as far as
`flow_hits`, with the default thresholds. A hit is informed where at least half of the contracts of its packets are of the orders of
informed episodes, a decoy likewise. An episode with orders on these sessions is found by a rule with one informed hit that holds
orders of it. Precision is the share of hits that are informed, recall the share of episodes that are found. The tables are those in
docs/flow.md.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from datetime import date
from pathlib import Path

import polars as pl
from packets import aligned
from sklearn.metrics import roc_auc_score

from flowlake.backtest.episodes import INFORMED
from flowlake.datasets.hits import RULES
from flowlake.lake.lake import Lake, open_lake
from flowlake.market import MarketSpec, build, write_bucket
from flowlake.market.s3server import s3_server
from flowlake.pipeline.plan import select
from flowlake.pipeline.run import Request, run
from flowlake.sources.bucket import Bucket

SEEDS = (301, 302, 303, 304)
SESSIONS = 24
BUCKET = "flowlake"
STEPS = ("ingest", "curate", "trade_sides", "option_iv", "flow_packets", "flow_factors", "flow_hits")
CONFIDENCE_EDGES = (0.0, 0.5, 0.6, 0.7, 0.8, 1.0)
"""The last interval includes its upper end."""


def measured(seed: int) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Of one market: hits (`rule`, `tier`, `confidence`, `informed`, `decoy`, `episodes`), informed episodes with orders on its
    sessions, and packets of one contract (`premium_usd`, `informed`, `decoy`).
    """
    market = build(MarketSpec(seed=seed, sessions=SESSIONS, include_quotes=True))
    with tempfile.TemporaryDirectory(prefix="flowlake-hits-") as folder, s3_server([BUCKET]) as server:
        write_bucket(market, Bucket(server.access, BUCKET).put)
        settings = server.settings(Path(folder) / "lake", scratch=Path(folder) / "scratch")
        report = run(settings, Request(market.days[0], market.days[-1], select(list(STEPS))))
        if report.exit_code:
            raise SystemExit(f"seed {seed}: the run ended with {report.exit_code}")
        lake = open_lake(settings=settings)
        truth = market.truth()
        kinds = truth["episodes"].select("episode_id", "kind")
        told = truth["trades"].join(kinds, on="episode_id", how="left")
        sessions = [judged(lake, told.filter(pl.col("session") == day), day) for day in market.days]
    hits, packets = (pl.concat(part) for part in zip(*sessions, strict=True))
    episodes = told.filter(pl.col("kind") == INFORMED).select("episode_id").unique()
    by_seed = pl.lit(seed).alias("seed")
    return hits.with_columns(by_seed), episodes.with_columns(by_seed), packets


def judged(lake: Lake, truth: pl.DataFrame, day: date) -> tuple[pl.DataFrame, pl.DataFrame]:
    """One session's hits and packets of one contract, with what their contracts really were."""
    tape = lake.read("option_trades", sessions=[day]).collect()
    kinds = truth.select("episode_id", "kind").unique("episode_id")
    prints = aligned(tape, truth).join(kinds, on="episode_id", how="left").select("print_no", "size", "episode_id", "kind")
    members = lake.read("packet_prints", sessions=[day]).select("packet_id", "print_no").collect()
    members = members.join(prints.cast({"print_no": pl.Int64}), on="print_no")
    of_kind = {"informed": pl.col("kind") == INFORMED, "decoy": pl.col("kind").str.starts_with("decoy:")}
    shares = [
        ((pl.col("size") * kind.fill_null(False)).sum() * 2 >= pl.col("size").sum()).alias(name) for name, kind in of_kind.items()
    ]
    episodes = pl.col("episode_id").filter(of_kind["informed"]).unique().sort().alias("episodes")
    packets = (
        lake.read("flow_packets", sessions=[day])
        .filter(pl.col("contract").is_not_null())
        .select("packet_id", "premium_usd")
        .collect()
    )
    by_packet = packets.join(members.group_by("packet_id").agg(shares), on="packet_id")
    hits = lake.read("flow_hits", sessions=[day]).select("hit_id", "rule", "tier", "confidence", "packet_ids").collect()
    evidence = hits.select("hit_id", pl.col("packet_ids").alias("packet_id")).explode("packet_id").join(members, on="packet_id")
    hits = hits.drop("packet_ids").join(evidence.group_by("hit_id").agg(*shares, episodes), on="hit_id")
    return hits.drop("hit_id"), by_packet.select("premium_usd", "informed", "decoy")


def share(part: int, whole: int, digits: int = 1) -> str:
    return f"{100 * part / whole:.{digits}f} %" if whole else ""


def print_tables(hits: pl.DataFrame, episodes: pl.DataFrame, packets: pl.DataFrame) -> None:
    print(f"\n{episodes.height} informed episodes\n")
    for what, rows in (("packets of one contract", packets), ("largest by premium", packets.top_k(hits.height, by="premium_usd"))):
        informed, decoys = (share(rows[kind].sum(), rows.height, 2) for kind in ("informed", "decoy"))
        print(f"of {rows.height:,} {what} {informed} are informed, {decoys} decoys")
    print()
    print("| rule | hits | confirmed | informed (precision) | of those confirmed | decoys | episodes found (recall) |")
    print("|---|---|---|---|---|---|---|")
    for rule in RULES:
        print(line(f"`{rule.name}`", hits.filter(pl.col("rule") == rule.name), episodes.height))
    print(line("any", hits, episodes.height))
    print("\n| confidence stated | hits | mean stated | informed |\n|---|---|---|---|")
    for low, high in itertools.pairwise(CONFIDENCE_EDGES):
        is_in = pl.col("confidence").is_between(low, high, closed="both" if high == CONFIDENCE_EDGES[-1] else "left")
        part = hits.filter(is_in)
        if part.height:
            print(f"| {low} to {high} | {part.height:,} | {part['confidence'].mean():.2f} | {part['informed'].mean():.3f} |")
    print(f"\nAUC of the confidence for informed among hits: {roc_auc_score(hits['informed'], hits['confidence']):.2f}")


def line(name: str, hits: pl.DataFrame, episodes: int) -> str:
    sure = hits.filter(pl.col("tier") == "confirmed")
    found = hits.filter("informed").explode("episodes").select("seed", pl.col("episodes")).drop_nulls().unique().height
    cells = (
        f"{hits.height:,}",
        f"{sure.height:,}",
        share(hits["informed"].sum(), hits.height),
        share(sure["informed"].sum(), sure.height),
        share(hits["decoy"].sum(), hits.height),
        f"{found} of {episodes}",
    )
    return f"| {name} | " + " | ".join(cells) + " |"


def main(seeds: tuple[int, ...]) -> None:
    found = []
    for seed in seeds:
        found.append(measured(seed))
        print(f"seed {seed}: {found[-1][0].height} hits, {found[-1][1].height} informed episodes", file=sys.stderr, flush=True)
    hits, episodes, packets = (pl.concat(part) for part in zip(*found, strict=True))
    print_tables(hits, episodes, packets)


if __name__ == "__main__":
    main(tuple(map(int, sys.argv[1:])) or SEEDS)
