"""Which option series an underlying lists, and the open interest that they carry.

Weeklies (Fridays for six weeks; Mondays and Wednesdays for two where the root has them), monthlies (third Fridays for
130 days) and the quarterly third Fridays for 280 days. A Friday that is a holiday moves to the session before. Strikes
stand on a grid that depends on the price and coarsens with tenor; a listed strike stays until expiry, and new ones
follow the price. A split divides the strikes and multiplies the open interest, as OCC does for whole-number splits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, time, timedelta

import numpy as np

from flowlake.core import sessions as calendar
from flowlake.core.arrays import Float, Int
from flowlake.market.clock import NS_PER_YEAR, SessionHours, at_et_ns, is_third_friday, last_session_until
from flowlake.market.universe import Root, Underlying

CALL, PUT = 1, -1
_WIDTH_SIGMAS = 3.2


@dataclass(slots=True)
class Series:
    """All strikes of one root and expiry. Strikes are thousandths of a dollar; open interest has columns call, put."""

    root: Root
    expiry: date
    last_trading: date
    expiry_ns: int
    strikes: Int = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    open_interest: Int = field(default_factory=lambda: np.empty((0, 2), dtype=np.int64))
    tickers: list[str] = field(default_factory=list)

    def list_strikes(self, wanted: Int) -> None:
        """Add the strikes that are not listed yet, with no open interest."""
        merged = np.union1d(self.strikes, wanted)
        if len(merged) == len(self.strikes):
            return
        carried = np.zeros((len(merged), 2), dtype=np.int64)
        carried[np.searchsorted(merged, self.strikes)] = self.open_interest
        self._set(merged, carried)

    def split(self, ratio: int) -> None:
        self._set(np.rint(self.strikes / ratio).astype(np.int64), self.open_interest * ratio)

    def _set(self, strikes: Int, open_interest: Int) -> None:
        self.strikes, self.open_interest = strikes, open_interest
        prefix = f"O:{self.root.root}{self.expiry:%y%m%d}"
        self.tickers = [f"{prefix}{right}{strike:08d}" for strike in strikes.tolist() for right in "CP"]


@dataclass(frozen=True, slots=True)
class Chain:
    """The listed contracts of one underlying on one session as flat arrays, call and put of a strike side by side.

    `block` is the position of the contract's series in `expiry_ns`; blocks are ordered by expiry, then root.
    """

    tickers: list[str]
    strike: Float
    right: Int
    block: Int
    block_start: Int
    expiry_ns: Int
    expiry_days: Int
    expiries: list[date]
    open_interest: Int

    def __len__(self) -> int:
        return len(self.tickers)

    def years(self, contract: Int, time_ns: Int) -> Float:
        """Calendar years (of 365 days) from a time to the contract's expiry, at least one minute."""
        minute = 1.0 / (365 * 1440)
        return np.maximum((self.expiry_ns[self.block[contract]] - time_ns) / NS_PER_YEAR, minute)


def _expiries(root: Root, today: date) -> list[date]:
    """Listed expiry dates from today on, before any move for holidays."""
    found = []
    for ahead in range(281):
        day = today + timedelta(days=ahead)
        weekly = root.weeklies and ((ahead <= 42 and day.weekday() == 4) or (ahead <= 14 and day.weekday() in root.extra_weekdays))
        monthly = root.monthlies and is_third_friday(day) and (ahead <= 130 or day.month % 3 == 0)
        if weekly or monthly:
            found.append(day)
    return found


def _step(member: Underlying, price: float) -> int:
    """Strike step near the money in thousandths of a dollar."""
    if member.is_index:
        return 10_000
    if member.idiosyncratic_vol == 0.0:
        return 1_000
    for below, step in ((25.0, 500), (100.0, 1_000), (250.0, 2_500)):
        if price < below:
            return step
    return 5_000


class Listing:
    """The series of one underlying, carried from session to session."""

    def __init__(self, member: Underlying) -> None:
        self._member = member
        self._series: dict[tuple[date, str], Series] = {}

    def open_session(self, hours: SessionHours, previous_close: float, vol: float) -> Chain:
        """Apply a split, drop what has expired, list what is new, and give the session's chain."""
        ratio = self._member.ratio_on(hours.index)
        self._series = {key: s for key, s in self._series.items() if s.last_trading >= hours.day}
        if ratio != 1:
            for series in self._series.values():
                series.split(ratio)
        for root in self._member.roots:
            for listed in _expiries(root, hours.day):
                self._list(root, listed, hours, previous_close, vol)
        return self._chain(hours)

    def _list(self, root: Root, listed: date, hours: SessionHours, price: float, vol: float) -> None:
        expiry = last_session_until(listed)
        am = root.settlement == "am"
        last_trading = calendar.previous_session(expiry) if am else expiry
        if last_trading < hours.day:
            return
        key = (expiry, root.root)
        if key not in self._series:
            expiry_ns = at_et_ns(expiry, time(9, 30)) if am else round(calendar.close_utc(expiry).timestamp()) * 10**9
            self._series[key] = Series(root, expiry, last_trading, expiry_ns)
        days = (expiry - hours.day).days
        step = _step(self._member, price) * (1 if days <= 45 else 2 if days <= 130 else 5)
        width = float(np.clip(_WIDTH_SIGMAS * vol * np.sqrt((days + 1) / 365.0), 4.0 * step / 1000.0 / price, 0.5))
        low = int(price * np.exp(-width) * 1000.0) // step
        high = -(-int(price * np.exp(width) * 1000.0) // step)
        self._series[key].list_strikes(np.arange(max(low, 1), high + 1, dtype=np.int64) * step)

    def _chain(self, hours: SessionHours) -> Chain:
        ordered = [self._series[key] for key in sorted(self._series)]
        counts = np.array([2 * len(s.strikes) for s in ordered], dtype=np.int64)
        strikes = np.concatenate([s.strikes for s in ordered])
        return Chain(
            tickers=[ticker for s in ordered for ticker in s.tickers],
            strike=np.repeat(strikes / 1000.0, 2),
            right=np.tile(np.array([CALL, PUT], dtype=np.int64), len(strikes)),
            block=np.repeat(np.arange(len(ordered)), counts),
            block_start=np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
            expiry_ns=np.array([s.expiry_ns for s in ordered], dtype=np.int64),
            expiry_days=np.array([(s.expiry - hours.day).days for s in ordered], dtype=np.int64),
            expiries=[s.expiry for s in ordered],
            open_interest=np.concatenate([s.open_interest.ravel() for s in ordered]),
        )

    def close_session(self, chain: Chain, open_interest: Int) -> None:
        """Store the open interest at the close, in the order of the session's chain."""
        for i, key in enumerate(sorted(self._series)):
            block = open_interest[chain.block_start[i] : chain.block_start[i + 1]]
            self._series[key].open_interest = block.reshape(-1, 2).copy()
