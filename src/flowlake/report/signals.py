"""The list of signals: score, tier, confidence, and the reasons behind each."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import polars as pl

from flowlake.core.errors import UsageError
from flowlake.report import terminal

Sql = Callable[..., pl.DataFrame]


def top_signals(sql: Sql, session: date | None, top: int) -> tuple[date, pl.DataFrame, pl.DataFrame]:
    """The session, its best `top` signals, and all their reasons. Raises UsageError where there is no signal."""
    found = session or sql("select max(session) as day from signals where score is not null").item()
    if found is None:
        raise UsageError("the lake holds no scored signal", "run more sessions: a baseline needs 20 earlier ones")
    signals = sql(
        "select * from signals where session = ? and score is not null order by score desc, underlying limit ?", [found, top]
    )
    reasons = sql("select * from signal_reasons where session = ? order by underlying, rank", [found])
    return found, signals, reasons


def print_signals(sql: Sql, session: date | None, top: int, as_json: bool) -> None:
    day, signals, reasons = top_signals(sql, session, top)
    if as_json:
        terminal.print_json([row | {"why": _why(reasons, row["underlying"]).to_dicts()} for row in signals.to_dicts()])
        return
    out = terminal.console()
    if not signals.height:
        out.print(f"{day}: no underlying has a score")
        return
    for row in signals.iter_rows(named=True):
        out.print(f"[bold]{row['underlying']}[/bold] {day}  score {row['score']:.1f}  tier {row['tier']}  ({_circumstances(row)})")
        for reason in _why(reasons, row["underlying"]).iter_rows(named=True):
            said = terminal.hanging(f"   {reason['contribution']:+6.1f}  ", reason["sentence"], out.width)
            out.print(said, markup=False, soft_wrap=True)


def _circumstances(row: dict[str, Any]) -> str:
    confidence = (
        f"no confidence: {row['confidence_reason']}" if row["confidence"] is None else f"{row['confidence']:.0%} likely to move"
    )
    lean = "" if row["direction"] == "none" else f", leans {row['direction']}"
    return f"{confidence}; regime {row['regime']}{lean}"


def _why(reasons: pl.DataFrame, underlying: str) -> pl.DataFrame:
    return reasons.filter(pl.col("underlying") == underlying).select(
        "rank", "kind", "factor", "value", "z", "contribution", "sentence"
    )
