"""Step `option_iv` on small sessions whose answers are known."""

from __future__ import annotations

import math
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from flowlake.core import sessions
from flowlake.datasets import curated
from flowlake.datasets.factors import OPTION_IV
from flowlake.datasets.model import Dataset
from flowlake.factors.option_iv import option_iv
from flowlake.quant import european

T = date(2024, 3, 13)
CLOSE = sessions.close_utc(T)
EXPIRY = date(2024, 4, 12)  # 30 days out


def table(dataset: Dataset, rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=dataset.polars_schema()).with_columns(session=pl.lit(T))


def leg(right: str, strike: float, expiry: date = EXPIRY, root: str = "XYZ") -> dict[str, Any]:
    symbol = f"{root}{expiry:%y%m%d}{right}{round(strike * 1000):08d}"
    return {
        "contract": symbol, "underlying": "XYZ", "root": root, "expiry": expiry, "right": right, "strike": strike
    }  # fmt: skip


def master(*legs: dict[str, Any], **terms: Any) -> pl.DataFrame:
    rows = [
        {
            "multiplier": 100.0,
            "exercise": "european",
            "settlement": "pm",
            "is_adjusted": False,
            "expires_utc": sessions.close_utc(T) + (each["expiry"] - T),
            **each,
            **terms,
        }
        for each in legs
    ]
    return table(curated.CONTRACTS, rows)


def quote(each: dict[str, Any], bid: float | None, ask: float | None, **more: Any) -> dict[str, Any]:
    return {**each, "ts_utc": CLOSE, "bid": bid, "ask": ask, "source": "house", **more}


def trade(each: dict[str, Any], price: float, moment: datetime, **more: Any) -> dict[str, Any]:
    flags = {"in_volume": True, "sets_price": True, "is_late": False, "is_cancelled": False}
    return {**each, "ts_utc": moment, "price": price, "size": 1, **flags, **more}


def bar(each: dict[str, Any], close: float, moment: datetime, **more: Any) -> dict[str, Any]:
    return {**each, "ts_utc": moment, "open": close, "high": close, "low": close, "close": close, "volume": 1, **more}


def stock(close: float, moment: datetime, *, is_regular: bool = True) -> dict[str, Any]:
    return bar({"underlying": "XYZ"}, close, moment, is_regular=is_regular)


def run(**inputs: pl.DataFrame) -> dict[str, dict[str, Any]]:
    out = OPTION_IV.conform(option_iv(inputs, T).tables["option_iv"], T)
    return {row["contract"]: row for row in out.rows(named=True)}


def by_parity(forward: float, vol: float, years: float, discount: float = 1.0) -> list[dict[str, Any]]:
    """Quotes a cent wide around exact prices at five strikes."""
    rows = []
    for strike in (90.0, 95.0, 100.0, 105.0, 110.0):
        for right in ("C", "P"):
            mid = float(european.price(forward, strike, years, vol, 1 if right == "C" else -1, discount))
            rows.append(quote(leg(right, strike), mid - 0.005, mid + 0.005, spot=99.0))
    return rows


def test_quotes_give_their_own_forward_and_volatility() -> None:
    quotes = by_parity(forward=101.0, vol=0.2, years=30 / 365)
    found = run(
        contracts=master(*({k: q[k] for k in leg("C", 1)} for q in quotes)),
        option_quotes_eod=table(curated.OPTION_QUOTES_EOD, quotes),
    )
    assert len(found) == 10
    for row in found.values():
        assert row["quality"] == "ok"
        assert row["iv"] == pytest.approx(0.2, abs=1e-9)
        assert row["forward"] == pytest.approx(101.0, abs=1e-9)
        assert row["years"] == pytest.approx(30 / 365, rel=1e-12)
        assert (row["price_source"], row["forward_source"], row["rate_source"]) == ("quote_mid", "parity", "none")
        assert (row["spot"], row["spot_source"]) == (99.0, "vendor_snapshot")
        assert row["volume"] is None


def test_the_spot_follows_from_parity_where_the_quotes_have_none() -> None:
    quotes = [{**q, "spot": None} for q in by_parity(forward=101.0, vol=0.2, years=30 / 365)]
    found = run(
        contracts=master(*({k: q[k] for k in leg("C", 1)} for q in quotes)),
        option_quotes_eod=table(curated.OPTION_QUOTES_EOD, quotes),
    )
    assert {(row["spot_source"], round(row["spot"], 9)) for row in found.values()} == {("parity_forward", 101.0)}


