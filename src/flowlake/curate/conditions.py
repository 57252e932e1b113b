"""What an OPRA sale condition means for volume, price, direction and baselines: policies, as data, with names and versions.

Vendors disagree on prints that are reported late, so a policy is named after the reading that it follows, and the settings choose
one. Ids are Massive's; letters are OPRA's. Two cases that a row per condition cannot hold:

- **blank** (files before 2019-11-04 have no conditions): `unreported`. Such prints are in the vendor's bars, so they are in the
  volume and set prices; whether one was a leg of a package is unknown, so none may be signed.
- **unknown id**: `unknown`. Neither in the volume nor signed, until the policy says what it is.

A print with several conditions counts only if each of them allows it, and carries the marks of all. A policy that has been used is
never edited: a change is a new version beside the old one.
Sources: OPRA message specification (types of last sale messages); Massive's list of conditions and its rules for updating bars; the
tables of trade conditions of NxCore and ThetaData.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date

import polars as pl

from flowlake.core.errors import UsageError
from flowlake.curate.vendor_codes import DATASHOP_CONDITIONS, THETADATA_CONDITIONS
from flowlake.datasets.model import Inputs, Output
from flowlake.datasets.policies import CONDITION_POLICY, SALE_CONDITIONS, UNREPORTED, VENDOR_IDS

NO_CONDITION = 0
ALL_MUST_ALLOW = ("in_volume", "sets_price", "may_be_signed", "in_baseline", "is_single_leg")
"""Of several conditions each must allow it; the other flags are marks, of which one is enough."""
FLAGS = (
    *ALL_MUST_ALLOW,
    "is_iso",
    "is_auction",
    "is_cross",
    "is_floor",
    "is_multi_leg",
    "is_stock_tied",
    "is_late",
    "is_cancel",
)
UNKNOWN = "unknown"
CANCEL_OF_OPENING = 205
EXTENDED_HOURS = 248


@dataclass(frozen=True)
class Condition:
    """One sale condition. `may_be_signed`: single-leg, on time and not a cancel, so its direction may be inferred."""

    id: int
    letter: str
    group: str
    in_volume: bool = True
    sets_price: bool = True
    may_be_signed: bool = True
    in_baseline: bool = True
    is_single_leg: bool = True
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

    @property
    def label(self) -> str:
        return f"{self.name}@{self.version}"

    def frame(self) -> pl.DataFrame:
        """One row per id: `id`, `letter`, `group` and the flags."""
        return pl.DataFrame([vars(c) for c in self.conditions])

    def table(self) -> pl.DataFrame:
        """Rows of `sale_conditions` without the ids of vendors: one per id, and one of id 0 for prints without a condition."""
        rows = pl.DataFrame([vars(c) for c in (_UNREPORTED, *self.conditions)])
        named = rows.rename({"id": "condition", "group": "condition_group"})
        return named.with_columns(policy=pl.lit(self.name), version=pl.lit(self.version)).select(
            pl.col(column.name).cast(column.dtype) for column in SALE_CONDITIONS.columns if column.name not in VENDOR_IDS
        )


# --- The conditions ------------------------------------------------------------------------------------------------


def _cancel(id: int, letter: str) -> Condition:
    return replace(_nothing(id, letter, "cancel"), is_cancel=True)


def _late(id: int, letter: str) -> Condition:
    return replace(_nothing(id, letter, "late"), is_late=True)


def _nothing(id: int, letter: str, group: str) -> Condition:
    """Counts for nothing; whether it was one of several legs is not known."""
    return Condition(
        id, letter, group, in_volume=False, sets_price=False, may_be_signed=False, in_baseline=False, is_single_leg=False
    )


def _package(id: int, letter: str, group: str, *, is_cross: bool = False, is_floor: bool = False) -> Condition:
    return Condition(
        id,
        letter,
        group,
        may_be_signed=False,
        is_single_leg=False,
        is_cross=is_cross,
        is_floor=is_floor,
        is_multi_leg=group != "stock_tied",
        is_stock_tied=group == "stock_tied",
    )


def _volume_only(
    id: int, letter: str, group: str, *, in_baseline: bool = True, is_floor: bool = False, is_multi_leg: bool = False
) -> Condition:
    return Condition(
        id,
        letter,
        group,
        sets_price=False,
        may_be_signed=False,
        in_baseline=in_baseline,
        is_single_leg=False,
        is_floor=is_floor,
        is_multi_leg=is_multi_leg,
    )


OPRA_MASSIVE_1 = ConditionPolicy(
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
        _volume_only(247, "u", "compression", in_baseline=False),
        _volume_only(EXTENDED_HOURS, "v", "extended_hours"),
    ),
)
"""The vendor whose bars the prints are reconciled with: no late print is in its volume or sets a price of its bars."""


def _with(policy: ConditionPolicy, name: str, version: int, changed: Iterable[Condition]) -> ConditionPolicy:
    """Another policy that reads some conditions differently."""
    by_id = {condition.id: condition for condition in changed}
    return ConditionPolicy(name, version, tuple(by_id.get(condition.id, condition) for condition in policy.conditions))


OPRA_CONSOLIDATED_1 = _with(
    OPRA_MASSIVE_1,
    "opra-consolidated",
    1,
    (
        replace(_late(202, "B"), in_volume=True),
        replace(_late(204, "D"), in_volume=True, sets_price=True),
        replace(_late(206, "F"), in_volume=True),
    ),
)
"""Every contract that changed hands is in the volume, whenever it was reported. OPRA's D is late but in sequence, so it sets prices
as any print does; B and F are out of sequence, and a bar's close must not be theirs. A late print's time is that of its report: it
is not signed against the quotes of that time, and it is in no baseline."""
_SECOND = (
    Condition(208, "H", "late", may_be_signed=False, in_baseline=False, is_single_leg=False, is_late=True),
    *(replace(condition, is_auction=True) for condition in OPRA_MASSIVE_1.conditions if condition.letter in ("g", "k", "l", "r")),
)
"""What the second versions read differently. H is a late report of the opening trade, in sequence: vendors count it and let it set
prices, but its time is that of its report. An auction of legs is marked as one, as crosses and floor trades of legs were."""
OPRA_MASSIVE = _with(OPRA_MASSIVE_1, OPRA_MASSIVE_1.name, 2, _SECOND)
OPRA_CONSOLIDATED = _with(OPRA_CONSOLIDATED_1, OPRA_CONSOLIDATED_1.name, 2, _SECOND)
POLICIES = (OPRA_MASSIVE_1, OPRA_CONSOLIDATED_1, OPRA_MASSIVE, OPRA_CONSOLIDATED)
"""Every version of every policy."""


def policy_named(text: str) -> ConditionPolicy:
    """The policy `name@version`, or the newest version of `name`. Raises UsageError where there is none."""
    found = [policy for policy in POLICIES if text in (policy.name, policy.label)]
    if not found:
        known = ", ".join(policy.label for policy in POLICIES)
        raise UsageError(f"there is no condition policy {text!r}", f"give one of: {known}; without a version the newest is taken")
    return max(found, key=lambda policy: policy.version)


def policy_given(inputs: Inputs) -> ConditionPolicy:
    """The policy that a step was given as `condition_policy`, rows of `sale_conditions`; without that input the newest
    `opra-massive`."""
    rows = inputs.get(CONDITION_POLICY)
    if rows is None:
        return OPRA_MASSIVE
    conditions = [
        Condition(row["condition"], row["letter"], row["condition_group"], **{flag: row[flag] for flag in FLAGS})
        for row in rows.filter(pl.col("condition") != NO_CONDITION).iter_rows(named=True)
    ]
    return ConditionPolicy(rows["policy"][0], rows["version"][0], tuple(conditions))


def sale_conditions(inputs: Inputs, session: date) -> Output:
    """Table `sale_conditions`: every policy that can be chosen, and what vendors call each condition. It needs no input."""
    rows = pl.concat(policy.table() for policy in POLICIES)
    of_vendors = zip(VENDOR_IDS, (THETADATA_CONDITIONS, DATASHOP_CONDITIONS), strict=True)
    return Output({"sale_conditions": rows.with_columns(_vendor_ids(name, ids, rows["condition"]) for name, ids in of_vendors)})


def _vendor_ids(name: str, ids: Mapping[int, int], conditions: pl.Series) -> pl.Series:
    lists = [sorted(vendor for vendor, ours in ids.items() if ours == condition) for condition in conditions]
    return pl.Series(name, lists, dtype=pl.List(pl.Int64))


# --- Decoding ------------------------------------------------------------------------------------------------------


def decode(texts: pl.Series, policy: ConditionPolicy = OPRA_MASSIVE) -> pl.DataFrame:
    """One row per distinct text of condition ids (a comma list, blank or null), in order.

    Columns: `conditions` (as written, null kept), `condition` (the first id, 0 where there is none or it is no number),
    `condition_group` (of the first), the flags, `is_extended_hours`, `cancels_opening`.
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
            "cancels_opening": pl.Boolean(),
        },
        orient="row",
    )


def _decoded(text: str | None, table: dict[int, Condition]) -> tuple[object, ...]:
    ids = [_id(part) for part in (text or "").split(",") if part.strip()]
    met = [table[i] if i in table else _nothing(i, "", UNKNOWN) for i in ids] or [_UNREPORTED]
    flags = ((all if flag in ALL_MUST_ALLOW else any)(getattr(c, flag) for c in met) for flag in FLAGS)
    return (text, met[0].id, met[0].group, *flags, EXTENDED_HOURS in ids, CANCEL_OF_OPENING in ids)


def _id(part: str) -> int:
    part = part.strip()
    return int(part) if part.isascii() and part.isdigit() and len(part) < 10 else NO_CONDITION


_UNREPORTED = Condition(NO_CONDITION, "", UNREPORTED, may_be_signed=False, is_single_leg=False)
