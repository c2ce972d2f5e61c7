"""Downloads that break off and go on, against a server on this machine that breaks off, changes its files and knows ranges or not."""

import hashlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from extract.downloads import cache_folder, fetch, record_path
from extract.http_file import CHUNK_BYTES, note_path, partial_path, reserved
from store.errors import WeightsError

SIZE = 10 * CHUNK_BYTES
CONTENT = np.random.default_rng(0).bytes(SIZE)
OTHER = np.random.default_rng(1).bytes(SIZE)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class Site:
    """What the server has and how it behaves; ``requests`` are the ranges asked for, with the answers' codes."""

    content: bytes = CONTENT
    etag: str = '"one"'
    modified: str = ""
    ranges: bool = True
    honest: bool = True  # whether If-Range is heeded
    breaks: list[int] = field(default_factory=list)  # bytes of the body after which each of the next answers breaks off
    requests: list[tuple[str, int]] = field(default_factory=list)
    url: str = ""


def handler(site: Site) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

        def do_GET(self) -> None:
            wanted, condition = self.headers.get("Range", ""), self.headers.get("If-Range", "")
            start, code = 0, 200
            if wanted and site.ranges and not (site.honest and condition not in ("", site.etag, site.modified)):
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
                code = 206 if start < len(site.content) else 416
            site.requests.append((wanted, code))
            body = site.content[start:] if code != 416 else b""
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            if code == 206:
                self.send_header("Content-Range", f"bytes {start}-{len(site.content) - 1}/{len(site.content)}")
            if site.etag:
                self.send_header("ETag", site.etag)
            if site.modified:
                self.send_header("Last-Modified", site.modified)
            self.end_headers()
            cut = site.breaks.pop(0) if site.breaks else len(body)
            self.wfile.write(body[:cut])
            self.close_connection = True

    return Handler


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("ACTIONCACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    site = Site()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler(site))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}/net.pth"
    yield site
    server.shutdown()
    thread.join()
    server.server_close()


def left() -> list[str]:
    return sorted(path.name for path in cache_folder().iterdir())


def broken_off(site: Site, after: int = 6 * CHUNK_BYTES) -> int:
    """A first run that ends after so many bytes; how many of them were kept."""
    site.breaks = [after, 0, 0, 0, 0]
    with pytest.raises(WeightsError, match=r"could not be downloaded .*bytes that came are kept, and the same command continues there"):
        fetch(site.url)
    site.requests.clear()
    site.breaks.clear()
    assert left() == ["net.pth.partial", "net.pth.partial.json"]
    size = partial_path(cache_folder() / "net.pth").stat().st_size
    assert after - CHUNK_BYTES <= size <= after
    return size


def assert_whole(path: Path, content: bytes = CONTENT) -> None:
    assert path.read_bytes() == content
    assert record_path(path).read_text() == f"{digest(content)}  net.pth\n"
    assert left() == ["net.pth", "net.pth.sha256"]


def test_a_second_run_asks_for_the_rest_only(site: Site) -> None:
    kept = broken_off(site)
    assert_whole(fetch(site.url))
    assert site.requests == [(f"bytes={kept}-", 206)]


def test_a_connection_that_breaks_is_taken_up_again_in_the_same_run(site: Site) -> None:
    site.breaks = [3 * CHUNK_BYTES, 3 * CHUNK_BYTES]
    assert_whole(fetch(site.url))
    assert [code for _, code in site.requests] == [200, 206, 206]


def test_a_server_that_brings_nothing_new_is_not_asked_for_ever(site: Site) -> None:
    site.breaks = [CHUNK_BYTES] + [0] * 20
    with pytest.raises(WeightsError, match="could not be downloaded"):
        fetch(site.url)
    assert len(site.requests) == 2


def test_a_server_without_ranges_sends_all_again(site: Site) -> None:
    broken_off(site)
    site.ranges = False
    assert_whole(fetch(site.url))
    assert [code for _, code in site.requests] == [200]


@pytest.mark.parametrize("honest", [True, False])
@pytest.mark.parametrize("kind", ["etag", "modified", "etag and modified"])
def test_a_file_that_changed_meanwhile_is_downloaded_anew(kind: str, honest: bool, site: Site) -> None:
    """Whether the server heeds If-Range and sends all, or sends a part of the new file with its new ETag."""
    site.honest, site.modified = honest, "Mon, 01 Jan 2024 00:00:00 GMT" if "modified" in kind else ""
    site.etag = site.etag if "etag" in kind else ""
    broken_off(site)
    site.content = OTHER
    site.etag, site.modified = site.etag and '"two"', site.modified and "Tue, 02 Jan 2024 00:00:00 GMT"
    assert_whole(fetch(site.url), OTHER)


def test_a_file_of_another_length_is_downloaded_anew_even_under_the_same_etag(site: Site) -> None:
    broken_off(site)
    site.content = OTHER + b"more"
    assert_whole(fetch(site.url), OTHER + b"more")
    assert [code for _, code in site.requests] == [206, 200]


def test_a_file_that_became_shorter_than_what_is_there_is_downloaded_anew(site: Site) -> None:
    broken_off(site)
    site.content = OTHER[: 2 * CHUNK_BYTES]
    assert_whole(fetch(site.url), OTHER[: 2 * CHUNK_BYTES])
    assert [code for _, code in site.requests] == [416, 200]


def test_without_etag_and_time_only_a_known_digest_lets_it_go_on(site: Site) -> None:
    site.etag = ""
    site.breaks = [6 * CHUNK_BYTES, 0]
    with pytest.raises(WeightsError, match="could not be downloaded"):
        fetch(site.url)
    site.requests.clear()
    assert_whole(fetch(site.url))
    assert site.requests == [("", 200)]  # nothing tells that it is the same file


def test_a_known_digest_guards_what_is_joined_together(site: Site) -> None:
    site.etag = ""
    site.breaks = [6 * CHUNK_BYTES, 0]
    with pytest.raises(WeightsError, match="could not be downloaded"):
        fetch(site.url, digest(OTHER))
    site.requests.clear()
    site.content = OTHER  # of the same length, so that the end of one is joined to the beginning of the other, which the digest finds out
    assert_whole(fetch(site.url, digest(OTHER)), OTHER)
    assert [code for _, code in site.requests] == [206, 200]


def test_a_stated_digest_that_is_broken_keeps_nothing(site: Site) -> None:
    with pytest.raises(WeightsError, match=f"its publisher promises {digest(OTHER)}; it was not kept"):
        fetch(site.url, digest(OTHER))
    assert left() == []


def test_another_url_of_the_same_name_does_not_go_on(site: Site) -> None:
    broken_off(site)
    site.content = OTHER
    assert_whole(fetch(site.url + "?version=2"), OTHER)
    assert site.requests == [("", 200)]


@pytest.mark.parametrize("note", ["", "{", "[]", '{"url": 3}', '{"odd": 1}'])
def test_a_note_that_cannot_be_read_means_from_the_beginning(note: str, site: Site) -> None:
    broken_off(site)
    note_path(partial_path(cache_folder() / "net.pth")).write_text(note)
    assert_whole(fetch(site.url))
    assert site.requests == [("", 200)]


def test_a_file_that_was_whole_when_the_program_was_killed_is_not_asked_for_again(site: Site) -> None:
    broken_off(site)
    partial_path(cache_folder() / "net.pth").write_bytes(CONTENT)
    assert_whole(fetch(site.url))
    assert site.requests == []


def test_a_partial_file_that_is_longer_than_the_whole_is_downloaded_anew(site: Site) -> None:
    broken_off(site)
    partial_path(cache_folder() / "net.pth").write_bytes(CONTENT + b"x")
    assert_whole(fetch(site.url))
    assert [code for _, code in site.requests] == [416, 200]


def test_two_processes_do_not_write_one_partial_file(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    """The second waits for the first, and then finds the file there."""
    path = cache_folder() / "net.pth"
    path.parent.mkdir(parents=True)
    found: list[Path] = []
    with reserved(partial_path(path)) as partial:
        other = threading.Thread(target=lambda: found.append(fetch(site.url)))
        other.start()
        while "waiting for it" not in capfd.readouterr().err:
            assert other.is_alive()
        partial.write_bytes(CONTENT)
        partial.replace(path)
    other.join()
    assert found == [path]
    assert site.requests == []
    assert left() == ["net.pth"]


def test_where_the_disk_has_no_locks_each_process_has_its_own_partial_file(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    assert_whole(fetch(site.url))
