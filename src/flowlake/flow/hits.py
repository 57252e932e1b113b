"""Step `flow_hits`: the session's packets against the rules of unusual flow, with the reasons to doubt each hit."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import polars as pl

from flowlake.core import sessions
from flowlake.core.arrays import Float, Int
from flowlake.core.settings import FlowThresholds
from flowlake.datasets.flow_factors import BINS_PER_E
from flowlake.datasets.hits import (
    BASELINE_SESSIONS,
    BURST_MINUTES,
    CONFIDENCE,
    DEEP_ITM,
    DOUBTS,
    FLOW_HITS,
    LEG_SECONDS,
    PACKET_COLUMNS,
    PIN_DAYS,
    PIN_DISTANCE,
    RULES,
    THRESHOLDS,
    Z_FLOOR,
)
from flowlake.datasets.model import KNOWN_AT, SESSION, UTC_NS, Inputs, Output
from flowlake.datasets.packets import SINGLE_LEG_STRUCTURES
from flowlake.datasets.roots import VOLATILITY_INDEXES
from flowlake.datasets.scored import MAD_TO_SIGMA
from flowlake.flow._baselines import fill_baselines
from flowlake.flow._legs import fill_legs
from flowlake.flow.classifiers import classify
from flowlake.flow.units import outwards

_ACROSS_CONTRACTS = tuple(rule.name for rule in RULES if rule.gather and "contract" not in rule.gather)
"""Rules whose packets gather over several contracts."""
_LEG_TIME = timedelta(seconds=LEG_SECONDS)
_NS = 1_000_000_000
_LOOKED_AT = ("underlying", "contracts", "contract", "right", "expiry", "first_ts_utc", "last_ts_utc")


def flow_hits(inputs: Inputs, session: date) -> Output:
    """Reads `flow_packets` and `contracts`, and whatever exists of `flow_profiles` of up to `BASELINE_SESSIONS` sessions,
    `flow_minutes`, `corporate_actions` and the thresholds of the settings.
    """
    thresholds = thresholds_of(inputs)
    packets = inputs["flow_packets"].select(PACKET_COLUMNS).filter(pl.col("contract").is_not_null())
    rows = _with_figures(packets.filter(pl.col("structure").is_in(SINGLE_LEG_STRUCTURES)), inputs)
    for what, column in (("premium", "premium_usd"), ("size", "size")):
        rows = _with_score(rows, what, column, inputs, session, thresholds)
    hits = _with_doubts(classify(rows, thresholds), packets, inputs, session)
    return Output(
        {
            FLOW_HITS.name: hits.with_columns(
                pl.concat_str("rule", pl.lit(":"), "packet_id").alias("hit_id"),
                (pl.col("last_ts_utc") + _LEG_TIME).alias("completed_ts_utc"),
                pl.when(pl.col("rule").is_in(_ACROSS_CONTRACTS)).then(None).otherwise("contract").alias("contract"),
                (pl.col("confidence") * CONFIDENCE["doubt"] ** pl.col("doubts").list.len()).alias("confidence"),
            ).sort("underlying", "completed_ts_utc", "hit_id")
        }
    )


def thresholds_of(inputs: Inputs) -> FlowThresholds:
    """Those that the run was given, else the defaults."""
    given = inputs.get(THRESHOLDS)
    return FlowThresholds() if given is None else FlowThresholds(**dict(given.select("name", "value").iter_rows()))


# --- What the rules ask of a packet ------------------------------------------------------------------------------------------


def _with_figures(packets: pl.DataFrame, inputs: Inputs) -> pl.DataFrame:
    """`packets` with what `classify` needs beside the scores."""
    minutes = inputs.get("flow_minutes")
    minute = pl.col("first_ts_utc").dt.truncate("1m")
    if minutes is None:
        rows = packets.with_columns(pl.lit(None, dtype=pl.Float64).alias("spot"))
    else:
        spots = minutes.select("underlying", pl.col("ts_utc").alias("minute"), "spot")
        places = packets.select("underlying", minute.alias("minute"))
        rows = packets.with_columns(places.join(spots, on=["underlying", "minute"], how="left", maintain_order="left")["spot"])
    negotiated = pl.sum_horizontal("auction_share", "cross_share", "floor_share").clip(upper_bound=1.0)
    open_interest = pl.max_horizontal("open_interest_open", pl.lit(1))
    terms = inputs["contracts"].select("contract", "is_adjusted", (pl.col("exercise") == "european").alias("is_index"))
    return (
        rows.join(terms, on="contract", how="left", maintain_order="left")
        .with_columns(
            # The strike of an adjusted contract is not one of a share: it has no place beside the spot.
            pl.when(~pl.col("is_adjusted")).then(outwards(pl.col("right") == "C")).alias("otm_distance"),
            pl.col("median_quote_age_ms").alias("quote_age_ms"),
            negotiated.alias("negotiated_share"),
            (pl.col("last_price") - pl.col("first_price")).alias("price_rise_usd"),
            pl.when(pl.col("open_interest_open").is_not_null())
            .then(pl.col("volume_so_far") / open_interest)
            .alias("volume_to_open_interest"),
            pl.col("first_ts_utc").dt.truncate(f"{BURST_MINUTES}m").alias("interval"),
            pl.lit(1, dtype=pl.Int64).alias("packets"),
        )
        .drop("median_quote_age_ms", "auction_share", "floor_share", "first_price", "last_price", "spot", "is_adjusted")
    )


def _with_score(
    packets: pl.DataFrame, what: str, column: str, inputs: Inputs, session: date, thresholds: FlowThresholds
) -> pl.DataFrame:
    """With `<what>_z` and `baseline_packets`, of the histograms of the underlyings' packets on past sessions."""
    score = f"{what}_z"
    names = packets["underlying"].unique().sort()
    out = np.zeros((3, names.len()))
    _fill(out, inputs.get("flow_profiles"), names, what, session, thresholds)
    is_robust = out[2] >= thresholds.robust_samples
    spread = np.maximum(out[1] * np.where(is_robust, MAD_TO_SIGMA, 1.0) / BINS_PER_E, Z_FLOOR)
    baseline = pl.DataFrame(
        {
            "underlying": names,
            "centre": (out[0] + 0.5) / BINS_PER_E,
            # Not divided by: a column that is the same in all rows polars divides by in another way, to another last digit.
            "per_spread": 1.0 / spread,
            "baseline_packets": out[2].astype(np.int64),
        }
    )
    z = (pl.col(column).log() - pl.col("centre")) * pl.col("per_spread")
    scored = pl.when(pl.col("baseline_packets") >= thresholds.min_samples).then(z).alias(score)
    own = packets.select("underlying", column).join(baseline, on="underlying", how="left", maintain_order="left")
    return packets.with_columns(own.select(scored, "baseline_packets").get_columns())


