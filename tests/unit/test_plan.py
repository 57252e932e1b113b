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
