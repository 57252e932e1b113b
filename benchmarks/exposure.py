"""Gamma profile and flips of a chain: ours against the usual vectorised NumPy, one core.

    .venv/bin/python benchmarks/exposure.py [contracts]

The rival prices the gamma of all contracts at one spot after the other. Both run on the same chain in the same process, and each
figure is the median of several runs; the ratio is what matters. The difference is the largest over the profile, relative to the
profile of the absolute exposures.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable

import numpy as np

from flowlake.core.arrays import Float
from flowlake.quant.exposure import DYNAMICS, gamma_flip, gamma_profile

SPOT, RATE, DIVIDEND_YIELD = 500.0, 0.04, 0.01
RUNS = 7


def chain(count: int) -> dict[str, Float]:
    """Strikes from 60 to 140 % of the spot on eight expiries, with a skew and random open interest."""
    rng = np.random.default_rng(20260105)
    strike = rng.choice(np.arange(0.6 * SPOT, 1.4 * SPOT, 5.0), count)
    return {
        "strike": strike,
        "years": rng.choice(np.array([1, 2, 7, 14, 30, 90, 180, 365]), count) / 365.0,
        "vol": 0.2 - 0.15 * np.log(strike / SPOT) + 0.005 * rng.normal(size=count),
        "open_interest": rng.integers(0, 5000, count).astype(np.float64),
        "right": rng.choice(np.array([-1.0, 1.0]), count),
    }


def plain(spots: Float, strike: Float, years: Float, vol: Float, open_interest: Float, right: Float) -> Float:
    s = vol * np.sqrt(years)
    held = right * open_interest * 100.0 * np.exp(-DIVIDEND_YIELD * years) / (s * math.sqrt(2.0 * math.pi))
    drift = (RATE - DIVIDEND_YIELD) * years - np.log(strike)
    totals = [held @ np.exp(-0.5 * ((math.log(spot) + drift) / s + 0.5 * s) ** 2) * spot * 0.01 for spot in spots.tolist()]
    return np.array(totals)


def median_milliseconds(work: Callable[[], object]) -> float:
    work()
    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return 1000.0 * statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description="Gamma profile and flips of a chain: ours against NumPy, one core.")
    parser.add_argument("contracts", nargs="?", type=int, default=10_000, help="contracts (default: 10000)")
    count = parser.parse_args().contracts
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    lines = chain(count)
    carry = {"rate": RATE, "dividend_yield": DIVIDEND_YIELD}
    ours = gamma_profile(SPOT, **lines, **carry)
    size = gamma_profile(SPOT, **lines, **carry, convention="absolute").exposure_usd
    theirs = plain(ours.spot, **lines)
    print(
        f"{count:,} contracts, {ours.spot.size} spots, largest difference {np.max(np.abs(ours.exposure_usd - theirs) / size):.0e}\n"
    )
    rival = median_milliseconds(lambda: plain(ours.spot, **lines))
    print(f"{'':36}{'ms':>8}{'ours is':>10}")
    print(f"{'profile, NumPy':36}{rival:8.1f}{'':>10}")
    for dynamics in DYNAMICS:
        profile = median_milliseconds(lambda d=dynamics: gamma_profile(SPOT, **lines, **carry, dynamics=d))
        print(f"{'profile, ' + dynamics:36}{profile:8.1f}{rival / profile:8.1f} x")
    for dynamics in DYNAMICS:
        flips = gamma_flip(SPOT, **lines, **carry, dynamics=dynamics).size
        every = median_milliseconds(lambda d=dynamics: gamma_flip(SPOT, **lines, **carry, dynamics=d))
        print(f"{f'all {flips} flips, ' + dynamics:36}{every:8.1f}")


if __name__ == "__main__":
    main()
