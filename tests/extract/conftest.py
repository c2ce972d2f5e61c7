"""What tests of several networks share: the published layouts, what their authors' networks compute, and foreign files made by hand."""

import json
import math
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

import cli
from extract.wire import crc32c, masked

State = dict[str, torch.Tensor]
Layouts = dict[str, dict[str, list[int]]]


@pytest.fixture(scope="session")
def layouts(shared_data: Path) -> Layouts:
    """Layout -> every entry's name and shape, of published checkpoints."""
    content: Layouts = json.loads((shared_data / "checkpoints" / "keys.json").read_text())
    return content


@pytest.fixture(scope="session")
def outputs(shared_data: Path) -> Mapping[str, np.ndarray]:
    """``LAYOUT/what`` -> what the authors' own network computes with the weights of ``recipe``."""
    return np.load(shared_data / "checkpoints" / "outputs.npz")


@pytest.fixture(scope="session")
def recipe() -> Callable[[Mapping[str, list[int]]], State]:
    """``recipe(layout) -> state dict``: the weights behind ``outputs``, from names and shapes alone."""
    return make_weights


def make_weights(shapes: Mapping[str, list[int]]) -> State:
    state = {}
    for key, shape in shapes.items():
        if key.endswith("num_batches_tracked"):
            state[key] = torch.zeros(shape, dtype=torch.int64)
            continue
        noise = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)
        if key.endswith("running_var"):
            noise = 1 + 0.1 * np.abs(noise)
        elif key.endswith(("running_mean", "bias")):
            noise *= 0.1
        else:
            noise = 1 + 0.1 * noise if len(shape) == 1 else noise * math.sqrt(2 / math.prod(shape[1:]))
        state[key] = torch.from_numpy(np.asarray(noise, np.float32))
    return state


# Protocol Buffers and TensorFlow's tensor bundles, byte by byte from their descriptions


def number(value: int) -> bytes:
    """A varint: seven bits a byte from the lowest, the eighth says that more follow."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def message(*fields: tuple[int, int | bytes]) -> bytes:
    """A Protocol Buffers message of varints and byte strings."""
    parts = [
        number(key << 3) + number(value) if isinstance(value, int) else number(key << 3 | 2) + number(len(value)) + value
        for key, value in fields
    ]
    return b"".join(parts)


@pytest.fixture(scope="session")
def proto() -> Callable[..., bytes]:
    """``proto((field, value), ...)``: a message of varints (int) and byte strings."""
    return message


def table_block(items: list[tuple[bytes, bytes]], compression: int) -> bytes:
    """A block of a LevelDB table with its trailer; every second key is written whole (a restart), the others share with the one before."""
    body, restarts, last = bytearray(), [], b""
    for index, (key, value) in enumerate(items):
        shared = 0
        if index % 2:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        else:
            restarts.append(len(body))
        body += number(shared) + number(len(key) - shared) + number(len(value)) + key[shared:] + value
        last = key
    body += struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts)) + bytes([compression])
    return bytes(body) + struct.pack("<I", masked(crc32c(bytes(body))))


def index_file(items: list[tuple[bytes, bytes]], compression: int = 0, per_block: int = 3) -> bytes:
    """The table itself: blocks of ``per_block`` entries, an empty block of properties, the block of blocks, the footer."""
    out, handles = b"", []
    groups = [items[start : start + per_block] for start in range(0, len(items), per_block)]
    for group in groups:
        block = table_block(group, compression)
        handles.append((group[-1][0], number(len(out)) + number(len(block) - 5)))
        out += block
    places = b""
    for block in (table_block([], 0), table_block(handles, 0)):
        places += number(len(out)) + number(len(block) - 5)
        out += block
    return out + places.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


BundleWriter = Callable[..., Path]
TYPES = {"float32": 1, "float64": 2, "int32": 3, "int64": 9, "float16": 19}


def write_bundle(
    path: Path,
    arrays: Mapping[str, np.ndarray],
    shards: int = 1,
    header: bytes = b"",
    extra: tuple[tuple[bytes, bytes], ...] = (),
    compression: int = 0,
) -> Path:
    """Write ``arrays`` as a TensorFlow checkpoint in ``shards`` data files; returns the index. ``extra`` are further raw entries."""
    entries = [(b"", header or message((1, shards), (3, message((1, 1)))))]
    data = [b""] * shards
    for place, name in enumerate(sorted(arrays)):
        raw, shard = np.ascontiguousarray(arrays[name]).tobytes(), place % shards
        shape = message(*((2, message((1, size))) for size in arrays[name].shape))
        fields = [(1, TYPES[arrays[name].dtype.name]), (2, shape), (3, shard), (4, len(data[shard])), (5, len(raw))]
        crc = number(6 << 3 | 5) + struct.pack("<I", masked(crc32c(raw)))
        entries.append((name.encode(), message(*[(key, value) for key, value in fields if value != 0]) + crc))
        data[shard] += raw
    path.write_bytes(index_file(sorted([*entries, *extra]), compression))
    for shard, raw in enumerate(data):
        path.with_suffix(f".data-{shard:05d}-of-{shards:05d}").write_bytes(raw)
    return path


@pytest.fixture(scope="session")
def tensor_bundle() -> BundleWriter:
    """``tensor_bundle(path, arrays, ...)``: a TensorFlow checkpoint, see ``write_bundle``."""
    return write_bundle


class Ran(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


@pytest.fixture
def weights_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of weights, and no reference folder."""
    monkeypatch.setenv("ACTIONCACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("ACTIONCACHE_TEST_DATA", raising=False)
    return tmp_path / "home" / "weights"


@pytest.fixture
def run_weights(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], weights_home: Path) -> Callable[..., Ran]:
    """``run_weights("check", "tiny", ...)`` is ``actioncache weights check tiny ...``, in this process."""

    def call(*arguments: object) -> Ran:
        monkeypatch.setattr("sys.argv", ["actioncache", "weights", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        told = capsys.readouterr()
        return Ran(int(caught.value.code or 0), told.out, told.err)

    return call
