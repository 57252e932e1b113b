"""A signed POST of JSON."""

from __future__ import annotations

import time
from dataclasses import dataclass

from flowlake.alerts import signature
from flowlake.alerts.channels.checks import checked_url, is_on
from flowlake.alerts.channels.transport import delivered
from flowlake.alerts.model import Message, Result
from flowlake.alerts.templates import payload_line
from flowlake.core.alert_settings import AlertSettings
from flowlake.core.secret import Secret

REFUSING = frozenset({400, 410, 413, 422})
"""Answers that will be the same for the same body; 401, 403 and 404 are those of a wrong setting and are tried again."""


@dataclass(frozen=True)
class Webhook:
    """`Idempotency-Key` and `id` in the body are the message's; timestamp and signature are made anew for every attempt."""

    url: Secret
    secret: Secret
    min_tier: str
    per_hour: int | None
    timeout_seconds: float
    name: str = "webhook"
    addresses: tuple[str, ...] = ("",)

    def send(self, message: Message, address: str, maybe_there: bool) -> Result:
        body = payload_line(message)
        timestamp = str(int(time.time()))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "flowlake",
            signature.IDEMPOTENCY_HEADER: message.id,
            signature.TIMESTAMP_HEADER: timestamp,
            signature.SIGNATURE_HEADER: signature.sign(self.secret.reveal(), timestamp, body),
        }
        return delivered(self.url.reveal(), body, headers, self.timeout_seconds, REFUSING)


def webhook_channel(settings: AlertSettings) -> Webhook | None:
    """The channel, or None where it is off. Raises UsageError where a setting is missing or wrong."""
    needs = {"alert_webhook_url": settings.webhook_url, "alert_webhook_secret": settings.webhook_secret}
    if not is_on("webhook", "alert_webhook_url", needs):
        return None
    checked_url("alert_webhook_url", settings.webhook_url.reveal(), private=False)
    return Webhook(
        settings.webhook_url, settings.webhook_secret, settings.webhook_min_tier, settings.per_hour, settings.timeout_seconds
    )
