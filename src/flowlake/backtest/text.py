"""A backtest in words: the verdicts first, then the figures they rest on, then what was not tested."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    from flowlake.backtest.evaluate import BacktestResult

HEADINGS = {
    "precision": "precision",
    "recall": "recall",
    "false_positive_rate": "FP rate",
    "false_discovery_rate": "FD rate",
    "f1": "F1",
}
"""FP rate: false positive rate, FP / (FP + TN). FD rate: false discovery rate, FP / (FP + TP)."""


def summary(result: BacktestResult) -> str:
    """Plain text, lines of at most about 130 characters."""
    config = result.config
    vintage = config.vintage.replace("_", " ")
    lines = [
        f"Backtest of signals {vintage}: alarms on the top {config.alarm_share:.0%} of scores,",
        f"by thresholds of up to {config.window_sessions} sessions that end the horizon and {config.embargo_sessions} earlier;",
        f"{config.confidence:.0%} intervals from a bootstrap of blocks of {config.block_sessions} or more sessions.",
        "FP rate is FP / (FP + TN); FD rate is FP / (FP + TP), the share of alarms that no significant move followed.",
        "",
        *result.verdicts,
    ]
    for covered in result.coverage.filter(pl.col("abstained").is_null()).iter_rows(named=True):
        lines += ["", *_table(result, covered)]
    return "\n".join(lines) + "\n"


def _table(result: BacktestResult, covered: dict[str, Any]) -> list[str]:
    here = result.metrics.filter(
        (pl.col("label") == covered["label"]) & (pl.col("horizon_sessions") == covered["horizon_sessions"])
    )
    base = here.filter(pl.col("metric") == "base_rate").row(0, named=True)
    head = (
        f"label {covered['label']}, {covered['horizon_sessions']} sessions ahead, {covered['first_session']} to "
        f"{covered['last_session']}: {covered['positives']} of {covered['labels']} labels significant, base rate {_cell(base)}"
    )
    headings = HEADINGS | {f"precision_at_{k}": f"prec@{k}" for k in result.config.picks}
    lines = [head, f"  {'':<22}" + "".join(f"{name:>10}" for name in headings.values()) + "   lift"]
    for scorer in here["scorer"].unique(maintain_order=True):
        rows = {row["metric"]: row for row in here.filter(pl.col("scorer") == scorer).iter_rows(named=True)}
        numbers = "".join(f"{_number(rows[name]['value']):>10}" for name in headings)
        lines.append(f"  {scorer:<22}{numbers}   {_cell(rows['lift'])}")
    return lines


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _cell(row: dict[str, Any]) -> str:
    if row["value"] is None:
        return "undefined"
    if row["low"] is None:
        return f"{row['value']:.3f} (no interval)"
    return f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
