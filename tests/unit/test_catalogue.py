"""The catalogue over lakes that were not written in one piece: older schemas, damaged files, folders without a partition."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import duckdb
import polars as pl
import pytest

from flowlake.datasets.curated import EQUITY_BARS_1D
from flowlake.datasets.model import Dataset
from flowlake.datasets.signals import CALIBRATIONS, OUTCOMES
from flowlake.lake.catalogue import connect
from flowlake.lake.store import LocalStore

SESSION = date(2024, 3, 4)


def partition(root: Path, ds: Dataset, session: date = SESSION) -> Path:
    path = root / ds.layer.value / ds.name / f"session={session}" / "part.parquet"
    path.parent.mkdir(parents=True)
    return path


def test_a_partition_of_an_older_schema_and_a_damaged_one_leave_the_other_views_alone(tmp_path: Path) -> None:
    older = {name: dtype for name, dtype in CALIBRATIONS.polars_schema().items() if name != "reason"}
    pl.DataFrame([[None] * len(older)], schema=older, orient="row").write_parquet(partition(tmp_path, CALIBRATIONS))
    partition(tmp_path, OUTCOMES).write_bytes(b"not Parquet")
    partition(tmp_path, EQUITY_BARS_1D).with_name("half-written").write_bytes(b"")
    with connect(LocalStore(tmp_path)) as connection:
        assert connection.execute("SELECT reason, session FROM calibrations").fetchall() == [(None, SESSION)]
        assert connection.execute("SELECT count(*) FROM equity_bars_1d").fetchone() == (0,)
        with pytest.raises(duckdb.Error, match="outcomes"):
            connection.execute("SELECT underlying FROM outcomes")
