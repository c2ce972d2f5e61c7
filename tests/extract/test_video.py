"""Decoding against reference frames, numbers painted on frames, OpenCV, and a zoo of bad files."""

import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from extract.spec import DecodeSpec
from extract.video import VideoSource, open_source, resample_indices
from extract.video_file import frame_times
from extract.video_folder import frame_files
from store.errors import DecodeError

PLAIN = DecodeSpec()
PARTIAL = DecodeSpec(partial=True)
Encode = Callable[..., Path]
Frames = Callable[..., list[np.ndarray]]
Number = Callable[[np.ndarray], int]


def everything(source: VideoSource) -> list[np.ndarray]:
    return list(source.frames(np.arange(source.num_frames)))


def reason(path: Path, spec: DecodeSpec = PLAIN) -> str:
    """The words with which a file is refused."""
    with pytest.raises(DecodeError) as caught, open_source(path, spec) as source:
        everything(source)
    assert str(path) in str(caught.value)
    return str(caught.value)


def cut_short(path: Path, share: float, target: Path) -> Path:
    data = path.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return target


# Frames and their numbers


def test_reference_frames_are_bit_identical(shared_data: Path) -> None:
    folder = shared_data / "videos" / "torchcodec"
    wanted = [0, 1, 25, 35]
    for stream in (None, 3):  # FFmpeg's best stream is the reference's, too
        with open_source(folder / "nasa_13013.mp4", PLAIN, stream=stream) as source:
            assert (source.num_frames, source.height, source.width) == (390, 270, 480)
            for number, frame in zip(wanted, source.frames(np.array(wanted)), strict=True):
                reference = torch.load(folder / f"nasa_13013.mp4.stream3.frame{number:06d}.pt", weights_only=True)
                assert np.array_equal(frame, reference.numpy())


def test_another_stream(shared_data: Path) -> None:
    path = shared_data / "videos" / "torchcodec" / "nasa_13013.mp4"
    with open_source(path, PLAIN, stream=0) as source:
        assert (source.num_frames, source.height, source.width) == (325, 180, 320)
    with pytest.raises(DecodeError, match=r"stream 1 is not a video stream; streams: 0 video, 1 audio"), open_source(path, PLAIN, stream=1):
        pass


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("b.mp4", "libx264", {"bf": "3", "g": "12"}),
        ("b.mkv", "libx264", {"bf": "3", "g": "250"}),
        ("b.avi", "mpeg4", {"bf": "2"}),
        ("p.avi", "mpeg4", {}),
        ("b.mp4", "mpeg4", {"bf": "2"}),
        ("b.mpg", "mpeg2video", {"bf": "2"}),
        ("b.webm", "libvpx-vp9", {}),
        ("b.ts", "libx264", {"bf": "3"}),
        ("b.flv", "libx264", {"bf": "3"}),
    ],
)
@pytest.mark.parametrize("draft", [False, True])
def test_every_frame_in_order(
    name: str,
    codec: str,
    options: dict[str, str],
    draft: bool,
    tmp_path: Path,
    encode_video: Encode,
    numbered_frames: Frames,
    painted_number: Number,
) -> None:
    path = encode_video(tmp_path / name, numbered_frames(100), codec=codec, options=options)
    with open_source(path, PLAIN, draft=draft) as source:
        assert source.num_frames == 100
        assert source.is_draft == draft
        assert [painted_number(frame) for frame in everything(source)] == list(range(100))
        picked = np.array([0, 1, 13, 57, 98, 99])
        assert [painted_number(frame) for frame in source.frames(picked)] == picked.tolist()
        assert list(source.frames(np.array([], np.int64))) == []
        np.testing.assert_allclose(source.times, np.arange(100) / 25, atol=2e-3)  # FLV and Matroska count milliseconds
        assert source.end == pytest.approx(4, abs=2e-3)
        assert source.fps == pytest.approx(25, rel=1e-3)


