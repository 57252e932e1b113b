"""Derived layer, order flow: per underlying and session, per minute, per venue, the tide of the market, and what is unusual in it.

A print is signed with the probability p that its buyer was the aggressor: it counts 2p - 1 of its size as bought. A print whose
side is not known counts in the unsigned totals and in the coverage alone. The constants here are part of what the columns mean,
so the steps import them from this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import polars as pl

from flowlake.datasets.checks import Between, Check, Matches
from flowlake.datasets.curated import UNDERLYING
from flowlake.datasets.model import UTC_NS, Adjust, Column, Dataset, KnownAtDecision, KnownFromMorning, Layer
from flowlake.datasets.raw_columns import SECTOR_NAME
from flowlake.datasets.roots import VOLATILITY_INDEXES
from flowlake.datasets.scored import MAD_TO_SIGMA, MIN_HISTORY, OTM_DISTANCE, Scored

MONEYNESS = ("itm", "atm", "otm")
RIGHTS = {"call": "C", "put": "P"}
PROFILE_SESSIONS = 41
"""Sessions of profiles that the time of day is measured against, the measured one included."""
PROFILE_MIN_HISTORY = 20
"""Past sessions with flow in the underlying, open at that minute, that a score of the time of day needs."""
PROFILE_FLOOR = 0.25
"""Least spread of that score, in logarithms: a past of equal minutes cannot make a score explode."""
UNUSUAL_Z = 3.0
"""Score from which a minute counts as unusual."""
FLOW_SESSIONS = 61
"""Sessions of flow factors that a score reads, the scored one included."""
EXPECTED_SESSIONS = 127
"""Sessions of the regression of volume, the explained one included."""
EXPECTED_MIN_SESSIONS = 50
"""Sessions with volume that the regression needs: five for each of its ten coefficients."""
SPOT_MINUTES = 15
"""Minutes that the underlying's last bar may be old and still give the moneyness of a print."""
FACTORS_SLICED = ("option_trades", "contracts", "trade_sides", "flow_packets", "option_iv", "equity_bars_1m", "equity_bars_1d")
"""Inputs of step `flow_factors` that are cut by underlying, the tape first."""

_KNOWN = "Known at 09:00 New York on the next session."
_AT_ONCE = "Known at the end of the minute."
_SHARE: tuple[Check, ...] = (Between(0, 1),)
_BALANCE: tuple[Check, ...] = (Between(-1.000001, 1.000001),)
_NOT_NEGATIVE: tuple[Check, ...] = (Between(0),)


def _factor(name: str, formula: str, needs: str, unit: str, checks: tuple[Check, ...] = (), adjust: Adjust | None = None) -> Column:
    doc = f"{formula} {_KNOWN} Needs {needs}."
    return Column(name, pl.Float64(), doc, unit=unit, nullable=True, checks=checks, adjust=adjust)


def _usd(name: str, formula: str, needs: str) -> Column:
    return _factor(name, formula, needs, "USD")


def _shares(name: str, formula: str, needs: str) -> Column:
    return _factor(name, formula, needs, "shares", adjust=Adjust.SHARES)


def _count(name: str, doc: str, unit: str, adjust: Adjust | None = None) -> Column:
    return Column(name, pl.Int64(), doc, unit=unit, checks=_NOT_NEGATIVE, adjust=adjust)


_SIDE = "one print with a known side"
_DELTA = f"{_SIDE} in a contract with a delta"
_WHERE = {
    "itm": "in the money by at least",
    "atm": "in or out of the money by less than",
    "otm": "out of the money by at least",
}
_PLACED = (
    f"{OTM_DISTANCE:.0%} of spot in logarithms, at the contract's spot in `option_iv`, else the median over the underlying; "
    "adjusted contracts are in none"
)
_OPENING = "packets, and one that bought to open"
_STOCK = "stock volume"

