"""The columns of the panel that come from the steps of order flow, and why one of them is null."""

from __future__ import annotations

from datetime import date

import polars as pl

from flowlake.datasets.absent import not_available, present
from flowlake.datasets.flow_factors import (
    EXPECTED_MIN_SESSIONS,
    FLOW_KINDS,
    FLOW_SCORED,
    FLOW_VALUES,
    PANEL_FLOW,
    PROFILE_MIN_HISTORY,
    SCORES,
    TIDE_SCORED,
)
from flowlake.datasets.model import SESSION, Inputs
from flowlake.datasets.scored import MIN_HISTORY


def flow_columns(underlyings: pl.Series, inputs: Inputs, session: date) -> pl.DataFrame:
    """`underlying`, the columns of `PANEL_FLOW`, and `flow_not_available`: `factor: reason` of those that are null, sorted.

    A row per underlying of `underlyings`, in their order. Reads `flow_factors` and `flow_scores` of the session where they exist.
    """
    rows = pl.DataFrame({"underlying": underlyings})
    of_values = (*(column.name for column in FLOW_VALUES), "not_available")
    for name, columns in (("flow_factors", of_values), ("flow_scores", tuple(column.name for column in SCORES))):
        frame = present(inputs, name)
        if frame is not None:
            today = frame.filter(pl.col(SESSION) == session).select("underlying", *columns)
            rows = rows.join(today, on="underlying", how="left", maintain_order="left")
    has_trades = "not_available" in rows.columns
    absent = [column for column in PANEL_FLOW if column.name not in rows.columns]
    if not has_trades:
        rows = rows.with_columns(pl.lit(None, dtype=pl.List(pl.String())).alias("not_available"))
    rows = rows.with_columns(pl.lit(None, dtype=column.dtype).alias(column.name) for column in absent)
    nothing = "no eligible print" if has_trades else "needs option_trades"
    by_step = pl.coalesce("not_available", not_available({column.name: nothing for column in FLOW_VALUES}))
    listed = pl.concat_list(by_step, not_available(_score_reasons())).list.sort()
    return rows.with_columns(listed.alias("flow_not_available")).drop("not_available")


def _score_reasons() -> dict[str, str | pl.Expr]:
    short = pl.lit(f"the past holds fewer than {MIN_HISTORY} values, or does not vary")
    reasons: dict[str, str | pl.Expr] = {
        scored.column: pl.when(pl.col(scored.name).is_null()).then(pl.lit(f"{scored.name} is null")).otherwise(short)
        for scored in (*FLOW_SCORED, *TIDE_SCORED)
    }
    regression = f"no option volume, or fewer than {EXPECTED_MIN_SESSIONS} past sessions to learn from"
    profile = f"no eligible print, or fewer than {PROFILE_MIN_HISTORY} past sessions with prints"
    return reasons | {
        **dict.fromkeys((kind.column for kind in FLOW_KINDS), "none of its scores is known"),
        "expected_option_volume": regression,
        "volume_residual": regression,
        "volume_residual_z": regression,
        "peak_premium_z": profile,
        "unusual_minutes": profile,
    }
