"""The underlyings of a market: what they are, how they move, what they pay, and under which roots they list.

The first five are fixed kinds: an index fund, a stock of about 20 dollars, one of about 500, one that splits, and a
cash-settled European index with a monthly (am) and a weekly (pm) root. The rest are drawn from the seed.
"""

from __future__ import annotations

import itertools
import string
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

from flowlake.core import sessions as calendar
from flowlake.market.spec import MarketSpec, generator

DIVIDEND_PERIOD_SESSIONS = 63
ANNOUNCED_SESSIONS_BEFORE = 15
# fmt: off
_NAMES = (
    "SYNI", "LOQA", "HEXQ", "SPLQ", "XYN", "AVLQ", "BRQT", "CORZQ", "DYNQ", "ELVQ", "FERQ", "GLYQ",
    "HAVQ", "IRQN", "JUNQ", "KOLQ", "LUMQ", "MERQ", "NOVQ", "ORQA", "PELQ", "QUNT", "RILQ",
)
# fmt: on


@dataclass(frozen=True, slots=True)
class Root:
    """An option root: European am-settled roots stop trading the session before they expire."""

    root: str
    exercise: str
    settlement: str
    weeklies: bool
    monthlies: bool
    extra_weekdays: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Underlying:
    """Constants of one underlying. Volatilities are annual, money is in dollars, `activity` is relative to the mean."""

    index: int
    name: str
    is_index: bool
    first_price_usd: float
    beta: float
    idiosyncratic_vol: float
    skew: float
    smile: float
    spread: float
    penny_ticks: bool
    activity: float
    shares_per_session: float
    dividend_usd: float
    dividend_offset: int
    split_session: int | None
    roots: tuple[Root, ...]

    split_ratio = 4

    def ratio_on(self, session_index: int) -> int:
        """New shares per old share that take effect on this session; 1 when nothing happens."""
        return self.split_ratio if session_index == self.split_session else 1

    def dividend_on(self, session_index: int) -> float:
        """Cash per share, in the shares of that session, that goes ex on it; 0 when nothing does."""
        if self.dividend_usd == 0.0 or (session_index - self.dividend_offset) % DIVIDEND_PERIOD_SESSIONS:
            return 0.0
        after_split = self.split_session is not None and session_index >= self.split_session
        return self.dividend_usd / self.split_ratio if after_split else self.dividend_usd

    def next_dividends(self, after_index: int, count: int) -> list[tuple[int, float]]:
        """(session index, dollars) of the next `count` dividends that go ex after a session."""
        if self.dividend_usd == 0.0:
            return []
        first = after_index + 1 + (self.dividend_offset - after_index - 1) % DIVIDEND_PERIOD_SESSIONS
        indices = (first + k * DIVIDEND_PERIOD_SESSIONS for k in range(count))
        return [(i, self.dividend_on(i)) for i in indices]


def _names() -> Iterator[str]:
    yield from _NAMES
    for letters in itertools.product(string.ascii_uppercase, repeat=2):
        yield "ZQ" + "".join(letters)


def underlyings(spec: MarketSpec) -> list[Underlying]:
    """The underlyings of a market, in listing order."""
    return [_underlying(spec, i, name) for i, name in zip(range(spec.underlyings), _names(), strict=False)]


def _underlying(spec: MarketSpec, index: int, name: str) -> Underlying:
    rng = generator(spec.seed, "universe", index)
    price = {0: 450.0, 1: 19.5, 2: 505.0, 3: 320.0, 4: 4500.0}.get(index, float(rng.lognormal(4.5, 0.55)))
    is_fund, is_index = index == 0, index == 4
    broad = is_fund or is_index
    idiosyncratic = 0.0 if broad else float(rng.uniform(0.18, 0.42))
    beta = 1.0 if broad else float(rng.uniform(0.6, 1.5))
    pays = is_fund or (not is_index and index % 3 == 2)
    activity = 2.4 if is_fund else 1.2 if is_index else float(rng.lognormal(-0.2, 0.45))
    return Underlying(
        index=index,
        name=name,
        is_index=is_index,
        first_price_usd=round(price, 2),
        beta=beta,
        idiosyncratic_vol=idiosyncratic,
        skew=-0.62 if broad else float(rng.uniform(-0.45, -0.2)),
        smile=float(rng.uniform(0.85, 1.15)),
        spread=0.5 if broad else float(rng.uniform(0.8, 1.8)),
        penny_ticks=is_fund or (not is_index and bool(rng.random() < 0.75)),
        activity=activity,
        shares_per_session=60e6 / price * (100 if is_fund else float(rng.lognormal(2.0, 0.6))),
        dividend_usd=round(price * 0.004, 2) if pays else 0.0,
        dividend_offset=int(rng.integers(6, DIVIDEND_PERIOD_SESSIONS)),
        split_session=spec.split_session if index == 3 else None,
        roots=_roots(name, is_fund, is_index),
    )


def _roots(name: str, is_fund: bool, is_index: bool) -> tuple[Root, ...]:
    if is_index:
        return (
            Root(name, "european", "am", weeklies=False, monthlies=True),
            Root(name + "W", "european", "pm", weeklies=True, monthlies=False, extra_weekdays=(0, 2)),
        )
    extra = (0, 2) if is_fund else ()
    return (Root(name, "american", "pm", weeklies=True, monthlies=True, extra_weekdays=extra),)


@dataclass(frozen=True, slots=True)
class CorporateAction:
    """One row of `reference/corporate_actions.csv`."""

    underlying: str
    ex_date: date
    kind: str
    ratio: float | None
    cash_amount_usd: float | None
    announced_on: date


def corporate_actions(spec: MarketSpec, members: list[Underlying]) -> list[CorporateAction]:
    """Splits and dividends that were announced by the last session, by ex-date."""
    found: list[CorporateAction] = []
    for member in members:
        for i in range(spec.sessions + ANNOUNCED_SESSIONS_BEFORE):
            ex_date = calendar.offset(spec.first_session, i)
            announced = calendar.offset(spec.first_session, i - ANNOUNCED_SESSIONS_BEFORE)
            if member.ratio_on(i) != 1:
                found.append(CorporateAction(member.name, ex_date, "split", float(member.ratio_on(i)), None, announced))
            if cash := member.dividend_on(i):
                found.append(CorporateAction(member.name, ex_date, "cash_dividend", None, round(cash, 6), announced))
    return sorted(found, key=lambda action: (action.ex_date, action.underlying, action.kind))
