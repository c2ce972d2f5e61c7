"""The command ``protocols``."""

import click

from temporal.protocols import PROTOCOLS, protocol_text


@click.command("protocols")
@click.argument("names", nargs=-1, metavar="[NAME]...")
def protocols(names: tuple[str, ...]) -> None:
    """List the papers' settings for `train-head --protocol`, each with the paper's words."""
    click.echo("\n\n".join(protocol_text(name) for name in names or PROTOCOLS))
