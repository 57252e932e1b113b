"""Columns that raw tables share, and how those of the further vendors are declared."""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from flowlake.datasets.checks import Between, Matches, Severity
from flowlake.datasets.model import Column, Dataset, Knowledge, KnownAtClose, Layer

ROW = Column("row", pl.Int64(), "Zero-based data row in the vendor's file.", checks=(Between(0),))
KEPT_FOR = Column(
    "kept_for",
    pl.Int64(),
    "The moment that the quote is kept for: of the first print after it, or just after the close; its own for the first quote of a "
    "contract.",
    unit="ns since 1970, UTC",
)
"""Of raw tables that keep a part of their file, see `curate.kept_quotes`."""
EXTRA = Column("extra", pl.String(), "Columns that are not declared, as a JSON object.", nullable=True)
OPTION_TICKER = Matches(r"^O:[A-Z0-9.]{1,9}[0-9]{6}[CP][0-9]{8}$", severity=Severity.WARNING)
"""A ticker that breaks it is rejected row by row when contracts are parsed; raw keeps it."""

TICKER = Column("ticker", pl.String(), "Option ticker with the prefix `O:`, spelled by the parser.", checks=(OPTION_TICKER,))
SECTOR_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9 &/-]*[A-Za-z0-9])?"
"""Name of a sector, as a regular expression: no blank or sign at either end makes a second sector of it."""
_PRICE = "USD per share"
AFTER_CLOSE = KnownAtClose(timedelta(minutes=15))
_NS = "ns since 1970, UTC"


def price(name: str, doc: str, *, nullable: bool = True) -> Column:
    return Column(name, pl.Float64(), doc, unit=_PRICE, nullable=nullable)


def count(name: str, doc: str, *, nullable: bool = True) -> Column:
    return Column(name, pl.Float64(), doc, unit="contracts", nullable=nullable)


def number(name: str, doc: str) -> Column:
    return Column(name, pl.Float64(), doc, nullable=True)


def integer(name: str, doc: str, *, nullable: bool = False) -> Column:
    return Column(name, pl.Int64(), doc, nullable=nullable)


def moment(name: str, doc: str, *, nullable: bool = False) -> Column:
    return Column(name, pl.Int64(), doc, unit=_NS, nullable=nullable)


def text(name: str, doc: str, *, nullable: bool = True) -> Column:
    return Column(name, pl.String(), doc, nullable=nullable)


def table(
    name: str,
    doc: str,
    columns: tuple[Column, ...],
    known: Knowledge,
    *,
    grain: tuple[str, ...] = ("row",),
    clock: tuple[str, ...] = (),
    retention_sessions: int | None = None,
) -> Dataset:
    return Dataset(
        name=name,
        layer=Layer.RAW,
        doc=doc,
        grain=grain,
        columns=(TICKER, *columns),
        sort_by=("ticker", *clock, *grain),
        known=known,
        retention_sessions=retention_sessions,
    )
