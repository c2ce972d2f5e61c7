"""Trajectory files as the original programs wrote them, and files that are wrong."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from fusion.idt import reader
from fusion.idt.reader import find_file, read_blocks
from fusion.idt.sample import draw
from store.errors import FeatureError, ListError
from store.trajectory_format import DENSE, DESCRIPTORS, IMPROVED

REAL = {"improved_trajectories": (2001, IMPROVED), "dense_trajectories_2011": (2406, DENSE)}


def text_rows(count: int, columns: int = 436, seed: int = 0) -> bytes:
    values = np.random.default_rng(seed).random((count, columns))
    return "".join("\t".join(f"{value:.6f}" for value in row) + "\t\n" for row in values).encode()


def read(path: Path) -> np.ndarray:
    return np.concatenate([rows for _, rows in read_blocks(path)])


@pytest.mark.parametrize("name", REAL)
def test_files_of_the_original_programs(shared_data: Path, name: str) -> None:
    path = shared_data / "idt" / f"person01_boxing_d1.{name}.txt.gz"
    count, columns = REAL[name]
    blocks = list(read_blocks(path))
    rows = np.concatenate([block for _, block in blocks])
    assert {found for found, _ in blocks} == {columns}
    assert rows.shape == (count, columns.count)
    with gzip.open(path, "rt") as file:  # one line, by Python's own float
        expected = [float(word) for word in file.readline().split()]
    np.testing.assert_array_equal(rows[0], np.array(expected, np.float32))
    length = np.linalg.norm(rows[:, columns.descriptor("trajectory")].reshape(count, 15, 2), axis=2).sum(1)
    np.testing.assert_allclose(length, 1, atol=2e-5)  # steps are shares of the path's length
    assert rows[:, columns.descriptor("mbhy")].shape[1] == 96


def test_descriptors_fill_the_columns() -> None:
    ends = [IMPROVED.descriptor(name).stop for name in DESCRIPTORS]
    assert (IMPROVED.count, DENSE.count, ends) == (436, 433, [40, 136, 244, 340, 436])


def test_plain_gzip_and_arrays_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = text_rows(50)
    (tmp_path / "plain.txt").write_bytes(text)
    (tmp_path / "packed.gz").write_bytes(gzip.compress(text))
    plain = read(tmp_path / "plain.txt")
    np.save(tmp_path / "array.npy", plain)
    monkeypatch.setattr(reader, "BLOCK_BYTES", 5000)
    monkeypatch.setattr(reader, "BLOCK_ROWS", 7)
    assert len(list(read_blocks(tmp_path / "plain.txt"))) > 10
    for name in ("plain.txt", "packed.gz", "array.npy"):
        np.testing.assert_array_equal(read(tmp_path / name), plain)


def test_an_empty_file_has_no_trajectories(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\n")
    np.save(tmp_path / "b.npy", np.zeros((0, 436), np.float32))
    assert list(read_blocks(tmp_path / "a.txt")) == list(read_blocks(tmp_path / "b.npy")) == []


def wrong(kind: str) -> bytes:
    lines = text_rows(5).splitlines(keepends=True)
    if kind == "cut":
        return b"".join(lines)[:-600]
    if kind == "ragged":
        lines[3] = lines[3].replace(b"\t", b"\t0.5\t", 1)
    if kind == "words":
        lines[2] = lines[2].replace(b"\t", b"\tfish\t", 1)
    if kind == "nan":
        lines[4] = b"nan" + lines[4][lines[4].index(b"\t") :]
    if kind == "columns":
        lines = text_rows(5, 400).splitlines(keepends=True)
    return b"".join(lines)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("cut", r"line 5: \d+ columns; a trajectory has 436 \(improved\) or 433 \(dense 2011\) \(the last line is cut short\?\)"),
        ("ragged", "line 4: 437 columns"),
        ("words", "line 3, column 2: 'fish' is no number"),
        ("nan", "row 5 after line 1: NaN or Inf"),
        ("columns", "line 1: 400 columns"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, kind: str, words: str) -> None:
    path = tmp_path / "v.txt"
    path.write_bytes(wrong(kind))
    with pytest.raises(FeatureError, match=words) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_packed_files_cut_short_and_things_that_are_no_arrays(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(text_rows(50))[:-2000])
    (tmp_path / "b.npy").write_bytes(b"no array")
    np.save(tmp_path / "c.npy", np.zeros(436))
    np.save(tmp_path / "d.npy", np.array([None]), allow_pickle=True)
    for name, words in (("a.txt.gz", "cut short"), ("b.npy", "no array"), ("c.npy", "two dimensions"), ("d.npy", "no array")):
        with pytest.raises(FeatureError, match=words):
            read(tmp_path / name)


def test_the_file_of_a_video(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "v.txt.gz").write_bytes(b"")
    assert find_file(tmp_path, "c/v.avi") == tmp_path / "c" / "v.txt.gz"
    with pytest.raises(FeatureError, match=r"no trajectories of 'c/w\.avi'"):
        find_file(tmp_path, "c/w.avi")
    (tmp_path / "c" / "v.avi.npy").write_bytes(b"")
    with pytest.raises(FeatureError, match="may both be"):
        find_file(tmp_path, "c/v.avi")
    with pytest.raises(ListError, match="no trajectory file can belong to it"):
        find_file(tmp_path, "../v.avi")


def test_a_sample_is_drawn_by_seed_and_id_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).random((500, 436)).astype(np.float32)
    rows[:, 0] = np.arange(500)
    np.save(tmp_path / "v.npy", rows)
    first = draw(tmp_path / "v.npy", "v", 40, 0)
    monkeypatch.setattr(reader, "BLOCK_ROWS", 33)
    second, other = draw(tmp_path / "v.npy", "v", 40, 0), draw(tmp_path / "v.npy", "v", 40, 1)
    assert first is not None
    assert second is not None
    assert other is not None
    taken = first.frames[:, 1] - 1
    np.testing.assert_array_equal(taken, second.frames[:, 1] - 1)
    assert len(set(taken)) == 40
    assert set(taken) != set(other.frames[:, 1] - 1)
    np.testing.assert_array_equal(first.values["hof"], rows[taken, 136:244])
    everything = draw(tmp_path / "v.npy", "v", 10_000, 0)
    assert everything is not None
    assert len(everything) == 500


def test_every_trajectory_is_as_likely_to_be_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "BLOCK_ROWS", 10)
    rows = np.zeros((40, 436), np.float32)
    rows[:, 0] = np.arange(40)
    np.save(tmp_path / "v.npy", rows)
    counts = np.zeros(40)
    for seed in range(400):
        features = draw(tmp_path / "v.npy", "v", 10, seed)
        assert features is not None
        counts[features.frames[:, 1] - 1] += 1
    assert abs(counts - 100).max() < 5 * np.sqrt(400 * 0.25 * 0.75)
