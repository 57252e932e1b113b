"""Each channel against real servers: healthy, hanging, refusing, overloaded, broken, and cut off at every point."""

from __future__ import annotations

import email
import json
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from email.message import EmailMessage
from email.policy import default
from email.utils import format_datetime
from pathlib import Path

import pytest

from alert_servers import certificate, closed_port, mail_server, real_mail_server, web_server
from flowlake.alerts import signature
from flowlake.alerts.channels import Channel, configured
from flowlake.alerts.channels.email import Email
from flowlake.alerts.delivery import DETAIL_CHARACTERS, Policy
from flowlake.alerts.model import Message, Notification, Result
from flowlake.core.alert_settings import AlertSettings
from flowlake.core.secret import Secret
from flowlake.core.settings import load_alert_settings

TOKEN, SECRET = "12345:PLANTED-token_word", "planted webhook secret"
SECONDS = 1.0
"""Timeout of the channels; servers that hang do so far longer."""


def message(title: str = "AAPL: top signal, score 91.2", kind: str = "notification") -> Message:
    one = Notification(
        "top_signal",
        "AAPL",
        date(2024, 3, 1),
        "warning",
        title,
        datetime(2024, 3, 4, 14, tzinfo=UTC),
        reasons=("+50.0  Volume was 1,999 & <more>.",),
        doubts=("-8.0  It may be a hedge.",),
    )
    return Message("0123456789abcdef0123456789abcdef", kind, "warning", datetime(2024, 3, 4, 15, tzinfo=UTC), (one,))  # type: ignore[arg-type]


def channel(tmp_path: Path, **settings: object) -> Channel:
    environ = {f"FLOWLAKE_ALERT_{name.upper()}": str(value) for name, value in settings.items()}
    (made,) = configured(load_alert_settings({"FLOWLAKE_ALERT_TIMEOUT_SECONDS": str(SECONDS)} | environ, tmp_path))
    return made


def webhook(url: str, tmp_path: Path) -> Channel:
    return channel(tmp_path, webhook_url=url, webhook_secret=SECRET)


def telegram(api: str, tmp_path: Path) -> Channel:
    return channel(tmp_path, telegram_token=TOKEN, telegram_chat="-100", telegram_api=api)


def mailer(port: int, tmp_path: Path, **more: object) -> Channel:
    fixed = {"email_host": "127.0.0.1", "email_from": "night@example.com", "email_to": "desk@example.com"}
    return channel(tmp_path, **({"email_security": "plain", "email_port": port} | fixed | more))


def sent(made: Channel, one: Message | None = None) -> Result:
    result = made.send(one or message(), made.addresses[0], False)
    for word in (TOKEN, SECRET, "right word", "wrong word"):
        assert word not in result.detail
    return result


# --- Webhook ---------------------------------------------------------------------------------------------------------------------


def test_a_webhook_is_json_with_a_signature_that_holds(tmp_path: Path) -> None:
    with web_server("ok") as server:
        assert sent(webhook(f"{server.url}/hook?team=a", tmp_path)).verdict == "accepted"
    (request,) = server.requests
    assert request.path == "/hook?team=a"
    told = json.loads(request.body)
    assert request.headers["idempotency-key"] == told["id"] == message().id
    assert told["notifications"][0]["reasons"] == ["+50.0  Volume was 1,999 & <more>."]
    timestamp, signed = request.headers["x-flowlake-timestamp"], request.headers["x-flowlake-signature"]
    assert signature.is_genuine(SECRET, timestamp, signed, request.body, time.time())
    assert not signature.is_genuine(SECRET, timestamp, signed, request.body + b" ", time.time())
    assert not signature.is_genuine("another", timestamp, signed, request.body, time.time())
    assert not signature.is_genuine(SECRET, timestamp, signed, request.body, time.time() + 3600)
    assert not signature.is_genuine(SECRET, str(int(timestamp) + 1), signed, request.body, time.time())


def test_every_attempt_has_the_same_body_and_key(tmp_path: Path) -> None:
    with web_server(500, "ok") as server:
        made = webhook(server.url, tmp_path)
        assert [sent(made).verdict, sent(made).verdict] == ["later", "accepted"]
    first, second = server.requests
    assert first.body == second.body
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]


@pytest.mark.parametrize(
    ("step", "verdict"),
    [
        (500, "later"),
        (503, "later"),
        (404, "later"),
        (401, "later"),
        (302, "later"),
        (400, "refused"),
        (422, "refused"),
        (204, "accepted"),
        ("hang", "unanswered"),
        ("drip", "unanswered"),
        ("cut", "unanswered"),
        ("cut_unread", "unanswered"),
        ("half", "unanswered"),
    ],
)
def test_what_a_web_server_does_to_an_attempt(step: object, verdict: str, tmp_path: Path) -> None:
    with web_server(step) as server:
        began = time.monotonic()
        assert sent(webhook(server.url, tmp_path)).verdict == verdict
        assert time.monotonic() - began < 20 * SECONDS
    assert len(server.requests) == 1, "one attempt is one request, and no redirect is followed"


