"""Off-exchange stock prints: the prints themselves, the lit market beside them, and what both say about an underlying."""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from flowlake.datasets.checks import Between, Check, NotAbove, OneOf
from flowlake.datasets.curated import NOT_NEGATIVE, POSITIVE, UNDERLYING
from flowlake.datasets.model import UTC_NS, Adjust, Column, Dataset, KnownAt, KnownAtDecision, Layer

MILLIONTHS = 1_000_000
TEN_THOUSANDTHS = 10_000
"""Units of exact sums: millionths of a share, the finest fraction that is reported, and ten-thousandths of a dollar."""
LATE_SECONDS = 10
"""A trade must be reported within this time of its execution; later ones are late."""
BLOCK_SHARES = 10_000
BLOCK_USD = 200_000
"""A block has this many shares, or is worth this much: the usual definition of the exchanges."""
LARGE_SHARE = 0.01
"""A print of this share of the session's volume weighs too much to speak for many: it is left out of core_share and pressure."""
ABSORPTION_MINUTES = 15
"""The lit market is watched for this long after a block."""
MIN_LIT_RETURNS = 30
"""Returns between lit minute bars that an estimate of volatility needs."""
ABSORBED_FROM = 2 / 3
"""A block counts as absorbed from this probability on, and as moved below its complement."""
VERDICTS = (
    *("absorbed", "moved", "unclear"),
    *("no_current_price", "before_open", "after_close", "near_close", "no_lit_prices", "no_volatility"),
)
SIDE_RULES = ("subpenny", "lit_range", "midpoint", "none")
LEVEL_SHARE = 0.001
"""Width of a price level as a share of the price, before it is rounded up to 1, 2 or 5 times a power of ten ticks."""
LEVEL_RANGE = 0.1
"""Prints further than this from the median print, in log price, are at no level: they are errors more often than trades."""

RECENT_SESSIONS = 5
"""Sessions over which accumulation is looked for, this one included."""
BASE_SESSIONS = 60
"""Sessions before them that they are held against."""
MIN_RECENT = 3
MIN_BASE = 20
ACCUMULATION_SESSIONS = BASE_SESSIONS + RECENT_SESSIONS
SHARE_Z = 2.0
PRESSURE_Z = 2.0
"""Accumulation: the share and the pressure are both this far above their past; distribution: the pressure that far below."""
QUIET_Z = 2.0
"""A price that moved by less than this is quiet."""
STATES = ("accumulation", "distribution", "none")

LINK_SESSIONS = 60
LINK_MIN_PAIRS = 20
LINK_LAGS = (-1, 0, 1)
LINK_MEASURES = ("premium", "signed_premium")


def decimal(name: str, count: pl.Series, unit: int) -> pl.Series:
    """`count` / `unit`, each the float nearest to the decimal: polars multiplies by 1 / `unit`, which can miss it."""
    return pl.Series(name, count.to_numpy() / unit, dtype=pl.Float64())


_SHARE: tuple[Check, ...] = (Between(0, 1),)
_SIGNED_SHARE: tuple[Check, ...] = (Between(-1, 1),)
_KNOWN = "Known at 09:00 New York on the next session."
_SHARES = "shares"


def _flag(name: str, doc: str) -> Column:
    return Column(name, pl.Boolean(), doc)


def _figure(
    name: str, doc: str, unit: str = "", checks: tuple[Check, ...] = (), *, nullable: bool = True, adjust: Adjust | None = None
) -> Column:
    return Column(name, pl.Float64(), f"{doc} {_KNOWN}", unit=unit, nullable=nullable, checks=checks, adjust=adjust)


def _volume(name: str, doc: str, *, nullable: bool = False) -> Column:
    return _figure(name, doc, _SHARES, NOT_NEGATIVE, nullable=nullable, adjust=Adjust.SHARES)


def _usd(name: str, doc: str) -> Column:
    return _figure(name, doc, "USD", NOT_NEGATIVE, nullable=False)


def _count(name: str, doc: str, unit: str = "prints") -> Column:
    return Column(name, pl.Int64(), f"{doc} {_KNOWN}", unit=unit, checks=NOT_NEGATIVE)


