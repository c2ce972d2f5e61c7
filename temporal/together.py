"""Several heads of one shape train as one batched program: each step of all of them is one forward and one backward pass.

What a head is, sees and becomes is its own, as if it were alone: its weights (slices of stacked tensors), its batches in its own order
and number, its dropout, its clipped gradient, optimizer and learning rate, its early stopping, checkpoints and folder. Sums may be
added up in another order than alone, so the results are equal to the precision of the numbers, not bit by bit.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional

from store.errors import Interrupted, TrainingError
from store.memory import keep_memory
from temporal.epochs import InSteps, Step, arithmetic
from temporal.numerics import full_float32
from temporal.optimizers import step_all
from temporal.recurrence import Draws, Dropout, RecurrentLayer, widened

T = TypeVar("T")
APART = "these heads cannot be trained together: they are not recurrent or pooling heads of one shape; leave --together out"


def all_together(works: "Sequence[InSteps[T]]", device: str = "cpu", stopped: Callable[[], bool] = lambda: True) -> "list[T | None]":
    """Do ``works`` (of ``task.train_in_steps`` or ``train.fit_in_steps``), one update of each at a time; what each gives, in order.

    Heads must be of one shape (the same ``HeadSpec``, input width and classes) and be trained by the same ``TrainSpec`` but for the seed.
    A work that raises ``Interrupted`` once ``stopped()`` gives None, and the others go on until they do. Any other error ends all.
    """
    seats = [_Seat(work, device, stopped) for work in works]
    if device == "cpu":
        keep_memory()  # a step's tensors are S times as large as alone, and pages anew for each took a tenth of the time
    program: _Program | None = None
    with _outside(device), full_float32():
        try:
            while waiting := [seat for seat in seats if seat.advance()]:
                steps = [seat.step for seat in waiting if seat.step]
                heads = [step.training.head for step in steps]
                if program is None or not program.is_of(heads):
                    _check_alike(steps)
                    program = _Program(heads)
                program.step(steps, [seat.generator for seat in waiting])
        finally:
            for seat in seats:
                seat.work.close()
    return [seat.result for seat in seats]


def can_train_together(head: nn.Module) -> bool:
    """Whether ``head`` is of a kind that ``all_together`` knows."""
    return bool(getattr(head, "seeds_together", False))


class _Seat(Generic[T]):
    """One work, the state of torch's generators that belongs to it, and the step that it waits for."""

    def __init__(self, work: "InSteps[T]", device: str, stopped: Callable[[], bool]) -> None:
        self.work, self.device, self.stopped = work, device, stopped
        self.generator = torch.Generator(device)  # of its dropout
        self.host = self.generator if device == "cpu" else torch.Generator()
        self.step: Step | None = None
        self.result: T | None = None
        self.ended = False

    def advance(self) -> bool:
        """Let it come to its next step; whether there is one."""
        if not self.ended:
            with self._own_numbers():
                try:
                    self.step = next(self.work)
                except StopIteration as end:
                    self.step, self.result, self.ended = None, end.value, True
                except Interrupted:
                    if not self.stopped():  # a signal that came as an exception, which nobody else will hear of
                        raise
                    self.step, self.ended = None, True
        return not self.ended

    @contextmanager
    def _own_numbers(self) -> Iterator[None]:
        """torch's own generators go on from where this work left them."""
        torch.set_rng_state(self.host.get_state())
        if self.generator is not self.host:
            torch.cuda.set_rng_state(self.generator.get_state(), self.device)
        yield
        self.host.set_state(torch.get_rng_state())
        if self.generator is not self.host:
            self.generator.set_state(torch.cuda.get_rng_state(self.device))


