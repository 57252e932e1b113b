"""The command line as a person and as a script meet it: help that teaches, exit codes, formats, errors with their cure."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

import flowlake
from flowlake.cli import main, parser
from flowlake.core.errors import UsageError
from flowlake.core.sessions import decision_time
from flowlake.core.settings import Settings
from flowlake.datasets.registry import DATASETS
from flowlake.market.s3server import S3Server
from integration.market_bucket import (
    bucket_of,
    call,
    command,
    environment,
    fill,
    lake_hashes,
    republish,
    run_all,
    settings_for,
    small_market,
)

MARKET = small_market(3, 2)
FIRST, SECOND, LAST = MARKET.days
COMMANDS = (
    "run",
    "status",
    "sql",
    "datasets",
    "doctor",
    "demo",
    "backtest",
    "report",
    "alerts",
    "market",
    "verify",
    "restore",
    "prune",
    "render",
)
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Said]


@pytest.fixture(scope="session")
def built(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A lake of three sessions; tests that change something work on a copy."""
    folder = tmp_path_factory.mktemp("cli")
    settings = replace(fill(s3, "cli", MARKET, folder / "lake"), scratch=str(folder / "scratch"))
    assert run_all(settings, MARKET).exit_code == 0
    return settings


def cli_of(settings: Settings, monkeypatch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> Cli:
    for name, value in environment(settings, COLUMNS="300").items():
        if name.startswith("FLOWLAKE_") or name == "COLUMNS":
            monkeypatch.setenv(name, value)

    def flowlake_(*arguments: object) -> Said:
        capture.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stopped:  # argparse ends the process itself
            code = int(stopped.code or 0)
        shown = capture.readouterr()
        for text in (shown.out, shown.err):
            assert "Traceback" not in text
            assert "unexpected" not in text
            assert settings.bucket_secret.reveal() not in text
        return Said(code, shown.out, shown.err)

    return flowlake_


@pytest.fixture
def cli(built: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    monkeypatch.chdir(tmp_path)
    return cli_of(built, monkeypatch, capfd)


@pytest.fixture
def copied(
    built: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> tuple[Settings, Cli]:
    """A copy of the lake that may be changed, and the command line that works on it."""
    shutil.copytree(built.lake, tmp_path / "copy")
    settings = replace(built, lake=str(tmp_path / "copy"))
    monkeypatch.chdir(tmp_path)
    return settings, cli_of(settings, monkeypatch, capfd)


# --- Help ----------------------------------------------------------------------------------------------------------------------


def test_the_help_names_every_command_and_the_exit_codes(cli: Cli) -> None:
    said = cli("--help")
    assert said.code == 0
    for name in COMMANDS:
        assert f"    {name} " in said.out
    for text in ("exit codes: 0 all built or fresh, 1 failed, 2 wrong usage, 3", "FLOWLAKE_LAKE", "flowlake demo"):
        assert text in said.out
    assert cli("--version").out.strip() == f"flowlake {flowlake.__version__}"


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_teaches_itself_with_an_example_that_parses(name: str, cli: Cli) -> None:
    import shlex

    said = cli(name, "--help")
    assert said.code == 0
    assert "example:" in said.out
    example = said.out.split("example:\n")[1].strip().splitlines()[0]
    words = shlex.split(example)
    assert words[:2] == ["flowlake", name]
    assert callable(parser().parse_args(words[1:]).command)


# --- Exit codes ----------------------------------------------------------------------------------------------------------------


def test_exit_code_0_when_all_is_fresh(cli: Cli) -> None:
    said = cli("run", "--from", FIRST, "--to", LAST, "--no-data-docs")
    assert said.code == 0
    assert "nothing to do: everything is fresh" in said.out
    report = cli("run", "--session", SECOND, "--no-data-docs", "--json").json
    assert report["exit_code"] == 0
    assert report["sessions"] == 1
    assert all(set(counts) <= {"fresh", "absent"} for counts in report["steps"].values())


def test_exit_code_1_when_something_failed(copied: tuple[Settings, Cli]) -> None:
    settings, cli = copied
    part = Path(settings.lake) / f"curated/option_trades/session={SECOND}/part.parquet"
    part.write_bytes(b"no parquet at all")
    said = cli("verify", "--json")
    assert said.code == 1
    assert [p["dataset"] for p in said.json["problems"]] == ["option_trades"]
    shown = cli("verify")
    assert shown.code == 1
    assert f"option_trades {SECOND}" in shown.out
    assert "cure:" in shown.out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "COMMAND"),
        (("no-such-command",), "invalid choice"),
        (("run",), "no session was given"),
        (("run", "--session", "yesterday"), "write YYYY-MM-DD"),
        (("run", "--session", str(FIRST), "--from", str(FIRST)), "exclude each other"),
        (("run", "--from", str(LAST), "--to", str(FIRST)), "there is no session from"),
        (("run", "--session", "2024-01-06"), "there is no session"),
        (("run", "--session", "2023-05-02"), "the bucket has no file"),
        (("run", "--session", str(FIRST), "--step", "no_such_step"), "there is no step no_such_step"),
        (("run", "--session", str(FIRST), "--workers", "0"), "at least 1"),
        (("status",), "no session was given"),
        (("sql", "select * from no_such_table"), "the query failed"),
        (("sql", "select 1", "--as-of", "soon"), "is no date"),
        (("datasets", "no_such_dataset"), "no_such_dataset"),
        (("restore", "no_such_dataset", str(FIRST)), "no_such_dataset"),
        (("restore", "signals", str(FIRST), "abcdef"), "0 revisions start with"),
        (("prune", "--keep-history", "-1"), "at least 1"),
        (("doctor", "--lake", "ftp://somewhere/lake"), ""),
        (("datasets", "--lake", "ftp://somewhere/lake"), "neither a folder nor s3://"),
    ],
)
def test_exit_code_2_for_wrong_usage(arguments: tuple[str, ...], says: str, cli: Cli) -> None:
    said = cli(*arguments)
    if arguments[:1] == ("doctor",):
        assert said.code == 1, "it is the doctor's business to report it"
        assert "neither a folder nor s3://" in said.out
        return
    assert said.code == 2
    assert says in said.err
    assert "cure: " in said.err or "usage: flowlake" in said.err
    assert not said.out


