"""Backup and recovery of what the bucket cannot give again: records of runs, vintages as they were published, their history.

A backup is a folder or an `s3://` prefix with the lake's own paths, and `backup.json`: size, hash and stamp of each file. A stamp
changes whenever the lake's file does, so what did not change is skipped without being read. Each file is copied in one act. The
outbox of notifications, wherever it is, has the path `OUTBOX` there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from flowlake.alerts.outbox_copy import copy_of, outbox_of, put_outbox
from flowlake.core.errors import FlowlakeError, StorageError, UsageError
from flowlake.core.sessions import CALENDAR_FIRST, CALENDAR_LAST
from flowlake.core.settings import Settings
from flowlake.datasets.model import Dataset, Layer
from flowlake.datasets.registry import DATASETS
from flowlake.lake.claims import WAIT_SECONDS, claimed
from flowlake.lake.hashing import data_hash
from flowlake.lake.partitions import HISTORY, QUARANTINE, decode, history_path, lineage_in, partition_path, session_of_path
from flowlake.lake.quarantine import refusals
from flowlake.lake.store import Stat, Store, file_hash, open_store
from flowlake.pipeline.invocation import Asked, recorded
from flowlake.pipeline.outboxes import OUTBOX
from flowlake.pipeline.plan import STEPS, producers
from flowlake.report import terminal

CATALOGUE = "backup.json"
QUARANTINE_BYTES = 10_000_000
"""Larger files of quarantine stay behind: they are vendor rows, which the bucket has."""
SAVE_SECONDS = 30.0
_REFUSAL = "/refusal.json"


@dataclass(frozen=True)
class Known:
    """A file of the backup, and the stamp of the lake's file that it was copied from."""

    size: int
    sha256: str
    stamp: str


@dataclass(frozen=True)
class Moved:
    """What became of one file. `problem` says why it was not copied."""

    path: str
    action: str
    size: int = 0
    problem: str = ""


