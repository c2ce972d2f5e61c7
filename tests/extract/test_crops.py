"""Crops against torchvision's own transforms."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from extract.backbones import BackboneInfo
from extract.crops import crop_boxes, cut, normalise, resize_frames, resized_size
from extract.flow_frames import flow_size
from extract.spec import CropSpec, FlowSpec
from store.errors import FeatureError

FLOW = FlowSpec(method="dis")
SIZES = [(240, 320), (320, 240), (120, 160), (8, 8), (8, 20), (256, 341), (271, 483), (256, 256)]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape, np.uint8))


def smooth(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Frames as they come from cameras: uint8 [2, H, W, 3]."""
    grid = torch.rand(2, 3, 7, 9, generator=torch.Generator().manual_seed(seed))
    image = torch.nn.functional.interpolate(grid, (height, width), mode="bicubic", align_corners=False)
    return (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("resize", [(64,), (256,), (171, 128)])
def test_resize_is_torchvisions(height: int, width: int, resize: tuple[int, ...]) -> None:
    frames = torch.cat([smooth(height, width), noise(1, height, width, 3)])
    resized = resize_frames(frames, CropSpec(resize=resize, size=min(resize)))
    transform = v2.Resize(resize[0] if len(resize) == 1 else (resize[1], resize[0]), antialias=True)
    assert resized.dtype == torch.uint8
    assert resized.shape[-2:] == resized_size(height, width, resize)
    for frame, ours in zip(frames, resized, strict=True):
        pil = np.asarray(transform(Image.fromarray(frame.numpy())))
        assert ours.permute(1, 2, 0).shape == pil.shape
        assert np.abs(ours.permute(1, 2, 0).numpy().astype(int) - pil).max() <= 1


def test_a_frame_is_resized_alike_whatever_its_neighbours() -> None:
    frames = torch.cat([noise(5, 240, 320, 3), smooth(240, 320)])
    spec = CropSpec((256,), 224)
    alone = torch.cat([resize_frames(frame[None], spec) for frame in frames])
    assert torch.equal(resize_frames(frames, spec), alone)
    assert torch.equal(resize_frames(frames[2:4], spec), alone[2:4])
    assert torch.equal(resize_frames(frames.flip(0), spec), alone.flip(0))


@pytest.mark.parametrize(("height", "width"), [(256, 341), (341, 256), (224, 224), (225, 227), (226, 225)])
def test_ten_crops_are_tencrop(height: int, width: int) -> None:
    resized = noise(3, 3, height, width)
    crops = cut(resized, crop_boxes(height, width, 224, 10))
    assert torch.equal(crops, torch.stack(v2.TenCrop(224)(resized), 1))


@pytest.mark.parametrize(("height", "width"), [(256, 341), (227, 224), (225, 229)])
def test_one_crop_is_the_centre(height: int, width: int) -> None:
    resized = noise(2, 3, height, width)
    (box,) = crop_boxes(height, width, 224, 1)
    assert torch.equal(cut(resized, [box], FLOW)[:, 0], v2.CenterCrop(224)(resized))


def test_mirrored_flow_crops_invert_x_alone() -> None:
    resized = noise(2, 3, 40, 50).clamp(min=1)
    crops = cut(resized, crop_boxes(40, 50, 32, 10), FLOW).int()
    plain = torch.stack(v2.TenCrop(32)(resized), 1).int()
    assert torch.equal(crops[:, :5], plain[:, :5])
    assert torch.equal(crops[:, 5:, 0], 256 - plain[:, 5:, 0])
    assert torch.equal(crops[:, 5:, 1:], plain[:, 5:, 1:])
    still = torch.full((1, 3, 32, 32), 128, dtype=torch.uint8)
    assert (cut(still, crop_boxes(32, 32, 32, 10), FLOW) == 128).all()


@pytest.mark.parametrize(("height", "width"), [(8, 8), (2160, 3840)])
def test_smallest_and_largest_videos(height: int, width: int) -> None:
    resized = resize_frames(noise(1, height, width, 3), CropSpec((256,), 224))
    crops = cut(resized, crop_boxes(*resized.shape[-2:], 224, 10))
    assert crops.shape == (1, 10, 3, 224, 224)


def test_normalise_is_torchvisions() -> None:
    info = BackboneInfo("test", {"last": 1})
    crops = noise(2, 10, 3, 16, 16)
    before = crops.clone()
    expected = v2.Normalize(info.mean, info.std)(crops.float().div(255))  # ToTensor divides; ToDtype multiplies by 1/255 rounded
    torch.testing.assert_close(expected, v2.Normalize(info.mean, info.std)(v2.ToDtype(torch.float32, scale=True)(crops)))
    assert torch.equal(normalise(crops, info), expected)
    assert torch.equal(crops, before)
    assert torch.equal(normalise(crops, info, torch.bfloat16), expected.bfloat16())


def test_normalise_to_other_ranges_and_channel_orders() -> None:
    crops = noise(2, 3, 4, 4)
    caffe = BackboneInfo(
        "caffe", {"last": 1}, mean=(104.0, 117.0, 128.0), std=(1.0, 1.0, 1.0), value_range=(0.0, 255.0), channel_order="bgr"
    )
    expected = crops.flip(1).float() - torch.tensor([104.0, 117.0, 128.0]).view(3, 1, 1)
    torch.testing.assert_close(normalise(crops, caffe), expected, rtol=0, atol=1e-4)
    i3d = BackboneInfo("i3d", {"last": 1}, mean=(0.0,), std=(1.0,), value_range=(-1.0, 1.0))
    torch.testing.assert_close(normalise(crops, i3d), crops.float() / 127.5 - 1, rtol=0, atol=1e-6)


def test_a_strip_that_no_memory_would_hold_is_refused_with_its_size() -> None:
    with pytest.raises(FeatureError, match="frames of 4000x2 with a short side of 256 would be 512000x256; sides are at most 8192"):
        resize_frames(torch.zeros(1, 2, 4000, 3, dtype=torch.uint8), CropSpec(resize=(256,), size=224))
    assert resized_size(2, 4000, (171, 128)) == (128, 171)
    assert resized_size(256, 10_000, (256,)) == (256, 10_000)  # as it is
    with pytest.raises(FeatureError, match=r"frames of 2x4000 with flow.short_side 256 would be 256x512000"):
        flow_size(np.zeros((4000, 2), np.uint8), 256)
