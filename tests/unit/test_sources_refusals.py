"""Each kind of bad file is refused under its own rule, with the key, the row and the text at fault."""

from __future__ import annotations

import gzip
from pathlib import Path

import polars as pl
import pytest

from flowlake.core.errors import BadInputError
from flowlake.sources import feeds
from flowlake.sources.text import plain_text

KEY = "us_options_opra/trades_v1/2024/03/2024-03-05.csv.gz"
STAMP = 1_709_649_000_000_000_000  # 2024-03-05 09:30 New York
HEADER = "ticker,conditions,correction,exchange,price,sip_timestamp,size"
GOOD = f'O:SPY240315C00500000,"209,227",0,302,1.25,{STAMP},3'


def parse(body: bytes | str, key: str = KEY) -> pl.DataFrame:
    found = feeds.match(key)
    assert found is not None
    return feeds.parse(found.feed, key, body.encode() if isinstance(body, str) else body)


def refused(body: bytes | str, key: str = KEY) -> BadInputError:
    with pytest.raises(BadInputError) as caught:
        parse(body, key)
    assert caught.value.place.startswith(key)
    assert caught.value.cure
    return caught.value


def table(*rows: str, header: str = HEADER, end: str = "\n") -> str:
    return end.join([header, *rows]) + end


def test_a_good_file_is_accepted() -> None:
    frame = parse(table(GOOD, GOOD))
    assert frame.height == 2
    assert frame.row(0, named=True) == {
        "ticker": "O:SPY240315C00500000",
        "conditions": "209,227",
        "correction": "0",
        "exchange": 302,
        "participant_timestamp": None,
        "price": 1.25,
        "sip_timestamp": STAMP,
        "size": 3.0,
        "row": 0,
        "extra": None,
    }


@pytest.mark.parametrize("body", [b"", b"\n\n", b"\xef\xbb\xbf", gzip.compress(b"", mtime=0), table().encode(), HEADER.encode()])
def test_empty(body: bytes) -> None:
    assert refused(body).rule == "empty_file"


