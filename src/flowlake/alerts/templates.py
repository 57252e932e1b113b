"""A message in words: one line for a subject, plain text, Telegram's HTML, JSON. Everything from outside is escaped here."""

from __future__ import annotations

import html
import json
import re
from datetime import datetime
from typing import Any

from flowlake.alerts.model import Message, Notification
from flowlake.core.sessions import NEW_YORK

TITLE_CHARACTERS = 80
SUBJECT_CHARACTERS = 150
TELEGRAM_CHARACTERS = 4096
"""More than this Telegram refuses, counted after its markup is read."""
PAYLOAD_VERSION = 1

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")


def one_line(text: str, most: int = SUBJECT_CHARACTERS) -> str:
    """`text` without line ends, control characters or marks that turn the direction of writing, cut to `most` characters."""
    flat = " ".join(_CONTROL.sub(" ", text).split())
    return flat if len(flat) <= most else flat[: most - 1] + "…"


def subject(message: Message) -> str:
    """One line that says what it is about, the tier in front."""
    if message.kind == "digest":
        return f"[flowlake {message.tier}] {len(message.notifications)} notifications"
    return one_line(f"[flowlake {message.tier}] {message.notifications[0].title}")


def text(message: Message) -> str:
    """The whole message as plain text. A digest has a line for each notification; `flowlake alerts status` shows the rest."""
    if message.kind == "digest":
        lines = [_digest_line(one) for one in message.notifications]
        return "\n".join([f"{len(lines)} notifications in one, because of the limit per hour:", *lines, *_foot(message)]) + "\n"
    return "\n".join([*_body(message.notifications[0]), *_foot(message)]) + "\n"


def telegram_html(message: Message) -> str:
    """The text in Telegram's HTML: the first line bold, all else escaped. Cut at a line where it is too long."""
    lines, foot = text(message).splitlines(), _foot(message)
    body = lines[: -len(foot)]
    room = TELEGRAM_CHARACTERS - sum(_units(line) + 1 for line in foot) - 40
    kept: list[str] = []
    for line in body:
        cut = one_line(line, 1000)
        if _units(cut) + 1 > room:
            kept.append(f"… and {len(body) - len(kept)} more lines")
            break
        room -= _units(cut) + 1
        kept.append(cut if line.strip() else "")
    first, *rest = [html.escape(line, quote=False) for line in [*kept, *foot]]
    return "\n".join([f"<b>{first}</b>", *rest])


def _units(line: str) -> int:
    """Length as Telegram counts it: in units of UTF-16."""
    return len(line.encode("utf-16-le")) // 2


def payload(message: Message) -> dict[str, Any]:
    """The JSON object of webhook and file. The same for every attempt."""
    return {
        "version": PAYLOAD_VERSION,
        "id": message.id,
        "kind": message.kind,
        "tier": message.tier,
        "created_utc": message.created_utc.isoformat(),
        "title": subject(message),
        "text": text(message),
        "notifications": [one.to_json() for one in message.notifications],
    }


def payload_line(message: Message) -> bytes:
    """The object as one line of ASCII, without its end."""
    return json.dumps(payload(message), sort_keys=True).encode("ascii")


def moment(when: datetime) -> str:
    """A moment as a trader reads it: New York, to the minute, and UTC."""
    return f"{when.astimezone(NEW_YORK):%Y-%m-%d %H:%M} New York ({when:%H:%M} UTC)"


def _digest_line(one: Notification) -> str:
    return f"- {one.tier}: {one_line(one.title, TITLE_CHARACTERS)}"


def _body(one: Notification) -> list[str]:
    lines = [one_line(one.title), ""]
    lines += [f"{one_line(label)}: {one_line(value, 500)}" for label, value in one.facts]
    lines += [f"session: {one.session}", f"known at: {moment(one.known_at_utc)}"]
    for heading, sentences in (("Why", one.reasons), ("Doubts", one.doubts)):
        if sentences:
            lines += ["", f"{heading}:", *(f"  {one_line(sentence, 500)}" for sentence in sentences)]
    return lines


def _foot(message: Message) -> list[str]:
    triggers = ", ".join(sorted({one.trigger for one in message.notifications}))
    return ["", f"-- flowlake, {triggers}, id {message.id}"]
