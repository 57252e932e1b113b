"""American prices and sensitivities against QuantLib: its fixed-point engine, and finite differences with cash dividends.

100,000 random contracts without cash dividends are compared with the fast scheme of that engine, whose own error is below 1e-5, and
the first of them with its most precise one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import QuantLib as ql  # noqa: N813 - the name its own documentation uses

from flowlake.core.arrays import Float
from flowlake.quant import american, european

TODAY = ql.Date(5, 1, 2026)
SPOT = 100.0
COUNT = 100_000
SAMPLE = 150


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


def contracts(count: int) -> dict[str, Float]:
    rng = np.random.default_rng(3)
    return {
        "strike": rng.uniform(60.0, 150.0, count),
        "days": rng.integers(1, 730, count).astype(np.float64),
        "vol": rng.uniform(0.1, 1.0, count),
        "right": rng.choice(np.array([-1.0, 1.0]), count),
        "rate": rng.uniform(0.001, 0.08, count),
        "carry": rng.uniform(0.0, 0.06, count),
    }


def quantlib_values(rows: dict[str, Float], chosen: slice, fast: bool) -> Float:
    """One process whose quotes change: to make a new one for each contract would take ten times as long."""
    ql.Settings.instance().evaluationDate = TODAY
    basis = ql.Actual365Fixed()
    quotes = [ql.SimpleQuote(0.0) for _ in range(3)]
    vol, rate, carry = (ql.QuoteHandle(quote) for quote in quotes)
    process = ql.BlackScholesMertonProcess(
        ql.QuoteHandle(ql.SimpleQuote(SPOT)),
        ql.YieldTermStructureHandle(ql.FlatForward(TODAY, carry, basis)),
        ql.YieldTermStructureHandle(ql.FlatForward(TODAY, rate, basis)),
        ql.BlackVolTermStructureHandle(ql.BlackConstantVol(TODAY, ql.NullCalendar(), vol, basis)),
    )
    scheme = ql.QdFpAmericanEngine.fastScheme() if fast else ql.QdFpAmericanEngine.highPrecisionScheme()
    engine = ql.QdFpAmericanEngine(process, scheme)
    exercises = [ql.AmericanExercise(TODAY, TODAY + day) for day in range(731)]
    columns = (rows[name][chosen].tolist() for name in ("strike", "days", "right", "vol", "rate", "carry"))
    values = []
    for strike, days, right, *market in zip(*columns, strict=True):
        for quote, value in zip(quotes, market, strict=True):
            quote.setValue(value)
        payoff = ql.PlainVanillaPayoff(ql.Option.Call if right > 0 else ql.Option.Put, strike)
        option = ql.VanillaOption(payoff, exercises[int(days)])
        option.setPricingEngine(engine)
        values.append(option.NPV())
    return np.array(values)


def test_a_hundred_thousand_prices_without_cash_dividends() -> None:
    rows = contracts(COUNT)
    years = rows["days"] / 365.0
    ours = american.price(SPOT, rows["strike"], years, rows["vol"], rows["right"], rows["rate"], rows["carry"])
    theirs = quantlib_values(rows, slice(None), fast=True)
    # In units of vega at the money, which makes them errors of the volatility.
    error = np.abs(ours - theirs) / (0.4 * SPOT * np.sqrt(years))
    assert np.median(error) < 2e-5
    assert np.quantile(error, 0.99) < 4e-4
    assert error.max() < 2e-3
    exact = quantlib_values(rows, slice(SAMPLE), fast=False)
    error = np.abs(ours[:SAMPLE] - exact) / (0.4 * SPOT * np.sqrt(years[:SAMPLE]))
    assert np.median(error) < 2e-5
    assert error.max() < 1e-3


def test_vols_come_back_from_the_prices_of_quantlib() -> None:
    rows = contracts(SAMPLE)
    years = rows["days"] / 365.0
    terms = (SPOT, rows["strike"], years, rows["right"], rows["rate"], rows["carry"])
    market = quantlib_values(rows, slice(None), fast=False)
    found = american.implied_vol(market, *terms)
    vega = american.greeks(SPOT, rows["strike"], years, rows["vol"], *terms[3:]).vega
    has_vol = market - np.maximum(rows["right"] * (SPOT - rows["strike"]), 0.0) > 1e-4
    error = np.abs(found - rows["vol"])[has_vol]
    within = np.maximum(1e-3, 0.005 / np.maximum(vega[has_vol], 1e-9))
    assert np.nanmedian(error) < 5e-5
    assert (error <= within).mean() > 0.98


def test_prices_with_cash_dividends() -> None:
    rng = np.random.default_rng(5)
    errors = []
    for _ in range(200):
        strike, vol, rate = rng.uniform(80, 120), rng.uniform(0.15, 0.6), rng.uniform(0.001, 0.08)
        days, right = int(rng.integers(20, 500)), int(rng.choice([-1, 1]))
        dividends = [(int(day), float(rng.uniform(0.2, 2.0))) for day in np.unique(rng.integers(1, days, 3))]
        times, amounts = [day / 365 for day, _ in dividends], [a for _, a in dividends]
        ours = float(american.price(SPOT, strike, days / 365, vol, right, rate, 0.0, times, amounts))
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


def quantlib_exposure_greeks(rows: dict[str, Float], i: int) -> tuple[float, float]:
    """Vanna and charm by differences of QuantLib's prices, 1 % of the volatility and 2 % of the time to either side."""
    strike, days, vol, right, rate, carry = (rows[name][i] for name in ("strike", "days", "vol", "right", "rate", "carry"))
    near = max(1, int(0.02 * days))

    def delta(vol: float, days: int) -> float:
        high, low = (quantlib_option(strike, days, vol, int(right), rate, carry, spot=SPOT * bump).NPV() for bump in (1.002, 0.998))
        return float((high - low) / (0.004 * SPOT))

    vanna = (delta(1.01 * vol, int(days)) - delta(0.99 * vol, int(days))) / (0.02 * vol)
    charm = (delta(vol, int(days) - near) - delta(vol, int(days) + near)) / (2 * near / 365)
    return vanna, charm


