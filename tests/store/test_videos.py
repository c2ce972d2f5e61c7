"""Video lists: the kinds that can be read, what survives a CSV file, and that all problems are told at once with their places."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from store.errors import ListError, SpecError
from store.videos import Video, VideoList, find_kind, read_list, write_csv


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        write(folder / name, "")
    return folder


def small_list() -> VideoList:
    rows = [
        ("b/x.avi", "run", "train", "g1"),
        ("a/x.avi", "walk", "test", "g2"),
        ("c,d/ü.avi", "run", "", ""),
        ("e.avi", None, "val", "g1"),
    ]
    return VideoList(tuple(Video(name, Path("/videos", name), label, split, group) for name, label, split, group in rows), ("walk", "run"))


def test_labels_are_places_in_the_class_order() -> None:
    assert small_list().subset(["a/x.avi", "b/x.avi"]).labels().tolist() == [0, 1]
    assert small_list().select("train").labels().dtype == np.int64
    with pytest.raises(ListError, match=r"1 of 4 videos have no label: e.avi"):
        small_list().labels()


def test_parts_of_a_list_keep_its_classes_and_are_disjoint() -> None:
    videos = small_list()
    assert videos.select("test").ids == ["a/x.avi"]
    assert videos.select("").classes == videos.classes
    assert videos.subset(["e.avi", "b/x.avi"]).ids == ["e.avi", "b/x.avi"]
    assert videos.groups() == {"g1": ["b/x.avi", "e.avi"], "g2": ["a/x.avi"]}
    parts = [videos.part(index, 3).ids for index in (1, 2, 3)]
    assert parts == [["b/x.avi", "e.avi"], ["a/x.avi"], ["c,d/ü.avi"]]
    assert [len(videos.part(index, 9)) for index in range(1, 10)] == [1, 1, 1, 1, 0, 0, 0, 0, 0]


def test_what_a_list_does_not_hold_is_named() -> None:
    videos = small_list()
    with pytest.raises(ListError, match=r"2 of 3 ids are not in this list of 4 videos: x.avi, y"):
        videos.subset(["x.avi", "e.avi", "y"])
    with pytest.raises(ListError, match=r"1 of 1 ids are not in this list"):
        videos.by_id("x.avi")
    with pytest.raises(ListError, match=r"no split 'validation'; splits are train, val, test"):
        videos.select("validation")
    for index, count in ((0, 3), (4, 3), (1, 0)):
        with pytest.raises(SpecError, match=rf"part {index}/{count}: parts are counted from 1"):
            videos.part(index, count)


def test_one_name_in_two_folders_is_two_videos(tmp_path: Path) -> None:
    videos = read_list(touch(tmp_path, "run/x.avi", "walk/x.avi"))
    assert videos.ids == ["run/x.avi", "walk/x.avi"]
    assert [video.path.is_file() for video in videos] == [True, True]


def test_csv_columns_in_any_order_with_mark_crlf_quotes_and_blank_lines(tmp_path: Path) -> None:
    text = 'split, label, path\r\n\r\ntrain,run,"a,b/x.avi"\r\n,,\r\ntest, walk,./c//y.avi\r\n'
    videos = read_list(write(tmp_path / "list.csv", text, "utf-8-sig"))
    assert videos.videos == (
        Video("a,b/x.avi", tmp_path / "a,b/x.avi", "run", "train"),
        Video("c/y.avi", tmp_path / "c/y.avi", "walk", "test"),
    )
    assert videos.classes == ("run", "walk")


def test_ids_and_paths_stand_for_one_another(tmp_path: Path) -> None:
    only_ids = read_list(write(tmp_path / "ids.csv", "id\na/x.avi\nb\n"))
    assert only_ids.videos == (Video("a/x.avi", tmp_path / "a/x.avi"), Video("b", tmp_path / "b"))
    absolute = read_list(write(tmp_path / "abs.csv", f"path\n{tmp_path}/a/x.avi\n"))
    assert absolute.ids == ["a/x.avi"]
    elsewhere = read_list(write(tmp_path / "both.csv", "id,path\none,/elsewhere/x.avi\ntwo,../y.avi\n"))
    assert [os.fspath(video.path) for video in elsewhere] == ["/elsewhere/x.avi", f"{tmp_path}/../y.avi"]
    rooted = read_list(write(tmp_path / "rooted.csv", "path\nx.avi\n"), root=tmp_path / "videos")
    assert rooted.videos == (Video("x.avi", tmp_path / "videos/x.avi"),)


def test_all_problems_are_told_at_once_with_their_lines(tmp_path: Path) -> None:
    text = (
        "id,path,label,split,group\n"
        "a,a.avi,run,train,g\n"
        "a,b.avi,run,train,g\n"
        "c,./a.avi,run,train,g\n"
        "d,d.avi,run,Training,g\n"
        "e,e.avi,runn,train,g\n"
        "f,f.avi,run\n"
        "\n"
        ",../g.avi,run,train,g\n"
        "../h,,run,train,g\n"
        ",,run,train,g\n"
        "k ,k.avi,run,train,g\n"
        '"l\nl",l.avi,run,train,g\n'
        "m,m.avi,run,train,g \n"
    )
    classes = write(tmp_path / "classes.txt", "walk\nrun\n")
    with pytest.raises(ListError) as caught:
        read_list(write(tmp_path / "list.csv", text), classes=classes)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'list.csv'} has 11 problems:\n")
    for words in (
        "line 3: id 'a' is the id at line 2 too; ids must be unique",
        f"line 4: path '{tmp_path / 'a.avi'}' is the file at line 2 too",
        "line 5: split 'Training' is not one of train, val, test, or empty; did you mean 'train'?",
        "line 6: label 'runn' is not one of the 2 classes; did you mean 'run'?",
        "line 7: 3 cells; the header has 5",
        "line 9: path '../g.avi' is not below",
        "line 10: id '../h' leaves the list's folder",
        "line 11: has neither id nor path",
        "line 12: id 'k ' has white space at an end",
        "line 13: id 'l\\nl' holds control characters",
        "line 15: group 'g ' has white space at an end",
    ):
        assert words in message


def test_many_problems_are_cut(tmp_path: Path) -> None:
    with pytest.raises(ListError) as caught:
        read_list(write(tmp_path / "list.csv", "id,split\n" + "".join(f"v{n},Test\n" for n in range(232))))
    assert str(caught.value).splitlines()[0].endswith("has 232 problems:")
    assert str(caught.value).splitlines()[-1] == "  ... and 212 more"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", r"list.csv has 1 problem:\n  is empty; the first line names the columns"),
        ("id,label\n", r"lists no videos"),
        ("Id,lable,score\nx,y,1\n", r"(?s)unknown column 'Id'; did you mean 'id'.*'lable'; did you mean 'label'.*'score'; known: id, path"),
        ("label,split\nrun,train\n", r"line 1: there is no column 'id' and no column 'path'"),
        ("id;path\nx;y\n", r"unknown column 'id;path'"),
        ("id,id\nx,y\n", r"column 'id' is there more than once"),
        ('id\n"x\n', r"line 2: is not CSV: unexpected end of data"),
        ("id\nx\0y\n", r"holds control characters"),
        ("id,path\nx,y\0z\n", r"white space at an end or a NUL"),
    ],
)
def test_files_that_are_no_list(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ListError, match=words):
        read_list(write(tmp_path / "list.csv", text))


def test_text_in_another_encoding_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ListError, match=r"list.csv is not UTF-8 text \(invalid start byte at byte 3\)"):
        read_list(write(tmp_path / "list.csv", "id\nü.avi\n", "latin-1"))


def test_a_list_with_strange_members_cannot_be_made() -> None:
    videos = small_list().videos
    with pytest.raises(ListError) as caught:
        VideoList((videos[0], videos[0], dataclasses.replace(videos[1], split="dev"), Video("", Path("x"))), ("run", "run", " swim"))
    for words in (
        "class 'run' is listed more than once",
        "class ' swim' has white space",
        "video 2: id 'b/x.avi' is the id at video 1 too",
    ):
        assert words in str(caught.value)
    for words in ("video 3: label 'walk' is not one of", "video 3: split 'dev'", "video 4: id '' is empty"):
        assert words in str(caught.value)
    with pytest.raises(ListError, match=r"is not Unicode \(a file name that is not UTF-8\?\)"):
        VideoList((Video("\udcff.avi", Path("x")),), ())


def test_csv_gives_back_an_equal_list(tmp_path: Path) -> None:
    inside = Video("zz", tmp_path / "deep/z.avi", "walk", "test", "film, with a comma")
    videos = VideoList((*small_list().videos, inside), ("walk", "run", "never seen"))
    write_csv(videos, tmp_path / "list.csv")
    assert read_list(tmp_path / "list.csv") == videos
    assert (tmp_path / "list.csv").read_text().splitlines()[-1] == 'zz,deep/z.avi,walk,test,"film, with a comma"'
    assert (tmp_path / "list.classes.txt").read_text().splitlines() == ["walk", "run", "never seen"]


def test_a_class_file_of_an_earlier_list_does_not_stay(tmp_path: Path) -> None:
    write_csv(small_list(), tmp_path / "list.csv")
    again = VideoList((Video("x", tmp_path / "x", "jump"),), ("jump",))
    write_csv(again, tmp_path / "list.csv")
    assert read_list(tmp_path / "list.csv") == again


def test_sorted_classes_need_no_second_file(tmp_path: Path) -> None:
    write_csv(VideoList((Video("x", tmp_path / "x", "jump"),), ("jump",)), tmp_path / "list.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["list.csv"]


def test_class_files_with_and_without_numbers(tmp_path: Path) -> None:
    source = write(tmp_path / "list.csv", "id,label\na,run\n")
    for text in ("walk\nrun \n", "1 walk\r\n2 run\r\n", "1 run\n0 walk\n"):
        assert read_list(source, classes=write(tmp_path / "order", text)).classes == ("walk", "run")
    for text, words in (
        ("1 walk\n3 run\n", "numbered 1 to 3, but there are 2"),
        ("run\nrun\n", "'run' is listed more than once"),
        ("\n", "no class"),
    ):
        with pytest.raises(ListError, match=words):
            read_list(source, classes=write(tmp_path / "order", text))


def test_text_lists_have_a_path_a_line(tmp_path: Path) -> None:
    videos = read_list(write(tmp_path / "list.txt", "a/x y.avi\r\n\r\n b.avi\r\n"))
    assert videos.ids == ["a/x y.avi", "b.avi"]
    assert videos.classes == ()
    with pytest.raises(ListError, match=r"line 2: path '\.\./x' is not below"):
        read_list(write(tmp_path / "list.txt", "a\n../x\n"))


def test_missing_files_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.avi", "frames/1.jpg")
    assert read_list(write(tmp_path / "list.txt", "a.avi\nframes\nb.avi\n")).missing_files() == ["b.avi"]


def test_a_folder_per_class(tmp_path: Path) -> None:
    touch(tmp_path, "run/1.avi", "run/deep/2.MP4", "run/.hidden.avi", "run/notes.txt", "walk/frames/img_2.jpg", "walk/frames/img_1.jpg")
    touch(tmp_path, ".cache/x/1.avi", "readme.txt")
    videos = read_list(tmp_path)
    assert [(video.id, video.label) for video in videos] == [("run/1.avi", "run"), ("run/deep/2.MP4", "run"), ("walk/frames", "walk")]
    assert videos.classes == ("run", "walk")
    assert not videos.missing_files()


def test_folders_called_like_splits_are_splits(tmp_path: Path) -> None:
    videos = read_list(touch(tmp_path, "train/run/1.avi", "test/run/1.avi", "val/walk/2.avi"))
    assert [(video.id, video.label, video.split) for video in videos] == [
        ("test/run/1.avi", "run", "test"),
        ("train/run/1.avi", "run", "train"),
        ("val/walk/2.avi", "walk", "val"),
    ]


def test_links_are_followed_once(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere", "1.avi")
    (tmp_path / "root" / "run").mkdir(parents=True)
    (tmp_path / "root" / "walk").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "run" / "loop").symlink_to(tmp_path / "root")
    touch(tmp_path / "root", "run/2.avi")
    assert read_list(tmp_path / "root").ids == ["run/2.avi", "walk/1.avi"]


def test_folders_that_are_no_list(tmp_path: Path) -> None:
    touch(tmp_path, "run/1.avi", "stray.avi", "walk/1.xyz", "walk/2.xyz")
    (tmp_path / "jump").mkdir()
    with pytest.raises(ListError) as caught:
        read_list(tmp_path)
    for words in (
        "stray.avi: lies beside the class folders",
        "walk: holds no video (2 x .xyz); known: .3gp",
        "jump: holds no video (it is empty)",
    ):
        assert words in str(caught.value)
    with pytest.raises(ListError, match="has no folder per class with videos in it"):
        read_list(tmp_path / "jump")


def test_a_folder_that_cannot_be_read_is_not_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "run/1.avi", "walk/deep/1.avi")
    scan = os.scandir

    def forbid(path: str) -> object:
        if os.fspath(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", forbid)
    with pytest.raises(ListError, match="walk/deep cannot be read: Permission denied"):
        read_list(tmp_path)


def test_labels_and_groups_from_file_names(tmp_path: Path) -> None:
    touch(tmp_path, "0_1_4.avi", "10_2_1.avi", "deep/3_1_1.avi")
    names = {"1": "hug", "4": "punch", "0": "shake hands"}
    videos = read_list(tmp_path, pattern=r"(?:.*/)?\d+_(?P<group>\d+)_(?P<label>\d)\.avi", class_names=names)
    assert [(video.id, video.label, video.group) for video in videos] == [
        ("0_1_4.avi", "punch", "1"),
        ("10_2_1.avi", "hug", "2"),
        ("deep/3_1_1.avi", "hug", "1"),
    ]
    assert videos.classes == ("hug", "punch", "shake hands")
    assert read_list(tmp_path, pattern=r".*_(?P<label>\d)\.avi").classes == ("1", "4")


def test_names_that_do_not_fit_the_pattern_are_problems(tmp_path: Path) -> None:
    touch(tmp_path, "0_1_4.avi", "10_2_1.avi", "extra.avi")
    with pytest.raises(ListError) as caught:
        read_list(tmp_path, pattern=r"\d+_\d+_(?P<label>\d)\.avi", class_names={"1": "hug"})
    assert "0_1_4.avi: label '4' is not among the class names given: 1" in str(caught.value)
    assert "extra.avi: does not match" in str(caught.value)
    with pytest.raises(SpecError, match=r"names a group 'lable'; did you mean 'label'\?"):
        read_list(tmp_path, pattern=r"(?P<lable>\d)")
    with pytest.raises(SpecError, match="is not a regular expression: missing"):
        read_list(tmp_path, pattern="(")


def test_settings_without_a_use_are_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "list.csv", "id\nx\n")
    touch(tmp_path, "a/x.avi")
    for settings, words in (
        ({"fold": 2}, "kind csv has no folds"),
        ({"pattern": "x"}, "kind csv takes no --pattern"),
        ({"class_names": {"0": "a"}}, "kind csv takes none"),
        ({"kind": "tsv"}, "no kind of list 'tsv'; kinds: auto, csv"),
    ):
        with pytest.raises(SpecError, match=words):
            read_list(source, **settings)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="leave --root away"):
        read_list(tmp_path, root=tmp_path)
    with pytest.raises(SpecError, match="kind pattern needs a --pattern"):
        read_list(tmp_path, kind="pattern")
    with pytest.raises(ListError, match=r"is not a folder, as a list of kind ucf101 must be"):
        read_list(source, kind="ucf101")


def test_what_a_source_is(tmp_path: Path) -> None:
    with pytest.raises(ListError, match=r"there is no video list .*nothing.csv"):
        read_list(tmp_path / "nothing.csv")
    with pytest.raises(ListError, match=r"its suffix is '.json', not .csv or .txt; say what it is with --kind"):
        read_list(write(tmp_path / "list.json", "{}"))
    assert read_list(write(tmp_path / "list", "id\nx\n"), kind="csv").ids == ["x"]
    assert find_kind(write(tmp_path / "LIST.CSV", "")) == "csv"
    assert find_kind(touch(tmp_path / "u", "classInd.txt")) == "ucf101"
    assert find_kind(touch(tmp_path / "h", "wave_test_split1.txt")) == "hmdb51"
    assert find_kind(tmp_path / "h", "pattern") == "pattern"
