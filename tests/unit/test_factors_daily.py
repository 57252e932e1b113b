"""Step `daily_factors` on small sessions computed by hand."""

from __future__ import annotations

import math
from datetime import date, timedelta
from typing import Any

import polars as pl
import pytest

from flowlake.core import sessions
from flowlake.datasets import curated
from flowlake.datasets.factors import DAILY_FACTORS, OPTION_IV
from flowlake.datasets.model import Dataset
from flowlake.factors.daily import daily_factors
from flowlake.quant import european

T = date(2024, 3, 13)
CLOSE = sessions.close_utc(T)


def table(dataset: Dataset, rows: list[dict[str, Any]], session: date = T) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=dataset.polars_schema()).with_columns(session=pl.lit(session))


def leg(right: str, strike: float, days: int = 10) -> dict[str, Any]:
    expiry = T + timedelta(days=days)
    symbol = f"XYZ{expiry:%y%m%d}{right}{round(strike * 1000):08d}"
    return {
        "contract": symbol, "underlying": "XYZ", "root": "XYZ", "expiry": expiry, "right": right, "strike": strike
    }  # fmt: skip


def master(*legs: dict[str, Any]) -> pl.DataFrame:
    terms = {"multiplier": 100.0, "exercise": "european", "settlement": "pm", "is_adjusted": False}
    return table(curated.CONTRACTS, [{**terms, "expires_utc": CLOSE + (each["expiry"] - T), **each} for each in legs])


def implied(*rows: dict[str, Any]) -> pl.DataFrame:
    """Rows of `option_iv` at the close, spot and forward 100."""
    base = {"ts_utc": CLOSE, "spot": 100.0, "spot_source": "equity_bars_1m", "forward": 100.0, "discount": 1.0}
    return table(OPTION_IV, [{**base, "quality": "ok" if row.get("iv") else "no_price", **row} for row in rows])


def trade(each: dict[str, Any], size: int, price: float, **more: Any) -> dict[str, Any]:
    names = [column.name for column in curated.OPTION_TRADES.columns if column.dtype == pl.Boolean()]
    flags = dict.fromkeys(names, False) | {"in_volume": True, "sets_price": True}
    money = {"price": price, "size": size, "premium_usd": round(price * size * 100, 4)}
    return {**each, "ts_utc": CLOSE - timedelta(hours=1), **money, **flags, **more}


def stock(close: float = 100.0, volume: float = 10_000.0) -> pl.DataFrame:
    prices = dict.fromkeys(("open", "high", "low", "close"), close)
    return table(curated.EQUITY_BARS_1D, [{"underlying": "XYZ", "volume": volume, **prices}])


def interest(each: dict[str, Any], count: int, oi_session: date = T, source: str = "house") -> dict[str, Any]:
    return {**each, "oi_session": oi_session, "open_interest_close": count, "source": source}


def run(**inputs: pl.DataFrame) -> dict[str, Any]:
    (row,) = DAILY_FACTORS.conform(daily_factors(inputs, T).tables["daily_factors"], T).rows(named=True)
    return row


CALL, PUT, FAR = leg("C", 105.0), leg("P", 95.0), leg("C", 101.0)
LEGS = (CALL, PUT, FAR)
PRINTS = [
    trade(CALL, 10, 1.25, is_iso=True),
    trade(CALL, 5, 1.0, is_multi_leg=True, is_auction=True),
    trade(PUT, 20, 0.5, is_auction=True),
    trade(FAR, 5, 2.5, is_stock_tied=True),
    trade(PUT, 1_000, 9.0, is_cancelled=True),
    trade(PUT, 1_000, 9.0, in_volume=False),
]


def test_flow_of_trades_by_hand() -> None:
    row = run(
        contracts=master(*LEGS), option_iv=implied(*LEGS), option_trades=table(curated.OPTION_TRADES, PRINTS),
        equity_bars_1d=stock(),
    )  # fmt: skip
    expected = {
        "option_volume": 40,
        "call_volume": 20,
        "put_volume": 20,
        "option_trade_count": 4,
        "premium_usd": 1250 + 500 + 1000 + 1250.0,
        "call_premium_usd": 3000.0,
        "put_premium_usd": 1000.0,
        "put_call_volume_ratio": 1.0,
        "option_to_stock_volume": 40 * 100 / 10_000,
        "stock_volume": 10_000.0,
        "otm_short_call_volume": 15,
        "otm_short_put_volume": 20,
        "otm_short_call_premium_usd": 1750.0,
        "otm_short_put_premium_usd": 1000.0,
        "iso_share": 0.25,
        "multi_leg_share": 0.25,
        "auction_share": 0.5,
        "largest_print_premium_usd": 1250.0,
        "contracts_traded": 3,
        "spot_close": 100.0,
        "spot_source": "equity_bars_1d",
    }
    assert {name: row[name] for name in expected} == expected


