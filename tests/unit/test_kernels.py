"""Python calls nothing that only kernels may call, and one command compiles every kernel of the quant core."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import flowlake

ROOT = Path(flowlake.__file__).parent
FOR_KERNELS_ONLY = {"part", "inlined"}
COMPILED = FOR_KERNELS_ONLY | {"kernel"}


def decorators(function: ast.FunctionDef) -> set[str]:
    return {decorator.id for decorator in function.decorator_list if isinstance(decorator, ast.Name)}


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    return (node for node in tree.body if isinstance(node, ast.FunctionDef))


def names_used(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} | {
        n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)
    }


def calls_from_python(tree: ast.Module, forbidden: set[str]) -> list[str]:
    """What runs uncompiled and names a function that only kernels may call; a call from Python would end the process."""
    addressed = {
        argument.id
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "by_address"
        for argument in call.args
        if isinstance(argument, ast.Name)
    }
    compiled = {f.name for f in functions(tree) if decorators(f) & COMPILED} | addressed
    python = [node for node in tree.body if not (isinstance(node, ast.FunctionDef) and node.name in compiled)]
    # `from ... import name` holds no Name or Attribute node.
    return [f"line {node.lineno}: {sorted(found)}" for node in python if (found := names_used(node) & forbidden)]


def trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text()) for path in sorted(ROOT.rglob("*.py"))}


def test_python_never_calls_what_has_no_wrapper() -> None:
    parsed = trees()
    forbidden = {path: {f.name for f in functions(tree) if decorators(f) & FOR_KERNELS_ONLY} for path, tree in parsed.items()}
    by_module = {".".join(("flowlake", *path.relative_to(ROOT).with_suffix("").parts)): names for path, names in forbidden.items()}
    assert sum(map(len, forbidden.values())) > 30
    wrong = {}
    for path, tree in parsed.items():
        imported = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module in by_module
            for alias in node.names
            if alias.name in by_module[node.module]
        }
        if found := calls_from_python(tree, forbidden[path] | imported):
            wrong[str(path.relative_to(ROOT))] = found
    assert wrong == {}


@pytest.mark.parametrize("call", ["answer = inner(1)", "def outer():\n    return inner(1)"])
def test_a_call_from_python_is_found(call: str) -> None:
    tree = ast.parse(f"@part\ndef inner(x):\n    return x\n\n@kernel\ndef loop():\n    inner(1)\n\n{call}\n")
    assert calls_from_python(tree, {"inner"}) == ["line 9: ['inner']"]


MISSED = """
import importlib, pkgutil
from numba.core.dispatcher import Dispatcher
from flowlake import quant
from flowlake.quant.__main__ import compile_kernels

compile_kernels()
kernels = {
    f"{module.name}.{name}": value
    for module in pkgutil.iter_modules(quant.__path__, "flowlake.quant.")
    for name, value in vars(importlib.import_module(module.name)).items()
    if isinstance(value, Dispatcher) and not value.targetoptions.get("no_cpython_wrapper")
}
print(len(kernels), *(name for name, kernel in kernels.items() if not kernel.signatures))
"""


def test_one_command_compiles_every_kernel_of_the_quant_core() -> None:
    """In a process of its own, where no other test has compiled any."""
    said = subprocess.run([sys.executable, "-c", MISSED], capture_output=True, text=True, check=True)
    count, *missed = said.stdout.split()
    assert int(count) > 15
    assert missed == []
