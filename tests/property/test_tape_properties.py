"""Hostile files of option trades: by way of batches they give what whole tables give, or are left to them."""

from __future__ import annotations

import gzip

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowlake.core.errors import BadInputError
from flowlake.curate import tape
from flowlake.datasets.batch import Batch, WholeTableNeededError, from_frame, part, to_frame
from flowlake.datasets.curated import OPTION_TRADES
from flowlake.datasets.raw import MASSIVE_OPTION_TRADES as RAW
from flowlake.lake.columnar import PartitionWriter, encode
from flowlake.sources import tape as source
from unit.tape_paths import assert_same, batches, master, streamed_curated, whole_curated, whole_raw
from unit.test_tape_ingest import TEN

HOUR = 3_600 * 10**9
ROOTS = ("A", "AB", "AB1", "AB2", "AB3", "AB.X", "ABC", "SPXW", "SPX")
TICKERS = st.builds(
    lambda root, expiry, right, strike: f"O:{root}{expiry}{right}{strike:08d}",
    st.sampled_from(ROOTS),
    st.sampled_from(("240315", "240312", "250117", "310117", "240230")),
    st.sampled_from("CP"),
    st.sampled_from((0, 500, 10_000, 12_500)),
) | st.sampled_from(("O:", "O:ABC", "O:abc240315C00010000", "O:ABC240315C00010000X"))
CONDITIONS = ("209", "219", "227", "201", "207", "205", "206", "232", "248", "999", "", '"209,219"', '"201"', '""', " ", "x")
PRICES = ("1.25", "1.2500", "1", "0.05", "0", "0.00", "123.4567", "9999999.9999")
SIZES = ("1", "2", "2.0", "1.5", "0", "1000000")
TIMES = (0, 0, 0, 10**6, 2 * 10**6, -5 * HOUR, -7 * HOUR, -11 * HOUR, 11 * HOUR, -13 * HOUR)
ROW = st.tuples(
    TICKERS,
    st.sampled_from(CONDITIONS),
    st.sampled_from(("", "0", "1")),
    st.sampled_from(("300", "302", "325")),
    st.sampled_from(("", str(TEN), str(TEN - 6 * 10**9), "0")),
    st.sampled_from(PRICES),
    st.sampled_from(TIMES).map(lambda offset: str(TEN + offset)),
    st.sampled_from(SIZES),
)
NAMES = ("ticker", "conditions", "correction", "exchange", "participant_timestamp", "price", "sip_timestamp", "size")
FILE = st.tuples(
    st.lists(ROW, min_size=1, max_size=40), st.booleans(), st.booleans(), st.sampled_from(("\n", "\r\n")), st.booleans()
)
QUIET = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


def text_of(rows: list[tuple[str, ...]], with_exchange_time: bool, in_order: bool, end: str, is_gzipped: bool) -> bytes:
    kept = [i for i, name in enumerate(NAMES) if with_exchange_time or name != "participant_timestamp"]
    ordered = sorted(rows, key=lambda row: row[0]) if in_order else rows
    lines = [",".join(NAMES[i] for i in kept), *(",".join(row[i] for i in kept) for row in ordered)]
    text = (end.join(lines) + end).encode()
    return gzip.compress(text, mtime=0) if is_gzipped else text


@QUIET
@given(FILE, st.integers(1, 300), st.integers(1, 60))
def test_batches_give_what_the_whole_table_gives(
    file: tuple[list[tuple[str, ...]], bool, bool, str, bool], text: int, rows: int
) -> None:
    body = text_of(*file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "_TEXT", max(text, 64))
        patch.setattr(source, "_COMPRESSED", max(text // 4, 1))
        patch.setattr(source, "BATCH_ROWS", rows)
        patch.setattr(tape, "BATCH_ROWS", rows)
        try:
            made = batches(body)
        except WholeTableNeededError:
            return
        raw = whole_raw(body)
        assert pl.concat([to_frame(batch, RAW) for batch in made]).equals(raw)
        assert_same(streamed_curated(made, master(raw)), whole_curated(raw))


@QUIET
@given(st.lists(st.tuples(st.sampled_from(("209", "227", "201", "205")), st.integers(0, 5)), min_size=1, max_size=30))
def test_batches_match_cancels_as_the_whole_table_does(events: list[tuple[str, int]]) -> None:
    """Equal prints of one contract and venue, so that which of them a cancel takes is all there is to differ in."""
    rows = [("O:ABC240315C00010000", conditions, "0", "302", "", "1.25", str(TEN + at * 10**6), "2") for conditions, at in events]
    body = text_of(rows, False, True, "\n", False)
    raw = whole_raw(body)
    assert_same(streamed_curated(batches(body), master(raw)), whole_curated(raw))


@QUIET
@given(st.lists(ROW, min_size=1, max_size=40))
def test_plain_files_in_order_are_read_in_batches(rows: list[tuple[str, ...]]) -> None:
    """The quick way is not a rare one: a file of the vendor's form in its order never falls back."""
    inside = [(*row[:6], str(TEN), row[7]) for row in rows]
    assert sum(batch.rows for batch in batches(text_of(inside, True, True, "\n", True))) == len(rows)


@QUIET
@given(FILE, st.integers(0, 10_000), st.binary(min_size=0, max_size=3))
def test_damage_never_passes_for_data(file: tuple[list[tuple[str, ...]], bool, bool, str, bool], place: int, damage: bytes) -> None:
    """Some bytes of a file are replaced: batches then give what the general reader gives, and nothing where it refuses."""
    body = text_of(*file)
    at = place % len(body)
    spoilt = body[:at] + damage + body[at + len(damage) :]
    try:
        made: list[Batch] = batches(spoilt)
    except WholeTableNeededError:
        return
    try:
        raw = whole_raw(spoilt)
    except BadInputError as error:
        raise AssertionError(f"read in batches what the general reader refuses: {error}") from error
    assert pl.concat([to_frame(batch, RAW) for batch in made]).equals(raw)


@QUIET
@given(st.lists(ROW, min_size=1, max_size=40), st.integers(1, 50), st.lists(st.integers(0, 40), max_size=4))
def test_bytes_of_a_partition_depend_on_its_rows_alone(rows: list[tuple[str, ...]], group: int, cuts: list[int]) -> None:
    from dataclasses import replace
    from io import BytesIO
    from itertools import pairwise

    for ds, frame in (
        (RAW, raw := whole_raw(text_of([(*row[:6], str(TEN), row[7]) for row in rows], True, False, "\n", False))),
        (OPTION_TRADES, whole_curated(raw)[0]),
    ):
        small = replace(ds, row_group_size=group)
        batch, out = from_frame(frame, small), BytesIO()
        writer = PartitionWriter(out, small)
        for start, stop in pairwise([0, *sorted(min(cut, frame.height) for cut in cuts), frame.height]):
            writer.write(part(batch, start, stop))
        writer.close({})
        assert out.getvalue() == encode(small, frame, {})
        assert pl.read_parquet(BytesIO(out.getvalue())).equals(frame)
