"""The bot API of Telegram. The token is part of the address, so no address is ever shown."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from flowlake.alerts.channels.checks import checked_url, is_on, listed
from flowlake.alerts.channels.transport import LONGEST_RETRY_AFTER_SECONDS, Reply, delivered
from flowlake.alerts.model import Message, Result
from flowlake.alerts.templates import telegram_html
from flowlake.core.alert_settings import AlertSettings
from flowlake.core.errors import UsageError
from flowlake.core.secret import Secret

REFUSING = frozenset({400, 403})
"""No such chat, or the bot was blocked in it; 401 and 404 are those of a wrong token and are tried again."""


@dataclass(frozen=True)
class Telegram:
    """`sendMessage` to each chat. The API knows no idempotency: the id in the last line of the text tells a repeat."""

    api: str
    token: Secret
    addresses: tuple[str, ...]
    min_tier: str
    per_hour: int | None
    timeout_seconds: float
    name: str = "telegram"

    def send(self, message: Message, address: str, maybe_there: bool) -> Result:
        wanted = {
            "chat_id": address,
            "text": telegram_html(message),
            "parse_mode": "HTML",
            "link_preview_options": {"is_disabled": True},
        }
        headers = {"Content-Type": "application/json", "User-Agent": "flowlake"}
        url = f"{self.api}/bot{self.token.reveal()}/sendMessage"
        return delivered(url, json.dumps(wanted).encode(), headers, self.timeout_seconds, REFUSING, _retry_after)


def _retry_after(reply: Reply) -> float | None:
    """Telegram says in its body how long to wait."""
    try:
        wait = json.loads(reply.body)["parameters"]["retry_after"]
    except (ValueError, KeyError, TypeError):
        return None
    is_number = isinstance(wait, (int, float)) and not isinstance(wait, bool)
    return min(max(float(wait), 0.0), LONGEST_RETRY_AFTER_SECONDS) if is_number else None


def telegram_channel(settings: AlertSettings) -> Telegram | None:
    """The channel, or None where it is off. Raises UsageError where a setting is missing or wrong."""
    needs = {"alert_telegram_token": settings.telegram_token, "alert_telegram_chat": settings.telegram_chat}
    if not is_on("telegram", "alert_telegram_token", needs):
        return None
    if not re.fullmatch(r"[\w:-]+", settings.telegram_token.reveal(), re.ASCII):
        raise UsageError("alert_telegram_token holds what no token has", "copy it again from @BotFather")
    chats = listed("alert_telegram_chat", settings.telegram_chat)
    if wrong := [chat for chat in chats if not re.fullmatch(r"-?\d+|@\w+", chat, re.ASCII)]:
        raise UsageError(f"alert_telegram_chat: {wrong[0]!r} is no chat", "give numbers such as -1001234, or @names of channels")
    api = checked_url("alert_telegram_api", settings.telegram_api, private=True).rstrip("/")
    return Telegram(api, settings.telegram_token, chats, settings.telegram_min_tier, settings.per_hour, settings.timeout_seconds)
