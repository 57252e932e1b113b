"""Orders: who wants what, before a tape exists. Background flow of a session, and the flow of stories.

Shapes were set by eye on real files: the arrival curve on the half-hourly bar counts of a full index-fund chain
(15 % of a day in its first half hour, 5.5 % at midday, 7.5 % in the last), moneyness on the same chain (volume falls by
a factor of three per standard deviation out of the money, faster in the money), sale conditions and sizes on a vendor's
sample of 62 trades (58 % automatic, 32 % single-leg auction, 8 % multi-leg; half of all trades are one-lots). The
heavy tail of sizes, the share of sweeps and everything about stories are assumptions.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import date

import numpy as np

from flowlake.core.arrays import Float, Int
from flowlake.market.clock import FULL_SESSION_MINUTES, SessionHours
from flowlake.market.listing import CALL, PUT, Chain
from flowlake.market.stories import EARNINGS, HEDGED_SPREAD, INFORMED, NOISE_SPIKE, REBALANCE, ROLL, Story
from flowlake.market.universe import Underlying

AUTO, AUCTION, SWEEP, PACKAGE, RARE = range(5)
MAX_LEGS = 4
MEAN_ORDER_CONTRACTS = 7.0
_SWEEP_SHARE, _OTHER_SHARES = 0.03, {AUCTION: 0.285, PACKAGE: 0.055, RARE: 0.015}
_KIND_CONDITIONS = {
    AUTO: ((209, 210), (0.995, 0.005)),
    AUCTION: ((227,), (1.0,)),
    SWEEP: ((219, 228), (0.97, 0.03)),
    PACKAGE: ((232, 233, 234, 235), (0.62, 0.24, 0.04, 0.1)),
    RARE: ((229, 230, 231, 236, 237, 238, 239, 240, 242), (0.2, 0.1, 0.2, 0.15, 0.15, 0.1, 0.02, 0.04, 0.04)),
}
_REGIME_ACTIVITY = (0.85, 1.0, 1.45)
_NO_EPISODE = -1


@dataclass(frozen=True, slots=True)
class Orders:
    """Orders as arrays of one length, legs in columns.

    `legs` are contracts of the chain (-1: no leg), `signs` +1 bought or -1 sold by the order's owner, `opening` the
    effect on open interest (+1 both sides open, 0 one opens and one closes, -1 both close). `fills` is the number of
    prints of a one-legged order; `size` the mean contracts per print, 0 for a draw from the usual distribution.
    """

    time_ms: Int
    kind: Int
    condition: Int
    legs: Int
    signs: Int
    opening: Int
    fills: Int
    size: Float
    episode: Int

    def __len__(self) -> int:
        return len(self.time_ms)


def joined(parts: list[Orders]) -> Orders:
    return Orders(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Orders)))


def arrival_ms(rng: np.random.Generator, count: int, hours: SessionHours) -> Int:
    """Times since the open in milliseconds, by the U-shaped arrival curve."""
    x = np.linspace(0.0, 1.0, hours.minutes + 1)
    mass = x + 2.4 * 0.12 * (1.0 - np.exp(-x / 0.12)) + 0.5 * 0.08 * (np.exp((x - 1.0) / 0.08) - np.exp(-1.0 / 0.08))
    fraction = np.interp(rng.random(count), mass / mass[-1], x)
    return np.minimum((fraction * hours.minutes * 60_000).astype(np.int64), hours.minutes * 60_000 - 1)


def standard_deviations(chain: Chain, spot: float, vol: float) -> Float:
    """Log moneyness of each contract in standard deviations to its expiry."""
    years = (chain.expiry_days[chain.block] + 1) / 365.0
    return np.asarray(np.log(chain.strike / spot) / (vol * np.sqrt(years)))


def contract_weights(chain: Chain, spot: float, vol: float) -> Float:
    """Expected share of the orders in each contract: near the money, rather out of it, short-dated, monthlies twice."""
    out = chain.right * standard_deviations(chain, spot, vol) - 0.25
    days = chain.expiry_days.astype(np.float64)
    monthly = np.array([15 <= expiry.day <= 21 and expiry.weekday() >= 3 for expiry in chain.expiries])
    tenor = (days + 1.0) ** -0.8 * np.where(monthly, 2.0, 1.0)
    # Series of unlike grids compete as series, not strike by strike.
    shape = np.exp(-np.where(out > 0, out / 0.85, -out / 0.5))
    per_series = np.bincount(chain.block, weights=shape, minlength=len(days))
    weight = shape * (tenor / per_series)[chain.block]
    return np.asarray(weight / weight.sum())


def background(
    rng: np.random.Generator,
    member: Underlying,
    chain: Chain,
    hours: SessionHours,
    weights: Float,
    mean_orders: float,
    story: Story | None,
) -> Orders:
    """The orders of everybody else. `mean_orders` already holds the day's activity."""
    if story and story.trades_on(hours.index):
        mean_orders *= {EARNINGS: 2.2, REBALANCE: 1.3}.get(story.kind, 1.0)
    count = max(int(rng.poisson(mean_orders)), 1)
    uneven = weights * rng.lognormal(0.0, 0.8, len(chain))
    first = np.searchsorted(np.cumsum(uneven) / uneven.sum(), rng.random(count)).clip(0, len(chain) - 1)
    kind = rng.choice(5, size=count, p=_kind_shares(rng))
    legs, signs = _legs(rng, chain, first, kind == PACKAGE)
    call_buyers, put_buyers = np.clip(0.5 + 0.05 * rng.standard_normal(2), 0.3, 0.7)
    bought = rng.random(count) < np.where(chain.right[first] == CALL, call_buyers, put_buyers)
    signs *= np.where(bought, 1, -1)[:, None]
    days = chain.expiry_days[chain.block[first]]
    u, closing = rng.random(count), np.where(days <= 1, 0.42, 0.26)
    opening = np.where(u < closing, -1, np.where(u < closing + 0.28, 0, 1))
    extra = rng.poisson(np.where(kind == SWEEP, 2.0, 0.08))
    return Orders(
        time_ms=arrival_ms(rng, count, hours),
        kind=kind,
        condition=_conditions(rng, kind),
        legs=legs,
        signs=signs,
        opening=np.repeat(opening[:, None], MAX_LEGS, axis=1),
        fills=1 + np.where(kind == SWEEP, extra + 1, extra),
        size=np.zeros(count),
        episode=np.full(count, _NO_EPISODE),
    )


