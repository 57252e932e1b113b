"""Steps that join what packages beside one another compute, and that must not know of each other."""

from __future__ import annotations

from datetime import date

import polars as pl

from flowlake.anomalies.steps import fit_anomaly_models
from flowlake.datasets.model import Inputs, Output
from flowlake.explain.sentences import with_sentences
from flowlake.regimes.steps import fit_regime_models
from flowlake.signals import steps as signals


def fit_models(inputs: Inputs, session: date) -> Output:
    """All models of a session: those of the regimes and those of the anomaly engines."""
    return Output({"models": pl.concat([fit_regime_models(inputs, session), fit_anomaly_models(inputs, session)])})


def score_signals(inputs: Inputs, session: date) -> Output:
    """Signals, and their reasons in words."""
    scored = signals.score_signals(inputs, session)
    return Output({"signals": scored.signals, "signal_reasons": with_sentences(scored.reasons)})
