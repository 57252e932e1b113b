"""Engines and their inputs: finite whatever is missing, and indifferent to the order of rows."""

from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from flowlake.anomalies.engines import percentiles, run_engine
from flowlake.anomalies.features import HIGHEST, build_features, judged
from flowlake.anomalies.steps import RECIPES
from flowlake.core import sessions
from flowlake.datasets.factors import ENGINE_FEATURES

DAYS = sessions.sessions_between(date(2024, 1, 2), date(2024, 2, 1))
VALUE = st.one_of(st.none(), st.floats(-1e6, 1e6), st.just(0.0))


@st.composite
def panels(draw: st.DrawFn) -> pl.DataFrame:
    count = draw(st.integers(1, 12))
    values = {name: draw(st.lists(VALUE, min_size=count, max_size=count)) for name in ENGINE_FEATURES}
    return pl.DataFrame(
        {"session": [DAYS[i // 2] for i in range(count)], "underlying": [f"U{i % 2}" for i in range(count)], **values},
        schema_overrides=dict.fromkeys(ENGINE_FEATURES, pl.Float64()),
    )


@settings(max_examples=40)
@given(panels())
def test_features_are_complete_bounded_and_ordered(panel: pl.DataFrame) -> None:
    features = build_features(panel)
    assert np.isfinite(features.matrix).all()
    assert (np.abs(features.matrix) <= HIGHEST).all()
    nulls = panel.sort("session", "underlying").select(pl.sum_horizontal(pl.col(ENGINE_FEATURES).is_null().cast(pl.Int64)))
    assert features.missing.tolist() == nulls.to_series().to_list()
    shuffled = build_features(panel.sample(fraction=1.0, shuffle=True, seed=5))
    assert np.array_equal(shuffled.matrix, features.matrix)
    assert shuffled.keys.equals(features.keys)
    assert len(judged(features).matrix) <= len(features.matrix)


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1), st.integers(60, 120), st.floats(0, 12))
def test_every_engine_is_finite_even_on_repeated_rows(seed: int, count: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    training = np.round(rng.normal(size=(count, len(ENGINE_FEATURES))) * spread, 0)
    new = np.vstack([training[:3], np.full((1, len(ENGINE_FEATURES)), HIGHEST)])
    for recipe in RECIPES:
        scores = run_engine(recipe.model, training, new, recipe.hyper_parameters)
        assert np.isfinite(scores.training).all()
        assert np.isfinite(scores.new).all()
        ranks = percentiles(scores.training, scores.new)
        assert ((ranks >= 0) & (ranks <= 100)).all()


@settings(max_examples=60)
@given(st.lists(st.floats(-10, 10), min_size=1, max_size=40), st.lists(st.floats(-12, 12), min_size=1, max_size=20))
def test_percentiles_equal_counting_and_never_fall(training: list[float], new: list[float]) -> None:
    ranks = percentiles(np.array(training), np.array(new))
    for value, rank in zip(new, ranks, strict=True):
        below, equal = sum(x < value for x in training), sum(x == value for x in training)
        assert abs(rank - 100 * (below + equal / 2) / len(training)) < 1e-9
    order = np.argsort(new, kind="stable")
    assert (np.diff(ranks[order]) >= 0).all()