COVERAGE = (
    _factor("side_coverage", "Share of the premium whose side is known, if only weakly.", "one eligible print", "share", _SHARE),
    _factor("nbbo_coverage", "Share of the premium that printed with a quote beside it.", "one eligible print", "share", _SHARE),
    _factor("delta_coverage", "Share of the contracts with a known side that have a delta.", _SIDE, "share", _SHARE),
)
NET_PREMIUM = (
    _usd("net_premium_usd", "Sum of premium x (2p - 1) over prints with a known side.", _SIDE),
    *(_usd(f"net_{side}_premium_usd", f"The part of net_premium_usd in {side}s.", _SIDE) for side in RIGHTS),
    *(
        _usd(f"net_{side}_{place}_premium_usd", f"The part of it {_WHERE[place]} {_PLACED}.", f"{_SIDE}, and a spot")
        for side in RIGHTS
        for place in MONEYNESS
    ),
)
NET_DELTA = (
    _shares(
        "net_delta_shares", "Sum of contracts x multiplier x delta x (2p - 1): the stock that the takers' side stands for.", _DELTA
    ),
    *(_shares(f"net_{side}_delta_shares", f"The part of net_delta_shares in {side}s.", _DELTA) for side in RIGHTS),
    *(
        _shares(f"net_{side}_{place}_delta_shares", f"The part of it {_WHERE[place]} {_PLACED}.", f"{_DELTA}, and a spot")
        for side in RIGHTS
        for place in MONEYNESS
    ),
)
IMBALANCE = (
    _factor(
        "call_put_imbalance",
        "(call premium - put premium) / premium, whoever bought.",
        "one eligible print",
        "share of premium",
        _BALANCE,
    ),
    _factor(
        "net_call_put_imbalance",
        "(net_call_premium_usd - net_put_premium_usd) / premium with a known side: 1 where calls were bought and puts sold.",
        _SIDE,
        "share of premium",
        _BALANCE,
    ),
)
OPENING = (
    *(
        _factor(
            f"opening_buy_{side}_volume",
            f"Expected {side}s bought to open: contracts x probability of a buyer x probability of opening, over packets.",
            _OPENING,
            "contracts",
            _NOT_NEGATIVE,
            Adjust.CONTRACTS,
        )
        for side in RIGHTS
    ),
    _factor(
        "opening_put_share",
        "Puts bought to open / (puts + calls bought to open), after Pan and Poteshman (2006), who had the exchange's own record of "
        "buyers that open; here both are inferred.",
        _OPENING,
        "share of contracts",
        _SHARE,
    ),
)
KINDS = (
    _factor("sweep_premium_share", "Share of the premium in sweeps.", "packets", "share of premium", _SHARE),
    _factor(
        "package_premium_share", "Share of the premium in packages of several legs, marked or found.", "packets", "share", _SHARE
    ),
    _factor(
        "multi_leg_premium_share",
        "Share of the premium in prints that are marked multi-leg or stock-tied, of those with a sale condition.",
        "one print with a sale condition",
        "share of premium",
        _SHARE,
    ),
    _factor(
        "retail_premium_share",
        "Share of the premium in single-leg auctions (condition a, not swept), the usual proxy for retail flow; of that with a "
        "sale condition.",
        "one print with a sale condition",
        "share of premium",
        _SHARE,
    ),
    _usd("retail_net_premium_usd", "Sum of premium x (2p - 1) over these auctions.", "one of them with a known side"),
)
IMBALANCES = (
    _factor(
        "hu_order_imbalance",
        "net_delta_shares / stock volume: the order imbalance of Hu (2014), delta-scaled and converted to stock. He divides by the "
        "shares outstanding, which no file here gives.",
        f"{_DELTA}, and {_STOCK}",
        "share of stock volume",
    ),
    *(
        _factor(
            f"glp_{side}_{way}_to_stock",
            f"Expected {side}s {'bought' if way == 'buy' else 'sold'} x multiplier / stock volume, of prints with a known side, "
            "after Ge, Lin and Pearson (2016).",
            f"{_SIDE}, and {_STOCK}",
            "share of stock volume",
            _NOT_NEGATIVE,
        )
        for side in RIGHTS
        for way in ("buy", "sell")
    ),
    *(
        _factor(
            f"glp_open_{side}_{way}_to_stock",
            f"The part of glp_{side}_{way}_to_stock that opened, by the packets' probability.",
            f"packets with a known side, and {_STOCK}",
            "share of stock volume",
            _NOT_NEGATIVE,
        )
        for side in RIGHTS
        for way in ("buy", "sell")
    ),
)
VENUES = (
    _factor(
        "venue_net_breadth",
        "Effective number of venues with signed volume, sum(|net|)^2 / sum(net^2) with net_volume of `venue_flow`, the inverse of "
        "Herfindahl's index: 1 where one venue has it all, n where n venues have as much each. Few prints reach few venues.",
        f"{_SIDE}, and a venue whose net volume is not 0",
        "venues",
        (Between(0.999999),),
    ),
    _factor(
        "venue_agreement",
        "|sum(net)| / sum(|net|) over venues: 1 where all lean to the same side, 0 where they cancel out.",
        f"{_SIDE}, and a venue whose net volume is not 0",
        "share",
        _SHARE,
    ),
)
TIDE_SCOPES = {
    "market_tide_usd": "all underlyings",
    "sector_tide_usd": "those of its sector",
    "index_tide_usd": "cash-settled indexes",
}
TIDES = tuple(
    _usd(name, f"The last tide_usd of the session in `market_tide`, over {whose}.", "a print there with a known side")
    for name, whose in TIDE_SCOPES.items()
)
FLOW_VALUES = (*COVERAGE, *NET_PREMIUM, *NET_DELTA, *IMBALANCE, *OPENING, *KINDS, *IMBALANCES, *VENUES, *TIDES)
"""Factors of `flow_factors` that may be null, each with a reason."""

