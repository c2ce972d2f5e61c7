"""Write a feature store with h5py, numpy and xxhash alone, following docs/format.md. Imports nothing of actioncache.

    python examples/write_shards.py ARRAYS.npz ROOT NAME

reads arrays called `<id>|<level>`, `<id>|frames` and `<id>|times` from an .npz file and writes them as one shard. A program of your own
would rather call `write_store` with what it has in memory.
"""

import hashlib
import json
import os
import secrets
import struct
import sys
from pathlib import Path

import h5py
import numpy as np
import xxhash

CODES = {"float16": b"<f2", "float32": b"<f4"}


def canonical_digest(spec: dict) -> str:
    """SHA-256 of the canonical JSON of a spec (section 1)."""
    text = json.dumps(spec, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def level_bytes(name: str, array: np.ndarray) -> bytes:
    """A level as both digests see it (sections 3 and 4)."""
    sides = array.shape[1:]
    return struct.pack("<I", len(name)) + name.encode() + CODES[array.dtype.name] + struct.pack(f"<I{len(sides)}Q", len(sides), *sides)


def video_digest(video_id: str, name: str, rows: np.ndarray, frames: np.ndarray, times: np.ndarray) -> bytes:
    """Section 3."""
    encoded = video_id.encode()
    header = struct.pack("<I", len(encoded)) + encoded + level_bytes(name, rows) + struct.pack("<Q", len(rows))
    return xxhash.xxh3_128(header + frames.tobytes() + times.tobytes() + rows.tobytes()).digest()


def durable_rename(partial: Path, final: Path) -> None:
    """Flush a finished file, give it its name, flush the folder."""
    for path, action in ((partial, lambda: partial.rename(final)), (final.parent, lambda: None)):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        action()


def write_shard(final: Path, spec_digest: str, videos: dict[str, dict[str, np.ndarray]]) -> None:
    """Section 2. ``videos`` is {id: {"frames": int64 [N, 2], "times": float64 [N, 2], level: float16 or float32 [N, ...], ...}}."""
    ids = list(videos)
    levels = sorted(set(videos[ids[0]]) - {"frames", "times"})
    rows = np.array([len(videos[i]["frames"]) for i in ids], "<i8")
    first = np.cumsum(rows) - rows
    encoded = np.array([i.encode() for i in ids])  # fixed-length, NUL-padded bytes
    joined = {name: np.concatenate([videos[i][name] for i in ids]) for name in ("frames", "times", *levels)}
    digests = {}
    for name in levels:
        found = [video_digest(i, name, videos[i][name], videos[i]["frames"], videos[i]["times"]) for i in ids]
        digests[name] = np.frombuffer(b"".join(found), np.uint8).reshape(-1, 16)
    index = spec_digest.encode() + struct.pack("<QQII", len(ids), int(rows.sum()), encoded.dtype.itemsize, len(levels))
    index += b"".join(level_bytes(name, joined[name]) for name in levels)
    index += encoded.tobytes() + first.tobytes() + rows.tobytes() + b"".join(digests[name].tobytes() for name in levels)

    partial = final.with_name(f".{final.name}.{secrets.token_hex(4)}.partial")
    with h5py.File(partial, "w", libver=("v108", "v108"), alignment_threshold=512, alignment_interval=64) as file:
        file.attrs["format"] = np.bytes_("actioncache-shard")
        file.attrs["version"] = 1
        file.attrs["spec_digest"] = np.bytes_(spec_digest)
        file.attrs["index_digest"] = np.bytes_(xxhash.xxh3_128(index).hexdigest())
        file["index/id"] = encoded.astype(h5py.string_dtype("utf-8", encoded.dtype.itemsize))
        file["index/first"], file["index/rows"] = first, rows
        file["frames"], file["times"] = joined["frames"], joined["times"]
        for name in levels:
            file[f"levels/{name}"], file[f"digests/{name}"] = joined[name], digests[name]
    durable_rename(partial, final)


def write_store(root: Path, name: str, spec: dict, videos: dict[str, dict[str, np.ndarray]], part: str = "example") -> Path:
    """Make the store of ``spec`` if it is not there, and add one shard; returns the store's folder."""
    digest = canonical_digest(spec)
    folder = Path(root) / f"{name}-{digest[:12]}"
    (folder / "shards").mkdir(parents=True, exist_ok=True)
    if not (folder / "spec.json").exists():
        partial = folder / f".spec.json.{secrets.token_hex(4)}.partial"
        partial.write_text(json.dumps({"name": name, "digest": digest, "spec": spec, "format": 1}), encoding="utf-8")
        durable_rename(partial, folder / "spec.json")
    serial = len(list((folder / "shards").glob(f"{part}-*.h5")))
    write_shard(folder / "shards" / f"{part}-{serial:06d}-{secrets.token_hex(4)}.h5", digest, videos)
    return folder


def main() -> None:
    """Arrays from an .npz file into a store."""
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    source, root, name = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    videos: dict[str, dict[str, np.ndarray]] = {}
    with np.load(source, allow_pickle=False) as arrays:
        for key in arrays.files:
            video_id, member = key.rsplit("|", 1)
            videos.setdefault(video_id, {})[member] = np.ascontiguousarray(arrays[key])
        print(write_store(root, name, {"source": source.name}, videos))


if __name__ == "__main__":
    main()
