"""Read a feature store with h5py, numpy and xxhash alone, following docs/format.md. Imports nothing of actioncache.

    python examples/read_shards.py FOLDER        one line a video: its id and the shape of every level

Written for clarity; it reads through HDF5 and not through a memory map.
"""

import hashlib
import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import xxhash

CODES = {"float16": b"<f2", "float32": b"<f4"}
Video = dict[str, np.ndarray]  # "frames", "times" and one entry a level


def read_spec(folder: Path) -> dict:
    """The content of spec.json, checked (section 1)."""
    content = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
    text = json.dumps(content["spec"], sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    if content["format"] != 1 or hashlib.sha256(text.encode()).hexdigest() != content["digest"]:
        raise ValueError(f"{folder}: spec.json is of another format, or was changed")
    return content


def level_bytes(name: str, data: h5py.Dataset) -> bytes:
    """A level as both digests see it (sections 3 and 4)."""
    sides = data.shape[1:]
    return struct.pack("<I", len(name)) + name.encode() + CODES[data.dtype.name] + struct.pack(f"<I{len(sides)}Q", len(sides), *sides)


def check_index(path: Path, file: h5py.File, spec_digest: str) -> None:
    """Section 4."""
    if file.attrs["format"] != b"actioncache-shard" or file.attrs["version"] != 1 or file.attrs["spec_digest"] != spec_digest.encode():
        raise ValueError(f"{path} is not a shard of this store")
    levels, ids = sorted(file["levels"]), file["index/id"][()]
    data = spec_digest.encode() + struct.pack("<QQII", len(ids), len(file["frames"]), ids.dtype.itemsize, len(levels))
    data += b"".join(level_bytes(name, file["levels"][name]) for name in levels)
    data += ids.tobytes() + file["index/first"][()].tobytes() + file["index/rows"][()].tobytes()
    data += b"".join(file["digests"][name][()].tobytes() for name in levels)
    if xxhash.xxh3_128(data).hexdigest().encode() != file.attrs["index_digest"]:
        raise ValueError(f"{path}: the index is damaged")


def read_shard(path: Path, spec_digest: str) -> Iterator[tuple[str, Video]]:
    """Every video of one shard: (id, arrays), each compared with its digests (section 3)."""
    with h5py.File(path, "r", locking=False) as file:
        check_index(path, file, spec_digest)
        for position, encoded in enumerate(file["index/id"][()].tolist()):
            first, count = int(file["index/first"][position]), int(file["index/rows"][position])
            rows = slice(first, first + count)
            video = {name: file[name][rows] for name in ("frames", "times")}
            for name, data in file["levels"].items():
                video[name] = data[rows]
                covered = struct.pack("<I", len(encoded)) + encoded + level_bytes(name, data) + struct.pack("<Q", count)
                covered += video["frames"].tobytes() + video["times"].tobytes() + video[name].tobytes()
                if xxhash.xxh3_128(covered).digest() != file["digests"][name][position].tobytes():
                    raise ValueError(f"{path}: video {encoded.decode()!r}, level {name} is damaged")
            yield encoded.decode(), video


def read_store(folder: Path) -> dict[str, Video]:
    """Every video of a store; one that is in several shards comes from the first by name."""
    digest = read_spec(Path(folder))["digest"]
    videos: dict[str, Video] = {}
    for path in sorted((Path(folder) / "shards").glob("*.h5"), key=lambda path: path.name):
        if not path.name.startswith("."):
            for video_id, video in read_shard(path, digest):
                videos.setdefault(video_id, video)
    return videos


def main() -> None:
    """Print what a store holds."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for video_id, video in read_store(Path(sys.argv[1])).items():
        print(video_id, {name: array.shape for name, array in video.items() if name not in ("frames", "times")})


if __name__ == "__main__":
    main()
