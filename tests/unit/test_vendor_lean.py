"""Lean's minute archives: every real one with its traps, member names, blank sides, Chicago time, refusals."""

from __future__ import annotations

import io
import zipfile
from datetime import UTC, date, datetime, time
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowlake.core.sessions import at_et, open_utc
from flowlake.sources import feeds
from flowlake.sources.contracts import midnight_ns
from unit.vendor_files import curated, parsed, raw_tables, refusal, rejected

DAY = date(2015, 12, 24)
QUOTES = "lean/option/usa/minute/goog/20151224_quote_american.zip"
TRADES = "lean/option/usa/minute/goog/20151224_trade_american.zip"
INTEREST = "lean/option/usa/minute/goog/20151224_openinterest_american.zip"
OPEN_MS = 34_200_000


def member(kind: str, right: str = "call", strike: int = 7_500_000, expiry: str = "20160115", day: date = DAY) -> str:
    return f"{day:%Y%m%d}_goog_minute_{kind}_american_{right}_{strike}_{expiry}.csv"


def zipped(**members: str) -> bytes:
    return archive({member("quote", strike=int(name[1:])): text for name, text in members.items()})


def archive(members: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        for name, text in members.items():
            made.writestr(name, text)
    return buffer.getvalue()


# Real archives -------------------------------------------------------------------------------------------------------------------

ROWS = {
    "option/usa/minute/goog": {"quote": 304_724, "openinterest": 2_176},
    "option/usa/minute/twx": {"quote": 56_995, "openinterest": 368},
    "option/usa/minute/nwsa": {"quote": 43_003},
    "option/usa/minute/foxa": {"quote": 16_335},
    "option/usa/minute/spy": {"quote": 1_620},
    "option/usa/minute/aapl": {"openinterest": 4_659},
    "indexoption/usa/minute/spxw": {"quote": 23_535, "openinterest": 16},
    "indexoption/usa/minute/spx": {"quote": 4_473, "openinterest": 12},
}


def keys(real_data: Path, folder: str) -> list[str]:
    return sorted(f"lean/{folder}/{path.name}" for path in (real_data / "lean" / folder).iterdir())


@pytest.mark.parametrize("folder", ROWS)
def test_every_real_archive_is_read_whole(real_data: Path, folder: str) -> None:
    rows: dict[str, int] = {}
    for key in keys(real_data, folder):
        name, table = parsed(key, (real_data / key).read_bytes())
        kind = key.split("_")[1]
        assert name == {"quote": "lean_option_quotes", "openinterest": "lean_open_interest"}[kind]
        assert table["ticker"].str.contains(r"^O:[A-Z.]+\d{6}[CP]\d{8}$").all()
        rows[kind] = rows.get(kind, 0) + table.height
    assert rows == ROWS[folder]


def test_the_name_may_end_twice_in_zip_and_members_may_lack_the_last_newline(real_data: Path) -> None:
    (key,) = [k for k in keys(real_data, "indexoption/usa/minute/spxw") if k.endswith(".zip.zip")]
    body = (real_data / key).read_bytes()
    with zipfile.ZipFile(io.BytesIO(body)) as inside:
        assert not any(inside.read(name).endswith(b"\n") for name in inside.namelist())
    day = date(2021, 1, 4)
    table, findings = curated("open_interest", day, raw_tables(day, (key, body)))
    assert findings == ()
    assert table.height == 12
    assert table.filter(pl.col("contract") == "SPXW210104C03700000")["open_interest_close"].to_list() == [1732]
    assert table["oi_session"].unique().to_list() == [date(2020, 12, 31)], "stamped in the morning: of the close before"
    assert (table["underlying"].unique().to_list(), table["root"].unique().to_list()) == (["SPX"], ["SPXW"])


def test_real_quotes_of_a_half_day_and_their_blank_sides(real_data: Path) -> None:
    raw = raw_tables(DAY, (QUOTES, (real_data / QUOTES).read_bytes()))
    quotes = raw["lean_option_quotes"]
    first = quotes.filter(pl.col("ticker") == "O:GOOG151224C01000000").sort("row").row(0, named=True)
    assert (first["bid_close"], first["bid_size"], first["ask_open"], first["ask_close"], first["ask_size"]) == (
        None, None, 2.15, 0.5, 19.0,
    )  # fmt: skip
    assert first["window_start"] == int(open_utc(DAY).timestamp()) * 10**9
    table, findings = curated("option_quotes_eod", DAY, raw)
    assert set(rejected(findings)) <= {"crossed_quote"}
    assert table["ts_utc"].max() <= datetime(2015, 12, 24, 18, 0, tzinfo=UTC), "the session closed at 13:00"
    assert table.height > 2000


def test_before_2015_monthlies_expire_on_a_saturday_and_a_split_leaves_odd_strikes(real_data: Path) -> None:
    day = date(2014, 6, 9)
    key = "lean/option/usa/minute/aapl/20140609_openinterest_american.zip"
    table, findings = curated("open_interest", day, raw_tables(day, (key, (real_data / key).read_bytes())))
    assert rejected(findings) == {}
    # 172 rows are of contracts that expired on the Friday before: in the file they have their last open interest.
    assert table.height == 2337 - 172
    # Weeklies on Fridays, one on the Thursday before a holiday, monthlies on Saturdays.
    assert {d.weekday() for d in table["expiry"].unique()} == {3, 4, 5}
    assert ((table["strike"] * 100).round(6) % 100 != 0).any()
    before = "lean/option/usa/minute/aapl/20140606_openinterest_american.zip"
    earlier, _ = curated(
        "open_interest", date(2014, 6, 6), raw_tables(date(2014, 6, 6), (before, (real_data / before).read_bytes()))
    )
    # 1000 before the 7:1 split, written 10 x 1,000 USD.
    assert earlier.filter(pl.col("contract") == "AAPL150117C01000000")["open_interest_close"].to_list() == [9325]


def test_several_roots_of_one_session_are_one_partition(real_data: Path) -> None:
    day = date(2021, 1, 4)
    found = [
        (key, (real_data / key).read_bytes())
        for folder in ("indexoption/usa/minute/spx", "indexoption/usa/minute/spxw")
        for key in keys(real_data, folder)
        if "20210104_quote" in key
    ]
    table, findings = curated("option_quotes_eod", day, raw_tables(day, *found))
    assert rejected(findings) == {}
    assert table["root"].unique().sort().to_list() == ["SPX", "SPXW"]
    # Index options trade until 16:15; the quote is that of the close.
    assert table["ts_utc"].max() == datetime(2021, 1, 4, 21, 0, tzinfo=UTC)


def test_the_real_index_is_in_points_and_in_chicago_time(real_data: Path) -> None:
    rows = 0
    for key in keys(real_data, "index/usa/minute/spx"):
        day = date.fromisoformat(key.rsplit("/", 1)[1][:8])
        raw = raw_tables(day, (key, (real_data / key).read_bytes()))
        table, findings = curated("equity_bars_1m", day, raw)
        assert rejected(findings) == {}
        assert table["ts_utc"].min() == open_utc(day), "08:30 in Chicago is the opening in New York"
        assert table["underlying"].unique().to_list() == ["SPX"]
        assert (table["volume"] == 0).all()
        rows += table.height
        if day == date(2021, 1, 4):
            assert table.select("open", "high", "low", "close").row(0) == (3764.61, 3769.99, 3764.61, 3766.63)
    assert rows == 1812


def test_every_real_archive_is_found_by_its_key(real_data: Path) -> None:
    archives = [p.relative_to(real_data).as_posix() for p in (real_data / "lean").rglob("*.zip")]
    assert len(archives) == 34
    assert [key for key in archives if feeds.match(key) is None] == []


def test_a_year_of_open_interest_is_cut_by_session_and_agrees_with_the_minute_archives(real_data: Path) -> None:
    rows = 0
    for root, year, days in (("aapl", 2014, (6, 9)), ("twx", 2014, (5, 6)), ("goog", 2015, (23, 24))):
        key = f"lean/option/usa/daily/{root}_{year}_openinterest_american.zip"
        body = (real_data / key).read_bytes()
        rows += parsed(key, body)[1].height
        for day in (date(year, 6 if year == 2014 else 12, d) for d in days):
            minute = f"lean/option/usa/minute/{root}/{day:%Y%m%d}_openinterest_american.zip"
            raw = raw_tables(day, (key, body), (minute, (real_data / minute).read_bytes()))
            table, findings = curated("open_interest", day, raw)
            assert rejected(findings) == {}
            both = table.group_by("contract").agg(pl.col("open_interest_close").n_unique(), pl.len())
            assert (both["open_interest_close"] == 1).all()
            assert (both["len"] == 2).any()
            assert table["known_at_utc"].unique().to_list() == [at_et(day, time(6, 30))]
    assert rows == 9000
    # The year goes on after the last minute archive.
    later = date(2014, 6, 30)
    table, _ = curated(
        "open_interest",
        later,
        raw_tables(
            later,
            (
                "lean/option/usa/daily/aapl_2014_openinterest_american.zip",
                (real_data / "lean/option/usa/daily/aapl_2014_openinterest_american.zip").read_bytes(),
            ),
        ),
    )
    assert table.height > 0
    assert table["oi_session"].unique().to_list() == [date(2014, 6, 27)]


# Made archives -------------------------------------------------------------------------------------------------------------------


def test_trade_bars_become_minute_bars() -> None:
    body = archive({member("trade"): f"{OPEN_MS},21500,22000,21000,21600,19\n{OPEN_MS + 60_000},21600,21600,21600,21600,1"})
    table, findings = curated("option_bars_1m", DAY, raw_tables(DAY, (TRADES, body)))
    assert findings == ()
    assert table.select("contract", "open", "high", "low", "close", "volume").row(0) == (
        "GOOG160115C00750000", 2.15, 2.2, 2.1, 2.16, 19,
    )  # fmt: skip
    assert table["ts_utc"].to_list() == [open_utc(DAY), at_et(DAY, datetime.min.time().replace(hour=9, minute=31))]


@given(
    st.dictionaries(
        st.integers(1, 99_999).map(lambda s: s * 1000),
        st.lists(
            st.tuples(
                st.integers(0, 86_399_999),
                *[st.none() | st.tuples(st.integers(1, 10**7), st.integers(0, 10**5))] * 2,
            ),
            min_size=1,
            max_size=4,
        ),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.booleans(),
)
def test_quotes_round_trip(
    strikes: dict[int, list[tuple[int, tuple[int, int] | None, tuple[int, int] | None]]], end: str, last: bool
) -> None:
    def side(value: tuple[int, int] | None) -> str:
        return ",,,,0" if value is None else f"{value[0]},{value[0]},{value[0]},{value[0]},{value[1]}"

    files = {
        member("quote", strike=strike): end.join(f"{ms},{side(bid)},{side(ask)}" for ms, bid, ask in rows) + (end if last else "")
        for strike, rows in strikes.items()
    }
    table = parsed(QUOTES, archive(files))[1]
    assert table.height == sum(len(rows) for rows in strikes.values())
    for strike, rows in strikes.items():
        read = table.filter(pl.col("member") == member("quote", strike=strike)).sort("row")
        assert read["ticker"].unique().to_list() == [f"O:GOOG160115C{strike // 10:08}"]
        assert read["row"].to_list() == list(range(len(rows)))
        assert read["window_start"].to_list() == [midnight_ns(DAY) + ms * 10**6 for ms, *_ in rows]
        for name, at in (("bid", 1), ("ask", 2)):
            wanted = [row[at] for row in rows]
            assert read[f"{name}_close"].to_list() == [None if v is None else v[0] / 10_000 for v in wanted]
            assert read[f"{name}_size"].to_list() == [None if v is None else v[1] for v in wanted]


def test_empty_members_are_skipped_and_an_archive_of_nothing_else_is_refused() -> None:
    row = f"{OPEN_MS},1,1,1,1,1,2,2,2,2,1"
    assert parsed(QUOTES, zipped(s7500000=row, s7600000=""))[1].height == 1
    assert refusal(QUOTES, zipped(s7500000="", s7600000="\n")).rule == "empty_file"


def test_a_strike_between_thousandths_is_rejected_alone() -> None:
    files = {member("openinterest", strike=7_500_000 + 1000 * i): f"{OPEN_MS},5" for i in range(200)}
    files[member("openinterest", strike=7_500_005)] = f"{OPEN_MS},5"
    table, findings = curated("open_interest", DAY, raw_tables(DAY, (INTEREST, archive(files))))
    assert table.height == 200
    assert rejected(findings)["impossible_contract"] == 1


def test_refusals_name_the_member_and_the_row() -> None:
    good = f"{OPEN_MS},1,1,1,1,1,2,2,2,2,1"
    short = refusal(QUOTES, zipped(s7500000=good, s7600000=f"{good}\n{good[:-2]}"))
    assert (short.rule, short.place) == ("ragged_row", f"{QUOTES}, member {member('quote', strike=7_600_000)}, row 1")
    word = refusal(QUOTES, zipped(s7500000=good, s7600000=good.replace(str(OPEN_MS), "half past nine")))
    assert (word.rule, word.place) == ("bad_number", f"{QUOTES}, member {member('quote', strike=7_600_000)}, row 0")
    late = refusal(QUOTES, zipped(s7500000=f"{good}\n{good.replace(str(OPEN_MS), '86400000')}"))
    assert (late.rule, late.place) == ("bad_time", f"{QUOTES}, member {member('quote')}, row 1")
    assert refusal(QUOTES, archive({member("trade"): good})).rule == "wrong_member"
    assert refusal(QUOTES, archive({"readme.txt": "hello"})).rule == "wrong_member"
    assert refusal(QUOTES, archive({member("quote", day=date(2015, 12, 23)): good})).rule == "wrong_date"
    assert refusal(QUOTES, archive({member("quote", expiry="20160199"): good})).rule == "bad_date"
    assert refusal(QUOTES, b"").rule == "empty_file"
    assert refusal(QUOTES, b"34200000,1,1").rule == "not_a_zip"
    daily = "lean/option/usa/daily/goog_2015_openinterest_american.zip"
    name = "goog_openinterest_american_call_7500000_20160115.csv"
    wrong = refusal(daily, archive({name: "20151223 00:00,5\n2015-12-24 00:00,5"}))
    assert (wrong.rule, wrong.place) == ("bad_date", f"{daily}, member {name}, row 1")
    whole = zipped(s7500000=good)
    assert refusal(QUOTES, whole[:-10]).rule == "truncated_zip"
