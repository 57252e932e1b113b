"""Mispricing factors of `daily_factors`: a chain without arbitrage has none, and what is planted is found in its size."""

from __future__ import annotations

import math
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flowlake.core import sessions
from flowlake.curate.contracts import contracts
from flowlake.curate.quotes import option_quotes_eod
from flowlake.datasets import curated
from flowlake.datasets.factors import OPTION_IV
from flowlake.factors.daily import daily_factors
from flowlake.factors.mispricing import CHECKS
from flowlake.factors.option_iv import option_iv
from flowlake.quant import american, european
from unit.test_factors_daily import CALL, CLOSE, T, leg, master, run, stock, table
from unit.test_factors_real import published, raw

RATE = 0.04
SPOT = 100.0
STRIKES = (90.0, 95.0, 100.0, 105.0, 110.0)
DAYS = (10, 30, 60)
HALF_SPREAD = 0.02
COLUMNS = tuple(f"{check}_violation_bps" for check in CHECKS)
DIVIDEND = 1.0

Quote = dict[str, Any]


def chain(exercise: str = "american", days: tuple[int, ...] = DAYS, dividend: float = 0.0) -> list[Quote]:
    """Quotes around exact prices at a volatility of 0.2; a dividend goes ex in 20 days."""
    quotes = []
    for day in days:
        years = day / 365
        discount = math.exp(-RATE * years)
        paid = ([20 / 365], [dividend])
        held = SPOT - (dividend * math.exp(-RATE * 20 / 365) if day >= 20 else 0.0)
        for strike in STRIKES:
            for right, side in (("C", 1), ("P", -1)):
                if exercise == "american":
                    mid = float(american.price(SPOT, strike, years, 0.2, side, RATE, 0.0, *paid))
                else:
                    mid = float(european.price(held / discount, strike, years, 0.2, side, discount))
                price = {"bid": max(mid - HALF_SPREAD, 0.0) or None, "ask": mid + HALF_SPREAD, "source": "house"}
                quotes.append(
                    {**leg(right, strike, day), "ts_utc": CLOSE, "exercise": exercise, "forward": held / discount, **price}
                )
    return quotes


def funding(days: int, financed: float) -> float:
    """What half a per cent a year takes off a parity severity."""
    return 0.005 * days / 365 * math.exp(-RATE * days / 365) * financed


def at(quotes: list[Quote], right: str, strike: float, days: int) -> Quote:
    (one,) = [q for q in quotes if (q["right"], q["strike"], (q["expiry"] - T).days) == (right, strike, days)]
    return one


def moved(quotes: list[Quote], right: str, strike: float, days: int, **to: Any) -> list[Quote]:
    one = at(quotes, right, strike, days)
    return [{**q, **to} if q is one else q for q in quotes]


def found(quotes: list[Quote], dividend: float = 0.0, **more: Any) -> dict[str, Any]:
    legs = {q["contract"]: {name: q[name] for name in (*CALL, "exercise")} | q.get("terms", {}) for q in quotes}
    implied = [{**{name: q[name] for name in CALL}, "forward": q.get("forward"), "quality": "no_price"} for q in quotes]
    columns = [name for name in curated.OPTION_QUOTES_EOD.polars_schema() if name != "known_at_utc"]
    inputs = {
        "contracts": master(*legs.values()),
        "option_iv": table(OPTION_IV, implied).unique("contract", maintain_order=True),
        "option_quotes_eod": table(curated.OPTION_QUOTES_EOD, [{k: v for k, v in q.items() if k in columns} for q in quotes]),
        "equity_bars_1d": stock(SPOT),
        "rates": table(curated.RATES, [{"tenor_days": 30, "rate": RATE}]),
    }
    if dividend:
        paid = {"underlying": "XYZ", "ex_date": T + timedelta(days=20), "kind": "cash_dividend", "cash_amount_usd": dividend}
        inputs["corporate_actions"] = table(curated.CORPORATE_ACTIONS, [paid])
    return run(**(inputs | more))


def severities(row: dict[str, Any]) -> dict[str, float]:
    """Those above zero, in dollars per share."""
    return {check: row[name] * SPOT / 1e4 for check, name in zip(CHECKS, COLUMNS, strict=True) if row[name]}


@pytest.mark.parametrize("exercise", ["american", "european"])
@pytest.mark.parametrize("dividend", [0.0, DIVIDEND])
def test_a_chain_without_arbitrage_has_no_violation(exercise: str, dividend: float) -> None:
    row = found(chain(exercise, dividend=dividend), dividend)
    assert [row[name] for name in COLUMNS] == [0.0] * 4
    assert row["violations"] == 0
    assert not {text.split(":")[0] for text in row["not_available"]} & {*COLUMNS, "violations"}


