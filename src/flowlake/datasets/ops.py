"""Ops layer: what ran, what it published, what was refused. Written by runs, one file per run; outside the byte-equality rule.

Files of runs that have ended are packed into one per dataset once there are many.
"""

from __future__ import annotations

import polars as pl

from flowlake.datasets.model import UTC_NS, Column, Dataset, KnownAt, Layer


def _text(name: str, doc: str, *, nullable: bool = False) -> Column:
    return Column(name, pl.String(), doc, nullable=nullable)


def _count(name: str, doc: str, unit: str = "", *, nullable: bool = False) -> Column:
    return Column(name, pl.Int64(), doc, unit=unit, nullable=nullable)


_RUN = _text("run_id", "Run that wrote the row.")
_PARTITION = (_text("dataset", "Dataset."), Column("session", pl.Date(), "Session of the partition.", nullable=True))


def _ops(name: str, doc: str, columns: tuple[Column, ...], moment: str, grain: tuple[str, ...]) -> Dataset:
    return Dataset(
        name=name,
        layer=Layer.OPS,
        doc=doc,
        grain=grain,
        columns=columns,
        sort_by=grain,
        known=KnownAt(moment),
        unique=False,
        may_be_empty=True,
    )


STATUSES = ("built", "fresh", "held", "quarantined", "blocked", "absent", "restatable", "failed")
"""What may become of a step in a run."""