def _fill(
    out: Float, profiles: pl.DataFrame | None, names: pl.Series, what: str, session: date, thresholds: FlowThresholds
) -> None:
    """Fill `out` as `fill_baselines` does, a row per name, of past sessions.

    Sizes are brought to this session's share basis.
    """
    if profiles is None:
        return
    days = profiles.filter(pl.col(SESSION) <= session)[SESSION].unique().sort().tail(BASELINE_SESSIONS)
    row = pl.DataFrame({"underlying": names, "row": np.arange(names.len())})
    needed = profiles.select("underlying", SESSION, "unit_contracts", f"{what}_bins", f"{what}_counts")
    past = needed.filter((pl.col(SESSION) < session) & pl.col(SESSION).is_in(days.implode())).join(row, on="underlying")
    shift = (pl.col("unit_contracts").log() * BINS_PER_E).round() if what == "size" else pl.lit(0.0)
    lists = past.filter(pl.col(f"{what}_bins").list.len() > 0).select(
        SESSION,
        "row",
        shift.cast(pl.Int64).alias("shift"),
        pl.col(f"{what}_bins").alias("bins"),
        pl.col(f"{what}_counts").alias("counts"),
    )
    if lists.is_empty():
        return
    ends = lists.select(
        (pl.col("bins").list.min() + pl.col("shift")).min().alias("lowest"),
        (pl.col("bins").list.max() + pl.col("shift")).max().alias("highest"),
    )
    lowest = int(ends["lowest"][0])
    width = int(ends["highest"][0]) - lowest + 1
    histograms = np.zeros(names.len() * width, dtype=np.int64)
    for _, of_session in lists.group_by(SESSION):  # one after the other: all lists at once would be large
        lengths = of_session["bins"].list.len().to_numpy()
        bins, counts = (of_session[name].explode(empty_as_null=False).to_numpy() for name in ("bins", "counts"))
        first = of_session["row"].to_numpy() * width + of_session["shift"].to_numpy() - lowest
        # Whole counts up to 2^53 add up without error as floats.
        histograms += np.bincount(np.repeat(first, lengths) + bins, weights=counts, minlength=histograms.size).astype(np.int64)
    fill_baselines(out, histograms.reshape(names.len(), width), lowest, thresholds.robust_samples)


