"""One file over HTTP into a partial file that a later try continues, if the server can and the file there is still the same one."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import requests
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from store.files import PARTIAL_SUFFIX, write_text

TIMEOUT_SECONDS = 30.0
CHUNK_BYTES = 1 << 15  # what a broken connection may cost
TRIES = 5  # connections for one file, as long as each brings more of it than the ones before
TRANSIENT = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)


@dataclass(frozen=True)
class Origin:
    """What the beginning of a partial file is the beginning of."""

    url: str
    validator: str = ""  # strong ETag, else the time of the last change, as the server states it; empty: it states neither
    total: int | None = None  # bytes of the whole file

    @property
    def note(self) -> str:
        """As stored beside the partial file."""
        return json.dumps(asdict(self))


def partial_path(final: Path) -> Path:
    """Where the beginning of ``final`` is kept until it is whole."""
    return final.with_name(final.name + PARTIAL_SUFFIX)


def note_path(partial: Path) -> Path:
    """Where it is written what a partial file is the beginning of."""
    return partial.with_name(partial.name + ".json")


def discard(partial: Path) -> None:
    """Remove a partial file and its note."""
    for path in (partial, note_path(partial)):
        path.unlink(missing_ok=True)


def download(url: str, partial: Path, digest_known: bool) -> bool:
    """Bring ``partial`` to the whole file of ``url``; True if bytes of an earlier run were kept.

    They are kept if the server still has the same file (its ETag, time of change and length) and can send a part of it. A server that
    states neither ETag nor time is believed by the length alone where ``digest_known``, that is where the caller checks the result.
    A broken connection is taken up again. Raises ``OSError`` (requests' errors are) when the file does not come, with what came kept.
    """
    kept = _usable(url, partial, digest_known) > 0
    reached = -1
    for left in reversed(range(TRIES)):
        try:
            _attempt(url, partial, digest_known)
            return kept
        except TRANSIENT:
            size = partial.stat().st_size
            if not left or size <= reached:
                raise
            reached = size
    raise AssertionError("the last try returns or raises")


def _usable(url: str, partial: Path, digest_known: bool) -> int:
    """Bytes of ``partial`` that can be continued from."""
    origin = _noted(partial)
    if origin is None or origin.url != url or not (origin.validator or (digest_known and origin.total is not None)):
        return 0
    return partial.stat().st_size if partial.is_file() else 0


def _noted(partial: Path) -> Origin | None:
    try:
        return Origin(**json.loads(note_path(partial).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _attempt(url: str, partial: Path, digest_known: bool) -> None:
    start, before = _usable(url, partial, digest_known), _noted(partial)
    if start and before and start == before.total:
        return
    answer = _ask(url, start, before.validator if before else "")
    try:
        if start and not _continues(answer, start, before):
            start = 0
            if answer.status_code != requests.codes.ok:  # a part of another file, or no such part
                answer.close()
                answer = _ask(url, 0, "")
        answer.raise_for_status()
        total = start + int(answer.headers["Content-Length"]) if "Content-Length" in answer.headers else None
        if not start:
            partial.write_bytes(b"")  # before the note, which would claim the old bytes for this file
        write_text(note_path(partial), Origin(url, _validator(answer), total).note)
        _receive(answer, partial, start, total)
    finally:
        answer.close()
    if total is not None and partial.stat().st_size != total:
        raise requests.ConnectionError(f"the connection ended after {partial.stat().st_size:,} of {total:,} bytes")


def _ask(url: str, start: int, validator: str) -> Any:
    headers = {"Accept-Encoding": "identity"}  # or the bytes counted would not be the file's
    if start:
        headers["Range"] = f"bytes={start}-"
        if validator:
            headers["If-Range"] = validator
    return requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS)


def _continues(answer: Any, start: int, before: Origin | None) -> bool:
    """Whether an answer is the rest of the file that ``before`` notes, from byte ``start`` on."""
    if before is None or answer.status_code != requests.codes.partial_content:
        return False
    place, _, total = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
    same_length = before.total is None or total in ("*", str(before.total))
    return place.startswith(f"{start}-") and same_length and _validator(answer) in ("", before.validator)


def _validator(answer: Any) -> str:
    etag = answer.headers.get("ETag", "")
    return str(etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified", ""))


def _receive(answer: Any, partial: Path, start: int, total: int | None) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(24), DownloadColumn(), TransferSpeedColumn())
    with partial.open("r+b") as file, Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(partial.name.removesuffix(PARTIAL_SUFFIX), total=total, completed=start)
        file.truncate(start)
        file.seek(start)
        for chunk in answer.iter_content(CHUNK_BYTES):
            file.write(chunk)
            bar.advance(task, len(chunk))


@contextmanager
def reserved(partial: Path) -> Iterator[Path]:
    """Hold ``partial`` against other processes that download the same file; waits for one that is at it.

    Yields the path to use: where the system has no locks, one of this process's own, which is removed at the end.
    """
    while True:
        with partial.open("ab") as file:
            try:
                _lock(file, partial)
            except (OSError, ImportError):  # a network disk without locks; Windows
                break
            if partial.exists() and os.path.samestat(os.fstat(file.fileno()), partial.stat()):
                yield partial
                return
        # while we waited it was completed and renamed, or discarded
    if partial.exists() and partial.stat().st_size == 0:
        partial.unlink()
    yield from _own(partial)


def _lock(file: IO[bytes], partial: Path) -> None:
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"another process is downloading {partial.name.removesuffix(PARTIAL_SUFFIX)}; waiting for it", file=sys.stderr, flush=True)
        fcntl.flock(file, fcntl.LOCK_EX)


def _own(partial: Path) -> Iterator[Path]:
    own = partial.with_name(f"{partial.name.removesuffix(PARTIAL_SUFFIX)}.{os.getpid()}{PARTIAL_SUFFIX}")
    try:
        yield own
    finally:
        with suppress(OSError):
            discard(own)
