"""Sampling, loading, mid fusion and padding, against formulas written here."""

from pathlib import Path

import numpy as np
import pytest

from store.errors import FeatureError, ListError, MissingFeaturesError, SpecError
from store.videos import Video, VideoList
from temporal.batches import PaddedSequences
from temporal.sequences import load_sequences, resolve_levels
from temporal.spec import SequenceSpec


def _list(*ids, labels=None):
    return VideoList(tuple(Video(id_, Path(id_), labels[n] if labels else None) for n, id_ in enumerate(ids)), ("x", "y"))


def test_loading_gives_each_video_its_rows_and_labels(make_store):
    values = {"b": np.arange(6, dtype=np.float32).reshape(3, 2), "a": np.arange(4, dtype=np.float32).reshape(2, 2) + 100}
    loaded = load_sequences([make_store(values)], _list("a", "b", labels=["y", "x"]), SequenceSpec())
    assert loaded.labels.tolist() == [1, 0]
    for id_, start, count in zip(loaded.ids, loaded.starts, loaded.counts, strict=True):
        np.testing.assert_array_equal(loaded.rows[start : start + count], values[id_])
    only_b = loaded.subset([1])
    np.testing.assert_array_equal(only_b.own_rows(), values["b"])
    assert only_b.rows is loaded.rows


def test_kept_crops_are_refused_until_their_mean_is_asked_for(make_store):
    values = np.random.default_rng(0).normal(size=(4, 10, 3)).astype(np.float16)
    store = make_store({"a": values})
    with pytest.raises(FeatureError, match=r"\[4, 10, 3\]: 10 vectors a clip .*--sequence.inner mean"):
        load_sequences([store], _list("a"), SequenceSpec())
    loaded = load_sequences([store], _list("a"), SequenceSpec(inner="mean"))
    np.testing.assert_allclose(loaded.rows, values.astype(np.float32).mean(axis=1), rtol=1e-6)


def test_feature_maps_are_refused(make_store):
    store = make_store({"a": np.zeros((2, 3, 4, 4), np.float32)})
    with pytest.raises(FeatureError, match=r"\[2, 3, 4, 4\]: feature maps"):
        load_sequences([store], _list("a"), SequenceSpec(inner="mean"))


@pytest.mark.parametrize(("mid", "expected"), [("sum", np.add), ("product", np.multiply)])
def test_mid_fusion_is_element_wise(make_store, mid, expected):
    generator = np.random.default_rng(0)
    rgb, flow = generator.normal(size=(2, 5, 3)).astype(np.float32)
    stores = [make_store({"a": rgb}, "rgb"), make_store({"a": flow}, "flow")]
    np.testing.assert_allclose(load_sequences(stores, _list("a"), SequenceSpec(mid=mid)).rows, expected(rgb, flow), rtol=1e-6)


def test_mid_fusion_of_unequal_shapes_names_the_numbers(make_store):
    stores = [make_store({"a": np.zeros((5, 3), np.float32)}, "rgb"), make_store({"a": np.zeros((4, 2), np.float32)}, "flow")]
    with pytest.raises(FeatureError, match=r"'a': .*5 clips of width 3.*4 of width 2"):
        load_sequences(stores, _list("a"), SequenceSpec(mid="sum"))


def test_number_of_stores_must_fit_mid(make_store):
    store = make_store({"a": np.zeros((5, 3), np.float32)})
    with pytest.raises(SpecError, match=r"takes 2 feature store.*not 1"):
        resolve_levels([store], SequenceSpec(mid="sum"))
    with pytest.raises(SpecError, match=r"takes 1 feature store.*not 2; give --sequence.mid"):
        resolve_levels([store, store], SequenceSpec())


def test_levels_must_be_chosen_where_there_are_several(make_store):
    values = np.ones((2, 3), np.float32)
    store = make_store({"a": {"low": values, "high": 2 * values}})
    with pytest.raises(SpecError, match=r"high, low; choose one with --sequence\.level"):
        load_sequences([store], _list("a"), SequenceSpec())
    with pytest.raises(SpecError, match="no level 'mid'; it has high, low"):
        load_sequences([store], _list("a"), SequenceSpec(level="mid"))
    assert load_sequences([store], _list("a"), SequenceSpec(level="high")).rows.max() == 2


def test_missing_videos_are_counted_and_named(make_store):
    store = make_store({"a": np.zeros((5, 3), np.float32)})
    with pytest.raises(MissingFeaturesError, match=r"2 of 3 videos have no features in .*: b, c; extract them"):
        load_sequences([store], _list("b", "a", "c"), SequenceSpec())


def test_an_empty_list_or_store_is_said(make_store):
    store = make_store({"a": np.zeros((5, 3), np.float32)})
    with pytest.raises(ListError, match="no videos"):
        load_sequences([store], _list(), SequenceSpec())
    with pytest.raises(SpecError, match="holds no features yet"):
        resolve_levels([make_store({}, "empty")], SequenceSpec())


def test_a_label_that_is_no_class_is_named(make_store):
    store = make_store({"a": np.zeros((5, 3), np.float32)})
    with pytest.raises(ListError, match="labels y are not among the 1 classes: z"):
        load_sequences([store], _list("a", labels=["y"]), SequenceSpec(), classes=["z"])


def test_padding_is_zero_at_the_end(make_store):
    values = {"a": np.full((2, 3), 1, np.float32), "b": np.full((4, 3), 2, np.float32), "c": np.full((3, 3), 3, np.float32)}
    spec = SequenceSpec(sampling="all")
    loaded = load_sequences([make_store(values)], _list("a", "b", "c"), spec)
    padded = PaddedSequences(loaded, loaded.rows, spec)
    batch = padded.batch(np.array([2, 0]))
    assert batch.ids == ("c", "a")
    assert batch.lengths.tolist() == [3, 2]
    assert batch.x.shape == (2, 3, 3)  # the longest of the batch, not of the part
    np.testing.assert_array_equal(batch.x[0], values["c"])
    np.testing.assert_array_equal(batch.x[1, :2], values["a"])
    assert not batch.x[1, 2:].any()


def test_sigma_sampling_repeats_short_videos(make_store):
    values = np.arange(3, dtype=np.float32)[:, None]
    loaded = load_sequences([make_store({"a": values})], _list("a"), SequenceSpec(steps=5))
    batch = PaddedSequences(loaded, loaded.rows, SequenceSpec(steps=5)).batch(np.array([0]))
    assert batch.x[0, :, 0].tolist() == [0, 0, 1, 1, 2]
    assert batch.lengths.tolist() == [5]
