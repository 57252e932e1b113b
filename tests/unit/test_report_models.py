"""`flowlake models`: what was fitted, and what changed within a week."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import duckdb
import polars as pl
import pytest

from flowlake.core.errors import UsageError
from flowlake.report.models import fitted, print_models

FIRST = date(2024, 3, 4)
DAYS = [FIRST + timedelta(days=i) for i in (0, 1, 2, 3, 4, 7)]


def sql_over(days: Sequence[date], parameters: Sequence[str | None]) -> Any:
    models = pl.DataFrame(
        {
            "session": days,
            "model": "market_hmm",
            "fitted_session": days[0],
            "training_first_session": days[0],
            "training_last_session": days[0],
            "training_sessions": 60,
            "training_rows": 60,
            "training_hash": "h",
            "parameters": parameters,
            "is_fitted": True,
            "reason": None,
        },
        schema_overrides={"reason": pl.String, "parameters": pl.String},
    )
    calibrations = pl.DataFrame(
        {
            "session": days,
            "horizon_sessions": 5,
            "label": "sigma",
            "labels": 200,
            "positives": 20,
            "base_rate": 0.1,
            "brier": [0.09 - 0.009 * (i == len(days) - 1) for i in range(len(days))],
            "brier_base_rate": 0.09,
            "is_calibrated": True,
            "reason": None,
        },
        schema_overrides={"reason": pl.String},
    )
    connection = duckdb.connect()
    connection.register("models", models.to_arrow())
    connection.register("calibrations", calibrations.to_arrow())
    return lambda query, parameters=None: connection.sql(query, params=parameters).pl()


def test_a_change_is_one_against_the_session_a_week_before() -> None:
    day, before, models, calibrations = fitted(sql_over(DAYS, ["a", "b", "b", "b", "b", "b"]), None)
    assert (day, before) == (DAYS[-1], DAYS[0])
    assert models[0]["has_changed"] is True
    assert calibrations[0]["skill"] == pytest.approx(0.1)
    assert calibrations[0]["skill_week_before"] == pytest.approx(0.0)


def test_the_same_parameters_are_no_change_and_a_first_week_has_none() -> None:
    assert fitted(sql_over(DAYS, ["a"] * 6), None)[2][0]["has_changed"] is False
    assert fitted(sql_over(DAYS[:3], ["a", "b", "c"]), None)[2][0]["has_changed"] is False
    assert fitted(sql_over(DAYS, ["a", "b", "b", "b", "b", "c"]), DAYS[3])[:2] == (DAYS[3], None)


def test_without_models_the_cure_is_named() -> None:
    with pytest.raises(UsageError, match="no models of 2024-01-02"):
        fitted(sql_over(DAYS, ["a"] * 6), date(2024, 1, 2))


def test_json_and_table_say_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    sql = sql_over(DAYS, ["a", "b", "b", "b", "b", "b"])
    print_models(sql, None, as_json=True)
    assert json.loads(capsys.readouterr().out)["models"][0]["model"] == "market_hmm"
    print_models(sql, None, as_json=False)
    said = capsys.readouterr().out
    assert "changed" in said
    assert "0.1" in said
