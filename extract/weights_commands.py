"""Commands for weights: ``weights list``, ``fetch``, ``check`` and ``convert``."""

import json
import os
from dataclasses import asdict
from pathlib import Path

import click

REFERENCE_VARIABLE = "ACTIONCACHE_TEST_DATA"
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group("weights")
def weights() -> None:
    """List, download, check and convert the weights of the networks."""


@weights.command("list")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def list_command(name: str | None, as_json: bool) -> None:
    """List the published weights of backbone NAME, or of all: where from, size, licence, SHA-256, and whether they are here."""
    from extract.weights_list import list_text, list_weights

    files = list_weights(name)
    if as_json:
        click.echo(json.dumps([{**asdict(file), "path": str(file.path)} for file in files]))
        return
    for line in list_text(files):
        click.echo(line)
    if not files:
        click.echo(f"nobody published weights for backbone {name}")


@weights.command("fetch")
@click.argument("name", metavar="NAME[:FILE]")
def fetch_command(name: str) -> None:
    """Download the published weights FILE of backbone NAME (the usual ones without FILE); goes on where an earlier download broke off.

    Their SHA-256 is checked where the publisher states it, and recorded at first use. Prints the path of the file.
    """
    from extract.backbones import BACKBONES, backbone_info
    from extract.downloads import cached_path, checked_bytes, fetch, promised_digits, record_path
    from extract.weights import find_published

    parts = name.split(":")
    own = 1 if parts[0] in BACKBONES.names() else 2  # timm:NAME and package.module:attribute have a colon themselves
    published = find_published(backbone_info(":".join(parts[:own])), ":".join(parts[own:]))
    there = cached_path(published.url).is_file()
    path = fetch(published.url, published.sha256)
    checked_bytes(path, published.sha256)
    click.echo(str(path))
    stated = published.sha256 or promised_digits(path.name)
    what = (
        f"is what its publisher states ({stated})" if stated else f"is not stated by its publisher; it is recorded in {record_path(path)}"
    )
    click.echo(f"{'was here already' if there else 'downloaded'}; its SHA-256 {what}", err=True)


@weights.command("check")
@click.argument("name")
@click.option("--weights", "source", default="published", show_default=True, help="A weights file, `published`, or `random:SEED`.")
@click.option(
    "--reference",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help=f"Folder of published outputs to compare with, laid out as docs/testing.md says. [default: ${REFERENCE_VARIABLE}]",
)
@click.option(
    "--input", "clip", type=FILE, help="One input as the network takes it, normalised: .npy [T, H, W, C]; prints its top classes."
)
@click.option("--device", default="auto", show_default=True, help="torch device.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.pass_context
def check_command(
    context: click.Context, name: str, source: str, reference: Path | None, clip: Path | None, device: str, as_json: bool
) -> None:
    """Load the weights of backbone NAME, say what they are, run it once, and compare it with published outputs.

    Exit code 1 if an output is not finite, or differs from a published one by more than is allowed.
    """
    from extract.device import resolve_device
    from extract.weights_check import check_plain, check_text, check_weights

    folder = reference or (Path(os.environ[REFERENCE_VARIABLE]) if os.environ.get(REFERENCE_VARIABLE) else None)
    check = check_weights(name, source, folder, clip, resolve_device(device))
    if as_json:
        click.echo(json.dumps(check_plain(check)))
    else:
        for line in check_text(check):
            click.echo(line)
    context.exit(0 if check.good else 1)


@weights.command("convert")
@click.argument("name")
@click.argument("file", type=FILE)
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The .safetensors file to write.")
@click.option("--extra", "extras", multiple=True, metavar="NAME=FILE", help="An array that belongs to the weights: .npy or .binaryproto.")
@click.option("--mean-cube", type=FILE, help="The mean cube of C3D: the same as --extra mean_cube=FILE.")
@click.option("--cross-modality", is_flag=True, help="FILE holds RGB weights: start the flow network NAME from them.")
@click.option("--overwrite", is_flag=True, help="Replace OUTPUT if it is there.")
def convert_command(
    name: str, file: Path, output: Path, extras: tuple[str, ...], mean_cube: Path | None, cross_modality: bool, overwrite: bool
) -> None:
    """Write the weights in FILE, in any layout that is known for backbone NAME, as safetensors with the network's own names."""
    from extract.weights_convert import convert_weights

    arrays = {key: Path(path) for key, path in (_pair(extra) for extra in extras)}
    if mean_cube is not None:
        arrays["mean_cube"] = mean_cube
    converted = convert_weights(name, file, output, arrays, cross_modality, overwrite)
    click.echo(str(converted.path))
    left = f"; left out, because the file has none that fits: {', '.join(converted.left_out)}" if converted.left_out else ""
    click.echo(f"{converted.entries} entries from a file with SHA-256 {converted.source_sha256}{left}", err=True)
    click.echo(f"identity {converted.identity}", err=True)


def _pair(extra: str) -> tuple[str, str]:
    name, equals, path = extra.partition("=")
    if not (name and equals and path):
        raise click.BadParameter(f"{extra!r} is not NAME=FILE", param_hint="--extra")
    return name.replace("-", "_"), path
