"""Derived layer, order flow: prints gathered into events, the prints of each, and next morning's receipt for opening claims."""

from __future__ import annotations

import polars as pl

from flowlake.datasets.checks import Between, Check, NotAbove, OneOf
from flowlake.datasets.curated import UNDERLYING
from flowlake.datasets.model import UTC_NS, Adjust, Column, Dataset, KnownAtDecision, Layer

SINGLE_LEG_STRUCTURES = ("single", "split", "sweep", "block", "repeated_hits")
PACKAGE_STRUCTURES = (
    "vertical",
    "ratio",
    "straddle",
    "strangle",
    "synthetic",
    "risk_reversal",
    "straddle_or_synthetic",
    "strangle_or_risk_reversal",
    "calendar",
    "diagonal",
    "roll",
    "butterfly",
    "ladder",
    "condor",
    "iron_condor",
    "stock_tied",
    "other_package",
)
STRUCTURES = (*SINGLE_LEG_STRUCTURES, *PACKAGE_STRUCTURES)
VERDICTS = ("supported", "contradicted", "undecidable")

BURST_GAP_MS = 1
"""Prints of one contract at most this far apart, one after the other, are one event."""
SWEEP_GAP_MS = 10
"""The same for prints marked as intermarket sweep."""
BURST_SPAN_MS = 100
"""Longest an event of fills may last."""
PACKAGE_GAP_MS = 1
"""Legs of one package follow one another at most this far apart, on one exchange."""
PACKAGE_SPAN_MS = 5
BLOCK_CONTRACTS = 100
"""Smallest single print that is a block."""
HIT_CONTRACTS = 20
"""Smallest event that counts as a hit, where several make repeated hits."""
HIT_GAP_MINUTES = 10
"""Longest pause between two hits of one contract."""
REPEATED_HITS = 3
"""Fewest hits that are called repeated."""
LARGEST_RATIO = 10
"""Largest ratio of a leg that is still taken as one package; beyond it the structure is not named."""
ROLL_DAYS = 30
ROLL_CONTRACTS = 20
ROLL_SHARE = 0.1
"""A calendar or diagonal one to one is called a roll where its near leg ends within `ROLL_DAYS` calendar days, and the package has
at least `ROLL_CONTRACTS` and moves `ROLL_SHARE` to all of what was open of that leg."""
OPENING_CLAIM = 0.7
"""Opening probability from which a packet makes a claim that next morning's open interest is held against."""

_POSITIVE: tuple[Check, ...] = (Between(0, above=True),)
_NOT_NEGATIVE: tuple[Check, ...] = (Between(0),)
_SHARE: tuple[Check, ...] = (Between(0, 1),)


def _share(name: str, doc: str, *, nullable: bool = False) -> Column:
    return Column(name, pl.Float64(), doc, unit="share of contracts", nullable=nullable, checks=_SHARE)


def _contracts(name: str, doc: str, *, nullable: bool = False, checks: tuple[Check, ...] = _NOT_NEGATIVE) -> Column:
    return Column(name, pl.Int64(), doc, unit="contracts", nullable=nullable, checks=checks, adjust=Adjust.CONTRACTS)


def _count(name: str, doc: str, unit: str, *, nullable: bool = False) -> Column:
    return Column(name, pl.Int64(), doc, unit=unit, nullable=nullable, checks=_POSITIVE)


def _price(name: str, doc: str) -> Column:
    return Column(
        name, pl.Float64(), f"{doc} Null for packages.", unit="USD per share", nullable=True, checks=_POSITIVE, adjust=Adjust.PRICE
    )


_PACKET_ID = Column(
    "packet_id",
    pl.String(),
    "Underlying, millisecond of the first print since midnight UTC of the session's date, and a count among the packets that "
    "began in that millisecond: made from content, so that neither the order of prints within a millisecond nor other "
    "underlyings change it.",
)

