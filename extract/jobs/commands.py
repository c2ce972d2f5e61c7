"""Commands of batch jobs: ``jobs plan | submit | status | retry | logs | cancel``."""

import json
import os
import time
from collections.abc import Callable
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from extract.commands import extract_options, megabytes
from extract.jobs import slurm
from extract.jobs.command_line import program, words
from extract.jobs.plan import SUFFIX, Plan, load
from extract.jobs.slurm import SlurmOptions
from store.digest import to_plain
from store.errors import PipelineError, SpecError
from store.list_commands import list_options
from store.options import resolve, spec_options
from store.progress import duration
from store.signals import stop_signals
from store.spec_file import find_store
from store.videos import VideoList

if TYPE_CHECKING:
    from extract.jobs.planning import Asked, Outlook

_STORE = click.Path(file_okay=False, path_type=Path)
_LOG_BYTES = 20_000  # of one log, shown
store_option = click.option("--store", type=_STORE, required=True, help="The store's folder, with or without its digest.")


def planning_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: how a list is cut."""
    for option in (
        click.option(
            "--time-here/--no-time-here",
            "timed",
            default=True,
            help="Time a few videos here for the rate, unless --rate says it.",
        ),
        click.option("--rate", type=float, help="Clips a second of one task, as the summary of `extract` prints it."),
        click.option("--parts", type=click.IntRange(1), required=True, help="Number of parts, each a task of the array."),
    ):
        command = option(command)
    return command


@click.group("jobs")
def jobs() -> None:
    """Run `extract` as a Slurm job array: plan, submit, watch, and try again what is outstanding."""


@jobs.command("plan")
@extract_options
@planning_options
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the plan, for `extract --plan`.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.pass_context
def plan(context: click.Context, parts: int, rate: float | None, timed: bool, output: Path | None, as_json: bool, **arguments: Any) -> None:
    """Cut the outstanding part of LIST into parts of about equal work, and say what they will take. Takes the flags of `extract`."""
    command = ("extract", *words(context, skip=("parts", "rate", "timed", "output", "as_json")))
    with stop_signals("stopping; nothing is planned") as stopped:
        coming = _plan(asked(**arguments), parts, command, rate, timed, stopped)
    if output is not None and coming.plan is not None:
        coming.plan.save(output)
    plain = to_plain(replace(coming, plan=None))
    click.echo(json.dumps(plain) if as_json else outlook_text(coming))
    if output is not None:
        click.echo(f"wrote {output}" if coming.plan else "nothing is outstanding; no plan was written", err=True)
    context.exit(1 if coming.unreadable else 0)


@jobs.command("submit")
@extract_options
@planning_options
@click.option("--print", "only_print", is_flag=True, help="Write the plan and print a script for sbatch instead of submitting.")
@spec_options(SlurmOptions, into="asked_slurm", config=False)
@click.pass_context
def submit(
    context: click.Context,
    parts: int,
    rate: float | None,
    timed: bool,
    only_print: bool,
    asked_slurm: dict[str, Any],
    **arguments: Any,
) -> None:
    """Submit what is outstanding of LIST as a Slurm job array, through submitit. Takes the flags of `extract`.

    Videos that tasks of the same store are at already are left to them, so the same list may be submitted twice.
    """
    options = resolve(SlurmOptions, asked_slurm)
    skip = {"parts", "rate", "timed", "only_print", *(_parameter(name) for name in vars(options))}
    _submit(asked(**arguments), ("extract", *words(context, skip)), parts, rate, timed, options, only_print)


@jobs.command("retry")
@click.argument("store", type=_STORE)
@click.option("--parts", type=click.IntRange(1), help="Number of parts. [default: as before, less where less is left]")
@click.option("--retry-failed", is_flag=True, help="Also try videos again whose failure is recorded.")
@click.option("--print", "only_print", is_flag=True, help="Write the plan and print a script for sbatch instead of submitting.")
def retry(store: Path, parts: int | None, retry_failed: bool, only_print: bool) -> None:
    """Submit again what is outstanding of the last submission for STORE, whatever has happened to it.

    The list, the settings and Slurm's options are those of that submission; parts that are still in the queue are left alone.
    """
    from extract.jobs.status import newest_plan

    old = load(newest_plan(find_store(store).absolute()))
    command = old.command if not retry_failed or "--retry-failed" in old.command else (*old.command, "--retry-failed")
    with chdir(old.folder or "."):
        options = resolve(SlurmOptions, old.slurm or {})
        total = parts or len(old.parts)
        _submit(parse(command), command, total, None, False, options, only_print)


@jobs.command("status")
@list_options
@store_option
@click.option("--watch", type=click.FloatRange(1), metavar="SECONDS", help="Look again so often, until nothing is outstanding.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.pass_context
def status(context: click.Context, videos: VideoList, store: Path, watch: float | None, as_json: bool) -> None:
    """Done, failed and outstanding videos of LIST, running tasks, rate and time left; exit code 3 while anything is outstanding."""
    from extract.jobs.status import state, text
    from store.features import FeatureStore

    folder = find_store(store).absolute()
    while True:
        tasks = _queue(folder)
        found = state(videos, FeatureStore.open(folder), tasks)
        click.echo(json.dumps({**to_plain(found), "tasks": [task._asdict() for task in tasks]}) if as_json else text(found, tasks))
        if watch is None or found.complete:
            break
        time.sleep(watch)
    context.exit(3 if not found.complete else 1 if found.failed else 0)


@jobs.command("logs")
@click.argument("store", type=_STORE)
@click.option("--task", metavar="JOB_INDEX", help="Only this one, e.g. 1234_5. [default: a line of each]")
def logs(store: Path, task: str | None) -> None:
    """What the tasks of the jobs of STORE have said: the last line of each log, or the end of one."""
    folder = slurm.logs_folder(find_store(store))
    files = sorted(folder.glob("*_log.out"), key=lambda path: path.stat().st_mtime)
    if task is not None:
        files = [file for file in files if file.name.startswith(f"{task}_")]
        if not files:
            raise SpecError(f"there is no log of task {task!r} in {folder}")
        click.echo(_tail(files[-1]))
        return
    for file in files:
        lines = _tail(file).strip().splitlines()
        click.echo(f"{file.name.removesuffix('_0_log.out')}  {lines[-1] if lines else '(nothing yet)'}")


@jobs.command("cancel")
@click.argument("store", type=_STORE)
def cancel(store: Path) -> None:
    """End all jobs of STORE; tasks publish what is complete first."""
    folder = find_store(store).absolute()
    found = sorted({task.job for task in slurm.queue(folder) if task.active})
    if found:
        slurm.cancel(found)
    click.echo(f"cancelled: {', '.join(found)}" if found else "no job of this store is in the queue")


def asked(**arguments: Any) -> "Asked":
    """The arguments of ``extract_options`` as one thing."""
    from extract.jobs.planning import Asked

    return Asked(arguments["videos"], arguments["wanted"], arguments["out"], arguments["options"])


@click.command("extract")
@extract_options
def _parsed(**arguments: Any) -> "Asked":
    return asked(**arguments)


def parse(command: tuple[str, ...]) -> "Asked":
    """A plan's command, read again."""
    found: Asked = _parsed.main(list(command[1:]), standalone_mode=False)
    return found


