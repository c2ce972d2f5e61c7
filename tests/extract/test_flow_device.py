"""Flow in the job itself, on the network's device: forced on a processor here, where it must give what decode workers give, bit for bit."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from extract.commands import extract
from extract.flow import FLOWS, build_method, raft
from extract.flow.tvl1 import Tvl1
from extract.flow_bytes import flow_bytes
from extract.flow_device import DeviceMethod, device_bytes
from extract.spec import FlowSpec
from store.errors import SpecError
from store.features import FeatureStore

LENGTHS = {"a.mp4": (12, 48, 64), "b.mp4": (5, 64, 48), "c.mp4": (1, 48, 64), "d.mp4": (2, 48, 64)}
TVL1 = ("--flow.method", "tvl1", "--flow.short-side", "40")
RAFT = ("--flow.method", "raft_small", "--flow.params", "updates=1", "--flow.short-side", "40", "--flow-weights", "random:5")
KINDS = {
    "image": (*TVL1, "--clips.segments", "3"),
    "every frame": (*TVL1, "--clips.rule", "every"),
    "raft": (*RAFT, "--clips.segments", "1"),
}


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory, encode_video: Callable[..., Path]) -> Path:
    """Videos of two sizes, one of a single frame."""
    folder = tmp_path_factory.mktemp("videos")
    for seed, (name, (count, height, width)) in enumerate(LENGTHS.items()):
        noise = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        encode_video(folder / name, [np.roll(noise, (2 * number, number), (1, 0)) for number in range(count)])
    (folder / "list.txt").write_text("\n".join(LENGTHS))
    return folder / "list.txt"


def run(listed: Path, out: Path, *arguments: object) -> Result:
    command = [listed, "--weights", "random:0", "--out", out, "--workers", "1", "--device", "cpu", "--json", *arguments]
    return CliRunner().invoke(extract, [str(word) for word in command])


def store(result: Result) -> FeatureStore:
    assert result.exit_code == 0, result.output
    return FeatureStore.open(Path(json.loads(result.stdout)["store"]))


@pytest.mark.parametrize("kind", KINDS)
def test_features_do_not_depend_on_where_flow_is_computed(listed: Path, tmp_path: Path, kind: str) -> None:
    made = {}
    for where in ("workers", "device"):
        result = run(listed, tmp_path / where, "--preset", "tiny-flow", *KINDS[kind], "--flow-on", where)
        made[where] = store(result)
        assert ("flow" in json.loads(result.stdout)["seconds"]) == (where == "device")
    assert made["workers"].digest == made["device"].digest
    assert all(made["workers"].digests(video) == made["device"].digests(video) for video in LENGTHS)


def test_rgb_and_a_stack_of_flows(listed: Path, tmp_path: Path) -> None:
    network = ("--backbone", "st_resnet50", "--clips.segments", "1", "--clips.length", "5", "--crops.size", "32", "--crops.resize", "32")
    flow = (*TVL1, "--flow.encoding", "pairs", "--flow.pairs", "10", "--flow.offset", "-5", "--flow.with-rgb", "--flow.params", "scales=1")
    made = [store(run(listed, tmp_path / where, *network, *flow, "--flow-on", where)) for where in ("workers", "device")]
    assert all(made[0].digests(video) == made[1].digests(video) for video in LENGTHS)


def test_little_waits_whatever_the_sizes(listed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches that are never full, and room for a single pair."""
    whole = store(run(listed, tmp_path / "whole", "--preset", "tiny-flow", *KINDS["every frame"], "--flow-on", "device"))
    monkeypatch.setattr("extract.flow_device.WAITING_PIXELS", 1)
    little = store(run(listed, tmp_path / "little", "--preset", "tiny-flow", *KINDS["every frame"], "--flow-on", "device"))
    assert all(whole.digests(video) == little.digests(video) for video in LENGTHS)


