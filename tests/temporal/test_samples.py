"""Clips and windows as samples, and maps from the store: trained on one by one, scored and validated by video."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from store.errors import DamagedShardError, FeatureError, SpecError, TrainingError
from store.videos import Video, VideoList
from temporal.batches import PaddedSequences, StoredSequences, padded
from temporal.experiment import train_list
from temporal.predict import predict
from temporal.projection import Projection, projection_for
from temporal.sequences import load_sequences
from temporal.spec import HeadSpec, RunSpec, SequenceSpec, TrainSpec

CLIPS = SequenceSpec(samples="clips", sampling="all")
TRAINING = TrainSpec(epochs=2, learning_rate=0.01, validation=0.25, batch_size=8)


def _list(counts: dict[str, int]) -> VideoList:
    return VideoList(tuple(Video(id_, Path(id_)) for id_ in counts), ("x",))


def _clips(counts: dict[str, int], *shape: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {id_: generator.normal(size=(count, *shape)).astype(np.float16) for id_, count in counts.items()}


def test_every_clip_is_a_sample_of_its_frames(make_store):
    values = _clips({"a": 3, "b": 1, "c": 2}, 4, 5)
    loaded = load_sequences([make_store(values)], _list(values), CLIPS)
    part = loaded.subset([2, 0])
    data = PaddedSequences(part, part.rows, CLIPS)
    assert part.ids == ("c", "a")
    assert data.owners.tolist() == [0, 0, 1, 1, 1]
    batch = data.batch(np.arange(5))
    assert batch.ids == ("c", "c", "a", "a", "a")
    assert batch.lengths.tolist() == [4] * 5
    np.testing.assert_array_equal(batch.x, np.concatenate([values["c"], values["a"]]).astype(np.float32))
    np.testing.assert_array_equal(part.own_rows(), np.concatenate([values["a"], values["c"]]).reshape(-1, 5))


def test_windows_share_rows_which_a_projection_sees_once(make_store):
    values = _clips({"a": 5, "b": 2}, 3)
    spec = SequenceSpec(samples="windows", window=3, stride=1, sampling="all", znorm=True)
    loaded = load_sequences([make_store(values)], _list(values), spec)
    assert loaded.counts.tolist() == [3, 3, 3, 2]
    rows = np.concatenate(list(values.values())).astype(np.float64)
    projection = projection_for(loaded, spec)
    np.testing.assert_allclose(projection.mean, rows.mean(axis=0), rtol=1e-5)
    batch = padded(loaded, projection, spec, "cpu").batch(np.array([1, 3]))
    expected = (values["a"][1:4] - rows.mean(axis=0)) / rows.std(axis=0)
    np.testing.assert_allclose(batch.x[0], expected, atol=1e-5)
    assert not batch.x[1, 2:].any()


def test_features_that_do_not_fit_the_samples_are_refused(make_store):
    spec = SequenceSpec(samples="clips")
    with pytest.raises(FeatureError, match=r"\[2, 3\]: one vector a clip, but --sequence.samples clips needs"):
        load_sequences([make_store(_clips({"a": 2}, 3))], _list({"a": 2}), spec)
    with pytest.raises(FeatureError, match=r"vectors a clip .*--sequence.samples clips makes a sequence of each clip"):
        load_sequences([make_store(_clips({"a": 2}, 4, 3), "kept")], _list({"a": 2}), SequenceSpec())
    with pytest.raises(FeatureError, match="but this head reads feature maps"):
        load_sequences([make_store(_clips({"a": 2}, 3), "one")], _list({"a": 2}), SequenceSpec(), reads="maps")
    with pytest.raises(SpecError, match=r"sequence\.samples is clips.*sequence\.inner is mean"):
        SequenceSpec(samples="clips", inner="mean")


@pytest.fixture
def clip_store(make_store, order_values):
    """Three noisy copies of each video as its clips."""
    generator = np.random.default_rng(1)
    return make_store(
        {id_: (value + 0.05 * generator.normal(size=(3, *value.shape))).astype(np.float16) for id_, value in order_values.items()}
    )


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x.astype(np.float64) - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def test_a_videos_class_probabilities_are_the_mean_of_its_clips(clip_store, order_videos, tmp_path):
    import torch

    spec = RunSpec(CLIPS, HeadSpec(name="gru", hidden=8), TRAINING)
    run = train_list([clip_store], order_videos, spec, tmp_path / "clips").runs[0]
    table = run.scores()
    assert table.kind == "log_probs"
    assert table.ids == tuple(video.id for video in order_videos if video.split == "test")
    head, _ = run.head()
    with torch.inference_mode():
        for id_, row in zip(table.ids, table.values, strict=True):
            clips = torch.from_numpy(clip_store.get(id_).values["last"].astype(np.float32))
            expected = _softmax(head(clips, torch.full((3,), clips.shape[1])).numpy()).mean(axis=0)
            np.testing.assert_allclose(np.exp(row), expected, atol=1e-5)
    validation = run.validation_scores()
    loss = -validation.values[np.arange(len(validation)), validation.labels].mean()
    best = run.history()[run.result["epochs"] - 1]
    assert best["val_loss"] == pytest.approx(loss, rel=1e-4)  # of videos, not clips
    groups = {video.id: video.group for video in order_videos}
    assert {groups[id_] for id_ in validation.ids} == set(run.result["validation_groups"])
    np.testing.assert_allclose(predict(run, [clip_store], order_videos.select("test")).values, table.values, atol=1e-5)


def test_windows_train_validate_and_predict(order_store, order_videos, tmp_path):
    spec = RunSpec(SequenceSpec(samples="windows", window=4, stride=2, steps=4), HeadSpec(name="res_lstm", hidden=6), TRAINING)
    run = train_list([order_store], order_videos, spec, tmp_path / "windows").runs[0]
    assert run.scores().kind == "log_probs"
    assert len(run.scores()) == 8
    np.testing.assert_allclose(predict(run, [order_store], order_videos).rows(run.scores().ids).values, run.scores().values, atol=1e-5)


def _map_values(order_values: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    generator = np.random.default_rng(2)
    return {id_: {"block3.map": generator.random((5, 256, 2, 2)).astype(np.float16)} for id_ in order_values}


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_batches_in_order_take_the_memory_of_the_one_before(make_store, dtype):
    values = {id_: rows.astype(dtype) for id_, rows in _clips({"a": 5, "b": 2, "c": 3, "d": 4}, 6).items()}
    spec = SequenceSpec(sampling="all")
    part = load_sequences([make_store(values)], _list(values), spec)
    data = padded(part, Projection(), spec, "cpu")
    order = np.array([1, 3, 0, 2])
    with torch.inference_mode():
        list(data.batches(4))  # memory made here must be fit for training, too
    seen, places = [], set()
    for batch in data.in_order(order, 2):
        (batch.x @ torch.ones(6, requires_grad=True)).sum().backward()
        seen.append((batch.x.clone(), batch.lengths, batch.ids))
        places.add(batch.x.data_ptr())
    assert len(places) == 1
    for number, (x, lengths, ids) in enumerate(seen):
        own = data.batch(order[2 * number : 2 * number + 2])
        assert torch.equal(x, own.x)
        assert torch.equal(lengths, own.lengths)
        assert ids == own.ids


def test_maps_are_read_batch_by_batch_as_they_are_in_memory(make_store):
    values = _clips({"a": 5, "b": 2, "c": 3}, 3, 2, 2)
    spec = SequenceSpec(samples="windows", window=3, stride=2, sampling="all")
    part = load_sequences([make_store(values)], _list(values), spec, reads="maps").subset([2, 0, 1])
    data = padded(part, Projection(), spec, "cpu")
    assert isinstance(data, StoredSequences)
    assert data.width == 3
    order = np.array([3, 0, 2, 1])
    read = list(data.in_order(order, 3))
    assert [batch.ids for batch in read] == [("b", "c", "a"), ("a",)]
    np.testing.assert_array_equal(read[0].x[0, :2], values["b"].astype(np.float32))
    assert not read[0].x[0, 2:].any()
    np.testing.assert_array_equal(read[0].x[1], values["c"].astype(np.float32))
    np.testing.assert_array_equal(read[0].x[2], values["a"][2:5].astype(np.float32))
    assert sum(len(batch.ids) for batch in data.batches(256)) == len(data) == 4


def test_a_flipped_bit_in_a_map_names_the_video(make_store):
    values = _clips({"a": 5, "b": 2}, 3, 2, 2)
    store = make_store(values)
    shard = next((store.path / "shards").glob("*.h5"))
    data = bytearray(shard.read_bytes())
    at = data.find(values["b"].tobytes())
    data[at] ^= 1
    shard.write_bytes(data)
    part = load_sequences([store], _list(values), SequenceSpec(sampling="all"), reads="maps")
    with pytest.raises(DamagedShardError, match="'b'"):
        list(padded(part, Projection(), SequenceSpec(sampling="all"), "cpu").batches(2))


def test_maps_cannot_be_projected(make_store):
    values = _clips({"a": 5, "b": 2}, 3, 2, 2)
    spec = SequenceSpec(znorm=True)
    part = load_sequences([make_store(values)], _list(values), spec, reads="maps")
    with pytest.raises(TrainingError, match="feature maps stay on the disk, so no Z-norm or PCA"):
        projection_for(part, spec)


def test_a_recurrent_residual_run_trains_from_maps_and_predicts(make_store, order_values, order_videos, tmp_path):
    import torch
    import torchvision

    store = make_store(_map_values(order_values), "maps", {"weights": "sha256:1234"})
    weights = tmp_path / "resnet18.pth"
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), weights)
    head = HeadSpec(name="recurrent_residual", output="last", params={"backbone": "resnet18", "skips": 1})
    spec = RunSpec(SequenceSpec(samples="windows", window=2, stride=2, steps=2), head, replace(TRAINING, epochs=1, learning_rate=1e-4))
    outcome = train_list([store], order_videos, spec, tmp_path / "maps", head_weights=weights)
    assert "but the features were made with sha256:1234" in outcome.notes[0]
    run = outcome.runs[0]
    assert run.spec.head.weights.startswith("sha256:")
    assert run.scores().kind == "log_probs"
    weights.unlink()  # a trained run needs it no more
    np.testing.assert_allclose(predict(run, [store], order_videos.select("test")).values, run.scores().values, atol=1e-5)
