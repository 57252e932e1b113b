"""OptionsDX chains: bracketed names after blanks, call and put in one row, sizes as text, blanks, refusals."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowlake.core.sessions import close_utc, sessions_between
from flowlake.pipeline.ingest import Listing, SourceObject
from flowlake.sources import feeds
from unit.vendor_files import curated, parsed, raw_tables, refusal, rejected

DAY = date(2023, 1, 3)
KEY = "optionsdx/SPY/spy_eod_202301.txt"
COLUMNS = (
    "QUOTE_UNIXTIME,QUOTE_READTIME,QUOTE_DATE,QUOTE_TIME_HOURS,UNDERLYING_LAST,EXPIRE_DATE,EXPIRE_UNIX,DTE,C_DELTA,C_GAMMA,C_VEGA,"
    "C_THETA,C_RHO,C_IV,C_VOLUME,C_LAST,C_SIZE,C_BID,C_ASK,STRIKE,P_BID,P_ASK,P_SIZE,P_LAST,P_DELTA,P_GAMMA,P_VEGA,P_THETA,P_RHO,"
    "P_IV,P_VOLUME,STRIKE_DISTANCE,STRIKE_DISTANCE_PCT"
)
NAMES = COLUMNS.split(",")
HEADER = ", ".join(f"[{name}]" for name in NAMES)
CLOSE = int(close_utc(DAY).timestamp())


def row(**more: object) -> str:
    values = [CLOSE, "2023-01-03 16:00", DAY, "16.000", 380.82, "2023-01-20", 1674248400, 17]
    call = [0.5, 0.02, 0.3, -0.1, 0.1, 0.2, 25, 7.1, "10 x 12", 7.0, 7.1]
    put = [5.9, 6.0, "3 x 4", 5.95, -0.5, 0.02, 0.3, -0.1, -0.1, 0.21, ""]
    cells = dict(zip(NAMES, [*values, *call, 380.0, *put, 0.8, 0.002], strict=True)) | more
    return ", ".join(str(cells[name]) for name in NAMES)


def text(*rows: str, end: str = "\n") -> bytes:
    return end.join([HEADER, *rows, ""]).encode()


def test_a_row_is_a_call_and_a_put() -> None:
    table = parsed(KEY, text(row()))[1]
    assert table.select("ticker", "bid", "ask", "bid_size", "ask_size", "volume", "iv").rows() == [
        ("O:SPY230120C00380000", 7.0, 7.1, 10.0, 12.0, 25.0, 0.2),
        ("O:SPY230120P00380000", 5.9, 6.0, 3.0, 4.0, None, 0.21),
    ]
    assert table["row"].to_list() == [0, 0]


def test_the_chain_feeds_quotes_with_the_vendors_spot_and_volatility() -> None:
    blanks = row(STRIKE=390.0, C_BID="", C_ASK=" ", C_SIZE="", C_IV="", C_DELTA="", P_BID=0)
    late = row(STRIKE=400.0, QUOTE_UNIXTIME=CLOSE + 30)
    quotes, findings = curated("option_quotes_eod", DAY, raw_tables(DAY, (KEY, text(row(), blanks, late))))
    assert rejected(findings) == {}
    found = {r["contract"]: r for r in quotes.iter_rows(named=True)}
    assert found["SPY230120C00380000"]["bid"] == 7.0
    assert (found["SPY230120C00380000"]["spot"], found["SPY230120C00380000"]["vendor_iv"]) == (380.82, 0.2)
    assert (found["SPY230120C00390000"]["bid"], found["SPY230120C00390000"]["ask"]) == (None, None)
    assert (found["SPY230120P00390000"]["bid"], found["SPY230120P00390000"]["bid_size"]) == (None, None)
    assert found["SPY230120C00400000"]["ts_utc"] == close_utc(DAY)


def test_a_session_sees_its_own_rows_of_the_month_and_knows_them_after_its_close() -> None:
    later = date(2023, 1, 4)
    body = text(row(), row(QUOTE_DATE=later, QUOTE_UNIXTIME=int(close_utc(later).timestamp()), C_BID=6.5))
    table = parsed(KEY, body)[1]
    assert table["known_at_utc"].unique().sort().to_list() == [close_utc(day) + timedelta(minutes=15) for day in (DAY, later)]
    for day, bid in ((DAY, 7.0), (later, 6.5)):
        quotes, _ = curated("option_quotes_eod", day, raw_tables(day, (KEY, body)))
        assert quotes.filter(right="C")["bid"].to_list() == [bid]


def test_a_month_counts_for_its_sessions() -> None:
    found = feeds.match(KEY)
    assert found is not None
    assert (found.period, found.file_date) == ("202301", None)
    listed = SourceObject(KEY, 1, "e", datetime(2023, 2, 1, tzinfo=UTC), "optionsdx_eod", None, period="202301")
    listing = Listing((listed,), 0)
    assert listing.sessions() == sessions_between(date(2023, 1, 1), date(2023, 1, 31))
    assert listing.feeding("optionsdx_eod", DAY) == (listed,)
    assert listing.feeding("optionsdx_eod", date(2023, 2, 1)) == ()
    assert [o.file_date for o in listing.dated(DAY)] == [DAY], "the finder of gaps sees a file for the session"
    assert listing.dated(date(2023, 2, 1)) == ()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_endings_and_the_byte_order_mark_change_nothing(end: str) -> None:
    assert parsed(KEY, b"\xef\xbb\xbf" + text(row(), end=end))[1].equals(parsed(KEY, text(row()))[1])


@given(
    st.lists(
        st.tuples(
            st.integers(1, 20_000_000).map(lambda s: s / 100),
            *[st.none() | st.integers(0, 10**7).map(lambda c: c / 100)] * 4,
            *[st.none() | st.tuples(st.integers(0, 10**6), st.integers(0, 10**6))] * 2,
        ),
        min_size=1,
        max_size=5,
    )
)
def test_chains_round_trip(rows: list[tuple[float, object, object, object, object, object, object]]) -> None:
    """Strike, bid and ask of call and put, sizes of call and put."""

    def cell(value: object) -> object:
        return "" if value is None else f"{value[0]} x {value[1]}" if isinstance(value, tuple) else value

    lines = [
        row(STRIKE=k, C_BID=cell(cb), C_ASK=cell(ca), P_BID=cell(pb), P_ASK=cell(pa), C_SIZE=cell(cs), P_SIZE=cell(ps))
        for k, cb, ca, pb, pa, cs, ps in rows
    ]
    table = parsed(KEY, text(*lines))[1]
    assert table.height == 2 * len(rows)
    calls, puts = (table.filter(right=side) for side in "CP")
    assert calls["strike"].to_list() == puts["strike"].to_list() == [r[0] for r in rows]
    for side, at in ((calls, 1), (puts, 3)):
        assert side["bid"].to_list() == [r[at] for r in rows]
        assert side["ask"].to_list() == [r[at + 1] for r in rows]
    for side, at in ((calls, 5), (puts, 6)):
        sizes = [r[at] for r in rows]
        assert side["bid_size"].to_list() == [s[0] if isinstance(s, tuple) else None for s in sizes]
        assert side["ask_size"].to_list() == [s[1] if isinstance(s, tuple) else None for s in sizes]


def test_refusals_name_the_row_and_the_cell() -> None:
    size = refusal(KEY, text(row(), row(P_SIZE="3 by 4")))
    assert (size.rule, size.place) == ("bad_number", f"{KEY}, row 1")
    assert "3 by 4" in size.detail
    assert refusal(KEY, text(row(EXPIRE_DATE="20/01/2023"))).rule == "bad_date"
    assert refusal(KEY, text(row(STRIKE=""))).rule == "missing_value"
    assert refusal(KEY, text(row(C_IV="high"))).rule == "bad_number"
    assert refusal(KEY, text(row()).replace(b"[C_BID]", b"[C_BUY]")).rule == "missing_column"
    other = refusal(KEY, text(row(), row(QUOTE_DATE="2023-02-01")))
    assert (other.rule, other.place) == ("wrong_date", f"{KEY}, row 1")
    assert refusal(KEY, text(row(QUOTE_DATE="2023-01-16"))).rule == "wrong_date", "Martin Luther King day"
    assert refusal(KEY.replace("202301", "202302"), text(row())).rule == "wrong_date"
    assert refusal(KEY, text()).rule == "empty_file"
