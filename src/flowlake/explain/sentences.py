"""One sentence per row of `signal_reasons`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from flowlake.datasets.factors import SCORED

Style = Literal["usd", "count", "percent", "ratio", "points"]


@dataclass(frozen=True)
class Words:
    """How a factor is called at the start of a sentence, and how its values are written."""

    name: str
    style: Style


FACTORS = {
    "option_volume": Words("Option volume", "count"),
    "premium_usd": Words("Premium traded", "usd"),
    "option_to_stock_volume": Words("Option volume over stock volume", "ratio"),
    "call_lean": Words("Premium in short-dated OTM calls", "usd"),
    "put_lean": Words("Premium in short-dated OTM puts", "usd"),
    **{
        f"{kind}_{side}_volume": Words(words.format(side=side), "count")
        for side in ("call", "put")
        for kind, words in (
            ("swept_opening", "Volume in OTM {side}s that was swept and that opened positions"),
            ("swept_otm", "Volume swept in OTM {side}s"),
            ("repeated_opening", "Swept opening volume in OTM {side}s, the lesser of this session and the one before,"),
            ("repeated_sweep", "Swept volume in OTM {side}s, the lesser of this session and the one before,"),
        )
    },
    "largest_contract_sweep_volume": Words("The most swept in one OTM contract", "count"),
    "iso_share": Words("The share of intermarket sweeps in volume", "percent"),
    "largest_print_premium_usd": Words("The largest single print", "usd"),
    "atm_iv_30d": Words("30-day at-the-money implied volatility", "percent"),
    "skew_25d": Words("25-delta skew", "points"),
    "gamma_exposure_usd": Words("Gamma exposure (dealers long calls, short puts)", "usd"),
    "open_interest_change": Words("The change of open interest", "count"),
    "oi_change_ratio": Words("The change of open interest over volume, which shows opening trades,", "percent"),
}
ENGINES = {
    "robust_z": "the robust-z baseline",
    "isolation_forest": "the isolation forest",
    "local_outlier_factor": "the local outlier factor",
}
LEANS = {"call_lean": "calls", "put_lean": "puts"}
SCALES = {"log1p": " on a logarithmic scale", "log": " on a logarithmic scale", "sqrt": " on a square-root scale", "linear": ""}
SCALE_OF = {scored.name: SCALES[scored.scale] for scored in SCORED}


def with_sentences(reasons: pl.DataFrame) -> pl.DataFrame:
    """`reasons` (columns of `signal_reasons` but `sentence`) with `sentence` at the end."""
    sentences = [sentence(row) for row in reasons.iter_rows(named=True)]
    return reasons.with_columns(pl.Series("sentence", sentences, dtype=pl.String()))


def sentence(reason: Mapping[str, Any]) -> str:
    """The reason in words. KeyError for a factor that has none, so a new factor cannot go unexplained."""
    if reason["kind"] == "factor":
        return _factor(reason)
    if reason["kind"] == "engine":
        engine = ENGINES[reason["factor"]]
        return (
            f"{engine[0].upper()}{engine[1:]} finds the session more unusual than {_floored(reason['value'])} % of the "
            "sessions of all underlyings that it was trained on."
        )
    return _doubt(reason)


def _factor(reason: Mapping[str, Any]) -> str:
    words = FACTORS[reason["factor"]]
    z, count = reason["z"], reason["baseline_sessions"]
    past = f"its median of the last {count} sessions" if count else "its median"
    if reason["baseline"] is not None:
        past += f", {written(reason['baseline'], words.style)}"
    value = None if reason["value"] is None else written(reason["value"], words.style)
    if reason["factor"] in LEANS:
        against = "it is not known" if value is None else f"it was {value} against {past}"
        return (
            f"{words.name}, taken with the put/call volume ratio, leaned {z:.1f} robust deviations towards "
            f"{LEANS[reason['factor']]}: {against}."
        )
    side = "above" if z >= 0 else "below"
    scale = SCALE_OF.get(reason["factor"], "")
    return f"{words.name} was {'' if value is None else f'{value}, '}{abs(z):.1f} robust deviations{scale} {side} {past}."


def _doubt(reason: Mapping[str, Any]) -> str:
    value, z = reason["value"], reason["z"]
    doubts = {
        "multi_leg_share": lambda: (
            f"{written(value, 'percent')} of the volume was in multi-leg or stock-tied packages: it may be a hedge or a spread."
        ),
        "two_sided_flow": lambda: (
            f"Flow in OTM calls and in OTM puts, premium or sweeps, was {z:.1f} robust deviations or more above the median on both "
            "sides, as before a scheduled event such as earnings."
        ),
        "oi_change_ratio": lambda: (
            f"Open interest changed by only {written(value, 'percent')} of the volume: the trades closed or rolled positions "
            "rather than opened them."
            if value >= 0
            else f"Open interest fell by {written(-value, 'percent')} of the volume: the trades closed positions."
        ),
        "market_wide": lambda: (
            f"{written(value, 'percent')} of all underlyings traded unusually much on this session: the cause may be the market, "
            "not this name."
        ),
        "history_sessions": lambda: f"The medians rest on only {value:.0f} earlier sessions.",
    }
    return doubts[reason["factor"]]()


def _floored(percent: float) -> str:
    """One decimal, never rounded up to 100 unless it is 100."""
    return f"{int(percent * 10) / 10:.1f}"


def written(value: float, style: Style) -> str:
    """A number as a person would write it: 2.41 million USD, 1,234, 12.3 %."""
    if style == "percent":
        return f"{value * 100:.1f} %"
    if style == "ratio":
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    if style == "points":
        return f"{value * 100:.1f} volatility points"
    unit = " USD" if style == "usd" else ""
    size = abs(value)
    for scale, name in ((1e9, "billion"), (1e6, "million")):
        if size >= scale:
            return f"{value / scale:.2f} {name}{unit}"
    return f"{value:,.0f}{unit}"
