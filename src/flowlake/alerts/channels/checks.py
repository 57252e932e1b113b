"""What several channels ask of their settings."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from flowlake.core.alert_settings import LOOPBACK
from flowlake.core.errors import UsageError


def is_on(channel: str, first: str, values: Mapping[str, object]) -> bool:
    """Whether the setting `first` of a channel is given; `values` are all that it needs, by name.

    Raises UsageError where only some of them are.
    """
    given = [name for name, value in values.items() if value]
    missing = [name for name, value in values.items() if not value]
    if not given:
        return False
    if missing:
        raise UsageError(f"{missing[0]} is not set, but {given[0]} is", f"{channel} needs {', '.join(values)}")
    return bool(values[first])


def listed(name: str, text: str) -> tuple[str, ...]:
    """What a setting lists between commas, each once. Raises UsageError for an empty list."""
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not found:
        raise UsageError(f"{name} names nobody", "give one or more, separated by commas")
    return found


def checked_host(name: str, host: str) -> str:
    """A name or address of a machine. Raises UsageError for what the name service could not even be asked for."""
    try:
        host.encode("idna")
    except UnicodeError:
        host = ""
    if not host or any(character in "/@ " for character in host):
        raise UsageError(f"{name} is no name of a machine", "give a name like smtp.example.com, or an address")
    return host


def checked_url(name: str, url: str, *, private: bool) -> str:
    """An http or https address without user, blanks or fragment. `private`: plain http only to this machine.

    Raises UsageError, which shows no part of the address.
    """
    cure = "give an address like https://host/path"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise UsageError(f"{name} is no address", cure) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise UsageError(f"{name} is no http or https address", cure)
    checked_host(name, parts.hostname)
    if not url.isascii() or any(character.isspace() for character in url) or parts.username is not None or parts.fragment:
        raise UsageError(f"{name} holds a user, a fragment, a blank or a letter that is not ASCII", cure)
    if private and parts.scheme == "http" and parts.hostname not in LOOPBACK:
        raise UsageError(f"{name} is plain http to another machine, and a key would travel with it", "use https")
    return url
