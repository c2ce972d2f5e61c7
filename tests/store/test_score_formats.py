import json
import pickle
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import loadmat, savemat
from scipy.special import softmax

from store.errors import AlignmentError, ScoreError, SpecError
from store.names import NameRules
from store.score_columns import knows_nothing, looks_listed, misplaced
from store.score_formats import SCORE_FORMATS, Keys, find_format
from store.score_import import ImportSpec, import_scores
from store.scores import ScoreTable
from store.videos import Video, VideoList, read_list

CLASSES = ("climb", "climb_stairs", "jump", "run", "wave")


def made(labels: bool = True, seed: int = 0) -> ScoreTable:
    generator = np.random.default_rng(seed)
    truth = np.arange(60) % 5
    values = generator.normal(size=(60, 5))
    values[np.arange(60), truth] += 2
    ids = tuple(f"{CLASSES[truth[row]]}/v_{row:02d}.avi" for row in range(60))
    return ScoreTable(ids, CLASSES, values, "scores", truth if labels else None)


def video_list(table: ScoreTable) -> VideoList:
    labels = [table.classes[label] for label in table.labels.tolist()]  # type: ignore[union-attr]
    return VideoList(tuple(Video(name, Path(name), label) for name, label in zip(table.ids, labels, strict=True)), table.classes)


@pytest.mark.parametrize("name", SCORE_FORMATS.names())
@pytest.mark.parametrize("labels", [True, False])
def test_what_is_written_comes_back(name: str, labels: bool, tmp_path: Path) -> None:
    table, entry = made(labels), SCORE_FORMATS.get(name)
    path = tmp_path / f"scores{entry.suffixes[0]}"
    entry.write(table, path)
    assert find_format(path) == name
    if name == "mmaction2":  # which knows neither ids nor classes
        spec = ImportSpec(kind="scores", rows="list")
        back = import_scores(path, spec, video_list(made()), CLASSES).table
    else:
        has_names = name == "mat"
        spec = ImportSpec(
            kind="scores",
            values="values" if has_names else "",
            ids="ids" if has_names else "",
            class_key="classes" if has_names else "",
            labels="labels" if has_names and labels else "",
            first_label=1 if has_names else 0,
        )
        back = import_scores(path, spec).table
        if labels:
            np.testing.assert_array_equal(back.labels, table.labels)
        else:
            assert back.labels is None
    assert (back.ids, back.classes, back.kind) == (table.ids, table.classes, "scores")
    np.testing.assert_array_equal(back.values, table.values)


@pytest.mark.parametrize("name", SCORE_FORMATS.names())
def test_files_that_are_none_are_errors_that_name_them(name: str, tmp_path: Path) -> None:
    entry = SCORE_FORMATS.get(name)
    whole = tmp_path / f"whole{entry.suffixes[0]}"
    entry.write(made(), whole)
    data = whole.read_bytes()
    path = tmp_path / f"bad{entry.suffixes[0]}"
    generator = np.random.default_rng(0)
    for content in [b"", b"\0" * 100, b"hello", *(data[:cut] for cut in generator.integers(1, len(data) - 2, 12))]:
        path.write_bytes(content)
        if name in ("csv", "mat"):  # a table that was cut at the end of a line, or behind the scores, is one still
            with suppress(ScoreError):
                entry.read(path, Keys())
        else:
            with pytest.raises(ScoreError, match="bad"):
                entry.read(path, Keys())
    with pytest.raises(ScoreError, match="there is no file"):
        entry.read(tmp_path / f"none{entry.suffixes[0]}", Keys())


def test_other_programs_read_what_is_written(tmp_path: Path) -> None:
    table = made()
    for name in ("npz", "mat", "csv", "mmaction2"):
        SCORE_FORMATS.get(name).write(table, tmp_path / f"a{SCORE_FORMATS.get(name).suffixes[0]}")
    np.testing.assert_array_equal(np.load(tmp_path / "a.npz", allow_pickle=False)["values"], table.values)
    matlab = loadmat(tmp_path / "a.mat")
    np.testing.assert_array_equal(matlab["values"], table.values)
    assert matlab["ids"][3, 0][0] == table.ids[3]
    np.testing.assert_array_equal(matlab["labels"].ravel(), table.labels + 1)  # type: ignore[operator]
    rows = pickle.loads((tmp_path / "a.pkl").read_bytes())
    np.testing.assert_array_equal(np.stack(rows), table.values)


