"""Writing a partition a part at a time, as tables: for datasets of which a session can be too large to be held whole.

Their texts differ from row to row, so that the codes and runs of `columnar` would win nothing.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import IO

import polars as pl

from flowlake.datasets.model import KNOWN_AT, Dataset


class PartWriter:
    """Writes conformed tables of a dataset, which must come in its order, to `file`; `close` writes the footer.

    Row groups hold `ds.row_group_size` rows whatever the size of the tables, so that equal rows give equal bytes.
    """

    def __init__(self, file: IO[bytes], ds: Dataset) -> None:
        import pyarrow.parquet as pq

        self._group_rows = ds.row_group_size
        self._schema = pl.DataFrame(schema=ds.polars_schema()).to_arrow(compat_level=pl.CompatLevel.oldest()).schema
        dictionaries, encodings = _encodings(ds)
        # Readers skip row groups by what these are sorted by; the extremes of other columns are much the same in all.
        sorted_by = [*ds.sort_by, *ds.grain]
        self._writer = pq.ParquetWriter(
            file,
            self._schema,
            compression="zstd",
            compression_level=1,
            store_schema=False,
            use_dictionary=dictionaries,
            column_encoding=encodings,
            write_statistics=sorted_by,
        )
        self._held = pl.DataFrame(schema=ds.polars_schema())
        self.rows = 0
        self.known_last: int | None = None
        """Nanoseconds since 1970 of the newest `known_at_utc` so far; None where there is no row."""

    def write(self, table: pl.DataFrame) -> None:
        if table.is_empty():
            return
        self.rows += table.height
        newest = int(table.get_column(KNOWN_AT).to_physical().to_numpy().max())
        self.known_last = newest if self.known_last is None else max(newest, self.known_last)
        held = pl.concat([self._held, table], rechunk=False)
        whole = held.height // self._group_rows * self._group_rows
        for start in range(0, whole, self._group_rows):
            self._write_group(held.slice(start, self._group_rows))
        self._held = held.slice(whole)

    def close(self, metadata: dict[str, str]) -> None:
        """Write what is held back and the footer with `metadata`. The file stays open."""
        if self._held.height:
            self._write_group(self._held)
        self._writer.add_key_value_metadata(metadata)
        self._writer.close()

    def _write_group(self, rows: pl.DataFrame) -> None:
        table = rows.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
        self._writer.write_table(table.cast(self._schema), row_group_size=self._group_rows)


def _encodings(ds: Dataset) -> tuple[list[str], dict[str, str]]:
    """Columns that are written as dictionaries, and the encodings of others; plain is what remains.

    Whole numbers lie close to the ones before them, and a text that is called an id is another one in nearly every row.
    """
    schema = ds.polars_schema()
    differences = {name: "DELTA_BINARY_PACKED" for name, dtype in schema.items() if dtype.is_integer() or dtype.is_temporal()}
    return [name for name in schema if name not in differences and not name.endswith("_id")], differences


def encode(ds: Dataset, tables: Iterable[pl.DataFrame], metadata: dict[str, str]) -> bytes:
    """The bytes of a partition."""
    file = io.BytesIO()
    writer = PartWriter(file, ds)
    for table in tables:
        writer.write(table)
    writer.close(metadata)
    return file.getvalue()
