"""Commands of batch jobs: ``jobs plan | submit | status | retry | logs | cancel``."""

import json
import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import chdir
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from extract.commands import extract_options
from extract.jobs import slurm
from extract.jobs.command_line import program, words
from extract.jobs.outlook_text import outlook_text
from extract.jobs.plan import SUFFIX, Plan
from extract.jobs.slurm import SlurmOptions
from store.digest import to_plain
from store.errors import PipelineError, SpecError
from store.list_commands import list_options
from store.options import resolve, spec_options
from store.signals import stop_signals
from store.spec_file import find_store
from store.videos import VideoList

if TYPE_CHECKING:
    from extract.jobs.planning import Asked, Outlook

_STORE = click.Path(file_okay=False, path_type=Path)
_LOG_BYTES = 20_000  # of one log, shown
ONCE = ("--retry-failed",)  # words of a command that are for one submission: a retry of it would do failures again and again
store_option = click.option("--store", type=_STORE, required=True, help="The store's folder, with or without its digest.")


@dataclass(frozen=True)
class Cutting:
    """How a list is cut, and what is known of its pace; see ``extract.jobs.planning.make_plan``."""

    parts: int
    rate: float | None
    timed: bool
    at_once: int
    least_cost: float = 0.0


def planning_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: how a list is cut."""
    for option in (
        click.option(
            "--time-here/--no-time-here",
            "timed",
            default=True,
            help="Time a few videos here for the rate, unless --rate says it.",
        ),
        click.option(
            "--such", type=click.IntRange(1), metavar="VIDEOS", help="Also say what so many videos like the outstanding ones would take."
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
@click.option(
    "--at-once",
    type=click.IntRange(1),
    default=SlurmOptions.at_once,
    show_default=True,
    help="Tasks that run at once, for the time it takes.",
)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the plan, for `extract --plan`.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.pass_context
def plan(
    context: click.Context,
    parts: int,
    such: int | None,
    rate: float | None,
    timed: bool,
    at_once: int,
    output: Path | None,
    as_json: bool,
    **arguments: Any,
) -> None:
    """Cut the outstanding part of LIST into parts of about equal work, and say what they will take. Takes the flags of `extract`."""
    command = ("extract", *words(context, skip=("parts", "such", "rate", "timed", "at_once", "output", "as_json")))
    cutting = Cutting(parts, rate, timed, at_once)
    with stop_signals("stopping; nothing is planned") as stopped:
        coming = _plan(asked(**arguments), command, cutting, stopped)
    if output is not None and coming.plan is not None:
        coming.plan.save(output)
    plain = to_plain(replace(coming, plan=None))
    click.echo(json.dumps(plain) if as_json else outlook_text(coming, such))
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
    such: int | None,
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
    skip = {"parts", "such", "rate", "timed", "only_print", *(_parameter(name) for name in vars(options))}
    cutting = Cutting(parts, rate, timed, options.at_once)
    _submit(asked(**arguments), ("extract", *words(context, skip)), cutting, options, only_print, such)


@jobs.command("retry")
@click.argument("store", type=_STORE)
@click.option(
    "--parts", type=click.IntRange(1), help="Number of parts. [default: as before; fewer where they would be smaller than before]"
)
@click.option("--retry-failed", is_flag=True, help="Also try videos again whose failure is recorded.")
@click.option("--print", "only_print", is_flag=True, help="Write the plan and print a script for sbatch instead of submitting.")
def retry(store: Path, parts: int | None, retry_failed: bool, only_print: bool) -> None:
    """Submit again what is outstanding of the last submission for STORE, whatever has happened to it.

    The list, the settings and Slurm's options are those of that submission; parts that are still in the queue are left alone.
    """
    from extract.jobs.status import newest_plan

    old = newest_plan(find_store(store).absolute())
    if old is None:
        raise SpecError(f"nothing was ever submitted for {store}; use `actioncache jobs submit`")
    options = resolve(SlurmOptions, old.slurm or {})
    least = 0.0 if parts else math.fsum(old.costs) / len(old.costs)
    cutting = Cutting(parts or len(old.parts), None, False, options.at_once, least)
    with chdir(old.folder or "."):
        command = (*old.command, *ONCE * retry_failed)
        _submit(parse(command), command, cutting, options, only_print)


@jobs.command("status")
@list_options
@store_option
@click.option("--watch", type=click.FloatRange(1), metavar="SECONDS", help="Look again so often, until nothing is outstanding.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.pass_context
def status(context: click.Context, videos: VideoList, store: Path, watch: float | None, as_json: bool) -> None:
    """Done, failed and outstanding videos of LIST, running tasks, rate and time left; exit code 3 while anything is outstanding.

    Of jobs with a second stream (--and-preset) it tells both stores, whichever of them is given.
    """
    from extract.jobs.status import state, stores_with, text
    from store.features import FeatureStore

    while True:
        folders = stores_with(find_store(store).absolute())
        tasks = _queue(folders)
        found = [state(videos, FeatureStore.open(folder), tasks) for folder in folders]
        plain = [{**to_plain(each), "tasks": [task._asdict() for task in tasks]} for each in found]
        click.echo(json.dumps(plain if len(plain) > 1 else plain[0]) if as_json else text(found, tasks))
        complete = all(each.complete for each in found)
        if watch is None or complete:
            break
        time.sleep(watch)
    context.exit(3 if not complete else 1 if any(each.failed for each in found) else 0)


@jobs.command("logs")
@click.argument("store", type=_STORE)
@click.option("--task", metavar="JOB_INDEX", help="Only this one, e.g. 1234_5. [default: a line of each]")
def logs(store: Path, task: str | None) -> None:
    """What the tasks of the jobs of STORE have said: the last line of each log, or the end of one."""
    from extract.jobs.status import stores_with

    folder = slurm.logs_folder(stores_with(find_store(store).absolute())[0])
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
    from extract.jobs.status import stores_with

    folders = stores_with(find_store(store).absolute())
    found = sorted({task.job for task in slurm.queue(folders) if task.active})
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


def _plan(request: "Asked", command: tuple[str, ...], cutting: Cutting, stopped: Callable[[], bool]) -> "Outlook":
    from extract.jobs.planning import check_rate, make_plan
    from extract.jobs.status import active_ids

    check_rate(cutting.rate)
    coming = make_plan(
        request,
        cutting.parts,
        tuple(word for word in command if word not in ONCE),
        cutting.rate,
        cutting.timed and cutting.rate is None,
        lambda stores: active_ids(stores, _queue(stores)),
        stopped,
        cutting.at_once,
        cutting.least_cost,
    )
    once = tuple(word for word in command if word in ONCE)
    return replace(coming, plan=replace(coming.plan, once=once) if coming.plan else None)


def _submit(
    request: "Asked", command: tuple[str, ...], cutting: Cutting, options: SlurmOptions, only_print: bool, such: int | None = None
) -> None:
    from extract.jobs.planning import create_stores

    with stop_signals("stopping; nothing is submitted") as stopped:
        coming = _plan(request, command, cutting, stopped)
    click.echo(outlook_text(coming, such), err=True)
    if coming.plan is None:
        click.echo("nothing is outstanding that is not in the queue already; nothing was submitted")
        return
    create_stores(request)
    chosen = replace(coming.plan, slurm=to_plain(options))
    files = _plan_files(chosen)
    for file in files:
        chosen.save(file)
    if only_print:
        from extract.jobs.task import script

        slurm.logs_folder(Path(chosen.store)).mkdir(parents=True, exist_ok=True)
        command = (*program(), *chosen.command, *chosen.once)
        click.echo(script(command, slurm.header(chosen, files[0], options), str(files[0]), len(chosen.parts)), nl=False)
        return
    try:
        job = slurm.submit(chosen, files[0], options, program())
    except PipelineError:
        for file in files:
            file.unlink()
        raise
    click.echo(f"submitted job {job} with {len(chosen.parts)} tasks")
    click.echo(f"watch it with `actioncache jobs status LIST --store {chosen.store}`")


def _plan_files(chosen: Plan) -> list[Path]:
    """A new file for it in each store, named by time and process so that two never meet; the first store's is the one that counts."""
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}{SUFFIX}"
    return [slurm.jobs_folder(Path(store)) / name for store in chosen.stores]


def _queue(stores: Sequence[Path]) -> list[slurm.TaskState]:
    """The stores' tasks; none, which is said, where Slurm is not there or does not answer.

    Videos that a task is at may then be planned twice; they are done once all the same (see ``store.claims``).
    """
    try:
        return slurm.queue(stores)
    except PipelineError as error:
        click.echo(f"note: the queue is not known: {str(error).splitlines()[0]}", err=True)
        return []


def _parameter(name: str) -> str:
    return f"spec__{name}"


def _tail(file: Path) -> str:
    data = file.read_bytes()[-_LOG_BYTES:]
    return data.decode(errors="replace")
