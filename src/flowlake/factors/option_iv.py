"""Step `option_iv`: one price per contract, its forward, and the volatility and greeks that explain the price.

European contracts by Black's formula on the forward. American ones with early exercise and the cash dividends ahead, escrowed, on
the same forward. Greeks are those of the spot, dividends ahead set apart, with what the forward leaves unexplained as a yield. A
price at the value of immediate exercise tells no volatility: it is null with `american_early_exercise`.
"""

from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl

from flowlake.datasets.factors import OPTION_IV
from flowlake.datasets.model import Inputs, Output
from flowlake.factors import early_exercise
from flowlake.factors.carry import DAYS_PER_YEAR, cash_dividends, dividend_values, rate_at
from flowlake.factors.parity import implied_carries, implied_spots, traded_pairs, with_premiums
from flowlake.factors.prices import contract_volumes, option_prices
from flowlake.factors.spots import latest, minute_closes, with_spots
from flowlake.quant.european import ImpliedVolReason
from flowlake.quant.forward import implied_forwards

MIN_PARITY_PAIRS = 3
"""Strikes with a sound call and put quote that an expiry needs for a forward of its own."""
HALF_CENT = 0.005
"""What a price may differ from the value of immediate exercise to be at it: prices come in cents."""
EXERCISE_ROUNDS = 2
"""How often forwards and the worth of early exercise are found from one another; a third changes nothing that a price shows."""
_PREMIUM = {
    "underlying": pl.String(),
    "root": pl.String(),
    "expiry": pl.Date(),
    "strike": pl.Float64(),
    "premium": pl.Float64(),
}
_EXPIRY = ("underlying", "root", "expiry")
_REASONS = {
    ImpliedVolReason.BELOW_INTRINSIC: "below_intrinsic",
    ImpliedVolReason.ABOVE_MAXIMUM: "above_maximum",
    ImpliedVolReason.BAD_INPUT: "undetermined",
}


def option_iv(inputs: Inputs, session: date) -> Output:
    """Implied volatility and greeks of every contract of the session's master.

    Reads `contracts` and whatever exists of `option_quotes_eod`, `option_trades`, `option_bars_1m`, `option_bars_1d`,
    `equity_bars_1m`, `equity_bars_1d`, `rates`, `corporate_actions`.
    """
    contracts = inputs["contracts"]
    priced = (
        contracts.drop("session", "known_at_utc", strict=False)
        .join(option_prices(inputs, session), on="contract", how="left")
        .join(dividend_values(contracts, inputs, session), on=["underlying", "expiry"], how="left")
        .with_columns(pl.col("dividends").fill_null(0.0))
        .sort("contract")
    )
    priced = _with_discount(priced, inputs)
    schedule = cash_dividends(inputs, session)
    has_price = pl.col("price").is_not_null()
    pairs = traded_pairs(priced, inputs, session)
    parity = implied_spots(pairs, session)
    spotted = with_spots(priced.filter(has_price), parity, inputs, session)
    compared = _with_minute_spots(pairs, parity, inputs)
    forwarded = _without_early_exercise(spotted, compared, schedule)
    solved = pl.concat([_solved(forwarded, schedule), priced.filter(~has_price)], how="diagonal")
    return Output({OPTION_IV.name: _with_volume(_flagged(solved), inputs)})


def _with_discount(priced: pl.DataFrame, inputs: Inputs) -> pl.DataFrame:
    """Adds `years`, `discount` and `rate_source`, all null without a price."""
    seconds = (pl.col("expires_utc") - pl.col("ts_utc")).dt.total_microseconds() / 1e6
    timed = priced.with_columns((seconds / (86_400 * DAYS_PER_YEAR)).alias("years"))
    years = timed["years"].fill_null(0.0).to_numpy()
    rate, source = rate_at(years, inputs)
    discount = pl.Series("discount", np.exp(-rate * np.maximum(years, 0.0)))
    known = pl.col("years").is_not_null()
    return timed.with_columns(
        pl.when(known).then(discount).alias("discount"), pl.when(known).then(pl.lit(source)).alias("rate_source")
    )


def _with_minute_spots(pairs: pl.DataFrame, parity: pl.DataFrame, inputs: Inputs) -> pl.DataFrame:
    """The traded pairs with `spot`, each the underlying of its own minute."""
    rows = latest(latest(pairs, minute_closes(inputs), "at_minute"), parity, "at_parity")
    return rows.with_columns(pl.coalesce("at_minute", "at_parity").alias("spot"))


def _without_early_exercise(spotted: pl.DataFrame, pairs: pl.DataFrame, schedule: pl.DataFrame) -> pl.DataFrame:
    """`spotted` with forwards. Those of parity compare American calls and puts without what early exercise adds to them.

    That needs a volatility and a forward, so it is found by iteration: Black's formula on the plain forward comes first.
    """
    premiums = pl.DataFrame(schema=_PREMIUM)
    quoted = _quoted_pairs(spotted.filter(pl.col("price_source") == "quote_mid"))
    rows = _with_forward(spotted, quoted, pairs, premiums)
    if (rows["exercise"] == "american").any():
        for _ in range(EXERCISE_ROUNDS):
            premiums = early_exercise.exercise_premiums(rows, early_exercise.european_vols(rows), schedule)
            rows = _with_forward(spotted, quoted, pairs, premiums)
    return rows


