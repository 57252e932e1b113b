"""The regression of volatility on its own past, against a slow twin and on returns whose law is known."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from scipy.optimize import nnls

from flowlake.core.arrays import Float
from flowlake.datasets.factors import CLOSE_SESSIONS, HAR_MIN_RETURNS
from flowlake.factors.forecasts import har_forecast


def clustered(series: int, sessions: int, seed: int) -> tuple[Float, Float]:
    """Returns whose log variance follows an autoregression, and their daily variances."""
    rng = np.random.default_rng(seed)
    level = rng.normal(0.0, 0.5, series)
    variance = np.empty((series, sessions))
    for t in range(sessions):
        variance[:, t] = 1e-4 * np.exp(level)
        level = 0.95 * level + rng.normal(0.0, 0.25, series)
    return rng.standard_normal((series, sessions)) * np.sqrt(variance), variance


def slow_twin(returns: Float) -> float:
    """Session by session, solved by scipy: an intercept of either sign is two columns."""

    def volatility(first: int, last: int) -> float:
        return float(np.sqrt(np.mean(returns[first : last + 1] ** 2)))

    def regressors(t: int) -> list[float]:
        return [1.0, -1.0, volatility(t, t), volatility(t - 4, t), volatility(t - 21, t)]

    rows = [(regressors(t), volatility(t + 1, t + 21)) for t in range(21, returns.size - 21)]
    whole = [(x, y) for x, y in rows if np.isfinite([*x, y]).all()]
    x, y = np.array([x for x, _ in whole]), np.array([y for _, y in whole])
    forecast = float(np.dot(regressors(returns.size - 1), nnls(x, y)[0]))
    return math.sqrt(252) * min(max(forecast, y.min()), y.max())


def test_it_is_least_squares_with_slopes_that_are_not_negative() -> None:
    returns, _ = clustered(60, CLOSE_SESSIONS - 1, seed=1)
    returns[7, 150] = np.nan
    returns[8, 30:60] = np.nan
    np.testing.assert_allclose(har_forecast(returns), [slow_twin(line) for line in returns], rtol=1e-7)


def test_a_forecast_stays_within_what_the_sample_has_seen() -> None:
    returns, _ = clustered(30, 260, seed=6)
    seen = np.array([[np.sqrt(252 * np.mean(line[t + 1 : t + 22] ** 2)) for t in range(21, 239)] for line in returns])
    wild = returns.copy()
    wild[:, -1] = 0.5
    found = har_forecast(wild)
    with_it = np.sqrt(252 * np.mean(wild[:, -21:] ** 2, axis=1))
    assert (found >= seen.min(axis=1) * (1 - 1e-12)).all()
    assert (found <= np.maximum(seen.max(axis=1), with_it) * (1 + 1e-12)).all()
    assert (found > har_forecast(returns)).any()


def test_the_least_history() -> None:
    returns, _ = clustered(1, HAR_MIN_RETURNS + 1, seed=2)
    assert np.isfinite(har_forecast(returns[:, 1:]))
    assert np.isnan(har_forecast(returns[:, 2:]))
    longer, _ = clustered(4, HAR_MIN_RETURNS + 60, seed=3)
    longer[0, 10] = np.nan  # costs nothing: as many sessions remain as without a gap in 120
    longer[1, 90] = np.nan  # in the middle it takes 43 of the 138 sessions away, which leaves 95
    longer[2, ::20] = np.nan  # no 22 returns without a gap
    longer[3, -22] = np.nan  # the last month is not whole
    assert np.isfinite(har_forecast(longer)).tolist() == [True, True, False, False]


def test_returns_that_do_not_vary_are_their_own_forecast() -> None:
    still = np.zeros((4, 200))
    still[1] = 0.01
    still[2] = np.where(np.arange(200) % 2, 0.01, -0.01)
    still[3] = np.where(np.arange(200) == 5, 0.05, 0.01)  # what came before varies, what followed does not
    np.testing.assert_allclose(har_forecast(still), np.array([0.0, 0.01, 0.01, 0.01]) * math.sqrt(252), rtol=1e-12)


def test_a_series_does_not_depend_on_its_neighbours() -> None:
    returns, _ = clustered(9, 260, seed=4)
    together = har_forecast(returns)
    alone = np.concatenate([har_forecast(line[np.newaxis]) for line in returns])
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(har_forecast(returns[::-1]), together[::-1])
    np.testing.assert_array_equal(har_forecast(np.asfortranarray(returns)), together)


def test_in_a_long_sample_it_comes_near_the_law() -> None:
    """The volatility of a month is a constant plus shares of that of the last day, week and month, and noise that nobody knows."""
    rng = np.random.default_rng(5)
    series, months = 40, 600
    returns = rng.normal(0.0, 0.01, (series, 22))
    truth = np.zeros(series)
    for _ in range(months):
        day, week, month = np.abs(returns[:, -1]), _rms(returns[:, -5:]), _rms(returns[:, -22:])
        truth = 0.003 + 0.10 * day + 0.25 * week + 0.35 * month
        returns = np.column_stack([returns, rng.standard_normal((series, 22)) * truth[:, np.newaxis]])
    known = returns[:, :-22]
    forecast = har_forecast(known) / math.sqrt(252)
    constant = _rms(known)
    error, of_constant = _rms((forecast - truth)[np.newaxis])[0], _rms((constant - truth)[np.newaxis])[0]
    assert error < 0.5 * of_constant, (error, of_constant)


def _rms(values: Float) -> Float:
    return np.asarray(np.sqrt(np.mean(values**2, axis=1)))


def test_on_the_sp_500_it_errs_no_more_than_the_last_month(real_data: Path) -> None:
    """Ten years of closes: the figures that the methods state. Unbounded least squares would be far off in March 2020."""
    closes = pl.read_csv(real_data / "cboe_snapshots" / "ohlc_spx.csv")["c"].to_numpy()
    returns = np.diff(np.log(closes))
    known = sliding_window_view(returns, CLOSE_SESSIONS - 1)[:-21:5]
    ahead = sliding_window_view(returns, 21)[CLOSE_SESSIONS - 1 :: 5]
    truth = math.sqrt(252) * _rms(ahead)
    error, last_month = har_forecast(known) - truth, math.sqrt(252) * _rms(known[:, -20:]) - truth
    assert len(truth) > 400
    assert np.abs(error).mean() == pytest.approx(0.062, abs=0.001)
    assert _rms(error[np.newaxis])[0] == pytest.approx(0.107, abs=0.001)
    assert _rms(error[np.newaxis])[0] < 1.01 * _rms(last_month[np.newaxis])[0]
