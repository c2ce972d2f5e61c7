"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real videos, weights and scores made by others; a test that needs it skips where it is missing."""
    folder = Path(os.environ.get("ACTIONCACHE_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real test data at {folder}; set ACTIONCACHE_TEST_DATA to a folder laid out as docs/testing.md says")
    return folder
