"""Derived layer, volatility and positions: the surface at constant maturities, its place in its own past, exposures by strike."""

from __future__ import annotations

import polars as pl

from flowlake.datasets.checks import Between, Check, OneOf
from flowlake.datasets.curated import UNDERLYING
from flowlake.datasets.model import Adjust, Column, Dataset, KnownAtDecision, Layer

TENOR_DAYS = (7, 14, 30, 60, 90, 180, 365)
"""Constant maturities in calendar days."""
TODAY = 0
"""The tenor of the expiry that is the session itself."""
DELTA_NODES = {"atm": "atm_iv", "p10": "put_10d_iv", "p25": "put_25d_iv", "c25": "call_25d_iv", "c10": "call_10d_iv"}
"""Node of the surface by forward delta -> its column."""
STRIKE_NODES = {80: "iv_80_pct", 90: "iv_90_pct", 95: "iv_95_pct", 105: "iv_105_pct", 110: "iv_110_pct", 120: "iv_120_pct"}
"""Strike in per cent of the forward -> its column."""
NODES = (*DELTA_NODES.values(), *STRIKE_NODES.values())
RANK_SESSIONS = 253
"""Sessions of surfaces that a rank reads, the ranked one included."""
RANK_MIN_HISTORY = 60
"""Past sessions with a value that a rank, and a half-life, need."""
SURFACE_REASONS = ("", "held", "no_slice", "outside_strikes", "no_expiry", "before_first", "after_last")

_POSITIVE: tuple[Check, ...] = (Between(0, above=True),)
_NOT_NEGATIVE: tuple[Check, ...] = (Between(0),)
_SHARE: tuple[Check, ...] = (Between(0, 1),)
_KNOWN = "Known at 09:00 New York on the next session."


def _float(name: str, doc: str, unit: str = "", checks: tuple[Check, ...] = (), adjust: Adjust | None = None) -> Column:
    return Column(name, pl.Float64(), f"{doc} {_KNOWN}", unit=unit, nullable=True, checks=checks, adjust=adjust)


def _vol(name: str, doc: str) -> Column:
    return _float(name, doc, "per 1.00", _POSITIVE)


def _count(name: str, doc: str, unit: str, *, nullable: bool = True, adjust: Adjust | None = None) -> Column:
    return Column(name, pl.Int64(), f"{doc} {_KNOWN}", unit=unit, nullable=nullable, checks=_NOT_NEGATIVE, adjust=adjust)


_TENOR = Column(
    "tenor_days",
    pl.Int64(),
    "Constant maturity in calendar days; 0 is the expiry of the session itself, each contract at its last price.",
    unit="days",
    checks=(OneOf((TODAY, *TENOR_DAYS)),),
)

IV_SURFACE = Dataset(
    name="iv_surface",
    layer=Layer.DERIVED,
    doc=(
        "Volatility of an underlying at constant maturities, from a slice without butterfly arbitrage fitted to the "
        "out-of-the-money volatilities of each expiry, weighted by vega squared. Needs five strikes of an expiry, on both sides of "
        "its forward."
    ),
    grain=("underlying", "tenor_days"),
    columns=(
        UNDERLYING,
        _TENOR,
        _vol("atm_iv", "At the forward."),
        *(
            _vol(f"{right}_{delta}d_iv", f"Of the {right} with {delta} forward delta.")
            for right, delta in (("put", 10), ("put", 25), ("call", 25), ("call", 10))
        ),
        *(_vol(column, f"At a strike of {share} % of the forward.") for share, column in STRIKE_NODES.items()),
        _float("skew_25d", "put_25d_iv - call_25d_iv.", "per 1.00"),
        _float("butterfly_25d", "Mean of put_25d_iv and call_25d_iv, less atm_iv.", "per 1.00"),
        _float("skew_10d", "put_10d_iv - call_10d_iv.", "per 1.00"),
        _float("butterfly_10d", "Mean of put_10d_iv and call_10d_iv, less atm_iv.", "per 1.00"),
        _float("near_days", "Days to the expiry before the tenor that atm_iv rests on.", "days", _POSITIVE),
        _float("far_days", "Days to the expiry at or after it.", "days", _POSITIVE),
        _count("strikes", "Strikes of the expiries that atm_iv rests on.", "strikes"),
        _float(
            "fit_rmse",
            "Largest root mean square error of their slices, in volatility, weighted by vega squared.",
            "per 1.00",
            _NOT_NEGATIVE,
        ),
        _float(
            "calendar_violation",
            "Largest total variance by which a slice lies below that of the expiry before it, over the expiries that atm_iv rests "
            "on; 0 without such arbitrage.",
            "total variance",
            _NOT_NEGATIVE,
        ),
        Column(
            "reason",
            pl.String(),
            "Why atm_iv is null; `held` where it is that of the first expiry, which lies after the tenor; empty otherwise.",
            checks=(OneOf(SURFACE_REASONS),),
        ),
    ),
    sort_by=("underlying", "tenor_days"),
    known=KnownAtDecision(),
    may_be_empty=True,
)

