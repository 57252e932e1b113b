"""What tests of vendor formats share: a file through its feed, and raw tables through a step of curation, checked as declared."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

import polars as pl
import pytest

from flowlake.core.errors import BadInputError
from flowlake.curate.contracts import contracts
from flowlake.curate.kept_quotes import KeptQuotes
from flowlake.datasets.model import KNOWN_AT, Dataset, Finding, Output
from flowlake.datasets.raw_columns import KEPT_FOR
from flowlake.datasets.registry import DATASETS
from flowlake.pipeline.plan import producers
from flowlake.sources import feeds


def parsed(key: str, body: bytes) -> tuple[str, pl.DataFrame]:
    """The raw dataset that a key feeds, and its table."""
    found = feeds.match(key)
    assert found is not None, f"no feed has the key {key}"
    return found.feed.dataset.name, feeds.parse(found.feed, key, body)


def refusal(key: str, body: bytes) -> BadInputError:
    """The error with which a file is refused: it names the key and says what to do."""
    with pytest.raises(BadInputError) as caught:
        parsed(key, body)
    assert caught.value.place.startswith(key)
    assert caught.value.cure
    return caught.value


def raw_tables(session: date, *files: tuple[str, bytes]) -> dict[str, pl.DataFrame]:
    """Raw partitions of the session, as the reader hands them to a step."""
    tables: dict[str, list[pl.DataFrame]] = {}
    for key, body in files:
        name, table = parsed(key, body)
        is_whole = KNOWN_AT in table.columns
        tables.setdefault(name, []).append(feeds.as_known(name, table, session) if is_whole else table)
    return {name: published(DATASETS[name], kept(name, pl.concat(parts), session), session) for name, parts in tables.items()}


def kept(name: str, table: pl.DataFrame, session: date, tapes: Mapping[str, pl.DataFrame] | None = None) -> pl.DataFrame:
    """What ingest keeps of the rows of a file: all of them, but of quotes those that stand before a print of `tapes`."""
    if KEPT_FOR not in DATASETS[name].columns:
        return table
    quotes = KeptQuotes.of(name, tapes or {}, session)
    quotes.take(table)
    return quotes.table()


def curated(dataset: str, session: date, raw: Mapping[str, pl.DataFrame]) -> tuple[pl.DataFrame, tuple[Finding, ...]]:
    """The table that the plan's step makes of the raw partitions, and its findings and those of the contract master."""
    master = contracts(raw, session)
    inputs = {**raw, "contracts": published(DATASETS["contracts"], master.tables["contracts"], session)}
    output: Output = producers()[dataset].load()(inputs, session)
    return published(DATASETS[dataset], output.tables[dataset], session), (*master.findings, *output.findings)


def published(dataset: Dataset, table: pl.DataFrame, session: date) -> pl.DataFrame:
    """The table as a partition, after every declared check of severity error."""
    conformed = dataset.conform(table, session)
    for column in dataset.columns:
        for check in column.all_checks():
            failing = conformed.filter(check.failing(column.name))
            assert check.severity != "error" or failing.height == 0, (dataset.name, column.name, check.describe(), failing.head(3))
    for table_check in dataset.table_checks():
        assert conformed.filter(table_check.failing()).height == 0, (dataset.name, table_check.describe())
    return conformed.with_columns(session=pl.lit(session))


def rejected(findings: tuple[Finding, ...]) -> dict[str, int]:
    return {finding.rule: finding.row_count for finding in findings if finding.kind == "rejected"}
