"""Text eight bytes at a time, inside kernels: a loop over single bytes is bound by its branches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import int64, uint64
from numba.extending import intrinsic

from flowlake.quant._compile import inlined

WORD = 8
"""Bytes of a word. A buffer that is read by words has as many bytes to spare behind its end."""


@intrinsic
def _word_at(typingctx: Any, buffer: Any, at: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        place = builder.bitcast(builder.gep(array.data, [args[1]]), ir.IntType(64).as_pointer())
        loaded = builder.load(place)
        loaded.align = 1
        return loaded

    return uint64(buffer, int64), codegen


@intrinsic
def _trailing_zeros(typingctx: Any, word: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return int64(uint64), codegen


word_at = cast(Callable[[Any, int], Any], _word_at)
"""The eight bytes of `buffer` from `at` on, the first the lowest. No bounds are checked."""
trailing_zeros = cast(Callable[[Any], int], _trailing_zeros)
"""Number of zero bits below the lowest one; 64 where there is none."""

_HIGH = np.uint64(0x8080808080808080)
_LOW = np.uint64(0x0101010101010101)
_ZEROS = np.uint64(0x3030303030303030)
_ABOVE_NINE = np.uint64(0x7676767676767676)
_PAIR = np.uint64(0x000000FF000000FF)


@inlined
def first_byte(word: Any, wanted: Any) -> int:
    """Place of the first byte `wanted` in a word; 8 where there is none."""
    differs = word ^ (_LOW * wanted)
    return trailing_zeros((differs - _LOW) & ~differs & _HIGH) >> 3


@inlined
def digits_of(word: Any) -> int:
    """How many digits a word begins with, up to eight."""
    value = word ^ _ZEROS
    return trailing_zeros(((value + _ABOVE_NINE) | value) & _HIGH) >> 3


@inlined
def number_of(word: Any, digits: int) -> Any:
    """The number that the first `digits` (1 to 8) bytes of a word spell."""
    value = (word ^ _ZEROS) << np.uint64(64 - 8 * digits)
    value = value * np.uint64(10) + (value >> np.uint64(8))
    upper = (value & _PAIR) * np.uint64(0x000F424000000064)
    lower = ((value >> np.uint64(16)) & _PAIR) * np.uint64(0x0000271000000001)
    return (upper + lower) >> np.uint64(32)