FLOW_FACTORS = Dataset(
    name="flow_factors",
    layer=Layer.DERIVED,
    doc="What the session's prints say about each underlying, signed with the probability of a buyer.",
    grain=("underlying",),
    columns=(
        UNDERLYING,
        Column("is_index", pl.Boolean(), "Some of its contracts are European: a cash-settled index, of volatility too."),
        Column("sector", pl.String(), "Its sector in `sectors`, known at 09:00 New York on the session.", nullable=True),
        _count("eligible_prints", "Prints that count: in the vendor's volume and not cancelled.", "prints"),
        _count("eligible_volume", "Their contracts.", "contracts", Adjust.CONTRACTS),
        Column("eligible_premium_usd", pl.Float64(), "Their premium, exact to 1/10,000 USD.", unit="USD", checks=_NOT_NEGATIVE),
        *FLOW_VALUES,
        Column("not_available", pl.List(pl.String()), "Why factors of this row are null: `factor: reason`, sorted."),
    ),
    sort_by=("underlying",),
    known=KnownAtDecision(),
    may_be_empty=True,
)


_END_OF_MINUTE = KnownFromMorning("ts_utc", timedelta(minutes=1))


def _minute_usd(name: str, doc: str, *, signed: bool = True, nullable: bool = False) -> Column:
    return Column(name, pl.Float64(), f"{doc} {_AT_ONCE}", unit="USD", nullable=nullable, checks=() if signed else _NOT_NEGATIVE)


_MINUTE = Column("ts_utc", UTC_NS, "Start of the minute.")
_MINUTE_FLOW = (
    Column("prints", pl.Int64(), f"Prints in the volume, those that were cancelled later among them. {_AT_ONCE}", unit="prints"),
    _minute_usd("premium_usd", "Their premium.", signed=False),
    _minute_usd("known_premium_usd", "The part whose side is known.", signed=False),
    _minute_usd("net_call_premium_usd", "Sum over calls of premium x (2p - 1); 0 where no side is known."),
    _minute_usd("net_put_premium_usd", "The same over puts."),
)

