"""Step `option_iv` on an American chain that QuantLib priced: the volatility and the borrow fee that went in must come out."""

from __future__ import annotations

import math
from datetime import date, timedelta

import pytest
import QuantLib as ql  # noqa: N813 - the name its own documentation uses

from flowlake.core import sessions
from flowlake.datasets import curated
from unit.test_factors_option_iv import CLOSE, T, leg, master, quote, run, table

SPOT, RATE, DIVIDEND, VOL = 100.0, 0.05, 1.20, 0.30
EX_DATE = T + timedelta(days=40)
EXPIRIES = (date(2024, 4, 12), date(2024, 6, 21), date(2024, 12, 20))
STRIKES = (80.0, 90.0, 95.0, 100.0, 105.0, 110.0, 120.0)


def american(strike: float, right: str, expiry: date, borrow: float) -> float:
    """By finite differences on the escrowed stock: a method that shares nothing with ours."""
    today = ql.Date(T.day, T.month, T.year)
    ql.Settings.instance().evaluationDate = today
    count = ql.Actual365Fixed()
    flat = [ql.YieldTermStructureHandle(ql.FlatForward(today, value, count)) for value in (borrow, RATE)]
    vol = ql.BlackVolTermStructureHandle(ql.BlackConstantVol(today, ql.NullCalendar(), VOL, count))
    process = ql.BlackScholesMertonProcess(ql.QuoteHandle(ql.SimpleQuote(SPOT)), *flat, vol)
    maturity = ql.Date(expiry.day, expiry.month, expiry.year)
    payoff = ql.PlainVanillaPayoff(ql.Option.Call if right == "C" else ql.Option.Put, strike)
    option = ql.VanillaOption(payoff, ql.AmericanExercise(today, maturity))
    paid = [ql.FixedDividend(DIVIDEND, ql.Date(EX_DATE.day, EX_DATE.month, EX_DATE.year))] if expiry >= EX_DATE else []
    engine = ql.FdBlackScholesVanillaEngine(
        process, paid, 400, 800, 0, ql.FdmSchemeDesc.Douglas(), False, -1.0, ql.FdBlackScholesVanillaEngine.Escrowed
    )
    option.setPricingEngine(engine)
    return float(option.NPV())


@pytest.mark.parametrize("borrow", [0.0, 0.02, 0.10])
def test_volatility_and_forward_of_an_american_chain(borrow: float) -> None:
    quotes = []
    for expiry in EXPIRIES:
        for strike in STRIKES:
            for right in ("C", "P"):
                mid = american(strike, right, expiry, borrow)
                quotes.append(quote(leg(right, strike, expiry), mid - 0.005, mid + 0.005, spot=SPOT))
    ahead = {"underlying": "XYZ", "ex_date": EX_DATE, "kind": "cash_dividend", "cash_amount_usd": DIVIDEND}
    found = run(
        contracts=master(*({k: q[k] for k in leg("C", 1)} for q in quotes), exercise="american"),
        option_quotes_eod=table(curated.OPTION_QUOTES_EOD, quotes),
        corporate_actions=table(curated.CORPORATE_ACTIONS, [ahead]),
        rates=table(curated.RATES, [{"tenor_days": 1, "rate": RATE}]),
    )
    assert sessions.close_utc(T) == CLOSE
    for row in found.values():
        years = row["years"]
        held = SPOT - (DIVIDEND * math.exp(-RATE * 40 / 365) if row["expiry"] >= EX_DATE else 0.0)
        assert row["forward"] == pytest.approx(held * math.exp((RATE - borrow) * years), rel=2e-4), row["contract"]
        if row["quality"] == "american_early_exercise":
            assert row["price"] <= abs(SPOT - row["strike"]) + 0.01
            continue
        assert row["quality"] == "ok"
        # Half a cent of price in volatility: the two methods' own errors, and what is left in the forward.
        assert row["iv"] == pytest.approx(VOL, abs=max(2e-3, 0.005 / row["vega"])), row["contract"]
