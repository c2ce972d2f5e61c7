"""Make a small action set as encoded video in which the order of events decides the class.

In each video the camera pans over a texture one way and then back, and during each pan a coloured shape grows and shrinks. A class says
which colour comes first and which way the camera goes first, e.g. ``red-blue_left-right``. Played in another order the very same frames
are another class: of two colours and two directions, four classes share every frame. So

- a mean over RGB frames cannot tell these four apart, however good the network: the best guess is right for 1 of 4, 25 % of all videos;
- RGB frames in order show which colour is first but not the direction of the pan: at most 50 %;
- optical flow shows the direction but no colour, of the shapes only their outline; its mean over time is the same for two classes that
  swap both colours and directions: at most 50 %.

    python examples/make_demo_videos.py FOLDER [--seed 0] [--train-groups 16] [--test-groups 8]
"""

import argparse
import itertools
import json
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from store.files import atomic_path, write_text
from store.videos import Video, VideoList, read_list, write_csv

SIDE = 96  # pixels
FRAMES = 48
FPS = 25
PAN = 3  # pixels a frame
RADIUS = 22.0  # of a shape at its largest, pixels
COLOURS = {"red": (215, 60, 60), "blue": (65, 90, 220), "green": (50, 165, 70), "yellow": (205, 185, 50)}
PAIRS = (("red", "blue"), ("green", "yellow"))
ORDERS = tuple(order for pair in PAIRS for order in (pair, pair[::-1]))
TURNS = (("left", "right"), ("right", "left"))
CLASSES = tuple(f"{'-'.join(order)}_{'-'.join(turn)}" for order, turn in itertools.product(ORDERS, TURNS))


@dataclass(frozen=True)
class Pieces:
    """What all videos of one scene are put together from, uint8 frames.

    ``events`` {colour: [N, H, W, 3]}: the shape grows and shrinks while the texture moves right; backwards, it moves left. ``rests``
    (texture at the left end, at the right end): [M, H, W, 3] each, the camera stands still. ``before``: rests before the first event.
    """

    events: dict[str, np.ndarray]
    rests: tuple[np.ndarray, np.ndarray]
    before: int


def make_pieces(texture: np.ndarray, colours: tuple[str, str], generator: np.random.Generator) -> Pieces:
    """Render the frames of two events and the rests around them over ``texture`` (float [H, W, 3], periodic from side to side).

    Where the shapes are, how long the rests last, where the texture starts and the noise come from ``generator``.
    """
    before, after = generator.integers(1, 4, 2).tolist()
    rest, length = before + after, FRAMES // 2 - before - after  # the rest in the middle is as long as the other two together
    views = [np.roll(texture, int(start) + PAN * step, axis=1) for start in generator.integers(SIDE, size=1) for step in range(length)]
    sizes = np.sin(np.pi * (np.arange(length) + 0.5) / length)  # the same backwards: a size does not tell the direction
    events = {}
    for colour in colours:
        shape = _shape_distance(colour, generator.uniform(0.3 * SIDE, 0.7 * SIDE, 2))
        tint = np.array(COLOURS[colour]) * generator.uniform(0.85, 1.1)
        drawn = [_draw(view, shape - RADIUS * size, tint) for view, size in zip(views, sizes, strict=True)]
        events[colour] = _noisy(np.stack(drawn), generator)
    left, right = (_noisy(np.stack([view] * rest), generator) for view in (views[0], views[-1]))
    return Pieces(events, (left, right), before)


def arrange(pieces: Pieces, order: tuple[str, str], turn: tuple[str, str]) -> np.ndarray:
    """Play the pieces in the order of a class: uint8 [FRAMES, H, W, 3]. Every order of the same pieces has the same frames."""
    start, middle = pieces.rests if turn[0] == "right" else pieces.rests[::-1]
    first, second = (pieces.events[colour][:: 1 if way == "right" else -1] for colour, way in zip(order, turn, strict=True))
    return np.concatenate([start[: pieces.before], first, middle, second, start[pieces.before :]])


def make_texture(generator: np.random.Generator) -> np.ndarray:
    """Blurred colour noise, float [H, W, 3] around grey, periodic."""
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.fftfreq(SIDE)[None, :])
    noise = np.fft.fft2(generator.standard_normal((SIDE, SIDE, 1)) + 0.5 * generator.standard_normal((SIDE, SIDE, 3)), axes=(0, 1))
    smooth = np.fft.ifft2(noise * np.exp(-((frequency / 0.07) ** 2))[:, :, None], axes=(0, 1)).real
    return generator.uniform(95, 150, 3) + 30 * smooth / smooth.std()


def encode(path: Path, frames: np.ndarray) -> None:
    """Write uint8 RGB frames [K, H, W, 3] as an MPEG-4 file, whole or not at all."""
    with atomic_path(path) as aside, av.open(str(aside), "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        stream.bit_rate, stream.thread_count = 600_000, 1
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def make_videos(folder: Path, seed: int = 0, train_groups: int = 16, test_groups: int = 8) -> Path:
    """Write one video of each class for each group, and ``list.csv``; return the list's path.

    A group is one texture; train and test share none. What is there from the same settings is kept.
    """
    source = folder / "list.csv"
    settings = json.dumps(
        {"seed": seed, "train_groups": train_groups, "test_groups": test_groups, "frames": FRAMES, "side": SIDE, "version": 1}
    )
    done = folder / "settings.json"
    if done.is_file() and done.read_text() == settings and not read_list(source).missing_files():
        return source
    done.unlink(missing_ok=True)
    videos = []
    for group in range(train_groups + test_groups):
        texture = make_texture(np.random.default_rng([seed, group]))
        split = "train" if group < train_groups else "test"
        for number, (order, turn) in enumerate(itertools.product(ORDERS, TURNS)):
            name = f"{CLASSES[number]}/g{group + 1:02}.mp4"
            pieces = make_pieces(texture, order, np.random.default_rng([seed, group, number]))
            encode(folder / name, arrange(pieces, order, turn))
            videos.append(Video(name, folder / name, CLASSES[number], split, f"g{group + 1:02}"))
    write_csv(VideoList(tuple(videos), CLASSES), source)
    write_text(done, settings)
    return source


def _shape_distance(colour: str, centre: np.ndarray) -> np.ndarray:
    """How far each pixel is from the centre, in the norm that makes the colour's shape: disc, square, diamond or upright ellipse."""
    down, right = (np.abs(axis - middle) for axis, middle in zip(np.mgrid[:SIDE, :SIDE], centre, strict=True))
    norms = {"red": np.hypot(down, right), "blue": np.maximum(down, right) * 1.13, "green": (down + right) * 0.8}
    return norms[colour] if colour in norms else np.hypot(0.7 * down, right / 0.7)


def _draw(view: np.ndarray, outside: np.ndarray, tint: np.ndarray) -> np.ndarray:
    """Lay a colour over a view wherever ``outside`` (pixels beyond the edge) is negative, with a soft edge."""
    cover = np.clip(0.5 - outside, 0, 1)[:, :, None]
    return view * (1 - cover) + tint * cover


def _noisy(frames: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return np.clip(np.rint(frames + generator.normal(0, 4, frames.shape)), 0, 255).astype(np.uint8)


def main() -> None:
    """Read the arguments, make the set, print the list's path."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train-groups", type=int, default=16)
    parser.add_argument("--test-groups", type=int, default=8)
    arguments = parser.parse_args()
    print(make_videos(arguments.folder, arguments.seed, arguments.train_groups, arguments.test_groups))


if __name__ == "__main__":
    main()
