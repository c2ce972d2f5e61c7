"""Score tables: what they refuse, and what survives a file."""

import dataclasses
import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from store.errors import ScoreError
from store.scores import KINDS, ScoreTable

IDS = ("walk/a.avi", "run/a.avi", "run/ü,b.avi")
CLASSES = ("walk", "run")
VALUES = np.array([[1.5, -2.0], [0.25, 3.0], [7.0, 7.0]], np.float32)


def table(**changes: Any) -> ScoreTable:
    return dataclasses.replace(ScoreTable(IDS, CLASSES, VALUES, "scores", np.array([0, 1, 1]), {"head": "gru", "seed": 3}), **changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ids": IDS[:2]}, r"values are float32 \[3, 2\]; they must be numbers \[2 videos, 2 classes\]"),
        ({"ids": ("a", "b", "a")}, r"1 id names occur more than once: a"),
        ({"ids": ("a", "", "c")}, r"id number 2 is empty"),
        ({"classes": ("walk", "walk")}, r"1 class names occur more than once: walk"),
        ({"ids": (), "values": np.zeros((0, 2))}, r"there is no id"),
        ({"values": np.array([[1, 2], [np.nan, 0], [0, np.inf]])}, r"2 videos have scores that are NaN, Inf .*: run/a.avi, run/ü,b.avi"),
        ({"values": np.array([[1, 2], [1e39, 0], [0, 0]])}, r"1 videos have scores .* too large for float32: run/a.avi"),
        ({"values": np.full((3, 2), "x")}, r"values are <U1 \[3, 2\]"),
        ({"values": np.zeros((3, 2), bool)}, r"values are bool"),
        ({"kind": "logits"}, r"kind is 'logits'; it must be one of scores, log_probs, decision_values"),
        ({"kind": "log_probs"}, r"3 videos have log_probs that do not sum to 1 .*: walk/a.avi"),
        ({"labels": np.array([0, 2, -1])}, r"2 labels are not in 0..1: run/a.avi \(2\), run/ü,b.avi \(-1\)"),
        ({"labels": np.array([0, 1])}, r"labels are int64 \[2\]; they must be whole numbers \[3\]"),
        ({"labels": np.array([0.0, 1.0, 1.0])}, r"labels are float64 \[3\]"),
        ({"source": {"rate": float("nan")}}, r"source must be a dict of JSON's types"),
        ({"source": [1]}, r"source must be a dict of JSON's types: list is not a dict"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ScoreError, match=words):
        table(**changes)


def test_all_contradictions_are_named_at_once() -> None:
    with pytest.raises(ScoreError) as caught:
        table(ids=("a", "a", "b"), kind="softmax", labels=np.array([0, 1, 9]))
    assert len(str(caught.value).splitlines()) == 4


def test_long_lists_are_cut() -> None:
    ids = tuple(f"v{number}" for number in range(30))
    with pytest.raises(ScoreError, match=r"30 videos have .*: v0, v1, v2, v3, v4, \.\.\. and 25 more"):
        ScoreTable(ids, CLASSES, np.full((30, 2), np.nan), "scores")


def test_log_probabilities_within_float32_are_accepted() -> None:
    raw = np.random.default_rng(0).normal(0, 30, (50, 700))
    log_probs = (raw - np.log(np.exp(raw - raw.max(1, keepdims=True)).sum(1, keepdims=True)) - raw.max(1, keepdims=True)).astype(np.float32)
    ids, classes = tuple(map(str, range(50))), tuple(map(str, range(700)))
    assert len(ScoreTable(ids, classes, log_probs, "log_probs")) == 50
    with pytest.raises(ScoreError, match="do not sum to 1"):
        ScoreTable(ids, classes, log_probs + 0.01, "log_probs")


def test_a_table_cannot_be_changed_from_outside() -> None:
    values, source = VALUES.copy(), {"deep": [1]}
    made = table(values=values, source=source)
    values[0, 0] = 99
    source["deep"].append(2)
    assert made.values[0, 0] == 1.5
    assert made.source == {"deep": [1]}
    with pytest.raises(ValueError, match="read-only"):
        made.values[0, 0] = 5
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.kind = "log_probs"  # type: ignore[misc]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("labels", [None, np.array([1, 0, 1])])
def test_a_file_gives_back_every_field(tmp_path: Path, kind: str, labels: np.ndarray | None) -> None:
    values = np.log(np.array([[0.25, 0.75], [0.5, 0.5], [0.9, 0.1]])) if kind == "log_probs" else VALUES
    saved = table(kind=kind, labels=labels, values=values)
    saved.save(tmp_path / "deep" / "a.npz")
    loaded = ScoreTable.load(tmp_path / "deep" / "a.npz")
    assert (loaded.ids, loaded.classes, loaded.kind, loaded.source) == (saved.ids, saved.classes, saved.kind, saved.source)
    np.testing.assert_array_equal(loaded.values, saved.values)
    np.testing.assert_array_equal(loaded.labels, saved.labels)
    assert loaded.values.dtype == np.float32
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.npz"]


def test_numpy_alone_reads_the_file(tmp_path: Path) -> None:
    table().save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert arrays["ids"].tolist() == list(IDS)
        assert json.loads(arrays["source"].item()) == {"head": "gru", "seed": 3}
        np.testing.assert_array_equal(arrays["values"], VALUES)


def test_equal_tables_are_equal_files(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        table().save(tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_rows_are_taken_by_id() -> None:
    taken = table().rows(["run/ü,b.avi", "walk/a.avi"])
    assert taken.ids == ("run/ü,b.avi", "walk/a.avi")
    np.testing.assert_array_equal(taken.values, VALUES[[2, 0]])
    np.testing.assert_array_equal(taken.labels, [1, 0])
    with pytest.raises(ScoreError, match=r"1 of 2 videos are not in this table of 3: swim/a.avi"):
        table().rows(["walk/a.avi", "swim/a.avi"])
    with pytest.raises(ScoreError, match=r"occur more than once: walk/a.avi"):
        table().rows(["walk/a.avi", "walk/a.avi"])


def test_folds_are_joined_by_class_name() -> None:
    classes = ("walk", "run", "swim")
    first = ScoreTable(("a", "b"), classes, np.array([[1, 2, 3], [4, 5, 6]]), "scores", np.array([0, 2]), {"fold": 1})
    second = ScoreTable(("c",), ("swim", "walk", "run"), np.array([[30, 10, 20]]), "scores", np.array([0]), {"fold": 2})
    joined = ScoreTable.concat([first, second])
    assert joined.ids == ("a", "b", "c")
    assert joined.classes == classes
    np.testing.assert_array_equal(joined.values, [[1, 2, 3], [4, 5, 6], [10, 20, 30]])
    assert [joined.classes[label] for label in joined.labels] == ["walk", "swim", "swim"]  # type: ignore[union-attr]
    assert joined.source == {"tables": [{"fold": 1}, {"fold": 2}]}


def test_tables_that_do_not_fit_are_not_joined() -> None:
    other = ScoreTable(("run/a.avi",), ("walk", "swim"), np.zeros((1, 2)), "decision_values")
    with pytest.raises(ScoreError) as caught:
        ScoreTable.concat([table(), other])
    for words in ("different kinds: decision_values, scores", "2 classes are not in all", "more than one: run/a.avi", "1 of 2 have labels"):
        assert words in str(caught.value)
    with pytest.raises(ScoreError, match="no score tables"):
        ScoreTable.concat([])


def npz(path: Path, **changes: Any) -> Path:
    arrays: dict[str, Any] = {
        "format": np.array("actioncache-scores-1"),
        "ids": np.array(IDS),
        "classes": np.array(CLASSES),
        "values": VALUES,
        "kind": np.array("scores"),
        "source": np.array("{}"),
    }
    np.savez(path, **{name: array for name, array in (arrays | changes).items() if array is not None})
    return path


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"values": None, "kind": None}, r"a.npz is not a score table: it holds classes, format, ids, source, but not values, kind"),
        ({"format": np.array("actioncache-scores-9")}, r"format is 'actioncache-scores-9'; this version reads 'actioncache-scores-1'"),
        ({"ids": np.array([1, 2, 3])}, r"ids is int64 \[3\]; it must be text"),
        ({"kind": np.array(["scores"])}, r"kind is <U6 \[1\]; it must be text with 0 dimensions"),
        ({"source": np.array("{")}, r"a.npz: Expecting"),
        ({"source": np.array("[" * 100_000)}, r"a.npz: maximum recursion"),
        ({"source": np.array('{"x": NaN}')}, r"source must be"),
        ({"values": VALUES * np.nan}, r"a.npz: not a score table:\n.*NaN"),
        ({"values": np.zeros(3, [("a", "f4")])}, r"values are"),
        ({"ids": np.frombuffer(b"\xff" * 12, "<U1")}, r"a.npz: ids holds characters that are not Unicode"),
    ],
)
def test_files_with_wrong_contents_are_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ScoreError, match=words):
        ScoreTable.load(npz(tmp_path / "a.npz", **changes))


