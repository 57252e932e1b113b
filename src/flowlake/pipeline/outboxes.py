"""Where the outbox of a lake's notifications is, and by what policy it is delivered."""

from __future__ import annotations

from pathlib import Path

from flowlake.alerts.delivery import Policy
from flowlake.core.alert_settings import AlertSettings
from flowlake.core.errors import UsageError
from flowlake.core.settings import Settings, load_alert_settings, without_secrets

OUTBOX = "_alerts/outbox.sqlite"
"""Its place in a lake in a folder, and in a backup."""


def outbox_path(settings: Settings, alerts: AlertSettings) -> Path:
    """Where the outbox is. Raises UsageError for a lake on S3 without one that is named."""
    if alerts.outbox:
        return Path(alerts.outbox)
    if settings.lake.startswith("s3://"):
        raise UsageError(
            "alert_outbox is not set, and the lake is in a bucket", "name a file on a disk that stays, in FLOWLAKE_ALERT_OUTBOX"
        )
    return Path(settings.lake) / OUTBOX


def outbox_to_keep(settings: Settings) -> Path | None:
    """The outbox that a backup holds; None for a lake on S3 without one that is named."""
    alerts = load_alert_settings()
    return outbox_path(settings, alerts) if alerts.outbox or not settings.lake.startswith("s3://") else None


def policy_of(settings: Settings, alerts: AlertSettings) -> Policy:
    """How long to try, and the secrets that no detail may show."""
    return Policy(alerts.give_up_hours * 3600.0, lambda text: alerts.redacted(without_secrets(text, settings)))
