"""What a spec leaves to its network, whether the two fit, and values that no machine could carry out."""

from dataclasses import replace

import pytest
import torch

from extract.backbones import backbone_info, resolve_levels
from extract.fit import as_trained, check_fit, notes
from extract.prepare import prepare_spec
from extract.spec import ClipSpec, CropSpec, DecodeSpec, FeatureSpec, FlowSpec, RunOptions
from store.errors import SpecError

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "length", "resize", "size"),
    [("tiny", 1, (64,), 56), ("resnet34", 1, (256,), 224), ("c3d", 16, (171, 128), 112), ("i3d_rgb", 64, (256,), 224)],
)
def test_what_is_left_open_is_as_the_network_was_trained(name: str, length: int, resize: tuple[int, ...], size: int) -> None:
    spec = as_trained(FeatureSpec(backbone=name), backbone_info(name))
    assert (spec.clips.length, spec.crops.resize, spec.crops.size) == (length, resize, size)
    said = FeatureSpec(backbone=name, clips=ClipSpec(length=9), crops=CropSpec((300,), 250))
    assert as_trained(said, backbone_info(name)) == said


def test_the_stored_spec_is_explicit() -> None:
    assert prepare_spec(None, {"backbone": "tiny3d"}, "random:0", CPU)[0] == prepare_spec(
        None, {"backbone": "tiny3d", "clips": {"length": 8}, "crops": {"resize": [64], "size": 56}}, "random:0", CPU
    )[0]  # fmt: skip
    with pytest.raises(SpecError, match=r"crops.size is 80 but crops.resize is \[64\]: a crop must fit"):
        prepare_spec(None, {"backbone": "tiny", "crops": {"size": 80}}, "random:0", CPU)


def made(name: str, **settings: object) -> FeatureSpec:
    info = backbone_info(name)
    spec = as_trained(FeatureSpec(backbone=name, **settings), info)  # type: ignore[arg-type]
    return replace(spec, levels=resolve_levels(info, spec.levels))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (made("c3d", clips=ClipSpec(length=8)), "clips.length is 8 but c3d takes clips of 16 frames; set --clips.length 16"),
        (made("i3d_rgb", clips=ClipSpec(length=8)), "clips of 64 frames, or any from 9 on; set --clips.length 64"),
        (made("c3d", crops=CropSpec(size=100)), "crops.size is 100 but c3d takes 112 and no other; set --crops.size 112"),
        (
            made("resnet50", levels=("block3.map",), crops=CropSpec(count=10)),
            "the mean of block3.map over crops would mix different places; set --crops.count 1, --crops.keep or level block3",
        ),
    ],
)
def test_what_does_not_fit_is_told(spec: FeatureSpec, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        check_fit(spec, backbone_info(spec.backbone))
    assert words in str(caught.value)


def test_what_fits() -> None:
    for spec in (
        made("i3d_rgb", clips=ClipSpec(length=16)),
        made("resnet50", levels=("block3.map",)),
        made("resnet50", levels=("block3.map",), crops=CropSpec(count=10, keep=True)),
        made("resnet50", crops=CropSpec(size=100)),
    ):
        check_fit(spec, backbone_info(spec.backbone))


def test_clips_of_another_frame_rate_are_noted() -> None:
    info = backbone_info("i3d_rgb")
    assert notes(made("i3d_rgb"), info) == [
        "i3d_rgb was trained on clips of 25 frames/s; videos of other rates need --decode.fps 25, which this spec does not set"
    ]
    assert "this spec has --decode.fps 12.5" in notes(made("i3d_rgb", decode=DecodeSpec(fps=12.5)), info)[0]
    assert notes(made("i3d_rgb", decode=DecodeSpec(fps=25)), info) == []
    assert notes(made("resnet50"), backbone_info("resnet50")) == []


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: ClipSpec(segments=10**9), "clips.segments is 1000000000; it must be from 1 to 10000000"),
        (lambda: ClipSpec(segments=10**6, length=100), "clips.segments is 1000000; that makes 100000000 frames"),
        (lambda: ClipSpec(length=10**6), "clips.length is 1000000; it must be at most 1024"),
        (lambda: ClipSpec(length=-1), r"clips.length is -1; it must be 0 \(as the network was trained\) or positive"),
        (lambda: ClipSpec(stride=0), "clips.stride is 0; it must be from 1 to"),
        (lambda: ClipSpec(step=0), "clips.step is 0"),
        (lambda: CropSpec(resize=(10**6,)), r"crops.resize is \[1000000\]; sides must be from 1 to 8192"),
        (lambda: CropSpec(resize=(0,)), r"crops.resize is \[0\]"),
        (lambda: CropSpec(size=10**6), "crops.size is 1000000; it must be from 1 to 8192"),
        (lambda: CropSpec(resize=(1, 2, 3)), "crops.resize has 3 numbers"),
        (lambda: DecodeSpec(fps=1e9), r"decode.fps is 1e\+09; it must be 0 .* or a rate of at most 1000"),
        (lambda: FlowSpec(short_side=10**6), "flow.short_side is 1000000; it must be 0"),
        (lambda: RunOptions(batch_size=10**9), r"batch_size is 1000000000; it must be 0 .* or from 1 to 4096"),
        (lambda: RunOptions(workers=-1), r"workers is -1; it must be 0 \(one a processor\) or from 1 to 4096"),
        (lambda: RunOptions(tries=0), "tries is 0; it must be at least 1"),
    ],
)
def test_values_that_no_machine_could_carry_out(build: object, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        build()  # type: ignore[operator]