FLOW_MINUTES = Dataset(
    name="flow_minutes",
    layer=Layer.DERIVED,
    doc=(
        "Order flow by underlying and minute; a row exists where an eligible print does. Nothing in a row is of a later minute: "
        "deltas are those of the session before, spots those of the last stock bar that had ended."
    ),
    grain=("underlying", "ts_utc"),
    columns=(
        UNDERLYING,
        _MINUTE,
        *_MINUTE_FLOW,
        Column("volume", pl.Int64(), f"Contracts. {_AT_ONCE}", unit="contracts", checks=_NOT_NEGATIVE, adjust=Adjust.CONTRACTS),
        _minute_usd("call_premium_usd", "Premium in calls.", signed=False),
        _minute_usd("put_premium_usd", "Premium in puts.", signed=False),
        _minute_usd(
            "net_otm_call_premium_usd",
            f"The part of net_call_premium_usd out of the money by at least {OTM_DISTANCE:.0%}; null without a spot.",
            nullable=True,
        ),
        _minute_usd("net_otm_put_premium_usd", "The same of net_put_premium_usd.", nullable=True),
        Column(
            "net_delta_shares",
            pl.Float64(),
            "Sum of contracts x multiplier x delta x (2p - 1), delta of the session before. Null where no print has both. "
            f"{_AT_ONCE}",
            unit="shares",
            nullable=True,
            adjust=Adjust.SHARES,
        ),
        Column(
            "spot",
            pl.Float64(),
            f"Close of the last stock bar that ended at most {SPOT_MINUTES} minutes before this minute, else the spot of the "
            f"session before. {_AT_ONCE}",
            unit="USD per share",
            nullable=True,
            checks=(Between(0, above=True),),
            adjust=Adjust.PRICE,
        ),
        _minute_usd(
            "iso_premium_usd",
            "Premium of intermarket sweep prints; 0 also where the vendor gives no sale conditions.",
            signed=False,
        ),
        _minute_usd("multi_leg_premium_usd", "Premium of prints marked multi-leg or stock-tied.", signed=False),
        _minute_usd("retail_premium_usd", "Premium of single-leg auctions that were not swept.", signed=False),
    ),
    sort_by=("underlying", "ts_utc"),
    known=_END_OF_MINUTE,
    may_be_empty=True,
)

SCOPES = ("all", "index", "stock", "volatility_index")
SECTOR_SCOPE = "sector:"
"""Before the name of a sector, in a scope."""
MARKET_TIDE = Dataset(
    name="market_tide",
    layer=Layer.DERIVED,
    doc=(
        "Net premium of the whole market by minute and since the session's first print: all underlyings but volatility indexes, "
        "cash-settled indexes, the rest, and each sector of `sectors`; and that of volatility indexes, whose calls are bought "
        "against a fall."
    ),
    grain=("scope", "ts_utc"),
    columns=(
        Column(
            "scope",
            pl.String(),
            "all: index and stock; index: underlyings whose contracts are European; stock: all others, funds among them; "
            f"volatility_index: {', '.join(VOLATILITY_INDEXES)}, in none of these three; sector:NAME: those that `sectors` puts "
            "there, known at 09:00 New York on the session.",
            checks=(Matches(f"^(?:{'|'.join(SCOPES)}|{SECTOR_SCOPE}{SECTOR_NAME})$"),),
        ),
        _MINUTE,
        *_MINUTE_FLOW,
        _count("underlyings", f"Underlyings with a print in the minute. {_AT_ONCE}", "underlyings"),
        _minute_usd("net_delta_usd", "Sum of net_delta_shares x spot; null where no underlying has both.", nullable=True),
        _minute_usd("call_tide_usd", "net_call_premium_usd, added up since the session's first minute."),
        _minute_usd("put_tide_usd", "net_put_premium_usd, added up since the session's first minute."),
        _minute_usd("tide_usd", "call_tide_usd - put_tide_usd: positive where calls are bought and puts are sold."),
        Column(
            "tide_coverage",
            pl.Float64(),
            f"Share of the premium so far whose side is known. {_AT_ONCE}",
            nullable=True,
            checks=_SHARE,
        ),
    ),
    sort_by=("scope", "ts_utc"),
    known=_END_OF_MINUTE,
    may_be_empty=True,
)

