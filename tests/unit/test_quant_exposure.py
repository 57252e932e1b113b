"""Exposures under each dealer convention, the profile over spots, its flips, and max pain."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from flowlake.core.arrays import Float
from flowlake.quant import european
from flowlake.quant.exposure import (
    CONVENTIONS,
    DEALER_SIDES,
    DYNAMICS,
    by_strike,
    charm_exposure,
    dealer_position,
    gamma_exposure,
    gamma_flip,
    gamma_profile,
    max_pain,
    vanna_exposure,
)

NAN, INF = math.nan, math.inf


def test_dollars_per_one_per_cent() -> None:
    # 0.05 deltas per dollar x 1,000 contracts x 100 shares = 5,000 shares per dollar; 1 % of 200 is 2 dollars: 10,000 shares.
    assert gamma_exposure(0.05, 1000, 200.0, 1) == pytest.approx(10_000 * 200.0)
    assert gamma_exposure(0.05, 1000, 200.0, 1, multiplier=10) == pytest.approx(1_000 * 200.0)


@pytest.mark.parametrize("right", [1, -1])
def test_each_exposure_is_the_change_of_the_dollar_delta(right: int) -> None:
    spot, strike, years, vol, rate, q = 200.0, 210.0, 0.3, 0.25, 0.03, 0.01

    def delta(spot: float = spot, years: float = years, vol: float = vol) -> float:
        return float(european.greeks(spot, strike, years, vol, right, rate, q).delta)

    greeks = european.greeks(spot, strike, years, vol, right, rate, q)
    shares = (1.0 if right > 0 else -1.0) * 1000 * 100
    gamma = shares * spot * (delta(spot=1.0001 * spot) - delta(spot=0.9999 * spot)) / 0.0002 * 0.01
    assert gamma_exposure(greeks.gamma, 1000, spot, right) == pytest.approx(gamma, rel=1e-6)
    vanna = shares * spot * (delta(vol=vol + 0.005) - delta(vol=vol - 0.005))
    assert vanna_exposure(greeks.vanna, 1000, spot, right) == pytest.approx(vanna, rel=1e-3)
    charm = shares * spot * (delta(years=years - 0.5 / 365) - delta(years=years + 0.5 / 365))
    assert charm_exposure(greeks.charm, 1000, spot, right) == pytest.approx(charm, rel=1e-4)


@pytest.mark.parametrize(
    ("convention", "signs"),
    [("long_calls_short_puts", [1, -1]), ("short_calls_long_puts", [-1, 1]), ("absolute", [1, 1])],
)
@pytest.mark.parametrize("exposure", [gamma_exposure, vanna_exposure, charm_exposure])
def test_conventions(exposure: Callable[..., Float], convention: str, signs: list[int]) -> None:
    assert np.sign(exposure(0.05, 10, 100.0, [1, -1], convention=convention)).tolist() == signs
    assert DEALER_SIDES[convention] == tuple(signs)
    assert dealer_position(7, [1, -1], convention).tolist() == [7.0 * sign for sign in signs]


@pytest.mark.parametrize("exposure", [gamma_exposure, vanna_exposure, charm_exposure])
def test_the_default_is_long_calls_short_puts(exposure: Callable[..., Float]) -> None:
    np.testing.assert_array_equal(
        exposure(0.05, 10, 100.0, [1, -1]), exposure(0.05, 10, 100.0, [1, -1], convention="long_calls_short_puts")
    )


def test_flow_signed_dealers_hold_the_opposite_of_the_customers_within_the_open_interest() -> None:
    bought = [3, -4, 25, -25, 0, 5, NAN]
    held = dealer_position([10, 10, 10, 10, 10, 0, 10], [1, -1, 1, -1, 1, 1, 1], "flow_signed", bought)
    np.testing.assert_array_equal(held, [-3, 4, -10, 10, 0, 0, NAN])
    dollars = gamma_exposure(0.05, 10, 100.0, [1, -1], convention="flow_signed", customer_position=[3, -4])
    np.testing.assert_allclose(dollars, [-3 * 0.05 * 100 * 100, 4 * 0.05 * 100 * 100])
    assert dealer_position(10, [1, -1], "flow_signed", 3).tolist() == [-3, -3]


def test_customer_position_goes_with_flow_signed_alone() -> None:
    with pytest.raises(ValueError, match="customer_position goes with the convention 'flow_signed'"):
        dealer_position(10, 1, "flow_signed")
    with pytest.raises(ValueError, match="and with no other; it is 'absolute'"):
        gamma_exposure(0.05, 10, 100.0, 1, convention="absolute", customer_position=3)


def test_missing_and_impossible_values_are_nan() -> None:
    for exposure in (gamma_exposure, vanna_exposure, charm_exposure):
        for gamma, contracts, spot, multiplier in [
            (NAN, 1, 1, 100),
            (INF, 1, 1, 100),
            (0.1, NAN, 1, 100),
            (0.1, INF, 1, 100),
            (0.1, -1, 1, 100),
            (0.1, 1, NAN, 100),
            (0.1, 1, INF, 100),
            (0.1, 1, 0, 100),
            (0.1, 1, -1, 100),
            (0.1, 1, 1, NAN),
            (0.1, 1, 1, 0),
        ]:
            assert np.isnan(exposure(gamma, contracts, spot, 1, multiplier))
        assert exposure([], [], 100.0, []).shape == (0,)
        assert exposure(0.1, 0, 100.0, -1) == 0.0
        assert exposure(1e300, 1e300, 1e300, 1) == INF


def test_wrong_arguments_raise() -> None:
    with pytest.raises(ValueError, match="known: long_calls_short_puts, short_calls_long_puts, absolute, flow_signed"):
        gamma_exposure(0.05, 10, 100.0, 1, convention="naive")
    for right in (0, NAN, INF, "C"):
        with pytest.raises(ValueError, match="right must be"):
            gamma_exposure(0.05, 10, 100.0, right)
    with pytest.raises(TypeError):
        DEALER_SIDES["mine"] = (1.0, 1.0)  # type: ignore[index]
    assert (*DEALER_SIDES, "flow_signed") == CONVENTIONS


def test_by_strike_sums_calls_and_puts_ascending() -> None:
    found = by_strike([110, 100, 100, 110, 100, 120], [1.0, 2.0, -3.0, 4.0, 5.0, -6.0], [1, 1, -1, 1, 1, -1])
    assert found.strike.tolist() == [100, 110, 120]
    assert found.calls.tolist() == [7, 5, 0]
    assert found.puts.tolist() == [-3, 0, -6]


def test_by_strike_leaves_nothing_out() -> None:
    found = by_strike([100, 100, NAN, NAN], [1.0, NAN, 2.0, 3.0], [1, -1, 1, 1])
    np.testing.assert_array_equal(found.strike, [100, NAN])
    np.testing.assert_array_equal(found.calls, [1, 5])
    np.testing.assert_array_equal(found.puts, [NAN, 0])
    empty = by_strike([], [], [])
    assert empty.strike.size == empty.calls.size == empty.puts.size == 0


def chain(contracts: int = 60, seed: int = 3) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    strike = rng.choice(np.arange(80.0, 125.0, 5.0), contracts)
    return {
        "strike": strike,
        "years": rng.choice([1 / 365, 14 / 365, 0.25, 1.0], contracts),
        "vol": 0.2 - 0.3 * np.log(strike / 100.0) + 0.01 * rng.normal(size=contracts),
        "open_interest": rng.integers(0, 1000, contracts).astype(np.float64),
        "right": rng.choice([1.0, -1.0], contracts),
        "rate": rng.choice([0.03, 0.04], contracts),
        "dividend_yield": rng.choice([0.0, 0.02], contracts),
    }


def plain_total(spot: float, lines: dict[str, Any], convention: str) -> float:
    """The total gamma exposure, by way of the greeks."""
    gamma = european.greeks(spot, *(lines[name] for name in ("strike", "years", "vol", "right", "rate", "dividend_yield"))).gamma
    return math.fsum(gamma_exposure(gamma, lines["open_interest"], spot, lines["right"], convention=convention))


@pytest.mark.parametrize("convention", list(DEALER_SIDES))
def test_the_profile_is_the_sum_of_the_repriced_exposures(convention: str) -> None:
    lines = chain()
    found = gamma_profile(100.0, **lines, convention=convention, points=21)
    assert (found.contracts_used, found.contracts_left_out) == (60, 0)
    np.testing.assert_allclose(found.spot, 100.0 * np.geomspace(0.5, 1.5, 21))
    size = plain_total(100.0, lines, "absolute")
    expected = [plain_total(spot, lines, convention) for spot in found.spot]
    np.testing.assert_allclose(found.exposure_usd, expected, rtol=1e-9, atol=1e-12 * size)


@pytest.mark.parametrize("seed", range(5))
def test_flips_are_where_the_plain_sum_changes_its_sign(seed: int) -> None:
    lines = chain(seed=seed)
    spots = np.linspace(70.0, 140.0, 3001)
    values = np.array([plain_total(spot, lines, "long_calls_short_puts") for spot in spots])
    brackets = np.flatnonzero(np.sign(values[1:]) * np.sign(values[:-1]) < 0)
    flips = gamma_flip(100.0, **lines, lowest=0.7, highest=1.4)
    assert flips.size == brackets.size
    assert ((spots[brackets] <= flips) & (flips <= spots[brackets + 1])).all()
    size = plain_total(100.0, lines, "absolute")
    for flip in flips:
        assert abs(plain_total(float(flip), lines, "long_calls_short_puts")) < 1e-9 * size


@pytest.mark.parametrize("dynamics", DYNAMICS)
def test_one_flip_between_a_put_and_a_call_of_equal_size(dynamics: str) -> None:
    # With zero carry phi(d1) of both is the same where ln(s) + v^2 T/2 lies halfway between the log strikes.
    (flip,) = gamma_flip(100.0, [90, 110], 0.1, 0.2, 50, [-1, 1], 0.0, dynamics=dynamics)
    assert flip == pytest.approx(math.sqrt(90 * 110) * math.exp(-0.5 * 0.04 * 0.1), rel=1e-12)


@pytest.mark.parametrize("minutes", [1, 30])
def test_the_sign_is_seen_where_gamma_itself_underflows(minutes: int) -> None:
    years = minutes / 525_600
    profile = gamma_profile(100.0, [90, 110], years, 0.2, 50, [-1, 1], 0.0)
    assert profile.exposure_usd[np.argmin(np.abs(profile.spot - 99.5))] == 0.0
    (flip,) = gamma_flip(100.0, [90, 110], years, 0.2, 50, [-1, 1], 0.0)
    assert flip == pytest.approx(math.sqrt(90 * 110) * math.exp(-0.5 * 0.04 * years), rel=1e-12)


def test_all_flips_are_found() -> None:
    strike, right = [80, 100, 120, 140], [-1, 1, -1, 1]
    flips = gamma_flip(100.0, strike, 2 / 365, 0.2, 10, right, 0.0)
    np.testing.assert_allclose(flips, np.sqrt([80 * 100, 100 * 120, 120 * 140]), rtol=1e-3)


@pytest.mark.parametrize("dynamics", DYNAMICS)
def test_no_flip_gives_an_empty_array(dynamics: str) -> None:
    chains: tuple[tuple[Any, ...], ...] = (
        (100.0, [90, 110], 0.1, 0.2, 50, 1, 0.0),
        (100.0, [90, 110], 0.1, 0.2, 0, [1, -1], 0.0),
        (100.0, [100, 100], 0.1, 0.2, 50, [1, -1], 0.0),
        (100.0, [], [], [], [], [], 0.0),
        (100.0, [90, 110], 0.1, NAN, 50, [1, -1], 0.0),
        (NAN, [90, 110], 0.1, 0.2, 50, [1, -1], 0.0),
        (0.0, [90, 110], 0.1, 0.2, 50, [1, -1], 0.0),
        (INF, [90, 110], 0.1, 0.2, 50, [1, -1], 0.0),
    )
    for arguments in chains:
        flips = gamma_flip(*arguments, dynamics=dynamics)
        assert flips.shape == (0,)
        assert flips.dtype == np.float64
    assert gamma_flip(100.0, [90, 110], 0.1, 0.2, 50, [1, -1], 0.0, convention="absolute").shape == (0,)


def test_opposite_conventions_flip_at_the_same_spots() -> None:
    lines = chain()
    there, back = (gamma_flip(100.0, **lines, convention=name) for name in ("long_calls_short_puts", "short_calls_long_puts"))
    np.testing.assert_array_equal(there, back)
    assert there.size > 0
    customers = np.where(lines["right"] > 0, -lines["open_interest"], lines["open_interest"])
    flow = gamma_flip(100.0, **lines, convention="flow_signed", customer_position=customers)
    np.testing.assert_array_equal(there, flow)


def test_a_line_that_cannot_be_priced_is_left_out_and_counted() -> None:
    lines = {name: values.copy() for name, values in chain(8).items()}
    lines["open_interest"][:] = 10.0
    lines["vol"][0] = NAN
    lines["years"][1] = 0.0
    lines["strike"][2] = -1.0
    lines["open_interest"][3] = NAN
    lines["rate"][4] = INF
    lines["vol"][5], lines["open_interest"][5] = NAN, 0.0  # holds nothing, whatever it is
    found = gamma_profile(100.0, **lines, points=5)
    assert (found.contracts_used, found.contracts_left_out) == (3, 5)
    rest = gamma_profile(100.0, **{name: values[6:] for name, values in lines.items()}, points=5)
    np.testing.assert_array_equal(found.exposure_usd, rest.exposure_usd)
    flow = gamma_profile(100.0, [90, 110], 0.1, 0.2, 5, [1, -1], 0.0, convention="flow_signed", customer_position=[3, NAN])
    assert (flow.contracts_used, flow.contracts_left_out) == (1, 1)
    nowhere = gamma_profile(NAN, [90, 110], 0.1, 0.2, 5, [1, -1], 0.0)
    assert (nowhere.spot.size, nowhere.exposure_usd.size, nowhere.contracts_left_out) == (0, 0, 2)


def test_sticky_delta_reads_the_smile_at_the_strike_of_the_same_moneyness() -> None:
    strike = np.arange(60.0, 141.0, 1.0)
    held = np.zeros(strike.size)
    held[strike == 100.0] = 10.0

    def smile(strikes: Float) -> Float:
        return 0.2 - 0.4 * np.log(strikes / 100.0)

    found = gamma_profile(100.0, strike, 0.5, smile(strike), held, 1, 0.03, 0.01, dynamics="sticky_delta", lowest=0.8, points=9)
    # What was at 100/s of the spot before.
    vol = smile(100.0 * 100.0 / found.spot)
    gamma = european.greeks(found.spot, 100.0, 0.5, vol, 1, 0.03, 0.01).gamma
    np.testing.assert_allclose(found.exposure_usd, gamma_exposure(gamma, 10, found.spot, 1), rtol=1e-4)
    still = gamma_profile(100.0, strike, 0.5, smile(strike), held, 1, 0.03, 0.01, lowest=0.8, points=9)
    assert (np.abs(still.exposure_usd / found.exposure_usd - 1.0)[[0, -1]] > 0.1).all()


def test_sticky_delta_is_sticky_strike_at_the_spot_and_where_the_smile_is_flat() -> None:
    lines = chain()
    _, first = np.unique(np.stack([lines["strike"], lines["years"], lines["right"]]), axis=1, return_index=True)
    lines = {name: values[first] for name, values in lines.items()}
    # An odd number of spots that are symmetric about the present one has it in the middle.
    here: dict[str, Any] = {"lowest": 0.8, "highest": 1.25, "points": 3}
    moving = gamma_profile(100.0, **lines, dynamics="sticky_delta", **here)
    still = gamma_profile(100.0, **lines, dynamics="sticky_strike", **here)
    assert moving.exposure_usd[1] == pytest.approx(still.exposure_usd[1], rel=1e-10)
    assert abs(moving.exposure_usd[0] / still.exposure_usd[0] - 1.0) > 1e-3
    lines["vol"] = np.full(first.size, 0.3)
    np.testing.assert_allclose(
        gamma_profile(100.0, **lines, dynamics="sticky_delta").exposure_usd,
        gamma_profile(100.0, **lines, dynamics="sticky_strike").exposure_usd,
        rtol=1e-8,
        atol=1e-6,
    )


def test_profile_arguments() -> None:
    with pytest.raises(ValueError, match="known: sticky_strike, sticky_delta"):
        gamma_flip(100.0, 100, 0.1, 0.2, 5, 1, 0.0, dynamics="sticky")
    for lowest, highest in ((0.0, 1.5), (1.5, 0.5), (NAN, 1.5), (0.5, INF)):
        with pytest.raises(ValueError, match="lowest"):
            gamma_profile(100.0, 100, 0.1, 0.2, 5, 1, 0.0, lowest=lowest, highest=highest)
    with pytest.raises(ValueError, match="spot must be one number"):
        gamma_flip([100.0, 101.0], 100, 0.1, 0.2, 5, 1, 0.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="2 points or more"):
        gamma_profile(100.0, 100, 0.1, 0.2, 5, 1, 0.0, points=1)
    with pytest.raises(ValueError, match="right must be"):
        gamma_profile(100.0, 100, 0.1, 0.2, 5, 0, 0.0)
    with pytest.raises(ValueError, match="known: long_calls_short_puts"):
        gamma_flip(100.0, 100, 0.1, 0.2, 5, 1, 0.0, convention="naive")


def payout(at: float, strike: Float, calls: Float, puts: Float) -> float:
    return math.fsum(calls * np.maximum(at - strike, 0.0)) + math.fsum(puts * np.maximum(strike - at, 0.0))


def test_max_pain_by_hand() -> None:
    # Calls of 90 and 100, puts of 95 and 105. At 90 the puts pay 20 x 5 + 30 x 15 = 550; at 95 calls 10 x 5 and puts 30 x 10 = 350;
    # at 100 calls 10 x 10 and puts 30 x 5 = 250; at 105 calls 10 x 15 + 40 x 5 = 350.
    assert max_pain([90, 95, 100, 105], [10, 0, 40, 0], [0, 20, 0, 30]) == 100.0


@pytest.mark.parametrize("seed", range(5))
def test_max_pain_is_where_the_payout_is_least(seed: int) -> None:
    rng = np.random.default_rng(seed)
    strike = np.sort(rng.choice(np.arange(50.0, 150.0), 20, replace=False))
    calls, puts = rng.integers(0, 50, (2, 20)).astype(np.float64)
    assert max_pain(strike, calls, puts) == strike[np.argmin([payout(at, strike, calls, puts) for at in strike])]


def test_max_pain_takes_strikes_in_any_order_and_adds_up_repeats() -> None:
    assert max_pain([105, 95, 100, 95], [0, 5, 1, 5], [7, 0, 1, 0]) == max_pain([95, 100, 105], [10, 1, 0], [0, 1, 7])


def test_of_equally_painful_strikes_the_lowest() -> None:
    assert max_pain([90, 100, 110], [10, 0, 0], [0, 0, 10]) == 90.0
    assert max_pain([90, 100, 110], [0, 5, 0], [0, 0, 0]) == 90.0
    assert max_pain([90, 100, 110], [0, 0, 0], [0, 5, 0]) == 100.0


@pytest.mark.parametrize(
    ("strike", "calls", "puts"),
    [
        ([], [], []),
        ([90, 100], [0, 0], [0, 0]),
        ([90, 100], [1, NAN], [1, 1]),
        ([90, 100], [1, 1], [-1, 1]),
        ([90, 100], [1, INF], [1, 1]),
        ([90, NAN], [1, 1], [1, 1]),
        ([90, 0], [1, 1], [1, 1]),
    ],
)
def test_max_pain_is_nan_where_it_is_unknown(strike: list[float], calls: list[float], puts: list[float]) -> None:
    assert math.isnan(max_pain(strike, calls, puts))
