"""``weights convert`` as a user runs it."""

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch

from extract.backbones import BACKBONES, backbone_info
from extract.weights import load_backbone
from extract.weights_convert import convert_weights

Run = Callable[..., Any]


def weights_file(path: Path, seed: int = 5) -> Path:
    state = load_backbone("tiny", f"random:{seed}").backbone.state_dict()
    torch.save(state, path)
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_convert_writes_the_networks_own_names_with_a_note(run_weights: Run, tmp_path: Path) -> None:
    path, out = weights_file(tmp_path / "w.pth"), tmp_path / "o.safetensors"
    state = {f"module.{key}": value.double() for key, value in torch.load(path, weights_only=True).items()}
    torch.save({"state_dict": state, "epoch": 3}, path)
    ran = run_weights("convert", "tiny", path, "-o", out)
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
    assert run_weights("convert", "tiny", path, "-o", out, "--overwrite").code == 0
    assert out.read_bytes() == first  # the same weights are the same store


def test_convert_never_replaces_by_accident(run_weights: Run, tmp_path: Path) -> None:
    path, out = weights_file(tmp_path / "w.pth"), tmp_path / "o.safetensors"
    out.write_text("mine")
    ran = run_weights("convert", "tiny", path, "-o", out)
    assert ran.code == 2
    assert "is there already; give another name, or --overwrite" in ran.err
    assert out.read_text() == "mine"
    assert run_weights("convert", "tiny", path, "-o", out, "--overwrite").code == 0
    assert run_weights("convert", "tiny", out, "-o", out, "--overwrite").code == 2  # its own source
    ran = run_weights("convert", "tiny", path, "-o", tmp_path / "o.pth")
    assert (ran.code, "does not end in .safetensors" in ran.err) == (2, True)
    (tmp_path / "bad.pth").write_bytes(b"nonsense")
    assert run_weights("convert", "tiny", tmp_path / "bad.pth", "-o", out, "--overwrite").code == 2
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


def test_convert_puts_in_what_is_published_beside_the_weights(run_weights: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "extranets.py").write_text(WITH_EXTRA)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    torch.save({"scale": torch.tensor([1.0, 2.0, 3.0])}, "w.pth")
    np.save("mean.npy", np.array([4.0, 5.0, 6.0], np.float32))
    np.save("wrong.npy", np.zeros(4, np.float32))
    refused = run_weights("check", "extranets:Net", "--weights", "w.pth")
    assert refused.code == 2
    assert "--mean-frame FILE" in refused.err
    ran = run_weights("convert", "extranets:Net", "w.pth", "-o", "o.safetensors", "--extra", "mean-frame=mean.npy")
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
        ran = run_weights("convert", "extranets:Net", "w.pth", "-o", "p.safetensors", "--extra", extra)
        assert ran.code == 2
        assert words in ran.err
    assert not Path("p.safetensors").exists()


@pytest.mark.slow
def test_convert_puts_c3ds_mean_cube_in(run_weights: Run, tmp_path: Path) -> None:
    """The cube is published in a file of its own; without it the weights are refused with the command that puts it in."""
    state = load_backbone("c3d", "random:0").backbone.state_dict()
    cube = np.random.default_rng(0).uniform(80, 130, (16, 112, 112, 3)).astype(np.float32)
    np.save(tmp_path / "cube.npy", cube)
    torch.save({key: value for key, value in state.items() if key != "mean_cube"}, tmp_path / "w.pth")
    refused = run_weights("check", "c3d", "--weights", tmp_path / "w.pth")
    assert refused.code == 2
    assert "actioncache weights convert c3d" in refused.err
    assert "--mean-cube FILE" in refused.err
    ran = run_weights("convert", "c3d", tmp_path / "w.pth", "-o", tmp_path / "o.safetensors", "--mean-cube", tmp_path / "cube.npy")
    assert ran.code == 0, ran.err
    loaded = safetensors.torch.load_file(tmp_path / "o.safetensors")
    assert torch.equal(loaded["mean_cube"], torch.from_numpy(cube).permute(3, 0, 1, 2))
    assert torch.equal(loaded["conv1.weight"], state["conv1.weight"])


def test_convert_starts_a_flow_network_from_rgb_weights(run_weights: Run, tmp_path: Path) -> None:
    state = load_backbone("tsn_resnet50_rgb", "random:0").backbone.state_dict()
    torch.save(state, tmp_path / "rgb.pth")
    assert run_weights("convert", "tsn_resnet50_flow", tmp_path / "rgb.pth", "-o", tmp_path / "o.safetensors").code == 2
    ran = run_weights("convert", "tsn_resnet50_flow", tmp_path / "rgb.pth", "-o", tmp_path / "o.safetensors", "--cross-modality")
    assert ran.code == 0, ran.err
    loaded = safetensors.torch.load_file(tmp_path / "o.safetensors")
    channels = backbone_info("tsn_resnet50_flow").channels
    key = next(key for key, value in loaded.items() if value.dim() == 4 and value.shape[1] == channels and value.shape[2] == 7)
    assert torch.allclose(loaded[key], state[key].mean(1, keepdim=True).expand(-1, channels, -1, -1))
    ran = run_weights("convert", "resnet18", tmp_path / "rgb.pth", "-o", tmp_path / "p.safetensors", "--cross-modality")
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
