"""Option trades in batches: the same rows, bytes, findings and refusals as by way of whole tables."""

from __future__ import annotations

import gzip
import io
from dataclasses import replace
from datetime import date, time
from itertools import pairwise
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from flowlake.core.sessions import at_et
from flowlake.curate import tape
from flowlake.datasets.batch import WholeTableNeededError, from_frame, joined, part, to_frame
from flowlake.datasets.curated import OPTION_TRADES
from flowlake.datasets.model import Dataset
from flowlake.datasets.raw import MASSIVE_OPTION_TRADES as RAW
from flowlake.lake import _pages, partitions
from flowlake.lake.batches import batches_of
from flowlake.lake.columnar import PartitionWriter, encode
from flowlake.lake.hashing import data_hash, file_data_hash
from flowlake.lake.partitions import FOOTER_KEY, Lineage, lineage_in
from flowlake.pipeline.candidates import staged
from flowlake.pipeline.ingest import raw_stream
from flowlake.quality.audit import audit_file
from flowlake.sources import tape as source
from integration.market_bucket import small_market
from unit.tape_paths import (
    DAY,
    HEADER,
    assert_same,
    assert_same_both_ways,
    batches,
    master,
    real_days,
    streamed_curated,
    streamed_raw,
    whole_curated,
    whole_raw,
)

TEN = int(at_et(DAY, time(10)).timestamp()) * 10**9
SPY = "O:SPY240315C00500000"


def line(ticker: str = SPY, at: int = 0, **cells: object) -> str:
    """A row `at` milliseconds after 10:00 New York."""
    row = {"conditions": "209", "correction": "0", "exchange": 302, "price": "1.25", "sip": TEN + at * 10**6, "size": 1, **cells}
    return ",".join([ticker, *(str(value) for value in row.values())])


def file(*lines: str, header: str = HEADER, end: str = "\n") -> bytes:
    return (end.join([header, *lines]) + end).encode()


