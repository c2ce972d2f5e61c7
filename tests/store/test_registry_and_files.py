"""The registry, and files that exist only when complete."""

import hashlib
from pathlib import Path

import pytest

from store.errors import StoreError, UnknownNameError
from store.files import atomic_path, safe_name, sha256_file, write_first, write_text
from store.registry import Registry


@pytest.fixture
def registry() -> Registry[int]:
    made: Registry[int] = Registry("thing", "temporal")  # the package is only imported
    made._loaded = True
    made.register("lstm")(1)
    made.register("gru")(2)
    return made


def test_names_are_sorted_and_found(registry: Registry[int]) -> None:
    assert list(registry) == ["gru", "lstm"]
    assert registry.get("gru") == 2


def test_duplicates_raise(registry: Registry[int]) -> None:
    with pytest.raises(ValueError, match="two things are called 'gru'"):
        registry.register("gru")(3)


def test_unknown_names_suggest(registry: Registry[int]) -> None:
    with pytest.raises(UnknownNameError, match="no thing is called 'lstn'; did you mean lstm"):
        registry.get("lstn")
    with pytest.raises(UnknownNameError, match="known: gru, lstm"):
        registry.get("transformer")


def test_an_error_while_writing_leaves_the_old_file_and_nothing_aside(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    write_text(target, "old")
    with pytest.raises(RuntimeError, match="half way"), atomic_path(target) as aside:
        aside.write_text("new, but")
        raise RuntimeError("half way")
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_sha256_is_hashlibs(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc" * 100_000)
    assert sha256_file(tmp_path / "f") == hashlib.sha256(b"abc" * 100_000).hexdigest()


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b", "x" * 121, "a\0", "\u00e9"])
def test_names_that_cannot_be_path_components_are_refused(name: str) -> None:
    with pytest.raises(StoreError, match="cannot be a file name"):
        safe_name(name)


@pytest.mark.parametrize("links", [True, False])
def test_of_several_writers_one_is_first(tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    if not links:
        monkeypatch.setattr("os.link", refuse)
    target = tmp_path / "file.txt"
    write_first(target, "one")
    write_first(target, "two")
    assert target.read_text() == "one"
    if links:
        monkeypatch.setattr(Path, "exists", lambda path: False)  # they looked at the same moment
        write_first(target, "three")
        assert target.read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]
