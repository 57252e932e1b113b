"""American options: implied volatility with five sensitivities, and prices, against QuantLib and a 2,000-step tree, one core.

    .venv/bin/python benchmarks/american.py [contracts]

The contracts are a mix of an index fund, a large stock and a payer of high dividends, 15 % of them on their last day, strikes up to
four deviations away, cash dividends every quarter, up to two years. Everything runs on one core in the same process, and the ratio
is what matters. Accuracy is measured on prices of a Leisen-Reimer tree of 2,001 steps, which knows nothing of ours but the model:
the volatility found is compared with the one that went in. An error counts as inside when it is below 1e-3, or below what half a
tick of 0.01 USD moves the volatility by. Seconds are those of the processor, medians of several runs.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable

import numpy as np
import QuantLib as ql  # noqa: N813 - the name its own documentation uses
from numba import njit

from flowlake.core.arrays import Float
from flowlake.quant import _american, american, european
from flowlake.quant._american import Grid

RUNS = 5
LOOP = 200
REFERENCE = 1_000
REFERENCE_STEPS = 2_001
RATE = 0.045


def contracts(count: int) -> dict[str, Float]:
    """One row per contract; dividends that do not fall up to its expiry are NaN."""
    rng = np.random.default_rng(20260105)
    kind = rng.integers(0, 3, count)
    spot = np.array([480.0, 190.0, 40.0])[kind] * np.exp(rng.normal(0.0, 0.1, count))
    at_money = np.array([0.15, 0.27, 0.33])[kind] * np.exp(rng.normal(0.0, 0.2, count))
    days = rng.choice(np.array([1, 2, 3, 7, 10, 14, 21, 30, 45, 60, 90, 120, 180, 270, 365, 540, 730]), count)
    today = rng.random(count) < 0.15
    years = np.where(today, rng.uniform(0.02, 0.3, count), days + rng.uniform(0.0, 0.3, count)) / 365.0
    strike = spot * np.exp(np.clip(rng.normal(0.0, 1.3, count), -4.0, 4.0) * at_money * np.sqrt(years))
    strike = np.maximum(np.where(kind == 2, np.round(strike * 2.0) / 2.0, np.round(strike)), 0.5)
    moneyness = np.log(strike / spot) / (at_money * np.sqrt(np.maximum(years, 7.0 / 365.0)))
    vol = np.clip(at_money * (1.0 - 0.08 * moneyness + 0.04 * moneyness**2), 0.05, 2.5)
    times = (rng.integers(1, 92, count)[:, None] + np.arange(8) * 91) / 365.0
    amounts = np.broadcast_to(np.array([1.75, 0.25, 0.6])[kind][:, None], times.shape)
    falls = times <= years[:, None]
    return {
        "spot": spot,
        "strike": strike,
        "years": years,
        "vol": vol,
        "right": rng.choice(np.array([-1.0, 1.0]), count),
        "times": np.where(falls, times, np.nan),
        "amounts": np.where(falls, amounts, np.nan),
    }


@njit(cache=False, error_model="numpy")
def tree(
    spot: float, strike: float, years: float, vol: float, right: float, rate: float, times: Float, amounts: Float, steps: int
) -> float:
    """Leisen and Reimer's tree with escrowed dividends; exercise at a step just before an ex-date still gets the dividend."""
    held = spot
    for m in range(times.size):
        if times[m] <= years:
            held -= amounts[m] * math.exp(-rate * times[m])
    step = years / steps
    s = vol * math.sqrt(years)
    d1 = (math.log(held / strike) + rate * years) / s + 0.5 * s
    probability = np.empty(2)
    for n in range(2):
        z = d1 - (1 - n) * s
        scaled = z / (steps + 1.0 / 3.0 + 0.1 / (steps + 1.0))
        probability[n] = 0.5 + math.copysign(0.5, z) * math.sqrt(-math.expm1(-scaled * scaled * (steps + 1.0 / 6.0)))
    p = min(max(probability[0], 1e-15), 1.0 - 1e-15)
    up = math.exp(rate * step) * probability[1] / p
    down = (math.exp(rate * step) - p * up) / (1.0 - p)
    discount = math.exp(-rate * step)
    value = np.empty(steps + 1)
    stock = np.empty(steps + 1)
    for j in range(steps + 1):
        stock[j] = held * math.exp(j * math.log(up) + (steps - j) * math.log(down))
        value[j] = max(right * (stock[j] - strike), 0.0)
    for i in range(steps - 1, -1, -1):
        now = i * step
        escrow = 0.0
        for m in range(times.size):
            if now < times[m] <= years:
                escrow += amounts[m] * math.exp(-rate * (times[m] - now))
        for j in range(i + 1):
            stock[j] /= down
            kept = discount * (p * value[j + 1] + (1.0 - p) * value[j])
            value[j] = max(kept, right * (stock[j] + escrow - strike))
    return value[0]


