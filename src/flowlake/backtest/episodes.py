"""Score card against known truth: which planted informed episodes were found in time, and which alarms were false."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from flowlake.core.errors import UsageError

ALARM_TIERS = ("top", "high")
INFORMED = "informed"
TRUTH_COLUMNS = ("underlying", "kind", "first_session", "last_session", "move_session")

_EPISODES = {
    "underlying": pl.String(),
    "kind": pl.String(),
    "first_session": pl.Date(),
    "last_session": pl.Date(),
    "move_session": pl.Date(),
    "scored_sessions": pl.Int64(),
    "alarms": pl.Int64(),
    "first_alarm": pl.Date(),
    "highest_score": pl.Float64(),
}


@dataclass(frozen=True)
class EpisodeScorecard:
    """`episodes`: the truth with `scored_sessions`, `alarms`, `first_alarm` and `highest_score` inside each episode's window.

    An informed episode without a scored session before its move could not be found, such as one in the first weeks of a bucket,
    when no factor has a past to be compared with. `alarms`: every alarm with `kind`, the episode it fell into, or null. An alarm is
    true in an informed episode, else false.
    """

    episodes: pl.DataFrame
    alarms: pl.DataFrame

    @property
    def planted(self) -> int:
        return self.episodes.filter(pl.col("kind") == INFORMED).height

    @property
    def findable(self) -> int:
        return self.episodes.filter((pl.col("kind") == INFORMED) & (pl.col("scored_sessions") > 0)).height

    @property
    def found(self) -> int:
        return self.episodes.filter((pl.col("kind") == INFORMED) & (pl.col("alarms") > 0)).height

    @property
    def false_alarms(self) -> int:
        return self.alarms.filter(pl.col("kind").ne_missing(INFORMED)).height

    def to_dict(self) -> dict[str, Any]:
        decoys = self.episodes.filter(pl.col("kind") != INFORMED)
        fired = decoys.filter(pl.col("alarms") > 0)
        return {
            "planted": self.planted,
            "findable": self.findable,
            "found": self.found,
            "recall": self.found / self.findable if self.findable else None,
            "alarms": self.alarms.height,
            "false_alarms": self.false_alarms,
            "false_discovery_rate": self.false_alarms / self.alarms.height if self.alarms.height else None,
            "decoys": {
                kind: {
                    "episodes": decoys.filter(pl.col("kind") == kind).height,
                    "fired": fired.filter(pl.col("kind") == kind).height,
                }
                for kind in decoys["kind"].unique().sort().to_list()
            },
            "false_alarms_outside_episodes": self.alarms.filter(pl.col("kind").is_null()).height,
        }

    def to_text(self) -> str:
        facts = self.to_dict()
        lines = [
            f"{self.planted} informed episodes were planted; {self.findable} could be found, the others moved before there was a "
            "score.",
            f"{self.found} of the {self.findable} were found before their move; "
            f"{self.false_alarms} of {self.alarms.height} alarms were false.",
        ]
        lines += [f"  {kind}: {count['fired']} of {count['episodes']} raised an alarm" for kind, count in facts["decoys"].items()]
        lines.append(f"  outside every episode: {facts['false_alarms_outside_episodes']} false alarms")
        return "\n".join(lines) + "\n"


def episode_scorecard(
    signals: pl.DataFrame, truth_episodes: pl.DataFrame, tiers: tuple[str, ...] = ALARM_TIERS
) -> EpisodeScorecard:
    """Score card of `signals` (session, underlying, score, tier) against `truth_episodes` (TRUTH_COLUMNS).

    `kind` is `informed` or names a decoy; `move_session` is the session of the move, null where none follows. An alarm counts
    for an episode from its first to its last session, for an informed one only before the session of the move: a signal of that
    session is known after it, and is false. Raises UsageError where the truth lacks a column.
    """
    if missing := [name for name in TRUTH_COLUMNS if name not in truth_episodes.columns]:
        raise UsageError(f"the truth lacks {', '.join(missing)}", f"give the columns {', '.join(TRUTH_COLUMNS)}")
    scored = signals.select("session", "underlying", "score", "tier").sort("session", "underlying")
    truth = truth_episodes.select(TRUTH_COLUMNS).sort(TRUTH_COLUMNS, nulls_last=True)
    episodes = [_episode(one, scored, tiers) for one in truth.iter_rows(named=True)]
    alarms = scored.filter(pl.col("tier").is_in(list(tiers)))
    kinds = [_kind(alarm, episodes) for alarm in alarms.iter_rows(named=True)]
    return EpisodeScorecard(
        pl.DataFrame(episodes, schema=_EPISODES, orient="row"),
        alarms.with_columns(pl.Series("kind", kinds, dtype=pl.String())),
    )


def _episode(episode: dict[str, Any], scored: pl.DataFrame, tiers: tuple[str, ...]) -> dict[str, Any]:
    inside = scored.filter(
        (pl.col("underlying") == episode["underlying"])
        & pl.col("session").is_between(episode["first_session"], episode["last_session"])
    )
    if episode["kind"] == INFORMED and episode["move_session"] is not None:
        inside = inside.filter(pl.col("session") < episode["move_session"])
    alarms = inside.filter(pl.col("tier").is_in(list(tiers)))
    return episode | {
        "scored_sessions": inside["score"].count(),
        "alarms": alarms.height,
        "first_alarm": alarms["session"].min(),
        "highest_score": inside["score"].max(),
    }


def _kind(alarm: dict[str, Any], episodes: list[dict[str, Any]]) -> str | None:
    """The kind of episode that an alarm fell into; an informed one goes first where episodes overlap."""
    kinds = [
        one["kind"]
        for one in episodes
        if one["underlying"] == alarm["underlying"]
        and one["first_session"] <= alarm["session"] <= one["last_session"]
        and (one["kind"] != INFORMED or one["move_session"] is None or alarm["session"] < one["move_session"])
    ]
    return min(kinds, key=lambda kind: (kind != INFORMED, kind), default=None)
