"""Files of quotes that are read some rows at a time: the rows of the whole file, or a refusal that asks for the whole."""

from __future__ import annotations

import gzip
from datetime import date
from pathlib import Path

import databento_dbn as dbn
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowlake.core.errors import BadInputError
from flowlake.datasets.batch import WholeTableNeededError
from flowlake.sources import databento, massive, quote_rows
from flowlake.sources.pieces import sheets
from unit import test_vendor_databento as of_databento

DAY = date(2024, 3, 5)
NS_0930 = 1_709_649_000_000_000_000  # 2024-03-05 09:30 New York
HEADER = "ticker,ask_exchange,ask_price,ask_size,bid_exchange,bid_price,bid_size,sequence_number,sip_timestamp"


def line(number: int, at: int = NS_0930) -> str:
    return f"O:SPY240315C00{number % 7:06},302,{number}.5,3,303,0,0,{number},{at + number}"


def in_pieces(path: Path, sheet_bytes: int) -> pl.DataFrame | None:
    """The rows of all pieces; None where the whole table is needed."""
    try:
        return pl.concat(massive.option_quote_pieces(path, DAY, sheet_bytes))
    except WholeTableNeededError:
        return None


def whole(body: bytes) -> pl.DataFrame | None:
    try:
        return massive.option_quotes("a.csv", body, DAY)
    except BadInputError:
        return None


def written(folder: Path, body: bytes) -> Path:
    path = folder / "quotes"
    path.write_bytes(body)
    return path


good = st.integers(0, 10**6).map(line)
wrong = st.sampled_from(
    ["", "O:SPY240315C00500000", "a,b,c,d,e,f,g,h,i", line(1).replace(".5", ".x"), line(1) + ",9", line(1, 10**9)]
)
lines = st.lists(st.one_of(good, good, good, wrong), min_size=1, max_size=20)


@settings(max_examples=300)
@given(
    lines, st.sampled_from(["\n", "\r\n"]), st.sampled_from(["", "\n", "\n\n"]), st.sampled_from(["", ",Extra"]),
    st.integers(1, 400), st.booleans(),
)  # fmt: skip
def test_the_rows_are_those_of_the_whole_file_or_the_whole_is_asked_for(
    tmp_path_factory: pytest.TempPathFactory, rows: list[str], end: str, last: str, extra: str, size: int, packed: bool
) -> None:
    more = ",1" if extra else ""
    text = end.join([HEADER + extra, *(f"{row}{more}" for row in rows)]) + last
    body = gzip.compress(text.encode(), mtime=0) if packed else text.encode()
    found, expected = in_pieces(written(tmp_path_factory.getbasetemp(), body), size), whole(body)
    assert expected is not None or found is None, "what is refused as a whole is not let in by pieces"
    if found is not None and expected is not None:
        assert found.equals(expected)
    if all(row.count(",") == 8 and ".x" not in row and "a,b" not in row for row in rows) and end == "\n" and last != "\n\n":
        assert (found is None) is (expected is None), "a plain file is read in pieces"


@given(st.lists(st.sampled_from(["a", "bb", "", "c,d"]), max_size=12), st.integers(1, 30), st.lists(st.integers(1, 9), max_size=6))
def test_sheets_are_whole_lines_below_the_header(rows: list[str], size: int, cuts: list[int]) -> None:
    text = "".join(f"{row}\n" for row in ["head", *rows]).encode()
    pieces = []
    for cut in [*cuts, len(text)]:
        pieces.append(text[:cut])
        text = text[cut:]
    made = list(sheets(pieces, size))
    assert all(sheet.startswith(b"head\n") for sheet in made)
    assert b"".join(sheet.removeprefix(b"head\n") for sheet in made).split() == "\n".join(rows).encode().split()


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (gzip.compress(f"{HEADER}\n{line(1)}\n".encode())[:-9], "ends early"),
        (gzip.compress(f"{HEADER}\n{line(1)}\n".encode()) + b"more", "follows the gzip"),
        (f"{HEADER}\n{line(1, 10**18)}\n{line(2)}\n{line(3, 10**18)}\n".encode(), "another date"),
        (f"{HEADER}\n".encode(), "no data row"),
        (b"", "no bytes|no text"),
        (HEADER.encode() + b"," * 3_000_000, "line is very long"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, body: bytes, why: str) -> None:
    with pytest.raises(WholeTableNeededError, match=why):
        list(massive.option_quote_pieces(written(tmp_path, body), DAY, 2_000_000))
    assert whole(body) is None


