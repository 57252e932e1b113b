"""Where an underlying's last quotes contradict each other after bid and ask."""

from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl

from flowlake.core import sessions
from flowlake.core.arrays import Float
from flowlake.datasets.absent import present
from flowlake.datasets.factors import CHAIN_QUOTES, FUNDING_SPREAD
from flowlake.datasets.model import Inputs
from flowlake.factors.carry import DAYS_PER_YEAR, dividend_values, rate_at
from flowlake.factors.early_exercise import array, rights
from flowlake.factors.positions import one_source
from flowlake.factors.spots import stood_at_close
from flowlake.quant import parity

CHECKS = ("parity", "vertical", "butterfly", "calendar")
_EXPIRY = ("underlying", "root", "expiry")
_CHAIN = (*_EXPIRY, "right")
# Two moneynesses that are one may differ in the last bits; the kernel allows twice as much.
_SAME_MONEYNESS = 5e-13


def mispricing_factors(implied: pl.DataFrame, spots: pl.DataFrame, inputs: Inputs, session: date) -> pl.DataFrame | None:
    """`underlying`, the largest severity of each of `CHECKS` in basis points of `spot_close`, and `violations`.

    None without quotes. `implied` is `option_iv`, `spots` has `underlying`, `spot_close` and `spot_source`.
    """
    quotes = _sound_quotes(implied, spots, inputs, session)
    if quotes is None:
        return None
    lines = pl.concat([_parities(quotes, inputs, session), *_chains(quotes), _calendars(quotes)])
    known = lines.filter(pl.col("severity_usd").is_not_null()).join(
        spots.select("underlying", "spot_close"), on="underlying", how="left"
    )
    bps = pl.col("severity_usd") / pl.col("spot_close") * 1e4
    return (
        known.group_by("underlying")
        .agg(
            *(bps.filter(pl.col("check") == check).max().alias(f"{check}_violation_bps") for check in CHECKS),
            (pl.col("severity_usd") > 0).sum().cast(pl.Int64()).alias("violations"),
        )
        .sort("underlying")
    )


def _sound_quotes(implied: pl.DataFrame, spots: pl.DataFrame, inputs: Inputs, session: date) -> pl.DataFrame | None:
    """One quote per contract that outlives the session, of one source per underlying, in order of the chains.

    With `exercise`, `expires_utc`, `discount` from the close (null without a curve), `forward` of the expiry, and `spot` at the
    quote: the vendor's; else of a quote of the last minute the close; else that of the contract's price, where this quote is it;
    else the close. Never one that parity gave. What has no bid can be sold for nothing.
    """
    quotes = present(inputs, "option_quotes_eod")
    if quotes is None:
        return None
    terms = inputs["contracts"].select("contract", "expires_utc", "exercise", "is_adjusted")
    not_parity = pl.col("spot_source") != "parity_forward"
    is_quote = not_parity & (pl.col("price_source") == "quote_mid")
    own = implied.filter(is_quote).select("contract", "ts_utc", pl.col("spot").alias("own_spot"))
    close = spots.filter(not_parity).select("underlying", "spot_close")
    forwards = implied.group_by(_EXPIRY).agg(pl.col("forward").median())
    at_close = pl.when(stood_at_close(session)).then("spot_close")
    bid, ask = pl.col("bid"), pl.col("ask")
    sound = (
        one_source(quotes, "underlying")
        .select("contract", *_CHAIN, "strike", "ts_utc", bid.fill_null(0.0), "ask", pl.col("spot").alias("quote_spot"))
        .filter((ask > 0) & (bid <= ask))
        .join(terms, on="contract")
        .filter(~pl.col("is_adjusted") & (pl.col("expires_utc") > sessions.close_utc(session)))
        .join(own, on=["contract", "ts_utc"], how="left")
        .join(close, on="underlying", how="left")
        .join(forwards, on=list(_EXPIRY), how="left")
        .with_columns(pl.coalesce("quote_spot", at_close, "own_spot", "spot_close").alias("spot"))
        .drop("own_spot", "quote_spot", "spot_close", "is_adjusted")
        .sort(*_CHAIN, "strike", "contract")
    )
    years = _years(sound["expires_utc"], pl.repeat(sessions.close_utc(session), sound.height, eager=True))
    return sound.with_columns(pl.Series("discount", np.exp(-_rates(years, inputs) * years)).fill_nan(None))


