"""A network that is fed another flow than it was trained on: said, never refused."""

import pytest

from extract.backbones import BACKBONES, BackboneInfo, backbone_info
from extract.modality import flow_warning
from extract.spec import FeatureSpec, FlowSpec

I3D = BackboneInfo("i3d_flow", {"mixed_5c": 1024}, flow_method="tvl1")


def fed(**flow: str) -> FeatureSpec:
    return FeatureSpec(flow=FlowSpec(encoding="pairs", **flow))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("flow", "expected"),
    [
        ({"method": "dis"}, "i3d_flow was trained on tvl1 flow; with --flow.method dis its features may be worse than with tvl1"),
        ({"method": "tvl1"}, None),
        ({}, None),
        ({"method": "files", "origin": "TV-L1 by dense_flow, bound 20"}, None),
        ({"method": "files", "origin": "TVL1"}, None),
        ({"method": "files", "origin": "RAFT"}, "i3d_flow was trained on tvl1 flow, which flow.origin 'RAFT' does not name"),
    ],
)
def test_another_flow_is_told(flow: dict[str, str], expected: str | None) -> None:
    assert flow_warning(fed(**flow), I3D) == expected


def test_networks_of_which_nobody_says_it_are_left_alone() -> None:
    assert flow_warning(fed(method="dis"), BackboneInfo("resnet50", {"block4": 2048})) is None


def test_networks_trained_on_flow_say_on_which() -> None:
    infos = [backbone_info(name) for name in BACKBONES]
    assert {info.name for info in infos if info.flow_method == "tvl1"} == {info.name for info in infos if "flow" in info.modality}
    assert {info.flow_method for info in infos} == {"", "tvl1"}
