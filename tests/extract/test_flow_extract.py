"""Flow on its way through ``extract``: weights of flow networks, flow that was written elsewhere, and what is said of both."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import cli
from extract.flow import build_method
from extract.flow_frames import flow_size
from extract.prepare import prepare_spec
from extract.spec import DecodeSpec
from extract.video import open_source
from store.errors import SpecError, WeightsError
from store.features import FeatureStore

CPU = torch.device("cpu")
RAFT = {"flow": {"method": "raft_small", "params": {"updates": 2.0}, "short_side": 64}}


@pytest.fixture
def video(tmp_path: Path, encode_video: Callable[..., Path]) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (8, 10, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    return encode_video(tmp_path / "v.mp4", [np.roll(noise, 3 * index, 1) for index in range(4)])


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> object:
    monkeypatch.setattr("sys.argv", ["actioncache", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


def test_raft_reaches_the_network_with_its_weights(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list.csv").write_text("id,path\nv,v.mp4\n")
    network = ("--preset", "tiny-flow", "--weights", "random:0", "--dtype", "float32", "--clips.segments", "2")
    common = ("extract", tmp_path / "list.csv", *network, "--out", tmp_path / "f", "--json", "--workers", "1")
    flow = ("--flow.method", "raft_small", "--flow.params", "updates=2", "--flow.short-side", "64")
    assert run(monkeypatch, *common, *flow, "--flow-weights", "random:5") == 0
    store = FeatureStore.open(Path(json.loads(capsys.readouterr().out)["store"]))
    assert " raft_small random:5:" in store.spec["flow"]["version"]
    with open_source(video, DecodeSpec()) as source:
        frames = [flow_size(frame, 64) for frame in source.frames(np.arange(4))]
    method = build_method("raft_small", {"updates": 2.0}, "random:5")
    np.save(tmp_path / "v.npy", np.stack([method(first, second) for first, second in itertools.pairwise(frames)]))
    assert run(monkeypatch, *common, "--flow.method", "files", "--flow.origin", "RAFT", "--flow-root", tmp_path) == 0
    expected = FeatureStore.open(Path(json.loads(capsys.readouterr().out)["store"]))
    assert store.path != expected.path
    for level, values in expected.get("v").values.items():
        assert np.array_equal(store.get("v").values[level], values)
    assert run(monkeypatch, *common, *flow) == 2
    assert "raft_small is a network and no weights were given; give --flow-weights FILE" in capsys.readouterr().err


def test_weights_of_flow_are_part_of_the_spec() -> None:
    first, second = (prepare_spec("tiny-flow", RAFT, "random:0", CPU, weights)[0] for weights in ("random:5", "random:6"))
    assert first != second
    with pytest.raises(WeightsError, match="no weights were given"):
        prepare_spec("tiny-flow", RAFT, "random:0", CPU)
    with pytest.raises(SpecError, match="flow weights 'random:5' were given, but the spec has no flow"):
        prepare_spec("tiny", {}, "random:0", CPU, "random:5")
    with pytest.raises(SpecError, match="flow method dis is no network"):
        prepare_spec("tiny-flow", {}, "random:0", CPU, "random:5")


def test_written_flow_of_other_bytes_is_refused_before_any_video(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list.csv").write_text("id,path\nv,v.mp4\n")
    flags = ("--flow.short-side", "0", "--flow.bound", "15", "--workers", "1")
    assert run(monkeypatch, "flow", "write", tmp_path / "list.csv", "-o", tmp_path / "flow", "--flow.method", "dis", *flags) == 0
    files = ("--flow.method", "files", "--flow.origin", "DIS", "--flow-root", tmp_path / "flow", "--out", tmp_path / "f")
    assert run(monkeypatch, "extract", tmp_path / "list.csv", "--preset", "tiny-flow", "--weights", "random:0", *files) == 2
    assert "set --flow.bound 15 --flow.quantise dense_flow" in capsys.readouterr().err
    assert not (tmp_path / "f").exists()


def test_another_flow_than_the_networks_is_noted_at_once_and_in_the_summary(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list.csv").write_text("id,path\nnone,none.mp4\n")  # no video is needed to know
    network = ("--backbone", "tsn_bninception_flow", "--weights", "random:0", "--flow.encoding", "pairs", "--flow.pairs", "5")
    assert run(monkeypatch, "extract", tmp_path / "list.csv", *network, "--flow.method", "dis", "--out", tmp_path, "--json") == 1
    printed = capsys.readouterr()
    told = "tsn_bninception_flow was trained on tvl1 flow; with --flow.method dis its features may be worse than with tvl1"
    assert f"note: {told}\n" in printed.err
    assert json.loads(printed.out)["notes"] == [told]
    assert run(monkeypatch, "extract", tmp_path / "list.csv", *network, "--flow.method", "dis", "--out", tmp_path) == 1
    assert f"note: {told}\n" in capsys.readouterr().out
    assert run(monkeypatch, "extract", tmp_path / "list.csv", *network, "--flow.method", "tvl1", "--out", tmp_path) == 1
    printed = capsys.readouterr()
    assert "note: " not in printed.err + printed.out