def _rates(years: Float, inputs: Inputs) -> Float:
    """NaN without a curve: what looks like arbitrage at a rate of zero is interest."""
    rate, source = rate_at(years, inputs)
    return rate if source == "rates" else np.full_like(years, np.nan)


def _years(expires: pl.Series, moment: pl.Series) -> Float:
    return np.asarray((expires - moment).dt.total_microseconds().to_numpy() / 1e6 / (86_400 * DAYS_PER_YEAR), dtype=np.float64)


def _lines(check: str, underlying: pl.Series, severity_usd: Float) -> pl.DataFrame:
    severity = pl.Series(severity_usd, dtype=pl.Float64()).fill_nan(None)
    return pl.DataFrame({"underlying": underlying, "severity_usd": severity}).with_columns(pl.lit(check).alias("check"))


def _parities(quotes: pl.DataFrame, inputs: Inputs, session: date) -> pl.DataFrame:
    """A line per call and put of one strike.

    American ones against the underlying at the later of the two quotes: by then both stood. European ones against the forward that
    their expiry's strikes agree on, since nobody can buy an index, nor knows its dividends. Less `FUNDING_SPREAD` on what there is
    to finance: the strike, or strike less forward.
    """
    key = [*_EXPIRY, "strike"]
    of_put = (pl.col(name).alias(f"put_{name}") for name in ("bid", "ask", "ts_utc", "spot"))
    put = quotes.filter(pl.col("right") == "P").select(*key, *of_put)
    pairs = (
        quotes.filter(pl.col("right") == "C")
        .join(put, on=key)
        .join(dividend_values(quotes, inputs, session), on=["underlying", "expiry"], how="left")
        .with_columns(
            pl.max_horizontal("ts_utc", "put_ts_utc").alias("moment"),
            pl.when(pl.col("put_ts_utc") > pl.col("ts_utc")).then("put_spot").otherwise("spot").alias("spot"),
            pl.col("dividends").fill_null(0.0),
        )
        .sort(*key)
    )
    years = _years(pairs["expires_utc"], pairs["moment"])
    rate = _rates(years, inputs)
    bid, ask, put_bid, put_ask = (array(pairs, name) for name in ("bid", "ask", "put_bid", "put_ask"))
    spot, strike, dividends = (array(pairs, name) for name in ("spot", "strike", "dividends"))
    forward, discount = array(pairs, "forward"), np.exp(-rate * years)
    funding = FUNDING_SPREAD * years * discount
    american = parity.american_parity(
        bid, ask, put_bid, put_ask, spot, strike, years, rate, dividends=dividends, underlying_cost=funding * strike
    )
    european = parity.european_parity(
        bid, ask, put_bid, put_ask, forward * discount, strike, years, rate, underlying_cost=funding * np.abs(strike - forward)
    )
    is_american = (pairs["exercise"] == "american").to_numpy()
    return _lines("parity", pairs["underlying"], np.where(is_american, american.severity_usd, european.severity_usd))


