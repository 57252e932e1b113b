"""How good past signals were and whether the factors drift, as metrics."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import polars as pl

from flowlake.datasets.drift import drift_factors, samples, windows
from flowlake.datasets.model import SESSION
from flowlake.datasets.signals import LABELS
from flowlake.lake.lake import Lake
from flowlake.monitoring import metrics
from flowlake.monitoring.metrics import Sample
from flowlake.quant.stability import population_stability

OUTCOME_SESSIONS = 60
"""Outcomes that were complete in so many sessions are judged."""


def hits(lake: Lake, session: date) -> Iterator[Sample]:
    """Hit ratios of signals as they are served, by tier, from the outcomes that were complete by the session's decision time."""
    known = lake.as_of(session)
    outcomes = known.read("outcomes", known.sessions("outcomes")[-OUTCOME_SESSIONS:]).drop(SESSION).collect()
    signals = known.read("signals", outcomes.get_column("signal_session").unique().to_list())
    tiers = signals.select(pl.col(SESSION).alias("signal_session"), "underlying", "tier").collect()
    joined = outcomes.join(tiers, on=["signal_session", "underlying"])
    for label in LABELS:
        hit = pl.col(f"is_significant_{label}")
        judged = joined.filter(hit.is_not_null()).group_by("tier", "horizon_sessions").agg(hit.mean().alias("ratio"), pl.len())
        for tier, horizon, ratio, count in judged.sort("tier", "horizon_sessions").iter_rows():
            yield metrics.HIT_RATIO.of(ratio, tier, label, str(horizon))
            yield metrics.HIT_OUTCOMES.of(count, tier, label, str(horizon))


def drift(lake: Lake, session: date) -> Iterator[Sample]:
    """Every factor of the newest sessions up to `session` against the sessions before them, as known at its decision time."""
    known = lake.as_of(session)
    over = windows(known.sessions("factor_panel"))
    names = drift_factors()
    rows = known.read("factor_panel", [*over.reference, *over.current]).select(SESSION, *names).collect()
    today = rows.filter(pl.col(SESSION) == session)
    if today.height:
        for name in names:
            yield metrics.FACTOR_MISSING.of(today.get_column(name).null_count() / today.height, name)
    for name, reference, current in samples(rows, over):
        found = population_stability(reference, current)
        yield metrics.FACTOR_PSI.of(found.index, name)
        yield metrics.FACTOR_PSI_CHANCE.of(found.chance, name)
