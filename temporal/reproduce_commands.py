"""The command ``reproduce``."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from store.errors import SpecError
from store.files import check_writable, safe_name
from store.list_commands import splits_options, whole_numbers
from store.options import spec_options
from store.run_files import UNCHECKED_RUNS
from store.signals import stop_signals
from store.videos import VideoList
from temporal.cluster import Backend
from temporal.commands import device_option, head_weights_option, missing_option, tell_untrained
from temporal.many import Plan
from temporal.papers import PAPERS, Paper, load_paper
from temporal.papers.inputs import Facts, parse_named
from temporal.spec import RunSpec
from temporal.sweep_commands import backend_option, jobs_option, scheduler_option, together_option

if TYPE_CHECKING:
    from store.features import FeatureStore
    from temporal.reproduce import ScoreFiles

NOT_TRAINED = 0.2  # of a training list: roughly what the validation part, or the group left out, takes


@click.command("reproduce")
@click.argument("paper_name", metavar="PAPER", type=click.Choice(PAPERS))
@splits_options
@click.option(
    "--features",
    "features",
    multiple=True,
    required=True,
    metavar="[ROLE=]STORE",
    help="Feature store by its role in the paper, several times: lakhal2018 rgb, flow; zheng2017 levels; iqbal2017 levels, maps.",
)
@click.option(
    "--level", "levels", multiple=True, metavar="NAME=LEVEL", help="What a level of the paper (low, block4, rgb ...) is in the store."
)
@click.option(
    "--scores",
    "scores",
    multiple=True,
    metavar="NAME=FILE.npz",
    help="Score table to fuse with, e.g. idt=idt.npz; {} stands for each split's number (--splits).",
)
@click.option("--name", help="Name of the folder, OUT/NAME. [default: the paper's name, with -quick if so]")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=Path("reproduced"), show_default=True, help="Folder of results."
)
@click.option("--seeds", default="0,1,2", show_default=True, metavar="N,N,...", help="Seeds of every line.")
@click.option("--cross-validate", is_flag=True, help="Leave out one group of the list at a time.")
@click.option("--quick", is_flag=True, help="An eighth of the paper's units and a few epochs, for small data: shows that everything works.")
@missing_option
@jobs_option
@backend_option
@scheduler_option
@together_option
@device_option
@head_weights_option
@spec_options(RunSpec, skip=("format", "head.weights", "train.seed"))
@click.pass_context
def reproduce(
    context: click.Context,
    paper_name: str,
    lists: dict[int, VideoList],
    features: tuple[str, ...],
    levels: tuple[str, ...],
    scores: tuple[str, ...],
    name: str | None,
    out: Path,
    seeds: str,
    cross_validate: bool,
    quick: bool,
    allow_missing: bool,
    jobs: int,
    backend: str,
    scheduler: str,
    together: bool,
    device: str,
    head_weights: Path | None,
    overrides: dict[str, Any],
) -> None:
    """Run PAPER's tables and curves on cached features and write a page with the paper's numbers beside ours.

    Lines whose inputs are not given are left out, and the page says what they need. Flags change single settings of all lines, but never
    what a line is about. What is trained already is kept: the same command goes on.
    """
    from temporal.reproduce import Bench
    from temporal.reproduce import reproduce as run
    from temporal.reproduce_before import JSON, check_same_lists, lost_lines
    from temporal.reproduce_files import text, write_reproduction
    from temporal.sweep_before import list_facts

    paper = load_paper(paper_name)
    numbers = whole_numbers(seeds, "--seeds")
    if not numbers:
        raise SpecError("--seeds is empty; give at least one, e.g. 0,1,2")
    folder = out / safe_name(name or paper.name + "-quick" * quick, "name")
    plan = Plan(tuple(numbers), cross_validate, allow_missing, jobs, device, cast("Backend", backend), scheduler, head_weights, together)
    named = {f"split-{number}" if number else "list": videos for number, videos in lists.items()}
    facts = gather(paper, features, levels, scores, next(iter(lists.values())), cross_validate, quick)
    files = score_files(paper, scores, named)
    check_same_lists(folder, named)
    check_writable(folder)
    tell_untrained(lists, cross_validate, refit=True)
    with stop_signals("saving the state of the trainings, then stopping") as stopped:
        done = run(paper, Bench(folder, facts, named, plan, overrides, files, context.obj.fuse, stopped))
    lost = lost_lines(folder, done)
    facts_of_lists = {name: list_facts(videos) for name, videos in named.items()}
    written = [] if lost else write_reproduction(done, folder, shlex.join(["actioncache", *sys.argv[1:]]), facts_of_lists)
    click.echo(text(done))
    stay = f"{folder / JSON} and the pages stay as they were: they have figures of {lost} lines that fail now"
    click.echo(stay if lost else f"wrote {', '.join(map(str, written))}", err=True)
    if done.unchecked:
        click.echo(f"note: {UNCHECKED_RUNS}", err=True)
    context.exit(1 if done.failed or done.missing else 0)


def gather(
    paper: Paper,
    features: Sequence[str],
    levels: Sequence[str],
    scores: Sequence[str],
    videos: VideoList,
    cross_validate: bool,
    quick: bool,
) -> Facts:
    """Open the stores by role and count what there is to train on."""
    from store.features import FeatureStore
    from temporal.experiment import videos_in_use
    from temporal.folds import list_part

    roles = parse_named(features, tuple(paper.roles), "--features", first=next(iter(paper.roles)))
    stores = {role: [FeatureStore.open(Path(path)) for path in paths] for role, paths in roles.items()}
    named = dict(text.partition("=")[::2] for text in levels)
    if wrong := [text for text in levels if "=" not in text]:
        raise SpecError(f"--level {wrong[0]!r} is not NAME=LEVEL")
    used = videos_in_use(videos)  # HMDB-51's flag 0 is no training video
    training = [video.id for video in videos] if cross_validate else [used.videos[at].id for at in list_part(used).train]
    clips = {role: _clips(found[0], training) for role, found in stores.items()}
    used_clips = int((1 - NOT_TRAINED) * sum(next(iter(clips.values()))))
    tables = [text.partition("=")[0] for text in scores]
    return Facts(stores, {**paper.levels, **named}, tables, len(training), used_clips, quick, clips)


def _clips(store: "FeatureStore", ids: Sequence[str]) -> list[int]:
    rows = store.num_rows()
    return [rows.get(id_, 0) for id_ in ids]


def score_files(paper: Paper, texts: Sequence[str], lists: Mapping[str, VideoList]) -> "ScoreFiles":
    """Name -> split -> file; SpecError for a file that is not there, or one file for several splits."""
    found: dict[str, dict[str, Path]] = {}
    for name, values in parse_named(texts, tuple(paper.scores) or ("(this paper fuses with none)",), "--scores").items():
        value = values[-1]
        if "{}" in value and list(lists) == ["list"]:
            raise SpecError(f"--scores {name}={value}: {{}} stands for the number of a split; give --splits, or name the file")
        if len(lists) > 1 and "{}" not in value:
            raise SpecError(f"--scores {name}={value} is one file for {len(lists)} splits; write {{}} where its number stands")
        found[name] = {split: Path(value.replace("{}", split.rpartition("-")[2])) for split in lists}
        if absent := [str(path) for path in found[name].values() if not path.is_file()]:
            raise SpecError(f"there is no score table {', '.join(absent)} (given as --scores {name}={value})")
    return found