class _Program:
    """The weights of S heads, stacked: tensors [S, ...] of which the heads' own weights are slices."""

    def __init__(self, heads: Sequence[nn.Module]) -> None:
        self.heads = list(heads)
        self.template = _template(heads[0])
        self.dropouts = [module for module in self.template.modules() if isinstance(module, Dropout)]
        self.owned = [dict(head.named_parameters()) for head in heads]
        self.weights: dict[str, Tensor] = {}
        for name in self.owned[0]:
            stacked = torch.stack([parameters[name].detach() for parameters in self.owned])
            for parameters, own in zip(self.owned, stacked, strict=True):
                parameters[name].data = own
            self.weights[name] = stacked.requires_grad_()

    def is_of(self, heads: Sequence[nn.Module]) -> bool:
        """Whether it holds just these heads, in this order."""
        return len(heads) == len(self.heads) and all(one is other for one, other in zip(heads, self.heads, strict=True))

    def step(self, steps: Sequence[Step], generators: list[torch.Generator]) -> None:
        """One update of every head."""
        spec = steps[0].training.spec
        x, lengths, labels, real = _stacked(steps)
        draws = Draws(generators, [(step.batch.x.shape[1], len(step.batch.labels)) for step in steps])
        for dropout in self.dropouts:
            dropout.draws = draws
        with arithmetic(spec, x.device):
            scores = widened(vmap(self._scores, randomness="different")(self.weights, x, lengths))
        losses = functional.cross_entropy(scores.flatten(0, 1), labels.flatten(), reduction="none", label_smoothing=spec.label_smoothing)
        sums = (losses.view_as(labels) * real).sum(1)
        slopes = torch.autograd.grad((sums / real.sum(1)).sum(), list(self.weights.values()))
        hits = ((scores.detach().argmax(2) == labels) & real).sum(1)
        gradients = [slope.contiguous() for slope in slopes]  # fused optimizers go by the order in memory
        if spec.gradient_clip:
            _clip(gradients, spec.gradient_clip)
        for name, gradient in zip(self.weights, gradients, strict=True):
            for parameters, own in zip(self.owned, gradient.unbind(), strict=True):
                parameters[name].grad = own
        step_all([step.training.optimizer for step in steps])
        for step, found in zip(steps, torch.stack([sums.detach(), hits], dim=1), strict=True):
            step.training.totals += found

    def _scores(self, weights: dict[str, Tensor], x: Tensor, lengths: Tensor) -> Tensor:
        return functional_call(self.template, weights, (x, lengths))


def _clip(gradients: Sequence[Tensor], largest: float) -> None:
    """``nn.utils.clip_grad_norm_`` of every seed's own gradient; ``gradients`` [S, ...] of each weight, changed in place."""
    norms = torch.stack([torch.linalg.vector_norm(gradient.flatten(1), dim=1) for gradient in gradients])
    shares = (largest / (torch.linalg.vector_norm(norms, dim=0) + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(shares.view(-1, *(1,) * (gradient.dim() - 1)))


def _template(head: nn.Module) -> nn.Module:
    """A head without weights, in training mode, whose layers can be batched over seeds."""
    template = copy.deepcopy(head).to("meta").train()
    for module in template.modules():
        if isinstance(module, RecurrentLayer):
            module.own = True
    return template


def _stacked(steps: Sequence[Step]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x [S, B, T, D], lengths, labels and which are real [S, B]: batches of different sizes are padded with sequences of one step, 0."""
    batches = [step.batch for step in steps]
    lengths, labels = ([getattr(batch, name) for batch in batches] for name in ("lengths", "labels"))
    if len({batch.x.shape for batch in batches}) == 1:
        real = torch.ones(len(batches), len(labels[0]), dtype=torch.bool, device=labels[0].device)
        every = [batch.x for batch in batches]
        timed = every[0].dim() > 2  # in memory then as recurrences read it, time first
        x = torch.stack([one.transpose(0, 1) for one in every]).transpose(1, 2) if timed else torch.stack(every)
        return x, torch.stack(lengths), torch.stack(labels), real
    count, longest = (max(batch.x.shape[axis] for batch in batches) for axis in (0, 1))
    x = batches[0].x.new_zeros(len(batches), count, longest, *batches[0].x.shape[2:])
    padded = [lengths[0].new_ones(len(batches), count), labels[0].new_zeros(len(batches), count)]
    real = torch.zeros(len(batches), count, dtype=torch.bool, device=x.device)
    for number, batch in enumerate(batches):
        size = len(batch.labels)
        x[number, :size, : batch.x.shape[1]] = batch.x
        padded[0][number, :size], padded[1][number, :size], real[number, :size] = batch.lengths, batch.labels, True
    return x, padded[0], padded[1], real


def _check_alike(steps: Sequence[Step]) -> None:
    """TrainingError for heads that cannot be stacked."""
    shapes = [{name: tuple(weight.shape) for name, weight in step.training.head.named_parameters()} for step in steps]
    if not can_train_together(steps[0].training.head) or any(shape != shapes[0] for shape in shapes):
        raise TrainingError(APART)


@contextmanager
def _outside(device: str) -> Iterator[None]:
    """torch's generators are afterwards as they were."""
    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
        yield
