"""Figures printed in Gatheral and Jacquier, "Arbitrage-free SVI volatility surfaces" (arXiv 1204.0646): examples 3.1 and 5.1."""

from __future__ import annotations

import math

import numpy as np
import pytest

from flowlake.quant.surface import JumpWings, Svi, lowest_g, svi_from_jump_wings, svi_g, svi_to_jump_wings, svi_total_variance

VOGT = Svi(a=-0.0410, b=0.1331, rho=0.3060, m=0.3586, sigma=0.4153)
PRINTED = JumpWings(0.01742625, -0.1752111, 0.6997381, 1.316798, 0.0116249)


def to_figures(value: float, figures: int) -> float:
    return round(value, figures - 1 - math.floor(math.log10(abs(value))))


def test_the_slice_of_vogt_has_a_positive_variance_and_butterfly_arbitrage() -> None:
    k = np.linspace(-1.5, 1.5, 3001)
    assert (svi_total_variance(k, *VOGT) > 0.0).all()
    negative = k[svi_g(k, *VOGT) < 0.0]
    assert 0.6 < negative.min() < 0.7
    assert 1.2 < negative.max() < 1.3
    assert (np.diff(negative) < 0.0011).all(), "one stretch"
    assert lowest_g(VOGT) == pytest.approx(float(svi_g(k, *VOGT).min()), abs=1e-7)
    assert lowest_g(VOGT) < -0.03


def test_its_jump_wings_are_those_printed() -> None:
    found = svi_to_jump_wings(VOGT, 1.0)
    for value, printed, figures in zip(found, PRINTED, (7, 7, 7, 7, 6), strict=True):
        assert to_figures(value, figures) == printed


def test_the_repaired_slice_has_none() -> None:
    """Call wing p + 2 psi and lowest variance 4 v p c / (p + c)^2 keep level, skew and put wing."""
    wings = svi_to_jump_wings(VOGT, 1.0)
    call = wings.put_wing + 2.0 * wings.skew
    lowest = 4.0 * wings.variance * wings.put_wing * call / (wings.put_wing + call) ** 2
    assert to_figures(call, 7) == 0.3493158
    assert to_figures(lowest, 7) == 0.01548182
    repaired = svi_from_jump_wings(wings._replace(call_wing=call, lowest_variance=lowest), 1.0)
    assert lowest_g(repaired) > 0.2
    assert svi_total_variance(0.0, *repaired) == pytest.approx(float(svi_total_variance(0.0, *VOGT)), rel=1e-14)


def test_the_printed_optimum_has_none() -> None:
    optimum = svi_from_jump_wings(PRINTED._replace(call_wing=0.8564763), 1.0)
    assert 0.0 < lowest_g(optimum) < 0.02
