"""The as-of join of prints with quotes: which quote is in force, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from flowlake.flow import nbbo
from flowlake.flow.nbbo import Nbbo, Quotes

SECOND = 10**9
HOUR = 3600 * SECOND


def quotes(*rows: tuple[int, int, float, float]) -> Quotes:
    contract, ts, bid, ask = ([row[i] for row in rows] for i in range(4))
    floats = [np.array(c, dtype=np.float64) for c in (bid, ask, [10.0] * len(rows), [20.0] * len(rows))]
    return Quotes(np.array(contract, dtype=np.int64), np.array(ts, dtype=np.int64), *floats)


def joined(prints: list[tuple[int, int]], *batches: Quotes, max_age_ns: int = HOUR) -> Nbbo:
    contract, ts = (np.array([p[i] for p in prints], dtype=np.int64) for i in range(2))
    return nbbo.as_of(contract, ts, batches, max_age_ns=max_age_ns)


def test_the_last_quote_strictly_before_the_print() -> None:
    stream = quotes((0, 1, 1.0, 1.1), (0, 5, 2.0, 2.1), (0, 5, 3.0, 3.1), (0, 9, 4.0, 4.1))
    found = joined([(0, 1), (0, 2), (0, 5), (0, 6), (0, 10)], stream)
    np.testing.assert_array_equal(found.bid, [np.nan, 1.0, 1.0, 3.0, 4.0])
    np.testing.assert_array_equal(found.age_ns, [-1, 1, 4, 1, 1])


def test_a_contract_never_takes_the_quote_of_another() -> None:
    found = joined([(0, 9), (1, 9), (2, 9), (3, 9)], quotes((0, 1, 1.0, 1.1), (2, 1, 3.0, 3.1), (4, 1, 5.0, 5.1)))
    np.testing.assert_array_equal(found.bid, [1.0, np.nan, 3.0, np.nan])
    np.testing.assert_array_equal(found.ask_size, [20.0, np.nan, 20.0, np.nan])


def test_a_quote_that_is_too_old_is_told_and_not_given() -> None:
    found = joined([(0, 10), (0, 11), (0, 12)], quotes((0, 1, 1.0, 1.1)), max_age_ns=10)
    np.testing.assert_array_equal(found.bid, [1.0, 1.0, np.nan])
    np.testing.assert_array_equal(found.bid_size, [10.0, 10.0, np.nan])
    assert found.age_ns.tolist() == [9, 10, 11]
    assert found.is_stale.tolist() == [False, False, True]


def test_one_sided_locked_and_crossed_quotes() -> None:
    rows = [(0.0, 1.1), (1.0, 0.0), (1.0, np.nan), (-1.0, 1.1), (1.0, 1.0), (1.2, 1.1), (1.0, 1.1)]
    stream = quotes(*((i, 1, bid, ask) for i, (bid, ask) in enumerate(rows)))
    found = joined([(i, 2) for i in range(len(rows))], stream)
    np.testing.assert_array_equal(found.bid, [np.nan, 1.0, 1.0, np.nan, 1.0, 1.2, 1.0])
    np.testing.assert_array_equal(found.ask, [1.1, np.nan, np.nan, 1.1, 1.0, 1.1, 1.1])
    np.testing.assert_array_equal(found.bid_size, [np.nan, 10, 10, np.nan, 10, 10, 10])
    assert found.is_locked_or_crossed.tolist() == [False, False, False, False, True, True, False]


def test_a_crossed_quote_does_not_bring_back_the_one_before() -> None:
    found = joined([(0, 9)], quotes((0, 1, 1.0, 1.1), (0, 2, 1.3, 1.2)))
    assert (found.bid[0], found.ask[0]) == (1.3, 1.2)


def test_batches_may_be_cut_anywhere_and_may_be_empty() -> None:
    stream = quotes((0, 1, 1.0, 1.1), (0, 5, 2.0, 2.1), (2, 3, 3.0, 3.1), (2, 4, 4.0, 4.1))
    prints = [(0, 6), (1, 9), (2, 4), (2, 9)]
    whole = joined(prints, stream)
    for a in range(5):
        for b in range(a, 5):
            parts = [Quotes(*(column[i:j] for column in stream)) for i, j in ((0, a), (a, b), (b, 4))]
            for one, other in zip(whole, joined(prints, *parts), strict=True):
                np.testing.assert_array_equal(one, other)


def test_the_quotes_may_come_in_any_number_type() -> None:
    stream = quotes((0, 1, 1.0, 1.5))
    small = Quotes(
        stream.contract.astype(np.uint32),
        stream.ts_ns,
        *(c.astype(np.float32) for c in stream[2:4]),
        *(c.astype(np.int32) for c in stream[4:]),
    )
    found = joined([(0, 2)], small)
    assert (found.bid[0], found.ask[0], found.bid_size[0], found.ask_size[0]) == (1.0, 1.5, 10.0, 20.0)


def test_without_quotes_and_without_prints() -> None:
    assert np.isnan(joined([(0, 1)]).bid).all()
    assert joined([], quotes((0, 1, 1.0, 1.1))).bid.size == 0


def test_what_is_out_of_order_is_refused() -> None:
    good = quotes((0, 1, 1.0, 1.1), (1, 1, 1.0, 1.1))
    with pytest.raises(ValueError, match="print 1 lies before"):
        joined([(1, 1), (0, 2)], good)
    with pytest.raises(ValueError, match="print 1 lies before"):
        joined([(0, 2), (0, 1)], good)
    with pytest.raises(ValueError, match="quote 1 lies before"):
        joined([(0, 1)], quotes((0, 2, 1.0, 1.1), (0, 1, 1.0, 1.1)))
    with pytest.raises(ValueError, match="begins before the end"):
        joined([(0, 1)], good, quotes((0, 9, 1.0, 1.1)))


def test_prints_without_any_quotes() -> None:
    times = np.array([5, 5, 9], dtype=np.int64)
    asked = nbbo.as_of(np.array([0, 1, 1], dtype=np.int64), times, [], max_age_ns=HOUR)
    for found, expected in zip(nbbo.unquoted(3), asked, strict=True):
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype


def test_a_real_file_of_quotes(real_data: Path) -> None:
    path = next((real_data / "us_options_opra" / "quotes_v1").rglob("*.csv.gz"))
    table = pl.read_csv(path).sort("sip_timestamp", "sequence_number")
    ts = table["sip_timestamp"].to_numpy()
    columns = (table[name].to_numpy() for name in ("bid_price", "ask_price", "bid_size", "ask_size"))
    stream = Quotes(np.zeros(table.height, dtype=np.int64), ts, *columns)
    moments = np.sort(np.concatenate([ts, ts + 1, ts[:-1] + np.diff(ts) // 2, [ts[0] - 1, ts[-1] + HOUR]]))
    found = nbbo.as_of(np.zeros(moments.size, dtype=np.int64), moments, [stream], max_age_ns=60 * SECOND)
    bids = table["bid_price"].to_numpy()
    for i, moment in enumerate(moments):
        before = np.flatnonzero(ts < moment)
        if before.size and moment - ts[before[-1]] <= 60 * SECOND:
            assert found.bid[i] == bids[before[-1]]
        else:
            assert np.isnan(found.bid[i])
    assert np.isnan(found.bid[0])
    assert found.is_stale[-1]
    assert (found.ask > found.bid)[~np.isnan(found.bid)].all()
