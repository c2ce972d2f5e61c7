"""Everything that the stages share and everything on disk. ``from store import FeatureStore`` loads only what that needs."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from store.errors import (
        DamagedShardError,
        FeatureError,
        ListError,
        MissingFeaturesError,
        PipelineError,
        ScoreError,
        SpecError,
        SpecMismatchError,
        StoreError,
    )
    from store.failures import Failure
    from store.features import FeatureStore
    from store.layout import Features
    from store.scores import ScoreTable
    from store.verify import Problem
    from store.videos import Video, VideoList, read_list
    from store.writer import FeatureWriter

__all__ = [
    "DamagedShardError",
    "Failure",
    "FeatureError",
    "FeatureStore",
    "FeatureWriter",
    "Features",
    "ListError",
    "MissingFeaturesError",
    "PipelineError",
    "Problem",
    "ScoreError",
    "ScoreTable",
    "SpecError",
    "SpecMismatchError",
    "StoreError",
    "Video",
    "VideoList",
    "read_list",
]

_HOMES = {
    "Failure": "failures",
    "FeatureStore": "features",
    "FeatureWriter": "writer",
    "Features": "layout",
    "Problem": "verify",
    "ScoreTable": "scores",
    "Video": "videos",
    "VideoList": "videos",
    "read_list": "videos",
}


def __getattr__(name: str) -> Any:
    """Import the module of a public name when it is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module 'store' has no attribute {name!r}")
    return getattr(importlib.import_module(f"store.{_HOMES.get(name, 'errors')}"), name)
