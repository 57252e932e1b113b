"""What the flow factors, scores and hits of a session cost, per million prints, and whether the cost is linear.

    python benchmarks/flow_factors.py [PRINTS ...]

1 and 3 million prints unless told otherwise, of 4,500 underlyings whose activity is heavy-tailed. CPU seconds of all threads, not
the clock, and the most memory that the process held beyond its inputs. Compilation is not counted.
"""

from __future__ import annotations

import resource
import sys
import threading
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from flowlake.core import sessions
from flowlake.datasets.flow_factors import FLOW_DATASETS, PROFILE_SESSIONS
from flowlake.datasets.model import SESSION, Inputs
from flowlake.flow.abnormality import flow_scores
from flowlake.flow.factors import flow_factors
from flowlake.flow.hits import flow_hits
from flowlake.flow.packets import flow_packets

T = date(2024, 3, 13)
UNDERLYINGS = 4_500
CONTRACTS_EACH = 20


def inputs_of(prints: int) -> dict[str, pl.DataFrame]:
    """Tape, sides, contracts, volatilities and stock bars of one session."""
    rng = np.random.Generator(np.random.PCG64(3))
    weight = rng.pareto(1.1, UNDERLYINGS) + 0.02
    owner = np.sort(rng.choice(UNDERLYINGS, prints, p=weight / weight.sum()))
    names = np.array([f"U{i:04}" for i in range(UNDERLYINGS)])
    place = rng.integers(0, CONTRACTS_EACH, prints)
    order = np.lexsort((rng.random(prints), place, owner))
    owner, place = owner[order], place[order]
    expiry = T + timedelta(days=16)
    strikes = 90.0 + np.arange(CONTRACTS_EACH // 2) * 2.0
    rights = np.where(np.arange(CONTRACTS_EACH) % 2 == 0, "C", "P")
    thousandths = (pl.col("strike") * 1000).cast(pl.Int64)
    contracts = pl.DataFrame(
        {
            "underlying": np.repeat(names, CONTRACTS_EACH),
            "right": np.tile(rights, UNDERLYINGS),
            "strike": np.tile(np.repeat(strikes, 2), UNDERLYINGS),
        }
    ).with_columns(
        pl.col("underlying").alias("root"),
        pl.lit(expiry).alias("expiry"),
        pl.format("{}{}{}00{}", "underlying", pl.lit(f"{expiry:%y%m%d}"), "right", thousandths).alias("contract"),
        pl.lit(100.0).alias("multiplier"),
        pl.lit(False).alias("is_adjusted"),
        pl.lit("american").alias("exercise"),
    )
    opening = int(sessions.open_utc(T).timestamp() * 1000)
    millisecond = opening + (rng.beta(0.7, 0.7, prints) * 23_400_000).astype(np.int64)
    cents = rng.integers(5, 2_000, prints)
    size = np.maximum(1, rng.pareto(1.2, prints).astype(np.int64) * 2)
    kind = rng.random(prints)
    flags = {
        "in_volume": np.ones(prints, bool), "in_baseline": np.ones(prints, bool), "may_be_signed": kind > 0.1, "is_iso": kind > 0.9,
        "is_auction": (kind > 0.6) & (kind < 0.9),
        "is_multi_leg": kind < 0.08, "is_stock_tied": np.zeros(prints, bool), "is_cross": np.zeros(prints, bool),
        "is_floor": np.zeros(prints, bool), "is_late": np.zeros(prints, bool), "is_cancelled": kind < 0.001,
    }  # fmt: skip
    trades = pl.concat(
        [
            contracts.select("contract", "underlying", "root", "expiry", "right", "strike")[owner * CONTRACTS_EACH + place],
            pl.DataFrame(
                {
                    "ts_utc": pl.Series(millisecond).cast(pl.Datetime("ms", "UTC")).cast(pl.Datetime("ns", "UTC")),
                    "price": cents / 100,
                    "size": size,
                    "premium_usd": (cents * size).astype(np.float64),
                    "exchange": 300 + rng.integers(0, 18, prints),
                    "condition": np.where(kind < 0.08, 232, 209),
                    "condition_group": np.where(kind < 0.08, "multi_leg", "regular"),
                    **flags,
                }
            ),
        ],
        how="horizontal",
    ).sort("contract", "ts_utc", maintain_order=True)
    probability = np.where(rng.random(prints) < 0.1, np.nan, rng.random(prints))
    sides = pl.DataFrame(
        {
            "print_no": np.arange(prints), "buy_probability": pl.Series(probability).fill_nan(None), "bid": 1.0, "ask": 1.1,
            "quote_age_ms": 5.0,
        }
    )  # fmt: skip
    delta = contracts.select("contract", "underlying", "strike", pl.lit(0.4).alias("delta"), pl.lit(100.0).alias("spot"))
    implied = pl.concat([delta.with_columns(pl.lit(day).alias(SESSION)) for day in (sessions.previous_session(T), T)])
    stock = pl.DataFrame({"underlying": names, "volume": 1e6})
    return {"option_trades": trades, "trade_sides": sides, "contracts": contracts, "option_iv": implied, "equity_bars_1d": stock}


def measured(work: Callable[[], dict[str, pl.DataFrame]]) -> tuple[dict[str, pl.DataFrame], float, float]:
    """What the work gives, its CPU seconds, and the megabytes that the process grew by at most."""
    page = resource.getpagesize()
    peak = before = _resident(page)
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.02):
            peak = max(peak, _resident(page))

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.process_time()
    try:
        made = work()
    finally:
        spent = time.process_time() - began
        done.set()
        watcher.join()
    return made, spent, (peak - before) / 1e6


