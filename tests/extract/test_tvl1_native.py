"""How the C form of TV-L1 is compiled, kept and done without."""

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from extract.flow.tvl1 import Tvl1Params, native, tvl1

QUICK = Tvl1Params(scales=2, warps=1, inner_iterations=4, outer_iterations=1)
IMAGES = torch.randint(0, 256, (2, 3, 24, 31), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@pytest.fixture(scope="module")
def expected() -> torch.Tensor:
    return tvl1(*IMAGES, QUICK)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: torch.Tensor) -> Iterator[Path]:
    """A machine on which nothing is compiled yet, with a compiler that does not take long."""
    if not native.available():
        pytest.skip("no C compiler here")
    monkeypatch.setenv("ACTIONCACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(native, "FLAGS", tuple(flag.replace("-O3", "-O1") for flag in native.FLAGS))
    native._library.cache_clear()
    yield tmp_path / "home"
    native._library.cache_clear()


def kept(home: Path) -> list[Path]:
    return sorted(home.rglob("*"))[1:]  # without the folder itself


def test_it_is_compiled_once_and_kept(home: Path, monkeypatch: pytest.MonkeyPatch, expected: torch.Tensor) -> None:
    assert torch.equal(tvl1(*IMAGES, QUICK), expected)
    (file,) = kept(home)
    assert file.parent.name == "compiled"
    native._library.cache_clear()
    monkeypatch.setenv("CC", "false")  # a machine without a compiler, with the same home
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert native.available()
    assert torch.equal(tvl1(*IMAGES, QUICK), expected)


def test_a_damaged_file_is_compiled_anew(home: Path, expected: torch.Tensor) -> None:
    assert native.available()
    (file,) = kept(home)
    size = file.stat().st_size
    file.unlink()
    file.write_bytes(b"not a library")
    native._library.cache_clear()
    assert torch.equal(tvl1(*IMAGES, QUICK), expected)
    assert kept(home) == [file]
    assert file.stat().st_size == size


def test_a_home_that_takes_no_files_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: torch.Tensor) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ACTIONCACHE_HOME", str(tmp_path / "file" / "home"))
    assert native.available()
    assert torch.equal(tvl1(*IMAGES, QUICK), expected)


def test_without_variants_for_processors_the_bits_are_the_same(home: Path, monkeypatch: pytest.MonkeyPatch, expected: torch.Tensor) -> None:
    monkeypatch.setattr(native, "WAYS", ((),))
    assert native.available()
    assert torch.equal(tvl1(*IMAGES, QUICK), expected)


def test_a_compiler_that_knows_no_variants_is_asked_without(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "WAYS", (("--no-such-option",), ()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert native.available()


@pytest.mark.parametrize(
    ("compiler", "words"),
    [
        ("no-such-compiler -q", "ten times as long on a processor as its compiled form: no-such-compiler -q: .*No such file"),
        (f"{sys.executable} -c 'raise SystemExit(\"broken\")'", "failed: broken"),
        ("", r"no C compiler \(cc, gcc, clang\) is on the path; install one or name it in the environment variable CC"),
    ],
)
def test_without_a_compiler_torch_computes_the_same(
    home: Path, monkeypatch: pytest.MonkeyPatch, expected: torch.Tensor, compiler: str, words: str
) -> None:
    monkeypatch.setenv("CC", compiler)
    monkeypatch.setenv("PATH", str(home))
    with pytest.warns(UserWarning, match=words):
        assert not native.available()
    assert not native.available()
    assert torch.equal(tvl1(*IMAGES, QUICK), expected)
    assert [path for path in kept(home) if path.is_file()] == []


def test_it_can_be_switched_off(monkeypatch: pytest.MonkeyPatch, expected: torch.Tensor) -> None:
    monkeypatch.setenv("ACTIONCACHE_NATIVE", "0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not native.available()
    assert torch.equal(tvl1(*IMAGES, QUICK), expected)


def test_an_error_in_one_pair_ends_all_threads(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def broken(*args: object) -> None:
        asked.append(args)
        raise KeyboardInterrupt

    monkeypatch.setattr(native.ctypes, "c_void_p", broken)
    many = np.zeros((500, 4, 4), np.uint8)
    with pytest.raises(KeyboardInterrupt):
        native.solve(many, many, QUICK, 2)
    assert len(asked) < 10
