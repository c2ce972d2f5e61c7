"""What a device does while this process goes on, played by events that are told when they are over; no GPU is needed."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from extract.device import Device, Download
from extract.network import PASSES_UNDER_WAY, Network, Unit
from extract.prepare import prepare_spec

CPU = torch.device("cpu")


class Event:
    """Stands for ``torch.cuda.Event``: over as soon as the test says so."""

    over = False

    def __init__(self, enable_timing: bool = False) -> None:
        self.waited = False

    def record(self, stream: object) -> None:
        """The stream is as far as this when it is over."""

    def query(self) -> bool:
        return Event.over

    def synchronize(self) -> None:
        self.waited = True

    def elapsed_time(self, other: "Event") -> float:
        return 250.0


@pytest.fixture
def busy_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Event, "over", False)
    monkeypatch.setattr("torch.cuda.Event", Event)
    monkeypatch.setattr("torch.cuda.current_stream", lambda device: None)


@pytest.mark.usefixtures("busy_device")
def test_time_at_work_is_counted_when_it_is_over_and_its_events_go(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(CPU)
    monkeypatch.setattr(device, "_is_cuda", True)
    for _ in range(6):
        with device.working():
            pass
    assert (device.busy_seconds(), len(device._sections)) == (0.0, 6)
    Event.over = True
    with device.working():
        pass
    assert (len(device._sections), device.busy_seconds()) == (0, 7 * 0.25)


class Receiver:
    """Notes which units it is given, and their features."""

    def __init__(self) -> None:
        self.got: dict[int, np.ndarray] = {}

    def receive(self, unit: int, levels: dict[str, np.ndarray]) -> None:
        self.got[unit] = levels["block3"]


@pytest.mark.usefixtures("busy_device")
def test_passes_wait_for_the_device_no_longer_than_they_must(monkeypatch: pytest.MonkeyPatch) -> None:
    spec, backbone = prepare_spec("tiny", {}, "random:0", CPU)
    network, receiver = Network(backbone, spec, CPU, 2), Receiver()

    def download(levels: Mapping[str, torch.Tensor]) -> Download:
        return Download(dict(levels), Event())  # type: ignore[arg-type]

    monkeypatch.setattr(network.device, "download", download)
    frames = network.noise()[0]
    queue = [Unit(receiver, number, frames + number) for number in range(8)]
    network.run_full(queue)
    assert sorted(receiver.got) == list(range(8 - 2 * PASSES_UNDER_WAY))  # all but those under way
    network.collect()
    assert len(receiver.got) == 8 - 2 * PASSES_UNDER_WAY
    Event.over = True
    network.collect()
    assert sorted(receiver.got) == list(range(8))
    expected = Network(backbone, spec, CPU, 2).features(torch.stack([frames + 6, frames + 7]))["block3"]
    assert np.array_equal(np.stack([receiver.got[6], receiver.got[7]]), expected.numpy())
