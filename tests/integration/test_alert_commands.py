"""`flowlake alerts` on a real lake: told once, to real servers, through kills, restarts and two processes at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from alert_servers import WebServer, closed_port, mail_server, web_server
from flowlake.alerts.triggers import TRIGGERS
from flowlake.core.secret import Secret
from flowlake.core.sessions import decision_time
from flowlake.core.settings import S3Access, Settings
from flowlake.datasets.model import KNOWN_AT
from flowlake.datasets.registry import DATASETS
from flowlake.lake import partitions
from flowlake.lake.hashing import data_hash
from flowlake.lake.journal import ops_frame
from flowlake.lake.store import open_store
from integration.market_bucket import command
from integration.test_cli import Cli, Said, cli_of

BEFORE, DAY = date(2024, 3, 1), date(2024, 3, 4)
TOKEN, SECRET, PASSWORD = "987:PLANTED_token-word", "PLANTED-webhook-secret", "PLANTED mail password"
MANY = 12


def write(root: Path, dataset: str, session: date, *rows: dict[str, Any]) -> None:
    """A partition as a run would leave it; columns that are not given are null."""
    ds = DATASETS[dataset]
    made = pl.DataFrame([{KNOWN_AT: decision_time(session)} | row for row in rows], schema=ds.polars_schema())
    lineage = partitions.Lineage(
        dataset=dataset, session=str(session), data_hash=data_hash(made), rows=made.height,
        known_last_utc=partitions.known_last(made), step="test", step_version=1, schema_hash="", suite_hash="", inputs=(),
        inputs_key="",
    )  # fmt: skip
    body = partitions.encode(ds, made, {partitions.FOOTER_KEY: lineage.to_json()})
    open_store(str(root), S3Access()).write(partitions.partition_path(ds, session), body)


def top(underlying: str, score: float = 90.0) -> dict[str, Any]:
    return {"underlying": underlying, "score": score, "tier": "top", "regime": "calm", "direction": "up"} | {
        "actionable_at_utc": decision_time(DAY),
        "confidence": 0.25,
    }


def step(name: str, status: str, session: date = DAY) -> dict[str, Any]:
    texts = {"run_id": "r1", "detail": "the bucket is away", "inputs_key": "k", "command": "", "code": "", "libraries": ""}
    return (
        {"step": name, "status": status, "session": session, "seconds": 1.0, "rows": 0}
        | texts
        | {"started_at_utc": datetime(2024, 3, 5, 15, tzinfo=UTC)}
    )


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Two sessions; on the second AAPL has split 2:1, and two signals are of the top tier."""
    root = tmp_path / "lake"
    for session, close in ((BEFORE, 400.0), (DAY, 190.0)):
        prices = dict.fromkeys(("open", "high", "low", "close"), close)
        write(root, "equity_bars_1d", session, {"underlying": "AAPL", "volume": 1.0, **prices})
    actions = {"underlying": "AAPL", "ex_date": DAY, "kind": "split", "ratio": 2.0, "source": "house"}
    write(root, "corporate_actions", DAY, actions)
    write(root, "signals", DAY, top("AAPL"), top("BRK.B", 85.0))
    reason = {"underlying": "AAPL", "rank": 1, "kind": "factor", "factor": "x", "contribution": 90.0}
    write(root, "signal_reasons", DAY, reason | {"sentence": "Swept & opened."})
    runs = DATASETS["runs"]
    frame = ops_frame(
        runs, [step("ingest_massive_option_trades", "failed"), step("curate_rates", "held"), step("x", "failed", BEFORE)]
    )
    open_store(str(root), S3Access()).write(partitions.run_path(runs, "r1"), partitions.encode(runs, frame))
    return root


