"""A Dask cluster as flowlake uses it: what travels to a worker, what a worker must have, what is said when the cluster breaks.

Keys do not travel to a scheduler that somebody named: it, its dashboard and its logs never see them, and every worker takes them
from its own environment. Processes that a run starts on its own machine get them from it.
"""

from __future__ import annotations

import platform
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

from flowlake import __version__
from flowlake.core.errors import ClusterError, UsageError
from flowlake.core.settings import PREFIX, Secret, Settings, load_settings
from flowlake.lake.claims import claim_path
from flowlake.lake.store import absolute_root
from flowlake.pipeline.execute import Context, Options
from flowlake.pipeline.invocation import libraries

WORKERS_SECONDS = 30.0
"""How long a scheduler may be without a single worker when a run starts."""


@dataclass(frozen=True)
class Parcel:
    """What travels with every task. `own_keys` names the settings that a worker must have itself."""

    settings: Settings
    options: Options
    software: str
    own_keys: tuple[str, ...] = ()


def pack(settings: Settings, options: Options, named_scheduler: bool) -> Parcel:
    """The parcel of a run: the lake by its full name, as workers have other current folders, and no keys to a named scheduler."""
    settings = replace(settings, lake=absolute_root(settings.lake))
    if not named_scheduler:
        return Parcel(settings, options, software())
    keys = tuple(f.name for f in fields(settings) if isinstance(value := getattr(settings, f.name), Secret) and value)
    blank: dict[str, Any] = dict.fromkeys(keys, Secret(""))
    return Parcel(replace(settings, **blank), options, software(), keys)


def unpack(parcel: Parcel) -> Context:
    """In a worker: the context of a run. Raises ClusterError where this worker would not do what the others do."""
    _same_software(parcel.software)
    settings = _with_own_keys(parcel)
    context = Context(settings, parcel.options, shared=True)
    if context.store.stat(claim_path(parcel.options.run_id)) is None:
        raise ClusterError(
            f"{_here()} does not see the lake {settings.lake}: the claim of this run is not there",
            "all workers must reach the same lake under the same name: a shared folder mounted at one path, or s3://",
        )
    return context


def software() -> str:
    """Versions that must be equal in all processes of a run."""
    return f"python={'.'.join(platform.python_version_tuple()[:2])} flowlake={__version__} {libraries()}"


def _same_software(wanted: str) -> None:
    pairs = zip(software().split(), wanted.split(), strict=True)
    if differing := [(ours, theirs) for ours, theirs in pairs if ours != theirs]:
        ours, theirs = (", ".join(names) for names in zip(*differing, strict=True))
        raise ClusterError(f"{_here()} has {ours}, and the command {theirs}", "install the same versions for all of them (uv.lock)")


def _with_own_keys(parcel: Parcel) -> Settings:
    own = load_settings() if parcel.own_keys else parcel.settings
    if missing := [name for name in parcel.own_keys if not getattr(own, name)]:
        variables = ", ".join(PREFIX + name.upper() for name in missing)
        raise ClusterError(
            f"{_here()} has no {variables}",
            "start the workers with these variables, or with FLOWLAKE_SECRETS_FILE: keys do not travel through a scheduler",
        )
    keys: dict[str, Any] = {name: getattr(own, name) for name in parcel.own_keys}
    return replace(parcel.settings, **keys)


def _here() -> str:
    from distributed import get_worker

    return f"the Dask worker {get_worker().address} on {socket.gethostname()}"


@contextmanager
def connected(scheduler: str) -> Iterator[Any]:
    """A client of the cluster at `scheduler`. Raises UsageError where nobody answers, ClusterError where it has no worker."""
    from distributed import Client

    try:
        client = Client(scheduler, timeout="10s")
    except (OSError, TimeoutError, ValueError) as error:
        raise UsageError(f"no Dask scheduler answers at {scheduler}: {error}", "start one, or leave --scheduler out") from None
    with client:
        try:
            client.wait_for_workers(1, timeout=WORKERS_SECONDS)
        except TimeoutError:
            raise ClusterError(f"the Dask scheduler {scheduler} has no worker", f"dask worker {scheduler}, and run again") from None
        yield client


def results(futures: Sequence[Any]) -> Iterator[Any]:
    """Results as they come. Raises ClusterError where the cluster, not a step, is at fault."""
    from distributed import KilledWorker, as_completed
    from distributed.comm.core import CommClosedError

    completed = as_completed(futures)
    while True:
        try:
            result = next(completed).result()
        except StopIteration:
            return
        except KilledWorker as error:
            raise ClusterError(
                f"{error.task} ended {error.allowed_failures + 1} Dask workers, one after another",
                "give workers more memory, see their logs, and run again",
            ) from None
        except (CancelledError, CommClosedError, TimeoutError) as error:
            # The second and third where it dies while it hands over a result; an error of a step is in its StepResult.
            raise ClusterError(
                f"the Dask scheduler was lost: {(str(error).splitlines() or [type(error).__name__])[0]}",
                "what was published stays: run the same command again when a scheduler runs",
            ) from None
        except (ImportError, AttributeError) as error:
            raise ClusterError(
                f"a Dask worker could not read a task: {error}", "install the same flowlake for all workers, then run again"
            ) from None
        yield result
