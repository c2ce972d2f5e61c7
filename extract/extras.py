"""Arrays that belong to a network's weights but are published in files of their own (``Backbone.extras``), such as C3D's mean cube."""

from pathlib import Path

import numpy as np

from extract.caffe_model import read_binaryproto
from store.errors import WeightsError


def read_extra(path: Path) -> np.ndarray:
    """The array of a ``.npy`` file or of a mean file of Caffe's (``.binaryproto``), for ``Backbone.add_extras``.

    Nothing in the file is executed. Raises ``WeightsError`` with the file and the reason for anything else.
    """
    if path.suffix == ".binaryproto":
        return read_binaryproto(path)
    try:
        array = np.load(path, allow_pickle=False)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, EOFError):  # numpy's words recommend to unpickle it
        raise WeightsError(f"{path} is no array of numbers, or is damaged; give a .npy file, or a .binaryproto of Caffe's") from None
    if not isinstance(array, np.ndarray):
        raise WeightsError(f"{path} holds several arrays; give a .npy file of one, or a .binaryproto of Caffe's")
    return array
