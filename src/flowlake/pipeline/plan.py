"""The one plan: every step, declared once. The command line, the executors and the DAGs are all made from it."""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache

from flowlake.core.errors import UsageError
from flowlake.datasets.factors import CLOSE_SESSIONS, HISTORY_SESSIONS
from flowlake.datasets.modules import MODULE_SESSIONS
from flowlake.datasets.raw import RAW
from flowlake.datasets.volatility import NODES, RANK_SESSIONS
from flowlake.pipeline.step import Read, Stage, Step
from flowlake.quality.activity import LOOKED_AT

YEAR = 252
TWO_YEARS = 504
RECENT = 20
LONGEST_HORIZON = 5


def _ingest(dataset: str) -> Step:
    return Step(f"ingest_{dataset}", Stage.INGEST, 1, "", (), (dataset,))


def _curate(name: str, function: str, *reads: Read, any_of: tuple[str, ...] = (), version: int = 1) -> Step:
    return Step(f"curate_{name}", Stage.CURATE, version, f"flowlake.curate.{function}", reads, (name,), any_of=any_of)


_TICKERS = (
    Read("massive_option_trades", columns=("ticker",)),
    Read("massive_option_minute", columns=("ticker",)),
    Read("massive_option_day", columns=("ticker",)),
    Read("massive_option_quotes", columns=("ticker",)),
    Read("open_interest_file", columns=("ticker",)),
    Read("cboe_snapshot"),
)
_TAPES = ("option_trades", "option_bars_1m", "option_bars_1d", "equity_bars_1m", "equity_bars_1d", "open_interest")
_RAW_TAPES = (
    "massive_option_trades",
    "massive_option_minute",
    "massive_option_day",
    "massive_stock_trades",
    "massive_stock_minute",
    "massive_stock_day",
)
_CONTRACTS = Read("contracts", required=True)
_PRINTS = Read(
    "option_trades",
    columns=(
        *("contract", "underlying", "ts_utc", "price", "size", "premium_usd", "in_volume", "sets_price", "may_be_signed"),
        *("is_iso", "is_auction", "is_multi_leg", "is_stock_tied", "is_late", "is_cancelled"),
    ),
)
"""The tape is the largest partition: only what factors look at."""