@pytest.mark.parametrize("style", ["1.x", "1.0", "0.x", "json"])
def test_results_of_mmaction2(style: str, tmp_path: Path) -> None:
    import torch

    table = made()
    entries: list[Any] = []
    for row, label in zip(table.values, table.labels.tolist(), strict=True):  # type: ignore[union-attr]
        if style == "1.x":
            entries.append({"pred_score": torch.tensor(row), "gt_label": torch.tensor([label]), "img_shape": (224, 224)})
        elif style == "1.0":
            entries.append({"pred_scores": {"item": torch.tensor(row)}, "gt_labels": {"item": torch.tensor([label])}})
        else:
            entries.append(row.copy() if style == "0.x" else row.tolist())
    path = tmp_path / ("r.json" if style == "json" else "r.pkl")
    path.write_bytes(json.dumps(entries).encode() if style == "json" else pickle.dumps(entries))
    spec = ImportSpec(kind="scores", rows="list")
    back = import_scores(path, spec, video_list(table)).table
    np.testing.assert_array_equal(back.values, table.values)
    np.testing.assert_array_equal(back.labels, table.labels)
    assert back.ids == table.ids
    other = video_list(table).subset([table.ids[1], table.ids[0], *table.ids[2:]])
    if style.startswith("1"):  # its own labels tell that this is not the list, or not its order
        with pytest.raises(AlignmentError, match="another label in the file than in the list"):
            import_scores(path, spec, other)
    with pytest.raises(AlignmentError, match="has 60 rows, the list 59 videos"):
        import_scores(path, spec, video_list(table).subset(table.ids[1:]))


class Bomb:
    def __reduce__(self) -> Any:
        return (eval, ("1/0",))


def test_results_that_would_run_code_are_refused(tmp_path: Path) -> None:
    (tmp_path / "r.pkl").write_bytes(pickle.dumps([{"pred_score": Bomb()}]))
    with pytest.raises(ScoreError, match=r"r\.pkl is not read: it asks for .*could run code"):
        import_scores(tmp_path / "r.pkl", ImportSpec(kind="scores", rows="numbered", columns="numbered"))
    np.savez(tmp_path / "o.npz", values=np.array([[Bomb()]], object))
    with pytest.raises(ScoreError, match="Python objects"):
        import_scores(tmp_path / "o.npz", ImportSpec(kind="scores"))


def test_probabilities_are_kept_as_their_logarithms(tmp_path: Path) -> None:
    table = made()
    chances = softmax(table.values, axis=1)
    np.savez(tmp_path / "p.npz", values=chances, ids=np.array(table.ids), classes=np.array(CLASSES))
    back = import_scores(tmp_path / "p.npz", ImportSpec(kind="probabilities")).table
    assert back.kind == "log_probs"
    np.testing.assert_allclose(np.exp(back.values), chances, rtol=1e-5)
    np.savez(tmp_path / "q.npz", values=table.values, ids=np.array(table.ids), classes=np.array(CLASSES))
    with pytest.raises(ScoreError, match="60 rows are no probabilities"):
        import_scores(tmp_path / "q.npz", ImportSpec(kind="probabilities"))
    with pytest.raises(AlignmentError, match="no more than by chance"):
        shuffled = np.random.default_rng(0).permutation(60)
        np.savez(tmp_path / "r.npz", values=table.values[shuffled], ids=np.array(table.ids), labels=table.labels)
        import_scores(tmp_path / "r.npz", ImportSpec(kind="scores"), None, CLASSES)
    with pytest.raises(SpecError, match="it is not guessed"):
        ImportSpec()


