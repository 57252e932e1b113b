"""Smiles fitted per second: ours against SciPy's least squares on the same SVI slice, one core.

    taskset -c 0 .venv/bin/python benchmarks/surface.py [smiles]

The smiles are SVI slices without arbitrage with noise inside the spread, 10 to 60 strikes, one day to two years. The rivals
minimise the same weighted error in volatility with exact derivatives and no arbitrage condition: MINPACK's method of Levenberg
and Marquardt, and the trust region method with bounds. They run on the first 200 smiles. The error is the distance from the slice
that the quotes were made of. A whole chain is `surface_nodes` of 12 expiries.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.optimize import least_squares

from flowlake.core.arrays import Float
from flowlake.quant.surface import FitReason, Svi, fit_svi, lowest_g, surface_nodes, svi_total_variance

FEW = 200
RUNS = 5


class Smile(NamedTuple):
    years: float
    log_moneyness: Float
    vol: Float
    half_spread: Float
    truth: Svi


def smiles(count: int) -> list[Smile]:
    rng = np.random.default_rng(20260105)
    made: list[Smile] = []
    while len(made) < count:
        years = float(rng.choice(np.array([1, 3, 7, 14, 30, 60, 90, 180, 365, 730]))) / 365.0
        s = float(np.exp(rng.normal(-1.2, 0.5))) * math.sqrt(years)
        b, rho, sigma = rng.uniform(0.05, 0.4) * s, rng.uniform(-0.8, 0.3), rng.uniform(0.3, 2.0) * s
        lowest = rng.uniform(0.6, 1.0) * s * s
        truth = Svi(lowest - b * sigma * math.sqrt(1 - rho * rho), b, rho, rng.uniform(-0.4, 0.4) * s, sigma)
        if not lowest_g(truth) >= 0.0 or b * (1 + abs(rho)) > 1.9:
            continue
        k = np.sort(rng.uniform(-3.0, 2.0, int(rng.integers(10, 61)))) * s
        vol = np.sqrt(svi_total_variance(k, *truth) / years)
        half = vol * (0.005 + 0.02 * np.abs(k) / s)
        made.append(Smile(years, k, vol + half * rng.uniform(-0.7, 0.7, k.size), half, truth))
    return made


def rival(smile: Smile, has_bounds: bool) -> Svi:
    years, k, vol, half, _ = smile
    s = float(np.average(vol)) * math.sqrt(years)

    def errors(x: Float) -> Float:
        d = k - x[3]
        return (np.sqrt(np.maximum(x[0] + x[1] * (x[2] * d + np.sqrt(d * d + x[4] * x[4])), 1e-12) / years) - vol) / half

    def slopes(x: Float) -> Float:
        a, b, rho, m, sigma = x
        d = k - m
        h = np.sqrt(d * d + sigma * sigma)
        scale = 0.5 / (half * np.sqrt(years * np.maximum(a + b * (rho * d + h), 1e-12)))
        return np.stack([scale, scale * (rho * d + h), scale * b * d, -scale * b * (rho + d / h), scale * b * sigma / h], axis=1)

    bounds = ([-s * s * 10, 1e-8, -0.9999, k[0] * 2, 1e-3 * s], [s * s * 10, 2.0, 0.9999, k[-1] * 2, 20 * s])
    first = [0.5 * s * s, 0.2 * s, -0.3, 0.0, 0.5 * s]
    scale = [s * s, s, 1.0, s, s]
    if has_bounds:
        return Svi(*least_squares(errors, first, jac=slopes, bounds=bounds, x_scale=scale).x)
    return Svi(*least_squares(errors, first, jac=slopes, method="lm", x_scale=scale).x)


def median_seconds(work: Callable[[], object], runs: int) -> float:
    work()
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def distances(found: list[Svi], made: list[Smile]) -> tuple[float, float, float]:
    """Median and 95th percentile of the distance from the truth at the quotes, and the share that are no slice or have g < 0."""
    apart, broken = [], 0
    for parameters, smile in zip(found, made, strict=False):
        fitted, true = (np.sqrt(svi_total_variance(smile.log_moneyness, *p) / smile.years) for p in (parameters, smile.truth))
        apart.append(float(np.sqrt(np.mean((fitted - true) ** 2))))
        broken += 0 if lowest_g(parameters) >= 0.0 else 1
    return float(np.nanmedian(apart)), float(np.nanquantile(apart, 0.95)), broken / len(apart)


def main() -> None:
    parser = argparse.ArgumentParser(description="SVI fits: ours against SciPy's least squares, one core.")
    parser.add_argument("smiles", nargs="?", type=int, default=2_000, help="smiles (default: 2000)")
    made = smiles(max(parser.parse_args().smiles, FEW))
    few = made[:FEW]

    def ours() -> list[Svi]:
        return [fit_svi(s.log_moneyness, s.vol, s.years, s.half_spread).parameters for s in made]

    refused = sum(fit_svi(s.log_moneyness, s.vol, s.years, s.half_spread).reason is not FitReason.OK for s in made)
    per_second = {
        "flowlake": len(made) / median_seconds(ours, RUNS),
        "SciPy, unbounded": FEW / median_seconds(lambda: [rival(s, False) for s in few], 3),
        "SciPy, bounded": FEW / median_seconds(lambda: [rival(s, True) for s in few], 3),
    }
    found = {
        "flowlake": ours()[:FEW],
        "SciPy, unbounded": [rival(s, False) for s in few],
        "SciPy, bounded": [rival(s, True) for s in few],
    }
    quotes = sum(s.vol.size for s in made)
    print(f"SVI fits of {len(made):,} smiles, {quotes / len(made):.0f} quotes each; {refused} refused by flowlake\n")
    print(f"{'':22}{'smiles/s':>10}{'ours is':>10}{'median error':>14}{'95 %':>10}{'not sound':>12}")
    for name, speed in per_second.items():
        median, tail, broken = distances(found[name], few)
        ratio = f"{per_second['flowlake'] / speed:.0f} x"
        print(f"{name:22}{speed:10,.0f}{ratio:>10}{median:14.2e}{tail:10.2e}{broken:12.1%}")

    days = np.array([2, 7, 14, 21, 28, 35, 63, 98, 190, 280, 365, 730])
    chains = []
    for smile in made[:50]:
        # One smile at every expiry, in units of its total volatility: no calendar arbitrage but that of the noise.
        n = smile.vol.size
        k = np.concatenate([smile.log_moneyness * math.sqrt(d / 365.0 / smile.years) for d in days])
        vol, half = (np.tile(column, days.size) for column in (smile.vol, smile.half_spread))
        chains.append((np.repeat(days / 365.0, n), k, vol, half))
    seconds = median_seconds(lambda: [surface_nodes(*c) for c in chains], RUNS) / len(chains)
    print(f"\nsurface_nodes of {days.size} expiries: {seconds * 1e3:.2f} ms; 4,500 underlyings: {seconds * 4_500:.0f} core-seconds")


if __name__ == "__main__":
    main()
