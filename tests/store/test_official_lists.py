"""The official lists of UCF-101 and HMDB-51, as published and with every kind of damage."""

from collections import Counter
from pathlib import Path

import pytest

from store.errors import ListError
from store.videos import read_list, write_csv

UCF_COUNTS = {1: (9537, 3783), 2: (9586, 3734), 3: (9624, 3696)}  # as published with the data set
UCF_TEST_SCENES = {1: range(1, 8), 2: range(8, 15), 3: range(15, 22)}


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.txt").write_bytes(text.replace("\n", "\r\n").encode())
    return folder


def ucf(folder: Path, **changes: str) -> Path:
    files = {
        "classInd": "1 Zumba\n2 HandstandPushups\n",
        "trainlist01": "Zumba/v_Zumba_g08_c01.avi 1\nHandstandPushups/v_HandStandPushups_g08_c01.avi 2\n\n",
        "testlist01": "HandstandPushups/v_HandStandPushups_g01_c01.avi\n",
    }
    return write(folder / "ucf", **(files | changes))


def hmdb(folder: Path, **changes: str) -> Path:
    files = {
        "wave_test_split1": "Film_A_wave_f_nm_np1_fr_med_0.avi 1 \nFilm_B_wave_u_cm_np2_ba_goo_1.avi 0 \n",
        "kick_ball_test_split1": "Film_A_kick_ball_f_cm_np1_le_bad_12.avi 2 \n",
    }
    return write(folder / "hmdb", **(files | changes))


def test_ucf101_label_scene_and_spelling(tmp_path: Path) -> None:
    videos = read_list(ucf(tmp_path), root=tmp_path / "UCF-101")
    assert videos.classes == ("Zumba", "HandstandPushups")  # the order of classInd.txt
    assert [(video.id, video.label, video.split, video.group) for video in videos] == [
        ("Zumba/v_Zumba_g08_c01.avi", "Zumba", "train", "g08"),
        ("HandstandPushups/v_HandStandPushups_g08_c01.avi", "HandstandPushups", "train", "g08"),
        ("HandstandPushups/v_HandStandPushups_g01_c01.avi", "HandstandPushups", "test", "g01"),
    ]
    assert videos.videos[0].path == tmp_path / "UCF-101" / "Zumba" / "v_Zumba_g08_c01.avi"


def test_ucf101_problems_of_all_lists_at_once(tmp_path: Path) -> None:
    train = (
        "Zumba/v_Zumba_g08_c01.avi 2\n"
        "HandStandPushups/v_HandStandPushups_g08_c01.avi 2\n"
        "Zumba/v_Yoga_g08_c01.avi 1\n"
        "v_Zumba_g08_c02.avi 1\n"
        "Zumba/../v_Zumba_g08_c03.avi 1\n"
        "Zumba/zumba8.avi 1\n"
    )
    with pytest.raises(ListError) as caught:
        read_list(ucf(tmp_path, trainlist01=train, testlist01="Zumba/v_Zumba_g08_c01.avi\n"))
    for words in (
        "trainlist01.txt line 1: Zumba/v_Zumba_g08_c01.avi is numbered 2, but Zumba has the number 1 in the class list",
        "trainlist01.txt line 2: label 'HandStandPushups' is not one of the 2 classes; did you mean 'HandstandPushups'?",
        "trainlist01.txt line 3: 'Zumba/v_Yoga_g08_c01.avi': the folder says Zumba, the file Yoga",
        "trainlist01.txt line 4: 'v_Zumba_g08_c02.avi' is not class/file",
        "trainlist01.txt line 5: 'Zumba/../v_Zumba_g08_c03.avi' is not class/file",
        "trainlist01.txt line 6: 'zumba8.avi' is not v_<action>_g<scene>_c<clip>.avi",
        "testlist01.txt line 1: id 'Zumba/v_Zumba_g08_c01.avi' is the id at trainlist01.txt line 1 too",
    ):
        assert words in str(caught.value)


def test_a_fold_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ListError, match=r"ucf has no trainlist02.txt; it has lists of the folds 1"):
        read_list(ucf(tmp_path), fold=2)
    with pytest.raises(ListError, match=r"(?s)hmdb has no kick_ball_test_split3.txt; it has lists of the folds 1.*wave_test_split3"):
        read_list(hmdb(tmp_path), fold=3)


