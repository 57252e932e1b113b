"""What several subjects of the derived layer share: a robust score of a factor, and what is out of the money."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MAD_TO_SIGMA = 1.4826
"""Makes the median absolute deviation of a normal sample an estimate of its standard deviation."""
MIN_HISTORY = 20
"""Past sessions with a value that a robust score, and a percentile, need."""
OTM_DISTANCE = 0.02
"""Log-distance of the strike from spot from which a contract is out of the money for the flow factors."""


@dataclass(frozen=True)
class Scored:
    """A factor with a robust score `<name>_z`.

    `scale`: the score is of ln(1 + x), of ln x (null at 0), of the square root (which evens out the spread of counts that are often
    small) or of x itself. `floor`: the least spread, in the units of the scale,
    or, where `relative`, as a share of the median absolute value of the past: a quiet past cannot make a score explode.
    """

    name: str
    scale: Literal["log1p", "log", "sqrt", "linear"]
    floor: float
    relative: bool = False

    @property
    def column(self) -> str:
        return f"{self.name}_z"

    def describe(self, past_sessions: int) -> str:
        """The score in words; `past_sessions`: how many it may look back."""
        value = {"log1p": f"ln(1 + {self.name})", "log": f"ln({self.name})", "sqrt": f"sqrt({self.name})", "linear": self.name}[
            self.scale
        ]
        floor = f"{self.floor:.0%} of the past's median absolute value" if self.relative else f"{self.floor}"
        return (
            f"({value} - median) / max({MAD_TO_SIGMA} x median absolute deviation, {floor}), both of up to "
            f"{past_sessions} past sessions without this one; null where that spread is 0."
        )
