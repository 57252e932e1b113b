"""Single machine instructions that Python has no spelling for, for use inside kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir  # type: ignore[import-untyped]
from numba import float64, int64
from numba.extending import intrinsic


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
