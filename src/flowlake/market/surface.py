"""Theoretical values and quotes: an SVI smile per expiry around discrete-dividend forwards.

The smile is the SSVI family of Gatheral and Jacquier (2014), w(k) = theta/2 (1 + r p k + sqrt((p k + r)^2 + 1 - r^2)) with
p = e / sqrt(theta (1 + theta)), each slice of which is an SVI slice without butterfly arbitrage while e (1 + |r|) <= 2.
Total at-the-money variance theta reverts from the current variance to a long one; skew steepens as volatility rises,
and volatility rises as the underlying falls within the session. Values are Black's on the forward, at least
intrinsic: the early-exercise premium of American puts beyond intrinsic value is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flowlake.core import sessions as calendar
from flowlake.core.arrays import Float, Int
from flowlake.market.clock import NS_PER_YEAR
from flowlake.market.listing import Chain
from flowlake.market.paths import DayPath
from flowlake.market.stories import NORMAL_MARKET_VOL, Story
from flowlake.market.universe import Underlying
from flowlake.quant import american, european

_REVERSION_PER_YEAR = 6.0
_RISK_PREMIUM = 1.12
_LEVERAGE_INDEX = 2.5
_LEVERAGE_STOCK = 1.0


@dataclass(frozen=True, slots=True)
class Quotes:
    """Bid and ask in cents (bid 0: none) around a theoretical value in dollars."""

    bid: Int
    ask: Int
    value: Float


@dataclass(frozen=True, slots=True)
class Surface:
    """Everything that prices one underlying's contracts on one session.

    Arrays run over the chain's series: `rates` to each expiry, continuously compounded; `theta_per_year`, the at-the-money
    variance per year at the open; `event_variance`, what an announced event adds. `dividends` are (time ns, dollars).
    """

    member: Underlying
    chain: Chain
    path: DayPath
    rates: Float
    theta_per_year: Float
    event_variance: Float
    rho: float
    eta: float
    dividends: tuple[tuple[int, float], ...]

    def forward(self, spot: Float, contract: Int, time_ns: Int) -> Float:
        """Forward price: spot less the present value of dividends that go ex before expiry."""
        block = self.chain.block[contract]
        expiry, rate = self.chain.expiry_ns[block], self.rates[block]
        known = np.zeros_like(spot)
        for ex_ns, cash in self.dividends:
            years = (ex_ns - time_ns) / NS_PER_YEAR
            known += np.where(expiry > ex_ns, cash * np.exp(-rate * years), 0.0)
        return (spot - known) * np.exp(rate * self.chain.years(contract, time_ns))

    def vol(self, forward: Float, spot: Float, contract: Int, time_ns: Int) -> Float:
        """Implied volatility per contract and time."""
        block = self.chain.block[contract]
        years = self.chain.years(contract, time_ns)
        leverage = _LEVERAGE_INDEX if self.member.idiosyncratic_vol == 0.0 else _LEVERAGE_STOCK
        moved = np.exp(-2.0 * leverage * np.log(spot / self.path.prices[0]))
        theta = self.theta_per_year[block] * moved * years + self.event_variance[block]
        k = np.log(self.chain.strike[contract] / forward)
        phi = self.eta / np.sqrt(theta * (1.0 + theta))
        smile = 1.0 + self.rho * phi * k + np.sqrt((phi * k + self.rho) ** 2 + 1.0 - self.rho**2)
        return np.asarray(np.sqrt(0.5 * theta * smile / years))

    def quotes(self, contract: Int, time_ns: Int) -> Quotes:
        """The market in each contract at each time (arrays of one length)."""
        spot = self.path.at(time_ns)
        years = self.chain.years(contract, time_ns)
        strike, right = self.chain.strike[contract], self.chain.right[contract].astype(np.float64)
        forward = self.forward(spot, contract, time_ns)
        block = self.chain.block[contract]
        discount = np.exp(-self.rates[block] * years)
        vol = self.vol(forward, spot, contract, time_ns)
        if self.member.is_index:
            value = np.asarray(european.price(forward, strike, years, vol, right, discount))
        else:
            value = np.asarray(american.price(spot, strike, years, vol, right, self.rates[block], 0.0, *self._dividends(time_ns)))
        cents = 100.0 * np.maximum(value, 0.0)
        tick = self.ticks(cents)
        half = self.member.spread * (0.6 + 0.09 * cents**0.75 + 0.002 * cents)
        bid = np.maximum(np.floor((cents - half) / tick), 0.0) * tick
        ask = np.maximum(np.ceil((cents + half) / tick), 1.0) * tick
        return Quotes(bid.astype(np.int64), ask.astype(np.int64), value)

    def _dividends(self, time_ns: Int) -> tuple[Float, Float]:
        """Years to each ex-date and its cash, per time; those after an option's expiry are left to the formula."""
        ex_ns = np.array([ex for ex, _ in self.dividends], dtype=np.int64)
        cash = np.array([amount for _, amount in self.dividends], dtype=np.float64)
        times = (ex_ns[np.newaxis, :] - time_ns[:, np.newaxis]) / NS_PER_YEAR
        return times, np.broadcast_to(cash, times.shape)

    def ticks(self, cents: Float) -> Float:
        """The price grid in cents: one cent for the fund; a cent below 3 dollars and a nickel above, or 5 and 10."""
        if self.member.index == 0:
            return np.ones_like(cents)
        low, high = (1.0, 5.0) if self.member.penny_ticks else (5.0, 10.0)
        return np.where(cents < 300.0, low, high)


def build(
    member: Underlying,
    chain: Chain,
    path: DayPath,
    rates: Float,
    dividends: tuple[tuple[int, float], ...],
    story: Story | None,
) -> Surface:
    """The surface of a session from the underlying's variance at its open and the story that it is in."""
    lifted = (story.vol_factor(path.hours.index) if story else 1.0) * float(np.exp(path.vol_noise))
    now = path.variance * _RISK_PREMIUM**2 * lifted**2
    usual = (member.beta * NORMAL_MARKET_VOL) ** 2 + member.idiosyncratic_vol**2
    long = usual * (1.1 * _RISK_PREMIUM) ** 2
    years = np.maximum((chain.expiry_ns - path.hours.open_ns) / NS_PER_YEAR, 1.0 / 365.0)
    reverted = (1.0 - np.exp(-_REVERSION_PER_YEAR * years)) / (_REVERSION_PER_YEAR * years)
    event = np.zeros(len(years))
    if story and story.move is not None:
        event_day = calendar.offset(path.hours.day, story.move - path.hours.index)
        carried = story.event_variance(path.hours.index)
        event = np.array([carried if expiry >= event_day else 0.0 for expiry in chain.expiries])
    skew = member.skew * (1.0 + 0.25 * np.log(now / usual))
    return Surface(
        member=member,
        chain=chain,
        path=path,
        rates=rates,
        theta_per_year=long + (now - long) * reverted,
        event_variance=event,
        rho=float(np.clip(skew, -0.85, -0.1)),
        eta=0.55 * member.smile,
        dividends=dividends,
    )
