"""The rules of unusual flow, applied to packets of one contract. What a rule asks for is declared in `flowlake.datasets.hits`."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from flowlake.core.settings import FlowThresholds
from flowlake.datasets.hits import CONFIDENCE, MOST_EVIDENCE, QUOTE_CONDITIONS, RULES, Condition, Rule
from flowlake.flow.units import TEN_THOUSANDTHS, in_units, scaled

SCORES = ("premium_z", "size_z")
GATHERED = ("packets", "fills", "size", "premium_usd", "nbbo_coverage", "quote_age_ms", "aggressor_share", "buy_probability")
"""What adds up, or is averaged by contracts, where packets gather; the rest is that of the packet which completes the rule."""
RUNNING = ("volume_so_far", "volume_to_open_interest")
"""What the packet already carries as a sum up to itself."""
_SHOWN = 6
"""Significant digits of the numbers in `conditions`."""


def classify(packets: pl.DataFrame, thresholds: FlowThresholds) -> pl.DataFrame:
    """Every hit of every rule: the columns of `packets`, and `rule`, `tier`, `confidence`, `direction`, `conditions`, `reasons`
    and `packet_ids`; doubts are not looked for here.

    `packets`: rows of `flow_packets` of one contract each, with `quote_age_ms`, `otm_distance`, `premium_z`, `size_z` (null below
    `min_samples`), `baseline_packets`, `negotiated_share`, `price_rise_usd`, `volume_to_open_interest`, `interval`, `packets` (1).
    """
    return pl.concat(_hits(rule, packets, thresholds) for rule in RULES).sort("rule", "packet_id")


def _hits(rule: Rule, packets: pl.DataFrame, thresholds: FlowThresholds) -> pl.DataFrame:
    rows = packets.filter(pl.col("structure").is_in(rule.structures)) if rule.structures else packets
    if rule.gather:
        rows = _gathered(_gathering(rule, rows, thresholds), rule.gather)
    met = {c.column: _is_met(c, thresholds) for c in rule.conditions}
    hard = [expr.fill_null(False) for column, expr in met.items() if column not in SCORES]
    scores = [expr for column, expr in met.items() if column in SCORES]
    quotes = _quotes_say(thresholds) if rule.needs_quotes else pl.lit(True)
    found = rows.filter(*hard, *(expr.fill_null(True) for expr in scores), quotes.fill_null(True))
    if rule.gather:
        found = found.unique(rule.gather, keep="first", maintain_order=True)
    reasons = [*_missing_scores(met, thresholds), _missing_quotes(rule, thresholds)]
    is_short = pl.lit(False)
    for score in met.keys() & set(SCORES):
        is_short = is_short | (pl.col(score).is_not_null() & (pl.col("baseline_packets") < thresholds.robust_samples))
    described = found.with_columns(
        pl.lit(rule.name).alias("rule"),
        _direction(),
        _conditions(rule, thresholds).alias("conditions"),
        pl.concat_list(reasons).list.drop_nulls().alias("missing"),
        pl.when(is_short).then(CONFIDENCE["short_baseline"]).otherwise(1.0).alias("trust"),
    ).with_columns(
        pl.when(pl.col("missing").list.len() == 0).then(pl.lit("confirmed")).otherwise(pl.lit("unconfirmed")).alias("tier"),
        (CONFIDENCE["confirmed"] * CONFIDENCE["unjudged"] ** pl.col("missing").list.len() * pl.col("trust")).alias("confidence"),
        pl.col("missing").list.join("; ").alias("reasons"),
    )
    return described.drop("missing", "trust").with_columns(_evidence(rule, described, rows))


def _gathering(rule: Rule, packets: pl.DataFrame, thresholds: FlowThresholds) -> pl.DataFrame:
    """The packets that gather: those which meet what a packet alone decides, of groups that could complete the rule at all."""
    own = [_is_met(c, thresholds).fill_null(False) for c in rule.conditions if c.column not in (*GATHERED, *RUNNING)]
    if rule.needs_quotes:
        own.append((pl.col("buy_probability") >= 0.5).fill_null(True))
    rows = packets.filter(*own)
    could = pl.lit(True)
    for condition in rule.conditions:
        if condition.column in RUNNING:
            could = could & _is_met(condition, thresholds).fill_null(False).any()
        elif condition.column == "premium_usd":
            could = could & (scaled(pl.col("premium_usd")).sum() >= _bound(condition, thresholds) * TEN_THOUSANDTHS)
    complete = rows.group_by(rule.gather).agg(could.alias("could")).filter("could")
    return rows.join(complete.select(rule.gather), on=rule.gather, how="semi", maintain_order="left")


def _is_met(condition: Condition, thresholds: FlowThresholds) -> pl.Expr:
    """Null where the column is."""
    value, bound = pl.col(condition.column), _bound(condition, thresholds)
    return {"at least": value >= bound, "at most": value <= bound, "above": value > bound}[condition.sense]


def _bound(condition: Condition, thresholds: FlowThresholds) -> float:
    return float(getattr(thresholds, condition.threshold)) if condition.threshold else 0.0


def _quotes_say(thresholds: FlowThresholds) -> pl.Expr:
    """Whether good quotes have the aggressor where the rule wants it; null where quotes cannot judge."""
    coverage, age, side = (_is_met(c, thresholds) for c in QUOTE_CONDITIONS)
    return pl.when((coverage & age).fill_null(False)).then(side)


def _missing_scores(met: dict[str, pl.Expr], thresholds: FlowThresholds) -> Iterator[pl.Expr]:
    for score in SCORES:
        if score in met:
            text = pl.format(f"{score}: {{}} packets in the past, {thresholds.min_samples:.0f} needed", "baseline_packets")
            yield pl.when(pl.col(score).is_null()).then(text)


def _missing_quotes(rule: Rule, thresholds: FlowThresholds) -> pl.Expr:
    coverage, age, side = (pl.col(c.column) for c in QUOTE_CONDITIONS)
    covered, fresh, judged = (_is_met(c, thresholds).fill_null(False) for c in QUOTE_CONDITIONS)
    share = pl.format(f"quotes beside {{}} % of the contracts, {thresholds.nbbo_coverage:.0%} needed", (100.0 * coverage).round(1))
    return (
        pl.when(coverage.is_null() | (coverage == 0.0))
        .then(pl.lit("no quotes beside the prints: the aggressor cannot be confirmed"))
        .when(~covered)
        .then(share)
        .when(age.is_null())
        .then(pl.lit("the vendor does not say when its quotes were made"))
        .when(~fresh)
        .then(pl.format(f"quotes are {{}} ms old, {thresholds.nbbo_age_ms:.0f} ms at most", age.round(0)))
        .when(pl.lit(rule.needs_quotes) & ~judged & side.is_null())
        .then(pl.lit("quotes do not tell the aggressor"))
    )


def _direction() -> pl.Expr:
    p = pl.col("buy_probability")
    return (
        pl.when(p >= 0.5).then(pl.lit("bought")).when(p < 0.5).then(pl.lit("sold")).otherwise(pl.lit("unknown")).alias("direction")
    )


def _conditions(rule: Rule, thresholds: FlowThresholds) -> pl.Expr:
    asked = (*rule.conditions, *(QUOTE_CONDITIONS if rule.needs_quotes else QUOTE_CONDITIONS[:2]))
    parts = [
        pl.struct(
            pl.col(c.column).cast(pl.Float64).round_sig_figs(_SHOWN).alias("value"),
            pl.lit(c.sense).alias("sense"),
            pl.lit(_bound(c, thresholds)).alias("threshold"),
        ).alias(c.column)
        for c in asked
    ]
    return pl.struct(parts).struct.json_encode()


def _gathered(rows: pl.DataFrame, keys: tuple[str, ...]) -> pl.DataFrame:
    """The rows in order of the keys and their last prints, with what has gathered up to and with each in place of its own."""
    ordered = rows.sort(*keys, "last_ts_utc", "packet_id")
    contracts = pl.col("contracts")

    def so_far(value: pl.Expr) -> pl.Expr:
        return value.cum_sum().over(keys)

    def mean(name: str, weight: pl.Expr) -> pl.Expr:
        """Average so far, each known value with its weight in whole contracts; null before the first."""
        known = pl.col(name).is_not_null()
        total = so_far(scaled(pl.col(name) * weight).fill_null(0))
        count = so_far(pl.when(known).then(weight).otherwise(0))
        return pl.when(count > 0).then(total / (count * TEN_THOUSANDTHS)).alias(name)

    quoted = (pl.col("nbbo_coverage") * contracts).round().cast(pl.Int64)
    # Of quotes some of which do not tell their age no mean is known: one young quote must not speak for them.
    is_told = so_far(pl.when(pl.col("quote_age_ms").is_null()).then(quoted).otherwise(0)) == 0
    gathered = ordered.with_columns(
        so_far(pl.col("packets")).alias("packets"),
        so_far(pl.col("fills")).alias("fills"),
        so_far(pl.col("size")).alias("size"),
        so_far(scaled(pl.col("premium_usd"))).alias("premium_usd"),
        mean("nbbo_coverage", contracts),
        pl.when(is_told).then(mean("quote_age_ms", quoted)).alias("quote_age_ms"),
        mean("aggressor_share", quoted),
        mean("buy_probability", contracts),
    )
    return in_units(gathered, ["premium_usd"])


def _evidence(rule: Rule, found: pl.DataFrame, rows: pl.DataFrame) -> pl.Series:
    """The packets of each hit, in order."""
    if not rule.gather:
        return found.select(pl.concat_list("packet_id").alias("packet_ids")).to_series()
    wanted = found.select(*rule.gather, pl.col("packets").alias("last"))
    inside = rows.select(*rule.gather, "packets", "packet_id").join(wanted, on=rule.gather)
    inside = inside.filter((pl.col("packets") <= pl.col("last")) & (pl.col("packets") > pl.col("last") - MOST_EVIDENCE))
    lists = (
        inside.sort(*rule.gather, "packets").group_by(rule.gather, maintain_order=True).agg(pl.col("packet_id").alias("packet_ids"))
    )
    return found.select(rule.gather).join(lists, on=rule.gather, how="left", maintain_order="left")["packet_ids"]