def _price(name: str, doc: str, *, nullable: bool = False) -> Column:
    return Column(name, pl.Float64(), doc, unit="USD per share", nullable=nullable, checks=POSITIVE, adjust=Adjust.PRICE)


OFFEXCHANGE_PRINTS = Dataset(
    name="offexchange_prints",
    layer=Layer.CURATED,
    doc=(
        "Stock trades reported to a FINRA trade reporting facility, with decoded sale conditions. Identical prints can all be "
        "real: the vendor's trade id is not unique and is not used."
    ),
    grain=("underlying", "ts_utc", "trf_id", "price", "size"),
    unique=False,
    columns=(
        UNDERLYING,
        Column("ts_utc", UTC_NS, "Time at the securities information processor: when the market saw it."),
        Column("participant_ts_utc", UTC_NS, "Time of execution as the reporting firm states it.", nullable=True),
        Column("trf_ts_utc", UTC_NS, "Time at the reporting facility.", nullable=True),
        _price("price", "Price; can have fractions of a cent."),
        Column("size", pl.Float64(), "Shares; can be decimal.", unit=_SHARES, checks=POSITIVE, adjust=Adjust.SHARES),
        Column("notional_usd", pl.Float64(), "Price x size, rounded to 1/10,000 dollar.", unit="USD", checks=NOT_NEGATIVE),
        Column("trf_id", pl.Int64(), "Vendor's id of the reporting facility.", checks=POSITIVE),
        Column("condition", pl.Int64(), "First sale condition id; 0 where the file has none, which is a regular sale."),
        Column("conditions", pl.String(), "All sale condition ids as written.", nullable=True),
        Column("condition_group", pl.String(), "Group of the condition under the policy that decides most, such as average_price."),
        _flag("in_volume", "Counts in the consolidated volume, and is not cancelled."),
        _flag("sets_price", "May set the consolidated last price."),
        _flag(
            "has_current_price", "Its price is of the moment of its report: no average, derived, prior, contingent or late price."
        ),
        _flag("is_average_price", "Average price trade."),
        _flag("is_derivatively_priced", "Priced from something else, or at a reference price of an earlier moment."),
        _flag("is_contingent", "Contingent or qualified contingent trade: the stock leg of a package."),
        _flag("is_odd_lot", "Marked as an odd lot."),
        _flag("is_extended_hours", "Form T: outside the regular session."),
        _flag("is_out_of_sequence", "Marked as reported out of sequence."),
        _flag("is_late", f"Marked out of sequence, or seen more than {LATE_SECONDS} s after its execution."),
        Column(
            "report_delay_ns", pl.Int64(), "ts_utc - participant_ts_utc; negative where clocks differ.", unit="ns", nullable=True
        ),
        _flag("is_corrected", "The row holds the values of a later correction; they were known only from its time on."),
        _flag("is_cancelled", "Cancelled or in error, as a later message said."),
    ),
    sort_by=("underlying", "ts_utc"),
    known=KnownAt("ts_utc"),
    may_be_empty=True,
)

LIT_BARS_1M = Dataset(
    name="lit_bars_1m",
    layer=Layer.CURATED,
    doc="One-minute bars of the stock trades on exchanges alone: what an off-exchange print is held against.",
    grain=("underlying", "ts_utc"),
    columns=(
        UNDERLYING,
        Column("ts_utc", UTC_NS, "Start of the minute."),
        *(
            _price(name, f"{which} price among the trades that may set it; null where none may.", nullable=True)
            for name, which in (("open", "First"), ("high", "Highest"), ("low", "Lowest"), ("close", "Last"))
        ),
        Column("volume", pl.Float64(), "Shares; can be decimal.", unit=_SHARES, checks=NOT_NEGATIVE, adjust=Adjust.SHARES),
        Column("notional_usd", pl.Float64(), "Sum of price x size.", unit="USD", checks=NOT_NEGATIVE),
        Column("transactions", pl.Int64(), "Trades in the volume.", checks=POSITIVE),
        _flag("is_regular", "Inside the regular session."),
    ),
    sort_by=("underlying", "ts_utc"),
    known=KnownAt("ts_utc", timedelta(minutes=1)),
    checks=(NotAbove("low", "open"), NotAbove("low", "close"), NotAbove("open", "high"), NotAbove("close", "high")),
    may_be_empty=True,
)

