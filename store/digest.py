"""Specs as data: frozen dataclass <-> plain dict <-> canonical JSON -> SHA-256.

Identity is computed, never typed: two specs are the same when their canonical JSON is the same, defaults included.
"""

import dataclasses
import difflib
import hashlib
import json
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from store.errors import SpecError

T = TypeVar("T")


def setting(default: Any, text: str | Callable[[], str]) -> Any:
    """A dataclass field with a default and the help text that the command line and the docs show (or what makes it, when it is shown)."""
    return dataclasses.field(default=default, metadata={"help": text})


def to_plain(value: Any) -> Any:
    """Turn a spec into JSON's types: dataclasses and mappings to dict, tuples to list, scalars as they are."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise SpecError(f"a spec cannot hold {value}: JSON has no such number")
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise SpecError(f"a spec cannot hold a {type(value).__name__}: {value!r}")


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces; equal specs give equal text on every machine."""
    return json.dumps(to_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON, 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def from_dict(cls: type[T], data: Mapping[str, Any], where: str = "") -> T:
    """Build the dataclass ``cls`` from a plain dict (JSON, TOML, flags); missing fields take their defaults.

    Unknown keys, wrong types and values outside a ``Literal`` raise ``SpecError`` naming the field, e.g. ``clips.rule``.
    """
    hints = typing.get_type_hints(cls)
    known = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for key in data:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise SpecError(f"{cls.__name__} has no setting {where + str(key)!r}; {hint}")
    values = {key: convert(hints[key], item, where + str(key)) for key, item in data.items()}
    try:
        return cls(**values)
    except TypeError as error:
        raise SpecError(f"{cls.__name__} cannot be built: {error}") from None


def convert(annotation: Any, value: Any, where: str) -> Any:
    """Check ``value`` against a field's annotation and bring it to that type; ``SpecError`` names ``where``."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        given = [arg for arg in args if arg is not type(None)]
        return _one_of(given, value, where) if len(given) > 1 else convert(given[0], value, where)
    if origin is typing.Literal:
        if value not in args:
            raise SpecError(f"{where} is {value!r}; it must be one of {', '.join(map(repr, args))}")
        return value
    if dataclasses.is_dataclass(annotation):
        if isinstance(value, annotation):  # type: ignore[arg-type]
            return value
        _require(isinstance(value, Mapping), where, value, "a table")
        return from_dict(annotation, value, where + ".")  # type: ignore[arg-type]
    if origin is tuple:
        _require(isinstance(value, list | tuple), where, value, "a list")
        return tuple(convert(args[0], item, where) for item in value)
    if origin is dict:
        _require(isinstance(value, Mapping), where, value, "a table")
        return {convert(args[0], key, where): convert(args[1], item, f"{where}.{key}") for key, item in value.items()}
    return _convert_scalar(annotation, value, where)


def _convert_scalar(annotation: Any, value: Any, where: str) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is float:
        _require(is_number and math.isfinite(value), where, value, "a finite number")
        return float(value)
    if annotation is int:
        _require(is_number and float(value).is_integer(), where, value, "a whole number")
        return int(value)
    if annotation in (str, bool):
        _require(isinstance(value, annotation), where, value, "text" if annotation is str else "true or false")
    return value


def _one_of(scalars: Sequence[type], value: Any, where: str) -> Any:
    """A value that may be of several scalar types stays what it is."""
    _require(isinstance(value, tuple(scalars)), where, value, "true or false, a number or text")
    return convert(type(value), value, where)


def _require(condition: bool, where: str, value: Any, expected: str) -> None:
    if not condition:
        raise SpecError(f"{where} is {value!r}; it must be {expected}")


def demand(condition: bool, message: str) -> None:
    """Raise ``SpecError(message)`` unless ``condition`` holds; for the ``check`` of specs."""
    if not condition:
        raise SpecError(message)


class Checked:
    """Base of the spec dataclasses: brings every field to its annotated type, then calls ``check``."""

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            object.__setattr__(self, field.name, convert(hints[field.name], getattr(self, field.name), field.name))
        self.check()

    def check(self) -> None:
        """Raise ``SpecError`` for values that contradict one another."""
