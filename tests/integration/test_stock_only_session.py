"""A session for which the bucket has stock files and no option files still ends the outcomes that its close completes."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from flowlake.lake.lake import open_lake
from flowlake.market import write_bucket
from flowlake.market.s3server import S3Server
from integration.market_bucket import bucket_of, run_all, settings_for, small_market

MARKET = small_market(2, 2)
SIGNAL, LAST = MARKET.days


def test_outcomes_are_completed_by_stock_bars_alone(s3: S3Server, tmp_path: Path) -> None:
    put = bucket_of(s3, "stock-only").put

    def put_all_but_the_last_options(key: str, body: bytes) -> None:
        if str(LAST) not in key or key.startswith("us_stocks_sip/"):
            put(key, body)

    write_bucket(MARKET, put_all_but_the_last_options)
    settings = settings_for(s3, "stock-only", tmp_path / "lake")
    report = run_all(settings, MARKET)
    lake = open_lake(settings=settings)
    assert lake.sessions("factor_panel") == [SIGNAL]
    assert lake.sessions("equity_bars_1d") == [SIGNAL, LAST]
    assert report.total("failed") == 0
    outcomes = lake.read("outcomes", LAST).collect().filter(pl.col("horizon_sessions") == 1)
    assert set(outcomes["signal_session"]) == {SIGNAL}
    with_bars = outcomes.filter(pl.col("exit_source") == "day_close")
    assert not with_bars.is_empty()
    assert with_bars["forward_return"].null_count() == 0
