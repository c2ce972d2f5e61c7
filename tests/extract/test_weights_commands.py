"""``weights list``, ``fetch``, ``check`` and ``convert`` as a user runs them."""

import functools
import hashlib
import http.server
import json
import re
import shutil
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch

import cli
from extract.backbones import BACKBONES, Published, backbone_info, describe_backbones
from extract.references import read_logits
from extract.weights import load_backbone
from extract.weights_check import layout
from extract.weights_convert import convert_weights
from extract.weights_list import list_weights
from store.errors import WeightsError


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of weights, and no reference folder."""
    monkeypatch.setenv("ACTIONCACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("ACTIONCACHE_TEST_DATA", raising=False)
    return tmp_path / "home" / "weights"


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


class Ran:
    """What a command did."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], home: Path) -> "functools.partial[Ran]":
    def call(*arguments: object) -> Ran:
        monkeypatch.setattr("sys.argv", ["actioncache", "weights", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        told = capsys.readouterr()
        return Ran(int(caught.value.code or 0), told.out, told.err)

    return functools.partial(call)


def publish(monkeypatch: pytest.MonkeyPatch, url: str, sha256: str = "") -> None:
    """Let ``tiny`` have published weights, at ``url``."""
    info = replace(backbone_info("tiny"), published={"first": Published(url, sha256), "second": Published(url + ".other")})
    monkeypatch.setattr("extract.backbones.backbone_info", lambda name: info)


def weights_file(path: Path, seed: int = 5) -> Path:
    state = load_backbone("tiny", f"random:{seed}").backbone.state_dict()
    torch.save(state, path)
    return path


def s3d_state() -> dict[str, torch.Tensor]:
    return dict(load_backbone("s3d_kylemin", "random:1").backbone.state_dict())


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_list_tells_of_every_published_file_and_whether_it_is_here(run: "functools.partial[Ran]", home: Path) -> None:
    home.mkdir(parents=True)
    (home / "resnet34-b627a593.pth").write_bytes(b"")
    ran = run("list", "resnet34")
    assert ran.code == 0
    assert "    IMAGENET1K_V1  87.3 MB  licence: BSD-3-Clause (torchvision)" in ran.out
    assert "        from     https://download.pytorch.org/models/resnet34-b627a593.pth" in ran.out
    assert "        SHA-256  b627a593 (stated by its publisher, the first digits)" in ran.out
    assert f"        here     {home / 'resnet34-b627a593.pth'}" in ran.out
    assert f"        here     no; it goes to {home / 'resnet50-0676ba61.pth'}" in run("list", "resnet50").out
    assert "SHA-256  not stated; recorded at first use" in run("list", "c3d").out
    assert "nobody published weights for backbone tiny" in run("list", "tiny").out


def test_list_as_json_has_every_file_of_every_network(run: "functools.partial[Ran]") -> None:
    files = json.loads(run("list", "--json").out)
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
    run: "functools.partial[Ran]", served: tuple[Path, str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, url = served
    digest = sha256(weights_file(folder / "net.pth"))
    publish(monkeypatch, f"{url}/net.pth")
    ran = run("fetch", "tiny")
    assert (ran.code, ran.out) == (0, f"{home / 'net.pth'}\n")
    assert f"downloaded; its SHA-256 is not stated by its publisher; it is recorded in {home / 'net.pth.sha256'}" in ran.err
    assert (home / "net.pth.sha256").read_text() == f"{digest}  net.pth\n"
    shutil.rmtree(folder)
    assert "was here already" in run("fetch", "tiny:first").err
    publish(monkeypatch, f"{url}/net.pth", digest)
    assert f"is what its publisher states ({digest})" in run("fetch", "tiny").err
    publish(monkeypatch, f"{url}/net.pth", "0" * 64)
    ran = run("fetch", "tiny")
    assert ran.code == 2
    assert "but its publisher promises 0000" in ran.err


def test_fetch_without_a_connection_says_what_to_do_by_hand(
    run: "functools.partial[Ran]", home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, "http://127.0.0.1:9/net.pth")  # the discard port: nobody listens
    ran = run("fetch", "tiny")
    assert ran.code == 2
    assert "http://127.0.0.1:9/net.pth could not be downloaded (ConnectionError: " in ran.err
    assert f"download it by hand, put it at {home / 'net.pth'}, and run the same command again" in ran.err


def test_fetch_of_what_is_not_published_is_an_error_with_the_choices(run: "functools.partial[Ran]") -> None:
    for name, words in {
        "tiny": "nobody published weights for backbone tiny",
        "resnet34:V9": "no published weights 'V9'; choose .*published:IMAGENET1K_V1",
        "resnet43": "no backbone is called 'resnet43'; did you mean resnet34",
        "no.such:Net": "there is no module no",
    }.items():
        ran = run("fetch", name)
        assert ran.code == 2
        assert re.search(words, ran.err), ran.err


def test_check_says_what_the_weights_are_and_runs_them(run: "functools.partial[Ran]", tmp_path: Path) -> None:
    path = weights_file(tmp_path / "w.pth")
    ran = run("check", "tiny", "--weights", path)
    assert ran.code == 0
    assert f"    identity   sha256:{sha256(path)}" in ran.out
    assert "    layout     the network's own names" in ran.out
    assert "    entries    6, 23,584 parameters" in ran.out
    assert "grid           256 wide, from " in ran.out
    assert "compared with nothing: no published outputs of tiny were found; give their folder with --reference" in ran.out


def test_check_says_which_levels_the_weights_lack_and_how_names_were_changed(run: "functools.partial[Ran]", tmp_path: Path) -> None:
    found = json.loads(run("check", "resnet18", "--weights", "random:0", "--json").out)
    assert found["left_out"] == []
    assert found["layout"] == "made here"
    resnet = load_backbone("resnet18", "random:1").backbone.state_dict()
    torch.save({f"module.{key}": value for key, value in resnet.items() if not key.startswith("fc.")}, tmp_path / "r.pth")
    found = json.loads(run("check", "resnet18", "--weights", tmp_path / "r.pth", "--json").out)
    assert found["left_out"] == ["logits"]
    assert found["layout"] == "the network's own names"
    assert found["good"]
    kylemin = {"base.0.conv_s.weight" if key == "features.0.0.0.weight" else key: value for key, value in s3d_state().items()}
    torch.save(kylemin, tmp_path / "s.pth")
    found = layout("s3d_kylemin", str(tmp_path / "s.pth"))
    assert re.fullmatch(
        r"another's names: 1 of \d+ were changed or left out, such as base\.0\.conv_s\.weight -> features\.0\.0\.0\.weight", found
    )


def test_check_of_outputs_that_are_not_finite_ends_with_1(run: "functools.partial[Ran]", tmp_path: Path) -> None:
    state = {key: value * 1e30 for key, value in load_backbone("tiny", "random:0").backbone.state_dict().items()}
    torch.save(state, tmp_path / "w.pth")
    ran = run("check", "tiny", "--weights", tmp_path / "w.pth")
    assert ran.code == 1
    assert "NOT FINITE: block" in ran.out
    found = json.loads(run("check", "tiny", "--weights", tmp_path / "w.pth", "--json").out)
    assert None in found["outputs"]["block3"]
    assert not found["good"]


def test_check_of_weights_that_do_not_load_ends_with_2(run: "functools.partial[Ran]", tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"nonsense")
    assert run("check", "tiny", "--weights", tmp_path / "w.pth").code == 2
    assert run("check", "tiny", "--weights", tmp_path / "none.pth").code == 2
    assert run("check", "tiny").code == 2  # nobody published any, and random ones must be asked for
    assert run("check", "tiny", "--weights", "random:0", "--device", "nonsense").code == 2


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_check_compares_with_torchvisions_expected_outputs(
    name: str, run: "functools.partial[Ran]", shared_data: Path, tmp_path: Path
) -> None:
    ran = run("check", name, "--weights", "random:0", "--reference", shared_data)
    assert ran.code == 0, ran.out
    assert "agrees: torchvision's expected output, made with its seeded network (checks the code, not the file)" in ran.out
    file = f"ModelTester.test_{name}_expect.pkl"
    (tmp_path / "torchvision_expect").mkdir()
    expected = torch.load(shared_data / "torchvision_expect" / file, weights_only=True).detach()
    expected[0, 7] += 0.001
    torch.save(expected, tmp_path / "torchvision_expect" / file)
    ran = run("check", name, "--weights", "random:0", "--reference", tmp_path)
    assert ran.code == 1
    assert "DIFFERS: torchvision's expected output" in ran.out
    assert re.search(r"50 numbers: largest difference 0\.0009|50 numbers: largest difference 0\.001", ran.out)


def test_a_reference_that_is_damaged_is_an_error_with_its_name(run: "functools.partial[Ran]", tmp_path: Path) -> None:
    for path in ("torchvision_expect/ModelTester.test_resnet34_expect.pkl", "features/video_features_reference.npz"):
        (tmp_path / path).parent.mkdir()
        (tmp_path / path).write_bytes(b"nonsense")
        ran = run("check", "resnet34", "--weights", "random:0", "--reference", tmp_path)
        assert ran.code == 2
        assert f"{tmp_path / path} is damaged" in ran.err
        (tmp_path / path).unlink()


def test_the_reference_folder_can_be_set_once(run: "functools.partial[Ran]", shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACTIONCACHE_TEST_DATA", str(shared_data))
    assert "agrees: torchvision's expected output" in run("check", "resnet18", "--weights", "random:0").out


def test_published_logits_are_read_as_they_are_printed(shared_data: Path, tmp_path: Path) -> None:
    norm, tops = read_logits(shared_data / "i3d" / "imagenet_rgb.txt")
    assert norm == 87.108871
    assert len(tops) == 20
    assert tops["playing cricket"] == 25.856646
    assert tops["shooting goal (soccer)"] == 10.883866
    classes = (shared_data / "i3d" / "label_map.txt").read_text().splitlines()
    for stream in ("rgb", "flow", "joint"):
        assert set(read_logits(shared_data / "i3d" / f"imagenet_{stream}.txt")[1]) <= set(classes)
    (tmp_path / "odd.txt").write_text("nothing\n")
    with pytest.raises(WeightsError, match=r"odd\.txt is not the printed output"):
        read_logits(tmp_path / "odd.txt")


def test_check_compares_the_logits_of_a_clip_with_printed_ones(run: "functools.partial[Ran]", tmp_path: Path) -> None:
    """A reference folder made here: norm and logits of 400 classes computed by the network called directly, then printed."""
    clip = np.random.default_rng(0).uniform(-1, 1, (1, 10, 64, 64, 3)).astype(np.float32)
    np.save(tmp_path / "clip.npy", clip)
    backbone = load_backbone("i3d_rgb", "random:0", ("logits",)).backbone
    with torch.inference_mode():
        logits = backbone(torch.from_numpy(clip).permute(0, 4, 1, 2, 3), ("logits",))["logits"][0].numpy()
    folder = tmp_path / "reference" / "i3d"
    folder.mkdir(parents=True)
    (folder / "label_map.txt").write_text("".join(f"class {number}\n" for number in range(400)))
    rows = "".join(f"1.5e-08 {logits[number]:.6f} class {number}\n" for number in np.argsort(-logits)[:20])
    text = f"Norm of logits: {np.linalg.norm(logits):.6f}\n\nTop classes and probabilities\n{rows}"
    (folder / "imagenet_rgb.txt").write_text(text)
    arguments = ("check", "i3d_rgb", "--reference", tmp_path / "reference", "--input", tmp_path / "clip.npy")
    ran = run(*arguments, "--weights", "random:0")
    assert ran.code == 0, ran.out
    assert ran.out.count("agrees: ") == 2
    assert f"your input class {int(logits.argmax())}: {logits.max():.4f}" in ran.out
    ran = run(*arguments, "--weights", "random:1")
    assert ran.code == 1
    assert "DIFFERS: norm of the logits of the sample clip" in ran.out


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((4, 4, 3)), r"is \[4, 4, 3\]; i3d_rgb takes one input \[T, H, W, C\] with C = 3"),
        (np.zeros((2, 9, 4, 4, 3)), r"is \[2, 9, 4, 4, 3\]"),
        (np.zeros((9, 4, 4, 2)), r"with C = 3"),
        (np.array(["a"]), "holds no numbers"),
        (np.array([{}], dtype=object), "cannot be read as a .npy file of numbers"),
    ],
)
def test_an_input_that_the_network_cannot_take_is_an_error(
    array: np.ndarray, words: str, run: "functools.partial[Ran]", tmp_path: Path
) -> None:
    np.save(tmp_path / "clip.npy", array, allow_pickle=True)
    ran = run("check", "i3d_rgb", "--weights", "random:0", "--input", tmp_path / "clip.npy")
    assert ran.code == 2
    assert re.search(words, ran.err), ran.err


def test_convert_writes_the_networks_own_names_with_a_note(run: "functools.partial[Ran]", tmp_path: Path) -> None:
    path, out = weights_file(tmp_path / "w.pth"), tmp_path / "o.safetensors"
    state = {f"module.{key}": value.double() for key, value in torch.load(path, weights_only=True).items()}
    torch.save({"state_dict": state, "epoch": 3}, path)
    ran = run("convert", "tiny", path, "-o", out)
    assert (ran.code, ran.out) == (0, f"{out}\n")
    assert f"6 entries from a file with SHA-256 {sha256(path)}" in ran.err
    assert f"identity sha256:{sha256(out)}" in ran.err
    loaded = safetensors.torch.load_file(out)
    assert {key: (value.dtype, value.shape) for key, value in loaded.items()} == {
        key.removeprefix("module."): (torch.float32, value.shape) for key, value in state.items()
    }
    assert all(torch.equal(value.double(), state[f"module.{key}"]) for key, value in loaded.items())
    with safetensors.safe_open(out, "pt") as file:
        note = json.loads(file.metadata()["actioncache"])
    assert note == {
        "backbone": "tiny",
        "source": "w.pth",
        "source_sha256": sha256(path),
        "extras_sha256": {},
        "cross_modality": False,
    }
    first = out.read_bytes()
    assert run("convert", "tiny", path, "-o", out, "--overwrite").code == 0
    assert out.read_bytes() == first  # the same weights are the same store


def test_convert_never_replaces_by_accident(run: "functools.partial[Ran]", tmp_path: Path) -> None:
    path, out = weights_file(tmp_path / "w.pth"), tmp_path / "o.safetensors"
    out.write_text("mine")
    ran = run("convert", "tiny", path, "-o", out)
    assert ran.code == 2
    assert "is there already; give another name, or --overwrite" in ran.err
    assert out.read_text() == "mine"
    assert run("convert", "tiny", path, "-o", out, "--overwrite").code == 0
    assert run("convert", "tiny", out, "-o", out, "--overwrite").code == 2  # its own source
    ran = run("convert", "tiny", path, "-o", tmp_path / "o.pth")
    assert (ran.code, "does not end in .safetensors" in ran.err) == (2, True)
    (tmp_path / "bad.pth").write_bytes(b"nonsense")
    assert run("convert", "tiny", tmp_path / "bad.pth", "-o", out, "--overwrite").code == 2
    assert load_backbone("tiny", str(out)).identity == f"sha256:{sha256(out)}"  # the old one is still whole
    assert [each.name for each in tmp_path.iterdir() if "partial" in each.name] == []


WITH_EXTRA = """
import torch
from extract.backbones import Backbone, BackboneInfo
from store.errors import WeightsError

class Net(Backbone):
    extras = {"mean_frame": "mean of the training frames, [3]"}

    def __init__(self):
        super().__init__()
        self.info = BackboneInfo("net", {"a": 3}, size=8, resize=(8,))
        self.register_buffer("mean_frame", torch.zeros(3))
        self.scale = torch.nn.Parameter(torch.ones(3))

    def stages(self, frames):
        yield "a", (frames - self.mean_frame[:, None, None]) * self.scale[:, None, None]

    def add_extras(self, state, arrays):
        super().add_extras({}, {name: array for name, array in arrays.items() if name not in self.extras})
        if arrays["mean_frame"].shape != (3,):
            raise WeightsError("the mean frame is not [3]")
        return {**state, "mean_frame": torch.from_numpy(arrays["mean_frame"])}
"""


def test_convert_puts_in_what_is_published_beside_the_weights(
    run: "functools.partial[Ran]", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "extranets.py").write_text(WITH_EXTRA)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    torch.save({"scale": torch.tensor([1.0, 2.0, 3.0])}, "w.pth")
    np.save("mean.npy", np.array([4.0, 5.0, 6.0], np.float32))
    np.save("wrong.npy", np.zeros(4, np.float32))
    refused = run("check", "extranets:Net", "--weights", "w.pth")
    assert refused.code == 2
    assert "--mean-frame FILE" in refused.err
    ran = run("convert", "extranets:Net", "w.pth", "-o", "o.safetensors", "--extra", "mean-frame=mean.npy")
    assert ran.code == 0, ran.err
    loaded = safetensors.torch.load_file("o.safetensors")
    assert (loaded["mean_frame"].tolist(), loaded["scale"].tolist()) == ([4.0, 5.0, 6.0], [1.0, 2.0, 3.0])
    for extra, words in {
        "cube=mean.npy": "takes no cube with its weights; it takes: mean_frame",
        "mean_frame": "'mean_frame' is not NAME=FILE",
        "mean_frame=no.npy": "no.npy",
        "mean_frame=extranets.py": "extranets.py is no array",
        "mean_frame=wrong.npy": "mean_frame from wrong.npy: the mean frame is not [3]",
    }.items():
        ran = run("convert", "extranets:Net", "w.pth", "-o", "p.safetensors", "--extra", extra)
        assert ran.code == 2
        assert words in ran.err
    assert not Path("p.safetensors").exists()


@pytest.mark.slow
def test_convert_puts_c3ds_mean_cube_in(run: "functools.partial[Ran]", tmp_path: Path) -> None:
    """The cube is published in a file of its own; without it the weights are refused with the command that puts it in."""
    state = load_backbone("c3d", "random:0").backbone.state_dict()
    cube = np.random.default_rng(0).uniform(80, 130, (16, 112, 112, 3)).astype(np.float32)
    np.save(tmp_path / "cube.npy", cube)
    torch.save({key: value for key, value in state.items() if key != "mean_cube"}, tmp_path / "w.pth")
    refused = run("check", "c3d", "--weights", tmp_path / "w.pth")
    assert refused.code == 2
    assert "actioncache weights convert c3d" in refused.err
    assert "--mean-cube FILE" in refused.err
    ran = run("convert", "c3d", tmp_path / "w.pth", "-o", tmp_path / "o.safetensors", "--mean-cube", tmp_path / "cube.npy")
    assert ran.code == 0, ran.err
    loaded = safetensors.torch.load_file(tmp_path / "o.safetensors")
    assert torch.equal(loaded["mean_cube"], torch.from_numpy(cube).permute(3, 0, 1, 2))
    assert torch.equal(loaded["conv1.weight"], state["conv1.weight"])


def test_convert_starts_a_flow_network_from_rgb_weights(run: "functools.partial[Ran]", tmp_path: Path) -> None:
    state = load_backbone("tsn_resnet50_rgb", "random:0").backbone.state_dict()
    torch.save(state, tmp_path / "rgb.pth")
    assert run("convert", "tsn_resnet50_flow", tmp_path / "rgb.pth", "-o", tmp_path / "o.safetensors").code == 2
    ran = run("convert", "tsn_resnet50_flow", tmp_path / "rgb.pth", "-o", tmp_path / "o.safetensors", "--cross-modality")
    assert ran.code == 0, ran.err
    loaded = safetensors.torch.load_file(tmp_path / "o.safetensors")
    channels = backbone_info("tsn_resnet50_flow").channels
    key = next(key for key, value in loaded.items() if value.dim() == 4 and value.shape[1] == channels and value.shape[2] == 7)
    assert torch.allclose(loaded[key], state[key].mean(1, keepdim=True).expand(-1, channels, -1, -1))
    ran = run("convert", "resnet18", tmp_path / "rgb.pth", "-o", tmp_path / "p.safetensors", "--cross-modality")
    assert (ran.code, "cannot start from RGB weights" in ran.err) == (2, True)


LIGHT = ("tiny", "tiny3d", "mobilenet_v2", "resnet18", "s3d", "s3d_kylemin", "i3d_rgb", "i3d_flow", "tsn_bninception_rgb")


@pytest.mark.parametrize("name", [name if name in LIGHT else pytest.param(name, marks=pytest.mark.slow) for name in BACKBONES])
def test_converted_weights_of_every_network_are_the_same_weights(name: str, tmp_path: Path) -> None:
    """Its own names are a layout that each network reads, and a second conversion changes nothing."""
    info = backbone_info(name)
    state = load_backbone(name, "random:2", tuple(info.dims)).backbone.state_dict()
    torch.save(state, tmp_path / "w.pth")
    first = convert_weights(name, tmp_path / "w.pth", tmp_path / "a.safetensors", {})
    assert first.left_out == ()
    convert_weights(name, first.path, tmp_path / "b.safetensors", {})
    a, b = (safetensors.torch.load_file(tmp_path / f"{each}.safetensors") for each in "ab")
    kept = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    assert set(a) == set(b) == set(kept)
    assert all(torch.equal(a[key], value) and torch.equal(b[key], value) for key, value in kept.items())
