"""The one plan: every step, declared once. The command line, the executors and the DAGs are all made from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from difflib import get_close_matches
from functools import cache

from flowlake.core.errors import UsageError
from flowlake.curate import vendors
from flowlake.datasets.factors import CLOSE_SESSIONS, ENGINE_FEATURES, HISTORY_SESSIONS
from flowlake.datasets.flow_factors import (
    EXPECTED_SESSIONS,
    FACTORS_SLICED,
    FLOW_SCORED,
    FLOW_SESSIONS,
    PROFILE_SESSIONS,
    TIDE_SCORED,
)
from flowlake.datasets.hits import BASELINE_SESSIONS, PACKET_COLUMNS
from flowlake.datasets.modules import MODULE_SESSIONS
from flowlake.datasets.offexchange import ACCUMULATION_SESSIONS, LINK_SESSIONS
from flowlake.datasets.raw import RAW
from flowlake.datasets.raw_columns import KEPT_FOR
from flowlake.datasets.sides import PRINT_COLUMNS, QUOTE_SOURCES
from flowlake.datasets.volatility import NODES, RANK_SESSIONS
from flowlake.pipeline.step import Read, Stage, Step, Streamed
from flowlake.quality.activity import LOOKED_AT

YEAR = 252
TWO_YEARS = 504
RECENT = 20
LONGEST_HORIZON = 5


_INGEST_VERSIONS = {
    **dict.fromkeys(("massive_option_trades", "massive_stock_trades", "databento_option_trades"), 2),
    **dict.fromkeys(("databento_statistics", "databento_definitions"), 2),
    **dict.fromkeys(("massive_option_quotes", "databento_option_quotes"), 3),
}
_RAW_PRINTS = tuple(Read(name, columns=vendors.PRINT_TIME_COLUMNS.get(name, ())) for name in vendors.PRINTS)
_KEPT_QUOTES = frozenset(ds.name for ds in RAW if KEPT_FOR in ds.columns)


def _ingest(dataset: str) -> Step:
    """Of quotes those are kept that stand before a print, so the tapes come first."""
    reads = _RAW_PRINTS if dataset in _KEPT_QUOTES else ()
    return Step(f"ingest_{dataset}", Stage.INGEST, _INGEST_VERSIONS.get(dataset, 1), "", reads, (dataset,))


def _curate(name: str, function: str, *reads: Read, any_of: tuple[str, ...] = (), version: int = 1) -> Step:
    return Step(f"curate_{name}", Stage.CURATE, version, f"flowlake.curate.{function}", reads, (name,), any_of=any_of)


def _vendors(order: Iterable[str]) -> tuple[Read, ...]:
    return tuple(Read(name) for name in order)


_TICKERS = (
    Read("massive_option_trades", columns=("ticker",)),
    Read("massive_option_minute", columns=("ticker",)),
    Read("massive_option_day", columns=("ticker",)),
    Read("massive_option_quotes", columns=("ticker",)),
    Read("open_interest_file", columns=("ticker",)),
    Read("cboe_snapshot"),
    *(Read(name, columns=("ticker",)) for name in vendors.TICKER_SOURCES),
)
_QUOTES = ("massive_option_quotes", "cboe_snapshot", *vendors.QUOTE_STREAMS, *vendors.QUOTE_CHAINS)
_OPEN_INTEREST = ("open_interest_file", "cboe_snapshot", *vendors.MORNING_OPEN_INTEREST)
_STOCK_MINUTES = ("massive_stock_minute", *vendors.INDEX_MINUTE_BARS)
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
    *(_ingest(ds.name) for ds in sorted(RAW, key=lambda ds: ds.name in _KEPT_QUOTES)),
    _curate("sessions", "sessions:sessions"),
    _curate(
        "corporate_actions",
        "reference:corporate_actions",
        Read("corporate_actions_file", waits_if_held=True),
        Read("lean_events", waits_if_held=True),
    ),
    _curate("rates", "reference:rates", Read("rates_file"), Read("lean_interest_rate")),
    _curate("sectors", "reference:sectors", Read("sectors_file")),
    _curate(
        "contracts",
        "contracts:contracts",
        *_TICKERS,
        Read("contract_roots_file"),
        any_of=tuple(read.dataset for read in _TICKERS),
        version=2,
    ),
    _curate("sale_conditions", "conditions:sale_conditions", version=2),
    replace(
        _curate(
            "option_trades",
            "vendor_trades:option_trades",
            *_vendors(vendors.PRINTS),
            _CONTRACTS,
            any_of=tuple(vendors.PRINTS),
            version=4,
        ),
        reads_policy=True,
        streamed=Streamed("massive_option_trades", "flowlake.curate.tape:option_trades"),
    ),
    _curate(
        "option_bars_1m",
        "bars:option_bars_1m",
        *_vendors(vendors.MINUTE_BARS),
        _CONTRACTS,
        any_of=tuple(vendors.MINUTE_BARS),
    ),
    _curate("option_bars_1d", "bars:option_bars_1d", *_vendors(vendors.DAY_BARS), _CONTRACTS, any_of=tuple(vendors.DAY_BARS)),
    _curate("option_quotes_eod", "quotes:option_quotes_eod", *_vendors(_QUOTES), _CONTRACTS, any_of=_QUOTES, version=2),
    _curate("open_interest", "open_interest:open_interest", *_vendors(_OPEN_INTEREST), _CONTRACTS, any_of=_OPEN_INTEREST),
    _curate("equity_bars_1m", "bars:equity_bars_1m", *_vendors(_STOCK_MINUTES), any_of=_STOCK_MINUTES),
    _curate("equity_bars_1d", "bars:equity_bars_1d", Read("massive_stock_day", required=True)),
    Step(
        "curate_offexchange_prints",
        Stage.CURATE,
        2,
        "flowlake.curate.offexchange:offexchange_prints",
        (Read("massive_stock_trades", required=True),),
        ("offexchange_prints", "lit_bars_1m"),
    ),
    Step(
        "trade_sides",
        Stage.FACTORS,
        2,
        "flowlake.flow.sides:trade_sides",
        (
            Read("option_trades", required=True, columns=PRINT_COLUMNS),
            *(Read(source.dataset, columns=source.columns) for source in QUOTE_SOURCES),
        ),
        ("trade_sides",),
    ),
    Step(
        "option_iv",
        Stage.FACTORS,
        6,
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
        2,
        "flowlake.factors.surfaces:iv_surface",
        (Read("option_iv", required=True), _CONTRACTS),
        ("iv_surface",),
    ),
    Step(
        "daily_factors",
        Stage.FACTORS,
        6,
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
        "offexchange_activity",
        Stage.FACTORS,
        2,
        "flowlake.flow.offexchange:offexchange_activity",
        (Read("offexchange_prints", required=True), Read("lit_bars_1m", required=True), Read("equity_bars_1d")),
        ("offexchange_activity", "offexchange_blocks", "offexchange_levels"),
    ),
    Step(
        "flow_packets",
        Stage.FACTORS,
        3,
        "flowlake.flow.packets:flow_packets",
        (
            Read(
                "option_trades",
                required=True,
                columns=(
                    *("contract", "underlying", "root", "expiry", "right", "strike", "ts_utc", "price", "size", "premium_usd"),
                    *("exchange", "condition", "in_volume", "in_baseline", "is_iso", "is_auction", "is_cross", "is_floor"),
                    *("is_multi_leg", "is_stock_tied", "is_cancelled"),
                ),
                numbered="print_no",
            ),
            Read("trade_sides", columns=("underlying", "print_no", "bid", "ask", "quote_age_ms", "buy_probability")),
            Read("option_iv", columns=("underlying", "contract", "delta")),
            Read("open_interest", sessions=2),
            Read("corporate_actions"),
        ),
        ("flow_packets", "packet_prints"),
        sliced=("option_trades", "trade_sides", "option_iv", "open_interest"),
    ),
    Step(
        "flow_receipts",
        Stage.FACTORS,
        1,
        "flowlake.flow.receipts:flow_receipts",
        (
            Read("flow_packets", required=True, columns=("packet_id", "underlying", "opening_probability")),
            Read("packet_prints", required=True, columns=("print_no", "packet_id", "contract", "size")),
            Read("option_trades", required=True, columns=("contract", "size", "in_volume", "is_cancelled")),
            Read("open_interest", sessions=2),
            Read("corporate_actions"),
        ),
        ("flow_receipts",),
    ),
    Step(
        "flow_factors",
        Stage.FACTORS,
        3,
        "flowlake.flow.factors:flow_factors",
        (
            Read(
                "option_trades",
                required=True,
                columns=(
                    *("contract", "underlying", "right", "strike", "ts_utc", "size", "premium_usd", "exchange", "in_volume"),
                    *("condition_group", "is_iso", "is_auction", "is_multi_leg", "is_stock_tied", "is_cancelled"),
                ),
                numbered="print_no",
            ),
            _CONTRACTS,
            Read("trade_sides", columns=("underlying", "print_no", "buy_probability", "bid", "ask")),
            Read(
                "flow_packets",
                columns=(
                    *("underlying", "contract", "structure", "right", "size", "contracts", "premium_usd"),
                    *("buy_probability", "opening_probability"),
                ),
            ),
            Read("option_iv", sessions=2, adjust=True, columns=("contract", "underlying", "strike", "delta", "spot")),
            Read("equity_bars_1m", columns=("underlying", "ts_utc", "close", "volume", "is_regular")),
            Read("equity_bars_1d", columns=("underlying", "volume")),
            Read("sectors"),
        ),
        ("flow_factors", "flow_minutes", "market_tide", "venue_flow", "flow_profiles"),
        sliced=FACTORS_SLICED,
        cuts_itself=True,
    ),
    Step(
        "flow_hits",
        Stage.HISTORY,
        3,
        "flowlake.flow.hits:flow_hits",
        (
            Read("flow_packets", required=True, columns=PACKET_COLUMNS),
            Read(
                "flow_profiles",
                sessions=BASELINE_SESSIONS,
                adjust=True,
                columns=("underlying", "unit_contracts", "premium_bins", "premium_counts", "size_bins", "size_counts"),
            ),
            Read("flow_minutes", columns=("underlying", "ts_utc", "spot")),
            Read("contracts", required=True, columns=("contract", "underlying", "exercise", "is_adjusted")),
            Read("corporate_actions"),
        ),
        ("flow_hits",),
        vintage=True,
        reads_thresholds=True,
        sliced=("flow_packets", "flow_profiles", "flow_minutes", "contracts"),
    ),
    Step(
        "flow_scores",
        Stage.HISTORY,
        2,
        "flowlake.flow.abnormality:flow_scores",
        (
            Read(
                "flow_factors",
                sessions=FLOW_SESSIONS,
                required=True,
                adjust=True,
                columns=("underlying", "is_index", "sector", *(scored.name for scored in (*FLOW_SCORED, *TIDE_SCORED))),
            ),
            Read(
                "flow_profiles",
                sessions=PROFILE_SESSIONS,
                required=True,
                adjust=True,
                columns=("underlying", "minutes", "minute_premium_cents"),
            ),
            Read(
                "daily_factors",
                sessions=EXPECTED_SESSIONS,
                adjust=True,
                columns=("underlying", "option_volume", "atm_iv_30d", "spot_close"),
            ),
        ),
        ("flow_scores", "flow_abnormality"),
        vintage=True,
    ),
    Step(
        "factor_panel",
        Stage.HISTORY,
        5,
        "flowlake.factors.panel:factor_panel",
        (
            Read("daily_factors", sessions=HISTORY_SESSIONS, required=True, adjust=True),
            Read("equity_bars_1d", sessions=CLOSE_SESSIONS, adjust=True),
            Read("flow_factors"),
            Read("flow_scores"),
        ),
        ("factor_panel",),
        vintage=True,
    ),
    Step(
        "iv_ranks",
        Stage.HISTORY,
        3,
        "flowlake.factors.ranks:iv_ranks",
        (Read("iv_surface", sessions=RANK_SESSIONS, required=True, adjust=True, columns=("underlying", "tenor_days", *NODES)),),
        ("iv_ranks",),
        vintage=True,
    ),
    Step(
        "module_scores",
        Stage.HISTORY,
        2,
        "flowlake.factors.modules:module_scores",
        (Read("factor_panel", sessions=MODULE_SESSIONS, required=True, adjust=True), Read("iv_ranks")),
        ("module_scores",),
        vintage=True,
    ),
    Step(
        "offexchange_accumulation",
        Stage.HISTORY,
        1,
        "flowlake.flow.offexchange_history:offexchange_accumulation",
        (Read("offexchange_activity", sessions=ACCUMULATION_SESSIONS, required=True, adjust=True),),
        ("offexchange_accumulation",),
        vintage=True,
    ),
    Step(
        "offexchange_options_link",
        Stage.HISTORY,
        2,
        "flowlake.flow.offexchange_history:offexchange_options_link",
        (
            Read("daily_factors", sessions=LINK_SESSIONS + 1, required=True, adjust=True),
            Read("offexchange_activity", sessions=LINK_SESSIONS + 1, required=True, adjust=True),
            Read("flow_factors", sessions=LINK_SESSIONS + 1, adjust=True),
        ),
        ("offexchange_options_link",),
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
        3,
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
        3,
        "flowlake.anomalies.steps:score_anomalies",
        (
            Read("factor_panel", sessions=YEAR + 6, required=True, columns=("underlying", *ENGINE_FEATURES)),
            Read("models", required=True),
        ),
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
        2,
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
