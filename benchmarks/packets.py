"""Packets against the truth of the synthetic market, and what they cost.

    python benchmarks/packets.py [truth | cost | fit]

`truth`: recall and precision of each structure on five markets (12 underlyings, 5 sessions each), with quotes and without; how
often opening probabilities held; verdicts of the receipts. An event is found when a packet has exactly its prints and its name.
`cost`: processor seconds and memory of the step at 1 and 3 million prints; there is no rival. `fit`: coefficients of the opening
model on three other markets. Prints that take no part (late, cancelled, compression) are left out of the truth.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import polars as pl
from sklearn.linear_model import LogisticRegression

from flowlake.core import sessions
from flowlake.core.arrays import Float
from flowlake.curate import contracts, open_interest, trades
from flowlake.curate.kept_quotes import KeptQuotes
from flowlake.datasets.packets import BLOCK_CONTRACTS, HIT_CONTRACTS, OPENING_CLAIM, REPEATED_HITS, STRUCTURES
from flowlake.datasets.registry import DATASETS
from flowlake.flow import _packet_tables, opening, packets
from flowlake.flow.receipts import flow_receipts
from flowlake.flow.sides import trade_sides
from flowlake.market import MarketSpec, build
from flowlake.market.build import Simulation
from flowlake.sources import feeds

SEEDS, FIT_SEEDS = (301, 302, 303, 304, 305), (201, 202, 203)
KEY = ("contract", "ts", "units", "size", "condition", "exchange", "is_cancelled")
RAW = ("massive_option_trades", "massive_option_quotes", "open_interest_file")
DIRECTIONAL = ("informed", "decoy:noise_spike")


@dataclass(frozen=True)
class Session:
    """Inputs of the step, and the truth of each print in the order of `option_trades`."""

    day: date
    inputs: dict[str, pl.DataFrame]
    truth: pl.DataFrame


def conform(name: str, frame: pl.DataFrame, day: date) -> pl.DataFrame:
    return DATASETS[name].conform(frame, day).with_columns(session=pl.lit(day))


def market_sessions(seed: int, count: int = 6) -> Iterator[Session]:
    """Every session but the first of a market of 12 underlyings, curated from its vendor files."""
    market = build(MarketSpec(seed=seed, sessions=count, include_stock=False, include_quotes=True))
    raw: dict[date, dict[str, pl.DataFrame]] = {day: {} for day in market.days}
    for file in market.files():
        found = feeds.match(file.key)
        if found is not None and found.feed.dataset.name in RAW and found.file_date is not None:
            raw[found.file_date][found.feed.dataset.name] = feeds.parse(found.feed, file.key, file.body)
    told = market.truth()
    kinds = told["episodes"].select("episode_id", "kind")
    earlier: list[pl.DataFrame] = []
    for day in market.days:
        quotes = KeptQuotes.of("massive_option_quotes", raw[day], day)
        quotes.take(raw[day]["massive_option_quotes"])
        parsed = raw[day] | {"massive_option_quotes": quotes.table()}
        tables = {name: conform(name, table, day) for name, table in parsed.items()}
        tables["contracts"] = conform("contracts", contracts.contracts(tables, day).tables["contracts"], day)
        tape = conform("option_trades", trades.option_trades(tables, day).tables["option_trades"], day)
        held = conform("open_interest", open_interest.open_interest(tables, day).tables["open_interest"], day)
        sides = trade_sides({"option_trades": tape, "massive_option_quotes": tables["massive_option_quotes"]}, day)
        inputs = {
            "option_trades": tape,
            "trade_sides": conform("trade_sides", sides.tables["trade_sides"], day),
            "open_interest": pl.concat([*earlier, held]),
        }
        truth = aligned(tape, told["trades"].filter(pl.col("session") == day)).join(kinds, on="episode_id", how="left")
        if earlier:
            yield Session(day, inputs, truth.sort("print_no"))
        earlier = [held]


def aligned(tape: pl.DataFrame, truth: pl.DataFrame) -> pl.DataFrame:
    """Truth by `print_no`; prints alike in every field take the truths of their likes in any order."""
    units = (pl.col("price") * 10_000).round().cast(pl.Int64).alias("units")
    ours = tape.with_row_index("print_no").with_columns(pl.col("ts_utc").to_physical().alias("ts"), units)
    theirs = truth.with_columns(pl.col("ticker").str.slice(2).alias("contract"), pl.col("sip_timestamp").alias("ts"), units).filter(
        ~pl.col("condition").is_in([201, 203, 205, 207])
    )
    place = pl.int_range(pl.len()).over(KEY).alias("place")
    ours = ours.sort(*KEY, "print_no").with_columns(place)
    theirs = theirs.sort(*KEY, "row").with_columns(place)
    told = theirs.select(*KEY, "place", "side", "is_opening", "order_id", "package_id", "episode_id")
    return ours.select(*KEY, "place", "print_no").join(told, on=[*KEY, "place"], how="left")


def true_package(legs: list[tuple[int, str, float, int, int]]) -> str:
    """The name of a package from its legs (expiry, right, strike, side, size), written apart from the code under test."""
    legs = sorted(legs, key=lambda leg: (leg[0], leg[1], leg[2]))
    expiries, rights, strikes = ({leg[i] for leg in legs} for i in range(3))
    sides = [leg[3] for leg in legs]
    if len(legs) == 2 and len(rights) == 1:
        if len(expiries) == 1:
            return "vertical"
        return "calendar" if len(strikes) == 1 else "diagonal"
    if len(legs) == 2 and len(expiries) == 1:
        names = ("straddle", "synthetic") if len(strikes) == 1 else ("strangle", "risk_reversal")
        return names[0] if sides[0] == sides[1] else names[1]
    if len(legs) == 4 and len(expiries) == 1 and [leg[1] for leg in legs] == ["C", "C", "P", "P"] and legs[3][2] <= legs[0][2]:
        return "iron_condor"
    return "other_package"


def true_names(prints: pl.DataFrame) -> pl.DataFrame:
    """`order_id`, `name`: what each order of the session was. `prints` are those that take part."""
    orders = prints.group_by("order_id").agg(
        pl.len().alias("fills"),
        pl.col("exchange").n_unique().alias("venues"),
        pl.col("is_iso").any(),
        pl.col("size").sum(),
        pl.col("package_id").first(),
        (pl.col("is_multi_leg") | pl.col("is_stock_tied")).any().alias("is_leg"),
        pl.col("is_stock_tied").any(),
        pl.col("kind").first(),
        pl.col("contract").first(),
        pl.col("side").first(),
        pl.struct(pl.col("expiry").to_physical(), "right", "strike", "side", "size").alias("legs"),
        pl.col("contract").n_unique().alias("leg_count"),
    )
    single = (
        pl.when((pl.col("fills") > 1) & ((pl.col("venues") > 1) | pl.col("is_iso")))
        .then(pl.lit("sweep"))
        .when(pl.col("fills") > 1)
        .then(pl.lit("split"))
        .when(pl.col("size") >= BLOCK_CONTRACTS)
        .then(pl.lit("block"))
        .otherwise(pl.lit("single"))
    )
    is_package = pl.col("package_id").is_not_null()
    named = orders.with_columns(
        pl.when(pl.col("is_stock_tied"))
        .then(pl.lit("stock_tied"))
        .when(pl.col("is_leg") & (~is_package | (pl.col("leg_count") == 1)))
        .then(pl.lit("other_package"))
        .when(is_package & (pl.col("kind") == "decoy:roll"))
        .then(pl.lit("roll"))
        .when(~is_package)
        .then(single)
        .alias("name")
    )
    texts = [name or true_package([tuple(leg.values()) for leg in legs]) for name, legs in named.select("name", "legs").iter_rows()]
    named = named.with_columns(pl.Series("name", texts))
    may_repeat = pl.col("name").is_in(["single", "split"]) & pl.col("kind").is_in(DIRECTIONAL) & (pl.col("size") >= HIT_CONTRACTS)
    repeats = may_repeat & (may_repeat.sum().over("contract", "side", "kind") >= REPEATED_HITS)
    name = pl.when(repeats).then(pl.lit("repeated_hits")).otherwise("name").alias("name")
    return named.select("order_id", name)


def judged(session: Session, inputs: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """`structure`, `true`, `found`, `right_of_true`, `right_of_found`: counts of events; of prints for repeated hits."""
    found, tape, _ = packets.find(inputs, session.day)
    marks = session.inputs["option_trades"].select(
        "contract", "right", "strike", "expiry", "exchange", "size", "is_iso", "is_multi_leg", "is_stock_tied"
    )
    told = session.truth.select("order_id", "package_id", "side", "kind", pl.col("^planted$"))
    rows = told.hstack(marks)[tape.print_no.tolist()]
    structure = np.array([*STRUCTURES, ""])[np.where(found.group >= 0, found.structure[found.group], -1)]
    rows = rows.with_columns(pl.Series("packet", found.group), pl.Series("structure", structure))
    rows = rows.filter((pl.col("packet") >= 0) & pl.col("order_id").is_not_null())
    rows = rows.join(true_names(rows), on="order_id", how="left")
    if "planted" in rows.columns:
        rows = rows.filter(pl.col("planted").is_not_null().any().over("packet"))
        rows = rows.with_columns(pl.coalesce("planted", "name").alias("name"))
    by_legs = rows.with_columns(pl.col("name", "structure").replace_strict(PAIRS, default=None))
    by_legs = by_legs.filter(pl.any_horizontal(pl.col("name", "structure").is_not_null()))
    return pl.concat([counted(rows), counted(by_legs).filter(pl.col("structure").is_not_null())], how="diagonal_relaxed")


def counted(rows: pl.DataFrame) -> pl.DataFrame:
    """What `judged` gives, of prints with `order_id`, `packet`, and the `name` and `structure` of these."""
    count = [pl.len().over(*keys) for keys in (["order_id"], ["packet"], ["order_id", "packet"])]
    is_exact = (count[0] == count[2]) & (count[1] == count[2]) & (pl.col("name") == pl.col("structure"))
    rows = rows.with_columns(is_exact.alias("is_right"))
    hits = pl.col("name") == "repeated_hits", pl.col("structure") == "repeated_hits"
    rows = rows.with_columns(pl.when(hits[0]).then(hits[1]).when(hits[1]).then(hits[0]).otherwise("is_right").alias("is_right"))

    def events(key: str, name: str) -> pl.DataFrame:
        repeated = rows.filter(pl.col(name) == "repeated_hits")
        others = rows.filter(pl.col(name) != "repeated_hits").unique(key)
        both = pl.concat([others, repeated])
        by_name = both.group_by(pl.col(name).alias("structure"))
        return by_name.agg(pl.len().alias(key), pl.col("is_right").sum().alias(f"{key}_right"))

    return events("order_id", "name").join(events("packet", "structure"), on="structure", how="full", coalesce=True).fill_null(0)


PAIRS = {
    name: "call and put of one strike, however named" if name in ("straddle", "synthetic", "straddle_or_synthetic")
    else "call and put of two strikes, however named"
    for name in ("straddle", "synthetic", "straddle_or_synthetic", "strangle", "risk_reversal", "strangle_or_risk_reversal")
}  # fmt: skip
"""What the legs alone say of the structures of which the name needs sides."""
SHAPES = ("straddle", "strangle", "synthetic", "risk_reversal", "vertical", "ratio", "calendar", "diagonal", "butterfly", "ladder")
SHAPES = (*SHAPES, "condor")
PLANTED = 40
"""Packages of each shape per session."""


def planted(session: Session, rng: np.random.Generator) -> Session:
    """The session with packages of every shape added: the market itself has verticals, strangles, calendars and iron condors only.

    Legs are contracts that traded, at their median quote of the session, printed as the market prints legs: anywhere from 0.3 half
    spreads on the wrong side of the midpoint to 0.8 on the right one.
    """
    tape, sides = session.inputs["option_trades"], session.inputs["trade_sides"]
    quoted = tape.select("contract", "root", "expiry", "right", "strike", "underlying").hstack(sides.select("bid", "ask"))
    chain = quoted.drop_nulls().group_by("contract").agg(pl.all().first()).filter(pl.col("ask") > pl.col("bid")).sort("contract")
    series = {
        key: rows.sort("strike").to_dicts() for key, rows in chain.group_by("underlying", "expiry", "right", maintain_order=True)
    }
    named: dict[str, dict[str, list[tuple[date, list[dict[str, Any]]]]]] = {}
    for (underlying, expiry, right), rows in series.items():
        named.setdefault(underlying, {}).setdefault(right, []).append((expiry, rows))
    prints, order = [], 10**9
    for shape in SHAPES * PLANTED:
        order += 1
        found = shaped(shape, named[list(named)[rng.integers(len(named))]], rng)
        if found is None:
            continue
        unit, direction = int(rng.integers(1, 30)), int(rng.choice((-1, 1)))
        moment, venue = int(rng.integers(0, 6 * 3_600_000)), int(rng.choice((300, 301, 302, 304, 308, 312, 323)))
        for row, sign, ratio in found:
            middle, half, side = (row["bid"] + row["ask"]) / 2, (row["ask"] - row["bid"]) / 2, sign * direction
            price = round(min(max(middle + side * half * (1.1 * rng.random() - 0.3), 0.01), row["ask"]), 2)
            of_order = {"side": side, "ms": moment, "exchange": venue, "order_id": order, "planted": shape}
            prints.append(row | of_order | {"price": price, "size": unit * ratio})
    extra = pl.DataFrame(prints)
    opened = sessions.open_utc(session.day)
    like = tape.filter(pl.col("condition") == 232).head(1).drop("price", "size", "exchange", "contract", "ts_utc", "premium_usd")
    like = like.drop("root", "expiry", "right", "strike", "underlying")
    rows = extra.join(like, how="cross").with_columns(
        (pl.lit(opened) + pl.duration(milliseconds="ms")).cast(tape["ts_utc"].dtype).alias("ts_utc"),
        (pl.col("price") * pl.col("size") * 100).alias("premium_usd"),
        pl.lit(0.001).alias("quote_age_ms"),
        pl.lit(None, pl.Float64).alias("buy_probability"),
    )
    quotes = ["bid", "ask", "quote_age_ms", "buy_probability"]
    told = ["order_id", "package_id", "side", "kind", "is_opening"]
    old = tape.hstack(sides.select(quotes)).hstack(session.truth.select(told)).with_columns(planted=pl.lit(None, pl.String))
    rows = rows.with_columns(pl.col("order_id").alias("package_id"))
    both = pl.concat([old, rows.select(name for name in old.columns if name in rows.columns)], how="diagonal_relaxed")
    both = both.sort("root", "expiry", "right", "strike", "ts_utc", "price", "size", "order_id")
    both = both.with_columns(print_no=pl.int_range(pl.len()))
    inputs = session.inputs | {"option_trades": both.select(tape.columns), "trade_sides": both.select("print_no", *quotes)}
    return Session(session.day, inputs, both.select("print_no", *told, "planted"))


def shaped(
    shape: str, of: dict[str, list[tuple[date, list[dict[str, Any]]]]], rng: np.random.Generator
) -> list[tuple[dict[str, Any], int, int]] | None:
    """Contract, sign and ratio of each leg; None where the chain has no such contracts."""
    every = [series for right in ("C", "P") for series in of.get(right, [])]
    expiry, rows = every[rng.integers(len(every))]
    right = rows[0]["right"]
    if shape in ("vertical", "ratio", "butterfly", "ladder", "condor"):
        signs = {"vertical": (1, -1), "ratio": (1, -1), "butterfly": (1, -1, 1), "ladder": (1, -1, -1), "condor": (1, -1, -1, 1)}[
            shape
        ]
        if shape == "ladder" and right == "P":
            signs = (-1, -1, 1)
        if len(rows) < len(signs):
            return None
        at = np.sort(rng.choice(len(rows), len(signs), replace=False))
        ratios = {"ratio": (1, 2), "butterfly": (1, 2, 1)}.get(shape, (1,) * len(signs))
        return [(rows[i], sign, ratio) for i, sign, ratio in zip(at, signs, ratios, strict=True)]
    one = rows[rng.integers(len(rows))]
    if shape in ("calendar", "diagonal"):
        later = [
            r for e, series in of[right] if e > expiry for r in series if (r["strike"] == one["strike"]) == (shape == "calendar")
        ]
    else:
        same = shape in ("straddle", "synthetic")
        other = "P" if right == "C" else "C"
        later = [r for e, series in of.get(other, []) if e == expiry for r in series if (r["strike"] == one["strike"]) == same]
    if not later:
        return None
    return [(one, 1, 1), (later[rng.integers(len(later))], 1 if shape in ("straddle", "strangle") else -1, 1)]


def truth() -> None:
    tables: dict[str, list[pl.DataFrame]] = {"with quotes": [], "without": [], "planted, with quotes": [], "planted, without": []}
    chances: list[pl.DataFrame] = []
    paid: list[pl.DataFrame] = []
    verdicts: list[pl.DataFrame] = []
    for seed in SEEDS:
        for session in market_sessions(seed):
            bare = {name: frame for name, frame in session.inputs.items() if name != "trade_sides"}
            tables["with quotes"].append(judged(session, session.inputs))
            tables["without"].append(judged(session, bare))
            more = planted(session, np.random.default_rng([seed, session.day.toordinal()]))
            bare = {name: frame for name, frame in more.inputs.items() if name != "trade_sides"}
            tables["planted, with quotes"].append(judged(more, more.inputs))
            tables["planted, without"].append(judged(more, bare))
            chances.append(openings(session))
            paid.append(directions(session))
            verdicts.append(receipts(session))
    for name, parts in tables.items():
        total = pl.concat(parts).group_by("structure").sum()
        print(f"\n{name}\n| structure | true | found | recall | precision |\n|---|---|---|---|---|")
        for row in total.sort(
            pl.col("structure").replace_strict({s: i for i, s in enumerate(STRUCTURES)}, default=len(STRUCTURES))
        ).rows(named=True):
            recall = f"{row['order_id_right'] / row['order_id']:.3f}" if row["order_id"] else ""
            precision = f"{row['packet_right'] / row['packet']:.3f}" if row["packet"] else ""
            print(f"| {row['structure']} | {row['order_id']:,} | {row['packet']:,} | {recall} | {precision} |")
    told = pl.concat(chances)
    free = told.filter(~pl.col("is_bounded"))
    bins = (0.5, 0.65, 0.7, 0.75, 0.8, 0.9, 1.01)
    reliability("opened, no bound", free, bins)
    reliability("opened, 50 contracts or more, no bound", free.filter(pl.col("size") >= 50), bins)
    reliability("opened, with a bound", told.filter("is_bounded"), bins)
    reliability("packages, paid on balance", pl.concat(paid), (0.1, 0.3, 0.45, 0.55, 0.7, 0.9, 1.01))
    judged_ = pl.concat(verdicts)
    print("\n| verdict | contracts | claimed | truly opened |\n|---|---|---|---|")
    for verdict, rows in judged_.group_by("verdict", maintain_order=True):
        claimed, opened = rows["claimed_opening"].sum(), rows["opened"].sum()
        print(f"| {verdict[0]} | {rows.height} | {claimed:,} | {opened / claimed:.2f} |")


def openings(session: Session) -> pl.DataFrame:
    """Per packet: probability, share of its contracts that opened, contracts, whether the bound alone gives the probability."""
    found, tape, _ = packets.find(session.inputs, session.day)
    evidence = _packet_tables.evidence(found, session.day)
    is_in = found.group >= 0
    opened = tape.size * session.truth["is_opening"].fill_null(False).to_numpy()[tape.print_no]
    size = np.bincount(found.group[is_in], tape.size[is_in])
    share = np.bincount(found.group[is_in], opened[is_in]) / size
    bound = opening.size_bound(evidence.size, evidence.open_interest, evidence.volume_before)
    x = opening.features(evidence)
    return pl.DataFrame({"p": opening.probability(evidence), "opened": share, "size": size, "is_bounded": bound > 0}).hstack(
        pl.DataFrame(x, schema=list(opening.COEFFICIENTS))
    )


def reliability(name: str, rows: pl.DataFrame, edges: tuple[float, ...]) -> None:
    """Stated probabilities `p` against what happened, `opened`."""
    print(f"\n{name}\n| stated | packets | mean stated | true |\n|---|---|---|---|")
    low = 0.0
    for high in edges:
        part = rows.filter((pl.col("p") >= low) & (pl.col("p") < high))
        if part.height:
            print(f"| {low} to {min(high, 1)} | {part.height:,} | {part['p'].mean():.3f} | {part['opened'].mean():.3f} |")
        low = high


def directions(session: Session) -> pl.DataFrame:
    """Of packages with a direction: stated probability that who began it paid, and whether the true sides say so."""
    found, tape, _ = packets.find(session.inputs, session.day)
    is_in = found.group >= 0
    side = session.truth["side"].fill_null(0).to_numpy()[tape.print_no]
    paid = np.bincount(found.group[is_in], (side * tape.premium)[is_in])
    table = pl.DataFrame({"p": found.buy_probability, "legs": found.leg_count, "paid": paid}).fill_nan(None).drop_nulls()
    return table.filter((pl.col("legs") > 1) & (pl.col("paid") != 0)).with_columns(opened=pl.col("paid") > 0)


def receipts(session: Session) -> pl.DataFrame:
    made = packets.flow_packets(session.inputs, session.day).tables
    inputs = session.inputs | {name: conform(name, frame, session.day) for name, frame in made.items()}
    table = flow_receipts(inputs, session.day).tables["flow_receipts"]
    claims = made["flow_packets"].filter(pl.col("opening_probability") >= OPENING_CLAIM).select("packet_id")
    told = session.truth.select("print_no", pl.col("is_opening").fill_null(False)).cast({"print_no": pl.Int64})
    opened = (
        made["packet_prints"]
        .join(claims, on="packet_id", how="semi")
        .join(told, on="print_no", how="left")
        .group_by("contract")
        .agg((pl.col("size") * pl.col("is_opening")).sum().alias("opened"))
    )
    return table.join(opened, on="contract", how="left").select("verdict", "claimed_opening", "opened").sort("verdict")


def fit() -> None:
    rows = pl.concat([openings(session) for seed in FIT_SEEDS for session in market_sessions(seed)]).filter(~pl.col("is_bounded"))
    x: Float = rows.select(opening.COEFFICIENTS.keys()).to_numpy()
    model = LogisticRegression(C=100, fit_intercept=False, max_iter=500).fit(x, rows["opened"].to_numpy() >= 0.5)
    for name, declared, fitted in zip(opening.COEFFICIENTS, opening.COEFFICIENTS.values(), model.coef_[0], strict=True):
        print(f"{name:20s} declared {declared:6.2f}  fitted {fitted:6.2f}")


def big_session(prints: int) -> Session:
    """One session with about so many prints, 60 underlyings, straight from the simulation."""
    spec = MarketSpec(seed=7, sessions=1, underlyings=60, trades_per_underlying_session=prints // 80, include_stock=False)
    data = next(Simulation(spec).sessions())
    day = spec.first_session
    raw = data.tables["us_options_opra/trades_v1"].with_columns(
        conditions=pl.col("conditions"), participant_timestamp=pl.lit(None, pl.Int64), row=pl.int_range(pl.len())
    )
    tables = {"massive_option_trades": raw.with_columns(session=pl.lit(day))}
    tables["contracts"] = conform("contracts", contracts.contracts(tables, day).tables["contracts"], day)
    tape = conform("option_trades", trades.option_trades(tables, day).tables["option_trades"], day)
    rng = np.random.default_rng(1)
    half = (pl.col("price") * 0.02).round(2).clip(0.01)
    sides = tape.select("contract", "ts_utc", "price").with_columns(
        print_no=pl.int_range(pl.len()),
        bid=(pl.col("price") - half).clip(0.01),
        ask=pl.col("price") + pl.Series(rng.choice([0.0, 0.01], tape.height)),
        quote_age_ms=pl.Series(rng.exponential(200.0, tape.height)),
        buy_probability=pl.Series(rng.choice([0.1, 0.9], tape.height)),
    )
    held = (
        tape.select("contract", "underlying")
        .unique("contract")
        .with_columns(open_interest_close=500, oi_session=sessions.previous_session(day), source=pl.lit("x"), session=pl.lit(day))
    )
    volatility = tape.select("contract").unique().with_columns(delta=0.4)
    inputs = {"option_trades": tape, "trade_sides": sides, "open_interest": held, "option_iv": volatility}
    return Session(day, inputs, pl.DataFrame())


def cost() -> None:
    small = big_session(40_000)
    packets.flow_packets(small.inputs, small.day)
    for prints in (1_000_000, 3_000_000):
        session = big_session(prints)
        height = session.inputs["option_trades"].height
        began = time.process_time()
        tables = packets.flow_packets(session.inputs, session.day).tables
        seconds = time.process_time() - began
        conformed = time.process_time()
        for name, frame in tables.items():
            DATASETS[name].conform(frame, session.day)
        conformed = time.process_time() - conformed
        print(
            f"{height:,} prints, {tables['flow_packets'].height:,} packets: {seconds:.2f} core-seconds "
            f"({seconds / height * 1e6:.2f} per million), {conformed:.2f} more to the declared schema and order"
        )


if __name__ == "__main__":
    {"truth": truth, "cost": cost, "fit": fit}[sys.argv[1] if len(sys.argv) > 1 else "truth"]()
