"""Published files: downloaded once, checked against what their publishers state, and against their own SHA-256 ever after."""

import hashlib
import re
import sys
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlparse

from extract.http_file import discard, download, note_path, partial_path, reserved
from store.compiled import HOME_VARIABLE, home_folder
from store.errors import WeightsError
from store.files import fsync_file, fsync_folder, sha256_file, write_text


def cache_folder() -> Path:
    """Folder of downloaded weights: ``$ACTIONCACHE_HOME/weights``, or ``weights`` in the system's cache folder of actioncache."""
    return home_folder() / "weights"


def cached_path(url: str) -> Path:
    """Where the file of ``url`` is kept once it is there."""
    return cache_folder() / Path(urlparse(url).path).name


def fetch(url: str, sha256: str = "") -> Path:
    """Path of the file of ``url`` in the cache folder; downloads it if it is not there, showing progress on stderr.

    What arrives stays beside it as ``*.partial``, and the next try continues there. ``sha256`` (or its first digits) is what the publisher
    states; a name like ``resnet34-b627a593.pth`` states it too. A download that breaks the promise is not kept. Without a connection
    ``WeightsError`` says what to download by hand and where to put it.
    """
    path = cached_path(url)
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with reserved(partial_path(path)) as partial:
            if path.is_file():  # another process brought it meanwhile
                discard(partial)
            else:
                _complete(url, path, partial, sha256)
    except OSError as error:
        raise WeightsError(
            f"{url} could not be downloaded ({type(error).__name__}: {_cause(error)}); {_left(path)}download it by hand, put it at {path}, "
            f"and run the same command again. The folder can be changed with the environment variable {HOME_VARIABLE}"
        ) from None
    return path


def _complete(url: str, path: Path, partial: Path, sha256: str) -> None:
    """Download into ``partial`` and rename it to ``path`` if it is what was promised."""
    promised = (sha256 or promised_digits(path.name)).lower()
    kept = download(url, partial, digest_known=bool(promised))
    digest = sha256_file(partial)
    if kept and not digest.startswith(promised):  # perhaps the end of one file behind the beginning of another
        note_path(partial).unlink(missing_ok=True)
        download(url, partial, digest_known=True)
        digest = sha256_file(partial)
    if not digest.startswith(promised):
        discard(partial)
        raise WeightsError(
            f"{url} gave a file with SHA-256 {digest[:12]}..., but {_promiser(sha256)} promises {promised}; it was not "
            "kept. A proxy may have changed it: download it by another way"
        )
    if not promised and url.startswith("http://"):
        print(
            f"note: {url} came over plain HTTP and its publisher states no SHA-256, so nothing tells whether it was changed on the way; "
            f"it has SHA-256 {digest}: compare that with another source",
            file=sys.stderr,
            flush=True,
        )
    fsync_file(partial)
    partial.replace(path)
    discard(partial)
    fsync_folder(path.parent)
    _record(path, digest)


def _cause(error: OSError) -> str:
    """The words of an error; of one that HTTP libraries wrapped in others, the innermost."""
    return str(error).rpartition("(Caused by ")[2]


def _promiser(sha256: str) -> str:
    return "its publisher" if sha256 else "its name"


def _left(path: Path) -> str:
    """What remains of a try that failed, in words; a try that brought nothing leaves nothing."""
    partial = partial_path(path)
    size = partial.stat().st_size if partial.is_file() else 0
    if size:
        return f"the {size:,} bytes that came are kept, and the same command continues there. Or "
    with suppress(OSError):
        discard(partial)
    return ""


def checked_bytes(path: Path, sha256: str = "") -> bytes:
    """The bytes of a file in the cache folder; ``WeightsError`` if they are not what they were at first use, or what its publisher states.

    The first use records the SHA-256 beside the file, in the format of ``sha256sum``, where the folder lets us.
    """
    data = path.read_bytes()
    digest, record, recorded = hashlib.sha256(data).hexdigest(), record_path(path), recorded_digits(path)
    stated = (
        (f"{record.name} beside it says", recorded),
        ("its publisher promises", sha256.lower()),
        ("its name promises", promised_digits(path.name)),
    )
    for origin, digits in stated:
        if not digest.startswith(digits):
            raise WeightsError(
                f"{path} has SHA-256 {digest}, but {origin} {digits}: it is damaged or another file; "
                f"delete {path} and {record.name} to download it again"
            )
    if not recorded:
        with suppress(OSError):  # a cache that others keep, and we may only read
            _record(path, digest)
    return data


def record_path(path: Path) -> Path:
    """Where the SHA-256 of a downloaded file is recorded."""
    return path.with_name(path.name + ".sha256")


def recorded_digits(path: Path) -> str:
    """The SHA-256 that is recorded of a downloaded file; empty where none is."""
    record = record_path(path)
    return "".join(record.read_text(encoding="utf-8").split()[:1]) if record.is_file() else ""


def promised_digits(name: str) -> str:
    """First hexadecimal digits of the SHA-256 that a file name ends with, after a dash, as torchvision writes them; else empty."""
    match = re.fullmatch(r".*-([0-9a-f]{8,64})", Path(name).stem)
    return match.group(1) if match else ""


def _record(path: Path, digest: str) -> None:
    write_text(record_path(path), f"{digest}  {path.name}\n")
