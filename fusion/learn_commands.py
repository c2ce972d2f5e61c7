"""Commands ``learn`` and ``cross-fit``: weights of a fusion from the labels of other videos than those that are fused."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fusion.commands import input_arguments, read_inputs
from fusion.spec import EvaluateSpec, LearnSpec
from store.options import resolve, spec_options
from store.run_files import check_output

if TYPE_CHECKING:
    from fusion.learned import Learned


@click.command("learn")
@input_arguments
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="Learned fusion to write (.json).")
@click.option(
    "--without",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="Score table whose videos, and their groups where --list has them, are not learned from: those to be fused.",
)
@spec_options(LearnSpec, into="settings")
def learn_command(
    inputs: tuple[str, ...], labels: Path | None, fold: int | None, output: Path, without: tuple[Path, ...], settings: dict[str, Any]
) -> None:
    """Learn weights, temperatures or stacking from validation scores; `fuse --learned` fuses other videos by them.

    INPUTS are labelled score tables of videos that are not to be fused: a run's validation.npz, or another split's tables.
    """
    from fusion.labels import groups_of
    from fusion.learned import learn
    from store.scores import ScoreTable

    spec = resolve(LearnSpec, settings)
    check_output(output)
    tables, videos = read_inputs(inputs, labels, fold, spec.match)
    groups = None if videos is None else groups_of(videos)
    learned = learn(tables, spec, groups, [name for path in without for name in ScoreTable.load(path).ids])
    learned.save(output)
    click.echo(learned_text(learned))
    click.echo(f"wrote {output}: learned from {len(learned.ids)} videos; fuse others with: actioncache fuse --learned {output}")


@click.command("cross-fit")
@input_arguments
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="Fused score table to write (.npz).")
@click.option(
    "--folds", type=click.IntRange(min=2), default=10, show_default=True, help="Parts of whole groups; each is fused by the others."
)
@spec_options(LearnSpec, into="settings")
def cross_fit_command(
    inputs: tuple[str, ...], labels: Path | None, fold: int | None, output: Path, folds: int, settings: dict[str, Any]
) -> None:
    """Fuse every video by weights that are learned from the other groups of the same tables; the result is called cross-fitted.

    The groups (scenes, films) come from --list, which is required.
    """
    from fusion.labels import drawn_groups, groups_of
    from fusion.learned import cross_fit
    from fusion.report import table_text
    from fusion.results import judge

    if labels is None:
        raise click.UsageError("cross-fit needs --list LIST: videos of one group must not judge one another")
    spec = resolve(LearnSpec, settings)
    check_output(output)
    tables, videos = read_inputs(inputs, labels, fold, spec.match)
    assert videos is not None
    fused = cross_fit(tables, spec, groups_of(videos), folds)
    fused.save(output)
    click.echo(table_text(judge({**tables, output.stem: fused}, EvaluateSpec(match=spec.match), drawn_groups(videos))), nl=False)
    click.echo(f"wrote {output}: cross-fitted in {folds} folds of {fused.source['num_groups']} groups, {len(fused.ids)} videos")


def learned_text(learned: "Learned") -> str:
    """What was learned, in a few lines."""
    lines = [
        f"cross-entropy {learned.loss_before:.4f} of the plain sum, {learned.loss_after:.4f} after learning (on the videos learned from)"
    ]
    if learned.spec.method == "stacking":
        lines += [f"  {name}: {min(row):.4g} to {max(row):.4g} over classes" for name, row in learned.class_weights.items()]
        return "\n".join([*lines, f"  penalty {learned.penalty:g}"])
    for name, weight in learned.weights.items():
        lines.append(f"  {name}: {f'temperature {1 / weight:.4g}' if learned.spec.method == 'temperature' else f'weight {weight:.4g}'}")
    return "\n".join(lines)
