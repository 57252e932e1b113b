"""Step `flow_factors`: what the session's prints say about each underlying, by session, by minute and by venue.

Sums are of integers: premium in ten-thousandths of a dollar, signed contracts and shares in ten-thousandths, each print rounded
once. They do not depend on the order of the prints.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import date
from typing import NamedTuple

import polars as pl

from flowlake.core import sessions
from flowlake.datasets.absent import not_available
from flowlake.datasets.flow_factors import (
    FACTORS_SLICED,
    FLOW_FACTORS,
    FLOW_MINUTES,
    FLOW_PROFILES,
    FLOW_VALUES,
    MARKET_TIDE,
    MONEYNESS,
    NET_DELTA,
    NET_PREMIUM,
    RIGHTS,
    VENUE_FLOW,
)
from flowlake.datasets.model import SESSION, Inputs, Output
from flowlake.datasets.packets import PACKAGE_STRUCTURES, SINGLE_LEG_STRUCTURES
from flowlake.datasets.policies import UNREPORTED
from flowlake.datasets.scored import OTM_DISTANCE
from flowlake.datasets.slices import Rows, slices
from flowlake.flow._bursts import UNKNOWN
from flowlake.flow._tape import rows_of
from flowlake.flow.profiles import flow_profiles
from flowlake.flow.tide import flow_minutes, market_tide, minute_sums, with_tides
from flowlake.flow.units import TEN_THOUSANDTHS, in_units, outwards, scaled

_PRINT_COLUMNS = ("ts_utc", "size", "exchange", "is_iso", "is_cancelled")


def flow_factors(inputs: Mapping[str, Rows], session: date) -> Output:
    """Reads `option_trades` and `contracts`, and whatever exists of `trade_sides`, `flow_packets`, `option_iv` (this session and
    the one before), `equity_bars_1m`, `equity_bars_1d` and `sectors`.

    All but the tide is made some underlyings at a time: a row per print and figure would take more memory than the tape itself.
    """
    given = frozenset(name for name, rows in inputs.items() if rows.height)
    parts = [_of_some(part, given, session) for part in slices(inputs, FACTORS_SLICED)]
    rows, minutes, venues, profiles = (pl.concat(tables) for tables in zip(*parts, strict=True))
    sectors = inputs["sectors"].slice(0, inputs["sectors"].height) if "sectors" in given else None
    tide = market_tide(minutes, sectors)
    rows = with_tides(rows, tide, sectors)
    rows = _per_stock_volume(_with_absent(rows, [column.name for column in FLOW_VALUES] + [*_RATIOS.values(), "stock_volume"]))
    return Output(
        {
            FLOW_FACTORS.name: rows.with_columns(not_available(_reasons(given))).sort("underlying"),
            FLOW_MINUTES.name: flow_minutes(minutes),
            MARKET_TIDE.name: tide,
            VENUE_FLOW.name: venues,
            FLOW_PROFILES.name: profiles,
        }
    )


class _Made(NamedTuple):
    """Of some underlyings: their factors but for the tide and what is divided by stock volume; their minutes, as `minute_sums`
    gives them; the tables `venue_flow` and `flow_profiles`.
    """

    rows: pl.DataFrame
    minutes: pl.DataFrame
    venues: pl.DataFrame
    profiles: pl.DataFrame


def _of_some(inputs: Inputs, given: Collection[str], session: date) -> _Made:
    """`given` names the inputs that have rows, be it of other underlyings."""
    legs = traded_contracts(inputs, session)
    trades = inputs["option_trades"].with_columns(pl.col("contract").rle_id().cast(pl.Int64).alias("contract_no"))
    prints = signed_prints(trades, inputs["trade_sides"] if "trade_sides" in given else None)
    eligible = prints.filter(~pl.col("is_cancelled"))
    minutes = minute_sums(prints, legs, inputs["equity_bars_1m"] if "equity_bars_1m" in given else None)
    minutes = minutes.sort("underlying", "ts_utc")
    venues = _venue_sums(eligible, legs)
    rows = _underlying_factors(legs.join(_contract_sums(eligible), on="contract_no").sort("contract_no"))
    packets = inputs["flow_packets"] if "flow_packets" in given else None
    for part in (
        _packet_factors(packets),
        _opening_factors(packets, legs),
        _stock_volumes(inputs, given),
        _venue_factors(venues, legs),
    ):
        if part is not None:
            rows = rows.join(part, on="underlying", how="left")
    return _Made(rows, minutes, _venue_flow(venues, legs), flow_profiles(minutes, packets))


# --- Prints and the contracts they are in ------------------------------------------------------------------------------------


def traded_contracts(inputs: Inputs, session: date) -> pl.DataFrame:
    """One row per run of a contract in `option_trades`, `contract_no` counting them from 0.

    Adds `underlying_no`, `multiplier`, `is_index`, `is_adjusted`, `delta` and `spot` of this session, `place` (of `MONEYNESS`),
    and `past_delta` and `past_spot` of the session before.
    """
    trades = inputs["option_trades"]
    number = trades["contract"].rle_id().cast(pl.Int64).alias("contract_no")
    begins = number.diff().fill_null(1) != 0
    runs = trades.select("contract", "underlying", "right", "strike", number).filter(begins)
    terms = inputs["contracts"].select(
        "contract", "multiplier", "is_adjusted", (pl.col("exercise") == "european").alias("is_index")
    )
    implied = inputs.get("option_iv")
    if implied is None:
        schema = {"contract": pl.String(), "underlying": pl.String(), "strike": pl.Float64(), "delta": pl.Float64()}
        implied = pl.DataFrame(schema={**schema, "spot": pl.Float64(), SESSION: pl.Date()})
    # A split is applied to the strike of the session before, not to the text of its contract.
    before = implied.filter(pl.col(SESSION) == sessions.previous_session(session)).select(
        "contract", "strike", pl.col("delta").alias("past_delta"), pl.col("spot").alias("past_spot"), "underlying"
    )
    now = implied.filter(pl.col(SESSION) == session).select("contract", "delta", "spot", "underlying")
    rows = (
        runs.join(terms, on="contract", how="left")
        .join(now.drop("underlying"), on="contract", how="left")
        .join(before.drop("underlying"), on=["contract", "strike"], how="left")
        .join(now.group_by("underlying").agg(pl.col("spot").median().alias("median_spot")), on="underlying", how="left")
        .join(before.group_by("underlying").agg(pl.col("past_spot").median().alias("median_past")), on="underlying", how="left")
        .sort("contract_no")
    )
    distance = outwards(pl.col("right") == "C")
    return rows.with_columns(
        pl.col("underlying").rank("dense").cast(pl.Int64).alias("underlying_no"),
        pl.coalesce("spot", "median_spot").alias("spot"),
        pl.col("median_past").alias("past_spot"),
        pl.col("is_adjusted").fill_null(True),
        pl.col("is_index").fill_null(False),
    ).with_columns(
        pl.when(~pl.col("is_adjusted"))
        .then(pl.when(distance >= OTM_DISTANCE).then(pl.lit("otm")).when(distance <= -OTM_DISTANCE).then(pl.lit("itm")))
        .otherwise(None)
        .alias("place")
    )


def signed_prints(trades: pl.DataFrame, sides: pl.DataFrame | None) -> pl.DataFrame:
    """The prints in the volume, in their order, those that a later message cancelled among them.

    `trades` has `contract_no` and `print_no` beside its columns. Gives `contract_no`; `premium`;
    `net_premium` and `net_size`, times (2p - 1), 0 where the side is not known; `known_premium` and `known_size`,
    `quoted_premium`, `reported_premium`, `multi_leg_premium`, `retail_premium`, `retail_known`, `retail_net`: the parts of that
    kind.
    """
    is_package = pl.col("is_multi_leg") | pl.col("is_stock_tied")
    frame = trades.select(
        *_PRINT_COLUMNS,
        "print_no",
        "in_volume",
        is_package.alias("is_package"),
        (pl.col("is_auction") & ~pl.col("is_iso") & ~is_package).alias("is_retail"),
        pl.col("condition_group").ne_missing(UNREPORTED).alias("is_reported"),
        scaled(pl.col("premium_usd")).alias("premium"),
        "contract_no",
    )
    frame = _with_sides(frame, sides).filter("in_volume")
    is_known, weight = pl.col("buy_probability").is_not_null(), 2.0 * pl.col("buy_probability") - 1.0
    frame = frame.with_columns(
        (pl.col("premium") * weight).round().cast(pl.Int64).fill_null(0).alias("net_premium"),
        scaled(pl.col("size") * weight).fill_null(0).alias("net_size"),
    )
    return frame.select(
        "contract_no",
        *_PRINT_COLUMNS,
        "premium",
        "net_premium",
        "net_size",
        (pl.col("premium") * is_known).alias("known_premium"),
        (pl.col("size") * is_known).alias("known_size"),
        (pl.col("premium") * pl.col("has_quote")).alias("quoted_premium"),
        (pl.col("premium") * pl.col("is_reported")).alias("reported_premium"),
        (pl.col("premium") * pl.col("is_iso")).alias("iso_premium"),
        (pl.col("premium") * pl.col("is_package")).alias("multi_leg_premium"),
        (pl.col("premium") * pl.col("is_retail")).alias("retail_premium"),
        (pl.col("premium") * (pl.col("is_retail") & is_known)).alias("retail_known"),
        (pl.col("net_premium") * pl.col("is_retail")).alias("retail_net"),
    )


def _with_sides(prints: pl.DataFrame, sides: pl.DataFrame | None) -> pl.DataFrame:
    """With `buy_probability` and `has_quote` of `trade_sides`, which may lack prints."""
    if sides is None:
        return prints.with_columns(pl.lit(None, dtype=pl.Float64).alias("buy_probability"), pl.lit(False).alias("has_quote"))
    row = pl.Series(rows_of(prints["print_no"].cast(pl.Int64).to_numpy(), sides)).replace(UNKNOWN, None)
    has_quote = pl.col("bid").is_not_null() & pl.col("ask").is_not_null()
    known = sides.select("buy_probability", has_quote.alias("has_quote"))
    found = known.select(pl.all().gather(row))
    return prints.hstack(found.with_columns(pl.col("has_quote").fill_null(False)))


_SUMMED = (
    "size",
    "premium",
    "net_premium",
    "net_size",
    "known_premium",
    "known_size",
    "quoted_premium",
    "reported_premium",
    "multi_leg_premium",
    "retail_premium",
    "retail_known",
    "retail_net",
)


def _contract_sums(eligible: pl.DataFrame) -> pl.DataFrame:
    return eligible.group_by("contract_no").agg(pl.len().cast(pl.Int64).alias("prints"), pl.col(_SUMMED).sum())


# --- By underlying -----------------------------------------------------------------------------------------------------------


def _underlying_factors(by_contract: pl.DataFrame) -> pl.DataFrame:
    """All factors that need neither packets nor stock; `by_contract`: contracts with the sums of their prints."""
    shares = pl.col("net_size") * pl.col("multiplier") * pl.col("delta")
    rows = by_contract.with_columns(
        shares.round().cast(pl.Int64).fill_null(0).alias("delta_shares"),
        pl.when(pl.col("delta").is_not_null()).then("known_size").otherwise(0).alias("delta_size"),
        # Bought and sold shares by expectation, doubled: known + net and known - net.
        *(
            ((pl.col("known_size") * TEN_THOUSANDTHS + sign * pl.col("net_size")) * pl.col("multiplier"))
            .round()
            .cast(pl.Int64)
            .alias(f"{way}_shares")
            for way, sign in (("buy", 1), ("sell", -1))
        ),
    )
    is_known = pl.col("known_premium").sum() > 0
    is_delta = pl.col("delta_size").sum() > 0
    is_placed = ~((pl.col("known_size") > 0) & pl.col("spot").is_null() & ~pl.col("is_adjusted")).any()

    def part(column: str, where: pl.Expr | None, given: pl.Expr) -> pl.Expr:
        chosen = pl.col(column) if where is None else pl.col(column).filter(where)
        return pl.when(given).then(chosen.sum())

    net = []  # ten-thousandths
    for column, unit, given in (("net_premium", "premium_usd", is_known), ("delta_shares", "delta_shares", is_delta)):
        net.append(part(column, None, given).alias(f"net_{unit}"))
        for side, letter in RIGHTS.items():
            is_right = pl.col("right") == letter
            net.append(part(column, is_right, given).alias(f"net_{side}_{unit}"))
            net += [
                part(column, is_right & _is_at(place), given & is_placed).alias(f"net_{side}_{place}_{unit}") for place in MONEYNESS
            ]
    calls, puts = (pl.col("premium").filter(pl.col("right") == letter).sum() for letter in RIGHTS.values())
    net_calls, net_puts = (pl.col("net_premium").filter(pl.col("right") == letter).sum() for letter in RIGHTS.values())
    premium = pl.col("premium").sum()
    totals = rows.group_by("underlying").agg(
        pl.col("is_index").any(),
        pl.col("prints").sum().alias("eligible_prints"),
        pl.col("size").sum().alias("eligible_volume"),
        premium.alias("eligible_premium_usd"),
        _ratio(pl.col("known_premium").sum(), premium).alias("side_coverage"),
        _ratio(pl.col("quoted_premium").sum(), premium).alias("nbbo_coverage"),
        _ratio(pl.col("delta_size").sum(), pl.col("known_size").sum()).alias("delta_coverage"),
        *net,
        _ratio(calls - puts, premium).alias("call_put_imbalance"),
        _ratio(net_calls - net_puts, pl.col("known_premium").sum()).alias("net_call_put_imbalance"),
        _ratio(pl.col("multi_leg_premium").sum(), pl.col("reported_premium").sum()).alias("multi_leg_premium_share"),
        _ratio(pl.col("retail_premium").sum(), pl.col("reported_premium").sum()).alias("retail_premium_share"),
        pl.when(pl.col("retail_known").sum() > 0).then(pl.col("retail_net").sum()).alias("retail_net_premium_usd"),
        *(
            pl.when(is_known).then(pl.col(f"{way}_shares").filter(pl.col("right") == letter).sum()).alias(f"{way}_{side}_shares")
            for side, letter in RIGHTS.items()
            for way in ("buy", "sell")
        ),
    )
    whole = [*(c.name for c in (*NET_PREMIUM, *NET_DELTA)), "eligible_premium_usd", "retail_net_premium_usd"]
    doubled = [f"{way}_{side}_shares" for side in RIGHTS for way in ("buy", "sell")]
    return in_units(in_units(totals, whole), doubled, 2 * TEN_THOUSANDTHS).sort("underlying")


def _is_at(place: str) -> pl.Expr:
    """Whether the contract is placed there; a contract with a spot that is neither in nor out of the money is at it."""
    if place == "atm":
        return pl.col("place").is_null() & pl.col("spot").is_not_null() & ~pl.col("is_adjusted")
    return pl.col("place").eq_missing(place)


def _ratio(value: pl.Expr, over: pl.Expr) -> pl.Expr:
    return pl.when(over > 0).then(value / over)


def _packet_factors(packets: pl.DataFrame | None) -> pl.DataFrame | None:
    """`underlying` and the shares of premium by structure."""
    if packets is None:
        return None
    rows = packets.select("underlying", "structure", scaled(pl.col("premium_usd")).alias("premium"))
    total = pl.col("premium").sum()

    def share(structures: tuple[str, ...]) -> pl.Expr:
        return _ratio(pl.col("premium").filter(pl.col("structure").is_in(structures)).sum(), total)

    return rows.group_by("underlying").agg(
        share(("sweep",)).alias("sweep_premium_share"), share(PACKAGE_STRUCTURES).alias("package_premium_share")
    )


def _opening_factors(packets: pl.DataFrame | None, legs: pl.DataFrame) -> pl.DataFrame | None:
    """`underlying` and what packets of one contract bought and sold to open, by expectation."""
    if packets is None:
        return None
    opened = packets.filter(
        pl.col("structure").is_in(SINGLE_LEG_STRUCTURES)
        & pl.col("buy_probability").is_not_null()
        & pl.col("opening_probability").is_not_null()
    ).join(legs.select("contract", "multiplier").unique("contract"), on="contract", how="left")
    probability = {"buy": pl.col("buy_probability"), "sell": 1.0 - pl.col("buy_probability")}
    size = pl.col("contracts") * pl.col("opening_probability")
    bought = scaled(size * probability["buy"])
    totals = opened.group_by("underlying").agg(
        *(bought.filter(pl.col("right") == letter).sum().alias(f"opening_buy_{side}_volume") for side, letter in RIGHTS.items()),
        *(
            scaled(size * chance * pl.col("multiplier")).filter(pl.col("right") == letter).sum().alias(f"open_{way}_{side}_shares")
            for side, letter in RIGHTS.items()
            for way, chance in probability.items()
        ),
    )
    calls, puts = pl.col("opening_buy_call_volume"), pl.col("opening_buy_put_volume")
    shares = totals.with_columns(_ratio(puts, puts + calls).alias("opening_put_share"))
    return in_units(shares, [name for name in totals.columns if name != "underlying"])


_RATIOS = {
    "hu_order_imbalance": "net_delta_shares",
    **{f"glp_{side}_{way}_to_stock": f"{way}_{side}_shares" for side in RIGHTS for way in ("buy", "sell")},
    **{f"glp_open_{side}_{way}_to_stock": f"open_{way}_{side}_shares" for side in RIGHTS for way in ("buy", "sell")},
}
"""Factor -> the shares that it divides by stock volume."""


def _per_stock_volume(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(_ratio(pl.col(shares), pl.col("stock_volume")).alias(name) for name, shares in _RATIOS.items())


def _stock_volumes(inputs: Inputs, given: Collection[str]) -> pl.DataFrame | None:
    """`underlying`, `stock_volume`: the day bar's, else the sum of regular minute bars, per underlying."""
    found = []
    if "equity_bars_1d" in given:
        found.append(inputs["equity_bars_1d"].select("underlying", pl.col("volume").alias("stock_volume")))
    if "equity_bars_1m" in given:
        total = scaled(pl.col("volume")).sum().alias("stock_volume")
        minutes = inputs["equity_bars_1m"].filter("is_regular").group_by("underlying").agg(total)
        found.append(in_units(minutes, ["stock_volume"]))
    return pl.concat(found).unique("underlying", keep="first", maintain_order=True) if found else None


