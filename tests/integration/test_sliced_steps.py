"""Steps that work on some underlyings at a time publish byte for byte what they publish of the whole session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flowlake.datasets import slices
from flowlake.flow import factors
from flowlake.lake.partitions import StoredRows
from flowlake.market.s3server import S3Server
from flowlake.pipeline import execute
from flowlake.pipeline.plan import STEPS, select
from flowlake.quality import streaming
from integration.market_bucket import fill, lake_hashes, run_all, settings_for, small_market

SESSION_STEPS = select(["ingest", "curate", "factors", "flow_hits"])


@pytest.fixture
def sliced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, bool]]:
    """Tapes that were cut, in how many slices, and whether they were read a slice at a time."""
    ran: list[tuple[str, int, bool]] = []
    cut = slices.slices

    def noted(inputs: Any, names: tuple[str, ...]) -> Any:
        parts = list(cut(inputs, names))
        if len(parts) > 1:
            ran.append((names[0], len(parts), isinstance(inputs[names[0]], StoredRows)))
        return iter(parts)

    for module in (execute, factors):
        monkeypatch.setattr(module, "slices", noted)
    return ran


def test_a_partition_does_not_show_how_it_was_made(
    s3: S3Server, tmp_path: Path, sliced: list[tuple[str, int, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    market = small_market(sessions=3)
    settings = fill(s3, "sliced", market, tmp_path / "whole")
    assert run_all(settings, market, steps=SESSION_STEPS).exit_code == 0
    assert not sliced, "a small session is taken whole"
    monkeypatch.setattr(slices, "SLICE_ROWS", 10)
    monkeypatch.setattr(streaming, "WHOLE_CELLS", 0)
    monkeypatch.setattr(streaming, "CHUNK_ROWS", 64)
    assert run_all(settings_for(s3, "sliced", tmp_path / "slices"), market, steps=SESSION_STEPS).exit_code == 0
    assert [name for name, _, _ in sliced].count("option_trades") == 2 * 3, "of packets and of factors"
    assert [name for name, _, _ in sliced].count("flow_packets") == 3
    assert all(is_stored for _, _, is_stored in sliced)
    assert lake_hashes(tmp_path / "slices") == lake_hashes(tmp_path / "whole")


def test_a_step_in_slices_is_given_every_large_input_in_slices() -> None:
    """An input that is read whole for every slice may be small, or have no underlying; all others are cut."""
    small = {"corporate_actions", "sectors"}
    for step in STEPS:
        if step.sliced:
            assert {read.dataset for read in step.reads} - small == set(step.sliced), step.name
