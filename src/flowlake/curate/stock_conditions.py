"""What a sale condition of a stock trade means: a policy, as data, with a name and a version.

Ids are Massive's, letters those of the consolidated tape (CTA and UTP). Whether a trade counts in the volume and may set the last
price follows the consolidated columns of the sale condition tables of the CTA and UTP specifications, as Massive's glossary of
conditions and indicators repeats them per id. Public copies of that glossary disagree on 29 and 31 to 33: the names of the newer
one are used, and the reading that allows less.

`has_current_price` is this project's: the price is that of the moment of the report. It is not for averages, for prices
derived from another instrument or taken from an earlier moment, for stock legs of packages, for other settlement and for reports
out of sequence.

- **blank** is a regular sale: so the vendor writes it.
- **unknown id**: `unknown`. Neither in the volume nor priced, until the policy says what it is.

A trade with several conditions counts only if each of them allows it, and carries the marks of all. Its group is that of the
condition that takes most away.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

REGULAR = 0
UNKNOWN = "unknown"
_ALL_MUST_ALLOW = ("in_volume", "sets_price", "has_current_price")
_ANY_MARKS = (
    "is_average_price",
    "is_derivatively_priced",
    "is_contingent",
    "is_odd_lot",
    "is_extended_hours",
    "is_out_of_sequence",
)
FLAGS = (*_ALL_MUST_ALLOW, *_ANY_MARKS)


@dataclass(frozen=True)
class StockCondition:
    """One sale condition of stock trades."""

    id: int
    letter: str
    group: str
    in_volume: bool = True
    sets_price: bool = True
    has_current_price: bool = True
    is_average_price: bool = False
    is_derivatively_priced: bool = False
    is_contingent: bool = False
    is_odd_lot: bool = False
    is_extended_hours: bool = False
    is_out_of_sequence: bool = False


@dataclass(frozen=True)
class StockConditionPolicy:
    """A named, versioned reading of the sale conditions of stock trades."""

    name: str
    version: int
    conditions: tuple[StockCondition, ...]

    def frame(self) -> pl.DataFrame:
        """One row per id: `id`, `letter`, `group` and the flags."""
        return pl.DataFrame([vars(c) for c in self.conditions])


def _regular(id: int, letter: str, group: str = "regular") -> StockCondition:
    return StockCondition(id, letter, group)


def _late(id: int, letter: str, *, extended: bool = False, sets_price: bool = False) -> StockCondition:
    return StockCondition(
        id,
        letter,
        "out_of_sequence",
        sets_price=sets_price,
        has_current_price=False,
        is_extended_hours=extended,
        is_out_of_sequence=True,
    )


def _not_now(id: int, letter: str, group: str, mark: str = "") -> StockCondition:
    """In the volume; its price is not of the moment."""
    marks = {mark: True} if mark else {}
    return StockCondition(id, letter, group, sets_price=False, has_current_price=False, **marks)


def _marker(id: int, letter: str) -> StockCondition:
    """A message that repeats a price; no trade."""
    return StockCondition(id, letter, "price_marker", in_volume=False, sets_price=False, has_current_price=False)


STOCK_MASSIVE = StockConditionPolicy(
    name="consolidated-tape-massive",
    version=1,
    conditions=(
        _regular(REGULAR, "@"),
        _regular(1, "A", "acquisition"),
        _not_now(2, "W", "average_price", "is_average_price"),
        _regular(3, ""),
        _regular(4, "B", "bunched"),
        _late(5, "G"),
        _regular(6, "", "cap_election"),
        _not_now(7, "C", "settlement"),
        _regular(8, "6", "closing"),
        _regular(9, "X", "cross"),
        _not_now(10, "4", "derivatively_priced", "is_derivatively_priced"),
        _regular(11, "D", "distribution"),
        StockCondition(12, "T", "extended_hours", sets_price=False, is_extended_hours=True),
        _late(13, "U", extended=True),
        _regular(14, "F", "iso"),
        _marker(15, "M"),
        _marker(16, "Q"),
        _regular(17, "", "opening"),
        _regular(18, "", "opening"),
        _regular(19, "", "closing"),
        _not_now(20, "N", "settlement"),
        _not_now(21, "H", "price_variation"),
        _not_now(22, "P", "prior_reference_price", "is_derivatively_priced"),
        _regular(23, "K"),
        _regular(24, ""),
        _regular(25, "O", "opening"),
        _regular(27, "1"),
        _regular(28, "5", "opening"),
        _not_now(29, "R", "settlement"),
        _late(30, "L", sets_price=True),
        _late(31, ""),
        _late(32, "Z"),
        _late(33, "Z"),
        _regular(34, "S"),
        _not_now(35, "", "contingent", "is_contingent"),
        _regular(36, "Y"),
        StockCondition(37, "I", "odd_lot", sets_price=False, is_odd_lot=True),
        _marker(38, "9"),
        _regular(41, "", "trade_through_exempt"),
        _not_now(52, "V", "contingent", "is_contingent"),
        _not_now(53, "7", "contingent", "is_contingent"),
        _regular(55, "", "opening"),
    ),
)


def decode(texts: pl.Series, policy: StockConditionPolicy = STOCK_MASSIVE) -> pl.DataFrame:
    """One row per distinct text of condition ids (a comma list, blank or null), in order.

    Columns: `conditions` (as written, null kept), `condition` (the first id, 0 where there is none or it is no number),
    `condition_group`, and the flags.
    """
    table = {c.id: c for c in policy.conditions}
    written = texts.cast(pl.String).unique().sort(nulls_last=True).to_list()
    return pl.DataFrame(
        [_decoded(text, table) for text in written],
        schema={
            "conditions": pl.String(),
            "condition": pl.Int64(),
            "condition_group": pl.String(),
            **{flag: pl.Boolean() for flag in FLAGS},
        },
        orient="row",
    )


def _decoded(text: str | None, table: dict[int, StockCondition]) -> tuple[object, ...]:
    parts = [part.strip() for part in (text or "").split(",") if part.strip()]
    met = [_condition(part, table) for part in parts] or [table[REGULAR]]
    flags = ((all if flag in _ALL_MUST_ALLOW else any)(getattr(c, flag) for c in met) for flag in FLAGS)
    # The first of those that allow least: a trade-through exemption beside a contingent trade says less than the latter.
    group = min(met, key=lambda c: (c.in_volume, c.has_current_price, c.sets_price, c.group == "trade_through_exempt")).group
    return (text, met[0].id, group, *flags)


def _condition(part: str, table: dict[int, StockCondition]) -> StockCondition:
    id = int(part) if part.isascii() and part.isdigit() and len(part) < 10 else -1
    known = table.get(id)
    return known or StockCondition(max(id, 0), "", UNKNOWN, in_volume=False, sets_price=False, has_current_price=False)