def _venue_sums(eligible: pl.DataFrame, legs: pl.DataFrame) -> pl.DataFrame:
    summed = ("size", "premium", "net_premium", "net_size", "known_premium", "iso_premium", "retail_premium")
    return (
        eligible.select(legs["underlying_no"].gather(eligible["contract_no"]), "exchange", *summed)
        .group_by("underlying_no", "exchange")
        .agg(pl.len().cast(pl.Int64).alias("prints"), pl.col(summed).sum())
    )


def _venue_flow(totals: pl.DataFrame, legs: pl.DataFrame) -> pl.DataFrame:
    """The table `venue_flow`; `totals` are `_venue_sums`."""
    named = legs.select("underlying_no", "underlying").unique("underlying_no")
    is_known = pl.col("known_premium") > 0
    rows = totals.join(named, on="underlying_no").select(
        "underlying",
        "exchange",
        "prints",
        pl.col("size").alias("volume"),
        pl.col("premium").alias("premium_usd"),
        _ratio(pl.col("known_premium"), pl.col("premium")).alias("side_coverage"),
        pl.when(is_known).then("net_size").alias("net_volume"),
        pl.when(is_known).then("net_premium").alias("net_premium_usd"),
        pl.col("iso_premium").alias("iso_premium_usd"),
        pl.col("retail_premium").alias("retail_premium_usd"),
    )
    names = ("premium_usd", "net_volume", "net_premium_usd", "iso_premium_usd", "retail_premium_usd")
    return in_units(rows, names).sort("underlying", "exchange")


