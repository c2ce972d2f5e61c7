"""Downloads against a server on this machine: kept only when whole and as promised, checked at every use, usable without a connection."""

import functools
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from extract.downloads import cache_folder, checked_bytes, fetch, promised_digits, record_path
from store.errors import WeightsError

CONTENT = b"weights " * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
NAME = f"net-{DIGEST[:8]}.pth"


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; a path with ``short`` promises more bytes than it sends."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass

    def send_header(self, keyword: str, value: str) -> None:
        if keyword == "Content-Length" and "short" in self.path:
            value = str(int(value) + 100)
        super().send_header(keyword, value)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder, the URL it is served under, and an empty cache folder."""
    folder = tmp_path / "served"
    folder.mkdir()
    monkeypatch.setenv("ACTIONCACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def cached_files() -> list[str]:
    return sorted(path.name for path in cache_folder().iterdir())


def test_a_file_is_downloaded_once_recorded_and_then_read_without_a_server(served: tuple[Path, str]) -> None:
    folder, url = served
    (folder / NAME).write_bytes(CONTENT)
    path = fetch(f"{url}/{NAME}")
    assert path == cache_folder() / NAME
    assert record_path(path).read_text() == f"{DIGEST}  {NAME}\n"  # sha256sum -c reads it
    (folder / NAME).unlink()
    assert fetch(f"{url}/{NAME}") == path
    assert checked_bytes(path) == CONTENT
    assert cached_files() == [NAME, NAME + ".sha256"]


def test_a_download_that_breaks_its_names_promise_is_not_kept(served: tuple[Path, str]) -> None:
    folder, url = served
    (folder / NAME).write_bytes(b"<html>please log in</html>")
    with pytest.raises(WeightsError, match=f"its name promises {DIGEST[:8]}; it was not kept"):
        fetch(f"{url}/{NAME}")
    assert cached_files() == []


def test_a_download_that_breaks_off_is_not_kept(served: tuple[Path, str]) -> None:
    folder, url = served
    (folder / "short.pth").write_bytes(CONTENT)
    with pytest.raises(WeightsError, match=r"could not be downloaded .*download it by hand, put it at"):
        fetch(f"{url}/short.pth")
    assert cached_files() == []


def test_what_the_server_does_not_have_is_an_error_that_says_what_to_do(served: tuple[Path, str]) -> None:
    _, url = served
    with pytest.raises(WeightsError) as caught:
        fetch(f"{url}/{NAME}")
    message = str(caught.value)
    assert f"{url}/{NAME} could not be downloaded" in message
    assert "404" in message
    assert f"put it at {cache_folder() / NAME}" in message
    assert "ACTIONCACHE_HOME" in message


def test_without_a_connection_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACTIONCACHE_HOME", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(WeightsError, match=r"http://127\.0\.0\.1:9/.* could not be downloaded \(ConnectionError.*put it at .*" + NAME):
        fetch(f"http://127.0.0.1:9/{NAME}")  # the discard port: nobody listens


def placed(name: str, content: bytes) -> Path:
    """A file that someone put into the cache folder by hand."""
    path = cache_folder() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_file_put_there_by_hand_is_checked_and_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACTIONCACHE_HOME", str(tmp_path))
    path = placed(NAME, CONTENT)
    assert checked_bytes(path) == CONTENT
    assert record_path(path).read_text().split()[0] == DIGEST
    wrong = placed("other-0123abcd.pth", CONTENT)
    with pytest.raises(WeightsError, match="its name promises 0123abcd: it is damaged or another file"):
        checked_bytes(wrong)
    assert not record_path(wrong).exists()


def test_a_file_that_changes_after_its_first_use_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACTIONCACHE_HOME", str(tmp_path))
    path = placed("net.pth", CONTENT)
    checked_bytes(path)
    path.write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(WeightsError, match=rf"net\.pth\.sha256 beside it says {DIGEST}: it is damaged or another file; delete"):
        checked_bytes(path)


def test_a_cache_that_may_only_be_read_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACTIONCACHE_HOME", str(tmp_path))
    path = placed(NAME, CONTENT)

    def refuse(final: Path, text: str) -> None:
        raise PermissionError(13, "Permission denied", str(final))

    monkeypatch.setattr("extract.downloads.write_text", refuse)
    assert checked_bytes(path) == CONTENT
    assert not record_path(path).exists()


def test_promised_digits_are_torchvisions() -> None:
    assert promised_digits("resnet34-b627a593.pth") == "b627a593"
    assert promised_digits("mobilenet_v2-7ebf99e0.pth") == "7ebf99e0"
    assert promised_digits("model-best.pth") == promised_digits("plain.safetensors") == promised_digits("net-2024.pth") == ""


def test_cache_folder_without_the_variable_is_the_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACTIONCACHE_HOME", raising=False)
    assert cache_folder().parts[-2:] == ("actioncache", "weights")


def test_a_download_that_nothing_vouches_for_says_so(served: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    folder, url = served
    for name in ("c3d.pickle", NAME):
        (folder / name).write_bytes(CONTENT)
    fetch(f"{url}/c3d.pickle")
    told = capsys.readouterr().err
    assert "came over plain HTTP and its publisher states no SHA-256" in told
    assert f"it has SHA-256 {DIGEST}" in told
    fetch(f"{url}/{NAME}")
    assert "plain HTTP" not in capsys.readouterr().err
