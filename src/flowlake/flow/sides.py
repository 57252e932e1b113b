"""Step `trade_sides`: the quote in force at every option print, and the probability that a buyer began the trade.

Quotes come from whichever of the sources exist. One that stands beside a trade in the vendor's file is that trade's own; every
other trade takes the last quote before it, be it from a file of quotes or beside an earlier trade.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from functools import reduce

import numpy as np
import polars as pl

from flowlake.core.arrays import Bool, Float, Int
from flowlake.datasets.matrices import floats
from flowlake.datasets.model import Inputs, Output
from flowlake.datasets.policies import UNREPORTED
from flowlake.datasets.sides import QUOTE_SOURCES, SIDE_REASONS, SIDE_RULES, TRADE_SIDES, QuoteSource
from flowlake.flow import _side, nbbo
from flowlake.flow._side import Sides
from flowlake.flow.direction import AGES_S, CALIBRATION, PRICE_UNITS, UNDATED_AGE_S, at_midpoint, buy_probability
from flowlake.flow.nbbo import Nbbo, Quotes

_NS_PER_MS = 1_000_000
_NS_PER_S = 1_000_000_000
_MAX_AGE_NS = int(AGES_S[-1] * _NS_PER_S)


def trade_sides(inputs: Inputs, session: date) -> Output:
    """Required input: option_trades. Optional inputs: the datasets of `QUOTE_SOURCES`."""
    prints = inputs["option_trades"]
    contract = prints["contract"].rle_id().cast(pl.Int64).to_numpy()
    ts_ns = prints["ts_utc"].to_physical().to_numpy()
    market = _market(prints, contract, ts_ns, inputs)
    is_single_leg, is_signed = _signed(prints)
    price = prints["price"].to_numpy()
    negotiated = (prints["is_cross"] | prints["is_floor"]).to_numpy()
    # Tapes without quotes are as long as others.
    asked = np.flatnonzero(is_signed & ~np.isnan(market.bid) & ~np.isnan(market.ask))
    probability = np.full(price.size, np.nan)
    of_asked = Nbbo._make(values[asked] for values in market)
    probability[asked] = buy_probability(price[asked], of_asked.bid, of_asked.ask, _age_s(of_asked), negotiated[asked])
    reason = _reasons(probability, price, market, is_single_leg, is_signed)
    is_open = is_signed & np.isnan(probability)
    depth = np.zeros(price.size, dtype=np.int8)
    between = np.flatnonzero(is_open & (reason == SIDE_REASONS.index("at_midpoint")))
    depth[between] = _depth(market.bid_size[between], market.ask_size[between])
    tick = np.where(is_open & (depth == 0), _tick(prints, contract, ts_ns), 0).astype(np.int8)
    table = prints.select("underlying", "contract", "ts_utc").with_columns(
        pl.int_range(prints.height, dtype=pl.UInt32, eager=True).alias("print_no"),
        *_quote_columns(market),
        _spelled("rule", np.select([~np.isnan(probability), depth != 0, tick != 0], [0, 1, 2], 3), SIDE_RULES),
        _nullable("buy_probability", probability),
        *_fallback_columns(depth, tick),
        _spelled("reason", reason, SIDE_REASONS),
    )
    return Output({TRADE_SIDES.name: table})


def _market(prints: pl.DataFrame, contract: Int, ts_ns: Int, inputs: Inputs) -> Nbbo:
    answers = _answers(prints, contract, ts_ns, inputs)
    first = next(answers, None)
    return nbbo.unquoted(ts_ns.size) if first is None else reduce(_filled, answers, first)


def _answers(prints: pl.DataFrame, contract: Int, ts_ns: Int, inputs: Inputs) -> Iterator[Nbbo]:
    """What each source says of every print, in the order of trust."""
    for source in QUOTE_SOURCES:
        if source.dataset in inputs:
            rows = _quoted(inputs[source.dataset], source, prints["contract"])
            if source.beside is not None:
                yield _own(rows, source, source.beside, prints, contract, ts_ns)
            before = nbbo.as_of(contract, ts_ns, (_quotes(rows, source),), max_age_ns=_MAX_AGE_NS)
            yield before._replace(is_dated=np.full(ts_ns.size, source.is_dated))


def _quoted(table: pl.DataFrame, source: QuoteSource, contracts: pl.Series) -> pl.DataFrame:
    """The rows with a quote of the contracts that traded, in order, with the `number` that the prints give to the contract."""
    traded = contracts.rle().struct.field("value").alias("contract").to_frame().with_row_index("number")
    of_ticker = traded.select(pl.concat_str(pl.lit("O:"), "contract").alias("ticker"), pl.col("number").cast(pl.Int64))
    rows = table if source.only is None else table.filter(pl.col(source.only[0]) == source.only[1])
    return rows.filter(pl.col(source.ts).is_not_null()).join(of_ticker, on="ticker").sort("number", source.ts, *source.order)


def _own(
    rows: pl.DataFrame, source: QuoteSource, beside: tuple[str, str, str], prints: pl.DataFrame, contract: Int, ts_ns: Int
) -> Nbbo:
    """The quotes beside the prints themselves, none where equal prints of one moment have different ones beside them."""
    time, price, size = beside
    quote = [source.bid, source.ask, *(source.sizes or ())]
    key = [pl.col("number"), pl.col(time).alias("ts"), pl.col(price).alias("at"), pl.col(size).cast(pl.Float64).alias("many")]
    own = (
        rows.select(*key, pl.col(source.ts).alias("quoted"), *quote)
        .filter(pl.col("quoted") <= pl.col("ts"))
        .group_by("number", "ts", "at", "many", maintain_order=True)
        .agg(pl.struct(quote[:2]).n_unique().alias("quotes"), pl.col("quoted", *quote).last())
        .filter(pl.col("quotes") == 1)
    )
    wanted = pl.DataFrame({"number": contract, "ts": ts_ns, "at": prints["price"], "many": prints["size"].cast(pl.Float64)})
    met = wanted.join(own, on=wanted.columns, how="left", maintain_order="left")
    age_ns = (met["ts"] - met["quoted"]).fill_null(-1).to_numpy()
    is_stale = age_ns > _MAX_AGE_NS
    bid, ask, bid_size, ask_size = _quoted_at(met, source)
    has_bid, has_ask = (~is_stale & (price > 0.0) for price in (bid, ask))
    bid, bid_size = (np.where(has_bid, value, np.nan) for value in (bid, bid_size))
    ask, ask_size = (np.where(has_ask, value, np.nan) for value in (ask, ask_size))
    return Nbbo(bid, ask, bid_size, ask_size, age_ns, is_stale, np.full(ts_ns.size, source.is_dated))


def _quotes(rows: pl.DataFrame, source: QuoteSource) -> Quotes:
    return Quotes(rows["number"].to_numpy(), rows[source.ts].to_numpy() + source.known_after_ns, *_quoted_at(rows, source))


def _quoted_at(rows: pl.DataFrame, source: QuoteSource) -> tuple[Float, Float, Float, Float]:
    """Bid, ask and their sizes; NaN where the source has none."""
    bid, ask = (floats(rows[name]) for name in (source.bid, source.ask))
    bid_size, ask_size = (floats(rows[name]) for name in source.sizes) if source.sizes else (np.full(rows.height, np.nan),) * 2
    return bid, ask, bid_size, ask_size


def _filled(first: Nbbo, second: Nbbo) -> Nbbo:
    """The first source's quote, the second's where the first has none that is young enough."""
    use_second = (first.age_ns < 0) | (first.is_stale & (second.age_ns >= 0) & ~second.is_stale)
    return Nbbo(*(np.where(use_second, b, a) for a, b in zip(first, second, strict=True)))


def _age_s(market: Nbbo) -> Float:
    """The age with which the table is entered; NaN without a quote."""
    least = market.age_ns / _NS_PER_S
    return np.where(market.age_ns < 0, np.nan, np.where(market.is_dated, least, np.maximum(least, UNDATED_AGE_S)))


def _signed(prints: pl.DataFrame) -> tuple[Bool, Bool]:
    """Whether each print is a single leg, and whether it may be signed by what was known at its time.

    A cancelled print was on the tape like any other until its cancel came: knowing better would be looking ahead.
    """
    is_single_leg = ~(prints["is_multi_leg"] | prints["is_stock_tied"])
    was_signed = prints["may_be_signed"] | (prints["is_cancelled"] & _has_current_price(prints))
    return is_single_leg.to_numpy(), was_signed.to_numpy()


def _has_current_price(prints: pl.DataFrame) -> pl.Series:
    """Single-leg prints that set prices and were reported on time, under a condition that says so."""
    is_leg = prints["is_multi_leg"] | prints["is_stock_tied"]
    return prints["sets_price"] & ~is_leg & ~prints["is_late"] & (prints["condition_group"] != UNREPORTED)


def _reasons(probability: Float, price: Float, market: Nbbo, is_single_leg: Bool, is_signed: Bool) -> Int:
    is_two_sided = ~np.isnan(market.bid) & ~np.isnan(market.ask)
    is_between = np.zeros(price.size, dtype=np.bool_)
    is_between[is_two_sided] = at_midpoint(price[is_two_sided], market.bid[is_two_sided], market.ask[is_two_sided])
    holds = {
        "": ~np.isnan(probability),
        "not_single_leg": ~is_single_leg,
        "not_signed": ~is_signed,
        "no_quote": market.age_ns < 0,
        "stale_quote": market.is_stale,
        "one_sided_quote": ~is_two_sided,
        "locked_or_crossed": market.is_locked_or_crossed,
        "at_midpoint": is_between,
    }
    return np.select(list(holds.values()), [SIDE_REASONS.index(name) for name in holds])


def _depth(bid_size: Float, ask_size: Float) -> Sides:
    """The depth rule for prints at the midpoint."""
    return np.sign(np.nan_to_num(ask_size - bid_size)).astype(np.int8)


def _tick(prints: pl.DataFrame, contract: Int, ts_ns: Int) -> Sides:
    """The tick test against earlier milliseconds; legs, late prints and those without a condition set no price."""
    units = (prints["price"] * PRICE_UNITS).round().cast(pl.Int64).to_numpy()
    side = np.empty(prints.height, dtype=np.int8)
    _side.tape_tick(contract, ts_ns // _NS_PER_MS, units, _has_current_price(prints).to_numpy(), side)
    return side


def _quote_columns(market: Nbbo) -> tuple[pl.Series, ...]:
    has_both = ~(np.isnan(market.bid) | np.isnan(market.ask))
    has_age = market.is_dated & (market.age_ns >= 0)
    return (
        *(_nullable(name, getattr(market, name)) for name in ("bid", "ask", "bid_size", "ask_size")),
        _nullable("quote_age_ms", np.where(has_age, market.age_ns / _NS_PER_MS, np.nan)),
        pl.Series("is_locked_or_crossed", market.is_locked_or_crossed).set(pl.Series(~has_both), None),
    )


def _nullable(name: str, values: Float) -> pl.Series:
    """Null for NaN; where there is nothing else, as on a tape without quotes, not a number is copied."""
    if np.isnan(values).all():
        return pl.Series(name, [None], dtype=pl.Float64).new_from_index(0, values.size)
    return pl.Series(name, values).fill_nan(None)


def _fallback_columns(depth: Sides, tick: Sides) -> tuple[pl.Series, pl.Series]:
    of_depth, of_tick = CALIBRATION.fallback()
    side = np.where(depth != 0, depth, tick)
    probability = 0.5 + side * (np.where(depth != 0, of_depth, of_tick) - 0.5)
    says_nothing = pl.Series(side == 0)
    return (
        pl.Series("fallback_side", side).set(says_nothing, None),
        pl.Series("fallback_probability", probability).set(says_nothing, None),
    )


def _spelled(name: str, codes: Int, words: tuple[str, ...]) -> pl.Series:
    return pl.Series(name, words, dtype=pl.String).gather(pl.Series(codes))
