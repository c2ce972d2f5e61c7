"""Heads that train as one program become what they become alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from store.errors import Interrupted, TrainingError
from temporal import train
from temporal.folds import validation_part
from temporal.heads import build_head
from temporal.sequences import Sequences
from temporal.spec import HeadSpec, RunSpec, SequenceSpec, TrainSpec
from temporal.together import all_together
from temporal.train import Fitted, fit_in_steps, refit_in_steps

HEADS = ("mean", "max", "mean_std", "lstm", "gru", "sru", "res_lstm", "res_gru", "res_sru")


class _Double(nn.Module):
    """A head in float64, where only what is wrong can differ."""

    seeds_together = True

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head.double()

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return self.head(x.double(), lengths)


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads are built in float64."""
    monkeypatch.setattr(train, "build_head", lambda *arguments: _Double(build_head(*arguments)))


def sequences(videos: int = 37, width: int = 5, clips: tuple[int, int] = (2, 10)) -> Sequences:
    """Videos of 2 to 9 clips whose class is the sign of the sum of a feature, in groups of three."""
    generator = np.random.default_rng(0)
    counts = generator.integers(*clips, videos)
    rows = generator.normal(size=(counts.sum(), width)).astype(np.float32)
    starts = np.cumsum(counts) - counts
    labels = np.array([int(rows[start : start + count, 0].sum() > 0) for start, count in zip(starts, counts, strict=True)])
    return Sequences(tuple(map(str, range(videos))), rows, starts, counts, labels, tuple(str(video // 3) for video in range(videos)))


def run_spec(head: str, seed: int, **settings: object) -> RunSpec:
    params = {"between": 0.3} if head not in ("mean", "max", "mean_std") else {}
    head_spec = HeadSpec(name=head, params=params, hidden=6, layers=2, dropout=0.4, output=settings.pop("output", "mean"))
    fixed = {"epochs": 4, "patience": 1, "batch_size": 8, "learning_rate": 0.05, "gradient_clip": 0.5, "seed": seed}
    return RunSpec(SequenceSpec(sampling="all"), head_spec, TrainSpec(**(fixed | settings)))


def work(spec: RunSpec, data: Sequences):
    """As ``task`` does it: a validation part of the seed's own, of its own size, and a refit on everything."""
    kept, held_out = validation_part(data.labels, data.groups, 0.3, spec.train.seed)
    fitted = yield from fit_in_steps(data.subset(kept), data.subset(held_out), spec, 2)
    if spec.train.refit:
        fitted = yield from refit_in_steps(fitted, data, spec, 2, "cpu", None)
    return fitted


def assert_equal(found: Fitted, expected: Fitted, tolerance: float) -> None:
    assert found.best_epoch == expected.best_epoch
    assert len(found.history) == len(expected.history)
    for one, other in zip(found.history, expected.history, strict=True):
        assert one == pytest.approx(other, abs=max(tolerance, 1e-6))  # losses are told in float32
    for name, weight in expected.head.state_dict().items():
        torch.testing.assert_close(found.head.state_dict()[name], weight, atol=tolerance, rtol=0)


def alone(spec: RunSpec, data: Sequences) -> Fitted:
    return train.one_by_one(work(spec, data))


@pytest.mark.parametrize("head", HEADS)
def test_each_seed_becomes_what_it_becomes_alone(exact: None, head: str) -> None:
    """Validation parts, and so batches, steps of an epoch and the end, differ from seed to seed."""
    data = sequences()
    specs = [run_spec(head, seed, **({"epochs": 8, "patience": 2} if head == "gru" else {})) for seed in (3, 5, 7)]
    found = all_together([work(spec, data) for spec in specs])
    lengths = set()
    for one, spec in zip(found, specs, strict=True):
        assert one is not None
        assert_equal(one, alone(spec, data), 1e-8)
        lengths.add(len(one.history))
    assert len(lengths) > 1 or head != "gru", "seeds stop at different epochs"


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "rmsprop", "output": "last"},
        {"optimizer": "sgd", "output": "max", "label_smoothing": 0.1},
        {"optimizer": "adamw", "weight_decay": 0.1, "schedule": "cosine", "refit": True},
    ],
    ids=["rmsprop", "sgd", "adamw"],
)
def test_with_every_optimizer_schedule_and_refit(exact: None, settings: dict[str, object]) -> None:
    data = sequences()
    specs = [run_spec("gru", seed, **settings) for seed in (5, 6)]
    for one, spec in zip(all_together([work(spec, data) for spec in specs]), specs, strict=True):
        assert one is not None
        assert_equal(one, alone(spec, data), 1e-8)


@pytest.mark.parametrize("head", ["mean", "gru", "res_sru"])
def test_batches_that_need_no_padding(exact: None, head: str) -> None:
    """Without validation parts and with as many clips in every video, all seeds' batches are of one size."""
    data = sequences(32, clips=(6, 7))
    specs = [run_spec(head, seed, validation=0.0) for seed in (0, 1, 2)]
    found = all_together([fit_in_steps(data, None, spec, 2) for spec in specs])
    for one, spec in zip(found, specs, strict=True):
        assert one is not None
        assert_equal(one, train.fit(data, None, spec, 2), 1e-8)


def test_float32_stays_near_and_torchs_generators_are_left_alone() -> None:
    data = sequences()
    before = torch.get_rng_state()
    specs = [run_spec("sru", seed, epochs=2) for seed in (0, 1)]
    for one, spec in zip(all_together([work(spec, data) for spec in specs]), specs, strict=True):
        assert one is not None
        assert_equal(one, alone(spec, data), 1e-4)
    assert torch.equal(torch.get_rng_state(), before)


def test_heads_of_other_kinds_or_shapes_are_refused() -> None:
    data = sequences()
    small = run_spec("gru", 0)
    with pytest.raises(TrainingError, match="cannot be trained together"):
        all_together([work(small, data), work(replace(small, head=replace(small.head, hidden=7)), data)])
    other = replace(small, head=HeadSpec(name="temporal_conv"))
    with pytest.raises(TrainingError, match="leave --together out"):
        all_together([work(other, data), work(other, data)])


def test_one_that_is_interrupted_lets_the_others_come_to_their_own_end() -> None:
    data = sequences()

    def interrupted():
        yield from ()
        raise Interrupted("stopped")

    spec = run_spec("gru", 0, epochs=1)
    found = all_together([interrupted(), work(spec, data)])
    assert found[0] is None
    assert found[1] is not None