def activity(rng: np.random.Generator, hours: SessionHours, regime: int, move_sigmas: float) -> float:
    """How busy a session is relative to the mean: regime, size of the day's move, length of the day, and luck."""
    moved = min(0.75 + 0.3 * abs(move_sigmas), 2.5)
    return _REGIME_ACTIVITY[regime] * moved * hours.minutes / FULL_SESSION_MINUTES * float(rng.lognormal(-0.03, 0.25))


def _kind_shares(rng: np.random.Generator) -> Float:
    """Shares of the kinds of order on one session: how much is swept differs from day to day."""
    swept = min(_SWEEP_SHARE * float(rng.lognormal(-0.18, 0.6)), 0.2)
    shares = np.array([0.0, _OTHER_SHARES[AUCTION], swept, _OTHER_SHARES[PACKAGE], _OTHER_SHARES[RARE]])
    shares[AUTO] = 1.0 - shares.sum()
    return shares


def _conditions(rng: np.random.Generator, kind: Int) -> Int:
    condition = np.zeros(len(kind), dtype=np.int64)
    for value, (ids, shares) in _KIND_CONDITIONS.items():
        chosen = kind == value
        condition[chosen] = rng.choice(ids, size=int(chosen.sum()), p=shares)
    return condition


def _legs(rng: np.random.Generator, chain: Chain, first: Int, package: Int) -> tuple[Int, Int]:
    """Legs and their signs: one leg, or for packages a vertical, a strangle, a calendar or an iron condor."""
    legs = np.full((len(first), MAX_LEGS), -1, dtype=np.int64)
    legs[:, 0] = first
    signs = np.ones((len(first), MAX_LEGS), dtype=np.int64)
    strategy = np.where(package, rng.choice((1, 2, 3, 4), size=len(first), p=(0.5, 0.15, 0.2, 0.15)), 0)
    width = 2 * rng.integers(1, 5, len(first))
    vertical, strangle, calendar, condor = (strategy == s for s in (1, 2, 3, 4))
    towards = chain.right[first] * width
    legs[vertical, 1] = _shifted(chain, first, towards)[vertical]
    signs[vertical, 1] = -1
    other = first + chain.right[first]
    legs[strangle, 1] = _shifted(chain, other, -towards)[strangle]
    legs[calendar, 1] = next_expiry(chain, first[calendar])
    signs[calendar, 0] = -1
    legs[condor, 1] = _shifted(chain, first, towards)[condor]
    legs[condor, 2] = _shifted(chain, other, -towards)[condor]
    legs[condor, 3] = _shifted(chain, other, -2 * towards)[condor]
    signs[condor, 0] = signs[condor, 2] = -1
    return legs, signs


