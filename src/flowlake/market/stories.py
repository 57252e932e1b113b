"""What happens on purpose: informed episodes and the decoys that look like them.

Stories are drawn in blocks of 12 sessions from the seed alone and never reach into the next block, so that a longer
market begins with the shorter one. An underlying has at most one story in a block; index products have none, because
a move of theirs would be a move of everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from flowlake.core.arrays import Int
from flowlake.market.spec import MarketSpec, generator
from flowlake.market.universe import Underlying

BLOCK_SESSIONS = 12
INFORMED = "informed"
NOISE_SPIKE = "decoy:noise_spike"
HEDGED_SPREAD = "decoy:hedged_spread"
ROLL = "decoy:roll"
REBALANCE = "decoy:rebalance"
EARNINGS = "decoy:earnings"
_DECOYS = (NOISE_SPIKE, HEDGED_SPREAD, ROLL, REBALANCE, EARNINGS)
_DECOY_SHARES = (0.35, 0.2, 0.15, 0.1, 0.2)
_MOVE_WEIGHTS = {1: (1.0,), 2: (0.7, 0.3), 3: (0.6, 0.25, 0.15)}
NORMAL_MARKET_VOL = 0.17
_EARNINGS_SIGMAS = 2.8


@dataclass(frozen=True, slots=True)
class Story:
    """One episode or decoy. Sessions are indices; `move` is the first session of the planted move, None without one.

    `direction` is the sign of the flow's bet (0: none), `log_move` the planted log return over `horizon` sessions from
    `move`. Of the flow: `strength` is its contracts per session as a share of the underlying's usual option volume,
    `buy_share` and `sweep_share` the shares of buyers and of sweeps among its orders. `event_sigma` is the standard
    deviation that options price for an announced event.
    """

    episode_id: int
    underlying: int
    kind: str
    first: int
    last: int
    move: int | None
    horizon: int
    direction: int
    log_move: float
    strength: float
    buy_share: float
    sweep_share: float
    event_sigma: float = 0.0

    def planted(self, session_index: int) -> float:
        """Log return that the story adds on a session."""
        if self.move is None or not 0 <= session_index - self.move < self.horizon:
            return 0.0
        return self.log_move * _MOVE_WEIGHTS[self.horizon][session_index - self.move]

    def trades_on(self, session_index: int) -> bool:
        return self.first <= session_index <= self.last

    def vol_factor(self, session_index: int) -> float:
        """How implied volatility is lifted while an informed buyer accumulates, and until the move."""
        if self.kind != INFORMED or self.move is None or not self.first <= session_index < self.move:
            return 1.0
        return 1.0 + 0.015 * (min(session_index, self.last) - self.first + 1)

    def event_variance(self, session_index: int) -> float:
        """Total variance of an announced event that options expiring after it carry; it builds up day by day."""
        if self.kind != EARNINGS or not self.trades_on(session_index):
            return 0.0
        built_up = (session_index - self.first + 1) / (self.last - self.first + 1)
        return built_up * self.event_sigma**2

    def share_volume_factor(self, session_index: int) -> float:
        if self.kind == REBALANCE and self.trades_on(session_index):
            return 5.0
        return 2.0 if self.planted(session_index) else 1.0


def daily_sigma(member: Underlying) -> float:
    """Standard deviation of a daily log return in a normal market."""
    return float(np.hypot(member.beta * NORMAL_MARKET_VOL, member.idiosyncratic_vol) / np.sqrt(252.0))


class Stories:
    """All stories of a market, block by block."""

    def __init__(self, spec: MarketSpec, members: list[Underlying]) -> None:
        self._spec = spec
        self._members = members
        self._blocks: dict[int, list[Story]] = {}

    @cached_property
    def _eligible(self) -> Int:
        return np.array([m.index for m in self._members if m.beta != 1.0 or m.idiosyncratic_vol > 0.0], dtype=np.int64)

    def of(self, session_index: int, underlying: int) -> Story | None:
        """The story of an underlying in the block of a session."""
        return next((s for s in self._block(session_index // BLOCK_SESSIONS) if s.underlying == underlying), None)

    def until(self, last_index: int) -> list[Story]:
        """Stories whose first session is at most `last_index`, by time."""
        blocks = range(last_index // BLOCK_SESSIONS + 1)
        begun = (s for b in blocks for s in self._block(b) if s.first <= last_index)
        return sorted(begun, key=lambda s: (s.first, s.underlying))

    def _block(self, block: int) -> list[Story]:
        if block not in self._blocks:
            self._blocks[block] = self._draw(block)
        return self._blocks[block]

    def _draw(self, block: int) -> list[Story]:
        rng = generator(self._spec.seed, "story", block)
        cells = len(self._members) * BLOCK_SESSIONS / 100.0
        informed, decoys = (int(x * cells + rng.random()) for x in (self._spec.episodes, self._spec.decoys))
        order = rng.permutation(self._eligible)
        drawn = [_informed(rng, block, self._members[u]) for u in order[:informed]]
        return drawn + [_decoy(rng, block, self._members[u]) for u in order[informed : informed + decoys]]


def _identity(block: int, member: Underlying) -> int:
    return block * 1000 + member.index


def _informed(rng: np.random.Generator, block: int, member: Underlying) -> Story:
    first = block * BLOCK_SESSIONS + int(rng.integers(0, 5))
    last = first + int(rng.integers(1, 4))
    direction = 1 if rng.random() < 0.6 else -1
    return Story(
        episode_id=_identity(block, member),
        underlying=member.index,
        kind=INFORMED,
        first=first,
        last=last,
        move=last + int(rng.integers(1, 3)),
        horizon=int(rng.integers(1, 4)),
        direction=direction,
        log_move=direction * float(rng.uniform(3.0, 6.5)) * daily_sigma(member),
        strength=float(np.clip(rng.lognormal(np.log(0.16), 0.65), 0.03, 0.6)),
        buy_share=float(rng.uniform(0.85, 1.0)),
        sweep_share=float(rng.uniform(0.3, 0.85)),
    )


def _decoy(rng: np.random.Generator, block: int, member: Underlying) -> Story:
    kind = _DECOYS[int(rng.choice(len(_DECOYS), p=_DECOY_SHARES))]
    first = block * BLOCK_SESSIONS + int(rng.integers(0, 5))
    strength = float(np.clip(rng.lognormal(np.log(0.16), 0.65), 0.03, 0.8))
    buy_share = float(rng.uniform(0.4, 0.75))
    sweep_share = float(rng.uniform(0.05, 0.5))
    leaning = int(rng.choice((-1, 1)))
    surprise = float(rng.standard_normal())
    last = first + {NOISE_SPIKE: int(rng.integers(0, 2)), ROLL: 2, EARNINGS: 4}.get(kind, 0)
    earnings = kind == EARNINGS
    event_sigma = _EARNINGS_SIGMAS * daily_sigma(member) if earnings else 0.0
    return Story(
        episode_id=_identity(block, member),
        underlying=member.index,
        kind=kind,
        first=first,
        last=last,
        move=last + 1 if earnings else None,
        horizon=1 if earnings else 0,
        direction=leaning if kind == NOISE_SPIKE else 0,
        log_move=surprise * event_sigma,
        strength=strength,
        buy_share=buy_share,
        sweep_share=sweep_share,
        event_sigma=event_sigma,
    )
