"""What is worth telling: one small function per trigger, over frames of a session that are handed in.

To add one: write a function and an entry of TRIGGERS. Frames hold the rows known at the session's decision time, on its share
basis, with the column `session`; one that does not exist is left out. A frame of records of runs holds the rows of the session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl

from flowlake.alerts.model import Notification
from flowlake.core.alert_settings import PriceLevel
from flowlake.datasets.drift import (
    CURRENT_SESSIONS,
    REFERENCE_SESSIONS,
    SIGNIFICANT_PSI,
    drift_factors,
    samples,
    windows,
)
from flowlake.datasets.model import KNOWN_AT, SESSION
from flowlake.datasets.modules import RANKED_NODE
from flowlake.datasets.signals import TIER_FLOORS
from flowlake.quant.stability import population_stability

Frames = Mapping[str, pl.DataFrame]

BEFORE_SESSIONS = 5
"""How far back the value before is looked for: further back it says nothing of a change."""
IV_RANK_CHANGE = 0.3
"""Of the range of the past year: as much as from the middle of it to four fifths."""
LEANING = 0.2
"""Share of option premium by which one side must outweigh the other."""

NO_ACTIONS = "No corporate actions are known for this session: a split between the two closes would not be seen."


@dataclass(frozen=True)
class Need:
    """A dataset that a trigger reads, of so many sessions up to the one at hand."""

    dataset: str
    sessions: int = 1
    columns: tuple[str, ...] = ()
    """Of a table by underlying; all of them where none is named."""


@dataclass
class Found:
    """What a trigger has to tell, and remarks on what it could not judge."""

    notifications: list[Notification] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Trigger:
    """`needs` must all exist for the session, `helps` may be missing. `cooldown_sessions` around one that was told nothing of the
    same subject is told; 0 for no cooldown."""

    name: str
    watches: str
    tier: str
    cooldown_sessions: int
    needs: tuple[Need, ...]
    find: Callable[[Trigger, Frames, date, tuple[PriceLevel, ...]], Found]
    helps: tuple[Need, ...] = ()

    def tells(self, subject: str, session: date, title: str, known_at_utc: datetime, **more: Any) -> Notification:
        return Notification(self.name, subject, session, self.tier, title, known_at_utc, **more)


def top_signals(trigger: Trigger, frames: Frames, session: date, watch: tuple[PriceLevel, ...]) -> Found:
    """Underlyings whose signal reached the top tier."""
    top = TIER_FLOORS[0][0]
    found = Found()
    for row in _of(frames, "signals", session, pl.col("tier") == top):
        why = _of(frames, "signal_reasons", session, pl.col("underlying") == row["underlying"])
        said = [(f"{one['contribution']:+.1f}  {one['sentence']}", one["kind"] == "doubt") for one in why]
        found.notifications.append(
            trigger.tells(
                row["underlying"],
                session,
                f"{row['underlying']}: {top} signal, score {row['score']:.1f}",
                row[KNOWN_AT],
                facts=(
                    ("score", f"{row['score']:.1f} of 100, tier {row['tier']}"),
                    ("confidence", _confidence(row)),
                    ("regime", row["regime"]),
                    ("leans", row["direction"]),
                    ("can be acted on from", f"{row['actionable_at_utc']:%Y-%m-%d %H:%M} UTC"),
                ),
                reasons=tuple(words for words, is_doubt in said if not is_doubt),
                doubts=tuple(words for words, is_doubt in said if is_doubt),
            )
        )
    return found


def _confidence(row: Mapping[str, Any]) -> str:
    if row["confidence"] is None:
        return f"none: {row['confidence_reason']}"
    return f"{row['confidence']:.0%} likely to be followed by a significant move"


def _steps(trigger: Trigger, frames: Frames, session: date, statuses: Mapping[str, str]) -> Iterable[Notification]:
    """The newest record of each step of the session, where it has one of these statuses."""
    latest = frames["runs"].sort("started_at_utc", "run_id").group_by("step", maintain_order=True).last()
    for row in latest.filter(pl.col("status").is_in(list(statuses))).sort("step").iter_rows(named=True):
        yield trigger.tells(
            row["step"],
            session,
            f"{row['step']} {row['status']} for {session}",
            row["started_at_utc"] + timedelta(seconds=row["seconds"]),
            # A file that was replaced by another bad one is told again, the same one is not, however often it is tried.
            key=f"{row['status'] if row['status'] == 'failed' else 'refused'} {row['inputs_key']}",
            facts=(("status", row["status"]), ("run", row["run_id"]), ("do", statuses[row["status"]])),
            reasons=(row["detail"],) if row["detail"] else (),
        )


def failed_steps(trigger: Trigger, frames: Frames, session: date, watch: tuple[PriceLevel, ...]) -> Found:
    """Steps whose last attempt failed, and runs that an error ended early since."""
    found = Found(list(_steps(trigger, frames, session, {"failed": "run the session again once the cause is gone"})))
    ended = frames.get("invocations")
    if ended is not None:
        latest = (
            ended.filter(pl.col("action") == "run").sort("started_at_utc", "run_id").group_by("steps", maintain_order=True).last()
        )
        # 2 is a person's slip of the keyboard, and 4 another run at work: both say so at once where they happen.
        for row in latest.filter((pl.col("error") != "") & (pl.col("exit_code") == 1)).sort("run_id").iter_rows(named=True):
            found.notifications.append(
                trigger.tells(
                    "run",
                    session,
                    f"a run over {session} ended early",
                    row["ended_at_utc"],
                    key=row["steps"],
                    facts=(("run", row["run_id"]), ("exit code", str(row["exit_code"])), ("do", f"flowlake runs {row['run_id']}")),
                    reasons=(row["error"],),
                )
            )
    return found


def refused_partitions(trigger: Trigger, frames: Frames, session: date, watch: tuple[PriceLevel, ...]) -> Found:
    """Partitions of the session that quarantine holds."""
    cure = "replace the file in the bucket; docs/operations.md, A bad night"
    return Found(list(_steps(trigger, frames, session, {"quarantined": cure, "held": cure})))


def price_levels(trigger: Trigger, frames: Frames, session: date, watch: tuple[PriceLevel, ...]) -> Found:
    """Levels of the watch list that the close crossed since the close before."""
    found = Found()
    if not watch:
        found.remarks.append("the watch list is empty: set `watch`")
    for level in watch:
        now, before = _now_and_before(frames, "equity_bars_1d", session, pl.col("underlying") == level.underlying)
        if now is None or before is None:
            missing = f"on {session}" if now is None else f"in the {BEFORE_SESSIONS} sessions before {session}"
            found.remarks.append(f"{level}: no close of {level.underlying} {missing}")
            continue
        then, close = before["close"], now["close"]
        crossed = then <= level.price < close if level.side == "above" else then >= level.price > close
        if crossed:
            found.notifications.append(
                trigger.tells(
                    str(level),
                    session,
                    f"{level.underlying} closed at {close:,.2f}, {level.side} {level.price:,.10g}",
                    now[KNOWN_AT],
                    facts=(
                        ("close", f"{close:,.4f} USD"),
                        (f"close of {before[SESSION]}", f"{then:,.4f} USD, on the share basis of {session}"),
                    ),
                    doubts=() if "corporate_actions" in frames else (NO_ACTIONS,),
                )
            )
    return found


def iv_rank_changes(trigger: Trigger, frames: Frames, session: date, watch: tuple[PriceLevel, ...]) -> Found:
    """Underlyings whose place in the range of their own volatility moved far since the session before."""
    tenor, node = RANKED_NODE
    of_node = (pl.col("tenor_days") == tenor) & (pl.col("node") == node) & pl.col("iv_rank").is_not_null()
    found = Found()
    for row in _of(frames, "iv_ranks", session, of_node):
        now, before = _now_and_before(frames, "iv_ranks", session, of_node & (pl.col("underlying") == row["underlying"]))
        if now is None or before is None or abs(now["iv_rank"] - before["iv_rank"]) < IV_RANK_CHANGE:
            continue
        word = "rose" if now["iv_rank"] > before["iv_rank"] else "fell"
        found.notifications.append(
            trigger.tells(
                row["underlying"],
                session,
                f"{row['underlying']}: IV rank {word} from {before['iv_rank']:.0%} to {now['iv_rank']:.0%}",
                now[KNOWN_AT],
                facts=(
                    (f"{tenor}-day at-the-money volatility", f"{now['iv']:.1%}, {before['iv']:.1%} on {before[SESSION]}"),
                    ("rank in the range of the past", f"{now['iv_rank']:.0%} of {now['history_sessions']} sessions"),
                ),
            )
        )
    return found


def drifting_factors(trigger: Trigger, frames: Frames, session: date, watch: tuple[PriceLevel, ...]) -> Found:
    """Inputs of the anomaly engines that are distributed unlike in the sessions before."""
    panel = frames["factor_panel"]
    days = panel.get_column(SESSION).unique().sort().to_list()
    over = windows(days)
    found = Found()
    if not over.reference:
        found.remarks.append(f"{len(days)} sessions of factors, more than {CURRENT_SESSIONS} needed")
        return found
    for name, reference, current in samples(panel, over):
        drift = population_stability(reference, current)
        if drift.index > max(SIGNIFICANT_PSI, drift.chance):
            found.notifications.append(
                trigger.tells(
                    name,
                    session,
                    f"{name} drifts: stability index {drift.index:.2f}",
                    max(panel.filter(pl.col(SESSION) == session).get_column(KNOWN_AT)),
                    facts=(
                        ("sessions", f"{over.current[0]} to {over.current[-1]} against the {len(over.reference)} before"),
                        ("chance alone", f"up to {drift.chance:.2f}"),
                    ),
                    doubts=("A market that moves as a whole drifts as well: docs/runbook.md, FlowlakeInputDrift.",),
                )
            )
    return found


_AGREES = {"accumulation": (1.0, "towards calls"), "distribution": (-1.0, "towards puts")}


def agreements(trigger: Trigger, frames: Frames, session: date, watch: tuple[PriceLevel, ...]) -> Found:
    """Underlyings that are accumulated or distributed off exchange while option premium leans the same way."""
    found = Found()
    for row in _of(frames, "offexchange_accumulation", session, pl.col("state").is_in(list(_AGREES))):
        sign, side = _AGREES[row["state"]]
        same = (pl.col("underlying") == row["underlying"]) & (pl.col("lag_sessions") == 0)
        leanings = {one["measure"]: one["options_leaning"] for one in _of(frames, "offexchange_options_link", session, same)}
        signed = leanings.get("signed_premium")
        leaning = leanings.get("premium") if signed is None else signed
        if leaning is None or leaning * sign < LEANING:
            continue
        doubts = ["Off-exchange pressure is of low confidence without quotes."]
        if signed is None:
            doubts.append("Who bought the options is not known: this is the premium of calls against that of puts.")
        if row["is_quiet"] is False:
            doubts.append("The price has already moved.")
        found.notifications.append(
            trigger.tells(
                row["underlying"],
                session,
                f"{row['underlying']}: off-exchange {row['state']}, and options lean {side}",
                row[KNOWN_AT],
                facts=(("state", row["state"]), ("strength", f"{row['strength']:.1f} deviations")),
                reasons=(
                    f"Share {row['core_share_z']:+.1f} and pressure {row['pressure_z']:+.1f} deviations off their past.",
                    f"Option premium leans {abs(leaning):.0%} {side}.",
                ),
                doubts=tuple(doubts),
            )
        )
    return found


def _of(frames: Frames, dataset: str, session: date, wanted: pl.Expr) -> list[dict[str, Any]]:
    """The rows of the session; none where the frame is missing."""
    frame = frames.get(dataset)
    return [] if frame is None else frame.filter((pl.col(SESSION) == session) & wanted).to_dicts()


def _now_and_before(
    frames: Frames, dataset: str, session: date, wanted: pl.Expr
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The row of the session, and that of the newest session before it that has one."""
    rows = frames[dataset].filter(wanted).sort(SESSION).to_dicts()
    now = [row for row in rows if row[SESSION] == session]
    before = [row for row in rows if row[SESSION] < session]
    return (now[0] if now else None), (before[-1] if before else None)