def _shifted(chain: Chain, contract: Int, by: Int) -> Int:
    """The contract `by` places on (two per strike) with the same right; the other way where the series ends."""
    block = chain.block[contract]
    low, high = chain.block_start[block], chain.block_start[block + 1]
    there, back = contract + by, contract - by
    fits = (there >= low) & (there < high)
    fits_back = (back >= low) & (back < high)
    return np.where(fits, there, np.where(fits_back, back, contract))


def next_expiry(chain: Chain, contract: Int) -> Int:
    """The contract with the same right and the nearest strike in the next series (the one before, for the last)."""
    last = len(chain.expiries) - 1
    block = chain.block[contract]
    other = np.where(block < last, block + 1, np.maximum(block - 1, 0))
    return np.array(
        [
            nearest(chain, int(b), float(k), int(r))
            for b, k, r in zip(other, chain.strike[contract], chain.right[contract], strict=True)
        ],
        dtype=np.int64,
    ).reshape(len(contract))


def nearest(chain: Chain, block: int, strike: float, right: int) -> int:
    """The contract of a series with the strike nearest to `strike` (the lower of two)."""
    low, high = int(chain.block_start[block]), int(chain.block_start[block + 1])
    strikes = chain.strike[low:high:2]
    return low + 2 * int(np.argmin(np.abs(strikes - strike))) + (0 if right == CALL else 1)


@dataclass(frozen=True, slots=True)
class Target:
    """A contract that a story trades session after session; a split divides its strike."""

    expiry: date
    strike: float
    right: int


class StoryFlow:
    """Orders of the stories. It remembers which contracts an episode trades, so that it comes back to the same ones."""

    def __init__(self) -> None:
        self._targets: dict[int, list[Target]] = {}

    def orders(
        self,
        rng: np.random.Generator,
        member: Underlying,
        chain: Chain,
        hours: SessionHours,
        spot: float,
        vol: float,
        usual_contracts: float,
        story: Story | None,
    ) -> list[Orders]:
        """What the story adds to the session: nothing, or one set of orders."""
        ratio = member.ratio_on(hours.index)
        if ratio != 1 and story and story.episode_id in self._targets:
            self._targets[story.episode_id] = [
                Target(t.expiry, round(t.strike / ratio, 3), t.right) for t in self._targets[story.episode_id]
            ]
        if not story or not story.trades_on(hours.index) or story.kind in (EARNINGS, REBALANCE):
            return []
        contracts = usual_contracts * story.strength * float(rng.uniform(0.7, 1.3))
        if story.kind in (INFORMED, NOISE_SPIKE):
            return [self._directional(rng, chain, hours, spot, vol, contracts, story)]
        return [_packages(rng, chain, hours, spot, vol, contracts, story)]

    def _directional(
        self,
        rng: np.random.Generator,
        chain: Chain,
        hours: SessionHours,
        spot: float,
        vol: float,
        contracts: float,
        story: Story,
    ) -> Orders:
        targets = self._targets.get(story.episode_id)
        if targets is None:
            targets = self._targets[story.episode_id] = _choose(rng, chain, hours, spot, vol, story)
        indices = np.array([_find(chain, target) for target in targets])
        informed = story.kind == INFORMED
        count = int(np.clip(contracts / 60.0, 5, 50))
        rest = 1.0 - story.sweep_share
        kind = rng.choice((AUTO, AUCTION, SWEEP), size=count, p=(0.65 * rest, 0.35 * rest, story.sweep_share))
        fills = np.where(kind == SWEEP, rng.integers(3, 11, count), rng.integers(1, 3, count))
        opening = (0.0, 0.08, 0.92) if informed else (0.25, 0.3, 0.45)
        signs = np.where(rng.random(count) < story.buy_share, 1, -1)
        return _story_orders(
            time_ms=_clustered_ms(rng, count, hours),
            kind=kind,
            condition=_conditions(rng, kind),
            legs=_one_leg(rng.choice(indices, size=count)),
            signs=np.repeat(signs[:, None], MAX_LEGS, axis=1),
            opening=np.repeat(rng.choice((-1, 0, 1), size=count, p=opening)[:, None], MAX_LEGS, axis=1),
            fills=fills,
            contracts=contracts,
            episode=story.episode_id,
        )


