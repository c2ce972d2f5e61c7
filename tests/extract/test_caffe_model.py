"""Caffe's models and means against messages written byte by byte from its description of them (caffe.proto)."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from extract.caffe_model import is_caffe, read_binaryproto, read_caffe
from extract.checkpoint import read_state
from extract.extras import read_extra
from store.errors import WeightsError

Proto = Callable[..., bytes]


def c3d_blob(proto: Proto, array: np.ndarray) -> bytes:
    """A blob of the C3D authors' Caffe: five sizes, then the numbers in field 6."""
    sizes = (1,) * (5 - array.ndim) + array.shape
    return proto(*enumerate(sizes, start=1), (6, array.astype("<f4").tobytes()))


def old_blob(proto: Proto, array: np.ndarray) -> bytes:
    """A blob of Caffe before it had shapes: four sizes, then the numbers in field 5."""
    sizes = (1,) * (4 - array.ndim) + array.shape
    return proto(*enumerate(sizes, start=1), (5, array.astype("<f4").tobytes()))


def new_blob(proto: Proto, array: np.ndarray) -> bytes:
    """A blob of today's Caffe: numbers in field 5, a message of sizes in field 7."""
    sizes = proto((1, b"".join(proto((1, size))[1:] for size in array.shape)))
    return proto((5, array.astype("<f4").tobytes()), (7, sizes))


def arrays() -> dict[str, list[np.ndarray]]:
    generator = np.random.default_rng(0)
    shapes = {"conv1a": [(64, 3, 3, 3), (64,)], "fc6-1": [(20, 300), (20,)], "scale": [(1,)]}
    return {name: [generator.standard_normal(shape).astype(np.float32) for shape in group] for name, group in shapes.items()}


def old_network(proto: Proto, blob: Callable[[Proto, np.ndarray], bytes]) -> bytes:
    layers = [(2, proto((2, b"data"), (3, b"data"), (4, b"data"), (5, 33)))]  # a layer without weights
    layers += [
        (2, proto((2, b"x"), (4, name.encode()), (5, 30), *((6, blob(proto, values)) for values in group)))
        for name, group in arrays().items()
    ]
    return proto((1, b"DeepConv3DNet_Sport1M_Val"), *layers)


def new_network(proto: Proto) -> bytes:
    layers = [
        (100, proto((1, name.encode()), (2, b"Convolution"), *((7, new_blob(proto, values)) for values in group)))
        for name, group in arrays().items()
    ]
    return proto((1, b"net"), *layers)


def networks(proto: Proto) -> dict[str, bytes]:
    return {"c3d": old_network(proto, c3d_blob), "old": old_network(proto, old_blob), "new": new_network(proto)}


@pytest.mark.parametrize("kind", ["c3d", "old", "new"])
def test_blobs_are_read_by_layer_and_number(kind: str, proto: Proto) -> None:
    data = networks(proto)[kind]
    assert is_caffe(data)
    state = read_state(data, Path("conv3d_deepnetA_sport1m_iter_1900000"))
    expected = {f"{name}.{index}": values for name, group in arrays().items() for index, values in enumerate(group)}
    assert list(state) == list(expected)
    for name, values in expected.items():
        assert state[name].dtype == torch.float32
        assert np.array_equal(state[name].numpy(), values)


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"\x0a\x04", b"PK\x03\x04", b"\x80\x02}q\x00.", b"\x0a\x02\xff\xff\x12\x00", b"\x0a\x01a\x62\x00"]
)
def test_other_files_are_no_caffe_models(data: bytes) -> None:
    assert not is_caffe(data)


def test_damage_is_a_weights_error(proto: Proto) -> None:
    for data in networks(proto).values():
        for cut in (40, len(data) // 2, len(data) - 1):
            with pytest.raises(WeightsError, match=r"net\.caffemodel is damaged or no Caffe model: it ends within"):
                read_caffe(data[:cut], Path("net.caffemodel"))


def test_a_blob_that_contradicts_its_size_is_refused(proto: Proto) -> None:
    blob = proto((1, 2), (2, 3), (3, 1), (4, 1), (5, bytes(20)))
    data = proto((1, b"net"), (2, proto((4, b"conv"), (6, blob))))
    with pytest.raises(WeightsError, match=r"a blob of \[2, 3, 1, 1\] holds 5 numbers"):
        read_caffe(data, Path("net.caffemodel"))


def test_numbers_one_by_one_are_refused_not_misread(proto: Proto) -> None:
    blob = proto((1, 2)) + b"".join(b"\x2d" + struct.pack("<f", value) for value in (1.0, 2.0))
    data = proto((1, b"net"), (2, proto((4, b"conv"), (6, blob))))
    with pytest.raises(WeightsError, match="numbers one by one"):
        read_caffe(data, Path("net.caffemodel"))


def test_a_mean_cube_is_read(proto: Proto, tmp_path: Path) -> None:
    cube = np.random.default_rng(1).uniform(80, 120, (3, 16, 8, 9)).astype(np.float32)
    path = tmp_path / "sport1m_train16_128_mean.binaryproto"
    path.write_bytes(c3d_blob(proto, cube))
    assert np.array_equal(read_binaryproto(path), cube)
    path.write_bytes(b"\x08\x01\x12")
    with pytest.raises(WeightsError, match=r"mean\.binaryproto is damaged or no mean of Caffe's"):
        read_binaryproto(path)
    with pytest.raises(WeightsError, match=r"none cannot be read: No such file"):
        read_binaryproto(tmp_path / "none")


def test_an_extra_is_read_from_numpys_file_or_from_caffes(proto: Proto, tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    np.save(tmp_path / "mean.npy", array)
    (tmp_path / "mean.binaryproto").write_bytes(c3d_blob(proto, array))
    assert np.array_equal(read_extra(tmp_path / "mean.npy"), array)
    assert np.array_equal(read_extra(tmp_path / "mean.binaryproto"), array)


def test_extras_that_are_no_array_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", a=np.zeros(3), b=np.zeros(3))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "text.npy").write_text("90.25 97.66 101.41")
    (tmp_path / "empty.npy").write_bytes(b"")
    for name, words in {
        "two.npz": "holds several arrays; give a .npy file of one",
        "objects.npy": "is no array of numbers",
        "text.npy": "is no array of numbers",
        "empty.npy": "is no array of numbers",
        "none.npy": "cannot be read: No such file",
    }.items():
        with pytest.raises(WeightsError, match=f"{name} {words}"):
            read_extra(tmp_path / name)
