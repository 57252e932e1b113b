"""Which factors are watched for drift, and over which sessions."""

from __future__ import annotations

from flowlake.datasets.factors import ENGINE_FEATURES, FACTOR_PANEL

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