def test_the_median_of_the_last_moment_is_the_price_and_late_or_cancelled_prints_are_not() -> None:
    call = leg("C", 100.0)
    last = CLOSE - timedelta(minutes=10)
    prints = [
        trade(call, 9.0, last - timedelta(seconds=1)),
        trade(call, 3.0, last),
        trade(call, 3.4, last),
        trade(call, 3.1, last),
        trade(call, 7.0, last + timedelta(seconds=1), is_late=True),
        trade(call, 7.0, last + timedelta(seconds=2), is_cancelled=True, in_volume=True),
        trade(call, 7.0, last + timedelta(seconds=3), sets_price=False),
    ]
    row = run(
        contracts=master(call),
        option_trades=table(curated.OPTION_TRADES, prints),
        option_bars_1m=table(curated.OPTION_BARS_1M, [bar(call, 8.0, CLOSE - timedelta(minutes=1))]),
        equity_bars_1m=table(curated.EQUITY_BARS_1M, [stock(100.0, last - timedelta(minutes=1))]),
    )[call["contract"]]
    assert (row["price"], row["price_source"]) == (3.1, "trade")
    assert row["ts_utc"] == last
    assert row["volume"] == 6, "the cancelled print does not count"
    assert row["iv"] == pytest.approx(float(european.implied_vol(3.1, 100.0, 100.0, row["years"], 1)), abs=1e-12)


def test_a_minute_bar_stands_at_its_end_and_meets_the_stock_bar_that_ended_then() -> None:
    call, start = leg("C", 100.0), CLOSE - timedelta(minutes=30)
    stocks = [stock(100.0, start - timedelta(minutes=1)), stock(101.0, start), stock(150.0, start + timedelta(minutes=1))]
    row = run(
        contracts=master(call),
        option_bars_1m=table(curated.OPTION_BARS_1M, [bar(call, 5.0, start - timedelta(hours=1)), bar(call, 3.0, start)]),
        equity_bars_1m=table(curated.EQUITY_BARS_1M, stocks),
    )[call["contract"]]
    assert (row["price"], row["price_source"], row["ts_utc"]) == (3.0, "minute_bar", start + timedelta(minutes=1))
    assert (row["spot"], row["spot_source"], row["forward_source"]) == (101.0, "equity_bars_1m", "spot_carry")


def test_a_stock_bar_that_is_too_old_is_no_spot() -> None:
    call, start = leg("C", 100.0), CLOSE - timedelta(minutes=30)
    row = run(
        contracts=master(call),
        option_bars_1m=table(curated.OPTION_BARS_1M, [bar(call, 3.0, start)]),
        equity_bars_1m=table(curated.EQUITY_BARS_1M, [stock(100.0, start - timedelta(minutes=16))]),
        equity_bars_1d=table(curated.EQUITY_BARS_1D, [stock(100.0, CLOSE)]),
    )[call["contract"]]
    assert (row["spot"], row["iv"], row["quality"]) == (None, None, "no_spot")


def test_a_day_bar_stands_at_the_close_and_meets_the_days_close() -> None:
    call = leg("C", 100.0)
    row = run(
        contracts=master(call),
        option_bars_1d=table(curated.OPTION_BARS_1D, [{**bar(call, 3.0, CLOSE), "volume": 7}]),
        equity_bars_1d=table(curated.EQUITY_BARS_1D, [stock(100.0, CLOSE)]),
    )[call["contract"]]
    assert (row["price_source"], row["spot_source"], row["ts_utc"], row["volume"]) == ("day_bar", "equity_bars_1d", CLOSE, 7)


def test_carry_takes_off_known_dividends_and_adds_interest() -> None:
    call = leg("C", 100.0)
    ex_date = T + timedelta(days=10)
    actions = [
        {"underlying": "XYZ", "ex_date": ex_date, "kind": "cash_dividend", "cash_amount_usd": 2.0},
        {"underlying": "XYZ", "ex_date": ex_date, "kind": "special_dividend", "cash_amount_usd": 5.0},
        {"underlying": "XYZ", "ex_date": T, "kind": "cash_dividend", "cash_amount_usd": 3.0},
        {"underlying": "XYZ", "ex_date": EXPIRY + timedelta(days=1), "kind": "cash_dividend", "cash_amount_usd": 3.0},
    ]
    curve = [{"tenor_days": 10, "rate": 0.04}, {"tenor_days": 50, "rate": 0.06}]
    row = run(
        contracts=master(call),
        option_bars_1d=table(curated.OPTION_BARS_1D, [bar(call, 3.0, CLOSE)]),
        equity_bars_1d=table(curated.EQUITY_BARS_1D, [stock(100.0, CLOSE)]),
        corporate_actions=table(curated.CORPORATE_ACTIONS, actions),
        rates=table(curated.RATES, curve),
    )[call["contract"]]
    discount = math.exp(-0.05 * 30 / 365)  # 30 days lie half way between the tenors
    assert row["discount"] == pytest.approx(discount, rel=1e-12)
    assert row["forward"] == pytest.approx((100.0 - 2.0 * math.exp(-0.04 * 10 / 365)) / discount, rel=1e-12)
    assert row["rate_source"] == "rates"