def test_a_call_dearer_than_the_lower_strike_is_a_vertical_and_a_butterfly() -> None:
    quotes = chain(days=(30,))
    low, high = at(quotes, "C", 100.0, 30), at(quotes, "C", 110.0, 30)
    bid = low["ask"] + 0.3
    row = found(moved(quotes, "C", 105.0, 30, bid=bid, ask=bid + 0.04))
    found_usd = severities(row)
    assert found_usd["vertical"] == pytest.approx(0.3, rel=1e-9)
    assert found_usd["butterfly"] == pytest.approx(bid - 0.5 * low["ask"] - 0.5 * high["ask"], rel=1e-9)
    # The vertical, the butterfly, and against its put: S - K D is what the call may exceed it by.
    put = at(quotes, "P", 105.0, 30)
    bound = SPOT - 105.0 * math.exp(-RATE * 30 / 365) + funding(30, 105.0)
    assert found_usd["parity"] == pytest.approx(bid - put["ask"] - bound, rel=1e-9)
    assert row["violations"] == 3


def test_a_spread_dearer_than_its_width_discounts_european_strikes_only() -> None:
    wide = {}
    for exercise in ("american", "european"):
        quotes = chain(exercise, days=(60,))
        ask = at(quotes, "C", 95.0, 60)["ask"]
        bid = ask + 5.01
        row = found(moved(quotes, "C", 90.0, 60, bid=bid, ask=bid + 0.04))
        wide[exercise] = severities(row)["vertical"]
    discounted = 5.0 * math.exp(-RATE * 60 / 365)
    assert wide["american"] == pytest.approx(0.01, rel=1e-6)
    assert wide["european"] == pytest.approx(5.01 - discounted, rel=1e-6)


def test_puts_rise_with_the_strike() -> None:
    quotes = chain(days=(30,))
    dear = at(quotes, "P", 100.0, 30)["ask"] + 0.1
    row = found(moved(quotes, "P", 95.0, 30, bid=dear, ask=dear + 0.04))
    assert severities(row)["vertical"] == pytest.approx(0.1, rel=1e-9)


def test_a_later_american_option_is_worth_no_less() -> None:
    quotes = chain()
    bid = at(quotes, "P", 100.0, 60)["ask"] + 0.25
    row = found(moved(quotes, "P", 100.0, 30, bid=bid, ask=bid + 0.04))
    assert severities(row)["calendar"] == pytest.approx(0.25, rel=1e-9)


def test_a_later_european_option_is_worth_no_less_at_its_moneyness() -> None:
    quotes = chain("european")
    # Of the near put at 100 the covering far ones lie at 100 F2/F1 and above: 105 is the nearest that trades.
    near, far = at(quotes, "P", 100.0, 30), at(quotes, "P", 105.0, 60)
    ratio = math.exp(-RATE * 30 / 365) * near["forward"] / (math.exp(-RATE * 60 / 365) * far["forward"])
    bid = ratio * far["ask"] + 0.4
    row = found(moved(quotes, "P", 100.0, 30, bid=bid, ask=bid + 0.04))
    assert severities(row)["calendar"] == pytest.approx(0.4, rel=1e-9)
    # Of the near call at 100 all far ones up to 100 F2/F1 cover: 100 is the nearest.
    bid = ratio * at(quotes, "C", 100.0, 60)["ask"] + 0.2
    row = found(moved(quotes, "C", 100.0, 30, bid=bid, ask=bid + 0.04))
    assert severities(row)["calendar"] == pytest.approx(0.2, rel=1e-9)


def test_the_same_moneyness_covers_to_the_last_bit() -> None:
    """A put of 105 on a forward of 101.6 and one of 106.05 on 102.616: equal, and apart by rounding in the wrong direction."""
    near_forward, far_forward = 101.6, 102.616
    assert 106.05 / far_forward < 105.0 / near_forward
    quotes = chain("european", days=(30, 60))
    rows = []
    for q in quotes:
        if (q["expiry"] - T).days == 60:
            rows.append({**q, **leg(q["right"], round(q["strike"] * 1.01, 2), 60), "forward": far_forward})
        else:
            rows.append({**q, "forward": near_forward})
    bid = 20.0
    row = found(moved(rows, "P", 105.0, 30, bid=bid, ask=bid + 0.04))
    covering = math.exp(-RATE * 30 / 365) * near_forward / (math.exp(-RATE * 60 / 365) * far_forward)
    assert severities(row)["calendar"] == pytest.approx(bid - covering * at(quotes, "P", 105.0, 60)["ask"], rel=1e-9)


