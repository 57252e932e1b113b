"""Reference files: rates, contract roots and corporate actions."""

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
            f"{calendar.at_et(a.announced_on, _ANNOUNCED_AT_ET):%Y-%m-%dT%H:%M:%SZ}",
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