def test_vanna_and_charm() -> None:
    """Also how much nearer they are than those of Black and Scholes, which know nothing of the boundary of exercise."""
    rows = contracts(SAMPLE)
    rows["days"] = np.maximum(rows["days"], 20.0)
    terms = (SPOT, rows["strike"], rows["days"] / 365.0, rows["vol"], rows["right"], rows["rate"], rows["carry"])
    ours, plain = american.exposure_greeks(*terms), european.greeks(*terms)
    theirs = np.array([quantlib_exposure_greeks(rows, i) for i in range(SAMPLE)])
    same = american.greeks(*terms)
    np.testing.assert_array_equal(ours.delta, same.delta)
    np.testing.assert_array_equal(ours.gamma, same.gamma)
    for column, name in enumerate(("vanna", "charm")):
        error = np.abs(getattr(ours, name) - theirs[:, column])
        size = np.median(np.abs(theirs[:, column]))
        assert np.median(error) < 2e-3 * size
        # Beside the boundary of exercise both jump, and a difference smears the jump.
        assert np.quantile(error, 0.95) < 0.1 * size
        assert np.quantile(np.abs(getattr(plain, name) - theirs[:, column]), 0.95) > 4.0 * np.quantile(error, 0.95)


@pytest.mark.parametrize("right", [1, -1])
def test_charm_with_cash_dividends(right: int) -> None:
    dividends, days = [(60, 1.5), (150, 1.0)], 200
    for strike in (90.0, 100.0, 110.0):

        def delta(later: int, k: float = strike) -> float:
            moved = [(day - later, amount) for day, amount in dividends]
            high, low = (quantlib_option(k, days - later, 0.3, right, 0.05, 0.01, moved, spot).NPV() for spot in (101.0, 99.0))
            return float((high - low) / 2)

        times, amounts = [day / 365 for day, _ in dividends], [amount for _, amount in dividends]
        ours = american.exposure_greeks(SPOT, strike, days / 365, 0.3, right, 0.05, 0.01, times, amounts)
        assert float(ours.charm) == pytest.approx((delta(8) - delta(-8)) * 365 / 16, abs=0.01)