OFFEXCHANGE_ACTIVITY = Dataset(
    name="offexchange_activity",
    layer=Layer.DERIVED,
    doc="What traded off exchange in an underlying, beside what traded on exchanges. From the stock trades of the session alone.",
    grain=("underlying",),
    columns=(
        UNDERLYING,
        _volume("off_volume", "Shares off exchange, as the consolidated volume counts them."),
        _volume("lit_volume", "Shares on exchanges, counted the same way."),
        _figure("off_share", "off_volume / (off_volume + lit_volume).", "share of volume", _SHARE),
        _figure(
            "core_share",
            f"The same without prints of {LARGE_SHARE:.0%} of that volume or more, and without prices of another moment.",
            "share of volume",
            _SHARE,
        ),
        _figure(
            "tape_coverage",
            "(off_volume + lit_volume) / volume of the vendor's daily bar: well below 1 the stock trades are not complete.",
            "share of volume",
            NOT_NEGATIVE,
        ),
        _usd("off_notional_usd", "Dollars off exchange."),
        _count("off_prints", "Prints off exchange in the volume."),
        _count("cancelled_prints", "Prints that were cancelled."),
        _figure("median_size", "Median print.", _SHARES, POSITIVE, adjust=Adjust.SHARES),
        _figure("largest_size", "Largest print.", _SHARES, POSITIVE, adjust=Adjust.SHARES),
        _volume("odd_lot_volume", "Of prints below 100 shares."),
        _volume("round_lot_volume", "Of prints of 100 to 1,999 shares."),
        _volume(
            "large_volume", f"Of prints of 2,000 shares or more that are no block (below {BLOCK_SHARES:,} and ${BLOCK_USD:,})."
        ),
        _volume("block_volume", f"Of blocks: at least {BLOCK_SHARES:,} shares, or at least 100 shares and ${BLOCK_USD:,}."),
        _count("block_prints", "Blocks.", "blocks"),
        _usd("block_notional_usd", "Dollars of blocks."),
        _count("absorbed_blocks", "Blocks that `offexchange_blocks` calls absorbed.", "blocks"),
        _count("moved_blocks", "Blocks that it calls moved.", "blocks"),
        _usd("absorbed_notional_usd", "Dollars of absorbed blocks."),
        _volume("average_price_volume", "Of average price trades."),
        _volume("derivative_volume", "Of derivatively priced and prior reference price trades."),
        _volume("contingent_volume", "Of contingent and qualified contingent trades."),
        _volume("late_volume", "Of late prints."),
        _volume("extended_volume", "Of prints outside the regular session."),
        _price("off_vwap", f"Volume-weighted price of prints with a current price. {_KNOWN}", nullable=True),
        _price("lit_vwap", f"The same on exchanges, whole session. {_KNOWN}", nullable=True),
        _price("lit_close", f"Last price on exchanges in the regular session. {_KNOWN}", nullable=True),
        _figure("vwap_gap_bps", "ln(off_vwap / lit_vwap).", "basis points"),
        _figure("close_gap_bps", "ln(off_vwap / lit_close).", "basis points"),
        _volume("buy_volume", f"Of prints below {LARGE_SHARE:.0%} of the volume signed as bought by the one who wanted to trade."),
        _volume("sell_volume", f"Of prints below {LARGE_SHARE:.0%} of the volume signed as sold by the one who wanted to trade."),
        _figure(
            "signed_share", "(buy_volume + sell_volume) / off_volume: how much the sign is known of.", "share of volume", _SHARE
        ),
        _figure("subpenny_share", "Share of the signed volume that a fraction of a cent signed.", "share of volume", _SHARE),
        _figure(
            "pressure",
            "(buy_volume - sell_volume) / (buy_volume + sell_volume); a leaning, of low confidence without quotes.",
            "share of volume",
            _SIGNED_SHARE,
        ),
        Column("not_available", pl.List(pl.String()), "Why figures of this row are null: `figure: reason`, sorted."),
    ),
    sort_by=("underlying",),
    known=KnownAtDecision(),
    may_be_empty=True,
)

