"""Option and stock bars: the vendor's figures, screened. Nothing is filled in: a bar exists only where an eligible trade does."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

import polars as pl

from flowlake.core import sessions as calendar
from flowlake.curate.contracts import NOT_IN_MASTER
from flowlake.curate.screening import RowRule, is_not_negative, is_positive, is_whole, one_per_key, screen, subject
from flowlake.curate.symbols import contract_of_ticker
from flowlake.curate.timestamps import as_utc, nanoseconds, on_session_date
from flowlake.curate.vendors import DAY_BARS, INDEX_MINUTE_BARS, MINUTE_BARS, Translate, as_is, first_present
from flowlake.datasets.model import Finding, Inputs, Output

_FIGURES = ("open", "high", "low", "close", "volume", "transactions")
_CHECK_FILE = "check that the file belongs to this session; ask the vendor for a corrected file"
_CORRECTED_FILE = "ask the vendor for a corrected file; it is taken up when the object changes"


def option_bars_1m(inputs: Inputs, session: date) -> Output:
    """Required input: contracts, and one of `vendors.MINUTE_BARS`; the first of them that exists is used."""
    return _option_bars(inputs, session, MINUTE_BARS, "option_bars_1m", ("ticker", "window_start"))


def option_bars_1d(inputs: Inputs, session: date) -> Output:
    """Required input: contracts, and one of `vendors.DAY_BARS`; the first of them that exists is used."""
    return _option_bars(inputs, session, DAY_BARS, "option_bars_1d", ("ticker",))


def equity_bars_1m(inputs: Inputs, session: date) -> Output:
    """Optional inputs: massive_stock_minute, and `vendors.INDEX_MINUTE_BARS` for indexes that it does not have."""
    key = ("ticker", "window_start")
    tables, findings, seen = [], [], pl.Series(dtype=pl.String)
    for source, translate in {"massive_stock_minute": as_is, **INDEX_MINUTE_BARS}.items():
        if source not in inputs:
            continue
        raw = translate(inputs[source], session).filter(~pl.col("ticker").is_in(seen.implode()))
        table, found = _stock_bars(raw, session, source, "equity_bars_1m", key)
        seen = pl.concat([seen, raw["ticker"].unique()])
        tables.append(table)
        findings += found
    return Output({"equity_bars_1m": pl.concat(tables)}, tuple(findings))


def equity_bars_1d(inputs: Inputs, session: date) -> Output:
    """Required input: massive_stock_day. The bar is the vendor's, not an aggregate of minute bars."""
    table, findings = _stock_bars(inputs["massive_stock_day"], session, "massive_stock_day", "equity_bars_1d", ("ticker",))
    return Output({"equity_bars_1d": table}, tuple(findings))


def _option_bars(inputs: Inputs, session: date, order: Mapping[str, Translate], dataset: str, key: tuple[str, ...]) -> Output:
    source = first_present(inputs, order) or next(iter(order))
    raw = order[source](inputs[source], session)
    rows = raw.with_columns(contract=contract_of_ticker()).join(
        inputs["contracts"].select("contract", "underlying", "root", "expiry", "right", "strike"), on="contract", how="left"
    )
    kept, findings = _screened(rows, raw, session, source, dataset, key, _OPTION_RULES)
    table = kept.with_columns(pl.col("volume").cast(pl.Int64), ts_utc=as_utc("window_start"))
    return Output({dataset: table}, tuple(findings))


def _stock_bars(
    raw: pl.DataFrame, session: date, source: str, dataset: str, key: tuple[str, ...]
) -> tuple[pl.DataFrame, list[Finding]]:
    kept, findings = _screened(raw, raw, session, source, dataset, key, ())
    table = kept.select(pl.col("ticker").alias("underlying"), *_FIGURES, "window_start").with_columns(
        ts_utc=as_utc("window_start"),
        is_regular=pl.col("window_start").is_between(
            nanoseconds(calendar.open_utc(session)), nanoseconds(calendar.close_utc(session)), closed="left"
        ),
    )
    return table, findings


def _screened(
    rows: pl.DataFrame,
    raw: pl.DataFrame,
    session: date,
    source: str,
    dataset: str,
    key: tuple[str, ...],
    further: tuple[RowRule, ...],
) -> tuple[pl.DataFrame, list[Finding]]:
    about = subject(raw, dataset, source, session)
    kept, findings = screen(rows, about, (*_bar_rules(session), *further))
    values = [name for name in (*_FIGURES, "window_start") if name not in key]
    distinct, repeated = one_per_key(kept, about, key, values)
    return distinct, findings + repeated


def _bar_rules(session: date) -> tuple[RowRule, ...]:
    inside = [pl.col(name).is_between("low", "high") for name in ("open", "close")]
    return (
        RowRule(
            "price_not_positive",
            ~pl.all_horizontal(is_positive(name) for name in ("open", "high", "low", "close")),
            "a price is not above 0",
            _CORRECTED_FILE,
        ),
        RowRule(
            "prices_out_of_order",
            ~pl.all_horizontal(pl.col("low") <= pl.col("high"), *inside),
            "open or close lies outside low and high, or low is above high",
            _CORRECTED_FILE,
        ),
        RowRule(
            "volume_negative",
            ~is_not_negative("volume") | (pl.col("transactions") < 0).fill_null(False),
            "the volume or the number of transactions is below 0",
            _CORRECTED_FILE,
        ),
        RowRule(
            "outside_session_date",
            ~on_session_date("window_start", session),
            "the bar starts outside the session's New York date",
            _CHECK_FILE,
        ),
    )


_OPTION_RULES = (
    NOT_IN_MASTER,
    RowRule(
        "volume_fractional",
        ~is_whole("volume"),
        "the volume is no whole number of contracts",
        _CORRECTED_FILE,
    ),
)
