"""Nothing is required but options files: a bucket of option trades and bars runs to signals, and says what it cannot know."""

from __future__ import annotations

import json

import pytest

from flowlake.cli import main
from flowlake.core.settings import Settings
from flowlake.datasets.raw import RAW
from flowlake.lake.lake import Lake, open_lake
from flowlake.market.s3server import S3Server
from flowlake.pipeline.run import Report
from integration.market_bucket import environment, fill, run_all, small_market

MARKET = small_market(3, 2, include_stock=False, include_reference=False, trades_per_underlying_session=900)
FED = {"massive_option_trades", "massive_option_minute", "massive_option_day"}
PREFIX = "options-only"


@pytest.fixture(scope="module")
def settings(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return fill(s3, PREFIX, MARKET, tmp_path_factory.mktemp("options-only"))


@pytest.fixture(scope="module")
def report(settings: Settings) -> Report:
    return run_all(settings, MARKET)


@pytest.fixture(scope="module")
def lake(settings: Settings, report: Report) -> Lake:
    return open_lake(settings=settings)


def test_the_run_ends_well_with_signals(report: Report, lake: Lake) -> None:
    assert report.exit_code == 0, [(r.step, r.status, r.detail) for r in report.results if r.status not in ("built", "absent")]
    assert {result.status for result in report.results} == {"built"}
    assert lake.sessions("signals") == MARKET.days
    for name in ("option_trades", "option_iv", "daily_factors", "factor_panel", "regimes", "anomaly_scores", "signals"):
        assert lake.sessions(name) == MARKET.days, name
    underlyings = lake.sql("select distinct underlying from signals order by 1")["underlying"].to_list()
    assert len(underlyings) == MARKET.spec.underlyings


def test_what_has_no_feed_is_neither_planned_nor_there(report: Report, lake: Lake) -> None:
    others = {ds.name for ds in RAW} - FED
    assert not others & set(lake.datasets())
    assert not {f"ingest_{name}" for name in others} & {result.step for result in report.results}
    assert lake.sql("select count(*) from equity_bars_1d").item() == 0, "the view is there, and empty"


def test_the_underlying_is_the_parity_implied_forward(lake: Lake) -> None:
    found = lake.sql("select spot_source, spot_close, atm_iv_30d, not_available from daily_factors")
    assert set(found["spot_source"].drop_nulls()) == {"parity_forward"}
    priced = found.filter(found["spot_source"].is_not_null())
    assert priced.height >= MARKET.spec.sessions
    assert priced["spot_close"].is_not_null().all()
    assert (priced["spot_close"] > 0).all()
    truth = {"SYNI": (380.0, 540.0), "LOQA": (12.0, 30.0)}
    by_name = lake.sql("select underlying, min(spot_close) as low, max(spot_close) as high from daily_factors group by 1")
    for name, low, high in by_name.iter_rows():
        assert low is None or (truth[name][0] < low and high < truth[name][1]), "near the price that the market starts from"
    sources = lake.sql("select distinct spot_source from option_iv where spot_source is not null")
    assert sources["spot_source"].to_list() == ["parity_forward"]


def test_every_null_factor_has_its_reason(lake: Lake) -> None:
    rows = lake.read("daily_factors").collect()
    for row in rows.iter_rows(named=True):
        reasons = {text.partition(":")[0]: text.partition(":")[2].strip() for text in row["not_available"]}
        assert reasons["stock_volume"]
        assert reasons["open_interest_close"]
        assert all(reasons.values())
        assert not [name for name in reasons if row.get(name) is not None], "a factor with a value needs no reason"
    panel = lake.sql("select not_available, history_sessions from factor_panel")
    assert panel["not_available"].list.len().min() > 0
    signals = lake.sql("select score, reason, confidence, confidence_reason from signals")
    assert all(reason for score, reason, _, _ in signals.iter_rows() if score is None)
    assert all(why for _, _, confidence, why in signals.iter_rows() if confidence is None)


def test_doctor_lists_what_abstains_and_what_would_feed_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in environment(settings).items():
        if name.startswith("FLOWLAKE_"):
            monkeypatch.setenv(name, value)
    capfd.readouterr()
    assert main(["doctor", "--json"]) == 0
    found = {entry["subject"]: entry for entry in json.loads(capfd.readouterr().out)}
    abstaining = {subject: entry["detail"] for subject, entry in found.items() if entry["state"] == "abstains"}
    feeds = " ".join(abstaining.values())
    for key in (
        "us_options_opra/quotes_v1",
        "us_stocks_sip bars",
        "us_stocks_sip/day_aggs_v1",
        "reference/open_interest",
        "reference/corporate_actions.csv",
        "reference/rates.csv",
        "reference/contract_roots.csv",
        "reference/sectors.csv",
    ):
        assert key in feeds
    assert "open interest and gamma exposure" in abstaining
    assert found["option volume, premium and anomaly factors"]["state"] == "ok"
    assert found["sale conditions, sweeps and multi-leg shares"]["detail"] == "fed by massive_option_trades"
    assert {name for name in found if name.startswith("massive_")} == FED
    assert all(found[name]["detail"] == f"{MARKET.spec.sessions} files" for name in FED)
    assert main(["doctor"]) == 0
    shown = capfd.readouterr().out
    assert "abstains" in shown
    assert "into the bucket to feed it" in shown


def test_a_second_run_finds_nothing_to_do(settings: Settings, report: Report) -> None:
    again = run_all(settings, MARKET)
    assert again.exit_code == 0
    assert {result.status for result in again.results} == {"fresh"}
