"""Whatever a good file looks like, the table is the same; whatever a bad file holds, the refusal is one of ours."""

from __future__ import annotations

import csv
import gzip
import io
import json
from datetime import date, time, timedelta

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from flowlake.core.errors import BadInputError
from flowlake.core.sessions import at_et
from flowlake.datasets.model import Column, Dataset
from flowlake.datasets.raw_columns import KEPT_FOR
from flowlake.sources import feeds
from flowlake.sources.feeds import FEEDS, Feed
from flowlake.sources.table import EXTRA, ROW

DAY = date(2024, 3, 5)
FIRST_NS = int(at_et(DAY, time(0)).timestamp()) * 10**9
LAST_NS = int(at_et(DAY + timedelta(days=1), time(0)).timestamp()) * 10**9 - 1
KEYS = {
    "massive_option_trades": "us_options_opra/trades_v1/2024/03/2024-03-05.csv.gz",
    "massive_option_quotes": "us_options_opra/quotes_v1/2024/03/2024-03-05.csv.gz",
    "massive_option_minute": "us_options_opra/minute_aggs_v1/2024/03/2024-03-05.csv.gz",
    "massive_option_day": "us_options_opra/day_aggs_v1/2024/03/2024-03-05.csv.gz",
    "massive_stock_trades": "us_stocks_sip/trades_v1/2024/03/2024-03-05.csv.gz",
    "massive_stock_minute": "us_stocks_sip/minute_aggs_v1/2024/03/2024-03-05.csv.gz",
    "massive_stock_day": "us_stocks_sip/day_aggs_v1/2024/03/2024-03-05.csv.gz",
    "open_interest_file": "reference/open_interest/2024/03/2024-03-05.csv.gz",
}
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0", exclude_categories=("Cs",)), min_size=1, max_size=8)
EXTRA_NAMES = st.lists(st.sampled_from(["Alpha", "beta", "gamma_3", "x,y", 'q"q']), unique=True, max_size=3)


def feed_of(dataset: str) -> Feed:
    return next(feed for feed in FEEDS if feed.dataset.name == dataset)


def cell(column: Column) -> st.SearchStrategy[object]:
    if column.name in ("sip_timestamp", "window_start"):
        value: st.SearchStrategy[object] = st.integers(FIRST_NS, LAST_NS)
    elif column.dtype.is_integer():
        value = st.integers(-(2**63), 2**63 - 1)
    elif column.dtype.is_float():
        value = st.floats(allow_nan=False, allow_infinity=False)
    else:
        value = TEXT
    return st.none() | value if column.nullable else value


def file_columns(dataset: Dataset) -> list[Column]:
    return [column for column in dataset.columns if column.name not in (ROW, EXTRA, KEPT_FOR.name)]


def spelled(value: object) -> str:
    return "" if value is None else repr(value) if isinstance(value, float) else str(value)


def table_or_refusal(feed: Feed, key: str, body: bytes) -> pl.DataFrame | BadInputError:
    try:
        return feeds.parse(feed, key, body)
    except BadInputError as error:
        return error


@st.composite
def files(draw: st.DrawFn) -> tuple[str, list[dict[str, object]], list[str], bytes]:
    """A dataset, its rows, the names of the further columns, and a file that holds them in some spelling."""
    dataset = draw(st.sampled_from(sorted(KEYS)))
    columns = file_columns(feed_of(dataset).dataset)
    extra = draw(EXTRA_NAMES)
    row = st.fixed_dictionaries({c.name: cell(c) for c in columns} | dict.fromkeys(extra, st.none() | TEXT))
    rows = draw(st.lists(row, min_size=1, max_size=6))
    order = draw(st.permutations([c.name for c in columns] + extra))
    respell = draw(st.sampled_from([str, str.upper, str.title]))
    quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator=end, quoting=quoting)
    writer.writerow([name if name in extra else respell(name) for name in order])
    writer.writerows([[spelled(r[name]) for name in order] for r in rows])
    text = out.getvalue() if draw(st.booleans()) else out.getvalue().removesuffix(end)
    body = (b"\xef\xbb\xbf" if draw(st.booleans()) else b"") + text.encode()
    return dataset, rows, extra, gzip.compress(body, mtime=0) if draw(st.booleans()) else body


@given(files())
def test_a_file_in_any_spelling_gives_its_rows(case: tuple[str, list[dict[str, object]], list[str], bytes]) -> None:
    dataset, rows, extra, body = case
    feed = feed_of(dataset)
    frame = feeds.parse(feed, KEYS[dataset], body)
    assert frame.schema == pl.Schema({column.name: column.dtype for column in feed.dataset.columns if column != KEPT_FOR})
    assert frame["row"].to_list() == list(range(len(rows)))
    for column in file_columns(feed.dataset):
        assert frame[column.name].to_list() == [row[column.name] for row in rows]
    found = [None if text is None else json.loads(text) for text in frame["extra"].to_list()]
    assert found == [{name: row[name] for name in extra} if extra else None for row in rows]


@given(files(), st.data())
def test_a_row_with_a_cell_too_few_or_too_many_is_always_refused(
    case: tuple[str, list[dict[str, object]], list[str], bytes], data: st.DataObject
) -> None:
    dataset, rows, _, _ = case
    names = [column.name for column in file_columns(feed_of(dataset).dataset)]
    order = data.draw(st.permutations(names))
    wrong = data.draw(st.integers(0, len(rows) - 1))
    cells = [[spelled(row[name]) for name in order] for row in rows]
    cells[wrong] = cells[wrong][:-1] if data.draw(st.booleans()) else [*cells[wrong], data.draw(st.just("") | TEXT)]
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([order, *cells])
    outcome = table_or_refusal(feed_of(dataset), KEYS[dataset], out.getvalue().encode())
    assert isinstance(outcome, BadInputError)
    assert (outcome.rule, outcome.place) == ("ragged_row", f"{KEYS[dataset]}, row {wrong}")


@given(files(), st.data())
def test_a_damaged_file_gives_a_table_or_a_refusal(
    case: tuple[str, list[dict[str, object]], list[str], bytes], data: st.DataObject
) -> None:
    dataset, _, _, body = case
    start = data.draw(st.integers(0, len(body)))
    stop = data.draw(st.integers(start, len(body)))
    damaged = body[:start] + data.draw(st.binary(max_size=6)) + body[stop:]
    outcome = table_or_refusal(feed_of(dataset), KEYS[dataset], damaged)
    if isinstance(outcome, BadInputError):
        assert outcome.place.startswith(KEYS[dataset])
        assert outcome.cure
    else:
        assert outcome.columns == [name for name in feed_of(dataset).dataset.column_names if name != KEPT_FOR.name]


@given(st.sampled_from([feed for feed in FEEDS if feed.kind == "reference"]), st.binary(max_size=200))
def test_any_bytes_under_a_reference_key_give_a_table_or_a_refusal(feed: Feed, body: bytes) -> None:
    key = {
        "corporate_actions_file": "reference/corporate_actions.csv",
        "rates_file": "reference/rates.csv",
        "contract_roots_file": "reference/contract_roots.csv",
        "sectors_file": "reference/sectors.csv",
        "lean_interest_rate": "lean/interest-rate.csv",
    }.get(feed.dataset.name) or ("lean/map_files/a.csv" if "map" in feed.pattern.pattern else "lean/factor_files/a.csv")
    outcome = table_or_refusal(feed, key, body)
    if isinstance(outcome, BadInputError):
        assert outcome.place.startswith(key)
    else:
        assert outcome.columns == list(feed.dataset.polars_schema())
