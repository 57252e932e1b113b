"""How every kernel of this package is compiled.

`cache=True` keeps the machine code beside the source, so that a second process starts at once; `python -m flowlake.quant` fills the
cache. `error_model="numpy"` makes a division by zero give inf or NaN instead of a branch that raises, without which no loop is
vectorised. `no_rewrites=True` leaves out what fuses expressions of whole arrays, of which there are none, and compiles faster. No
fast-math flag is set: sums and products are never reordered or fused behind our back, and a result depends on neither its place in
the array nor the width of the machine's vectors. Where a fused multiply-add is wanted it is written as one (`_instructions.fma`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, ParamSpec, TypeVar, cast

from numba import cfunc, njit

P = ParamSpec("P")
T = TypeVar("T")

_HOW: dict[str, Any] = {"error_model": "numpy", "no_rewrites": True, "nogil": True}
# For functions that only kernels call: what Python would need to call them takes half of the time to compile them. Without that a
# call from Python ends the process.
_WITHOUT_WRAPPERS: dict[str, Any] = _HOW | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def kernel(function: Callable[P, T]) -> Callable[P, T]:
    """Compile a loop over arrays; it releases the interpreter lock while it runs."""
    compiled = njit(cache=True, **_HOW)(function)
    return cast(Callable[P, T], compiled)


def part(function: Callable[P, T]) -> Callable[P, T]:
    """Compile a function that kernels call and Python does not; nothing of it is kept on disk, where what calls it contains it."""
    compiled = njit(**_WITHOUT_WRAPPERS)(function)
    return cast(Callable[P, T], compiled)


def inlined(function: Callable[P, T]) -> Callable[P, T]:
    """As `part`, always inlined: a call inside a loop stops its vectorisation."""
    compiled = njit(forceinline=True, **_WITHOUT_WRAPPERS)(function)
    return cast(Callable[P, T], compiled)


def by_address(signature: str, function: Callable[P, T]) -> Callable[[], Callable[P, T]]:
    """What gives the compiled `function` as an argument for kernels, which then call it through its address.

    A kernel that calls another by name takes in the code of it, and has it optimised once more, at every level. Behind an address
    a large function is compiled once. `signature` is numba's.
    """

    @cache
    def compiled() -> Callable[P, T]:
        return cast(Callable[P, T], cfunc(signature, cache=True, **_HOW)(function))

    return compiled
