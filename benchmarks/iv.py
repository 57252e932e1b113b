"""European implied volatility and sensitivities against the strongest rivals, one core.

    .venv/bin/python benchmarks/iv.py [options]

Rivals: vanilla-option-pricers ("Let's Be Rational" of 2024 in numba, its scalar function in a compiled loop; `make bench` installs
it), a QuantLib loop, and the usual Newton on SciPy. py_vollib_vectorized does not compile with today's numba; it is measured if
`--rival-python` names the interpreter of an environment of its own, which runs it on the same contracts on the same core:

    uv venv --python 3.11 rival
    uv pip install --python rival/bin/python py_vollib_vectorized==0.1.1 py_vollib==1.0.1 py_lets_be_rational==1.0.1 \\
        numba==0.58.1 numpy==1.26.4 "pandas<2.2" "setuptools<70"
    .venv/bin/python benchmarks/iv.py --rival-python rival/bin/python

Everything runs on the same contracts in the same process; each figure is the median of several runs, and the ratio is what matters:
the absolute speeds are this machine's. Errors are the largest over contracts whose price, as a double, determines the volatility to
1e-12. The QuantLib loop runs on the first 20,000 contracts, its time per contract does not depend on how many there are.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import QuantLib as ql  # noqa: N813 - the name its own documentation uses
from numba import njit
from scipy.special import ndtr
from vanilla_option_pricers.black_scholes import infer_bsm_implied_vol

from flowlake.core.arrays import Float
from flowlake.quant import european

LOOP = 20_000
RUNS = 7


def contracts(count: int) -> dict[str, Float]:
    """Strikes within four deviations of the spot, up to two years, 15 % on their last day, volatilities around 30 %."""
    rng = np.random.default_rng(20260105)
    spot = rng.uniform(20.0, 500.0, count)
    days = rng.choice(np.array([1, 3, 7, 14, 30, 60, 90, 180, 365, 730]), count).astype(np.float64)
    years = np.where(rng.random(count) < 0.15, rng.uniform(0.02, 0.27, count), days) / 365.0
    vol = np.clip(np.exp(rng.normal(-1.2, 0.5, count)), 0.05, 2.0)
    strike = np.round(spot * np.exp(np.clip(rng.normal(0.0, 1.3, count), -4.0, 4.0) * vol * np.sqrt(years)), 2)
    right = rng.choice(np.array([-1.0, 1.0]), count)
    return {"spot": spot, "strike": strike, "years": years, "vol": vol, "right": right}


def newton(price: Float, forward: Float, strike: Float, years: Float, right: Float, discount: Float) -> Float:
    """The usual vectorised way: Newton from the inflection point, every contract iterated until all have settled."""
    root = np.sqrt(years)
    log_moneyness = np.log(forward / strike)
    s = np.sqrt(2.0 * np.abs(log_moneyness)) + 1e-3
    target = price / discount
    for _ in range(60):
        d1 = log_moneyness / s + 0.5 * s
        value = right * (forward * ndtr(right * d1) - strike * ndtr(right * (d1 - s)))
        vega = forward * np.exp(-0.5 * d1 * d1) / math.sqrt(2.0 * math.pi)
        step = (target - value) / np.maximum(vega, 1e-300)
        s = np.clip(s + step, 1e-8, 20.0)
        if (np.abs(step) <= 1e-14 * s).all():
            break
    return s / root


@njit(error_model="numpy")
def vanilla_loop(price: Float, forward: Float, strike: Float, years: Float, right: Float, discount: Float) -> Float:
    out = np.empty(price.size)
    for i in range(price.size):
        side = "C" if right[i] > 0.0 else "P"
        out[i] = infer_bsm_implied_vol(forward[i], years[i], strike[i], price[i], discount[i], side)
    return out


def quantlib(price: Float, forward: Float, strike: Float, years: Float, right: Float, discount: Float) -> Float:
    sides = [ql.Option.Call if r > 0 else ql.Option.Put for r in right.tolist()]
    rows = zip(sides, *(a.tolist() for a in (strike, forward, price, discount, years)), strict=True)
    out = []
    for side, k, f, p, d, t in rows:
        try:
            out.append(ql.blackFormulaImpliedStdDev(side, k, f, p, d, 0.0, 0.3 * math.sqrt(t), 1e-14, 200) / math.sqrt(t))
        except RuntimeError:
            out.append(math.nan)
    return np.array(out)


def quantlib_greeks(price: Float, forward: Float, strike: Float, years: Float, right: Float, discount: Float, spot: Float) -> None:
    vols = quantlib(price, forward, strike, years, right, discount)
    for i in range(vols.size):
        if math.isnan(vols[i]):
            continue
        payoff = ql.PlainVanillaPayoff(ql.Option.Call if right[i] > 0 else ql.Option.Put, float(strike[i]))
        t, s = float(years[i]), float(spot[i])
        black = ql.BlackCalculator(payoff, float(forward[i]), float(vols[i]) * math.sqrt(t), float(discount[i]))
        black.delta(s), black.gamma(s), black.vega(t), black.theta(s, t), black.rho(t)


# Runs under the other interpreter: reads the market from a file, leaves volatilities and the median seconds of three runs there.
VOLLIB = """
import statistics, sys, time
import numpy as np
from py_vollib_vectorized import vectorized_implied_volatility_black as invert
price, forward, strike, years, right, rate = np.load(sys.argv[1])
flag = np.where(right > 0.0, "c", "p")
work = lambda: invert(price, forward, strike, rate, years, flag, on_error="ignore", return_as="numpy")
found, seconds = work(), []
for _ in range(3):
    start = time.process_time()
    work()
    seconds.append(time.process_time() - start)