VENUE_FLOW = Dataset(
    name="venue_flow",
    layer=Layer.DERIVED,
    doc="Order flow by underlying and exchange.",
    grain=("underlying", "exchange"),
    columns=(
        UNDERLYING,
        Column("exchange", pl.Int64(), "Vendor's exchange id."),
        _count("prints", "Eligible prints.", "prints"),
        _count("volume", "Their contracts.", "contracts", Adjust.CONTRACTS),
        Column("premium_usd", pl.Float64(), "Their premium.", unit="USD", checks=_NOT_NEGATIVE),
        _factor("side_coverage", "Share of the premium whose side is known.", "premium", "share", _SHARE),
        _factor("net_volume", "Sum of contracts x (2p - 1).", _SIDE, "contracts", adjust=Adjust.CONTRACTS),
        _usd("net_premium_usd", "Sum of premium x (2p - 1).", _SIDE),
        _usd("iso_premium_usd", "Premium of intermarket sweep prints.", "nothing"),
        _usd("retail_premium_usd", "Premium of single-leg auctions that were not swept.", "nothing"),
    ),
    sort_by=("underlying", "exchange"),
    known=KnownAtDecision(),
    may_be_empty=True,
)

BINS_PER_E = 16
"""Bins of a histogram of logarithms per factor of e: a packet's premium is known to 6 %."""

FLOW_PROFILES = Dataset(
    name="flow_profiles",
    layer=Layer.DERIVED,
    doc=(
        "What later sessions measure this one's successors against, one row per underlying: premium by minute, and histograms of "
        "the packets' premium and size. Lists of one group have one length."
    ),
    grain=("underlying",),
    columns=(
        UNDERLYING,
        Column(
            "unit_contracts",
            pl.Int64(),
            "1: read after a split it says how many of today's contracts one of this session is.",
            unit="contracts",
            checks=_NOT_NEGATIVE,
            adjust=Adjust.CONTRACTS,
        ),
        Column("minutes", pl.List(pl.Int64()), "Minutes of the New York day with a print, ascending."),
        Column("minute_premium_cents", pl.List(pl.Int64()), "Their premium in whole cents."),
        *(
            column
            for what, unit in (("premium", "USD"), ("size", "contracts"))
            for column in (
                Column(f"{what}_bins", pl.List(pl.Int64()), f"Bins floor({BINS_PER_E} ln {what} in {unit}) of packets, ascending."),
                Column(f"{what}_counts", pl.List(pl.Int64()), "Packets in each of these bins."),
            )
        ),
    ),
    sort_by=("underlying",),
    known=KnownAtDecision(),
    may_be_empty=True,
)

FLOW_ABNORMALITY = Dataset(
    name="flow_abnormality",
    layer=Layer.DERIVED,
    doc=(
        f"Each minute's premium against the same minute of up to {PROFILE_SESSIONS - 1} past sessions of the underlying. A session "
        "with prints but none in the minute counts as 0; one that had closed by then does not count. "
        f"Minutes with less than {PROFILE_MIN_HISTORY} such sessions have no row."
    ),
    grain=("underlying", "ts_utc"),
    columns=(
        UNDERLYING,
        _MINUTE,
        _minute_usd("premium_usd", "Premium of the minute.", signed=False),
        _minute_usd("typical_premium_usd", "Median of the past.", signed=False),
        Column(
            "premium_z",
            pl.Float64(),
            f"(ln(1 + premium) - median) / max({MAD_TO_SIGMA} x median absolute deviation, {PROFILE_FLOOR}) of the past's "
            f"ln(1 + premium); null where the median is 0. {_AT_ONCE}",
            unit="robust deviations",
            nullable=True,
        ),
        _minute_usd("cumulative_premium_usd", "Premium of the session so far.", signed=False),
        _minute_usd("typical_cumulative_premium_usd", "Median of the past's at the end of that minute.", signed=False),
        Column(
            "cumulative_premium_z",
            pl.Float64(),
            f"The same score of the premium so far; null where the median is 0. {_AT_ONCE}",
            unit="robust deviations",
            nullable=True,
        ),
        _count("history_sessions", f"Past sessions that count. {_AT_ONCE}", "sessions"),
    ),
    sort_by=("underlying", "ts_utc"),
    known=_END_OF_MINUTE,
    may_be_empty=True,
)