@njit(cache=False)
def reference_prices(
    out: Float,
    spot: Float,
    strike: Float,
    years: Float,
    vol: Float,
    right: Float,
    rate: float,
    times: Float,
    amounts: Float,
    steps: int,
) -> None:
    for i in range(out.size):
        out[i] = tree(spot[i], strike[i], years[i], vol[i], right[i], rate, times[i], amounts[i], steps)


def quantlib_options(rows: dict[str, Float], count: int, steps: int | None) -> list[ql.VanillaOption]:
    """Options in whole days without cash dividends, under a Leisen-Reimer tree, or QdFp where `steps` is None."""
    today = ql.Date(5, 1, 2026)
    ql.Settings.instance().evaluationDate = today
    basis = ql.Actual365Fixed()
    curve = ql.YieldTermStructureHandle(ql.FlatForward(today, RATE, basis))
    none = ql.YieldTermStructureHandle(ql.FlatForward(today, 0.0, basis))
    made = []
    for i in range(count):
        process = ql.BlackScholesMertonProcess(
            ql.QuoteHandle(ql.SimpleQuote(float(rows["spot"][i]))),
            none,
            curve,
            ql.BlackVolTermStructureHandle(ql.BlackConstantVol(today, ql.NullCalendar(), float(rows["vol"][i]), basis)),
        )
        payoff = ql.PlainVanillaPayoff(ql.Option.Put, float(rows["strike"][i]))
        option = ql.VanillaOption(payoff, ql.AmericanExercise(today, today + int(rows["days"][i])))
        if steps is None:
            option.setPricingEngine(ql.QdFpAmericanEngine(process, ql.QdFpAmericanEngine.highPrecisionScheme()))
        else:
            option.setPricingEngine(ql.BinomialVanillaEngine(process, "leisenreimer", steps))
        made.append(option)
    return made


def quantlib_prices(options: list[ql.VanillaOption]) -> Float:
    for option in options:
        option.recalculate()
    return np.array([option.NPV() for option in options])


def seconds(work: Callable[[], object], runs: int = RUNS) -> float:
    work()
    taken = []
    for _ in range(runs):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return statistics.median(taken)


def report_volatilities(made: dict[str, Float]) -> None:
    spot, strike, years, vol, right, times, amounts = made.values()
    count = spot.size
    market = american.price(spot, strike, years, vol, right, RATE, 0.0, times, amounts)
    alone = seconds(lambda: american.implied_vol(market, spot, strike, years, right, RATE, 0.0, times, amounts))
    fused = seconds(lambda: american.implied_vol_greeks(market, spot, strike, years, right, RATE, 0.0, times, amounts))
    print(
        f"implied volatility with cash dividends, {count:,} contracts, {np.isfinite(times).any(axis=1).mean():.0%} with one ahead\n"
    )
    print(f"{'':40}{'contracts/s':>14}{'us each':>10}")
    for name, taken in (("volatility", alone), ("volatility and delta to rho, fused", fused)):
        print(f"{name:40}{count / taken:14,.0f}{taken / count * 1e6:10.2f}")

    few = slice(REFERENCE)
    known = np.empty(len(spot[few]))
    rows = (spot[few], strike[few], years[few], vol[few], right[few])
    reference_prices(known, *rows, RATE, times[few], amounts[few], REFERENCE_STEPS)
    found = american.implied_vol(known, *rows[:3], right[few], RATE, 0.0, times[few], amounts[few])
    vega = american.greeks(*rows, RATE, 0.0, times[few], amounts[few]).vega
    # At the value of immediate exercise there is no volatility to find.
    has_vol = known - np.maximum(right[few] * (spot[few] - strike[few]), 0.0) > 1e-6
    error = np.abs(found - vol[few])
    with np.errstate(divide="ignore"):
        inside = error <= np.maximum(1e-3, 0.005 / vega)
    early = has_vol & ((right[few] < 0.0) | np.isfinite(times[few]).any(axis=1))
    print(f"\nagainst the tree of {REFERENCE_STEPS:,} steps{'median error':>18}{'99 % below':>14}{'inside':>10}{'missing':>10}")
    for name, chosen in (("all with time value", has_vol), ("puts, calls with a dividend", early)):
        e = error[chosen]
        print(
            f"{name:32}{np.nanmedian(e):14.1e}{np.nanquantile(e, 0.99):14.1e}"
            f"{inside[chosen].mean():10.2%}{np.isnan(e).mean():10.2%}"
        )


