"""The parity-implied forward and borrow on clean, stale, American and empty chains."""

from __future__ import annotations

import math
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from flowlake.core.arrays import Float
from flowlake.quant import american, european
from flowlake.quant.forward import STRIKES, implied_borrow, implied_forward, residual_yield

STRIKE = np.arange(70.0, 131.0, 2.5)
DISCOUNT = 0.985


def chain(forward: float = 101.37) -> tuple[Float, Float]:
    vol = 0.2 + 0.3 * np.log(STRIKE / forward) ** 2
    return (
        european.price(forward, STRIKE, 0.25, vol, 1, DISCOUNT),
        european.price(forward, STRIKE, 0.25, vol, -1, DISCOUNT),
    )


def test_a_clean_chain_gives_the_forward() -> None:
    call, put = chain()
    found = implied_forward(STRIKE, call, put, np.ones_like(STRIKE), DISCOUNT)
    assert found.forward == pytest.approx(101.37, abs=1e-10)
    assert found.strikes_used == STRIKE.size
    assert found.dispersion < 1e-10


def test_order_does_not_matter() -> None:
    call, put = chain()
    call = call + np.random.default_rng(3).normal(0, 0.05, call.size)
    order = np.random.default_rng(4).permutation(STRIKE.size)
    one = implied_forward(STRIKE, call, put, np.ones_like(STRIKE), DISCOUNT)
    assert one == implied_forward(STRIKE[order], call[order], put[order], np.ones_like(STRIKE), DISCOUNT)
    assert 0.0 < one.dispersion < 0.2


def test_stale_prints_move_it_hardly_at_all() -> None:
    call, put = chain()
    call[::4] *= 1.6
    put[1] = 9.0
    found = implied_forward(STRIKE, call, put, np.ones_like(STRIKE), DISCOUNT)
    assert found.forward == pytest.approx(101.37, abs=0.02)


def test_early_exercise_premium_far_in_the_money_does_not_drag_it() -> None:
    call, put = chain()
    put = np.maximum(put, STRIKE - 101.37 * DISCOUNT)
    assert implied_forward(STRIKE, call, put, np.ones_like(STRIKE), DISCOUNT).forward == pytest.approx(101.37, abs=0.02)


def test_weights_decide_between_two_camps() -> None:
    strike, put = np.full(5, 100.0), np.full(5, 3.0)
    call = np.array([3.0, 3.0, 3.0, 4.0, 4.0])
    assert implied_forward(strike, call, put, np.ones(5), 1.0).forward == 100.0
    assert implied_forward(strike, call, put, np.array([1, 1, 1, 9, 9.0]), 1.0).forward == 101.0


def test_one_weight_for_all() -> None:
    call, put = chain()
    assert implied_forward(STRIKE, call, put, 1, DISCOUNT) == implied_forward(STRIKE, call, put, np.ones(STRIKE.size), DISCOUNT)
    assert implied_borrow(STRIKE, call, put, 2.0, SPOT, 0.5, RATE, is_american=False).strikes_used == STRIKE.size


def test_strikes_without_both_prices_or_a_weight_do_not_count() -> None:
    call, put = chain()
    call[0], put[1], call[2], put[3] = math.nan, math.nan, 0.0, -1.0
    weights = np.ones_like(STRIKE)
    weights[4], weights[5] = 0.0, math.nan
    found = implied_forward(STRIKE, call, put, weights, DISCOUNT)
    assert found.strikes_used == STRIKE.size - 6
    assert found.forward == pytest.approx(101.37, abs=1e-10)


def test_what_cannot_be_determined_is_nan() -> None:
    empty = implied_forward([], [], [], [], 1.0)
    assert math.isnan(empty.forward)
    assert empty.strikes_used == 0
    one_sided = implied_forward([100.0], [5.0], [math.nan], [1.0], 1.0)
    assert math.isnan(one_sided.forward)
    single = implied_forward([100.0], [5.0], [4.0], [1.0], 1.0)
    assert single.forward == 101.0
    assert math.isnan(single.dispersion)
    for discount in (0.0, -1.0, math.nan, math.inf):
        assert math.isnan(implied_forward([100.0], [5.0], [4.0], [1.0], discount).forward)
    assert math.isnan(implied_forward([1.0], [1.0], [5.0], [1.0], 1.0).forward)


def test_wrong_arguments_raise() -> None:
    with pytest.raises(ValueError, match="of one length"):
        implied_forward([100.0, 101.0], [5.0], [4.0], [1.0], 1.0)
    with pytest.raises(ValueError, match="negative"):
        implied_forward([100.0], [5.0], [4.0], [-1.0], 1.0)


# --- Residual yield and borrow ---------------------------------------------------------------------------------------

