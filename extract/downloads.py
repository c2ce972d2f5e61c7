"""Published files: downloaded once, checked against the digits in their names, and against their own SHA-256 ever after."""

import hashlib
import os
import re
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlparse

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from store.errors import WeightsError
from store.files import atomic_path, sha256_file, write_text

HOME_VARIABLE = "ACTIONCACHE_HOME"
TIMEOUT_SECONDS = 30.0
CHUNK_BYTES = 1 << 18


def cache_folder() -> Path:
    """Folder of downloaded weights: ``$ACTIONCACHE_HOME/weights``, or ``weights`` in the system's cache folder of actioncache."""
    import pooch

    home = os.environ.get(HOME_VARIABLE)
    return (Path(home).expanduser() if home else Path(pooch.os_cache("actioncache"))) / "weights"


def fetch(url: str) -> Path:
    """Path of the file of ``url`` in the cache folder; downloads it if it is not there, showing progress on stderr.

    A name like ``resnet34-b627a593.pth`` promises the first digits of the file's SHA-256; a download that breaks the promise is not kept.
    Without a connection ``WeightsError`` says what to download by hand and where to put it.
    """
    path = cache_folder() / Path(urlparse(url).path).name
    if path.is_file():
        return path
    try:
        with atomic_path(path) as aside:
            _download(url, aside, path.name)
            digest = sha256_file(aside)
            if not digest.startswith(promised_digits(path.name)):
                raise WeightsError(
                    f"{url} gave a file with SHA-256 {digest[:12]}..., but its name promises {promised_digits(path.name)}; it was not "
                    "kept. A proxy may have changed it: download it by another way"
                )
    except OSError as error:
        raise WeightsError(
            f"{url} could not be downloaded ({type(error).__name__}: {error}); download it by hand, put it at {path}, "
            f"and run the same command again. The folder can be changed with the environment variable {HOME_VARIABLE}"
        ) from None
    _record(path, digest)
    return path


def checked_bytes(path: Path) -> bytes:
    """The bytes of a file in the cache folder; ``WeightsError`` if they are not what they were at first use.

    The first use records the SHA-256 beside the file, in the format of ``sha256sum``, where the folder lets us.
    """
    data = path.read_bytes()
    digest, record = hashlib.sha256(data).hexdigest(), record_path(path)
    recorded = record.read_text(encoding="utf-8").split()[:1] if record.is_file() else []
    for origin, digits in ((f"{record.name} beside it says", "".join(recorded)), ("its name promises", promised_digits(path.name))):
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


def promised_digits(name: str) -> str:
    """First hexadecimal digits of the SHA-256 that a file name ends with, after a dash, as torchvision writes them; else empty."""
    match = re.fullmatch(r".*-([0-9a-f]{8,64})", Path(name).stem)
    return match.group(1) if match else ""


def _record(path: Path, digest: str) -> None:
    write_text(record_path(path), f"{digest}  {path.name}\n")


def _download(url: str, target: Path, name: str) -> None:
    import pooch

    with _Bar(name) as bar:
        pooch.HTTPDownloader(progressbar=bar, chunk_size=CHUNK_BYTES, timeout=TIMEOUT_SECONDS)(url, str(target), None)


class _Bar:
    """Progress on stderr, in the shape pooch asks for."""

    def __init__(self, name: str) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(24), DownloadColumn(), TransferSpeedColumn())
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._task = self._progress.add_task(name, total=None)
        self.total = 0

    def __enter__(self) -> "_Bar":
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def update(self, count: int) -> None:
        """Count ``count`` more bytes."""
        self._progress.update(self._task, advance=count, total=self.total or None)

    def reset(self) -> None:
        """Start counting again."""
        self._progress.reset(self._task)

    def close(self) -> None:
        """Nothing more will come."""
