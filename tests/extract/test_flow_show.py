"""Flow as a picture: true colours, true bytes, words that stay apart; and the numbers beside it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.utils import flow_to_image

import cli
from extract import flow_picture, presets
from extract.flow import FLOWS
from extract.flow_bytes import flow_bytes
from extract.flow_frames import resolve_flow
from extract.flow_picture import colour_coded, draw_picture, write_picture
from extract.flow_show import Strip, colour_scale, resolve_shown, sample_strip
from extract.page import LINE, TEXT, Page, text_length, wrapped
from extract.spec import DecodeSpec, FlowSpec
from extract.video import open_source
from store.errors import SpecError

DIS = resolve_flow(FlowSpec(method="dis", short_side=0, quantise="symmetric"))


def moving(count: int, height: int = 60, width: int = 80, step: int = 2) -> list[np.ndarray]:
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    return [np.roll(cv2.GaussianBlur(noise, (0, 0), 2), step * index, 1) for index in range(count)]


def strip(tmp_path: Path, encode: Callable[..., Path], count: int = 7, spec: FlowSpec = DIS, frames: int = 4, **size: int) -> Strip:
    return sample_strip(encode(tmp_path / "v.mp4", moving(count, **size)), DecodeSpec(), spec, frames)


def holds(page: np.ndarray, picture: np.ndarray) -> bool:
    """Whether a picture occurs in a page, pixel by pixel."""
    found = cv2.matchTemplate(page, picture, cv2.TM_SQDIFF)
    y, x = np.unravel_index(found.argmin(), found.shape)
    return np.array_equal(page[y : y + picture.shape[0], x : x + picture.shape[1]], picture)


# Numbers


def test_moments_are_the_centres_of_equal_parts_with_their_flow(tmp_path: Path, encode_video: Callable[..., Path]) -> None:
    shown = strip(tmp_path, encode_video, count=9, frames=3)
    assert [moment.index for moment in shown.moments] == [1, 4, 7]
    assert [moment.seconds for moment in shown.moments] == pytest.approx([0.04, 0.16, 0.28])
    assert (shown.num_frames, shown.fps, shown.size) == (9, 25.0, (60, 80))
    with open_source(tmp_path / "v.mp4", DecodeSpec()) as source:
        frames = list(source.frames(np.arange(9)))
    greys = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    for moment in shown.moments:
        flow = FLOWS.get("dis")({"preset": 2.0})(greys[moment.index], greys[moment.index + 1])
        assert np.array_equal(moment.rgb, frames[moment.index])
        assert np.array_equal(moment.flow, flow)
        assert np.array_equal(moment.values, flow_bytes(flow, DIS))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_short_videos_show_what_they_have(tmp_path: Path, encode_video: Callable[..., Path], count: int) -> None:
    shown = strip(tmp_path, encode_video, count=count, frames=5)
    assert [moment.index for moment in shown.moments] == list(range(count))
    if count == 1:
        assert not shown.moments[0].flow.any()
    else:
        assert np.array_equal(shown.moments[-1].flow, shown.moments[-2].flow)  # the last frame repeats the flow before it


def test_the_clipped_share_is_that_of_displacements_beyond_the_bound(tmp_path: Path, encode_video: Callable[..., Path]) -> None:
    shown = strip(tmp_path, encode_video, spec=replace(DIS, bound=1.0))
    for moment in shown.moments:
        assert moment.clipped == pytest.approx((np.abs(moment.flow) > 1).mean())
    assert shown.moments[0].clipped > 0.4  # all of x, nothing of y


def test_flow_from_image_files_is_shown_as_it_is(tmp_path: Path, encode_video: Callable[..., Path]) -> None:
    encode_video(tmp_path / "v.mp4", moving(3))
    (tmp_path / "v").mkdir()
    x, y = np.full((30, 40), 255, np.uint8), np.full((30, 40), 100, np.uint8)
    for index in (1, 2):
        cv2.imwrite(str(tmp_path / f"v/x_{index:05}.png"), x)
        cv2.imwrite(str(tmp_path / f"v/y_{index:05}.png"), y)
    spec = FlowSpec(method="files", origin="a tool", short_side=0, encoding="pairs", bound=10, quantise="dense_flow")
    shown = sample_strip(tmp_path / "v.mp4", DecodeSpec(), spec, 2, tmp_path, "v.mp4")
    for moment in shown.moments:
        assert np.array_equal(moment.values, np.stack([x, y], 2))
        np.testing.assert_allclose(moment.flow[0, 0], [10, 20 * 100 / 255 - 10], rtol=1e-6)
        assert moment.clipped == 0.5  # x is at the bound
    assert holds(draw_picture([shown], 30), np.repeat(y[..., None], 3, 2))


def test_the_scale_is_fast_but_no_outlier_and_at_least_a_pixel(tmp_path: Path, encode_video: Callable[..., Path]) -> None:
    shown = strip(tmp_path, encode_video)
    still = replace(shown, moments=tuple(replace(moment, flow=moment.flow * 0) for moment in shown.moments))
    assert colour_scale([still]) == 1
    flow = np.zeros((100, 100, 2), np.float32)
    flow[:, :50, 0], flow[0, 0] = -3, 500
    assert colour_scale([replace(shown, moments=(replace(shown.moments[0], flow=flow),))]) == 3


# Colours


def test_colours_are_torchvisions() -> None:
    flow = np.random.default_rng(0).normal(0, 3, (20, 30, 2)).astype(np.float32)
    expected = flow_to_image(torch.from_numpy(flow).permute(2, 0, 1)).permute(1, 2, 0).numpy()
    longest = float(np.hypot(flow[..., 0], flow[..., 1]).max())
    assert np.abs(colour_coded(flow, longest).astype(int) - expected).max() <= 1


def test_faster_than_the_scale_is_as_the_scale_and_nothing_is_white() -> None:
    flow = np.array([[[3, 0], [30, 0], [0, 0], [np.nan, 1]]], np.float32)
    colours = colour_coded(flow, 3.0)[0]
    assert np.abs(colours[0].astype(int) - colours[1]).max() <= 1
    assert (colours[2] == 255).all()
    right, left, down, up = colour_coded(np.array([[[3, 0], [-3, 0], [0, 3], [0, -3]]], np.float32), 3.0)[0].astype(int)
    assert right.argmax() == 0  # red
    assert left.argmin() == 0  # cyan
    assert down.argmin() == 2  # yellow
    assert up.argmax() == 2  # blue


# The picture


@pytest.mark.parametrize("encoding", ["image", "pairs"])
def test_the_picture_shows_frames_flow_and_bytes_unchanged(tmp_path: Path, encode_video: Callable[..., Path], encoding: str) -> None:
    shown = strip(tmp_path, encode_video, spec=replace(DIS, encoding=encoding), frames=3)
    page = draw_picture([shown], 60)  # the frames' own height, so nothing is resized
    assert page.dtype == np.uint8
    assert (page[0] == 255).all()
    scale = colour_scale([shown])
    for moment in shown.moments:
        assert holds(page, moment.rgb)
        assert holds(page, colour_coded(moment.flow, scale))
        if encoding == "image":
            assert holds(page, moment.values)
        else:
            assert all(holds(page, np.repeat(moment.values[..., channel, None], 3, 2)) for channel in (0, 1))


@pytest.mark.parametrize(
    ("size", "count", "frames", "height", "name"),
    [
        ({"height": 60, "width": 80}, 9, 5, 144, "v.mp4"),
        ({"height": 8, "width": 8}, 4, 4, 16, "v.mp4"),
        ({"height": 200, "width": 20}, 9, 8, 100, "a long name " * 30),
        ({"height": 16, "width": 400}, 4, 3, 144, "x" * 250),
        ({"height": 60, "width": 80}, 1, 5, 300, "v.mp4"),
    ],
)
@pytest.mark.parametrize("spec", [{}, {"encoding": "pairs", "pairs": 10, "offset": -5, "quantise": "dense_flow", "bound": 0.5}])
def test_words_stay_apart_and_on_the_page(
    tmp_path: Path,
    encode_video: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    size: dict[str, int],
    count: int,
    frames: int,
    height: int,
    name: str,
    spec: dict[str, object],
) -> None:
    pages: list[Page] = []
    image = Page.image
    monkeypatch.setattr(Page, "image", lambda page: pages.append(page) or image(page))
    shown = replace(strip(tmp_path, encode_video, count, replace(DIS, **spec), frames, **size), name=name)  # type: ignore[arg-type]
    drawn = draw_picture([shown, replace(shown, spec=replace(shown.spec, params={f"parameter{n}": 0.125 for n in range(40)}))], height)
    boxes = [(left, top, left + text_length(text, points), top + LINE * points // TEXT) for left, top, text, points, _ in pages[0]._lines]
    boxes += [(left, top, left + picture.shape[1], top + picture.shape[0]) for left, top, picture in pages[0]._pictures]
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= drawn.shape[1]
        assert 0 <= top < bottom <= drawn.shape[0]
    for number, one in enumerate(boxes):
        for other in boxes[number + 1 :]:
            apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
            assert apart, (one, other)


def test_the_words_say_frames_times_and_displacements(
    tmp_path: Path, encode_video: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pages: list[Page] = []
    image = Page.image
    monkeypatch.setattr(Page, "image", lambda page: pages.append(page) or image(page))
    shown = strip(tmp_path, encode_video, spec=replace(DIS, encoding="pairs", pairs=5, offset=-2, bound=15.0, quantise="dense_flow"))
    draw_picture([shown], 100)
    words = " ".join(text for _, _, text, _, _ in pages[0]._lines)
    for moment in shown.moments:
        lengths = np.sqrt((moment.flow**2).sum(-1))
        for expected in (
            f"frame {moment.index} ",
            f"{moment.index / 25:.2f} s",
            f"largest {lengths.max():.1f} px",
            f"mean {lengths.mean():.2f} px",
            f"clipped {100 * (np.abs(moment.flow) > 15).mean():.1f} %",
        ):
            assert expected in words
    for expected in (
        "7 frames, 25 frames/s, 80 x 60; flow 80 x 60",
        "dis (opencv-",
        "preset 2",
        "round(255 (v + 15) / 30) of v from -15 to 15 px (dense_flow); 128 is no motion",
        "The network gets 5 flows, those of frames i-2 to i+2",
        f"{colour_scale([shown]):.3g} px or more",
    ):
        assert expected in words


def test_lines_are_broken_between_words_and_long_words_cut() -> None:
    assert wrapped("one two", 1000) == ["one two"]
    lines = wrapped("one two three " + "x" * 100, 60)
    assert lines[0].startswith("one")
    assert lines[-1].endswith("…")
    assert all(text_length(line) <= 60 for line in lines)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_pictures_are_files_that_others_read(tmp_path: Path, encode_video: Callable[..., Path], suffix: str) -> None:
    shown = strip(tmp_path, encode_video)
    write_picture([shown], tmp_path / f"strip.{suffix}", 60)
    with Image.open(tmp_path / f"strip.{suffix}") as picture:
        assert np.abs(np.asarray(picture).astype(int) - draw_picture([shown], 60)).mean() < 2
    with pytest.raises(SpecError, match=r"strip.gif: pictures are written as .png, .jpg, .jpeg"):
        write_picture([shown], tmp_path / "strip.gif", 60)


# What is shown


def test_methods_carry_their_parameters() -> None:
    flow = {"short_side": 64, "bound": 9.0}
    decode, shown = resolve_shown(None, {"flow": flow, "decode": {"fps": 5}}, ["dis:preset=1", "farneback:levels=2, poly_n=7"], "")
    assert decode == DecodeSpec(fps=5.0)
    assert [(spec.method, spec.short_side, spec.bound, spec.quantise) for spec, _ in shown] == [
        ("dis", 64, 9.0, "symmetric"),
        ("farneback", 64, 9.0, "symmetric"),
    ]
    assert shown[0][0].params == {"preset": 1.0}
    assert (shown[1][0].params["levels"], shown[1][0].params["poly_n"], shown[1][0].params["iterations"]) == (2, 7, 10)


def test_a_preset_gives_its_flow_and_its_networks_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"backbone": "i3d_flow", "flow": {"method": "dis", "encoding": "pairs", "bound": 18.0}, "decode": {"fps": 25.0}}
    monkeypatch.setitem(presets.PRESETS, "flowing", presets.Preset("for this test", settings))
    decode, [(spec, _)] = resolve_shown("flowing", {}, [], "")
    assert (decode.fps, spec.method, spec.bound, spec.quantise) == (25.0, "dis", 18.0, "i3d")
    _, shown = resolve_shown("flowing", {"flow": {"bound": 20.0}}, ["farneback", "dis"], "")
    assert [(spec.method, spec.bound, spec.quantise) for spec, _ in shown] == [("farneback", 20.0, "i3d"), ("dis", 20.0, "i3d")]


def test_weights_go_to_the_networks_alone() -> None:
    _, shown = resolve_shown(None, {}, ["raft_small", "dis"], "random:0")
    assert [weights for _, weights in shown] == ["random:0", ""]
    with pytest.raises(SpecError, match="'random:0' were given, but flow method dis is no network"):
        resolve_shown(None, {}, ["dis", "farneback"], "random:0")


@pytest.mark.parametrize(
    ("preset", "methods", "words"),
    [
        (None, [], "there is no flow method to show; give --method, e.g. dis; known: dis, "),
        ("tiny", [], "there is no flow method to show"),
        (None, ["diss"], "no flow method is called 'diss'; did you mean dis"),
        (None, ["dis:preset"], "method 'dis:preset': write METHOD or METHOD:KEY=NUMBER"),
        (None, ["dis:preset=x"], "write METHOD or METHOD:KEY=NUMBER"),
        (None, ["dis:speed=1"], "flow method dis has no parameter 'speed'"),
    ],
)
def test_methods_that_cannot_be_shown(preset: str | None, methods: list[str], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        resolve_shown(preset, {}, methods, "")


# The commands


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> object:
    monkeypatch.setattr("sys.argv", ["actioncache", "flow", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


def test_show_draws_and_prints(
    tmp_path: Path, encode_video: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    video, picture = encode_video(tmp_path / "v.mp4", moving(8)), tmp_path / "strip.png"
    flags = ("--method", "dis", "--method", "farneback", "--frames", "3", "--height", "40", "--flow.short-side", "0")
    assert run(monkeypatch, "show", video, "-o", picture, *flags) == 0
    printed = capsys.readouterr().out
    assert printed.count("  frame     1      0.04 s  largest") == 2
    assert printed.splitlines()[-1] == str(picture)
    assert Image.open(picture).width > 600
    assert run(monkeypatch, "show", tmp_path / "none.mp4", "-o", picture, *flags) == 2
    assert "no such file" in capsys.readouterr().err
    monkeypatch.setattr(flow_picture, "draw_picture", None)
    assert run(monkeypatch, "show", video, "-o", tmp_path / "strip.txt", *flags) == 2  # told before anything is computed
    assert "pictures are written as" in capsys.readouterr().err


def test_show_takes_folders_of_frames_and_flow_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for index, frame in enumerate(moving(4)):
        cv2.imwrite(str(folder / f"img_{index + 1:05}.png"), frame)
        if index < 3:
            cv2.imwrite(str(folder / f"x_{index + 1:05}.png"), np.full((60, 80), 150, np.uint8))
            cv2.imwrite(str(folder / f"y_{index + 1:05}.png"), np.full((60, 80), 128, np.uint8))
    assert run(monkeypatch, "show", folder, "-o", tmp_path / "s.png", "--method", "dis", "--method", "files", "--flow.bound", "12.7") == 0
    printed = capsys.readouterr().out
    assert "files: not told" in printed
    assert "largest    2.20 px  mean   2.20 px" in printed  # (150 - 128) / 127 * 12.7


def test_methods_are_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "methods", "--json") == 0
    listed = {method["name"]: method for method in json.loads(capsys.readouterr().out)}
    assert list(listed) == FLOWS.names()
    assert listed["dis"] == {"name": "dis", "version": f"opencv-{cv2.__version__}", "params": {"preset": 2.0}, "weights": ""}
    assert "published:C_T_V1" in listed["raft_small"]["weights"]
    assert run(monkeypatch, "methods") == 0
    printed = capsys.readouterr().out
    assert "preset=2" in printed
    assert "--flow.method files" in printed
