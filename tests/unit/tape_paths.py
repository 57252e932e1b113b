"""The same file of option trades by way of whole tables and by way of batches. Shared by the tests of the tape."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import polars as pl

from flowlake.curate import tape, trades
from flowlake.curate.contracts import contracts
from flowlake.datasets.batch import Batch, to_frame
from flowlake.datasets.curated import CONTRACTS, OPTION_TRADES
from flowlake.datasets.model import Finding
from flowlake.datasets.raw import MASSIVE_OPTION_TRADES as RAW
from flowlake.sources import massive
from flowlake.sources.tape import option_trades as raw_batches
from flowlake.sources.tape import pieces_of_body

KEY = "us_options_opra/trades_v1/2024/03/2024-03-13.csv.gz"
DAY = date(2024, 3, 13)
HEADER = "ticker,conditions,correction,exchange,price,sip_timestamp,size"
Curated = tuple[pl.DataFrame, tuple[Finding, ...]]


def whole_raw(body: bytes, day: date = DAY, key: str = KEY) -> pl.DataFrame:
    return RAW.conform(massive.option_trades(key, body, day), day)


def batches(body: bytes, day: date = DAY) -> list[Batch]:
    return list(raw_batches(pieces_of_body(body), day))


def streamed_raw(body: bytes, day: date = DAY) -> pl.DataFrame:
    return pl.concat([to_frame(batch, RAW) for batch in batches(body, day)])


def master(raw: pl.DataFrame, day: date = DAY) -> pl.DataFrame:
    return CONTRACTS.conform(contracts({trades.SOURCE: raw.with_columns(session=pl.lit(day))}, day).tables["contracts"], day)


def whole_curated(raw: pl.DataFrame, day: date = DAY) -> Curated:
    inputs = {trades.SOURCE: raw.with_columns(session=pl.lit(day)), "contracts": master(raw, day)}
    output = trades.option_trades(inputs, day)
    return OPTION_TRADES.conform(output.tables["option_trades"], day), output.findings


def streamed_curated(made: list[Batch], known: pl.DataFrame, day: date = DAY) -> Curated:
    stream = tape.option_trades(iter(made), {"contracts": known}, day)
    table = pl.concat([OPTION_TRADES.empty().drop("session"), *(to_frame(batch, OPTION_TRADES) for batch in stream.batches)])
    return table, stream.findings()


def assert_same(found: Curated, wanted: Curated) -> None:
    """Equal tables, and equal findings with equal rows, in the same order."""
    assert found[0].schema == wanted[0].schema
    assert found[0].equals(wanted[0])
    assert [told(finding) for finding in found[1]] == [told(finding) for finding in wanted[1]]
    for mine, theirs in zip(found[1], wanted[1], strict=True):
        assert (mine.rows is None) == (theirs.rows is None)
        assert mine.rows is None or theirs.rows is None or mine.rows.equals(theirs.rows), mine.rule


def told(finding: Finding) -> tuple[object, ...]:
    return finding.rule, finding.kind, finding.what, finding.cure, finding.row_count


def assert_same_both_ways(body: bytes, day: date = DAY, key: str = KEY) -> tuple[pl.DataFrame, Curated]:
    """Raw and curated by both ways; gives what they agree on."""
    raw = whole_raw(body, day, key)
    made = batches(body, day)
    assert pl.concat([to_frame(batch, RAW) for batch in made]).equals(raw)
    wanted = whole_curated(raw, day)
    assert_same(streamed_curated(made, master(raw, day), day), wanted)
    return raw, wanted


def real_days(folder: Path) -> list[Path]:
    return sorted((folder / "us_options_opra" / "trades_v1").rglob("*.csv.gz"))
