"""Switches, generators, number types and memory of a device: what can be seen of them without a GPU."""

import warnings

import pytest
import torch

from store.errors import TrainingError
from temporal import epochs, numerics, size
from temporal.checkpoint import Checkpoint
from temporal.epochs import one_by_one, set_generators
from temporal.numerics import full_float32, seeded
from temporal.recurrence import RecurrentLayer
from temporal.spec import HeadSpec


def test_float32_is_full_while_heads_train_and_switches_are_put_back() -> None:
    parts = (torch.backends.cudnn.conv, torch.backends.cudnn.rnn)
    before = [part.fp32_precision for part in parts]

    def work():
        yield from ()
        return [part.fp32_precision for part in parts]

    assert one_by_one(work()) == ["ieee", "ieee"]
    with pytest.raises(ValueError, match="x"), full_float32():
        raise ValueError("x")
    assert [part.fp32_precision for part in parts] == before


def test_a_seed_is_no_other_devices_affair(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    monkeypatch.setattr(torch, "manual_seed", lambda seed: pytest.fail("this seeds every GPU"))
    monkeypatch.setattr(numerics.torch, "manual_seed", lambda seed: pytest.fail("this seeds every GPU"))
    before = torch.get_rng_state()
    with seeded(5):
        assert torch.equal(torch.rand(3), expected)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_recurrences_of_torch_compute_in_the_type_asked_for(kind) -> None:
    torch.manual_seed(0)
    layer, x = RecurrentLayer(kind, 6, 8), torch.randn(5, 3, 6)
    exact = layer.cell(x)[0]
    with torch.autocast("cpu", torch.bfloat16):
        low = layer.in_type(x, torch.bfloat16)
    assert low.dtype == torch.float32
    assert torch.equal(low, low.bfloat16().float())
    torch.testing.assert_close(low, exact, atol=0.03, rtol=0)
    low.sum().backward()
    assert all(weight.grad is not None and weight.grad.dtype == torch.float32 for weight in layer.parameters())


@pytest.mark.parametrize(("saved", "device"), [("cpu", "cuda"), ("cuda", "cpu"), ("cpu", "cpu"), ("cuda", "cuda")])
def test_a_training_can_go_on_on_another_device_and_says_so(monkeypatch: pytest.MonkeyPatch, saved: str, device: str) -> None:
    restored = []
    monkeypatch.setattr(epochs.torch.cuda, "set_rng_state", lambda state, where: restored.append(where))
    state = torch.get_rng_state()
    left = Checkpoint({"generator.cpu": state} | ({"generator.cuda": state} if saved == "cuda" else {}))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        set_generators(left, torch.device(device))
    place = "the CPU" if saved == "cpu" else "a GPU"
    assert [f"saved on {place}" in str(one.message) for one in told] == [True] * (saved != device)
    assert bool(restored) == (saved == device == "cuda")


def test_what_a_gpu_cannot_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(size, "memory_of", lambda device: 2_000_000_000)
    with pytest.raises(TrainingError, match=r"take 3\.0 GB of the memory of cuda:1, and 2\.0 GB of it are free; train on --device cpu"):
        size.check_rows(3_000_000_000, "cuda:1")
    size.check_rows(3_000_000_000, "cpu")
    big = HeadSpec(name="gru", hidden=8000)
    with pytest.raises(TrainingError, match=r"and cuda has 2\.0 free; choose a smaller --head\.hidden"):
        size.check_size(big, 1024, 101, "cuda")


def test_memory_that_torch_keeps_for_the_next_head_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """1,000 bytes that nobody has, and 6,000 that torch has taken, of which 2,000 are in use."""
    found = {"mem_get_info": (1_000, 8_000), "memory_reserved": 6_000, "memory_allocated": 2_000}
    for name, value in found.items():
        monkeypatch.setattr(size.torch.cuda, name, lambda device, value=value: value)
    assert size.memory_of("cuda:0") == 5_000
    with pytest.raises(TrainingError, match="are free"):
        size.check_rows(5_001, "cuda:0")
    size.check_rows(5_000, "cuda:0")