def test_flow_with_nan_fails_its_video_alone(listed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = store(run(listed, tmp_path / "whole", "--preset", "tiny-flow", *KINDS["every frame"]))
    batch = Tvl1.batch

    def broken(self: Tvl1, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        flow = batch(self, first, second)
        if first.shape[2] > first.shape[3]:  # b.mp4 is upright
            flow[-1, 0, 3, 3] = torch.nan
        return flow

    monkeypatch.setattr(Tvl1, "batch", broken)
    result = run(listed, tmp_path / "nan", "--preset", "tiny-flow", *KINDS["every frame"], "--flow-on", "device")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    stage, reason = told["failed"].pop("b.mp4")
    assert (stage, told["failed"], told["done"]) == ("flow", {}, 3)
    assert reason.endswith("b.mp4: flow method tvl1 gives NaN or Inf between frames 3 and 4")
    broken_store = FeatureStore.open(Path(told["store"]))
    assert all(whole.digests(video) == broken_store.digests(video) for video in broken_store.ids())


def test_a_method_without_a_form_for_devices_is_refused(listed: Path, tmp_path: Path) -> None:
    for flags in ([], ["--flow.method", "files", "--flow.origin", "a tool"]):
        result = run(listed, tmp_path, "--preset", "tiny-flow", "--flow-on", "device", *flags)
        assert isinstance(result.exception, SpecError)
        assert f"flow method {'files' if flags else 'dis'} cannot be computed on a device" in str(result.exception)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("quantise", ["symmetric", "dense_flow", "i3d"])
@pytest.mark.parametrize("encoding", ["image", "pairs"])
@pytest.mark.parametrize("bound", [20.0, 15.3, 7.0])
def test_bytes_on_a_device_are_those_of_workers(quantise: str, encoding: str, bound: float) -> None:
    spec = FlowSpec(method="tvl1", bound=bound, quantise=quantise, encoding=encoding)  # type: ignore[arg-type]
    flow = np.random.default_rng(0).normal(0, bound / 2, (3, 64, 200, 2)).astype(np.float32)
    flow[0, 0] = np.linspace(-bound, bound, 400, dtype=np.float32).reshape(200, 2)
    flow[1, :2] = (np.arange(800).reshape(2, 200, 2) - 400) * np.float32(bound / 255)  # around halves of bytes
    flow[2, 0] = np.array([0.0, -0.0, 1e-30, 1e30, -1e30, np.finfo(np.float32).max, bound, -bound] * 50, np.float32).reshape(200, 2)
    found = device_bytes(torch.from_numpy(flow).permute(0, 3, 1, 2), spec).numpy()
    assert np.array_equal(found, np.stack([flow_bytes(each, spec) for each in flow]))


def test_the_magnitude_is_the_correctly_rounded_length() -> None:
    random = np.random.default_rng(1)
    x, y = random.normal(0, 8, (2, 100_000)).astype(np.float32)
    length = np.sqrt(x.astype(np.longdouble) ** 2 + y.astype(np.longdouble) ** 2)
    expected = np.rint(np.minimum(length.astype(np.float32), np.float32(20)) * np.float32(255 / 20)).astype(np.uint8)
    spec = FlowSpec(method="dis", quantise="symmetric")
    assert np.array_equal(flow_bytes(np.stack([x, y], 1)[None], spec)[0, :, 2], expected)


@pytest.mark.parametrize(("method", "weights"), [("tvl1", ""), ("raft_small", "random:5")])
def test_pairs_of_a_batch_are_the_pairs_alone(method: str, weights: str) -> None:
    params = {"updates": 1.0} if weights else dict(FLOWS.get(method).defaults)
    built = build_method(method, params, weights)
    assert isinstance(built, DeviceMethod)
    images = np.random.default_rng(2).integers(0, 256, (4, 24, 40, 3 if weights else 1), np.uint8)
    first, second = (torch.from_numpy(side).permute(0, 3, 1, 2) for side in (images[:-1], images[1:]))
    together = built.batch(first, second).permute(0, 2, 3, 1).numpy()
    single = [built(*(image if weights else image[..., 0] for image in pair)) for pair in itertools.pairwise(images)]
    assert np.array_equal(together, np.stack(single))


def test_images_of_one_pixel_a_side() -> None:
    built = build_method("tvl1", dict(FLOWS.get("tvl1").defaults))
    assert isinstance(built, DeviceMethod)
    images = torch.randint(0, 256, (2, 1, 1, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    flow = built.batch(images[:1], images[1:])
    assert np.array_equal(flow[0].permute(1, 2, 0).numpy(), built(*(image[0].numpy() for image in images)))


def test_raft_fills_batches_up_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on CUDA: batches of one size, the last one filled up, and one by one where the place in a batch would matter."""
    built = build_method("raft_small", {"updates": 1.0}, "random:5")
    assert isinstance(built, raft.Raft)
    sizes: list[int] = []
    network = built._network
    monkeypatch.setattr(
        built, "_network", type("Net", (), {"to": lambda self, device: lambda a, b, **k: sizes.append(len(a)) or network(a, b, **k)})()
    )
    monkeypatch.setattr(raft, "BATCH_PIXELS", 3 * 24 * 40)
    images = torch.randint(0, 256, (5, 3, 24, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for agree, expected in ((True, [3, 3]), (False, [1] * 4)):
        monkeypatch.setattr(built, "_at_once", {})
        monkeypatch.setattr(built, "_rows_agree", lambda *_, agree=agree: agree)
        size = built.pairs_at_once(24, 40, torch.device("meta"))  # any that is no processor
        with monkeypatch.context() as patch:
            patch.setattr(built, "pairs_at_once", lambda *_, size=size: size)
            sizes.clear()
            flow = built.batch(images[:-1], images[1:])
        assert (sizes, len(flow)) == (expected, 4)
