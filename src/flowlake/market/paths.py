"""Prices of the underlyings: one market factor and one shock of their own each, both GJR-GARCH, under regimes.

Daily variance follows h' = w(s) + (a + g [r < 0]) r^2 + b h (Glosten, Jagannathan, Runkle 1993), with w(s) such that the
mean variance is that of regime s; the regime is a persistent Markov chain. A quarter of a day's variance comes
overnight, the rest in 15-second steps with a U-shape; shocks are scaled Student t. Cash dividends and splits lower
the opening price.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flowlake.core.arrays import Float, Int
from flowlake.market.clock import FULL_SESSION_MINUTES, NS_PER_MINUTE, SessionHours
from flowlake.market.spec import generator
from flowlake.market.stories import NORMAL_MARKET_VOL, Story
from flowlake.market.universe import Underlying

REGIMES = ("calm", "normal", "stressed")
STEPS_PER_MINUTE = 4
_MARKET_VOLS = np.array([0.10, NORMAL_MARKET_VOL, 0.32])
_OWN_FACTORS = np.array([0.9, 1.0, 1.4])
_TRANSITION = np.array([[0.975, 0.025, 0.0], [0.02, 0.96, 0.02], [0.0, 0.05, 0.95]])
_MARKET_GARCH = (0.02, 0.12, 0.80)
_OWN_GARCH = (0.04, 0.04, 0.91)
_OVERNIGHT_SHARE = 0.25
_DRIFT_PER_SESSION = 0.0002
_STUDENT_DOF = 6


@dataclass(frozen=True, slots=True)
class FactorDay:
    """The market factor on one session: regime, daily variance at the open, log returns."""

    regime: int
    variance: float
    overnight: float
    steps: Float

    @property
    def total(self) -> float:
        return self.overnight + float(self.steps.sum())


@dataclass(frozen=True, slots=True)
class DayPath:
    """One underlying on one session: the price every 15 seconds from the open to the close, in dollars.

    `variance` is the annual variance rate at the open (what implied volatility leans on), `vol_noise` the day's shock
    to log implied volatility.
    """

    hours: SessionHours
    regime: int
    prices: Float
    variance: float
    vol_noise: float
    previous_close: float

    def at(self, time_ns: Int) -> Float:
        """Price at times of the session, linear between steps; before the open the first, after the close the last."""
        step_ns = NS_PER_MINUTE / STEPS_PER_MINUTE
        position = np.clip((time_ns - self.hours.open_ns) / step_ns, 0, len(self.prices) - 1)
        below = np.minimum(position.astype(np.int64), len(self.prices) - 2)
        share = position - below
        return np.asarray(self.prices[below] * (1.0 - share) + self.prices[below + 1] * share)


def _next_variance(garch: tuple[float, float, float], variance: float, shock: float, target: float) -> float:
    arch, leverage, persistence = garch
    weight = 1.0 - arch - leverage / 2.0 - persistence
    return weight * target + (arch + leverage * (shock < 0.0)) * shock * shock + persistence * variance


def _student_scale(rng: np.random.Generator) -> float:
    """A factor that turns a normal shock of unit variance into a Student t shock of unit variance."""
    return float(np.sqrt((_STUDENT_DOF - 2) / rng.chisquare(_STUDENT_DOF)))


def _shocks(rng: np.random.Generator, variance: float, minutes: int) -> tuple[float, Float]:
    """Overnight shock and 15-second shocks of a session with this (full-day) variance."""
    overnight = rng.standard_normal() * _student_scale(rng) * np.sqrt(_OVERNIGHT_SHARE * variance)
    steps = minutes * STEPS_PER_MINUTE
    x = (np.arange(steps) + 0.5) / steps
    shape = 0.6 + 1.8 * np.exp(-x / 0.08) + 0.7 * np.exp(-(1.0 - x) / 0.08)
    day = (1.0 - _OVERNIGHT_SHARE) * variance * minutes / FULL_SESSION_MINUTES
    sigma = np.sqrt(shape / shape.sum() * day) * _student_scale(rng)
    return float(overnight), rng.standard_normal(steps) * sigma


class Paths:
    """The state that prices carry from one session to the next. Sessions must be asked for in order."""

    def __init__(self, seed: int, members: list[Underlying]) -> None:
        self._seed = seed
        self._members = members
        self._regime = 1
        self._market_variance = NORMAL_MARKET_VOL**2 / 252.0
        self._own_variance = np.array([m.idiosyncratic_vol**2 / 252.0 for m in members])
        self._close = np.array([m.first_price_usd for m in members])

    @property
    def closes(self) -> Float:
        """Last price of each underlying, in dollars."""
        return self._close.copy()

    def factor(self, hours: SessionHours) -> FactorDay:
        rng = generator(self._seed, "market", hours.index)
        self._regime = int(rng.choice(3, p=_TRANSITION[self._regime]))
        variance = self._market_variance
        overnight, steps = _shocks(rng, variance, hours.minutes)
        day = FactorDay(self._regime, variance, overnight + _DRIFT_PER_SESSION, steps)
        target = _MARKET_VOLS[self._regime] ** 2 / 252.0
        self._market_variance = _next_variance(_MARKET_GARCH, variance, overnight + float(steps.sum()), target)
        return day

    def member(self, hours: SessionHours, member: Underlying, factor: FactorDay, story: Story | None) -> DayPath:
        rng = generator(self._seed, "path", hours.index, member.index)
        own = float(self._own_variance[member.index])
        overnight, steps = _shocks(rng, own, hours.minutes)
        planted = story.planted(hours.index) if story else 0.0
        # Most of a planted move is news overnight; the rest drifts in during the session.
        gap = member.beta * factor.overnight + overnight + 0.7 * planted
        intraday = member.beta * factor.steps + steps + 0.3 * planted / len(steps)
        previous = float(self._close[member.index]) / member.ratio_on(hours.index)
        opening = (previous - member.dividend_on(hours.index)) * float(np.exp(gap))
        prices = opening * np.exp(np.concatenate(([0.0], np.cumsum(intraday))))
        self._close[member.index] = prices[-1]
        # A third of the planted move counts as a shock: volatility reacts to news without being swamped by it.
        shock = overnight + float(steps.sum()) + planted / 3.0
        target = (member.idiosyncratic_vol * _OWN_FACTORS[factor.regime]) ** 2 / 252.0
        self._own_variance[member.index] = _next_variance(_OWN_GARCH, own, shock, target)
        return DayPath(
            hours=hours,
            regime=factor.regime,
            prices=prices,
            variance=252.0 * (member.beta**2 * factor.variance + own),
            vol_noise=0.02 * float(rng.standard_normal()),
            previous_close=previous,
        )
