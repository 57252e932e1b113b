"""A backtest in words: the verdicts, then for each of them one table of all scorers, the signal first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    from flowlake.backtest.evaluate import BacktestResult

WITH_INTERVAL = 18
"""Width of a column with an interval; the others are as wide as their headings and two blanks."""
SCORER = 22
PLAIN = {"recall": "recall", "false_positive_rate": "FP rate", "false_discovery_rate": "FD rate"}
PICKS = (1, 3)
"""Of the picks that a configuration measures, those that the table has room for."""


def summary(result: BacktestResult) -> str:
    """Plain text in lines of at most 120 characters; the verdicts are broken between words."""
    lines = [line for verdict in result.verdicts for line in _broken(verdict)]
    tables = result.coverage.filter(pl.col("abstained").is_null())
    for covered in tables.iter_rows(named=True):
        lines += ["", *_table(result, covered)]
    if tables.height:
        lines += ["", *_legend(result)]
    return "\n".join(lines) + "\n"


def _legend(result: BacktestResult) -> list[str]:
    config = result.config
    return [
        f"Signals {config.vintage.replace('_', ' ')}. "
        f"An alarm: the top {config.alarm_share:.0%} of scores, by a threshold of earlier sessions alone.",
        f"[ ]: {config.confidence:.0%} interval, from blocks of {config.block_sessions} or more sessions. "
        "P@k: precision of the k highest scores of a session.",
        "FP rate: FP / (FP + TN). FD rate: FP / (FP + TP), alarms that no significant move followed. lift: precision / base rate.",
    ]


def _broken(text: str, width: int = 120) -> list[str]:
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("  " + word)
        else:
            lines[-1] += (" " if lines[-1] else "") + word
    return lines


def _table(result: BacktestResult, covered: dict[str, Any]) -> list[str]:
    here = result.metrics.filter(
        (pl.col("label") == covered["label"]) & (pl.col("horizon_sessions") == covered["horizon_sessions"])
    )
    base = here.filter(pl.col("metric") == "base_rate").row(0, named=True)
    sessions = "session" if covered["horizon_sessions"] == 1 else "sessions"
    head = (
        f"label {covered['label']}, {covered['horizon_sessions']} {sessions} ahead, {covered['first_session']} to "
        f"{covered['last_session']}: {covered['positives']} of {covered['labels']} labels significant, base rate {_number(base)}"
    )
    picks = [f"precision_at_{k}" for k in PICKS if k in result.config.picks]
    titles = [f"{'scorer':<{SCORER}}", f"{'precision':<{WITH_INTERVAL}}", *(f"{name:>7}" for name in PLAIN.values())]
    titles += [f"  {'lift':<{WITH_INTERVAL}}", *(f"{'P@' + name.rsplit('_', 1)[1]:>6}" for name in picks)]
    lines = [head, "  " + "  ".join(titles)]
    for scorer in here["scorer"].unique(maintain_order=True):
        rows = {row["metric"]: row for row in here.filter(pl.col("scorer") == scorer).iter_rows(named=True)}
        cells = [
            f"{scorer:<{SCORER}}",
            f"{_cell(rows['precision']):<{WITH_INTERVAL}}",
            *(f"{_number(rows[name]):>7}" for name in PLAIN),
        ]
        cells += [f"  {_cell(rows['lift']):<{WITH_INTERVAL}}", *(f"{_number(rows[name]):>6}" for name in picks)]
        lines.append("  " + "  ".join(cells).rstrip())
    return lines


def _number(row: dict[str, Any]) -> str:
    return "-" if row["value"] is None else f"{row['value']:.3f}"


def _cell(row: dict[str, Any]) -> str:
    if row["value"] is None or row["low"] is None:
        return _number(row)
    return f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
