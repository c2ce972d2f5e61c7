"""``weights check`` as a user runs it; its comparison with another extractor's features is in test_reference_features."""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from extract.references import read_logits
from extract.weights import load_backbone
from extract.weights_check import layout
from store.errors import WeightsError

Run = Callable[..., Any]


def weights_file(path: Path, seed: int = 5) -> Path:
    state = load_backbone("tiny", f"random:{seed}").backbone.state_dict()
    torch.save(state, path)
    return path


def s3d_state() -> dict[str, torch.Tensor]:
    return dict(load_backbone("s3d_kylemin", "random:1").backbone.state_dict())


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_check_says_what_the_weights_are_and_runs_them(run_weights: Run, tmp_path: Path) -> None:
    path = weights_file(tmp_path / "w.pth")
    ran = run_weights("check", "tiny", "--weights", path)
    assert ran.code == 0
    assert f"    identity   sha256:{sha256(path)}" in ran.out
    assert "    layout     the network's own names" in ran.out
    assert "    entries    6, 23,584 parameters" in ran.out
    assert "grid           256 wide, from " in ran.out
    assert "compared with nothing: no published outputs of tiny were found; give their folder with --reference" in ran.out


def test_check_says_which_levels_the_weights_lack_and_how_names_were_changed(run_weights: Run, tmp_path: Path) -> None:
    found = json.loads(run_weights("check", "resnet18", "--weights", "random:0", "--json").out)
    assert found["left_out"] == []
    assert found["layout"] == "made here"
    resnet = load_backbone("resnet18", "random:1").backbone.state_dict()
    torch.save({f"module.{key}": value for key, value in resnet.items() if not key.startswith("fc.")}, tmp_path / "r.pth")
    found = json.loads(run_weights("check", "resnet18", "--weights", tmp_path / "r.pth", "--json").out)
    assert found["left_out"] == ["logits"]
    assert found["layout"] == "the network's own names"
    assert found["good"]
    kylemin = {"base.0.conv_s.weight" if key == "features.0.0.0.weight" else key: value for key, value in s3d_state().items()}
    torch.save(kylemin, tmp_path / "s.pth")
    found = layout("s3d_kylemin", str(tmp_path / "s.pth"))
    assert re.fullmatch(
        r"another's names: 1 of \d+ were changed or left out, such as base\.0\.conv_s\.weight -> features\.0\.0\.0\.weight", found
    )


def test_check_of_outputs_that_are_not_finite_ends_with_1(run_weights: Run, tmp_path: Path) -> None:
    state = {key: value * 1e30 for key, value in load_backbone("tiny", "random:0").backbone.state_dict().items()}
    torch.save(state, tmp_path / "w.pth")
    ran = run_weights("check", "tiny", "--weights", tmp_path / "w.pth")
    assert ran.code == 1
    assert "NOT FINITE: block" in ran.out
    found = json.loads(run_weights("check", "tiny", "--weights", tmp_path / "w.pth", "--json").out)
    assert None in found["outputs"]["block3"]
    assert not found["good"]


def test_check_of_weights_that_do_not_load_ends_with_2(run_weights: Run, tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"nonsense")
    assert run_weights("check", "tiny", "--weights", tmp_path / "w.pth").code == 2
    assert run_weights("check", "tiny", "--weights", tmp_path / "none.pth").code == 2
    assert run_weights("check", "tiny").code == 2  # nobody published any, and random ones must be asked for
    assert run_weights("check", "tiny", "--weights", "random:0", "--device", "nonsense").code == 2


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_check_compares_with_torchvisions_expected_outputs(name: str, run_weights: Run, shared_data: Path, tmp_path: Path) -> None:
    ran = run_weights("check", name, "--weights", "random:0", "--reference", shared_data)
    assert ran.code == 0, ran.out
    assert "agrees: torchvision's expected output, made with its seeded network (checks the code, not the file)" in ran.out
    file = f"ModelTester.test_{name}_expect.pkl"
    (tmp_path / "torchvision_expect").mkdir()
    expected = torch.load(shared_data / "torchvision_expect" / file, weights_only=True).detach()
    expected[0, 7] += 0.001
    torch.save(expected, tmp_path / "torchvision_expect" / file)
    ran = run_weights("check", name, "--weights", "random:0", "--reference", tmp_path)
    assert ran.code == 1
    assert "DIFFERS: torchvision's expected output" in ran.out
    assert re.search(r"50 numbers: largest difference 0\.0009|50 numbers: largest difference 0\.001", ran.out)


def test_a_reference_that_is_damaged_is_an_error_with_its_name(run_weights: Run, tmp_path: Path) -> None:
    for path in ("torchvision_expect/ModelTester.test_resnet34_expect.pkl", "features/video_features_reference.npz"):
        (tmp_path / path).parent.mkdir()
        (tmp_path / path).write_bytes(b"nonsense")
        ran = run_weights("check", "resnet34", "--weights", "random:0", "--reference", tmp_path)
        assert ran.code == 2
        assert f"{tmp_path / path} is damaged" in ran.err
        (tmp_path / path).unlink()


def test_the_reference_folder_can_be_set_once(run_weights: Run, shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACTIONCACHE_TEST_DATA", str(shared_data))
    assert "agrees: torchvision's expected output" in run_weights("check", "resnet18", "--weights", "random:0").out


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


def test_check_compares_the_logits_of_a_clip_with_printed_ones(run_weights: Run, tmp_path: Path) -> None:
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
    ran = run_weights(*arguments, "--weights", "random:0")
    assert ran.code == 0, ran.out
    assert ran.out.count("agrees: ") == 2
    assert f"your input class {int(logits.argmax())}: {logits.max():.4f}" in ran.out
    ran = run_weights(*arguments, "--weights", "random:1")
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
def test_an_input_that_the_network_cannot_take_is_an_error(array: np.ndarray, words: str, run_weights: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "clip.npy", array, allow_pickle=True)
    ran = run_weights("check", "i3d_rgb", "--weights", "random:0", "--input", tmp_path / "clip.npy")
    assert ran.code == 2
    assert re.search(words, ran.err), ran.err
