"""Every defect of the synthetic market shows in the file that it names, and only there."""

from __future__ import annotations

import gzip
import zlib
from datetime import date

import polars as pl
import pytest

from flowlake.core.errors import UsageError
from flowlake.market import Defect, MarketSpec, VendorFile, build
from flowlake.market.clock import NS_PER_MINUTE, session_hours
from flowlake.market.spec import DefectKind, session_key
from flowlake.market.universe import underlyings

FIRST = date(2024, 7, 2)
TRADES, MINUTES = "us_options_opra/trades_v1", "us_options_opra/minute_aggs_v1"


def spec(*defects: Defect) -> MarketSpec:
    return MarketSpec(seed=3, first_session=FIRST, sessions=3, underlyings=3, trades_per_underlying_session=150, defects=defects)


def keyed(files: list[VendorFile] | tuple[VendorFile, ...]) -> dict[str, bytes]:
    assert len({f.key for f in files}) == len(files)
    return {file.key: file.body for file in files}


@pytest.fixture(scope="module")
def clean() -> dict[str, bytes]:
    return keyed(list(build(spec()).files()))


def damaged(defect: Defect) -> dict[str, bytes]:
    return keyed(list(build(spec(defect)).files()))


def key(session: int, dataset: str = TRADES) -> str:
    return session_key(dataset, session_hours(FIRST, session).day)


def lines(body: bytes) -> list[str]:
    return gzip.decompress(body).decode().splitlines()


def differing(clean: dict[str, bytes], found: dict[str, bytes]) -> set[str]:
    return {k for k in clean.keys() | found.keys() if clean.get(k) != found.get(k)}


@pytest.mark.parametrize(
    "kind",
    [
        "truncated_tape",
        "missing_minutes",
        "doubled_file",
        "stale_repeat",
        "republished_file",
        "bad_rows",
        "truncated_gzip",
        "missing_session",
        "missing_underlying",
    ],
)
def test_only_the_named_file_differs_and_the_truth_stays(clean: dict[str, bytes], kind: DefectKind) -> None:
    start = {"truncated_tape": 120, "missing_minutes": 0}.get(kind, 361)
    market = build(spec(Defect(kind, session=2, start_minute=start)))
    assert differing(clean, keyed(list(market.files()))) == {key(2)}
    whole = build(spec())
    assert all(market.truth()[name].equals(whole.truth()[name]) for name in ("episodes", "trades", "sessions"))


def test_truncated_tape_stops(clean: dict[str, bytes]) -> None:
    hours = session_hours(FIRST, 1)
    cutoff = hours.open_ns + 120 * NS_PER_MINUTE
    found = pl.read_csv(damaged(Defect("truncated_tape", 1, underlying="LOQA", start_minute=120))[key(1)])
    before = pl.read_csv(clean[key(1)])
    is_late = pl.col("sip_timestamp") >= cutoff
    is_named = pl.col("ticker").str.starts_with("O:LOQA")
    assert before.filter(is_named & is_late).height > 0
    assert found.equals(before.filter(~(is_named & is_late)))


def test_missing_minutes_leave_a_hole(clean: dict[str, bytes]) -> None:
    defect = Defect("missing_minutes", 0, dataset=MINUTES, start_minute=60, minutes=45)
    start = session_hours(FIRST, 0).open_ns + 60 * NS_PER_MINUTE
    inside = pl.col("window_start").is_between(start, start + 45 * NS_PER_MINUTE, closed="left")
    before = pl.read_csv(clean[key(0, MINUTES)])
    assert before.filter(inside).height > 0
    assert pl.read_csv(damaged(defect)[key(0, MINUTES)]).equals(before.filter(~inside))


def test_doubled_file_holds_every_row_twice(clean: dict[str, bytes]) -> None:
    header, *rows = lines(clean[key(1)])
    assert lines(damaged(Defect("doubled_file", 1))[key(1)]) == [header, *rows, *rows]


def test_stale_file_repeats_the_session_before(clean: dict[str, bytes]) -> None:
    assert damaged(Defect("stale_repeat", 2))[key(2)] == clean[key(1)]


