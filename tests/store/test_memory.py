"""Memory that is kept."""

from types import SimpleNamespace

import pytest

from store.memory import KEPT_BYTES, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, OLD_MOST_BYTES, keep_memory


@pytest.mark.parametrize("most", [KEPT_BYTES, OLD_MOST_BYTES])
def test_an_older_c_library_keeps_as_much_as_it_takes(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {}

    def mallopt(parameter: int, value: int) -> int:
        if parameter == M_MMAP_THRESHOLD and value > most:
            return 0
        kept[parameter] = value
        return 1

    monkeypatch.setattr("store.memory.ctypes.CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    keep_memory()
    assert kept == {M_MMAP_THRESHOLD: most, M_TRIM_THRESHOLD: KEPT_BYTES}
