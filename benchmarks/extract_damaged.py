"""500 damaged videos among 50 good ones: does the job survive, is each accounted for, and are the good ones' features untouched?

Real videos where they are at hand. Damages: cut short, single bits flipped, runs of noise, zeros over the header, the wrong container's
header. Zero is the bar of every fault.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from figures import report
from material import video_list

from extract.prepare import prepare_spec
from extract.run import Summary, extract_features
from extract.spec import RunOptions
from store.digest import to_plain
from store.features import FeatureStore
from store.videos import Video, VideoList

GOOD, DAMAGED, SEED = 50, 500, 7
KINDS = ("cut", "bits", "noise", "header", "foreign header")


def main() -> None:
    """Print the faults, and what became of the damaged videos."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        good = video_list(GOOD, folder)
        damaged = damaged_videos(good, folder / "damaged", np.random.default_rng(SEED))
        alone, _ = extract(good.videos, folder / "alone")
        mixed = [video for number, one in enumerate(good.videos) for video in (one, *damaged[number::GOOD])]
        together, summary = extract(mixed, folder / "together")
        differ = sum(not equal(alone, together, video.id) for video in good)
        done = sum(video.id in together for video in damaged)
        recorded = sum(bool(together.failures().get(video.id) and together.failures()[video.id].reason) for video in damaged)
        of = f"{GOOD} good videos among {DAMAGED} damaged ones"
        report(f"{of}: features that differ from a clean run", differ, "videos", "a run without the damaged ones", 0, at_least=False)
        report(f"{of}: without features or a recorded reason", DAMAGED - done - recorded, "videos", "the damaged ones", 0, at_least=False)
        report(f"{of}: not accounted for", len(mixed) - summary.asked, "videos", "done + skipped + failed", 0, at_least=False)
        report(f"{of}: damaged ones with features", done, "videos", "as it happened")
        report(f"{of}: problems that verify --deep tells", len(together.verify(deep=True)), "problems", "none", 0, at_least=False)


def extract(videos: Sequence[Video], root: Path) -> tuple[FeatureStore, Summary]:
    """The features of the smallest network: decoding is what is tried here."""
    spec, backbone = prepare_spec("tiny", {"clips": {"segments": 8}}, "random:0", torch.device("cpu"))
    store = FeatureStore.create(root, "bench", to_plain(spec))
    summary = extract_features(VideoList(tuple(videos), ()), spec, store, backbone, RunOptions(device="cpu", timeout_seconds=30.0))
    return FeatureStore.open(store.path), summary


def damaged_videos(good: VideoList, folder: Path, random: np.random.Generator) -> list[Video]:
    """Copies of the good videos, each damaged in one way."""
    folder.mkdir()
    made = []
    for number in range(DAMAGED):
        source = good.videos[number % GOOD].path
        path = folder / f"{number:03d}-{KINDS[number % len(KINDS)].replace(' ', '-')}{source.suffix}"
        path.write_bytes(damage(source.read_bytes(), KINDS[number % len(KINDS)], random))
        made.append(Video(path.name, path))
    return made


def damage(data: bytes, kind: str, random: np.random.Generator) -> bytes:
    """One damage of a file's bytes."""
    changed = np.frombuffer(data, np.uint8).copy()
    if kind == "cut":
        return data[: int(random.integers(1, len(data)))]
    if kind == "bits":
        places = random.integers(0, len(data), int(random.integers(1, 200)))
        changed[places] ^= (1 << random.integers(0, 8, len(places))).astype(np.uint8)
    elif kind == "noise":
        start, length = int(random.integers(0, len(data))), int(random.integers(16, 4096))
        changed[start : start + length] = random.integers(0, 256, len(changed[start : start + length]))
    elif kind == "header":
        changed[: int(random.integers(4, 512))] = 0
    else:
        changed[:12] = np.frombuffer(b"\x00\x00\x00\x18ftypmp42" if data[:4] == b"RIFF" else b"RIFF\xff\xff\xff\x7fAVI ", np.uint8)
    return changed.tobytes()


def equal(first: FeatureStore, second: FeatureStore, video_id: str) -> bool:
    """Whether both stores have one video's features, to the bit."""
    return video_id in second and first.digests(video_id) == second.digests(video_id)


if __name__ == "__main__":
    main()
