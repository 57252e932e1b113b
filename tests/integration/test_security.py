"""What a stranger may put into a vendor file, an argument or a query does no harm, and no key shows itself."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from flowlake.cli import main
from flowlake.core.errors import UsageError
from flowlake.core.settings import Settings
from flowlake.lake.lake import open_lake
from flowlake.market.s3server import S3Server, s3_server
from integration.market_bucket import call, command, environment, fill, lake_hashes, republish, settings_for, small_market

ROOT = Path(__file__).parents[2]
HOSTILE = ("'; DROP TABLE signals; --", "../../x", '"; DROP VIEW signals; --', "$(touch x)", "a/../../b", "%2e%2e%2fx")
PLANTED_KEY, PLANTED_SECRET = "PLANTEDKEYID0123456789", "planted+Secret/0123456789abcdefXYZ"
MARKET = small_market(2, 2, include_quotes=False)


# --- Nothing that is read can run ------------------------------------------------------------------------------------------------

UNPICKLERS = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
RUNNERS = {"eval", "exec", "compile", "__import__"}


def _sources() -> Iterator[Path]:
    for folder in ("src", "dags"):
        yield from (path for path in (ROOT / folder).rglob("*.py"))


def test_no_source_file_unpickles_or_evaluates() -> None:
    found = []
    for path in _sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name.split(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [(node.module or "").split(".")[0]]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in RUNNERS:
                found.append(f"{path}:{node.lineno} calls {node.func.id}")
            elif isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "shell"):
                found.append(f"{path}:{node.value.lineno} sets {node.arg}")
            found += [f"{path}:{node.lineno} imports {name}" for name in names if name in UNPICKLERS]
    assert found == []


# --- Names from outside ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hostile(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Path]:
    """A lake of a bucket whose files of the second session name symbols that try to leave their place."""
    folder = tmp_path_factory.mktemp("hostile")
    settings = fill(s3, "hostile", MARKET, folder / "inner" / "lake")
    day = MARKET.days[1]
    for feed in ("options_opra/trades_v1", "options_opra/minute_aggs_v1", "options_opra/day_aggs_v1", "stocks_sip/day_aggs_v1"):
        republish(s3, "hostile", f"us_{feed}/{day:%Y/%m/%Y-%m-%d}.csv.gz", planted)
    done = call(command("run", "--from", MARKET.days[0], "--to", day), settings)
    assert done.returncode == 3, done.stderr
    return settings, folder


def planted(lines: list[str]) -> list[str]:
    """The file with a row for each hostile name in front, which is otherwise a copy of its first row."""
    header, first, *rest = lines
    at = header.split(",").index("ticker")
    rows = []
    for name in HOSTILE:
        cells = first.split(",")
        cells[at] = '"' + name.replace('"', '""') + '"'
        rows.append(",".join(cells))
    return [header, *rows, first, *rest]


def test_hostile_symbols_leave_the_lake_in_its_place(hostile: tuple[Settings, Path]) -> None:
    settings, folder = hostile
    assert {path.name for path in folder.iterdir()} == {"inner"}
    assert {path.name for path in (folder / "inner").iterdir()} == {"lake"}
    lake = open_lake(settings=settings)
    assert set(lake.sessions("signals")) == set(MARKET.days)
    kept = lake.sql("select what from findings where kind = 'rejected'").get_column("what").to_list()
    assert kept, "the rows were neither refused nor named"


def test_the_good_rows_are_those_of_a_bucket_that_was_never_spoilt(
    hostile: tuple[Settings, Path], s3: S3Server, tmp_path: Path
) -> None:
    settings, _ = hostile
    good = fill(s3, "hostile-good", MARKET, tmp_path / "good")
    call(command("run", "--from", MARKET.days[0], "--to", MARKET.days[1]), good)
    for name in ("option_trades", "option_bars_1d"):
        found = open_lake(settings=settings).read(name, MARKET.days[1]).collect()
        expected = open_lake(settings=good).read(name, MARKET.days[1]).collect()
        assert found.equals(expected), name


def exit_code(arguments: list[str]) -> object:
    try:
        return main(arguments)
    except SystemExit as left:  # argparse
        return left.code


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_arguments_are_values_never_code_nor_paths(
    hostile: tuple[Settings, Path], name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, folder = hostile
    before = lake_hashes(settings.lake)
    lake = open_lake(settings=settings)
    assert lake.read("signals", underlyings=name).collect().height == 0
    assert lake.sql("select count(*) as n from signals where underlying = ?", [name]).item() == 0
    for refused in (lambda: lake.read(name), lambda: lake.sessions(name), lambda: lake.revision(name), lambda: lake.as_of(name)):
        with pytest.raises(UsageError):
            refused()
    day = str(MARKET.days[0])
    for variable, value in environment(settings).items():
        monkeypatch.setenv(variable, value)
    for arguments in (
        ["restore", name, day],
        ["restore", "signals", day, name],
        ["run", "--session", day, "--step", name],
        ["run", "--session", day, "--data-docs", name],
        ["run", "--session", name],
        ["status", "--from", name, "--to", day],
        ["datasets", name],
        ["report", "--session", name],
        ["runs", name],
        ["reproduce", name],
    ):
        assert exit_code(arguments) == 2, arguments
    assert "Traceback" not in capsys.readouterr().err
    assert lake_hashes(settings.lake) == before
    assert {path.name for path in (folder / "inner").iterdir()} == {"lake"}


def test_a_lake_whose_path_has_quotes_and_stars_is_read_as_any(s3: S3Server, tmp_path: Path) -> None:
    settings = fill(s3, "quoted", MARKET, tmp_path / "la'ke [a] *; -- x")
    done = call(command("run", "--session", MARKET.days[0], "--step", "ingest", "curate"), settings)
    assert done.returncode == 0, done.stderr
    lake = open_lake(settings=settings)
    assert lake.sql("select count(*) as n from option_trades").item() == lake.read("option_trades").collect().height > 0


# --- No key shows itself ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded() -> Iterator[S3Server]:
    """A server of its own, whose key and secret are words that can be looked for."""
    with s3_server(["flowlake"], key_id=PLANTED_KEY, secret=PLANTED_SECRET) as server:
        yield server


def shown(path: Path) -> str:
    """Everything that a file says: the text of Parquet columns and footers too."""
    body = path.read_bytes()
    text = body.decode("utf-8", errors="replace")
    if path.suffix == ".parquet":
        text += json.dumps(pl.read_parquet_metadata(path)) + pl.read_parquet(path, hive_partitioning=False).write_ndjson()
    return text


def test_no_secret_in_anything_that_commands_write(guarded: S3Server, tmp_path: Path) -> None:
    fill(guarded, "", MARKET, tmp_path / "lake")
    settings = settings_for(guarded, "", tmp_path / "lake", tmp_path / "scratch")
    day = MARKET.days[0]
    said = []
    for arguments, variables in (
        (("doctor",), {}),
        (("run", "--session", day, "--log", tmp_path / "run.log", "--log-format", "json", "--json"), {}),
        (("run", "--session", day), {"FLOWLAKE_BUCKET_PREFIX": "nowhere"}),
        (("run", "--session", day), {"FLOWLAKE_BUCKET_ENDPOINT": "http://127.0.0.1:9"}),
        (("run", "--session", MARKET.days[1], "--executor", "dask", "--log", tmp_path / "dask.log"), {}),
        (("status", "--session", day, "--json"), {}),
        (("runs",), {}),
        (("runs", "--json"), {}),
        (("verify",), {}),
        (("backup", "--to", tmp_path / "backup"), {}),
        (("sql", "select * from runs"), {}),
        (("sql", "select * from invocations", "--format", "json"), {}),
    ):
        done = call(command(*arguments), settings, **variables)
        said.append(done.stdout + done.stderr)
        assert "Traceback" not in done.stderr, arguments
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 50
    for word in (PLANTED_SECRET, PLANTED_KEY):
        assert not [text for text in said if word in text]
        assert not [path for path in files if word in shown(path)]


def test_settings_mask_their_secrets(guarded: S3Server) -> None:
    settings = settings_for(guarded, "", "lake")
    assert PLANTED_SECRET not in repr(settings) + str(settings) + f"{settings.bucket_access}"