def test_without_rates_interest_is_no_arbitrage() -> None:
    quotes = moved(chain(), "C", 105.0, 30, bid=20.0, ask=20.1)
    row = found(quotes, rates=pl.DataFrame())
    assert row["parity_violation_bps"] is None
    assert any(text.startswith("parity_violation_bps: no rates") for text in row["not_available"])
    assert {check: usd > 0 for check, usd in severities(row).items()} == dict.fromkeys(CHECKS[1:], True)
    index = found(moved(chain("european"), "C", 105.0, 30, bid=20.0, ask=20.1), rates=pl.DataFrame())
    assert (index["parity_violation_bps"], index["calendar_violation_bps"]) == (None, None)
    assert severities(index)["vertical"] == pytest.approx(20.0 - at(quotes, "C", 100.0, 30)["ask"], rel=1e-3)


def test_american_parity_has_room_for_interest_and_dividends() -> None:
    quotes = chain(days=(30,), dividend=DIVIDEND)
    call = at(quotes, "C", 100.0, 30)
    paid = DIVIDEND * math.exp(-RATE * 20 / 365)
    # A reversal: put sold at the bid, call bought at the ask, stock sold short, dividend paid.
    lower = SPOT - paid - 100.0
    bid = call["ask"] - lower + 0.35 + funding(30, 100.0)
    row = found(moved(quotes, "P", 100.0, 30, bid=bid, ask=bid + 0.04), DIVIDEND)
    assert severities(row)["parity"] == pytest.approx(0.35, rel=1e-6)
    without = found(moved(quotes, "P", 100.0, 30, bid=bid, ask=bid + 0.04))
    assert severities(without)["parity"] == pytest.approx(0.35 + paid, rel=1e-6)


def test_european_parity_sets_strikes_against_their_forward() -> None:
    quotes = chain("european", days=(30,))
    put = at(quotes, "P", 105.0, 30)
    value = math.exp(-RATE * 30 / 365) * (put["forward"] - 105.0) + funding(30, 105.0 - put["forward"])
    bid = put["ask"] + value + 0.6
    row = found(moved(quotes, "C", 105.0, 30, bid=bid, ask=bid + 0.04))
    assert severities(row)["parity"] == pytest.approx(0.6, rel=1e-9)
    unknown = [{**q, "forward": None} for q in quotes]
    assert found(unknown)["parity_violation_bps"] is None
    assert found(unknown)["vertical_violation_bps"] == 0.0


def test_parity_is_at_the_underlying_of_the_later_quote() -> None:
    quotes = [{**q, "spot": 100.0} for q in chain(days=(30,))]
    call, put = at(quotes, "C", 100.0, 30), at(quotes, "P", 100.0, 30)
    bound = 98.0 - 100.0 * math.exp(-RATE * 30 / 365) + funding(30, 100.0)
    earlier = moved(quotes, "P", 100.0, 30, ts_utc=CLOSE - timedelta(hours=1), spot=50.0)
    later = moved(earlier, "C", 100.0, 30, spot=98.0)
    assert severities(found(later))["parity"] == pytest.approx(call["bid"] - put["ask"] - bound, rel=1e-6)
    swapped = moved(quotes, "C", 100.0, 30, ts_utc=CLOSE - timedelta(hours=1), spot=50.0)
    assert severities(found(moved(swapped, "P", 100.0, 30, spot=98.0)))["parity"] == pytest.approx(
        call["bid"] - put["ask"] - bound, rel=1e-4
    )


@pytest.mark.parametrize(("seconds", "spot"), [(59, 100.0), (61, 97.0)])
def test_a_quote_of_the_last_minute_stood_at_the_close(seconds: int, spot: float) -> None:
    moment = CLOSE - timedelta(seconds=seconds)
    quotes = [{**q, "ts_utc": moment} for q in chain(days=(30,))]
    rows = [{**{name: q[name] for name in CALL}, "spot": 97.0, "spot_source": "equity_bars_1m", "ts_utc": moment} for q in quotes]
    implied = table(OPTION_IV, [{**row, "price_source": "quote_mid", "quality": "no_price"} for row in rows])
    call, put = at(quotes, "C", 100.0, 30), at(quotes, "P", 100.0, 30)
    years = 30 / 365 + seconds / 86_400 / 365
    bound = spot - 100.0 * math.exp(-RATE * years) + 0.005 * years * math.exp(-RATE * years) * 100.0
    expected = max(call["bid"] - put["ask"] - bound, 0.0)
    only = [q for q in quotes if q["strike"] == 100.0]
    assert found(only, option_iv=implied)["parity_violation_bps"] == pytest.approx(expected * 1e4 / SPOT, rel=1e-9)
    assert (expected > 0) == (spot == 97.0)