def test_republished_file_is_whole_the_second_time(clean: dict[str, bytes]) -> None:
    market = build(spec(Defect("republished_file", 1, fraction=0.25)))
    again = keyed(market.republished())
    assert again == {key(1): clean[key(1)]}
    first = lines(keyed(list(market.files()))[key(1)])
    whole = lines(clean[key(1)])
    assert first == whole[: len(first)]
    assert (len(whole) - len(first)) / len(whole) == pytest.approx(0.25, abs=0.01)


def test_bad_rows_are_bad_in_every_way(clean: dict[str, bytes]) -> None:
    found = pl.read_csv(damaged(Defect("bad_rows", 1, rows=15))[key(1)], infer_schema=False)
    before = pl.read_csv(clean[key(1)], infer_schema=False)
    assert found.height == before.height
    changed = sum((found[c].eq_missing(before[c]).not_()).cast(pl.Int64) for c in found.columns)
    assert changed.sum() == 15
    assert changed.max() == 1
    assert (found["price"] == "-1.25").sum() == 3
    assert (found["size"] == "0").sum() == 3
    assert (found["ticker"] == "O:NOT A TICKER").sum() == 3
    assert found["sip_timestamp"].null_count() == 3
    assert (found["sip_timestamp"].str.starts_with("41024448")).sum() == 3


def test_truncated_gzip_cannot_be_read_to_its_end(clean: dict[str, bytes]) -> None:
    body = damaged(Defect("truncated_gzip", 1))[key(1)]
    assert clean[key(1)].startswith(body)
    assert len(body) < len(clean[key(1)])
    with pytest.raises((EOFError, zlib.error)):
        gzip.decompress(body)


def test_missing_session_lacks_one_file_or_all(clean: dict[str, bytes]) -> None:
    assert clean.keys() - damaged(Defect("missing_session", 1)).keys() == {key(1)}
    absent = clean.keys() - damaged(Defect("missing_session", 1, dataset=None)).keys()
    day = session_hours(FIRST, 1).day
    assert absent == {k for k in clean if f"{day:%Y-%m-%d}" in k}
    assert len(absent) == 6


def test_missing_underlying_has_no_row(clean: dict[str, bytes]) -> None:
    found = lines(damaged(Defect("missing_underlying", 1, underlying="HEXQ"))[key(1)])
    before = lines(clean[key(1)])
    assert any(line.startswith("O:HEXQ") for line in before)
    assert found == [line for line in before if not line.startswith("O:HEXQ")]


def test_holiday_file_appears_on_a_closed_day(clean: dict[str, bytes]) -> None:
    files = damaged(Defect("holiday_file", 1))
    independence_day = session_key(TRADES, date(2024, 7, 4))
    assert files.keys() - clean.keys() == {independence_day}
    assert files[independence_day] == clean[key(1)]


def test_defects_of_one_file_add_up(clean: dict[str, bytes]) -> None:
    both = build(spec(Defect("missing_underlying", 1), Defect("doubled_file", 1)))
    header, *rows = lines(clean[key(1)])
    kept = [row for row in rows if not row.startswith("O:SYNI")]
    assert lines(keyed(list(both.files()))[key(1)]) == [header, *kept, *kept]


@pytest.mark.parametrize(
    "defect",
    [
        lambda: Defect("torn_page", 1),  # type: ignore[arg-type]
        lambda: Defect("doubled_file", 1, dataset=None),
        lambda: Defect("doubled_file", 1, dataset="us_options_opra/nothing"),
        lambda: Defect("missing_minutes", 1, dataset="us_options_opra/day_aggs_v1"),
        lambda: Defect("truncated_gzip", 1, fraction=1.0),
        lambda: spec(Defect("doubled_file", 3)),
        lambda: list(build(spec(Defect("doubled_file", 0, dataset="us_options_opra/quotes_v1"))).files()),
        lambda: list(build(spec(Defect("missing_underlying", 0, underlying="NONE"))).files()),
    ],
)
def test_impossible_defects_are_refused(defect) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError):
        defect()


def test_the_default_underlying_is_the_fund() -> None:
    assert underlyings(spec())[0].name == "SYNI"