SPOT, RATE = 100.0, 0.045
DIVIDENDS = ([0.1, 0.35, 0.6, 0.85], [0.5, 0.5, 0.5, 0.5])
NONE: tuple[list[float], list[float]] = ([], [])


def american_chain(
    borrow: float, years: float, dividends: tuple[list[float], list[float]], is_american: bool = True
) -> tuple[Float, Float]:
    vol = 0.35 - 0.15 * np.log(STRIKE / SPOT) + 0.2 * np.log(STRIKE / SPOT) ** 2
    if is_american:
        call, put = (american.price(SPOT, STRIKE, years, vol, right, RATE, borrow, *dividends) for right in (1, -1))
        return call, put
    held = SPOT - sum(a * math.exp(-RATE * t) for t, a in zip(*dividends, strict=True) if t <= years)
    forward = held * math.exp((RATE - borrow) * years)
    call, put = (european.price(forward, STRIKE, years, vol, right, math.exp(-RATE * years)) for right in (1, -1))
    return call, put


def test_residual_yield_is_what_carry_and_dividends_leave() -> None:
    held = 100.0 - 0.5 * math.exp(-0.045 * 0.1)
    forward = held * math.exp((0.045 - 0.02) * 0.3)
    assert residual_yield(forward, 100.0, 0.3, 0.045, *DIVIDENDS) == pytest.approx(0.02, abs=1e-14)
    years = np.array([0.05, 0.3, 1.0])
    flat = residual_yield(100.0 * np.exp(0.03 * years), 100.0, years, 0.05)
    np.testing.assert_allclose(flat, 0.02, atol=1e-14)
    assert isinstance(residual_yield(100.0, 100.0, 1.0, 0.05), float)


def test_residual_yield_without_an_answer() -> None:
    good = [101.0, 100.0, 0.5, 0.04]
    for i in range(4):
        for bad in (math.nan, math.inf, -math.inf, *((0.0, -1.0) if i < 3 else ())):
            arguments = [*good[:i], bad, *good[i + 1 :]]
            assert math.isnan(residual_yield(*arguments)), arguments
    assert math.isnan(residual_yield(*good, [0.1], [200.0]))
    assert residual_yield(*good, [0.6, -0.1], [200.0, 200.0]) == residual_yield(*good)
    with pytest.raises(ValueError, match="go together"):
        residual_yield(*good, [0.1])
    with pytest.raises(ValueError, match="one length"):
        residual_yield(*good, [0.1], [0.5, 0.5])
    with pytest.raises(ValueError, match="no amount negative"):
        residual_yield(*good, [0.1], [-0.5])


@pytest.mark.parametrize("borrow", [-0.01, 0.0, 0.05, 0.25])
@pytest.mark.parametrize("years", [10 / 365, 0.25, 1.0])
@pytest.mark.parametrize("dividends", [NONE, DIVIDENDS])
def test_the_borrow_of_an_american_chain_comes_back(
    borrow: float, years: float, dividends: tuple[list[float], list[float]]
) -> None:
    call, put = american_chain(borrow, years, dividends)
    found = implied_borrow(STRIKE, call, put, np.ones_like(STRIKE), SPOT, years, RATE, *dividends)
    assert found.borrow == pytest.approx(borrow, abs=1e-4)
    assert residual_yield(found.forward, SPOT, years, RATE, *dividends) == pytest.approx(found.borrow, abs=1e-6)
    assert 0 < found.strikes_used <= STRIKES
    assert found.iterations > 0
    assert found.dispersion < 1e-3


def test_call_and_put_meet_at_the_borrow_and_nowhere_else() -> None:
    call, put = american_chain(0.08, 0.5, DIVIDENDS)
    found = implied_borrow(STRIKE, call, put, np.ones_like(STRIKE), SPOT, 0.5, RATE, *DIVIDENDS).borrow
    at = np.searchsorted(STRIKE, 100.0)

    def gap(borrow: float) -> float:
        vols = [
            american.implied_vol(price[at], SPOT, STRIKE[at], 0.5, right, RATE, borrow, *DIVIDENDS)
            for price, right in ((call, 1), (put, -1))
        ]
        return float(vols[0] - vols[1])

    assert abs(gap(found)) < 1e-4
    assert gap(found + 0.01) > 1e-3
    assert gap(found - 0.01) < -1e-3


def test_reading_american_prices_as_european_misses_the_borrow() -> None:
    """What the correction is for."""
    call, put = american_chain(0.25, 1.0, NONE)
    weights = np.ones_like(STRIKE)
    naive = implied_borrow(STRIKE, call, put, weights, SPOT, 1.0, RATE, is_american=False)
    assert abs(naive.borrow - 0.25) > 0.01
    assert naive.iterations == 0


