"""Fixtures of the tests of the DAGs. Airflow reads its environment when it is imported, so that comes first."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowlake.market.s3server import S3Server, s3_server

DAGS = Path(__file__).resolve().parents[2] / "dags"
_HOME = tempfile.TemporaryDirectory(prefix="flowlake-airflow-", ignore_cleanup_errors=True)
os.environ.setdefault("AIRFLOW_HOME", _HOME.name)
os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = str(DAGS)
os.environ["AIRFLOW__CORE__PLUGINS_FOLDER"] = str(DAGS / "plugins")
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__USAGE_DATA_COLLECTION__ENABLED"] = "False"
sys.path.insert(0, str(DAGS / "plugins"))


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """A real S3 server with the bucket `flowlake`; tests keep apart by their own prefixes."""
    with s3_server(["flowlake"]) as server:
        yield server