def _venue_factors(totals: pl.DataFrame, legs: pl.DataFrame) -> pl.DataFrame:
    """`underlying` and how its signed volume lies over the venues; `totals` are `_venue_sums`."""
    named = legs.select("underlying_no", "underlying").unique("underlying_no")
    net = pl.col("net_size").cast(pl.Int128)  # squares of ten-thousandths of a contract outgrow 64 bits
    size = net.abs().sum()
    return (
        totals.join(named, on="underlying_no")
        .group_by("underlying")
        .agg(
            _ratio(size * size, (net * net).sum()).alias("venue_net_breadth"),
            _ratio(net.sum().abs(), size).alias("venue_agreement"),
        )
    )


# --- Why something is null ---------------------------------------------------------------------------------------------------


def _reasons(given: Collection[str]) -> Mapping[str, str | pl.Expr]:
    """Factor -> why it is null, by the names of the inputs that have rows."""

    def lacks(name: str, otherwise: str) -> str:
        return otherwise if name in given else f"needs {name}"

    side = lacks("trade_sides", "no print has a known side")
    delta = lacks("trade_sides", lacks("option_iv", "no print with a known side is in a contract with a delta"))
    bars = "equity_bars_1m" if "equity_bars_1m" in given else "equity_bars_1d"
    stock = lacks(bars, "no stock volume, or no print with a known side")
    opening = lacks("flow_packets", "no packet of one contract has a side and open interest")
    reasons: dict[str, str | pl.Expr] = {column.name: side for column in FLOW_VALUES}
    for name in reasons:
        if name in ("side_coverage", "nbbo_coverage", "call_put_imbalance"):
            reasons[name] = "no eligible print"
        elif name in ("multi_leg_premium_share", "retail_premium_share"):
            reasons[name] = "the prints carry no sale conditions"
        elif name == "retail_net_premium_usd":
            reasons[name] = lacks("trade_sides", "no single-leg auction with a known side")
        elif name in ("sweep_premium_share", "package_premium_share"):
            reasons[name] = lacks("flow_packets", "no packet")
        elif name.startswith("venue_"):
            reasons[name] = lacks("trade_sides", "no print has a known side, or none leans to one")
        elif name == "market_tide_usd":
            reasons[name] = lacks("trade_sides", "no print of the session has a known side")
        elif name == "index_tide_usd":
            reasons[name] = lacks("trade_sides", "no print of a cash-settled index has a known side")
        elif name == "sector_tide_usd":
            unsigned = pl.lit(lacks("trade_sides", "no print of its sector has a known side"))
            unnamed = pl.lit(lacks("sectors", "sectors does not name it"))
            reasons[name] = pl.when(pl.col("sector").is_null()).then(unnamed).otherwise(unsigned)
        elif name.startswith("opening_"):
            reasons[name] = opening
        elif name.startswith("glp_open_"):
            reasons[name] = lacks("flow_packets", lacks(bars, "no stock volume, or no packet has a side and open interest"))
        elif name == "hu_order_imbalance":
            reasons[name] = lacks(bars, delta if delta.startswith("needs") else "no stock volume, or net_delta_shares is null")
        elif name.startswith("glp_"):
            reasons[name] = lacks("trade_sides", stock)
        elif name.endswith("delta_shares"):
            reasons[name] = delta
            if any(f"_{place}_" in name for place in MONEYNESS):
                reasons[name] = delta if delta.startswith("needs") else "no known side with a delta, or no spot"
        elif any(f"_{place}_" in name for place in MONEYNESS):
            reasons[name] = lacks("trade_sides", "no print has a known side, or no spot")
    return reasons


def _with_absent(rows: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    return rows.with_columns(
        pl.lit(None, dtype=pl.Float64).alias(name) for name in dict.fromkeys(names) if name not in rows.columns
    )
