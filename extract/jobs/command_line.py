"""A parsed command as words again, so that a task or another process can be given the same, and read back. Imports no torch."""

import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource


def words(context: click.Context, skip: Collection[str] = ()) -> list[str]:
    """The arguments that the user gave to ``context``'s command, but for the parameters named in ``skip``."""
    found: list[str] = []
    for parameter in context.command.params:
        name = str(parameter.name)
        if name in skip or context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        found += _words(parameter, context.params[name])
    return found


def _words(parameter: click.Parameter, value: Any) -> list[str]:
    if isinstance(parameter, click.Argument):
        return [str(value)]
    assert isinstance(parameter, click.Option)
    if parameter.is_flag:
        return [parameter.opts[0] if value else parameter.secondary_opts[0]]
    values: Sequence[Any] = value if parameter.multiple else [value]
    return [f"{max(parameter.opts, key=len)}={each}" for each in values]


def program() -> list[str]:
    """How this process was started, so that another one can be: the interpreter and the installed command, or ``cli.py``."""
    return [sys.executable, str(Path(sys.argv[0]).absolute())]
