"""The epochs of one head: batches, steps, early stopping; resumable between any two batches to the identical result."""

import math
import warnings
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, closing, nullcontext
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from store.errors import TrainingError
from temporal.batches import Batch, Samples
from temporal.checkpoint import Checkpoint, Keeper
from temporal.numerics import full_float32
from temporal.optimizers import make_optimizer
from temporal.recurrence import widened
from temporal.schedule import learning_rate
from temporal.spec import TrainSpec

Epoch = dict[str, Any]  # one line of metrics.jsonl
OnEpoch = Callable[[Epoch], None]
Evaluate = Callable[[nn.Module], dict[str, float]]  # val_loss and val_accuracy
T = TypeVar("T")


class Step(NamedTuple):
    """An update that a training waits for: with what it is at, on a batch."""

    training: "Training"
    batch: Batch


InSteps = Generator[Step, None, T]  # work that pauses at every update of a head, so that several can be done together, and gives a T


def one_by_one(work: InSteps[T]) -> T:
    """Do every update of ``work`` as it comes."""
    with full_float32(), closing(work):
        while True:
            try:
                training, batch = next(work)
            except StopIteration as end:
                return end.value
            training.step(batch)


class Training:
    """One head while it is fitted: everything that changes from batch to batch.

    ``last_epoch``: how many there are at most; ``evaluate``: of the validation part, None without one; ``before``: the history of earlier
    phases. torch's generators are those of the caller (``seeded``).
    """

    def __init__(
        self,
        head: nn.Module,
        data: Samples,
        spec: TrainSpec,
        phase: str,
        last_epoch: int,
        evaluate: Evaluate | None,
        before: list[Epoch],
    ) -> None:
        self.head, self.data, self.spec, self.phase, self.last_epoch, self.evaluate = head, data, spec, phase, last_epoch, evaluate
        self.optimizer = make_optimizer(head, spec)
        self.generator = np.random.default_rng(spec.seed)
        self.drawn_from = self.generator.bit_generator.state  # the order of this epoch's batches
        self.epoch, self.batch = 1, 0  # the next one
        self.totals = torch.zeros(2, dtype=torch.float64, device=data.device)  # loss and hits of this epoch's videos
        self.before: list[Epoch] = before
        self.history: list[Epoch] = []
        self.best_loss, self.best_epoch = math.inf, last_epoch
        self.best_state: dict[str, Tensor] | None = None

    @property
    def finished(self) -> bool:
        """Whether no epoch is left, or none has lowered the validation loss for long."""
        waited = self.epoch - 1 - self.best_epoch if self.evaluate else 0
        return self.epoch > self.last_epoch or waited >= self.spec.patience

    def run(self, keeper: Keeper, on_epoch: OnEpoch | None) -> InSteps[None]:
        """Train until ``finished``, from where ``keeper`` knows that it was left; the head then has the best epoch's weights."""
        if (left := keeper.load(self.phase)) is not None:
            self.resume(left)
        while not self.finished:
            record = yield from self._one_epoch(keeper)
            self.history.append(record)
            keeper.record([*self.before, *self.history])
            if on_epoch:
                on_epoch(record)
        if self.spec.refit and self.evaluate:  # which follows, and starts from what was found here
            keeper.save(self.phase, self.checkpoint())
        if self.best_state is not None:
            self.head.load_state_dict(self.best_state)

    def _one_epoch(self, keeper: Keeper) -> InSteps[Epoch]:
        spec, size = self.spec, self.spec.batch_size
        self.head.train()
        self.generator.bit_generator.state = self.drawn_from
        order = self.generator.permutation(len(self.data))
        steps = math.ceil(len(order) / size)
        for batch in self.data.in_order(order[self.batch * size :], size):
            if keeper.due():
                keeper.save(self.phase, self.checkpoint())
            self.optimizer.rate = learning_rate(spec, (self.epoch - 1) * steps + self.batch, steps)
            yield Step(self, batch)
            self.batch += 1
        loss, hits = (self.totals / len(order)).tolist()
        record: Epoch = {"phase": self.phase, "epoch": self.epoch, "train_loss": loss, "train_accuracy": hits}
        record["learning_rate"] = learning_rate(spec, self.epoch * steps - 1, steps)
        check_finite(loss, "training", self.epoch, spec)
        if self.evaluate:
            record |= self._validate(self.evaluate)
        self.drawn_from = self.generator.bit_generator.state
        self.epoch, self.batch = self.epoch + 1, 0
        self.totals.zero_()
        return record

    def step(self, batch: Batch) -> None:
        """One update; nothing here waits for the device."""
        self.optimizer.forget_gradients()
        with arithmetic(self.spec, batch.x.device):
            scores = self.head(batch.x, batch.lengths)
        loss = functional.cross_entropy(widened(scores), batch.labels, label_smoothing=self.spec.label_smoothing)
        loss.backward()
        self.update(loss.detach() * len(batch.labels), count_hits(scores.detach(), batch.labels))

    def update(self, loss: Tensor, hits: Tensor) -> None:
        """The step of the optimizer, by the gradients that the head's weights have; what the batch adds to the epoch's totals."""
        if self.spec.gradient_clip:
            nn.utils.clip_grad_norm_(self.head.parameters(), self.spec.gradient_clip)
        self.optimizer.step()
        self.totals += torch.stack([loss, hits])

    def _validate(self, evaluate: Evaluate) -> dict[str, float]:
        found = evaluate(self.head)
        check_finite(found["val_loss"], "validation", self.epoch, self.spec)
        if found["val_loss"] < self.best_loss:
            self.best_loss, self.best_epoch = found["val_loss"], self.epoch
            self.best_state = {name: tensor.clone() for name, tensor in self.head.state_dict().items()}
        return found

    def checkpoint(self) -> Checkpoint:
        """Everything from which ``resume`` goes on, torch's generators included."""
        tensors = {"totals": self.totals, "generator.cpu": torch.get_rng_state()}
        if self.totals.device.type == "cuda":
            tensors["generator.cuda"] = torch.cuda.get_rng_state(self.totals.device)
        tensors |= {f"head.{name}": tensor for name, tensor in self.head.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in (self.best_state or {}).items()}
        for number, state in self.optimizer.states.items():
            tensors |= {f"optimizer.{number}.{name}": value for name, value in state.items()}
        facts = {"epoch": self.epoch, "batch": self.batch, "drawn_from": self.drawn_from, "history": self.history}
        facts |= {"best_loss": self.best_loss if self.best_state else None, "best_epoch": self.best_epoch}
        return Checkpoint(tensors, facts)

    def resume(self, left: Checkpoint) -> None:
        """Go on from ``left``."""
        facts = left.facts
        self.epoch, self.batch, self.drawn_from = facts["epoch"], facts["batch"], facts["drawn_from"]
        self.history, self.best_epoch = facts["history"], facts["best_epoch"]
        self.best_loss = math.inf if facts["best_loss"] is None else facts["best_loss"]
        self.best_state = left.part("best") or None
        self.head.load_state_dict(left.part("head"))
        states: dict[int, dict[str, Tensor]] = {}
        for name, tensor in left.part("optimizer").items():
            number, _, key = name.partition(".")
            states.setdefault(int(number), {})[key] = tensor
        self.optimizer.load(states)
        self.totals.copy_(left.tensors["totals"])
        set_generators(left, self.totals.device)