SWEEP = {"is_iso": True, "may_be_signed": True}


def both_interests(**changes: tuple[dict[str, Any], int | None, int]) -> pl.DataFrame:
    """Open interest of the session before (None: not listed yet) and of this one, per name of a contract."""
    yesterday = sessions.previous_session(T)
    before = [interest(each, count, yesterday) for each, count, _ in changes.values() if count is not None]
    after = [interest(each, count) for each, _, count in changes.values()]
    return pl.concat([table(curated.OPEN_INTEREST, after), table(curated.OPEN_INTEREST, before, yesterday)])


def sweeps_of(prints: list[dict[str, Any]], open_interest: pl.DataFrame | None = None) -> dict[str, Any]:
    legs = list({each["contract"]: {k: each[k] for k in CALL} for each in prints}.values())
    more = {} if open_interest is None else {"open_interest": open_interest}
    return run(contracts=master(*legs), option_iv=implied(*legs), option_trades=table(curated.OPTION_TRADES, prints), **more)


def test_sweeps_by_hand() -> None:
    second, late = leg("C", 110.0, 45), leg("C", 110.0, 46)
    prints = [
        trade(CALL, 30, 1.0, **SWEEP),
        trade(CALL, 20, 1.0, **SWEEP),
        trade(CALL, 500, 1.0, may_be_signed=True),  # no sweep
        trade(CALL, 500, 1.0, is_iso=True),  # a sweep that is part of a package, or late
        trade(CALL, 500, 1.0, **SWEEP, is_cancelled=True),
        trade(second, 60, 1.0, **SWEEP),
        trade(late, 900, 1.0, **SWEEP),  # expires too late
        trade(FAR, 900, 1.0, **SWEEP),  # not out of the money by enough
        trade(PUT, 7, 1.0, **SWEEP),
    ]
    row = sweeps_of(prints)
    assert (row["swept_otm_call_volume"], row["swept_otm_put_volume"], row["largest_contract_sweep_volume"]) == (110, 7, 60)
    assert (row["swept_opening_call_volume"], row["swept_opening_put_volume"]) == (None, None)
    assert any(text.startswith("swept_opening_call_volume: open interest") for text in row["not_available"])
    opened = both_interests(a=(CALL, 100, 140), b=(second, 80, 20), c=(PUT, None, 5), d=(FAR, 0, 900))
    row = sweeps_of(prints, opened)
    assert (row["swept_opening_call_volume"], row["swept_opening_put_volume"]) == (40, 5), "lesser of the two; a fall is no rise"


def test_a_rise_of_open_interest_beyond_the_volume_is_not_believed() -> None:
    prints = [trade(CALL, 30, 1.0, **SWEEP), trade(PUT, 30, 1.0, **SWEEP)]
    row = sweeps_of(prints, both_interests(a=(CALL, None, 31), b=(PUT, 0, 30)))
    assert (row["swept_opening_call_volume"], row["swept_opening_put_volume"]) == (0, 30)


def event(kind: str, ex_date: date, underlying: str = "XYZ", new_symbol: str | None = None) -> pl.DataFrame:
    ratio = 2.0 if kind == "split" else None
    row = {"underlying": underlying, "ex_date": ex_date, "kind": kind, "ratio": ratio, "new_symbol": new_symbol}
    return table(curated.CORPORATE_ACTIONS, [row])


@pytest.mark.parametrize(
    ("actions", "comparable"),
    [
        (event("split", T), False),
        (event("split", T, "OLD"), True),
        (event("split", sessions.previous_session(T)), True),
        (event("split", sessions.next_session(T)), True),
        (event("cash_dividend", T), True),
        (event("symbol_change", T, "OLD", "XYZ"), False),
        (event("symbol_change", T, "XYZ", "NEW"), False),
    ],
)
def test_contracts_that_were_renamed_between_the_reports_are_not_compared(actions: pl.DataFrame, comparable: bool) -> None:
    """After a split the text of an old contract names another one: 140 would be compared with the 100 of that other."""
    prints = table(curated.OPTION_TRADES, [trade(CALL, 50, 1.0, **SWEEP)])
    held = both_interests(a=(CALL, 100, 140))
    row = run(
        contracts=master(CALL), option_iv=implied(CALL), option_trades=prints, open_interest=held, corporate_actions=actions
    )  # fmt: skip
    assert row["swept_otm_call_volume"] == 50
    assert row["swept_opening_call_volume"] == (40 if comparable else None)
    assert (row["open_interest_close"], row["open_interest_open"]) == (140, 100)
    reasons = [text for text in row["not_available"] if text.startswith("swept_opening_call_volume: ")]
    assert len(reasons) == (0 if comparable else 1)
    assert comparable or "a split or change of symbol lies between them" in reasons[0]