def _chains(quotes: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """A line per two, and per three, neighbouring strikes of each chain. `quotes` is in order of chains and strikes."""
    strike, bid, ask = (array(quotes, name) for name in ("strike", "bid", "ask"))
    width = pl.when(pl.col("exercise") == "european").then(pl.col("discount").fill_null(1.0)).otherwise(1.0).first()
    chains = quotes.group_by(_CHAIN, maintain_order=True).agg(pl.len().alias("count"), width.alias("discount"))
    verticals: list[Float] = []
    butterflies: list[Float] = []
    rows: list[int] = []
    end = 0
    for row, (right, count, discount) in enumerate(chains.select("right", "count", "discount").iter_rows()):
        chain = slice(end, end + count)
        end += count
        if count >= CHAIN_QUOTES:
            rows.append(row)
            verticals.append(
                parity.vertical(strike[chain], bid[chain], ask[chain], 1 if right == "C" else -1, discount).severity_usd
            )
            butterflies.append(parity.butterfly(strike[chain], bid[chain], ask[chain]).severity_usd)
    underlying = chains["underlying"].gather(rows)
    return _lines_of_chains("vertical", underlying, verticals), _lines_of_chains("butterfly", underlying, butterflies)


def _lines_of_chains(check: str, underlying: pl.Series, severities: list[Float]) -> pl.DataFrame:
    sizes = np.array([part.size for part in severities], dtype=np.int64)
    each = underlying.gather(np.repeat(np.arange(sizes.size), sizes))
    return _lines(check, each, np.concatenate([np.empty(0), *severities]))


def _calendars(quotes: pl.DataFrame) -> pl.DataFrame:
    """A line per contract and one of the next expiry: American of the same strike, European of a moneyness that covers."""
    return pl.concat(
        [
            _american_calendars(quotes.filter(pl.col("exercise") == "american")),
            _european_calendars(quotes.filter(pl.col("exercise") == "european")),
        ]
    )


def _american_calendars(quotes: pl.DataFrame) -> pl.DataFrame:
    line = ("underlying", "root", "right", "strike")
    ordered = quotes.sort(*line, "expiry").with_columns(
        pl.col(name).shift(-1).over(line).alias(f"far_{name}") for name in ("bid", "ask")
    )
    pairs = ordered.filter(pl.col("far_ask").is_not_null())
    severity = parity.american_calendar(*(array(pairs, name) for name in ("bid", "ask", "far_bid", "far_ask")))
    return _lines("calendar", pairs["underlying"], severity)


def _european_calendars(quotes: pl.DataFrame) -> pl.DataFrame:
    root = ["underlying", "root"]
    expiries = quotes.select(*root, "expiry").unique().sort(*root, "expiry")
    following = expiries.with_columns(pl.col("expiry").shift(-1).over(root).alias("next_expiry"))
    moneyness = pl.col("strike") / pl.col("forward")
    placed = quotes.filter(pl.col("forward") > 0).with_columns(moneyness.alias("moneyness"))
    near = placed.join(following, on=[*root, "expiry"]).filter(pl.col("next_expiry").is_not_null())
    far = placed.select(
        *root, "right", pl.col("expiry").alias("next_expiry"), "moneyness",
        *(pl.col(name).alias(f"far_{name}") for name in ("bid", "ask", "strike", "forward", "discount")),
    ).sort("moneyness", *root, "right", "next_expiry")  # fmt: skip
    slack, strategy = {"C": 1.0 + _SAME_MONEYNESS, "P": 1.0 - _SAME_MONEYNESS}, {"C": "backward", "P": "forward"}
    covered = [
        near.filter(pl.col("right") == right)
        .with_columns(pl.col("moneyness") * slack[right])
        .sort("moneyness", *_CHAIN)
        .join_asof(
            far.filter(pl.col("right") == right),
            on="moneyness",
            by=[*root, "right", "next_expiry"],
            strategy=strategy[right],  # type: ignore[arg-type]
            check_sortedness=False,
        )
        for right in ("C", "P")
    ]
    pairs = pl.concat(covered).filter(pl.col("far_ask").is_not_null()).sort(*_CHAIN, "strike")
    terms = ("bid", "ask", "far_bid", "far_ask", "strike", "far_strike", "forward", "far_forward", "discount", "far_discount")
    arguments = [*(array(pairs, name) for name in terms), rights(pairs)]
    return _lines("calendar", pairs["underlying"], parity.european_calendar(*arguments))
