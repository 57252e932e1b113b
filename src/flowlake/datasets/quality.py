"""What the quality steps write: what each source delivered, how the sources agree, and what is missing or wrong.

Layer ops: these tables speak of other partitions, and reprocessing replaces them.
"""

from __future__ import annotations

import polars as pl

from flowlake.datasets.checks import Between, Check, OneOf
from flowlake.datasets.model import UTC_NS, Column, Dataset, KnownAtDecision, Layer

_COUNT: tuple[Check, ...] = (Between(0),)
MEASURES = ("volume", "transactions", "open", "high", "low", "close")
"""What two sources of option bars are compared by."""
PAIRS = ("trades~1m", "trades~1d", "1m~1d")
REASONS = ("cancelled", "late", "missing_minutes", "unexplained")
GAP_RULES = (
    "missing_file",
    "empty_file",
    "holiday_file",
    "missing_underlying",
    "few_rows",
    "early_stop",
    "missing_minutes",
    "doubled",
    "stale_repeat",
)
ALL = "*"
"""In place of a contract or an underlying: the row is about all of them."""

RECONCILIATION = Dataset(
    name="reconciliation",
    layer=Layer.OPS,
    doc=(
        "Eligible trades, minute bars and day bars of each contract against each other: one row per contract, pair of sources and "
        "measure with a residual, and one row per pair and measure that sums up every contract, with the contract `*`."
    ),
    grain=("pair", "measure", "contract"),
    columns=(
        Column("pair", pl.String(), "The two sources, left and right.", checks=(OneOf(PAIRS),)),
        Column(
            "measure",
            pl.String(),
            "What is compared: contracts, number of trades, or a price in USD per share.",
            checks=(OneOf(MEASURES),),
        ),
        Column("contract", pl.String(), "OCC symbol; `*` on the row that sums up the pair."),
        Column(
            "underlying", pl.String(), "Ticker of what the contract delivers or settles on; null on the row `*`.", nullable=True
        ),
        Column("left_value", pl.Float64(), "Value of the left source (on `*`: the sum; null for prices).", nullable=True),
        Column("right_value", pl.Float64(), "Value of the right source (on `*`: the sum; null for prices).", nullable=True),
        Column(
            "residual",
            pl.Float64(),
            "Left less right; a source that lacks the contract counts as 0 in volume and transactions, and is null in prices.",
            nullable=True,
        ),
        Column(
            "reason",
            pl.String(),
            "Why they differ. `cancelled` or `late`: the residual is that of counting those prints; `missing_minutes`: the minute "
            "bars lack minutes that have eligible trades.",
            nullable=True,
            checks=(OneOf(REASONS),),
        ),
        Column("contracts_compared", pl.Int64(), "Contracts in either source; 1 on the row of a contract.", checks=_COUNT),
        Column("contracts_equal", pl.Int64(), "Contracts without a residual; 0 on the row of a contract.", checks=_COUNT),
    ),
    sort_by=("pair", "measure", "contract"),
    known=KnownAtDecision(),
    may_be_empty=True,
)

ACTIVITY = Dataset(
    name="activity",
    layer=Layer.OPS,
    doc="What each source delivered for each underlying in the session: the memory that gaps are measured against.",
    grain=("source", "underlying"),
    columns=(
        Column("source", pl.String(), "Raw or curated dataset."),
        Column("underlying", pl.String(), "Ticker; `*` on the row of the whole source, which is all that a raw dataset has."),
        Column("rows", pl.Int64(), "Rows.", checks=_COUNT),
        Column("distinct_rows", pl.Int64(), "Rows without exact repeats.", checks=_COUNT),
        Column("volume", pl.Float64(), "Sum of size, volume or open interest over every row.", nullable=True),
        Column("minutes", pl.Int64(), "Minutes of the regular session with a row.", nullable=True, checks=_COUNT),
        Column(
            "longest_silence_minutes",
            pl.Int64(),
            "Longest run of minutes without a row, from the open to the last row.",
            unit="minutes",
            nullable=True,
            checks=_COUNT,
        ),
        Column(
            "silent_end_minutes",
            pl.Int64(),
            "Minutes without a row before the close.",
            unit="minutes",
            nullable=True,
            checks=_COUNT,
        ),
        Column("first_utc", UTC_NS, "First minute of the regular session with a row.", nullable=True),
        Column("last_utc", UTC_NS, "Last minute of the regular session with a row.", nullable=True),
        Column("content_hash", pl.String(), "Hash of the content without its times: equal where a file repeats an earlier one."),
    ),
    sort_by=("source", "underlying"),
    known=KnownAtDecision(),
    may_be_empty=True,
)

GAPS = Dataset(
    name="gaps",
    layer=Layer.OPS,
    doc="What is missing, cut short, doubled or repeated in the session's data, with the measure, what was expected, and the cure.",
    grain=("dataset", "rule", "subject"),
    columns=(
        Column("dataset", pl.String(), "Dataset that has the gap."),
        Column("rule", pl.String(), "Kind of gap.", checks=(OneOf(GAP_RULES),)),
        Column("subject", pl.String(), "What the finding is about: an underlying, a file's date, or `*` for the whole dataset."),
        Column("underlying", pl.String(), "Underlying, where the gap is of one.", nullable=True),
        Column("rows", pl.Int64(), "Rows of the dataset that the finding is about.", checks=_COUNT),
        Column("measured", pl.Float64(), "What was measured; the unit is in `what`.", nullable=True),
        Column("expected", pl.Float64(), "What was expected, in the same unit.", nullable=True),
        Column("what", pl.String(), "The finding in a sentence."),
        Column("cure", pl.String(), "What to do."),
    ),
    sort_by=("dataset", "rule", "subject"),
    known=KnownAtDecision(),
    may_be_empty=True,
)

QUALITY = (RECONCILIATION, ACTIVITY, GAPS)
