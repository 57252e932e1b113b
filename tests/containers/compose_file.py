"""`docker-compose.yml` as `docker compose` reads it, profiles and variables resolved, where there is no `docker compose`."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "docker-compose.yml"
PROFILES = ("small", "full")

Service = dict[str, Any]

_VARIABLE = re.compile(r"([A-Z][A-Z0-9_]*)(:?[-?])?")
_ASSIGNMENT = re.compile(r"^(?:# )?([A-Z][A-Z0-9_]*)=(.*)$", re.MULTILINE)


class MissingVariableError(Exception):
    """A variable that the file demands (`${NAME:?message}`) is not set."""


@dataclass(frozen=True)
class Use:
    """A place where the file uses a variable. `kind` is what follows the name: `:-`, `:?` or nothing."""

    name: str
    kind: str
    other: str


def interpolated(text: str, variables: Mapping[str, str], uses: list[Use] | None = None) -> str:
    """Replace `${NAME}`, `${NAME:-other}` and `${NAME:?message}`, nested ones too; `$$` is a dollar. `uses` collects what is met.

    Raises MissingVariableError with the message of the file.
    """
    out, at = [], 0
    while (start := text.find("$", at)) >= 0:
        out.append(text[at:start])
        if text.startswith("$$", start):
            out.append("$")
            at = start + 2
            continue
        assert text.startswith("${", start), f"a single $ in {text!r}"
        end = _closing(text, start + 2)
        inside = text[start + 2 : end]
        found = _VARIABLE.match(inside)
        assert found, f"no variable in {text!r}"
        name, kind, other = found[1], found[2] or "", inside[found.end() :]
        if uses is not None:
            uses.append(Use(name, kind, other))
        out.append(_value(name, kind, other, variables, uses))
        at = end + 1
    return "".join([*out, text[at:]])


def _value(name: str, kind: str, other: str, variables: Mapping[str, str], uses: list[Use] | None) -> str:
    value = variables.get(name)
    if value or (value is not None and not kind.startswith(":")):
        return value
    if kind.endswith("?"):
        raise MissingVariableError(f"{name}: {other}")
    return interpolated(other, variables, uses) if kind.endswith("-") else ""


def _closing(text: str, at: int) -> int:
    depth = 1
    while depth:
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        at += 1
    return at - 1


def texts(value: Any) -> Iterator[str]:
    """Every string value in a part of the file; names of keys are never interpolated."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)


def raw() -> dict[str, Any]:
    """The file with its anchors merged and nothing interpolated."""
    loaded: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    return loaded


def used_variables() -> list[Use]:
    """Every use of a variable in the file, also those that stand in the default of another."""
    uses: list[Use] = []
    for text in texts(raw()):
        for variables in ({}, _Anything()):
            try:
                interpolated(text, variables, uses)
            except MissingVariableError:
                continue
    return uses


class _Anything(dict[str, str]):
    def get(self, key: str, default: Any = None) -> str:  # type: ignore[override]
        return "set"


def services(profile: str, variables: Mapping[str, str]) -> dict[str, Service]:
    """The services that a profile starts, with their values filled in."""
    resolved: dict[str, Any] = _filled(raw(), variables)
    return {name: made for name, made in resolved["services"].items() if profile in made.get("profiles", [profile])}


def _filled(value: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return interpolated(value, variables)
    if isinstance(value, Mapping):
        return {key: _filled(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, variables) for item in value]
    return value


def assignments(text: str) -> dict[str, str]:
    """`NAME=value` lines of an env file, those that a comment holds as an example included."""
    return {name: value.strip() for name, value in _ASSIGNMENT.findall(text)}


def env_file(text: str) -> dict[str, str]:
    """The lines of an env file that count."""
    return assignments("\n".join(line for line in text.splitlines() if not line.startswith("#")))


def mounts(service: Service) -> dict[str, str]:
    """Where something is mounted -> what: the name of a volume, a path that begins with `./`, or nothing for a folder in memory."""
    found = {}
    for volume in service.get("volumes", []):
        source, _, rest = volume.rpartition(":") if volume.count(":") == 1 else volume.partition(":")
        if volume.count(":") == 2:
            rest = rest.removesuffix(":ro")
        found[rest] = source
    return found | {tmpfs.partition(":")[0]: "" for tmpfs in service.get("tmpfs", [])}


def bytes_of(size: str) -> int:
    return int(size[:-1]) << {"m": 20, "g": 30}[size[-1]]


def deploy_module(name: str) -> ModuleType:
    """A program of the folder `deploy`, imported."""
    return program_at(ROOT / "deploy" / f"{name}.py")


def program_at(path: Path) -> ModuleType:
    """A program of the repository that lies in no package, imported."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = made  # where dataclasses look for it
    spec.loader.exec_module(made)
    return made
