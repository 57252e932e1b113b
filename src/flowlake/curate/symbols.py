"""OCC contract symbols: vendor ticker `O:ROOTyymmddC00123000` to fields and back.

The fixed part is the last 15 characters, so a root may itself end in digits (adjusted contracts).
Source: OCC symbology (21 characters with a padded root); data vendors leave the blanks out.
"""

from __future__ import annotations

import polars as pl

from flowlake.curate.expiries import FIRST_EXPIRY, LAST_EXPIRY

VENDOR_PREFIX = "O:"
MAX_STRIKE_THOUSANDTHS = 99_999_999
_PATTERN = r"^O:([A-Z0-9.]{1,9})([0-9]{6})([CP])([0-9]{8})$"
CONTRACT_FIELDS = {
    "contract": pl.String(),
    "root": pl.String(),
    "expiry": pl.Date(),
    "right": pl.String(),
    "strike": pl.Float64(),
    "strike_thousandths": pl.Int64(),
}


def parse_tickers(tickers: pl.Series) -> pl.DataFrame:
    """One row per distinct ticker, in order: `ticker`, the contract's fields, and `problem`.

    Where a ticker names no possible contract `problem` says why and the fields are null.
    """
    parts = (
        tickers.alias("ticker")
        .cast(pl.String)
        .unique()
        .sort()
        .to_frame()
        .with_columns(pl.col("ticker").str.extract_groups(_PATTERN).alias("_part"))
        .with_columns(
            contract=pl.col("ticker").str.strip_prefix(VENDOR_PREFIX),
            root=pl.col("_part").struct[0],
            expiry=("20" + pl.col("_part").struct[1]).str.to_date("%Y%m%d", strict=False),
            right=pl.col("_part").struct[2],
            strike_thousandths=pl.col("_part").struct[3].cast(pl.Int64),
        )
        # Polars multiplies by the reciprocal, which misses the nearest float: 700 / 1000 would not be 0.7.
        .with_columns(strike=(pl.col("strike_thousandths") / 1000).round(3))
    )
    return _blank_where_impossible(parts.with_columns(_problem().alias("problem"))).select("ticker", *CONTRACT_FIELDS, "problem")


def contract_symbol(root: pl.Expr, expiry: pl.Expr, right: pl.Expr, strike_thousandths: pl.Expr) -> pl.Expr:
    """The OCC symbol without blanks; null where a field is null."""
    return pl.concat_str(
        root,
        expiry.dt.strftime("%y%m%d"),
        right,
        strike_thousandths.cast(pl.String).str.zfill(8),
    )


def contract_of_ticker(ticker: str = "ticker") -> pl.Expr:
    """The contract that a vendor ticker names. It is only valid if the contract master has it."""
    return pl.col(ticker).str.strip_prefix(VENDOR_PREFIX)


def _problem() -> pl.Expr:
    return (
        pl.when(pl.col("root").is_null())
        .then(pl.lit("not of the form O:ROOTyymmddC00123000"))
        .when(pl.col("expiry").is_null())
        .then(pl.lit("the expiry is no date"))
        .when(~pl.col("expiry").is_between(pl.lit(FIRST_EXPIRY), pl.lit(LAST_EXPIRY)))
        .then(pl.lit("the expiry lies outside the trading calendar"))
        .when(pl.col("strike_thousandths") == 0)
        .then(pl.lit("the strike is 0"))
    )


def _blank_where_impossible(parts: pl.DataFrame) -> pl.DataFrame:
    return parts.with_columns(pl.when(pl.col("problem").is_null()).then(pl.col(name)).alias(name) for name in CONTRACT_FIELDS)
