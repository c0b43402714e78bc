"""From plain containers to typed values: a dataclass is the schema of a config node.

A node with `_target_` becomes an instance of that dataclass; elsewhere the field's type says which.
The dataclass has the fields, their types and their checks, the YAML file the defaults. Errors are
one line: path, value, what is legal.
"""

import dataclasses
import difflib
import importlib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Union, get_args, get_origin

from fedtsd.errors import ConfigError


def unknown(name: str, legal: Iterable[str], what: str) -> str:
    """Return one line about a name that is not legal, with the nearest one that is."""
    names = sorted(set(legal))
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"legal: {', '.join(names)}"
    return f"{what} {name!r} is unknown; {hint}"


def convert(value: Any, expected: Any, path: str) -> Any:
    """Convert a plain value to the expected type, naming the path if it does not fit."""
    if isinstance(value, Mapping) and "_target_" in value:
        cls = _locate(value["_target_"], path)
        if lacking := _lacking(cls, expected):
            raise ConfigError(
                f"{path}._target_: {value['_target_']!r} is no part of this kind, it has no "
                f"{lacking[0]}; must be one that the group's own files name"
            )
        return _build(value, cls, path)
    if dataclasses.is_dataclass(expected):
        return _build(_mapping(value, path), expected, path)
    if get_origin(expected) in (Union, types.UnionType):
        inner = next(kind for kind in get_args(expected) if kind is not type(None))
        return None if value is None else convert(value, inner, path)
    if get_origin(expected) is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{path}: must be a list such as [1, 2], got {value!r}")
        inner = get_args(expected)[0]
        return tuple(convert(item, inner, f"{path}[{i}]") for i, item in enumerate(value))
    return _scalar(value, expected, path)


def _scalar(value: Any, expected: Any, path: str) -> Any:
    if expected is float and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError as error:
            raise ConfigError(f"{path}: must be a number below 1e308, got {value}") from error
        if math.isnan(number):
            raise ConfigError(f"{path}: must be a number, got nan")
        return number
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    if expected not in names:
        raise ConfigError(f"{path}: needs a _target_, got {value!r}")
    if type(value) is not expected:
        raise ConfigError(f"{path}: must be {names[expected]}, got {value!r}")
    return value


def _build(node: Mapping[str, Any], cls: Any, path: str) -> Any:
    hints = typing.get_type_hints(cls)
    fields = [field.name for field in dataclasses.fields(cls)]
    given = {str(key): value for key, value in node.items() if key != "_target_"}
    for key in given:
        if key not in fields:
            raise ConfigError(unknown(_join(path, key), [_join(path, f) for f in fields], "key"))
    if missing := [name for name in fields if name not in given]:
        raise ConfigError(f"{_join(path, missing[0])}: is missing")
    values = {key: convert(value, hints[key], _join(path, key)) for key, value in given.items()}
    try:
        return cls(**values)
    except ValueError as error:
        raise ConfigError(_join(path, str(error))) from error


def _locate(target: Any, path: str) -> Any:
    module, _, name = str(target).rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{path}._target_: {target!r} cannot be imported: {error}") from error
    if not dataclasses.is_dataclass(cls):
        raise ConfigError(f"{path}._target_: {target!r} is not a dataclass")
    return cls


def _lacking(cls: Any, expected: Any) -> list[str]:
    """Return what a part of the expected kind offers and this class does not, by name."""
    kinds = get_args(expected) if get_origin(expected) in (Union, types.UnionType) else (expected,)
    offered: set[str] = set()
    for kind in kinds:
        if isinstance(kind, type) and kind is not type(None):
            for base in kind.__mro__:
                if base.__module__.startswith("fedtsd."):
                    offered |= {*vars(base), *vars(base).get("__annotations__", {})}
    has = {*dir(cls), *(field.name for field in dataclasses.fields(cls))}
    return sorted(name for name in offered - has if not name.startswith("_"))


def _mapping(value: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{path}: must be a group of keys, got {value!r}")
    return value


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
