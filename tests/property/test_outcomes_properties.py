"""Outcomes: nothing after the completing session is seen, and the scale of prices does not matter."""

from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from flowlake.backtest.outcomes import LOOK_BACK_SESSIONS, complete_outcomes
from flowlake.core import sessions
from flowlake.datasets.signals import OUTCOMES

CALENDAR = sessions.sessions_between(date(2023, 6, 1), date(2024, 6, 28))


@st.composite
def markets(draw: st.DrawFn) -> tuple[date, dict[str, pl.DataFrame]]:
    """A session, and factors and day bars of sessions around it, some of them missing."""
    middle = draw(st.integers(LOOK_BACK_SESSIONS, len(CALENDAR) - 3))
    days = CALENDAR[middle - LOOK_BACK_SESSIONS + 1 : middle + 3]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    keep = draw(st.lists(st.booleans(), min_size=2 * len(days), max_size=2 * len(days)))
    key = pl.DataFrame({"session": days * 2, "underlying": ["AAA"] * len(days) + ["BBB"] * len(days)})
    price = 100 * np.exp(rng.normal(0, 0.05, key.height))
    panel = key.with_columns(
        pl.Series("spot_close", price),
        pl.Series("realized_vol_20d", rng.uniform(0, 0.5, key.height)),
        pl.Series("atm_iv_30d", rng.uniform(0.1, 0.5, key.height)),
    )
    bars = key.with_columns(pl.Series("open", price * 1.01), pl.Series("close", price)).filter(pl.Series(keep))
    return CALENDAR[middle], {"factor_panel": panel} | ({"equity_bars_1d": bars} if draw(st.booleans()) else {})


@settings(max_examples=50)
@given(markets())
def test_rows_after_the_session_are_not_seen(market: tuple[date, dict[str, pl.DataFrame]]) -> None:
    session, inputs = market
    past = {name: frame.filter(pl.col("session") <= session) for name, frame in inputs.items()}
    made = OUTCOMES.conform(complete_outcomes(inputs, session).tables["outcomes"], session)
    assert made.equals(OUTCOMES.conform(complete_outcomes(past, session).tables["outcomes"], session))
    traded = made.filter(pl.col("forward_return").is_not_null())
    assert (traded["entry_utc"] >= traded["actionable_at_utc"]).all()
    assert traded["reason"].null_count() == traded.height
    assert made.filter(pl.col("forward_return").is_null())["reason"].null_count() == 0


@settings(max_examples=30)
@given(markets(), st.sampled_from([0.25, 0.5, 2.0, 8.0]))
def test_returns_do_not_depend_on_the_scale_of_prices(market: tuple[date, dict[str, pl.DataFrame]], scale: float) -> None:
    session, inputs = market
    prices = ("spot_close", "open", "close")
    scaled = {
        name: frame.with_columns(pl.col(column) * scale for column in prices if column in frame.columns)
        for name, frame in inputs.items()
    }
    before, after = (complete_outcomes(frames, session).tables["outcomes"] for frames in (inputs, scaled))
    kept = ["forward_return", "from_close_return", "expected_move", "is_significant_sigma", "entry_source"]
    assert before.select(kept).equals(after.select(kept))