def _story_orders(
    time_ms: Int, kind: Int, condition: Int, legs: Int, signs: Int, opening: Int, fills: Int, contracts: float, episode: int
) -> Orders:
    count = len(time_ms)
    size = np.full(count, max(contracts / float(fills.sum()), 1.0))
    return Orders(time_ms, kind, condition, legs, signs, opening, fills, size, np.full(count, episode))


def _one_leg(contract: Int) -> Int:
    legs = np.full((len(contract), MAX_LEGS), -1, dtype=np.int64)
    legs[:, 0] = contract
    return legs


def _clustered_ms(rng: np.random.Generator, count: int, hours: SessionHours) -> Int:
    """Orders that come in a few bursts of some minutes."""
    length = hours.minutes * 60_000
    centres = rng.uniform(0.05, 0.9, 3) * length
    times = rng.choice(centres, size=count) + rng.uniform(0.0, 12.0 * 60_000, count)
    return np.clip(times.astype(np.int64), 0, length - 1)


def _choose(rng: np.random.Generator, chain: Chain, hours: SessionHours, spot: float, vol: float, story: Story) -> list[Target]:
    """One to three neighbouring out-of-the-money strikes of an expiry that outlives the move."""
    sessions_left = (story.move if story.move is not None else story.last + 2) + story.horizon - hours.index
    days_needed = int(sessions_left * 7 / 5) + 3
    late_enough = [b for b, days in enumerate(chain.expiry_days.tolist()) if days >= days_needed]
    block = late_enough[min(int(rng.integers(0, 2)), len(late_enough) - 1)]
    days = int(chain.expiry_days[block])
    right = CALL if story.direction > 0 else PUT
    out = float(rng.uniform(0.7, 1.6)) * vol * float(np.sqrt((days + 1) / 365.0))
    centre = nearest(chain, block, spot * float(np.exp(right * out)), right)
    picks = np.unique(
        [int(_shifted(chain, np.array([centre]), np.array([2 * k * right]))[0]) for k in range(int(rng.integers(1, 4)))]
    )
    return [Target(chain.expiries[block], float(chain.strike[c]), right) for c in picks.tolist()]


def _find(chain: Chain, target: Target) -> int:
    block = next(b for b, expiry in enumerate(chain.expiries) if expiry == target.expiry)
    return nearest(chain, block, target.strike, target.right)


def _packages(
    rng: np.random.Generator,
    chain: Chain,
    hours: SessionHours,
    spot: float,
    vol: float,
    contracts: float,
    story: Story,
) -> Orders:
    """Large two-legged packages: a vertical that both sides open, or a roll that closes the near leg."""
    count = int(rng.integers(3, 9))
    blocks = [b for b, days in enumerate(chain.expiry_days.tolist()) if 2 <= days <= 45] or [0]
    block = blocks[min(int(rng.integers(0, 3)), len(blocks) - 1)]
    right = int(rng.choice((CALL, PUT)))
    out = float(rng.uniform(0.2, 1.0)) * vol * float(np.sqrt((chain.expiry_days[block] + 1) / 365.0))
    near = np.full(count, nearest(chain, block, spot * float(np.exp(right * out)), right))
    legs = _one_leg(near)
    signs = np.ones((count, MAX_LEGS), dtype=np.int64)
    opening = np.ones((count, MAX_LEGS), dtype=np.int64)
    if story.kind == HEDGED_SPREAD:
        legs[:, 1] = _shifted(chain, near, np.full(count, 4 * right))
        signs[:, 1] = -1
    if story.kind == ROLL:
        legs[:, 1] = next_expiry(chain, near)
        signs[:, 0] = -1
        opening[:, 0] = -1
    kind = np.full(count, PACKAGE)
    return _story_orders(
        time_ms=arrival_ms(rng, count, hours),
        kind=kind,
        condition=rng.choice((232, 233, 235), size=count, p=(0.5, 0.2, 0.3)),
        legs=legs,
        signs=signs,
        opening=opening,
        fills=np.full(count, 2),
        contracts=contracts,
        episode=story.episode_id,
    )
