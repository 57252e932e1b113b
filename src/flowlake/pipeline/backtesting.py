"""The backtest: DuckDB reads signals and outcomes, the evaluation is pure, and the try is written down."""

from __future__ import annotations

from datetime import UTC, date, datetime

from flowlake.backtest.evaluate import BacktestConfig, BacktestResult, evaluate
from flowlake.core.settings import Settings
from flowlake.datasets.signals import TRIALS
from flowlake.lake.lake import Lake
from flowlake.lake.partitions import encode, run_path
from flowlake.lake.store import open_store
from flowlake.pipeline.invocation import Asked, recorded

FIRST, LAST = date(1998, 1, 2), date(2035, 12, 31)


def backtest(settings: Settings, first: date | None = None, last: date | None = None) -> BacktestResult:
    """Evaluate the signals of a range of sessions as the lake serves them, and record the trial."""
    store = open_store(settings.lake, settings.lake_access)
    with recorded(store, settings, Asked("backtest", first, last)) as running:
        lake = Lake(store)
        span = [first or FIRST, last or LAST]
        result = evaluate(
            lake.sql("select session, underlying, score from signals where session between ? and ? order by all", span),
            lake.sql(
                "select * from outcomes where signal_session between ? and ? order by signal_session, underlying, horizon_sessions",
                span,
            ),
            lake.sql("select * from factor_panel where session between ? and ? order by session, underlying", span),
            lake.sql("select * from anomaly_scores where session between ? and ? order by session, underlying, engine", span),
            BacktestConfig(vintage="restated" if _was_restated(lake) else "as_published"),
        )
        store.write(
            run_path(TRIALS, running.run_id),
            encode(TRIALS, TRIALS.conform(result.trials(running.run_id, datetime.now(UTC)), FIRST)),
        )
    return result


def _was_restated(lake: Lake) -> bool:
    """Whether any served signal replaced an earlier revision of it."""
    found = lake.sql("select count(*) as n from publications where dataset = 'signals' and replaced_hash <> ''")
    return bool(found.item() > 0)
