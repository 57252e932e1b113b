"""Executors: the same tasks one after another in this process, or on Dask. Equal lakes from all."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from flowlake.core.settings import Settings
from flowlake.pipeline.cluster import Parcel, connected, pack, results, unpack
from flowlake.pipeline.execute import Context, Options, StepResult, Task, execute
from flowlake.pipeline.plan import producers


@dataclass(frozen=True)
class Node:
    """A task and the positions of the tasks that must end before it starts."""

    task: Task
    after: tuple[int, ...]


def graph(tasks: Sequence[Task]) -> list[Node]:
    """Dependencies between tasks that come in session order, and within a session in the plan's order.

    A step waits for the producers of what it reads in its own session. A step that looks back also waits for its own task of the
    session before, and through it for everything earlier; so a window is complete without an edge per session.
    """
    position = {(task.step.name, task.session): i for i, task in enumerate(tasks)}
    sessions = sorted({task.session for task in tasks})
    before = dict(zip(sessions[1:], sessions[:-1], strict=True))
    makers = producers()
    nodes = []
    for task in tasks:
        after = set()
        read = {r.dataset for r in task.step.reads} | ({"corporate_actions"} if any(r.adjust for r in task.step.reads) else set())
        for name in read:
            maker = makers[name].name
            if (maker, task.session) in position and maker != task.step.name:
                after.add(position[maker, task.session])
        if task.step.looks_back:
            earlier = before.get(task.session)
            while earlier is not None and (task.step.name, earlier) not in position:
                earlier = before.get(earlier)
            if earlier is not None:
                after.add(position[task.step.name, earlier])
                after |= _lagged(task, earlier, position)
        nodes.append(Node(task, tuple(sorted(i for i in after if i < position[task.step.name, task.session]))))
    return nodes


def _lagged(task: Task, earlier: Any, position: dict[tuple[str, Any], int]) -> set[int]:
    """Producers in the session before, for inputs that are read with a lag."""
    makers = producers()
    names = (makers[r.dataset].name for r in task.step.reads if r.looks_back)
    return {position[name, earlier] for name in names if (name, earlier) in position}


def run_local(
    tasks: Sequence[Task], settings: Settings, options: Options, on_bytes: Callable[[int], None] | None = None
) -> Iterator[StepResult]:
    """One task after another in this process, in the given order; each session's new files are downloaded in parallel first."""
    context = Context(settings, options)
    awaits: list[str] = []
    for _, of_session in groupby(graph(tasks), key=lambda node: node.task.session):
        todo = list(of_session)
        context.ingester.prefetch((o for node in todo if node.task.step.is_ingest for o in node.task.objects), on_bytes)
        for node in todo:
            result = execute(node.task, context, _first(awaits[i] for i in node.after))
            awaits.append(result.awaits)
            yield result


def run_dask(tasks: Sequence[Task], settings: Settings, options: Options, scheduler: str, workers: int) -> Iterator[StepResult]:
    """Tasks on a Dask cluster as their inputs become ready: the one at `scheduler`, or processes of this machine."""
    parcel = pack(settings, options, named_scheduler=bool(scheduler))
    with connected(scheduler) if scheduler else _of_this_machine(workers) as client:
        futures: list[Any] = []
        for i, node in enumerate(graph(tasks)):
            key = f"{node.task.step.name}-{node.task.session}-{options.run_id}-{i}"
            waits = [futures[j] for j in node.after]
            futures.append(client.submit(run_task, node.task, parcel, waits, key=key, priority=-i, pure=False))
        for result in results(futures):
            if not isinstance(result, StepResult):
                raise TypeError(f"a worker returned {type(result).__name__}")
            yield result


def _first(awaits: Iterable[str]) -> str:
    return next((name for name in awaits if name), "")


_CONTEXTS: dict[str, Context] = {}
_ONE_AT_A_TIME = threading.Lock()


def run_task(task: Task, parcel: Parcel, waits: Sequence[StepResult] = ()) -> StepResult:
    """Run a task in a worker; `waits` orders it, and tells which file could not be had. Threads of one worker take turns."""
    with _ONE_AT_A_TIME:
        run_id = parcel.options.run_id
        if run_id not in _CONTEXTS:
            _CONTEXTS.clear()
            _CONTEXTS[run_id] = unpack(parcel)
        return execute(task, _CONTEXTS[run_id], _first(result.awaits for result in waits))


@contextmanager
def _of_this_machine(workers: int) -> Iterator[Any]:
    import dask
    from distributed import Client, LocalCluster

    with (
        # A worker that is told to stop may still report that its last heartbeat met a closed door.
        dask.config.set({"logging.distributed": "critical"}),
        LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=logging.CRITICAL
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client
