"""Do the eligible trades, the minute bars and the day bars of each contract agree?

Which prints are eligible is the condition policy's decision (`in_volume`, `sets_price`). Every residual is kept with its reason
where the data show one. Vendors differ on whether a print that was cancelled later, or one that was reported late, counts in a bar;
a residual that equals exactly those prints is explained by them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import polars as pl

from flowlake.datasets.model import Finding, Inputs, Output
from flowlake.datasets.policies import LATE_IN_BARS
from flowlake.datasets.quality import ALL, MEASURES

VOLUME_TOLERANCE = 0.005
"""Share of a pair's volume that may disagree without an explanation: single lots do so in vendors' own samples."""
CONTRACT_TOLERANCE = 0.05
"""Share of contracts whose open, high, low or close may disagree: prints that share a millisecond have no order."""
_MONEY = 10_000
_SUMMED = ("volume", "transactions")
_PRICES = ("open", "high", "low", "close")
_SOURCES = {"trades": "option_trades", "1m": "option_bars_1m", "1d": "option_bars_1d"}
_KEY = ["contract", "underlying"]
_EXPLAINED = ("cancelled", "late")
_REASONS = {"late_counted": "late"}
_LOOKED_AT = [*_KEY, "ts_utc", "price", "size", "condition", "in_volume", "sets_price", "is_cancelled", "is_late"]


@dataclass(frozen=True)
class _Side:
    """A source summed up per contract; prices in ten-thousandths of a dollar."""

    name: str
    table: pl.DataFrame

    @property
    def dataset(self) -> str:
        return _SOURCES[self.name]


def reconcile(inputs: Inputs, session: date) -> Output:
    """Table `reconciliation` from whichever of option_trades, option_bars_1m and option_bars_1d exist, and findings on pairs that
    disagree beyond tolerance. Rows come in their declared order. Fewer than two sources give an empty table.
    """
    present = {name: inputs[dataset] for name, dataset in _SOURCES.items() if dataset in inputs}
    if "trades" in present:  # every filter below copies what it keeps of a tape of millions: only what is looked at
        present["trades"] = present["trades"].select(_LOOKED_AT)
    causes = _causes(present.get("trades"), present.get("1m"))
    tables: list[pl.DataFrame] = []
    findings: list[Finding] = []
    names = list(present)
    for i, left_name in enumerate(names):
        for right_name in names[i + 1 :]:
            right = _Side(right_name, _bars(present[right_name]))
            left = _Side(left_name, _left_table(left_name, present[left_name], right.table))
            residuals, summary = _compare(left, right, causes)
            tables += [residuals, summary]
            findings += _findings(left, right, residuals, summary, session)
    return Output({"reconciliation": pl.concat(tables) if tables else _NOTHING}, tuple(findings))


# --- Sources -------------------------------------------------------------------------------------------------------


def _money(column: str) -> pl.Expr:
    return (pl.col(column) * _MONEY).round().cast(pl.Int64)


def _bars(bars: pl.DataFrame) -> pl.DataFrame:
    """One row per contract. Transactions are null where the vendor leaves them out of any bar."""
    transactions = pl.when(pl.col("transactions").null_count() == 0).then(pl.col("transactions").sum())
    return bars.group_by(_KEY, maintain_order=True).agg(
        pl.col("volume").sum(),
        transactions.alias("transactions"),
        _money("open").first(),
        _money("high").max(),
        _money("low").min(),
        _money("close").last(),
    )


def _left_table(name: str, frame: pl.DataFrame, other: pl.DataFrame) -> pl.DataFrame:
    return _settled(_eligible(frame), other) if name == "trades" else _bars(frame)


def _eligible(trades: pl.DataFrame) -> pl.DataFrame:
    return trades.filter(pl.col("in_volume") | pl.col("sets_price"))


def _prints(trades: pl.DataFrame) -> pl.DataFrame:
    """Prints as one bar per contract. They come in the declared order: by time and, inside one moment, by price."""
    counted = (
        trades.filter("in_volume")
        .group_by("contract")
        .agg(
            pl.col("underlying").first(),
            pl.col("size").sum().alias("volume"),
            pl.len().cast(pl.Int64).alias("transactions"),
        )
    )
    priced = trades.filter("sets_price").select("contract", "underlying", price=_money("price"))
    prices = priced.group_by("contract", maintain_order=True).agg(
        pl.col("underlying").first(),
        pl.col("price").first().alias("open"),
        pl.col("price").max().alias("high"),
        pl.col("price").min().alias("low"),
        pl.col("price").last().alias("close"),
    )
    both = counted.join(prices, on="contract", how="full", coalesce=True).with_columns(
        pl.coalesce("underlying", "underlying_right").alias("underlying"), pl.col("volume", "transactions").fill_null(0)
    )
    return both.select(*_KEY, *MEASURES).sort("contract")


def _settled(trades: pl.DataFrame, other: pl.DataFrame) -> pl.DataFrame:
    """The prints summed up; where several share the first or last moment, any of their prices is a right open or close."""
    table = _prints(trades)
    priced = trades.filter("sets_price").select("contract", "ts_utc", price=_money("price"))
    edges = priced.group_by("contract").agg(pl.col("ts_utc").min().alias("open"), pl.col("ts_utc").max().alias("close"))
    for measure in ("open", "close"):
        moments = edges.select("contract", pl.col(measure).alias("ts_utc"))
        tied = priced.join(moments, on=["contract", "ts_utc"], how="semi").select("contract", pl.col("price").alias(measure))
        agreed = tied.join(other.select("contract", measure), on=["contract", measure], how="semi").unique()
        table = table.join(agreed, on="contract", how="left", suffix="_agreed", maintain_order="left")
        table = table.with_columns(pl.coalesce(f"{measure}_agreed", measure).alias(measure)).drop(f"{measure}_agreed")
    return table


def _causes(trades: pl.DataFrame | None, minutes: pl.DataFrame | None) -> dict[str, pl.DataFrame]:
    """Reason -> the prints that it is about, summed up per contract. Without trades nothing can be explained.

    What the condition policy of the trades leaves out may be in the bars, and what it counts may be missing there.
    """
    if trades is None:
        return {}
    counted = {"in_volume": pl.lit(True), "sets_price": pl.lit(True)}
    may_be_missing = pl.col("is_late") & pl.col("in_volume") & ~pl.col("condition").is_in(LATE_IN_BARS)
    causes = {
        "cancelled": _prints(trades.filter("is_cancelled").with_columns(**counted)),
        "late": _prints(trades.filter(pl.col("is_late") & ~pl.col("in_volume")).with_columns(**counted)),
        "late_counted": _prints(trades.filter(may_be_missing).with_columns(**counted)),
    }
    if minutes is not None:
        by_minute = _eligible(trades).with_columns(minute=pl.col("ts_utc").dt.truncate("1m"))
        absent = by_minute.join(minutes, left_on=["contract", "minute"], right_on=["contract", "ts_utc"], how="anti")
        causes["missing_minutes"] = _prints(absent)
    return causes


# --- Comparison ----------------------------------------------------------------------------------------------------


def _compare(left: _Side, right: _Side, causes: dict[str, pl.DataFrame]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows of contracts with a residual, and a summary row per measure."""
    both = left.table.join(right.table, on="contract", how="full", coalesce=True, suffix="_right")
    both = both.with_columns(underlying=pl.coalesce("underlying", "underlying_right"))
    for reason, prints in causes.items():
        renamed = {name: f"{name}_{reason}" for name in MEASURES}
        both = both.join(prints.select("contract", *MEASURES).rename(renamed), on="contract", how="left")
    both = both.sort("contract")
    pair = f"{left.name}~{right.name}"
    residuals: list[pl.DataFrame] = []
    summaries: list[pl.DataFrame] = []
    for measure in MEASURES:
        compared = _measure(both, measure, causes)
        off = compared.filter(pl.col("residual") != 0)
        residuals.append(_typed(off, pair, measure, pl.lit(1), pl.lit(0)))
        summaries.append(_summary(compared, off.height, pair, measure))
    return pl.concat(residuals), pl.concat(summaries)