OFFEXCHANGE_BLOCKS = Dataset(
    name="offexchange_blocks",
    layer=Layer.DERIVED,
    doc=(
        f"Every off-exchange block and what lit prices did in the {ABSORPTION_MINUTES} minutes after it: absorbed, where they "
        "stayed although a block of its size is expected to move them."
    ),
    grain=("underlying", "ts_utc", "price", "size"),
    unique=False,
    columns=(
        UNDERLYING,
        Column("ts_utc", UTC_NS, "Time at the securities information processor."),
        Column("executed_utc", UTC_NS, "Time of execution, else of the report: the watch begins there."),
        _price("price", "Price."),
        Column("size", pl.Float64(), "Shares.", unit=_SHARES, checks=POSITIVE, adjust=Adjust.SHARES),
        Column("notional_usd", pl.Float64(), "Price x size.", unit="USD", checks=NOT_NEGATIVE),
        Column("condition_group", pl.String(), "Group of its sale conditions."),
        Column("side", pl.Int64(), "1 bought, -1 sold by the one who wanted to trade; null unknown.", nullable=True),
        Column("side_rule", pl.String(), "What decided the side.", checks=(OneOf(SIDE_RULES),)),
        _figure("volume_share", "size / (off_volume + lit_volume) of the session.", "share of volume", _SHARE),
        _price("lit_before", f"Last lit price before the minute of the block. {_KNOWN}", nullable=True),
        _figure("price_gap_bps", "ln(price / lit_before).", "basis points"),
        _figure("expected_move_bps", "Square-root law: daily volatility x sqrt(volume_share).", "basis points", NOT_NEGATIVE),
        _figure(
            "noise_bps", f"Standard deviation of a lit return over {ABSORPTION_MINUTES} minutes.", "basis points", NOT_NEGATIVE
        ),
        _figure("move_bps", f"Lit return from lit_before to {ABSORPTION_MINUTES} minutes after the block.", "basis points"),
        _figure(
            "absorbed_probability",
            "Of no move against a move of expected_move_bps either way, both as likely beforehand, with noise_bps of noise.",
            "probability",
            _SHARE,
        ),
        Column(
            "verdict",
            pl.String(),
            f"absorbed from {ABSORBED_FROM:.2f}, moved up to {1 - ABSORBED_FROM:.2f}, else unclear; or why it is not judged. "
            f"near_close: the close comes within the {ABSORPTION_MINUTES} minutes after it.",
            checks=(OneOf(VERDICTS),),
        ),
    ),
    sort_by=("underlying", "ts_utc"),
    known=KnownAtDecision(),
    may_be_empty=True,
)

OFFEXCHANGE_LEVELS = Dataset(
    name="offexchange_levels",
    layer=Layer.DERIVED,
    doc=(
        f"Off-exchange volume by price, of prints with a current price within {LEVEL_RANGE:.0%} of the median. A level is "
        f"about {LEVEL_SHARE:.1%} wide: 1, 2 or 5 times a power of ten ticks, centred on a multiple of that."
    ),
    grain=("underlying", "level_price"),
    columns=(
        UNDERLYING,
        _price("level_price", "Centre of the level."),
        _price("level_width", "Its width."),
        _volume("volume", "Shares."),
        _usd("notional_usd", "Dollars."),
        _count("prints", "Prints."),
        _volume("block_volume", "Of blocks."),
        _volume("buy_volume", "Of prints signed as bought."),
        _volume("sell_volume", "Of prints signed as sold."),
        _figure("volume_share", "Share of the volume at all levels.", "share of volume", _SHARE, nullable=False),
        _figure(
            "largest_print_share",
            "Share of its largest print: near 1 the level is one trade.",
            "share of volume",
            _SHARE,
            nullable=False,
        ),
        _figure("times_median", "volume / median volume of the levels; null below 5 levels.", "medians", NOT_NEGATIVE),
    ),
    sort_by=("underlying", "level_price"),
    known=KnownAtDecision(),
    may_be_empty=True,
)

