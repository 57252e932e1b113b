"""Open interest with the session at whose close it holds, and the morning on which it became known."""

from __future__ import annotations

from datetime import date

import polars as pl

from flowlake.core.sessions import open_interest_known_at, previous_session
from flowlake.curate import snapshots
from flowlake.curate.contracts import NOT_IN_MASTER, SNAPSHOT_RULES
from flowlake.curate.screening import RowRule, is_not_negative, is_whole, one_per_key, screen, subject
from flowlake.curate.symbols import contract_of_ticker
from flowlake.curate.vendors import MORNING_OPEN_INTEREST
from flowlake.datasets.curated import OPEN_INTEREST
from flowlake.datasets.model import KNOWN_AT, UTC_NS, Finding, Inputs, Output

HOUSE_FILE = "open_interest_file"
_MASTER = ("contract", "underlying", "root", "expiry", "right", "strike")


def open_interest(inputs: Inputs, session: date) -> Output:
    """Required input: contracts. Optional inputs: open_interest_file (of the session's close), cboe_snapshot and
    `vendors.MORNING_OPEN_INTEREST` (published in the session's morning, so of the close before)."""
    master = inputs["contracts"].select(_MASTER)
    columns = OPEN_INTEREST.polars_schema()
    tables = [pl.DataFrame(schema=columns)]
    findings: list[Finding] = []
    if HOUSE_FILE in inputs:
        raw = inputs[HOUSE_FILE]
        rows = raw.with_columns(contract=contract_of_ticker()).join(master, on="contract", how="left")
        table, found = _screened(
            rows.with_columns(root_is_inferred=pl.lit(False)), raw, HOUSE_FILE, (NOT_IN_MASTER,), "open_interest", session
        )
        tables.append(_dated(table, HOUSE_FILE, session).select(*columns))
        findings += found
    if snapshots.SOURCE in inputs:
        raw = inputs[snapshots.SOURCE]
        rows = snapshots.with_contracts(raw, session)
        table, found = _screened(rows, raw, snapshots.SOURCE, SNAPSHOT_RULES, "oi", session)
        listed = table.drop(name for name in _MASTER if name != "contract").join(master, on="contract", how="inner")
        tables.append(_dated(listed, snapshots.SOURCE, previous_session(session)).select(*columns))
        findings += found
    for source, translate in MORNING_OPEN_INTEREST.items():
        if source not in inputs:
            continue
        raw = translate(inputs[source], session)
        rows = raw.with_columns(contract=contract_of_ticker(), root_is_inferred=pl.lit(False)).join(
            master, on="contract", how="left"
        )
        table, found = _screened(rows, raw, source, (NOT_IN_MASTER,), "open_interest", session)
        tables.append(_dated(table, source, previous_session(session)).select(*columns))
        findings += found
    return Output({OPEN_INTEREST.name: pl.concat(tables)}, tuple(findings))


def _screened(
    rows: pl.DataFrame, raw: pl.DataFrame, source: str, contract_rules: tuple[RowRule, ...], count: str, session: date
) -> tuple[pl.DataFrame, list[Finding]]:
    about = subject(raw, OPEN_INTEREST.name, source, session)
    whole = RowRule(
        "open_interest_no_count",
        ~(is_not_negative(count) & is_whole(count)),
        "the open interest is no whole number of at least 0",
        "correct the file; it is taken up when the object changes",
    )
    kept, findings = screen(rows, about, (*contract_rules, whole))
    distinct, repeated = one_per_key(kept, about, ["contract"], [count])
    return distinct.with_columns(open_interest_close=pl.col(count).cast(pl.Int64)), findings + repeated


def _dated(table: pl.DataFrame, source: str, oi_session: date) -> pl.DataFrame:
    return table.with_columns(
        pl.lit(open_interest_known_at(oi_session), dtype=UTC_NS).alias(KNOWN_AT),
        oi_session=pl.lit(oi_session),
        source=pl.lit(source),
    )
