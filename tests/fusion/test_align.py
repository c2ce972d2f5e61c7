import dataclasses

import numpy as np
import pytest

from fusion.align import align
from fusion.labels import with_labels
from store.errors import AlignmentError
from store.videos import Video, VideoList


def test_rows_and_columns_are_joined_by_name(make_table, shuffled):
    a, b = make_table(0), make_table(1)
    aligned = align({"a": a, "b": shuffled(b, 5)})
    assert aligned.ids == a.ids
    assert aligned.classes == a.classes
    np.testing.assert_array_equal(aligned.values, np.stack([a.values, b.values]))
    np.testing.assert_array_equal(aligned.labels, a.labels)


def test_labels_come_from_whichever_table_has_them(make_table, shuffled):
    a, b = make_table(0), shuffled(make_table(1), 5)
    aligned = align({"a": dataclasses.replace(a, labels=None), "b": b})
    np.testing.assert_array_equal(aligned.labels, a.labels)
    assert align({"a": dataclasses.replace(a, labels=None)}).labels is None


def test_all_differences_are_in_one_error(make_table):
    a = make_table(0)
    labels = a.labels.copy()
    labels[3] = 0
    b = make_table(1, ids=(*a.ids[:-2], "x1", "x2"), classes=(*a.classes[:-1], "Stand"), labels=labels)
    with pytest.raises(AlignmentError) as caught:
        align({"rgb": a, "flow": b})
    text = str(caught.value)
    assert "ids: 2 only in rgb ('v38', 'v39'), 2 only in flow ('x1', 'x2')" in text
    assert "classes: 1 only in rgb ('stand'), 1 only in flow ('Stand'); they differ only in upper and lower case" in text
    assert "'v03' is 'clap' in rgb and 'run' in flow" in text
    assert "--common" in text


def test_long_lists_are_cut_but_counted(make_table):
    a = make_table(0)
    b = make_table(1, ids=tuple(f"w{index}" for index in range(40)))
    with pytest.raises(AlignmentError, match=r"40 only in a \('v00', 'v01', 'v02', 'v03', 'v04', \.\.\.\)"):
        align({"a": a, "b": b})


def test_common_keeps_what_all_have_and_counts_what_it_left_out(make_table):
    a = make_table(0)
    b = make_table(1, ids=a.ids[5:], classes=a.classes[:-1], labels=None)
    aligned = align({"a": a, "b": b}, common=True)
    kept = [index for index in range(5, 40) if index % 6 != 5]  # without the videos of the class that b lacks
    assert aligned.ids == tuple(a.ids[index] for index in kept)
    assert aligned.classes == a.classes[:-1]
    np.testing.assert_array_equal(aligned.values[0], a.values[kept][:, :-1])
    np.testing.assert_array_equal(aligned.labels, a.labels[kept])
    assert aligned.left_out == {"a": {"ids": 40 - len(kept), "classes": 1}, "b": {"ids": 35 - len(kept), "classes": 0}}


def test_common_never_hides_contradicting_labels(make_table):
    a = make_table(0)
    with pytest.raises(AlignmentError, match=r"labels: 40 differ .*(?s:.*)find out which table is wrong"):
        align({"a": a, "b": make_table(1, labels=(a.labels + 1) % 6)}, common=True)


def test_nothing_in_common(make_table):
    other = make_table(1, ids=tuple(f"w{index}" for index in range(40)))
    with pytest.raises(AlignmentError, match="no ids in common"):
        align({"a": make_table(0), "b": other}, common=True)


def video_list(table, **changes) -> VideoList:
    labels = {name: table.classes[label] for name, label in zip(table.ids, table.labels, strict=True)} | changes
    videos = tuple(Video(id=name, path=name, label=label) for name, label in labels.items())
    return VideoList(videos=videos, classes=tuple(sorted({label for label in labels.values() if label})))


def test_labels_from_a_list_are_joined_by_id_and_class_name(make_table):
    table = make_table(0)
    bare = dataclasses.replace(table, labels=None)
    labelled = with_labels(bare, video_list(table, another="run"))  # the list's class order is sorted, the table's is not
    np.testing.assert_array_equal(labelled.labels, table.labels)


def test_a_list_that_does_not_fit_says_all_that_is_wrong(make_table):
    table = make_table(0)
    videos = video_list(table, v03="Run", v04=None)
    videos = VideoList(videos=tuple(video for video in videos if video.id != "v05"), classes=videos.classes)
    with pytest.raises(AlignmentError) as caught:
        with_labels(dataclasses.replace(table, labels=None), videos)
    assert "1 ids are not in the list (which holds ids like 'v00'): 'v05'" in str(caught.value)
    assert "1 videos of the list have no label: 'v04'" in str(caught.value)
    assert "not classes of the table (class names must be spelt alike): 'Run'" in str(caught.value)


def test_a_list_cannot_overrule_the_tables_own_labels(make_table):
    table = make_table(0)
    with pytest.raises(AlignmentError, match="labels contradict the table's own: 'v03': clap here, run in the list"):
        with_labels(table, video_list(table, v03="run"))