def _measure(both: pl.DataFrame, measure: str, causes: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """contract, underlying, left, right, residual, reason, where both sources have the measure."""
    left, right = pl.col(measure), pl.col(f"{measure}_right")
    if measure in _SUMMED:
        # A source that lacks the contract has no trade of it; one that has it but no count says nothing.
        left = pl.when(pl.col("volume").is_null()).then(0).otherwise(left)
        right = pl.when(pl.col("volume_right").is_null()).then(0).otherwise(right)
    table = both.with_columns(left.alias("left"), right.alias("right"))
    table = table.filter(pl.col("left").is_not_null() & pl.col("right").is_not_null())
    table = table.with_columns((pl.col("left") - pl.col("right")).alias("residual"))
    reason = pl.lit("unexplained")
    for name in reversed(causes):
        reason = pl.when(_explains(measure, pl.col(f"{measure}_{name}"))).then(pl.lit(_REASONS.get(name, name))).otherwise(reason)
    return table.select(*_KEY, "left", "right", "residual", reason=reason)


def _explains(measure: str, prints: pl.Expr) -> pl.Expr:
    """The residual is that of these prints: their volume or number, or their price on one of the sides."""
    if measure in _SUMMED:
        return (pl.col("residual").abs() == prints).fill_null(False)
    return ((prints == pl.col("left")) | (prints == pl.col("right"))).fill_null(False)


def _typed(rows: pl.DataFrame, pair: str, measure: str, compared: pl.Expr, equal: pl.Expr) -> pl.DataFrame:
    scale = 1.0 if measure in _SUMMED else float(_MONEY)
    return rows.select(
        pl.lit(pair).alias("pair"),
        pl.lit(measure).alias("measure"),
        *_KEY,
        (pl.col("left") / scale).alias("left_value"),
        (pl.col("right") / scale).alias("right_value"),
        (pl.col("residual") / scale).alias("residual"),
        "reason",
        compared.cast(pl.Int64).alias("contracts_compared"),
        equal.cast(pl.Int64).alias("contracts_equal"),
    )


def _summary(compared: pl.DataFrame, off: int, pair: str, measure: str) -> pl.DataFrame:
    """Sums of both sides for what can be summed; for prices only the counts."""
    summed = measure in _SUMMED and compared.height > 0
    sums = (compared["left"].sum(), compared["right"].sum()) if summed else (None, None)
    row = pl.DataFrame(
        {"contract": [ALL], "underlying": [None], "left": [sums[0]], "right": [sums[1]], "reason": [None]},
        schema={"contract": pl.String, "underlying": pl.String, "left": pl.Int64, "right": pl.Int64, "reason": pl.String},
    ).with_columns((pl.col("left") - pl.col("right")).alias("residual"))
    return _typed(row, pair, measure, pl.lit(compared.height), pl.lit(compared.height - off))


_NOTHING = _typed(
    pl.DataFrame(
        schema={
            "contract": pl.String,
            "underlying": pl.String,
            "left": pl.Int64,
            "right": pl.Int64,
            "residual": pl.Int64,
            "reason": pl.String,
        }
    ),
    "",
    "volume",
    pl.lit(1),
    pl.lit(0),
)


# --- Findings ------------------------------------------------------------------------------------------------------


def _findings(left: _Side, right: _Side, residuals: pl.DataFrame, summary: pl.DataFrame, session: date) -> list[Finding]:
    """At most one for volume and one for prices. What a policy on cancelled or late prints explains is no defect."""
    open_rows = residuals.filter(~pl.col("reason").is_in(_EXPLAINED))
    return [*_volume_finding(left, right, open_rows, summary, session), *_price_finding(left, right, open_rows, summary, session)]


def _volume_finding(left: _Side, right: _Side, open_rows: pl.DataFrame, summary: pl.DataFrame, session: date) -> list[Finding]:
    total = summary.filter(pl.col("measure") == "volume").row(0, named=True)
    largest = max(total["left_value"] or 0.0, total["right_value"] or 0.0)
    off = open_rows.filter(pl.col("measure") == "volume")
    disagreeing = float(off["residual"].abs().sum())
    if disagreeing <= VOLUME_TOLERANCE * largest:
        return []
    short = left.dataset if float(off["residual"].sum()) < 0 else right.dataset
    what = (
        f"{left.dataset} and {right.dataset} of {session} disagree by {disagreeing:.0f} of {largest:.0f} contracts "
        f"({off.height} of {total['contracts_compared']} option contracts); {short} has less"
    )
    minutes = off.filter(pl.col("reason") == "missing_minutes").height
    if minutes:
        what += f"; in {minutes} of them minute bars are missing where trades exist"
    cure = (
        f"compare the file of {short} with the vendor's current one and download it again if it was replaced; the rows are in "
        f"`select * from reconciliation where session = '{session}' and pair = '{left.name}~{right.name}'`"
    )
    return [Finding(short, "volume_disagrees", what, cure, rows=off)]


def _price_finding(left: _Side, right: _Side, open_rows: pl.DataFrame, summary: pl.DataFrame, session: date) -> list[Finding]:
    compared = summary.filter(pl.col("measure").is_in(_PRICES))["contracts_compared"].max()
    off = open_rows.filter(pl.col("measure").is_in(_PRICES))
    contracts = off["contract"].n_unique()
    if not isinstance(compared, int) or contracts <= CONTRACT_TOLERANCE * compared:
        return []
    what = (
        f"{left.dataset} and {right.dataset} of {session} disagree on a price of {contracts} of {compared} option contracts, "
        "beyond what cancelled and late prints explain"
    )
    cure = (
        "check that both files are of the same session and of the vendor's latest version; the rows are in "
        f"`select * from reconciliation where session = '{session}' and pair = '{left.name}~{right.name}'`"
    )
    return [Finding(right.dataset, "prices_disagree", what, cure, rows=off)]
