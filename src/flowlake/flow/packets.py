"""From the tape to events: which prints belong together, and what is known of each event.

A print takes part when the policy of sale conditions has it in the baseline (in the volume, on time, no compression trade) and
it was not cancelled. Legs of packages go to `packages`; all other prints of a contract are put together by time
(`_bursts.chains`): prints marked as intermarket sweep on whatever venue, plain prints on whatever venue, auctions, crosses and
floor trades each on their own venue. Events of one contract and side that come back are repeated hits. Sides come from
`trade_sides`; open interest, delta and corporate actions from their tables, where these exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np

from flowlake.core import sessions
from flowlake.core.arrays import Float, Int
from flowlake.datasets.model import Inputs, Output
from flowlake.datasets.packets import (
    BLOCK_CONTRACTS,
    BURST_GAP_MS,
    BURST_SPAN_MS,
    FLOW_PACKETS,
    HIT_CONTRACTS,
    HIT_GAP_MINUTES,
    PACKET_PRINTS,
    REPEATED_HITS,
    STRUCTURES,
    SWEEP_GAP_MS,
)
from flowlake.flow import _bursts, _packet_tables, opening, packages
from flowlake.flow._packet_tables import EPOCH, Packets
from flowlake.flow._tape import MILLION, Contracts, Tape, read
from flowlake.flow.packages import NS_PER_MS

SURE = 700_000
"""Probability in millionths from which a print has a side that parts it from prints of the other side."""
HIT_SIDE = 0.6
"""Probability from which a hit has a side."""
_ISO_LANE, _PLAIN_LANE, _VENUE_LANES = 0, 1, 2
_SINGLE, _SPLIT, _SWEEP, _BLOCK, _REPEATED = (STRUCTURES.index(s) for s in ("single", "split", "sweep", "block", "repeated_hits"))


def flow_packets(inputs: Inputs, session: date) -> Output:
    """Required input: option_trades. Optional inputs: trade_sides, option_iv, open_interest, corporate_actions."""
    found, tape, contracts = find(inputs, session)
    table = _packet_tables.packets_table(found, tape, contracts, session)
    prints = _packet_tables.prints_table(found, table["packet_id"], tape, contracts)
    return Output({FLOW_PACKETS.name: table, PACKET_PRINTS.name: prints})


def find(inputs: Inputs, session: date) -> tuple[Packets, Tape, Contracts]:
    """The packets of the tape as arrays; inputs as `flow_packets`."""
    tape, contracts = read(inputs["option_trades"], inputs.get("trade_sides"), inputs.get("option_iv"))
    reported = opening.open_interest(inputs, session, sessions.previous_session(session))
    held = opening.of_contracts(reported, contracts.table)
    before, through = _bursts.volume_marks(tape.contract, tape.ts, tape.counted)
    events = _events(tape, before, through)
    found = _packages(tape, contracts, held, before, through, session)
    count = events.structure.size
    # By underlying and first print; of equals events first, by contract.
    contract = np.concatenate((events.contract, found.legs.contract[found.start]))
    order = _by_owner_and_time(contracts.underlying[contract], np.concatenate((tape.ts[events.first], found.began)))
    place = np.empty(order.size, np.int64)
    place[order] = np.arange(order.size)
    group = np.where(found.group >= 0, found.group + count, events.group)
    takes_part = group >= 0
    group[takes_part] = place[group[takes_part]]
    first, last = _bursts.edges(group, order.size)
    sums = _bursts.gather(
        group, order.size, tape.ts, tape.size, tape.price, tape.premium, tape.probability, tape.quoted, tape.marks, tape.venue
    )
    contract, size, bought = contract[order], sums[_bursts.SIZE], _buy_probability(sums)
    delta = contracts.delta[contract]
    packets = Packets(
        group=group,
        leg=found.leg,
        sums=sums,
        first_contract=contract,
        structure=np.concatenate((events.structure, found.named.structure))[order],
        hits=np.concatenate((events.hits, np.zeros(found.start.size, np.int64)))[order],
        name_probability=np.full(order.size, np.nan),
        size=size.copy(),
        leg_count=np.ones(order.size, np.int64),
        right=contracts.right[contract],
        expiry=contracts.expiry[contract],
        strike=contracts.strike[contract],
        buy_probability=bought,
        net_premium=np.where(np.isnan(bought), np.nan, sums[_bursts.NET]),
        delta=delta,
        delta_shares=delta * size * contracts.multiplier[contract],
        nameless=np.zeros(order.size, np.int64),
        leg_size=size.copy(),
        leg_open_interest=held[contract],
        leg_before=before[first],
        leg_so_far=through[last],
        legs={
            "package": place[found.legs.package + count],
            "contract": found.legs.contract,
            "ratio": found.named.ratio,
            "sign": found.named.sign,
        },
    )
    _describe(packets, found, place[count:], contracts)
    return packets, tape, contracts


def _by_owner_and_time(owner: Int, ts: Int) -> Int:
    """Stable order by owner, then time: one key where both fit into it, which sorts three times as fast."""
    if not ts.size:
        return ts
    first = int(ts.min())
    span = int(ts.max()) - first + 1
    if (int(owner.max()) + 1) * span < 2**63:
        return np.argsort(owner * span + (ts - first), kind="stable")
    return np.lexsort((ts, owner))


@dataclass(frozen=True)
class Events:
    """Events of single contracts, by contract and beginning. `group`: event of each print, or -1. `first`: print it began with."""

    group: Int
    first: Int
    contract: Int
    structure: Int
    hits: Int


@dataclass(frozen=True)
class Found:
    """Packages. `group` and `leg` per print of the tape, `leg_before` and `leg_so_far` per leg, the rest per package; `start` is
    its first leg, `began` its first moment."""

    group: Int
    leg: Int
    start: Int
    began: Int
    legs: packages.Legs
    leg_before: Int
    leg_so_far: Int
    named: packages.Named


def _events(tape: Tape, before: Int, through: Int) -> Events:
    lane = _lanes(tape)
    gap = np.full(int(lane.max(initial=0)) + 1, BURST_GAP_MS * NS_PER_MS, np.int64)
    gap[_ISO_LANE] = SWEEP_GAP_MS * NS_PER_MS
    chain = _bursts.chains(tape.contract, tape.ts, lane, gap, BURST_SPAN_MS * NS_PER_MS)
    chain_count = int(chain.max(initial=-1)) + 1
    event, count = _bursts.events(chain, chain_count, tape.contract, tape.ts, lane, tape.size, tape.probability, SURE)
    first, last = _bursts.edges(event, count)
    sums = _bursts.outline(event, count, tape.size, tape.probability, tape.marks, tape.venue)
    structure = _event_structures(sums)
    place, target = _bursts.hits(
        tape.contract[first],
        tape.ts[first],
        sums[_bursts.SIZE],
        _sides(_buy_probability(sums)),
        np.isin(structure, (_SINGLE, _SPLIT)),
        before[first],
        through[last],
        HIT_CONTRACTS,
        HIT_GAP_MINUTES * 60_000 * NS_PER_MS,
        REPEATED_HITS,
    )
    leads = target == np.arange(count)
    if not leads.all():
        structure[target[~leads]] = _REPEATED
        np.maximum.at(place, target[~leads], place[~leads])
        number = np.cumsum(leads) - 1
        event = np.where(event >= 0, number[target[event]], _bursts.UNKNOWN)
        first, structure, place = first[leads], structure[leads], place[leads]
    return Events(event, first, tape.contract[first], structure, place)


def _lanes(tape: Tape) -> Int:
    """Which prints can belong together: the sweeps, the plain ones, and per venue the auctions, crosses and floor trades."""
    on_venue = _VENUE_LANES + tape.venue.astype(np.int64)
    lane = np.full(tape.ts.size, _PLAIN_LANE, np.int64)
    for kind, bit in enumerate((_bursts.IS_AUCTION, _bursts.IS_CROSS, _bursts.IS_FLOOR)):
        lane = np.where(tape.marks & bit, on_venue + kind * tape.venues, lane)
    lane = np.where(tape.marks & _bursts.IS_ISO, _ISO_LANE, lane)
    return np.where(tape.takes_part & ~tape.is_leg, lane, _bursts.UNKNOWN)


def _event_structures(sums: Int) -> Int:
    """Single, split, sweep or block; the venues decide, and the mark of a sweep where there are several fills."""
    several = sums[_bursts.FILLS] > 1
    venues = sums[_bursts.VENUES]
    is_sweep = several & ((sums[_bursts.ISO] > 0) | (venues & (venues - 1) != 0))
    is_block = ~several & (sums[_bursts.SIZE] >= BLOCK_CONTRACTS)
    return np.where(is_sweep, _SWEEP, np.where(several, _SPLIT, np.where(is_block, _BLOCK, _SINGLE)))


def _buy_probability(sums: Int) -> Float:
    """Mean over the contracts with a side; NaN where there are none."""
    sided = sums[_bursts.SIDED]
    whole = np.round(sums[_bursts.BOUGHT] / np.maximum(sided, 1)) / MILLION
    return np.where(sided > 0, whole, np.nan)


def _sides(probability: Float) -> Int:
    return (probability >= HIT_SIDE).astype(np.int64) - (probability <= 1.0 - HIT_SIDE)


def _packages(tape: Tape, contracts: Contracts, held: Int, before: Int, through: Int, session: date) -> Found:
    """Packages, and legs whose package was not found."""
    chosen = np.flatnonzero(tape.takes_part & tape.is_leg)
    own = tape.only(chosen)
    package = packages.group(contracts.underlying[own.contract], own.venue, own.condition, own.contract, own.ts, own.size)
    count = int(package.max(initial=-1)) + 1
    legs, leg_of_print, first, last = _legs(own, package, contracts, held)
    stock_tied = np.zeros(count, np.bool_)
    stock_tied[package[own.is_stock_tied]] = True
    start = np.searchsorted(legs.package, np.arange(count))
    group, leg = np.full(tape.ts.size, _bursts.UNKNOWN, np.int64), np.ones(tape.ts.size, np.int64)
    group[chosen], leg[chosen] = package, leg_of_print - start[package] + 1
    return Found(
        group=group,
        leg=leg,
        start=start,
        began=np.minimum.reduceat(own.ts[first], start) if count else start,
        legs=legs,
        leg_before=before[chosen[first]],
        leg_so_far=through[chosen[last]],
        named=packages.name(legs, count, (session - EPOCH).days, stock_tied),
    )


def _describe(into: Packets, found: Found, at: Int, contracts: Contracts) -> None:
    """Write what packages are over what was written of them as if they had one contract; `at` is the place of each."""
    legs, named, start = found.legs, found.named, found.start
    if not start.size:
        return
    unit = np.where(named.sign == 0, np.nan, named.sign * contracts.delta[legs.contract])
    boldest = _boldest(legs, found.leg_before, start)
    unreported = np.minimum.reduceat(legs.open_interest, start) < 0
    for column, values in (
        (into.name_probability, named.name_probability),
        (into.size, named.size),
        (into.leg_count, np.bincount(legs.package)),
        (into.right, _shared(legs.right, start, 0)),
        (into.expiry, legs.expiry[start]),
        (into.strike, _shared(legs.strike, start, _bursts.UNKNOWN)),
        (into.buy_probability, named.pay_probability),
        (into.net_premium, named.net_premium),
        (into.delta, np.add.reduceat(unit * named.ratio, start)),
        (into.delta_shares, np.add.reduceat(unit * legs.size * contracts.multiplier[legs.contract], start)),
        (into.nameless, named.nameless),
        (into.leg_size, legs.size[boldest]),
        (into.leg_open_interest, np.where(unreported, opening.UNKNOWN, legs.open_interest[boldest])),
        (into.leg_before, found.leg_before[boldest]),
        (into.leg_so_far, found.leg_so_far[boldest]),
    ):
        column[at] = values


def _legs(own: Tape, package: Int, contracts: Contracts, held: Int) -> tuple[packages.Legs, Int, Int, Int]:
    """The legs of the packages; the leg of each print; the first and the last print of each leg."""
    by_leg = np.lexsort((own.contract, package))
    starts = np.flatnonzero(np.diff(package[by_leg], prepend=-1) | np.diff(own.contract[by_leg], prepend=-1))
    contract, of = own.contract[by_leg][starts], package[by_leg][starts]
    order = np.lexsort((contract, contracts.strike[contract], -contracts.right[contract], contracts.expiry[contract], of))
    place = np.empty(order.size, np.int64)
    place[order] = np.arange(order.size)
    leg_of_print = np.empty(by_leg.size, np.int64)
    leg_of_print[by_leg] = place[np.repeat(np.arange(starts.size), np.diff(starts, append=by_leg.size))]
    sums = _bursts.outline(leg_of_print, order.size, own.size, own.probability, own.marks, own.venue)
    premium = np.bincount(leg_of_print, own.premium, order.size).astype(np.int64)
    first, last = _bursts.edges(leg_of_print, order.size)
    contract = contract[order]
    return (
        packages.Legs(
            package=of[order],
            contract=contract,
            root=contracts.root[contract],
            adjusted=contracts.adjusted[contract],
            expiry=contracts.expiry[contract],
            right=contracts.right[contract],
            strike=contracts.strike[contract],
            size=sums[_bursts.SIZE],
            premium=premium,
            buy_probability=_buy_probability(sums),
            open_interest=held[contract],
        ),
        leg_of_print,
        first,
        last,
    )


def _boldest(legs: packages.Legs, before: Int, start: Int) -> Int:
    """Of each package the leg that is largest against what could be closed of it; of equals the first."""
    boldness = legs.size / (np.maximum(legs.open_interest, 0) + before + 1.0)
    most = np.maximum.reduceat(boldness, start)[legs.package]
    place = np.where(boldness == most, np.arange(most.size), most.size)
    return np.minimum.reduceat(place, start)


def _shared(values: Int, start: Int, otherwise: int) -> Int:
    """The value that all legs of a package have, else `otherwise`."""
    low, high = np.minimum.reduceat(values, start), np.maximum.reduceat(values, start)
    return np.where(low == high, low, otherwise)
