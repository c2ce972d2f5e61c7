"""Names: arrays of one video, videos of a list, paths of an export."""

from pathlib import Path

import pytest

from store.errors import ListError, SpecError, StoreError
from store.exchange.layout import Item
from store.exchange.naming import check_one_each, check_targets, exported_names, group, match
from store.videos import Video, VideoList


def items(*ids: str) -> list[Item]:
    return [Item(video_id, Path(video_id), {}) for video_id in ids]


def listed(*ids: str, paths: tuple[str, ...] | None = None) -> VideoList:
    return VideoList(tuple(Video(video_id, Path(path)) for video_id, path in zip(ids, paths or ids, strict=True)), ())


def test_suffix() -> None:
    names = ["a/v_rgb", "a/v_flow", "a/v_fps", "a/v_timestamps_ms", "a/w_x_rgb", "a/w_x_flow", "stray", "lone_fps", "a/_rgb"]
    found, strays = group(names, ["rgb", "flow"], "suffix", "features")
    assert found == {
        "a/v": {"rgb": "a/v_rgb", "flow": "a/v_flow", "fps": "a/v_fps", "timestamps_ms": "a/v_timestamps_ms"},
        "a/w_x": {"rgb": "a/w_x_rgb", "flow": "a/w_x_flow"},
    }
    assert sorted(strays) == ["a/_rgb", "lone_fps", "stray"]


def test_keys_of_which_one_ends_like_the_other_are_refused() -> None:
    with pytest.raises(SpecError, match="keys 'fast_rgb' and 'rgb' cannot be told apart"):
        group(["v_fast_rgb"], ["rgb", "fast_rgb"], "suffix", "features")


def test_folder_inside_and_none() -> None:
    assert group(["rgb/a/v", "flow/a/v", "x"], ["rgb", "flow"], "folder", "f") == ({"a/v": {"rgb": "rgb/a/v", "flow": "flow/a/v"}}, ["x"])
    found, strays = group(["a/v/rgb", "a/v/frames", "rgb"], ["rgb"], "inside", "f")
    assert (found, strays) == ({"a/v": {"rgb": "a/v/rgb", "frames": "a/v/frames"}}, ["rgb"])
    assert group(["a/v", "a/w"], [], "none", "f") == ({"a/v": {"f": "a/v"}, "a/w": {"f": "a/w"}}, [])


def test_arrays_that_seem_to_belong_together_are_not_taken_for_videos() -> None:
    with pytest.raises(SpecError, match=r"--keys fast_flow,rgb; if every array is one video, say --place none"):
        check_one_each(["x/v_1_rgb", "x/v_1_fast_flow", "x/v_1_fps", "x/v_1_timestamps_ms"], "suffix")
    with pytest.raises(SpecError, match=r"every group holds the same arrays.* --keys c3d_features"):
        check_one_each(["v_1/c3d_features", "v_2/c3d_features"], "inside")
    check_one_each(["class/v_1", "class/v_2"], "inside")
    check_one_each(["v_1", "v_2", "cam_fps"], "suffix")


def test_match_by_path_knows_suffixes_of_videos_and_nothing_else() -> None:
    found, missing, extra = match(items("a/v", "b/v", "b/w.mp4", "c/u"), listed("b/w", "b/v.avi", "a/v", "a/x.mp4"), "path")
    assert [item.id for item in found] == ["b/w", "b/v.avi", "a/v"]
    assert [str(item.path) for item in found] == ["b/w.mp4", "b/v", "a/v"]
    assert (missing, extra) == (["a/x.mp4"], ["c/u"])


def test_match_by_stem_of_the_lists_path() -> None:
    found, missing, extra = match(items("train/v1", "v2"), listed("A", "B", "C", paths=("x/v1.mp4", "y/v2.avi", "v3.avi")), "stem")
    assert [(item.id, str(item.path)) for item in found] == [("A", "train/v1"), ("B", "v2")]
    assert (missing, extra) == (["C"], [])


def test_two_for_one_is_an_error_that_names_both() -> None:
    with pytest.raises(ListError, match=r"a/v and b/v can be x/v.mp4"):
        match(items("a/v", "b/v"), listed("x/v.mp4"), "stem")
    with pytest.raises(ListError, match=r"v can be v.mp4 and v.avi"):
        match(items("v"), listed("v.mp4", "v.avi"), "path")
    found, _, extra = match(items("a/v", "b/v", "w"), listed("w"), "stem")  # what the list does not ask for may be ambiguous
    assert [item.id for item in found] == ["w"]
    assert extra == ["a/v", "b/v"]


@pytest.mark.parametrize(
    "video_id", ["../x", "/etc/x", "a/../x", "a//x", "a/", ".", "./x", ".hidden", "a/.x", "a\\b", "tab\t", "new\nline", "é" * 101, "a\x7f"]
)
def test_ids_that_are_no_safe_path_are_refused(video_id: str) -> None:
    with pytest.raises(StoreError, match=r"1 of 2 ids cannot be names of files, so nothing was written"):
        exported_names(["fine", video_id], False)


def test_exported_names() -> None:
    ids = ["a/v.mp4", "ü/日本 語", "-", "v..w", "a~"]
    assert exported_names(ids, False) == tuple(ids)
    assert exported_names(ids, True)[0] == "a/v"
    with pytest.raises(StoreError, match=r"'a/v.mp4' and 'a/v.avi' would both be 'a/v'"):
        exported_names(["a/v.mp4", "a/v.avi"], True)


def test_targets() -> None:
    check_targets([("a", "a.npy"), ("a/b", "a/b.npy")])
    with pytest.raises(StoreError, match=r"'v' and 'v_a' would both write v_a_b.npy"):
        check_targets([("v", "v_a_b.npy"), ("v_a", "v_a_b.npy")])
    with pytest.raises(StoreError, match=r"'a' would be the file a, but 'a/b' needs a folder of that name"):
        check_targets([("a", "a"), ("a/b", "a/b")])