def test_exchanged_columns_are_noticed_when_labels_are_known(tmp_path: Path) -> None:
    table = made()
    order = [1, 0, 2, 3, 4]
    np.savez(tmp_path / "a.npz", values=table.values[:, order], ids=np.array(table.ids))
    with pytest.raises(AlignmentError, match=r"columns of climb, climb_stairs look as if .*2\d of their 24 videos"):
        import_scores(tmp_path / "a.npz", ImportSpec(kind="scores"), video_list(table), CLASSES)
    given = [CLASSES[place] for place in order]
    back = import_scores(tmp_path / "a.npz", ImportSpec(kind="scores"), video_list(table), given).table
    np.testing.assert_array_equal(back.rows(table.ids).values[:, order], table.values)
    accepted = import_scores(tmp_path / "a.npz", ImportSpec(kind="scores", accept_columns=True), video_list(table), CLASSES)
    assert any("accepted" in note for note in accepted.notes)
    assert misplaced(table.values, np.asarray(table.labels)) == []
    (pair,) = misplaced(table.values[:, [0, 1, 3, 2, 4]], np.asarray(table.labels))  # which no listing explains
    assert "jump and run look exchanged: of their 24 videos" in pair.words(CLASSES)
    np.savez(tmp_path / "c.npz", values=table.values, ids=np.array(table.ids))
    import_scores(tmp_path / "c.npz", ImportSpec(kind="scores"), video_list(table), CLASSES)


def test_columns_that_are_moved_on_are_noticed() -> None:
    table = made(seed=2)
    (group,) = misplaced(table.values[:, [0, 2, 3, 4, 1]], np.asarray(table.labels))
    assert sorted(group.columns) == [1, 2, 3, 4]
    assert "look moved among one another" in group.words(CLASSES)


def test_chance_is_not_taken_for_exchanged_columns() -> None:
    generator = np.random.default_rng(1)
    alarms = sum(bool(misplaced(generator.normal(size=(500, 20)), generator.integers(0, 20, 500))) for _ in range(50))
    assert alarms == 0


def test_names_are_spelt_as_the_list_spells_them_only_when_asked(tmp_path: Path) -> None:
    table = made()
    short = np.array([name.split("/")[1].removesuffix(".avi") for name in table.ids])
    np.savez(tmp_path / "a.npz", values=table.values, ids=short, classes=np.array(["Climb", "Climb Stairs", "Jump", "Run", "Wave"]))
    with pytest.raises(AlignmentError, match=r"--match.ids folder,suffix would make them equal"):
        import_scores(tmp_path / "a.npz", ImportSpec(kind="scores"), video_list(table))
    rules = NameRules(ids=("folder", "suffix"))
    with pytest.raises(AlignmentError, match=r"10 class names .*--match.classes case,spaces would"):
        import_scores(tmp_path / "a.npz", ImportSpec(kind="scores", match=rules), video_list(table))
    rules = NameRules(ids=("folder", "suffix"), classes=("case", "spaces"))
    imported = import_scores(tmp_path / "a.npz", ImportSpec(kind="scores", match=rules), video_list(table))
    assert imported.table.ids == table.ids
    assert imported.table.classes == CLASSES
    assert any("60 ids are spelt as the list spells them" in note for note in imported.notes)
    assert imported.table.source["import"]["match"] == {"ids": ["folder", "suffix"], "classes": ["case", "spaces"]}


def test_names_that_a_rule_makes_equal_are_an_error(tmp_path: Path) -> None:
    table = made()
    np.savez(tmp_path / "a.npz", values=table.values[:2], ids=np.array(["a/x.avi", "b/x.avi"]), classes=np.array(CLASSES))
    with pytest.raises(AlignmentError, match=r"'a/x.avi' and 'b/x.avi' would be one"):
        import_scores(tmp_path / "a.npz", ImportSpec(kind="scores", match=NameRules(ids=("folder",))), video_list(table))
    with pytest.raises(SpecError, match="may not differ in colour"):
        NameRules(ids=("colour",))


def test_what_a_file_lacks_is_asked_for(tmp_path: Path) -> None:
    values = made().values
    np.savez(tmp_path / "a.npz", values=values, other=values)
    with pytest.raises(ScoreError, match=r"holds 2 things that can be scores .*values, other; name one with --values"):
        import_scores(tmp_path / "a.npz", ImportSpec(kind="scores"))
    with pytest.raises(ScoreError, match="names no ids for its 60 rows"):
        import_scores(tmp_path / "a.npz", ImportSpec(kind="scores", values="other"))
    with pytest.raises(ScoreError, match="names no classes for its 5 columns"):
        import_scores(tmp_path / "a.npz", ImportSpec(kind="scores", values="other", rows="numbered"))
    with pytest.raises(ScoreError, match=r"no suffix of a score format"):
        import_scores(tmp_path / "a.xyz", ImportSpec(kind="scores"))
    savemat(tmp_path / "a.mat", {"s": values, "names": np.arange(60)})
    with pytest.raises(ScoreError, match="names is no cell array of text"):
        import_scores(tmp_path / "a.mat", ImportSpec(kind="scores", values="s", ids="names"))


