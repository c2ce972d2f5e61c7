"""The demonstration's videos: classes that share every frame, encoded for real, the same from the same seed."""

import importlib.util
import itertools
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import pytest

from extract.clips import clip_indices
from extract.spec import ClipSpec
from store.videos import read_list

SCRIPT = Path(__file__).resolve().parent.parent / "examples" / "make_demo_videos.py"


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_demo_videos", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def decoded(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize("seed", range(5))
def test_four_classes_are_the_same_frames_in_another_order(demo: ModuleType, seed: int) -> None:
    pieces = demo.make_pieces(demo.make_texture(np.random.default_rng(seed)), ("red", "blue"), np.random.default_rng(seed + 100))
    videos = [demo.arrange(pieces, order, turn) for order, turn in itertools.product((("red", "blue"), ("blue", "red")), demo.TURNS)]
    bags = [Counter(frame.tobytes() for frame in frames) for frames in videos]
    assert all(bag == bags[0] for bag in bags)
    assert len({frames.tobytes() for frames in videos}) == 4
    assert {frames.shape for frames in videos} == {(demo.FRAMES, demo.SIDE, demo.SIDE, 3)}


def test_sampled_frames_show_both_colours_equally(demo: ModuleType) -> None:
    """Over all rests, the 25 sampled frames hold as many of the first event as of the second, at the same sizes of the shape."""
    sampled = set(clip_indices(demo.FRAMES, ClipSpec()).ravel().tolist())
    phases: list[Counter[tuple[int, int]]] = [Counter(), Counter()]
    for before, after in itertools.product((1, 2, 3), repeat=2):
        rest = before + after
        length = demo.FRAMES // 2 - rest
        for event, start in enumerate((before, before + length + rest)):
            steps = [index - start for index in sampled if 0 <= index - start < length]
            phases[event].update((length, min(step, length - 1 - step)) for step in steps)  # sizes are the same backwards
    assert phases[0] == phases[1]


def test_the_pan_goes_the_way_the_class_says(demo: ModuleType) -> None:
    pieces = demo.make_pieces(demo.make_texture(np.random.default_rng(0)), ("red", "blue"), np.random.default_rng(1))
    frames = demo.arrange(pieces, ("red", "blue"), ("left", "right")).astype(np.float64)
    for first, expected in ((pieces.before + 1, -demo.PAN), (demo.FRAMES - 9, demo.PAN)):
        here, following = (frames[first + step, :, :, 1] for step in (0, 1))
        errors = {shift: np.abs(np.roll(here, shift, axis=1) - following).mean() for shift in range(-6, 7)}
        assert min(errors, key=errors.__getitem__) == expected


def test_the_colours_come_as_the_class_says(demo: ModuleType) -> None:
    pieces = demo.make_pieces(demo.make_texture(np.random.default_rng(0)), ("red", "blue"), np.random.default_rng(1))
    frames = demo.arrange(pieces, ("blue", "red"), ("left", "right")).astype(np.float64)
    redness = (frames[..., 0] - frames[..., 2]).mean(axis=(1, 2))
    quarter = demo.FRAMES // 4
    assert redness[quarter] < redness[0] < redness[3 * quarter]


def test_a_set_is_encoded_video_with_a_list(demo: ModuleType, tmp_path: Path) -> None:
    source = demo.make_videos(tmp_path / "set", seed=3, train_groups=2, test_groups=1)
    videos = read_list(source)
    train, test = videos.select("train"), videos.select("test")
    assert videos.classes == demo.CLASSES
    assert (len(train), len(test)) == (16, 8)
    assert not set(train.groups()) & set(test.groups())
    assert Counter(train.labels().tolist()) == dict.fromkeys(range(8), 2)
    assert not videos.missing_files()
    frames = decoded(videos.videos[0].path)
    assert frames.shape == (demo.FRAMES, demo.SIDE, demo.SIDE, 3)
    texture = demo.make_texture(np.random.default_rng([3, 0]))
    original = demo.arrange(demo.make_pieces(texture, demo.ORDERS[0], np.random.default_rng([3, 0, 0])), demo.ORDERS[0], demo.TURNS[0])
    assert np.abs(frames.astype(int) - original).mean() < 8  # of 255: what the encoder loses


def test_the_same_seed_gives_the_same_frames_and_another_others(demo: ModuleType, tmp_path: Path) -> None:
    first, again, other = (
        decoded(read_list(demo.make_videos(tmp_path / name, seed, 1, 1)).videos[5].path) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_set_that_is_there_is_kept_and_one_with_a_gap_is_made_again(demo: ModuleType, tmp_path: Path) -> None:
    videos = read_list(demo.make_videos(tmp_path, 0, 1, 1))
    kept, lost = videos.videos[0].path, videos.videos[1].path
    kept.write_bytes(b"mark")
    demo.make_videos(tmp_path, 0, 1, 1)
    assert kept.read_bytes() == b"mark"
    lost.unlink()
    demo.make_videos(tmp_path, 0, 1, 1)
    assert lost.is_file()
    assert kept.read_bytes() != b"mark"
