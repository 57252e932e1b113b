"""The values on the nodes of a grid as one value in registers, for use inside kernels.

Forty doubles, five vectors of eight. Rolled back in memory, each load of a step would overlap two stores of the step before it, and
wait until both have left for the cache. LLVM splits the vectors where the machine's are shorter; results are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

from flowlake.core.arrays import Float

LANES = 8
VECTORS = 5
NODES = LANES * VECTORS

_VECTOR = ir.VectorType(ir.DoubleType(), LANES)
_ALL = ir.ArrayType(_VECTOR, VECTORS)


class Nodes:
    """What `load` gives: to Python a name for annotations only."""


class _NodesType(types.Type):
    def __init__(self) -> None:
        super().__init__(name="Nodes")


_nodes = _NodesType()


@register_model(_NodesType)
class _NodesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _ALL)  # type: ignore[no-untyped-call]


def _parts(builder: Any, value: Any) -> list[Any]:
    return [builder.extract_value(value, n) for n in range(VECTORS)]


def _joined(builder: Any, parts: list[Any]) -> Any:
    value = ir.Constant(_ALL, ir.Undefined)
    for n, part in enumerate(parts):
        value = builder.insert_value(value, part, n)
    return value


def _shuffled(builder: Any, first: Any, second: Any, lanes: list[int]) -> Any:
    return builder.shuffle_vector(first, second, ir.Constant(ir.VectorType(ir.IntType(32), LANES), lanes))


def _on_all(builder: Any, scalar: Any) -> Any:
    single = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    return _shuffled(builder, single, single, [0] * LANES)


def _fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    kind, name = ir.FunctionType(_VECTOR, [_VECTOR] * 3), f"llvm.fma.v{LANES}f64"
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [a, b, c])  # type: ignore[no-untyped-call]


def _places(context: Any, builder: Any, array_type: Any, array: Any, at: Any) -> list[Any]:
    data = context.make_array(array_type)(context, builder, array).data
    first = builder.gep(data, [at])
    places = (builder.gep(first, [ir.Constant(ir.IntType(64), n * LANES)]) for n in range(VECTORS))
    return [builder.bitcast(place, _VECTOR.as_pointer()) for place in places]


@intrinsic
def _load(typingctx: Any, array: Any, at: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _joined(builder, [builder.load(p, align=8) for p in _places(context, builder, signature.args[0], *args)])

    return _nodes(array, types.int64), codegen


@intrinsic
def _store(typingctx: Any, array: Any, at: Any, nodes: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array, at, nodes = args
        places = _places(context, builder, signature.args[0], array, at)
        for place, part in zip(places, _parts(builder, nodes), strict=True):
            builder.store(part, place, align=8)
        return context.get_dummy_value()

    return types.void(array, types.int64, _nodes), codegen


@intrinsic
def _waited(typingctx: Any, nodes: Any, up: Any, stay: Any, down: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        here = _parts(builder, args[0])
        up, stay, down = (_on_all(builder, scalar) for scalar in args[1:])
        waited = []
        for n, part in enumerate(here):
            above, below = list(range(1, LANES + 1)), list(range(LANES - 1, 2 * LANES - 1))
            if n == 0:
                above[0], below[0] = 0, LANES
            if n == VECTORS - 1:
                above[-1], below[-1] = LANES - 1, 2 * LANES - 1
            moved_up = _shuffled(builder, part, here[min(n + 1, VECTORS - 1)], above)
            moved_down = _shuffled(builder, here[max(n - 1, 0)], part, below)
            waited.append(_fma(builder, up, moved_up, _fma(builder, stay, part, builder.fmul(down, moved_down))))
        return _joined(builder, waited)

    return _nodes(_nodes, *[types.float64] * 3), codegen


@intrinsic
def _line(typingctx: Any, nodes: Any, slope: Any, level: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        slope, level = (_on_all(builder, scalar) for scalar in args[1:])
        return _joined(builder, [_fma(builder, slope, part, level) for part in _parts(builder, args[0])])

    return _nodes(_nodes, types.float64, types.float64), codegen


@intrinsic
def _larger(typingctx: Any, one: Any, other: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pairs = zip(*(_parts(builder, nodes) for nodes in args), strict=True)
        return _joined(builder, [builder.select(builder.fcmp_ordered(">", a, b), a, b) for a, b in pairs])

    return _nodes(_nodes, _nodes), codegen


load = cast(Callable[[Float, int], Nodes], _load)
"""load(array, at): the values from element `at` on."""
store = cast(Callable[[Float, int, Nodes], None], _store)
"""store(array, at, nodes): write them there."""
line = cast(Callable[[Nodes, float, float], Nodes], _line)
"""line(nodes, slope, level) = slope nodes + level."""
larger = cast(Callable[[Nodes, Nodes], Nodes], _larger)
"""The larger on each node."""
waited = cast(Callable[[Nodes, float, float, float], Nodes], _waited)
"""waited(nodes, up, stay, down): each node and the two beside it, weighted; the first and the last take themselves for the missing
neighbour and for the other one, which is right where the value is linear in a martingale."""