def _plan(
    request: "Asked", parts: int, command: tuple[str, ...], rate: float | None, timed: bool, stopped: Callable[[], bool]
) -> "Outlook":
    from extract.jobs.planning import check_rate, make_plan
    from extract.jobs.status import active_ids

    check_rate(rate)
    return make_plan(request, parts, command, rate, timed and rate is None, lambda store: active_ids(store, _queue(store)), stopped)


def _submit(
    request: "Asked", command: tuple[str, ...], parts: int, rate: float | None, timed: bool, options: SlurmOptions, only_print: bool
) -> None:
    from extract.jobs.planning import create_store

    with stop_signals("stopping; nothing is submitted") as stopped:
        coming = _plan(request, parts, command, rate, timed, stopped)
    click.echo(outlook_text(coming), err=True)
    if coming.plan is None:
        click.echo("nothing is outstanding that is not in the queue already; nothing was submitted")
        return
    create_store(request)
    chosen = replace(coming.plan, slurm=to_plain(options))
    file = _plan_file(chosen)
    chosen.save(file)
    if only_print:
        from extract.jobs.task import script

        slurm.logs_folder(Path(chosen.store)).mkdir(parents=True, exist_ok=True)
        click.echo(script([*program(), *chosen.command], slurm.header(chosen, file, options), str(file), len(chosen.parts)), nl=False)
        return
    try:
        job = slurm.submit(chosen, file, options, program())
    except PipelineError:
        file.unlink()
        raise
    click.echo(f"submitted job {job} with {len(chosen.parts)} tasks")
    click.echo(f"watch it with `actioncache jobs status LIST --store {chosen.store}`")


def _plan_file(chosen: Plan) -> Path:
    """A new file for it in the store's ``jobs``, named by time and process so that two never meet."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return Path(chosen.store) / "jobs" / f"{stamp}-{os.getpid()}{SUFFIX}"


def _queue(store: Path) -> list[slurm.TaskState]:
    """The store's tasks; none, which is said, where Slurm is not there or does not answer.

    Videos that a task is at may then be done twice, which costs time and never a feature.
    """
    try:
        return slurm.queue(store)
    except PipelineError as error:
        click.echo(f"note: the queue is not known: {str(error).splitlines()[0]}", err=True)
        return []


def _parameter(name: str) -> str:
    return f"spec__{name}"


def _tail(file: Path) -> str:
    data = file.read_bytes()[-_LOG_BYTES:]
    return data.decode(errors="replace")


def outlook_text(coming: "Outlook") -> str:
    """What is to come, in words."""
    lines = [
        coming.store,
        f"{coming.outstanding} outstanding, {coming.done} done, {coming.failed} failed before",
        f"{coming.clips} clips from {coming.frames} frames" + ("" if coming.bytes is None else f", {megabytes(coming.bytes)} of features"),
        f"{coming.parts} parts; the largest is {coming.imbalance:.2f} times the mean",
    ]
    if coming.hours is not None and coming.longest_hours is not None:
        how = "timed on this machine" if coming.measured else "as given"
        lines.append(
            f"about {coming.hours:.2f} hours of one task or GPU in all ({coming.rate:.2f} clips/s, {how}); "
            f"the longest part {duration(3600 * coming.longest_hours)}"
        )
    else:
        lines.append("no hours: give --rate CLIPS_PER_SECOND, as the summary of `extract` on such a machine prints it, or --time-here")
    shown = list(coming.unreadable.items())
    lines += [f"unreadable {video}: {reason}" for video, reason in shown[:20]]
    lines += [f"... and {len(shown) - 20} more" for _ in shown[20:21]]
    return "\n".join(lines)
