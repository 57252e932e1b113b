"""Metrics of a real lake: pushed to a real Pushgateway, scraped by a real Prometheus, asked by every panel of the dashboards."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, timedelta
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
import pytest
from prometheus_client.parser import text_string_to_metric_families
from scipy.stats import chi2

from containers.compose_file import ROOT, program_at
from flowlake.core.errors import UsageError
from flowlake.core.sessions import actionable_at, close_utc, next_session, offset
from flowlake.core.settings import Settings
from flowlake.datasets.drift import MIN_VALUES
from flowlake.datasets.ops import RUNS
from flowlake.datasets.registry import DATASETS
from flowlake.lake import journal
from flowlake.lake.lake import open_lake
from flowlake.lake.partitions import partition_path
from flowlake.lake.store import LocalStore
from flowlake.market.s3server import S3Server
from flowlake.monitoring import exposition
from flowlake.monitoring.metrics import FACTOR_PSI, METRICS, STEP_CPU, STEP_MEMORY, Sample
from flowlake.pipeline.judging import drift
from flowlake.pipeline.measuring import measure
from flowlake.pipeline.plan import select
from flowlake.sources import feeds
from integration.market_bucket import bucket_of, call, command, fill, republish, run_all, small_market
from integration.prometheus_server import PACKAGE, Servers, eventually, get, program, pushgateway, servers
from integration.test_cli import Cli, cli_of

MARKET = small_market(9, 6)
HELD = MARKET.days[3]
TRADES = "massive_option_trades"
LAST = MARKET.days[-1]
DASHBOARDS = [PACKAGE / f"grafana/dashboards/{name}.json" for name in ("operations", "signals")]
"""Those of a lake; that of Airflow has its data from an Airflow, in tests/dags/test_postgres.py."""


@pytest.fixture(scope="module")
def lake(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A lake of nine sessions, one of which has its trades held; they were tried twice. Nobody writes to it."""
    folder = tmp_path_factory.mktemp("monitored")
    settings = replace(fill(s3, "monitored", MARKET, folder / "lake"), scratch=str(folder / "scratch"))
    keys = (info.key for info in bucket_of(s3, "monitored").objects())
    key = next(key for key in keys if (match := feeds.match(key)) and (match.feed.dataset.name, match.file_date) == (TRADES, HELD))
    republish(s3, "monitored", key, lambda lines: [lines[0], *(line for line in lines[1:] for _ in range(2))])
    assert run_all(settings, MARKET).exit_code == 3
    assert run_all(settings, MARKET, steps=select(["ingest_massive_option_trades"]), retry=True).exit_code == 3
    return settings


@pytest.fixture(scope="module")
def samples(lake: Settings) -> list[Sample]:
    return measure(lake, LAST)


def values(samples: list[Sample], name: str) -> dict[tuple[str, ...], float]:
    return {sample.labels: sample.value for sample in samples if sample.metric.name == f"flowlake_{name}"}


# --- The figures -------------------------------------------------------------------------------------------------------


def test_every_declared_metric_has_a_value(samples: list[Sample]) -> None:
    assert {sample.metric.name for sample in samples} == {metric.name for metric in METRICS}
    assert len({(sample.metric.name, sample.labels) for sample in samples}) == len(samples)
    assert all(math.isfinite(sample.value) for sample in samples)


def test_what_is_held_shows_where_it_should(samples: list[Sample], lake: Settings) -> None:
    assert values(samples, "quarantine_partitions")[TRADES, "held"] == 1
    assert sum(values(samples, "quarantine_partitions").values()) == 1
    assert values(samples, "step_retries_total")["ingest_massive_option_trades",] == 1
    assert sum(values(samples, "step_retries_total").values()) == 1
    assert values(samples, "steps_total")["ingest_massive_option_trades", "quarantined"] == 2
    at_that_time = measure(lake, HELD)
    assert values(at_that_time, "session_steps")["quarantined",] == 1
    assert values(at_that_time, "dataset_behind_sessions")[TRADES,] == 1
    assert values(at_that_time, "dataset_behind_sessions")["option_bars_1d",] == 0
    assert (TRADES,) not in values(at_that_time, "partition_rows")