def _resident(page: int) -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * page


def typed(made: dict[str, pl.DataFrame], day: date) -> dict[str, pl.DataFrame]:
    declared = {dataset.name: dataset for dataset in FLOW_DATASETS}
    return {name: declared[name].conform(frame, day).with_columns(pl.lit(day).alias(SESSION)) for name, frame in made.items()}


def history(made: dict[str, pl.DataFrame]) -> Inputs:
    """The session's own factors and profiles as if every session before had been like it."""
    days = sessions.sessions_between(T - timedelta(days=120), T)[-PROFILE_SESSIONS:]
    return {
        name: pl.concat([made[name].with_columns(pl.lit(day).alias(SESSION)) for day in days])
        for name in ("flow_factors", "flow_profiles")
    }


def main(counts: tuple[int, ...]) -> None:
    small = inputs_of(20_000)
    packets = flow_packets(small, T).tables["flow_packets"]
    warm = typed(flow_factors({**small, "flow_packets": packets}, T).tables, T)
    flow_scores(history(warm), T)
    flow_hits({"flow_packets": packets, **history(warm), "flow_minutes": warm["flow_minutes"], "contracts": small["contracts"]}, T)
    print("| prints | packets | flow_factors s / M | MB | flow_scores s / M | MB | flow_hits s / M | MB | hits |")
    print("|---|---|---|---|---|---|---|---|---|")
    for prints in counts:
        inputs = inputs_of(prints)
        packets = flow_packets(inputs, T).tables["flow_packets"]
        given = {**inputs, "flow_packets": packets}
        made, factors_s, factors_mb = measured(lambda given=given: typed(flow_factors(given, T).tables, T))  # type: ignore[misc]
        past = history(made)
        _, scores_s, scores_mb = measured(lambda past=past: flow_scores(past, T).tables)  # type: ignore[misc]
        asked = {"flow_packets": packets, **past, "flow_minutes": made["flow_minutes"], "contracts": inputs["contracts"]}
        hits, hits_s, hits_mb = measured(lambda asked=asked: flow_hits(asked, T).tables)  # type: ignore[misc]
        millions = prints / 1e6
        print(
            f"| {prints:,} | {packets.height:,} | {factors_s / millions:.2f} | {factors_mb:.0f} | {scores_s / millions:.2f} | "
            f"{scores_mb:.0f} | {hits_s / millions:.2f} | {hits_mb:.0f} | {hits['flow_hits'].height:,} |",
            flush=True,
        )


if __name__ == "__main__":
    main(tuple(map(int, sys.argv[1:])) or (1_000_000, 3_000_000))