class Catalogue:
    """The list of a backup. Losing it costs a full copy, and the check that a file is the one that was copied."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._saved = time.monotonic()
        self.lake = ""
        self.files: dict[str, Known] = {}
        self.problem = ""
        if store.stat(CATALOGUE) is not None:
            try:
                body = json.loads(store.read(CATALOGUE))
                self.lake = body["lake"]
                self.files = {path: Known(**known) for path, known in body["files"].items()}
            except (ValueError, KeyError, TypeError) as error:
                self.problem = f"the list cannot be read ({type(error).__name__}): files are checked by their own footers alone"

    def save(self) -> None:
        body = {"lake": self.lake, "files": {path: asdict(known) for path, known in sorted(self.files.items())}}
        self._store.write(CATALOGUE, json.dumps(body, indent=0).encode())
        self._saved = time.monotonic()

    def save_now_and_then(self) -> None:
        """A first backup takes long: after a kill the next goes on from about here."""
        if time.monotonic() - self._saved > SAVE_SECONDS:
            self.save()


@dataclass
class BackupReport:
    """Files by what became of them. `exit_code` is 1 where one was damaged or missing."""

    title: str
    files: list[Moved] = field(default_factory=list)

    @property
    def problems(self) -> list[Moved]:
        return [moved for moved in self.files if moved.problem]

    @property
    def exit_code(self) -> int:
        return 1 if self.problems else 0

    def actions(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for moved in self.files:
            found[moved.action] = found.get(moved.action, 0) + 1
        return found


def vintages() -> list[Dataset]:
    """Datasets that are kept as they were published: a rebuild may give others."""
    return [DATASETS[name] for step in STEPS if step.vintage for name in step.writes]


def _prefixes(everything: bool) -> list[str]:
    if everything:
        return [*(f"{layer.value}/" for layer in Layer), f"{HISTORY}/", f"{QUARANTINE}/"]
    kept = [prefix for ds in vintages() for prefix in (f"{ds.layer.value}/{ds.name}/", f"{HISTORY}/{ds.name}/")]
    return [f"{Layer.OPS.value}/", *kept, f"{QUARANTINE}/"]


def _last_good(lake: Store) -> Iterator[Stat]:
    """Partitions that are still served while quarantine holds what came after them: the bucket no longer has their source."""
    held = {(r.dataset, date.fromisoformat(r.session)) for r in refusals(lake) if r.kind == "held" and r.dataset in producers()}
    for dataset, session in sorted(held):
        for name in producers()[dataset].writes:
            if (stat := lake.stat(partition_path(DATASETS[name], session))) is not None:
                yield stat


def _kept(lake: Store, everything: bool) -> Iterator[Stat]:
    """What is to be in the backup, each file once."""
    found = {stat.path: stat for stat in _listed(lake, everything)}
    yield from (found if everything else found | {stat.path: stat for stat in _last_good(lake)}).values()


def _listed(lake: Store, everything: bool) -> Iterator[Stat]:
    for prefix in _prefixes(everything):
        for stat in lake.list(prefix):
            small = everything or not stat.path.startswith(f"{QUARANTINE}/") or stat.size <= QUARANTINE_BYTES
            if small and stat.path.endswith((".parquet", ".json")):
                yield stat


def backup(settings: Settings, place: str, everything: bool = False, outbox: Path | None = None) -> BackupReport:
    """Copy to `place` what it lacks or has in an older state. Nothing is ever deleted there; a damaged file is not copied.

    `outbox` is the file of the outbox of notifications, if there is one.
    """
    lake, target = _stores(settings, place)
    catalogue = Catalogue(target)
    if catalogue.lake and catalogue.lake != lake.root:
        raise UsageError(
            f"{target.root} is a backup of {catalogue.lake}, not of {lake.root}",
            f'give another place; if the lake has moved, put its new place behind "lake" in {CATALOGUE} there',
        )
    catalogue.lake = lake.root
    there = {stat.path: stat.size for stat in target.list("")}
    report = BackupReport(f"backup of {lake.root} to {target.root}")
    try:
        for stat in _kept(lake, everything):
            report.files.append(_copied(lake, target, catalogue, stat, there.get(stat.path)))
            catalogue.save_now_and_then()
        if outbox is not None and outbox.exists():
            report.files.append(_outbox_copied(outbox, target, catalogue, there.get(OUTBOX)))
    finally:
        catalogue.save()
    return report


def _outbox_copied(outbox: Path, target: Store, catalogue: Catalogue, there: int | None) -> Moved:
    try:
        body = copy_of(outbox)
    except StorageError as error:
        return Moved(OUTBOX, "damaged", 0, f"{error.what}: not copied, what the backup has of it stays")
    found = Known(len(body), file_hash(body), "")
    if there == found.size and catalogue.files.get(OUTBOX) == found:
        return Moved(OUTBOX, "has it", found.size)
    target.write(OUTBOX, body)
    catalogue.files[OUTBOX] = found
    return Moved(OUTBOX, "copied", found.size)


def _copied(lake: Store, target: Store, catalogue: Catalogue, stat: Stat, there: int | None) -> Moved:
    known = catalogue.files.get(stat.path)
    complete = known is not None and known.size == there
    if known is not None and complete and known.stamp == stat.stamp:
        return Moved(stat.path, "has it", stat.size)
    try:
        body = lake.read(stat.path)
    except StorageError:
        if lake.stat(stat.path) is None:
            return Moved(stat.path, "gone meanwhile")
        raise
    found = Known(len(body), file_hash(body), stat.stamp)
    if known is not None and complete and known.sha256 == found.sha256:
        catalogue.files[stat.path] = found
        return Moved(stat.path, "has it", stat.size)
    if problem := damage(stat.path, body):
        return Moved(stat.path, "damaged", stat.size, f"{problem}: not copied, what the backup has of it stays")
    target.write(stat.path, body)
    catalogue.files[stat.path] = found
    return Moved(stat.path, "copied", len(body))


def recover(
    settings: Settings,
    place: str,
    force: bool = False,
    dry_run: bool = False,
    wait_seconds: float = WAIT_SECONDS,
    outbox: Path | None = None,
) -> BackupReport:
    """Copy back from `place` what the lake lacks, while no run works on it. Every file is checked before it is written.

    A file that differs is left alone; with `force` the backup's takes its place, and a partition's present file goes under history.
    The outbox of notifications comes back as the file `outbox`, unless there is one: that one knows more.
    """
    lake, source = _stores(settings, place)
    catalogue = Catalogue(source)
    there = {stat.path for stat in source.list("") if stat.path.startswith(tuple(_prefixes(everything=True)))}
    if not there and not catalogue.files:
        raise UsageError(f"there is no backup at {source.root}", "give the place that `flowlake backup --to` was given")
    report = BackupReport(f"{'what would be recovered' if dry_run else 'recovery'} of {lake.root} from {source.root}")
    if catalogue.problem:
        report.files.append(Moved(CATALOGUE, "damaged", 0, catalogue.problem))
    with nullcontext() if dry_run else _alone(lake, settings, wait_seconds):
        # The record of a refusal is written last: without it the entry does not exist.
        for path in sorted((there | catalogue.files.keys()) - {OUTBOX}, key=lambda path: (path.endswith(_REFUSAL), path)):
            report.files.append(_recovered(lake, source, path, catalogue.files.get(path), path in there, force, dry_run))
        if outbox is not None and (OUTBOX in catalogue.files or source.stat(OUTBOX) is not None):
            report.files.append(_outbox_recovered(outbox, source, catalogue.files.get(OUTBOX), dry_run))
    return report


def _outbox_recovered(outbox: Path, source: Store, known: Known | None, dry_run: bool) -> Moved:
    if outbox.exists():
        return Moved(OUTBOX, "has it", outbox.stat().st_size)
    if source.stat(OUTBOX) is None:
        return Moved(OUTBOX, "missing", 0, "the backup names it and does not hold it")
    try:
        copy = source.read(OUTBOX)
        if known is not None and known.sha256 != file_hash(copy):
            return Moved(OUTBOX, "damaged", len(copy), "it is not the file that was copied: not recovered")
        body = outbox_of(copy)
    except StorageError as error:
        return Moved(OUTBOX, "damaged", 0, f"{error.what}: not recovered")
    if not dry_run:
        put_outbox(outbox, body)
    return Moved(OUTBOX, "recovered", len(body))


@contextmanager
def _alone(lake: Store, settings: Settings, wait_seconds: float) -> Iterator[None]:
    """Nobody else works on any session meanwhile, and the recovery is written down."""
    with (
        recorded(lake, settings, Asked("recover")) as running,
        claimed(lake, running.run_id, CALENDAR_FIRST, CALENDAR_LAST, wait_seconds),
    ):
        yield


def _recovered(lake: Store, source: Store, path: str, known: Known | None, there: bool, force: bool, dry_run: bool) -> Moved:
    held = lake.stat(path)
    if held is not None and known is not None and held.stamp == known.stamp:
        return Moved(path, "has it", held.size)
    if not there:
        return Moved(path, "missing", 0, "the backup names it and does not hold it")
    try:
        body = source.read(path)
    except StorageError as error:
        return Moved(path, "damaged", 0, f"{error.what}: not recovered")
    found = file_hash(body)
    present = "" if held is None else file_hash(lake.read(path))
    if present == found:
        return Moved(path, "has it", len(body))
    if problem := damage(path, body) or ("" if known is None or known.sha256 == found else "it is not the file that was copied"):
        return Moved(path, "damaged", len(body), f"{problem}: not recovered")
    if held is not None and not force:
        return Moved(path, "differs", len(body))
    if not dry_run:
        if held is not None and (kept := _history_of(path, present)):
            lake.copy(path, kept)
        lake.write(path, body)
    return Moved(path, "replaced" if held is not None else "recovered", len(body))


def _history_of(path: str, present: str) -> str:
    """Where a partition's present file is kept when another takes its place; empty for what is no served partition."""
    day, ds = session_of_path(path), DATASETS.get(path.split("/")[1])
    return "" if day is None or ds is None or path.startswith("_") else history_path(ds, day, present)


