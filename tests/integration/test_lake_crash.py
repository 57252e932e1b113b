"""A run that is killed with SIGKILL, again and again, ends as if nothing had happened."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import polars as pl

from flowlake.core.settings import Settings
from flowlake.lake.lake import open_lake
from flowlake.market.s3server import S3Server
from flowlake.pipeline.maintenance import verify
from integration.conftest import CleanLake
from integration.market_bucket import (
    bucket_of,
    call,
    command,
    environment,
    lake_hashes,
    run_all,
    run_command,
)

KILLS = 30 if os.environ.get("FLOWLAKE_SOAK") == "1" else 5
SEED = 20240102


def partitions(lake: Path) -> int:
    return sum(1 for _ in lake.glob("*/*/session=*/part.parquet"))


def kill_once(settings: Settings, clean: CleanLake, published: int, delay: float) -> None:
    """Start a run; kill it `delay` seconds after it has that many partitions in the lake."""
    with subprocess.Popen(
        run_command(clean.market), env=environment(settings), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        while process.poll() is None and partitions(Path(settings.lake)) < published:
            time.sleep(0.005)
        time.sleep(delay)
        process.kill()


def half_fetched(s3: S3Server, folder: Path) -> None:
    """What a run that was killed while it downloaded leaves behind: a beginning, a broken file, an object that was replaced."""
    bucket = bucket_of(s3, "clean")
    beginning, broken, replaced, *_ = (o for o in bucket.objects("us_options_opra/"))
    folder.mkdir(parents=True)
    body = bucket.fetch(beginning, folder).path
    body.with_suffix(".part").write_bytes(body.read_bytes()[: beginning.size // 2])
    body.unlink()
    other = bucket.fetch(broken, folder).path
    other.with_suffix(".part").write_bytes(bytes(broken.size))
    other.unlink()
    (folder / hashlib.sha256(f"{replaced.key}\nan ETag of yesterday".encode()).hexdigest()).write_bytes(b"old")


def test_sigkill_at_any_moment_loses_nothing(s3: S3Server, clean: CleanLake, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    settings = replace(clean.settings, lake=str(lake), scratch=str(tmp_path / "scratch"))
    half_fetched(s3, tmp_path / "scratch" / "0")
    rng = random.Random(SEED)
    total = partitions(Path(clean.settings.lake))
    kill_once(settings, clean, 0, rng.uniform(0.2, 1.5))
    for published in sorted(rng.sample(range(1, total + 1), KILLS - 1)):
        kill_once(settings, clean, published, rng.uniform(0.0, 0.05))
        assert [found for found in verify(settings) if found.problem] == []

    ended = call(run_command(clean.market), settings)
    assert ended.returncode == 0, ended.stderr
    assert lake_hashes(lake) == clean.hashes
    assert [path for path in (tmp_path / "scratch").rglob("*") if path.suffix != ".lock"] == []

    again = call(run_command(clean.market), settings)
    assert "nothing to do" in again.stdout
    assert lake_hashes(lake) == clean.hashes
    verified = call(command("verify"), settings)
    assert (verified.returncode, verified.stdout) == (0, f"{total} partitions read, 0 with a problem\n")
    assert_every_publication_is_written_down(settings)


def assert_every_publication_is_written_down(settings: Settings) -> None:
    """Every partition has one publication, which states the hash of the file that the lake serves."""
    lake = open_lake(settings=settings)
    rows = lake.read("publications").select("dataset", "session", "file_hash", "replaced_hash").collect()
    written = {(d, str(s)): h for d, s, h, _ in rows.iter_rows()}
    served = {
        (path.parts[-3], path.parts[-2].removeprefix("session=")): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in Path(settings.lake).glob("*/*/session=*/part.parquet")
    }
    assert written == served
    assert rows.height == len(served)
    assert rows.filter(pl.col("replaced_hash") != "").height == 0


def test_a_kill_between_two_outputs_of_a_step_is_made_good(s3: S3Server, clean: CleanLake, tmp_path: Path) -> None:
    """`score_signals` writes two datasets and its output is a vintage: the missing half is built, not listed as restatable."""
    settings = clean.copy(s3, "half-step", tmp_path)
    last = clean.market.days[-1]
    shutil.rmtree(Path(settings.lake) / "derived" / "signal_reasons" / f"session={last}")
    report = run_all(settings, clean.market)
    assert {(r.step, r.session) for r in report.results if r.status != "fresh"} == {("score_signals", last)}
    assert report.total("built") == 1
    assert lake_hashes(settings.lake) == clean.hashes


def test_a_lost_index_and_lost_records_cost_nothing_but_time(s3: S3Server, clean: CleanLake, tmp_path: Path) -> None:
    settings = clean.copy(s3, "no-index", tmp_path)
    shutil.rmtree(Path(settings.lake) / "_index")
    for name in ("runs", "publications", "objects"):
        shutil.rmtree(Path(settings.lake) / "ops" / name)
    report = run_all(settings, clean.market)
    assert report.total("fresh") == len(report.results)
    assert lake_hashes(settings.lake) == clean.hashes
    assert [path for path in (tmp_path / "scratch").rglob("*") if path.suffix != ".lock"] == []
    assert_every_publication_is_written_down(settings)
