"""Command-line flags generated from spec dataclasses, so that no command owns a default.

A nested field becomes a dotted flag (``--clips.rule``), which is also its place in a TOML file (``[clips] rule = ...``).
Order of precedence: defaults < preset < ``--config`` file < flag.
"""

import dataclasses
import difflib
import functools
import tomllib
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from store.digest import convert, from_dict, to_plain
from store.errors import SpecError

T = TypeVar("T")


def spec_options(
    cls: type, into: str = "overrides", skip: tuple[str, ...] = (), config: bool = True
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: add ``--config`` and a flag for each setting of ``cls``; the command receives one nested dict as argument ``into``.

    ``skip`` lists dotted names that get no flag (they are filled in by the program). Without ``config`` there are only flags, for a
    command's second spec.
    """
    leaves = [leaf for leaf in _leaves(cls) if leaf[0] not in skip]

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def collect(*args: Any, **kwargs: Any) -> Any:
            flags: dict[str, Any] = {}
            for name, _, _, annotation in leaves:
                value = kwargs.pop(_parameter(name))
                if value is not None:
                    _put(flags, name, _parse(value, annotation, name))
            file = kwargs.pop("config_file") if config else None
            kwargs[into] = merge(read_settings(Path(file), cls) if file else {}, flags)
            return command(*args, **kwargs)

        wrapped: Callable[..., Any] = collect
        for name, default, text, annotation in reversed(leaves):
            wrapped = _option(name, default, text, annotation)(wrapped)
        if not config:
            return wrapped
        path = click.Path(exists=True, dir_okay=False)
        return click.option("--config", "config_file", type=path, help="Settings as a TOML file.")(wrapped)

    return decorate


def resolve(cls: type[T], *layers: Mapping[str, Any]) -> T:
    """Build the spec ``cls`` from its defaults overridden by each of ``layers`` in turn."""
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = merge(merged, layer)
    return from_dict(cls, merged)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Overlay nested dicts: ``over`` wins, tables are merged."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def read_toml(path: Path) -> dict[str, Any]:
    """Read a settings file; a syntax error is a ``SpecError`` that names the file and the line."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} is not a TOML file: {error}") from None


def read_settings(path: Path, cls: type) -> dict[str, Any]:
    """Read a settings file of ``cls``; one ``SpecError`` names the file and every setting that does not exist or has another type."""
    settings = read_toml(path)
    annotations = {name: annotation for name, _, _, annotation in _leaves(cls)}
    if problems := list(_problems(settings, annotations)):
        raise SpecError(f"{path} has {len(problems)} problem{'s' * (len(problems) > 1)}:\n  " + "\n  ".join(problems))
    return settings


def parse_setting(cls: type, name: str, text: str) -> Any:
    """The value of setting ``name`` (dotted) of ``cls`` that ``text`` says, as a flag would; ``SpecError`` for no setting or no value."""
    annotations = {leaf: annotation for leaf, _, _, annotation in _leaves(cls)}
    if name not in annotations:
        parent = name.rpartition(".")[0]
        if typing.get_origin(annotations.get(parent)) is dict:  # one entry of a table, e.g. head.params.skip
            return _parse_entry(typing.get_args(annotations[parent])[1], name, text)
        near = difflib.get_close_matches(name, annotations, n=1)
        raise SpecError(f"there is no setting {name!r}; " + (f"did you mean {near[0]!r}?" if near else f"known: {', '.join(annotations)}"))
    annotation = _without_none(annotations[name])
    if annotation is bool:
        if text.lower() not in ("true", "false"):
            raise SpecError(f"{name} is {text!r}; it must be true or false")
        return text.lower() == "true"
    choices = [str(arg) for arg in typing.get_args(annotation)] if typing.get_origin(annotation) is typing.Literal else None
    if choices and text not in choices:
        raise SpecError(f"{name} is {text!r}; it must be one of {', '.join(choices)}")
    return convert(annotations[name], _parse(text, annotation, name), name)


def _parse_entry(annotation: Any, name: str, text: str) -> Any:
    """One value of a table; text stays text where the table holds values of several types, whose owner reads it."""
    single = typing.get_origin(annotation) not in (typing.Union, types.UnionType)
    return convert(annotation, _parse(text, annotation, name), name) if single else text