def damage(path: str, body: bytes) -> str:
    """What is wrong with the bytes of a lake's file; empty where its values have the hash that its footer states."""
    try:
        if path.endswith(".json"):
            json.loads(body)
            return ""
        rows = decode(body, path)
        if session_of_path(path) is None or path.startswith(f"{QUARANTINE}/"):
            return ""  # records of runs and rows in quarantine state no hash
        if lineage_in(body, path).data_hash != data_hash(rows):
            return "the values do not have the hash that the footer states"
    except FlowlakeError as error:
        return error.what
    except ValueError as error:
        return f"it is no JSON: {error}"
    return ""


def _stores(settings: Settings, place: str) -> tuple[Store, Store]:
    lake, other = open_store(settings.lake, settings.lake_access), open_store(place, settings.lake_access)
    if f"{other.root}/".startswith(f"{lake.root}/"):
        raise UsageError(f"the backup {other.root} lies inside the lake {lake.root}", "give a place outside of it, on another disk")
    return lake, other


_ORDER = ("copied", "recovered", "replaced", "has it", "differs", "gone meanwhile", "damaged", "missing")


def print_backup(report: BackupReport, as_json: bool) -> int:
    """A table by dataset, then every problem; the exit code."""
    if as_json:
        terminal.print_json({"title": report.title, "files": report.actions(), "problems": [asdict(m) for m in report.problems]})
        return report.exit_code
    counts: dict[str, dict[str, int]] = {}
    moved_bytes: dict[str, int] = {}
    for moved in report.files:
        group = _group(moved.path)
        counts.setdefault(group, {})[moved.action] = counts.get(group, {}).get(moved.action, 0) + 1
        moved_bytes[group] = moved_bytes.get(group, 0) + (moved.size if moved.action in _ORDER[:3] else 0)
    shown = [action for action in _ORDER if action in report.actions()]
    rows: list[list[Any]] = [
        [group, *(by_action.get(action, "") for action in shown), round(moved_bytes[group] / 1e6, 3)]
        for group, by_action in sorted(counts.items())
    ]
    out = terminal.console()
    out.print(terminal.table(report.title, ["files of", *shown, "MB"], rows))
    for moved in report.problems:
        out.print(f"{moved.action} {moved.path}: {moved.problem}", markup=False)
    if (differing := report.actions().get("differs", 0)) > 0:
        out.print(f"{differing} files differ from the backup's and were left alone; --force takes the backup's")
    out.print(", ".join(f"{count} {action}" for action, count in report.actions().items()) or "there is nothing to copy")
    return report.exit_code


def _group(path: str) -> str:
    top, _, rest = path.partition("/")
    name = rest.split("/")[0]
    kind = {HISTORY: "history", QUARANTINE: "quarantine"}.get(top, top)
    return f"{kind} {name}".strip()


__all__ = ["BackupReport", "Moved", "backup", "damage", "print_backup", "recover", "vintages"]