FLOW_PACKETS = Dataset(
    name="flow_packets",
    layer=Layer.DERIVED,
    doc=(
        "Prints gathered into the events that made them: fills of one order in a contract, repeated hits, packages across "
        "contracts. Every print that is `in_baseline` and not cancelled is in exactly one packet."
    ),
    grain=("packet_id",),
    columns=(
        _PACKET_ID,
        UNDERLYING,
        Column("contract", pl.String(), "OCC symbol without blanks; null for a packet of several contracts.", nullable=True),
        Column(
            "legs",
            pl.String(),
            "Of a package: its contracts by expiry, right (calls first) and strike, each with its ratio, signed as who pays on "
            "balance holds them (`+1 AAPL240119C00190000 | -2 AAPL240119C00195000`); `?1` where the structure does not say which "
            "legs go together. Whether that is who began it: `buy_probability`. Null for one contract.",
            nullable=True,
        ),
        Column(
            "structure",
            pl.String(),
            f"sweep: several fills, one of them marked intermarket sweep or on several venues; at most {SWEEP_GAP_MS} ms apart "
            f"where marked, else {BURST_GAP_MS} ms. split: several fills on one venue. block: one print of at least "
            f"{BLOCK_CONTRACTS} contracts. repeated_hits: single prints or splits of a row of {REPEATED_HITS} or more packets of "
            f"one contract and side, each of at least {HIT_CONTRACTS} contracts and at most {HIT_GAP_MINUTES} minutes after the "
            "one before, that are half of the contract's volume meanwhile. single: any other lone print. Packages are named by "
            f"their legs. roll: a calendar or diagonal one to one whose near leg ends within {ROLL_DAYS} days, of at least "
            f"{ROLL_CONTRACTS} packages that are {ROLL_SHARE:.0%} to all of what was open of that leg. stock_tied: marked so. "
            "straddle_or_synthetic, strangle_or_risk_reversal: a call and a put of one expiry whose sides are not known. "
            "other_package: no name, see `reasons`.",
            checks=(OneOf(STRUCTURES),),
        ),
        Column(
            "structure_probability",
            pl.Float64(),
            "Of a call and a put of one expiry: probability that they are on one side (straddle, strangle) or against each other "
            "(synthetic, risk_reversal). Null where the name needs no sides, and where there is none.",
            nullable=True,
            checks=_SHARE,
        ),
        Column("right", pl.String(), "C call, P put; null where legs differ.", nullable=True, checks=(OneOf(("C", "P")),)),
        Column("expiry", pl.Date(), "Expiration date; of a package that of its first leg to expire."),
        Column(
            "strike",
            pl.Float64(),
            "Strike; null where legs differ.",
            unit="USD per share",
            nullable=True,
            checks=_POSITIVE,
            adjust=Adjust.PRICE,
        ),
        Column("days_to_expiry", pl.Int64(), "Calendar days from the session to `expiry`.", unit="days"),
        _count("leg_count", "Contracts of the packet.", "contracts"),
        Column("first_ts_utc", UTC_NS, "First print."),
        Column("last_ts_utc", UTC_NS, "Last print: from then on the tape showed all of the packet."),
        _count("fills", "Prints.", "prints"),
        _count("venues", "Exchanges.", "exchanges"),
        _contracts(
            "size", "Contracts; of a package the number of packages: the greatest common divisor of its legs.", checks=_POSITIVE
        ),
        _contracts("contracts", "Contracts of all legs.", checks=_POSITIVE),
        Column(
            "premium_usd", pl.Float64(), "Premium of all legs, unsigned, exact to 1/10,000 dollar.", unit="USD", checks=_POSITIVE
        ),
        Column(
            "net_premium_usd",
            pl.Float64(),
            "Premium that who began it is expected to have paid (positive) or received: sum of (2 x probability of a purchase - "
            "1) x premium over prints with a side; of a package over legs, each with its probability given the structure. Null "
            "where no print has a side.",
            unit="USD",
            nullable=True,
        ),
        _price("vwap", "Price weighted by size."),
        _price("min_price", "Lowest price."),
        _price("max_price", "Highest price."),
        _price("first_price", "Price of the first moment, weighted by size."),
        _price("last_price", "Price of the last moment, weighted by size."),
        Column(
            "buy_probability",
            pl.Float64(),
            "One contract: probability that the buyer began it, the mean over prints with a side weighted by size. Package: "
            "probability that who began it paid on balance; null where the structure does not say which legs go together. Null "
            "where no print has a side.",
            nullable=True,
            checks=_SHARE,
        ),
        _share("side_coverage", "Prints that have a probability of the side."),
        _share("nbbo_coverage", "Prints that have a bid and an ask."),
        _share(
            "aggressor_share",
            "Of the contracts with a bid and an ask: those bought at the ask or above where `buy_probability` is at least 0.5, "
            "sold at the bid or below where it is less. Null for packages, and without quotes or side.",
            nullable=True,
        ),
        Column(
            "median_quote_age_ms",
            pl.Float64(),
            "Median age of the quotes at the prints, the lower of two. A quote whose vendor does not say when it was made counts "
            "as older than any other; null where the median is such a one, and without quotes.",
            unit="ms",
            nullable=True,
            checks=_NOT_NEGATIVE,
        ),
        _share("iso_share", "Intermarket sweep orders. Says nothing of several venues being hit: see `venues`."),
        _share("auction_share", "Auctions, of packages too."),
        _share("cross_share", "Crosses."),
        _share("floor_share", "Traded on a floor."),
        Column(
            "delta",
            pl.Float64(),
            "Delta of the contract in `option_iv`; of a package the sum over legs of sign x ratio x delta, as who paid for it on "
            "balance holds it. Null without volatility of a leg, and where signs are unknown.",
            nullable=True,
            checks=(Between(-1000, 1000),),
        ),
        Column(
            "net_delta_shares",
            pl.Float64(),
            "Shares that who began it is expected to have bought through delta: (2 x buy_probability - 1) x delta x size x "
            "multiplier.",
            unit="shares",
            nullable=True,
            adjust=Adjust.SHARES,
        ),
        _contracts("open_interest_open", "Open interest of the contract at the close before; null for packages.", nullable=True),
        _contracts("volume_before", "Eligible contracts of this contract before `first_ts_utc`; null for packages.", nullable=True),
        _contracts(
            "volume_so_far", "Eligible contracts of this contract up to and with `last_ts_utc`; null for packages.", nullable=True
        ),
        _count(
            "hits_so_far",
            f"Packets of at least {HIT_CONTRACTS} contracts in this contract and of this side up to this one (its own number in "
            f"the row of hits), each at most {HIT_GAP_MINUTES} minutes after the one before. Null for packages and smaller "
            "packets.",
            "packets",
            nullable=True,
        ),
        _contracts(
            "opening_size_min",
            "Contracts that must have opened a position, for both parties: size - open_interest_open - volume_before, not below "
            "0. Null without open interest and for packages.",
            nullable=True,
        ),
        Column(
            "opening_probability",
            pl.Float64(),
            "Probability that who began it opened a position, by the declared model; null without open interest.",
            nullable=True,
            checks=_SHARE,
        ),
        Column(
            "reasons",
            pl.String(),
            "Why something is null or unnamed, joined by `; `; empty where nothing is missing. structure: other legs not found; "
            "sides unknown (of a call and a put); no name for these legs; no small ratio (of their sizes). no side "
            "(`buy_probability`): no print has one, or the directions of legs are not known. no quote: no print has a bid and an "
            "ask. no delta: `option_iv` lacks a leg, or the directions of legs are not known. no open interest "
            "(`opening_probability`): none of the close before.",
        ),
    ),
    sort_by=("underlying", "first_ts_utc", "packet_id"),
    known=KnownAtDecision(),
    checks=(NotAbove("min_price", "max_price"), NotAbove("size", "contracts")),
    may_be_empty=True,
    in_parts=True,
)

