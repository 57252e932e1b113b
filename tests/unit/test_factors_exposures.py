"""Exposures of open contracts, in total and by strike, computed by hand."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import polars as pl
import pytest

from flowlake.datasets import curated
from flowlake.datasets.volatility import EXPOSURES
from flowlake.factors.daily import daily_factors
from flowlake.factors.early_exercise import dividends_ahead
from flowlake.quant import american, european, exposure
from unit.test_factors_daily import CALL, T, implied, interest, leg, master, run, smile, stock, table

YEARS = 30 / 365


def held(*positions: tuple[dict[str, Any], int], **more: Any) -> dict[str, pl.DataFrame]:
    rows = smile(30, 0.2)
    contracts = master(*({k: r[k] for k in CALL} for r in rows), *(each for each, _ in positions))
    reports = table(curated.OPEN_INTEREST, [interest(each, count) for each, count in positions])
    return {
        "contracts": contracts.unique("contract", maintain_order=True),
        "option_iv": implied(*rows),
        "open_interest": reports,
        "equity_bars_1d": stock(),
        **more,
    }


def strikes(**inputs: pl.DataFrame) -> dict[float, dict[str, Any]]:
    found = EXPOSURES.conform(daily_factors(inputs, T).tables["exposures"], T)
    return {row["strike"]: row for row in found.rows(named=True)}


def test_vanna_and_charm_by_hand() -> None:
    row = run(**held((leg("C", 103.0, 30), 1_000), (leg("P", 97.0, 30), 400)))
    greeks = european.greeks(100.0, [103.0, 97.0], YEARS, 0.2, [1, -1], 0.0)
    vanna = greeks.vanna[0] * 1_000 - greeks.vanna[1] * 400
    charm = greeks.charm[0] * 1_000 - greeks.charm[1] * 400
    assert row["vanna_exposure_usd"] == pytest.approx(vanna * 100 * 100.0 * 0.01, rel=1e-9)
    assert row["charm_exposure_usd"] == pytest.approx(charm * 100 * 100.0 / 365, rel=1e-9)


def test_american_contracts_with_dividends_by_hand() -> None:
    """A long put and a call before an ex-date, on a forward that leaves a residual yield."""
    rate, days, ex_day = 0.05, 360, 40
    put, call = leg("P", 110.0, days), leg("C", 90.0, days)
    rows = [{**row, "forward": 101.0} for row in smile(days, 0.2)]
    contracts = master(*({**{k: r[k] for k in CALL}, "exercise": "american"} for r in (*rows, put, call)))
    paid = {"underlying": "XYZ", "ex_date": T + timedelta(days=ex_day), "kind": "cash_dividend", "cash_amount_usd": 1.5}
    inputs = {
        **held((put, 300), (call, 200)),
        "contracts": contracts.unique("contract", maintain_order=True),
        "option_iv": implied(*rows),
        "rates": table(curated.RATES, [{"tenor_days": 30, "rate": rate}]),
        "corporate_actions": table(curated.CORPORATE_ACTIONS, [paid]),
    }
    row = run(**inputs)
    # The ex-date begins with the regular session, six and a half hours before the option expires.
    years, time = days / 365, (ex_day - 6.5 / 24) / 365
    carry = rate - math.log(101.0 / (100.0 - 1.5 * math.exp(-rate * time))) / years
    greeks = american.exposure_greeks(100.0, [110.0, 90.0], years, 0.2, [-1, 1], rate, carry, [time], [1.5])
    for name, per in (("gamma", 100.0**2 * 0.01), ("vanna", 100.0 * 0.01), ("charm", 100.0 / 365)):
        values = getattr(greeks, name)
        assert row[f"{name}_exposure_usd"] == pytest.approx((values[1] * 200 - values[0] * 300) * 100 * per, rel=1e-9)
    plain = european.greeks(100.0, 110.0, years, 0.2, -1, math.log(1.01) / years)
    assert not math.isclose(float(plain.gamma), float(greeks.gamma[0]), rel_tol=0.1)


def test_the_total_changes_its_sign_at_the_flip() -> None:
    row = run(**held((leg("C", 106.0, 30), 1_000), (leg("P", 94.0, 30), 1_000)))
    flip = row["gamma_flip"]
    assert flip == pytest.approx(math.sqrt(106.0 * 94.0) * math.exp(-0.5 * 0.2**2 * YEARS), rel=1e-9), "where both gammas are equal"
    assert row["gamma_flip_distance"] == pytest.approx(flip / 100.0 - 1.0)
    assert row["gamma_flips"] == 1
    alone = run(**held((leg("C", 106.0, 30), 1_000)))
    assert (alone["gamma_flip"], alone["gamma_flips"]) == (None, 0)
    assert any(text.startswith("gamma_flip: ") for text in alone["not_available"])


def test_pain_is_that_of_the_nearest_expiry() -> None:
    near = [(leg("C", 95.0, 10), 100), (leg("P", 105.0, 10), 300), (leg("P", 100.0, 10), 1)]
    row = run(**held(*near, (leg("C", 80.0, 30), 9_000)))
    # At 105: calls pay 1,000, puts nothing. At 100: 500 + 1,500. At 95: 3,000 + 5.
    assert (row["max_pain"], row["max_pain_days"]) == (105.0, 10)
    assert row["max_pain_distance"] == pytest.approx(0.05)


def test_squeeze_risk_is_short_gamma_over_volume_times_calls_close_above() -> None:
    put, call, far = leg("P", 97.0, 30), leg("C", 103.0, 20), leg("C", 103.0, 30)
    rows = smile(30, 0.2) + smile(20, 0.2)
    positions = [(put, 4_000), (call, 500), (far, 500)]
    row = run(
        **held(*positions, option_iv=implied(*rows), contracts=master(*({k: r[k] for k in CALL} for r in rows), put, call, far))
    )
    assert row["gamma_exposure_usd"] < 0
    nearness = math.exp(-math.log(1.03) / 0.10)
    share = 500 * nearness / 5_000
    assert row["squeeze_risk"] == pytest.approx(-row["gamma_exposure_usd"] / (10_000 * 100.0) * share)
    calls_alone = run(**held((far, 500)))
    assert (calls_alone["gamma_exposure_usd"] > 0, calls_alone["squeeze_risk"]) == (True, 0.0)
    without_volume = run(**{name: frame for name, frame in held(*positions).items() if name != "equity_bars_1d"})
    assert without_volume["squeeze_risk"] is None


def test_strikes_add_up_to_the_total_and_tell_calls_from_puts() -> None:
    positions = [(leg("C", 103.0, 30), 1_000), (leg("P", 97.0, 30), 400), (leg("P", 103.0, 30), 50), (leg("C", 103.0, 60), 7)]
    inputs = held(*positions)
    found, row = strikes(**inputs), run(**inputs)
    assert list(found) == [97.0, 103.0]
    for greek in ("gamma", "vanna", "charm"):
        total = sum((line[f"call_{greek}_usd"] or 0.0) - (line[f"put_{greek}_usd"] or 0.0) for line in found.values())
        assert total == pytest.approx(row[f"{greek}_exposure_usd"], rel=1e-9)
    low, high = found[97.0], found[103.0]
    assert (low["call_open_interest"], low["put_open_interest"], low["call_gamma_usd"]) == (0, 400, None)
    assert (high["call_open_interest"], high["put_open_interest"], high["contracts_without_value"]) == (1_007, 50, 7)
    gamma = european.greeks(100.0, 103.0, YEARS, 0.2, 1, 0.0).gamma
    assert high["call_gamma_usd"] == pytest.approx(float(exposure.gamma_exposure(gamma, 1_000, 100.0, 1, convention="absolute")))
    assert {line["open_interest_of"] for line in found.values()} == {"close"}


def test_without_open_interest_there_is_no_strike() -> None:
    inputs = {name: frame for name, frame in held((CALL, 1)).items() if name != "open_interest"}
    assert strikes(**inputs) == {}


def test_a_contract_without_years_has_no_dividend_ahead() -> None:
    """Its time to an ex-date is unknown, and a time without an amount, or an amount without a time, is refused further down."""
    rows = pl.DataFrame({"underlying": ["XYZ", "XYZ"], "expiry": [T + timedelta(days=90)] * 2, "years": [90 / 365, None]})
    schedule = pl.DataFrame({"underlying": ["XYZ"], "ex_date": [T + timedelta(days=40)], "cash_amount_usd": [1.5]})
    times, amounts = dividends_ahead(rows, schedule)
    assert amounts[0].tolist() == [1.5]
    assert times[0, 0] > 0
    assert math.isnan(times[1, 0])
    assert math.isnan(amounts[1, 0])
    greeks = american.exposure_greeks(100.0, 90.0, rows["years"].to_numpy(), 0.2, 1, 0.03, 0.0, times, amounts)
    assert math.isfinite(greeks.gamma[0])
    assert math.isnan(greeks.gamma[1])
