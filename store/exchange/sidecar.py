"""``actioncache.json`` beside an export: where the features come from, and the settings that read them back."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from store.errors import StoreError
from store.exchange.layout import Exporter
from store.exchange.spec import ImportSpec
from store.features import FeatureStore
from store.options import resolve

FILE = "actioncache.json"
_FORMAT = 1
_MAX_BYTES = 16 << 20


def sidecar_text(store: FeatureStore, layout: str, exporter: Exporter) -> str:
    """The file's content; it names no videos, so that several exports of one store into one folder agree."""
    settings = {"layout": layout, "origin": _origin(store), **exporter.settings()}
    if any(not level.row_shape for level in exporter.plan.levels):
        settings["flat"] = "rows"
    types = {level.name: level.dtype for level in store.layout}
    if all(level.dtype == "float32" and types[level.name] == "float16" for level in exporter.plan.levels):
        settings["dtype"] = "float16"  # as it was; the way there and back changes no value
    resolve(ImportSpec, settings)  # what we write must be readable
    content = {
        "format": _FORMAT,
        "store": {"name": store.name, "digest": store.digest, "spec": store.spec},
        "levels": {level.name: {"dtype": level.dtype, "row_shape": list(level.row_shape)} for level in exporter.plan.levels},
        "file": exporter.main_file(),
        "import": settings,
    }
    return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def read_sidecar(source: Path) -> tuple[Path, dict[str, Any]]:
    """What to import from and with which settings, where ``source`` is an export of ours; else ``source`` and nothing.

    ``source`` may be the export's folder or its main file. ``StoreError`` for a sidecar that cannot be understood.
    """
    file = source / FILE if source.is_dir() else source.parent / FILE
    if not file.is_file():
        return source, {}
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise ValueError(f"it has {file.stat().st_size} bytes")
        content = json.loads(file.read_text(encoding="utf-8"))
        main, settings = content["file"], content["import"]
        if content["format"] != _FORMAT or not isinstance(settings, Mapping) or not isinstance(main, str) or "/" in main or main == "..":
            raise ValueError("it is of another format")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreError(f"{file} cannot be understood ({error}); remove it to import by flags alone") from None
    if source.is_dir():
        return source / main if main else source, dict(settings)
    return source, dict(settings) if source.name == main else {}


def _origin(store: FeatureStore) -> str:
    imported = store.spec.get("imported")
    before = f", which was imported: {imported['origin']}" if isinstance(imported, Mapping) and "origin" in imported else ""
    return f"exported by actioncache from {store.name}, spec digest {store.digest}{before}"
