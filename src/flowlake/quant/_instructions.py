"""Single machine instructions that Python has no spelling for, for use inside kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir  # type: ignore[import-untyped]
from numba import float64, int64, none, uint64
from numba.extending import intrinsic

WORD = 8
BLOCK = 64
"""Bytes of a word and of a block. A buffer that is read or written by them has as many bytes to spare behind its end."""


@intrinsic
def _fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fma(*args)

    return float64(float64, float64, float64), codegen


@intrinsic
def _bits(typingctx: Any, value: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(64))

    return int64(float64), codegen


@intrinsic
def _double(typingctx: Any, bits: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.DoubleType())

    return float64(int64), codegen


@intrinsic
def _shift_right(typingctx: Any, value: Any, count: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.lshr(*args)

    return int64(int64, int64), codegen


@intrinsic
def _number(typingctx: Any, value: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return args[0]

    return int64(int64), codegen


@intrinsic
def _maximum(typingctx: Any, a: Any, b: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        a, b = args
        return builder.select(builder.fcmp_ordered(">", b, a), b, a)

    return float64(float64, float64), codegen


@intrinsic
def _minimum(typingctx: Any, a: Any, b: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        a, b = args
        return builder.select(builder.fcmp_ordered("<", b, a), b, a)

    return float64(float64, float64), codegen


@intrinsic
def _magnitude(typingctx: Any, value: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.call(builder.module.declare_intrinsic("llvm.fabs", [ir.DoubleType()]), args)

    return float64(float64), codegen


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


@intrinsic
def _leading_zeros(typingctx: Any, word: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctlz(args[0], ir.Constant(ir.IntType(1), 0))

    return int64(uint64), codegen


@intrinsic
def _ones(typingctx: Any, word: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return int64(uint64), codegen


@intrinsic
def _bytes_equal(typingctx: Any, buffer: Any, at: Any, wanted: Any) -> Any:
    block = ir.VectorType(ir.IntType(8), BLOCK)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        loaded = builder.load(builder.bitcast(builder.gep(array.data, [args[1]]), block.as_pointer()))
        loaded.align = 1
        byte = builder.trunc(args[2], ir.IntType(8))
        first = builder.insert_element(ir.Constant(block, ir.Undefined), byte, ir.IntType(32)(0))
        every = builder.shuffle_vector(
            first, ir.Constant(block, ir.Undefined), ir.Constant(ir.VectorType(ir.IntType(32), BLOCK), None)
        )
        return builder.bitcast(builder.icmp_unsigned("==", loaded, every), ir.IntType(64))

    return uint64(buffer, int64, int64), codegen


@intrinsic
def _set_word_at(typingctx: Any, buffer: Any, at: Any, word: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        place = builder.bitcast(builder.gep(array.data, [args[1]]), ir.IntType(64).as_pointer())
        builder.store(args[2], place).align = 1
        return context.get_dummy_value()

    return none(buffer, int64, uint64), codegen


fma = cast(Callable[[float, float, float], float], _fma)
"""fma(a, b, c) = a * b + c, rounded once."""
bits = cast(Callable[[float], int], _bits)
"""The 64 bits of a double, as an integer."""
double = cast(Callable[[int], float], _double)
"""The double with these 64 bits."""
shift_right = cast(Callable[[int, int], int], _shift_right)
"""Logical shift: vector units before AVX-512 have no arithmetic one for 64 bits."""
number = cast(Callable[[int], int], _number)
"""The same integer without a type of its own: numba compiles a function once for every constant that it is called with."""
maximum = cast(Callable[[float, float], float], _maximum)
"""max of two doubles, the first where either is not a number. numba compiles a function for every use of Python's own."""
minimum = cast(Callable[[float, float], float], _minimum)
"""min of two doubles, the first where either is not a number."""
magnitude = cast(Callable[[float], float], _magnitude)
"""abs of a double."""
word_at = cast(Callable[[Any, Any], Any], _word_at)
"""The eight bytes of `buffer` from `at` on, the first the lowest. No bounds are checked."""
trailing_zeros = cast(Callable[[Any], int], _trailing_zeros)
"""Number of zero bits below the lowest one; 64 where there is none."""
leading_zeros = cast(Callable[[Any], int], _leading_zeros)
"""Number of zero bits above the highest one; 64 where there is none."""
ones = cast(Callable[[Any], int], _ones)
"""Number of bits that are one."""
bytes_equal = cast(Callable[[Any, int, int], Any], _bytes_equal)
"""A bit for each byte of the block of `buffer` from `at` on, the first the lowest: whether it is `wanted`. No bounds checks."""
set_word_at = cast(Callable[[Any, int, Any], None], _set_word_at)
"""Puts eight bytes into `buffer` from `at` on, the lowest first. No bounds are checked."""
