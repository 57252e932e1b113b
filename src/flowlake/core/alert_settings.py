"""Settings of notifications. They are apart from those of a run: what computes never holds the keys of a mailbox.

As settings their names have `alert_` in front, but for `watch`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from flowlake.core.errors import UsageError
from flowlake.core.secret import Secret

ALERT_PREFIX = "alert_"
TIERS = ("info", "warning", "critical")
"""How urgent a notification is, least first."""
SECURITIES = {"starttls": 587, "tls": 465, "plain": 25}
"""How the connection to a mail server is guarded, with the usual port."""
CHANNELS = ("email", "webhook", "telegram", "file")
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True)
class PriceLevel:
    """A price of the watch list: `side` is above or below, `price` in USD per share on the basis of the session looked at."""

    underlying: str
    side: str
    price: float

    def __str__(self) -> str:
        return f"{self.underlying} {self.side} {self.price:.10g}"


@dataclass(frozen=True)
class AlertSettings:
    """Where notifications go and how often. A channel is on where its first setting is given; `alerts/channels` checks the rest."""

    outbox: str = ""
    """File of what waits and what was sent; by default `_alerts/outbox.sqlite` of a lake in a folder."""
    timeout_seconds: float = 20.0
    give_up_hours: float = 72.0
    per_hour: int = 20
    """Messages to one address in an hour; the rest is gathered into digests."""
    email_host: str = ""
    email_port: int = 0
    """0: the usual one of `email_security`."""
    email_security: str = "starttls"
    email_user: str = ""
    email_password: Secret = field(default_factory=lambda: Secret(""))
    email_from: str = ""
    email_to: str = ""
    """Addresses separated by commas."""
    email_min_tier: str = "info"
    webhook_url: Secret = field(default_factory=lambda: Secret(""))
    """A secret because the address of many receivers is a key by itself."""
    webhook_secret: Secret = field(default_factory=lambda: Secret(""))
    webhook_min_tier: str = "info"
    telegram_token: Secret = field(default_factory=lambda: Secret(""))
    telegram_chat: str = ""
    """Chats separated by commas: numbers, or @names of channels."""
    telegram_api: str = "https://api.telegram.org"
    telegram_min_tier: str = "info"
    file_path: str = ""
    file_min_tier: str = "info"
    watch: tuple[PriceLevel, ...] = ()

    def redacted(self, text: str) -> str:
        """`text` with every secret replaced by `***`."""
        values = [value.reveal() for f in fields(self) if isinstance(value := getattr(self, f.name), Secret) and value]
        for value in sorted(values, key=len, reverse=True):
            text = text.replace(value, "***")
        return text


def _setting(name: str) -> str:
    return name if name == "watch" else ALERT_PREFIX + name


_DEFAULTS = AlertSettings()
_FIELDS = {_setting(f.name): f.name for f in fields(AlertSettings)}
ALERT_NAMES = frozenset(_FIELDS)
ALERT_SECRETS = frozenset(setting for setting, name in _FIELDS.items() if isinstance(getattr(_DEFAULTS, name), Secret))


def alert_settings(values: Mapping[str, str]) -> AlertSettings:
    """The settings of notifications among texts by setting name; defaults for the rest.

    Raises UsageError that names the setting, and never shows a secret.
    """
    given: dict[str, Any] = {_FIELDS[name]: _read(name, values[name]) for name in sorted(ALERT_NAMES & values.keys())}
    return AlertSettings(**given)


def _read(name: str, text: str) -> object:
    default = getattr(_DEFAULTS, _FIELDS[name])
    if isinstance(default, Secret):
        if re.search(r"[\x00-\x1f\x7f]", text):
            raise UsageError(f"{name} holds a control character", "set it again, without line ends")
        return Secret(text)
    if name == "watch":
        return price_levels(text)
    if name.endswith("_min_tier"):
        return _one_of(name, text, TIERS)
    if name == "alert_email_security":
        return _one_of(name, text, tuple(SECURITIES))
    if isinstance(default, int):
        if not text.isdigit() or not 1 <= int(text) <= 65535:
            raise UsageError(f"{name} is {text!r}", "give a whole number from 1 to 65535")
        return int(text)
    if isinstance(default, float):
        return _positive(name, text)
    if re.search(r"[\x00-\x1f\x7f]", text):
        raise UsageError(f"{name} holds a control character", "write it on one line")
    return text


def _one_of(name: str, text: str, allowed: tuple[str, ...]) -> str:
    if text not in allowed:
        raise UsageError(f"{name} is {text!r}", f"give one of: {', '.join(allowed)}")
    return text


def _positive(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0.0 < number < math.inf:
        raise UsageError(f"{name} is {text!r}", "give a number above 0")
    return number


def price_levels(text: str) -> tuple[PriceLevel, ...]:
    """Levels from `AAPL above 200, AAPL below 150`, each once. Raises UsageError for what is none."""
    found: dict[PriceLevel, None] = {}
    for one in (part.strip() for part in text.split(",")):
        if not one:
            continue
        match = re.fullmatch(r"(\S+) +(above|below) +(\d+(?:\.\d+)?)", one)
        if match is None or float(match[3]) <= 0.0:
            raise UsageError(f"watch: {one!r} is no price level", 'write it like "AAPL above 200"')
        found[PriceLevel(match[1], match[2], float(match[3]))] = None
    return tuple(found)


def watch_text(value: object) -> str:
    """The setting `watch` of a TOML file as one text: a table of lists by ticker, or that text itself."""
    if not isinstance(value, Mapping):
        return str(value)
    return ", ".join(
        f"{ticker} {level}" for ticker, levels in value.items() for level in (levels if isinstance(levels, list) else [levels])
    )