PACKET_PRINTS = Dataset(
    name="packet_prints",
    layer=Layer.DERIVED,
    doc="The evidence of each packet: its prints, by their place in `option_trades` of the session.",
    grain=("print_no",),
    columns=(
        Column(
            "print_no",
            pl.Int64(),
            "Place of the print in the session's partition of `option_trades`, from 0.",
            checks=_NOT_NEGATIVE,
        ),
        _PACKET_ID,
        Column("leg", pl.Int64(), "Number of the leg in `legs`, from 1; 1 for one contract.", checks=_POSITIVE),
        Column("contract", pl.String(), "OCC symbol without blanks."),
        Column("ts_utc", UTC_NS, "Time of the print."),
        _contracts("size", "Contracts of the print.", checks=_POSITIVE),
    ),
    sort_by=("print_no",),
    known=KnownAtDecision(),
    may_be_empty=True,
    in_parts=True,
)

FLOW_RECEIPTS = Dataset(
    name="flow_receipts",
    layer=Layer.DERIVED,
    doc=(
        f"Each contract with a claim to have been opened (packets with an opening probability of at least {OPENING_CLAIM}) "
        "against the change of its open interest. What the change proves is arithmetic: every contract traded moves open "
        "interest by at most one. An exercise moves it without a trade, and cannot be told from closing."
    ),
    grain=("contract",),
    columns=(
        Column("contract", pl.String(), "OCC symbol without blanks."),
        UNDERLYING,
        _count("claims", "Packets that claim an opening, legs of packages too.", "packets"),
        _contracts("claimed_opening", "Contracts of these packets.", checks=_POSITIVE),
        Column(
            "expected_opening",
            pl.Float64(),
            "Contracts of these packets, each weighted by its opening probability.",
            unit="contracts",
            checks=_POSITIVE,
            adjust=Adjust.CONTRACTS,
        ),
        _contracts("volume", "Eligible contracts of the session.", checks=_POSITIVE),
        _contracts(
            "open_interest_open", "Open interest at the close before; 0 for a contract new to a reported underlying.", nullable=True
        ),
        _contracts("open_interest_close", "Open interest at the session's close.", nullable=True),
        _contracts("open_interest_change", "open_interest_close - open_interest_open.", nullable=True, checks=()),
        _contracts(
            "opened_min",
            "Claimed contracts that the change proves to have been opened: change - (volume - claimed), not below 0.",
            nullable=True,
        ),
        _contracts(
            "opened_max",
            "Claimed contracts that the change lets have been opened: volume + change, not above claimed.",
            nullable=True,
        ),
        Column(
            "verdict",
            pl.String(),
            "supported: opened_min is at least half of the claim. contradicted: opened_max is less than half. undecidable: "
            "neither, or open interest is missing.",
            checks=(OneOf(VERDICTS),),
        ),
        Column("reason", pl.String(), "The verdict in words, with its numbers."),
    ),
    sort_by=("contract",),
    known=KnownAtDecision(),
    checks=(NotAbove("claimed_opening", "volume"), NotAbove("opened_min", "opened_max")),
    may_be_empty=True,
)

PACKETS = (FLOW_PACKETS, PACKET_PRINTS, FLOW_RECEIPTS)
