"""Videos that could not be done: one JSON line each, appended and flushed to the disk at once."""

import json
import os
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from store.errors import StoreError

SUFFIX = ".jsonl"


@dataclass(frozen=True)
class Failure:
    """Why a video has no features: the ``stage`` that gave up, its ``reason``, and the file as it was then.

    ``time`` is in seconds since 1970. ``path`` is empty when the writer did not name a file; ``bytes`` and ``mtime_ns`` are None
    when there was no such file.
    """

    id: str
    stage: str
    reason: str
    time: float = 0.0
    path: str = ""
    bytes: int | None = None
    mtime_ns: int | None = None

    def is_current(self, path: Path | None = None) -> bool:
        """Whether the file (``path``, or the one recorded) is still as it was; if not, trying again may succeed."""
        if not self.path:
            return True
        return (self.bytes, self.mtime_ns) == file_state(path or Path(self.path))


def file_state(path: Path) -> tuple[int | None, int | None]:
    """Size in bytes and time of change in nanoseconds; (None, None) for a file that is not there.

    Of a folder: the bytes of the files in it together, and the newest time of them and of itself. Its own time alone would not tell of a
    file that is written anew in its place.
    """
    try:
        status = path.stat()
        if not stat.S_ISDIR(status.st_mode):
            return status.st_size, status.st_mtime_ns
        with os.scandir(path) as entries:
            inside = [entry.stat() for entry in entries if entry.is_file()]
    except OSError:
        return None, None
    return sum(each.st_size for each in inside), max(each.st_mtime_ns for each in (status, *inside))


def new_failure(video_id: str, stage: str, reason: str, path: Path | None) -> Failure:
    """A failure of now, with the state of the video's file."""
    size, changed = file_state(path) if path else (None, None)
    return Failure(video_id, stage, reason, time.time(), str(path or ""), size, changed)


def append(file: Path, failure: Failure) -> None:
    """Add one line and flush it to the disk. ``OSError`` when the disk refuses."""
    line = json.dumps({key: value for key, value in vars(failure).items() if value not in (None, "")})
    _append_line(file, line)


def append_done(file: Path, video_id: str) -> None:
    """Note that a video failed before and has features now, so that its old failure never speaks again."""
    _append_line(file, json.dumps({"id": video_id, "done": True, "time": time.time()}))


def _append_line(file: Path, line: str) -> None:
    descriptor = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        size = os.fstat(descriptor).st_size
        torn = size and os.pread(descriptor, 1, size - 1) != b"\n"  # a writer died inside its last line
        data = ("\n" if torn else "").encode() + line.encode() + b"\n"
        while data:
            data = data[os.write(descriptor, data) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_all(folder: Path) -> tuple[dict[str, Failure], int]:
    """The last word on each video over all parts, and the number of lines that could not be read (torn by a dying writer)."""
    last: dict[str, tuple[float, Failure | None]] = {}
    torn = 0
    for file in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            lines = file.read_bytes().splitlines()
        except OSError as error:
            raise StoreError(f"{file} cannot be read: {error.strerror or error}") from None
        for line in lines:
            record = _parse(line)
            torn += record is None and bool(line.strip())
            if record and record[1] >= last.get(record[0], (0.0, None))[0]:
                last[record[0]] = record[1:]
    return {name: failure for name, (_, failure) in last.items() if failure}, torn


def _parse(line: bytes) -> tuple[str, float, Failure | None] | None:
    try:
        record = json.loads(line)
        if not isinstance(record, Mapping) or not isinstance(record.get("id"), str) or not isinstance(record.get("time", 0.0), int | float):
            return None
        when = float(record.get("time", 0.0))
    except (ValueError, RecursionError, OverflowError):
        return None
    return record["id"], when, None if record.get("done") else _failure(record, when)


def _failure(record: Mapping[str, Any], when: float) -> Failure:
    size, changed = (value if isinstance(value, int) else None for value in (record.get("bytes"), record.get("mtime_ns")))
    texts = [str(record.get(name, "")) for name in ("stage", "reason", "path")]
    return Failure(record["id"], texts[0], texts[1], when, texts[2], size, changed)
