"""The recurrent residual block: eq. 2-4 of Iqbal et al. in plain numpy, torchvision's ResNet where nothing came before, its slow twin."""

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file

from store.errors import SpecError, TrainingError
from temporal.heads import build_head
from temporal.numerics import seeded
from temporal.spec import HeadSpec

NAME = "recurrent_residual"


def _head(channels: int = 128, backbone: str = "resnet18", output: str = "last", **params) -> torch.nn.Module:
    """In float64, with statistics of batch normalisation, and skips' weights, that are not those of the beginning."""
    spec = HeadSpec(name=NAME, output=output, dropout=0.0, params={"backbone": backbone, **params})
    with seeded(0):
        head = build_head(spec, channels, 5).double().eval()
        for module in head.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                for tensor in (module.weight.data, module.running_var):
                    tensor.uniform_(0.5, 1.5)
                for tensor in (module.bias.data, module.running_mean):
                    tensor.normal_(std=0.1)
        for skip in head.skips.values():
            if skip.own is not None:
                skip.own.weight.data.normal_(std=0.05)
    return head


def _maps(steps: int, channels: int = 128, side: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randn(steps, channels, side, side, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).relu()


def _convolve(x: np.ndarray, layer: torch.nn.Conv2d) -> np.ndarray:
    """x [C, H, W] * W, with the layer's stride and padding, as a sum over the places of the kernel."""
    weight, stride, padding = layer.weight.detach().numpy(), layer.stride[0], layer.padding[0]
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    size = weight.shape[2]
    rows, columns = ((side - size) // stride + 1 for side in x.shape[1:])
    total = np.zeros((len(weight), rows, columns))
    for i in range(size):
        for j in range(size):
            seen = x[:, i : i + stride * rows : stride, j : j + stride * columns : stride]
            total += np.einsum("oc,chw->ohw", weight[:, :, i, j], seen)
    return total if layer.bias is None else total + layer.bias.detach().numpy()[:, None, None]


def _normalise(x: np.ndarray, layer: torch.nn.BatchNorm2d) -> np.ndarray:
    weight, bias, mean, variance = (
        tensor.detach().numpy()[:, None, None] for tensor in (layer.weight, layer.bias, layer.running_mean, layer.running_var)
    )
    return (x - mean) / np.sqrt(variance + layer.eps) * weight + bias


def _relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def _paper(head: torch.nn.Module, maps: np.ndarray, kind: str, with_skip: list[int]) -> list[np.ndarray]:
    """Each step's maps after the last unit: y_t by eq. 2, 3 or 4 in the units ``with_skip``, by eq. 1 in the others."""
    signal = list(maps)
    for number, unit in enumerate(head.tail.units):
        results = []
        for t, x_t in enumerate(signal):
            inner = _relu(_normalise(_convolve(x_t, unit.conv1), unit.bn1))
            residual = _normalise(_convolve(inner, unit.conv2), unit.bn2)

            def shortcut(x, unit=unit):
                return x if unit.downsample is None else _normalise(_convolve(x, unit.downsample[0]), unit.downsample[1])

            y_t = residual + shortcut(x_t)
            if number in with_skip and t > 0:
                before = signal[t - 1]
                if kind == "identity":
                    y_t = y_t + shortcut(before)
                else:
                    linear = _convolve(before, head.skips[str(number)].own)
                    y_t = y_t + (linear if kind == "linear" else _relu(linear))
            results.append(_relu(y_t))  # torchvision's unit ends with a ReLU
        signal = results
    return signal


@pytest.mark.parametrize(
    ("position", "skips", "with_skip"),
    [("block4_end", 1, [3]), ("block4_end", 2, [2, 3]), ("block4_end", 4, [0, 1, 2, 3]), ("block4_mid", 1, [2])],
)
@pytest.mark.parametrize("kind", ["identity", "linear", "nonlinear"])
def test_fast_and_slow_are_the_papers_equations(kind, position, skips, with_skip):
    head = _head(skip=kind, position=position, skips=skips)
    maps = _maps(3, side=2)
    expected = np.stack(_paper(head, maps.numpy(), kind, with_skip))
    slow = head.step_by_step(maps).detach().numpy()
    fast = head._packed(maps, torch.arange(3) > 0).detach().numpy()
    np.testing.assert_allclose(slow, expected, atol=1e-10)
    np.testing.assert_allclose(fast, expected, atol=1e-10)


@pytest.mark.parametrize(("skips", "context"), [(1, 2), (2, 3), (4, 5)])
def test_n_skips_see_n_plus_1_steps(skips, context):
    head = _head(skips=skips)
    maps = _maps(7, side=2).requires_grad_()
    head.step_by_step(maps)[-1].sum().backward()
    seen = maps.grad.flatten(1).abs().amax(1) > 0
    assert seen.tolist() == [False] * (7 - context) + [True] * context


@pytest.mark.parametrize("kind", ["identity", "linear", "nonlinear"])
def test_gradients_of_fast_and_slow_agree(kind):
    head = _head(skip=kind, skips=3)
    gradients = []
    for path in (head.step_by_step, lambda maps: head._packed(maps, torch.arange(4) > 0)):
        head.zero_grad()
        maps = _maps(4, side=2).requires_grad_()
        (path(maps) * _maps(4, 512, 1, seed=1)).sum().backward()
        gradients.append([maps.grad, *(parameter.grad for parameter in head.parameters() if parameter.grad is not None)])
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize(("backbone", "channels", "first"), [("resnet50", 1024, 4), ("resnet34", 256, 4), ("resnet18", 64, 2)])
def test_one_step_is_torchvisions_network_from_these_maps_on(backbone, channels, first, tmp_path):
    with seeded(3):
        network = torchvision.models.get_model(backbone, weights=None).eval()
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 1.5)
    file = tmp_path / "weights.safetensors"
    save_file(network.state_dict(), file)
    spec = HeadSpec(name=NAME, params={"backbone": backbone}, weights="sha256:0", output="last")
    with seeded(0):
        head = build_head(spec, channels, 5, file).eval()
    maps = _maps(1, channels, 4).float()
    expected = maps
    for number in range(first, 5):
        expected = getattr(network, f"layer{number}")(expected)
    with torch.inference_mode():
        torch.testing.assert_close(head.step_by_step(maps), expected)
        torch.testing.assert_close(head(maps[None], torch.tensor([1])), head.classifier(expected.mean((2, 3))))


def test_all_kinds_begin_as_the_identity_skip(tmp_path):
    network = torchvision.models.resnet18(weights=None)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    results = []
    for kind in ("identity", "linear", "nonlinear"):
        spec = HeadSpec(name=NAME, params={"backbone": "resnet18", "skip": kind, "position": "block4_end"}, weights="sha256:0")
        head = build_head(spec, 256, 5, tmp_path / "weights.pth").double().eval()
        results.append(head.step_by_step(_maps(3, 256)))
    torch.testing.assert_close(results[1], results[0])
    torch.testing.assert_close(results[2], results[0])


def test_batch_normalisation_keeps_its_statistics_in_training():
    head = _head().train()
    before = {name: value.clone() for name, value in head.state_dict().items() if "running" in name}
    head(_maps(6).view(2, 3, 128, 4, 4), torch.tensor([3, 2])).sum().backward()
    assert all(torch.equal(value, head.state_dict()[name]) for name, value in before.items())
    assert head.dropout.training


@pytest.mark.parametrize(
    ("channels", "params", "words"),
    [
        (100, {}, r"100 channels enter no block of resnet18, whose blocks take .*128 \(enters block 3\), 256 \(enters block 4\)"),
        (256, {"position": "block2"}, r"position block2 is in block 2, but these maps enter block 4 .*--sequence\.level"),
        (256, {"skips": 3}, r"3 skips ending at block4_end need 3 residual units, but .* there are 2"),
        (256, {"position": "block4_mid", "skips": 2}, "there are 1; take fewer skips"),
    ],
)
def test_maps_that_enter_too_late_are_refused(channels, params, words):
    with pytest.raises(SpecError, match=words):
        _head(channels, **params)


def test_positions_are_the_papers_units():
    tail = _head(64, "resnet50").tail  # the stem's maps, which enter block 1
    assert tail.first == 1
    lengths = [3, 4, 6, 3]
    assert tail.units_up_to("block1", 1) == [0]
    assert tail.units_up_to("block2", 1) == [sum(lengths[:2]) - 1]
    assert tail.units_up_to("block4_mid", 1) == [sum(lengths[:3])]
    assert tail.units_up_to("block4_end", 4) == [12, 13, 14, 15]


def test_weights_that_do_not_fit_are_said(tmp_path):
    spec = HeadSpec(name=NAME, params={"backbone": "resnet18"}, weights="sha256:0")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(TrainingError, match=r"text\.pth cannot be read as weights"):
        build_head(spec, 256, 5, tmp_path / "text.pth")
    torch.save({"fc.weight": torch.zeros(1)}, tmp_path / "fc.pth")
    with pytest.raises(TrainingError, match=r"has not the weights of resnet18's blocks 4 to 4: .* such as layer4\.0\.conv1\.weight"):
        build_head(spec, 256, 5, tmp_path / "fc.pth")
    wide = {
        name: torch.zeros(2) if name == "layer4.0.conv1.weight" else value
        for name, value in torchvision.models.resnet18().state_dict().items()
    }
    torch.save(wide, tmp_path / "wide.pth")
    with pytest.raises(TrainingError, match=r"layer4\.0\.conv1\.weight is \[2\], but resnet18 has \[512, 256, 3, 3\]"):
        build_head(spec, 256, 5, tmp_path / "wide.pth")
    with pytest.raises(TrainingError, match="resolve one by the other"):
        build_head(spec, 256, 5)
