"""Every preset resolves to a spec that its network can run."""

import subprocess
import sys
from dataclasses import replace

import pytest

from extract.backbones import backbone_info, resolve_levels
from extract.fit import as_trained, check_fit
from extract.modality import with_quantise
from extract.presets import DESCRIPTIONS, MADE_FAST, PRESETS, preset, store_name
from extract.spec import FeatureSpec
from store.digest import digest, to_plain
from store.errors import UnknownNameError
from store.files import safe_name
from store.options import resolve


@pytest.mark.parametrize("name", PRESETS)
def test_preset_resolves_and_fits_its_network(name: str) -> None:
    spec = resolve(FeatureSpec, preset(name))
    info = backbone_info(spec.backbone)
    levels = resolve_levels(info, spec.levels)
    assert levels == (spec.levels or (info.default_level or info.last_level,))
    spec = replace(spec, levels=levels, flow=with_quantise(spec.flow, info))
    assert as_trained(spec, info) == spec  # nothing is left open, so that a preset means one thing for ever
    check_fit(spec, info)
    assert "flow" not in name or spec.flow.method
    assert ("tencrop" in name) == (spec.crops.count == 10)
    assert ("kept" in name) == spec.crops.keep
    assert (spec.precision == "bf16") == name.endswith("-fast")
    assert DESCRIPTIONS[name] == PRESETS[name].text
    assert safe_name(store_name(name)) == name


def test_no_two_presets_are_the_same_spec() -> None:
    digests = {name: digest(resolve(FeatureSpec, preset(name))) for name in PRESETS}
    assert len(set(digests.values())) == len(PRESETS)


def test_mrrn_preset_is_the_papers() -> None:
    """PAPERS C: ResNet-34 low, mid, high; clips of 30 frames, stride 8, at most 20, looped; short side 256, centre 224."""
    spec = resolve(FeatureSpec, preset("resnet34-mrrn"))
    assert spec.levels == resolve_levels(backbone_info("resnet34"), ("low", "mid", "high"))
    assert (spec.clips.rule, spec.clips.length, spec.clips.stride, spec.clips.max_clips, spec.clips.pool) == ("looped", 30, 8, 20, "none")
    assert (spec.crops.resize, spec.crops.size, spec.crops.count) == ((256,), 224, 1)


def test_every10_preset_is_the_papers() -> None:
    spec = resolve(FeatureSpec, preset("resnet50-every10"))
    assert (spec.backbone, spec.clips.rule, spec.clips.stride, spec.clips.length) == ("resnet50", "every", 10, 1)
    assert [backbone_info("resnet50").dims[level] for level in spec.levels] == [512, 1024, 2048]


@pytest.mark.parametrize(
    ("name", "length", "stride", "resize", "size"),
    [("c3d", 16, 8, (171, 128), 112), ("i3d-rgb", 64, 32, (256,), 224), ("r2plus1d", 16, 8, (171, 128), 112)],
)
def test_clip_networks(name: str, length: int, stride: int, resize: tuple[int, ...], size: int) -> None:
    """PAPERS A: C3D, s = 16, r = 8, fc6, 4096 wide; preprocessing as the weights' authors publish it."""
    spec = resolve(FeatureSpec, preset(name))
    assert (spec.clips.rule, spec.clips.length, spec.clips.stride) == ("sliding", length, stride)
    assert (spec.crops.resize, spec.crops.size) == (resize, size)
    assert name != "c3d" or backbone_info("c3d").dims[spec.levels[0]] == 4096
    assert spec.decode.fps == (25 if name == "i3d-rgb" else 0)


def test_flows_are_the_papers() -> None:
    """Wang et al. 2016: five (x, y) pairs from the frame on; Feichtenhofer et al. 2016: ten, centred, beside RGB; TV-L1, bound 20."""
    for name, pairs, offset, with_rgb in (("tsn-flow-tencrop", 5, 0, False), ("st-resnet", 10, -5, True), ("i3d-flow", 1, 0, False)):
        flow = resolve(FeatureSpec, preset(name)).flow
        assert (flow.method, flow.bound, flow.pairs, flow.offset, flow.with_rgb) == ("tvl1", 20, pairs, offset, with_rgb)


def test_a_fast_preset_differs_in_arithmetic_only() -> None:
    for name, (_, _, fast) in MADE_FAST.items():
        plain, other = (to_plain(resolve(FeatureSpec, preset(each))) for each in (name, f"{name}-fast"))
        assert {key for key in plain if plain[key] != other[key]} == {key for key, value in fast.items() if value}


def test_flags_override_a_preset() -> None:
    spec = resolve(FeatureSpec, preset("mobilenet-rgb-tencrop"), {"crops": {"keep": True}})
    assert (spec.crops.count, spec.crops.keep, spec.backbone) == (10, True, "mobilenet_v2")


def test_changing_a_returned_preset_changes_no_other() -> None:
    preset("tiny")["crops"]["size"] = 1
    assert preset("tiny-flow")["crops"]["size"] == preset("tiny")["crops"]["size"] == 56


def test_weights_may_stand_in_a_config_file_and_the_flag_wins() -> None:
    import torch

    from extract.prepare import prepare_spec

    spec = prepare_spec("tiny", {"weights": "random:1"}, None, torch.device("cpu"))[0]
    assert spec == prepare_spec("tiny", {}, "random:1", torch.device("cpu"))[0]
    assert prepare_spec("tiny", {"weights": "random:1"}, "random:2", torch.device("cpu"))[0].weights.startswith("random:2:")


def test_unknown_preset_is_told_its_neighbours() -> None:
    with pytest.raises(UnknownNameError, match="no preset is called 'mobilnet-rgb'; did you mean mobilenet-rgb"):
        preset("mobilnet-rgb")
    with pytest.raises(UnknownNameError, match="known: mobilenet-rgb, "):
        preset("?")


def test_store_name_without_a_preset() -> None:
    assert store_name(None) == store_name("") == "custom"


def test_presets_import_no_torch() -> None:
    code = "import sys, extract.presets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
