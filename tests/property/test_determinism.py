"""The same inputs give the same bytes at 1, 2 and 4 threads: every step of the plan, on one market that feeds all it can.

The steps are those of the plan, so a new one is covered when it is declared. What the market cannot feed is named here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from flowlake.datasets.raw_vendors import VENDORS
from flowlake.datasets.registry import DATASETS
from flowlake.market import Market
from flowlake.market.s3server import S3Server, s3_server
from flowlake.pipeline.plan import STEPS
from integration.market_bucket import LAYERS, call, fill, lake_hashes, run_command, small_market

THREADS = (1, 2, 4)
VARIABLES = ("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
NOT_IN_THE_MARKET = {
    *("ingest_cboe_snapshot", "ingest_lean_events", "ingest_lean_interest_rate"),
    *(f"ingest_{ds.name}" for ds in VENDORS),
}
"""Vendors of whose files the synthetic market writes none."""


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server(["flowlake"]) as running:
        yield running


@pytest.fixture(scope="module")
def market() -> Market:
    """Everything that the market can write, a split included; prints enough for Polars to share them among threads."""
    return small_market(
        sessions=4,
        underlyings=4,
        split_session=2,
        trades_per_underlying_session=400,
        include_quotes=True,
        include_stock_trades=True,
    )


@pytest.fixture(scope="module")
def lakes(server: S3Server, market: Market, tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, str]]:
    """Number of threads -> hashes of the lake that one process made with them."""
    folder = tmp_path_factory.mktemp("threads")
    filled = fill(server, "threads", market, folder / "unused")
    hashes = {}
    for threads in THREADS:
        settings = replace(filled, lake=str(folder / f"lake-{threads}"), scratch=str(folder / f"scratch-{threads}"))
        ended = call(run_command(market), settings, **dict.fromkeys(VARIABLES, str(threads)))
        assert ended.returncode == 0, ended.stdout + ended.stderr
        hashes[threads] = lake_hashes(settings.lake)
    return hashes


def partitions_of(hashes: dict[str, str], dataset: str) -> dict[str, str]:
    return {path: found for path, found in hashes.items() if path.split("/")[1] == dataset}


@pytest.mark.parametrize("name", [step.name for step in STEPS])
def test_thread_count_changes_no_byte(name: str, lakes: dict[int, dict[str, str]], market: Market) -> None:
    step = next(step for step in STEPS if step.name == name)
    for dataset in step.writes:
        if DATASETS[dataset].layer.value not in LAYERS:
            continue
        one, two, four = (partitions_of(lakes[threads], dataset) for threads in THREADS)
        assert len(one) == (0 if name in NOT_IN_THE_MARKET else len(market.days)), f"the market feeds {dataset}"
        assert one == two == four


@pytest.mark.parametrize("threads", THREADS)
def test_the_variables_set_the_number_of_threads(threads: int) -> None:
    program = "import polars, numba; print(polars.thread_pool_size(), numba.get_num_threads())"
    told = os.environ | dict.fromkeys(VARIABLES, str(threads))
    said = subprocess.run([sys.executable, "-c", program], env=told, capture_output=True, text=True, check=True).stdout
    assert said.split() == [str(threads), str(threads)]
