"""Packets as tables: put in order, given their names, and written out with the reasons for what is null."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl

from flowlake.core.arrays import Bool, Float, Int
from flowlake.datasets.model import UTC_NS
from flowlake.datasets.packets import STRUCTURES
from flowlake.flow import _bursts, opening
from flowlake.flow._tape import TEN_THOUSANDTHS, UNDATED, Contracts, Tape
from flowlake.flow.packages import NAMELESS, NS_PER_MS

EPOCH = date(1970, 1, 1)
_SWEEP = STRUCTURES.index("sweep")
_NAMELESS = {
    "other_legs_not_found": "structure: other legs not found",
    "sides_unknown": "structure: sides unknown",
    "no_structure_of_that_shape": "structure: no name for these legs",
    "no_small_ratio": "structure: no small ratio",
}
_MISSING = ("no side", "no quote", "no delta", "no open interest")


@dataclass(frozen=True)
class Packets:
    """Packets as arrays. `group` and `leg` have one entry per print of the tape (-1: it takes no part), the rest one per packet.

    `sums` as `_bursts.gather` gives them. `first_contract` is that of the first leg. `right` is 0 and `strike` -1 where legs
    differ. `net_premium` is in ten-thousandths of a dollar. `delta` and `delta_shares` are as who paid holds the packet. `leg_*`
    describe the leg that the opening model looks at. `legs` holds the legs of packages: `package` (packet), `contract`, `ratio`,
    `sign`.
    """

    group: Int
    leg: Int
    sums: Int
    first_contract: Int
    structure: Int
    name_probability: Float
    size: Int
    leg_count: Int
    right: Int
    expiry: Int
    strike: Int
    buy_probability: Float
    net_premium: Float
    delta: Float
    delta_shares: Float
    hits: Int
    nameless: Int
    leg_size: Int
    leg_open_interest: Int
    leg_before: Int
    leg_so_far: Int
    legs: dict[str, Int]


def packets_table(found: Packets, tape: Tape, contracts: Contracts, session: date) -> pl.DataFrame:
    """The rows of `flow_packets`, in order."""
    sums, alone = found.sums, found.leg_count == 1
    size, fills, quoted = (sums[column] for column in (_bursts.SIZE, _bursts.FILLS, _bursts.QUOTED))
    bought = found.buy_probability
    age = _bursts.median_ages(found.group, fills, tape.age)
    opened = opening.probability(evidence(found, session))
    is_open_known = alone & (found.leg_open_interest >= 0)
    bound = opening.size_bound(size, found.leg_open_interest, found.leg_before)
    at_side = np.where(bought >= 0.5, sums[_bursts.AT_ASK], sums[_bursts.AT_BID])
    first, last = sums[_bursts.FIRST], sums[_bursts.LAST]
    contract = _picked(contracts.table["contract"], found.first_contract, alone)
    underlying = _picked(contracts.table["underlying"], found.first_contract)
    return pl.DataFrame(
        {
            "packet_id": _ids(underlying, contracts.underlying[found.first_contract], first, session),
            "underlying": underlying,
            "contract": contract,
            "legs": _leg_texts(found, contracts),
            "structure": _picked(pl.Series(STRUCTURES), found.structure),
            "structure_probability": _floats(found.name_probability),
            "right": _picked(pl.Series(("P", "C")), (found.right + 1) // 2, found.right != 0),
            "expiry": pl.Series(found.expiry).cast(pl.Int32).cast(pl.Date),
            "strike": _floats(found.strike / 1000.0, found.strike > 0),
            "days_to_expiry": _days(found, session),
            "leg_count": found.leg_count,
            "first_ts_utc": _moments(first),
            "last_ts_utc": _moments(last),
            "fills": fills,
            "venues": _bursts.bits(sums[_bursts.VENUES]),
            "size": found.size,
            "contracts": size,
            "premium_usd": sums[_bursts.PREMIUM] / TEN_THOUSANDTHS,
            "net_premium_usd": _floats(np.round(found.net_premium) / TEN_THOUSANDTHS),
            "vwap": _floats(sums[_bursts.PRICE_SIZE] / size / TEN_THOUSANDTHS, alone),
            "min_price": _floats(sums[_bursts.MIN_PRICE] / TEN_THOUSANDTHS, alone),
            "max_price": _floats(sums[_bursts.MAX_PRICE] / TEN_THOUSANDTHS, alone),
            "first_price": _floats(sums[_bursts.FIRST_PRICE_SIZE] / sums[_bursts.FIRST_SIZE] / TEN_THOUSANDTHS, alone),
            "last_price": _floats(sums[_bursts.LAST_PRICE_SIZE] / sums[_bursts.LAST_SIZE] / TEN_THOUSANDTHS, alone),
            "buy_probability": _floats(bought),
            "side_coverage": sums[_bursts.SIDED] / size,
            "nbbo_coverage": quoted / size,
            "aggressor_share": _floats(at_side / np.maximum(quoted, 1), alone & (quoted > 0) & ~np.isnan(bought)),
            "median_quote_age_ms": _floats(age / 1000.0, (age >= 0) & (age != UNDATED)),
            "iso_share": sums[_bursts.ISO] / size,
            "auction_share": sums[_bursts.AUCTION] / size,
            "cross_share": sums[_bursts.CROSS] / size,
            "floor_share": sums[_bursts.FLOOR] / size,
            "delta": _floats(found.delta),
            "net_delta_shares": _floats((2.0 * bought - 1.0) * found.delta_shares),
            "open_interest_open": _counts(found.leg_open_interest, is_open_known),
            "volume_before": _counts(found.leg_before, alone),
            "volume_so_far": _counts(found.leg_so_far, alone),
            "hits_so_far": _counts(found.hits, found.hits > 0),
            "opening_size_min": _counts(bound, is_open_known),
            "opening_probability": _floats(opened),
            "reasons": _reasons(found, quoted > 0),
        }
    )


def evidence(found: Packets, session: date) -> opening.Evidence:
    """What the opening model looks at."""
    return opening.Evidence(
        size=found.leg_size,
        open_interest=found.leg_open_interest,
        volume_before=found.leg_before,
        days=_days(found, session),
        hits=found.hits,
        is_sweep=found.structure == _SWEEP,
        is_package=found.leg_count > 1,
    )


def prints_table(found: Packets, packet_ids: pl.Series, tape: Tape, contracts: Contracts) -> pl.DataFrame:
    """The rows of `packet_prints`: the prints that take part, in the order of the tape."""
    chosen = np.flatnonzero(found.group >= 0)
    return pl.DataFrame(
        {
            "print_no": tape.print_no[chosen],
            "packet_id": _picked(packet_ids, found.group[chosen]),
            "leg": found.leg[chosen],
            "contract": _picked(contracts.table["contract"], tape.contract[chosen]),
            "ts_utc": _moments(tape.ts[chosen]),
            "size": tape.size[chosen],
        }
    )


def _days(found: Packets, session: date) -> Int:
    return found.expiry - (session - EPOCH).days


def _ids(underlying: pl.Series, code: Int, first: Int, session: date) -> pl.Series:
    midnight = np.datetime64(session, "ns").astype(np.int64)
    moment = (first - midnight) // NS_PER_MS
    parts = pl.DataFrame({"underlying": underlying, "moment": moment, "place": _bursts.ordinals(code, moment)})
    return parts.select(pl.concat_str("underlying", "moment", "place", separator="-").alias("packet_id")).to_series()


def _leg_texts(found: Packets, contracts: Contracts) -> pl.Series:
    """The legs of each package of several contracts as text, null for other packets."""
    legs = pl.DataFrame(
        {
            "package": found.legs["package"],
            "sign": _picked(pl.Series(("-", "?", "+")), found.legs["sign"] + 1),
            "ratio": found.legs["ratio"],
            "contract": _picked(contracts.table["contract"], found.legs["contract"]),
        }
    )
    texts = legs.select("package", pl.format("{}{} {}", "sign", "ratio", "contract").alias("legs"))
    # As lists first: to join the texts of a group as it is gathered takes three times as long.
    texts = texts.group_by("package", maintain_order=True).agg("legs").with_columns(pl.col("legs").list.join(" | "))
    row = np.full(found.leg_count.size, -1, np.int64)
    row[texts["package"].to_numpy()] = np.arange(texts.height)
    return _picked(texts["legs"], row, found.leg_count > 1)


def _reasons(found: Packets, has_quotes: Bool) -> pl.Series:
    """What is missing, by packet. Few combinations occur: each text is made once."""
    missing = (np.isnan(found.buy_probability), ~has_quotes, np.isnan(found.delta), found.leg_open_interest < 0)
    code = found.nameless.copy()
    for bit, is_missing in enumerate(missing):
        code += is_missing * (len(NAMELESS) << bit)
    texts = []
    for value in range(len(NAMELESS) << len(missing)):
        bits, nameless = divmod(value, len(NAMELESS))
        parts = [_NAMELESS[NAMELESS[nameless]]] if nameless else []
        texts.append("; ".join(parts + [text for bit, text in enumerate(_MISSING) if bits >> bit & 1]))
    return _picked(pl.Series(texts, dtype=pl.String), code)


def _picked(values: pl.Series, index: Int, valid: Bool | None = None) -> pl.Series:
    """`values` by place; null where not `valid`."""
    places = pl.Series(index if valid is None else np.where(valid, index, 0), dtype=pl.UInt32)
    return values.gather(places if valid is None else places.set(~pl.Series(valid), None))


def _floats(values: Float, valid: Bool | None = None) -> pl.Series:
    return pl.Series(values if valid is None else np.where(valid, values, np.nan), nan_to_null=True)


def _counts(values: Int, valid: Bool) -> pl.Series:
    return pl.Series(values).zip_with(pl.Series(valid), pl.Series([None], dtype=pl.Int64))


def _moments(nanoseconds: Int) -> pl.Series:
    return pl.Series(nanoseconds).cast(UTC_NS)
