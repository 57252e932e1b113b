"""The plan in outline, for a scheduler: per stage what it reads and writes, and which stages of earlier sessions it waits for.

Rendered to `dags/plan.json`, so that a scheduler that reads its DAG files every few seconds need not import what computes.
"""

from __future__ import annotations

import json
from typing import Any

from flowlake.pipeline.plan import STEPS, producers
from flowlake.pipeline.step import Stage, Step

OUTLINE_PATH = "dags/plan.json"


def outline() -> list[dict[str, Any]]:
    """One entry per stage, in the order in which they run within a session."""
    return [_stage(stage, [step for step in STEPS if step.stage is stage]) for stage in Stage]


def _stage(stage: Stage, steps: list[Step]) -> dict[str, Any]:
    writes = {name for step in steps for name in step.writes}
    reads = {read.dataset for step in steps for read in step.reads} - writes
    waits = {producers()[read.dataset].stage for step in steps for read in step.reads if read.looks_back}
    return {
        "stage": stage.value,
        "steps": [step.name for step in steps],
        "reads": sorted(reads),
        "writes": sorted(writes),
        "waits_for_earlier": [other.value for other in Stage if other in waits],
        "vintage": any(step.vintage for step in steps),
    }


def outline_text() -> str:
    return json.dumps(outline(), indent=1) + "\n"
