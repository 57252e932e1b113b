"""Open interest at the session's open and close."""

from __future__ import annotations

from datetime import date

import polars as pl

from flowlake.core import sessions
from flowlake.datasets.absent import present
from flowlake.datasets.model import Inputs

_POSITION = {
    "contract": pl.String(),
    "underlying": pl.String(),
    "root": pl.String(),
    "expiry": pl.Date(),
    "right": pl.String(),
    "strike": pl.Float64(),
    "which": pl.String(),
    "open_interest": pl.Int64(),
}


def open_positions(inputs: Inputs, session: date) -> pl.DataFrame:
    """Open interest of contracts that outlive the session: contract fields, `which` (`close`, `open`), `open_interest`.

    `close` holds at the session's close, `open` at the close of the session before. Where several sources report an underlying's
    open interest, the one with the most contracts counts (of equals, the first by name), so that sources are never added up.
    """
    reported = present(inputs, "open_interest")
    if reported is None:
        return pl.DataFrame(schema=_POSITION)
    which = (
        pl.when(pl.col("oi_session") == session)
        .then(pl.lit("close"))
        .when(pl.col("oi_session") == sessions.previous_session(session))
        .then(pl.lit("open"))
    )
    open_after = (
        reported.with_columns(which.alias("which"))
        .filter(pl.col("which").is_not_null() & (pl.col("expiry") > session))
        # The same figure can reach two partitions; the later one is nearer to the truth.
        .sort("underlying", "which", "source", "contract", "session", descending=[False, False, False, False, True])
        .unique(["which", "source", "contract"], keep="first", maintain_order=True)
    )
    return (
        one_source(open_after, "underlying", "which")
        .rename({"open_interest_close": "open_interest"})
        .select(_POSITION.keys())
        .sort("which", "contract")
    )


def one_source(rows: pl.DataFrame, *group: str) -> pl.DataFrame:
    """Of each group the rows of the `source` with the most of them; of equals the first by name. In no order."""
    most = (
        rows.group_by(*group, "source")
        .len("rows_of_source")
        .sort(*group, "rows_of_source", "source", descending=[*(False for _ in group), True, False])
        .unique(list(group), keep="first", maintain_order=True)
    )
    return rows.join(most.select(*group, "source"), on=[*group, "source"])


def open_interest_totals(positions: pl.DataFrame) -> pl.DataFrame:
    """`underlying`, `open_interest_close`, `open_interest_open`; null where it was not reported."""
    return positions.group_by("underlying").agg(
        pl.when((pl.col("which") == which).any())
        .then(pl.col("open_interest").filter(pl.col("which") == which).sum())
        .alias(f"open_interest_{which}")
        for which in ("close", "open")
    )


def open_interest_increases(positions: pl.DataFrame, inputs: Inputs, session: date) -> pl.DataFrame | None:
    """`contract`, `underlying`, `increase` (may be negative) of underlyings with both reports; None where there is none.

    A contract that only the later report has, such as a new listing, rises from 0. An underlying whose split or change of symbol
    lies between the reports (`corporate_actions`) is left out: its contracts were renamed, and their texts name others now.
    """
    close, opening = (positions.filter(pl.col("which") == which) for which in ("close", "open"))
    comparable = opening.select("underlying").unique().join(_renamed(inputs, session), on="underlying", how="anti")
    both = close.join(comparable, on="underlying", how="semi")
    if both.is_empty():
        return None
    before = opening.select("contract", pl.col("open_interest").alias("before"))
    return both.join(before, on="contract", how="left").select(
        "contract", "underlying", (pl.col("open_interest") - pl.col("before").fill_null(0)).alias("increase")
    )


def _renamed(inputs: Inputs, session: date) -> pl.DataFrame:
    """`underlying`: old and new tickers of splits and symbol changes with ex-date after the session before and up to this one."""
    actions = present(inputs, "corporate_actions")
    if actions is None:
        return pl.DataFrame(schema={"underlying": pl.String()})
    since = pl.col("ex_date") > sessions.previous_session(session)
    kinds = pl.col("kind").is_in(["split", "symbol_change"])
    events = actions.filter(since & (pl.col("ex_date") <= session) & kinds)
    tickers = pl.concat([events["underlying"], events["new_symbol"].drop_nulls().alias("underlying")])
    return tickers.unique().sort().to_frame()
