"""What a run, a status, an examination say to a person, or to a machine as JSON."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flowlake.core.settings import Settings
from flowlake.datasets.registry import DATASETS, RUN_KEYED, dataset
from flowlake.lake.lake import Lake
from flowlake.pipeline.doctor import Finding
from flowlake.pipeline.execute import StepResult
from flowlake.pipeline.maintenance import Verified
from flowlake.pipeline.plan import STEPS, by_name
from flowlake.pipeline.run import Report, Status
from flowlake.quality.data_docs import build_data_docs
from flowlake.report import terminal

STATUSES = ("built", "fresh", "restatable", "blocked", "held", "quarantined", "failed")
SHOWN = 12
DATA_DOCS = "data-docs"
NAMED = "runs"
NAMED_DOCS = 120
"""Twenty sessions of six stages."""


class RunProgress:
    """Shows a run as it goes: steps done, the step at hand, and what is being downloaded between steps."""

    def __init__(self, advance: terminal.Advance) -> None:
        self._advance = advance
        self._done, self._total, self._bytes = 0, 1, 0

    def step(self, done: int, total: int, result: StepResult) -> None:
        self._done, self._total, self._bytes = done, total, 0
        self._advance(done, total, f"{result.session} {result.step}: {result.status}")

    def fetched(self, count: int) -> None:
        self._bytes += count
        self._advance(self._done, self._total, f"downloading: {self._bytes / 1e6:,.1f} MB")


def write_data_docs(settings: Settings, report: Report, name: str = "") -> str:
    """The audits' HTML pages of this run, beside a local lake (in the current folder for one on S3); the path of the overview.

    With a name they go to a folder of their own, and the newest NAMED_DOCS of such folders are kept.
    """
    validations = report.validations()
    if not validations:
        return ""
    root = (Path(settings.lake) if not settings.lake.startswith("s3://") else Path.cwd()) / DATA_DOCS
    if not name:
        return str(build_data_docs(validations, root, DATASETS))
    overview = build_data_docs(validations, root / NAMED / name, DATASETS)
    named = sorted((root / NAMED).iterdir(), key=_modified)
    for folder in named[:-NAMED_DOCS]:
        shutil.rmtree(folder, ignore_errors=True)  # a run beside this one may be deleting it too
    return str(overview)


def _modified(folder: Path) -> float:
    return folder.stat().st_mtime if folder.exists() else 0.0


def report_json(report: Report, docs: str) -> dict[str, Any]:
    return {
        "run_id": report.run_id,
        "first": report.first,
        "last": report.last,
        "sessions": report.sessions,
        "seconds": round(report.seconds, 3),
        "exit_code": report.exit_code,
        "steps": {name: dict(counter) for name, counter in report.counts().items()},
        "refused": report.refused,
        "findings": _grouped_findings(report),
        "problems": [problem_json(r) for r in report.results if r.status in ("failed", "held", "quarantined")],
        "data_docs": docs,
    }


def problem_json(result: Any) -> dict[str, Any]:
    return {"step": result.step, "session": result.session, "status": result.status, "detail": result.detail}


def print_report(report: Report, docs: str) -> None:
    """The table that a run ends with, then what needs a person."""
    out = terminal.console()
    counts = report.counts()
    shown = [s for s in STATUSES if any(counter[s] for counter in counts.values())]
    rows = [
        (by_name()[name].stage.value, name, *(counter[s] or "" for s in shown))
        for name, counter in counts.items()
        if any(counter[s] for s in shown)
    ]
    title = f"run {report.run_id}: {report.sessions} sessions, {report.first} to {report.last}, {report.seconds:.1f} s"
    out.print(terminal.table(title, ["stage", "step", *shown], rows))
    _print_problems(out, report)
    _print_findings(out, report)
    if report.total("restatable"):
        out.print(
            f"{report.total('restatable')} windowed or fitted outputs are restatable: their inputs changed. "
            "`flowlake run ... --restate` replaces them."
        )
    if not report.total("built") and not report.total("failed") and not report.refused and not report.total("held"):
        out.print("nothing to do: everything is fresh")
    if docs:
        out.print(f"audits of this run: {docs}")


def _print_problems(out: Any, report: Report) -> None:
    problems = [r for r in report.results if r.status in ("failed", "held", "quarantined")]
    for result in problems[:SHOWN]:
        out.print(f"[bold]{result.status}[/bold] {result.step} {result.session}: ", end="")
        out.print(result.detail, markup=False)
    if len(problems) > SHOWN:
        out.print(f"... and {len(problems) - SHOWN} more: flowlake sql \"select * from runs where run_id = '{report.run_id}'\"")
    blocked = Counter(r.step for r in report.results if r.status == "blocked")
    if blocked:
        steps = ", ".join(f"{step} ({count})" for step, count in blocked.items())
        out.print(f"blocked, for want of an input on so many sessions: {steps}", markup=False)


def _grouped_findings(report: Report) -> list[dict[str, Any]]:
    grouped: dict[tuple[str, str, str], dict[str, Any]] = {}
    for finding in (f for result in report.results for f in result.findings):
        key = (finding["dataset"], finding["rule"], finding["kind"])
        entry = grouped.setdefault(
            key,
            {
                "dataset": key[0],
                "rule": key[1],
                "kind": key[2],
                "sessions": 0,
                "rows": 0,
                "first": finding["what"],
                "cure": finding["cure"],
            },
        )
        entry["sessions"] += 1
        entry["rows"] += finding["rows"]
    return [grouped[key] for key in sorted(grouped)]


def _print_findings(out: Any, report: Report) -> None:
    found = _grouped_findings(report)
    if not found:
        return
    out.print("[bold]findings[/bold]")
    for f in found[: 2 * SHOWN]:
        times = "once" if f["sessions"] == 1 else f"{f['sessions']} times"
        out.print(f"  {f['dataset']} {f['rule']} ({f['kind']}, {times}, {f['rows']:,} rows): {f['first']}", markup=False)
    out.print('each with its cure: flowlake sql "select session, dataset, rule, what, cure from findings"', markup=False)


def print_status(found: Sequence[Status]) -> None:
    out = terminal.console()
    order = ("fresh", "due", "restatable", "blocked", "held", "absent")
    counts = {step.name: Counter(s.status for s in found if s.step == step.name) for step in STEPS}
    shown = [s for s in order if any(counter[s] for counter in counts.values())]
    rows = [(name, *(counter[s] or "" for s in shown)) for name, counter in counts.items() if counter]
    out.print(terminal.table("sessions by step and state", ["step", *shown], rows))
    for entry in [s for s in found if s.status == "held"][:SHOWN]:
        out.print(f"held {entry.step} {entry.session}: {entry.detail}", markup=False)


def print_datasets(lake: Lake, as_json: bool) -> None:
    rows = []
    for name, ds in DATASETS.items():
        days = lake.sessions(name)
        held = len(days) if ds not in RUN_KEYED else lake.runs_with(name)
        rows.append((ds.layer.value, name, held, str(days[0]) if days else "", str(days[-1]) if days else "", ds.doc))
    if as_json:
        keys = ("layer", "dataset", "partitions", "first", "last", "doc")
        terminal.print_json([dict(zip(keys, row, strict=True)) for row in rows])
        return
    out = terminal.console()
    out.print(terminal.table("", ["layer", "dataset", "partitions", "first", "last"], [row[:-1] for row in rows]))
    out.print("a partition is a session, or a run for records of runs; `flowlake datasets NAME` shows columns and meaning")


def print_dataset(name: str, as_json: bool) -> None:
    ds = dataset(name)
    rows = [(c.name, str(c.dtype), c.unit, "yes" if c.nullable else "no", c.doc) for c in ds.columns]
    if as_json:
        keys = ("column", "type", "unit", "nullable", "doc")
        terminal.print_json(
            {
                "dataset": name,
                "layer": ds.layer,
                "doc": ds.doc,
                "grain": ds.grain,
                "known": ds.known.describe(),
                "columns": [dict(zip(keys, row, strict=True)) for row in rows],
            }
        )
        return
    out = terminal.console()
    out.print(f"{name} ({ds.layer.value}): {ds.doc}", markup=False)
    out.print(
        f"one row per {', '.join(ds.grain)}; known at {ds.known.describe()}; every view adds session and known_at_utc", markup=False
    )
    out.print(terminal.table("columns", ["column", "type", "unit", "nullable", "meaning"], rows))


def print_examination(found: Sequence[Finding], as_json: bool) -> int:
    if as_json:
        terminal.print_json([asdict(f) for f in found])
    else:
        terminal.console().print(
            terminal.table("doctor", ["subject", "state", "detail"], [(f.subject, f.state, f.detail) for f in found])
        )
    return 1 if any(f.state == "failed" for f in found) else 0


def print_verification(found: Sequence[Verified], as_json: bool) -> int:
    bad = [v for v in found if v.problem]
    if as_json:
        terminal.print_json({"partitions": len(found), "problems": [asdict(v) for v in bad]})
    else:
        out = terminal.console()
        for v in bad:
            out.print(f"{v.dataset} {v.session}: {v.problem}", markup=False)
        out.print(f"{len(found)} partitions read, {len(bad)} with a problem")
        if bad:
            out.print(
                "cure: `flowlake restore DATASET SESSION` lists earlier revisions; or delete the file and run the session again"
            )
    return 1 if bad else 0
