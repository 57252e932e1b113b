"""The triggers on handmade frames: what is told, what is not, and what is said about what could not be judged."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest

from flowlake.alerts.triggers import TRIGGERS, Found
from flowlake.core.alert_settings import TIERS, PriceLevel, price_levels
from flowlake.core.sessions import sessions_between
from flowlake.datasets.drift import drift_factors
from flowlake.datasets.model import KNOWN_AT
from flowlake.datasets.registry import DATASETS
from flowlake.quant.stability import population_stability

BEFORE, DAY = date(2024, 3, 1), date(2024, 3, 4)
KNOWN = datetime(2024, 3, 5, 14, tzinfo=UTC)
BY_NAME = {trigger.name: trigger for trigger in TRIGGERS}


def frame(dataset: str, *rows: dict[str, Any]) -> pl.DataFrame:
    """Rows of a dataset; columns that are not given are null, the moment of knowledge is KNOWN."""
    schema = DATASETS[dataset].polars_schema() | ({"session": pl.Date()} if "session" not in DATASETS[dataset].column_names else {})
    return pl.DataFrame([{KNOWN_AT: KNOWN} | row for row in rows], schema=schema)


def found(name: str, frames: dict[str, pl.DataFrame], watch: tuple[PriceLevel, ...] = ()) -> Found:
    return BY_NAME[name].find(BY_NAME[name], frames, DAY, watch)


def titles(told: Found) -> list[str]:
    return [one.title for one in told.notifications]


@pytest.mark.parametrize("trigger", TRIGGERS, ids=lambda trigger: trigger.name)
def test_every_trigger_is_whole(trigger: Any) -> None:
    assert trigger.tier in TIERS
    assert trigger.cooldown_sessions >= 0
    assert {need.dataset for need in (*trigger.needs, *trigger.helps)} <= set(DATASETS)
    empty = {need.dataset: frame(need.dataset) for need in (*trigger.needs, *trigger.helps)}
    assert trigger.find(trigger, empty, DAY, ()).notifications == []
    assert len(BY_NAME) == len(TRIGGERS)


# --- Drift ----------------------------------------------------------------------------------------------------------------------


def panel(shift: float, sessions: int = 65, underlyings: int = 12) -> pl.DataFrame:
    """Every factor a normal sample; that of the newest five sessions moved by `shift` for one of them."""
    rng = np.random.default_rng(5)
    days = sessions_between(date(2023, 9, 1), DAY)[-sessions:]
    rows = [{"session": day, "underlying": f"U{i}", KNOWN_AT: KNOWN} for day in days for i in range(underlyings)]
    columns = {name: rng.normal(size=len(rows)) for name in drift_factors()}
    columns["atm_iv_30d_z"][-5 * underlyings :] += shift
    schema = {"session": pl.Date(), "underlying": pl.String(), KNOWN_AT: pl.Datetime("ns", "UTC")}
    return pl.DataFrame(rows, schema=schema).with_columns(pl.Series(name, values) for name, values in columns.items())


def test_a_factor_that_moved_drifts_and_chance_does_not() -> None:
    assert found("drift", {"factor_panel": panel(0.0)}).notifications == []
    (told,) = found("drift", {"factor_panel": panel(2.0)}).notifications
    assert (told.subject, told.tier, told.known_at_utc) == ("atm_iv_30d_z", "warning", KNOWN)
    assert dict(told.facts)["sessions"].endswith("against the 60 before")
    index = float(told.title.split()[-1])
    frame_ = panel(2.0).get_column("atm_iv_30d_z").to_numpy()
    assert index == pytest.approx(population_stability(frame_[:-60], frame_[-60:]).index, abs=0.005)


def test_a_young_lake_has_no_drift_and_says_so() -> None:
    told = found("drift", {"factor_panel": panel(2.0, sessions=5)})
    assert (told.notifications, told.remarks) == ([], ["5 sessions of factors, more than 5 needed"])


# --- Signals ---------------------------------------------------------------------------------------------------------------------


def signal(underlying: str, score: float, tier: str, session: date = DAY, **more: Any) -> dict[str, Any]:
    fixed = {"regime": "calm", "direction": "up", "actionable_at_utc": KNOWN, "confidence": 0.2}
    return {"underlying": underlying, "score": score, "tier": tier, "session": session} | fixed | more


def reason(underlying: str, kind: str, sentence: str, contribution: float) -> dict[str, Any]:
    return {"underlying": underlying, "kind": kind, "sentence": sentence, "contribution": contribution, "session": DAY}


def test_top_signals_with_reasons_doubts_and_confidence() -> None:
    signals = frame(
        "signals",
        signal("AAPL", 86.4, "top"),
        signal("MSFT", 75.0, "high"),
        signal("NVDA", 91.0, "top", confidence=None, confidence_reason="60 labels, 100 needed"),
        signal("OLD", 99.0, "top", BEFORE),
    )
    reasons = frame("signal_reasons", reason("AAPL", "factor", "Swept.", 90.0), reason("AAPL", "doubt", "A hedge.", -3.6))
    aapl, nvda = found("top_signal", {"signals": signals, "signal_reasons": reasons}).notifications
    assert (aapl.subject, aapl.tier, aapl.session, aapl.known_at_utc) == ("AAPL", "warning", DAY, KNOWN)
    assert aapl.title == "AAPL: top signal, score 86.4"
    assert (aapl.reasons, aapl.doubts) == (("+90.0  Swept.",), ("-3.6  A hedge.",))
    assert dict(aapl.facts)["confidence"] == "20% likely to be followed by a significant move"
    assert dict(nvda.facts)["confidence"] == "none: 60 labels, 100 needed"
    assert titles(found("top_signal", {"signals": signals})) == [aapl.title, nvda.title], "reasons may be missing"


# --- Operations ------------------------------------------------------------------------------------------------------------------


def step(name: str, status: str, hour: int, **more: Any) -> dict[str, Any]:
    when = datetime(2024, 3, 5, hour, tzinfo=UTC)
    return {"step": name, "status": status, "session": DAY, "started_at_utc": when, "seconds": 60.0, "run_id": f"r{hour}"} | {
        "detail": f"{name} at {hour}",
        "inputs_key": "k1",
        **more,
    }


def test_only_the_last_word_on_a_step_counts() -> None:
    runs = frame(
        "runs",
        step("ingest", "failed", 1),
        step("ingest", "built", 2),
        step("curate", "built", 1),
        step("curate", "failed", 3),
        step("audit", "held", 1),
        step("contracts", "quarantined", 1),
        step("rates", "blocked", 1),
    )
    failed = found("operations_failed", {"runs": runs}).notifications
    assert [(one.subject, one.tier, one.reasons) for one in failed] == [("curate", "critical", ("curate at 3",))]
    assert failed[0].known_at_utc == datetime(2024, 3, 5, 3, 1, tzinfo=UTC)
    assert titles(found("operations_refused", {"runs": runs})) == [
        f"audit held for {DAY}",
        f"contracts quarantined for {DAY}",
    ]


def test_a_file_that_is_still_held_is_the_one_that_was_quarantined() -> None:
    def told(*steps: dict[str, Any]) -> list[str]:
        return [one.identity for one in found("operations_refused", {"runs": frame("runs", *steps)}).notifications]

    first = told(step("ingest", "quarantined", 1))
    assert told(step("ingest", "quarantined", 1), step("ingest", "held", 2)) == first
    assert told(step("ingest", "quarantined", 3, inputs_key="k2")) != first


def run(error: str, hour: int, steps: str = "a b", exit_code: int = 1) -> dict[str, Any]:
    when = datetime(2024, 3, 5, hour, tzinfo=UTC)
    return {"run_id": f"r{hour}", "action": "run", "error": error, "exit_code": exit_code, "steps": steps} | {
        "started_at_utc": when,
        "ended_at_utc": when,
    }


def test_a_run_that_ended_early_is_told_until_one_of_the_same_steps_ends_well() -> None:
    def told(*runs: dict[str, Any]) -> list[tuple[str, ...]]:
        frames = {"runs": frame("runs", step("a", "built", 1)), "invocations": frame("invocations", *runs)}
        return [one.reasons for one in found("operations_failed", frames).notifications]

    assert told(run("the bucket is away", 1)) == [("the bucket is away",)]
    assert told(run("the bucket is away", 1), run("", 2)) == []
    assert told(run("the bucket is away", 1), run("", 2, "c")) == [("the bucket is away",)]
    assert told(run("another run works on them", 1, exit_code=4), run("no such day", 2, "c", exit_code=2)) == []


# --- Prices ----------------------------------------------------------------------------------------------------------------------


def bar(close: float, session: date, underlying: str = "AAPL") -> dict[str, Any]:
    return {"underlying": underlying, "close": close, "session": session}


@pytest.mark.parametrize(
    ("then", "now", "tells"),
    [
        (199.0, 201.0, ["AAPL above 200"]),
        (200.0, 200.01, ["AAPL above 200"]),
        (199.0, 200.0, []),
        (201.0, 205.0, []),
        (151.0, 149.0, ["AAPL below 150"]),
        (150.0, 149.0, ["AAPL below 150"]),
        (149.0, 140.0, []),
        (100.0, 300.0, ["AAPL above 200"]),
        (150.0, 150.0, []),
    ],
)
def test_a_level_is_told_when_it_is_crossed(then: float, now: float, tells: list[str]) -> None:
    frames = {
        "equity_bars_1d": frame("equity_bars_1d", bar(then, BEFORE), bar(now, DAY)),
        "corporate_actions": frame("corporate_actions"),
    }
    told = found("price_level", frames, price_levels("AAPL above 200, AAPL below 150"))
    assert [one.subject for one in told.notifications] == tells
    assert all(one.doubts == () for one in told.notifications)


def test_what_has_no_close_is_said() -> None:
    bars = frame("equity_bars_1d", bar(10.0, DAY), bar(9.0, BEFORE, "GONE"))
    told = found("price_level", {"equity_bars_1d": bars}, price_levels("AAPL above 5, GONE above 5, NONE below 3"))
    assert told.notifications == []
    assert told.remarks == [
        "AAPL above 5: no close of AAPL in the 5 sessions before 2024-03-04",
        "GONE above 5: no close of GONE on 2024-03-04",
        "NONE below 3: no close of NONE on 2024-03-04",
    ]
    assert found("price_level", {"equity_bars_1d": bars}).remarks == ["the watch list is empty: set `watch`"]


def test_without_corporate_actions_a_split_is_a_doubt() -> None:
    bars = frame("equity_bars_1d", bar(400.0, BEFORE), bar(100.0, DAY))
    (one,) = found("price_level", {"equity_bars_1d": bars}, price_levels("AAPL below 150")).notifications
    assert "a split between the two closes would not be seen" in one.doubts[0]


# --- Volatility and off-exchange -------------------------------------------------------------------------------------------------


def ranked(underlying: str, rank: float | None, session: date, tenor: int = 30, node: str = "atm_iv") -> dict[str, Any]:
    return {"underlying": underlying, "tenor_days": tenor, "node": node, "iv": 0.3, "iv_rank": rank, "session": session} | {
        "history_sessions": 100
    }


def test_iv_rank_changes() -> None:
    rows = [
        ranked("UP", 0.2, BEFORE),
        ranked("UP", 0.5, DAY),
        ranked("DOWN", 1.1, BEFORE),
        ranked("DOWN", 0.5, DAY),
        ranked("LITTLE", 0.2, BEFORE),
        ranked("LITTLE", 0.49, DAY),
        ranked("NEW", 0.9, DAY),
        ranked("UNKNOWN", 0.1, BEFORE),
        ranked("UNKNOWN", None, DAY),
        ranked("OTHER", 0.1, BEFORE, 60),
        ranked("OTHER", 0.9, DAY, 60),
    ]
    assert titles(found("iv_rank_change", {"iv_ranks": frame("iv_ranks", *rows)})) == [
        "UP: IV rank rose from 20% to 50%",
        "DOWN: IV rank fell from 110% to 50%",
    ]


def state(underlying: str, name: str, quiet: bool = True) -> dict[str, Any]:
    fixed = {"core_share_z": 2.5, "pressure_z": 3.0, "strength": 2.5, "is_quiet": quiet, "session": DAY}
    return {"underlying": underlying, "state": name} | fixed


def link(underlying: str, leaning: float | None, measure: str = "signed_premium", lag: int = 0) -> dict[str, Any]:
    return {"underlying": underlying, "measure": measure, "lag_sessions": lag, "options_leaning": leaning, "session": DAY}


def test_off_exchange_and_options_agree() -> None:
    frames = {
        "offexchange_accumulation": frame(
            "offexchange_accumulation",
            *(state(name, "accumulation") for name in ("BOTH", "AGAINST", "LITTLE", "UNSIGNED", "NOTHING")),
            state("SOLD", "distribution", quiet=False),
            state("NONE", "none"),
        ),
        "offexchange_options_link": frame(
            "offexchange_options_link",
            link("BOTH", 0.4),
            link("AGAINST", -0.4),
            link("LITTLE", 0.19),
            link("SOLD", -0.2),
            link("NONE", 0.9),
            link("UNSIGNED", None),
            link("UNSIGNED", 0.3, "premium"),
            link("NOTHING", 0.9, lag=1),
        ),
    }
    told = {one.subject: one for one in found("offexchange_options_agreement", frames).notifications}
    assert list(told) == ["BOTH", "UNSIGNED", "SOLD"]
    assert told["BOTH"].title == "BOTH: off-exchange accumulation, and options lean towards calls"
    assert told["SOLD"].doubts[-1] == "The price has already moved."
    assert "Who bought the options is not known" in told["UNSIGNED"].doubts[1]
