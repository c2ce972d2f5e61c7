"""Weights of Caffe's networks (``.caffemodel``, or as C3D's without a suffix) and its means (``.binaryproto``), read without Caffe.

Both are Protocol Buffers: a network is a list of layers with a name and blobs, a mean is a blob. A blob's numbers of axes are fields 1 to
4 (count, channels, height, width) and its values field 5; in the C3D authors' Caffe they are 1 to 5 (with a length) and 6. So field 5
tells them apart: a number there, or bytes.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from extract.wire import fields, varint
from store.errors import WeightsError

LAYERS = {2: (4, 6), 100: (1, 7)}  # field of the network that lists layers (old, new) -> the layer's fields of its name and its blobs
NETWORK_FIELDS = {2, 3, 4, 5, 6, 7, 8, 100}


def is_caffe(data: bytes) -> bool:
    """Whether a file begins as a Caffe network does: its name, then another field of a network."""
    start = memoryview(data)[:1024]
    try:
        if not start or start[0] != 0x0A:  # field 1, bytes
            return False
        size, at = varint(start, 1)
        tag, _ = varint(start, at + size)
    except ValueError:
        return False
    return bytes(start[at : at + size]).isascii() and tag >> 3 in NETWORK_FIELDS


def read_caffe(data: bytes, path: Path) -> dict[str, torch.Tensor]:
    """Every layer's blobs as ``LAYER.0``, ``LAYER.1``, ... (weights and biases, mostly), float32; leading axes of length 1 are taken off.

    Raises ``WeightsError`` for damage.
    """
    try:
        return {name: torch.from_numpy(values.copy()) for name, values in _blobs(memoryview(data))}
    except (ValueError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path} is damaged or no Caffe model: {error}; download it again") from None


def read_binaryproto(path: Path) -> np.ndarray:
    """The array of a Caffe mean file, float32, such as C3D's mean cube [3, 16, 128, 171]. Raises ``WeightsError`` for anything else."""
    try:
        return _blob(memoryview(path.read_bytes())).copy()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise WeightsError(f"{path} is damaged or no mean of Caffe's (.binaryproto): {error}; download it again") from None


def _blobs(network: memoryview) -> Iterator[tuple[str, np.ndarray]]:
    for number, layer in fields(network):
        if number not in LAYERS or isinstance(layer, int):
            continue
        name_field, blob_field = LAYERS[number]
        parts = list(fields(layer))
        name = next((bytes(value).decode() for kind, value in parts if kind == name_field and not isinstance(value, int)), "")
        blobs = [value for kind, value in parts if kind == blob_field and not isinstance(value, int)]
        for index, blob in enumerate(blobs):
            yield f"{name}.{index}", _blob(blob)


def _blob(message: memoryview) -> np.ndarray:
    sizes: dict[int, int] = {}
    arrays: dict[int, memoryview] = {}
    for number, value in fields(message):
        if isinstance(value, int):
            sizes[number] = value
        elif arrays.setdefault(number, value) is not value:
            raise ValueError("it holds its numbers one by one, as only programs other than Caffe write them")
    with_length = 5 in sizes  # the C3D authors' Caffe
    shape = [sizes.get(number, 1) for number in range(1, 6 if with_length else 5)]
    if 7 in arrays and not with_length:  # the new way of giving the axes
        shape = _axes(arrays[7])
    data = arrays.get(6 if with_length else 5, memoryview(b""))
    if len(data) != 4 * math.prod(shape):
        raise ValueError(f"a blob of {shape} holds {len(data) // 4} numbers")
    while len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
    return np.frombuffer(data, "<f4").reshape(shape)


def _axes(message: memoryview) -> list[int]:
    axes: list[int] = []
    for number, value in fields(message):
        if number != 1:
            continue
        if isinstance(value, int):
            axes.append(value)
            continue
        at = 0
        while at < len(value):
            axis, at = varint(value, at)
            axes.append(axis)
    return axes
