"""docs/backbones.md says what the code says: its table, its example, its commands."""

import re
import sys
from pathlib import Path

import pytest
import torch

from extract.backbones import BackboneInfo, backbone_info, describe_backbones
from extract.weights import load_backbone
from extract.weights_commands import weights

PAGE = Path(__file__).parents[2] / "docs" / "backbones.md"


def row(info: BackboneInfo) -> str:
    """The line of the table for one network."""
    usual = info.default_level or info.last_level
    levels = ", ".join(f"**{level} {width}**" if level == usual else f"{level} {width}" for level, width in info.dims.items())
    frames = (
        str(info.clip_length)
        + (f" (from {info.shortest_clip})" if info.shortest_clip else "")
        + (f" at {info.fps:g} fps" if info.fps else "")
    )
    how = ("" if info.interpolation == "bilinear" else f" {info.interpolation}") + ("" if info.antialias else " plain")
    taken = f"{'x'.join(map(str, info.resize))}{how} -> {info.size}{' only' if info.fixed_size else ''}, {info.modality} {info.channels}"
    return f"| `{info.name}` | {levels} | {frames} | {taken} | {', '.join(info.published) or 'none'} |"


def test_the_table_is_what_the_networks_say_of_themselves() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if re.match(r"\| `\w+` \| .* -> ", line)]
    assert rows == [row(info) for info in describe_backbones()]


def test_the_example_works_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "docs_example_nets.py").write_text(example, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    loaded = load_backbone("docs_example_nets:MyNet", "random:0", ("block1", "logits"))
    with torch.inference_mode():
        features = loaded.backbone(torch.rand(2, 3, 112, 112), ("block1", "block1.map", "logits"))
    assert {level: tuple(values.shape) for level, values in features.items()} == {
        "block1": (2, 64),
        "block1.map": (2, 64, 27, 27),
        "logits": (2, 10),
    }
    torch.save({key: value for key, value in loaded.backbone.state_dict().items() if not key.startswith("classifier.")}, "w.pth")
    assert "logits" not in load_backbone("docs_example_nets:MyNet", "w.pth").backbone.info.dims


def test_the_commands_and_flags_it_names_exist() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name, rest in re.findall(r"^actioncache weights (\w+)(.*)$", text, re.MULTILINE):
        flags = {flag for parameter in weights.commands[name].params for flag in parameter.opts}
        assert set(re.findall(r"(?<!\S)--?[a-z-]+", rest)) <= flags
    for backbone, file in re.findall(r"weights fetch (\w+):(\w+)", text):
        assert file in backbone_info(backbone).published
