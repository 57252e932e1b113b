"""Files that are published again, the revisions that they leave, and what retention deletes."""

from __future__ import annotations

import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from flowlake.core.errors import UsageError
from flowlake.core.settings import Settings
from flowlake.datasets.registry import DATASETS
from flowlake.lake.index import Index
from flowlake.lake.lake import open_lake
from flowlake.lake.partitions import lineage_of, partition_path
from flowlake.lake.publish import prune_partitions, revisions
from flowlake.lake.store import open_store
from flowlake.market.s3server import S3Server
from flowlake.market.spec import OPTION_TRADES, session_key
from flowlake.pipeline.maintenance import list_revisions, prune, restore_revision, verify
from flowlake.pipeline.plan import by_name
from flowlake.pipeline.run import Report
from integration.conftest import CleanLake
from integration.market_bucket import (
    BUCKET,
    bucket_of,
    call,
    command,
    environment,
    lake_hashes,
    republish,
    run_all,
    run_command,
    settings_for,
)

CHANGED = 2
"""Index of the session whose trades are published again."""


def one_row_changed(lines: list[str]) -> list[str]:
    """The same file, one contract more in its first print."""
    header, first, *rest = lines
    columns = header.split(",")
    fields = dict(zip(columns, first.split(","), strict=True))
    fields["size"] = str(int(fields["size"]) + 1)
    return [header, ",".join(fields[name] for name in columns), *rest]


def steps_by_status(report: Report, status: str) -> dict[str, list[int]]:
    """Step -> positions of the sessions in which it had this status."""
    days = sorted({result.session for result in report.results})
    found: dict[str, list[int]] = {}
    for result in report.results:
        if result.status == status:
            found.setdefault(result.step, []).append(days.index(result.session))
    return found


def changed_paths(before: dict[str, str], after: dict[str, str]) -> set[tuple[str, str]]:
    """(dataset, session) of every file that differs."""
    paths = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    return {(path.split("/")[1], path.split("/")[2].removeprefix("session=")) for path in paths}


AFTER = set(by_name()["flow_factors"].writes)
"""Made of a session's trades and the deltas of the session before, and no vintage."""


def trades(lake_settings: Settings, run_id: str = "") -> pl.DataFrame:
    lake = open_lake(settings=lake_settings)
    return (lake.revision(run_id) if run_id else lake).read("option_trades").collect()


def test_a_republished_file_restates_its_session_and_lists_the_vintages(s3: S3Server, clean: CleanLake, tmp_path: Path) -> None:
    settings = clean.copy(s3, "republished", tmp_path)
    day = str(clean.market.days[CHANGED])
    republish(s3, "republished", session_key(OPTION_TRADES, clean.market.days[CHANGED]), one_row_changed)

    # What depends on the session alone is restated at once; of other sessions only what reads the session before its own.
    printed = call(run_command(clean.market), settings)
    assert printed.returncode == 0, printed.stderr
    after = lake_hashes(settings.lake)
    local = {"massive_option_trades", "option_trades", "option_iv", "daily_factors"}
    restated = changed_paths(clean.hashes, after)
    assert local <= {name for name, _ in restated}
    assert {session for name, session in restated if name not in AFTER} == {day}
    assert {session for name, session in restated if name in AFTER} == {day, str(clean.market.days[CHANGED + 1])}
    assert not any(by_name()[step].vintage for step in by_name() if {name for name, _ in restated} & set(by_name()[step].writes))

    # Windowed and fitted outputs of that and later sessions are listed, with their count.
    again = run_all(settings, clean.market)
    assert again.total("built") == 0
    listed = steps_by_status(again, "restatable")
    assert listed["factor_panel"] == [2, 3, 4]
    assert all(by_name()[step].vintage and min(sessions) >= CHANGED for step, sessions in listed.items())
    assert f"{again.total('restatable')} windowed or fitted outputs are restatable" in printed.stdout
    assert lake_hashes(settings.lake) == after

    # The old revision stays readable, in Polars and in SQL.
    first, second = clean.report.run_id, again.run_id
    old, new = trades(clean.settings), trades(settings)
    assert new.get_column("size").sum() == old.get_column("size").sum() + 1
    assert trades(settings, first).equals(old)
    assert trades(settings, second).equals(new)
    query = "select session, sum(size) as size, count(*) as n from option_trades group by 1 order by 1"
    lake, untouched = open_lake(settings=settings), open_lake(settings=clean.settings)
    assert lake.revision(first).sql(query).equals(untouched.sql(query))
    assert not lake.sql(query).equals(untouched.sql(query))
    for name in ("massive_option_trades", "option_iv", "daily_factors"):
        assert lake.revision(first).read(name).collect().equals(untouched.read(name).collect())
    shown = list_revisions(settings, "option_trades", clean.market.days[CHANGED])
    assert clean.hashes[f"curated/option_trades/session={day}/part.parquet"][:16] in shown

    # `--restate` replaces the vintages: the lake is now the one that the new bucket alone would have given.
    assert call(run_command(clean.market, "--restate"), settings).returncode == 0
    fresh = settings_for(s3, "republished", tmp_path / "fresh", tmp_path / "scratch-fresh")
    assert run_all(fresh, clean.market).exit_code == 0
    assert lake_hashes(settings.lake) == lake_hashes(fresh.lake)
    assert "nothing to do" in call(run_command(clean.market), settings).stdout
    panel = open_lake(settings=settings).revision(first).read("factor_panel").collect()
    assert panel.equals(untouched.read("factor_panel").collect())


