"""A backtest in words: the verdicts first, then the figures they rest on, then what was not tested."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    from flowlake.backtest.evaluate import BacktestResult

SHOWN = ("precision", "recall", "false_positive_rate", "false_discovery_rate", "f1", "lift")


def summary(result: BacktestResult) -> str:
    """Plain text, lines of at most about 130 characters."""
    config = result.config
    vintage = config.vintage.replace("_", " ")
    lines = [
        f"Backtest of signals {vintage}: alarms on the top {config.alarm_share:.0%} of scores,",
        f"by thresholds of up to {config.window_sessions} sessions that end the horizon and {config.embargo_sessions} earlier;",
        f"{config.confidence:.0%} intervals from a bootstrap of blocks of {config.block_sessions} or more sessions.",
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
    shown = (*SHOWN, *(f"precision_at_{k}" for k in result.config.picks))
    base = here.filter(pl.col("metric") == "base_rate").row(0, named=True)
    head = (
        f"label {covered['label']}, {covered['horizon_sessions']} sessions ahead, {covered['first_session']} to "
        f"{covered['last_session']}: {covered['positives']} of {covered['labels']} labels significant, base rate {_cell(base)}"
    )
    lines = [head]
    for scorer in here["scorer"].unique(maintain_order=True):
        rows = {row["metric"]: row for row in here.filter(pl.col("scorer") == scorer).iter_rows(named=True)}
        lines.append(f"  {scorer}")
        lines += [f"    {name.replace('_', ' '):<22}{_cell(rows[name])}" for name in shown]
    return lines


def _cell(row: dict[str, Any]) -> str:
    if row["value"] is None:
        return "undefined"
    if row["low"] is None:
        return f"{row['value']:.3f} (no interval)"
    return f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
