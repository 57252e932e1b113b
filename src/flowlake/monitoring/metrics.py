"""Every metric, declared once: name, kind, labels and meaning. `docs/monitoring.md` has the same table, and a test compares.

Names and units are those of Prometheus: base units, `_total` on counters, a moment as seconds since 1970 (its age is a matter of
`time() - x`). No label has a value per underlying or per session, so the number of series does not grow with the lake.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["gauge", "counter"]


@dataclass(frozen=True)
class Sample:
    """One value of a metric; `labels` in the order that the metric declares."""

    metric: Metric
    labels: tuple[str, ...]
    value: float


@dataclass(frozen=True)
class Metric:
    """`doc` is a sentence: it becomes the help text."""

    name: str
    kind: Kind
    doc: str
    labels: tuple[str, ...] = ()
    unit: str = ""

    def of(self, value: float, *labels: str) -> Sample:
        """A value, with one label value for each declared label."""
        if len(labels) != len(self.labels):
            raise ValueError(f"{self.name} has the labels {self.labels}, not {labels}")
        return Sample(self, labels, float(value))


def _gauge(name: str, doc: str, *labels: str, unit: str = "") -> Metric:
    return Metric(f"flowlake_{name}", "gauge", doc, labels, unit)


def _counter(name: str, doc: str, *labels: str, unit: str = "") -> Metric:
    return Metric(f"flowlake_{name}_total", "counter", doc, labels, unit)


# --- When, and about what ----------------------------------------------------------------------------------------------
BUILD_INFO = _gauge("build_info", "1; the label has the version of the code that measured.", "version")
MEASURED = _gauge("measured_timestamp_seconds", "When these figures were measured.", unit="s since 1970")
SESSION = _gauge(
    "session_timestamp_seconds", "Close of the session that is shown, which every figure of a session is of.", unit="s since 1970"
)
DUE_SESSION = _gauge("due_session_timestamp_seconds", "Close of the newest session whose signals are due.", unit="s since 1970")

# --- Steps -------------------------------------------------------------------------------------------------------------
STEP_DURATION = _gauge("step_duration_seconds", "Wall time of the last try of the step, for the session shown.", "step", unit="s")
STEP_CPU = _gauge(
    "step_cpu_seconds", "Processor time of the process while it ran that try, all its threads together.", "step", unit="s"
)
STEP_MEMORY = _gauge(
    "step_process_peak_memory_bytes",
    "Largest resident memory, from its start to the end of that try, of the process that ran it: what the step took at most, as "
    "earlier steps of the process count.",
    "step",
    unit="bytes",
)
STEP_ROWS = _gauge("step_rows", "Rows that the last try of the step published, for the session shown.", "step", unit="rows")
SESSION_STEPS = _gauge(
    "session_steps", "Steps of the session shown, by what became of them when a run last looked.", "status", unit="steps"
)
STEPS = _counter("steps", "Steps that runs looked at, by what became of them.", "step", "status", unit="steps")
RETRIES = _counter(
    "step_retries", "Tries of a step for a session whose try before had failed or was quarantined.", "step", unit="tries"
)

# --- Partitions --------------------------------------------------------------------------------------------------------
PARTITION_ROWS = _gauge("partition_rows", "Rows of the partition that is served for the session shown.", "dataset", unit="rows")
PARTITION_BYTES = _gauge("partition_bytes", "Size of its file.", "dataset", unit="bytes")
PUBLISHED_BYTES = _counter("published_bytes", "Size of all files that runs published.", "dataset", unit="bytes")
DOWNLOADED_BYTES = _counter("downloaded_bytes", "Size of all vendor files that runs downloaded.", unit="bytes")
DATASET_BEHIND = _gauge(
    "dataset_behind_sessions",
    "Sessions from the newest partition of the dataset to the last due session.",
    "dataset",
    unit="sessions",
)
DATASET_PUBLISHED = _gauge(
    "dataset_published_timestamp_seconds", "When a partition of the dataset was last published.", "dataset", unit="s since 1970"
)
BACKLOG = _gauge("backlog_sessions", "Of the newest 20 due sessions, those without a partition of signals.", unit="sessions")

# --- Audits and quarantine ---------------------------------------------------------------------------------------------
AUDITS = _counter("audits", "Audits of candidate partitions, by whether an error was found.", "dataset", "result", unit="audits")
AUDIT_FAILED = _gauge(
    "audit_failed", "1 where the last audit of the dataset for the session shown found an error, else 0.", "dataset"
)
AUDIT_FAILED_CHECKS = _gauge(
    "audit_failed_checks", "Checks that failed in that audit, warnings included.", "dataset", unit="checks"
)
QUARANTINE = _gauge(
    "quarantine_partitions",
    "Partitions of any session with an open entry in quarantine: held as a whole, or published without some rows.",
    "dataset",
    "kind",
    unit="partitions",
)

# --- Signals -----------------------------------------------------------------------------------------------------------
SIGNALS = _gauge(
    "signals", "Underlyings in `signals` of the session shown, by tier; 0 where there is no partition.", "tier", unit="underlyings"
)
UNSCORED = _gauge("signals_unscored", "Those of them that have no score.", unit="underlyings")
SIGNAL_LAG = _gauge(
    "signal_lag_seconds",
    "To the first publication of the signals of the session shown: since its last vendor file arrived in the bucket, and since "
    "the signals were due.",
    "since",
    unit="s",
)
HIT_RATIO = _gauge(
    "signal_hit_ratio",
    "Share of past signals that a significant move followed, by tier, kind of label and horizon in sessions.",
    "tier",
    "label",
    "horizon",
    unit="0 to 1",
)
HIT_OUTCOMES = _gauge("signal_outcomes", "Outcomes behind that share.", "tier", "label", "horizon", unit="outcomes")

# --- Drift of inputs ---------------------------------------------------------------------------------------------------
FACTOR_PSI = _gauge("factor_psi", "Population stability index of a factor: the newest 5 sessions in the 60 before them.", "factor")
FACTOR_PSI_CHANCE = _gauge(
    "factor_psi_chance",
    "What that index stays below in 999 of 1,000 cases if nothing changed and values are independent.",
    "factor",
)
FACTOR_MISSING = _gauge(
    "factor_missing_ratio", "Share of underlyings without the factor in the session shown.", "factor", unit="0 to 1"
)

METRICS: tuple[Metric, ...] = (
    *(BUILD_INFO, MEASURED, SESSION, DUE_SESSION),
    *(STEP_DURATION, STEP_CPU, STEP_MEMORY, STEP_ROWS, SESSION_STEPS, STEPS, RETRIES),
    *(PARTITION_ROWS, PARTITION_BYTES, PUBLISHED_BYTES, DOWNLOADED_BYTES, DATASET_BEHIND, DATASET_PUBLISHED, BACKLOG),
    *(AUDITS, AUDIT_FAILED, AUDIT_FAILED_CHECKS, QUARANTINE),
    *(SIGNALS, UNSCORED, SIGNAL_LAG, HIT_RATIO, HIT_OUTCOMES),
    *(FACTOR_PSI, FACTOR_PSI_CHANCE, FACTOR_MISSING),
)
