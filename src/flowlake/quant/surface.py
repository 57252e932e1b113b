"""The volatility surface: everything that reads, fits and interpolates it, under one name.

`smile` reads raw points, `svi` fits and tests slices, `nodes` turns the chain of an underlying into constant maturities.
"""

from flowlake.quant.nodes import (
    NODES,
    TENOR_DAYS,
    ZERO_DTE_YEARS,
    NodeReason,
    SurfaceNodes,
    surface_nodes,
)
from flowlake.quant.smile import (
    SmilePoint,
    at_the_money,
    butterfly,
    delta_strike_vol,
    interpolate,
    risk_reversal,
    skew,
    term_slope,
)
from flowlake.quant.svi import (
    FitReason,
    JumpWings,
    Svi,
    SviFit,
    calendar_violation,
    fit_svi,
    lowest_g,
    svi_at_the_money,
    svi_butterfly,
    svi_delta_strike_vol,
    svi_from_jump_wings,
    svi_g,
    svi_risk_reversal,
    svi_skew,
    svi_to_jump_wings,
    svi_total_variance,
)

__all__ = [
    "NODES",
    "TENOR_DAYS",
    "ZERO_DTE_YEARS",
    "FitReason",
    "JumpWings",
    "NodeReason",
    "SmilePoint",
    "SurfaceNodes",
    "Svi",
    "SviFit",
    "at_the_money",
    "butterfly",
    "calendar_violation",
    "delta_strike_vol",
    "fit_svi",
    "interpolate",
    "lowest_g",
    "risk_reversal",
    "skew",
    "surface_nodes",
    "svi_at_the_money",
    "svi_butterfly",
    "svi_delta_strike_vol",
    "svi_from_jump_wings",
    "svi_g",
    "svi_risk_reversal",
    "svi_skew",
    "svi_to_jump_wings",
    "svi_total_variance",
    "term_slope",
]
