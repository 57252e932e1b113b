"""What is told: a notification, and the message that carries one or several of them to one address."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Any, Literal

Verdict = Literal["accepted", "later", "refused", "unanswered"]
Kind = Literal["notification", "digest", "test"]


@dataclass(frozen=True)
class Notification:
    """One thing that a person should know.

    `key` tells apart what one trigger may say twice of a subject and session. `facts` are pairs of label and value; `reasons` and
    `doubts` are sentences. `known_at_utc` is when it could first be known.
    """

    trigger: str
    subject: str
    session: date
    tier: str
    title: str
    known_at_utc: datetime
    key: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    reasons: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    @property
    def identity(self) -> str:
        """The same for the same trigger, subject, session and key: what was told once is not told again."""
        return fingerprint("notification", self.trigger, self.subject, str(self.session), self.key)

    def to_json(self) -> dict[str, Any]:
        """Plain values, as webhook and file write them."""
        plain = asdict(self) | {"session": str(self.session), "known_at_utc": self.known_at_utc.isoformat()}
        return {"identity": self.identity} | plain | {"facts": dict(self.facts)}

    def stored(self) -> str:
        return json.dumps(asdict(self), default=str)

    @classmethod
    def restored(cls, text: str) -> Notification:
        """What `stored` wrote."""
        values = json.loads(text)
        return cls(
            **values
            | {
                "session": date.fromisoformat(values["session"]),
                "known_at_utc": datetime.fromisoformat(values["known_at_utc"]),
                "facts": tuple((label, value) for label, value in values["facts"]),
                "reasons": tuple(values["reasons"]),
                "doubts": tuple(values["doubts"]),
            }
        )


@dataclass(frozen=True)
class Message:
    """What is handed to a channel as one piece. `id` stays the same however often it is tried: receivers know a repeat by it."""

    id: str
    kind: Kind
    tier: str
    created_utc: datetime
    notifications: tuple[Notification, ...]


@dataclass(frozen=True)
class Result:
    """What became of one attempt.

    accepted: the other side said so. later: it surely has it not, try again. refused: it said that it never will. unanswered: the
    message was given and the connection was lost before an answer, so that it may have it. `detail` is as the other side wrote it:
    `Policy.shown` makes it fit to be kept.
    """

    verdict: Verdict
    detail: str = ""
    retry_after_seconds: float | None = None


def fingerprint(*parts: str) -> str:
    """32 hexadecimal digits that differ for different texts in different places."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