def test_options_alone_give_spot_and_forward_by_parity() -> None:
    """Calls and puts of five strikes trade in each of four minutes while the underlying rises; there is no stock file."""
    legs = [leg(right, strike) for strike in (98.0, 99.0, 100.0, 101.0, 102.0) for right in ("C", "P")]
    bars = []
    for minute in range(4):
        start = CLOSE - timedelta(minutes=10 - minute)
        spot, years = 100.0 + minute, (30 + (9 - minute) / 1440) / 365
        for each in legs:
            sign = 1 if each["right"] == "C" else -1
            bars.append(bar(each, float(european.price(spot, each["strike"], years, 0.25, sign)), start))
    found = run(contracts=master(*legs), option_bars_1m=table(curated.OPTION_BARS_1M, bars))
    for row in found.values():
        assert (row["spot_source"], row["forward_source"], row["quality"]) == ("parity_forward", "parity", "ok")
        assert row["spot"] == pytest.approx(103.0, abs=1e-9)
        assert row["iv"] == pytest.approx(0.25, abs=1e-8)


@pytest.mark.parametrize(
    ("right", "strike", "price", "terms", "quality"),
    [
        ("C", 100.0, 3.0, {}, "ok"),
        ("C", 90.0, 9.0, {}, "below_intrinsic"),
        ("C", 100.0, 101.0, {}, "above_maximum"),
        ("C", 100.0, 3.0, {"is_adjusted": True}, "adjusted_deliverable"),
        ("C", 100.0, 3.0, {"expires_utc": CLOSE}, "expired"),
        ("P", 120.0, 20.0, {"exercise": "american"}, "american_early_exercise"),
        ("P", 120.0, 19.0, {"exercise": "american"}, "below_intrinsic"),
        ("P", 120.0, 20.1, {"exercise": "american"}, "ok"),
        ("P", 120.0, 20.1, {"exercise": "european"}, "ok"),
        ("P", 90.0, 0.5, {"exercise": "american"}, "ok"),
    ],
)
def test_a_volatility_is_given_or_its_absence_explained(
    right: str, strike: float, price: float, terms: dict[str, Any], quality: str
) -> None:
    each = leg(right, strike)
    row = run(
        contracts=master(each, **terms),
        option_bars_1d=table(curated.OPTION_BARS_1D, [bar(each, price, CLOSE)]),
        equity_bars_1d=table(curated.EQUITY_BARS_1D, [stock(100.0, CLOSE)]),
        rates=table(curated.RATES, [{"tenor_days": 1, "rate": 0.05}]),
    )[each["contract"]]
    assert row["quality"] == quality
    assert [row[name] is None for name in ("iv", "delta", "gamma", "vega", "theta")] == [quality != "ok"] * 5


@pytest.mark.parametrize(
    ("bid", "ask", "quality"),
    [(None, 1.0, "one_sided"), (1.0, None, "one_sided"), (1.2, 1.0, "crossed"), (1.0, 3.0, "wide_quote")],
)
def test_a_bad_quote_holds_no_price_but_a_trade_may(bid: float | None, ask: float | None, quality: str) -> None:
    each = leg("C", 100.0)
    quotes = table(curated.OPTION_QUOTES_EOD, [quote(each, bid, ask, spot=100.0)])
    row = run(contracts=master(each), option_quotes_eod=quotes)[each["contract"]]
    assert (row["price"], row["quality"]) == (None, quality)
    traded = run(
        contracts=master(each),
        option_quotes_eod=quotes,
        option_bars_1d=table(curated.OPTION_BARS_1D, [bar(each, 3.0, CLOSE)]),
        equity_bars_1d=table(curated.EQUITY_BARS_1D, [stock(100.0, CLOSE)]),
    )[each["contract"]]
    assert (traded["price_source"], traded["quality"]) == ("day_bar", "ok")


def test_morning_and_evening_roots_of_one_date_keep_their_own_forwards() -> None:
    morning = [leg(right, strike, root="XYZ") for strike in (99.0, 100.0, 101.0) for right in ("C", "P")]
    evening = [leg(right, strike, root="XYZW") for strike in (99.0, 100.0, 101.0) for right in ("C", "P")]
    rows = []
    for legs, forward in ((morning, 100.0), (evening, 100.5)):
        for each in legs:
            mid = float(european.price(forward, each["strike"], 30 / 365, 0.2, 1 if each["right"] == "C" else -1))
            rows.append(quote(each, mid, mid, spot=100.0))
    found = run(contracts=master(*morning, *evening), option_quotes_eod=table(curated.OPTION_QUOTES_EOD, rows))
    assert {(row["root"], round(row["forward"], 9)) for row in found.values()} == {("XYZ", 100.0), ("XYZW", 100.5)}


def test_a_contract_without_any_price_keeps_its_row() -> None:
    row = run(contracts=master(leg("C", 100.0)))[leg("C", 100.0)["contract"]]
    assert (row["price"], row["price_source"], row["years"], row["quality"]) == (None, None, None, "no_price")
