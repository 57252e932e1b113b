"""A longer market begins with the files of a shorter one; no file knows how long the market is."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from flowlake.market import MarketSpec, build
from flowlake.market.clock import session_hours
from flowlake.market.listing import Listing
from flowlake.market.universe import underlyings

SMALL = MarketSpec(first_session=date(2024, 3, 25), underlyings=4, trades_per_underlying_session=40, split_session=2)
# Market-wide tables hold all sessions; everything else is a file of one session.
WHOLE_RANGE = {"reference/rates.csv", "reference/corporate_actions.csv"}


@settings(max_examples=6)
@given(seed=st.integers(0, 2**32), short=st.integers(1, 4), more=st.integers(1, 10))
def test_prefix(seed: int, short: int, more: int) -> None:
    spec = replace(SMALL, seed=seed, sessions=short)
    brief, longer = build(spec), build(replace(spec, sessions=short + more))
    first = {f.key: f.body for f in brief.files()}
    then = {f.key: f.body for f in longer.files()}
    assert all(then[key] == body for key, body in first.items() if key not in WHOLE_RANGE)
    trades = longer.truth()["trades"].filter(pl.col("session").is_in(brief.days))
    assert trades.equals(brief.truth()["trades"])
    begun = longer.truth()["episodes"].filter(pl.col("first_session") <= brief.days[-1])
    assert begun.equals(brief.truth()["episodes"])


def test_ten_and_twenty_sessions() -> None:
    spec = replace(SMALL, seed=1, sessions=10, episodes=6.0)
    ten = {f.key: f.body for f in build(spec).files() if f.key not in WHOLE_RANGE}
    twenty = {f.key: f.body for f in build(replace(spec, sessions=20)).files()}
    assert {key: twenty[key] for key in ten} == ten


@settings(max_examples=15)
@given(
    prices=st.lists(st.floats(5.0, 900.0), min_size=2, max_size=8),
    vol=st.floats(0.05, 1.5),
    member=st.integers(0, 5),
)
def test_listed_strikes_stay_and_open_interest_follows_them(prices: list[float], vol: float, member: int) -> None:
    chosen = underlyings(replace(SMALL, underlyings=6, split_session=None))[member]
    listing = Listing(chosen)
    carried: dict[str, int] = {}
    for index, price in enumerate(prices):
        hours = session_hours(SMALL.first_session, index)
        chain = listing.open_session(hours, price, vol)
        assert len(set(chain.tickers)) == len(chain)
        assert (np.diff(chain.block) >= 0).all()
        assert chain.strike.min() > 0
        start = dict(zip(chain.tickers, chain.open_interest.tolist(), strict=True))
        alive = {t: n for t, n in carried.items() if t in start}
        assert all(start[t] == n for t, n in alive.items())
        assert all(t[-15:-9] <= f"{hours.day:%y%m%d}" or chosen.is_index for t in carried.keys() - alive.keys())
        listing.close_session(chain, np.arange(len(chain), dtype=np.int64))
        carried = dict(zip(chain.tickers, range(len(chain)), strict=True))
