"""Networks by other names than the registered ones: the user's own, and timm's."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from extract.backbones import backbone_builder, backbone_info
from extract.crops import crop_boxes, normalise, resize_frames
from extract.prepare import prepare_spec
from extract.spec import CropSpec
from extract.weights import load_backbone
from store.errors import PipelineError, SpecError, UnknownNameError

OWN = '''
import torch
from extract.backbones import Backbone, BackboneInfo

class MyNet(Backbone):
    """Colours of each corner."""

    def __init__(self):
        super().__init__()
        self.info = BackboneInfo("mine", {"corners": 6}, size=32, resize=(40,))
        self.mix = torch.nn.Conv2d(3, 6, 1)

    def stages(self, frames):
        yield "corners", self.mix(frames)

def make():
    return MyNet()

def broken():
    return 1 / 0

class Plain(torch.nn.Linear):
    def __init__(self):
        super().__init__(2, 2)

class NoInfo(Backbone):
    def stages(self, frames):
        yield "a", frames

class NoStages(Backbone):
    def __init__(self):
        super().__init__()
        self.info = BackboneInfo("x", {"a": 3})

class Lies(MyNet):
    def stages(self, frames):
        yield "corners", self.mix(frames)[:, :5]

class Needs(MyNet):
    def __init__(self, depth):
        super().__init__()

answer = 42
'''


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package ``mylab`` with a module ``nets`` in the current folder, which is not on Python's path, as for the installed program."""
    folder = tmp_path / "mylab"
    folder.mkdir()
    (folder / "nets.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    backbone_info.cache_clear()
    yield folder
    forget()


def forget() -> None:
    """As a new process: nothing of the package is imported."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "mylab"]:
        del sys.modules[name]
    backbone_info.cache_clear()


def rewrite(lab: Path, text: str) -> None:
    (lab / "nets.py").write_text(text)
    shutil.rmtree(lab / "__pycache__", ignore_errors=True)
    forget()


@pytest.mark.parametrize("attribute", ["MyNet", "make"])
def test_a_network_in_the_current_folder_is_used_by_its_name(attribute: str, lab: Path) -> None:
    name = f"mylab.nets:{attribute}"
    assert str(lab.parent) not in sys.path
    loaded = load_backbone(name, "random:0")
    assert loaded.backbone.info.name == name
    assert backbone_info(name) == loaded.backbone.info
    frames = torch.rand(2, 3, 8, 8)
    with torch.inference_mode():
        features = loaded.backbone(frames)["corners"]
    expected = torch.nn.functional.conv2d(frames, loaded.backbone.state_dict()["mix.weight"], loaded.backbone.state_dict()["mix.bias"])
    assert torch.allclose(features, expected.mean((2, 3)))
    assert sys.path[-1] == str(lab.parent)  # behind everything that is installed


def test_a_file_gives_a_private_network_its_weights(lab: Path) -> None:
    state = {"mix.weight": torch.randn(6, 3, 1, 1), "mix.bias": torch.randn(6)}
    torch.save(state, lab / "w.pth")
    loaded = load_backbone("mylab.nets:MyNet", str(lab / "w.pth"))
    assert torch.equal(loaded.backbone.state_dict()["mix.weight"], state["mix.weight"])
    assert loaded.identity.startswith("sha256:")


def test_the_identity_changes_with_the_code_and_with_nothing_else(lab: Path) -> None:
    torch.save({"mix.weight": torch.zeros(6, 3, 1, 1), "mix.bias": torch.zeros(6)}, lab / "w.pth")

    def identities() -> list[str]:
        return [load_backbone("mylab.nets:MyNet", source).identity for source in ("random:0", str(lab / "w.pth"))]

    first = identities()
    assert first == identities()
    weights, code = zip(*(identity.split("+code:") for identity in first), strict=True)
    assert len(set(code)) == 1
    assert len(code[0]) == 12
    rewrite(lab, OWN.replace("self.mix(frames)\n\ndef", "self.mix(frames) * 2\n\ndef"))
    changed = identities()
    assert [identity.split("+code:")[0] for identity in changed] == list(weights)  # the same file of weights, another network
    assert not set(changed) & set(first)
    rewrite(lab, OWN)
    assert identities() == first


def test_the_identity_covers_the_files_of_the_classes_a_network_is_derived_from(lab: Path) -> None:
    (lab / "base.py").write_text(OWN)
    rewrite(lab, "from mylab.base import MyNet\nclass Child(MyNet):\n    pass\n")
    first = load_backbone("mylab.nets:Child", "random:0").identity
    (lab / "base.py").write_text(OWN.replace("Conv2d(3, 6, 1)", "Conv2d(3, 6, 3)"))
    forget()
    assert load_backbone("mylab.nets:Child", "random:0").identity.split("+")[1] != first.split("+")[1]


def test_a_spec_tells_two_versions_of_the_code_apart(lab: Path) -> None:
    device, settings = torch.device("cpu"), {"backbone": "mylab.nets:MyNet", "crops": {"resize": [40], "size": 32}}
    first, _ = prepare_spec(None, settings, "random:0", device)
    rewrite(lab, OWN + "\n# a remark\n")
    second, _ = prepare_spec(None, settings, "random:0", device)
    assert first.backbone == second.backbone == "mylab.nets:MyNet"
    assert first.weights != second.weights


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mylab.nest:MyNet", r"no module mylab\.nest, neither installed nor in the current folder .*package\.module:attribute"),
        ("yourlab.nets:MyNet", r"no module yourlab, neither"),
        ("mylab.nets:MyNett", r"mylab\.nets \(.*nets\.py\) has no 'MyNett'; did you mean MyNet"),
        ("mylab.nets:", r"has no ''; check the name after the colon"),
        ("mylab.nets:answer", "is a int; it must be a class or function that gives a Backbone"),
        ("mylab.nets:broken", r"cannot be built: ZeroDivisionError: division by zero in .*nets\.py, line \d+"),
        ("mylab.nets:Needs", r"cannot be built: TypeError: .*'depth'; it is called without arguments"),
        ("mylab.nets:Plain", r"gives a mylab\.nets\.Plain, not an extract\.backbones\.Backbone; derive .*docs/backbones\.md"),
        ("mylab.nets:NoInfo", r"has no info; set self\.info = BackboneInfo"),
        ("mylab.nets:NoStages", r"has no method stages\(frames\)"),
        (":MyNet", r"module  cannot be imported: ValueError: Empty module name"),
        ("math:sqrt", r"cannot be built: TypeError"),
    ],
)
def test_what_is_no_network_is_named_with_the_reason(name: str, words: str, lab: Path) -> None:
    with pytest.raises(SpecError, match=words):
        backbone_builder(name)()


def test_an_error_inside_the_users_module_is_told_with_its_place(lab: Path) -> None:
    rewrite(lab, "import torch\n\nimport no_such_thing\n")
    with pytest.raises(SpecError, match=r"mylab\.nets cannot be imported: ModuleNotFoundError: .*no_such_thing.* in .*nets\.py, line 3"):
        backbone_builder("mylab.nets:MyNet")
    rewrite(lab, "class MyNet(:\n")
    with pytest.raises(SpecError, match=r"cannot be imported: SyntaxError"):
        backbone_builder("mylab.nets:MyNet")


def test_a_network_that_does_not_give_what_it_promises_is_refused(lab: Path) -> None:
    with pytest.raises(SpecError, match=r"'mylab\.nets:Lies' gives level corners as \[1, 5\], but its info promises 6"):
        load_backbone("mylab.nets:Lies", "random:0")


def test_without_timm_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(PipelineError, match=r"timm:resnet18 needs the library timm, .*run: pip install 'actioncache\[timm\]'"):
        load_backbone("timm:resnet18", "random:0")


def test_timms_network_is_what_timm_computes() -> None:
    timm = pytest.importorskip("timm")
    for name in ("test_resnet", "test_vit"):
        loaded = load_backbone(f"timm:{name}", "random:0", tuple(backbone_info(f"timm:{name}").dims))
        info = loaded.backbone.info
        assert loaded.identity.endswith(f"+timm:{timm.__version__}")
        plain = timm.create_model(name).eval()
        plain.load_state_dict({key.removeprefix("network."): value for key, value in loaded.backbone.state_dict().items()})
        frames = torch.rand(2, 3, info.size, info.size, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            ours = loaded.backbone(frames, tuple(info.dims))
            logits, blocks = plain(frames), plain.forward_intermediates(frames, output_fmt="NCHW", intermediates_only=True)
            plain.reset_classifier(0)
            features = plain(frames)
        assert torch.equal(ours["logits"], logits)
        assert torch.equal(ours["features"], features)
        assert {level: values.shape[1] for level, values in ours.items()} == info.dims
        assert len(blocks) == len(info.dims) - 2
        for number, block in enumerate(blocks, start=1):
            torch.testing.assert_close(ours[f"block{number}"], block.mean((2, 3)))


def test_timms_files_are_read_with_and_without_classifier(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    state = {
        key: torch.rand_like(value) if value.is_floating_point() else value
        for key, value in timm.create_model("test_vit").state_dict().items()
    }
    torch.save(state, tmp_path / "whole.pth")
    whole = load_backbone("timm:test_vit", str(tmp_path / "whole.pth"), ("features", "logits")).backbone
    assert torch.equal(whole.state_dict()["network.head.weight"], state["head.weight"])
    torch.save({key: value for key, value in state.items() if not key.startswith("head.")}, tmp_path / "headless.pth")
    headless = load_backbone("timm:test_vit", str(tmp_path / "headless.pth")).backbone
    assert "logits" not in headless.info.dims
    frames = torch.rand(1, 3, 160, 160)
    with torch.inference_mode():
        assert torch.equal(headless(frames)["features"], whole(frames)["features"])


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "vit_base_patch16_224.augreg_in21k", "resnet50.tv_in1k", "convnext_atto"])
def test_frames_reach_timms_networks_as_timm_sends_them(name: str) -> None:
    timm_data = pytest.importorskip("timm.data")
    import timm

    info = backbone_info(f"timm:{name}")
    with torch.device("meta"):
        config = timm_data.resolve_model_data_config(timm.create_model(name))
    transform = timm_data.create_transform(**config, is_training=False)
    grid = torch.rand(1, 3, 9, 12, generator=torch.Generator().manual_seed(0))
    image = (torch.nn.functional.interpolate(grid, (300, 400), mode="bicubic").clamp(0, 1) * 255).round().to(torch.uint8)
    theirs = transform(Image.fromarray(image[0].permute(1, 2, 0).numpy()))
    resized = resize_frames(image.permute(0, 2, 3, 1), CropSpec(resize=info.resize, size=info.size), info)
    (box,) = crop_boxes(*resized.shape[-2:], info.size, 1)
    ours = normalise(resized[:, :, box.top : box.top + info.size, box.left : box.left + info.size], info)[0]
    assert ours.shape == theirs.shape
    steps = (ours - theirs).abs() * torch.tensor(info.std)[:, None, None] * 255
    assert float(steps.max()) < 2.01  # of 255: Pillow rounds twice, once an axis
    assert float(steps.mean()) < 0.1
    assert info.interpolation == config["interpolation"]


def test_unknown_names_of_timm_are_told_their_neighbours() -> None:
    pytest.importorskip("timm")
    with pytest.raises(UnknownNameError, match=r"timm [\d.]+ has no network 'resnet51'; did you mean .*resnet50"):
        backbone_info("timm:resnet51")
    with pytest.raises(UnknownNameError, match=r"knows no weights 'resnet50\.nobody' of resnet50; known: .*resnet50\.a1_in1k"):
        backbone_info("timm:resnet50.nobody")
