"""RAFT: torchvision's network by another name, and the identity of its weights."""

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torchvision.models import get_model, get_model_weights

from extract import downloads
from extract.flow import FLOWS, LearnedFamily, build_method, flow_method
from extract.flow.raft import NAMES, Raft
from extract.flow_frames import flow_frames, resolve_flow, walk_flows
from extract.spec import DecodeSpec, FlowSpec
from extract.video import Scan, VideoSource
from store.errors import FeatureError, SpecError, WeightsError

TWO = {"updates": 2.0}


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def network(name: str, seed: int = 0) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: torch.nn.Module = get_model(name, weights=None).eval()
    return model


def torchvisions(name: str, first: np.ndarray, second: np.ndarray, updates: int) -> np.ndarray:
    """The flow by torchvision's own network and transforms, of images extended in numpy."""
    height, width = first.shape[:2]
    more = [max(128, 8 * ((side + 7) // 8)) - side for side in (height, width)]
    edges = [(extra // 2, extra - extra // 2) for extra in more]
    images = [torch.from_numpy(np.pad(image, [*edges, (0, 0)], mode="edge")).permute(2, 0, 1)[None] for image in (first, second)]
    with torch.inference_mode():
        flow = network(name)(*get_model_weights(name).DEFAULT.transforms()(*images), num_flow_updates=updates)[-1][0]
    top, left = edges[0][0], edges[1][0]
    return flow[:, top : top + height, left : left + width].permute(1, 2, 0).numpy()


def raft(name: str = "raft_small", weights: str = "random:0") -> Raft:
    method = build_method(name, TWO, weights)
    assert isinstance(method, Raft)
    return method


# The network


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(128, 136), (131, 150), (5, 133), (1, 1)])
def test_it_is_torchvisions(name: str, size: tuple[int, int]) -> None:
    first, second = noise(*size), noise(*size, seed=1)
    flow = build_method(name, {"updates": 3.0}, "random:0")(first, second)
    assert flow.shape == (*size, 2)
    assert flow.dtype == np.float32
    np.testing.assert_allclose(flow, torchvisions(name, first, second, 3), rtol=1e-4, atol=1e-4)


def test_every_parameter_counts_and_the_order_of_images_does() -> None:
    first, second = noise(64, 80), noise(64, 80, seed=1)
    flow = raft()(first, second)
    assert not np.allclose(flow, raft()(second, first), atol=0.1)
    assert not np.allclose(flow, build_method("raft_small", {"updates": 4.0}, "random:0")(first, second), atol=0.1)
    assert not np.allclose(flow, raft(weights="random:1")(first, second), atol=0.1)


def test_equal_images_and_earlier_pairs_leave_no_trace() -> None:
    method, image = raft(), noise(40, 50)
    still = method(image, image)
    assert np.isfinite(still).all()
    method(noise(90, 30), noise(90, 30, seed=2))
    assert np.array_equal(method(image, image), still)


def test_a_batch_is_its_pairs() -> None:
    images = np.stack([noise(60, 70, seed) for seed in range(4)])
    tensors = torch.from_numpy(images).permute(0, 3, 1, 2)
    flow = raft().batch(tensors[:3], tensors[1:])
    assert flow.shape == (3, 2, 60, 70)
    assert flow.dtype == torch.float32
    for index in range(3):
        expected = raft()(images[index], images[index + 1])
        np.testing.assert_allclose(flow[index].permute(1, 2, 0).numpy(), expected, rtol=1e-3, atol=1e-3)


def test_torchs_threads_change_nothing_and_are_put_back() -> None:
    before, flows = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            flows.append(raft()(noise(60, 70), noise(60, 70, seed=1)))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(*flows)


def test_images_that_are_no_pair_of_batches() -> None:
    rgb, grey = torch.zeros(1, 3, 40, 40, dtype=torch.uint8), torch.zeros(1, 40, 40, dtype=torch.uint8)
    for pair in ((rgb, rgb[:, :, 1:]), (grey, grey), (rgb.float(), rgb.float())):
        with pytest.raises(FeatureError, match=r"RAFT takes two batches of RGB images, uint8 \[B, 3, H, W\] of one size, not torch"):
            raft().batch(*pair)


@pytest.mark.parametrize("name", NAMES)
def test_published_weights_find_a_known_translation(name: str) -> None:
    """Only where the weights have been downloaded before: tests never do."""
    url = get_model_weights(name).DEFAULT.url
    if not downloads.cached_path(url).is_file():
        pytest.skip(f"{url} has not been downloaded")
    rows, columns = np.mgrid[:200, :240]
    still, moved = (128 + 60 * np.sin(0.21 * (columns - x)) + 60 * np.sin(0.17 * (rows - y)) for x, y in ((0, 0), (3, -2)))
    first, second = (np.repeat(image[..., None], 3, 2).astype(np.uint8) for image in (still, moved))
    flow = build_method(name, {"updates": 12.0}, "published")(first, second)
    assert np.abs(np.median(flow[20:-20, 20:-20], (0, 1)) - (3, -2)).max() < 0.3


# Its weights


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_weights_from_a_file_and_their_identity(tmp_path: Path, suffix: str) -> None:
    path, state = tmp_path / f"raft.{suffix}", network("raft_large", seed=3).state_dict()
    torch.save({"state_dict": state}, path) if suffix == "pth" else safetensors.torch.save_file(state, path)
    spec = resolve_flow(FlowSpec(method="raft_large", params=TWO), str(path))
    assert spec.version.startswith("torchvision-0.")
    assert spec.version.endswith(f" raft_large sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}")
    assert resolve_flow(spec, str(path)) == spec
    flow = flow_method(spec, str(path))(noise(40, 50), noise(40, 50, seed=1))
    assert np.array_equal(flow, raft("raft_large", "random:3")(noise(40, 50), noise(40, 50, seed=1)))


def test_other_weights_than_the_spec_names_are_refused(tmp_path: Path) -> None:
    spec = resolve_flow(FlowSpec(method="raft_small"), "random:0")
    assert spec.params == {"updates": 12.0}
    with pytest.raises(SpecError, match=r"flow.version is '.* random:0:.*' but '.* random:1:.*' is installed"):
        resolve_flow(spec, "random:1")
    with pytest.raises(WeightsError, match=r"flow weights random:1 are '.* random:1:.*', but this spec says '.* random:0"):
        flow_method(spec, "random:1")
    path = tmp_path / "raft.pth"
    torch.save(network("raft_small").state_dict(), path)
    from_file = resolve_flow(FlowSpec(method="raft_small"), str(path))
    torch.save(network("raft_small", seed=1).state_dict(), path)
    with pytest.raises(WeightsError, match="have they changed meanwhile"):
        flow_method(from_file, str(path))


def test_weights_are_never_random_by_accident() -> None:
    for build in (lambda: FLOWS.get("raft_small")({"updates": 12.0}), lambda: resolve_flow(FlowSpec(method="raft_small"))):
        with pytest.raises(
            WeightsError,
            match=r"raft_small is a network and no weights were given; give --flow-weights FILE, published \(= published:C_T_V2\), "
            r"published:C_T_V1 \(downloaded\), or random:SEED",
        ):
            build()
    with pytest.raises(WeightsError, match=r"there is no file nowhere.pth; give --flow-weights"):
        raft(weights="nowhere.pth")
    with pytest.raises(WeightsError, match="random:x need a seed from 0"):
        raft(weights="random:x")
    with pytest.raises(WeightsError, match="raft_small has no published weights 'C_T_V9'; give"):
        raft(weights="published:C_T_V9")
    with pytest.raises(SpecError, match="weights 'random:0' were given, but flow method dis is no network"):
        resolve_flow(FlowSpec(method="dis"), "random:0")
    with pytest.raises(SpecError, match="flow from files is computed already"):
        resolve_flow(FlowSpec(method="files", origin="x"), "random:0")
    with pytest.raises(SpecError, match=r"updates is 1\.5; it must be a whole number"):
        resolve_flow(FlowSpec(method="raft_small", params={"updates": 1.5}), "random:0")


def test_files_that_do_not_fit_say_why(tmp_path: Path) -> None:
    path, state = tmp_path / "raft.pth", network("raft_small").state_dict()
    first = next(iter(state))

    def refused(content: object, words: str) -> None:
        torch.save(content, path)
        with pytest.raises(WeightsError, match=words):
            raft(weights=str(path))

    refused(network("raft_large").state_dict(), r"raft.pth does not fit raft_small: of its entries \d+ missing \(.*\d+ unknown \(")
    refused({**state, first: state[first][:1]}, rf"1 of another shape \({first}\)")
    refused({**state, first: state[first] * torch.nan}, f"{first} has NaN or Inf")
    path.write_bytes(b"<html>not found")
    with pytest.raises(WeightsError, match="it is a web page"):
        raft(weights=str(path))


def test_published_weights_are_fetched_by_torchvisions_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    path = tmp_path / "raft_small.pth"
    torch.save(network("raft_small").state_dict(), path)
    monkeypatch.setattr(downloads, "fetch", lambda url, sha256: asked.append(url) or path)
    assert raft(weights="published").version == raft(weights="published:C_T_V2").version == raft(weights=str(path)).version
    assert set(asked) == {"https://download.pytorch.org/models/raft_small_C_T_V2-01064c6d.pth"}


# Inside the pipeline


class Memory(VideoSource):
    def __init__(self, frames: list[np.ndarray]) -> None:
        super().__init__(Path("memory"), DecodeSpec())
        self.images = frames

    def _scan(self) -> Scan:
        return Scan(np.arange(len(self.images)) / 25, len(self.images) / 25, *self.images[0].shape[:2])

    def _read(self, indices: np.ndarray) -> Iterator[np.ndarray]:
        yield from (self.images[index] for index in indices)

    def _close(self) -> None:
        pass


def test_it_is_given_colours_at_the_flows_size() -> None:
    spec = resolve_flow(FlowSpec(method="raft_small", params=TWO, short_side=0), "random:0")
    frames = [noise(40, 50, seed) for seed in range(4)]
    with Memory(frames) as source:
        found = {index: flow for index, flow, _ in walk_flows(source, np.array([0, 2]), np.arange(0), spec, "random:0")}
    assert list(found) == [0, 2]
    assert all(np.array_equal(flow, raft()(frames[index], frames[index + 1])) for index, flow in found.items())
    halved = resolve_flow(FlowSpec(method="raft_small", params=TWO, short_side=20), "random:0")
    with Memory(frames) as source:
        images = list(flow_frames(source, np.arange(4), halved, "random:0"))
    assert [image.shape for image in images] == [(20, 25, 3)] * 4


def test_knowing_the_methods_takes_no_torch() -> None:
    script = "import sys\nfrom extract.flow import FLOWS\nimport extract.flow_frames\n"
    script += "print(FLOWS.names(), sorted({'torch', 'torchvision'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert result.stdout.strip().endswith("[]")
    assert "'raft_large', 'raft_small'" in result.stdout


def test_only_networks_are_learned() -> None:
    assert [name for name in FLOWS if isinstance(FLOWS.get(name), LearnedFamily)] == sorted(NAMES)
