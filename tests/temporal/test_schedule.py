"""Learning rates: those of the papers, step by step."""

import math

import pytest

from store.errors import SpecError
from temporal.schedule import learning_rate
from temporal.spec import TrainSpec


def _rates(spec: TrainSpec, steps_an_epoch: int = 3) -> list[float]:
    return [learning_rate(spec, step, steps_an_epoch) for step in range(spec.epochs * steps_an_epoch)]


def test_a_constant_rate_is_the_default():
    assert set(_rates(TrainSpec(epochs=4))) == {1e-3}


def test_zheng_et_al_train_8_epochs_at_1e_5_and_4_at_1e_6():
    rates = _rates(TrainSpec(epochs=12, learning_rate=1e-5, schedule="step", milestones=(8,)))
    assert rates == pytest.approx([1e-5] * 24 + [1e-6] * 12, rel=1e-12)


def test_feichtenhofer_et_al_lower_the_rate_several_times():
    rates = _rates(TrainSpec(epochs=6, learning_rate=1e-2, schedule="step", milestones=(2, 3, 5)), steps_an_epoch=1)
    assert rates == pytest.approx([1e-2, 1e-2, 1e-3, 1e-4, 1e-4, 1e-5], rel=1e-12)


def test_a_cosine_falls_to_nothing_over_all_epochs():
    rates = _rates(TrainSpec(epochs=10, learning_rate=2.0, schedule="cosine"), steps_an_epoch=2)
    assert rates == pytest.approx([1 + math.cos(math.pi * step / 20) for step in range(20)])


def test_a_warm_up_rises_linearly_before_any_schedule():
    rates = _rates(TrainSpec(epochs=3, learning_rate=1.0, warmup_epochs=1.5), steps_an_epoch=4)
    assert rates == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1, 1, 1, 1, 1, 1, 1])
    both = _rates(TrainSpec(epochs=3, learning_rate=1.0, warmup_epochs=1, schedule="step", milestones=(1, 2)), steps_an_epoch=2)
    assert both == pytest.approx([0.5, 1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"schedule": "step"}, r"schedule is step and train.milestones \[\]: step has milestones"),
        ({"milestones": (3,)}, r"schedule is constant and train.milestones \[3\]"),
        ({"schedule": "step", "milestones": (3, 2)}, r"milestones is \[3, 2\]; epochs are counted from 1 and rise"),
        ({"schedule": "step", "milestones": (0, 2)}, "counted from 1"),
        ({"decay": 0.0}, "train.decay is 0.0"),
        ({"warmup_epochs": -1}, "train.warmup_epochs is -1"),
        ({"epochs": 10**9}, "train.epochs is 1000000000; it must be from 1 to 1000000"),
        ({"precision": "fp8"}, "'fp32', 'bf16'"),
    ],
)
def test_schedules_that_contradict_themselves_are_refused(settings, words):
    with pytest.raises(SpecError, match=words):
        TrainSpec(**settings)
