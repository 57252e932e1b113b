"""History under another condition policy: one command into a second lake, a difference that can be queried, and staleness."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl
import pytest

from flowlake.core.errors import UsageError
from flowlake.core.settings import Settings
from flowlake.curate.conditions import OPRA_CONSOLIDATED, OPRA_MASSIVE
from flowlake.datasets.registry import DATASETS
from flowlake.lake.lake import open_lake
from flowlake.lake.partitions import lineage_of, partition_path
from flowlake.market import Market
from flowlake.market.s3server import S3Server
from flowlake.pipeline.plan import select
from flowlake.pipeline.run import Request, run, status
from integration.market_bucket import call, command, fill, run_all, small_market

ROOT = Path(__file__).resolve().parents[2]
STEPS = ("ingest", "curate", "reconcile")
DIFFERENCE = """
select 'here' as side, * from (from option_trades except all from beside.option_trades)
union all
select 'beside' as side, * from (from beside.option_trades except all from option_trades)
"""
"""As `docs/flow.md` has it."""
QUERIES = [
    query
    for page in ("flow", "operations")
    for query in re.findall(r'flowlake sql "([^"]+)" --beside', (ROOT / f"docs/{page}.md").read_text(encoding="utf-8"))
]
OTHER = "opra-consolidated"
COUNTED = "select session, sum(size) filter (where in_volume) as volume from option_trades group by all order by all"


@dataclass(frozen=True)
class Lakes:
    """One market read under two policies: `here` under the default, `beside` under the other."""

    market: Market
    here: Settings
    beside: Settings


@pytest.fixture(scope="module")
def lakes(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Lakes:
    """Prints and bars of three sessions; the command line makes the second lake, of the first two of them."""
    folder, market = tmp_path_factory.mktemp("policy"), small_market(sessions=3, underlyings=3, trades_per_underlying_session=200)
    here = fill(s3, "policy", market, folder / "here")
    assert run_all(here, market, steps=select(list(STEPS))).exit_code == 0
    beside = replace(here, lake=str(folder / "beside"))
    sessions = ("--from", market.days[0], "--to", market.days[1])
    made = call(command("run", *sessions, "--policy", OTHER, "--step", *STEPS, "--no-data-docs"), beside)
    assert made.returncode == 0, made.stdout + made.stderr
    return Lakes(market, here, beside)


def policy_of(settings: Settings, day: object) -> str:
    lineage = lineage_of(open_lake(settings=settings).store, partition_path(DATASETS["option_trades"], day))  # type: ignore[arg-type]
    return next(record.dataset for record in lineage.inputs if record.dataset.startswith("condition_policy:"))


def test_the_footer_names_policy_and_version(lakes: Lakes) -> None:
    day = lakes.market.days[0]
    assert policy_of(lakes.here, day) == f"condition_policy:{OPRA_MASSIVE.label}"
    assert policy_of(lakes.beside, day) == f"condition_policy:{OPRA_CONSOLIDATED.label}"


def test_the_difference_is_queried_over_both_lakes(lakes: Lakes) -> None:
    days = lakes.market.days[:2]
    query = f"select * from ({DIFFERENCE}) where session <= '{days[-1]}'"
    shown = call(command("sql", query, "--beside", lakes.beside.lake, "--format", "json"), lakes.here)
    assert shown.returncode == 0, shown.stderr
    rows = pl.DataFrame(json.loads(shown.stdout), infer_schema_length=None)
    here, there = open_lake(settings=lakes.here), open_lake(settings=lakes.beside)
    late = there.sql("select * from option_trades where is_late")
    assert late.height > 0
    assert rows.group_by("side").len().sort("side").rows() == [("beside", late.height), ("here", late.height)]
    assert len(QUERIES) == 4
    assert rows["is_late"].all(), "nothing but late prints differs"
    for documented in QUERIES:
        assert here.sql(documented, beside=there).width > 1
    volumes = here.sql(COUNTED)["volume"][:2], there.sql(COUNTED)["volume"]
    assert volumes[1].sum() - volumes[0].sum() == late["size"].sum()
    assert (
        here.sql("select count(*) as n from beside.option_trades", beside=there)["n"][0]
        < here.sql("select count(*) as n from option_trades", beside=there)["n"][0]
    )


def test_reconciliation_explains_what_the_policy_counts(lakes: Lakes) -> None:
    lake = open_lake(settings=lakes.beside)
    reasons = lake.sql("select distinct reason from reconciliation where contract <> '*' and measure = 'volume'")["reason"]
    assert set(reasons) == {"late"}
    assert lake.sql("select count(*) as n from findings where rule = 'volume_disagrees'")["n"][0] == 0


def test_another_policy_makes_the_prints_stale_and_nothing_else(lakes: Lakes) -> None:
    day = lakes.market.days[0]
    request = Request(day, day, select(["curate"]))

    def states(settings: Settings) -> dict[str, str]:
        return {state.step: state.status for state in status(settings, request) if state.status != "absent"}

    assert states(replace(lakes.beside, condition_policy=OTHER))["curate_option_trades"] == "fresh"
    changed = states(lakes.beside)
    assert [step for step, state in changed.items() if state == "due"] == ["curate_option_trades"]


def test_an_unknown_policy_is_refused_before_anything_is_done(lakes: Lakes, tmp_path: Path) -> None:
    settings = replace(lakes.here, lake=str(tmp_path / "lake"))
    day = lakes.market.days[0]
    with pytest.raises(UsageError, match="there is no condition policy 'opra-massive@7'"):
        run(replace(settings, condition_policy="opra-massive@7"), Request(day, day))
    assert not [path for layer in ("raw", "curated") for path in (tmp_path / "lake" / layer).rglob("part.parquet")]
