"""What must hold for any session: the order of input rows is nothing, and outputs are numbers or null."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date, timedelta

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from flowlake.core import sessions
from flowlake.datasets import curated
from flowlake.datasets.factors import DAILY_FACTORS, FACTOR_PANEL, FACTORS, MIN_HISTORY, OPTION_IV, SCORED
from flowlake.datasets.model import Dataset
from flowlake.factors.daily import daily_factors
from flowlake.factors.option_iv import option_iv
from flowlake.factors.panel import factor_panel
from flowlake.quant import european, robust

T = date(2024, 3, 13)
CLOSE = sessions.close_utc(T)
STEPS = {OPTION_IV.name: option_iv, DAILY_FACTORS.name: daily_factors, FACTOR_PANEL.name: factor_panel}


def table(dataset: Dataset, rows: list[dict[str, object]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=dataset.polars_schema()).with_columns(session=pl.lit(T))


def market(seed: int) -> dict[str, pl.DataFrame]:
    """Two underlyings with trades, quotes on some contracts, stock bars of one, and open interest; ties on purpose."""
    rng = np.random.default_rng(seed)
    contracts, trades, quotes, interest = [], [], [], []
    flags = [column.name for column in curated.OPTION_TRADES.columns if column.dtype == pl.Boolean()]
    for underlying, spot in (("AAA", 50.0), ("BBB", 200.0)):
        for days in (0, 9, 23, 37):
            expiry = T + timedelta(days=days)
            for step in range(-4, 5):
                for right in ("C", "P"):
                    strike = round(spot * (1 + 0.03 * step), 1)
                    key = {
                        "contract": f"{underlying}{expiry:%y%m%d}{right}{round(strike * 1000):08d}",
                        "underlying": underlying,
                        "root": underlying,
                        "expiry": expiry,
                        "right": right,
                        "strike": strike,
                    }
                    terms = {"multiplier": 100.0, "exercise": "american", "settlement": "pm", "is_adjusted": step == 4}
                    contracts.append({**key, **terms, "expires_utc": CLOSE + timedelta(days=days)})
                    fair = float(european.price(spot, strike, max(days, 0.2) / 365, 0.3, 1 if right == "C" else -1))
                    for _ in range(rng.integers(0, 4)):
                        price = max(round(fair * (1 + 0.05 * rng.standard_normal()), 2), 0.01)
                        size = int(rng.integers(1, 50))
                        trades.append(
                            {
                                **key,
                                "ts_utc": CLOSE - timedelta(minutes=int(rng.integers(0, 4))),
                                "price": price,
                                "size": size,
                                "premium_usd": round(price * size * 100, 4),
                                **{name: bool(rng.random() < 0.2) for name in flags},
                                "in_volume": bool(rng.random() < 0.9),
                                "sets_price": bool(rng.random() < 0.9),
                            }
                        )
                    if underlying == "BBB" and rng.random() < 0.5:
                        half = rng.choice([-0.01, 0.01, 0.5])
                        for source in ("one", "two"):
                            bid, ask = max(fair - half, 0.01), fair + half
                            quotes.append({**key, "ts_utc": CLOSE, "bid": bid, "ask": ask, "spot": spot, "source": source})
                    interest += [
                        {**key, "oi_session": T, "open_interest_close": int(rng.integers(0, 900)), "source": source}
                        for source in ("one", "two")
                    ]
    bars = [
        {
            "underlying": "AAA", "ts_utc": CLOSE - timedelta(minutes=m), "open": 50.0, "high": 51.0, "low": 49.0,
            "close": 50.0 + 0.01 * m, "volume": 0.1 * m, "is_regular": True,
        }
        for m in range(1, 30)
    ]  # fmt: skip
    dividend = {"underlying": "BBB", "ex_date": T + timedelta(days=12), "kind": "cash_dividend", "cash_amount_usd": 0.7}
    return {
        "contracts": table(curated.CONTRACTS, contracts),
        "option_trades": table(curated.OPTION_TRADES, trades),
        "option_quotes_eod": table(curated.OPTION_QUOTES_EOD, quotes),
        "open_interest": table(curated.OPEN_INTEREST, interest),
        "equity_bars_1m": table(curated.EQUITY_BARS_1M, bars),
        "corporate_actions": table(curated.CORPORATE_ACTIONS, [dividend]),
        "rates": table(curated.RATES, [{"tenor_days": 1, "rate": 0.05}, {"tenor_days": 30, "rate": 0.04}]),
    }


def built(inputs: Mapping[str, pl.DataFrame], seed: int | None) -> dict[str, pl.DataFrame]:
    """The three steps one after the other; with a seed every input is shuffled first."""
    known = dict(inputs)
    made = {}
    for dataset in FACTORS:
        shuffled = known if seed is None else {n: f.sample(fraction=1.0, shuffle=True, seed=seed) for n, f in known.items()}
        raw = STEPS[dataset.name](shuffled, T).tables[dataset.name]
        assert not any(raw[name].is_infinite().any() for name, kind in raw.schema.items() if kind.is_float())
        made[dataset.name] = dataset.conform(raw, T)
        known[dataset.name] = made[dataset.name].with_columns(session=pl.lit(T))
    return made


@settings(max_examples=10, derandomize=True)
@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_the_order_of_input_rows_changes_nothing(market_seed: int, shuffle_seed: int) -> None:
    inputs = market(market_seed)
    expected, found = built(inputs, None), built(inputs, shuffle_seed)
    for name, frame in expected.items():
        assert_frame_equal(found[name], frame, check_exact=True)


@settings(max_examples=5, derandomize=True)
@given(st.integers(0, 10_000))
def test_outputs_satisfy_their_declarations(seed: int) -> None:
    for dataset in FACTORS:
        frame = built(market(seed), None)[dataset.name]
        assert frame.height > 0
        for column in dataset.columns:
            for check in column.all_checks():
                assert frame.filter(check.failing(column.name)).is_empty(), (dataset.name, column.name, check.describe())
        for rule in dataset.table_checks():
            assert frame.filter(rule.failing()).is_empty(), (dataset.name, rule.describe())


@settings(max_examples=5, derandomize=True)
@given(st.integers(0, 10_000))
def test_any_optional_input_may_be_absent(seed: int) -> None:
    inputs = market(seed)
    for name in inputs.keys() - {"contracts"}:
        assert built({n: f for n, f in inputs.items() if n != name}, None)["factor_panel"].height == 2


_NUMBERS = st.floats(-1e12, 1e12) | st.just(0.0) | st.just(math.nan)


@settings(max_examples=100, derandomize=True)
@given(_NUMBERS, st.lists(_NUMBERS, min_size=0, max_size=60), st.sampled_from(SCORED), st.randoms(use_true_random=False))
def test_a_score_is_finite_or_absent_and_the_past_has_no_order(
    today: float, past: list[float], scored: object, random: object
) -> None:
    shuffled = list(past)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    first = robust.score(scored, [today], np.array([past]))  # type: ignore[arg-type]
    np.testing.assert_array_equal(first, robust.score(scored, [today], np.array([shuffled])))  # type: ignore[arg-type]
    assert not np.isinf(first).any()
    if np.count_nonzero(~np.isnan(past)) < MIN_HISTORY:
        assert np.isnan(first).all()