def official(shared_data: Path) -> VideoList:
    return read_list(shared_data / "splits" / "hmdb51", fold=1)


def test_the_published_matlab_file(shared_data: Path) -> None:
    """Three pairs of its columns are exchanged against sorted class names; its rows are in its own list's order."""
    path, videos = shared_data / "scores" / "hmdb_idt_split1.mat", official(shared_data)
    alphabet = sorted((shared_data / "splits/hmdb51/class_list.txt").read_text().split())
    spec = {"kind": "decision_values", "values": "scores_idt", "ids": "vn_idt", "match": {"ids": ["folder", "suffix"]}}
    with pytest.raises(AlignmentError) as caught:
        import_scores(path, ImportSpec(**spec), videos, alphabet)
    moved = "climb, climb_stairs, kick, kick_ball, sword, sword_exercise"
    assert f"columns of {moved} look as if they stood in the order of a listing" in str(caught.value)
    assert "138 of their 180 videos score higher there; --columns listing" in str(caught.value)
    listed = import_scores(path, ImportSpec(**spec, columns="listing"), videos, alphabet).table
    own = spec | {"labels": "gt_idt", "first_label": 1}
    with pytest.raises(AlignmentError, match=r"number 6 is climb_stairs, not climb.*--columns labels"):
        import_scores(path, ImportSpec(**own), videos, alphabet)
    table = import_scores(path, ImportSpec(**own, columns="labels"), videos).table
    assert 100 * (table.values.argmax(axis=1) == table.labels).mean() == pytest.approx(56.73, abs=0.005)
    assert listed.classes == table.classes
    known = np.load(shared_data / "scores" / "hmdb51_split1.npz")
    row = {Path(name).stem: place for place, name in enumerate(table.ids)}
    rows = [row[name] for name in known["names"]]
    columns = [table.classes.index(name) for name in alphabet]
    np.testing.assert_allclose(table.values[np.ix_(rows, columns)], known["idt"], atol=1e-6)


@pytest.mark.parametrize("stream", ["rgb", "flow", "idt"])
def test_published_columns_in_order_raise_no_alarm(stream: str, shared_data: Path) -> None:
    for name in ("ucf101_split1", "hmdb51_split1", "hmdb51_split2"):
        data = np.load(shared_data / "scores" / f"{name}.npz")
        assert misplaced(data[stream], data["labels"]) == []
        assert not knows_nothing(data[stream], data["labels"])
    classes = sorted((shared_data / "splits/hmdb51/class_list.txt").read_text().split())
    assert looks_listed(data[stream], data["labels"], classes) == ""


@pytest.mark.parametrize("kind", ["float64", "float32", "uint8", "int32"])
def test_labels_may_be_numbers_of_any_type(kind: str, tmp_path: Path) -> None:
    table = made()
    arrays = {"values": table.values, "ids": np.array(table.ids), "classes": np.array(CLASSES)}
    np.savez(tmp_path / "a.npz", **arrays, labels=(table.labels + 1).astype(kind))  # type: ignore[operator]
    for videos in (None, video_list(table)):
        back = import_scores(tmp_path / "a.npz", ImportSpec(kind="scores", first_label=1), videos).table
        np.testing.assert_array_equal(back.labels, table.labels)  # type: ignore[arg-type]
    with pytest.raises(AlignmentError, match="labels are 1 to 5, which are no positions of 5 classes counted from 0"):
        import_scores(tmp_path / "a.npz", ImportSpec(kind="scores"))
    np.savez(tmp_path / "a.npz", **arrays, labels=table.labels.astype(kind))  # type: ignore[union-attr]
    with pytest.raises(AlignmentError, match="labels are 0 to 4, which are no positions of 5 classes counted from 1"):
        import_scores(tmp_path / "a.npz", ImportSpec(kind="scores", first_label=1))
    for wrong in (0.5, np.nan):
        np.savez(tmp_path / "a.npz", **arrays, labels=table.labels + wrong)
        with pytest.raises(ScoreError, match="labels is no vector of whole numbers"):
            import_scores(tmp_path / "a.npz", ImportSpec(kind="scores"))


