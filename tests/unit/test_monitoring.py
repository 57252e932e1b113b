"""Metrics of records made by hand, how they are handed over, and that rules, dashboards and pages agree with them."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from flowlake.core.errors import FlowlakeError, PushError, StorageError, UsageError
from flowlake.core.sessions import NEW_YORK, actionable_at, close_utc
from flowlake.core.settings import Settings
from flowlake.lake.journal import Journal
from flowlake.lake.store import LocalStore
from flowlake.monitoring import exposition, metrics
from flowlake.monitoring.metrics import METRICS, Sample
from flowlake.pipeline.measuring import last_due, measure
from integration.prometheus_server import PACKAGE, program
from unit.test_audit_trail import publication, step_row
from unit.test_docs import anchors

ROOT = Path(__file__).resolve().parents[2]
FRIDAY, MONDAY = date(2024, 3, 1), date(2024, 3, 4)
RULES = {
    rule["alert"]: rule
    for group in yaml.safe_load((PACKAGE / "prometheus/alerts.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
}
DASHBOARDS = {
    file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted((PACKAGE / "grafana/dashboards").glob("*.json"))
}

# --- Of records made by hand -------------------------------------------------------------------------------------------


def at(hour: int, minute: int = 0, day: date = date(2024, 3, 5)) -> datetime:
    return datetime(day.year, day.month, day.day, hour, minute, tzinfo=UTC)


def tried(step: str, status: str, moment: datetime, session: date = MONDAY, **more: Any) -> dict[str, Any]:
    return step_row(step, session, status) | {"started_at_utc": moment} | more


def audited(dataset: str, moment: datetime, *, passed: bool, failed: int) -> dict[str, Any]:
    row = {"dataset": dataset, "session": MONDAY, "audited_at_utc": moment, "passed": passed, "checks": 9, "failed_checks": failed}
    return row | {"failures": "", "suite_hash": "", "rows": 3}


def fetched(key: str, arrived: datetime | None, moment: datetime) -> dict[str, Any]:
    return {"key": key, "size": 100, "etag": "e", "sha256": "s", "fetched_at_utc": moment, "last_modified_utc": arrived}


@pytest.fixture
def found(tmp_path: Path) -> dict[tuple[str, ...], float]:
    """What is measured of a lake that has two runs: metric and labels -> value."""
    store = LocalStore(tmp_path / "lake")
    first, second = Journal(store, "a"), Journal(store, "b")
    iv = {"seconds": 8.0, "cpu_seconds": 12.0, "peak_memory_bytes": 900, "rows": 0}
    first.add(
        "runs",
        [
            tried("option_iv", "failed", at(16), **iv),
            tried("signals", "quarantined", at(16, 1)),
            tried("rates", "built", at(16, 2), FRIDAY),
        ],
    )
    first.add(
        "audits", [audited("option_iv", at(16), passed=True, failed=1), audited("signals", at(16, 1), passed=False, failed=2)]
    )
    again = {"seconds": 9.0, "cpu_seconds": 14.0, "peak_memory_bytes": 1_000, "rows": 7}
    second.add(
        "runs",
        [
            tried("option_iv", "built", at(17), **again),
            tried("option_iv", "fresh", at(18), seconds=0.1),
            tried("signals", "held", at(17, 1)),
            tried("signals", "quarantined", at(18, 1)),
        ],
    )
    second.add("audits", [audited("signals", at(18, 1), passed=True, failed=0)])
    signals = publication("signals", MONDAY) | {"published_at_utc": at(18, 1), "bytes": 40}
    restated = signals | {"published_at_utc": at(20), "file_hash": "other", "bytes": 50}
    second.add("publications", [signals, restated])
    prefix = "us_options_opra/trades_v1/2024/03/"
    second.add(
        "objects",
        [
            fetched(f"{prefix}2024-03-04.csv.gz", at(15, 30), at(17)),
            fetched(f"{prefix}2024-03-01.csv.gz", at(17, 30), at(17, 40)),
            fetched("us_options_opra/minute_aggs_v1/2024/03/2024-03-04.csv.gz", None, at(17)),
            fetched("us_options_opra/day_aggs_v1/2024/03/2024-03-04.csv.gz", at(19), at(19, 30)),
        ],
    )
    first.flush()
    second.flush()
    measured = measure(Settings(lake=store.root), None, at(21))
    return {(sample.metric.name.removeprefix("flowlake_"), *sample.labels): sample.value for sample in measured}


def test_the_session_shown_is_the_newest_that_a_run_looked_at(found: dict[tuple[str, ...], float]) -> None:
    assert found["session_timestamp_seconds",] == close_utc(MONDAY).timestamp()
    assert found["due_session_timestamp_seconds",] == close_utc(MONDAY).timestamp()


def test_figures_of_a_step_are_of_its_last_try(found: dict[tuple[str, ...], float]) -> None:
    names = ("step_duration_seconds", "step_cpu_seconds", "step_process_peak_memory_bytes", "step_rows")
    assert [found[name, "option_iv"] for name in names] == [9.0, 14.0, 1_000.0, 7.0]
    assert ("step_duration_seconds", "rates") not in found
    assert ("step_cpu_seconds", "signals") not in found, "a record of an earlier version has no processor time"


def test_steps_count_by_what_became_of_them_last(found: dict[tuple[str, ...], float]) -> None:
    of_session = {labels[1]: value for labels, value in found.items() if labels[0] == "session_steps" and value}
    assert of_session == {"fresh": 1, "quarantined": 1}
    assert found["steps_total", "signals", "quarantined"] == 2
    assert found["steps_total", "option_iv", "failed"] == 1


def test_a_retry_is_a_try_after_one_that_went_wrong(found: dict[tuple[str, ...], float]) -> None:
    """To be held is no try, so the second quarantine of the signals follows the first."""
    assert [found["step_retries_total", step] for step in ("option_iv", "signals", "rates")] == [1, 1, 0]


def test_the_last_audit_of_the_session_counts(found: dict[tuple[str, ...], float]) -> None:
    assert [found["audit_failed", name] for name in ("option_iv", "signals")] == [0, 0]
    assert [found["audit_failed_checks", name] for name in ("option_iv", "signals")] == [1, 0]
    assert (found["audits_total", "signals", "failed"], found["audits_total", "signals", "passed"]) == (1, 1)


def test_lag_ends_with_the_first_publication(found: dict[tuple[str, ...], float]) -> None:
    """It begins with the newest file of the session that the signals can have seen: a later file, or one of Friday, is not it."""
    assert found["signal_lag_seconds", "arrival"] == timedelta(hours=2, minutes=31).total_seconds()
    assert found["signal_lag_seconds", "due"] == (at(18, 1) - actionable_at(MONDAY)).total_seconds()
    assert found["dataset_published_timestamp_seconds", "signals"] == at(20).timestamp()
    assert found["published_bytes_total", "signals"] == 90
    assert found["downloaded_bytes_total",] == 400


def test_due_is_what_can_be_there() -> None:
    eleven = datetime(2024, 3, 5, 11, 0, tzinfo=NEW_YORK)
    assert last_due(eleven.astimezone(UTC)) == MONDAY
    assert last_due(eleven.astimezone(UTC) - timedelta(seconds=1)) == FRIDAY
    assert last_due(datetime(2024, 3, 3, 12, 0, tzinfo=UTC)) == date(2024, 2, 29), "Friday's signals wait for Monday morning"
    with pytest.raises(UsageError, match="outside the calendar"):
        last_due(datetime(2040, 1, 1, tzinfo=UTC))


# --- Declared ----------------------------------------------------------------------------------------------------------


def test_names_follow_the_conventions_and_labels_are_bounded() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert re.fullmatch(r"flowlake_[a-z_]+", metric.name)
        assert (metric.kind == "counter") == metric.name.endswith("_total"), metric.name
        assert metric.doc.endswith("."), metric.name
        assert set(metric.labels) <= {
            "version",
            "step",
            "status",
            "dataset",
            "result",
            "kind",
            "tier",
            "since",
            "label",
            "horizon",
            "factor",
        }


def test_labels_are_those_declared() -> None:
    with pytest.raises(ValueError, match="has the labels"):
        metrics.STEPS.of(1, "option_iv")


def test_every_metric_is_declared_in_the_list() -> None:
    named = {value.name for value in vars(metrics).values() if isinstance(value, metrics.Metric)}
    assert named == {metric.name for metric in METRICS}


def test_the_page_has_the_same_table() -> None:
    text = (ROOT / "docs/monitoring.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(flowlake_\w+)` \| (\w+) \| ([^|]*) \| ([^|]*) \| ([^|]*) \|$", text, re.MULTILINE)
    stated = [(name, kind, labels.strip(), unit.strip(), doc.strip()) for name, kind, labels, unit, doc in rows]
    assert stated == [(m.name, m.kind, ", ".join(m.labels), m.unit, m.doc) for m in METRICS]


def test_reading_the_command_line_imports_no_client() -> None:
    loaded = "bool({'prometheus_client', 'polars'} & set(sys.modules))"
    code = f"import sys; from flowlake.cli import parser; parser(); sys.exit({loaded})"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- Rules and dashboards ----------------------------------------------------------------------------------------------


@pytest.mark.real("prometheus")
@pytest.mark.parametrize(
    "what", [("check", "rules", "alerts.yml"), ("check", "config", "prometheus.yml"), ("test", "rules", "alerts_test.yml")]
)
def test_promtool_accepts(what: tuple[str, ...]) -> None:
    done = subprocess.run([program("promtool"), *what], cwd=PACKAGE / "prometheus", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_rule_is_tested_to_fire_and_not_to_fire() -> None:
    tests = yaml.safe_load((PACKAGE / "prometheus/alerts_test.yml").read_text(encoding="utf-8"))["tests"]
    fires: dict[str, set[bool]] = {}
    for case in (case for test in tests for case in test["alert_rule_test"]):
        fires.setdefault(case["alertname"], set()).add(bool(case["exp_alerts"]))
    assert fires == {name: {True, False} for name in RULES}


def test_each_rule_says_how_bad_it_is_what_it_means_and_where_to_read_on() -> None:
    for name, rule in RULES.items():
        assert rule["labels"]["severity"] in ("warning", "critical"), name
        assert {"summary", "description", "runbook_url"} <= rule["annotations"].keys(), name
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"


def test_the_runbook_has_a_section_for_each_rule_and_no_other() -> None:
    page = ROOT / "docs/runbook.md"
    headings = re.findall(r"^## (Flowlake\w+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(headings) == sorted(RULES)
    assert {rule["annotations"]["runbook_url"].split("#")[1] for rule in RULES.values()} <= anchors(page)
    for section in re.split(r"^## ", page.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        assert "**Means.**" in section, section[:40]
        assert "**Do.**" in section, section[:40]


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in RULES.values())
    for board in DASHBOARDS.values():
        yield from (target["expr"] for panel in board["panels"] for target in panel.get("targets", ()))


def test_rules_and_dashboards_use_declared_metrics() -> None:
    used = {name for expression in expressions() for name in re.findall(r"\bflowlake_\w+", expression)}
    declared = {metric.name for metric in METRICS}
    assert used <= declared
    assert declared - used == {"flowlake_build_info"}


def test_dashboards_ask_the_data_source_that_is_provisioned() -> None:
    source = yaml.safe_load((PACKAGE / "grafana/provisioning/datasources/prometheus.yml").read_text(encoding="utf-8"))[
        "datasources"
    ][0]
    assert len({board["uid"] for board in DASHBOARDS.values()}) == len(DASHBOARDS) == 3
    for board in DASHBOARDS.values():
        ids = [panel["id"] for panel in board["panels"]]
        assert len(set(ids)) == len(ids)
        for panel in (panel for panel in board["panels"] if panel["type"] != "row"):
            assert panel["title"]
            assert panel["targets"]
            asked = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
            assert {(one["type"], one["uid"]) for one in asked} == {(source["type"], source["uid"])}


def test_panels_do_not_overlap() -> None:
    for name, board in DASHBOARDS.items():
        taken: set[tuple[int, int]] = set()
        for place in (panel["gridPos"] for panel in board["panels"]):
            cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
            assert not cells & taken, name
            assert max(x for x, _ in cells) < 24
            taken |= cells


# --- Handed over -------------------------------------------------------------------------------------------------------

ONE: list[Sample] = [metrics.BACKLOG.of(3), metrics.STEPS.of(2, 'with "quotes"', "built")]


def test_the_text_of_two_samples() -> None:
    assert exposition.text(ONE).splitlines() == [
        f"# HELP flowlake_steps_total {metrics.STEPS.doc}",
        "# TYPE flowlake_steps_total counter",
        'flowlake_steps_total{status="built",step="with \\"quotes\\""} 2.0',
        f"# HELP flowlake_backlog_sessions {metrics.BACKLOG.doc}",
        "# TYPE flowlake_backlog_sessions gauge",
        "flowlake_backlog_sessions 3.0",
    ]


def test_the_textfile_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    file = tmp_path / "flowlake.prom"
    file.write_text("old")
    exposition.write_textfile(ONE, file)
    assert file.read_text() == exposition.text(ONE)
    assert file.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [file]


def test_a_textfile_that_cannot_be_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"files that end in \.prom"):
        exposition.write_textfile(ONE, tmp_path / "flowlake.txt")
    with pytest.raises(StorageError, match="No such file or directory"):
        exposition.write_textfile(ONE, tmp_path / "none" / "flowlake.prom")
    (tmp_path / "taken.prom").mkdir()
    with pytest.raises(StorageError):
        exposition.write_textfile(ONE, tmp_path / "taken.prom")
    assert [path.name for path in tmp_path.iterdir()] == ["taken.prom"]


@contextmanager
def server(answer: bytes | None) -> Iterator[str]:
    """A socket that gives one caller this answer and hangs up; None says nothing until the caller has gone."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            caller, _ = listening.accept()
            with caller:
                received = caller.recv(1 << 20)
                if answer is None:
                    while received:
                        received = caller.recv(1 << 20)
                else:
                    caller.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread.join(30)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 4\r\n\r\nodd\n", "refused the metrics: 400 Bad Request: odd"),
        (b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n", "refused the metrics: 500"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "cannot be reached"),
        (b"", "cannot be reached"),
        (None, "cannot be reached: timed out"),
    ],
)
def test_a_gateway_that_fails_is_told_in_words(answer: bytes | None, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(exposition, "TIMEOUT_SECONDS", 0.5 if answer is None else 30.0)
    with server(answer) as address, pytest.raises(PushError) as told:
        exposition.push(ONE, address, "lake")
    assert words in told.value.what
    assert told.value.cure


def test_a_gateway_that_is_not_there_is_told_in_words() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(PushError, match=r"cannot be reached: .*refused"):
            exposition.push(ONE, f"http://127.0.0.1:{taken.getsockname()[1]}", "lake")


@pytest.mark.parametrize(
    "address", ["", "localhost:9091", "ftp://host", "http://", "http://host:99999", "http://ann:pass@host", "http://[host"]
)
def test_what_is_no_address_is_refused_without_being_repeated(address: str) -> None:
    with pytest.raises(FlowlakeError) as told:
        exposition.push(ONE, address, "lake")
    assert isinstance(told.value, UsageError)
    assert "pass" not in str(told.value).replace("password", "")


def test_an_unknown_day_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no session"):
        measure(replace(Settings(), lake=str(tmp_path)), date(2024, 3, 2))
