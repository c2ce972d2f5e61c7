"""Files of an export: written whole, never in the place of other ones unless that is asked for."""

from pathlib import Path

from store.errors import StoreError
from store.files import write_bytes


def write_files(out: Path, files: dict[str, bytes], overwrite: bool) -> bool:
    """Write files {path relative to ``out``: content} that belong together; False where all were there with equal content.

    Raises ``StoreError``, before any of them is written, where one is there with other content.
    """
    todo = {path: data for path, data in files.items() if not same_content(out / path, data)}
    if not overwrite:
        for path in todo:
            if (out / path).exists() or (out / path).is_symlink():
                raise StoreError(f"{out / path} is there with other content; it stays as it is (--overwrite replaces it)")
    for path, data in todo.items():
        write_bytes(out / path, data)
    return bool(todo)


def same_content(path: Path, data: bytes) -> bool:
    """Whether a file is there and holds exactly ``data``."""
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except OSError:
        return False