@pytest.mark.parametrize("kind", ["scores", "decision_values"])
def test_probabilities_that_are_called_scores_are_refused(kind: str, tmp_path: Path) -> None:
    table = made()
    np.savez(tmp_path / "a.npz", values=softmax(table.values, axis=1), ids=np.array(table.ids), classes=np.array(CLASSES))
    with pytest.raises(ScoreError, match=r"all 60 rows are 0 or more and sum to 1.*--kind probabilities"):
        import_scores(tmp_path / "a.npz", ImportSpec(kind=kind))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id;a;b\nv0;1;2\n", "has one column, 'id;a;b'; cells must be set apart by commas"),
        ("id\ta\tb\nv0\t1\t2\n", "has one column"),
        ("id,a,b\n\nv0,1,2\n\nv1,1\n", "line 5 has 2 cells, the first line 3$"),
        ("id,a,b\n\nv0,1\nv1,1\n", r"line 3 has 2 cells, the first line 3 \(2 such lines\)"),
        ('id,a,b\n\n"v\n0",1,x\n', "line 4, column b: 'x' is no number"),
        ("id,label,a,b\nv0,a,1,2\nv1,,1,2\n", r"1 of 2 videos have no label \(first: 'v1'\); label all or none"),
    ],
)
def test_what_is_wrong_in_a_csv_is_told_with_its_line(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ScoreError, match=words):
        import_scores(tmp_path / "a.csv", ImportSpec(kind="scores"))


def test_results_without_the_ids_that_were_asked_for(tmp_path: Path) -> None:
    for entries, words in (
        ([{"pred_score": [1.0, 2.0], "id": "a"}, {"pred_score": [1.0, 2.0]}], "pred_score"),
        ([[1.0, 2.0]], "scores alone"),
    ):
        (tmp_path / "a.json").write_text(json.dumps(entries))
        with pytest.raises(ScoreError, match=f"entry {len(entries) - 1} has no text 'id' for --ids; it has {words}; see --rows list"):
            import_scores(tmp_path / "a.json", ImportSpec(kind="scores", ids="id"))


def test_files_that_unpack_to_too_much_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import store.score_formats.mat as mat
    import store.score_formats.npz as npz

    table = made()
    cells = np.array(["x" * 10_000] * 60, object)
    savemat(tmp_path / "a.mat", {"values": table.values, "ids": cells[:, None]}, do_compression=True)
    np.savez_compressed(tmp_path / "a.npz", values=table.values, ids=np.array(["x" * 10_000] * 60))
    assert (tmp_path / "a.mat").stat().st_size < 20_000
    assert mat.unpacked_bytes((tmp_path / "a.mat").read_bytes()) > 600_000
    for module in (mat, npz):
        monkeypatch.setattr(module, "MAX_BYTES", 500_000)
    for name, words in (("a.mat", "more than 500000 bytes unpacked"), ("a.npz", "bytes unpacked; at most 500000 are read")):
        with pytest.raises(ScoreError, match=words):
            import_scores(tmp_path / name, ImportSpec(kind="scores", values="values"))


def test_what_a_format_has_no_use_for_or_lacks_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,a,b\nv0,1,2\n")
    for keys, flag in (({"values": "x"}, "--values"), ({"class_key": "x"}, "--class-key")):
        with pytest.raises(ScoreError, match=f"is a CSV: .*leave {flag} away"):
            import_scores(tmp_path / "a.csv", ImportSpec(kind="scores", **keys))  # type: ignore[arg-type]
    entries: list[Any] = [{"pred_score": [1.0, 2.0], "y": 1}, {"pred_score": [1.0, 2.0], "y": [0, 1]}]
    for held, number in ((entries, 1), ([[1.0, 2.0]], 1)):
        (tmp_path / "a.json").write_text(json.dumps(held))
        with pytest.raises(ScoreError, match=f"{number} of {len(held)} entries have no single whole number 'y' for --labels"):
            import_scores(tmp_path / "a.json", ImportSpec(kind="scores", labels="y", rows="numbered", columns="numbered"))
