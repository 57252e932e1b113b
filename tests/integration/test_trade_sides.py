"""The step `trade_sides` in a real run: with a file of quotes the sides are known, without one they are not and it says so."""

from __future__ import annotations

import polars as pl
import pytest

from flowlake.lake.lake import Lake, open_lake
from flowlake.market import Market
from flowlake.market.s3server import S3Server
from flowlake.pipeline.plan import select
from integration.market_bucket import fill, run_all, small_market

STEPS = select(["ingest", "curate_sessions", "curate_contracts", "curate_option_trades", "trade_sides"])


def market_of(include_quotes: bool) -> Market:
    return small_market(1, 2, include_quotes=include_quotes, trades_per_underlying_session=200)


@pytest.fixture(scope="module", params=[True, False], ids=["quotes", "no quotes"])
def lake(request: pytest.FixtureRequest, s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    market = market_of(request.param)
    settings = fill(s3, f"sides-{request.param}", market, tmp_path_factory.mktemp("sides"))
    report = run_all(settings, market, steps=STEPS)
    assert report.exit_code == 0, [(r.step, r.status, r.detail) for r in report.results if r.status == "failed"]
    return open_lake(settings=settings)


def test_a_row_per_print_in_the_order_of_the_tape(lake: Lake) -> None:
    rows = lake.read("trade_sides").select("contract", "ts_utc", "print_no").collect()
    tape = lake.read("option_trades").select("contract", "ts_utc").collect()
    assert rows["print_no"].to_list() == list(range(tape.height))
    assert rows.drop("print_no").equals(tape)


def test_it_is_known_with_the_print(lake: Lake) -> None:
    assert lake.sql("select count(*) n from trade_sides where known_at_utc <> ts_utc")["n"].to_list() == [0]


def test_with_quotes_sides_are_known_and_without_them_they_are_not(lake: Lake) -> None:
    with_quotes = "massive_option_quotes" in lake.datasets()
    known = lake.sql("select avg((buy_probability is not null)::int) known from trade_sides where reason <> 'not_single_leg'")
    assert known["known"][0] > 0.8 if with_quotes else known["known"][0] == 0.0
    reasons = set(lake.sql("select distinct reason from trade_sides")["reason"].to_list())
    assert ("no_quote" in reasons) is not with_quotes
    assert ("" in reasons) is with_quotes


def test_what_is_stated_agrees_with_the_truth(lake: Lake) -> None:
    """The probability where there are quotes, the fallback where there are none; prints that look alike but differ are left out."""
    with_quotes = "massive_option_quotes" in lake.datasets()
    same = ["contract", "ts_utc", "price"]
    truth = (
        market_of(with_quotes)
        .truth()["trades"]
        .select(
            pl.col("ticker").str.strip_prefix("O:").alias("contract"),
            pl.col("sip_timestamp").cast(pl.Datetime("ns")).dt.replace_time_zone("UTC").alias("ts_utc"),
            "price",
            (pl.col("side") > 0).alias("bought"),
        )
        .unique()
        .filter(pl.len().over(same) == 1)
    )
    tape = lake.read("option_trades").select("price").collect()
    rows = lake.read("trade_sides").collect().sort("print_no").hstack(tape).join(truth, on=same)
    stated = rows.filter(pl.col("buy_probability" if with_quotes else "fallback_probability").is_not_null())
    assert stated.height > 100
    probability = stated["buy_probability"] if with_quotes else stated["fallback_probability"]
    right = ((probability > 0.5) == stated["bought"]).mean()
    assert right > (0.97 if with_quotes else 0.5)
    if with_quotes:
        buyers = probability > 0.5
        assert abs(probability.filter(buyers).mean() - stated["bought"].filter(buyers).mean()) < 0.05
        assert abs(probability.filter(~buyers).mean() - stated["bought"].filter(~buyers).mean()) < 0.05
