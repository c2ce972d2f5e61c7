"""Files that exist only when complete: written aside, flushed to the disk, renamed into place."""

import glob
import hashlib
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from store.errors import StoreError

PARTIAL_SUFFIX = ".partial"
PARTIAL_AGE_SECONDS = 3600.0  # a partial file untouched for so long belongs to a writer that is dead
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,119}")


def safe_name(name: str, what: str = "name") -> str:
    """Return ``name`` if it can be one component of a path on any system, else raise ``StoreError``.

    Names of runs, parts and presets become paths, so nothing unchecked may reach ``Path``.
    """
    if not _SAFE_NAME.fullmatch(name):
        raise StoreError(f"{what} {name!r} cannot be a file name; use letters, digits and . _ + = - only (first a letter or digit)")
    return name


@contextmanager
def atomic_path(final: Path) -> Iterator[Path]:
    """Yield a path beside ``final`` to write to; on success it is fsynced and renamed to ``final``, on an error removed.

    A reader sees the old file or the new one, never a part of one, whatever kills the writer. An ``OSError`` names ``final``.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    aside = final.with_name(f".{final.name}.{secrets.token_hex(4)}{PARTIAL_SUFFIX}")
    try:
        with naming(final, instead_of=aside):
            yield aside
            fsync_file(aside)
            aside.replace(final)
            fsync_folder(final.parent)
    except BaseException:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise


@contextmanager
def naming(path: Path, instead_of: Path | None = None) -> Iterator[None]:
    """Give ``OSError``s of the block that name no file (a disk without room does not) ``path``, and those that name ``instead_of``."""
    try:
        yield
    except OSError as error:
        nameless = error.filename is None and error.strerror is not None  # an error in a library's own words keeps them
        if nameless or (instead_of is not None and str(error.filename) == str(instead_of)):
            error.filename = str(path)
        raise


def check_writable(*finals: Path) -> None:
    """Raise the ``OSError`` that writing files of these names, or into folders of these names, would end in, before the work for them.

    Makes nothing: a byte is written to, and taken away from, the folder that is there already.
    """
    for final in finals:
        folder = final.absolute()
        while not folder.exists():
            folder = folder.parent
        if folder.is_file() and folder == final.absolute():
            folder = folder.parent  # a file is replaced, which asks nothing of itself
        probe = folder / f".{secrets.token_hex(8)}{PARTIAL_SUFFIX}"
        with naming(final, instead_of=probe):
            try:
                probe.write_bytes(b"0")
            finally:
                with suppress(OSError):
                    probe.unlink(missing_ok=True)


def remove_asides(final: Path, older_than_seconds: float = PARTIAL_AGE_SECONDS) -> None:
    """Delete what killed writers of ``final`` left half-written beside it; a live one touches its file all the time."""
    for file in final.parent.glob(f".{glob.escape(final.name)}.????????{PARTIAL_SUFFIX}"):
        with suppress(OSError):  # gone already, or not ours to delete: no harm either way
            if time.time() - file.stat().st_mtime >= older_than_seconds:
                file.unlink()


def write_bytes(final: Path, data: bytes) -> None:
    """Write ``data`` to ``final`` atomically and durably."""
    with atomic_path(final) as aside:
        aside.write_bytes(data)


def write_text(final: Path, text: str) -> None:
    """Write ``text`` (UTF-8) to ``final`` atomically and durably."""
    write_bytes(final, text.encode())


def write_first(final: Path, text: str) -> None:
    """Write ``text`` (UTF-8) as ``write_text`` does, unless there is such a file, which then stays; of several writers one is first.

    On a disk without hard links the last one of those that write at the same moment stays.
    """
    if final.exists():
        return
    aside = final.with_name(f".{final.name}.{secrets.token_hex(4)}{PARTIAL_SUFFIX}")
    try:
        with naming(final, instead_of=aside):
            aside.write_text(text, encoding="utf-8")
            fsync_file(aside)
        os.link(aside, final)
        fsync_folder(final.parent)
    except FileExistsError:
        pass
    except OSError:  # no hard links, or no room: then this says so
        write_text(final, text)
    finally:
        aside.unlink(missing_ok=True)


def fsync_file(path: Path) -> None:
    """Flush a file's bytes to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_folder(path: Path) -> None:
    """Flush a folder's entries to the disk, where the system can (some network file systems refuse; a rename there is durable already)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def try_lock(descriptor: int) -> bool | None:
    """Take the exclusive lock of an open file, without waiting.

    True: it was free and is held now; False: somebody has it; None: the disk knows no locks. Freed when its process ends.
    """
    import fcntl  # POSIX only, and only writers lock

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
