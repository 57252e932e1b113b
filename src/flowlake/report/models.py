"""What was fitted: models and calibrations of a session, beside those of a week before."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import polars as pl

from flowlake.core.errors import UsageError
from flowlake.report import terminal

Sql = Callable[..., pl.DataFrame]
WEEK = 5


def fitted(sql: Sql, session: date | None) -> tuple[date, date | None, list[dict[str, Any]], list[dict[str, Any]]]:
    """The session, the session a week before it if there is one, and the rows of models and calibrations with what changed.

    Raises UsageError where the lake holds no models for it.
    """
    days = sql("select distinct session from models where ?::date is null or session <= ? order by session", [session, session])
    sessions = days.get_column("session").to_list()
    if not sessions or (session is not None and sessions[-1] != session):
        raise UsageError(
            f"the lake holds no models{'' if session is None else f' of {session}'}",
            "run the stage `signals` for the session first",
        )
    before = sessions[-1 - WEEK] if len(sessions) > WEEK else None
    return sessions[-1], before, _models(sql, sessions[-1], before), _calibrations(sql, sessions[-1], before)


def _models(sql: Sql, session: date, before: date | None) -> list[dict[str, Any]]:
    return sql(
        """
        select m.model, m.fitted_session, m.training_first_session, m.training_last_session, m.training_sessions, m.training_rows,
               m.is_fitted, m.reason,
               coalesce(m.parameters, m.training_hash) is distinct from coalesce(e.parameters, e.training_hash)
                   and e.model is not null as has_changed
        from (select * from models where session = ?) m left join (select * from models where session = ?) e using (model)
        order by m.model
        """,
        [session, before],
    ).to_dicts()


def _calibrations(sql: Sql, session: date, before: date | None) -> list[dict[str, Any]]:
    return sql(
        """
        select c.horizon_sessions, c.label, c.labels, c.positives, c.base_rate, c.is_calibrated, c.reason,
               1 - c.brier / nullif(c.brier_base_rate, 0) as skill, 1 - e.brier / nullif(e.brier_base_rate, 0) as skill_week_before
        from (select * from calibrations where session = ?) c
        left join (select * from calibrations where session = ?) e using (horizon_sessions, label)
        order by c.horizon_sessions, c.label
        """,
        [session, before],
    ).to_dicts()


def print_models(sql: Sql, session: date | None, as_json: bool) -> None:
    day, before, models, calibrations = fitted(sql, session)
    if as_json:
        terminal.print_json({"session": day, "week_before": before, "models": models, "calibrations": calibrations})
        return
    out = terminal.console()
    columns = ["model", "fitted", "trained on", "to", "sessions", "rows", "since a week before", "why not"]
    rows = [
        (
            row["model"],
            row["fitted_session"] if row["is_fitted"] else "not yet",
            row["training_first_session"],
            row["training_last_session"],
            row["training_sessions"],
            row["training_rows"],
            "" if before is None else "changed" if row["has_changed"] else "the same",
            row["reason"],
        )
        for row in models
    ]
    out.print(terminal.table(f"models used for {day}", columns, rows))
    columns = ["horizon", "label", "labelled", "moved", "base rate", "skill", "skill a week before", "why not"]
    names = ("horizon_sessions", "label", "labels", "positives", "base_rate", "skill", "skill_week_before", "reason")
    out.print(terminal.table("calibrations", columns, [tuple(row[name] for name in names) for row in calibrations]))
    out.print("skill: 1 less the ratio of the Brier score to that of always saying the base rate, on the labels it was fitted to")
