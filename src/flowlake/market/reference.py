"""Reference files: rates, contract roots, corporate actions and sectors."""

from __future__ import annotations

from datetime import date, time, timedelta

import numpy as np
import polars as pl

from flowlake.core import sessions as calendar
from flowlake.core.arrays import Float
from flowlake.market.clock import SessionHours
from flowlake.market.spec import MarketSpec, generator
from flowlake.market.universe import Underlying, corporate_actions

TENOR_DAYS = (1, 30, 91, 182, 365)
_FIRST_RATE = 0.048
_SLOPES = np.array([0.0, 0.0005, 0.0004, -0.0004, -0.0016])
_ANNOUNCED_AT_ET = time(16, 30)
_LISTED_YEARS_BEFORE = 5
SECTOR_NAMES = ("technology", "health", "energy")
_MOVES_ON_SESSION = 2


class Rates:
    """A slow random walk of the short rate with a fixed, slightly humped curve. Ask in session order."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._level = _FIRST_RATE

    def curve(self, hours: SessionHours) -> Float:
        """Continuously compounded rates for `TENOR_DAYS`, to six decimals."""
        step = generator(self._seed, "rates", hours.index).standard_normal() * 0.0002
        self._level = float(np.clip(self._level + step, 0.002, 0.08))
        return np.round(self._level + _SLOPES, 6)


def rates_table(curves: list[tuple[date, Float]]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "date": [day for day, _ in curves for _ in TENOR_DAYS],
            "tenor_days": [tenor for _ in curves for tenor in TENOR_DAYS],
            "rate": np.concatenate([curve for _, curve in curves]),
        },
        schema={"date": pl.Date, "tenor_days": pl.Int64, "rate": pl.Float64},
    )


def contract_roots_table(spec: MarketSpec, members: list[Underlying]) -> pl.DataFrame:
    since = spec.first_session - timedelta(days=365 * _LISTED_YEARS_BEFORE)
    rows = [(r.root, m.name, 100, r.exercise, r.settlement, since, None) for m in members for r in m.roots]
    schema = {
        "root": pl.String,
        "underlying": pl.String,
        "multiplier": pl.Int64,
        "exercise": pl.String,
        "settlement": pl.String,
        "valid_from": pl.Date,
        "valid_to": pl.Date,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def corporate_actions_table(spec: MarketSpec, members: list[Underlying]) -> pl.DataFrame:
    rows = [
        (
            a.underlying,
            a.ex_date,
            a.kind,
            a.ratio,
            a.cash_amount_usd,
            None,
            _moment_text(a.announced_on),
        )
        for a in corporate_actions(spec, members)
    ]
    schema = {
        "underlying": pl.String,
        "ex_date": pl.Date,
        "kind": pl.String,
        "ratio": pl.Float64,
        "cash_amount_usd": pl.Float64,
        "new_symbol": pl.String,
        "announced_at_utc": pl.String,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def sectors_table(spec: MarketSpec, members: list[Underlying]) -> pl.DataFrame:
    """Stocks alone have a sector. The first of them moves to another on the third session, told at 16:30 of the one before."""
    since = spec.first_session - timedelta(days=365 * _LISTED_YEARS_BEFORE)
    stocks = [m for m in members if m.index > 0 and not m.is_index]
    rows: list[tuple[str, str, date, str | None]] = [
        (m.name, SECTOR_NAMES[m.index % len(SECTOR_NAMES)], since, None) for m in stocks
    ]
    if stocks:
        moved, told = (calendar.offset(spec.first_session, _MOVES_ON_SESSION - days) for days in (0, 1))
        rows.append((stocks[0].name, SECTOR_NAMES[0], moved, _moment_text(told)))
    schema = {"underlying": pl.String, "sector": pl.String, "valid_from": pl.Date, "published_at_utc": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _moment_text(day: date) -> str:
    return f"{calendar.at_et(day, _ANNOUNCED_AT_ET):%Y-%m-%dT%H:%M:%SZ}"