IV_RANKS = Dataset(
    name="iv_ranks",
    layer=Layer.DERIVED,
    doc=(
        f"Each node of the surface in its own past of up to {RANK_SESSIONS - 1} sessions, this one excluded. "
        f"Null below {RANK_MIN_HISTORY} past sessions with a value."
    ),
    grain=("underlying", "tenor_days", "node"),
    columns=(
        UNDERLYING,
        _TENOR,
        Column("node", pl.String(), "Column of `iv_surface`.", checks=(OneOf(NODES),)),
        _vol("iv", "Its volatility on this session."),
        _float(
            "iv_z", "(iv - median) / (1.4826 x median absolute deviation) of the past; null where that does not vary.", "deviations"
        ),
        _float("iv_percentile", "Share of past sessions with a lower volatility.", "share of sessions", _SHARE),
        _float(
            "iv_rank",
            "(iv - lowest) / (highest - lowest) of the past; below 0 or above 1 at a new extreme, null where that does not vary.",
            "share of the range",
        ),
        _float(
            "half_life_sessions",
            "Sessions in which a departure from the mean halves: -ln 2 / ln(phi), phi from a regression of the volatility on that "
            "of the session before, over the past and this session; null where phi is not between 0 and 1.",
            "sessions",
            _POSITIVE,
        ),
        _count("history_sessions", "Past sessions with a value.", "sessions", nullable=False),
    ),
    sort_by=("underlying", "tenor_days", "node"),
    known=KnownAtDecision(),
    may_be_empty=True,
)


def _side(name: str, what: str, unit: str) -> tuple[Column, Column]:
    return tuple(_float(f"{side}_{name}", f"{what} of the {side}s, as if long all of them.", unit) for side in ("call", "put"))  # type: ignore[return-value]


EXPOSURES = Dataset(
    name="exposures",
    layer=Layer.DERIVED,
    doc=(
        "What the open contracts of a strike add up to, calls and puts apart and as if long all of them: the reader chooses the "
        "dealers' side. Calls less puts is `long_calls_short_puts`. Contracts that outlive the session, valued at its close."
    ),
    grain=("underlying", "strike"),
    columns=(
        UNDERLYING,
        Column("strike", pl.Float64(), "Strike.", unit="USD per share", checks=_POSITIVE, adjust=Adjust.PRICE),
        Column(
            "open_interest_of",
            pl.String(),
            "Which open interest it is: of this session's close, else of its open.",
            checks=(OneOf(("close", "open")),),
        ),
        *(
            _count(f"{side}_open_interest", f"Open {side}s.", "contracts", nullable=False, adjust=Adjust.CONTRACTS)
            for side in ("call", "put")
        ),
        *_side("gamma_usd", "Change of delta", "USD per 1 % move of the underlying"),
        *_side("vanna_usd", "Change of delta", "USD per volatility point"),
        *_side("charm_usd", "Change of delta", "USD per calendar day"),
        _count(
            "contracts_without_value",
            "Open contracts of the strike without a volatility: what the sums lack.",
            "contracts",
            nullable=False,
            adjust=Adjust.CONTRACTS,
        ),
    ),
    sort_by=("underlying", "strike"),
    known=KnownAtDecision(),
    may_be_empty=True,
)

VOLATILITY = (IV_SURFACE, IV_RANKS, EXPOSURES)
