"""How a row of `models` is made and read, shared by every package that fits one.

A model is a pure function of its training rows and hyper-parameters. It is refitted on the first session of each ISO week that
the look-back holds, from rows up to that session only, so the order in which sessions are built cannot change it. Finding the
same training hash in an earlier row merely saves the work of fitting again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import polars as pl

from flowlake.core.arrays import Float
from flowlake.datasets.model import KNOWN_AT
from flowlake.datasets.signals import MODELS

MODEL_SCHEMA = {name: dtype for name, dtype in MODELS.polars_schema().items() if name != KNOWN_AT}


@dataclass(frozen=True)
class Training:
    """The rows of a fit: `rows` is (n, features), ordered by `sessions` (n, ascending), without NaN."""

    fitted_session: date
    sessions: Sequence[date]
    rows: Float

    @property
    def session_count(self) -> int:
        return len(set(self.sessions))

    @property
    def hash(self) -> str:
        head = canonical_json([list(self.rows.shape), [day.isoformat() for day in self.sessions]])
        return hashlib.sha256(head.encode() + np.ascontiguousarray(self.rows, dtype="<f8").tobytes()).hexdigest()


@dataclass(frozen=True)
class Recipe:
    """What is fitted: name, purpose, feature columns, and hyper-parameters with the seed."""

    model: str
    purpose: str
    features: tuple[str, ...]
    hyper_parameters: dict[str, Any]


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no blanks; ValueError for NaN or infinity."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def week_anchor(session: date, available: Sequence[date]) -> date:
    """The first of the `available` sessions in the ISO week of `session`, not after it; else `session` itself."""
    week = session.isocalendar()[:2]
    return min((day for day in available if day <= session and day.isocalendar()[:2] == week), default=session)


def model_row(recipe: Recipe, training: Training, parameters: dict[str, Any] | None, reason: str | None) -> dict[str, Any]:
    """A row of `models`; `reason` says why there was no fit, and is None for a fitted model."""
    return {
        "model": recipe.model,
        "purpose": recipe.purpose,
        "fitted_session": training.fitted_session,
        "training_first_session": training.sessions[0] if training.sessions else None,
        "training_last_session": training.sessions[-1] if training.sessions else None,
        "training_sessions": training.session_count,
        "training_rows": len(training.rows),
        "training_hash": training.hash,
        "features": canonical_json(list(recipe.features)),
        "hyper_parameters": canonical_json(recipe.hyper_parameters),
        "parameters": None if parameters is None else canonical_json(parameters),
        "is_fitted": reason is None,
        "reason": reason,
    }


def find_model(models: pl.DataFrame, model: str, session: date) -> dict[str, Any] | None:
    """The row of `model` in the partition of `session`, or None."""
    found = models.filter((pl.col("model") == model) & (pl.col("session") == session))
    return found.row(0, named=True) if found.height else None


def same_fit(prior: pl.DataFrame | None, recipe: Recipe, training: Training, session: date) -> dict[str, Any] | None:
    """The newest row before `session` that the same recipe and training rows gave, or None."""
    if prior is None or prior.is_empty():
        return None
    found = prior.filter(
        (pl.col("model") == recipe.model)
        & pl.col("is_fitted")
        & (pl.col("session") < session)
        & (pl.col("fitted_session") == training.fitted_session)
        & (pl.col("training_hash") == training.hash)
        & (pl.col("features") == canonical_json(list(recipe.features)))
        & (pl.col("hyper_parameters") == canonical_json(recipe.hyper_parameters))
    ).sort("session")
    return {name: found[name][-1] for name in MODEL_SCHEMA} if found.height else None


def models_frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=MODEL_SCHEMA, orient="row")
