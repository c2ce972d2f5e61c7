"""What one task of an array runs: ``actioncache extract ... --part I/N`` as a process of its own, whose exit code is the task's.

A process of its own, so that submitit's signal handlers and exit codes and the command's never mix.
"""

import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

INTERRUPTED = 3  # exit code of a command that the same command resumes
ERROR = 2  # of one that is not finished with recorded failures, which is 1


@dataclass
class ExtractPart:
    """A picklable task. ``program`` and ``command`` make the extraction, ``index`` of ``count`` its part of the plan in ``plan_file``."""

    program: tuple[str, ...]
    command: tuple[str, ...]
    plan_file: str
    index: int
    count: int
    gpus: int = 0
    _child: Any = field(default=None, repr=False)

    def arguments(self) -> list[str]:
        """The whole command line."""
        several = ["--devices", ",".join(f"cuda:{number}" for number in range(self.gpus))] if self.gpus > 1 else []
        return [*self.program, *self.command, "--plan", self.plan_file, "--part", f"{self.index}/{self.count}", *several]

    def __call__(self) -> None:
        """Run it; leaves with its exit code, so that a task is only ever COMPLETED when nothing of its part is left."""
        print("$", *self.arguments(), flush=True)
        self._child = subprocess.Popen(self.arguments())
        signal.signal(signal.SIGTERM, self._forward)
        try:
            code = self._wait()
        except Exception as error:  # out of submitit's signal handler, or a bug
            self._stop()
            code = self._tell(error)
        raise SystemExit(INTERRUPTED if code < 0 else code)

    def _tell(self, error: Exception) -> int:
        """Say why the task ends while its process did not; the exit code for that."""
        from submitit.core.utils import UncompletedJobError

        absent = isinstance(error, FileNotFoundError) and error.filename == "scontrol"
        if absent or isinstance(error, UncompletedJobError | subprocess.SubprocessError):  # of submitit, or of the `scontrol` that it runs
            print(f"not requeued: {error}; run `actioncache jobs retry`", file=sys.stderr, flush=True)
            return INTERRUPTED
        traceback.print_exception(error)
        print("this task was ended by the error above; what is complete is published", file=sys.stderr, flush=True)
        return ERROR

    def checkpoint(self) -> Any:
        """Before the time is up, or when the task is preempted: have what is complete published; submitit then requeues the task.

        A part that is just done, or that an error has ended, is not requeued but ends with its exit code.
        """
        from submitit.helpers import DelayedSubmission

        code = self._stop()
        if code in (0, 1, ERROR):
            raise SystemExit(code)
        return DelayedSubmission(ExtractPart(self.program, self.command, self.plan_file, self.index, self.count, self.gpus))

    def _stop(self) -> int:
        if self._child is None:
            return INTERRUPTED
        os.kill(self._child.pid, signal.SIGUSR1)
        return self._wait()

    def _wait(self) -> int:
        """The exit code of the process, which stays to be collected, so that its number is nobody else's.

        Not ``Popen.wait``: a signal handler that waits while the program under it waits would wait for that one's lock, for ever.
        """
        ended = os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    def _forward(self, number: int, frame: FrameType | None) -> None:
        if self._child is not None:
            os.kill(self._child.pid, number)


def script(command: Sequence[str], header: Sequence[str], plan_file: str, count: int) -> str:
    """A script for ``sbatch`` that does the same without submitit; ``header`` are its #SBATCH lines.

    The task is told to publish by SIGUSR1 and requeues itself when the command ends as interrupted.
    """
    import shlex

    line = " ".join([*map(shlex.quote, command), "--plan", shlex.quote(plan_file), "--part", f'"$((SLURM_ARRAY_TASK_ID + 1))/{count}"'])
    return "\n".join(
        [
            "#!/bin/bash",
            *header,
            'export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"',
            f"srun --unbuffered {line}",
            "code=$?",
            f'if [ "$code" -eq {INTERRUPTED} ]; then',
            '    scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"',
            "fi",
            'exit "$code"',
            "",
        ]
    )
