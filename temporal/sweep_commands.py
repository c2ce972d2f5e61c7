"""The command ``sweep``."""

from pathlib import Path
from typing import Any, cast

import click

from store.errors import SpecError
from store.files import check_writable, safe_name
from store.list_commands import list_options, whole_numbers
from store.options import merge, resolve, spec_options
from store.run_files import UNCHECKED_RUNS
from store.signals import stop_signals
from store.videos import VideoList
from temporal.cluster import BACKENDS, Backend
from temporal.commands import device_option, head_weights_option, missing_option, protocol_option, tell_untrained
from temporal.grid import combinations, parse_axis
from temporal.many import Plan
from temporal.protocols import protocol
from temporal.spec import RunSpec

jobs_option = click.option("--jobs", type=click.IntRange(0), default=0, help="Settings trained at once. [default: one a core]")
backend_option = click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    default="loky",
    show_default=True,
    help="loky: this machine's processes; dask, ray: a cluster.",
)
together_option = click.option(
    "--together/--apart",
    default=True,
    show_default=True,
    help="Seeds and folds of a setting as one batched program, where its head allows it.",
)
scheduler_option = click.option("--scheduler", default="", metavar="ADDRESS", help="Of the cluster, e.g. tcp://host:8786 for Dask.")


@click.command("sweep")
@list_options
@click.option(
    "--features",
    "features",
    multiple=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Feature store of all settings; twice, with --sequence.mid, for mid fusion. Or --grid features=STORE,STORE.",
)
@click.option(
    "--grid",
    "grid",
    multiple=True,
    required=True,
    metavar="SETTING=VALUE,...",
    help="An axis: any setting below, or features. Several: every combination. A+B=VALUE,... gives two settings the same value.",
)
@click.option("--name", required=True, help="Name of the sweep; its folder is OUT/NAME.")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=Path("sweeps"), show_default=True, help="Folder of sweeps."
)
@click.option("--seeds", default="", metavar="N,N,...", help="Seeds of every setting. [default: --train.seed]")
@click.option("--cross-validate", is_flag=True, help="Leave out one group of the list at a time.")
@click.option(
    "--rank-by",
    type=click.Choice(["accuracy", "loss"]),
    default="accuracy",
    show_default=True,
    help="Figure of the validation part that ranks.",
)
@missing_option
@jobs_option
@backend_option
@scheduler_option
@together_option
@device_option
@head_weights_option
@protocol_option
@spec_options(RunSpec, skip=("format", "head.weights"))
@click.pass_context
def sweep(
    context: click.Context,
    videos: VideoList,
    features: tuple[Path, ...],
    grid: tuple[str, ...],
    name: str,
    out: Path,
    seeds: str,
    cross_validate: bool,
    rank_by: str,
    allow_missing: bool,
    jobs: int,
    backend: str,
    scheduler: str,
    together: bool,
    device: str,
    head_weights: Path | None,
    protocol_name: str | None,
    overrides: dict[str, Any],
) -> None:
    """Train every combination of a grid on LIST's training videos and rank them by their validation part.

    What is trained already is kept: the same command goes on after an interruption, and a larger grid trains only what is new. A setting
    that fails is recorded (exit code 1) and the others go on. Test figures are shown beside; no rank comes from them.
    """
    from temporal.sweep import sweep as run_sweep
    from temporal.sweep_before import JSON, lost_figures
    from temporal.sweep_files import text, write_sweep

    axes = [parse_axis(each) for each in grid]
    base = merge(protocol(protocol_name), overrides)
    settings = combinations(axes, base, features)
    numbers = whole_numbers(seeds, "--seeds") or [resolve(RunSpec, base).train.seed]
    plan = Plan(tuple(numbers), cross_validate, allow_missing, jobs, device, cast("Backend", backend), scheduler, head_weights, together)
    if head_weights and not any(map(plan.weights_for, settings)):
        raise SpecError("--head-weights is given, but no head of the grid takes pretrained weights (see `actioncache heads`)")
    path = out / safe_name(name, "sweep name")
    check_writable(path)
    tell_untrained({0: videos}, cross_validate, all(setting.spec.train.refit for setting in settings))
    with stop_signals("saving the state of the trainings, then stopping") as stopped:
        done = run_sweep(settings, axes, videos, path, plan, "loss" if rank_by == "loss" else "accuracy", stopped)
    kept = lost_figures(path, done.rows)
    written = [] if kept else write_sweep(done)
    click.echo(text(done, written=not kept))
    click.echo(
        f"{path / JSON} and what belongs to it stay as they were: {kept}" if kept else f"wrote {', '.join(map(str, written))}", err=True
    )
    if any(row.trained.unchecked for row in done.rows):
        click.echo(f"note: {UNCHECKED_RUNS}", err=True)
    context.exit(1 if done.failed or done.missing else 0)
