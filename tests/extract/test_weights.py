"""Where weights come from, what is refused, and what a source's identity says."""

import hashlib
import os
import pickle
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from extract.backbones import Backbone, backbone_info
from extract.weights import load_backbone, state_digest, weights_choices
from store.errors import UnknownNameError, WeightsError

State = dict[str, torch.Tensor]


def tiny_state() -> State:
    generator = torch.Generator().manual_seed(5)
    backbone = load_backbone("tiny", "random:0").backbone
    return {key: torch.randn(value.shape, generator=generator) for key, value in backbone.state_dict().items()}


@pytest.fixture(scope="module")
def mobilenet_state() -> State:
    return {key: value.detach() for key, value in load_backbone("mobilenet_v2", "random:3").backbone.state_dict().items()}


def saved(path: Path, content: object) -> str:
    """Save as the file's suffix says; returns the path as a source."""
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(content, path)  # type: ignore[arg-type]
    else:
        torch.save(content, path)
    return str(path)


def assert_weights(backbone: Backbone, state: Mapping[str, torch.Tensor]) -> None:
    loaded = backbone.state_dict()
    assert set(state) <= set(loaded)
    for key, value in state.items():
        assert torch.equal(loaded[key], value.float())
        assert loaded[key].dtype == torch.float32


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.tar", "w.safetensors"])
def test_a_file_gives_its_weights_and_the_sha256_of_its_bytes(name: str, tmp_path: Path) -> None:
    state = tiny_state()
    source = saved(tmp_path / name, state)
    loaded = load_backbone("tiny", source)
    assert_weights(loaded.backbone, state)
    assert loaded.identity == "sha256:" + hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    assert loaded.source == source
    assert not loaded.backbone.training


@pytest.mark.parametrize("wrap", ["state_dict", "model_state_dict", "model"])
def test_training_checkpoints_are_unwrapped(wrap: str, tmp_path: Path) -> None:
    state = tiny_state()
    content = {"epoch": 3, wrap: {f"module.{key}": value for key, value in state.items()}, "optimizer": {"lr": 0.1}}
    assert_weights(load_backbone("tiny", saved(tmp_path / "w.pth", content)).backbone, state)


