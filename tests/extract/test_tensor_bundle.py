"""TensorFlow's checkpoints against files written byte by byte from the description of their format."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from extract.tensor_bundle import read_bundle
from extract.weights import load_backbone
from extract.wire import LANES, crc32c, fields, masked, varint
from store.errors import WeightsError

BundleWriter = Callable[..., Path]


@pytest.mark.parametrize(
    ("data", "digits"),
    [
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"", 0),
    ],
)
def test_crc32c_gives_the_published_check_values(data: bytes, digits: int) -> None:
    """RFC 3720, appendix B.4."""
    assert crc32c(data) == digits


def bitwise(data: bytes) -> int:
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


@pytest.mark.parametrize("length", [1, 16 * LANES - 1, 16 * LANES, 16 * LANES + 7, 50_001 + 16 * LANES])
def test_crc32c_of_long_data_is_the_bitwise_one(length: int) -> None:
    data = np.random.default_rng(length).bytes(length)
    assert crc32c(data) == bitwise(data)


def test_masked_is_leveldbs() -> None:
    """Turned right by 15 bits, plus 0xa282ead8; the value of LevelDB's own test is masked twice."""
    crc = crc32c(b"foo")
    assert masked(crc) == ((crc >> 15) + ((crc & 0x7FFF) << 17) + 0xA282EAD8) % 2**32
    assert masked(crc) != crc


def test_varints_and_fields_are_read_as_they_are_described(proto: Callable[..., bytes]) -> None:
    assert varint(memoryview(b"\x96\x01"), 0) == (150, 2)  # the example of the description
    content = [(number, value if isinstance(value, int) else bytes(value)) for number, value in fields(memoryview(b"\x08\x96\x01"))]
    assert content == [(1, 150)]
    long = proto((2, b"testing"), (16, 2**40)) + b"\x3d\x01\x02\x03\x04" + b"\x39" + bytes(8)
    read = [(number, value if isinstance(value, int) else bytes(value)) for number, value in fields(memoryview(long))]
    assert read == [(2, b"testing"), (16, 2**40), (7, b"\x01\x02\x03\x04"), (7, bytes(8))]


@pytest.mark.parametrize("data", [b"\x08", b"\x08\xff", b"\x12\x05abc", b"\x0d\x01", b"\x0b\x0c", b"\x08" + b"\xff" * 11])
def test_what_is_no_message_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"it ends within|it holds a"):
        list(fields(memoryview(data)))


def variables() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    shapes = {f"RGB/inception_i3d/Mixed_3b/Branch_{n}/conv_3d/w": (1, 1, 1, n + 1, 4) for n in range(7)}
    arrays: dict[str, np.ndarray] = {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    arrays["global_step"] = np.array(115_000, np.int64)
    arrays["empty"] = np.zeros((0, 3), np.float32)
    arrays["half"] = generator.standard_normal(5).astype(np.float16)
    arrays["large"] = generator.standard_normal((300, 400)).astype(np.float32)
    return arrays


@pytest.mark.parametrize("shards", [1, 3])
def test_every_variable_is_read_back(shards: int, tensor_bundle: BundleWriter, tmp_path: Path) -> None:
    path = tensor_bundle(tmp_path / "model.ckpt.index", variables(), shards)
    state = read_bundle(path.read_bytes(), path)
    assert sorted(state) == sorted(variables())
    for name, array in variables().items():
        assert state[name].shape == array.shape
        assert str(state[name].dtype).removeprefix("torch.") == array.dtype.name
        assert torch.equal(state[name], torch.from_numpy(np.atleast_1d(array)).reshape(array.shape))


def test_notes_of_tensorflow_two_are_left_aside(tensor_bundle: BundleWriter, proto: Callable[..., bytes], tmp_path: Path) -> None:
    graph = (b"_CHECKPOINTABLE_OBJECT_GRAPH", proto((1, 7), (5, 12)))
    path = tensor_bundle(tmp_path / "model.index", variables(), extra=(graph,))
    assert sorted(read_bundle(path.read_bytes(), path)) == sorted(variables())


def test_weights_of_a_checkpoint_are_loaded_and_the_index_is_their_identity(tensor_bundle: BundleWriter, tmp_path: Path) -> None:
    state = {key: value.numpy() for key, value in load_backbone("tiny", "random:3").backbone.state_dict().items()}
    path = tensor_bundle(tmp_path / "model.ckpt.index", state)
    loaded = load_backbone("tiny", str(path))
    assert all(np.array_equal(value.numpy(), state[key]) for key, value in loaded.backbone.state_dict().items())
    assert loaded.identity == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_missing_data_file_is_named(tensor_bundle: BundleWriter, tmp_path: Path) -> None:
    path = tensor_bundle(tmp_path / "model.ckpt.index", variables(), 2)
    (tmp_path / "model.ckpt.data-00001-of-00002").unlink()
    with pytest.raises(WeightsError, match=r"model\.ckpt\.index is the index of .*model\.ckpt\.data-00001-of-00002, which is not there"):
        read_bundle(path.read_bytes(), path)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"compression": 1}, "blocks are compressed"),
        ({"header": b"\x08\x01\x10\x01"}, "its arrays are big-endian"),
        ({"header": b"\x1a\x00"}, "it has no header"),
        ({"extra": ((b"sliced", b"\x08\x01\x3a\x00"),)}, "variables that are partitioned"),
        ({"extra": ((b"strange", b"\x08\x17"),)}, "strange has type number 23, which is not known"),
    ],
)
def test_what_cannot_be_read_is_said(settings: dict[str, object], words: str, tensor_bundle: BundleWriter, tmp_path: Path) -> None:
    path = tensor_bundle(tmp_path / "model.ckpt.index", variables(), **settings)
    with pytest.raises(WeightsError, match=rf"model\.ckpt\.index is damaged or no index .*{words}"):
        read_bundle(path.read_bytes(), path)


def test_every_flipped_bit_and_every_cut_is_found(tensor_bundle: BundleWriter, tmp_path: Path) -> None:
    path = tensor_bundle(tmp_path / "model.ckpt.index", variables())
    whole = path.read_bytes()
    truth = read_bundle(whole, path)
    generator = np.random.default_rng(0)
    for place in generator.integers(0, len(whole), 150):
        flipped = whole[:place] + bytes([whole[place] ^ 1 << int(generator.integers(8))]) + whole[place + 1 :]
        try:
            state = read_bundle(flipped, path)
        except WeightsError:
            continue
        assert list(state) == list(truth)  # a bit of the block of properties or of the footer's padding, which nobody reads
        assert all(torch.equal(state[name], truth[name]) for name in truth)
    for cut in generator.integers(0, len(whole), 50):
        with pytest.raises(WeightsError, match="damaged or no index"):
            read_bundle(whole[:cut], path)


def test_damaged_data_are_found_by_their_checksum(tensor_bundle: BundleWriter, tmp_path: Path) -> None:
    path = tensor_bundle(tmp_path / "model.ckpt.index", variables())
    data = path.with_suffix(".data-00000-of-00001")
    whole = data.read_bytes()
    data.write_bytes(whole[:100] + bytes([whole[100] ^ 4]) + whole[101:])
    with pytest.raises(WeightsError, match=r"in model\.ckpt\.data-00000-of-00001 is cut short or damaged"):
        read_bundle(path.read_bytes(), path)
    data.write_bytes(whole[:-1])
    with pytest.raises(WeightsError, match="is cut short or damaged"):
        read_bundle(path.read_bytes(), path)