def test_wrong_indices_are_refused(tmp_path: Path, encode_video: Encode, numbered_frames: Frames) -> None:
    with open_source(encode_video(tmp_path / "a.mp4", numbered_frames(3)), PLAIN) as source:
        for wrong in ([0, 3], [-1], [1, 0], [1, 1]):
            with pytest.raises(IndexError, match="from 0 to 2"):
                list(source.frames(np.array(wrong)))


def test_a_file_that_changes_underneath(tmp_path: Path, encode_video: Encode, numbered_frames: Frames) -> None:
    path = encode_video(tmp_path / "a.mp4", numbered_frames(50))
    with open_source(path, PLAIN) as source:
        path.write_bytes(encode_video(tmp_path / "b.mp4", numbered_frames(20)).read_bytes())
        with pytest.raises(DecodeError, match=r"frame 20 decoded at first but not the second time; has the file changed"):
            everything(source)


@pytest.mark.parametrize(
    "name", ["torchvision_assets/v_SoccerJuggling_g23_c01.avi", "arm_wrestling.mp4", "kth/person01_boxing_d1_uncomp.avi"]
)
def test_opencv_decodes_the_same(name: str, shared_data: Path) -> None:
    path = shared_data / "videos" / name
    capture = cv2.VideoCapture(str(path))
    with open_source(path, PLAIN) as source:
        for number, frame in enumerate(everything(source)):
            found, theirs = capture.read()
            assert found
            if number % 20 == 0:
                assert np.abs(frame.astype(int) - theirs[..., ::-1]).mean() < 1.5  # another colour conversion
        assert not capture.read()[0]


@pytest.mark.parametrize(
    ("name", "num_frames", "fps"),
    [
        ("torchvision_assets/hmdb51_Turnk_r_Pippi_Michel_cartwheel_f_cm_np2_le_med_6.avi", 83, 30),  # its metadata is not UTF-8
        ("torchvision_assets/RATRACE_wave_f_nm_np1_fr_goo_37.avi", 72, 30),  # the header claims 73
        ("torchvision_assets/TrumanShow_wave_f_nm_np1_fr_med_26.avi", 48, 30),
        ("c3d_examples/v_ApplyEyeMakeup_g01_c01.avi", 164, 25),  # its presentation times are out of order
        ("ut_interaction/set1/0_1_4.avi", 108, 30),  # the header claims 110
        ("video_features_sample/v_GGSY1Qvo990.mp4", 355, 19.62),
    ],
)
def test_real_videos(name: str, num_frames: int, fps: float, shared_data: Path) -> None:
    with open_source(shared_data / "videos" / name, PLAIN) as source:
        assert source.num_frames == num_frames
        np.testing.assert_allclose(source.times, np.arange(num_frames) / fps, atol=1e-9)
        assert source.end == pytest.approx(num_frames / fps)


# Times


def test_variable_frame_rate(tmp_path: Path, encode_video: Encode, numbered_frames: Frames, painted_number: Number) -> None:
    stamps = [0, 40, 50, 200, 210, 500, 1000]
    shifted = [1000 + stamp for stamp in stamps]
    path = encode_video(tmp_path / "vfr.mkv", numbered_frames(7), pts=shifted, codec="libx264", options={"bf": "2"})
    with open_source(path, PLAIN) as source:
        np.testing.assert_allclose(source.times, np.array(stamps) / 1000, atol=1e-9)
        assert source.end > 1
    with open_source(path, DecodeSpec(fps=10)) as source:
        np.testing.assert_allclose(source.times, np.arange(source.num_frames) / 10)
        nearest = [int(np.abs(np.array(stamps) - 100 * slot).argmin()) for slot in range(source.num_frames)]
        assert [painted_number(frame) for frame in everything(source)] == nearest
        assert source.fps == 10


def test_resampled_frames(tmp_path: Path, encode_video: Encode, numbered_frames: Frames, painted_number: Number) -> None:
    path = encode_video(tmp_path / "a.mp4", numbered_frames(30), fps=30)
    with open_source(path, DecodeSpec(fps=10)) as slower, open_source(path, DecodeSpec(fps=60)) as faster:
        assert [painted_number(frame) for frame in everything(slower)] == list(range(0, 30, 3))
        assert [painted_number(frame) for frame in faster.frames(np.array([0, 1, 2, 3, 59]))] == [0, 0, 1, 1, 29]


