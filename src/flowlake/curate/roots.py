"""Option roots: what a contract delivers or settles on, and on which terms.

The house file `contract_roots.csv` wins; then `flowlake.datasets.roots`; any other root is an American, physically settled contract
on 100 shares of the ticker that the root spells, without the digit that marks an adjusted contract.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Literal

import polars as pl

from flowlake.datasets.roots import AMERICAN_PM, KNOWN_ROOTS

DEFAULT_MULTIPLIER = 100.0


@dataclass(frozen=True)
class ChainRoots:
    """The roots under which one underlying lists monthlies and everything else.

    `monthly_dates` is `shared` where the other root lists the monthly dates too, so that the date alone does not tell.
    """

    monthly: str
    other: str
    monthly_dates: Literal["shared", "own"]


CHAIN_ROOTS = {
    "SPX": ChainRoots("SPX", "SPXW", "shared"),
    "NDX": ChainRoots("NDX", "NDXP", "shared"),
    "RUT": ChainRoots("RUT", "RUTW", "shared"),
    "VIX": ChainRoots("VIX", "VIXW", "own"),
}
"""Underlyings whose options trade under two roots; any other underlying has one, its own ticker."""

TERMS_SCHEMA = {
    "root": pl.String(),
    "underlying": pl.String(),
    "multiplier": pl.Float64(),
    "exercise": pl.String(),
    "settlement": pl.String(),
    "is_adjusted": pl.Boolean(),
    "is_assumed": pl.Boolean(),
}


def root_terms(roots: pl.Series, house_file: pl.DataFrame | None, session: date) -> pl.DataFrame:
    """One row per distinct root, in order: underlying, multiplier, exercise, settlement, `is_adjusted`, `is_assumed`.

    `is_assumed`: an adjusted root that the house file does not have; its deliverable is taken as 100 shares.
    """
    stated = _in_force(house_file, session)
    rows = [_terms(root, stated.get(root)) for root in roots.unique().sort().to_list()]
    return pl.DataFrame(rows, schema=TERMS_SCHEMA, orient="row")


def _terms(root: str, stated: dict[str, object] | None) -> tuple[object, ...]:
    is_adjusted = root[-1].isdigit()
    if stated:
        return (
            root,
            stated["underlying"],
            stated["multiplier"],
            stated["exercise"],
            stated["settlement"],
            is_adjusted,
            False,
        )
    underlying, exercise, settlement = KNOWN_ROOTS.get(root, ((root[:-1] if is_adjusted else root) or root, *AMERICAN_PM))
    return (root, underlying, DEFAULT_MULTIPLIER, exercise, settlement, is_adjusted, is_adjusted)


def _in_force(house_file: pl.DataFrame | None, session: date) -> dict[str, dict[str, object]]:
    """Rows valid on the session by root; of several the one that began last."""
    if house_file is None:
        return {}
    valid = house_file.filter(pl.col("valid_from") <= session, pl.col("valid_to").is_null() | (pl.col("valid_to") >= session)).sort(
        "root", "valid_from"
    )
    return {row["root"]: row for row in valid.iter_rows(named=True)}
