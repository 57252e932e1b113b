"""House files under `reference/`: what no vendor's flat file carries."""

from __future__ import annotations

from datetime import date

import polars as pl

from flowlake.datasets.model import KNOWN_AT
from flowlake.datasets.raw import CONTRACT_ROOTS_FILE, CORPORATE_ACTIONS_FILE, OPEN_INTEREST_FILE, RATES_FILE, SECTORS_FILE
from flowlake.sources.knowledge import midnight_et, next_session_at_nine
from flowlake.sources.table import as_declared, read_columns


def open_interest(key: str, body: bytes, file_date: date | None) -> pl.DataFrame:
    """Raw table `open_interest_file` of one session; raises BadInputError (see `table.read_columns`)."""
    return as_declared(read_columns(key, body, OPEN_INTEREST_FILE.columns), OPEN_INTEREST_FILE)


def corporate_actions(key: str, body: bytes, file_date: date | None) -> pl.DataFrame:
    """The whole of `corporate_actions_file` with `known_at_utc`: the announcement, else the ex-date 00:00 New York.

    Raises BadInputError (see `table.read_columns`).
    """
    frame = read_columns(key, body, CORPORATE_ACTIONS_FILE.columns, may_be_empty=True)
    known = pl.coalesce("announced_at_utc", midnight_et("ex_date"))
    return _known(frame, [*CORPORATE_ACTIONS_FILE.column_names], known)


def rates(key: str, body: bytes, file_date: date | None) -> pl.DataFrame:
    """The whole of `rates_file` with `known_at_utc`: 09:00 New York of the session after the curve's date.

    Raises BadInputError (see `table.read_columns`).
    """
    frame = next_session_at_nine(read_columns(key, body, RATES_FILE.columns, may_be_empty=True), "date")
    return _known(frame, [*RATES_FILE.column_names], pl.col(KNOWN_AT))


def contract_roots(key: str, body: bytes, file_date: date | None) -> pl.DataFrame:
    """The whole of `contract_roots_file` with `known_at_utc`: `valid_from` 00:00 New York.

    Raises BadInputError (see `table.read_columns`).
    """
    frame = read_columns(key, body, CONTRACT_ROOTS_FILE.columns, may_be_empty=True)
    return _known(frame, [*CONTRACT_ROOTS_FILE.column_names], midnight_et("valid_from"))


def sectors(key: str, body: bytes, file_date: date | None) -> pl.DataFrame:
    """The whole of `sectors_file` with `known_at_utc`: the publication, else `valid_from` 00:00 New York.

    Raises BadInputError (see `table.read_columns`).
    """
    frame = read_columns(key, body, SECTORS_FILE.columns, may_be_empty=True)
    return _known(frame, [*SECTORS_FILE.column_names], pl.coalesce("published_at_utc", midnight_et("valid_from")))


def _known(frame: pl.DataFrame, names: list[str], known: pl.Expr) -> pl.DataFrame:
    return frame.select(*names, known.alias(KNOWN_AT))