@pytest.mark.parametrize(
    ("text", "is_plain"),
    [
        (f"{HEADER}\n{line(1)}\n{line(2)}", True),
        (f"{HEADER.upper()}\r\n{line(1)}\r\n", True),
        (f'{HEADER}\n"O:A240315C00000001",302,1,3,303,0.25,0,,{NS_0930}\n', True),
        (f"{HEADER}\n{line(1).replace('O:SPY', 'O:SPÝ')}\n", False),
        (f"{HEADER},more\n{line(1)},1\n", False),
        (f"{HEADER}\n{line(1).replace('1.5', '-1.5')}\n", False),
        (f"{HEADER}\n{line(1).replace('1.5', '1e3')}\n", False),
        (f"{HEADER}\n{line(1)[1:].replace(':SPY240315C00000001', '')}\n", False),
        (f"{HEADER}\n{line(1)}\n\n", False),
        (f"{HEADER}\n", False),
        ("", False),
    ],
)
def test_plain_text_is_read_by_the_kernel_and_all_else_is_left_to_the_general_reader(text: str, is_plain: bool) -> None:
    found = quote_rows.read(text.encode())
    assert (found is not None) is is_plain
    if found is not None:
        assert found.equals(massive.option_quotes("a.csv", text.encode(), DAY))


@pytest.mark.parametrize("rows", [5, 9_000])
def test_blocks_of_lines_make_one_table(rows: int) -> None:
    """A ticker that goes on in the next block, and one line that is longer than a block."""
    text = "\n".join([HEADER, *(line(i // 2_000 * 2_000 + 7 * (i % 2_000)) for i in range(rows))])
    found = quote_rows.read(text.encode())
    assert found is not None
    assert found.equals(massive.option_quotes("a.csv", text.encode(), DAY))
    assert quote_rows.read(f"{HEADER}\nO:{'A' * 300_000}240315C00000001{line(1)[20:]}\n".encode()) is None


def test_an_error_in_a_later_sheet_tells_where_it_is(tmp_path: Path) -> None:
    body = "\n".join([HEADER, *map(line, range(50)), "rubbish"]).encode()
    with pytest.raises(WholeTableNeededError, match=r"in what follows row [34]\d: .* line \d+ has 1 cells"):
        list(massive.option_quote_pieces(written(tmp_path, body), DAY, 600))


def test_a_real_file(real_data: Path) -> None:
    path = real_data / "us_options_opra/quotes_v1/2023/03/2023-03-28.csv.gz"
    day = date(2023, 3, 28)
    pieces = list(massive.option_quote_pieces(path, day, 1_000))
    assert len(pieces) > 5
    assert pl.concat(pieces).equals(massive.option_quotes("a.csv", path.read_bytes(), day))
    assert quote_rows.read(gzip.decompress(path.read_bytes())) is not None


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("piece", [1, 3, 1000])
def test_records_of_databento(tmp_path: Path, piece: int, packed: bool) -> None:
    records = [of_databento.quote(of_databento.OPEN_NS + i, bid=dbn.UNDEF_PRICE if i % 3 else 10**8 * i) for i in range(10)]
    plain = of_databento.header("cbbo-1s") + b"".join(map(bytes, records))
    body = of_databento.compressed(plain) if packed else plain
    pieces = list(databento.option_quote_pieces(written(tmp_path, body), of_databento.DAY, piece))
    assert len(pieces) == -(-10 // piece)
    assert pl.concat(pieces).equals(databento.option_quotes("a", body, of_databento.DAY))


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda body: body[:-7], "no whole record"),
        (lambda body: of_databento.compressed(body)[:-5], "."),
        (lambda body: of_databento.header("trades") + bytes(of_databento.trade()), "schema"),
        (lambda body: of_databento.header("cbbo-1s"), "no record"),
        (lambda body: b"", "starts with"),
        (lambda body: body[:6], "starts with|header"),
    ],
)
def test_records_that_are_damaged(tmp_path: Path, spoil: object, why: str) -> None:
    body = of_databento.header("cbbo-1s") + b"".join(bytes(of_databento.quote(of_databento.OPEN_NS + i)) for i in range(5))
    assert callable(spoil)
    with pytest.raises(WholeTableNeededError, match=why):
        list(databento.option_quote_pieces(written(tmp_path, spoil(body)), of_databento.DAY, 2))


def test_a_real_file_of_databento(real_data: Path) -> None:
    for schema in ("cbbo-1s", "cbbo-1m"):
        path = next((real_data / "databento").rglob(f"*{schema}*.dbn.zst"))
        pieces = list(databento.option_quote_pieces(path, of_databento.DAY, 1))
        assert len(pieces) > 1
        assert pl.concat(pieces).equals(databento.option_quotes("a", path.read_bytes(), of_databento.DAY))