def test_restore_brings_a_revision_back(s3: S3Server, clean: CleanLake, tmp_path: Path) -> None:
    settings = clean.copy(s3, "restored", tmp_path)
    day = clean.market.days[CHANGED]
    path = f"derived/factor_panel/session={day}/part.parquet"
    republish(s3, "restored", session_key(OPTION_TRADES, day), one_row_changed)
    replaced = run_all(settings, clean.market, restate=True)
    assert lake_hashes(settings.lake)[path] != clean.hashes[path]

    said = call(command("restore", "factor_panel", day, clean.hashes[path][:12]), settings)
    assert said.returncode == 0, said.stderr
    assert clean.hashes[path][:16] in said.stdout
    assert lake_hashes(settings.lake)[path] == clean.hashes[path]
    later = run_all(settings, clean.market)
    assert steps_by_status(later, "restatable")["factor_panel"] == [CHANGED]
    assert lake_hashes(settings.lake)[path] == clean.hashes[path], "a restored vintage stays until somebody asks for another"
    lake = open_lake(settings=settings)
    panel, served = lake.revision(replaced.run_id).read("factor_panel").collect(), lake.read("factor_panel").collect()
    assert not panel.equals(served)
    with pytest.raises(UsageError, match="0 revisions start with 'ffffffffffff'"):
        restore_revision(settings, "factor_panel", day, "ffffffffffff")


def test_equal_rows_stop_the_cascade(s3: S3Server, clean: CleanLake, tmp_path: Path) -> None:
    """Other bytes with the same rows restate the raw partition's lineage and nothing else; its values are the same."""
    settings = clean.copy(s3, "equal-rows", tmp_path)
    key = session_key(OPTION_TRADES, clean.market.days[CHANGED])
    before = lineage_of(open_store(settings.lake, settings.lake_access), _raw_path(clean))
    republish(s3, "equal-rows", key, lambda lines: lines)
    report = run_all(settings, clean.market)
    watching_the_bucket = {step.name: [CHANGED] for step in by_name().values() if step.reads_listing}
    assert steps_by_status(report, "built") == {"ingest_massive_option_trades": [CHANGED]} | watching_the_bucket
    assert report.total("fresh") == len(report.results) - 1 - len(watching_the_bucket)
    assert changed_paths(clean.hashes, lake_hashes(settings.lake)) == {("massive_option_trades", str(clean.market.days[CHANGED]))}
    after = lineage_of(open_store(settings.lake, settings.lake_access), _raw_path(clean))
    assert (after.data_hash, after.rows) == (before.data_hash, before.rows)
    assert after.inputs != before.inputs


def test_another_etag_on_the_same_content_does_nothing(s3: S3Server, clean: CleanLake, tmp_path: Path) -> None:
    settings = clean.copy(s3, "other-etag", tmp_path)
    key = session_key(OPTION_TRADES, clean.market.days[CHANGED])
    bucket = bucket_of(s3, "other-etag")
    old = next(iter(bucket.objects(key)))
    in_parts(s3, f"other-etag/{key}", bucket.fetch(old, tmp_path / "once").path.read_bytes())
    new = next(iter(bucket.objects(key)))
    assert (new.etag != old.etag, new.size) == (True, old.size)
    report = run_all(settings, clean.market)
    assert report.total("fresh") == len(report.results)
    assert [row["etag"] for result in report.results for row in result.fetched if row["key"] == key] == [new.etag]
    assert lake_hashes(settings.lake) == clean.hashes
    assert [path for path in (tmp_path / "scratch").rglob("*") if path.suffix != ".lock"] == []


