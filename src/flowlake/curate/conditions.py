"""What an OPRA sale condition means for volume, price and direction: a policy, as data, with a name and a version.

Vendors disagree (Massive leaves late prints out of the volume, others keep condition D), so the policy is named after the one
it follows. Ids are Massive's; letters are OPRA's. Two cases that the table cannot hold:

- **blank** (files before 2019-11-04 have no conditions): `unreported`. Such prints are in the vendor's bars, so they are in the
  volume and set prices; whether one was a leg of a package is unknown, so none may be signed.
- **unknown id**: `unknown`. Neither in the volume nor signed, until the policy says what it is.

A print with several conditions counts only if each of them allows it, and carries the marks of all.
Source: OPRA message specification; Massive's list of conditions and its rules for updating bars.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

NO_CONDITION = 0
FLAGS = (
    "in_volume",
    "sets_price",
    "may_be_signed",
    "is_iso",
    "is_auction",
    "is_cross",
    "is_floor",
    "is_multi_leg",
    "is_stock_tied",
    "is_late",
    "is_cancel",
)
_ALL_MUST_ALLOW = FLAGS[:3]
UNREPORTED = "unreported"
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Condition:
    """One sale condition. `may_be_signed`: single-leg, on time and not a cancel, so its direction may be inferred."""

    id: int
    letter: str
    group: str
    in_volume: bool = True
    sets_price: bool = True
    may_be_signed: bool = True
    is_iso: bool = False
    is_auction: bool = False
    is_cross: bool = False
    is_floor: bool = False
    is_multi_leg: bool = False
    is_stock_tied: bool = False
    is_late: bool = False
    is_cancel: bool = False


@dataclass(frozen=True)
class ConditionPolicy:
    """A named, versioned reading of the sale conditions."""

    name: str
    version: int
    conditions: tuple[Condition, ...]

    def frame(self) -> pl.DataFrame:
        """One row per id: `id`, `letter`, `group` and the flags."""
        return pl.DataFrame([vars(c) for c in self.conditions])


def _cancel(id: int, letter: str) -> Condition:
    return Condition(id, letter, "cancel", in_volume=False, sets_price=False, may_be_signed=False, is_cancel=True)


def _late(id: int, letter: str) -> Condition:
    return Condition(id, letter, "late", in_volume=False, sets_price=False, may_be_signed=False, is_late=True)


def _package(id: int, letter: str, group: str, *, is_cross: bool = False, is_floor: bool = False) -> Condition:
    return Condition(
        id,
        letter,
        group,
        may_be_signed=False,
        is_cross=is_cross,
        is_floor=is_floor,
        is_multi_leg=group != "stock_tied",
        is_stock_tied=group == "stock_tied",
    )


def _volume_only(id: int, letter: str, group: str, *, is_floor: bool = False, is_multi_leg: bool = False) -> Condition:
    return Condition(id, letter, group, sets_price=False, may_be_signed=False, is_floor=is_floor, is_multi_leg=is_multi_leg)


EXTENDED_HOURS = 248
OPRA_MASSIVE = ConditionPolicy(
    name="opra-massive",
    version=1,
    conditions=(
        _cancel(201, "A"),
        _late(202, "B"),
        _cancel(203, "C"),
        _late(204, "D"),
        _cancel(205, "E"),
        _late(206, "F"),
        _cancel(207, "G"),
        Condition(208, "H", "regular"),
        Condition(209, "I", "regular"),
        Condition(210, "J", "regular"),
        Condition(219, "S", "iso", is_iso=True),
        Condition(227, "a", "auction", is_auction=True),
        Condition(228, "b", "auction", is_auction=True, is_iso=True),
        Condition(229, "c", "cross", is_cross=True),
        Condition(230, "d", "cross", is_cross=True, is_iso=True),
        Condition(231, "e", "floor", is_floor=True),
        _package(232, "f", "multi_leg"),
        _package(233, "g", "multi_leg"),
        _package(234, "h", "multi_leg", is_cross=True),
        _package(235, "i", "multi_leg", is_floor=True),
        _package(236, "j", "multi_leg_against_single"),
        _package(237, "k", "stock_tied"),
        _package(238, "l", "multi_leg_against_single"),
        _package(239, "m", "multi_leg_against_single", is_floor=True),
        _package(240, "n", "stock_tied"),
        _package(241, "o", "stock_tied", is_cross=True),
        _package(242, "p", "stock_tied", is_floor=True),
        _package(243, "q", "stock_tied"),
        _package(244, "r", "stock_tied"),
        _package(245, "s", "stock_tied", is_floor=True),
        _volume_only(246, "t", "proprietary_floor", is_floor=True, is_multi_leg=True),
        _volume_only(247, "u", "compression"),
        _volume_only(EXTENDED_HOURS, "v", "extended_hours"),
    ),
)


def decode(texts: pl.Series, policy: ConditionPolicy = OPRA_MASSIVE) -> pl.DataFrame:
    """One row per distinct text of condition ids (a comma list, blank or null), in order.

    Columns: `conditions` (as written, null kept), `condition` (the first id, 0 where there is none or it is no number),
    `condition_group` (of the first), the flags, `is_extended_hours`.
    """
    table = {c.id: c for c in policy.conditions}
    written = texts.cast(pl.String).unique().sort(nulls_last=True).to_list()
    rows = [_decoded(text, table) for text in written]
    return pl.DataFrame(
        rows,
        schema={
            "conditions": pl.String(),
            "condition": pl.Int64(),
            "condition_group": pl.String(),
            **{flag: pl.Boolean() for flag in FLAGS},
            "is_extended_hours": pl.Boolean(),
        },
        orient="row",
    )


def _decoded(text: str | None, table: dict[int, Condition]) -> tuple[object, ...]:
    ids = [_id(part) for part in (text or "").split(",") if part.strip()]
    met = [table[i] if i in table else _not_in_policy(i) for i in ids] or [_UNREPORTED]
    flags = ((all if flag in _ALL_MUST_ALLOW else any)(getattr(c, flag) for c in met) for flag in FLAGS)
    return (text, met[0].id, met[0].group, *flags, EXTENDED_HOURS in ids)


def _id(part: str) -> int:
    part = part.strip()
    return int(part) if part.isascii() and part.isdigit() and len(part) < 10 else NO_CONDITION


def _not_in_policy(id: int) -> Condition:
    return Condition(id, "", UNKNOWN, in_volume=False, sets_price=False, may_be_signed=False)


_UNREPORTED = Condition(NO_CONDITION, "", UNREPORTED, may_be_signed=False)
