"""What happens on a connection, in words that hold no address and no key; and a limit on how long it may take in all."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from flowlake.alerts.model import Result

REPLY_BYTES = 4000
LONGEST_RETRY_AFTER_SECONDS = 24 * 3600.0


class NotGivenError(Exception):
    """The connection failed before the message was given: the other side has it not."""


class NoAnswerError(Exception):
    """The message was given, or some of it, and no answer came: the other side may have it."""


@dataclass(frozen=True)
class Reply:
    """An answer of an HTTP server: the start of its body as text, as far as it came."""

    status: int
    headers: Mapping[str, str]
    body: str


def words(error: BaseException) -> str:
    """What went wrong, from the kind of the error alone or the system's word for it: texts of libraries can hold addresses."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return f"{type(error).__name__}: {error.strerror}"
    return type(error).__name__


@contextmanager
def within(seconds: float, connection: Callable[[], socket.socket | None]) -> Iterator[None]:
    """Cut the connection once the block has taken `seconds`: a server that says a letter now and then cannot hold us."""

    def cut() -> None:
        if (found := connection()) is not None:
            with suppress(OSError):
                found.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def post(url: str, body: bytes, headers: Mapping[str, str], timeout_seconds: float) -> Reply:
    """POST without following redirects. Raises NotGivenError or NoAnswerError; an answer of any status is returned."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=timeout_seconds)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        try:
            connection.connect()
        except (OSError, http.client.HTTPException) as error:
            raise NotGivenError(words(error)) from None
        with within(timeout_seconds, lambda: connection.sock):
            try:
                connection.request("POST", path, body, dict(headers))
                response = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                raise NoAnswerError(words(error)) from None
            said = b""
            with suppress(OSError, http.client.HTTPException):  # the status is the answer; the rest only explains it
                said = response.read(REPLY_BYTES)
        return Reply(response.status, {k.lower(): v for k, v in response.headers.items()}, said.decode("utf-8", "replace"))
    finally:
        connection.close()


def retry_after_seconds(reply: Reply, now: datetime) -> float | None:
    """The header Retry-After, seconds or a date, between 0 and a day; None without one that can be read."""
    text = reply.headers.get("retry-after", "").strip()
    if text.isdigit():
        return min(float(text), LONGEST_RETRY_AFTER_SECONDS)
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return min(max((until - now).total_seconds(), 0.0), LONGEST_RETRY_AFTER_SECONDS)


def delivered(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    timeout_seconds: float,
    refusing: frozenset[int],
    asks_to_wait: Callable[[Reply], float | None] = lambda reply: None,
) -> Result:
    """POST, and what came of it: 2xx is accepted, a status of `refusing` refused, anything else tried again, since settings and
    servers can be put right. `asks_to_wait` gives the seconds where a service says them elsewhere than in Retry-After."""
    try:
        reply = post(url, body, headers, timeout_seconds)
    except NotGivenError as error:
        return Result("later", f"not reached: {error}")
    except NoAnswerError as error:
        return Result("unanswered", f"given, but not answered: {error}")
    if 200 <= reply.status < 300:
        return Result("accepted", f"HTTP {reply.status}")
    detail = f"HTTP {reply.status} {http.client.responses.get(reply.status, '')}: {reply.body}"
    if reply.status in refusing:
        return Result("refused", detail)
    wait = retry_after_seconds(reply, datetime.now(UTC))
    return Result("later", detail, asks_to_wait(reply) if wait is None else wait)
