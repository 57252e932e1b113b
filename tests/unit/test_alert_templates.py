"""Messages in words: nothing from outside can break out of a subject, of Telegram's HTML or of a line of JSON."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from flowlake.alerts.channels.email import as_mail
from flowlake.alerts.model import Message, Notification
from flowlake.alerts.templates import TELEGRAM_CHARACTERS, one_line, payload_line, subject, telegram_html, text

NOW = datetime(2024, 3, 4, 15, tzinfo=UTC)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=200)


def told(title: str, *reasons: str) -> Notification:
    return Notification("top_signal", "AAPL", date(2024, 3, 1), "warning", title, NOW, facts=(("score", "91"),), reasons=reasons)


def message(*held: Notification, kind: str = "notification") -> Message:
    return Message("0" * 32, kind, "warning", NOW, held)  # type: ignore[arg-type]


class Reader(HTMLParser):
    """What Telegram would show, and the tags that it would see."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.shown = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.shown += data


def test_the_text_says_why_and_what_speaks_against_it() -> None:
    one = Notification(
        "top_signal", "AAPL", date(2024, 3, 1), "warning", "AAPL: top signal", NOW, "", (("score", "91"),), ("a",), ("b",)
    )
    assert text(message(one)).splitlines() == [
        "AAPL: top signal",
        "",
        "score: 91",
        "session: 2024-03-01",
        "known at: 2024-03-04 10:00 New York (15:00 UTC)",
        "",
        "Why:",
        "  a",
        "",
        "Doubts:",
        "  b",
        "",
        f"-- flowlake, top_signal, id {'0' * 32}",
    ]


def test_a_digest_names_each_of_its_notifications() -> None:
    digest = message(*(told(f"thing {i} " + "x" * 200) for i in range(40)), kind="digest")
    assert subject(digest) == "[flowlake warning] 40 notifications"
    said = text(digest)
    shown = telegram_html(digest)
    assert all(f"- warning: thing {i} x" in said and f"thing {i} x" in shown for i in range(40))
    assert len(shown) <= TELEGRAM_CHARACTERS + len("<b></b>")


@given(TEXTS, TEXTS)
def test_any_text_stays_text(title: str, reason: str) -> None:
    one = message(told(title, reason))
    reader = Reader()
    reader.feed(telegram_html(one))
    reader.close()
    assert reader.tags == ["b"]
    assert len(reader.shown.encode("utf-16-le")) // 2 <= TELEGRAM_CHARACTERS
    line = payload_line(one)
    assert b"\n" not in line
    assert json.loads(line)["notifications"][0]["reasons"] == [reason]
    mail = as_mail(one, "a@b.c", "x@y.z")
    raw = mail.as_bytes()
    assert set(re.findall(rb"^([A-Za-z-]+):", raw.partition(b"\r\n\r\n")[0], re.MULTILINE)) == {
        name.encode()
        for name in mail.keys()  # noqa: SIM118 - a mail is no mapping
    }
    assert len(mail.keys()) == 9


@given(st.lists(TEXTS, max_size=120), st.text("😀&<", min_size=900, max_size=1000))
def test_a_long_message_is_cut_for_telegram_and_says_so(reasons: list[str], long: str) -> None:
    one = message(told("title", *reasons, *[long] * 10))
    reader = Reader()
    reader.feed(telegram_html(one))
    reader.close()
    assert len(reader.shown.encode("utf-16-le")) // 2 <= TELEGRAM_CHARACTERS
    assert "more lines" in reader.shown
    assert reader.shown.endswith(f"id {'0' * 32}")


@given(TEXTS)
def test_a_notification_comes_back_from_the_outbox_as_it_was(title: str) -> None:
    one = told(title, title)
    assert Notification.restored(one.stored()) == one


def test_a_line_holds_no_marks_that_turn_the_writing() -> None:
    assert one_line("a\u202eb\x00c\u2028d\x9be") == "a b c d e"
    assert one_line("x" * 200, 10) == "x" * 9 + "…"


def test_the_identity_is_made_of_what_was_told_not_of_the_words() -> None:
    assert told("a").identity == told("b").identity
    other = Notification("top_signal", "AAPL", date(2024, 3, 4), "warning", "a", NOW)
    assert other.identity != told("a").identity
