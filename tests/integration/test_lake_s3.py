"""The lake on S3: the same bytes as in a folder, and everything that reads or keeps it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date

import polars as pl
import pytest

from flowlake.core.errors import StorageError
from flowlake.core.settings import Secret, Settings
from flowlake.datasets.registry import DATASETS
from flowlake.lake.lake import Lake, open_lake
from flowlake.lake.publish import revisions
from flowlake.lake.store import file_hash, open_store
from flowlake.market.s3server import S3Server
from flowlake.market.spec import OPTION_TRADES, session_key
from flowlake.pipeline.maintenance import prune, restore_revision, verify
from flowlake.pipeline.run import Report
from integration.conftest import CleanLake
from integration.market_bucket import (
    LAYERS,
    bucket_of,
    call,
    command,
    fill,
    republish,
    run_all,
    run_command,
)

PREFIX = "lake-on-s3"


@dataclass(frozen=True)
class RemoteLake:
    settings: Settings
    report: Report

    @property
    def lake(self) -> Lake:
        return open_lake(settings=self.settings)

    def hashes(self) -> dict[str, str]:
        store = open_store(self.settings.lake, self.settings.lake_access)
        paths = [stat.path for layer in LAYERS for stat in store.list(f"{layer}/")]
        return {path: file_hash(store.read(path)) for path in paths}


@pytest.fixture(scope="module")
def remote(s3: S3Server, clean: CleanLake, tmp_path_factory: pytest.TempPathFactory) -> RemoteLake:
    """The clean run's market in a lake on S3. The tests below change it one after another, each knowing only its own change."""
    settings = fill(s3, PREFIX, clean.market, f"s3://other/{PREFIX}/lake")
    settings = replace(settings, scratch=str(tmp_path_factory.mktemp("scratch")))
    report = run_all(settings, clean.market)
    assert report.exit_code == 0
    return RemoteLake(settings, report)


def test_the_partitions_are_those_of_a_local_lake(remote: RemoteLake, clean: CleanLake) -> None:
    assert remote.hashes() == clean.hashes


def test_a_second_run_finds_everything_fresh(remote: RemoteLake, clean: CleanLake) -> None:
    said = call(run_command(clean.market), remote.settings)
    assert (said.returncode, "nothing to do" in said.stdout) == (0, True), said.stderr
    assert remote.hashes() == clean.hashes


def test_reading(remote: RemoteLake, clean: CleanLake) -> None:
    ours, local = remote.lake, open_lake(settings=clean.settings)
    day = clean.market.days[1]
    for name in ("option_trades", "factor_panel", "signals"):
        assert ours.sessions(name) == local.sessions(name) == list(clean.market.days)
        assert ours.read(name).collect().equals(local.read(name).collect())
        assert ours.read(name, sessions=day).collect().equals(local.read(name, sessions=day).collect())
    underlying = local.read("option_trades").select(pl.col("underlying").first()).collect().item()
    wanted = {"sessions": (day, clean.market.days[2]), "underlyings": underlying}
    rows = ours.read("option_trades", **wanted).collect()
    assert rows.height > 0
    assert rows.equals(local.read("option_trades", **wanted).collect())


def test_sql(remote: RemoteLake, clean: CleanLake) -> None:
    query = "select session, underlying, count(*) as n, sum(size) as size from option_trades group by all order by all"
    local = open_lake(settings=clean.settings).sql(query)
    assert local.height > 0
    assert remote.lake.sql(query).equals(local)
    one = "select count(*) as n from factor_panel where session = ?"
    assert remote.lake.sql(one, [clean.market.days[3]]).item() == 3
    steps = remote.lake.sql("select count(distinct step) as n from runs where status = 'built'").item()
    assert steps == len({result.step for result in remote.report.results})
    said = call(command("sql", query, "--format", "csv"), remote.settings)
    assert said.stdout.splitlines()[0] == "session,underlying,n,size"
    assert len(said.stdout.splitlines()) == local.height + 1


def test_as_of(remote: RemoteLake, clean: CleanLake) -> None:
    day: date = clean.market.days[2]
    then, local = remote.lake.as_of(day), open_lake(settings=clean.settings).as_of(day)
    assert then.sessions("signals") == list(clean.market.days[:3])
    for name in ("open_interest", "factor_panel"):
        assert then.read(name).collect().equals(local.read(name).collect())
        query = f"select * from {name} order by all"
        assert then.sql(query).equals(local.sql(query))
    assert then.sql("select max(session) as last from option_trades").item() == day


