"""The channels, one module each, and which of them the settings turn on."""

from __future__ import annotations

from typing import Protocol

from flowlake.alerts.channels.email import email_channel
from flowlake.alerts.channels.file import file_channel
from flowlake.alerts.channels.telegram import telegram_channel
from flowlake.alerts.channels.webhook import webhook_channel
from flowlake.alerts.model import Message, Result
from flowlake.core.alert_settings import AlertSettings
from flowlake.core.errors import UsageError


class Channel(Protocol):
    """A way to reach people. `addresses` are delivered to apart, so that one that is refused holds up no other."""

    @property
    def name(self) -> str: ...

    @property
    def min_tier(self) -> str: ...

    @property
    def per_hour(self) -> int | None:
        """Messages to one address in an hour; None for no limit."""

    @property
    def addresses(self) -> tuple[str, ...]: ...

    def send(self, message: Message, address: str, maybe_there: bool) -> Result:
        """One attempt, within the timeout. `maybe_there`: an earlier one was given and not answered. Raises nothing."""


_MAKERS = (email_channel, webhook_channel, telegram_channel, file_channel)


def configured(settings: AlertSettings) -> list[Channel]:
    """The channels that the settings turn on. Raises UsageError that names the setting where one is incomplete or wrong."""
    return [channel for make in _MAKERS if (channel := make(settings)) is not None]


def named(channels: list[Channel], name: str) -> list[Channel]:
    """All channels, or the one of that name. Raises UsageError where it is not on, or none is."""
    if not channels:
        raise UsageError(
            "no channel is configured",
            "set alert_email_host, alert_webhook_url, alert_telegram_token or alert_file_path; docs/alerts.md shows how",
        )
    found = [channel for channel in channels if not name or channel.name == name]
    if not found:
        raise UsageError(f"there is no channel {name!r}", f"configured are: {', '.join(channel.name for channel in channels)}")
    return found