def test_a_spot_of_parity_says_nothing_about_parity() -> None:
    quotes = chain(days=(30,))
    rows = [{**{name: q[name] for name in CALL}, "spot": SPOT, "spot_source": "parity_forward", "ts_utc": CLOSE} for q in quotes]
    implied = table(OPTION_IV, [{**row, "price_source": "quote_mid", "years": 30 / 365, "quality": "no_price"} for row in rows])
    row = found(quotes, option_iv=implied, equity_bars_1d=pl.DataFrame())
    assert row["spot_source"] == "parity_forward"
    assert row["parity_violation_bps"] is None
    assert row["vertical_violation_bps"] == 0.0
    assert "parity_violation_bps: " in " ".join(row["not_available"])


def test_quotes_that_do_not_count() -> None:
    quotes = chain(days=(30,))
    crossed = moved(quotes, "C", 105.0, 30, bid=50.0, ask=40.0)
    assert severities(found(crossed)) == {}
    without_ask = moved(quotes, "C", 105.0, 30, bid=50.0, ask=None)
    assert severities(found(without_ask)) == {}
    adjusted = [{**q, "terms": {"is_adjusted": True}} for q in moved(quotes, "C", 105.0, 30, bid=50.0, ask=50.1)]
    row = found(adjusted)
    assert [row[name] for name in (*COLUMNS, "violations")] == [None] * 5
    expiring = [{**q, **leg(q["right"], q["strike"], 0)} for q in moved(quotes, "C", 105.0, 30, bid=50.0, ask=50.1)]
    assert found(expiring)["violations"] is None
    assert sessions.close_utc(T) == CLOSE


def test_without_a_bid_it_can_be_bought_and_sold_for_nothing() -> None:
    quotes = moved(chain(days=(30,)), "C", 105.0, 30, bid=None, ask=0.01)
    dear = at(quotes, "C", 110.0, 30)["bid"]
    assert severities(found(quotes))["vertical"] == pytest.approx(dear - 0.01, rel=1e-9)


def test_sources_are_not_mixed() -> None:
    quotes = chain(days=(30,))
    other = [{**q, "source": "another", "bid": q["bid"] + 3.0, "ask": q["ask"] + 3.0} for q in quotes if q["strike"] == 100.0]
    assert severities(found(quotes + other)) == {}
    alone = [{**q, "source": "another", "bid": 50.0, "ask": 50.1} for q in quotes if q["strike"] == 100.0 and q["right"] == "C"]
    mixed = [q for q in quotes if (q["strike"], q["right"]) != (100.0, "C")] + alone
    assert severities(found(mixed)) == {}


def test_a_chain_of_two_quotes_is_not_looked_through() -> None:
    quotes = [q for q in chain(days=(30,)) if q["strike"] in (100.0, 105.0)]
    row = found(moved(quotes, "C", 105.0, 30, bid=20.0, ask=20.1))
    assert (row["vertical_violation_bps"], row["butterfly_violation_bps"], row["calendar_violation_bps"]) == (None, None, None)
    assert row["violations"] == 1, "against its put"


def test_roots_are_apart() -> None:
    quotes = chain(days=(30,))
    other = [
        {**q, "root": "XYZW", "contract": q["contract"].replace("XYZ", "XYZW"), "bid": q["bid"] + 0.5, "ask": q["ask"] + 0.5}
        for q in quotes
    ]
    assert severities(found(quotes + other)) == {}


def test_without_quotes_or_a_spot() -> None:
    quotes = chain()
    row = found(quotes, option_quotes_eod=pl.DataFrame())
    for name in (*COLUMNS, "violations"):
        assert row[name] is None
        assert f"{name}: needs option_quotes_eod" in row["not_available"]
    no_spot = found(moved(quotes, "C", 105.0, 30, bid=50.0, ask=50.1), equity_bars_1d=pl.DataFrame())
    assert [no_spot[name] for name in COLUMNS] == [None] * 4
    assert no_spot["violations"] >= 3, "verticals and calendars need no spot"


def test_a_real_index_chain_obeys_all_four(real_data: Path) -> None:
    """SPX after the close of 2026-07-16, at the rates that its own boxes imply."""
    session = date(2026, 7, 16)
    known = raw(real_data, session, f"cboe_snapshots/SPX/{session}.csv.gz")
    boxes = {30: 0.0415, 60: 0.0418, 90: 0.0423, 150: 0.0436, 240: 0.045, 365: 0.0458, 2000: 0.046}
    known |= {"rates": pl.DataFrame({"tenor_days": list(boxes), "rate": list(boxes.values())})}
    for step in (contracts, option_quotes_eod, option_iv):
        known |= published(step(known, session), session)
    row = daily_factors(known, session).tables["daily_factors"].row(0, named=True)
    assert [row[name] for name in (*COLUMNS, "violations")] == [0.0, 0.0, 0.0, 0.0, 0]
