"""The command ``heads``: what heads there are, from their files alone."""

import json
from dataclasses import asdict
from math import isfinite
from typing import Any

import click

from temporal.params import HeadInfo, Param, declared_heads, head_info

READS = {"vectors": "features [clips, width]", "maps": "feature maps [clips, channels, height, width]"}


@click.command("heads")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def heads(names: tuple[str, ...], as_json: bool) -> None:
    """List the heads (or those called NAME): their paper, their own settings (--head.params) with defaults, what features they read.

    Settings of several heads are --head.hidden, --head.layers, --head.output and --head.dropout, see train-head --help.
    """
    found = [head_info(name) for name in names] or list(declared_heads().values())
    if as_json:
        click.echo(json.dumps([_plain(info) for info in found]))
        return
    for info in found:
        click.echo("\n".join(_lines(info)))


def _lines(info: HeadInfo) -> list[str]:
    facts = [("paper", info.paper)] if info.paper else []
    facts += [("reads", READS[info.reads])] if info.reads != "vectors" else []
    facts += [("scores", info.kind.replace("_", " "))] if info.kind != "scores" else []
    facts += [("weights", "pretrained ones with --head-weights FILE")] if info.weights else []
    facts += [("layers", f"{info.layers} and more")] if info.layers > 1 else []
    facts += [("param", _param_text(param)) for param in info.params]
    return [f"{info.name:20} {info.text}", *(f"    {name:8} {text}" for name, text in facts)]


def _param_text(param: Param) -> str:
    default = str(param.default).lower() if isinstance(param.default, bool) else param.default
    return f"{param.name}={default}: {param.help}" + (f" ({param.range()})" if param.range() != "text" else "")


def _plain(info: HeadInfo) -> dict[str, Any]:
    """For JSON, which has no infinity."""
    return asdict(info) | {"params": [{key: value for key, value in asdict(each).items() if _finite(value)} for each in info.params]}


def _finite(value: Any) -> bool:
    return not isinstance(value, float) or isfinite(value)
