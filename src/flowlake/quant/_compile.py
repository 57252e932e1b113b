"""How every kernel of this package is compiled.

`cache=True` keeps the machine code beside the source, so that a second process starts at once. `error_model="numpy"` makes a
division by zero give inf or NaN instead of a branch that raises, without which no loop is vectorised. No fast-math flag is set:
sums and products are never reordered or fused behind our back, and a result depends on neither its place in the array nor the width
of the machine's vectors. Where a fused multiply-add is wanted it is written as one (`_instructions.fma`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

from numba import njit

P = ParamSpec("P")
T = TypeVar("T")


def kernel(function: Callable[P, T]) -> Callable[P, T]:
    """Compile a loop over arrays; it releases the interpreter lock while it runs."""
    compiled = njit(cache=True, error_model="numpy", nogil=True)(function)
    return cast(Callable[P, T], compiled)


def inlined(function: Callable[P, T]) -> Callable[P, T]:
    """Compile a scalar piece of a kernel, always inlined: a call inside a loop stops its vectorisation."""
    compiled = njit(cache=True, error_model="numpy", nogil=True, forceinline=True)(function)
    return cast(Callable[P, T], compiled)