def test_exit_code_3_when_something_was_quarantined(
    s3: S3Server, built: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    key = f"us_options_opra/trades_v1/{LAST:%Y/%m/%Y-%m-%d}.csv.gz"
    bucket = bucket_of(s3, "cli-bad")
    for file in MARKET.files():
        bucket.put(file.key, file.body)
    republish(s3, "cli-bad", key, lambda lines: ["not,a,header", *lines[1:]])
    shutil.copytree(built.lake, tmp_path / "lake")
    cli = cli_of(settings_for(s3, "cli-bad", tmp_path / "lake", tmp_path / "scratch"), monkeypatch, capfd)
    said = cli("run", "--session", LAST, "--step", "ingest", "--json", "--no-data-docs")
    assert said.code == 3
    (problem,) = said.json["problems"]
    assert problem["step"] == "ingest_massive_option_trades"
    assert problem["status"] == "quarantined"
    assert key in problem["detail"]
    held = [s for s in cli("status", "--session", LAST, "--json").json if s["status"] == "held"]
    assert [s["step"] for s in held] == ["ingest_massive_option_trades"]


def test_a_process_of_its_own_ends_with_the_exit_code(built: Settings) -> None:
    good = call(command("sql", "select 1 as one", "--format", "csv"), built)
    assert (good.returncode, good.stdout, good.stderr) == (0, "one\n1\n", "")
    bad = call(command("sql", "selekt"), built)
    assert bad.returncode == 2
    assert bad.stderr.startswith("flowlake: the query failed")
    assert "cure:" in bad.stderr
    assert "Traceback" not in bad.stderr


# --- sql -----------------------------------------------------------------------------------------------------------------------

COUNTED = "select session, count(*) as prints from option_trades group by session order by session"


def test_sql_in_every_format(cli: Cli, tmp_path: Path) -> None:
    table = cli("sql", COUNTED)
    assert table.code == 0
    assert "prints" in table.out
    assert "3 rows" in table.out
    as_json = cli("sql", COUNTED, "--format", "json").json
    assert [row["session"] for row in as_json] == [str(day) for day in MARKET.days]
    as_csv = list(csv.DictReader(io.StringIO(cli("sql", COUNTED, "--format", "csv").out)))
    assert [int(row["prints"]) for row in as_csv] == [row["prints"] for row in as_json]
    assert cli("sql", COUNTED, "--format", "parquet", "--output", tmp_path / "out.parquet").code == 0
    written = pl.read_parquet(tmp_path / "out.parquet")
    assert written["session"].to_list() == MARKET.days
    assert written["prints"].to_list() == [row["prints"] for row in as_json]
    assert cli("sql", COUNTED, "--format", "csv", "--output", tmp_path / "out.csv").out == ""
    assert (tmp_path / "out.csv").read_text() == cli("sql", COUNTED, "--format", "csv").out


def test_sql_parquet_on_standard_output(built: Settings) -> None:
    import subprocess

    asked = command("sql", COUNTED, "--format", "parquet")
    ran = subprocess.run(asked, env=environment(built), capture_output=True, timeout=120, check=True)
    assert pl.read_parquet(io.BytesIO(ran.stdout)).height == len(MARKET.days)


def test_sql_as_of(cli: Cli) -> None:
    def sessions(*arguments: str) -> list[str]:
        return [row["session"] for row in cli("sql", COUNTED, "--format", "json", *arguments).json]

    assert sessions() == [str(day) for day in MARKET.days]
    assert sessions("--as-of", str(SECOND)) == [str(FIRST), str(SECOND)]
    assert sessions("--as-of", str(FIRST)) == [str(FIRST)]
    assert sessions("--as-of", f"{FIRST}T09:00:00-05:00") == [], "before the first print"
    latest = cli("sql", "select max(known_at_utc) as m from option_iv", "--format", "json", "--as-of", str(SECOND)).json
    assert datetime.fromisoformat(latest[0]["m"]).replace(tzinfo=UTC) <= decision_time(SECOND)


def test_every_dataset_has_a_view(cli: Cli) -> None:
    query = " union all ".join(f"select '{name}' as dataset, count(*) as n from {name}" for name in DATASETS)
    found = {row["dataset"]: row["n"] for row in cli("sql", query, "--format", "json").json}
    assert set(found) == set(DATASETS)
    assert found["signals"] == MARKET.spec.sessions * MARKET.spec.underlyings


# --- Looking -------------------------------------------------------------------------------------------------------------------


def test_status(cli: Cli) -> None:
    found = cli("status", "--from", FIRST, "--to", LAST, "--json").json
    assert {entry["session"] for entry in found} == {str(day) for day in MARKET.days}
    assert {entry["status"] for entry in found} <= {"fresh", "absent"}
    one = cli("status", "--session", SECOND, "--step", "signals", "option_iv", "--json").json
    assert {"option_iv", "score_signals", "fit_models"} <= {entry["step"] for entry in one}
    assert not {entry["step"] for entry in one if entry["step"].startswith("ingest")}
    text = cli("status", "--session", SECOND)
    assert text.code == 0
    assert "fresh" in text.out


def test_status_says_what_is_due(copied: tuple[Settings, Cli]) -> None:
    settings, cli = copied
    shutil.rmtree(Path(settings.lake) / f"curated/option_bars_1d/session={LAST}")
    before = lake_hashes(settings.lake)
    due = [entry["step"] for entry in cli("status", "--session", LAST, "--json").json if entry["status"] == "due"]
    assert "curate_option_bars_1d" in due
    assert lake_hashes(settings.lake) == before, "looking changes nothing"


def test_datasets(cli: Cli) -> None:
    found = {entry["dataset"]: entry for entry in cli("datasets", "--json").json}
    assert set(found) == set(DATASETS)
    assert (found["signals"]["partitions"], found["signals"]["first"], found["signals"]["last"]) == (3, str(FIRST), str(LAST))
    assert found["cboe_snapshot"]["partitions"] == 0
    one = cli("datasets", "option_iv", "--json").json
    assert {"iv", "spot", "forward", "delta"} <= {column["column"] for column in one["columns"]}
    assert all(column["doc"] for column in one["columns"])
    shown = cli("datasets", "signals")
    assert "actionable_at_utc" in shown.out
    assert "known at" in shown.out
    assert "signal_reasons" in cli("datasets").out


def test_report(copied: tuple[Settings, Cli]) -> None:
    settings, cli = copied
    nothing = cli("report")
    assert nothing.code == 2
    assert "holds no scored signal" in nothing.err
    assert "run more sessions: a baseline needs" in nothing.err
    assert "no underlying has a score" in cli("report", "--session", LAST).out
    assert cli("report", "--session", LAST, "--json").json == []
    part = Path(settings.lake) / f"derived/signals/session={LAST}/part.parquet"
    scored = pl.read_parquet(part).with_columns(
        pl.Series("score", [88.0, 12.0]), pl.Series("tier", ["high", "none"]), pl.lit(None, dtype=pl.String).alias("reason")
    )
    scored.write_parquet(part, metadata={"flowlake": _lineage_of(settings)})
    strongest = cli("report", "--top", 1, "--json").json
    assert [row["score"] for row in strongest] == [88.0]
    shown = cli("report")
    assert shown.code == 0
    assert shown.out.index("score 88") < shown.out.index("tier high")
    assert shown.out.index("score 88") < shown.out.index("score 12")


def _lineage_of(settings: Settings) -> str:
    from flowlake.core.settings import S3Access
    from flowlake.lake.partitions import lineage_of
    from flowlake.lake.store import open_store

    return lineage_of(open_store(settings.lake, S3Access()), f"derived/signals/session={LAST}/part.parquet").to_json()


def test_backtest_records_its_trial(copied: tuple[Settings, Cli]) -> None:
    _, cli = copied
    said = cli("backtest", "--from", FIRST, "--to", LAST)
    assert said.code == 0
    assert said.out.strip()
    assert cli("backtest", "--json").json
    runs = cli("sql", "select distinct run_id from trials", "--format", "json").json
    assert len(runs) == 2
    assert "session" in cli("datasets", "trials").out


def test_verify_finds_nothing_wrong(cli: Cli) -> None:
    found = cli("verify", "--json")
    assert found.code == 0
    assert found.json["problems"] == []
    assert found.json["partitions"] > 60
    assert "0 with a problem" in cli("verify").out


def test_verify_finds_values_that_are_not_those_of_the_footer(copied: tuple[Settings, Cli]) -> None:
    settings, cli = copied
    part = Path(settings.lake) / f"derived/signals/session={LAST}/part.parquet"
    pl.read_parquet(part).with_columns(pl.lit("up").alias("direction")).write_parquet(
        part, metadata={"flowlake": _lineage_of(settings)}
    )
    said = cli("verify")
    assert said.code == 1
    assert f"signals {LAST}: the values do not have the hash" in said.out


def test_restore_lists_and_serves_earlier_revisions(
    s3: S3Server, built: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    bucket = bucket_of(s3, "cli-restore")
    for file in MARKET.files():
        bucket.put(file.key, file.body)
    shutil.copytree(built.lake, tmp_path / "lake")
    cli = cli_of(settings_for(s3, "cli-restore", tmp_path / "lake", tmp_path / "scratch"), monkeypatch, capfd)
    assert "no history" in cli("restore", "option_bars_1d", LAST).out
    before = lake_hashes(tmp_path / "lake")
    republish(s3, "cli-restore", f"us_options_opra/day_aggs_v1/{LAST:%Y/%m/%Y-%m-%d}.csv.gz", lambda lines: lines[:-1])
    assert cli("run", "--session", LAST, "--step", "ingest", "curate", "--no-data-docs").code == 0
    path = f"curated/option_bars_1d/session={LAST}/part.parquet"
    assert lake_hashes(tmp_path / "lake")[path] != before[path]
    listed = cli("restore", "option_bars_1d", LAST)
    assert f"history: {before[path][:16]}" in listed.out
    said = cli("restore", "option_bars_1d", LAST, before[path][:8])
    assert said.code == 0
    assert f"now serves {before[path][:16]}" in said.out
    assert lake_hashes(tmp_path / "lake")[path] == before[path]
    would = cli("prune", "--keep-history", 1, "--dry-run")
    assert would.code == 0
    assert (tmp_path / "lake" / "_history").is_dir()
    assert lake_hashes(tmp_path / "lake")[path] == before[path]


def test_prune_keeps_what_retention_does_not_name(copied: tuple[Settings, Cli]) -> None:
    settings, cli = copied
    before = lake_hashes(settings.lake)
    assert cli("prune", "--dry-run").out.startswith("nothing is beyond retention\n")
    assert cli("prune").code == 0
    assert lake_hashes(settings.lake) == before


def test_market_writes_files_and_truth(cli: Cli, tmp_path: Path) -> None:
    said = cli("market", "--out", tmp_path / "m", "--underlyings", 1, "--sessions", 1, "--first", "2024-03-11", "--options-only")
    assert said.code == 0
    files = sorted(path.relative_to(tmp_path / "m").as_posix() for path in (tmp_path / "m").rglob("*.gz"))
    assert files == [
        f"bucket/us_options_opra/{kind}/2024/03/2024-03-11.csv.gz" for kind in ("day_aggs_v1", "minute_aggs_v1", "trades_v1")
    ]
    assert {path.name for path in (tmp_path / "m" / "truth").iterdir()} == {
        "episodes.parquet",
        "trades.parquet",
        "sessions.parquet",
    }
    assert cli("market", "--out", tmp_path / "n", "--first", "2024-03-10").code == 2


def test_render_check(cli: Cli, tmp_path: Path) -> None:
    assert cli("render", "--root", tmp_path).code == 0
    assert cli("render", "--root", tmp_path, "--check").out == "all rendered files are up to date\n"
    some = next(path for path in sorted(tmp_path.rglob("*")) if path.is_file())
    some.write_text("drifted")
    said = cli("render", "--root", tmp_path, "--check")
    assert said.code == 1
    assert some.relative_to(tmp_path).as_posix() in said.out
    assert some.read_text() == "drifted", "a check writes nothing"


def test_doctor(cli: Cli) -> None:
    found = cli("doctor", "--json")
    assert found.code == 0
    states = {entry["subject"]: entry["state"] for entry in found.json}
    assert states["lake"] == states["bucket"] == "ok"


# --- Names that mean harm ------------------------------------------------------------------------------------------------------

HARMFUL = ("'; DROP TABLE runs; --", "../../x", "/etc/passwd", "signals/../../x", "*", "")


@pytest.mark.parametrize("name", HARMFUL)
def test_names_that_mean_harm_do_none(name: str, copied: tuple[Settings, Cli], tmp_path: Path) -> None:
    _, cli = copied
    (tmp_path / "x").write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for arguments in (
        ("restore", name, LAST),
        ("restore", name, LAST, "ab"),
        ("restore", "signals", LAST, f"{name}ab"),
        ("restore", "signals", name),
        ("run", "--session", LAST, "--step", name),
        ("run", "--session", name),
        ("sql", f"select * from {name or 'nothing'}"),
        ("sql", "select 1", "--as-of", name or "x"),
    ):
        said = cli(*arguments)
        assert said.code == 2, arguments
        assert said.err
    if name:
        assert cli("datasets", name).code == 2
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert cli("sql", "select count(*) as n from runs", "--format", "json").json[0]["n"] > 0


def test_a_lake_with_a_hostile_name_is_just_a_folder(built: Settings, cli: Cli, tmp_path: Path) -> None:
    hostile = tmp_path / "it's; DROP TABLE x -- [1]"
    shutil.copytree(built.lake, hostile)
    found = cli("sql", "--lake", hostile, COUNTED, "--format", "json")
    assert found.code == 0
    assert len(found.json) == 3
    frame = flowlake.open_lake(str(hostile)).read("signals", LAST, "SYNI").collect()
    assert frame.height == 1
    assert cli("verify", "--lake", hostile).code == 0
    assert cli("sql", "--lake", tmp_path / "no" / ".." / "none", "select count(*) as n from signals", "--format", "json").json == [
        {"n": 0}
    ]
    assert not (tmp_path / "none").exists(), "reading makes no folder"


# --- From Python ---------------------------------------------------------------------------------------------------------------


def test_open_lake_reads_lazily_and_narrowly(built: Settings) -> None:
    lake = flowlake.open_lake(built.lake)
    lazy = lake.read("option_trades", sessions=SECOND, underlyings="SYNI")
    assert isinstance(lazy, pl.LazyFrame)
    frame = lazy.collect()
    assert frame["session"].unique().to_list() == [SECOND]
    assert frame["underlying"].unique().to_list() == ["SYNI"]
    everything = lake.read("option_trades").collect()
    assert everything["session"].unique().sort().to_list() == MARKET.days
    assert lake.read("option_trades", sessions=(FIRST, SECOND)).collect().height < everything.height
    either = lake.read("option_trades", sessions=[str(FIRST), LAST], underlyings=["SYNI", "LOQA"]).collect()
    assert either["session"].unique().sort().to_list() == [FIRST, LAST]
    assert lake.read("option_trades", sessions=date(2020, 1, 2)).collect().is_empty()
    counted = lake.sql(COUNTED)["prints"].sum()
    assert counted == everything.height
    for wrong in (
        lambda: lake.read("../../x"),
        lambda: lake.read("sessions", underlyings="SYNI"),
        lambda: lake.read("signals", sessions="'; DROP"),
        lambda: lake.revision("no-such-run"),
        lambda: lake.as_of("2024-01-02T10:00:00"),
    ):
        with pytest.raises(UsageError):
            wrong()


def test_as_of_from_python(built: Settings) -> None:
    lake = flowlake.open_lake(built.lake).as_of(SECOND)
    assert lake.sessions("signals") == [FIRST, SECOND]
    assert lake.read("option_iv").collect()["known_at_utc"].max() <= decision_time(SECOND)
    assert lake.sql("select max(session) as s from option_iv").item() == SECOND
    noon = datetime(SECOND.year, SECOND.month, SECOND.day, 17, tzinfo=UTC)
    part = flowlake.open_lake(built.lake).as_of(noon).read("option_trades", SECOND).collect()
    whole = flowlake.open_lake(built.lake).read("option_trades", SECOND).collect()
    assert 0 < part.height < whole.height
    assert part["ts_utc"].max() <= noon


def test_connect_gives_a_duckdb_connection(built: Settings) -> None:
    with flowlake.connect(built.lake) as connection:
        assert isinstance(connection, duckdb.DuckDBPyConnection)
        assert connection.execute("select count(distinct session) from signals").fetchone() == (3,)
    with flowlake.connect(built.lake) as connection:
        moments = pl.DataFrame(connection.sql("select known_at_utc, actionable_at_utc from signals").to_arrow_table())
        assert (moments["actionable_at_utc"] >= moments["known_at_utc"]).all()
    with flowlake.connect(built.lake, as_of=str(FIRST)) as connection:
        assert connection.execute("select distinct session from signals").fetchall() == [(FIRST,)]
