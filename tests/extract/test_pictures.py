"""Pictures of videos: one file a video, inside the folder, whatever the ids are."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from extract.pictures import write_strips
from store.errors import SpecError
from store.videos import Video, VideoList


def test_an_id_too_long_for_a_file_name_fails_alone(tmp_path: Path, encode_video: Callable[..., Path]) -> None:
    path = encode_video(tmp_path / "v.mp4", np.zeros((4, 48, 64, 3), np.uint8))
    failed = write_strips(VideoList((Video("x" * 1000, path), Video("b", path)), ()), tmp_path / "out")
    assert list(failed) == ["x" * 1000]
    assert "cannot be written into" in failed["x" * 1000]
    assert "too long" in failed["x" * 1000]
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["b.jpg"]


@pytest.mark.parametrize("name", ["../b", "/b", "a/../../b"])
def test_an_id_that_leads_out_is_refused_before_anything_is_written(tmp_path: Path, encode_video: Callable[..., Path], name: str) -> None:
    path = encode_video(tmp_path / "v.mp4", np.zeros((4, 48, 64, 3), np.uint8))
    with pytest.raises(SpecError, match="leads out of"):
        write_strips(VideoList((Video("a", path), Video(name, path)), ()), tmp_path / "out")
    assert not (tmp_path / "out").exists()