def test_resample_takes_the_nearest_frame_and_of_two_the_earlier() -> None:
    random = np.random.default_rng(0)
    for trial in range(200):
        times = np.sort(random.integers(0, 500, random.integers(1, 40))) / (100 if trial % 2 else 97)
        times -= times[0]
        end = times[-1] + random.uniform(0, 0.1)
        fps = random.choice([1, 7, 25, 29.97, 100])
        indices = resample_indices(times, end, fps)
        assert len(indices) == max(1, int(end * fps + 0.5))
        targets = np.arange(len(indices)) / fps
        nearest = np.abs(times[:, None] - targets).min(0)
        np.testing.assert_allclose(np.abs(times[indices] - targets), nearest, atol=2e-6)
    assert resample_indices(np.array([0.0, 0.5, 1.0]), 1.5, 4).tolist() == [0, 0, 1, 1, 2, 2]
    assert resample_indices(np.array([0.0]), 0.001, 1).tolist() == [0]


def test_times_of_containers_that_hold_none() -> None:
    times, end = frame_times([(0, 0), (40, 40), (90, 90)], 0.001, 20, 25.0)
    assert times.tolist() == [0, 0.04, 0.09]
    assert end == pytest.approx(0.11)
    times, end = frame_times([(1, 2), (4, 3), (3, 4), (5, None)], 0.1, 1, 10.0)  # AVI with B-frames: the decoding times
    np.testing.assert_allclose(times, [0, 0.1, 0.2, 0.3])
    assert end == pytest.approx(0.4)
    times, end = frame_times([(None, None), (None, None)], 0.1, None, 0.0)  # nothing known: 25 frames per second
    assert times.tolist() == [0, 0.04]
    assert end == pytest.approx(0.08)
    times, _ = frame_times([(5, None), (5, None), (5, None)], 0.1, None, 10.0)
    np.testing.assert_allclose(times, [0, 0.1, 0.2])