def set_generators(left: Checkpoint, device: torch.device) -> None:
    """torch's generators go on from ``left``, which may have been saved on another device: its numbers are then drawn anew there."""
    torch.set_rng_state(left.tensors["generator.cpu"])
    saved = left.tensors.get("generator.cuda")
    if saved is not None and device.type == "cuda":
        torch.cuda.set_rng_state(saved, device)
    elif (saved is not None) != (device.type == "cuda"):
        places = ("the CPU", "a GPU") if saved is None else ("a GPU", "the CPU")
        warnings.warn(
            f"a training that was saved on {places[0]} goes on on {places[1]}: dropout and sums differ from there, and so may the result",
            stacklevel=2,
        )


def arithmetic(spec: TrainSpec, device: torch.device) -> AbstractContextManager[Any]:
    """What the head computes in while training: bfloat16 products inside where ``spec.precision`` says so, else float32."""
    return torch.autocast(device.type, torch.bfloat16) if spec.precision == "bf16" else nullcontext()


def count_hits(scores: Tensor, labels: Tensor) -> Tensor:
    """How many of the samples have their highest score at their label."""
    return (scores.argmax(1) == labels).sum()


def check_finite(loss: float, part: str, epoch: int, spec: TrainSpec) -> None:
    """TrainingError, with what to do, for a loss that is no number."""
    if not math.isfinite(loss):
        raise TrainingError(
            f"the {part} loss became {loss} in epoch {epoch}; lower --train.learning-rate (now {spec.learning_rate:g}), set "
            f"--train.gradient-clip (now {spec.gradient_clip:g}), or normalise the features with --sequence.znorm"
        )