FLOW_SCORED = (
    Scored("net_call_premium_usd", "linear", 0.05, relative=True),
    Scored("net_put_premium_usd", "linear", 0.05, relative=True),
    Scored("net_call_otm_premium_usd", "linear", 0.05, relative=True),
    Scored("net_put_otm_premium_usd", "linear", 0.05, relative=True),
    Scored("net_delta_shares", "linear", 0.05, relative=True),
    Scored("net_call_delta_shares", "linear", 0.05, relative=True),
    Scored("net_put_delta_shares", "linear", 0.05, relative=True),
    Scored("call_put_imbalance", "linear", 0.02),
    Scored("net_call_put_imbalance", "linear", 0.02),
    Scored("opening_buy_call_volume", "sqrt", 4.0),
    Scored("opening_buy_put_volume", "sqrt", 4.0),
    Scored("opening_put_share", "linear", 0.02),
    Scored("sweep_premium_share", "linear", 0.01),
    Scored("package_premium_share", "linear", 0.01),
    Scored("multi_leg_premium_share", "linear", 0.01),
    Scored("retail_premium_share", "linear", 0.01),
    Scored("hu_order_imbalance", "linear", 0.05, relative=True),
    *(
        Scored(f"glp_{opened}{side}_{way}_to_stock", "linear", 0.05, relative=True)
        for opened in ("", "open_")
        for side in RIGHTS
        for way in ("buy", "sell")
    ),
    Scored("venue_net_breadth", "linear", 0.25),
    Scored("venue_agreement", "linear", 0.02),
)
"""Flow factors with a robust score in the underlying's own past."""
TIDE_SCORED = tuple(Scored(name, "linear", 0.05, relative=True) for name in TIDE_SCOPES)
"""Tides with a robust score in their own past, which is that of the market or of the sector: an underlying that is new has one."""


def _score(scored: Scored) -> Column:
    return _factor(
        scored.column, scored.describe(FLOW_SESSIONS - 1), f"{MIN_HISTORY} past sessions with a value", "robust deviations"
    )


_REGRESSION = (
    "regression of ln(1 + contracts) on a constant, the median of the same over all other underlyings, the market's volatility, "
    "the underlying's return and the market's, and on all of these of the session before and its own volume then; least squares "
    f"over up to {EXPECTED_SESSIONS - 1} past sessions, this one left out"
)
_SAMPLE = f"{EXPECTED_MIN_SESSIONS} past sessions with volume"
OWN_SCORES = (
    *(_score(scored) for scored in (*FLOW_SCORED, *TIDE_SCORED)),
    _factor(
        "expected_option_volume",
        f"After Augustin, Brenner and Subrahmanyam (2019): {_REGRESSION}. The market's volatility is the median of atm_iv_30d over "
        "cash-settled indexes, else over all underlyings, and its return likewise, volatility indexes left out of both. A "
        "regressor that is missing today or in half of the sessions, or that is collinear, is left out; a session without one of "
        "the others is no part of the sample.",
        _SAMPLE,
        "contracts",
        _NOT_NEGATIVE,
        Adjust.CONTRACTS,
    ),
    _factor("volume_residual", "ln(1 + contracts) less its expectation.", _SAMPLE, "logarithms"),
    _factor(
        "volume_residual_z",
        "volume_residual / its root mean square over the sample, with the degrees of freedom lost.",
        _SAMPLE,
        "deviations",
    ),
    _factor(
        "peak_premium_z",
        "Largest cumulative_premium_z of the session's minutes in `flow_abnormality`.",
        f"{PROFILE_MIN_HISTORY} past sessions",
        "robust deviations",
    ),
    _factor(
        "unusual_minutes",
        f"Minutes with a premium_z of at least {UNUSUAL_Z:.0f}.",
        f"{PROFILE_MIN_HISTORY} past sessions",
        "minutes",
        _NOT_NEGATIVE,
    ),
)