TRIGGERS = (
    Trigger(
        "operations_failed",
        "Steps of the session that failed, and runs over it that an error ended early",
        "critical",
        0,
        (Need("runs"),),
        failed_steps,
        helps=(Need("invocations"),),
    ),
    Trigger(
        "operations_refused",
        "Partitions of the session that were quarantined or are held",
        "warning",
        0,
        (Need("runs"),),
        refused_partitions,
    ),
    Trigger(
        "drift",
        f"Factors whose stability index over {CURRENT_SESSIONS} sessions against the {REFERENCE_SESSIONS} before is above "
        f"{SIGNIFICANT_PSI:g} and above chance",
        "warning",
        10,
        (Need("factor_panel", CURRENT_SESSIONS + REFERENCE_SESSIONS, drift_factors()),),
        drifting_factors,
    ),
    Trigger(
        "top_signal",
        f"Signals of tier {TIER_FLOORS[0][0]}, a score of {TIER_FLOORS[0][1]:g} or more",
        "warning",
        5,
        (Need("signals"),),
        top_signals,
        helps=(Need("signal_reasons"),),
    ),
    Trigger(
        "price_level",
        "Closes that crossed a price of the watch list since the close before",
        "warning",
        0,
        (Need("equity_bars_1d", 1 + BEFORE_SESSIONS),),
        price_levels,
        helps=(Need("corporate_actions"),),
    ),
    Trigger(
        "iv_rank_change",
        f"IV rank ({RANKED_NODE[0]} days, at the money) that moved by {IV_RANK_CHANGE:g} of its range or more",
        "info",
        5,
        (Need("iv_ranks", 1 + BEFORE_SESSIONS),),
        iv_rank_changes,
    ),
    Trigger(
        "offexchange_options_agreement",
        f"Accumulation or distribution off exchange with option premium leaning {LEANING:.0%} or more the same way",
        "info",
        5,
        (Need("offexchange_accumulation"), Need("offexchange_options_link")),
        agreements,
    ),
)
