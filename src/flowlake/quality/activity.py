"""What each source delivered in a session: the small table that later sessions are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from hashlib import sha256

import polars as pl

from flowlake.core import sessions
from flowlake.datasets.model import UTC_NS, Inputs, Output
from flowlake.datasets.quality import ALL

_MONEY = 10_000


@dataclass(frozen=True)
class Source:
    """How to read a dataset here: the columns with the amount, the value, the time, and those that make a row distinct.

    `moment` is None where rows have no time within the session; `by_underlying` is False where they name only a ticker.
    """

    dataset: str
    amount: str
    value: str
    moment: str | None
    distinct: tuple[str, ...]
    by_underlying: bool = True


def _columns(source: Source) -> tuple[str, ...]:
    named = (source.amount, source.value, source.moment, "underlying" if source.by_underlying else None, *source.distinct)
    return tuple(dict.fromkeys(name for name in named if name))


_RAW_TRADE = ("ticker", "sip_timestamp", "price", "size", "exchange", "conditions")
_RAW_BAR = ("ticker", "window_start", "open", "high", "low", "close", "volume")
_BAR = ("open", "high", "low", "close", "volume")
_CONTRACT_TRADE = ("contract", "ts_utc", "price", "size", "exchange", "conditions")

SOURCES = (
    Source("option_trades", "size", "price", "ts_utc", _CONTRACT_TRADE),
    Source("option_bars_1m", "volume", "close", "ts_utc", ("contract", "ts_utc", *_BAR)),
    Source("option_bars_1d", "volume", "close", None, ("contract", *_BAR)),
    Source("equity_bars_1m", "volume", "close", "ts_utc", ("underlying", "ts_utc", *_BAR)),
    Source("equity_bars_1d", "volume", "close", None, ("underlying", *_BAR)),
    Source("open_interest", "open_interest_close", "strike", None, ("contract", "oi_session", "source")),
    Source("massive_option_trades", "size", "price", None, _RAW_TRADE, by_underlying=False),
    Source("massive_option_minute", "volume", "close", None, _RAW_BAR, by_underlying=False),
    Source("massive_option_day", "volume", "close", None, _RAW_BAR, by_underlying=False),
    Source("massive_stock_trades", "size", "price", None, (*_RAW_TRADE, "id", "sequence_number"), by_underlying=False),
    Source("massive_stock_minute", "volume", "close", None, _RAW_BAR, by_underlying=False),
    Source("massive_stock_day", "volume", "close", None, _RAW_BAR, by_underlying=False),
    Source("open_interest_file", "open_interest", "open_interest", None, ("ticker", "open_interest"), by_underlying=False),
)

LOOKED_AT: dict[str, tuple[str, ...]] = {source.dataset: _columns(source) for source in SOURCES}
"""Of each dataset, the columns that are measured."""


def measure_activity(inputs: Inputs, session: date) -> Output:
    """Table `activity` from whichever of the datasets of `SOURCES` exist in the session; all are optional.

    A raw dataset is measured too, because a defective file may never reach its curated table.
    """
    tables = [_measure(source, inputs[source.dataset], session) for source in SOURCES if source.dataset in inputs]
    return Output({"activity": pl.concat(tables) if tables else pl.DataFrame(schema=_SCHEMA)})


_SCHEMA: dict[str, pl.DataType] = {
    "source": pl.String(),
    "underlying": pl.String(),
    "rows": pl.Int64(),
    "distinct_rows": pl.Int64(),
    "volume": pl.Float64(),
    "minutes": pl.Int64(),
    "longest_silence_minutes": pl.Int64(),
    "silent_end_minutes": pl.Int64(),
    "first_utc": UTC_NS,
    "last_utc": UTC_NS,
    "content_hash": pl.String(),
}


def _measure(source: Source, frame: pl.DataFrame, session: date) -> pl.DataFrame:
    rows = frame.select(
        (pl.col("underlying") if source.by_underlying else pl.lit(ALL)).alias("underlying"),
        (pl.col(source.amount).fill_null(0) * _MONEY).round().cast(pl.Int64).alias("amount"),
        (pl.col(source.value).fill_null(0) * _MONEY).round().cast(pl.Int64).alias("value"),
        _minute(source.moment, session).alias("minute"),
        pl.struct(source.distinct).hash().alias("row_hash"),
    )
    groups = [rows, rows.with_columns(underlying=pl.lit(ALL))] if source.by_underlying else [rows]
    measured = pl.concat([_totals(group).join(_clock(group, session), on="underlying", how="left") for group in groups])
    return measured.select(pl.lit(source.dataset).alias("source"), *list(_SCHEMA)[1:]).cast(_SCHEMA)  # type: ignore[arg-type]


def _minute(moment: str | None, session: date) -> pl.Expr:
    """Minutes since the open; null outside the regular session or without a time."""
    if moment is None:
        return pl.lit(None, dtype=pl.Int64)
    minute = (pl.col(moment) - pl.lit(sessions.open_utc(session), dtype=UTC_NS)).dt.total_nanoseconds() // (60 * 10**9)
    return pl.when(minute.is_between(0, session_minutes(session) - 1)).then(minute)


def session_minutes(session: date) -> int:
    return int((sessions.close_utc(session) - sessions.open_utc(session)).total_seconds() // 60)


def _totals(rows: pl.DataFrame) -> pl.DataFrame:
    """Counts and content. The content is described by sums of whole numbers, which no order of rows changes."""
    amount, value = (pl.col(name).cast(pl.Int128) for name in ("amount", "value"))
    totals = rows.group_by("underlying", maintain_order=True).agg(
        pl.len().cast(pl.Int64).alias("rows"),
        pl.col("row_hash").n_unique().cast(pl.Int64).alias("distinct_rows"),
        (pl.col("amount").sum() / _MONEY).alias("volume"),
        *(total.sum().cast(pl.String).alias(name) for name, total in _moments(amount, value).items()),
    )
    names = ["rows", "volume", *_moments(amount, value)]
    hashes = [_hash(row) for row in totals.select(names).iter_rows()]
    return totals.with_columns(pl.Series("content_hash", hashes, dtype=pl.String))


def _moments(amount: pl.Expr, value: pl.Expr) -> dict[str, pl.Expr]:
    return {
        "sum_value": value,
        "sum_value_squared": value * value,
        "sum_amount_squared": amount * amount,
        "sum_value_amount": value * amount,
    }


def _hash(values: Sequence[object]) -> str:
    return sha256("|".join(str(value) for value in values).encode()).hexdigest()


def _clock(rows: pl.DataFrame, session: date) -> pl.DataFrame:
    """When rows came: distinct minutes, the longest silence from the open on, and the silence before the close."""
    minutes = rows.select("underlying", "minute").drop_nulls().unique().sort("underlying", "minute")
    silence = pl.col("minute") - pl.col("minute").shift(1).fill_null(-1) - 1
    start = pl.lit(sessions.open_utc(session), dtype=UTC_NS)
    return minutes.group_by("underlying", maintain_order=True).agg(
        pl.len().alias("minutes"),
        silence.max().alias("longest_silence_minutes"),
        (session_minutes(session) - 1 - pl.col("minute").max()).alias("silent_end_minutes"),
        (start.first() + pl.duration(minutes=pl.col("minute").min())).alias("first_utc"),
        (start.first() + pl.duration(minutes=pl.col("minute").max())).alias("last_utc"),
    )
