"""Batch jobs without a batch system: options, queue lines, states, planning, several processes on one machine."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from extract.devices import Ended, device_names, joined
from extract.jobs.plan import Plan, load
from extract.jobs.slurm import SlurmOptions, TaskState, _parameters, header, is_of, parse_task
from extract.jobs.status import active_ids, newest_plan, publishing_rate, state, stores_with
from extract.jobs.task import ExtractPart, script
from extract.lasting import MEMORY
from store.errors import Interrupted, PipelineError, SpecError
from store.features import Features, FeatureStore
from store.videos import Video, VideoList

REPOSITORY = Path(__file__).resolve().parents[2]
SETTINGS = ["--backbone", "tiny", "--weights", "random:0", "--device", "cpu", "--crops.size", "56", "--crops.resize", "64"]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, str(REPOSITORY / "cli.py"), *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory, encode_video: Any, numbered_frames: Any) -> Path:
    """A list of nine videos of 5 to 45 frames."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(1, 10):
        encode_video(folder / f"{number}.mp4", numbered_frames(5 * number))
    (folder / "list.txt").write_text("".join(f"{number}.mp4\n" for number in range(1, 10)))
    return folder / "list.txt"


@pytest.mark.parametrize(
    ("text", "minutes"), [("60", 60), ("90:30", 91), ("04:00:00", 240), ("1-00:00:00", 1440), ("2-12", 3600), ("00:00:01", 1)]
)
def test_time_limits_are_read_as_sbatch_reads_them(text: str, minutes: int) -> None:
    assert SlurmOptions(time=text).minutes() == minutes


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"time": "soon"}, "time is 'soon'; write minutes"),
        ({"cpus": 0}, "cpus is 0"),
        ({"gpus": -1}, "gpus is -1"),
        ({"sbatch": {"--constraint": "a"}}, "write long names without dashes"),
    ],
)
def test_wrong_slurm_options(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        SlurmOptions(**wrong)


def test_lines_of_the_queue() -> None:
    assert parse_task("17_3|RUNNING|1:02|node4|a.plan.json") == TaskState("17", 3, "RUNNING", "1:02", "node4", "a.plan.json")
    assert parse_task("18|PENDING|0:00||") == TaskState("18", 0, "PENDING", "0:00", "", "")
    assert parse_task("slurm_load_jobs error") is None


def make_store(folder: Path, ids: list[str]) -> FeatureStore:
    store = FeatureStore.create(folder, "x", {"what": "test"})
    with store.writer("main") as writer:
        for name in ids:
            frames, times = np.array([[0, 1]]), np.array([[0.0, 1.0]])
            writer.add(name, Features({"a": np.ones((1, 2), np.float32)}, frames, times))
    return store


def test_done_failed_and_outstanding_are_the_list(tmp_path: Path) -> None:
    store = make_store(tmp_path, ["a", "b"])
    with store.writer("main") as writer:
        writer.fail("c", "decode", "is no video")
        writer.fail("f", MEMORY, "out of memory")  # is tried again by every extraction, and no end of it
    videos = VideoList(tuple(Video(name, tmp_path / name) for name in "abcdef"), ())
    found = state(videos, FeatureStore.open(store.path))
    failed = {"c": ("decode", "is no video"), "f": (MEMORY, "out of memory")}
    assert (found.done, found.failed, found.outstanding) == (2, failed, ("d", "e"))
    assert not found.complete
    assert found.rate is None


def test_the_rate_is_what_was_published_since_the_first_shard_of_the_window(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        make_store(tmp_path, [name])
    store = make_store(tmp_path, ["d", "e"])
    by_size = sorted(store.shards, key=lambda shard: len(shard.ids))
    for when, shard in zip((100, 5000, 5100, 5200), by_size, strict=True):
        os.utime(shard.path, (when, when))
    assert publishing_rate(store, now=5300.0) == pytest.approx(3 / 300)  # b begins the window; c, d and e came within it
    assert publishing_rate(store, now=10_000.0) is None


def plan_file(store: Path, name: str, parts: list[list[str]], *beside: str) -> Path:
    path = store / "jobs" / name
    Plan((str(store), *beside), "", ("extract",), tuple(map(tuple, parts)), (1.0,) * len(parts)).save(path)
    return path


def test_what_active_tasks_are_at_is_known_from_their_plans(tmp_path: Path) -> None:
    store = make_store(tmp_path, ["a"]).path
    file = str(plan_file(store, "1.plan.json", [["b"], ["c"], ["d"]]))
    tasks = [TaskState("5", index, what, "", "", file) for index, what in enumerate(["RUNNING", "FAILED", "PENDING"])]
    assert active_ids([store], tasks) == {"b", "d"}
    assert active_ids([store, tmp_path / "other"], tasks) == set()  # they fill one of the two
    with pytest.raises(SpecError, match="was not made by `jobs submit`"):
        active_ids([store], [TaskState("6", 0, "RUNNING", "", "", "(null)")])


def test_tasks_of_a_store_of_the_same_name_elsewhere_are_not_its_own(tmp_path: Path) -> None:
    ours, theirs = (make_store(tmp_path / name, ["a"]).path for name in ("ours", "theirs"))
    assert ours.name == theirs.name
    tasks = [TaskState("5", 0, "RUNNING", "", "", str(plan_file(store, "1.plan.json", [["b"]]))) for store in (ours, theirs)]
    assert [is_of(task, [ours]) for task in tasks] == [True, False]
    assert is_of(TaskState("6", 0, "RUNNING", "", "", "(null)"), [ours])  # nobody knows what it does


def test_stores_of_one_pass_know_one_another(tmp_path: Path) -> None:
    first, second = (make_store(tmp_path / name, ["a"]).path for name in ("first", "second"))
    assert stores_with(second) == [second]
    plan_file(first, "1.plan.json", [["b"]], str(second))
    shutil.copytree(first / "jobs", second / "jobs")
    assert stores_with(first) == stores_with(second) == [first, second]
    copy = shutil.copytree(first, tmp_path / "copy" / first.name)
    assert stores_with(copy) == [copy]  # the plan is about the other place
    (tmp_path / "link").symlink_to(first.parent)
    assert stores_with(tmp_path / "link" / first.name) == [first, second]


def test_a_task_runs_the_command_and_has_its_exit_code(tmp_path: Path) -> None:
    program = (sys.executable, "-c", "import sys; open(sys.argv[1], 'w').write(' '.join(sys.argv[2:])); sys.exit(1)")
    with pytest.raises(SystemExit) as ended:
        ExtractPart(program, (str(tmp_path / "said"), "extract"), "a.plan.json", 2, 8, gpus=2)()
    assert ended.value.code == 1
    assert (tmp_path / "said").read_text() == "extract --plan a.plan.json --part 2/8 --devices cuda:0,cuda:1"


def test_a_killed_command_is_an_interrupted_task() -> None:
    with pytest.raises(SystemExit) as ended:
        ExtractPart((sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"), (), "a.plan.json", 1, 1)()
    assert ended.value.code == 3


def test_a_task_that_is_told_to_stop_while_it_waits_publishes_and_is_requeued(tmp_path: Path) -> None:
    """As submitit does it: ``checkpoint`` runs in a signal handler while ``__call__`` waits."""
    code = "import signal, sys, time; signal.signal(signal.SIGUSR1, lambda *_: sys.exit(3)); open(sys.argv[1], 'w').close(); time.sleep(60)"
    task = ExtractPart((sys.executable, "-c", code), (str(tmp_path / "begun"),), "a.plan.json", 1, 1)
    requeued = []

    def tell() -> None:
        while not (tmp_path / "begun").exists():
            threading.Event().wait(0.01)
        os.kill(os.getpid(), signal.SIGUSR2)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)}
    signal.signal(signal.SIGUSR2, lambda *_: requeued.append(task.checkpoint()))
    teller = threading.Thread(target=tell)
    teller.start()
    try:
        with pytest.raises(SystemExit) as ended:
            task()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    teller.join()
    assert ended.value.code == 3
    assert requeued[0].function == ExtractPart(task.program, task.command, "a.plan.json", 1, 1)


def failing(error: Exception) -> ExtractPart:
    """A task whose wait is broken off by ``error`` once, as by a signal handler."""

    class Broken(ExtractPart):
        told = False

        def _wait(self) -> int:
            if not self.told:
                self.told = True
                raise error
            return super()._wait()

    code = "import signal, sys, time; signal.signal(signal.SIGUSR1, lambda *_: sys.exit(3)); time.sleep(60)"
    return Broken((sys.executable, "-c", code), (), "a.plan.json", 1, 1)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (subprocess.CalledProcessError(1, ["scontrol", "requeue", "5_1"]), 3, "not requeued: Command"),
        (FileNotFoundError(2, "No such file or directory", "scontrol"), 3, "not requeued: [Errno 2]"),
        (RuntimeError("something else"), 2, "RuntimeError: something else\nthis task was ended by the error above"),
    ],
)
def test_only_what_was_not_requeued_is_told_so(error: Exception, code: int, words: str, capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as ended:
            failing(error)()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == code
    said = capfd.readouterr().err
    assert words in said
    assert ("not requeued" in said) == (code == 3)


def test_steps_get_all_processors_of_their_task() -> None:
    """Since Slurm 22.05 srun takes one, unless it is told."""
    assert 'export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"' in _parameters(SlurmOptions(), "x", "a.plan.json")["setup"]
    assert 'export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"' in script(["x"], [], "a.plan.json", 2).splitlines()


def test_a_retry_of_failures_is_for_once(clips: Path, tmp_path: Path) -> None:
    flags = [clips, *SETTINGS, "--out", tmp_path / "f", "--no-time-here", "--print"]
    printed = run("jobs", "submit", *flags, "--parts", 3, "--retry-failed")
    assert printed.returncode == 0, printed.stderr
    (store,) = (tmp_path / "f").iterdir()
    first = newest_plan(store)
    assert first is not None
    assert ("--retry-failed" in first.command, first.once) == (False, ("--retry-failed",))
    assert "--retry-failed" in printed.stdout
    with FeatureStore.open(store).writer("main") as writer:
        for number in range(1, 9):
            writer.fail(f"{number}.mp4", "decode", "is no video")
    assert "--retry-failed" not in run("jobs", "retry", store, "--print").stdout
    second = newest_plan(store)
    assert second is not None
    assert (second.parts, second.once) == ((("9.mp4",),), ())
    both = run("jobs", "retry", store, "--print", "--retry-failed", "--parts", 2)
    assert "--retry-failed" in both.stdout
    assert "9 outstanding, 0 done, 0 failed before" in both.stderr
    assert "--retry-failed" not in run("jobs", "retry", store, "--print").stdout
    (store / "jobs").rename(tmp_path / "away")
    assert "nothing was ever submitted for" in run("jobs", "retry", store).stderr


def test_the_script_is_shell_and_quotes_what_needs_it(tmp_path: Path) -> None:
    command = ["/a b/python", "cli.py", "extract", "--name=it's"]
    text = script(command, ["#SBATCH --array=0-3%2"], "/x y/1.plan.json", 4)
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0
    line = next(line for line in text.splitlines() if line.startswith("srun"))
    assert shlex.split(line)[2:] == [*command, "--plan", "/x y/1.plan.json", "--part", "$((SLURM_ARRAY_TASK_ID + 1))/4"]


def test_planning_submitting_by_script_and_extracting_the_parts(clips: Path, tmp_path: Path) -> None:
    flags = [clips, *SETTINGS, "--clips.rule", "every", "--clips.stride", "1", "--out", tmp_path / "f", "--no-time-here"]
    planned = run("jobs", "plan", *flags, "--parts", 3, "--rate", 10, "-o", tmp_path / "a.plan.json", "--json")
    assert planned.returncode == 0, planned.stderr
    outlook = json.loads(planned.stdout)
    assert (outlook["outstanding"], outlook["clips"], outlook["frames"], outlook["parts"]) == (9, 225, 225, 3)
    assert outlook["imbalance"] < 1.1
    assert outlook["hours"] == pytest.approx((3 * 30 + 22.5) / 3600)
    assert outlook["cost"] == {"videos": 9, "clips": 225, "hours": pytest.approx(22.5 / 3600), "bytes": None}
    assert outlook["longest_hours"] == outlook["wall_hours"]
    plan = load(tmp_path / "a.plan.json")
    assert sorted(name for part in plan.parts for name in part) == sorted(f"{number}.mp4" for number in range(1, 10))
    for index in (1, 2, 3):
        ended = run("extract", *flags[:-1], "--plan", tmp_path / "a.plan.json", "--part", f"{index}/3", "--json")
        assert ended.returncode == 0, ended.stderr
        assert json.loads(ended.stdout)["done"] == len(plan.parts[index - 1])
    assert "nothing is outstanding" in run("jobs", "submit", *flags, "--parts", 2, "--print").stdout
    status = run("jobs", "status", clips, "--store", tmp_path / "f" / "custom")
    assert (status.returncode, "9 done, 0 failed, 0 outstanding, of 9" in status.stdout) == (0, True), status.stderr


def test_two_processes_share_a_part_and_give_the_same(clips: Path, tmp_path: Path) -> None:
    flags = [clips, *SETTINGS]
    both = run("extract", *flags, "--out", tmp_path / "two", "--devices", "cpu,cpu", "--json")
    assert both.returncode == 0, both.stderr
    assert json.loads(both.stdout)["done"] == 9
    assert run("extract", *flags, "--out", tmp_path / "one").returncode == 0
    one, two = (FeatureStore.open(next((tmp_path / name).iterdir())) for name in ("one", "two"))
    assert sorted(one.ids()) == sorted(two.ids())
    assert all(one.digests(name) == two.digests(name) for name in one.ids())
    assert {shard.name.split("-0")[0] for shard in two.shards} == {"main-1of2", "main-2of2"}


def ended(code: int, done: int = 1) -> Ended:
    summary = {"store": "s", "done": done, "skipped": 0, "failed": {}, "damaged": {}, "seconds": {"total": 1.0}, "clips": 2, "busy": 0.5}
    return Ended("cuda:0", code, [{**summary, "notes": []}] if code in (0, 1) else None)


def test_processes_are_joined_only_when_all_came_to_an_end() -> None:
    assert joined([ended(0), ended(1, 4)])[0]["done"] == 5
    with pytest.raises(Interrupted, match="cuda:0 ended with exit code 3"):
        joined([ended(0), ended(3)])
    with pytest.raises(Interrupted, match="exit code -9"):
        joined([ended(0), ended(-9)])
    with pytest.raises(PipelineError, match="exit code 2"):
        joined([ended(2), ended(3)])
    assert device_names("cuda:0, cpu") == ["cuda:0", "cpu"]
    with pytest.raises(SpecError, match="write names with commas between"):
        device_names(" , ")


def test_the_header_says_what_was_asked() -> None:
    plan = plan_like()
    lines = header(plan, Path("/f/x-1/jobs/a.plan.json"), SlurmOptions(partition="gpu", memory="32G", sbatch={"constraint": "a100|h100"}))
    assert "#SBATCH --partition=gpu" in lines
    assert "#SBATCH --array=0-1%64" in lines
    assert "#SBATCH --comment=/f/x-1/jobs/a.plan.json" in lines
    assert "#SBATCH --signal=USR1@90" in lines
    assert "#SBATCH --constraint='a100|h100'" in lines


def plan_like() -> Plan:
    return Plan(("/f/x-1",), "", ("extract",), (("a",), ("b",)), (1.0, 1.0))


def test_help_of_jobs_imports_no_torch() -> None:
    help_of_status = "import sys, cli; cli.cli.main(['jobs', 'status', '--help'], standalone_mode=False); assert 'torch' not in sys.modules"
    ended = subprocess.run([sys.executable, "-c", help_of_status], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
