"""Rules that fire in a Prometheus: read, gathered by rule and place, told once a day."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta

import pytest

from alert_servers import closed_port, web_server
from flowlake.alerts.firing import LISTED, PrometheusError, checked_address, firing, notifications, silence
from flowlake.core.errors import UsageError

NOW = datetime(2024, 3, 4, 18, 0, tzinfo=UTC)


def fires(
    rule: str, severity: str = "critical", state: str = "firing", summary: str = "it is so", **labels: str
) -> dict[str, object]:
    return {
        "labels": {"alertname": rule, "severity": severity, "job": "flowlake", "instance": "/lake", **labels},
        "annotations": {"summary": summary, "description": f"What {rule} is.", "runbook_url": f"docs/runbook.md#{rule.lower()}"},
        "state": state,
        "activeAt": "2024-03-02T09:00:00.123456789Z",
        "value": "1e+00",
    }


def answer(*alerts: dict[str, object]) -> bytes:
    return json.dumps({"status": "success", "data": {"alerts": list(alerts)}}).encode()


def test_series_of_one_rule_and_lake_are_one_notification() -> None:
    held = [fires("Held", "warning", dataset=f"d{i:02d}", summary=f"d{i:02d} is held") for i in range(LISTED + 3)]
    body = answer(*held, fires("Held", "warning", instance="/other"), fires("Late", "page"), fires("Waits", state="pending"))
    with web_server(body=body) as prometheus:
        found = notifications(firing(prometheus.url, 5.0), NOW)
        assert prometheus.requests[0].path == "/api/v1/alerts"
    assert [(one.subject, one.tier) for one in found] == [
        ("Held /lake", "warning"),
        ("Held /other", "warning"),
        ("Late /lake", "info"),
    ]
    first = found[0]
    assert first.title == f"Held: d00 is held, and {LISTED + 2} more"
    assert first.facts == tuple((f"dataset d{i:02d}", f"d{i:02d} is held") for i in range(LISTED))
    assert first.reasons == ("What Held is.", "What to do: docs/runbook.md#held")
    assert first.session == date(2024, 3, 4)
    assert first.known_at_utc == datetime(2024, 3, 2, 9, 0, 0, 123456, tzinfo=UTC)


def test_it_is_told_once_a_session_for_as_long_as_it_fires() -> None:
    with web_server(body=answer(fires("Late"))) as prometheus:
        found = firing(prometheus.url, 5.0)
    told = {hours: notifications(found, NOW + timedelta(hours=hours))[0].identity for hours in (0, 5, 24, -48)}
    assert told[0] == told[5]
    assert len(set(told.values())) == 3
    away = [silence("http://p", NOW, NOW + timedelta(hours=hours)).identity for hours in (0, 5, 24)]
    assert away[0] == away[1] != away[2]


@pytest.mark.parametrize(
    ("step", "body", "words"),
    [
        (503, b"", "answers 503"),
        ("cut", b"", "cannot be reached"),
        ("hang", b"", "cannot be reached"),
        ("ok", b"<html>", "not one of Prometheus"),
        ("ok", b'{"data": {}}', "not one of Prometheus"),
        ("ok", b'{"data": {"alerts": [{"state": "firing"}]}}', "not one of Prometheus"),
    ],
)
def test_what_is_no_answer_is_told_in_words(step: object, body: bytes, words: str) -> None:
    with web_server(step, body=body) as prometheus, pytest.raises(PrometheusError, match=words):
        firing(prometheus.url, 0.3)


def test_addresses() -> None:
    with pytest.raises(PrometheusError, match="cannot be reached"):
        firing(f"http://127.0.0.1:{closed_port()}", 5.0)
    assert checked_address("http://prometheus:9090/") == "http://prometheus:9090"
    for wrong in ("prometheus:9090", "http://ann:secret@prometheus", "ftp://prometheus", ""):
        with pytest.raises(UsageError) as refused:
            checked_address(wrong)
        assert "secret" not in str(refused.value)