# --- Doubts ------------------------------------------------------------------------------------------------------------------


def _with_doubts(hits: pl.DataFrame, packets: pl.DataFrame, inputs: Inputs, session: date) -> pl.DataFrame:
    """With `doubts`, in the order of `DOUBTS`."""
    rows = hits.join(_legs(hits, packets), on="packet_id", how="left", maintain_order="left").join(
        _ex_dates(inputs, session), on="underlying", how="left", maintain_order="left"
    )
    is_put = pl.col("right") == "P"
    hedges = is_put != pl.col("underlying").is_in(VOLATILITY_INDEXES)
    is_next = pl.col("dividend_known_utc") <= pl.col("last_ts_utc") + _LEG_TIME
    found = {
        "possible_hedge": (hedges & (pl.col("direction") == "bought") & pl.col("is_index")) | (pl.col("cross_share") > 0.5),
        "possible_leg": pl.col("has_leg"),
        "possible_roll": pl.col("is_roll"),
        "possible_dividend_play": ~is_put & (pl.col("otm_distance") <= -DEEP_ITM) & is_next,
        "possible_expiry_pin": (pl.col("days_to_expiry") <= PIN_DAYS) & (pl.col("otm_distance").abs() <= PIN_DISTANCE),
        "may_close": pl.col("opening_probability") < 0.5,
    }
    texts = [pl.when(found[name].fill_null(False)).then(pl.lit(f"{name}: {what}")) for name, what in DOUBTS.items()]
    return rows.with_columns(pl.concat_list(texts).list.drop_nulls().alias("doubts"))


def _legs(hits: pl.DataFrame, packets: pl.DataFrame) -> pl.DataFrame:
    """`packet_id`, `has_leg`, `is_roll` of hits with another contract of the same size beside them, complete in time."""
    near = packets.select("packet_id", *_LOOKED_AT).join(hits, on=["underlying", "contracts"], how="semi")
    near = near.sort("underlying", "contracts", "first_ts_utc")
    asked = near.with_row_index("place").join(hits, on="packet_id", how="semi", maintain_order="left")
    is_new = pl.any_horizontal(pl.col(name) != pl.col(name).shift() for name in ("underlying", "contracts"))
    has_leg, is_roll = np.zeros((2, asked.height), dtype=np.bool_)
    fill_legs(
        has_leg,
        is_roll,
        _whole(asked, pl.col("place")),
        _whole(near, is_new.fill_null(False).cum_sum()),
        _whole(near, pl.col("first_ts_utc")),
        _whole(near, pl.col("last_ts_utc")),
        _whole(near, pl.col("contract").cast(pl.Categorical).to_physical()),
        _whole(near, pl.col("right") == "C"),
        _whole(near, pl.col("expiry")),
        LEG_SECONDS * _NS,
    )
    found = asked.select("packet_id", pl.Series("has_leg", has_leg), pl.Series("is_roll", is_roll))
    return found.filter("has_leg")


def _whole(frame: pl.DataFrame, value: pl.Expr) -> Int:
    return frame.select(value.cast(pl.Int64)).to_series().to_numpy()


def _ex_dates(inputs: Inputs, session: date) -> pl.DataFrame:
    """`underlying`, `dividend_known_utc` of dividends that go ex on the next session."""
    actions = inputs.get("corporate_actions")
    if actions is None:
        return pl.DataFrame(schema={"underlying": pl.String(), "dividend_known_utc": UTC_NS})
    ahead = actions.filter(
        (pl.col("ex_date") == sessions.next_session(session)) & pl.col("kind").is_in(["cash_dividend", "special_dividend"])
    )
    return ahead.group_by("underlying").agg(pl.col(KNOWN_AT).min().alias("dividend_known_utc"))