def test_hmdb51_flags_and_films(tmp_path: Path) -> None:
    videos = read_list(hmdb(tmp_path))
    assert videos.classes == ("kick_ball", "wave")
    assert [(video.id, video.label, video.split, video.group) for video in videos] == [
        ("kick_ball/Film_A_kick_ball_f_cm_np1_le_bad_12.avi", "kick_ball", "test", "Film_A"),
        ("wave/Film_A_wave_f_nm_np1_fr_med_0.avi", "wave", "train", "Film_A"),
        ("wave/Film_B_wave_u_cm_np2_ba_goo_1.avi", "wave", "", "Film_B"),
    ]


def test_hmdb51_problems(tmp_path: Path) -> None:
    lines = "Film_A_wave_f_nm_np1_fr_med_0.avi 3\nwave.avi 1\nFilm_A_run_f_nm_np1_fr_med_0.avi 1\n../x_wave_f_nm_np1_fr_med_0.avi 1\nx\n"
    with pytest.raises(ListError) as caught:
        read_list(hmdb(tmp_path, wave_test_split1=lines))
    for words in (
        "wave_test_split1.txt line 1: 'Film_A_wave_f_nm_np1_fr_med_0.avi 3' does not end in a flag 0, 1 or 2",
        "wave_test_split1.txt line 2: 'wave.avi' is not <film>_wave_",
        "wave_test_split1.txt line 3: 'Film_A_run",
        "wave_test_split1.txt line 4: '../x_wave",
        "wave_test_split1.txt line 5: 'x' does not end in a flag",
    ):
        assert words in str(caught.value)


@pytest.mark.parametrize("fold", [1, 2, 3])
def test_ucf101_as_published(shared_data: Path, tmp_path: Path, fold: int) -> None:
    folder = shared_data / "splits" / "ucf101"
    videos = read_list(folder, fold=fold)
    train, test = videos.select("train"), videos.select("test")
    assert (len(train), len(test), len(videos), len(videos.classes)) == (*UCF_COUNTS[fold], 13320, 101)
    assert set(test.groups()) == {f"g{number:02}" for number in UCF_TEST_SCENES[fold]}
    assert len(videos.groups()) == 25
    assert not set(train.groups()) & set(test.groups())
    given = [line.split() for line in (folder / f"trainlist0{fold}.txt").read_text().splitlines() if line]
    assert train.ids == [name for name, _ in given]
    assert (train.labels() + 1).tolist() == [int(number) for _, number in given]
    pushups = [video for video in videos if video.label == "HandstandPushups"]
    assert len(pushups) == 128
    assert all(video.id.startswith("HandstandPushups/v_HandStandPushups_g") for video in pushups)
    write_csv(videos, tmp_path / "list.csv")
    assert read_list(tmp_path / "list.csv", root=folder) == videos


@pytest.mark.parametrize("fold", [1, 2, 3])
def test_hmdb51_as_published(shared_data: Path, fold: int) -> None:
    videos = read_list(shared_data / "splits" / "hmdb51", fold=fold)
    train, test = videos.select("train"), videos.select("test")
    assert (len(videos), len(videos.classes), len(videos.select(""))) == (6766, 51, 6766 - 51 * 100)
    assert set(Counter(train.labels().tolist()).values()) == {70}
    assert set(Counter(test.labels().tolist()).values()) == {30}
    for name in videos.classes:  # within a class no film is on both sides
        films = [{video.group for video in part if video.label == name} for part in (train, test)]
        assert not films[0] & films[1]


def test_hmdb51_is_in_the_order_of_the_published_label_map(shared_data: Path) -> None:
    names = (shared_data / "splits" / "mmaction2_labels" / "hmdb51_label_map.txt").read_text().split()
    assert read_list(shared_data / "splits" / "hmdb51").classes == tuple(names)


def test_ut_interaction_from_its_file_names(shared_data: Path) -> None:
    names = {str(code): name for code, name in enumerate(("shake_hands", "hug", "kick", "point", "punch", "push"))}
    pattern = r"\d+_(?P<group>\d+)_(?P<label>\d)\.avi"
    videos = read_list(shared_data / "videos" / "ut_interaction" / "set1", pattern=pattern, class_names=names)
    assert Counter(videos.labels().tolist()) == dict.fromkeys(range(6), 10)
    sizes = {group: len(ids) for group, ids in videos.groups().items()}
    assert sizes == {str(number): 6 for number in range(1, 11)} | {"6": 5, "8": 7}  # sequence 6 has no punch, sequence 8 has two
    assert videos.by_id("10_2_1.avi").label == "hug"
    assert not videos.missing_files()