def test_sessions_without_sweeps_have_none_and_bars_know_nothing_of_sweeps() -> None:
    names = ("swept_otm_call_volume", "swept_otm_put_volume", "largest_contract_sweep_volume")
    quiet = sweeps_of([trade(CALL, 5, 1.0)])
    assert [quiet[name] for name in names] == [0, 0, 0]
    bar = {**CALL, "open": 1.0, "high": 1.0, "low": 1.0, "close": 1.0, "volume": 3}
    row = run(contracts=master(CALL), option_iv=implied(CALL), option_bars_1d=table(curated.OPTION_BARS_1D, [bar]))
    for name in (*names, "swept_opening_call_volume", "swept_opening_put_volume"):
        assert row[name] is None
        assert f"{name}: needs option_trades" in row["not_available"]


def test_a_sweep_without_a_spot_is_not_placed() -> None:
    prints = table(curated.OPTION_TRADES, [trade(CALL, 5, 1.0, **SWEEP)])
    row = run(contracts=master(CALL), option_iv=implied({**CALL, "spot": None, "spot_source": None}), option_trades=prints)
    assert (row["swept_otm_call_volume"], row["largest_contract_sweep_volume"]) == (None, None)
    assert "swept_otm_call_volume: a traded contract has no spot" in row["not_available"]


def test_money_is_exact_where_a_sum_of_floats_is_not() -> None:
    prints = [trade(CALL, 1, 0.001, premium_usd=0.1) for _ in range(10)]
    assert sum(each["premium_usd"] for each in prints) != 1.0
    row = run(contracts=master(CALL), option_iv=implied(CALL), option_trades=table(curated.OPTION_TRADES, prints))
    assert row["premium_usd"] == 1.0


@pytest.mark.parametrize(
    ("right", "strike", "days", "counts"),
    [
        ("C", 100 * math.exp(0.0201), 21, True),
        ("C", 100 * math.exp(0.0199), 21, False),
        ("P", 100 * math.exp(-0.0201), 0, True),
        ("P", 100 * math.exp(-0.0199), 0, False),
        ("C", 110.0, 22, False),
        ("P", 110.0, 5, False),
    ],
)
def test_short_and_out_of_the_money(right: str, strike: float, days: int, counts: bool) -> None:
    each = leg(right, strike, days)
    prints = table(curated.OPTION_TRADES, [trade(each, 3, 1.0)])
    row = run(contracts=master(each), option_iv=implied(each), option_trades=prints)
    side = "call" if right == "C" else "put"
    assert row[f"otm_short_{side}_volume"] == (3 if counts else 0)
    assert row[f"otm_short_{side}_premium_usd"] == (300.0 if counts else 0.0)


def test_without_trades_bars_stand_in_and_say_so() -> None:
    flat = {"open": 1.0, "high": 1.0, "low": 1.0}
    minute = [
        {**CALL, **flat, "close": 1.0, "volume": 3, "ts_utc": CLOSE - timedelta(minutes=5)},
        {**CALL, **flat, "close": 2.0, "volume": 1, "ts_utc": CLOSE - timedelta(minutes=4)},
    ]
    day = [{**CALL, **flat, "close": 2.0, "volume": 4}]
    row = run(
        contracts=master(*LEGS), option_iv=implied(*LEGS), option_bars_1m=table(curated.OPTION_BARS_1M, minute),
        option_bars_1d=table(curated.OPTION_BARS_1D, day),
    )  # fmt: skip
    assert (row["option_volume"], row["premium_usd"], row["contracts_traded"]) == (4, 500.0, 1)
    assert (row["iso_share"], row["option_trade_count"], row["put_call_volume_ratio"]) == (None, None, 0.0)
    assert "iso_share: needs option_trades" in row["not_available"]
    assert "option_trade_count: the bars do not count transactions" in row["not_available"]
    assert "stock_volume: needs equity_bars_1d or equity_bars_1m" in row["not_available"]
    assert row["not_available"] == sorted(row["not_available"])


def test_quotes_alone_give_no_volume_rather_than_zero() -> None:
    row = run(contracts=master(*LEGS), option_iv=implied(*LEGS))
    assert row["option_volume"] is None
    assert row["premium_usd"] is None
    assert row["contracts_traded"] is None


