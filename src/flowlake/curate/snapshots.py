"""Contracts of a Cboe chain snapshot, which names neither root nor expiration date.

Expiry is the session's date plus `dte` days. Where an underlying trades under two roots (`roots.CHAIN_ROOTS`):

- a date that is no monthly date belongs to the other root (SPXW, VIXW): the calendar says so;
- VIX monthlies and VIXW never share a date, so the calendar decides there too;
- SPX and SPXW (NDX and NDXP, RUT and RUTW) share the monthly dates, and the same (expiry, right, strike) appears twice. The file
  is written root by root: expiries rise, fall back once, and rise again. Of the two blocks the one that holds nothing but
  monthly dates is the monthly root's. Seen on every snapshot of June and July 2026, and confirmed by 2026-06-18, when that
  block's contracts of the day had settled at the open and had no quote while the other block's traded;
- a file without two such blocks: a monthly date whose contracts appear once is taken as the monthly root's, one whose
  contracts repeat is ambiguous and refused.

`root_is_inferred` is true wherever the calendar did not decide.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import polars as pl

from flowlake.curate.expiries import LAST_EXPIRY, is_monthly, is_vix_monthly
from flowlake.curate.roots import CHAIN_ROOTS, ChainRoots
from flowlake.curate.symbols import MAX_STRIKE_THOUSANDTHS, contract_symbol

SOURCE = "cboe_snapshot"
IMPOSSIBLE = "impossible_contract"
AMBIGUOUS = "ambiguous_root"


def with_contracts(snapshot: pl.DataFrame, session: date) -> pl.DataFrame:
    """The snapshot's rows in file order with `contract`, `root`, `expiry`, `right`, `strike_thousandths`, `root_is_inferred`,
    `root_is_shared` (the contract's other fields appear under both roots) and `problem`.

    `problem` is null, or the rule that the row breaks; `contract` is null then.
    """
    ordered = snapshot.sort("underlying", "row").with_columns(
        expiry=_expiry(session),
        right=pl.col("cp"),
        strike_thousandths=(pl.col("strike") * 1000).round().cast(pl.Int64, strict=False),
    )
    chains = [_with_root(chain) for chain in ordered.partition_by("underlying", maintain_order=True)]
    rooted = pl.concat(chains) if chains else _with_root(ordered)
    return rooted.with_columns(problem=_problem()).with_columns(
        contract=pl.when(pl.col("problem").is_null()).then(
            contract_symbol(pl.col("root"), pl.col("expiry"), pl.col("right"), pl.col("strike_thousandths"))
        )
    )


def _expiry(session: date) -> pl.Expr:
    """Null where the days lead into the past or out of the calendar."""
    possible = pl.col("dte").is_between(0, (LAST_EXPIRY - session).days)
    return pl.lit(session) + pl.duration(days=pl.when(possible).then("dte"))


def _problem() -> pl.Expr:
    thousandths = pl.col("strike") * 1000
    possible = (
        pl.col("expiry").is_not_null()
        & pl.col("right").is_in(["C", "P"])
        & pl.col("strike_thousandths").is_between(1, MAX_STRIKE_THOUSANDTHS)
        & ((thousandths - thousandths.round()).abs() < 1e-6)
    )
    return pl.when(~possible.fill_null(False)).then(pl.lit(IMPOSSIBLE)).when(pl.col("root").is_null()).then(pl.lit(AMBIGUOUS))


def _with_root(chain: pl.DataFrame) -> pl.DataFrame:
    """`chain` is one underlying in file order."""
    underlying = chain["underlying"][0] if chain.height else ""
    roots = CHAIN_ROOTS.get(underlying)
    if roots is None:
        return chain.with_columns(root=pl.col("underlying"), root_is_inferred=pl.lit(False), root_is_shared=pl.lit(False))
    dated = _dated(chain, is_monthly if roots.monthly_dates == "shared" else is_vix_monthly)
    if roots.monthly_dates == "own":
        root = pl.when("is_monthly_date").then(pl.lit(roots.monthly)).otherwise(pl.lit(roots.other))
        inferred = pl.lit(False)
    else:
        root = _shared_dates_root(dated, roots)
        inferred = pl.col("is_monthly_date")
    return dated.with_columns(
        root=root,
        root_is_inferred=inferred,
        root_is_shared=pl.struct("expiry", "right", "strike_thousandths").is_duplicated(),
    ).drop("is_monthly_date")


def _dated(chain: pl.DataFrame, monthly: Callable[[date], bool]) -> pl.DataFrame:
    months = [expiry for expiry in chain["expiry"].unique().drop_nulls().to_list() if monthly(expiry)]
    return chain.with_columns(is_monthly_date=pl.col("expiry").is_in(pl.Series(months, dtype=pl.Date).implode()))


def _shared_dates_root(chain: pl.DataFrame, roots: ChainRoots) -> pl.Expr:
    """The root of each row; null where the file does not tell."""
    block = (chain["expiry"].fill_null(strategy="forward").diff().dt.total_days() < 0).fill_null(False).cum_sum().alias("block")
    only_monthlies = (
        pl.DataFrame([block, chain["is_monthly_date"]]).group_by("block").agg(pl.col("is_monthly_date").all()).sort("block")
    )
    monthly_blocks = only_monthlies.filter("is_monthly_date")["block"].to_list()
    if only_monthlies.height == 2 and len(monthly_blocks) == 1:
        of_monthly_root = pl.lit(block == monthly_blocks[0])
        return pl.when(of_monthly_root).then(pl.lit(roots.monthly)).otherwise(pl.lit(roots.other))
    repeats = pl.struct("expiry", "right", "strike_thousandths").is_duplicated().any().over("expiry")
    return pl.when(~pl.col("is_monthly_date")).then(pl.lit(roots.other)).when(~repeats).then(pl.lit(roots.monthly))