def in_parts(s3: S3Server, key: str, body: bytes) -> None:
    """The same content, uploaded in parts: its ETag is no longer the MD5 of it."""
    client = bucket_of(s3, "")._client
    upload = client.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
    part = client.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=1, Body=body)["ETag"]
    parts = {"Parts": [{"ETag": part, "PartNumber": 1}]}
    client.complete_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload, MultipartUpload=parts)


def _raw_path(clean: CleanLake) -> str:
    return partition_path(DATASETS["massive_option_trades"], clean.market.days[CHANGED])


def test_publications_of_a_killed_run_are_adopted(s3: S3Server, clean: CleanLake, tmp_path: Path) -> None:
    """A run is killed before it wrote down what it had replaced: the next run does, so that earlier revisions stay readable."""
    settings = clean.copy(s3, "adopted", tmp_path)
    key = session_key(OPTION_TRADES, clean.market.days[CHANGED])
    republish(s3, "adopted", key, one_row_changed)
    history = Path(settings.lake) / "_history" / "option_trades"
    with subprocess.Popen(run_command(clean.market), env=environment(settings), stderr=subprocess.DEVNULL) as killed:
        while killed.poll() is None and not list(history.rglob("*.parquet")):
            time.sleep(0.002)
        killed.kill()
    for name in ("runs", "publications"):  # as a kill within the two seconds between two flushes leaves them
        for folder in (Path(settings.lake) / "ops" / name).glob("run=*"):
            if folder.name != f"run={clean.report.run_id}":
                shutil.rmtree(folder)

    report = run_all(settings, clean.market)
    lake = open_lake(settings=settings)
    rows = lake.read("publications").filter(pl.col("run_id") == report.run_id, pl.col("replaced_hash") != "").collect()
    raw = clean.hashes[_raw_path(clean)]
    assert rows.filter(pl.col("dataset") == "massive_option_trades").get_column("replaced_hash").to_list() == [raw]
    assert not trades(settings).equals(trades(clean.settings))
    assert trades(settings, clean.report.run_id).equals(trades(clean.settings))
    assert trades(settings, report.run_id).equals(trades(settings))
    assert [found for found in verify(settings) if found.problem] == []


def test_prune_deletes_history_beyond_the_newest_sessions(s3: S3Server, clean: CleanLake, tmp_path: Path) -> None:
    settings = clean.copy(s3, "pruned", tmp_path)
    older, newer = clean.market.days[1], clean.market.days[CHANGED]
    for day in (older, newer):
        republish(s3, "pruned", session_key(OPTION_TRADES, day), one_row_changed)
    run_all(settings, clean.market)
    store, trades_ds = open_store(settings.lake, settings.lake_access), DATASETS["option_trades"]
    assert len(revisions(store, trades_ds, older)) == len(revisions(store, trades_ds, newer)) == 1
    assert trades(settings, clean.report.run_id).equals(trades(clean.settings))
    served = lake_hashes(settings.lake)

    assert "option_trades: 1 old revisions" in prune(settings, keep_history=1, dry_run=True)
    assert len(revisions(store, trades_ds, older)) == 1
    said = call(command("prune", "--keep-history", 1), settings)
    assert (said.returncode, "option_trades: 1 old revisions" in said.stdout) == (0, True)
    assert (len(revisions(store, trades_ds, older)), len(revisions(store, trades_ds, newer))) == (0, 1)
    assert "nothing is beyond retention" in prune(settings, keep_history=1, dry_run=False)
    assert lake_hashes(settings.lake) == served, "what the lake serves is never touched"
    with pytest.raises(UsageError, match="is gone"):
        trades(settings, clean.report.run_id)


def test_prune_deletes_partitions_beyond_their_retention(s3: S3Server, clean: CleanLake, tmp_path: Path) -> None:
    settings = clean.copy(s3, "retention", tmp_path)
    days = list(clean.market.days)
    store = open_store(settings.lake, settings.lake_access)
    index = Index(store)
    assert prune_partitions(store, index, DATASETS["option_trades"], days[-1]) == [], "without a retention all are kept"
    short = replace(DATASETS["option_trades"], retention_sessions=2)
    assert prune_partitions(store, index, short, days[-1], dry_run=True) == days[:3]
    assert index.sessions(short) == days
    assert prune_partitions(store, index, short, days[-2]) == days[:2], "sessions after `newest` do not count"
    assert prune_partitions(store, index, short, days[-1]) == days[2:3]
    assert (
        index.sessions(short) == Index(store).sessions(short) == open_lake(settings=settings).sessions("option_trades") == days[3:]
    )
    gone = {("option_trades", str(day)) for day in days[:3]}
    assert changed_paths(clean.hashes, lake_hashes(settings.lake)) == gone