@pytest.fixture
def cli(lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    for name in [name for name in os.environ if name.startswith("FLOWLAKE_")]:
        monkeypatch.delenv(name)
    called = cli_of(Settings(lake=str(lake), bucket_secret=Secret("PLANTED-of-the-bucket")), monkeypatch, capfd)

    def watched(*arguments: object) -> Said:
        said = called("alerts", *arguments)
        for word in (TOKEN, SECRET, PASSWORD):
            assert word not in said.out + said.err
        return said

    return watched


Set = Callable[..., None]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Set:
    """Settings of notifications, as variables; None takes one away."""

    def set_(**settings: object) -> None:
        for name, value in settings.items():
            variable = "FLOWLAKE_WATCH" if name == "watch" else f"FLOWLAKE_ALERT_{name.upper()}"
            if value is None:
                monkeypatch.delenv(variable, raising=False)
            else:
                monkeypatch.setenv(variable, str(value))

    set_(timeout_seconds=5)
    return set_


def hook(server: WebServer) -> dict[str, object]:
    return {"webhook_url": f"{server.url}/hook", "webhook_secret": SECRET}


def bodies(server: WebServer) -> list[dict[str, Any]]:
    return [json.loads(request.body) for request in server.accepted]


def ids(server: WebServer) -> list[str]:
    return [body["id"] for body in bodies(server)]


# --- What is told ----------------------------------------------------------------------------------------------------------------


def test_list_says_what_each_trigger_watches_and_up_to_when(cli: Cli) -> None:
    listed = {one["trigger"]: one for one in cli("list", "--json").json}
    assert listed["top_signal"]["data_up_to"] == str(DAY)
    assert listed["iv_rank_change"]["data_up_to"] == "no iv_ranks"
    assert listed["operations_failed"] == {
        "trigger": "operations_failed",
        "tier": "critical",
        "cooldown_sessions": 0,
        "data_up_to": str(DAY),
        "watches": "Steps of the session that failed, and runs over it that an error ended early",
        "reads": "runs",
    }
    shown = cli("list")
    assert shown.code == 0
    assert all(name in shown.out for name in listed)


@pytest.mark.real("smtp")
def test_a_session_is_told_to_every_channel_and_only_once(cli: Cli, told: Set, tmp_path: Path) -> None:
    with web_server() as web, web_server(body=b'{"ok": true}') as bot, mail_server() as mail:
        told(**hook(web), telegram_token=TOKEN, telegram_chat="-1", telegram_api=bot.url, file_path=tmp_path / "alerts.jsonl")
        told(email_host="127.0.0.1", email_port=mail.port, email_security="plain", email_from="a@b.c", email_to="x@y.z,z@y.z")
        told(email_min_tier="critical", watch="AAPL below 195, AAPL below 250, AAPL below 205")
        first = cli("send", "--session", DAY, "--json")
        again = cli("send", "--session", DAY, "--json")
        shown = cli("send", "--session", DAY)
    assert (first.code, again.code, shown.code) == (0, 0, 0)
    subjects = ["ingest_massive_option_trades", "curate_rates", "AAPL", "BRK.B", "AAPL below 195"]
    assert [one["subject"] for one in first.json["notifications"]] == subjects
    assert {one["state"] for one in first.json["notifications"]} == {"queued"}
    assert {one["state"] for one in again.json["notifications"]} == {"already"}
    assert again.json["deliveries"] == []
    assert sorted(body["notifications"][0]["subject"] for body in bodies(web)) == sorted(subjects)
    assert len(set(ids(web))) == len(bot.accepted) == len((tmp_path / "alerts.jsonl").read_text().splitlines()) == 5
    assert sorted(recipient for recipient, _ in mail.mails) == ["x@y.z", "z@y.z"], "critical only, each recipient once"
    (aapl,) = [one for body in bodies(web) for one in body["notifications"] if one["subject"] == "AAPL"]
    assert aapl["reasons"] == ["+90.0  Swept & opened."]
    assert aapl["known_at_utc"] == decision_time(DAY).isoformat()
    (level,) = [one for body in bodies(web) for one in body["notifications"] if one["trigger"] == "price_level"]
    assert level["facts"][f"close of {BEFORE}"] == f"200.0000 USD, on the share basis of {DAY}"
    assert "no data" in shown.out
    assert "missing: iv_ranks" in shown.out
    assert "[flowlake critical]" not in shown.out


def test_a_dry_run_shows_the_words_and_leaves_no_trace(cli: Cli, told: Set, lake: Path) -> None:
    with web_server() as web:
        told(**hook(web))
        said = cli("send", "--session", DAY, "--dry-run")
        assert said.code == 0
        for text in ("AAPL: top signal, score 90.0", "Swept & opened.", "critical", "dry run: nothing was"):
            assert text in said.out
        assert not (lake / "_alerts").exists()
        assert cli("send", "--session", DAY).code == 0
        states = {one["state"] for one in cli("send", "--session", DAY, "--dry-run", "--json").json["notifications"]}
        assert states == {"already"}
    assert len(web.requests) == 4


def test_a_session_of_a_backfill_is_no_news(cli: Cli, told: Set, lake: Path) -> None:
    with web_server() as web:
        told(**hook(web))
        said = cli("send", "--session", DAY, "--within", "7")
        assert said.code == 0
        assert "nothing of it is told" in said.out
        assert web.requests == []
        assert cli("send", "--session", DAY, "--within", "36500").code == 0
    assert len(web.accepted) == 4


def test_the_newest_sessions_are_told_in_one_go(
    cli: Cli, told: Set, lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second session tells what the first one has not told; what is over the limit is gathered over both."""
    monkeypatch.setattr("flowlake.core.sessions.last_actionable", lambda moment, count: [BEFORE, DAY][-count:])
    write(lake, "signals", BEFORE, top("AAPL"), top("MSFT"))
    with web_server() as web:
        told(**hook(web), per_hour=2)
        first = cli("send", "--last", 2, "--json")
        again = cli("send", "--last", 2, "--json")
    assert (first.code, again.code) == (0, 0)
    asked = {(one["session"], one["trigger"]) for one in first.json["triggers"]}
    assert asked == {(str(session), trigger.name) for session in (BEFORE, DAY) for trigger in TRIGGERS}
    states = Counter((one["session"], one["trigger"], one["state"]) for one in first.json["notifications"])
    assert states[str(BEFORE), "top_signal", "queued"] == 2
    assert (states[str(DAY), "top_signal", "queued"], states[str(DAY), "top_signal", "suppressed"]) == (1, 1), "AAPL was told"
    assert [len(body["notifications"]) for body in bodies(web)] == [1, 5]
    assert {one["state"] for one in again.json["notifications"]} == {"already"}


def test_without_a_channel_nothing_is_taken_for_told(cli: Cli, told: Set, lake: Path) -> None:
    said = cli("send", "--session", DAY)
    assert said.code == 0
    assert "no channel is configured: nothing was put into the outbox" in said.out
    assert not (lake / "_alerts").exists()
    with web_server() as web:
        told(**hook(web))
        assert cli("send", "--session", DAY).code == 0
    assert len(web.accepted) == 4


def test_a_trigger_that_cannot_be_judged_holds_up_no_other(cli: Cli, told: Set, lake: Path) -> None:
    broken = lake / f"derived/signals/session={DAY}/part.parquet"
    body = bytearray(broken.read_bytes())
    body[4:400] = bytes(396)
    broken.write_bytes(bytes(body))
    with web_server() as web:
        told(**hook(web))
        said = cli("send", "--session", DAY, "--json")
    assert said.code == 1
    states = {one["trigger"]: one["state"] for one in said.json["triggers"]}
    assert states["top_signal"] == "failed"
    assert states["operations_failed"] == "found"
    assert len(web.accepted) == 2


@pytest.mark.parametrize(
    ("settings", "arguments", "says"),
    [
        ({}, ("send", "--session", "2024-03-02"), "is not a session"),
        ({}, ("flush",), "no channel is configured"),
        ({}, ("test",), "no channel is configured"),
        ({"file_path": "x"}, ("test", "--channel", "email"), "there is no channel 'email'"),
        ({"email_host": "mail"}, ("send", "--session", DAY), "alert_email_from is not set"),
        ({"webhook_secret": SECRET}, ("send", "--session", DAY), "alert_webhook_url is not set"),
        ({"watch": "AAPL"}, ("send", "--session", DAY), "watch: 'AAPL' is no price level"),
        ({"file_path": "x"}, ("status", "--lake", "s3://bucket/lake"), "alert_outbox is not set"),
    ],
)
def test_wrong_usage_names_what_is_wrong(
    settings: dict[str, object], arguments: tuple[object, ...], says: str, cli: Cli, told: Set
) -> None:
    told(**settings)
    said = cli(*arguments)
    assert said.code == 2
    assert says in said.err
    assert "cure:" in said.err


@pytest.mark.parametrize("named", [False, True], ids=["in the lake", "named"])
def test_a_lost_outbox_comes_back_from_the_backup_and_tells_nothing_again(
    named: bool, cli: Cli, told: Set, lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(lake=str(lake), bucket_secret=Secret("PLANTED-of-the-bucket"))
    flowlake, place = cli_of(settings, monkeypatch, capfd), tmp_path / "kept"
    outbox = tmp_path / "elsewhere" / "told.sqlite" if named else lake / "_alerts" / "outbox.sqlite"
    with web_server() as web:
        told(**hook(web), outbox=outbox if named else None)
        assert cli("send", "--session", DAY).code == 0
        assert flowlake("backup", "--to", place).code == 0
        assert flowlake("backup", "--to", place, "--json").json["files"].keys() == {"has it"}
        assert flowlake("recover", "--from", place).code == 0, "there is one, and it knows more"
        outbox.unlink()
        assert flowlake("recover", "--from", place, "--dry-run").code == 0
        assert not outbox.exists()
        assert flowlake("recover", "--from", place).code == 0
        again = cli("send", "--session", DAY, "--json")
        assert {one["state"] for one in again.json["notifications"]} == {"already"}
        assert len(web.requests) == 4
        outbox.unlink()
        (place / "_alerts" / "outbox.sqlite").write_bytes(b"torn")
        said = flowlake("recover", "--from", place)
    assert said.code == 1
    assert "it is not the file that was copied" in said.out
    assert not outbox.exists()


RULE = {
    "labels": {"alertname": "FlowlakeSchedulerSilent", "severity": "critical"},
    "annotations": {"summary": "Airflow's scheduler is silent", "description": "No heartbeat.", "runbook_url": "docs/runbook.md"},
    "state": "firing",
    "activeAt": "2024-03-04T09:00:00Z",
}


def test_watching_tells_what_fires_and_that_prometheus_is_away(
    cli: Cli, told: Set, lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four rounds: Prometheus answers, is away, is away for long, answers again; a person hears two things."""
    rounds: list[float] = []

    def slept(seconds: float) -> None:
        rounds.append(seconds)
        assert mark.exists()
        mark.unlink()
        if len(rounds) == 3:
            monkeypatch.setattr("flowlake.pipeline.watching.AWAY_SECONDS", 0.0)
        if len(rounds) == 4:
            raise KeyboardInterrupt

    mark = tmp_path / "watched"
    monkeypatch.setattr("flowlake.pipeline.watching.time.sleep", slept)
    fires = json.dumps({"data": {"alerts": [RULE]}}).encode()
    with web_server() as web, web_server("ok", 503, 503, 503, body=fires) as prometheus:
        told(**hook(web))
        said = cli("watch", "--prometheus", prometheus.url, "--mark", mark)
        assert cli("watch", "--prometheus", prometheus.url, "--once").code == 1
        prometheus.script = ["ok"]
        assert cli("watch", "--prometheus", prometheus.url, "--once").code == 0
    assert "answers 503" in said.out
    assert [one["subject"] for body in bodies(web) for one in body["notifications"]] == [
        "FlowlakeSchedulerSilent",
        f"Prometheus {prometheus.url}",
    ]
    assert rounds == [60.0] * 4


def test_watching_delivers_what_waits(cli: Cli, told: Set, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowlake.alerts.delivery.FIRST_WAIT_SECONDS", 0.01)
    with web_server(500, "ok") as web, web_server(body=b'{"data": {"alerts": []}}') as prometheus:
        told(**hook(web))
        assert cli("send", "--session", DAY).code == 3
        time.sleep(0.05)
        assert cli("watch", "--prometheus", f"http://127.0.0.1:{closed_port()}", "--once").code == 1
        assert len(web.accepted) == 4, "also while Prometheus is away"
        told(webhook_url=None, webhook_secret=None)
        said = cli("watch", "--prometheus", prometheus.url, "--once")
    assert (said.code, "nobody is told" in said.out) == (0, True)


# --- When servers fail -----------------------------------------------------------------------------------------------------------


def test_what_fails_waits_and_is_delivered_later(cli: Cli, told: Set, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowlake.alerts.delivery.FIRST_WAIT_SECONDS", 0.01)
    told(webhook_url=f"http://127.0.0.1:{closed_port()}/{SECRET}", webhook_secret=SECRET)
    said = cli("send", "--session", DAY)
    assert said.code == 3
    assert "4 wait for another attempt" in said.out
    assert len(cli("status", "--json").json["open"]) == 4
    with web_server(500, (503, "Retry-After: 1\r\n"), "cut_unread") as web:
        web.script += ["ok"]
        told(**hook(web))
        began = time.monotonic()
        assert cli("flush", "--wait", 120).code == 0
        assert time.monotonic() - began >= 1.0, "the server had asked for a second"
        assert cli("flush").code == 0
    assert len(set(ids(web))) == len(web.accepted) == 4
    assert cli("status", "--json").json["open"] == []


def test_what_is_refused_is_shown_until_it_is_tried_again(cli: Cli, told: Set) -> None:
    with web_server(422, 422, 422, 422, "ok", body=f"never mind {SECRET}".encode()) as web:
        told(**hook(web))
        assert cli("send", "--session", DAY).code == 1
        assert cli("send", "--session", DAY).code == 0, "nothing new, nothing due"
        status = cli("status")
        assert "refused" in status.out
        assert "HTTP 422" in status.out
        assert "flowlake alerts flush --retry" in status.out
        assert cli("flush", "--retry").code == 0
    assert len(set(ids(web))) == 4


def test_no_secret_in_what_is_kept(cli: Cli, told: Set, lake: Path, tmp_path: Path) -> None:
    echo = f"you said {TOKEN} and {SECRET} and {PASSWORD}".encode()
    with web_server(500, body=echo) as web, mail_server("closing") as mail:
        told(**hook(web), telegram_token=TOKEN, telegram_chat="-1", telegram_api=web.url)
        told(email_host="127.0.0.1", email_port=mail.port, email_security="plain", email_from="a@b.c", email_to="x@y.z")
        told(email_user="me", email_password=PASSWORD)
        for arguments in (("test",), ("send", "--session", DAY), ("status",), ("status", "--json"), ("flush", "--json")):
            cli(*arguments)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "outbox.sqlite" for path in files)
    for word in (TOKEN, SECRET, PASSWORD):
        assert not [path for path in files if word.encode() in path.read_bytes()]


def test_a_test_message_says_whether_it_arrived(cli: Cli, told: Set, lake: Path) -> None:
    with web_server("ok", 401, body=f"{TOKEN}".encode()) as web:
        told(**hook(web), telegram_token=TOKEN, telegram_chat="-1", telegram_api=web.url)
        said = cli("test", "--channel", "webhook", "--json")
        assert (said.code, said.json[0]["state"]) == (0, "accepted")
        failed = cli("test", "--channel", "telegram")
        assert failed.code == 1
        assert "HTTP 401 Unauthorized: ***" in failed.out
    assert bodies(web)[0]["kind"] == "test"
    assert not (lake / "_alerts").exists()


# --- Kills and two processes -----------------------------------------------------------------------------------------------------


def started(*arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command("alerts", *arguments), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


@pytest.fixture
def many(lake: Path) -> list[str]:
    names = [f"T{i:02d}" for i in range(MANY)]
    write(lake, "signals", DAY, *(top(name) for name in names))
    return names


def test_a_process_that_is_killed_while_it_delivers_loses_nothing_and_repeats_nothing(cli: Cli, told: Set, many: list[str]) -> None:
    with web_server("ok", "ok", "hang") as web:
        web.script += ["ok"]
        told(**hook(web), timeout_seconds=60)
        process = started("send", "--session", DAY)
        try:
            end = time.monotonic() + 120
            while len(web.requests) < 3:
                assert time.monotonic() < end, "it never came to the third message"
                assert process.poll() is None, process.stderr.read() if process.stderr else ""
                time.sleep(0.02)
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=60)
        assert len(web.accepted) == 2
        assert cli("send", "--session", DAY).code == 0
    subjects = Counter(one["subject"] for body in bodies(web) for one in body["notifications"])
    assert subjects == dict.fromkeys([*many, "ingest_massive_option_trades", "curate_rates"], 1)
    keys = [request.headers["idempotency-key"] for request in web.requests]
    assert {key for key, count in Counter(keys).items() if count > 1} == {keys[2]}, "only what hung was given again, under its key"


def test_killed_right_after_the_answer_it_repeats_at_most_that_one_under_its_key(cli: Cli, told: Set, many: list[str]) -> None:
    for kill_after in (1, 4):
        told(outbox=f"outbox-{kill_after}.sqlite")
        with web_server("ok") as web:
            told(**hook(web))
            process = started("send", "--session", DAY)
            end = time.monotonic() + 120
            while len(web.accepted) < kill_after and process.poll() is None:
                assert time.monotonic() < end
                time.sleep(0.0005)
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=60)
            assert cli("send", "--session", DAY).code == 0
        counts = Counter(ids(web))
        first = {body["id"]: body for body in bodies(web)}
        subjects = Counter(one["subject"] for body in first.values() for one in body["notifications"])
        assert subjects == dict.fromkeys([*many, "ingest_massive_option_trades", "curate_rates"], 1)
        assert sum(counts.values()) <= len(counts) + 1


def test_two_processes_at_once_send_nothing_twice(cli: Cli, told: Set, many: list[str]) -> None:
    with web_server() as web, web_server(body=b'{"ok": true}') as bot:
        told(**hook(web), telegram_token=TOKEN, telegram_chat="-1,-2", telegram_api=bot.url)
        processes = [started("send", "--session", DAY) for _ in range(3)]
        for process in processes:
            _, errors = process.communicate(timeout=240)
            assert process.returncode in (0, 3), errors  # 3: another one was still at work
        assert cli("flush").code == 0
    assert len(ids(web)) == len(set(ids(web))) == MANY + 2
    chats = Counter((body["chat_id"], body["text"]) for body in bodies(bot))
    assert set(chats.values()) == {1}
    assert len(chats) == 2 * (MANY + 2)
