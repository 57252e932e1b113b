"""Names for the array types that public functions take and give."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Bool = NDArray[np.bool_]
AnyArray = NDArray[Any]

__all__ = ["AnyArray", "ArrayLike", "Bool", "Float", "Int"]