@njit(cache=False)
def prices_at_steps(
    grid: Grid, out: Float, work: Float, ahead: Float, spot: Float, strike: Float, years: Float, vol: Float, steps: int
) -> None:
    for i in range(out.size):
        european, premium = grid(work, spot[i], strike[i], years[i], vol[i], -1.0, RATE, 0.0, ahead, 0, _american.ALWAYS, steps)
        out[i] = european + premium


def report_prices(made: dict[str, Float]) -> None:
    """Puts without dividends, which QuantLib's trees know as well."""
    rows = dict(made, days=np.maximum(np.round(made["years"] * 365.0), 1.0))
    spot, strike, years, vol = rows["spot"], rows["strike"], rows["days"] / 365.0, rows["vol"]
    grid, out = _american.compiled_premiums(), np.empty(years.size)
    work, ahead = np.zeros(_american.WORKSPACE), np.empty((3, 0))

    def at_steps(steps: int) -> Float:
        prices_at_steps(grid, out, work, ahead, spot, strike, years, vol, steps)
        return out

    def ours() -> Float:
        return american.price(spot, strike, years, vol, -1, RATE)

    def errors(prices: Float) -> str:
        error = np.abs(prices[:LOOP] - exact) / spot[:LOOP]
        return f"{np.median(error):12.1e}{error.max():10.1e}"

    options = quantlib_options(rows, LOOP, None)
    exact = quantlib_prices(options)
    mine = seconds(ours) / years.size
    best = seconds(lambda: quantlib_prices(options), 3) / LOOP
    # The number of steps that is taken by itself goes from 32 for a few days to 80 for years.
    print(f"\nprice of puts{'':22}{'us each':>10}{'error / spot: median, largest':>32}{'ratio':>10}")
    print(f"{'flowlake, steps by itself':35}{mine * 1e6:10.2f}{'':10}{errors(ours())}{'1.0 x':>10}")
    print(f"{'QuantLib QdFp, high precision':35}{best * 1e6:10.2f}{'':32}{best / mine:8.0f} x")
    for steps in (33, 81, 101, 201):
        options = quantlib_options(rows, LOOP, steps)
        theirs = seconds(lambda o=options: quantlib_prices(o), 3) / LOOP
        equal = seconds(lambda n=steps: at_steps(n)) / years.size
        print(f"{f'flowlake, {steps} steps':35}{equal * 1e6:10.2f}{'':10}{errors(at_steps(steps))}")
        name, ratios = f"QuantLib Leisen-Reimer, {steps} steps", f"{theirs / mine:8.0f} x, at equal steps {theirs / equal:.0f} x"
        print(f"{name:35}{theirs * 1e6:10.2f}{'':10}{errors(quantlib_prices(options))}{ratios}")


def report_gamma() -> None:
    """What a sum of gammas over the puts of one expiry misses without early exercise."""
    print(f"\ngamma of puts, vol 0.2, rate {RATE:.1%}{'|difference| over all':>32}{'exercised now':>16}")
    for days in (7, 30, 365):
        years = days / 365.0
        strike = 100.0 * np.exp(np.linspace(-4.0, 4.0, 161) * 0.2 * math.sqrt(years))
        ours = american.greeks(100.0, strike, years, 0.2, -1, RATE).gamma
        missed = np.abs(european.greeks(100.0, strike, years, 0.2, -1, RATE).gamma - ours)
        print(f"{f'{days} days':40}{missed.sum() / ours.sum():16.1%}{missed[ours == 0.0].sum() / ours.sum():16.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description="American options: ours against QuantLib and a 2,000-step tree, one core.")
    parser.add_argument("contracts", nargs="?", type=int, default=100_000, help="contracts (default: 100000)")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    made = contracts(max(parser.parse_args().contracts, REFERENCE))
    report_volatilities(made)
    report_prices(made)
    report_gamma()


if __name__ == "__main__":
    main()