def test_every_null_factor_has_a_reason_and_no_other_has_one() -> None:
    row = run(contracts=master(*LEGS), option_iv=implied(*LEGS))
    named = {text.split(":")[0] for text in row["not_available"]}
    labels = {"not_available", "spot_source", "gamma_exposure_oi"}
    assert named == {name for name in DAILY_FACTORS.column_names if row[name] is None and name not in labels}


def smile(days: int, vol: float, put_extra: float = 0.0) -> list[dict[str, Any]]:
    """Five strikes a side; out-of-the-money puts carry `put_extra` more volatility per unit of log-strike."""
    rows = []
    for step in range(-5, 6):
        strike = 100 * math.exp(0.03 * step)
        right = "C" if step >= 0 else "P"
        rows.append({**leg(right, strike, days), "iv": vol + (put_extra * 0.03 * -step if step < 0 else 0.0)})
    return rows


def volatility(*smiles: list[dict[str, Any]]) -> dict[str, Any]:
    rows = [row for each in smiles for row in each]
    return run(contracts=master(*({k: r[k] for k in CALL} for r in rows)), option_iv=implied(*rows))


def test_constant_maturity_is_linear_in_total_variance() -> None:
    row = volatility(smile(20, 0.2), smile(40, 0.3))
    assert row["atm_iv_30d"] == pytest.approx(math.sqrt((0.2**2 * 20 + 0.3**2 * 40) / 2 / 30), rel=1e-12)
    assert row["skew_25d"] == pytest.approx(0.0, abs=1e-12)


def test_one_expiry_stands_for_thirty_days_only_when_near() -> None:
    assert volatility(smile(26, 0.2))["atm_iv_30d"] == pytest.approx(0.2, rel=1e-12)
    far = volatility(smile(20, 0.2))
    assert far["atm_iv_30d"] is None
    assert "atm_iv_30d: no smiles around 30 days" in far["not_available"]
    assert volatility(smile(3, 0.2), smile(100, 0.3))["atm_iv_30d"] is None


def test_skew_is_put_over_call() -> None:
    def volatility_at(k: float) -> float:
        return 0.2 + 0.5 * max(-k, 0.0)

    def d1(k: float) -> float:
        total = volatility_at(k) * math.sqrt(30 / 365)
        return -k / total + total / 2

    low, high = -0.14, 0.0  # the put of delta -0.25 has Phi(d1) = 0.75
    for _ in range(100):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if d1(middle) > 0.6744897501960817 else (low, middle)
    row = volatility(smile(30, 0.2, put_extra=0.5))
    assert row["skew_25d"] == pytest.approx(volatility_at(low) - 0.2, abs=1e-9)


def test_gamma_exposure_by_hand() -> None:
    rows = smile(30, 0.2)
    call, put = leg("C", 103.0, 30), leg("P", 97.0, 30)
    expiring = leg("C", 100.0, 0)
    contracts = master(*({k: r[k] for k in CALL} for r in rows), call, put, expiring)
    reports = [interest(call, 1_000), interest(put, 400), interest(expiring, 9_999)]
    before = [interest(call, 700, sessions.previous_session(T)), interest(put, 500, sessions.previous_session(T))]
    stacked = pl.concat([table(curated.OPEN_INTEREST, reports), table(curated.OPEN_INTEREST, before, sessions.previous_session(T))])
    row = run(contracts=contracts, option_iv=implied(*rows), open_interest=stacked, equity_bars_1d=stock())
    gamma = european.greeks(100.0, [103.0, 97.0], 30 / 365, 0.2, [1, -1], 0.0).gamma
    expected = (gamma[0] * 1_000 - gamma[1] * 400) * 100 * 100.0**2 * 0.01
    assert row["gamma_exposure_usd"] == pytest.approx(expected, rel=1e-9)
    assert row["gamma_exposure_oi"] == "close"
    assert (row["open_interest_close"], row["open_interest_open"]) == (1_400, 1_200)


def test_volume_over_open_interest_leaves_out_what_expires_with_the_session() -> None:
    call, expiring = leg("C", 103.0, 30), leg("C", 100.0, 0)
    before = sessions.previous_session(T)
    held = table(curated.OPEN_INTEREST, [interest(call, 400, before), interest(expiring, 50, before)], before)
    prints = table(curated.OPTION_TRADES, [trade(call, 600, 1.0), trade(expiring, 9_999, 1.0)])
    inputs = {"contracts": master(call, expiring), "option_iv": implied(call), "option_trades": prints}
    assert run(**inputs, open_interest=held)["volume_to_open_interest"] == 1.5
    assert run(**inputs)["volume_to_open_interest"] is None
    nothing = table(curated.OPEN_INTEREST, [interest(call, 0, before)], before)
    assert run(**inputs, open_interest=nothing)["volume_to_open_interest"] is None


