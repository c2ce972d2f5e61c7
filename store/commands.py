"""The commands of ``actioncache store``: look into, check, compare, repair and compact feature stores."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from store import exchange_commands

if TYPE_CHECKING:
    from store.features import FeatureStore

F = TypeVar("F", bound=Callable[..., Any])


def store_argument(command: F) -> F:
    """Decorator: the argument PATH, a store's folder (its digest may be left out), as ``path``."""
    return click.argument("path", type=click.Path(file_okay=False, path_type=Path))(command)


def json_option(command: F) -> F:
    """Decorator: the flag ``--json`` as ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")(command)


def _open(path: Path) -> "FeatureStore":
    from store.features import FeatureStore  # not at import: --help needs no HDF5

    return FeatureStore.open(path)


@click.group("store")
def store() -> None:
    """Look into, check, compare, repair and compact feature stores.

    PATH is the store's folder, the one with spec.json in it.
    """


@store.command("info")
@store_argument
@json_option
def info(path: Path, as_json: bool) -> None:
    """What a store holds: videos, levels, size, spec, recorded failures."""
    facts = _open(path).info()
    if as_json:
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    for name in ("videos", "rows", "shards", "failures"):
        click.echo(f"{name:<10}{facts[name]:>12,}")
    click.echo(f"{'size':<10}{facts['bytes'] / 1e6:>12,.1f} MB")
    for name, level in facts["levels"].items():
        click.echo(f"level     {name}: {level['dtype']} [N{''.join(f', {side}' for side in level['row_shape'])}]")
    click.echo(f"digest    {facts['digest']}")
    click.echo("spec      " + json.dumps(facts["spec"], indent=2, ensure_ascii=False).replace("\n", "\n          "))
    for name, reason in facts["damaged"].items():
        click.echo(f"warning: {name} cannot be used, its videos count as missing: {reason}", err=True)


@store.command("ls")
@store_argument
@json_option
def ls(path: Path, as_json: bool) -> None:
    """Every video: number of rows and id, one a line."""
    for video_id, rows in _open(path).num_rows().items():
        click.echo(json.dumps({"id": video_id, "rows": rows}, ensure_ascii=False) if as_json else f"{rows}\t{video_id}")


@store.command("verify")
@store_argument
@click.option("--deep", is_flag=True, help="Also read every feature and compare it with its digest.")
@json_option
@click.pass_context
def verify(ctx: click.Context, path: Path, deep: bool, as_json: bool) -> None:
    """Check a store; exit code 1 if anything is wrong."""
    found = _open(path)
    problems = found.verify(deep)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(problem) for problem in problems], indent=2, ensure_ascii=False))
    else:
        for problem in problems:
            click.echo(str(problem))
        extent = "every feature" if deep else "structure and index; --deep also reads the features"
        click.echo(f"{len(problems)} problems in {len(found)} videos ({extent})" + (": run `actioncache store repair`" if problems else ""))
    ctx.exit(1 if problems else 0)


@store.command("repair")
@store_argument
@click.pass_context
def repair(ctx: click.Context, path: Path) -> None:
    """Set damaged shards aside and keep the good videos in them.

    What is lost counts as missing, so the next extract redoes exactly that. Exit code 1 if a problem is left that repair cannot solve.
    """
    found = _open(path)
    done = found.repair()
    for name in done.set_aside:
        click.echo(f"set aside {found.path / 'damaged' / name}")
    for video_id in done.lost:
        click.echo(f"lost {video_id}")
    for problem in done.left:
        click.echo(f"left {problem}")
    click.echo(
        f"{len(done.set_aside)} shards set aside (delete them when you like), {done.rescued} videos kept from them, "
        f"{len(done.lost)} known to be lost, {done.partials} left-over partial files removed"
    )
    ctx.exit(1 if done.left else 0)


@store.command("compact")
@store_argument
@click.option("--target-mb", type=click.FloatRange(min=0, min_open=True), help="Size of the merged shards in MB (10^6 bytes).")
def compact(path: Path, target_mb: float | None) -> None:
    """Merge small shards into larger ones; safe while others read and write."""
    if target_mb is not None and not math.isfinite(target_mb):
        raise click.BadParameter(f"{target_mb} is no size", param_hint="--target-mb")
    found = _open(path)
    done = found.compact(int(target_mb * 1e6)) if target_mb else found.compact()
    click.echo(f"{done.merged} shards merged into {done.written}; {done.partials} left-over partial files removed")


@store.command("diff")
@click.argument("first", metavar="A", type=click.Path(file_okay=False, path_type=Path))
@click.argument("second", metavar="B", type=click.Path(file_okay=False, path_type=Path))
@click.option("--level", "levels", metavar="NAME", multiple=True, help="Only this level; A's:B's if they differ. May be repeated.")
@click.option("--videos", "listed", type=click.IntRange(0), default=10, show_default=True, help="How many videos to name in each list.")
@click.option(
    "--tolerance", type=click.FloatRange(0), default=0.0, show_default=True, help="||A - B||/||B|| of a video that is no difference."
)
@click.option("--common", is_flag=True, help="Levels and videos that one store alone has are no difference.")
@json_option
@click.pass_context
def diff(
    ctx: click.Context, first: Path, second: Path, levels: tuple[str, ...], listed: int, tolerance: float, common: bool, as_json: bool
) -> None:
    """Compare two stores, usually of two specs: which videos differ, and how far.

    Videos with equal digests are identical and not read. Exit code 1 if anything is different beyond the tolerance.
    """
    from store import diff as differ
    from store import diff_text

    found = differ.diff(_open(first), _open(second), levels, tolerance, common, listed)
    for one in found.stores:
        for name, reason in sorted(one.damaged.items()):
            click.echo(f"warning: {name} cannot be used, its videos count as missing: {reason}", err=True)
    click.echo(json.dumps(diff_text.plain(found), indent=2, ensure_ascii=False) if as_json else diff_text.text(found, listed))
    ctx.exit(0 if found.same else 1)


exchange_commands.add_commands(store)