def test_the_legacy_format_of_torch_is_read(tmp_path: Path) -> None:
    state = tiny_state()
    torch.save(state, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    assert_weights(load_backbone("tiny", str(tmp_path / "w.pth")).backbone, state)


def test_half_precision_files_become_float32(tmp_path: Path) -> None:
    state = {key: value.half() for key, value in tiny_state().items()}
    assert_weights(load_backbone("tiny", saved(tmp_path / "w.safetensors", state)).backbone, state)


def test_missing_batch_counters_do_not_matter(mobilenet_state: State, tmp_path: Path) -> None:
    state = {key: value for key, value in mobilenet_state.items() if not key.endswith("num_batches_tracked")}
    assert len(state) < len(mobilenet_state)
    assert_weights(load_backbone("mobilenet_v2", saved(tmp_path / "w.safetensors", state)).backbone, state)


def test_a_file_without_classifier_serves_every_other_level(mobilenet_state: State, tmp_path: Path) -> None:
    state = {key: value for key, value in mobilenet_state.items() if not key.startswith("classifier.")}
    source = saved(tmp_path / "w.safetensors", state)
    backbone = load_backbone("mobilenet_v2", source, ("features",)).backbone
    assert "logits" not in backbone.info.dims
    with torch.inference_mode():
        assert backbone(torch.zeros(1, 3, 64, 64))["features"].shape == (1, 1280)
    with pytest.raises(UnknownNameError, match="no level 'logits'"):
        backbone(torch.zeros(1, 3, 64, 64), ("logits",))
    with pytest.raises(WeightsError, match=r"\(262 entries\): 2 missing: classifier\.1\.weight, classifier\.1\.bias"):
        load_backbone("mobilenet_v2", source, ("logits",))


def test_a_fine_tuned_classifier_is_left_aside_unless_wanted(mobilenet_state: State, tmp_path: Path) -> None:
    state = {**mobilenet_state, "classifier.1.weight": torch.zeros(101, 1280), "classifier.1.bias": torch.zeros(101)}
    source = saved(tmp_path / "w.safetensors", state)
    assert "logits" not in load_backbone("mobilenet_v2", source).backbone.info.dims
    with pytest.raises(WeightsError, match=r"classifier\.1\.weight is \[101, 1280\] float32, not \[1000, 1280\] float32"):
        load_backbone("mobilenet_v2", source, ("logits",))


def test_everything_that_does_not_fit_is_in_one_error(tmp_path: Path) -> None:
    state = tiny_state()
    del state["convolutions.0.weight"]
    state["convolutions.1.weight"] = torch.zeros(32, 16, 5, 5)
    state["convolutions.1.bias"] = torch.zeros(32, dtype=torch.int64)
    state["convolutions.2.bias"][3] = float("nan")
    state["extra.weight"] = torch.zeros(1)
    with pytest.raises(WeightsError) as caught:
        load_backbone("tiny", saved(tmp_path / "w.pth", state))
    assert str(caught.value) == (
        f"{tmp_path / 'w.pth'} does not fit tiny (6 entries): 1 missing: convolutions.0.weight; "
        "1 unexpected: extra.weight; "
        "2 of another shape or type: convolutions.1.weight is [32, 16, 5, 5] float32, not [32, 16, 3, 3] float32, "
        "convolutions.1.bias is [32] int64, not [32] float32; "
        "1 with NaN or Inf: convolutions.2.bias"
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(bad: float, tmp_path: Path) -> None:
    state = tiny_state()
    state["convolutions.2.weight"][0, 0, 0, 0] = bad
    with pytest.raises(WeightsError, match=r"with NaN or Inf: convolutions\.2\.weight"):
        load_backbone("tiny", saved(tmp_path / "w.safetensors", state))


def test_long_lists_of_keys_are_counted_and_cut(mobilenet_state: State, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"6 missing: .*, \.\.\.; 264 unexpected: .*another network's weights"):
        load_backbone(
            "tiny", saved(tmp_path / "w.safetensors", {**mobilenet_state, "fc.bias": torch.zeros(1), "fc.weight": torch.zeros(1)})
        )


class Program:
    """Runs a command when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.witness),)


@pytest.mark.parametrize("legacy", [True, False])
def test_a_program_in_a_checkpoint_is_refused_and_does_not_run(legacy: bool, tmp_path: Path) -> None:
    witness = tmp_path / "it ran"
    torch.save({"state_dict": tiny_state(), "extra": Program(witness)}, tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsError, match="could run any program when loaded, so it was not loaded"):
        load_backbone("tiny", str(tmp_path / "w.pth"))
    assert not witness.exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_plain_pickle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pkl"
    path.write_bytes(pickle.dumps({"weight": np.zeros(3)}))
    with pytest.raises(WeightsError, match=r"not loaded|not a checkpoint"):
        load_backbone("tiny", str(path))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty"),
        (b"\n<!DOCTYPE html><html><body>404 Not Found</body></html>", "it is a web page"),
        (b"<HTML><head></head></HTML>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "it is a Git LFS pointer"),
        (b"just some words", "damaged or not a checkpoint"),
        (b"PK\x03\x04 and then nothing", "damaged or not a checkpoint"),
        (b"\x80\x02", "damaged or not a checkpoint"),
    ],
)
def test_files_that_are_no_checkpoint_are_named_with_the_reason(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=rf"w\.pth is .*{words}"):
        load_backbone("tiny", str(path))


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_damage_is_a_weights_error_wherever_it_is(name: str, tmp_path: Path) -> None:
    source = saved(tmp_path / name, tiny_state())
    whole = Path(source).read_bytes()
    generator = np.random.default_rng(0)
    for cut in generator.integers(1, len(whole), 40):
        Path(source).write_bytes(whole[:cut])
        with pytest.raises(WeightsError, match=name):
            load_backbone("tiny", source)
    for place in generator.integers(0, min(len(whole), 2000), 200):
        Path(source).write_bytes(whole[:place] + bytes([whole[place] ^ (1 << int(generator.integers(8)))]) + whole[place + 1 :])
        with suppress(WeightsError):  # and no other; a flipped bit of a weight is a weight, which shows in the identity
            assert load_backbone("tiny", source).identity != "sha256:" + hashlib.sha256(whole).hexdigest()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (torch.zeros(3), "holds a Tensor and no state dict"),
        ({}, "holds a dict and no state dict"),
        ([1, 2], "holds a list and no state dict"),
        ({"weight": torch.zeros(2), "epoch": 3}, r"no tensors: 'epoch' \(int\)"),
        ({1: torch.zeros(2)}, r"no tensors: 1 \(Tensor\)"),
    ],
)
def test_content_that_is_no_state_dict_is_described(content: object, words: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=words):
        load_backbone("tiny", saved(tmp_path / "w.pth", content))


def test_random_weights_follow_their_seed_and_leave_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    first, again, other = (load_backbone("resnet18", f"random:{seed}") for seed in (7, 7, 8))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first.identity == again.identity == f"random:7:{state_digest(first.backbone)[:12]}"
    assert state_digest(other.backbone) != state_digest(first.backbone)
    assert "learned nothing" in first.source


def test_random_resnet_is_torchs_own_initialisation() -> None:
    import torchvision

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        plain = torchvision.models.resnet18(weights=None)
    assert_weights(load_backbone("resnet18", "random:7").backbone, {key: value.detach() for key, value in plain.named_parameters()})


@pytest.mark.parametrize("source", ["random", "random:", "random:-1", "random:x", "random:1.5", f"random:{2**63}", "random:²"])
def test_random_needs_a_seed(source: str) -> None:
    with pytest.raises(WeightsError, match=r"need a seed from 0 to 2\^63 - 1; .*random:0"):
        load_backbone("tiny", source)


@pytest.mark.parametrize("source", ["", None])
def test_weights_are_never_random_by_accident(source: str | None) -> None:
    with pytest.raises(
        WeightsError, match=r"no weights were given for backbone resnet50; choose a \.safetensors .*published:IMAGENET1K_V2"
    ):
        load_backbone("resnet50", source)


def test_a_missing_file_is_an_error_with_the_choices(tmp_path: Path) -> None:
    for source in (str(tmp_path / "none.pth"), str(tmp_path)):
        with pytest.raises(
            WeightsError, match=r"there is no file .* for backbone tiny; choose a \.safetensors or \.pth file, or random:SEED"
        ):
            load_backbone("tiny", source)


def test_published_takes_torchvisions_url_and_the_files_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mobilenet_state: State
) -> None:
    asked: list[str] = []
    path = tmp_path / "file.pth"
    saved(path, mobilenet_state)
    monkeypatch.setattr("extract.weights.fetch", lambda url, sha256: asked.append(url) or path)
    loaded = load_backbone("mobilenet_v2", "published")
    load_backbone("mobilenet_v2", "published:IMAGENET1K_V2")
    assert loaded.identity == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    assert asked == [
        "https://download.pytorch.org/models/mobilenet_v2-b0353104.pth",
        "https://download.pytorch.org/models/mobilenet_v2-7ebf99e0.pth",
    ]


def test_published_names_that_do_not_exist() -> None:
    with pytest.raises(WeightsError, match=r"no published weights 'SPORTS1M'; choose .*published:IMAGENET1K_V1"):
        load_backbone("resnet34", "published:SPORTS1M")
    with pytest.raises(WeightsError, match="nobody published weights for backbone tiny"):
        load_backbone("tiny", "published")


def test_choices_name_every_published_file() -> None:
    text = weights_choices(backbone_info("resnet50"))
    assert "published (= published:IMAGENET1K_V1), published:IMAGENET1K_V2 (downloaded)" in text
    assert "published" not in weights_choices(backbone_info("tiny"))
