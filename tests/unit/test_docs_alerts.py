"""The page of notifications against the code: every setting, every trigger, stated figures, and the snippet for receivers."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from flowlake.alerts import signature
from flowlake.alerts.channels.telegram import REFUSING as _TELEGRAM_REFUSING
from flowlake.alerts.channels.webhook import REFUSING
from flowlake.alerts.delivery import FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS
from flowlake.alerts.outbox import DIGEST_SIZE, FORGET_DAYS, LEAST_ATTEMPTS
from flowlake.alerts.triggers import BEFORE_SESSIONS, IV_RANK_CHANGE, LEANING, TRIGGERS
from flowlake.core.alert_settings import ALERT_NAMES, AlertSettings

PAGE = (Path(__file__).resolve().parents[2] / "docs/alerts.md").read_text(encoding="utf-8")


def test_every_setting_is_on_the_page_and_no_other() -> None:
    assert set(re.findall(r"`FLOWLAKE_((?:ALERT_|WATCH)\w*)`", PAGE)) == {name.upper() for name in ALERT_NAMES}


def test_every_trigger_is_on_the_page_with_its_tier_and_cooldown() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| .* \| (none|\d+ sessions) \|$", PAGE, re.MULTILINE)
    wanted = [(one.name, one.tier, f"{one.cooldown_sessions} sessions" if one.cooldown_sessions else "none") for one in TRIGGERS]
    assert rows == wanted


def test_the_stated_figures_are_those_of_the_code() -> None:
    flat = " ".join(PAGE.split())
    assert f"after {FIRST_WAIT_SECONDS:.0f} seconds, then doubling to an hour" in flat
    assert LONGEST_WAIT_SECONDS == 3600.0
    settings = AlertSettings()
    assert f"After {settings.give_up_hours:.0f} hours, and at least {LEAST_ATTEMPTS} attempts" in flat
    assert f"digests of up to {DIGEST_SIZE}" in flat
    assert f"delivered more than {FORGET_DAYS:.0f} days ago" in flat
    assert f"HTTP {', '.join(map(str, sorted(REFUSING)))}" in flat
    assert 403 in _TELEGRAM_REFUSING
    assert f"moved by {IV_RANK_CHANGE:g} or more" in flat
    assert f"leaning {LEANING * 100:.0f} % or more" in flat
    assert f"at most {BEFORE_SESSIONS} sessions back" in flat
    for name, value in (("PER_HOUR", settings.per_hour), ("TIMEOUT_SECONDS", settings.timeout_seconds)):
        assert f"| `FLOWLAKE_ALERT_{name}` | `{value:.0f}` |" in flat


def test_the_snippet_for_receivers_accepts_what_is_sent_and_nothing_else() -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(snippet, "docs/alerts.md", "exec"), names)
    now, body = str(int(time.time())), b'{"id": "x"}'

    def headers(timestamp: str = now, secret: str = "word") -> dict[str, str]:
        return {signature.TIMESTAMP_HEADER: timestamp, signature.SIGNATURE_HEADER: signature.sign(secret, timestamp, body)}

    check = names["is_genuine"]
    assert check("word", headers(), body)
    assert not check("word", headers(), body + b" ")
    assert not check("word", headers(secret="other"), body)
    assert not check("word", headers(str(int(now) - 600)), body)
    assert not check("word", headers() | {signature.TIMESTAMP_HEADER: "soon"}, body)
