"""The audit trail: which runs there were, what each did, and on what its publications rest."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

import polars as pl

from flowlake.core.errors import UsageError
from flowlake.datasets.model import Dataset
from flowlake.datasets.ops import INVOCATIONS, PUBLICATIONS, RUNS, STATUSES
from flowlake.datasets.registry import DATASETS
from flowlake.lake import journal
from flowlake.lake.journal import Row
from flowlake.lake.lake import distinct
from flowlake.lake.partitions import Lineage, history_path, lineage_of, partition_path
from flowlake.lake.store import Stat, Store
from flowlake.pipeline.plan import STEPS
from flowlake.pipeline.step import Stage

ENDED, OPEN, UNKNOWN = "ended", "running or killed", "not recorded"
Key = tuple[str, date]


def runs(store: Store) -> list[Row]:
    """Every run, newest first: its row of `invocations` with `state`.

    The statuses of a run without an end are counted from its steps. A run of a version that wrote no invocations has what its steps
    tell, and the state `not recorded`.
    """
    invocations = journal.records(store, INVOCATIONS)
    steps = journal.records(store, RUNS)
    counted = _counted(steps)
    found = []
    for row in invocations.iter_rows(named=True):
        state = ENDED if row["ended_at_utc"] is not None else OPEN
        found.append(row | {"state": state} | (counted.get(row["run_id"], {}) if state == OPEN else {}))
    known = set(invocations.get_column("run_id"))
    older = steps.filter(~pl.col("run_id").is_in(list(known))).partition_by("run_id")
    found += [_from_steps(rows) | counted[rows["run_id"][0]] for rows in older]
    return sorted(found, key=lambda row: (row["started_at_utc"], row["run_id"]), reverse=True)


def _counted(steps: pl.DataFrame) -> dict[str, dict[str, int]]:
    counted: dict[str, dict[str, int]] = {}
    for run_id, status in steps.select("run_id", "status").iter_rows():
        counts = counted.setdefault(run_id, dict.fromkeys(STATUSES, 0))
        counts[status] = counts.get(status, 0) + 1
    return counted


def _from_steps(steps: pl.DataFrame) -> Row:
    row: Row = {column.name: None for column in INVOCATIONS.columns}
    names = set(steps.get_column("step"))
    row |= {name: steps.get_column(name)[0] for name in ("run_id", "command", "code", "libraries")}
    row |= {"parent": "", "action": "run", "error": "", "commit": "", "state": UNKNOWN, "config": "{}"}
    row |= {"started_at_utc": steps.get_column("started_at_utc").min()}
    row |= {"first_session": steps.get_column("session").min(), "last_session": steps.get_column("session").max()}
    return row | {"steps": " ".join([step.name for step in STEPS if step.name in names])}


def matching(found: list[Row], last: int, session: date | None = None, parent: str = "") -> list[Row]:
    """The first `last` of the runs that covered a session and were started by `parent`, where these are given."""
    wanted = [row for row in found if (session is None or _covers(row, session)) and (not parent or row["parent"] == parent)]
    return wanted[:last]


def _covers(row: Row, session: date) -> bool:
    return row["first_session"] is not None and row["first_session"] <= session <= (row["last_session"] or row["first_session"])


def find_run(found: list[Row], prefix: str) -> Row:
    """The run whose id starts with `prefix`. Raises UsageError where none does, or several do."""
    hits = [row for row in found if row["run_id"].startswith(prefix)]
    exact = [row for row in hits if row["run_id"] == prefix]
    if len(exact or hits) == 1:
        return (exact or hits)[0]
    if not hits:
        raise UsageError(f"there is no run {prefix!r}", "`flowlake runs` lists them")
    shown = ", ".join(row["run_id"] for row in hits[:5])
    raise UsageError(f"{len(hits)} runs start with {prefix!r}: {shown}{' ...' if len(hits) > 5 else ''}", "give more characters")


class Files:
    """Where the lake keeps the file of a publication: served still, or under history. Lists each dataset once."""

    def __init__(self, store: Store, publications: pl.DataFrame) -> None:
        """`publications`: rows of all runs, in the order of publication."""
        self._store = store
        self._newest = {(row["dataset"], row["session"]): row["file_hash"] for row in publications.iter_rows(named=True)}
        self._stats: dict[str, dict[str, Stat]] = {}

    def find(self, row: Row) -> Stat | None:
        """The file of a row of `publications`; None where retention deleted it, or its dataset is no longer declared."""
        ds = DATASETS.get(row["dataset"])
        if ds is None:
            return None
        stats = self._of(ds)
        kept = stats.get(history_path(ds, row["session"], row["file_hash"]))
        if kept is None and self._newest.get((ds.name, row["session"])) == row["file_hash"]:
            kept = stats.get(partition_path(ds, row["session"]))
        return kept

    def lineage(self, row: Row) -> Lineage | None:
        """What the footer of that file says."""
        stat = self.find(row)
        return None if stat is None else lineage_of(self._store, stat.path)

    def _of(self, ds: Dataset) -> dict[str, Stat]:
        if ds.name not in self._stats:
            folders = (f"{ds.layer.value}/{ds.name}/", f"{history_path(ds, date.min, '').split('/session=')[0]}/")
            self._stats[ds.name] = {stat.path: stat for folder in folders for stat in self._store.list(folder)}
        return self._stats[ds.name]


def all_publications(store: Store) -> pl.DataFrame:
    """Rows of `publications`, each act once, in the order of time."""
    return distinct(journal.records(store, PUBLICATIONS))


@dataclass(frozen=True)
class Detail:
    """One run in full. `publications`: rows with `kept` (served, history or gone), `inputs` and the versions behind them."""

    run: Row
    steps: list[Row]
    publications: list[Row]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def detail(store: Store, run: Row) -> Detail:
    """What a run did, step by step, and what each file that it published was made from."""
    mine = pl.col("run_id") == run["run_id"]
    place = {step.name: i for i, step in enumerate(STEPS)}
    steps = list(journal.records(store, RUNS).filter(mine).iter_rows(named=True))
    publications = all_publications(store)
    files = Files(store, publications)
    shown = [_with_inputs(row, files) for row in publications.filter(mine).iter_rows(named=True)]
    return Detail(run, sorted(steps, key=lambda r: (r["session"] or date.min, place.get(r["step"], len(place)))), shown)


def _with_inputs(row: Row, files: Files) -> Row:
    stat = files.find(row)
    lineage = files.lineage(row)
    kept = "gone" if stat is None else "history" if stat.path.startswith("_history/") else "served"
    inputs = [] if lineage is None else [asdict(record) for record in lineage.inputs]
    return row | {"kept": kept, "step": lineage.step if lineage else "", "inputs": inputs}


def steps_in_short(names: str) -> str:
    """Step names as a person would give them: `all`, stages where they are complete, else names."""
    asked = set(names.split())
    planned = {step.name for step in STEPS}
    if asked >= planned:
        return "all"
    short: list[str] = []
    for stage in Stage:
        of_stage = [step.name for step in STEPS if step.stage is stage]
        short += [stage.value] if of_stage and asked.issuperset(of_stage) else [name for name in of_stage if name in asked]
    return " ".join([*short, *sorted(asked - planned)])