def test_truncated_gzip() -> None:
    whole = gzip.compress(table(*[GOOD] * 500).encode(), mtime=0)
    for cut in (20, len(whole) // 2, len(whole) - 1):
        assert refused(whole[:cut]).rule == "truncated_gzip"


def test_corrupt_gzip() -> None:
    whole = bytearray(gzip.compress(table(*[GOOD] * 500).encode(), mtime=0))
    whole[-6] ^= 0xFF  # the checksum
    assert refused(bytes(whole)).rule == "corrupt_gzip"


def test_trailing_garbage_after_gzip() -> None:
    whole = gzip.compress(table(GOOD).encode())
    assert refused(whole + b"<html>").rule == "trailing_garbage"
    assert parse(whole + b"\0" * 512).height == 1


def test_several_gzip_members_are_one_file() -> None:
    body = gzip.compress(table(GOOD).encode()) + gzip.compress((GOOD + "\n").encode())
    assert parse(body).height == 2


def test_not_utf8() -> None:
    error = refused(table(GOOD, GOOD).encode().replace(b"209,227", b"209\xff227", 1))
    assert error.rule == "encoding"
    assert "line 2" in error.detail
    assert "0xff" in error.detail


def test_wrong_header() -> None:
    error = refused("strike,dte,cp\n1,2,C\n")
    assert error.rule == "wrong_header"
    assert "strike,dte,cp" in error.detail
    assert refused("<html><body>503 Slow Down</body></html>\n<p>\n").rule == "wrong_header"
    assert refused(table(GOOD + ",", header=HEADER + ",")).rule == "wrong_header"


@pytest.mark.parametrize("name", HEADER.split(","))
def test_missing_column(name: str) -> None:
    error = refused(table(GOOD, header=HEADER.replace(name, "unheard_of")))
    assert error.rule == "missing_column"
    assert name in error.detail


def test_duplicate_column() -> None:
    assert refused(table(GOOD + ",1", header=HEADER + ",Size")).rule == "duplicate_column"


@pytest.mark.parametrize(
    ("column", "old", "new"),
    [
        ("price", "1.25", "1.2x5"),
        ("price", "1.25", "inf"),
        ("price", "1.25", "NaN"),
        ("price", "1.25", "1e999"),
        ("exchange", "302", "302.5"),
        ("sip_timestamp", str(STAMP), "2024-03-05 09:30:00"),
        ("sip_timestamp", str(STAMP), "99999999999999999999"),
    ],
)
def test_bad_number(column: str, old: str, new: str) -> None:
    error = refused(table(GOOD, GOOD, GOOD.replace(old, new), GOOD))
    assert error.rule == "bad_number"
    assert error.place == f"{KEY}, row 2"
    assert f"line 4: column {column} holds" in error.detail
    assert (new in error.detail) or (new in ("NaN", "1e999", "inf") and "finite" in error.detail)


@pytest.mark.parametrize("column", ["ticker", "exchange", "price", "sip_timestamp", "size"])
def test_missing_value(column: str) -> None:
    cells = dict(zip(HEADER.split(","), ["O:A240315C00500000", "209", "0", "302", "1", str(STAMP), "3"], strict=True))
    error = refused(table(GOOD, ",".join((cells | {column: ""}).values()), GOOD))
    assert error.rule == "missing_value"
    assert error.place == f"{KEY}, row 1"
    assert column in error.detail


@pytest.mark.parametrize("bad", [GOOD.rsplit(",", 1)[0], GOOD + ",7", GOOD.split(",")[0], ""])
def test_ragged_row(bad: str) -> None:
    error = refused(table(GOOD, bad, GOOD))
    assert error.rule == "ragged_row"
    assert error.place == f"{KEY}, row 1"
    assert "line 3" in error.detail


def test_a_short_row_is_found_where_the_last_column_may_be_blank() -> None:
    key = "us_stocks_sip/minute_aggs_v1/2024/03/2024-03-05.csv.gz"
    header = "ticker,note,volume,open,close,high,low,window_start,transactions"
    row = f'SPY,"a,b",8369,447.91,447.98,450.46,447.86,{STAMP},'
    assert parse(table(row, row, header=header), key)["transactions"].to_list() == [None, None]
    error = refused(table(row, row[:-1], header=header), key)
    assert (error.rule, error.place) == ("ragged_row", f"{key}, row 1")


def test_an_unpaired_quote() -> None:
    assert refused(table(GOOD, GOOD.replace('227"', "227"), GOOD)).rule == "ragged_row"
    assert refused(table(GOOD, GOOD.replace("O:SPY", 'O:"SPY'), GOOD)).rule in ("malformed_csv", "ragged_row")
    assert refused(table(GOOD, GOOD.replace("O:SPY", '"O:"SPY'), GOOD)).rule in ("malformed_csv", "ragged_row")


def test_wrong_date_is_refused_above_half_and_left_to_curation_below() -> None:
    other = GOOD.replace(str(STAMP), str(STAMP + 86_400 * 10**9))
    error = refused(table(GOOD, other, other))
    assert error.rule == "wrong_date"
    assert "2024-03-06" in error.detail
    assert parse(table(GOOD, other)).height == 2


@pytest.mark.parametrize("stamp", [STAMP // 10**6, 0, 2**63 - 1, -(2**63)])
def test_a_clock_in_another_unit_is_a_wrong_date(stamp: int) -> None:
    assert refused(table(GOOD.replace(str(STAMP), str(stamp)))).rule == "wrong_date"


def test_the_date_is_the_one_in_new_york() -> None:
    late = 1_709_694_000_000_000_000  # 2024-03-05 22:00 New York, 2024-03-06 03:00 UTC
    assert parse(table(GOOD.replace(str(STAMP), str(late)))).height == 1


def test_blank_cells_of_nullable_columns_are_null() -> None:
    row = parse(table(GOOD.replace('"209,227",0', '"",'))).row(0, named=True)
    assert row["conditions"] is None
    assert row["correction"] is None


def test_undeclared_columns_are_kept_as_json() -> None:
    frame = parse(table(GOOD + ",b1,", GOOD + ',"say ""x""",2', header=HEADER + ",Zeta,alpha"))
    assert frame["extra"].to_list() == ['{"Zeta":"b1","alpha":null}', '{"Zeta":"say \\"x\\"","alpha":"2"}']


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_line_endings_byte_order_mark_and_gzip_do_not_matter(end: str, mark: bytes, pack: type[bytes]) -> None:
    body = pack(mark + table(GOOD, GOOD, header=HEADER.title(), end=end).encode())
    assert parse(body).equals(parse(table(GOOD, GOOD)))
    assert parse(body, KEY.removesuffix(".gz")).equals(parse(table(GOOD, GOOD)))


def test_the_last_line_may_lack_its_ending_and_blank_lines_may_follow() -> None:
    assert parse(table(GOOD).rstrip()).height == 1
    assert parse(table(GOOD) + "\n\n").height == 1


def test_a_value_that_only_needs_trimming_is_read() -> None:
    assert parse(table(GOOD.replace("1.25", " 1.25 "))).equals(parse(table(GOOD)))


def test_plain_text_is_not_copied_needlessly() -> None:
    body = b"a,b\n1,2\n"
    assert plain_text("k", body) is body


def test_a_good_file_never_takes_the_slow_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def slow(*arguments: object) -> None:
        raise AssertionError("the slow path was taken")

    monkeypatch.setattr("flowlake.sources.table._read_as_text", slow)
    assert parse(table(*[GOOD] * 1000)).height == 1000
    assert parse(table(*[GOOD] * 1000, end="\r\n")).height == 1000
