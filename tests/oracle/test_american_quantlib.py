"""American prices and sensitivities against QuantLib: its fixed-point engine, and finite differences with cash dividends."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import QuantLib as ql  # noqa: N813 - the name its own documentation uses

from flowlake.quant import american

TODAY = ql.Date(5, 1, 2026)
SPOT = 100.0


def quantlib_option(
    strike: float,
    days: int,
    vol: float,
    right: int,
    rate: float,
    carry: float,
    dividends: Sequence[tuple[int, float]] = (),
    spot: float = SPOT,
) -> ql.VanillaOption:
    ql.Settings.instance().evaluationDate = TODAY
    count = ql.Actual365Fixed()
    process = ql.BlackScholesMertonProcess(
        ql.QuoteHandle(ql.SimpleQuote(spot)),
        ql.YieldTermStructureHandle(ql.FlatForward(TODAY, carry, count)),
        ql.YieldTermStructureHandle(ql.FlatForward(TODAY, rate, count)),
        ql.BlackVolTermStructureHandle(ql.BlackConstantVol(TODAY, ql.NullCalendar(), vol, count)),
    )
    payoff = ql.PlainVanillaPayoff(ql.Option.Call if right > 0 else ql.Option.Put, strike)
    option = ql.VanillaOption(payoff, ql.AmericanExercise(TODAY, TODAY + days))
    if dividends:
        schedule = ql.DividendVector([TODAY + day for day, _ in dividends], [amount for _, amount in dividends])
        scheme = ql.FdmSchemeDesc.CrankNicolson()
        model = ql.FdBlackScholesVanillaEngine.Escrowed
        engine = ql.FdBlackScholesVanillaEngine(process, schedule, 400, 400, 0, scheme, False, -1.0, model)
    else:
        engine = ql.QdFpAmericanEngine(process, ql.QdFpAmericanEngine.highPrecisionScheme())
    option.setPricingEngine(engine)
    return option


def test_prices_without_cash_dividends() -> None:
    rng = np.random.default_rng(3)
    errors = []
    for _ in range(300):
        strike, vol, rate, carry = rng.uniform(70, 130), rng.uniform(0.1, 0.8), rng.uniform(0.001, 0.08), rng.uniform(0, 0.06)
        days, right = int(rng.integers(5, 730)), int(rng.choice([-1, 1]))
        ours = float(american.price(SPOT, strike, days / 365, vol, right, rate, carry))
        theirs = quantlib_option(strike, days, vol, right, rate, carry).NPV()
        errors.append(abs(ours - theirs) / max(theirs, 0.5))
    assert np.median(errors) < 1e-4
    assert max(errors) < 2e-3


def test_prices_with_cash_dividends() -> None:
    rng = np.random.default_rng(5)
    errors = []
    for _ in range(50):
        strike, vol, rate = rng.uniform(80, 120), rng.uniform(0.15, 0.6), rng.uniform(0.001, 0.08)
        days, right = int(rng.integers(20, 500)), int(rng.choice([-1, 1]))
        dividends = [(int(day), float(rng.uniform(0.2, 2.0))) for day in np.unique(rng.integers(1, days, 3))]
        ours = float(
            american.price(
                SPOT, strike, days / 365, vol, right, rate, 0.0, [day / 365 for day, _ in dividends], [a for _, a in dividends]
            )
        )
        theirs = quantlib_option(strike, days, vol, right, rate, 0.0, dividends).NPV()
        errors.append(abs(ours - theirs) / max(theirs, 0.5))
    assert np.median(errors) < 3e-4
    assert max(errors) < 3e-3


@pytest.mark.parametrize("right", [1, -1])
@pytest.mark.parametrize("dividends", [(), ((60, 1.5), (150, 1.0))])
def test_greeks(right: int, dividends: tuple[tuple[int, float], ...]) -> None:
    times, amounts = [day / 365 for day, _ in dividends], [amount for _, amount in dividends]
    for strike in (90.0, 100.0, 110.0):
        ours = american.greeks(SPOT, strike, 200 / 365, 0.3, right, 0.05, 0.01, times, amounts)

        def value(spot: float = SPOT, vol: float = 0.3, rate: float = 0.05, later: int = 0, k: float = strike) -> float:
            moved = [(day - later, amount) for day, amount in dividends]
            return float(quantlib_option(k, 200 - later, vol, right, rate, 0.01, moved, spot).NPV())

        assert float(ours.delta) == pytest.approx((value(spot=101) - value(spot=99)) / 2, abs=3e-3)
        assert float(ours.gamma) == pytest.approx(value(spot=102) / 4 - value() / 2 + value(spot=98) / 4, abs=6e-4)
        assert float(ours.vega) == pytest.approx((value(vol=0.31) - value(vol=0.29)) / 0.02, abs=0.1)
        assert float(ours.rho) == pytest.approx((value(rate=0.052) - value(rate=0.048)) / 0.004, abs=0.25)
        assert float(ours.theta) == pytest.approx((value(later=1) - value(later=-1)) * 365 / 2, abs=0.06)
