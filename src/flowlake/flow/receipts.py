"""Next morning's receipt: what was claimed to have opened, against the change of open interest.

A contract that changes hands moves open interest by one up, by one down or not at all. So with `volume` contracts traded,
`claimed` of them said to be openings, and a change of open interest, the claim is bounded from both sides: at least change -
(volume - claimed) of it opened, and at most volume + change. Where the rest of the day's volume is large neither bound says much,
and the verdict is that nothing can be said. The same where open interest moved by more than was traded: then something else moved
it (exercise, assignment, prints that do not count or are missing). A smaller exercise cannot be seen, and lowers the upper bound.
"""

from __future__ import annotations

from datetime import date

import polars as pl

from flowlake.core import sessions
from flowlake.datasets.model import Inputs, Output
from flowlake.datasets.packets import FLOW_RECEIPTS, OPENING_CLAIM
from flowlake.flow import opening

_SUPPORTED, _CONTRADICTED, _UNDECIDABLE = "supported", "contradicted", "undecidable"


def flow_receipts(inputs: Inputs, session: date) -> Output:
    """Required inputs: flow_packets, packet_prints, option_trades. Optional inputs: open_interest, corporate_actions."""
    claims = _claims(inputs["flow_packets"], inputs["packet_prints"])
    counted = inputs["option_trades"].filter(pl.col("in_volume") & ~pl.col("is_cancelled"))
    volume = counted.join(claims, on="contract", how="semi").group_by("contract").agg(pl.col("size").sum().alias("volume"))
    table = claims.join(volume, on="contract", how="inner").sort("contract")
    for name, at in (("open", sessions.previous_session(session)), ("close", session)):
        reported = opening.open_interest(inputs, session, at)
        held = pl.Series(f"open_interest_{name}", opening.of_contracts(reported, table))
        is_known = held >= 0
        if name == "close":  # Open interest ends with the contract; one that trades on must be in the report.
            is_known &= table["contract"].is_in(reported["contract"].implode())
        table = table.with_columns(held.set(~is_known, None))
    return Output({FLOW_RECEIPTS.name: _judged(table)})


def _claims(packets: pl.DataFrame, prints: pl.DataFrame) -> pl.DataFrame:
    """`contract`, `underlying`, `claims`, `claimed_opening`, `expected_opening` of contracts with a claim."""
    claimed = packets.filter(pl.col("opening_probability") >= OPENING_CLAIM).select(
        "packet_id", "underlying", (pl.col("opening_probability") * 1_000_000).round().cast(pl.Int64).alias("millionths")
    )
    return (
        prints.join(claimed, on="packet_id", how="inner")
        .group_by("contract", "underlying")
        .agg(
            pl.col("packet_id").n_unique().cast(pl.Int64).alias("claims"),
            pl.col("size").sum().alias("claimed_opening"),
            # Whole numbers, whose sum has no order.
            ((pl.col("millionths") * pl.col("size")).sum() / 1_000_000).alias("expected_opening"),
        )
        .sort("contract")
    )


def _judged(table: pl.DataFrame) -> pl.DataFrame:
    """With the bounds that the change of open interest sets, the verdict and its reason."""
    volume, claimed, change = pl.col("volume"), pl.col("claimed_opening"), pl.col("open_interest_change")
    lowest, highest = pl.col("opened_min"), pl.col("opened_max")
    verdict = (
        pl.when(2 * lowest >= claimed)
        .then(pl.lit(_SUPPORTED))
        .when(2 * highest < claimed)
        .then(pl.lit(_CONTRADICTED))
        .otherwise(pl.lit(_UNDECIDABLE))
    )
    reason = (
        pl.when(pl.col("open_interest_open").is_null())
        .then(pl.lit("no open interest of the close before"))
        .when(pl.col("open_interest_close").is_null())
        .then(pl.lit("no open interest of the session's close; a contract that ends with the session never has one"))
        .when(change.abs() > volume)
        .then(
            pl.format(
                "open interest {} to {}, more than the {} contracts traded: exercise, or prints that do not count or are missing",
                "open_interest_open",
                "open_interest_close",
                volume,
            )
        )
        .otherwise(
            pl.format(
                "open interest {} to {} ({}) on {} contracts traded: of {} claimed at least {} and at most {} opened",
                "open_interest_open",
                "open_interest_close",
                pl.when(change > 0).then(pl.format("+{}", change)).otherwise(change.cast(pl.String)),
                volume,
                claimed,
                lowest,
                highest,
            )
        )
    )
    return (
        table.with_columns((pl.col("open_interest_close") - pl.col("open_interest_open")).alias("open_interest_change"))
        .with_columns(
            pl.when(change.abs() <= volume).then((change - (volume - claimed)).clip(lower_bound=0)).alias("opened_min"),
            pl.when(change.abs() <= volume).then(pl.min_horizontal(volume + change, claimed)).alias("opened_max"),
        )
        .with_columns(verdict.alias("verdict"), reason.alias("reason"))
    )
