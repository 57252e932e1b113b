"""What dealers' option positions add up to, under a stated assumption about which side they hold."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from flowlake.core.arrays import ArrayLike, Float
from flowlake.quant._arguments import checked_right

DEALER_SIDES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "long_calls_short_puts": (1.0, -1.0),
        "short_calls_long_puts": (-1.0, 1.0),
        "absolute": (1.0, 1.0),
    }
)
"""Sign of the dealers' position in (calls, puts) by convention.

Open interest does not tell who is long. `long_calls_short_puts` supposes that customers sell calls over their shares and
buy puts to protect them; `short_calls_long_puts` is its opposite; `absolute` takes no side and measures size alone.
"""

_PER_CENT = 0.01


def gamma_exposure(
    gamma: ArrayLike,
    open_interest: ArrayLike,
    spot: ArrayLike,
    right: ArrayLike,
    multiplier: ArrayLike = 100,
    convention: str = "long_calls_short_puts",
) -> Float:
    """Dollars of the underlying by which the dealers' delta changes when the spot rises by 1 %, per contract line.

    sign x gamma x open_interest x multiplier x spot^2 x 0.01, with gamma per share and open interest in contracts. Positive:
    dealers sell into a rise and dampen it. Arguments broadcast; NaN in, NaN out. Raises ValueError for an unknown convention
    (`DEALER_SIDES` lists them) and for a right other than +1 or -1.
    """
    if convention not in DEALER_SIDES:
        raise ValueError(f"unknown dealer convention {convention!r}; known: {', '.join(DEALER_SIDES)}")
    call_sign, put_sign = DEALER_SIDES[convention]
    sign = np.where(checked_right(right) > 0.0, call_sign, put_sign)
    g, contracts, s, shares = (np.asarray(v, dtype=np.float64) for v in (gamma, open_interest, spot, multiplier))
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(sign * g * contracts * shares * s * s * _PER_CENT)[()]
