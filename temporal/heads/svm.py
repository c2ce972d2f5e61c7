"""Pooling over time and a linear support vector machine (scikit-learn's LinearSVC), one against the rest, as used with C3D features."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from temporal.heads import HEADS
from temporal.heads.pool import POOLS
from temporal.params import Param
from temporal.solvers import Choice, Pooled, Solution, best_choice
from temporal.spec import HeadSpec

PARAMS = (
    Param("c", 0.0, "weight of the training errors; 0: the best on the validation part of 0.01, 0.1, 1, 10, 100 (1 without one)", low=0),
    Param("normalise", "l2", "each video's pooled features to length 1 before the SVM, or not", choices=("l2", "none")),
    Param("iterations", 1000, "at most so many iterations of the solver", low=1),
)
KIND = "decision_values"
FITTED = "solver"

GRID = (0.01, 0.1, 1.0, 10.0, 100.0)
ABSENT = -1.0  # decision value of a class without training videos: what an SVM learns that sees only negatives


class SvmHead(nn.Module):
    """Decision values W p + b of the pooled features p, [B, C]; ``solve`` fits W and b."""

    def __init__(self, input_width: int, num_classes: int, spec: HeadSpec, pool: str) -> None:
        super().__init__()
        self.pool, copies = POOLS[pool]
        self.normalise = spec.params["normalise"] == "l2"
        self.c, self.iterations = float(spec.params["c"]), int(spec.params["iterations"])
        self.classifier = nn.Linear(copies * input_width, num_classes)

    def pooled(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Features of the SVM, [B, D] or [B, 2 D]."""
        found = self.pool(x, lengths)
        return functional.normalize(found, dim=1) if self.normalise else found

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return self.classifier(self.pooled(x, lengths))

    def solve(self, training: Pooled, validation: Pooled | None, seed: int) -> Choice:
        """Fit; of several C the one with the highest accuracy of validation videos, the smallest of equals (the widest margin)."""
        grid = (self.c,) if self.c else GRID if validation is not None else (1.0,)
        choice = best_choice("c", grid, lambda c: self._svm(training, c, seed), training, validation)
        with torch.no_grad():
            self.classifier.weight.copy_(torch.from_numpy(choice.weight))
            self.classifier.bias.copy_(torch.from_numpy(choice.bias))
        return choice

    def _svm(self, training: Pooled, c: float, seed: int) -> Solution:
        from sklearn.svm import LinearSVC

        svm = LinearSVC(C=c, dual="auto", max_iter=self.iterations, random_state=seed).fit(training.x, training.labels)
        weight = np.zeros(tuple(self.classifier.weight.shape))
        bias = np.full(len(weight), ABSENT)
        two = len(svm.classes_) == 2  # one row: the second class against the first
        weight[svm.classes_] = np.concatenate([-svm.coef_, svm.coef_]) if two else svm.coef_
        bias[svm.classes_] = np.concatenate([-svm.intercept_, svm.intercept_]) if two else svm.intercept_
        return Solution(weight, bias, converged=bool(np.max(svm.n_iter_) < self.iterations))


@HEADS.register("svm_mean")
def svm_mean(input_width: int, num_classes: int, spec: HeadSpec) -> nn.Module:
    """Mean over time and a linear SVM, one class against the rest.

    Paper: Tran et al. 2015 (C3D), with normalise=l2
    """
    return SvmHead(input_width, num_classes, spec, "mean")


@HEADS.register("svm_mean_std")
def svm_mean_std(input_width: int, num_classes: int, spec: HeadSpec) -> nn.Module:
    """Mean and standard deviation over time and a linear SVM, one class against the rest."""
    return SvmHead(input_width, num_classes, spec, "mean_std")


@HEADS.register("svm_max")
def svm_max(input_width: int, num_classes: int, spec: HeadSpec) -> nn.Module:
    """Maximum over time and a linear SVM, one class against the rest."""
    return SvmHead(input_width, num_classes, spec, "max")
