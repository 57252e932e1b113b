"""Curated layer: what sale conditions mean, a table of the policies that are declared in `flowlake.curate.conditions`."""

from __future__ import annotations

import polars as pl

from flowlake.datasets.checks import Between, Matches
from flowlake.datasets.model import Column, Dataset, KnownAtClose, Layer

CONDITION_POLICY = "condition_policy"
"""The input of a step that holds the rows of the policy that the settings chose. A partition records it as
`condition_policy:name@version`, so that another policy, or other rows of the same, make it stale."""
UNREPORTED = "unreported"
"""Condition group of prints without a sale condition: whether they were auctions or legs is not known."""

VENDOR_IDS = ("thetadata_ids", "datashop_ids")
"""Columns of `sale_conditions` that say what vendors call a condition. They are no part of a policy."""
LATE_IN_BARS = frozenset({208})
"""Conditions of late prints that vendors' bars count as any other (OPRA's H), so that they explain no difference from the bars."""


def _flag(name: str, doc: str) -> Column:
    return Column(name, pl.Boolean(), doc)


SALE_CONDITIONS = Dataset(
    name="sale_conditions",
    layer=Layer.CURATED,
    doc=(
        "What each OPRA sale condition means under each policy that can be chosen. `option_trades` follows the one that its footer "
        "names; of a print with several conditions all must allow what is allowed, and one is enough for a mark (`is_...`)."
    ),
    grain=("policy", "version", "condition"),
    columns=(
        Column("policy", pl.String(), "Name of the policy.", checks=(Matches("^[a-z][a-z0-9-]*$"),)),
        Column("version", pl.Int64(), "Version of the policy; one that has been used is never edited.", checks=(Between(1),)),
        Column("condition", pl.Int64(), "Massive's id of the condition; 0 is a print without one.", checks=(Between(0),)),
        Column("letter", pl.String(), "OPRA's letter of the condition; empty for a print without one."),
        Column("condition_group", pl.String(), "Group of the condition, such as regular, late or multi_leg."),
        _flag("in_volume", "Counts in the volume."),
        _flag("sets_price", "May set a bar's open, high, low or close."),
        _flag("may_be_signed", "Single-leg and on time: its direction may be inferred."),
        _flag("in_baseline", "Ordinary trading, reported on time: enters packets and the baselines that they are scored against."),
        _flag("is_single_leg", "Known to be an order in one contract."),
        _flag("is_multi_leg", "Leg of a multi-leg package."),
        _flag("is_stock_tied", "Leg of a package with stock."),
        _flag("is_iso", "Intermarket sweep order."),
        _flag("is_auction", "Auction; from version 2 on also of legs of packages, as crosses and floor trades are."),
        _flag("is_cross", "Cross."),
        _flag("is_floor", "Traded on a floor."),
        _flag("is_late", "Reported late or out of sequence."),
        _flag("is_cancel", "Cancels an earlier print, and is none itself."),
        *(
            Column(name, pl.List(pl.Int64()), f"{vendor}'s ids that are read as this condition, the same in every policy.")
            for name, vendor in zip(VENDOR_IDS, ("ThetaData", "Cboe DataShop"), strict=True)
        ),
    ),
    sort_by=("policy", "version", "condition"),
    known=KnownAtClose(),
)