def test_rows_bytes_and_freshness_are_those_of_the_lake(samples: list[Sample], lake: Settings) -> None:
    opened = open_lake(settings=lake)
    for name in ("option_trades", "signals", "factor_panel"):
        file = Path(lake.lake, partition_path(DATASETS[name], LAST))
        assert values(samples, "partition_rows")[name,] == opened.read(name, LAST).collect().height
        assert values(samples, "partition_bytes")[name,] == file.stat().st_size
    assert values(samples, "backlog_sessions")[()] == 0
    assert values(samples, "session_timestamp_seconds")[()] == close_utc(LAST).timestamp()
    later = measure(lake, None, actionable_at(offset(LAST, 2)))
    assert values(later, "backlog_sessions")[()] == 2
    assert values(later, "dataset_behind_sessions")["signals",] == 2
    assert values(later, "session_timestamp_seconds")[()] == close_utc(LAST).timestamp()
    assert values(measure(lake, None, actionable_at(next_session(LAST)) - timedelta(seconds=1)), "backlog_sessions")[()] == 0


def test_lag_runs_from_the_bucket_and_from_the_due_moment(samples: list[Sample], lake: Settings) -> None:
    lag = values(samples, "signal_lag_seconds")
    first = open_lake(settings=lake).sql(
        "select min(published_at_utc) t from publications where dataset = 'signals' and session = ?", [LAST]
    )
    published = first["t"][0].replace(tzinfo=UTC)
    assert lag["due",] == pytest.approx((published - actionable_at(LAST)).total_seconds(), abs=0.01)
    assert 0 < lag["arrival",] < 3600


def test_steps_cost_what_was_recorded(samples: list[Sample], lake: Settings) -> None:
    rows = journal.records(LocalStore(Path(lake.lake)), RUNS).filter((pl.col("session") == LAST) & (pl.col("step") == "option_iv"))
    spent, peak = rows["cpu_seconds"].to_list(), rows["peak_memory_bytes"].to_list()
    assert values(samples, STEP_CPU.name.removeprefix("flowlake_"))["option_iv",] == spent[-1] > 0
    assert values(samples, STEP_MEMORY.name.removeprefix("flowlake_"))["option_iv",] == peak[-1] > 50e6


def test_hit_ratio_is_that_of_a_query(samples: list[Sample], lake: Settings) -> None:
    asked = open_lake(settings=lake).sql(
        "select s.tier, o.horizon_sessions::varchar h, avg(o.is_significant_sigma::int) r, count(*) n from outcomes o "
        "join signals s on s.session = o.signal_session and s.underlying = o.underlying "
        "where o.is_significant_sigma is not null group by all"
    )
    assert asked.height >= 2
    for tier, horizon, ratio, count in asked.iter_rows():
        assert values(samples, "signal_hit_ratio")[tier, "sigma", horizon] == pytest.approx(ratio)
        assert values(samples, "signal_outcomes")[tier, "sigma", horizon] == count


def test_drift_is_that_of_its_formula(samples: list[Sample], lake: Settings) -> None:
    panel = open_lake(settings=lake).read("factor_panel").select("session", "option_volume").collect().drop_nulls()
    reference = np.sort(panel.filter(pl.col("session") < MARKET.days[4])["option_volume"].to_numpy())
    current = panel.filter(pl.col("session") >= MARKET.days[4])["option_volume"].to_numpy()
    assert min(reference.size, current.size) >= MIN_VALUES
    edges = np.unique(np.quantile(reference, np.linspace(0.1, 0.9, 9)))
    shares = []
    for sample in (reference, current):
        inner = [int(((sample > low) & (sample <= high)).sum()) for low, high in pairwise(edges)]
        counts = [int((sample <= edges[0]).sum()), *inner, int((sample > edges[-1]).sum())]
        shares.append([max(count, 0.5) / sample.size for count in counts])
    expected = sum((c - r) * math.log(c / r) for r, c in zip(*shares, strict=True))
    assert values(samples, "factor_psi")["option_volume",] == pytest.approx(expected)
    chance = chi2.ppf(0.999, len(edges)) * (1 / reference.size + 1 / current.size)
    assert values(samples, "factor_psi_chance")["option_volume",] == pytest.approx(chance)


