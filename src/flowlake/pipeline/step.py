"""What a step is: what it reads, with which look-back, what it writes, its function and its version."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from importlib import import_module
from typing import Any

from flowlake.datasets.batch import Batch, Stream
from flowlake.datasets.model import Inputs, Output

StepFunction = Callable[[Any, date], Output]
"""Of `Inputs` and the session; of `Rows` by name where the step cuts the session itself."""
StreamFunction = Callable[[Iterator[Batch], Inputs, date], Stream]


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
    numbered: str = ""
    """A column that the input is given beside its own: the number of the row in its partition, from 0."""
    waits_if_held: bool = False
    """While quarantine holds the input the step is blocked: without it the output would be wrong, not just thinner."""

    @property
    def looks_back(self) -> bool:
        return self.sessions > 1 or self.lag > 0


@dataclass(frozen=True)
class Streamed:
    """How a step works in memory that does not grow: `function` (`module:name`) is given the rows of `dataset` in batches.

    What it makes is what the step's own function makes of the whole table, which takes over where the session has no partition of
    `dataset` or the stream raises WholeTableNeededError.
    """

    dataset: str
    function: str

    def load(self) -> StreamFunction:
        function: StreamFunction = _named(self.function)
        return function


def _named(function: str) -> Any:
    module, _, name = function.partition(":")
    return getattr(import_module(module), name)


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
    reads_thresholds: bool = False
    """The step is also given `flow_thresholds`, the thresholds of the settings, and its output is stale where they change."""
    reads_policy: bool = False
    """The same of `condition_policy`, the rows of `sale_conditions` of the policy that the settings name."""

    streamed: Streamed | None = None
    sliced: tuple[str, ...] = ()
    """Inputs that can be cut by underlying, the tape first: a large session is then done some underlyings at a time."""
    cuts_itself: bool = False
    """The function cuts the session, for a part of its output is of all underlyings. Large inputs are given to it as `Rows`."""

    @property
    def looks_back(self) -> bool:
        return any(read.looks_back for read in self.reads)

    @property
    def is_ingest(self) -> bool:
        return self.stage is Stage.INGEST

    def load(self) -> StepFunction:
        function: StepFunction = _named(self.function)
        return function
