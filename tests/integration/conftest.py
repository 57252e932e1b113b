"""Fixtures of the integration tests: one real S3 server, and one lake that was made without disturbance, for all of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from flowlake.core.settings import Settings
from flowlake.market import Market
from flowlake.market.s3server import S3Server, s3_server
from flowlake.pipeline.run import Report
from integration.market_bucket import fill, lake_hashes, run_all, small_market


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """A real S3 server with the buckets `flowlake` and `other`; tests keep apart by their own prefixes."""
    with s3_server(["flowlake", "other"]) as server:
        yield server


@dataclass(frozen=True)
class CleanLake:
    """A lake that one undisturbed run made. Nobody writes to it: tests copy it, or compare with it."""

    market: Market
    settings: Settings
    report: Report
    hashes: dict[str, str]

    def copy(self, server: S3Server, prefix: str, folder: Path) -> Settings:
        """A lake of one's own in the state after the clean run, with a bucket of its own that may be changed."""
        shutil.copytree(self.settings.lake, folder / "lake")
        settings = fill(server, prefix, self.market, folder / "lake")
        return replace(settings, scratch=str(folder / "scratch"))


@pytest.fixture(scope="session")
def clean(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> CleanLake:
    """Five sessions of three underlyings, run once in one process, without data docs."""
    folder = tmp_path_factory.mktemp("clean")
    market = small_market(sessions=5, underlyings=3)
    settings = replace(fill(s3, "clean", market, folder / "lake"), scratch=str(folder / "scratch"))
    report = run_all(settings, market)
    assert report.exit_code == 0
    return CleanLake(market, settings, report, lake_hashes(settings.lake))