def test_drift_sees_no_later_session(lake: Settings, tmp_path: Path) -> None:
    shutil.copytree(lake.lake, tmp_path / "lake")
    day = MARKET.days[-2]
    before = [sample for sample in drift(open_lake(settings=lake), day) if sample.metric is FACTOR_PSI]
    shutil.rmtree(tmp_path / "lake/derived/factor_panel" / f"session={LAST}")
    after = [s for s in drift(open_lake(settings=replace(lake, lake=str(tmp_path / "lake"))), day) if s.metric is FACTOR_PSI]
    assert before == after


def test_a_lake_without_anything_has_metrics_too(lake: Settings, tmp_path: Path) -> None:
    found = measure(replace(lake, lake=str(tmp_path)))
    assert values(found, "backlog_sessions")[()] == 1
    assert set(values(found, "signals").values()) == {0}
    assert values(found, "session_timestamp_seconds") == values(found, "due_session_timestamp_seconds")
    with pytest.raises(UsageError, match="is no session"):
        measure(lake, MARKET.days[0].replace(day=1))


# --- Handed over -------------------------------------------------------------------------------------------------------


@pytest.fixture
def cli(lake: Settings, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    return cli_of(lake, monkeypatch, capfd)


@dataclass(frozen=True)
class Scraped:
    """Servers that have the lake's metrics, two scrapes at least."""

    servers: Servers
    instance: str


@pytest.fixture(scope="module")
def scraped(lake: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    with servers(tmp_path_factory.mktemp("prometheus")) as running:
        said = call(command("metrics", "push", "--gateway", running.gateway), lake)
        assert said.returncode == 0, said.stderr
        assert re.fullmatch(rf"\d+ values of {lake.lake} pushed to {running.gateway}\n", said.stdout)
        assert eventually(lambda: running.query("count_over_time(flowlake_build_info[1m]) > 2"))
        yield Scraped(running, lake.lake)


def panels() -> list[tuple[str, str, str]]:
    found = []
    for file in DASHBOARDS:
        for panel in json.loads(file.read_text(encoding="utf-8"))["panels"]:
            found += [(file.stem, panel["title"], target["expr"]) for target in panel.get("targets", ())]
    return found


@pytest.mark.real("prometheus")
@pytest.mark.parametrize(("board", "title", "expression"), panels(), ids=lambda text: re.sub(r"\W+", "_", text)[:40])
def test_every_query_of_every_panel_returns_data(scraped: Scraped, board: str, title: str, expression: str) -> None:
    assert 'instance=~"$instance"' in expression
    query = expression.replace("$instance", scraped.instance)
    found = eventually(lambda: scraped.servers.query(query))
    assert found, f"{board}, {title}: {query}"
    assert all(math.isfinite(float(series["value"][1])) for series in found)


@pytest.mark.real("prometheus")
def test_the_variable_of_the_dashboards_finds_the_lake(scraped: Scraped) -> None:
    for file in DASHBOARDS:
        (variable,) = json.loads(file.read_text(encoding="utf-8"))["templating"]["list"]
        metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"]).groups()  # type: ignore[union-attr]
        address = f"{scraped.servers.prometheus}/api/v1/label/{label}/values?match[]={metric}"
        assert json.loads(get(address))["data"] == [scraped.instance]


@pytest.mark.real("prometheus")
def test_the_rules_see_the_state_of_the_lake(scraped: Scraped) -> None:
    """Everything is far behind today, one file is held, and so young a lake has no score."""
    wanted = {"FlowlakeSignalsLate", "FlowlakeHeld", "FlowlakeNoSignals", "FlowlakeBacklog"}

    def alarming() -> set[str]:
        return {name for name, rule in scraped.servers.rules().items() if rule["state"] != "inactive"}

    eventually(lambda: alarming() == wanted)  # groups of rules are evaluated one after another
    assert alarming() == wanted
    assert {rule["health"] for rule in scraped.servers.rules().values()} == {"ok"}


@pytest.mark.real("prometheus")
def test_rules_that_fire_are_told_once(cli: Cli, scraped: Scraped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the lake through Pushgateway, Prometheus and its rules to a person."""
    monkeypatch.setenv("FLOWLAKE_ALERT_FILE_PATH", str(tmp_path / "told.jsonl"))
    monkeypatch.setenv("FLOWLAKE_ALERT_OUTBOX", str(tmp_path / "outbox.sqlite"))
    eventually(lambda: {rule["state"] for rule in scraped.servers.rules().values()} == {"inactive", "firing"})
    for _ in range(2):
        assert cli("alerts", "watch", "--prometheus", scraped.servers.prometheus, "--once").code == 0
    told = [json.loads(line)["notifications"][0] for line in (tmp_path / "told.jsonl").read_text().splitlines()]
    tiers = {
        "FlowlakeSignalsLate": "critical",
        "FlowlakeHeld": "warning",
        "FlowlakeNoSignals": "critical",
        "FlowlakeBacklog": "warning",
    }
    assert {one["subject"]: one["tier"] for one in told} == {f"{rule} {scraped.instance}": tier for rule, tier in tiers.items()}
    assert len(told) == 4
    (held,) = [one for one in told if one["subject"].startswith("FlowlakeHeld")]
    assert held["facts"] == {f"dataset {TRADES}, kind held": f"1 partitions of {TRADES} are held in quarantine"}


@pytest.mark.real("prometheus")
def test_the_dashboards_are_drawn_from_their_own_queries(samples: list[Sample], tmp_path: Path) -> None:
    """What docs/draw_dashboards.py does with figures, here of three days: every panel that shows one number shows a number."""
    drawing = program_at(ROOT / "docs/draw_dashboards.py")
    (tmp_path / "data").mkdir()
    now = math.ceil(time.time())
    moments = {now - back * drawing.DAY_SECONDS: samples for back in range(3)}
    (tmp_path / "figures").write_text("\n".join(drawing.openmetrics(moments)) + "\n", encoding="utf-8")
    program("prometheus")
    with drawing.prometheus(tmp_path) as address:
        for file in DASHBOARDS:
            board = json.loads(file.read_text(encoding="utf-8"))
            for panel in (panel for panel in board["panels"] if panel["type"] == "stat"):
                assert drawing.asked(address, panel["targets"][0], drawing.days(moments)), panel["title"]
            drawing.draw(board, address, drawing.days(moments), tmp_path / f"{file.stem}.png")
    for file in drawing.DASHBOARDS:
        picture = plt.imread(tmp_path / f"{file.stem}.png")
        assert picture.shape[1] > 1000
        assert len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 8, "more than an empty page"


@pytest.mark.real("prometheus")
def test_a_push_replaces_the_one_before_and_no_other(
    cli: Cli, samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pushed(gateway: str) -> dict[str, set[str]]:
        groups = json.loads(get(f"{gateway}/api/v1/metrics"))["data"]
        return {group["labels"]["instance"]: {name for name in group if name.startswith("flowlake_")} for group in groups}

    with pushgateway(tmp_path) as gateway:
        exposition.push(samples, gateway, "s3://lake/options")
        exposition.push(samples, f"{gateway}/", "other")
        exposition.push(samples[:1], gateway, "s3://lake/options")
        found = pushed(gateway)
        assert found["s3://lake/options"] == {"flowlake_build_info"}
        assert found["other"] == {metric.name for metric in METRICS}
        monkeypatch.setenv("FLOWLAKE_PUSHGATEWAY", gateway)
        assert cli("metrics", "push", "--instance", "mine", "--session", LAST).code == 0
        assert set(pushed(gateway)) == {"s3://lake/options", "other", "mine"}


@pytest.mark.real("prometheus")
def test_the_text_is_what_prometheus_wants(cli: Cli, samples: list[Sample], tmp_path: Path) -> None:
    said = cli("metrics", "show", "--session", LAST)
    assert said.code == 0, said.err
    families = list(text_string_to_metric_families(said.out))
    assert sum(len(family.samples) for family in families) == len(samples)
    checked = subprocess.run([program("promtool"), "check", "metrics"], input=said.out, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    file = tmp_path / "flowlake.prom"
    assert cli("metrics", "show", "--session", LAST, "--textfile", file).out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["flowlake.prom"]
    assert file.read_text().count("\n") == said.out.count("\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "no pushgateway was given"),
        (("--gateway", "localhost"), "is no URL"),
        (("--gateway", "http://ann:secret@localhost:1"), "holds a user"),
    ],
)
def test_a_wrong_address_is_refused_in_words(cli: Cli, arguments: tuple[str, ...], words: str) -> None:
    said = cli("metrics", "push", "--session", LAST, *arguments)
    assert said.code == 2
    assert words in said.err
    assert "secret" not in said.err + said.out