class Bomb:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("the pickle was run",))


def test_pickles_are_never_run(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ScoreError, match=r"is not an .npz file"):
        ScoreTable.load(tmp_path / "a.npz")
    npz(tmp_path / "b.npz", ids=np.array([Bomb(), Bomb(), Bomb()], object))
    with pytest.raises(ScoreError, match="Python objects"):
        ScoreTable.load(tmp_path / "b.npz")


def test_a_header_cannot_claim_more_than_the_file_holds(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", values=None)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**9, 10**9)})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("values.npy", header.getvalue() + b"\0" * 8)
    with pytest.raises(ScoreError, match=r"values.npy claims 10{18} numbers of 4 bytes, but holds 8 bytes"):
        ScoreTable.load(path)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    whole = npz(tmp_path / "a.npz").read_bytes()
    rng = np.random.default_rng(0)
    for cut in rng.integers(0, len(whole), 20):
        (tmp_path / "b.npz").write_bytes(whole[:cut])
        with pytest.raises(ScoreError):
            ScoreTable.load(tmp_path / "b.npz")
    with pytest.raises(ScoreError, match="there is no file"):
        ScoreTable.load(tmp_path / "none.npz")


def test_a_flipped_byte_is_an_error_or_changes_nothing(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz")
    whole, expected = path.read_bytes(), ScoreTable.load(path)
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            loaded = ScoreTable.load(path)
        except ScoreError:
            continue
        assert loaded.ids == expected.ids
        np.testing.assert_array_equal(loaded.values, expected.values)


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScoreError, match=r"saved as an .npz file, not 'a.csv'"):
        table().save(tmp_path / "a.csv")
