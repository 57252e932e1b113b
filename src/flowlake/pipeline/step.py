"""What a step is: what it reads, with which look-back, what it writes, its function and its version."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from importlib import import_module

from flowlake.datasets.model import Inputs, Output

StepFunction = Callable[[Inputs, date], Output]


class Stage(StrEnum):
    """Groups of steps that run after one another within a session, in this order; a scheduler makes one task of each."""

    INGEST = "ingest"
    CURATE = "curate"
    FACTORS = "factors"
    HISTORY = "history"
    SIGNALS = "signals"
    CHECK = "check"


@dataclass(frozen=True)
class Read:
    """An input: the newest `sessions` partitions at or before the session, leaving out the newest `lag` sessions.

    `adjust` brings earlier rows to the session's share basis. A step without a required input is blocked, not failed.
    """

    dataset: str
    sessions: int = 1
    lag: int = 0
    required: bool = False
    adjust: bool = False
    columns: tuple[str, ...] = ()
    """The columns that the step needs, where a partition is large; all of them where none is named."""
    waits_if_held: bool = False
    """While quarantine holds the input the step is blocked: without it the output would be wrong, not just thinner."""

    @property
    def looks_back(self) -> bool:
        return self.sessions > 1 or self.lag > 0


@dataclass(frozen=True)
class Step:
    """A step of the plan. `function` is `module:name`, imported when it runs, so that reading the plan stays cheap.

    `vintage`: the output is windowed or fitted. When its inputs change it is listed as restatable, and replaced only on request.
    `any_of`: at least one of these inputs must exist.
    `version` is bumped by hand whenever the output on the same input changes.
    """

    name: str
    stage: Stage
    version: int
    function: str
    reads: tuple[Read, ...]
    writes: tuple[str, ...]
    any_of: tuple[str, ...] = ()
    vintage: bool = False
    reads_listing: bool = False
    """The step is also given `bucket_listing`: the files dated from its session up to the next one."""

    @property
    def looks_back(self) -> bool:
        return any(read.looks_back for read in self.reads)

    @property
    def is_ingest(self) -> bool:
        return self.stage is Stage.INGEST

    def load(self) -> StepFunction:
        module, _, name = self.function.partition(":")
        function: StepFunction = getattr(import_module(module), name)
        return function
