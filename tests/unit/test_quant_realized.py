"""Realised-volatility estimators: by hand on few bars, against the truth on many, and what they abstain from."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from flowlake.core.arrays import Float
from flowlake.quant import realized

NAMES = ("close_to_close", "parkinson", "garman_klass", "rogers_satchell", "yang_zhang")
OPEN = np.array([100.0, 103.0, 101.0, 99.0])
HIGH = np.array([104.0, 105.0, 102.0, 103.0])
LOW = np.array([99.0, 100.0, 98.0, 98.5])
CLOSE = np.array([102.0, 101.5, 98.5, 102.5])


def single(name: str) -> Callable[..., float]:
    return getattr(realized, name)


def rolling(name: str) -> Callable[..., Float]:
    return getattr(realized, f"rolling_{name}")


def by_hand() -> dict[str, float]:
    o, h, lo, c = (np.log(a).tolist() for a in (OPEN, HIGH, LOW, CLOSE))
    n = range(4)

    def variance(values: list[float]) -> float:
        mean = sum(values) / len(values)
        return sum((v - mean) ** 2 for v in values) / (len(values) - 1)

    def rs(rows: range) -> float:
        return sum((h[i] - c[i]) * (h[i] - o[i]) + (lo[i] - c[i]) * (lo[i] - o[i]) for i in rows) / len(rows)

    later = range(1, 4)
    k = 0.34 / (1.34 + 4 / 2)
    yz = variance([o[i] - c[i - 1] for i in later]) + k * variance([c[i] - o[i] for i in later]) + (1 - k) * rs(later)
    per_bar = {
        "close_to_close": variance([c[i] - c[i - 1] for i in later]),
        "parkinson": sum((h[i] - lo[i]) ** 2 for i in n) / (4 * 4 * math.log(2)),
        "garman_klass": sum(0.5 * (h[i] - lo[i]) ** 2 - (2 * math.log(2) - 1) * (c[i] - o[i]) ** 2 for i in n) / 4,
        "rogers_satchell": rs(n),
        "yang_zhang": yz,
    }
    return {name: math.sqrt(252 * value) for name, value in per_bar.items()}


@pytest.mark.parametrize("name", NAMES)
def test_by_hand(name: str) -> None:
    assert single(name)(OPEN, HIGH, LOW, CLOSE) == pytest.approx(by_hand()[name], rel=1e-12)
    assert single(name)(OPEN, HIGH, LOW, CLOSE, 1) == pytest.approx(by_hand()[name] / math.sqrt(252), rel=1e-12)


def simulated(days: int, steps: int, vol: float, gap_share: float, drift: float) -> tuple[Float, Float, Float, Float]:
    """Daily bars of a geometric Brownian motion, `gap_share` of whose variance falls between close and open."""
    rng = np.random.default_rng(11)
    daily = vol**2 / 252
    gap = rng.normal(0.0, math.sqrt(daily * gap_share), days)
    moves = rng.normal(drift / 252 / steps, math.sqrt(daily * (1 - gap_share) / steps), (days, steps))
    inside = np.concatenate([np.zeros((days, 1)), np.cumsum(moves, axis=1)], axis=1)
    start = np.concatenate([[0.0], np.cumsum(gap + inside[:, -1])[:-1]]) + gap
    path = 100.0 * np.exp(start[:, np.newaxis] + inside)
    return path[:, 0], path.max(axis=1), path.min(axis=1), path[:, -1]


@pytest.mark.parametrize(
    ("name", "gap_share", "drift"),
    [
        ("close_to_close", 0.3, 0.0),
        ("parkinson", 0.0, 0.0),
        ("garman_klass", 0.0, 0.0),
        ("rogers_satchell", 0.0, 2.0),
        ("yang_zhang", 0.3, 2.0),
    ],
)
def test_finds_the_vol_of_a_long_path_in_its_own_setting(name: str, gap_share: float, drift: float) -> None:
    bars = simulated(4000, 400, 0.32, gap_share, drift)
    # A discrete path misses a little of its range: up to 5 % at 400 steps.
    assert single(name)(*bars) == pytest.approx(0.32, rel=0.055)


@pytest.mark.parametrize("name", NAMES)
def test_rolling_is_the_single_estimate_of_every_window(name: str) -> None:
    bars = simulated(40, 20, 0.2, 0.1, 0.0)
    values = rolling(name)(*bars, 10, 252)
    assert values.shape == (40,)
    assert np.isnan(values[:9]).all()
    singles = [single(name)(*(a[i - 9 : i + 1] for a in bars)) for i in range(9, 40)]
    np.testing.assert_array_equal(values[9:], singles)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("column", "value"), [(0, math.nan), (1, math.inf), (2, 0.0), (2, -1.0), (3, math.nan), (1, 90.0), (3, 140.0)]
)
def test_a_bar_that_is_not_one_makes_its_windows_nan_and_no_other(name: str, column: int, value: float) -> None:
    bars = [a.copy() for a in simulated(30, 20, 0.2, 0.1, 0.0)]
    bars[column][12] = value
    assert math.isnan(single(name)(*bars))
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(rolling(name)(*bars, 5))), [*range(4), *range(12, 17)])


@pytest.mark.parametrize("name", NAMES)
def test_too_few_bars(name: str) -> None:
    fewest = 3 if name in ("close_to_close", "yang_zhang") else 1
    bars = (OPEN, HIGH, LOW, CLOSE)
    assert math.isnan(single(name)(*(a[: fewest - 1] for a in bars)))
    assert not math.isnan(single(name)(*(a[:fewest] for a in bars)))
    assert np.isnan(rolling(name)(*bars, 5)).all()
    with pytest.raises(ValueError, match=f"at least {fewest} bars"):
        rolling(name)(*bars, fewest - 1)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="of one length"):
        realized.parkinson(OPEN, HIGH, LOW[:2], CLOSE)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("periods", [0, -1, math.nan, math.inf])
def test_periods_must_be_positive(name: str, periods: float) -> None:
    with pytest.raises(ValueError, match="periods_per_year must be a positive number"):
        single(name)(OPEN, HIGH, LOW, CLOSE, periods)
    with pytest.raises(ValueError, match="periods_per_year must be a positive number"):
        rolling(name)(OPEN, HIGH, LOW, CLOSE, 3, periods)


def test_garman_klass_is_close_to_its_best_form() -> None:
    # The weights that Garman and Klass (1980) give for the least variance.
    o, h, lo, c = (np.log(bars) for bars in simulated(4000, 100, 0.32, 0.0, 0.0))
    up, down, close = h - o, lo - o, c - o
    best = 0.511 * (up - down) ** 2 - 0.019 * (close * (up + down) - 2.0 * up * down) - 0.383 * close**2
    practical = realized.garman_klass(*np.exp([o, h, lo, c]))
    assert practical == pytest.approx(math.sqrt(252 * best.mean()), rel=2e-3)


@pytest.mark.parametrize("name", NAMES)
def test_the_currency_does_not_matter_and_nor_does_a_flat_price(name: str) -> None:
    bars = simulated(30, 20, 0.2, 0.1, 0.0)
    assert single(name)(*(4.0 * a for a in bars)) == pytest.approx(single(name)(*bars), rel=1e-12)
    assert single(name)(*np.full((4, 10), 50.0)) == 0.0
