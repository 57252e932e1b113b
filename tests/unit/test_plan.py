"""The plan's own sense: what its steps ask for exists."""

from __future__ import annotations

import pytest

from flowlake.datasets.registry import DATASETS
from flowlake.pipeline.plan import STEPS
from flowlake.pipeline.step import Read

NARROW = [(step.name, read) for step in STEPS for read in step.reads if read.columns]


@pytest.mark.parametrize(("step", "read"), NARROW, ids=[f"{step}-{read.dataset}" for step, read in NARROW])
def test_columns_that_a_step_asks_for_are_declared_and_can_be_adjusted(step: str, read: Read) -> None:
    declared = set(DATASETS[read.dataset].column_names)
    assert set(read.columns) <= declared
    assert len(set(read.columns)) == len(read.columns)
    assert not (read.adjust and "underlying" in declared) or "underlying" in read.columns


NOT_ADJUSTED = {
    ("fit_models", "factor_panel"): "models are of the market: rows of all underlyings in one",
    ("score_anomalies", "factor_panel"): "the rows that the models were fitted to",
    ("label_regime", "factor_panel"): "the market's, as the models",
    ("complete_outcomes", "outcomes"): "an outcome keeps the name that its signal had",
    ("calibrate", "outcomes"): "the same",
    ("calibrate", "signals"): "the same",
    ("find_gaps", "activity"): "a file is missed under the name that it had",
}
"""Reads of earlier sessions by underlying whose names are those of their time, and why."""


def test_what_looks_back_at_an_underlying_follows_it_through_a_change_of_ticker() -> None:
    back = {(step.name, read.dataset) for step in STEPS for read in step.reads if read.looks_back and not read.adjust}
    assert {each for each in back if "underlying" in DATASETS[each[1]].grain} == set(NOT_ADJUSTED)
