"""The proofs in benchmarks/ that a store can be trusted: each in small, and as long as the project's bars ask for."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def figures(script: str, *arguments: str) -> list[dict[str, object]]:
    """Run a benchmark; returns its figures."""
    command = [sys.executable, str(REPOSITORY / "benchmarks" / script), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def assert_all_hold(found: list[dict[str, object]]) -> None:
    barred = [figure for figure in found if figure["bar"] is not None]
    assert barred
    assert [figure for figure in barred if not figure["holds"]] == []


@pytest.mark.parametrize(
    "arguments", [("--kills", "8", "--groups", "1", "--no-steps"), pytest.param((), marks=pytest.mark.slow)], ids=["8", "300"]
)
def test_random_kills_of_extract_lose_nothing(arguments: tuple[str, ...]) -> None:
    assert_all_hold(figures("store_kills.py", *arguments))


@pytest.mark.parametrize("arguments", [("--damages", "60"), pytest.param((), marks=pytest.mark.slow)], ids=["60", "1000"])
def test_random_damage_of_shards_is_never_a_wrong_feature(arguments: tuple[str, ...]) -> None:
    assert_all_hold(figures("store_damage.py", *arguments))


@pytest.mark.parametrize("arguments", [("--videos", "150"), pytest.param((), marks=pytest.mark.slow)], ids=["150", "4000"])
def test_eight_writers_two_readers_and_a_compaction_at_once(arguments: tuple[str, ...]) -> None:
    assert_all_hold(figures("store_crowd.py", *arguments))
