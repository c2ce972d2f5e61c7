"""``spec.json``: the file that makes a folder a feature store."""

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from store.digest import digest
from store.errors import SpecMismatchError, StoreError
from store.files import write_text

FILE_NAME = "spec.json"
FORMAT = 1


def write_spec_file(path: Path, name: str, spec: dict[str, Any]) -> None:
    """Make the folder ``path`` a store of ``spec`` (JSON types)."""
    content = {"name": name, "digest": digest(spec), "spec": spec, "format": FORMAT}
    try:
        for folder in ("shards", "failures"):
            (path / folder).mkdir(parents=True, exist_ok=True)
        write_text(path / FILE_NAME, json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    except OSError as error:
        raise StoreError(f"cannot make a feature store at {path}: {error.strerror or error}") from None


def find_store(path: Path) -> Path:
    """The store at ``path``; a digest left out (``features/tiny``) is filled in where only one store has the name.

    Several stores of that name are a ``StoreError`` that lists them. What is no store at all is returned as it is.
    """
    if path.exists() or not path.parent.is_dir():
        return path
    named = re.compile(re.escape(path.name) + r"-[0-9a-f]{12}")
    found = sorted(other for other in path.parent.iterdir() if named.fullmatch(other.name) and (other / FILE_NAME).is_file())
    if len(found) > 1:
        raise StoreError(f"{path} can be {' or '.join(map(str, found))}: they differ in their specs; give the whole name of one")
    return found[0] if found else path


def read_spec_file(path: Path) -> dict[str, Any]:
    """Contents of a store's ``spec.json``, its digest checked; ``StoreError`` says what is wrong with it."""
    file = path / FILE_NAME
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        inside = [str(found.parent) for found in itertools.islice(path.glob("*/spec.json"), 5)] if path.is_dir() else []
        hint = f"; there are stores in it: {', '.join(inside)}" if inside else ""
        raise StoreError(f"{path} is not a feature store (it has no spec.json){hint}") from None
    except OSError as error:
        raise StoreError(f"{file} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{file} is damaged: {error}; restore it from another copy of the spec") from None
    if isinstance(content, dict) and {"identity", "result"} <= set(content):
        raise StoreError(f"{path} is a run, not a feature store; give the folder of a store here (`extract` prints it)")
    if not isinstance(content, dict) or not {"digest", "spec", "format"} <= set(content) or not isinstance(content["spec"], dict):
        raise StoreError(f"{file} is damaged: it has no digest, spec and format")
    if content["format"] != FORMAT:
        raise StoreError(
            f"{path} has store format {content['format']!r}; this version of actioncache reads format {FORMAT}: use a newer one"
        )
    computed = digest(content["spec"])
    if content["digest"] != computed:
        raise SpecMismatchError(f"{file} was changed: its spec has digest {computed[:12]}, the file says {str(content['digest'])[:12]}")
    return content


def difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Where two specs differ, in words, for an error message."""
    different = list(differences(found, wanted).items())[:10]
    return "; ".join(f"{key} is {ours}, wanted {theirs}" for key, (ours, theirs) in different)


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Every setting in which two specs differ, sorted: {"clips.length": ("16", "unset")}; 1 and 1.0 are different, as in the digest."""
    unset = ("", "unset")
    ours, theirs = ({key: (json.dumps(value, sort_keys=True), repr(value)) for key, value in _leaves(spec)} for spec in (first, second))
    pairs = {key: (ours.get(key, unset), theirs.get(key, unset)) for key in sorted(ours.keys() | theirs.keys())}
    return {key: (one[1], other[1]) for key, (one, other) in pairs.items() if one[0] != other[0]}


def _leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and (value or not prefix):
        for key, item in value.items():
            yield from _leaves(item, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value