def test_nobody_listens(tmp_path: Path) -> None:
    address = f"http://127.0.0.1:{closed_port()}"
    for made in (webhook(f"{address}/secret-path", tmp_path), telegram(address, tmp_path), mailer(closed_port(), tmp_path)):
        result = sent(made)
        assert result.verdict == "later"
        assert "refused" in result.detail
        assert "secret-path" not in result.detail


def test_retry_after_in_seconds_and_as_a_date(tmp_path: Path) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=1000), usegmt=True)
    with web_server((429, "Retry-After: 77\r\n"), (503, f"Retry-After: {later}\r\n"), (429, "Retry-After: soon\r\n")) as server:
        made = webhook(server.url, tmp_path)
        results = [sent(made) for _ in range(3)]
    assert [result.verdict for result in results] == ["later"] * 3
    waits = [result.retry_after_seconds for result in results]
    assert waits[0] == 77.0
    assert 900 < (waits[1] or 0) <= 1000
    assert waits[2] is None


def test_an_address_with_a_certificate_that_nobody_knows_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, context = certificate(tmp_path)
    with web_server("ok", tls=context) as server:
        assert sent(webhook(server.url, tmp_path)).verdict == "later"
        assert server.requests == []
        monkeypatch.setenv("SSL_CERT_FILE", str(path))
        assert sent(webhook(server.url, tmp_path)).verdict == "accepted"


@pytest.mark.parametrize("before", range(140, 190, 4))
def test_a_reply_with_control_characters_or_a_secret_at_the_cut_does_no_harm(before: int, tmp_path: Path) -> None:
    reply = b"no\x1b[2J good\r\n" + b"x" * before + SECRET.encode() + b"y" * 100_000
    with web_server(400, body=reply) as server:
        detail = webhook(server.url, tmp_path).send(message(), "", False).detail
    shown = Policy(1.0, AlertSettings(webhook_secret=Secret(SECRET)).redacted).shown(detail)
    assert shown.startswith("HTTP 400 Bad Request: no [2J good xxx")
    assert len(shown) <= DETAIL_CHARACTERS
    assert SECRET[:5] not in shown


# --- Telegram --------------------------------------------------------------------------------------------------------------------


def test_telegram_gets_escaped_html(tmp_path: Path) -> None:
    with web_server("ok", body=b'{"ok": true}') as server:
        assert sent(telegram(server.url, tmp_path), message("<b>A&B</b>")).verdict == "accepted"
    (request,) = server.requests
    assert request.path == f"/bot{TOKEN}/sendMessage"
    told = json.loads(request.body)
    assert (told["chat_id"], told["parse_mode"]) == ("-100", "HTML")
    assert told["text"].startswith("<b>&lt;b&gt;A&amp;B&lt;/b&gt;</b>\n")
    assert "1,999 &amp; &lt;more&gt;." in told["text"]


@pytest.mark.parametrize(
    ("step", "body", "verdict", "wait"),
    [
        (429, b'{"ok": false, "parameters": {"retry_after": 13}}', "later", 13.0),
        (429, b'{"ok": false, "parameters": {"retry_after": "x"}}', "later", None),
        (429, b"[]", "later", None),
        (400, b'{"ok": false, "description": "Bad Request: chat not found"}', "refused", None),
        (403, b'{"ok": false, "description": "Forbidden: bot was blocked"}', "refused", None),
        (401, b'{"ok": false, "description": "Unauthorized"}', "later", None),
        (500, b"", "later", None),
        ("cut", b"", "unanswered", None),
        ("hang", b"", "unanswered", None),
    ],
)
def test_what_telegram_does_to_an_attempt(step: object, body: bytes, verdict: str, wait: float | None, tmp_path: Path) -> None:
    with web_server(step, body=body) as server:
        result = sent(telegram(server.url, tmp_path))
    assert (result.verdict, result.retry_after_seconds) == (verdict, wait)


# --- E-mail ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    path, context = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    return context  # type: ignore[return-value]


def read(body: bytes | str | None) -> EmailMessage:
    assert isinstance(body, bytes)
    return email.message_from_bytes(body, policy=default)  # type: ignore[return-value]


@pytest.mark.real("smtp")
@pytest.mark.parametrize("security", ["starttls", "tls", "plain"])
def test_a_mail_arrives_at_a_server_that_is_not_ours(security: str, trusted: object, tmp_path: Path) -> None:
    context = None if security == "plain" else trusted
    with real_mail_server(context, at_once=security == "tls", login=security == "starttls") as (inbox, port):  # type: ignore[arg-type]
        login = {"email_user": "me", "email_password": "right word"} if security == "starttls" else {}
        made = mailer(port, tmp_path, email_security=security, **login)
        assert sent(made, message("Grüße: Zürich")).verdict == "accepted"
        assert sent(made, message("Grüße: Zürich")).verdict == "accepted"
    assert [envelope.rcpt_tos for envelope in inbox.envelopes] == [["desk@example.com"]] * 2
    first, again = (read(envelope.content) for envelope in inbox.envelopes)
    assert first["Subject"] == "[flowlake warning] Grüße: Zürich"
    assert first["Message-ID"] == again["Message-ID"] == f"<{message().id}@example.com>"
    body = first.get_content()
    for text in ("Why:", "1,999 & <more>.", "Doubts:", "known at: 2024-03-04 09:00 New York (14:00 UTC)", message().id):
        assert text in body
    assert inbox.logins == ([(b"me", b"right word")] * 2 if login else [])