INVOCATIONS = _ops(
    "invocations",
    "Every run as a whole: who started it, with what, and how it ended. A run that was killed has a start and no end.",
    (
        _RUN,
        _text(
            "parent",
            "What started the run, from FLOWLAKE_PARENT_RUN: for example the run of a scheduler; empty if nothing said so.",
        ),
        _text("action", "run, restore, prune or backtest."),
        Column("started_at_utc", UTC_NS, "Start."),
        Column("ended_at_utc", UTC_NS, "End; null while it runs, and for ever if it was killed.", nullable=True),
        Column("seconds", pl.Float64(), "Wall time; null as long as there is no end.", unit="s", nullable=True),
        _count("exit_code", "Exit code; null as long as there is no end.", nullable=True),
        _text("error", "What ended it early, without secrets; empty otherwise."),
        Column("first_session", pl.Date(), "First session that was asked for.", nullable=True),
        Column("last_session", pl.Date(), "Last session that was asked for.", nullable=True),
        _text("steps", "Steps that were asked for, separated by blanks."),
        _text("executor", "local or dask; empty where no step runs."),
        Column("retry", pl.Boolean(), "Whether it tried again what quarantine holds."),
        Column("restate", pl.Boolean(), "Whether it replaced windowed and fitted outputs whose inputs had changed."),
        _text("command", "Command line, without secrets."),
        _text("code", "Version of the code."),
        _text("commit", "Git commit of the checkout that ran, with `+changes` where it had any; empty for an installed package."),
        _text("python", "Version of Python."),
        _text("libraries", "Versions of the libraries that decide bytes."),
        _text("config", "Settings, a JSON object; of a secret only whether it is set."),
        _text("host", "Name of the machine."),
        *(_count(status, f"Steps and sessions with status {status}; 0 as long as there is no end.") for status in STATUSES),
    ),
    "started_at_utc",
    ("run_id",),
)
RUNS = _ops(
    "runs",
    "Every step that a run looked at, with its outcome.",
    (
        _RUN,
        _text("step", "Step."),
        Column("session", pl.Date(), "Session.", nullable=True),
        _text("status", "built, fresh, held, blocked, quarantined, restatable, failed or absent."),
        _text("detail", "Why, where the status needs a reason."),
        Column("started_at_utc", UTC_NS, "Start of the step."),
        Column("seconds", pl.Float64(), "Wall time of the step.", unit="s"),
        Column(
            "cpu_seconds",
            pl.Float64(),
            "Processor time of the process while it ran the step, all its threads together.",
            unit="s",
            nullable=True,
        ),
        _count(
            "peak_memory_bytes",
            "Largest resident memory, from its start to the end of the step, of the process that ran it; earlier steps of the "
            "process count. Null where the system does not tell.",
            "bytes",
            nullable=True,
        ),
        _count("rows", "Rows published."),
        _text("inputs_key", "Hash of the inputs and versions that the step saw."),
        _text("command", "Command line of the run, without secrets."),
        _text("code", "Version of the code."),
        _text("libraries", "Versions of the libraries that decide bytes."),
    ),
    "started_at_utc",
    ("run_id", "session", "step"),
)
PUBLICATIONS = _ops(
    "publications",
    "Every partition file that a run published, and what it replaced.",
    (
        _RUN,
        *_PARTITION,
        Column("published_at_utc", UTC_NS, "Moment of publication."),
        _text("data_hash", "Hash of the normalised values."),
        _text("file_hash", "Hash of the file; the name under history once it is replaced."),
        _text("replaced_hash", "File hash of the revision that it replaced; empty for a first publication."),
        _count("rows", "Rows."),
        _count("bytes", "Size of the file.", "bytes"),
    ),
    "published_at_utc",
    ("run_id", "dataset", "session"),
)
AUDITS = _ops(
    "audits",
    "Every audit of a candidate partition.",
    (
        _RUN,
        *_PARTITION,
        Column("audited_at_utc", UTC_NS, "Moment of the audit."),
        Column("passed", pl.Boolean(), "No check of severity error failed."),
        _count("checks", "Checks evaluated."),
        _count("failed_checks", "Checks that failed, warnings included."),
        _text("failures", "Failed checks in words, one per line."),
        _text("suite_hash", "Hash of the suite."),
        _count("rows", "Rows audited."),
    ),
    "audited_at_utc",
    ("run_id", "dataset", "session"),
)
FINDINGS = _ops(
    "findings",
    "What a person should know about a partition: dataset, session, rows and cure.",
    (
        _RUN,
        *_PARTITION,
        Column("found_at_utc", UTC_NS, "Moment of the finding."),
        _text("rule", "Short name of the rule."),
        _text("kind", "note or rejected: rejected rows are kept in quarantine."),
        _text("severity", "error or warning."),
        _count("rows", "Rows concerned."),
        _text("what", "What was found."),
        _text("cure", "What to do."),
    ),
    "found_at_utc",
    ("run_id", "dataset", "session", "rule"),
)
OBJECTS = _ops(
    "objects",
    "Source objects as they were downloaded.",
    (
        _RUN,
        _text("key", "Key below the bucket prefix."),
        _count("size", "Size.", "bytes"),
        _text("etag", "Entity tag that the bucket gave."),
        _text("sha256", "Hash of the content."),
        Column("fetched_at_utc", UTC_NS, "Moment of the download."),
        Column("last_modified_utc", UTC_NS, "When the object came into the bucket, as the bucket says.", nullable=True),
    ),
    "fetched_at_utc",
    ("run_id", "key"),
)
QUARANTINE = _ops(
    "quarantine",
    "Partitions that were held and rows that were left out, with the reason and the cure.",
    (
        *_PARTITION,
        _text("inputs_key", "Hash of the inputs and versions: the hold ends when it changes."),
        _text("kind", "held: the whole candidate; rows: some rows of a published partition."),
        _text("step", "Step that was refused."),
        _text("rule", "Short name of the rule."),
        _text("what", "What was found."),
        _text("cure", "What to do."),
        _count("rows", "Rows concerned."),
        Column("quarantined_at_utc", UTC_NS, "Moment of the refusal."),
        _RUN,
        _text("folder", "Folder of the candidate and the rows, below the lake's root."),
    ),
    "quarantined_at_utc",
    ("dataset", "session", "rule"),
)

OPS = (INVOCATIONS, RUNS, PUBLICATIONS, AUDITS, FINDINGS, OBJECTS, QUARANTINE)
