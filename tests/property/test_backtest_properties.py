"""Metrics: equal to scikit-learn on any labels, and independent of how rows are grouped into sessions."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from flowlake.backtest import metrics
from flowlake.backtest.evaluate import BacktestConfig, walk_forward_alarms

ROWS = st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 9)), min_size=1, max_size=120)


@settings(max_examples=80)
@given(ROWS)
def test_rates_equal_sklearn(rows: list[tuple[bool, bool, int]]) -> None:
    alarms, happened = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    counts = metrics.confusion(alarms, happened, np.array([row[2] for row in rows]), 10)
    assert counts.sum() == len(rows)
    rates = metrics.rates(counts.sum(axis=0))
    pairs = (("precision", sk.precision_score), ("recall", sk.recall_score), ("f1", sk.f1_score))
    for name, theirs in pairs:
        expected = theirs(happened, alarms, zero_division=np.nan)
        np.testing.assert_allclose(rates[name], expected, rtol=1e-12, equal_nan=True)
    for name in metrics.METRICS:
        assert np.isnan(rates[name]) or rates[name] >= 0


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.one_of(st.just(float("nan")), st.floats(-5, 5)), st.booleans(), st.integers(0, 4)), min_size=1, max_size=60
    ),
    st.integers(1, 6),
)
def test_hits_equal_picking_by_hand(rows: list[tuple[float, bool, int]], k: int) -> None:
    scores, happened = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    groups = np.array([row[2] for row in rows])
    expected = []
    for group in range(5):
        mine = [i for i in range(len(rows)) if groups[i] == group and not np.isnan(scores[i])]
        picked = sorted(mine, key=lambda i: -scores[i])[:k]
        expected.append([int(happened[picked].sum()) if picked else 0, len(picked)])
    assert metrics.hits_at(scores, happened, groups, 5, k).tolist() == expected


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(0, 3), st.integers(8, 39))
def test_alarms_of_a_session_depend_on_its_window_and_itself_alone(seed: int, horizon: int, embargo: int, day: int) -> None:
    config = BacktestConfig(window_sessions=12, min_window_sessions=4, embargo_sessions=embargo)
    rng = np.random.default_rng(seed)
    groups, scores = np.repeat(np.arange(40), 3), rng.normal(size=120)
    gap = horizon + embargo
    outside = (groups != day) & ~((groups >= day - gap - 12) & (groups < day - gap))
    other = np.where(outside, rng.normal(size=120) * 9, scores)
    here = groups == day
    before, after = (walk_forward_alarms(values, groups, 40, horizon, config)[here] for values in (scores, other))
    assert np.array_equal(before, after)
