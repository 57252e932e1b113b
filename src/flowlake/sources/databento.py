"""Databento's OPRA files: binary records behind a header that says what they are and which contract each id stands for.

An `instrument_id` is valid within its day alone, so it is looked up in the header of its own file. An id that the header does not
name keeps its row, under a ticker that curation rejects. Records are read as arrays, in the layout of the file's own version.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import databento_dbn as dbn
import numpy as np
import polars as pl
import pyarrow as pa

from flowlake.core.errors import BadInputError
from flowlake.datasets import raw_databento
from flowlake.datasets.batch import WholeTableNeededError
from flowlake.datasets.model import Dataset
from flowlake.sources.contracts import check_days, check_moments, confirmed_ticker, ticker_of_occ
from flowlake.sources.pieces import Dated
from flowlake.sources.table import as_declared

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
DATASET = "OPRA.PILLAR"
_PREFIX = 8
"""`DBN`, the version, and the length of the metadata that follows."""
_WORD = 4
"""A record counts its length in words of four bytes."""
PIECE_RECORDS = 1_000_000
_QUOTES = ("cbbo-1s", "cbbo-1m")
_UNDEFINED_PRICE = 2**63 - 1
_CURE_FETCH = "download the file again, as DBN with zstd compression"

_LAYOUTS = {1: dbn.v1, 2: dbn.v2, 3: dbn.v3}
_RECORDS = {
    "trades": "TradeMsg",
    "tbbo": "MBP1Msg",
    "tcbbo": "CMBP1Msg",
    "cbbo-1s": "CBBOMsg",
    "cbbo-1m": "CBBOMsg",
    "ohlcv-1m": "OHLCVMsg",
    "ohlcv-1d": "OHLCVMsg",
    "statistics": "StatMsg",
    "definition": "InstrumentDefMsg",
}
"""Schema -> record."""

Columns = dict[str, Any]
_Records = np.ndarray[Any, np.dtype[Any]]


def option_trades(key: str, body: bytes, file_date: date | None) -> pl.DataFrame:
    """Raw table `databento_option_trades` of one file of the schema trades, tbbo or tcbbo.

    Raises BadInputError: those of `_read`, and `wrong_date`.
    """
    schema, records, tickers = _read(key, body, file_date, ("trades", "tbbo", "tcbbo"))
    scope = {"trades": None, "tbbo": "venue", "tcbbo": "consolidated"}[schema]
    table = _frame(
        records,
        tickers,
        {
            "ts_event": _moments(records["ts_event"]),
            "ts_recv": _moments(records["ts_recv"]),
            "price": _prices(records["price"]),
            "size": records["size"].astype(np.float64),
            "action": _letters(records["action"]),
            "side": _letters(records["side"]),
            "flags": records["flags"],
            "sequence": None if schema == "tcbbo" else records["sequence"],
            **(_top(records) if scope else dict.fromkeys(("bid_price", "ask_price", "bid_size", "ask_size"))),
            "quote_scope": scope,
        },
    )
    return _of_date(key, table, "ts_recv", file_date, raw_databento.DATABENTO_OPTION_TRADES)


def option_quotes(key: str, body: bytes, file_date: date | None) -> pl.DataFrame:
    """All rows of a file of the schema cbbo-1s or cbbo-1m, with the columns of `databento_option_quotes` but `kept_for`; errors as
    `option_trades`."""
    _, records, tickers = _read(key, body, file_date, _QUOTES)
    return _of_date(key, _quotes(records, tickers), "ts_recv", file_date, raw_databento.DATABENTO_OPTION_QUOTES)


def option_quote_pieces(path: Path, file_date: date, piece_records: int = PIECE_RECORDS) -> Iterator[pl.DataFrame]:
    """The same from a file on disk, some rows at a time.

    Raises WholeTableNeededError, after pieces were given too, where anything is wrong: `option_quotes` tells what.
    """
    day = Dated("ts_recv", file_date)
    rows = 0
    try:
        with _opened(path) as stream:
            head = stream.read(_PREFIX)
            head += stream.read(int.from_bytes(head[4:], "little"))
            schema, layout, metadata, _ = _described(path.name, head, _QUOTES)
            symbols = _named(path.name, metadata, file_date)
            while block := stream.read(piece_records * layout.itemsize):
                records = _records(path.name, memoryview(block), schema, layout)
                piece = as_declared(
                    _quotes(records, _looked_up(records["instrument_id"], symbols)), raw_databento.DATABENTO_OPTION_QUOTES
                )
                yield day.checked(piece.with_columns(pl.col("row") + rows))
                rows += piece.height
    except (BadInputError, OSError) as error:
        raise WholeTableNeededError(f"in what follows row {rows:,}: {error}") from error
    if not rows:
        raise WholeTableNeededError("the file has no record")
    day.check()


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        is_packed = file.read(len(ZSTD_MAGIC)) == ZSTD_MAGIC
        file.seek(0)
        with pa.input_stream(file, compression="zstd" if is_packed else None) as stream:
            yield stream


def _quotes(records: _Records, tickers: pl.Series) -> pl.DataFrame:
    columns = {"ts_recv": _moments(records["ts_recv"]), "ts_event": _moments(records["ts_event"]), **_top(records)}
    return _frame(records, tickers, columns)


def option_minute(key: str, body: bytes, file_date: date | None) -> pl.DataFrame:
    """Raw table `databento_option_minute` of one file of the schema ohlcv-1m; errors as `option_trades`."""
    _, records, tickers = _read(key, body, file_date, ("ohlcv-1m",))
    table = _frame(records, tickers, _bar(records))
    return _of_date(key, table, "ts_event", file_date, raw_databento.DATABENTO_OPTION_MINUTE)


def option_day(key: str, body: bytes, file_date: date | None) -> pl.DataFrame:
    """Raw table `databento_option_day` of one file of the schema ohlcv-1d, whose days are UTC days; errors as `option_trades`."""
    _, records, tickers = _read(key, body, file_date, ("ohlcv-1d",))
    table = _frame(records, tickers, _bar(records))
    check_days(key, table["ts_event"].cast(pl.Datetime("ns")).dt.date(), file_date)
    return as_declared(table, raw_databento.DATABENTO_OPTION_DAY)


def statistics(key: str, body: bytes, file_date: date | None) -> pl.DataFrame:
    """Raw table `databento_statistics` of one file of the schema statistics; errors as `option_trades`."""
    _, records, tickers = _read(key, body, file_date, ("statistics",))
    undefined = np.iinfo(records["quantity"].dtype).max
    columns = {
        "ts_event": _moments(records["ts_event"]),
        "ts_recv": _moments(records["ts_recv"]),
        "ts_ref": _moments(records["ts_ref"]),
        "stat_type": records["stat_type"],
        "quantity": _nullable(records["quantity"].astype(np.int64), records["quantity"] == undefined),
        "price": _prices(records["price"]),
        "update_action": records["update_action"],
    }
    return _of_date(key, _frame(records, tickers, columns), "ts_recv", file_date, raw_databento.DATABENTO_STATISTICS)


def definitions(key: str, body: bytes, file_date: date | None) -> pl.DataFrame:
    """Raw table `databento_definitions` of one file of the schema definition; errors as `option_trades`.

    The contract is the record's own symbol. Where expiry, right or strike of the record disagree with it, curation rejects the row.
    """
    _, records, _ = _read(key, body, file_date, ("definition",), needs_symbols=False)
    symbols = _letters(records["raw_symbol"])
    columns = {
        "ts_recv": _moments(records["ts_recv"]),
        "raw_symbol": symbols,
        "instrument_class": _letters(records["instrument_class"]),
        "underlying": _letters(records["underlying"]),
        "expiration": _moments(records["expiration"]).cast(pl.Datetime("ns")).dt.date(),
        "strike_price": _prices(records["strike_price"]),
        "contract_multiplier": _nullable(
            records["contract_multiplier"].astype(np.int64), records["contract_multiplier"] == np.iinfo(np.int32).max
        ),
        "security_update_action": _letters(records["security_update_action"]),
    }
    table = _frame(records, symbols, columns)
    contract = confirmed_ticker(pl.col("raw_symbol"), pl.col("expiration"), pl.col("instrument_class"), pl.col("strike_price"))
    table = table.with_columns(contract)
    return _of_date(key, table, "ts_recv", file_date, raw_databento.DATABENTO_DEFINITIONS)


def _of_date(key: str, table: pl.DataFrame, clock: str, file_date: date | None, dataset: Dataset) -> pl.DataFrame:
    check_moments(key, table[clock], file_date)
    return as_declared(table, dataset)


def _read(
    key: str, body: bytes, file_date: date | None, schemas: tuple[str, ...], *, needs_symbols: bool = True
) -> tuple[str, _Records, pl.Series]:
    """Schema, records and the symbol of each record (with its blanks; none without `needs_symbols`).

    Raises BadInputError: `empty_file`, `truncated_zstd`, `corrupt_zstd`, `not_dbn`, `wrong_dataset`, `wrong_schema`,
    `wrong_version`, `truncated_record`, `mixed_records`, `no_symbols`.
    """
    data = _decompressed(key, body)
    schema, layout, metadata, start = _described(key, data, schemas)
    records = _records(key, memoryview(data)[start:], schema, layout)
    if not needs_symbols:
        return schema, records, pl.Series(dtype=pl.String)
    return schema, records, _looked_up(records["instrument_id"], _named(key, metadata, file_date))


def _described(key: str, data: bytes, schemas: tuple[str, ...]) -> tuple[str, np.dtype[Any], Any, int]:
    """What the header says: the schema, how a record lies in memory, the header itself, and where the records begin."""
    version, metadata, start = _metadata(key, data)
    schema = str(metadata.schema)
    if metadata.dataset != DATASET:
        raise BadInputError(key, "wrong_dataset", f"the file is of {metadata.dataset}, expected {DATASET}", _CURE_FETCH)
    if schema not in schemas:
        what = f"the file holds the schema {schema}, expected {' or '.join(schemas)}"
        raise BadInputError(key, "wrong_schema", what, "put the file under the key of its own schema")
    layout = _layout(schema, version)
    return schema, np.dtype([*layout.descr, ("ts_out", "<u8")]) if metadata.ts_out else layout, metadata, start


def _named(key: str, metadata: Any, file_date: date | None) -> dict[int, str]:
    """The symbols of the header by their ids."""
    symbols = _symbols(metadata, file_date)
    if not symbols:
        what = "the header names no contract for the ids of its records"
        raise BadInputError(key, "no_symbols", what, "download the file with symbols resolved (stype_out instrument_id)")
    return symbols


def _decompressed(key: str, body: bytes) -> bytes:
    if not body:
        raise BadInputError(key, "empty_file", "the object has no bytes", _CURE_FETCH)
    if not body.startswith(ZSTD_MAGIC):
        return body
    try:
        with pa.input_stream(pa.BufferReader(body), compression="zstd") as stream:
            return bytes(stream.read())
    except OSError as error:
        rule = "truncated_zstd" if "Truncated" in str(error) else "corrupt_zstd"
        raise BadInputError(key, rule, f"the zstd stream is damaged ({error})", _CURE_FETCH) from error


def _metadata(key: str, data: bytes) -> tuple[int, Any, int]:
    """The version of the file, its header (brought to the newest version), and where the records begin."""
    if len(data) < _PREFIX or not data.startswith(b"DBN"):
        raise BadInputError(key, "not_dbn", f"the file starts with {data[:4]!r}, and a DBN file with b'DBN'", _CURE_FETCH)
    version, start = data[3], _PREFIX + int.from_bytes(data[4:_PREFIX], "little")
    if version not in _LAYOUTS:
        what = f"the file is of DBN version {version}, known are {min(_LAYOUTS)} to {max(_LAYOUTS)}"
        raise BadInputError(key, "wrong_version", what, "update flowlake, or download the file in an earlier version of DBN")
    try:
        return version, dbn.Metadata.decode(data[:start]), start
    except (dbn.DBNError, ValueError) as error:
        raise BadInputError(key, "not_dbn", f"the header cannot be read ({error})", _CURE_FETCH) from error


def _records(key: str, data: memoryview, schema: str, layout: np.dtype[Any]) -> _Records:
    if not len(data):
        raise BadInputError(key, "empty_file", "the file has a header and no record", _CURE_FETCH)
    size = layout.itemsize
    whole = len(data) // size
    records = np.frombuffer(data[: whole * size], dtype=layout)
    wrong = np.flatnonzero(records["length"].astype(np.int64) * _WORD != size)
    if wrong.size:
        row = int(wrong[0])
        what = f"record {row} has {int(records['length'][row]) * _WORD} bytes where the schema {schema} has {size}"
        raise BadInputError(f"{key}, row {row}", "mixed_records", what, "download the file again, one schema a file")
    if whole * size != len(data):
        what = f"{len(data) - whole * size} bytes after record {whole - 1} are no whole record of {size} bytes"
        raise BadInputError(key, "truncated_record", what, _CURE_FETCH)
    return records


def _layout(schema: str, version: int) -> np.dtype[Any]:
    record = getattr(_LAYOUTS[version], _RECORDS[schema])
    layout: np.dtype[Any] = np.dtype(record._dtypes).newbyteorder("<")
    return layout


def _symbols(metadata: Any, file_date: date | None) -> dict[int, str]:
    """Instrument id -> symbol on the date, from the intervals of the header, which leave out their end."""
    found: dict[int, str] = {}
    by_id = str(metadata.stype_in) == "instrument_id"
    for name, intervals in metadata.mappings.items():
        for interval in intervals:
            if file_date is not None and not interval["start_date"] <= file_date < interval["end_date"]:
                continue
            number, symbol = (name, interval["symbol"]) if by_id else (interval["symbol"], name)
            if number.isascii() and number.isdigit() and symbol:
                found[int(number)] = symbol
    return found


def _looked_up(ids: _Records, symbols: Mapping[int, str]) -> pl.Series:
    """The symbol of each id; the id itself, marked, where the header has none."""
    distinct, position = np.unique(ids, return_inverse=True)
    names = pl.Series([symbols.get(int(i), f"instrument {i}") for i in distinct], dtype=pl.String)
    return names.gather(position)


def _frame(records: _Records, symbols: pl.Series, columns: Columns) -> pl.DataFrame:
    frame = pl.DataFrame({"symbol": symbols, "instrument_id": records["instrument_id"], "publisher_id": records["publisher_id"]})
    made = [
        pl.lit(value).alias(name) if value is None or isinstance(value, str) else _series(name, value)
        for name, value in columns.items()
    ]
    unnamed = pl.col("symbol").str.starts_with("instrument ")
    return frame.with_columns(
        pl.when(unnamed).then("symbol").otherwise(ticker_of_occ(pl.col("symbol"))).alias("ticker"),
        *made,
        pl.int_range(pl.len(), dtype=pl.Int64).alias("row"),
    )


def _series(name: str, value: Any) -> pl.Series:
    return value.alias(name) if isinstance(value, pl.Series) else pl.Series(name, np.ascontiguousarray(value))


def _top(records: _Records) -> Columns:
    """The quote of a record; a side without a price is null, and so is its size."""
    made: Columns = {}
    for side in ("bid", "ask"):
        price = records[f"{side}_px_00"]
        made[f"{side}_price"] = _prices(price)
        made[f"{side}_size"] = _nullable(records[f"{side}_sz_00"].astype(np.float64), price == _UNDEFINED_PRICE)
    return made


def _bar(records: _Records) -> Columns:
    prices = {name: _prices(records[name]) for name in ("open", "high", "low", "close")}
    return {"ts_event": _moments(records["ts_event"]), **prices, "volume": records["volume"].astype(np.float64)}


def _prices(fixed: _Records) -> pl.Series:
    """Dollars of integers that count 1e-9 dollars."""
    return _nullable(fixed / dbn.FIXED_PRICE_SCALE, fixed == _UNDEFINED_PRICE)


def _moments(nanoseconds: _Records) -> pl.Series:
    return _nullable(nanoseconds.astype(np.int64), nanoseconds >= 2**63)


def _nullable(values: _Records, absent: _Records) -> pl.Series:
    series = pl.Series(np.ascontiguousarray(values))
    return series.set(pl.Series(absent), None) if absent.any() else series


def _letters(values: _Records) -> pl.Series:
    """Fixed-width text of the records, which ends at the first zero byte."""
    distinct, position = np.unique(values, return_inverse=True)
    texts = [bytes(v).split(b"\0", 1)[0].decode("utf-8", "replace") for v in distinct]
    return pl.Series(texts, dtype=pl.String).gather(position)
