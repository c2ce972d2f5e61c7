"""A real Slurm on this one machine: munged, slurmctld and slurmd of its own, in a folder and on ports of their own. Needs root."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")

CONFIGURATION = """
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmctldPort={ctld}
SlurmdPort={d}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobRequeue=1
MinJobAge=3600
KillWait=20
ReturnToService=2
SlurmctldTimeout=60
SlurmdTimeout=60
NodeName={host} NodeAddr=127.0.0.1 CPUs={tasks} RealMemory=2000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""


def lacking() -> str:
    """Why Slurm cannot be run here; empty if it can."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    if absent:
        return f"no {', '.join(absent)} (Debian: apt-get install slurmctld slurmd slurm-client munge)"
    return "" if os.geteuid() == 0 else "starting slurmd and munged needs root"


class SlurmHere:
    """Start with ``with``; ``environment`` is what Slurm's commands need to find it."""

    def __init__(self, folder: Path, tasks: int = 2) -> None:
        self.folder, self.tasks = folder, tasks
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": _path()}
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "SlurmHere":
        self.folder.chmod(0o755)
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        ports = [_free_port(), _free_port()]
        text = CONFIGURATION.format(
            folder=self.folder, host=socket.gethostname().split(".")[0], ctld=ports[0], d=ports[1], tasks=self.tasks
        )
        (self.folder / "slurm.conf").write_text(text)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        names = {"socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        files = [f"--{option}={self.folder}/munge.{name}" for option, name in names.items()]
        try:
            self._start(["munged", "--foreground", "--force", f"--key-file={key}", *files])
            self.wait(lambda: (self.folder / "munge.socket").exists(), "munged's socket")
            self._start(["slurmctld", "-D", "-i"])
            self._start(["slurmd", "-D"])
            self.wait(lambda: self.run("sinfo", "-h", "-o", "%t").strip() == "idle", "an idle node")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for process in reversed(self._processes):
            process.terminate()
        for process in reversed(self._processes):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()

    def run(self, *command: str) -> str:
        """What one of Slurm's commands prints; empty where it fails."""
        try:
            return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False, timeout=20).stdout
        except subprocess.TimeoutExpired:  # scancel tries for a minute to signal a task that is just ending
            return ""

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = 120.0) -> None:
        """Until ``condition()``; ``AssertionError`` with the logs' ends when that takes too long."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"waited {seconds:.0f} s for {what}\n{self.logs()}"
            time.sleep(0.2)  # what is waited for is another program's doing

    def logs(self) -> str:
        """The queue, and the ends of the daemons' logs."""
        queue = self.run("squeue", "--states", "all", "--array", "--format", "%i %T %r %S")
        files = [self.folder / name for name in ("munge.log", "slurmctld.log", "slurmd.log", "daemons.log")]
        return queue + "\n".join(f"{file.name}:\n{file.read_text(errors='replace')[-2000:]}" for file in files if file.exists())

    def _start(self, command: Sequence[str]) -> None:
        with (self.folder / "daemons.log").open("ab") as log:
            self._processes.append(subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _path() -> str:
    return os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmHere]:
    """A Slurm that runs two tasks at a time; where there can be none it skips, or fails if ACTIONCACHE_NEEDS_SLURM is set, saying why."""
    if reason := lacking():
        (pytest.fail if os.environ.get("ACTIONCACHE_NEEDS_SLURM") else pytest.skip)(reason)
    with SlurmHere(tmp_path_factory.mktemp("slurm")) as here:
        yield here
