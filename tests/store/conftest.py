"""Fixtures of the tests of the store."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from store.exchange.importer import ImportOptions, ImportSummary, import_features
from store.exchange.layout import Source
from store.exchange.spec import ImportSpec
from store.features import FeatureStore
from store.options import resolve
from store.videos import VideoList


@pytest.fixture(scope="session")
def run_import() -> Callable[..., tuple[FeatureStore, ImportSummary]]:
    """``run_import(source, layout, out, root=None, videos=None, match="path", **settings) -> store, summary``."""

    def run(
        source: Path,
        layout: str,
        out: Path,
        root: Path | None = None,
        videos: VideoList | None = None,
        match: str = "path",
        **settings: Any,
    ) -> tuple[FeatureStore, ImportSummary]:
        spec = resolve(ImportSpec, {"layout": layout, "origin": "a test"}, settings)
        path, summary = import_features(Source(source, root), spec, ImportOptions(out, videos=videos, match=match))
        return FeatureStore.open(path), summary

    return run