@pytest.mark.real("smtp")
def test_a_wrong_password_is_tried_again_and_not_shown(trusted: object, tmp_path: Path) -> None:
    with real_mail_server(trusted, login=True) as (inbox, port):  # type: ignore[arg-type]
        made = mailer(port, tmp_path, email_security="starttls", email_user="me", email_password="wrong word")
        result = sent(made)
    assert (result.verdict, inbox.envelopes) == ("later", [])
    assert "535" in result.detail


@pytest.mark.real("smtp")
def test_a_server_without_starttls_gets_no_mail(tmp_path: Path) -> None:
    with real_mail_server() as (inbox, port):
        assert sent(mailer(port, tmp_path, email_security="starttls")).verdict == "later"
    assert inbox.envelopes == []


@pytest.mark.real("smtp")
def test_lines_of_dots_and_long_lines_arrive_as_they_were(tmp_path: Path) -> None:
    one = message().notifications[0]
    told = ".\n..\n.hidden " + "long " * 300
    with real_mail_server() as (inbox, port):
        made = mailer(port, tmp_path)
        changed = Message(
            "1" * 32,
            "notification",
            "info",
            message().created_utc,
            (Notification(one.trigger, one.subject, one.session, "info", ".", one.known_at_utc, reasons=tuple(told.split("\n"))),),
        )
        assert sent(made, changed).verdict == "accepted"
    body = read(inbox.envelopes[0].content).get_content().splitlines()
    assert {".", "  .", "  .."} <= set(body)


@pytest.mark.parametrize(
    ("step", "verdict", "taken"),
    [
        ("ok", "accepted", 1),
        ("rude", "accepted", 1),
        ("hang", "later", 0),
        ("closing", "later", 0),
        ("later", "later", 0),
        ("no_such", "refused", 0),
        ("spam", "refused", 0),
        ("cut_inside", "unanswered", 0),
        ("cut", "unanswered", 1),
        ("silent", "unanswered", 1),
    ],
)
def test_what_a_mail_server_does_to_an_attempt(step: str, verdict: str, taken: int, tmp_path: Path) -> None:
    with mail_server(step) as server:
        began = time.monotonic()
        assert sent(mailer(server.port, tmp_path)).verdict == verdict
        assert time.monotonic() - began < 20 * SECONDS
    assert len(server.mails) == taken


def test_a_recipient_that_is_refused_holds_up_no_other(tmp_path: Path) -> None:
    with mail_server("ok", refused=frozenset({"gone@example.com"})) as server:
        made = mailer(server.port, tmp_path, email_to="gone@example.com, desk@example.com")
        assert [made.send(message(), one, False).verdict for one in made.addresses] == ["refused", "accepted"]
    assert [recipient for recipient, _ in server.mails] == ["desk@example.com"]


def test_a_title_cannot_add_a_header(tmp_path: Path) -> None:
    with mail_server("ok") as server:
        made = mailer(server.port, tmp_path)
        assert isinstance(made, Email)
        assert sent(made, message("hello\r\nBcc: all@example.com\r\n\r\nbody\u2028x")).verdict == "accepted"
    ((_, mail),) = server.mails
    read_back = read(mail)
    assert read_back["Bcc"] is None
    assert read_back["Subject"] == "[flowlake warning] hello Bcc: all@example.com body x"


# --- File ------------------------------------------------------------------------------------------------------------------------


def test_a_file_gets_one_line_for_each_message_and_none_twice(tmp_path: Path) -> None:
    path = tmp_path / "alerts.jsonl"
    made = channel(tmp_path, file_path=path)
    assert sent(made, message("line\nend \u2028")).verdict == "accepted"
    assert made.send(message(), "", True).verdict == "accepted"
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == [message().id]


def test_a_line_that_was_cut_off_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "alerts.jsonl"
    path.write_text('{"id": "0123456789abcdef0123456789abcdef", "kind')
    made = channel(tmp_path, file_path=path)
    assert made.send(message(), "", True).verdict == "accepted"
    torn, whole = path.read_text().splitlines()
    assert json.loads(whole)["id"] == message().id
    assert torn.endswith("kind")


def test_a_file_that_cannot_be_written_is_tried_again(tmp_path: Path) -> None:
    assert sent(channel(tmp_path, file_path=tmp_path / "nowhere" / "alerts.jsonl")).verdict == "later"
    assert sent(channel(tmp_path, file_path="/dev/full")).verdict == "later"
