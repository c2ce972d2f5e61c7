"""``weights list`` and ``weights fetch`` as a user runs them."""

import functools
import hashlib
import http.server
import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest
import torch

from extract.backbones import Published, backbone_info, describe_backbones
from extract.weights import load_backbone
from extract.weights_list import list_weights

Run = Callable[..., Any]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    folder = tmp_path / "served"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def publish(monkeypatch: pytest.MonkeyPatch, url: str, sha256: str = "") -> None:
    """Let ``tiny`` have published weights, at ``url``."""
    info = replace(backbone_info("tiny"), published={"first": Published(url, sha256), "second": Published(url + ".other")})
    monkeypatch.setattr("extract.backbones.backbone_info", lambda name: info)


def weights_file(path: Path, seed: int = 5) -> Path:
    state = load_backbone("tiny", f"random:{seed}").backbone.state_dict()
    torch.save(state, path)
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_list_tells_of_every_published_file_and_whether_it_is_here(run_weights: Run, weights_home: Path) -> None:
    weights_home.mkdir(parents=True)
    (weights_home / "resnet34-b627a593.pth").write_bytes(b"")
    ran = run_weights("list", "resnet34")
    assert ran.code == 0
    assert "    IMAGENET1K_V1  87.3 MB  licence: BSD-3-Clause (torchvision)" in ran.out
    assert "        from     https://download.pytorch.org/models/resnet34-b627a593.pth" in ran.out
    assert "        SHA-256  b627a593 (stated by its publisher, the first digits)" in ran.out
    assert f"        here     {weights_home / 'resnet34-b627a593.pth'}" in ran.out
    assert f"        here     no; it goes to {weights_home / 'resnet50-0676ba61.pth'}" in run_weights("list", "resnet50").out
    assert "SHA-256  not stated; recorded at first use" in run_weights("list", "c3d").out
    assert "nobody published weights for backbone tiny" in run_weights("list", "tiny").out


def test_list_as_json_has_every_file_of_every_network(run_weights: Run) -> None:
    files = json.loads(run_weights("list", "--json").out)
    assert [(file["backbone"], file["name"]) for file in files] == [
        (info.name, name) for info in describe_backbones() for name in info.published
    ]
    assert {"url", "bytes", "licence", "sha256", "path", "here", "recorded"} <= set(files[0])
    assert not any(file["here"] for file in files)


def test_no_two_published_files_share_a_place_in_the_cache() -> None:
    places: dict[str, str] = {}
    for file in list_weights():
        assert places.setdefault(file.path.name, file.url) == file.url
        assert urlparse(file.url).scheme in ("http", "https")


def test_fetch_brings_a_file_once_and_says_what_its_digest_is_worth(
    run_weights: Run, served: tuple[Path, str], weights_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, url = served
    digest = sha256(weights_file(folder / "net.pth"))
    publish(monkeypatch, f"{url}/net.pth")
    ran = run_weights("fetch", "tiny")
    assert (ran.code, ran.out) == (0, f"{weights_home / 'net.pth'}\n")
    assert f"downloaded; its SHA-256 is not stated by its publisher; it is recorded in {weights_home / 'net.pth.sha256'}" in ran.err
    assert (weights_home / "net.pth.sha256").read_text() == f"{digest}  net.pth\n"
    shutil.rmtree(folder)
    assert "was here already" in run_weights("fetch", "tiny:first").err
    publish(monkeypatch, f"{url}/net.pth", digest)
    assert f"is what its publisher states ({digest})" in run_weights("fetch", "tiny").err
    publish(monkeypatch, f"{url}/net.pth", "0" * 64)
    ran = run_weights("fetch", "tiny")
    assert ran.code == 2
    assert "but its publisher promises 0000" in ran.err


def test_fetch_without_a_connection_says_what_to_do_by_hand(run_weights: Run, weights_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, "http://127.0.0.1:9/net.pth")  # the discard port: nobody listens
    ran = run_weights("fetch", "tiny")
    assert ran.code == 2
    assert "http://127.0.0.1:9/net.pth could not be downloaded (ConnectionError: " in ran.err
    assert f"download it by hand, put it at {weights_home / 'net.pth'}, and run the same command again" in ran.err


def test_fetch_of_what_is_not_published_is_an_error_with_the_choices(run_weights: Run) -> None:
    for name, words in {
        "tiny": "nobody published weights for backbone tiny",
        "resnet34:V9": "no published weights 'V9'; choose .*published:IMAGENET1K_V1",
        "resnet43": "no backbone is called 'resnet43'; did you mean resnet34",
        "no.such:Net": "there is no module no",
    }.items():
        ran = run_weights("fetch", name)
        assert ran.code == 2
        assert re.search(words, ran.err), ran.err