@dataclass(frozen=True)
class FlowKind:
    """Scores of one kind of flow and the column that sums them up. `two_sided` ones are unusual on either side, the others high."""

    column: str
    one_sided: tuple[str, ...] = ()
    two_sided: tuple[str, ...] = ()


KIND_HIGHEST = 4.0
"""Where a score counts no further in its kind: the ratios of flow have long tails, and four deviations are unusual enough."""
FLOW_KINDS = (
    FlowKind(
        "flow_direction_rms",
        two_sided=(
            "net_call_otm_premium_usd_z",
            "net_put_otm_premium_usd_z",
            "net_delta_shares_z",
            "net_call_put_imbalance_z",
            "hu_order_imbalance_z",
        ),
    ),
    FlowKind(
        "flow_opening_rms",
        ("opening_buy_call_volume_z", "opening_buy_put_volume_z", "glp_call_buy_to_stock_z", "glp_put_buy_to_stock_z"),
        ("opening_put_share_z",),
    ),
    FlowKind(
        "flow_execution_rms",
        (
            "sweep_premium_share_z",
            "multi_leg_premium_share_z",
            "retail_premium_share_z",
            "venue_net_breadth_z",
            "venue_agreement_z",
        ),
    ),
    FlowKind(
        "flow_activity_rms",
        ("volume_residual_z", "peak_premium_z"),
        ("market_tide_usd_z", "sector_tide_usd_z", "index_tide_usd_z"),
    ),
)
KINDS_OF_FLOW = tuple(
    _factor(
        kind.column,
        "Root mean square of "
        + ", ".join([*(f"max({name}, 0)" for name in kind.one_sided), *kind.two_sided])
        + f", each cut at {KIND_HIGHEST:.0f}, a missing one as 0.",
        "one of them",
        "robust deviations",
        _NOT_NEGATIVE,
    )
    for kind in FLOW_KINDS
)
SCORES = (*OWN_SCORES, *KINDS_OF_FLOW)
FLOW_SCORES = Dataset(
    name="flow_scores",
    layer=Layer.DERIVED,
    doc=f"Flow factors in the underlying's own past of up to {FLOW_SESSIONS - 1} sessions, its volume against what was expected.",
    grain=("underlying",),
    columns=(
        UNDERLYING,
        *SCORES,
        _count("score_sessions", f"Past sessions of flow factors that the scores could draw on. {_KNOWN}", "sessions"),
        _count("regression_sessions", f"Past sessions in the regression of volume. {_KNOWN}", "sessions"),
        _count("regressors", f"Coefficients that the regression could tell apart, the constant included. {_KNOWN}", "coefficients"),
    ),
    sort_by=("underlying",),
    known=KnownAtDecision(),
    may_be_empty=True,
)

FLOW_FEATURES = tuple(kind.column for kind in FLOW_KINDS)
"""What the anomaly engines look at. Through them all flow reaches the engines, and no kind as often as it has scores: fed one
by one, the many scores of flow outvoted the rest and found less of what was planted."""
PANEL_FLOW = (*FLOW_VALUES, *SCORES)
"""Columns that `factor_panel` takes unchanged from `flow_factors` and `flow_scores` of its session."""

FLOW_DATASETS = (FLOW_FACTORS, FLOW_MINUTES, MARKET_TIDE, VENUE_FLOW, FLOW_PROFILES, FLOW_ABNORMALITY, FLOW_SCORES)
