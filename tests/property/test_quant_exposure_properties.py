"""What must hold of every exposure and arbitrage check, whatever the inputs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowlake.core.arrays import Float
from flowlake.quant.exposure import DYNAMICS, by_strike, dealer_position, gamma_exposure, gamma_flip, gamma_profile, max_pain
from flowlake.quant.parity import american_calendar, american_parity, butterfly, european_parity, theoretical, vertical

NAMES = ("strike", "years", "vol", "open_interest", "right", "rate", "dividend_yield")
anything = st.one_of(
    st.floats(),
    st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf, 5e-324, 1e-300, 1e-12, 1.0, 100.0, 1e300, -1.0]),
)
rights = st.sampled_from([1.0, -1.0])
minute = 1.0 / 525_600
line = st.tuples(
    st.sampled_from([80.0, 95.0, 100.0, 102.5, 130.0]),
    st.sampled_from([minute, 1 / 365, 0.25, 2.0]),
    st.floats(0.05, 1.5),
    st.floats(0.0, 1e4),
    rights,
    st.floats(-0.02, 0.1),
    st.floats(-0.02, 0.1),
)
lines = st.lists(line, min_size=1, max_size=12)
odd_line = st.tuples(anything, anything, anything, anything, rights, anything, anything)


def columns(rows: list[tuple[float, ...]]) -> dict[str, Any]:
    return dict(zip(NAMES, np.array(rows, dtype=np.float64).reshape(-1, 7).T, strict=True))


@settings(max_examples=150)
@given(rows=lines, dynamics=st.sampled_from(DYNAMICS), data=st.data())
def test_the_order_of_the_lines_changes_no_byte(rows: list[tuple[float, ...]], dynamics: str, data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(rows))
    one, other = (gamma_profile(100.0, **columns(r), dynamics=dynamics, points=9) for r in (rows, shuffled))
    assert one.exposure_usd.tobytes() == other.exposure_usd.tobytes()
    assert one[2:] == other[2:]
    flips = [gamma_flip(100.0, **columns(r), dynamics=dynamics, points=41) for r in (rows, shuffled)]
    assert flips[0].tobytes() == flips[1].tobytes()
    sums = [by_strike(c["strike"], c["vol"], c["right"]) for c in (columns(rows), columns(shuffled))]
    assert all(a.tobytes() == b.tobytes() for a, b in zip(*sums, strict=True))
    pains = [max_pain(c["strike"], c["open_interest"], c["vol"]) for c in (columns(rows), columns(shuffled))]
    assert pains[0] == pains[1]


@settings(max_examples=150)
@given(rows=lines, dynamics=st.sampled_from(DYNAMICS))
def test_the_opposite_convention_has_the_opposite_sign_and_absolute_bounds_both(
    rows: list[tuple[float, ...]], dynamics: str
) -> None:
    def profile(convention: str) -> Float:
        return gamma_profile(100.0, **columns(rows), convention=convention, dynamics=dynamics, points=9).exposure_usd

    naive, opposite, absolute = (profile(name) for name in ("long_calls_short_puts", "short_calls_long_puts", "absolute"))
    np.testing.assert_allclose(opposite, -naive, rtol=1e-12, atol=1e-12 * absolute.max(initial=0.0))
    assert (absolute >= 0.0).all()
    assert (np.abs(naive) <= absolute * (1.0 + 1e-12)).all()


@settings(max_examples=100)
@given(rows=lines, scale=st.sampled_from([0.5, 4.0]), dynamics=st.sampled_from(DYNAMICS))
def test_a_chain_of_another_scale_flips_at_that_scale(rows: list[tuple[float, ...]], scale: float, dynamics: str) -> None:
    one = columns(rows)
    other = one | {"strike": scale * one["strike"]}
    here, there = (gamma_profile(s, **c, dynamics=dynamics, points=9) for s, c in ((100.0, one), (scale * 100.0, other)))
    np.testing.assert_allclose(there.spot, scale * here.spot, rtol=1e-12)
    np.testing.assert_allclose(
        there.exposure_usd, scale * here.exposure_usd, rtol=1e-6, atol=1e-6 * np.abs(here.exposure_usd).max(initial=0.0)
    )


@settings(max_examples=150)
@given(rows=lines, dynamics=st.sampled_from(DYNAMICS))
def test_the_sign_differs_on_both_sides_of_every_flip(rows: list[tuple[float, ...]], dynamics: str) -> None:
    chain = columns(rows)
    flips = gamma_flip(100.0, **chain, dynamics=dynamics, points=201)
    assert (np.diff(flips) > 0.0).all()
    assert ((flips >= 50.0) & (flips <= 150.0 * (1 + 1e-12))).all()
    if (
        not ((chain["right"] > 0) & (chain["open_interest"] > 0)).any()
        or not ((chain["right"] < 0) & (chain["open_interest"] > 0)).any()
    ):
        assert flips.size == 0
    again = gamma_flip(100.0, **chain, dynamics=dynamics, points=201, convention="short_calls_long_puts")
    np.testing.assert_allclose(again, flips, rtol=1e-9)


@settings(max_examples=300)
@given(rows=st.lists(odd_line, max_size=5), spot=anything, dynamics=st.sampled_from(DYNAMICS))
def test_any_chain_gives_a_finite_profile_that_counts_every_line(rows: list[tuple[float, ...]], spot: float, dynamics: str) -> None:
    found = gamma_profile(spot, **columns(rows), dynamics=dynamics, points=5)
    assert found.contracts_used + found.contracts_left_out == len(rows)
    assert not np.isnan(found.exposure_usd).any()
    assert np.isfinite(gamma_flip(spot, **columns(rows), dynamics=dynamics, points=5)).all()


@settings(max_examples=300)
@given(gamma=anything, contracts=anything, spot=anything, right=rights, multiplier=anything, bought=anything)
def test_any_line_gives_a_number_or_nan(
    gamma: float, contracts: float, spot: float, right: float, multiplier: float, bought: float
) -> None:
    known = (
        all(math.isfinite(v) for v in (gamma, contracts, spot, multiplier)) and contracts >= 0.0 and spot > 0.0 and multiplier > 0.0
    )
    value = float(gamma_exposure(gamma, contracts, spot, right, multiplier))
    # Zero times what has overflowed is NaN too; no option is near that.
    assert known or math.isnan(value)
    held = float(dealer_position(contracts, right, "flow_signed", bought))
    if contracts >= 0.0 and math.isfinite(contracts) and not math.isnan(bought):
        assert abs(held) <= contracts
        assert held * bought <= 0.0 or held == 0.0
    else:
        assert math.isnan(held)


@settings(max_examples=200)
@given(rows=st.lists(st.tuples(anything, anything, anything), max_size=6))
def test_max_pain_is_a_strike_or_nan(rows: list[tuple[float, float, float]]) -> None:
    strike, calls, puts = np.array(rows, dtype=np.float64).reshape(-1, 3).T
    found = max_pain(strike, calls, puts)
    assert math.isnan(found) or found in strike


@settings(max_examples=300)
@given(
    quotes=st.tuples(anything, anything, anything, anything),
    spot=anything,
    strike=anything,
    years=anything,
    rate=anything,
    q=anything,
)
@pytest.mark.parametrize("parity", [european_parity, american_parity])
def test_a_severity_is_never_negative(
    parity: Any, quotes: tuple[float, float, float, float], spot: float, strike: float, years: float, rate: float, q: float
) -> None:
    found = parity(*quotes, spot, strike, years, rate, q)
    for value in found[3:]:
        assert value >= 0.0 or math.isnan(value)
    assert not found.lower_usd > found.upper_usd + 1e-9 * abs(found.upper_usd)
    later = american_calendar(*quotes)
    assert later >= 0.0 or math.isnan(later)


@settings(max_examples=300)
@given(rows=st.lists(st.tuples(anything, anything), max_size=6), right=st.sampled_from([1, -1]), data=st.data())
def test_chains_of_any_quotes_in_any_order(rows: list[tuple[float, float]], right: int, data: st.DataObject) -> None:
    strike = 90.0 + 2.5 * np.arange(len(rows))
    bid, ask = np.array(rows, dtype=np.float64).reshape(-1, 2).T
    order = np.array(data.draw(st.permutations(range(len(rows)))), dtype=np.int64)
    for one, other in (
        (vertical(strike, bid, ask, right), vertical(strike[order], bid[order], ask[order], right)),
        (butterfly(strike, bid, ask), butterfly(strike[order], bid[order], ask[order])),
    ):
        assert (np.isnan(one.severity_usd) | (one.severity_usd >= 0.0)).all()
        assert all(a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True))


@settings(max_examples=200)
@given(model=anything, bid=anything, ask=anything)
def test_the_edge_lies_beyond_the_quote(model: float, bid: float, ask: float) -> None:
    found = theoretical(model, bid, ask)
    assert math.isnan(found.edge_usd) or abs(found.edge_usd) <= abs(found.difference_usd) + 1e-300
    inside = bid <= model <= ask
    assert math.isnan(found.edge_usd) or (found.edge_usd == 0.0) == inside
