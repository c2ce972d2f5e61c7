"""What failed because of what is around a video is tried again by the same command; what failed by itself is not."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from extract.commands import extract
from extract.lasting import stands
from extract.worker import Emitter, _attempt
from store.failures import new_failure

NETWORK = ("--preset", "tiny", "--weights", "random:0", "--workers", "1", "--device", "cpu", "--json")
FROM_FILES = (*NETWORK, "--flow.method", "files", "--flow.origin", "by hand")


def run(folder: Path, *arguments: object) -> Result:
    return CliRunner().invoke(extract, [str(folder / "list.txt"), "--out", str(folder / "out"), *map(str, arguments)])


def counts(result: Result) -> tuple[int, int, list[tuple[str, str]]]:
    told = json.loads(result.stdout)
    return told["done"], told["skipped"], sorted((key, stage) for key, (stage, _) in told["failed"].items())


@pytest.fixture
def listed(tmp_path: Path, encode_video: Callable[..., Path], numbered_frames: Callable[..., list[np.ndarray]]) -> Path:
    encode_video(tmp_path / "v.mp4", numbered_frames(6))
    (tmp_path / "list.txt").write_text("v.mp4\n")
    return tmp_path


def write_flow(folder: Path, count: int = 5) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        for series in "xy":
            cv2.imwrite(str(folder / f"flow_{series}_{number:05}.png"), np.full((64, 128), 100 + number, np.uint8))


def test_a_flow_root_that_is_no_folder_marks_no_video(listed: Path) -> None:
    for more in ((), ("--dry-run",)):
        result = run(listed, *FROM_FILES, "--flow-root", listed / "mistyped", *more)
        assert "mistyped is no folder; check its name, and that its disk is mounted" in str(result.exception)
    assert not (listed / "out").exists()


def test_flow_that_was_not_ready_is_looked_for_again(listed: Path) -> None:
    (listed / "flow").mkdir()
    assert counts(run(listed, *FROM_FILES, "--flow-root", listed / "flow")) == (0, 0, [("v.mp4", "flow")])
    write_flow(listed / "flow" / "v")
    assert counts(run(listed, *FROM_FILES, "--flow-root", listed / "flow")) == (1, 0, [])


def test_a_bad_frame_that_is_written_anew_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    for number in range(4):
        cv2.imwrite(str(tmp_path / "v" / f"{number}.png"), np.full((64, 64, 3), 60 * number, np.uint8))
    good = (tmp_path / "v" / "2.png").read_bytes()
    (tmp_path / "v" / "2.png").write_bytes(b"bad")
    (tmp_path / "list.txt").write_text("v\n")
    folder = (tmp_path / "v").stat().st_mtime_ns
    assert counts(run(tmp_path, *NETWORK)) == (0, 0, [("v", "decode")])
    assert counts(run(tmp_path, *NETWORK)) == (0, 0, [("v", "decode")])
    (tmp_path / "v" / "2.png").write_bytes(good)
    assert (tmp_path / "v").stat().st_mtime_ns == folder
    assert counts(run(tmp_path, *NETWORK)) == (1, 0, [])


def test_only_what_is_around_a_video_does_not_last(tmp_path: Path) -> None:
    video = tmp_path / "v.mp4"
    video.write_bytes(b"1")
    spec = {"flow": {"method": "files"}}
    failure = new_failure("v", "decode", "broken", video)
    assert stands(failure, video, spec)
    assert stands(replace(failure, stage="hang"), video, spec)
    assert not stands(replace(failure, stage="flow"), video, spec)
    assert stands(replace(failure, stage="flow"), video, {"flow": {"method": "tvl1"}})
    assert stands(replace(failure, stage="flow"), video, {"origin": "imported"})
    os.utime(video, ns=(1, 1))
    assert not stands(failure, video, spec)


def test_a_worker_without_memory_says_nothing_of_its_video(tmp_path: Path) -> None:
    def work(job: object, emitter: Emitter) -> None:
        raise MemoryError

    kind, (stage, reason) = _attempt(work, None, None)  # type: ignore[arg-type]
    assert (kind, reason) == ("failed", "the worker ran out of memory")
    assert not stands(new_failure("v", stage, reason, tmp_path), tmp_path, {})
