"""Derived layer, unusual flow by rule: what each rule asks for, and the hits with their values, thresholds and doubts.

The thresholds are settings (`flow_` and the name, see `flowlake.core.settings.FlowThresholds`); a partition records those it was
made with, so that other thresholds make it stale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import polars as pl

from flowlake.datasets.checks import Between, Check, OneOf
from flowlake.datasets.curated import UNDERLYING
from flowlake.datasets.model import UTC_NS, Adjust, Column, Dataset, KnownAtDecision, Layer
from flowlake.datasets.packets import STRUCTURES

THRESHOLDS = "flow_thresholds"
"""The input of `flow_hits` that holds the thresholds: `name`, `value`."""
BASELINE_SESSIONS = 61
"""Sessions of packets that a z reads, the judged one included; none of the judged session itself enters the baseline."""
Z_FLOOR = 0.25
"""Least spread of a z, in logarithms."""
BURST_MINUTES = 5
LEG_SECONDS = 1
"""Packets of one size in two contracts this far apart may be legs of one position."""
PIN_DISTANCE = 0.01
PIN_DAYS = 1
DEEP_ITM = 0.10


@dataclass(frozen=True)
class Condition:
    """A column of the packet, or of what has gathered, against a threshold by name."""

    column: str
    threshold: str
    sense: Literal["at least", "at most", "above"] = "at least"


@dataclass(frozen=True)
class Rule:
    """A classifier. `conditions` must all be met, scores `z` excepted where there are too few samples: the tier says so.

    Packets of one contract alone are judged. `gather`: columns over which packets add up in the order of their last prints; the hit
    is the first that completes the conditions. `needs_quotes`: the packets must have printed on the aggressor's side of good
    quotes, see `QUOTE_CONDITIONS`, and of those that gather none was sold. Without good quotes no hit of any rule is confirmed.
    """

    name: str
    doc: str
    conditions: tuple[Condition, ...]
    structures: tuple[str, ...] = ()
    gather: tuple[str, ...] = ()
    needs_quotes: bool = True


QUOTE_CONDITIONS = (
    Condition("nbbo_coverage", "nbbo_coverage"),
    Condition("quote_age_ms", "nbbo_age_ms", "at most"),
    Condition("aggressor_share", "aggressor_share"),
)
"""The first two say whether quotes can judge the packet at all; the third is what they say."""
_OTM_SHORT = (Condition("days_to_expiry", "short_days", "at most"), Condition("otm_distance", "otm_distance"))
RULES = (
    Rule(
        "sweep",
        "An order that took several fills in a moment, large in its own right and for the underlying.",
        (
            Condition("premium_usd", "sweep_premium_usd"),
            Condition("fills", "sweep_fills"),
            Condition("premium_z", "sweep_premium_z"),
        ),
        structures=("sweep",),
    ),
    Rule(
        "spike",
        "An event of one contract out of scale in money and in size.",
        (
            Condition("premium_usd", "spike_premium_usd"),
            Condition("size", "spike_size"),
            Condition("premium_z", "spike_premium_z"),
            Condition("size_z", "spike_size_z"),
        ),
    ),
    Rule(
        "large_block",
        "One large print.",
        (Condition("premium_usd", "block_premium_usd"), Condition("size", "block_size")),
        structures=("block",),
        needs_quotes=False,
    ),
    Rule(
        "otm_short_dated",
        "Buying that gathers in one out-of-the-money contract that expires soon.",
        (Condition("premium_usd", "otm_premium_usd"), Condition("packets", "otm_packets"), *_OTM_SHORT),
        gather=("contract",),
    ),
    Rule(
        "leaps",
        "Buying that gathers in one long-dated contract.",
        (
            Condition("premium_usd", "leaps_premium_usd"),
            Condition("packets", "leaps_packets"),
            Condition("days_to_expiry", "leaps_days"),
        ),
        gather=("contract",),
    ),
    Rule(
        "volume_above_open_interest",
        "The contract's volume has passed its open interest: some of it must have opened.",
        (
            Condition("volume_to_open_interest", "volume_to_open_interest", "above"),
            Condition("volume_so_far", "volume_size"),
        ),
        gather=("contract",),
        needs_quotes=False,
    ),
    Rule(
        "negotiated_large",
        "A large event on a floor, in an auction or a cross: someone looked for the other side.",
        (Condition("premium_usd", "negotiated_premium_usd"), Condition("negotiated_share", "negotiated_share")),
        needs_quotes=False,
    ),
    Rule(
        "repeated_hits_ascending",
        "Hits of one contract and side that came back while the price rose.",
        (
            Condition("premium_usd", "repeated_premium_usd"),
            Condition("hits_so_far", "repeated_hits"),
            Condition("price_rise_usd", "", "above"),
        ),
        structures=("repeated_hits",),
    ),
    Rule(
        "far_otm_lottery",
        "Many cheap contracts far out of the money.",
        (
            Condition("otm_distance", "lottery_distance"),
            Condition("vwap", "lottery_price_usd", "at most"),
            Condition("size", "lottery_size"),
            Condition("days_to_expiry", "lottery_days", "at most"),
        ),
    ),
    Rule(
        "zero_dte_burst",
        f"Buying of one right that expires today, gathered within one of the day's {BURST_MINUTES}-minute intervals.",
        (
            Condition("premium_usd", "burst_premium_usd"),
            Condition("packets", "burst_packets"),
            Condition("days_to_expiry", "", "at most"),
        ),
        gather=("underlying", "right", "interval"),
    ),
)
PACKET_COLUMNS = (
    *("packet_id", "underlying", "contract", "right", "expiry", "strike", "days_to_expiry", "structure", "first_ts_utc"),
    *("last_ts_utc", "fills", "size", "contracts", "premium_usd", "vwap", "first_price", "last_price", "buy_probability"),
    *("nbbo_coverage", "aggressor_share", "median_quote_age_ms", "auction_share", "cross_share", "floor_share"),
    *("open_interest_open", "volume_so_far", "hits_so_far", "opening_probability"),
)
"""What the rules, the doubts and the hits need of `flow_packets`."""
TIERS = ("confirmed", "unconfirmed")
DOUBTS = {
    "possible_hedge": "puts bought on a cash-settled index, calls on one of volatility, or a cross that names no initiator",
    "possible_leg": f"another contract of the underlying traded the same size within {LEG_SECONDS} s",
    "possible_roll": "and it has the same right and another expiry",
    "possible_dividend_play": f"calls at least {DEEP_ITM:.0%} in the money on the session before the ex-date",
    "possible_expiry_pin": f"expires within {PIN_DAYS} day and the strike lies within {PIN_DISTANCE:.0%} of the spot",
    "may_close": "closing is likelier than opening",
}
"""Reasons to doubt a hit, by name."""
MOST_EVIDENCE = 100
"""Packets that a hit names; of more the last ones."""
CONFIDENCE = {"confirmed": 0.9, "unjudged": 0.7, "doubt": 0.8, "short_baseline": 0.9}
"""Confidence of a hit that meets all; factors for what could not be judged, for each doubt, and for a plain baseline."""

_SHARE: tuple[Check, ...] = (Between(0, 1),)
_NOT_NEGATIVE: tuple[Check, ...] = (Between(0),)


def _float(name: str, doc: str, unit: str = "", checks: tuple[Check, ...] = (), adjust: Adjust | None = None) -> Column:
    return Column(name, pl.Float64(), doc, unit=unit, nullable=True, checks=checks, adjust=adjust)


def _int(name: str, doc: str, unit: str, *, nullable: bool = False, adjust: Adjust | None = None) -> Column:
    return Column(name, pl.Int64(), doc, unit=unit, nullable=nullable, adjust=adjust)


def describe(rule: Rule) -> str:
    """The rule in words: `name: conditions`."""
    parts = [f"{c.column} {c.sense} {c.threshold or '0'}" for c in rule.conditions]
    gathered = "packets that were not sold" if rule.needs_quotes else "packets"
    over = f", {gathered} gathered over {', '.join(rule.gather)}" if rule.gather else ""
    only = f", structure {', '.join(rule.structures)}" if rule.structures else ""
    quotes = ", good quotes" if rule.needs_quotes else ""
    return f"{rule.name}: {', '.join(parts)}{only}{over}{quotes}"


FLOW_HITS = Dataset(
    name="flow_hits",
    layer=Layer.DERIVED,
    doc="Packets, or packets that gather, that meet a rule of unusual flow. A hit is a reason to look, never a claim about intent.",
    grain=("hit_id",),
    columns=(
        Column("hit_id", pl.String(), "Rule and packet: `rule:packet_id`."),
        UNDERLYING,
        Column("contract", pl.String(), "OCC symbol without blanks; null where several contracts gathered.", nullable=True),
        Column(
            "rule", pl.String(), "; ".join(describe(rule) for rule in RULES) + ".", checks=(OneOf(tuple(r.name for r in RULES)),)
        ),
        Column(
            "tier",
            pl.String(),
            "confirmed: every condition was judged and met. unconfirmed: quotes or samples are missing, see `reasons`; what could "
            "be judged was met.",
            checks=(OneOf(TIERS),),
        ),
        Column(
            "confidence",
            pl.Float64(),
            f"{CONFIDENCE['confirmed']}, times {CONFIDENCE['unjudged']} for quotes and for each score that could not be judged, "
            f"{CONFIDENCE['doubt']} for each doubt, {CONFIDENCE['short_baseline']} where a baseline is not robust. "
            "An order of trust, not a probability.",
            checks=_SHARE,
        ),
        Column(
            "completed_ts_utc",
            UTC_NS,
            f"Last print of the packet that completed the rule, and {LEG_SECONDS} s to look for other legs. The hit rests on the "
            "whole session all the same: on later cancels, and on where a row of hits ends.",
        ),
        Column("direction", pl.String(), "Of the aggressor.", checks=(OneOf(("bought", "sold", "unknown")),)),
        Column("right", pl.String(), "C call, P put.", checks=(OneOf(("C", "P")),)),
        Column("structure", pl.String(), "Of the packet that completed the rule.", checks=(OneOf(STRUCTURES),)),
        Column(
            "packet_ids",
            pl.List(pl.String()),
            f"The evidence: packets up to the one that completed the rule, in order; the last {MOST_EVIDENCE} of more.",
        ),
        _int("packets", "Number of packets.", "packets"),
        _int("fills", "Their prints.", "prints"),
        _int("size", "Their contracts.", "contracts", adjust=Adjust.CONTRACTS),
        Column("premium_usd", pl.Float64(), "Their premium.", unit="USD", checks=_NOT_NEGATIVE),
        _float(
            "premium_z",
            "Of the packet that completed the rule: (ln premium - centre) / spread of the "
            "underlying's packets of the past sessions: median and 1.4826 x median absolute "
            f"deviation from robust_samples on, mean and standard deviation below; at least {Z_FLOOR}. Null below min_samples.",
            "deviations",
        ),
        _float("size_z", "The same of the size.", "deviations"),
        _int("baseline_packets", "Packets of the past sessions that the scores rest on.", "packets"),
        _float("nbbo_coverage", "Share of the contracts with a quote beside them.", "share of contracts", _SHARE),
        _float(
            "quote_age_ms",
            "Median age of the quotes; of several packets the mean weighted by contracts. Null where the vendor does not say when "
            "its quotes were made: they pass for fresh nowhere.",
            "ms",
            _NOT_NEGATIVE,
        ),
        _float("aggressor_share", "Share of the quoted contracts at the aggressor's side of the quote or beyond.", "share", _SHARE),
        _float("buy_probability", "Probability of a buyer as the aggressor.", "", _SHARE),
        _float("opening_probability", "Probability of an opening position.", "", _SHARE),
        _int("days_to_expiry", "Calendar days to expiry.", "days"),
        _float(
            "otm_distance",
            "ln(strike / spot) outwards: positive out of the money. Spot as in `flow_minutes` at the packet's first minute. Null "
            "without a spot, and of adjusted contracts, whose strike is not one of a share; rules and doubts that ask for it pass "
            "these over.",
            "logarithms",
        ),
        _int("open_interest_open", "Open interest at the close before.", "contracts", nullable=True, adjust=Adjust.CONTRACTS),
        _int(
            "volume_so_far",
            "The contract's volume up to the packet's last print.",
            "contracts",
            nullable=True,
            adjust=Adjust.CONTRACTS,
        ),
        Column(
            "conditions",
            pl.String(),
            "Every condition as JSON, by column: its value (null where it could not be judged), its threshold and the sense.",
        ),
        Column("reasons", pl.String(), "Why the tier is unconfirmed, joined by `; `; empty where it is confirmed."),
        Column(
            "doubts",
            pl.List(pl.String()),
            "Reasons to doubt, each with what it means: " + "; ".join(f"{name}: {what}" for name, what in DOUBTS.items()) + ".",
        ),
    ),
    sort_by=("underlying", "completed_ts_utc", "hit_id"),
    known=KnownAtDecision(),
    may_be_empty=True,
)
