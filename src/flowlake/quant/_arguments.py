"""What the public functions do to their arguments before a kernel sees them."""

from __future__ import annotations

import numpy as np

from flowlake.core.arrays import ArrayLike, Float


def broadcast(*values: ArrayLike) -> tuple[tuple[int, ...], list[Float]]:
    """Broadcast the arguments against each other; give the common shape and each as one contiguous float64 vector."""
    arrays = np.broadcast_arrays(*(np.asarray(value, dtype=np.float64) for value in values))
    return arrays[0].shape, [np.ascontiguousarray(array).reshape(-1) for array in arrays]


def checked_right(right: ArrayLike) -> Float:
    """The option right as float64, +1 for a call and -1 for a put.

    Raises ValueError for anything else.
    """
    try:
        values = np.asarray(right, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError("right must be +1 for a call or -1 for a put, not text: map 'C' to 1 and 'P' to -1") from error
    wrong = np.abs(values) != 1.0
    if wrong.any():
        raise ValueError(f"right must be +1 for a call or -1 for a put; found {values[wrong].flat[0]:g}")
    return values
