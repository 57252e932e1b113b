"""Which factors are watched for drift, over which sessions, and the two samples of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

import polars as pl

from flowlake.core.arrays import Float
from flowlake.datasets.factors import ENGINE_FEATURES, FACTOR_PANEL
from flowlake.datasets.model import SESSION

CURRENT_SESSIONS = 5
REFERENCE_SESSIONS = 60
"""Before the current ones."""
MIN_VALUES = 20
"""Values that either sample needs; with less there is no index."""
SIGNIFICANT_PSI = 0.25
"""Where practice speaks of a significant change; what chance leaves of small samples has to be passed as well."""


def drift_factors() -> tuple[str, ...]:
    """Columns of the panel whose drift is measured: what the anomaly engines look at, and the figure behind each."""
    behind = {name.removesuffix("_z") for name in ENGINE_FEATURES} & set(FACTOR_PANEL.column_names)
    return tuple(sorted({*behind, *ENGINE_FEATURES}))


@dataclass(frozen=True)
class Windows:
    """The newest sessions, and those before them that they are held against."""

    reference: tuple[date, ...]
    current: tuple[date, ...]


def windows(sessions: list[date]) -> Windows:
    """Of sessions in order; where these are few, the reference has none."""
    return Windows(tuple(sessions[-CURRENT_SESSIONS - REFERENCE_SESSIONS : -CURRENT_SESSIONS]), tuple(sessions[-CURRENT_SESSIONS:]))


def samples(panel: pl.DataFrame, over: Windows) -> Iterator[tuple[str, Float, Float]]:
    """Name, earlier values and newest values of every watched factor that has enough of both; `panel` holds both windows."""
    earlier, now = (panel.filter(pl.col(SESSION).is_in(days)) for days in (over.reference, over.current))
    for name in drift_factors():
        reference, current = (frame.get_column(name).cast(pl.Float64).drop_nulls().to_numpy() for frame in (earlier, now))
        if min(reference.size, current.size) >= MIN_VALUES:
            yield name, reference, current