STEPS: tuple[Step, ...] = (
    *(_ingest(ds.name) for ds in RAW),
    _curate("sessions", "sessions:sessions"),
    _curate(
        "corporate_actions",
        "reference:corporate_actions",
        Read("corporate_actions_file", waits_if_held=True),
        Read("lean_events", waits_if_held=True),
    ),
    _curate("rates", "reference:rates", Read("rates_file"), Read("lean_interest_rate")),
    _curate(
        "contracts",
        "contracts:contracts",
        *_TICKERS,
        Read("contract_roots_file"),
        any_of=tuple(read.dataset for read in _TICKERS),
    ),
    _curate("option_trades", "trades:option_trades", Read("massive_option_trades", required=True), _CONTRACTS),
    _curate("option_bars_1m", "bars:option_bars_1m", Read("massive_option_minute", required=True), _CONTRACTS),
    _curate("option_bars_1d", "bars:option_bars_1d", Read("massive_option_day", required=True), _CONTRACTS),
    _curate(
        "option_quotes_eod",
        "quotes:option_quotes_eod",
        Read("massive_option_quotes"),
        Read("cboe_snapshot"),
        _CONTRACTS,
        any_of=("massive_option_quotes", "cboe_snapshot"),
    ),
    _curate(
        "open_interest",
        "open_interest:open_interest",
        Read("open_interest_file"),
        Read("cboe_snapshot"),
        _CONTRACTS,
        any_of=("open_interest_file", "cboe_snapshot"),
    ),
    _curate("equity_bars_1m", "bars:equity_bars_1m", Read("massive_stock_minute", required=True)),
    _curate("equity_bars_1d", "bars:equity_bars_1d", Read("massive_stock_day", required=True)),
    Step(
        "option_iv",
        Stage.FACTORS,
        4,
        "flowlake.factors.option_iv:option_iv",
        (
            _CONTRACTS,
            _PRINTS,
            Read("option_bars_1m"),
            Read("option_bars_1d"),
            Read("option_quotes_eod"),
            Read("equity_bars_1m"),
            Read("equity_bars_1d"),
            Read("rates"),
            Read("corporate_actions"),
        ),
        ("option_iv",),
        any_of=("option_trades", "option_bars_1m", "option_bars_1d", "option_quotes_eod"),
    ),
    Step(
        "iv_surface",
        Stage.FACTORS,
        1,
        "flowlake.factors.surfaces:iv_surface",
        (Read("option_iv", required=True), _CONTRACTS),
        ("iv_surface",),
    ),
    Step(
        "daily_factors",
        Stage.FACTORS,
        3,
        "flowlake.factors.daily:daily_factors",
        (
            Read("option_iv", required=True),
            _CONTRACTS,
            Read("iv_surface"),
            _PRINTS,
            Read("option_bars_1m"),
            Read("option_bars_1d"),
            Read("option_quotes_eod"),
            Read("rates"),
            Read("equity_bars_1m"),
            Read("equity_bars_1d"),
            Read("open_interest", sessions=2, adjust=True),
            Read("corporate_actions"),
        ),
        ("daily_factors", "exposures"),
    ),
    Step(
        "factor_panel",
        Stage.HISTORY,
        2,
        "flowlake.factors.panel:factor_panel",
        (
            Read("daily_factors", sessions=HISTORY_SESSIONS, required=True, adjust=True),
            Read("equity_bars_1d", sessions=CLOSE_SESSIONS, adjust=True),
        ),
        ("factor_panel",),
        vintage=True,
    ),
    Step(
        "iv_ranks",
        Stage.HISTORY,
        1,
        "flowlake.factors.ranks:iv_ranks",
        (Read("iv_surface", sessions=RANK_SESSIONS, required=True, columns=("underlying", "tenor_days", *NODES)),),
        ("iv_ranks",),
        vintage=True,
    ),
    Step(
        "module_scores",
        Stage.HISTORY,
        1,
        "flowlake.factors.modules:module_scores",
        (Read("factor_panel", sessions=MODULE_SESSIONS, required=True, adjust=True), Read("iv_ranks")),
        ("module_scores",),
        vintage=True,
    ),
    Step(
        "complete_outcomes",
        Stage.HISTORY,
        1,
        "flowlake.backtest.outcomes:complete_outcomes",
        (
            Read("factor_panel", sessions=LONGEST_HORIZON + 1, adjust=True),
            Read("equity_bars_1d", sessions=LONGEST_HORIZON + 1, adjust=True),
            Read("equity_bars_1m", sessions=LONGEST_HORIZON + 1, adjust=True),
            Read("outcomes", sessions=60, lag=1),
        ),
        ("outcomes",),
        # The signal is of an earlier session: to complete its outcome takes today's close, from the panel or from stock bars.
        any_of=("factor_panel", "equity_bars_1d"),
        vintage=True,
    ),
    Step(
        "fit_models",
        Stage.SIGNALS,
        1,
        "flowlake.pipeline.composed:fit_models",
        (Read("factor_panel", sessions=TWO_YEARS + 5, required=True), Read("models", sessions=1, lag=1)),
        ("models",),
        vintage=True,
    ),
    Step(
        "label_regime",
        Stage.SIGNALS,
        1,
        "flowlake.regimes.steps:label_regime",
        (Read("factor_panel", sessions=TWO_YEARS + 5, required=True), Read("models", required=True)),
        ("regimes",),
        vintage=True,
    ),
    Step(
        "score_anomalies",
        Stage.SIGNALS,
        1,
        "flowlake.anomalies.steps:score_anomalies",
        (Read("factor_panel", sessions=YEAR + 6, required=True), Read("models", required=True)),
        ("anomaly_scores",),
        vintage=True,
    ),
    Step(
        "calibrate",
        Stage.SIGNALS,
        1,
        "flowlake.signals.calibration:calibrate",
        (Read("outcomes", sessions=YEAR, required=True), Read("signals", sessions=YEAR + LONGEST_HORIZON, lag=1)),
        ("calibrations",),
        vintage=True,
    ),
    Step(
        "score_signals",
        Stage.SIGNALS,
        1,
        "flowlake.pipeline.composed:score_signals",
        (
            Read("factor_panel", sessions=HISTORY_SESSIONS, required=True, adjust=True),
            Read("anomaly_scores", required=True),
            Read("regimes", required=True),
            Read("calibrations", required=True),
        ),
        ("signals", "signal_reasons"),
        vintage=True,
    ),
    Step(
        "measure_activity",
        Stage.CHECK,
        1,
        "flowlake.quality.activity:measure_activity",
        tuple(Read(name, columns=LOOKED_AT[name]) for name in (*_TAPES, *_RAW_TAPES)),
        ("activity",),
        any_of=(*_TAPES, *_RAW_TAPES),
    ),
    Step(
        "find_gaps",
        Stage.CHECK,
        1,
        "flowlake.quality.gaps:find_gaps",
        (Read("activity", sessions=RECENT + 1),),
        ("gaps",),
        reads_listing=True,
    ),
    Step(
        "reconcile",
        Stage.CHECK,
        1,
        "flowlake.quality.reconcile:reconcile",
        (Read("option_trades"), Read("option_bars_1m"), Read("option_bars_1d")),
        ("reconciliation",),
        any_of=("option_trades", "option_bars_1m", "option_bars_1d"),
    ),
)


@cache
def by_name() -> dict[str, Step]:
    return {step.name: step for step in STEPS}


@cache
def producers() -> dict[str, Step]:
    """Dataset -> the step that writes it."""
    return {dataset: step for step in STEPS for dataset in step.writes}


def select(names: list[str]) -> tuple[Step, ...]:
    """Steps by name or stage, in the plan's order; all where none is named. Raises UsageError for an unknown name."""
    if not names:
        return STEPS
    stages = {stage.value for stage in Stage}
    if unknown := [n for n in names if n not in by_name() and n not in stages]:
        near = sorted({m for n in unknown for m in get_close_matches(n, [*by_name(), *stages], n=3)})
        raise UsageError(
            f"there is no step {', '.join(unknown)}",
            (f"did you mean {', '.join(near)}? " if near else "")
            + f"stages are {', '.join(sorted(stages))}; `flowlake status` lists steps",
        )
    return tuple(step for step in STEPS if step.name in names or step.stage.value in names)