def _problems(tree: Mapping[str, Any], annotations: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        name = prefix + key
        if name in annotations:
            try:
                convert(annotations[name], value, name)
            except SpecError as error:
                yield str(error)
        elif isinstance(value, Mapping) and any(known.startswith(f"{name}.") for known in annotations):
            yield from _problems(value, annotations, f"{name}.")
        else:
            near = difflib.get_close_matches(name, annotations, n=1)
            known = ", ".join(dict.fromkeys(each.partition(".")[0] for each in annotations))
            yield f"there is no setting {name!r}; " + (f"did you mean {near[0]!r}?" if near else f"known: {known}")


def _leaves(cls: type, prefix: str = "") -> Iterator[tuple[str, Any, str, Any]]:
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        annotation = hints[field.name]
        if dataclasses.is_dataclass(annotation):
            yield from _leaves(annotation, f"{prefix}{field.name}.")  # type: ignore[arg-type]
            continue
        factory: Any = field.default_factory
        default = factory() if field.default is dataclasses.MISSING else field.default
        yield prefix + field.name, default, field.metadata.get("help", ""), annotation


class _LateHelp(click.Option):
    """An option whose help is put together when it is shown, since that reads files."""

    def __init__(self, declarations: Sequence[str], text: Callable[[], str], shown: str, **settings: Any) -> None:
        super().__init__(declarations, **settings)
        self._text, self._shown = text, shown

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Flag and help text."""
        self.help = _label(self._text(), self._shown)
        return super().get_help_record(ctx)


def _label(text: str, shown: str) -> str:
    return f"{text} [default: {shown}]" if shown else text


def _option(name: str, default: Any, text: str | Callable[[], str], annotation: Any) -> Callable[[Any], Any]:
    flag = "--" + name.replace("_", "-")
    annotation = _without_none(annotation)
    shown = _show(default)
    if not isinstance(text, str):
        return click.option(flag, _parameter(name), default=None, metavar=_kind(annotation), cls=_LateHelp, text=text, shown=shown)
    label = _label(text, shown)
    if annotation is bool:
        return click.option(f"{flag}/--no-{flag[2:]}", _parameter(name), default=None, help=label)
    if typing.get_origin(annotation) is typing.Literal:
        choice = click.Choice([str(arg) for arg in typing.get_args(annotation)])
        return click.option(flag, _parameter(name), default=None, type=choice, help=label)
    return click.option(flag, _parameter(name), default=None, metavar=_kind(annotation), help=label)


def _kind(annotation: Any) -> str:
    """What a value looks like, in the help."""
    if typing.get_origin(annotation) is dict:
        return "KEY=NUMBER,..." if typing.get_args(annotation)[1] is float else "KEY=VALUE,..."
    return {int: "INTEGER", float: "NUMBER", str: "TEXT"}.get(annotation, "LIST")


def _parse(value: Any, annotation: Any, name: str) -> Any:
    annotation = _without_none(annotation)
    if not isinstance(value, str):
        return value
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is tuple:
        return [_parse(item.strip(), args[0], name) for item in value.split(",") if item.strip()]
    if origin is dict:
        pairs = [item.split("=", 1) for item in value.split(",") if item.strip()]
        if any(len(pair) != 2 for pair in pairs):
            raise SpecError(f"{name} is {value!r}; write key=value,key=value")
        return {key.strip(): _parse(item.strip(), args[1], f"{name}.{key.strip()}") for key, item in pairs}
    if origin is typing.Literal:
        return next(arg for arg in args if str(arg) == value)
    if annotation in (int, float):
        try:
            return annotation(value)
        except ValueError:
            raise SpecError(f"{name} is {value!r}; it must be a {'whole ' if annotation is int else ''}number") from None
    return value


def _without_none(annotation: Any) -> Any:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return next(arg for arg in typing.get_args(annotation) if arg is not type(None))
    return annotation


def _parameter(name: str) -> str:
    return "spec__" + name.replace(".", "__")


def _put(tree: dict[str, Any], name: str, value: Any) -> None:
    *tables, last = name.split(".")
    for table in tables:
        tree = tree.setdefault(table, {})
    tree[last] = value


def _show(default: Any) -> str:
    plain = to_plain(default)
    if isinstance(plain, list):
        return ",".join(map(str, plain))
    if isinstance(plain, dict):
        return ",".join(f"{key}={value}" for key, value in plain.items())
    return "" if plain is None else str(plain)