def test_progress_is_told(tmp_path: Path, encode_video: Encode, numbered_frames: Frames, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extract.video.NOTE_SECONDS", -1.0)
    calls: list[int] = []
    path = encode_video(tmp_path / "a.mp4", numbered_frames(20))
    with open_source(path, PLAIN, on_progress=lambda: calls.append(1)) as source:
        scanned = len(calls)
        assert scanned >= 20
        everything(source)
    assert len(calls) >= 2 * scanned


# Shapes


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_is_applied(rotation: int, tmp_path: Path, encode_video: Encode) -> None:
    quarters = np.zeros((48, 80, 3), np.uint8)
    quarters[:24, :40], quarters[:24, 40:], quarters[24:, :40] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    path = encode_video(tmp_path / "turned.mp4", [quarters] * 3, rotation=rotation)
    found, theirs = cv2.VideoCapture(str(path)).read()  # OpenCV turns frames upright, too
    assert found
    with open_source(path, PLAIN) as source:
        (frame,) = source.frames(np.array([0]))
        assert frame.shape == theirs.shape == (source.height, source.width, 3)
        assert frame.flags.c_contiguous
        assert np.abs(frame.astype(int) - theirs[..., ::-1]).mean() < 3
        assert np.abs(frame.astype(int) - np.rot90(quarters, rotation // 90)).mean() < 8


@pytest.mark.parametrize(("height", "width", "count"), [(8, 8, 10), (2160, 3840, 2), (64, 64, 1), (2, 2, 3)])
def test_sizes_and_lengths(height: int, width: int, count: int, tmp_path: Path, encode_video: Encode, numbered_frames: Frames) -> None:
    path = encode_video(tmp_path / "a.mp4", numbered_frames(count, height, width))
    with open_source(path, PLAIN) as source:
        assert (source.num_frames, source.height, source.width) == (count, height, width)
        assert [frame.shape for frame in everything(source)] == [(height, width, 3)] * count


@pytest.mark.parametrize(
    ("codec", "pix_fmt"), [("ffv1", "yuv420p10le"), ("ffv1", "gray"), ("ffv1", "bgra"), ("libx264", "yuv444p"), ("mjpeg", "yuvj420p")]
)
def test_pixel_formats(
    codec: str, pix_fmt: str, tmp_path: Path, encode_video: Encode, numbered_frames: Frames, painted_number: Number
) -> None:
    path = encode_video(tmp_path / "a.mkv", numbered_frames(5), codec=codec, pix_fmt=pix_fmt)
    with open_source(path, PLAIN) as source:
        frames = everything(source)
        assert [painted_number(frame) for frame in frames] == list(range(5))
        assert all(frame.dtype == np.uint8 and frame.shape == (64, 128, 3) for frame in frames)


def test_frame_size_may_not_change(tmp_path: Path, encode_video: Encode, numbered_frames: Frames) -> None:
    streams = [encode_video(tmp_path / f"{height}.ts", numbered_frames(20, height), codec="libx264") for height in (64, 96)]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(path.read_bytes() for path in streams))
    assert "frame size changes from 128x64 to 128x96 at frame 20; encode the video again" in reason(joined)


# Bad files


def test_files_that_are_no_video(tmp_path: Path) -> None:
    assert "no such file; check the path" in reason(tmp_path / "missing.mp4")
    (tmp_path / "empty.mp4").touch()
    assert "the file is empty (0 bytes)" in reason(tmp_path / "empty.mp4")
    text = "No video in here.\n" * 200
    (tmp_path / "text.mp4").write_text(text)
    assert "not a video that FFmpeg can read: Invalid data" in reason(tmp_path / "text.mp4")
    (tmp_path / "text.txt").write_text(text)
    assert "not a video that FFmpeg can read: a text file" in reason(tmp_path / "text.txt")
    (tmp_path / "noise.avi").write_bytes(np.random.default_rng(0).bytes(50_000))
    assert "not a video that FFmpeg can read" in reason(tmp_path / "noise.avi")
    Image.new("RGB", (32, 32)).save(tmp_path / "image.png")
    shutil.copy(tmp_path / "image.png", tmp_path / "image.mp4")
    assert "a still image (png_pipe); list video files or folders of frames" in reason(tmp_path / "image.mp4")
    assert "a still image" in reason(tmp_path / "image.png")


def test_sound_without_pictures(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        for _ in range(4):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.rate = 8000
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert "no video stream; streams: 0 audio" in reason(path)


def test_a_codec_that_nobody_knows(tmp_path: Path, encode_video: Encode, numbered_frames: Frames) -> None:
    path = encode_video(tmp_path / "a.mp4", numbered_frames(3))
    path.write_bytes(path.read_bytes().replace(b"mp4v", b"qzqz").replace(b"esds", b"free"))
    assert "FFmpeg has no decoder for its video codec" in reason(path)


def test_metadata_that_is_not_utf8(tmp_path: Path, encode_video: Encode, numbered_frames: Frames) -> None:
    path = encode_video(tmp_path / "a.avi", numbered_frames(4), metadata={"title": "CARTWHEEL"})
    data = path.read_bytes()
    assert data.count(b"CARTWHEEL") == 1
    path.write_bytes(data.replace(b"CARTWHEEL", b"CART\xff\xe9\xe8\xc0\x80"))
    with open_source(path, PLAIN) as source:
        assert source.num_frames == 4


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("whole.avi", "mpeg4", {}),
        ("whole.mkv", "libx264", {}),
        ("whole.webm", "libvpx-vp9", {}),
        ("whole.flv", "libx264", {}),
        ("whole.mp4", "libx264", {"movflags": "faststart"}),
        ("fragments.mp4", "libx264", {"movflags": "frag_keyframe+empty_moov"}),
    ],
)
def test_a_file_cut_short_is_refused_unless_asked_for(
    name: str,
    codec: str,
    options: dict[str, str],
    tmp_path: Path,
    encode_video: Encode,
    numbered_frames: Frames,
    painted_number: Number,
) -> None:
    random = np.random.default_rng(0)  # noise below the numbers, so that frames have bytes to cut
    frames = [np.concatenate([frame, random.integers(0, 256, (64, 128, 3), np.uint8)]) for frame in numbered_frames(60)]
    whole = encode_video(tmp_path / name, frames, codec=codec, container_options=options, options={"g": "10"})
    cut = cut_short(whole, 0.6, tmp_path / f"cut{whole.suffix}")
    if name == "fragments.mp4":  # its header states no length
        with open_source(cut, PLAIN) as source:
            assert source.num_frames < 40
        return
    assert re.search("decoding stops at frame [234][0-9] of about (59|60|61)", reason(cut))
    assert "the file is cut short" in reason(cut)
    assert "set decode.partial to take" in reason(cut)
    with open_source(cut, PARTIAL) as source:
        assert 20 <= source.num_frames <= 45
        assert [painted_number(frame[:64]) for frame in everything(source)][:-1] == list(range(source.num_frames - 1))
    barely = cut_short(whole, 0.01, tmp_path / f"barely{whole.suffix}")  # within the first frame
    assert ("it is probably cut short" if name == "whole.avi" else "no frame decodes of about") in reason(barely, PARTIAL)


def test_a_cut_mp4_without_its_index(tmp_path: Path, encode_video: Encode, numbered_frames: Frames) -> None:
    whole = encode_video(tmp_path / "whole.mp4", numbered_frames(20))
    assert "it begins as an MP4 file, so it is probably cut short" in reason(cut_short(whole, 0.5, tmp_path / "cut.mp4"))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_real_videos_cut_short(share: float, shared_data: Path, tmp_path: Path) -> None:
    for name, count in [("torchvision_assets/RATRACE_wave_f_nm_np1_fr_goo_37.avi", 72), ("video_features_sample/v_GGSY1Qvo990.mp4", 354)]:
        whole = shared_data / "videos" / name
        words = reason(cut_short(whole, share, tmp_path / whole.name))
        assert f"of about {count}: the file is cut short" in words


def test_packets_that_the_decoder_refuses(tmp_path: Path, encode_video: Encode, numbered_frames: Frames, painted_number: Number) -> None:
    path = encode_video(tmp_path / "a.mov", numbered_frames(60), codec="png", pix_fmt="rgb24")
    data = bytearray(path.read_bytes())
    starts = [index for index in range(len(data)) if data[index : index + 8] == b"\x89PNG\r\n\x1a\n"]
    assert len(starts) == 60
    for number in (20, 21):
        data[starts[number]] = 0
    path.write_bytes(data)
    with open_source(path, PLAIN) as source:  # two of 60 are within what is normal
        assert [painted_number(frame) for frame in everything(source)] == [*range(20), *range(22, 60)]
        assert source.times[20] == pytest.approx(22 / 25)
    for number in range(22, 30):
        data[starts[number]] = 0
    path.write_bytes(data)
    assert "the decoder refuses 10 packets of 60, the first after frame 20 (Invalid data found" in reason(path)
    with open_source(path, PARTIAL) as source:
        assert source.num_frames == 50


def test_chunks_that_an_avi_loses_take_what_builds_on_them_along(tmp_path: Path, encode_video: Encode, numbered_frames: Frames) -> None:
    """The decoder drops B-frames that build on a lost frame, without an error."""
    path = encode_video(tmp_path / "a.avi", numbered_frames(90), codec="mpeg4", options={"bf": "2", "g": "30", "b_strategy": "0"})
    data = bytearray(path.read_bytes())
    chunks = [at for at in range(data.index(b"movi"), data.index(b"idx1")) if data[at : at + 4] == b"00dc"]
    with open_source(path, PLAIN) as source:
        assert source.num_frames == 90
    for number in (1, 31):  # each the first that builds on a key frame
        data[chunks[number] : chunks[number] + 4] = b"??!?"
    path.write_bytes(data)
    assert "84 frames decode of about 89: chunks are lost, and the decoder drops 3 frames that build on them" in reason(path)
    with open_source(path, PARTIAL) as source:
        assert source.num_frames == 84


def test_flipped_bits_never_do_worse_than_an_error(shared_data: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name in ("torchvision_assets/TrumanShow_wave_f_nm_np1_fr_med_26.avi", "arm_wrestling.mp4"):
        whole = np.frombuffer((shared_data / "videos" / name).read_bytes(), np.uint8)
        for _ in range(8):
            damaged = whole.copy()
            damaged[random.integers(0, len(whole), 200)] ^= 0xFF
            path = tmp_path / Path(name).name
            path.write_bytes(damaged.tobytes())
            try:
                with open_source(path, PLAIN) as source:
                    assert len(everything(source)) == source.num_frames >= 1
            except DecodeError as error:
                assert str(path) in str(error)  # noqa: PT017 either outcome is right


# Folders of frames


def test_a_folder_beside_flow_images(shared_data: Path) -> None:
    folder = shared_data / "videos" / "tsn_rawframes"
    with open_source(folder, PLAIN) as source:
        assert (source.num_frames, source.height, source.width, source.fps) == (10, 240, 320, 25)
        assert source.times.tolist() == (np.arange(10) / 25).tolist()
        for number, frame in enumerate(everything(source), start=1):
            theirs = cv2.imread(str(folder / f"img_{number:05d}.jpg"))[..., ::-1]
            assert np.abs(frame.astype(int) - theirs).max() <= 2


def test_folders_are_in_natural_order(tmp_path: Path, numbered_frames: Frames, painted_number: Number) -> None:
    for number, frame in enumerate(numbered_frames(12)):
        Image.fromarray(frame).save(tmp_path / f"frame{number}.png")
    (tmp_path / "notes.txt").write_text("not a frame")
    with open_source(tmp_path, PLAIN) as source:
        assert [painted_number(frame) for frame in everything(source)] == list(range(12))
        assert [painted_number(frame) for frame in source.frames(np.array([2, 10]))] == [2, 10]
    with open_source(tmp_path, DecodeSpec(fps=12.5)) as source:
        assert [painted_number(frame) for frame in everything(source)] == list(range(0, 12, 2))


def test_images_are_turned_upright(tmp_path: Path) -> None:
    image = Image.fromarray(np.arange(16 * 24 * 3, dtype=np.uint8).reshape(16, 24, 3))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "1.png", exif=exif)
    with open_source(tmp_path, PLAIN) as source:
        (frame,) = everything(source)
    assert (source.height, source.width) == (24, 16)
    assert np.array_equal(frame, np.rot90(np.asarray(image), -1))


def test_bad_folders(tmp_path: Path, numbered_frames: Frames) -> None:
    assert "a folder without images (.bmp" in reason(tmp_path)
    frame = Image.fromarray(numbered_frames(1)[0])
    for name in ("x_1.jpg", "y_1.jpg"):
        frame.save(tmp_path / name)
    assert "only flow images: x_*.jpg (1), y_*.jpg (1)" in reason(tmp_path)
    frame.save(tmp_path / "a_1.jpg")
    frame.save(tmp_path / "b_1.jpg")
    assert "several series of images: a_*.jpg (1), b_*.jpg (1); keep the frames of one video" in reason(tmp_path)
    (tmp_path / "b_1.jpg").unlink()
    assert [file.name for file in frame_files(tmp_path)] == ["a_1.jpg"]
    frame.resize((32, 32)).save(tmp_path / "a_2.jpg")
    assert "frame size changes from 128x64 to 32x32 at a_2.jpg" in reason(tmp_path)


def test_damaged_images_are_named(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(stream, "jpeg")
    for number in (1, 2):
        (tmp_path / f"{number}.jpg").write_bytes(stream.getvalue())
    (tmp_path / "2.jpg").write_bytes(stream.getvalue()[:-500])
    assert "2.jpg: not an image that can be read: image file is truncated" in reason(tmp_path)
    (tmp_path / "2.jpg").write_bytes(b"no image")
    assert "2.jpg: not an image that can be read: cannot identify" in reason(tmp_path)
