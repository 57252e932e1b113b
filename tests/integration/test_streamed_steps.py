"""Steps that work in batches publish byte for byte what they publish on whole tables, and fall back to them where they must."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from flowlake.market.s3server import S3Server
from flowlake.pipeline import execute
from flowlake.pipeline.plan import select
from integration.market_bucket import bucket_of, fill, lake_hashes, run_all, settings_for, small_market

STEPS = select(["ingest", "curate"])
TAPE = "us_options_opra/trades_v1"


@pytest.fixture
def streamed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of steps that ran in batches."""
    names: list[str] = []
    by_batches = execute._stream

    def noted(task: execute.Task, context: execute.Context, *rest: Any) -> bool:
        done = by_batches(task, context, *rest)
        assert not list(context.ingester.folder().glob("*.parquet")), "what was staged is gone"
        if done:
            names.append(task.step.name)
        return done

    monkeypatch.setattr(execute, "_stream", noted)
    return names


def test_a_partition_does_not_show_how_it_was_made(
    s3: S3Server, tmp_path: Path, streamed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    market = small_market(sessions=2)
    settings = fill(s3, "streamed", market, tmp_path / "batches")
    assert run_all(settings, market, steps=STEPS).exit_code == 0
    assert streamed == ["ingest_massive_option_trades", "curate_option_trades"] * 2
    monkeypatch.setattr(execute, "_stream", lambda *_: False)
    assert run_all(settings_for(s3, "streamed", tmp_path / "tables"), market, steps=STEPS).exit_code == 0
    assert lake_hashes(tmp_path / "batches") == lake_hashes(tmp_path / "tables")
    assert not list((tmp_path / "batches").rglob("*.tmp"))


def test_a_file_in_another_order_takes_the_whole_table(s3: S3Server, tmp_path: Path, streamed: list[str]) -> None:
    """The raw step falls back, the curated one does not: the raw partition is in order whatever the file was."""
    market = small_market(sessions=2)
    settings = fill(s3, "unordered", market, tmp_path / "lake")
    bucket = bucket_of(s3, "unordered")
    for made in market.files():
        if TAPE in made.key:
            head, *lines = gzip.decompress(made.body).decode().splitlines()
            bucket.put(made.key, gzip.compress("\n".join([head, *reversed(lines), ""]).encode(), mtime=0))
    assert run_all(settings, market, steps=STEPS).exit_code == 0
    assert streamed == ["curate_option_trades"] * 2
