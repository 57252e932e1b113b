"""Did who began a trade open a position or close one? A bound that open interest proves, and a probability where it does not.

Nobody can close more than is open: of a packet, size - (open interest at the open + volume before it) contracts at least opened
positions, for both parties. For the rest the answer is a probability from a small logistic model on what is known at the packet's
last print. Its coefficients were fitted once to the synthetic market, whose orders open or close on purpose; its reliability there
is in docs/flow.md. A real market's base rate can differ: next morning's receipts hold every claim against open interest. Without
open interest there is no answer.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import date

import numpy as np
import polars as pl

from flowlake.core import sessions
from flowlake.core.arrays import Bool, Float, Int
from flowlake.datasets.model import Inputs

UNKNOWN = -1
"""An open interest that is not known."""
SHORT_DAYS = 1
"""A contract that ends within this many calendar days trades to close more often."""

LARGE = 10
"""Contracts from which size says something; below it the logarithm of size over this counts as 0."""
COEFFICIENTS = {
    "constant": 0.41,
    "short_dated": -0.64,
    "large_and_repeated": 0.62,
    "large_sweep": 0.10,
    "large_package": 0.29,
}
"""Of the log odds that a packet opened: what `features` gives, in its order."""

CEILING = 0.9
"""Highest probability of the model; only the bound goes beyond."""


@dataclass(frozen=True)
class Evidence:
    """What the model looks at, one entry per packet; of a package its leg that is largest against what could be closed.

    `size` contracts, `open_interest` at the open (negative: not known), `volume_before` of the contract, calendar `days` to expiry,
    `hits` the packet's place among hits (0: none).
    """

    size: Int
    open_interest: Int
    volume_before: Int
    days: Int
    hits: Int
    is_sweep: Bool
    is_package: Bool

    def only(self, chosen: Int) -> Evidence:
        return Evidence(*(getattr(self, f.name)[chosen] for f in fields(Evidence)))


def size_bound(size: Int, open_interest: Int, volume_before: Int) -> Int:
    """Contracts that must have opened: size - open interest - volume before, not below 0; -1 where open interest is not known."""
    return np.where(open_interest < 0, UNKNOWN, np.maximum(size - open_interest - volume_before, 0))


def features(e: Evidence) -> Float:
    """(packets, coefficients) in the order of `COEFFICIENTS`."""
    large = np.log(np.maximum(e.size / LARGE, 1.0))
    columns = (
        np.ones(e.size.size),
        e.days <= SHORT_DAYS,
        large * np.log(np.maximum(e.hits, 1)),
        large * e.is_sweep,
        large * e.is_package,
    )
    return np.column_stack([column.astype(np.float64) for column in columns])


def probability(e: Evidence) -> Float:
    """Probability that who began the packet opened a position, in whole millionths; NaN where open interest is not known.

    Never below the share of the packet that must have opened.
    """
    weights = list(COEFFICIENTS.values())
    score = np.where(e.days <= SHORT_DAYS, weights[0] + weights[1], weights[0])
    large = np.flatnonzero(e.size > LARGE)
    # Column by column: a matrix product may add up in another order on another machine.
    for column, weight in zip(features(e.only(large)).T[2:], weights[2:], strict=True):
        score[large] += weight * column
    p = np.minimum(np.round(1e6 / (1.0 + np.exp(-score))) / 1e6, CEILING)
    proven = size_bound(e.size, e.open_interest, e.volume_before) / e.size
    return np.where(e.open_interest < 0, np.nan, np.maximum(p, proven))


def open_interest(inputs: Inputs, session: date, at: date) -> pl.DataFrame:
    """`contract`, `underlying`, `open_interest` at the close of `at` (the session or the one before), from `open_interest`.

    Where several sources report an underlying, the one with the most contracts counts (of equals the first by name). For the close
    before, underlyings that split or changed their symbol on the session are left out: their contracts have other names now.
    """
    schema = {"contract": pl.String(), "underlying": pl.String(), "open_interest": pl.Int64()}
    reported = inputs.get("open_interest")
    if reported is None or reported.is_empty():
        return pl.DataFrame(schema=schema)
    dated = (
        reported.filter(pl.col("oi_session") == at)
        # The same figure can reach two partitions; the later one is nearer to the truth.
        .sort("underlying", "source", "contract", "session", descending=[False, False, False, True])
        .unique(["source", "contract"], keep="first", maintain_order=True)
    )
    most = (
        dated.group_by("underlying", "source")
        .len("contracts")
        .sort("underlying", "source", "contracts", descending=[False, False, True])
        .sort("contracts", descending=True, maintain_order=True)
        .unique("underlying", keep="first", maintain_order=True)
    )
    found = dated.join(most.select("underlying", "source"), on=["underlying", "source"], how="semi")
    if at < session:
        found = found.join(_renamed(inputs, session), on="underlying", how="anti")
    return found.rename({"open_interest_close": "open_interest"}).select(schema.keys()).sort("contract")


def of_contracts(reported: pl.DataFrame, contracts: pl.DataFrame) -> Int:
    """Open interest of each row of `contracts` (`contract`, `underlying`), -1 where it is not known.

    A contract that the report of its underlying lacks is new and has 0; an underlying without a report is not known.
    """
    known = reported.select("underlying").unique().with_columns(is_reported=True)
    found = (
        contracts.select("contract", "underlying")
        .with_row_index("row")
        .join(reported.select("contract", "open_interest"), on="contract", how="left")
        .join(known, on="underlying", how="left")
        .sort("row")
        .select(
            pl.when(pl.col("open_interest").is_not_null())
            .then("open_interest")
            .when(pl.col("is_reported").is_not_null())
            .then(0)
            .otherwise(UNKNOWN)
        )
    )
    return found.to_series().to_numpy().astype(np.int64)


def _renamed(inputs: Inputs, session: date) -> pl.DataFrame:
    actions = inputs.get("corporate_actions")
    if actions is None or actions.is_empty():
        return pl.DataFrame(schema={"underlying": pl.String()})
    events = actions.filter(
        (pl.col("ex_date") > sessions.previous_session(session))
        & (pl.col("ex_date") <= session)
        & pl.col("kind").is_in(["split", "symbol_change"])
    )
    tickers = pl.concat([events["underlying"], events["new_symbol"].drop_nulls().alias("underlying")])
    return tickers.unique().sort().to_frame()
