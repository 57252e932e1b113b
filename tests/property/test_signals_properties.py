"""Scores, reasons and calibrations: bounded, additive, monotone and in words, whatever the factors are."""

from __future__ import annotations

import json
from datetime import date

import numpy as np
import polars as pl
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from flowlake.datasets.factors import SCORED, Z_COLUMNS
from flowlake.datasets.signals import ENGINES
from flowlake.explain.sentences import with_sentences
from flowlake.signals.calibration import fit_logistic, probability, sigmoid
from flowlake.signals.evidence import Doubt, Evidence
from flowlake.signals.steps import combined_score, score_signals

DAYS = [date(2024, 1, 2), date(2024, 1, 3)]
NUMBER = st.one_of(st.none(), st.floats(-1e12, 1e12))
SHARE = st.one_of(st.none(), st.floats(0, 1))
Z = st.one_of(st.none(), st.floats(-50, 50))


@st.composite
def panels(draw: st.DrawFn) -> pl.DataFrame:
    rows = [
        {
            "session": day,
            "underlying": name,
            **{scored.name: draw(NUMBER) for scored in SCORED},
            **{column: draw(Z) for column in Z_COLUMNS},
            "multi_leg_share": draw(SHARE),
            "oi_change_ratio": draw(st.one_of(st.none(), st.floats(-5, 5))),
            "history_sessions": draw(st.integers(0, 251)),
        }
        for day in DAYS
        for name in ("AAA", "BBB")
    ]
    floats = [*(scored.name for scored in SCORED), *Z_COLUMNS, "multi_leg_share", "oi_change_ratio"]
    return pl.DataFrame(rows, schema_overrides=dict.fromkeys(floats, pl.Float64()))


@settings(max_examples=60)
@given(panels(), st.lists(st.one_of(st.none(), st.floats(0, 100)), min_size=len(ENGINES), max_size=len(ENGINES)))
def test_scores_are_bounded_and_their_reasons_add_up(panel: pl.DataFrame, percentiles: list[float | None]) -> None:
    engines = pl.DataFrame(
        {"session": [DAYS[1]] * len(ENGINES), "underlying": ["AAA"] * len(ENGINES), "engine": ENGINES, "percentile": percentiles},
        schema_overrides={"percentile": pl.Float64()},
    )
    scored = score_signals({"factor_panel": panel, "anomaly_scores": engines}, DAYS[1])
    reasons = with_sentences(scored.reasons)
    assert reasons["sentence"].str.ends_with(".").all()
    assert not reasons["sentence"].str.contains("nan|inf|None").any()
    for row in scored.signals.iter_rows(named=True):
        mine = reasons.filter(pl.col("underlying") == row["underlying"])
        if row["score"] is None:
            assert row["reason"]
            assert mine.is_empty()
        else:
            assert 0 <= row["score"] <= 100
            assert abs(mine["contribution"].sum() - row["score"]) < 1e-3
            assert (row["score"] > 0) == (mine.height > 0)


PIECES = st.lists(st.tuples(st.floats(0.001, 1), st.floats(0.01, 0.9)), min_size=1, max_size=10)


@settings(max_examples=100)
@given(PIECES, st.lists(st.floats(0.01, 0.5), max_size=4))
def test_more_evidence_never_lowers_and_more_doubt_never_raises(pieces: list[tuple[float, float]], discounts: list[float]) -> None:
    evidence = [Evidence("factor", "x", None, None, 0, None, strength, weight) for strength, weight in pieces]
    doubts = [Doubt("market_wide", None, None, discount) for discount in discounts]
    score, given_points, taken = combined_score(evidence, doubts)
    product = 100 * (1 - np.prod([1 - s * w for s, w in pieces])) * np.prod([1 - d for d in discounts])
    np.testing.assert_allclose([score, sum(given_points) + sum(taken)], product, rtol=1e-9)
    assert combined_score(evidence[1:], doubts)[0] <= score
    assert combined_score(evidence, doubts[1:])[0] >= score


@settings(max_examples=60)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=5, max_size=80))
def test_logistic_curves_are_finite_and_never_fall(labels: list[tuple[float, bool]]) -> None:
    x, happened = np.array([score for score, _ in labels]), np.array([moved for _, moved in labels])
    assume(happened.any() and not happened.all())
    assume(float(x.std()) == 0 or float(x.std()) > 1e-6)
    intercept, slope = fit_logistic(x, happened)
    assert np.isfinite([intercept, slope]).all()
    assert slope >= 0
    knots = json.dumps([[score, sigmoid(np.clip(intercept + slope * score / 100, -500, 500))] for score in (0.0, 50.0, 100.0)])
    curve = [probability(knots, score) for score in (-5, 0, 25, 50, 75, 100, 200)]
    assert curve == sorted(curve)
    assert 0 <= curve[0] <= curve[-1] <= 1