def written(ds: Dataset, frame: pl.DataFrame, *cuts: int, metadata: dict[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    writer = PartitionWriter(out, ds)
    batch = from_frame(frame, ds)
    for start, stop in pairwise([0, *cuts, frame.height]):
        writer.write(part(batch, start, stop))
    writer.close(metadata or {})
    return out.getvalue()


# --- From files to tables --------------------------------------------------------------------------------------------------


def test_the_files_of_a_market() -> None:
    market = small_market(sessions=3)
    seen = 0
    for made in market.files():
        if "us_options_opra/trades_v1" in made.key:
            day = date.fromisoformat(made.key.split("/")[-1][:10])
            raw, (table, _) = assert_same_both_ways(made.body, day, made.key)
            seen += raw.height
            assert table.height
    assert seen > 300


def test_real_files(real_data: Path) -> None:
    days = real_days(real_data)
    assert days
    for path in days:
        assert_same_both_ways(
            path.read_bytes(), date.fromisoformat(path.name[:10]), f"us_options_opra/trades_v1/2023/03/{path.name}"
        )


GOOD = {
    "seven columns": file(line(), line(at=1)),
    "eight columns": file(
        f"{SPY},209,,302,{TEN},1.25,{TEN},1",
        f"{SPY},209,,302,,1.25,{TEN},1",
        header="ticker,conditions,correction,exchange,participant_timestamp,price,sip_timestamp,size",
    ),
    "columns in another order": file(
        f"{TEN},1,{SPY},209,0,302,1.25", header="sip_timestamp,size,Ticker,conditions,correction,exchange,price"
    ),
    "several conditions": file(line(conditions='"209,219"'), line(at=1, conditions="227"), line(at=1, conditions='"232"')),
    "blank conditions": file(line(conditions=""), line(conditions='""', at=2), line(correction="", at=3)),
    "decimals in sizes": file(line(size="1.5"), line(size="2.0"), line(size="100")),
    "times that descend": file(line(at=5), line(at=1), line(at=3, price="2"), line("O:SPY240315C00500500", at=0)),
    "a burst in one millisecond": file(
        *(line(price=f"{1 + i % 3}.{i % 7}", size=i % 4 + 1, exchange=300 + i % 5) for i in range(40))
    ),
    "quotes wherever a block of text ends": file(
        *(line(at=i, conditions='"' + ",".join(["209", "219", "227"][: i % 3 + 1]) + '"', size=10 ** (i % 7)) for i in range(130)),
        end="\r\n",
    ),
    "carriage returns": file(line(), line(at=1), end="\r\n"),
    "no line end at the end": file(line(), line(at=1)).rstrip(b"\n"),
    "gzip": gzip.compress(file(line(), line(at=1)), mtime=0),
    "gzip in two members": gzip.compress(file(line()), mtime=0) + gzip.compress((line(at=1) + "\n").encode(), mtime=0),
    "adjusted roots": file(
        *(line(t) for t in ("O:GOOG1240621C00010000", "O:GOOG1250621C00010000", "O:GOOG240621C00010000", "O:GOOG3240621P00010000")),
        *(line(t) for t in ("O:GOOG330617C00010000", "O:GOOGL240621C00010000")),
    ),
    "rows that cannot be": file(
        *(line(price=p) for p in ("0", "0.00", "3")),
        *(line(size=s) for s in ("0", "1.5")),
        line(at=-24 * 3_600_000),
        line(at=-7 * 3_600_000),
        line(at=-7 * 3_600_000, conditions="248"),
        line("O:SPY240312C00500000"),
        line("O:spy"),
        line("O:SPY240315C00000000"),
    ),
    "cancels": file(
        *(line(at=i) for i in range(4)),
        line(at=2, conditions="207"),
        line(at=3, conditions="201"),
        line(at=9, conditions="201", size=7),
        line(at=9, conditions="205", price="1.26"),
        line("O:SPY240315P00500000", conditions="203"),
    ),
    "cancels of the opening": file(
        line(at=0),
        line(at=5, conditions="227"),
        line(at=9, conditions="205"),
        *(line(at=i) for i in (10, 11)),
        line(at=12, conditions="201"),
    ),
    "exchange time far off": file(
        *(f"{SPY},{c},,302,{TEN + skew},1.25,{TEN},1" for c in ("209", "999") for skew in (0, 6 * 10**9, -6 * 10**9)),
        header="ticker,conditions,correction,exchange,participant_timestamp,price,sip_timestamp,size",
    ),
    "numbers with many digits": file(
        line(price="0.0001"), line(price="123456.7891"), line(size="1234567"), line(price="1.2345678")
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_vendors_write(name: str) -> None:
    body = GOOD[name]
    if name == "rows that cannot be":  # descending tickers are put in order, as the vendor does
        head, *rest = body.decode().splitlines()
        body = file(*sorted(rest, key=lambda row: row.split(",")[0]), header=head)
    assert_same_both_ways(body)


@pytest.mark.parametrize(
    "body",
    [
        file(line("O:SPY240315P00500000"), line()),
        file(line(), line("O:SPY240315P00500000"), line()),
        file(line("")),
        file(line(""), line(""), line()),
        file(line(), line("")),
        file(line() + ",x", header=HEADER + ",extra"),
        file(line(), header=HEADER.replace("price", "prize")),
        file(line(price="1e3")),
        file(line(price="")),
        file(line(price="-1")),
        file(line(price="nan")),
        file(line(price=".5")),
        file(line(price="1.123456789012")),
        file(line(price="12345678.25")),
        file(line(size="12345678901234567890")),
        file(line(sip="99999999999999999999")),
        file(line(conditions="x" * 100)),
        file(line(conditions="é")),
        file(line(conditions='2"09')),
        file(line(conditions='"2""09"')),
        file(line(conditions='"209\n"')),
        file(line() + ",1"),
        file(line() + ","),
        file(line()[:-2]),
        file(line(), "", line(at=1)),
        file(line(), line(at=1)) + b"\n\n",
        file(line(), end="\r") + b"\n",
        file(""),
        HEADER.encode(),
        b"",
        b"\xef\xbb\xbf" + file(line()),
        file(line(conditions="\x00209"), line(conditions="209")),
        gzip.compress(file(line()), mtime=0)[:-4],
        gzip.compress(file(line()), mtime=0) + b"more",
        gzip.compress(file(line()), mtime=0)[:-8] + b"\0" * 8,
        file(line(at=-72 * 3_600_000)),
        f"size,{HEADER.removesuffix(',size')}\n1,{SPY},209,0,302,1,{TEN},\n".encode(),
        f"sip_timestamp,size,exchange,price,ticker,correction,conditions\n{TEN},1,302,1,{SPY},0,209\n".encode(),
    ],
)
def test_anything_else_is_left_to_the_whole_table(body: bytes) -> None:
    """Nothing unusual is read in batches, right or wrong: so no refusal can differ from what the general reader says."""
    with pytest.raises(WholeTableNeededError):
        batches(body)


def test_a_text_is_not_mistaken_for_one_that_ends_alike() -> None:
    with pytest.raises(WholeTableNeededError):
        batches(file(line(conditions="209"), line(conditions="\x00209")))


def test_a_ticker_without_its_prefix_could_name_a_contract_out_of_turn() -> None:
    raw = whole_raw(file(line(), line("SPY240315C00500000", at=1)))
    with pytest.raises(WholeTableNeededError):
        streamed_curated(batches(file(line(), line("SPY240315C00500000", at=1))), master(raw))


def test_small_pieces_and_small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pieces and batches are cut shows nowhere: one row at a time gives what all at once gives."""
    body = next(made.body for made in small_market().files() if "us_options_opra/trades_v1" in made.key)
    day = small_market().days[0]
    wanted_raw = whole_raw(body, day)
    wanted = whole_curated(wanted_raw, day)
    monkeypatch.setattr(source, "_COMPRESSED", 7)
    monkeypatch.setattr(source, "_TEXT", 211)
    monkeypatch.setattr(source, "BATCH_ROWS", 2)
    monkeypatch.setattr(tape, "BATCH_ROWS", 1)
    assert streamed_raw(body, day).equals(wanted_raw)
    assert len(batches(body, day)) > 5
    assert_same(streamed_curated(batches(body, day), master(wanted_raw, day), day), wanted)


def test_contracts_that_tickers_put_out_of_order_stay_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "BATCH_ROWS", 1)
    monkeypatch.setattr(tape, "BATCH_ROWS", 1)
    body = GOOD["adjusted roots"]
    assert [batch.rows for batch in tape.whole_contracts(iter(batches(body)))] == [5, 1]
    assert_same_both_ways(body)


def test_premiums_too_large_for_64_bits() -> None:
    _, (table, _) = assert_same_both_ways(file(line(price="999999.99", size="9999999"), line(price="9999999.5", size="9999999")))
    assert table["premium_usd"].to_list() == [999999.99 * 9999999 * 100, 9999999.5 * 9999999 * 100]


# --- Files of the lake ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tables() -> dict[str, tuple[Dataset, pl.DataFrame]]:
    body, day = next((made.body, made.key[-17:-7]) for made in small_market().files() if "us_options_opra/trades_v1" in made.key)
    raw = whole_raw(body, date.fromisoformat(day))
    cancelled = whole_raw(GOOD["cancels"])
    return {
        "raw": (replace(RAW, row_group_size=50), raw),
        "curated": (replace(OPTION_TRADES, row_group_size=50), whole_curated(raw, date.fromisoformat(day))[0]),
        "nulls": (
            replace(RAW, row_group_size=3),
            whole_raw(GOOD["blank conditions"]),
        ),
        "cancels": (OPTION_TRADES, whole_curated(cancelled)[0]),
        "participants": (RAW, whole_raw(GOOD["eight columns"])),
        "empty": (RAW, whole_raw(GOOD["seven columns"]).clear()),
    }


CASES = ["raw", "curated", "nulls", "cancels", "participants", "empty"]


@pytest.mark.parametrize("name", CASES)
def test_every_reader_reads_what_was_written(tables: dict[str, tuple[Dataset, pl.DataFrame]], name: str, tmp_path: Path) -> None:
    ds, frame = tables[name]
    path = tmp_path / "part.parquet"
    path.write_bytes(written(ds, frame, metadata={"flowlake": "said"}))
    assert pl.read_parquet(path).equals(frame)
    assert pl.read_parquet(path).schema == frame.schema
    assert pl.DataFrame(pq.read_table(path)).equals(frame)
    assert pq.read_metadata(path).metadata == {b"flowlake": b"said"}
    read = duckdb.sql(f"select * from '{path}'").pl()
    assert read.with_columns(pl.col(pl.Datetime("ns", "*")).dt.convert_time_zone("UTC")).equals(frame)
    assert pl.concat([frame.clear(), *(to_frame(batch, ds) for batch in batches_of(path, ds))]).equals(frame)
    assert file_data_hash(path) == data_hash(frame)


@pytest.mark.parametrize("width", range(1, 18))
@pytest.mark.parametrize("nulls", [0, 3])
def test_codes_are_packed_to_the_bit(width: int, nulls: int) -> None:
    rng = np.random.default_rng(width)
    codes = rng.integers(0, 2**width, 1_003).astype(np.int32)
    codes[rng.choice(codes.size, nulls, replace=False)] = -1
    out = np.empty(4 * codes.size + 64, np.uint8)
    used = _pages.packed_codes(codes, np.arange(2**width, dtype=np.int32), width, nulls, out)
    groups = -(-(codes.size - nulls) // 8)
    head = used - groups * width  # the number of groups, in as many bytes as it needs
    assert head == len(f"{2 * groups + 1:b}") // 8 + 1
    bits = np.unpackbits(out[head:used], bitorder="little").reshape(-1, width)[: codes.size - nulls]
    assert (bits @ (1 << np.arange(width)) == codes[codes >= 0]).all()


@pytest.mark.parametrize("name", CASES)
def test_bytes_do_not_depend_on_the_batches(tables: dict[str, tuple[Dataset, pl.DataFrame]], name: str) -> None:
    ds, frame = tables[name]
    whole = written(ds, frame)
    assert whole == encode(ds, frame, {})
    assert whole == written(ds, frame, *(cut for cut in (1, 8) if cut < frame.height))
    assert whole == written(ds, frame, *range(1, frame.height))


def test_a_table_that_breaks_its_form_can_still_be_written(tables: dict[str, tuple[Dataset, pl.DataFrame]]) -> None:
    ds, frame = tables["curated"]
    broken = frame.with_columns(contract=pl.when(pl.int_range(pl.len()) != 1).then("contract"))
    assert partitions.decode(partitions.encode(ds, broken), "quarantined").equals(broken)


def test_statistics_let_a_reader_skip_row_groups(tables: dict[str, tuple[Dataset, pl.DataFrame]]) -> None:
    ds, frame = tables["curated"]
    metadata = pq.read_metadata(io.BytesIO(written(ds, frame)))
    for group in range(metadata.num_row_groups):
        rows = frame[group * 50 : (group + 1) * 50]
        for number, (name, dtype) in enumerate(frame.schema.items()):
            statistics = metadata.row_group(group).column(number).statistics
            assert statistics.null_count == rows[name].null_count()
            if dtype in (pl.String, pl.Float64, pl.Int64) and rows[name].drop_nulls().len():
                assert (statistics.min, statistics.max) == (rows[name].min(), rows[name].max())


def test_streamed_files_equal_encoded_tables(tmp_path: Path) -> None:
    """A file that was streamed and a table that was not are the same bytes, so it does not show which way a partition came."""
    for name in ("several conditions", "cancels", "adjusted roots", "times that descend", "exchange time far off"):
        body = GOOD[name]
        raw = whole_raw(body)
        stream = tape.option_trades(iter(batches(body)), {"contracts": master(raw)}, DAY)
        out = io.BytesIO()
        writer = PartitionWriter(out, OPTION_TRADES)
        for batch in stream.batches:
            writer.write(batch)
        writer.close({})
        assert out.getvalue() == encode(OPTION_TRADES, whole_curated(raw)[0], {}), name


def test_a_staged_file_carries_its_lineage_and_passes_the_audit(tmp_path: Path) -> None:
    body = GOOD["several conditions"]
    raw = whole_raw(body)

    def seal(ds: Dataset, found: str, rows: int, known_last: str) -> Lineage:
        return Lineage(ds.name, str(DAY), found, rows, known_last, "step", 1, "", "", (), "key")

    path = tmp_path / "staged.parquet"
    candidate, findings = staged(raw_stream(iter(batches(body)), RAW, DAY), path, seal)
    lineage = lineage_in(candidate.body(), "staged")
    assert (lineage.data_hash, lineage.rows, findings) == (data_hash(raw), raw.height, ())
    assert lineage.known_last_utc == raw["known_at_utc"].max().isoformat()
    assert pq.read_metadata(path).metadata[FOOTER_KEY.encode()].decode() == lineage.to_json()
    assert candidate.table().equals(raw)
    assert audit_file(RAW, path, DAY).success


def test_parts_and_joins_undo_each_other(tables: dict[str, tuple[Dataset, pl.DataFrame]]) -> None:
    ds, frame = tables["curated"]
    batch = from_frame(frame, ds)
    for cut in (0, 1, 17, frame.height):
        pieces = [part(batch, 0, cut), part(batch, cut, batch.rows)]
        assert [piece.rows for piece in pieces] == [cut, frame.height - cut]
        assert to_frame(joined(pieces), ds).equals(frame)