OFFEXCHANGE_ACCUMULATION = Dataset(
    name="offexchange_accumulation",
    layer=Layer.DERIVED,
    doc=(
        f"Off-exchange share and pressure of the last {RECENT_SESSIONS} sessions against the {BASE_SESSIONS} before them, "
        "the underlying's own. Null where those have too few values."
    ),
    grain=("underlying",),
    columns=(
        UNDERLYING,
        *(
            _figure(
                f"{name}_z",
                f"(mean of {name} over the recent sessions - median before) / (1.4826 x median absolute deviation before / "
                "sqrt(recent sessions with a value)).",
                "deviations",
            )
            for name in ("core_share", "pressure")
        ),
        _figure("block_share_z", "The same for block_volume / off_volume.", "deviations"),
        _figure(
            "price_move_z",
            "ln of lit_close over the one before the recent sessions, in standard deviations of the base's daily returns x sqrt of "
            "their number.",
            "deviations",
        ),
        Column("is_quiet", pl.Boolean(), f"The price moved by less than {QUIET_Z} of them.", nullable=True),
        Column(
            "state",
            pl.String(),
            f"accumulation: core_share_z at least {SHARE_Z} and pressure_z at least {PRESSURE_Z}; distribution: pressure_z at most "
            f"-{PRESSURE_Z}; none; null where a score is.",
            nullable=True,
            checks=(OneOf(STATES),),
        ),
        _figure("strength", "The lesser of core_share_z and |pressure_z|.", "deviations"),
        _count("recent_sessions", "Recent sessions with share and pressure.", "sessions"),
        _count("base_sessions", "Base sessions with share and pressure.", "sessions"),
        Column("not_available", pl.List(pl.String()), "Why figures of this row are null: `figure: reason`, sorted."),
    ),
    sort_by=("underlying",),
    known=KnownAtDecision(),
    may_be_empty=True,
)

OFFEXCHANGE_OPTIONS_LINK = Dataset(
    name="offexchange_options_link",
    layer=Layer.DERIVED,
    doc=(
        f"Rank correlation of off-exchange pressure with the leaning of option premium, over {LINK_SESSIONS} pairs of sessions at "
        f"most and {LINK_MIN_PAIRS} at least, in step and a session apart either way."
    ),
    grain=("underlying", "measure", "lag_sessions"),
    columns=(
        UNDERLYING,
        Column(
            "measure",
            pl.String(),
            "premium: (call - put premium) / premium of `daily_factors`, whoever bought. signed_premium: net_call_put_imbalance of "
            "`flow_factors`.",
            checks=(OneOf(LINK_MEASURES),),
        ),
        Column(
            "lag_sessions",
            pl.Int64(),
            "0 same session; 1 options a session before off-exchange; -1 off-exchange a session before options.",
            unit="sessions",
            checks=(OneOf(LINK_LAGS),),
        ),
        _figure("pressure", "Off-exchange pressure of this session.", "share of volume", _SIGNED_SHARE),
        _figure("options_leaning", "The measure on this session.", "share of premium", _SIGNED_SHARE),
        _figure("rank_correlation", "Spearman's, ties at their mean rank.", "correlation", _SIGNED_SHARE),
        _figure(
            "correlation_low",
            "Lower end of its 95 % interval: Fisher's z, variance 1.06 / (pairs - 3).",
            "correlation",
            _SIGNED_SHARE,
        ),
        _figure("correlation_high", "Upper end.", "correlation", _SIGNED_SHARE),
        _count("pairs", "Pairs of sessions with both.", "pairs"),
        Column(
            "reason",
            pl.String(),
            "Why the correlation is null; empty otherwise.",
            checks=(OneOf(("", "no_pressure", "no_options", "few_pairs", "constant")),),
        ),
    ),
    sort_by=("underlying", "measure", "lag_sessions"),
    known=KnownAtDecision(),
    may_be_empty=True,
)

OFFEXCHANGE_CURATED = (OFFEXCHANGE_PRINTS, LIT_BARS_1M)
OFFEXCHANGE = (
    *OFFEXCHANGE_CURATED,
    OFFEXCHANGE_ACTIVITY,
    OFFEXCHANGE_BLOCKS,
    OFFEXCHANGE_LEVELS,
    OFFEXCHANGE_ACCUMULATION,
    OFFEXCHANGE_OPTIONS_LINK,
)