def _with_forward(spotted: pl.DataFrame, quoted: pl.DataFrame, pairs: pl.DataFrame, premiums: pl.DataFrame) -> pl.DataFrame:
    """Adds `forward` and `forward_source`; a spot that is still missing follows from the forward that the quotes imply."""
    is_quote = pl.col("price_source") == "quote_mid"
    rows = (
        spotted.join(_parity_forwards(quoted, premiums), on=list(_EXPIRY), how="left")
        .join(implied_carries(pairs, premiums), on=list(_EXPIRY), how="left")
        .with_columns(pl.when(is_quote).then(pl.col("parity")).alias("parity"))
    )
    carried = (pl.col("spot") - pl.col("dividends")) / pl.col("discount")
    implied_spot = pl.col("parity") * pl.col("discount") + pl.col("dividends")
    no_spot = pl.col("spot").is_null() & pl.col("parity").is_not_null()
    implied = pl.coalesce("parity", pl.col("spot") * pl.col("carry"))
    return rows.with_columns(
        pl.coalesce(implied, pl.when(carried > 0).then(carried)).alias("forward"),
        pl.when(implied.is_not_null()).then(pl.lit("parity")).when(carried > 0).then(pl.lit("spot_carry")).alias("forward_source"),
        pl.when(no_spot).then(implied_spot).otherwise(pl.col("spot")).alias("spot"),
        pl.when(no_spot).then(pl.lit("parity_forward")).otherwise(pl.col("spot_source")).alias("spot_source"),
    ).drop("parity", "carry")


def _quoted_pairs(quotes: pl.DataFrame) -> pl.DataFrame:
    """Calls of the quotes with their puts: `price` of the call, `put`, `discount`, and `number`, that of the expiry."""
    key = [*_EXPIRY, "strike"]
    puts = quotes.filter(pl.col("right") == "P").select(*key, pl.col("price").alias("put"))
    calls = quotes.filter(pl.col("right") == "C").select(*key, "price", "discount")
    pairs = calls.join(puts, on=key).sort(*key, "price", "put")
    begins = pl.any_horizontal(pl.col(name) != pl.col(name).shift() for name in _EXPIRY).fill_null(False)
    return pairs.with_columns(begins.cum_sum().cast(pl.Int64).alias("number"))


def _parity_forwards(quoted: pl.DataFrame, premiums: pl.DataFrame) -> pl.DataFrame:
    """`parity`: the forward of each root and expiry whose quotes give enough pairs; `quoted` is `_quoted_pairs`."""
    pairs = with_premiums(quoted, premiums)
    expiries = pairs.select(*_EXPIRY, "number").unique("number", keep="first", maintain_order=True)
    found = implied_forwards(
        pairs["number"].to_numpy(),
        pairs["strike"],
        pairs["price"] - pairs["premium"],
        pairs["put"],
        np.ones(pairs.height),
        pairs["discount"],
        expiries.height,
    )
    enough = (found.strikes_used >= MIN_PARITY_PAIRS) & np.isfinite(found.forward)
    return expiries.select(_EXPIRY).with_columns(pl.Series("parity", found.forward)).filter(enough)


def _solved(rows: pl.DataFrame, schedule: pl.DataFrame) -> pl.DataFrame:
    """Adds `iv`, the greeks and `reason`, the number of `ImpliedVolReason`."""
    # Without a spot there is nothing to compare exercise with: Black's formula stands.
    early = ((rows["exercise"] == "american") & rows["spot"].is_not_null() & (rows["years"] > 0)).to_numpy()
    found = early_exercise.merged(
        early,
        early_exercise.american_solution(rows.filter(early), schedule),
        early_exercise.european_solution(rows.filter(~early), schedule),
    )
    columns = (pl.Series(name, getattr(found, name)).fill_nan(None) for name in ("iv", *_GREEKS))
    return rows.with_columns(pl.Series("reason", found.reason).cast(pl.Int8), *columns)


_GREEKS = ("delta", "gamma", "vega", "theta")


def _flagged(rows: pl.DataFrame) -> pl.DataFrame:
    """Adds `quality`, and clears volatility and greeks where it is not `ok`."""
    exercise_value = (
        pl.when(pl.col("right") == "C").then(pl.col("spot") - pl.col("strike")).otherwise(pl.col("strike") - pl.col("spot"))
    )
    # Worth its exercise value and no more: any volatility low enough gives that price.
    at_exercise_value = (
        (pl.col("exercise") == "american") & (exercise_value > 0) & ((pl.col("price") - exercise_value).abs() <= HALF_CENT)
    )
    quality = (
        pl.when(pl.col("price").is_null())
        .then(pl.coalesce("refused", pl.lit("no_price")))
        .when(pl.col("years") <= 0)
        .then(pl.lit("expired"))
        .when(pl.col("is_adjusted"))
        .then(pl.lit("adjusted_deliverable"))
        .when(pl.col("forward").is_null())
        .then(pl.lit("no_spot"))
        .when(at_exercise_value.fill_null(False))
        .then(pl.lit("american_early_exercise"))
        .when(pl.col("iv").is_not_null() & (pl.col("reason") == ImpliedVolReason.OK))
        .then(pl.lit("ok"))
        .otherwise(pl.col("reason").cast(pl.Int64).replace_strict(_REASONS, default="undetermined", return_dtype=pl.String))
    )
    flagged = rows.with_columns(quality.alias("quality"))
    sound = pl.col("quality") == "ok"
    return flagged.with_columns(pl.when(sound).then(pl.col(name)).alias(name) for name in ("iv", *_GREEKS))


def _with_volume(rows: pl.DataFrame, inputs: Inputs) -> pl.DataFrame:
    volumes = contract_volumes(inputs)
    if volumes is None:
        return rows.with_columns(pl.lit(None, dtype=pl.Int64()).alias("volume"))
    return rows.join(volumes, on="contract", how="left").with_columns(pl.col("volume").fill_null(0)).sort("contract")