np.save(sys.argv[1], np.append(found, statistics.median(seconds)))
"""


def vollib(python: Path, market: tuple[Float, ...], rate: float) -> tuple[Float, float]:
    """Volatilities of py_vollib_vectorized and its options per second; it inherits the core that this process is bound to."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "market.npy"
        np.save(path, np.array([*market[:5], np.full(market[0].size, rate)]))
        subprocess.run([str(python), "-W", "ignore", "-c", VOLLIB, str(path)], check=True)
        found = np.load(path)
    return found[:-1], market[0].size / float(found[-1])


FIRST_CALLS = {
    "volatility": "european.implied_vol(10.0, 100.0, 100.0, 1.0, 1)",
    "volatility and greeks": "european.implied_vol_greeks(10.0, 100.0, 100.0, 1.0, 1, 0.04)",
    "American price": "american.price(100.0, 100.0, 1.0, 0.2, -1, 0.04)",
    "American exposure greeks": "american.exposure_greeks(100.0, 100.0, 1.0, 0.2, -1, 0.04)",
    "American volatility, greeks": "american.implied_vol_greeks(10.0, 100.0, 100.0, 1.0, -1, 0.04)",
}


def first_call(statement: str, cache: str) -> float:
    """Seconds of a first call in a new process that keeps its machine code in `cache`; imports are not counted."""
    timed = (
        "import time; from flowlake.quant import american, european; start = time.perf_counter(); "
        f"{statement}; print(time.perf_counter() - start)"
    )
    environment = os.environ | {"NUMBA_CACHE_DIR": cache}
    done = subprocess.run([sys.executable, "-c", timed], env=environment, check=True, capture_output=True, text=True)
    return float(done.stdout)


def median_seconds(work: Callable[[], object], runs: int) -> float:
    work()
    seconds = []
    for _ in range(runs):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


def main() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("Everything runs")[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("options", nargs="?", type=int, default=1_000_000, help="contracts (default: 1000000)")
    parser.add_argument(
        "--rival-python", type=Path, help="interpreter with py_vollib_vectorized, numba 0.58 and numpy 1.26; see above"
    )
    arguments = parser.parse_args()
    count = max(arguments.options, LOOP)
    made = contracts(count)
    spot, strike, years, vol, right = made.values()
    rate, carry = 0.04, 0.01
    forward, discount = spot * np.exp((rate - carry) * years), np.exp(-rate * years)
    price = european.price(forward, strike, years, vol, right, discount)
    vega = european.greeks(spot, strike, years, vol, right, rate, carry).vega
    determined = np.spacing(forward + strike) * discount < 1e-12 * vega

    market = (price, forward, strike, years, right, discount)
    few = tuple(a[:LOOP] for a in market)
    found = {
        "flowlake": european.implied_vol(*market),
        "vanilla-option-pricers": vanilla_loop(*market),
        "SciPy, vectorised Newton": newton(*market),
        "QuantLib, loop": quantlib(*few),
    }
    speed = {
        "flowlake": count / median_seconds(lambda: european.implied_vol(*market), RUNS),
        "vanilla-option-pricers": count / median_seconds(lambda: vanilla_loop(*market), 3),
        "SciPy, vectorised Newton": count / median_seconds(lambda: newton(*market), 1),
        "QuantLib, loop": LOOP / median_seconds(lambda: quantlib(*few), 3),
    }
    if arguments.rival_python:
        found["py_vollib_vectorized"], speed["py_vollib_vectorized"] = vollib(arguments.rival_python, market, rate)
    print(f"implied volatility, {count:,} contracts, {determined.mean():.3%} of them determined to 1e-12\n")
    print(f"{'':28}{'M/s':>8}{'ours is':>10}{'max error':>12}{'failures':>10}")
    for name, values in found.items():
        size = values.size
        error = np.abs(values - vol[:size])[determined[:size]]
        ratio = f"{speed['flowlake'] / speed[name]:.1f} x"
        failures = f"{np.isnan(values).mean():.3%}"
        print(f"{name:28}{speed[name] / 1e6:8.2f}{ratio:>10}{np.nanmax(error):12.1e}{failures:>10}")

    fused = count / median_seconds(lambda: european.implied_vol_greeks(price, spot, strike, years, right, rate, carry), RUNS)
    loop = LOOP / median_seconds(lambda: quantlib_greeks(*few, spot[:LOOP]), 3)
    print("\nimplied volatility with delta, gamma, vega, theta and rho\n")
    print(f"{'flowlake':28}{fused / 1e6:8.2f}{'1.0 x':>10}")
    print(f"{'QuantLib, loop':28}{loop / 1e6:8.2f}{f'{fused / loop:.1f} x':>10}")
    alone = speed["vanilla-option-pricers"]
    print(f"{'vanilla-option-pricers,':28}{alone / 1e6:8.2f}{f'{fused / alone:.1f} x':>10}   volatility alone")

    print(f"\n{'seconds of the first call':28}{'no cache':>10}{'cached':>10}\n")
    for name, statement in FIRST_CALLS.items():
        with tempfile.TemporaryDirectory() as cache:
            seconds = [first_call(statement, cache) for _ in range(2)]
        print(f"{name:28}{seconds[0]:10.2f}{seconds[1]:10.2f}")


if __name__ == "__main__":
    main()
