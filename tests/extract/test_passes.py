"""What a store remembers of how its features were made, and what later extractions into it make of that."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from extract.commands import extract
from extract.network import Network, usual_batch
from extract.passes import FILE_NAME, Passes, as_before, check_device, note_passes, read_passes, resizes_in_fixed_point
from extract.prepare import prepare_spec
from extract.spec import MOST_IMAGES, RunOptions
from store.errors import SpecError
from store.features import FeatureStore
from store.files import write_first

Encode = Callable[..., Path]
CPU = torch.device("cpu")


def network(batch_size: int = 0) -> Network:
    spec, backbone = prepare_spec("tiny", {"crops": {"count": 10}}, "random:0", CPU)
    return Network(backbone, spec, CPU, batch_size)


def test_the_first_extraction_notes_and_later_ones_take_its_size(tmp_path: Path) -> None:
    assert note_passes(network(40), tmp_path) == ()
    noted = read_passes(tmp_path)
    assert noted is not None
    assert (noted.images, noted.mixed, noted.torch, noted.threads) == (40, False, torch.__version__, torch.get_num_threads())
    assert as_before(RunOptions(), tmp_path, CPU).batch_size == 40
    assert as_before(RunOptions(batch_size=20), tmp_path, CPU).batch_size == 20
    assert note_passes(network(45), tmp_path) == ()  # four frames of ten crops as well
    (note,) = note_passes(network(20), tmp_path)
    assert note.startswith("the last bits of these features may differ from those made before: images 20 instead of 40 (")
    assert read_passes(tmp_path) == noted


def test_another_device_takes_its_own_size(tmp_path: Path) -> None:
    device = "cuda Some GPU" if resizes_in_fixed_point(Passes.of(network()).device) else "cpu AVX2"
    other = replace(Passes.of(network()), device=device, images=2560)
    (tmp_path / FILE_NAME).write_text(json.dumps(vars(other)))
    assert as_before(RunOptions(), tmp_path, CPU) == RunOptions()
    with pytest.raises(SpecError, match=f"was begun on {device}, which resizes frames otherwise than .*--any-device to mix them"):
        note_passes(network(), tmp_path)
    with pytest.raises(SpecError, match="was begun on"):
        check_device(tmp_path, CPU)
    (note,) = note_passes(network(), tmp_path, any_device=True)
    assert f"instead of {device}, images " in note
    assert note_passes(network(), tmp_path, empty=True) == ()
    assert read_passes(tmp_path) == Passes.of(network())


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"device": "cpu"}', '{"device": 1, "more": 2}', "\xff"])
def test_a_note_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_bytes(text.encode("latin-1"))
    assert as_before(RunOptions(), tmp_path, CPU) == RunOptions()
    assert note_passes(network(), tmp_path) == ()
    assert read_passes(tmp_path) == Passes.of(network())


def test_the_command_says_what_is_not_as_before(tmp_path: Path, encode_video: Encode) -> None:
    for name in ("a.mp4", "b.mp4"):
        encode_video(tmp_path / name, np.zeros((12, 64, 80, 3), np.uint8))

    def run(names: str, *arguments: str) -> Result:
        (tmp_path / "list.txt").write_text(names)
        command = [
            str(tmp_path / "list.txt"),
            "--preset",
            "tiny",
            "--weights",
            "random:0",
            "--out",
            str(tmp_path / "out"),
            "--workers",
            "1",
        ]
        return CliRunner().invoke(extract, [*command, *arguments])

    first = run("a.mp4")
    assert first.exit_code == 0
    assert "note: " not in first.output
    again = run("a.mp4\nb.mp4\n", "--batch-size", "3")
    assert again.exit_code == 0
    assert "note: the last bits of these features may differ from those made before: images 3 instead of " in again.stdout
    assert FeatureStore.open(Path(first.stdout.splitlines()[0])).verify(deep=True) == []
    assert "note: " not in run("a.mp4\nb.mp4\n", "--batch-size", "3").output  # nothing was made


@pytest.mark.parametrize("images", [0, -3, MOST_IMAGES + 1, 10**9])
def test_a_noted_size_that_no_pass_may_have_is_not_taken(images: int, tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text(json.dumps(vars(replace(Passes.of(network()), images=images))))
    assert as_before(RunOptions(), tmp_path, CPU) == RunOptions()


def test_the_usual_pass_of_small_crops_is_one_that_may_be_asked_for(tmp_path: Path) -> None:
    spec, backbone = prepare_spec("tiny", {"crops": {"resize": [8], "size": 8, "count": 10}}, "random:0", CPU)
    note_passes(Network(backbone, spec, CPU), tmp_path)
    noted = as_before(RunOptions(), tmp_path, CPU).batch_size
    assert 4000 < noted <= MOST_IMAGES
    assert usual_batch(spec, backbone.info, torch.device("cuda")) == MOST_IMAGES


def test_of_two_jobs_that_begin_a_store_the_second_keeps_to_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = [None]  # the second one looked before the first one wrote
    monkeypatch.setattr("extract.passes.read_passes", lambda store: reads.pop() if reads else read_passes(store))
    write_first(tmp_path / FILE_NAME, json.dumps(vars(Passes.of(network(40)))))
    (note,) = note_passes(network(20), tmp_path)
    assert "images 20 instead of 40 (" in note
    assert read_passes(tmp_path) == Passes.of(network(40))


def test_where_a_network_of_flow_ran_is_noted(tmp_path: Path) -> None:
    raft = {"flow": {"method": "raft_small", "params": {"updates": 2.0}}}
    spec, backbone = prepare_spec("tiny", raft, "random:0", CPU, "random:5")
    learned = Network(backbone, spec, CPU)
    assert Passes.of(network(), flow_on_device=True).flow == ""
    assert note_passes(learned, tmp_path, flow_on_device=True) == ()
    (note,) = note_passes(learned, tmp_path)
    assert ": flow workers instead of device (" in note
    older = {name: value for name, value in vars(Passes.of(learned)).items() if name != "flow"}
    (tmp_path / FILE_NAME).write_text(json.dumps(older))
    assert note_passes(learned, tmp_path) == ()
