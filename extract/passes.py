"""What decides the last bits of a feature beside its spec, and what of it a store was begun with.

Libraries sum in another order where a pass has another size, where more threads share it, or on another device: features of MobileNetV2
then differ by about a millionth of the largest one. Resized frames differ more: processors with AVX2 or AVX-512 resize bytes in fixed
point, CUDA and other processors in float32, which rounds a tenth to a fifth of the bytes to the next one; features then differ by about a
thousandth of the largest one. So that all features of a store are made alike, the first extraction into it notes
how it makes them; later ones take passes of the same size, and say so where they cannot make them alike.
"""

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch

from extract.flow import is_learned
from extract.network import Network
from extract.spec import MOST_IMAGES, RunOptions
from store.digest import from_dict, to_plain
from store.errors import SpecError
from store.files import write_first, write_text

FILE_NAME = "passes.json"


@dataclass(frozen=True)
class Passes:
    """How forward passes are made."""

    device: str  # and its kind
    threads: int  # that share a pass on a processor, else 0
    images: int  # of a pass, crops counted
    mixed: bool  # clips of several videos in a pass
    torch: str  # version
    flow: str = ""  # of a network: computed by decode "workers" or on the "device", whose bits differ; else empty, as in older notes

    @classmethod
    def of(cls, network: Network, flow_on_device: bool = False) -> "Passes":
        """How ``network`` makes them."""
        device = network.device.device
        threads = torch.get_num_threads() if device.type == "cpu" else 0
        images = network.units_per_pass * network.spec.crops.count
        learned = is_learned(network.spec.flow)
        flow = ("device" if flow_on_device else "workers") if learned else ""
        return cls(device_name(device), threads, images, network.mixed, torch.__version__, flow)


def device_name(device: torch.device) -> str:
    """``cpu`` and its instructions, or the name of the accelerator."""
    if device.type == "cuda":
        return f"cuda {torch.cuda.get_device_name(device)}"
    return f"cpu {torch.backends.cpu.get_cpu_capability()}" if device.type == "cpu" else device.type


def resizes_in_fixed_point(name: str) -> bool:
    """Whether torchvision resizes bytes as such on a device of ``device_name``."""
    return name.startswith(("cpu AVX2", "cpu AVX512"))


def read_passes(store: Path) -> Passes | None:
    """What was noted in a store's folder; None where nothing was, or nothing that can be read."""
    try:
        return from_dict(Passes, json.loads((store / FILE_NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, SpecError, AttributeError):
        return None


def as_before(options: RunOptions, store: Path, device: torch.device) -> RunOptions:
    """``options`` with passes of the size that the store was begun with, unless another is asked for."""
    before = read_passes(store)
    if options.batch_size or before is None or before.device != device_name(device) or not 1 <= before.images <= MOST_IMAGES:
        return options
    return replace(options, batch_size=before.images)


def note_passes(
    network: Network, store: Path, flow_on_device: bool = False, any_device: bool = False, empty: bool = False
) -> tuple[str, ...]:
    """Note how features are made if they are the store's first; else say, in words, what is not as before.

    Raises ``SpecError`` where frames are resized otherwise than before, unless it may be ``any_device``. Where the store is ``empty`` the
    note says nothing yet, and is made anew.
    """
    now, before = Passes.of(network, flow_on_device), read_passes(store)
    text = json.dumps(to_plain(now), indent=2) + "\n"
    if before is not None and empty and before != now:
        write_text(store / FILE_NAME, text)
        before = now
    if before is None:
        write_first(store / FILE_NAME, text)
        before = read_passes(store)  # another job may have been first
        if before is None:  # what is there cannot be read
            write_text(store / FILE_NAME, text)
            before = now
    names = [field.name for field in fields(Passes) if getattr(now, field.name) != getattr(before, field.name)]
    if not any_device:
        _check_alike(store, before.device, now.device)
    if not before.flow and "flow" in names:  # noted before this was
        names.remove("flow")
    if not names:
        return ()
    changes = ", ".join(f"{name} {getattr(now, name)} instead of {getattr(before, name)}" for name in names)
    return (f"the last bits of these features may differ from those made before: {changes} ({store / FILE_NAME})",)


def check_device(store: Path, device: torch.device) -> None:
    """Raise ``SpecError`` where ``note_passes`` would, before anything is made."""
    before = read_passes(store)
    if before is not None:
        _check_alike(store, before.device, device_name(device))


def _check_alike(store: Path, before: str, now: str) -> None:
    if resizes_in_fixed_point(now) != resizes_in_fixed_point(before):
        raise SpecError(
            f"{store} was begun on {before}, which resizes frames otherwise than {now}: features would differ by about a "
            "thousandth of the largest one; use such a device (--device), another folder, or, of `actioncache extract`, --any-device "
            "to mix them"
        )
