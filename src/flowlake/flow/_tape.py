"""The tape as arrays: prints and contracts by number, for the kernels of `packets`."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import polars as pl

from flowlake.core.arrays import AnyArray, Bool, Float, Int
from flowlake.datasets.curated import CONTRACT_KEY
from flowlake.datasets.matrices import floats
from flowlake.flow import _bursts
from flowlake.flow._bursts import UNKNOWN
from flowlake.flow.packages import leg_probability

TEN_THOUSANDTHS = 10_000
MILLION = 1_000_000
_MARKS = (
    ("is_iso", _bursts.IS_ISO),
    ("is_auction", _bursts.IS_AUCTION),
    ("is_cross", _bursts.IS_CROSS),
    ("is_floor", _bursts.IS_FLOOR),
)
_INSIDE, _AT_ASK, _AT_BID = 1, 2, 3
UNDATED = int(np.iinfo(np.int64).max)
"""The age of a quote of which nobody says when it was made: older than any other, so that it never makes a median young."""


@dataclass(frozen=True)
class Tape:
    """Prints in the order of contract and time, as arrays of one length.

    `print_no` is the row of `option_trades`, `contract` a number in order, `ts` nanoseconds, `price` and `premium` ten-thousandths
    of a dollar, `venue` a number from 0, `marks` bits of `_bursts`, `counted` the size where it is in the volume and 0 elsewhere.
    `probability` of a purchase is in millionths, `quoted` as in `_bursts.gather`, `age` of the quote in microseconds, `UNDATED` of
    one that does not tell; -1: not known, no quote.
    """

    print_no: Int
    contract: Int
    ts: Int
    size: Int
    price: Int
    premium: Int
    condition: Int
    venue: AnyArray
    marks: AnyArray
    counted: Int
    takes_part: Bool
    is_leg: Bool
    is_stock_tied: Bool
    probability: Int
    quoted: AnyArray
    age: Int

    @property
    def venues(self) -> int:
        return int(self.venue.max(initial=-1)) + 1

    def only(self, chosen: Int) -> Tape:
        return Tape(*(getattr(self, f.name)[chosen] for f in fields(Tape)))


@dataclass(frozen=True)
class Contracts:
    """The contracts of a tape in its order. `underlying` and `root` count in the order of names, `expiry` in days since 1970,
    `right` is +1 or -1, `strike` in thousandths of a dollar. `adjusted` is 0, of a root for an adjusted deliverable (it ends in a
    digit) its number + 1. `delta` is NaN where `option_iv` has none."""

    table: pl.DataFrame
    underlying: Int
    root: Int
    adjusted: Int
    expiry: Int
    right: Int
    strike: Int
    multiplier: Float
    delta: Float


def read(trades: pl.DataFrame, sides: pl.DataFrame | None, volatility: pl.DataFrame | None) -> tuple[Tape, Contracts]:
    """Arrays of `option_trades`, with what `trade_sides` says of its rows and `option_iv` of its contracts.

    A partition is in order already; other frames are brought into the order of contract and time first. `sides` names prints by
    `print_no`, so that it may lack some; without that column the rows of `trades` are counted from 0.
    """
    rows = trades if "print_no" in trades.columns else trades.with_row_index("print_no")
    run = rows["contract"].rle_id().to_numpy()
    ts = rows["ts_utc"].to_physical().to_numpy()
    heads = _heads(rows, run)
    if heads["contract"].n_unique() < heads.height or not np.all((np.diff(ts) >= 0) | (np.diff(run) > 0)):
        rows = rows.sort(*CONTRACT_KEY, "contract", "ts_utc", "print_no")
        run = rows["contract"].rle_id().to_numpy()
        ts = rows["ts_utc"].to_physical().to_numpy()
        heads = _heads(rows, run)
    size, price = rows["size"].to_numpy(), _scaled(rows["price"], TEN_THOUSANDTHS)
    marks = np.zeros(run.size, np.uint8)
    for column, bit in _MARKS:
        marks |= rows[column].to_numpy().astype(np.uint8) * np.uint8(bit)
    in_volume = rows["in_volume"].to_numpy() & ~rows["is_cancelled"].to_numpy()
    is_leg = (rows["is_multi_leg"] | rows["is_stock_tied"]).to_numpy()
    probability, quoted, age = _sides(rows["print_no"].to_numpy().astype(np.int64), price, is_leg, sides)
    tape = Tape(
        print_no=rows["print_no"].to_numpy().astype(np.int64),
        contract=run.astype(np.int64),
        ts=np.ascontiguousarray(ts, np.int64),
        size=np.ascontiguousarray(size, np.int64),
        price=price,
        premium=_scaled(rows["premium_usd"], TEN_THOUSANDTHS),
        condition=rows["condition"].to_numpy(),
        venue=np.searchsorted(rows["exchange"].unique().sort().to_numpy(), rows["exchange"].to_numpy()).astype(np.int16),
        marks=marks,
        counted=np.where(in_volume, size, 0),
        takes_part=rows["in_baseline"].to_numpy() & ~rows["is_cancelled"].to_numpy(),
        is_leg=is_leg,
        is_stock_tied=rows["is_stock_tied"].to_numpy(),
        probability=probability,
        quoted=quoted,
        age=age,
    )
    return tape, _contracts(heads, volatility)


def _heads(rows: pl.DataFrame, run: AnyArray) -> pl.DataFrame:
    """The first row of each run."""
    starts = np.flatnonzero(np.diff(run.astype(np.int64), prepend=-1))
    return rows.select(pl.all().gather(pl.Series(starts)))


def _contracts(heads: pl.DataFrame, volatility: pl.DataFrame | None) -> Contracts:
    delta = np.full(heads.height, np.nan)
    if volatility is not None:
        found = heads.select("contract").join(
            volatility.select("contract", "delta"), on="contract", how="left", maintain_order="left"
        )
        delta = floats(found["delta"]).copy()
    root = heads["root"].rank("dense").to_numpy().astype(np.int64) - 1
    multiplier = (pl.col("premium_usd") / (pl.col("price") * pl.col("size"))).round(4)
    return Contracts(
        table=heads.select("contract", "underlying", *CONTRACT_KEY),
        underlying=heads["underlying"].rank("dense").to_numpy().astype(np.int64) - 1,
        root=root,
        adjusted=np.where(heads["root"].str.contains(r"\d$").to_numpy(), root + 1, 0),
        expiry=heads["expiry"].to_physical().to_numpy().astype(np.int64),
        right=np.where((heads["right"] == "C").to_numpy(), 1, -1).astype(np.int64),
        strike=_scaled(heads["strike"], 1000),
        multiplier=heads.select(multiplier).to_series().to_numpy(),
        delta=delta,
    )


def _sides(print_no: Int, price: Int, is_leg: Bool, sides: pl.DataFrame | None) -> tuple[Int, AnyArray, Int]:
    """Probability, place against the quote and age of the quote, of prints by their numbers.

    A leg of a package has the probability of its place in the spread where `trade_sides`, which signs single legs, has none.
    """
    probability, age = np.full(print_no.size, UNKNOWN, np.int64), np.full(print_no.size, UNKNOWN, np.int64)
    quoted = np.zeros(print_no.size, np.uint8)
    if sides is None:
        return probability, quoted, age
    row = rows_of(print_no, sides)
    known = row >= 0
    row = row[known]
    bid, ask = (_scaled(sides[name], TEN_THOUSANDTHS)[row] for name in ("bid", "ask"))
    two_sided = (bid >= 0) & (ask >= 0)
    is_market = two_sided & (bid < ask)
    bought = _scaled(sides["buy_probability"], MILLION)[row]
    by_place = is_market & is_leg[known] & (bought < 0)
    bought[by_place] = np.round(MILLION * leg_probability(price[known][by_place], bid[by_place], ask[by_place]))
    probability[known] = bought
    at_ask, at_bid = is_market & (price[known] >= ask), is_market & (price[known] <= bid)
    quoted[known] = np.where(two_sided, np.where(at_ask, _AT_ASK, np.where(at_bid, _AT_BID, _INSIDE)), 0)
    told = _scaled(sides["quote_age_ms"], 1000)[row]
    age[known] = np.where(two_sided, np.where(told >= 0, told, UNDATED), UNKNOWN)
    return probability, quoted, age


def rows_of(print_no: Int, sides: pl.DataFrame) -> Int:
    """The row of `trade_sides` of each print, by its number; `UNKNOWN` where it has none."""
    there = sides["print_no"].to_numpy().astype(np.int64)
    if not there.size or not print_no.size:
        return np.full(print_no.size, UNKNOWN, np.int64)
    first = min(int(there.min()), int(print_no.min()))
    row = np.full(max(int(there.max()), int(print_no.max())) - first + 1, UNKNOWN, np.int64)
    row[there - first] = np.arange(there.size)
    found: Int = row[print_no - first]
    return found


def _scaled(values: pl.Series, scale: int) -> Int:
    """Whole multiples of 1/scale; -1 for null."""
    whole = (values.cast(pl.Float64) * scale).round().cast(pl.Int64)
    return np.ascontiguousarray(whole.fill_null(UNKNOWN).to_numpy(), np.int64)
