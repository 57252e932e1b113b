"""Fixtures that every kind of test shares."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).resolve().parent.parent
REAL_PARTS = {
    "s3": "S3 server",
    "dask": "Dask processes",
    "airflow": "Airflow",
    "postgresql": "PostgreSQL",
    "chromium": "Chromium",
    "prometheus": "Prometheus",
    "smtp": "SMTP server",
    "real_data": "real data",
}
"""What a test may exercise for real: arguments of the marker `real`, or for `s3` and `real_data` the fixture of that name."""
STARTS_AIRFLOW = frozenset({"test_nightly.py", "test_postgres.py", "test_ui.py", "test_local_airflow.py", "test_services.py"})
"""Files whose tests start an Airflow: they run one after the other."""

# Example by example a deadline would measure the machine, and on the first example the compiler. The same code passes or fails
# the same way everywhere; `make fuzz` is where new examples are tried.
hypothesis.settings.register_profile("flowlake", deadline=None, derandomize=True)
hypothesis.settings.register_profile("fuzz", deadline=None, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("FLOWLAKE_HYPOTHESIS", "flowlake"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder `bucket` of the real market files, or a skip that says why."""
    folder = Path(os.environ.get("FLOWLAKE_REAL_DATA", ROOT.parent / "shared" / "data")) / "bucket"
    if not folder.is_dir():
        pytest.skip(f"no real market data at {folder}; set FLOWLAKE_REAL_DATA to the folder that holds `bucket`")
    return folder


def _real_parts(item: pytest.Item) -> set[str]:
    marked = {name for mark in item.iter_markers("real") for name in mark.args}
    return marked | ({"s3", "real_data"} & set(getattr(item, "fixturenames", ())))


def pytest_itemcollected(item: pytest.Item) -> None:
    """Note on a test what it exercises, so that reports carry it."""
    item.user_properties += [("real", part) for part in sorted(_real_parts(item))]


class _ByFile(LoadScopeScheduling):
    """The tests of a file on one worker, in the order of the files; those that start an Airflow all on the same one."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        return "airflow" if Path(file).name in STARTS_AIRFLOW else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return _ByFile(config, log)


def _told(report: Any) -> set[str]:
    return {part for name, part in report.user_properties if name == "real"}


def _exercised(config: pytest.Config) -> tuple[set[str], dict[str, str]]:
    """Parts that a passed test exercised, and for parts that were only skipped the reason."""
    stats = config.pluginmanager.get_plugin("terminalreporter").stats
    used: set[str] = set().union(*(_told(report) for report in stats.get("passed", [])))
    reasons = {part: str(report.longrepr[2]) for report in stats.get("skipped", []) for part in _told(report)}
    return used, {part: why.removeprefix("Skipped: ") for part, why in reasons.items() if part not in used}


def pytest_sessionfinish(session: pytest.Session) -> None:
    """With FLOWLAKE_REAL_PARTS=required a part that was not exercised fails the run; real data may be absent."""
    required = os.environ.get("FLOWLAKE_REAL_PARTS") == "required" and not hasattr(session.config, "workerinput")
    if required and session.exitstatus == 0 and REAL_PARTS.keys() - {"real_data"} - _exercised(session.config)[0]:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    used, reasons = _exercised(config)
    names = [name for part, name in REAL_PARTS.items() if part in used]
    terminalreporter.write_line(f"real parts exercised: {', '.join(names) or 'none'}")
    required = os.environ.get("FLOWLAKE_REAL_PARTS") == "required"
    for part, name in REAL_PARTS.items():
        if part not in used and (required or part in reasons):
            terminalreporter.write_line(f"not exercised: {name}: {reasons.get(part, 'no test of it passed')}")
