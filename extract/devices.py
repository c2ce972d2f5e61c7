"""One job on several devices: a process each, which share its part of the list. Imports no torch."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from store.errors import Interrupted, PipelineError, SpecError

POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Ended:
    """How one process ended: its device, exit code, and summaries (None where it printed none)."""

    device: str
    code: int
    summaries: list[dict[str, Any]] | None  # one a store


def device_names(text: str) -> list[str]:
    """``cuda:0,cuda:1`` as names; ``all`` is every CUDA device that this process may see."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if names == ["all"]:
        import torch

        names = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
        if not names:
            raise SpecError("--devices all: there is no CUDA device here")
    if not names:
        raise SpecError(f"--devices is {text!r}; write names with commas between, e.g. cuda:0,cuda:1, or all")
    return names


def run_on_devices(command: Sequence[str], devices: Sequence[str], stopped: Callable[[], bool]) -> list[Ended]:
    """Run ``command`` once a device, each with its share of the work, and wait for all; once ``stopped()``, they are told to publish.

    Their progress goes to this process's stderr, with the device in front of each line.
    """
    children = []
    for place, device in enumerate(devices, 1):
        own = [*command, "--device", device, "--share", f"{place}/{len(devices)}", "--json"]
        child = subprocess.Popen(own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace")
        children.append(child)
    outputs: list[str] = [""] * len(children)
    threads = [threading.Thread(target=_relay, args=(child, device)) for child, device in zip(children, devices, strict=True)]
    threads += [threading.Thread(target=_collect, args=(child, outputs, place)) for place, child in enumerate(children)]
    for thread in threads:
        thread.start()
    told = False
    while any(child.poll() is None for child in children):
        if stopped() and not told:
            told = True
            for child in children:
                if child.poll() is None:
                    child.send_signal(signal.SIGUSR1)
        for child in children:
            try:
                child.wait(POLL_SECONDS)
            except subprocess.TimeoutExpired:
                break
    for thread in threads:
        thread.join()
    return [Ended(device, child.returncode, _summaries(text)) for device, child, text in zip(devices, children, outputs, strict=True)]


def joined(ended: Sequence[Ended]) -> list[dict[str, Any]]:
    """The summaries of all processes as one a store. ``PipelineError`` or ``Interrupted`` unless every process came to its end.

    ``seconds`` and ``clips`` are sums over the processes, but ``total``, which is the longest; ``busy`` is their mean.
    """
    broken = [f"{each.device} ended with exit code {each.code}" for each in ended if each.code not in (0, 1) or not each.summaries]
    if broken:
        what = "; ".join(broken) + "; what was finished is published, run the command again"
        raise Interrupted(what) if all(each.code in (0, 1, 3) or each.code < 0 for each in ended) else PipelineError(what)
    return [_join(of_store) for of_store in zip(*(each.summaries or [] for each in ended), strict=True)]


def _join(summaries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    whole = dict(summaries[0])
    for name in ("done", "skipped", "clips"):
        whole[name] = sum(summary[name] for summary in summaries)
    for name in ("failed", "damaged"):
        whole[name] = {key: value for summary in summaries for key, value in summary[name].items()}
    stages = dict.fromkeys(stage for summary in summaries for stage in summary["seconds"])
    whole["seconds"] = {stage: sum(summary["seconds"].get(stage, 0.0) for summary in summaries) for stage in stages}
    whole["seconds"]["total"] = max(summary["seconds"].get("total", 0.0) for summary in summaries)
    whole["busy"] = sum(summary["busy"] for summary in summaries) / len(summaries)
    return whole


def _relay(child: "subprocess.Popen[str]", device: str) -> None:
    assert child.stderr is not None
    for line in child.stderr:
        print(f"[{device}] {line}", end="", file=sys.stderr, flush=True)


def _collect(child: "subprocess.Popen[str]", outputs: list[str], place: int) -> None:
    assert child.stdout is not None
    outputs[place] = child.stdout.read()


def _summaries(text: str) -> list[dict[str, Any]] | None:
    try:
        data = json.loads(text.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return None
    found = data if isinstance(data, list) else [data]
    return found if all(isinstance(each, dict) and "done" in each for each in found) else None