def test_the_borrow_of_a_european_chain_needs_no_iteration() -> None:
    call, put = american_chain(0.03, 0.5, DIVIDENDS, is_american=False)
    found = implied_borrow(STRIKE, call, put, np.ones_like(STRIKE), SPOT, 0.5, RATE, *DIVIDENDS, is_american=False)
    assert found.borrow == pytest.approx(0.03, abs=1e-10)
    assert found.iterations == 0
    assert found.strikes_used == STRIKE.size


def test_the_borrow_is_blind_to_order_and_stands_stale_prints() -> None:
    call, put = american_chain(0.05, 0.25, DIVIDENDS)
    clean = implied_borrow(STRIKE, call, put, np.ones_like(STRIKE), SPOT, 0.25, RATE, *DIVIDENDS)
    order = np.random.default_rng(4).permutation(STRIKE.size)
    shuffled = implied_borrow(
        STRIKE[order], call[order], put[order], np.ones_like(STRIKE), SPOT, 0.25, RATE, DIVIDENDS[0][::-1], DIVIDENDS[1]
    )
    assert shuffled.borrow == pytest.approx(clean.borrow, abs=1e-12)
    call[10] *= 1.3
    stale = implied_borrow(STRIKE, call, put, np.ones_like(STRIKE), SPOT, 0.25, RATE, *DIVIDENDS)
    assert stale.borrow == pytest.approx(0.05, abs=2e-3)


def test_a_borrow_that_cannot_be_told_is_nan() -> None:
    call, put = american_chain(0.05, 0.25, NONE)
    weights = np.ones_like(STRIKE)
    nothing = implied_borrow([], [], [], [], SPOT, 0.25, RATE)
    assert math.isnan(nothing.borrow)
    assert nothing.strikes_used == 0
    for spot, years, rate in (
        (math.nan, 0.25, RATE),
        (0.0, 0.25, RATE),
        (SPOT, 0.0, RATE),
        (SPOT, math.inf, RATE),
        (SPOT, 0.25, math.nan),
        (SPOT, 0.25, -1e9),
        (SPOT, 0.25, 1e9),
    ):
        for is_american in (True, False):
            found = implied_borrow(STRIKE, call, put, weights, spot, years, rate, is_american=is_american)
            assert math.isnan(found.borrow)
            assert math.isnan(found.forward)
    exercised = implied_borrow(STRIKE, np.maximum(SPOT - STRIKE, 0.01), np.maximum(STRIKE - SPOT, 5.0), weights, SPOT, 0.25, RATE)
    assert math.isnan(exercised.borrow), "every call at its exercise value"


def test_calls_and_puts_of_a_real_american_chain_meet(real_data: Path) -> None:
    """Apple, 8 August 2014: easy to borrow, so that a yield beyond 1 % would be an error; dividends as they were paid later."""
    day, rate = date(2014, 8, 8), 0.0012
    paid = {
        date(2014, 11, 6): 0.47,
        date(2015, 2, 5): 0.47,
        date(2015, 5, 7): 0.52,
        date(2015, 8, 6): 0.52,
        date(2015, 11, 5): 0.52,
    }
    dividends = ([(ex - day).days / 365 for ex in paid], list(paid.values()))
    rows = (
        pl.read_csv(real_data / "optionsuite_ivolatility" / "aapl_sample_ivolatility.csv", infer_schema_length=None)
        .with_columns(pl.col("date", "option_expiration").str.to_date("%m/%d/%Y"), pl.col("strike").cast(pl.Float64))
        .filter((pl.col("date") == day) & (pl.col("bid") > 0))
        .with_columns(((pl.col("bid") + pl.col("ask")) / 2).alias("mid"), (pl.col("ask") - pl.col("bid")).alias("spread"))
    )
    spot = float(rows["stock_price_close"][0])
    calls, puts = (rows.filter(pl.col("call/put") == side).select("option_expiration", "strike", "mid", "spread") for side in "CP")
    pairs = calls.join(puts, on=["option_expiration", "strike"], suffix="_put").sort("option_expiration", "strike")
    expiries = 0
    for (expiry,), group in pairs.group_by("option_expiration", maintain_order=True):
        years = (expiry - day).days / 365
        if years < 28 / 365:
            continue
        strike, call, put = (group[name].to_numpy() for name in ("strike", "mid", "mid_put"))
        weights = 1.0 / (group["spread"] + group["spread_put"]).to_numpy()
        found = implied_borrow(strike, call, put, weights, spot, years, rate, *dividends)
        assert abs(found.borrow) < 0.01
        near = np.abs(np.log(strike / found.forward)) < 0.1
        vols = [
            american.implied_vol(price[near], spot, strike[near], years, right, rate, found.borrow, *dividends)
            for price, right in ((call, 1), (put, -1))
        ]
        assert abs(np.nanmedian(vols[0] - vols[1])) < 0.002
        expiries += 1
    assert expiries == 9
