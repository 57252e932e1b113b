"""One session's contracts through volatility and greeks: the step `option_iv` as the night runs it, and its parts.

    python benchmarks/option_iv.py [UNDERLYINGS]

4,500 underlyings (unless told otherwise) with 333 American contracts each, 1.5 million, quoted at the close: expiries from 2 days
to 2 years, a quarterly dividend for two of three, prices from the project's own American formula with a skewed smile. The clock is
the processor time of the process; compiled code is warm. There is no rival: no library takes a chain with dividends to forwards,
volatilities and greeks.
"""

from __future__ import annotations

import cProfile
import pstats
import sys
import time
from datetime import date, timedelta

import numpy as np
import polars as pl

from flowlake.core import sessions
from flowlake.datasets import curated
from flowlake.datasets.model import Dataset
from flowlake.factors.option_iv import option_iv
from flowlake.quant import american

DAY = date(2024, 3, 13)
RATE = 0.05
DAYS = np.array([2, 9, 16, 23, 37, 65, 93, 184, 310, 674])
STRIKES = 17
"""Per expiry and right; ten expiries, two rights: 340 contracts, of which the last seven are left out."""
PER_UNDERLYING = 333


def chain(underlyings: int) -> dict[str, pl.DataFrame]:
    rng = np.random.default_rng(3)
    grid = [(d, m, r) for d in range(DAYS.size) for m in range(STRIKES) for r in (1.0, -1.0)][:PER_UNDERLYING]
    expiry_index, strike_index, right = (np.array(column) for column in zip(*grid, strict=True))
    name = np.repeat(np.array([f"U{i:05d}" for i in range(underlyings)]), PER_UNDERLYING)
    spot = np.repeat(np.round(np.exp(rng.normal(4.0, 0.8, underlyings)), 2), PER_UNDERLYING)
    level = np.repeat(rng.uniform(0.15, 0.8, underlyings), PER_UNDERLYING)
    days, side = np.tile(DAYS[expiry_index], underlyings), np.tile(right, underlyings)
    years = days / 365.0
    k = (np.tile(strike_index, underlyings) - STRIKES // 2) / (STRIKES // 2) * 2.0 * level * np.sqrt(years)
    strike = np.round(spot * np.exp(k), 2)
    vol = level * (1.0 - 0.1 * k / (level * np.sqrt(years)) + 0.02 * (k / (level * np.sqrt(years))) ** 2)
    quarterly = np.round(np.where(np.arange(underlyings) % 3 > 0, np.exp(rng.normal(-1.0, 0.5, underlyings)), 0.0), 2)
    ex_days = np.array([20, 111, 202, 293, 384, 475, 566, 657])
    cash = np.repeat(quarterly, PER_UNDERLYING)[:, None] * np.ones(ex_days.size)
    price = american.price(spot, strike, years, vol, side, RATE, 0.0, np.broadcast_to(ex_days / 365.0, cash.shape), cash)
    mid = np.maximum(np.round(price, 2), 0.01)
    session = pl.lit(DAY).alias("session")
    close = sessions.close_utc(DAY)
    contracts = pl.DataFrame(
        {
            "underlying": name,
            "root": name,
            "expiry": pl.Series(np.datetime64(DAY) + days.astype("timedelta64[D]")).cast(pl.Date),
            "right": np.where(side > 0, "C", "P"),
            "strike": strike,
        }
    ).with_columns(
        pl.concat_str(
            "underlying", pl.col("expiry").dt.strftime("%y%m%d"), "right", (pl.col("strike") * 1000).cast(pl.Int64)
        ).alias("contract"),
        multiplier=100.0,
        exercise=pl.lit("american"),
        settlement=pl.lit("pm"),
        is_adjusted=False,
        expires_utc=close + (pl.col("expiry") - DAY),
    )
    quotes = contracts.select("contract", "underlying", "root", "expiry", "right", "strike").with_columns(
        bid=pl.Series(mid - 0.005), ask=pl.Series(mid + 0.005), spot=pl.Series(spot), ts_utc=close, source=pl.lit("bench")
    )
    payers = [(f"U{i:05d}", DAY + timedelta(days=int(d)), float(q)) for i, q in enumerate(quarterly) if q for d in ex_days]
    actions = pl.DataFrame(payers, schema=["underlying", "ex_date", "cash_amount_usd"], orient="row").with_columns(
        kind=pl.lit("cash_dividend")
    )
    rates = pl.DataFrame({"tenor_days": [1], "rate": [RATE]})
    declared = {
        "contracts": (curated.CONTRACTS, contracts),
        "option_quotes_eod": (curated.OPTION_QUOTES_EOD, quotes),
        "corporate_actions": (curated.CORPORATE_ACTIONS, actions),
        "rates": (curated.RATES, rates),
    }
    return {key: conform(ds, frame).with_columns(session) for key, (ds, frame) in declared.items()}


def conform(ds: Dataset, frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(
        (pl.col(column) if column in frame.columns else pl.lit(None)).cast(dtype).alias(column)
        for column, dtype in ds.polars_schema().items()
    )


def main(underlyings: int) -> None:
    option_iv(chain(6), DAY)
    inputs = chain(underlyings)
    profile = cProfile.Profile()
    began, wall = time.process_time(), time.perf_counter()
    profile.enable()
    out = option_iv(inputs, DAY).tables["option_iv"]
    profile.disable()
    seconds, elapsed = time.process_time() - began, time.perf_counter() - wall
    ok = (out["quality"] == "ok").mean()
    print(f"{out.height:,} contracts: {seconds:.1f} core-seconds, {elapsed:.1f} s; {ok:.1%} with a volatility")
    print(f"per 1.5 million contracts: {seconds * 1.5e6 / out.height:.1f} core-seconds")
    pstats.Stats(profile).sort_stats("cumulative").print_stats("flowlake", 18)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4_500)
