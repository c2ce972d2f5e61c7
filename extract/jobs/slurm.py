"""Slurm as this project uses it: arrays submitted by submitit, the queue read by squeue, tasks cancelled by scancel. Imports no torch."""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from extract.jobs.plan import SUFFIX, Plan
from extract.jobs.task import ExtractPart
from store.digest import Checked, demand, setting
from store.errors import PipelineError

STOP_SIGNAL = "USR1"  # what a task is sent before its time is up; submitit's own default is USR2
ALL_CPUS = 'export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"'  # since Slurm 22.05 srun takes one processor unless it is told
REQUEUES = 1000  # a task goes on where it was, so its time may be up any number of times
_QUEUE_FORMAT = "%i|%T|%M|%N|%k"
_ACTIVE = frozenset({"PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "REQUEUED", "RESIZING", "STOPPED", "SIGNALING"})
_TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")


@dataclass(frozen=True)
class SlurmOptions(Checked):
    """What each task of the array asks Slurm for. Anything else goes into ``sbatch``."""

    partition: str = setting("", "Slurm partition; none given: the site's default")
    account: str = setting("", "account to charge")
    qos: str = setting("", "quality of service")
    time: str = setting("04:00:00", "time limit of a task: minutes, HH:MM:SS or D-HH:MM:SS; a task that reaches it goes on later")
    gpus: int = setting(1, "GPUs of a task; 0 asks for none, several share a task's part, one process each")
    cpus: int = setting(8, "processors of a task")
    memory: str = setting("", "memory of a task, as sbatch takes it, e.g. 32G; none given: the site's default")
    at_once: int = setting(64, "at most so many tasks run at once")
    stop_seconds: int = setting(90, "seconds before the time limit at which a task is told to publish and requeue itself")
    sbatch: dict[str, str] = field(
        default_factory=dict, metadata={"help": "further options of sbatch as KEY=VALUE,..., e.g. constraint=a100,exclude=node7"}
    )

    def check(self) -> None:
        demand(bool(_TIME.fullmatch(self.time)), f"time is {self.time!r}; write minutes, HH:MM:SS or D-HH:MM:SS")
        demand(self.gpus >= 0, f"gpus is {self.gpus}; it must be 0 or positive")
        for name in ("cpus", "at_once", "stop_seconds"):
            demand(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}; it must be at least 1")
        bad = [key for key in self.sbatch if not re.fullmatch(r"[a-z][a-z-]*", key)]
        demand(not bad, f"sbatch options {bad}; write long names without dashes in front, e.g. constraint=a100")

    def minutes(self) -> int:
        """The time limit in whole minutes, rounded up."""
        match = _TIME.fullmatch(self.time)
        assert match, "checked"
        days, *rest = match.groups()
        first, second, third = (int(part or 0) for part in rest)
        if days is not None:
            seconds = 86400 * int(days) + 3600 * first + 60 * second + third
        elif match[4] is not None:
            seconds = 3600 * first + 60 * second + third
        else:
            seconds = 60 * first + second  # sbatch: MM or MM:SS
        return -(-seconds // 60)


class TaskState(NamedTuple):
    """One task of an array in Slurm's queue."""

    job: str  # array job id
    place: int  # in the array, from 0
    state: str  # RUNNING, PENDING, ...
    elapsed: str
    node: str
    plan: str  # file of the submission's plan, which is the job's comment

    @property
    def active(self) -> bool:
        """Whether it runs or will run."""
        return self.state in _ACTIVE


def job_name(store: Path) -> str:
    """What the jobs of a store are called, by which the scheduler is asked for them."""
    return f"actioncache-{store.name}"


def submit(plan: Plan, plan_file: Path, options: SlurmOptions, program: Sequence[str]) -> str:
    """Submit one array with a task a part; the array's job id. ``PipelineError`` where Slurm refuses."""
    os.environ["SUBMITIT_PREEMPT_SIGNAL"] = STOP_SIGNAL  # read when submitit is imported, here and in the task
    try:
        import submitit
    except ImportError:
        raise PipelineError("jobs submit needs the package submitit: pip install 'actioncache[slurm]'; or use --print and sbatch") from None
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise PipelineError("there is no sbatch here; run this on a machine of the cluster, or use --print and take the script there")
    store = Path(plan.store)
    executor = submitit.SlurmExecutor(folder=logs_folder(store), max_num_timeout=REQUEUES)
    executor.update_parameters(**_parameters(options, job_name(store), str(plan_file)))
    command, count = (*plan.command, *plan.once), len(plan.parts)
    tasks = [ExtractPart(tuple(program), command, str(plan_file), index, count, options.gpus) for index in range(1, count + 1)]
    try:
        jobs = executor.submit_array(tasks)
    except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError, subprocess.CalledProcessError) as error:
        raise PipelineError(f"Slurm refused the job: {str(error).strip()}") from None
    return str(jobs[0].job_id).split("_")[0]


def _parameters(options: SlurmOptions, name: str, comment: str) -> dict[str, Any]:
    """The options in submitit's words."""
    asked = {
        "job_name": name,
        "comment": comment,
        "time": options.minutes(),
        "cpus_per_task": options.cpus,
        "gpus_per_node": options.gpus or None,
        "mem": options.memory or None,
        "partition": options.partition or None,
        "account": options.account or None,
        "qos": options.qos or None,
        "signal_delay_s": options.stop_seconds,
        "array_parallelism": options.at_once,
        "stderr_to_stdout": True,
        "additional_parameters": dict(options.sbatch) or None,
        "setup": [f"export SUBMITIT_PREEMPT_SIGNAL={STOP_SIGNAL}", ALL_CPUS, *_import_path()],
    }
    return {key: value for key, value in asked.items() if value is not None}


def _import_path() -> list[str]:
    """How a task finds this package where it is a checkout that is not installed."""
    root = Path(__file__).resolve().parents[2]
    if "site-packages" in root.parts:
        return []
    return [f"export PYTHONPATH={shlex.quote(str(root))}${{PYTHONPATH:+:$PYTHONPATH}}"]


def header(plan: Plan, plan_file: Path, options: SlurmOptions) -> list[str]:
    """The #SBATCH lines of a script that is submitted by hand."""
    asked = {
        "job-name": job_name(Path(plan.store)),
        "comment": str(plan_file),
        "chdir": str(Path.cwd()),  # the list, the weights and the store may be named relative to it, wherever sbatch is called
        "array": f"0-{len(plan.parts) - 1}%{options.at_once}",
        "time": options.time,
        "cpus-per-task": options.cpus,
        "gpus-per-node": options.gpus or "",
        "mem": options.memory,
        "partition": options.partition,
        "account": options.account,
        "qos": options.qos,
        "signal": f"{STOP_SIGNAL}@{options.stop_seconds}",
        "output": str(logs_folder(Path(plan.store)) / "%A_%a_0_log.out"),
        "open-mode": "append",
        **options.sbatch,
    }
    return [f"#SBATCH --{key}={shlex.quote(str(value))}" for key, value in asked.items() if value != ""]


def jobs_folder(store: Path) -> Path:
    """Where a store's plans are."""
    return store / "jobs"


def logs_folder(store: Path) -> Path:
    """Where the tasks of a store's jobs write what they say."""
    return jobs_folder(store) / "logs"


def queue(stores: Sequence[Path]) -> list[TaskState]:
    """The tasks of these stores' jobs that Slurm still knows; those of the last minutes that have ended, too.

    ``PipelineError`` where there is no Slurm, or it does not answer.
    """
    names = ",".join(dict.fromkeys(map(job_name, stores)))
    text = _run(["squeue", "--name", names, "--states", "all", "--array", "--noheader", "--format", _QUEUE_FORMAT])
    return [task for line in text.splitlines() if (task := parse_task(line)) is not None and is_of(task, stores)]


def is_of(task: TaskState, stores: Sequence[Path]) -> bool:
    """Whether a task with these stores' name is theirs: not one of a store of the same name elsewhere."""
    plan = Path(task.plan)
    return not (plan.is_absolute() and task.plan.endswith(SUFFIX)) or plan.parent.resolve() in {
        jobs_folder(store).resolve() for store in stores
    }


def parse_task(line: str) -> TaskState | None:
    """One line of ``squeue`` in our format; None for what is no task."""
    cells = line.strip().split("|", 4)
    if len(cells) != 5:
        return None
    job, _, index = cells[0].partition("_")
    return TaskState(job, int(index) if index.isdecimal() else 0, *cells[1:])


def cancel(jobs: Iterable[str]) -> None:
    """End these jobs; their tasks publish what is complete first."""
    _run(["scancel", *jobs])


def _run(command: Sequence[str]) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    except FileNotFoundError:
        raise PipelineError(f"there is no {command[0]} here; run this on a machine of the cluster") from None
    except subprocess.CalledProcessError as error:
        raise PipelineError(f"{command[0]} failed: {error.stderr.strip() or f'exit code {error.returncode}'}") from None
    except subprocess.TimeoutExpired:
        raise PipelineError(f"{command[0]} did not answer within a minute") from None
