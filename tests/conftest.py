"""Fixtures that every kind of test shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder `bucket` of the real market files, or a skip that says why."""
    folder = Path(os.environ.get("FLOWLAKE_REAL_DATA", ROOT.parent / "shared" / "data")) / "bucket"
    if not folder.is_dir():
        pytest.skip(f"no real market data at {folder}; set FLOWLAKE_REAL_DATA to the folder that holds `bucket`")
    return folder
