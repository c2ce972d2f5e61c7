"""C that comes with the package, compiled at first use by the machine's own compiler, kept in the cache folder, called through ctypes.

What is written in C is compiled to run on every processor of its kind (``target_clones``: the loader takes the variant that the processor
has), so that what a cluster's login node compiled serves its other nodes. ``ACTIONCACHE_NATIVE=0`` switches all of it off.
"""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from store.files import fsync_file

SWITCH = "ACTIONCACHE_NATIVE"
HOME_VARIABLE = "ACTIONCACHE_HOME"
COMPILERS = ("cc", "gcc", "clang")
COMPILE_SECONDS = 300


def home_folder() -> Path:
    """What outlives a process and can be made anew: ``$ACTIONCACHE_HOME``, or the system's cache folder of actioncache."""
    import pooch

    home = os.environ.get(HOME_VARIABLE)
    return Path(home).expanduser() if home else Path(pooch.os_cache("actioncache"))


def switched_off() -> bool:
    """Whether the user wants no compiled code."""
    return os.environ.get(SWITCH) == "0"


def load_or_compile(sources: Sequence[Path], flags: Sequence[str], ways: Sequence[Sequence[str]]) -> ctypes.CDLL:
    """The library of ``sources``: the first is compiled, the others are what it includes.

    ``ways``: further flags, in the order in which they are tried, because not every compiler and loader knows all of them. ``RuntimeError``
    says why it cannot be compiled.
    """
    text = b"".join(source.read_bytes() for source in sources)
    digest = hashlib.sha256(text + repr((tuple(flags), tuple(ways))).encode()).hexdigest()[:16]
    name = f"{sources[0].parent.name}-{digest}-{sys.platform}-{platform.machine()}.so"
    path = home_folder() / "compiled" / name
    with suppress(OSError):  # there is none yet, or it is for another system
        return ctypes.CDLL(str(path))
    with _workplace(path.parent) as folder:
        library, file = _compile(Path(folder), sources[0], _compiler(), flags, ways)
        with suppress(OSError):
            fsync_file(file)
            file.replace(path)
    return library


def _workplace(folder: Path) -> tempfile.TemporaryDirectory[str]:
    """A new folder in ``folder``, so that a rename moves what is made there; elsewhere if it cannot be written."""
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(dir=folder, prefix=".")
    return tempfile.TemporaryDirectory()


def _compiler() -> list[str]:
    """The command ``$CC``, else the first of ``COMPILERS`` on the path."""
    if given := shlex.split(os.environ.get("CC", "")):
        return given
    for name in COMPILERS:
        if path := shutil.which(name):
            return [path]
    raise RuntimeError(f"no C compiler ({', '.join(COMPILERS)}) is on the path; install one or name it in the environment variable CC")


def _compile(
    folder: Path, source: Path, compiler: list[str], flags: Sequence[str], ways: Sequence[Sequence[str]]
) -> tuple[ctypes.CDLL, Path]:
    problem = ""
    for number, way in enumerate(ways):
        file = folder / f"{number}.so"
        try:
            command = [*compiler, *flags, *way, str(source), "-o", str(file), "-lm"]
            subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS, check=True)
            return ctypes.CDLL(str(file)), file
        except subprocess.CalledProcessError as error:
            problem = f"{shlex.join(compiler)} failed: {error.stderr.strip()[-300:]}"
        except (OSError, subprocess.TimeoutExpired) as error:
            problem = f"{shlex.join(compiler)}: {error}"
    raise RuntimeError(problem)