def test_verify_and_its_sight_of_a_damaged_file(remote: RemoteLake, clean: CleanLake) -> None:
    assert [found for found in verify(remote.settings) if found.problem] == []
    store = open_store(remote.settings.lake, remote.settings.lake_access)
    day = clean.market.days[0]
    path = f"curated/option_trades/session={day}/part.parquet"
    good = store.read(path)
    middle = len(good) // 3
    for bad in (good[:middle] + bytes(64) + good[middle + 64 :], good[:middle], good[:-64] + bytes(64)):
        store.write(path, bad)
        problems = [(found.dataset, found.session) for found in verify(remote.settings) if found.problem]
        store.write(path, good)
        assert problems == [("option_trades", day)]
    assert remote.hashes() == clean.hashes


def test_history_restore_and_prune(remote: RemoteLake, clean: CleanLake, s3: S3Server) -> None:
    day = clean.market.days[2]
    path = f"derived/daily_factors/session={day}/part.parquet"
    old = remote.lake.read("daily_factors").collect()
    key = session_key(OPTION_TRADES, day)
    whole = bytes(bucket_of(s3, PREFIX)._client.get_object(Bucket="flowlake", Key=f"{PREFIX}/{key}")["Body"].read())
    republish(s3, PREFIX, key, lambda lines: lines[: len(lines) // 2])
    report = run_all(remote.settings, clean.market)
    assert (report.exit_code, report.total("restatable") > 0) == (0, True)
    assert remote.hashes()[path] != clean.hashes[path]
    before = remote.lake.revision(remote.report.run_id)
    assert before.read("daily_factors").collect().equals(old)
    size = "select sum(size) as size from option_trades"
    assert before.sql(size).item() == open_lake(settings=clean.settings).sql(size).item() > remote.lake.sql(size).item()

    restore_revision(remote.settings, "daily_factors", day, clean.hashes[path][:16])
    assert remote.hashes()[path] == clean.hashes[path]

    bucket_of(s3, PREFIX).put(key, whole)
    assert run_all(remote.settings, clean.market).exit_code == 0
    assert remote.hashes() == clean.hashes, "the bucket is as it was, and so is the lake: vintages never changed"
    assert remote.lake.revision(remote.report.run_id).read("daily_factors").collect().equals(old)

    store = open_store(remote.settings.lake, remote.settings.lake_access)
    assert revisions(store, DATASETS["daily_factors"], day)
    prune(remote.settings, keep_history=1, dry_run=False)
    assert revisions(store, DATASETS["daily_factors"], day), "this session is the newest that has a history"
    assert remote.hashes() == clean.hashes


def test_quarantine(remote: RemoteLake, clean: CleanLake, s3: S3Server) -> None:
    day = clean.market.days[-1]
    key = session_key(OPTION_TRADES, day)
    bucket_of(s3, PREFIX).put(key, b"this is no gzip file")
    report = run_all(remote.settings, clean.market)
    assert (report.exit_code, report.total("quarantined")) == (3, 1)
    assert remote.hashes() == clean.hashes, "the last good partition goes on being served"
    rows = remote.lake.sql("select dataset, session, kind, what, cure, folder from quarantine")
    assert rows.select("dataset", "session", "kind").rows() == [("massive_option_trades", day, "held")]
    assert all(rows.row(0))
    held = run_all(remote.settings, clean.market)
    assert (held.exit_code, held.total("held"), held.total("built")) == (3, 1, 0)


def test_a_wrong_key_is_told_with_its_cure(remote: RemoteLake) -> None:
    wrong = replace(remote.settings, lake_key_id=Secret("nobody"), lake_secret=Secret("nothing"))
    with pytest.raises(StorageError, match=r"in s3://other/lake-on-s3/lake failed: 403") as caught:
        open_lake(settings=wrong).sessions("signals")
    assert "FLOWLAKE_LAKE_KEY_ID" in caught.value.cure
    said = call(command("verify"), wrong, FLOWLAKE_LAKE_KEY_ID="nobody", FLOWLAKE_LAKE_SECRET="nothing")
    assert (said.returncode, "Traceback" in said.stderr, "nothing" in said.stderr) == (1, False, False)
