import io
import pickle
import time
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch

from store.safe_pickle import Refused, read_pickle


@pytest.mark.parametrize("protocol", range(2, 6))
def test_plain_data_arrays_and_tensors_come_back(protocol: int) -> None:
    tensor = torch.randn(4, 3).t()
    given = [
        {"tensor": tensor, "label": torch.tensor([3]), "half": torch.ones(2, dtype=torch.half), "view": torch.arange(10)[2:8:3]},
        np.arange(6.0).reshape(2, 3).T,
        np.arange(3, dtype=">i4"),
        (np.float32(2.5), np.int64(7), 1.5, "text", b"bytes", None, True),
        OrderedDict(a=1),
    ]
    found = read_pickle(pickle.dumps(given, protocol=protocol))
    np.testing.assert_array_equal(found[0]["tensor"], tensor.numpy())
    np.testing.assert_array_equal(found[0]["label"], [3])
    np.testing.assert_array_equal(found[0]["half"], [1, 1])
    np.testing.assert_array_equal(found[0]["view"], [2, 5])
    np.testing.assert_array_equal(found[1], given[1])
    np.testing.assert_array_equal(found[2], given[2])
    assert found[3] == (2.5, 7, 1.5, "text", b"bytes", None, True)
    assert found[4] == {"a": 1}


class Bomb:
    def __reduce__(self) -> Any:
        return (eval, ("1/0",))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Bomb(), "asks for builtins.eval"),
        ([{"deep": (Bomb(),)}], "asks for builtins.eval"),
        (np.array([None], object), "array of type 'O8'"),
        (np.array(["text"]), "array of type 'U4'"),
        (torch.nn.Linear(1, 1), "NEWOBJ"),
        ({1, 2}, "holds a set"),
        (print, "asks for builtins.print"),
        (complex(1, 2), "asks for builtins.complex"),
    ],
)
def test_everything_else_is_refused(value: Any, words: str) -> None:
    with pytest.raises(Refused, match=words):
        read_pickle(pickle.dumps(value))


def op(*parts: bytes) -> bytes:
    return b"\x80\x02" + b"".join(parts) + b"."


def text(word: str) -> bytes:
    return b"X" + len(word).to_bytes(4, "little") + word.encode()


DTYPE = b"cnumpy\ndtype\n" + text("f4") + b"\x85R"
ARRAY = b"cnumpy._core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text("b") + b"\x87R"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no pickle"),
        (b"garbage", "no pickle"),
        (op(b"]r\xff\xff\xff\x7f"), "fills place 2147483647"),
        (b"\x80\x04\x8e" + (2**62).to_bytes(8, "little") + b".", "no pickle"),
        (op(b"\x82\x01"), "EXT1"),
        (op(text("x"), b"Q"), "refers to data outside"),
        (op(b"cos\nsystem\n", text("true"), b"\x85R"), "asks for os.system"),
        (op(b"c_codecs\nencode\n", text("x"), text("rot13"), b"\x86R"), "encodes something as 'rot13'"),
        # numpy's own function would allocate whatever shape it is given
        (op(ARRAY, b"(K\x01J\x00\x00\x00\x7f\x85", DTYPE, b"\x89", text("raw"), b"tb"), "Python objects"),
        (op(b"cnumpy._core.numeric\n_frombuffer\n(C\x04abcd", DTYPE, b"J\x00\x00\x00\x7f\x85", text("C"), b"tR"), "claims the shape"),
        # attributes of a stand-in cannot be set: it would change how later files are read
        (op(b"c_codecs\nencode\n", b"N}", text("__call__"), b"K\x01s\x86b"), "changes a function"),
        (op(b"cnumpy\nndarray\n", b"N}", text("x"), b"K\x01s\x86b"), "no pickle of plain data"),
    ],
)
def test_hostile_instructions_are_refused(data: bytes, words: str) -> None:
    with pytest.raises(Refused, match=words):
        read_pickle(data)


def test_references_cannot_multiply_a_small_file() -> None:
    nested: list[Any] = [1] * 50
    for _ in range(10):
        nested = [nested] * 50
    started = time.monotonic()
    with pytest.raises(Refused, match="refer to one another"):
        read_pickle(pickle.dumps(nested))
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(Refused, match="nested more than"):
        read_pickle(pickle.dumps(loop))
    assert time.monotonic() - started < 60  # it would take years


def test_a_tensor_cannot_reach_beyond_its_storage() -> None:
    whole = pickle.dumps(torch.arange(4), protocol=2)
    size, longer = b"K\x04\x85", b"K\x05\x85"
    assert size in whole
    with pytest.raises(Refused, match="reaches beyond its storage of 4"):
        read_pickle(whole.replace(size, longer))


def test_damage_is_refused_or_harmless() -> None:
    whole = pickle.dumps([{"pred_score": torch.arange(3.0), "n": np.arange(2)}], protocol=4)
    for place in range(0, len(whole), 3):
        for changed in (whole[:place], whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :]):
            try:
                read_pickle(changed)
            except Refused:
                continue


def test_torch_save_files_are_not_taken_for_pickles() -> None:
    file = io.BytesIO()
    torch.save([torch.ones(2)], file)
    with pytest.raises(Refused):
        read_pickle(file.getvalue())


def test_arrays_as_keys_are_refused() -> None:
    array = pickle.dumps(np.arange(3), protocol=2)[2:-1]  # its instructions alone
    with pytest.raises(Refused, match="whose keys are no plain data"):
        read_pickle(b"\x80\x02}" + array + b"K\x01s.")
