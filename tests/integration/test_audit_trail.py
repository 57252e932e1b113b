"""The audit trail of a lake with a past: events of a cluster, restores and backtests, packed records, retention, no key in it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flowlake.core.settings import Settings
from flowlake.lake.journal import Journal
from flowlake.lake.lake import open_lake
from flowlake.market.s3server import S3Server
from flowlake.market.spec import OPTION_TRADES, session_key
from flowlake.pipeline.maintenance import prune, restore_revision, verify
from integration.conftest import CleanLake
from integration.market_bucket import call, command, lake_hashes, republish, run_command

JOURNALS = ("invocations", "runs", "publications", "audits", "findings", "objects", "trials")
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def events(text: str) -> list[dict[str, Any]]:
    """Every line must be a JSON object: a bar, a warning or a plain word among them is an error."""
    return [json.loads(line) for line in text.splitlines()]


def assert_no_key(settings: Settings, *texts: str) -> None:
    secrets = [settings.bucket_key_id.reveal(), settings.bucket_secret.reveal()]
    assert all(secrets)
    for path in Path(settings.lake).rglob("*"):
        body = path.read_bytes() if path.is_file() else b""
        assert not any(secret.encode() in body for secret in secrets), path
    for name in JOURNALS:  # Parquet is compressed: the values have to be read
        rows = open_lake(settings=settings).read(name).collect().write_json()
        assert not any(secret in rows for secret in secrets), name
    for text in texts:
        assert not any(secret in text for secret in secrets)


def broken(lines: list[str]) -> list[str]:
    return [lines[0].replace("ticker", "what"), *lines[1:]]


def test_events_of_a_dask_run_tell_what_is_on_record(s3: S3Server, clean: CleanLake, tmp_path: Path) -> None:
    settings = clean.copy(s3, "events-dask", tmp_path)
    republish(s3, "events-dask", session_key(OPTION_TRADES, clean.market.days[1]), broken)
    asked = run_command(clean.market, "--executor", "dask", "--log-format", "json")
    ended = call(asked, settings, FLOWLAKE_PARENT_RUN="nightly/7")
    assert ended.returncode == 3, ended.stderr
    told = events(ended.stderr)
    named = [line["event"] for line in told]
    assert (named[0], named[-1]) == ("run_started", "run_finished")
    assert {"step_finished", "published", "quarantined"} < set(named)
    assert {(line["run_id"], line["parent"]) for line in told} == {(told[0]["run_id"], "nightly/7")}
    (refused,) = [line for line in told if line["event"] == "quarantined"]
    assert (refused["step"], refused["session"], refused["level"]) == (
        "ingest_massive_option_trades",
        str(clean.market.days[1]),
        "warning",
    )

    lake = open_lake(settings=settings)
    run_id = told[0]["run_id"]
    rows = lake.sql("select step, session::varchar as session, status from runs where run_id = ? order by all", [run_id]).rows()
    assert sorted((x["step"], x["session"], x["status"]) for x in told if x["event"] == "step_finished") == rows
    published = lake.sql("select dataset, data_hash from publications where run_id = ? order by all", [run_id]).rows()
    assert sorted((x["dataset"], x["data_hash"]) for x in told if x["event"] == "published" and x["changed"]) == published
    (row,) = lake.sql("select * from invocations where run_id = ?", [run_id]).to_dicts()
    assert (row["exit_code"], row["executor"], row["parent"], row["quarantined"]) == (3, "dask", "nightly/7", 1)
    assert row["built"] + row["fresh"] + row["blocked"] + row["absent"] + row["restatable"] + row["quarantined"] == len(rows)
    assert (told[-1]["exit_code"], told[-1]["built"]) == (3, row["built"])
    assert_no_key(settings, ended.stdout, ended.stderr)


def test_runs_lists_what_ran_and_shows_one_in_full(s3: S3Server, clean: CleanLake, tmp_path: Path) -> None:
    settings = clean.copy(s3, "listed", tmp_path)
    day = clean.market.days[2]
    republish(s3, "listed", session_key(OPTION_TRADES, day), lambda lines: [*lines[:1], *lines[2:]])
    call(run_command(clean.market), settings, FLOWLAKE_PARENT_RUN="nightly/8")
    history = next((Path(settings.lake) / "_history" / "option_trades").rglob("*.parquet"))
    restore_revision(settings, "option_trades", day, history.stem[:10])
    assert call(command("backtest"), settings).returncode == 0

    listed = json.loads(call(command("runs", "--json"), settings).stdout)
    assert [row["action"] for row in listed] == ["backtest", "restore", "run", "run"]
    assert all(row["exit_code"] == 0 for row in listed)
    second, first = listed[2], listed[3]
    assert first["run_id"] == clean.report.run_id
    assert first["built"] == clean.report.total("built")
    only = json.loads(call(command("runs", "--parent", "nightly/8", "--json"), settings).stdout)
    assert [row["run_id"] for row in only] == [second["run_id"]]
    assert json.loads(call(command("runs", "--session", "2031-01-02", "--json"), settings).stdout) == []
    printed = call(command("runs", "--last", 3), settings).stdout
    assert second["run_id"] in printed
    assert first["run_id"] not in printed

    detail = json.loads(call(command("runs", first["run_id"][:-1], "--json"), settings).stdout)
    assert {(row["step"], row["session"]) for row in detail["steps"]} == {(r.step, str(r.session)) for r in clean.report.results}
    assert len(detail["publications"]) == sum(len(r.published) for r in clean.report.results)
    assert {row["kept"] for row in detail["publications"]} == {"served", "history"}
    trades = next(r for r in detail["publications"] if (r["dataset"], r["session"]) == ("massive_option_trades", str(day)))
    key = session_key(OPTION_TRADES, day)
    assert (trades["kept"], [i["dataset"] for i in trades["inputs"]]) == ("history", [f"bucket:{key}"])
    signals = next(r for r in detail["publications"] if (r["dataset"], r["session"]) == ("signals", str(clean.market.days[-1])))
    panel = next(i for i in signals["inputs"] if i["dataset"] == "factor_panel")
    assert (panel["first"], panel["last"]) == (str(clean.market.days[0]), str(clean.market.days[-1]))
    shown = call(command("runs", first["run_id"][:-1]), settings).stdout
    assert all(word in shown for word in (first["run_id"], "libraries", "score_signals", "factor_panel", trades["data_hash"][:16]))
    assert_no_key(settings, shown, printed)


def test_packed_records_give_the_same_rows_to_every_reader(s3: S3Server, clean: CleanLake, tmp_path: Path) -> None:
    settings = clean.copy(s3, "packed-records", tmp_path)
    for day in clean.market.days[:2]:
        assert call(command("run", "--session", day, "--no-data-docs"), settings).returncode == 0

    def seen() -> dict[str, Any]:
        lake = open_lake(settings=settings)
        by_sql = {name: lake.sql(f"select * from {name} order by all").rows() for name in JOURNALS}
        read = {name: lake.read(name).collect().sort("run_id", maintain_order=True).height for name in JOURNALS}
        return {"sql": by_sql, "read": read, "runs": {name: lake.runs_with(name) for name in JOURNALS}}

    before, hashes = seen(), lake_hashes(settings.lake)
    assert before["runs"]["runs"] == 3
    assert {name: len(rows) for name, rows in before["sql"].items()} == before["read"]
    run_files = {path: path.read_bytes() for path in Path(settings.lake).glob("ops/*/run=*/part.parquet")}
    assert "were packed" in prune(settings, keep_history=30, dry_run=False)
    assert not list(Path(settings.lake).glob("ops/*/run=*"))
    assert seen() == before
    # As a kill between pack and deletion leaves it.
    for path, body in run_files.items():
        path.parent.mkdir()
        path.write_bytes(body)
    assert seen() == before
    assert open_lake(settings=settings).revision(clean.report.run_id).sessions("signals") == list(clean.market.days)
    assert call(run_command(clean.market), settings).returncode == 0
    assert [found for found in verify(settings) if found.problem] == []
    assert lake_hashes(settings.lake) == hashes


def test_the_end_of_a_run_packs_where_there_are_many(
    s3: S3Server, clean: CleanLake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flowlake.lake import journal
    from integration.market_bucket import run_all

    settings = clean.copy(s3, "many-records", tmp_path)
    monkeypatch.setattr(journal, "MANY_FILES", 1)
    first, second = run_all(settings, clean.market), run_all(settings, clean.market)
    lake = open_lake(settings=settings)
    assert lake.runs_with("runs") == lake.runs_with("invocations") == 3
    left = {path.parent.name for path in Path(settings.lake).glob("ops/runs/*/part.parquet")}
    assert left == {f"packed={second.run_id}", f"run={second.run_id}"}, "a run does not pack itself: it has not ended"
    assert lake.sql("select count(distinct run_id) as n from runs").item() == 3
    assert first.exit_code == second.exit_code == 0


def test_keep_runs_deletes_what_only_a_person_reads(s3: S3Server, clean: CleanLake, tmp_path: Path) -> None:
    settings = clean.copy(s3, "keep-runs", tmp_path)
    lake = open_lake(settings=settings)
    steps = lake.read("runs").collect().head(5)
    old = Journal(lake.store, "20200101T000000-00000000")
    old.add("runs", [row | {"run_id": old.run_id, "started_at_utc": LONG_AGO} for row in steps.to_dicts()])
    old.flush()
    before = {name: lake.read(name).collect().height for name in JOURNALS}
    would = call(command("prune", "--keep-runs", 30, "--dry-run"), settings).stdout
    assert would.startswith("would go:\nruns: 5 rows older than 30 days\n")
    assert lake.read("runs").collect().height == before["runs"]
    said = call(command("prune", "--keep-runs", 30), settings).stdout
    assert said.startswith("deleted:\nruns: 5 rows older than 30 days\n")
    after = {name: lake.read(name).collect().height for name in JOURNALS}
    assert after == before | {"runs": before["runs"] - 5, "invocations": before["invocations"] + 1}
    assert lake.sql("select action from invocations order by started_at_utc desc limit 1").item() == "prune"
    assert "always kept" in " ".join(call(command("prune", "--help"), settings).stdout.split())