def test_traded_gamma_is_gamma_exposure_with_the_volume_in_place_of_open_interest() -> None:
    rows = smile(30, 0.2)
    call, put, expiring = leg("C", 103.0, 30), leg("P", 97.0, 30), leg("C", 100.0, 0)
    contracts = master(*({k: r[k] for k in CALL} for r in rows), call, put, expiring)
    held = table(curated.OPEN_INTEREST, [interest(call, 700), interest(put, 300)])
    prints = table(curated.OPTION_TRADES, [trade(call, 700, 1.0), trade(put, 300, 1.0), trade(expiring, 9_999, 1.0)])
    inputs = {"contracts": contracts, "option_iv": implied(*rows), "equity_bars_1d": stock()}
    row = run(**inputs, open_interest=held, option_trades=prints)
    assert row["gamma_traded_usd"] == row["gamma_exposure_usd"] != 0
    without = run(**inputs, option_trades=prints)
    assert (without["gamma_exposure_usd"], without["gamma_traded_usd"]) == (None, row["gamma_traded_usd"])
    assert run(**inputs, open_interest=held)["gamma_traded_usd"] is None


def test_open_interest_that_is_not_this_sessions_is_not_taken_for_it() -> None:
    rows = smile(30, 0.2)
    call = leg("C", 103.0, 30)
    late = table(curated.OPEN_INTEREST, [interest(call, 5, sessions.next_session(T))])
    opening = table(curated.OPEN_INTEREST, [interest(call, 700, sessions.previous_session(T))])
    contracts = master(*({k: r[k] for k in CALL} for r in rows), call)
    row = run(contracts=contracts, option_iv=implied(*rows), open_interest=pl.concat([late, opening]))
    assert (row["open_interest_close"], row["open_interest_open"], row["gamma_exposure_oi"]) == (None, 700, "open")


def test_a_contract_from_before_a_split_is_not_valued_with_the_volatility_of_its_namesake() -> None:
    """The opening report's 206 call of before a 2:1 split is read as a 103 call; the 206 call of today is another contract."""
    rows = smile(30, 0.2)
    namesake, call = leg("C", 206.0, 30), leg("C", 103.0, 30)
    old = {**namesake, "strike": 103.0}
    contracts = master(*({k: r[k] for k in CALL} for r in rows), namesake, call)
    priced = implied(*rows, {**namesake, "iv": 0.9})

    def gamma(each: dict[str, Any]) -> float:
        opening = table(curated.OPEN_INTEREST, [interest(each, 700, sessions.previous_session(T))])
        found: float = run(contracts=contracts, option_iv=priced, open_interest=opening)["gamma_exposure_usd"]
        return found

    assert gamma(old) == gamma(call) != gamma(namesake)


def test_two_sources_of_open_interest_are_never_added() -> None:
    reports = [interest(CALL, 5, source="a"), interest(CALL, 6, source="b"), interest(PUT, 1, source="b")]
    row = run(contracts=master(*LEGS), option_iv=implied(*LEGS), open_interest=table(curated.OPEN_INTEREST, reports))
    assert row["open_interest_close"] == 7


def test_gamma_exposure_abstains_below_half_of_the_open_interest() -> None:
    rows = smile(30, 0.2)
    near, far = leg("C", 103.0, 30), leg("C", 103.0, 60)
    contracts = master(*({k: r[k] for k in CALL} for r in rows), near, far)
    for count, known in ((100, True), (101, False)):
        reports = table(curated.OPEN_INTEREST, [interest(near, 100), interest(far, count)])
        row = run(contracts=contracts, option_iv=implied(*rows), open_interest=reports)
        assert (row["gamma_exposure_usd"] is not None) == known


def test_the_close_is_the_option_price_nearest_to_it_when_there_is_no_stock_file() -> None:
    rows = [
        {**CALL, "spot": 99.0, "ts_utc": CLOSE - timedelta(minutes=5), "spot_source": "parity_forward"},
        {**PUT, "spot": 98.0, "ts_utc": CLOSE + timedelta(minutes=14), "spot_source": "parity_forward"},
    ]
    row = run(contracts=master(CALL, PUT), option_iv=implied(*rows))
    assert (row["spot_close"], row["spot_source"]) == (99.0, "parity_forward")
    early = [{**CALL, "spot": 99.0, "ts_utc": CLOSE - timedelta(minutes=31)}]
    assert run(contracts=master(CALL), option_iv=implied(*early))["spot_close"] is None
