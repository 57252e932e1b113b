"""What the audit trail and a reproduction say to a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from flowlake.lake.journal import Row
from flowlake.pipeline.comparison import DIFFERS, IDENTICAL, UNTRIED, Compared
from flowlake.pipeline.reproduce import Reproduction
from flowlake.pipeline.trail import OPEN, Detail, steps_in_short
from flowlake.report import terminal

HASH = 16
COUNTED = ("built", "fresh", "held", "quarantined", "failed")
SHOWN = 40


def print_runs(found: Sequence[Row]) -> None:
    out = terminal.console()
    if not found:
        out.print("no run")
        return
    columns = ["run", "started (UTC)", "seconds", "action", "sessions", "steps", "exit", *COUNTED, "parent"]
    rows = [
        (
            row["run_id"],
            _moment(row["started_at_utc"]),
            "" if row["seconds"] is None else round(row["seconds"], 1),
            row["action"],
            _sessions(row),
            steps_in_short(row["steps"]),
            _exit(row),
            *(row[status] or "" for status in COUNTED),
            row["parent"],
        )
        for row in found
    ]
    out.print(terminal.table("", columns, rows))


def _moment(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}"


def _sessions(row: Row) -> str:
    first, last = row["first_session"], row["last_session"]
    return "" if first is None else str(first) if first == last else f"{first} to {last or '...'}"


def _exit(row: Row) -> str:
    return str(row["state"] if row["exit_code"] is None else row["exit_code"])


def print_detail(detail: Detail) -> None:
    out = terminal.console()
    row = detail.run
    ended = "running or killed" if row["state"] == OPEN else _moment(row["ended_at_utc"])
    facts: list[tuple[str, Any]] = [
        ("run", row["run_id"]),
        ("parent", row["parent"]),
        ("action", row["action"]),
        ("command", row["command"]),
        ("sessions", _sessions(row)),
        ("steps", steps_in_short(row["steps"])),
        ("executor", row["executor"]),
        ("options", " ".join(name for name in ("retry", "restate") if row[name])),
        ("started", f"{_moment(row['started_at_utc'])} UTC on {row['host'] or 'an unknown host'}"),
        ("ended", ended and f"{ended}" + ("" if row["seconds"] is None else f" UTC, after {row['seconds']:.1f} s")),
        ("exit code", _exit(row)),
        ("error", row["error"]),
        ("code", " ".join(part for part in (row["code"], row["commit"] or "") if part)),
        ("python", row["python"]),
        ("libraries", row["libraries"]),
        ("settings", row["config"]),
    ]
    for name, value in facts:
        if value:
            out.print(f"{name:10} {value}", markup=False)
    if detail.steps:
        columns = ["session", "step", "status", "rows", "seconds", "detail"]
        rows = [(r["session"], r["step"], r["status"], r["rows"], round(r["seconds"], 3), r["detail"]) for r in detail.steps]
        out.print(terminal.table("steps", columns, rows))
    if detail.publications:
        columns = ["session", "dataset", "data hash", "rows", "file", "inputs: dataset, first..last, hash"]
        rows = [(r["session"], r["dataset"], r["data_hash"][:HASH], r["rows"], r["kept"], _inputs(r)) for r in detail.publications]
        out.print(terminal.table("publications", columns, rows))
        out.print("a file is served, kept under history, or gone by `flowlake prune`; --json gives hashes in full", markup=False)


def _inputs(row: Row) -> str:
    return "\n".join(f"{r['dataset']} {r['first']}..{r['last']} {r['hash'][:HASH]}" for r in row["inputs"])


def print_reproduction(made: Reproduction) -> None:
    out = terminal.console()
    steps: dict[str, Counter[str]] = {}
    for one in made.compared:
        steps.setdefault(one.step, Counter())[one.outcome] += 1
    outcomes = (IDENTICAL, DIFFERS, UNTRIED)
    rows = [(step, *(counter[outcome] or "" for outcome in outcomes)) for step, counter in steps.items()]
    out.print(terminal.table(f"run {made.run_id} built again in {made.seconds:.1f} s", ["step", *outcomes], rows))
    # What differs without an input that differs is a cause; the rest follows from it.
    differing = sorted((c for c in made.compared if c.outcome == DIFFERS), key=lambda c: bool(c.inputs))
    for one in differing[:SHOWN]:
        _print_difference(out, one)
    untried = [c for c in made.compared if c.outcome == UNTRIED]
    for one in untried[:SHOWN]:
        out.print(f"not reproducible {one.dataset} {one.session}: {one.why}", markup=False)
    if more := len(differing[SHOWN:]) + len(untried[SHOWN:]):
        out.print(f"... and {more} more: --json lists all")
    if other := sum(c.found_file != c.expected_file for c in made.compared if c.outcome == IDENTICAL and c.found_file):
        out.print(
            f"{other} of the identical ones lie in files with other bytes: the values are the same, what is noted beside them not"
        )
    if made.adopted:
        out.print(f"{made.adopted} publications were left out: this run wrote them down for another that had been killed")
    if made.versions and made.exit_code:
        out.print(f"versions that differ from those of the run: {'; '.join(made.versions)}", markup=False)
    if made.folder:
        out.print(f"the scratch lake is kept in {made.folder}", markup=False)


def _print_difference(out: Any, one: Compared) -> None:
    found = one.found[:HASH] or "nothing"
    out.print(f"differs {one.dataset} {one.session}: expected {one.expected[:HASH]}, found {found}: {one.why}", markup=False)
    for d in one.inputs:
        then, now = d.then[:HASH] or "not read", d.now[:HASH] or "not read"
        out.print(f"  input {d.dataset} {d.first}..{d.last}: {then} then, {now} now", markup=False)
    for words in one.versions:
        out.print(f"  {words}", markup=False)
