"""What decides the outcome of a fusion, as a frozen self-checking dataclass; it is recorded in every fused table."""

from dataclasses import dataclass, field
from typing import Literal

from store.digest import Checked, setting
from store.errors import SpecError
from store.names import NameRules


@dataclass(frozen=True)
class FuseSpec(Checked):
    """How score tables are combined. Nothing in here is ever chosen by the labels of the videos that are fused."""

    rule: str = setting("product", "sum, average, product, weighted, maximum, geometric, normalised, rank or raw_sum")
    weights: dict[str, float] = field(default_factory=dict, metadata={"help": "weight of each input by its name, e.g. rgb=1,flow=1.5"})
    temperatures: dict[str, float] = field(
        default_factory=dict, metadata={"help": "what each input's scores are divided by before softmax, by its name; 1 where not given"}
    )
    on: Literal["default", "softmax", "raw"] = setting(
        "default", "what the rule combines: softmax probabilities or the scores as they are; default: the rule's own"
    )
    as_is: bool = setting(False, "let a rule on raw scores combine tables of different kinds")
    common: bool = setting(False, "keep only the ids and classes that all inputs have, and say how many were left out")
    match: NameRules = field(default_factory=NameRules)
    precision: Literal["float64", "float32"] = setting(
        "float64", "arithmetic; in float32 saturated softmaxes tie, as in much published code: only to repeat such figures"
    )

    def check(self) -> None:
        if any(weight < 0 for weight in self.weights.values()):
            raise SpecError(f"weights are {self.weights}; they must not be negative")
        if self.weights and not any(self.weights.values()):
            raise SpecError(f"weights are {self.weights}; at least one must be above 0")
        if any(temperature <= 0 for temperature in self.temperatures.values()):
            raise SpecError(f"temperatures are {self.temperatures}; they must be above 0")


@dataclass(frozen=True)
class LearnSpec(Checked):
    """What is learned, and how."""

    method: Literal["weights", "stacking", "temperature"] = setting(
        "weights", "a weight for each input; a weight for each input and class; or only a temperature for each input, then a rule"
    )
    on: Literal["raw", "l2"] = setting("raw", "what weights are of: scores as they are, or L2-normalised ones")
    rule: str = setting("product", "how inputs are combined after their temperatures: product, sum, maximum, ...")
    penalty: float = setting(
        0.0, "how strongly stacking holds to the shared weights; 0: chosen by cross-fitting among the videos it learns from"
    )
    seed: int = setting(0, "seed of the folds")
    match: NameRules = field(default_factory=NameRules)

    def check(self) -> None:
        if self.penalty < 0 or self.seed < 0:
            raise SpecError(f"penalty is {self.penalty} and seed {self.seed}; they must not be negative")
        if self.method == "temperature" and self.on == "l2":
            raise SpecError("a temperature is of scores as they are: --on l2 does not go with --method temperature; use --method weights")


@dataclass(frozen=True)
class EvaluateSpec(Checked):
    """How tables are judged."""

    samples: int = setting(1000, "bootstrap resamples")
    draw: Literal["groups", "videos"] = setting(
        "groups", "what a resample draws: whole groups (films, scenes) where --list names them, else videos; or videos all the same"
    )
    level: float = setting(0.95, "level of the intervals")
    seed: int = setting(0, "seed of the resamples and of the choice of examples")
    ties: Literal["wrong", "index"] = setting(
        "wrong", "another class scores as high as the true one: wrong counts as an error, index gives it to the class listed first"
    )
    common: bool = setting(False, "keep only the ids and classes that all tables have, and say how many were left out")
    match: NameRules = field(default_factory=NameRules)
    against: str = setting("", "name of the table that every other one is compared with; default: the best one with every other")
    categories: str = setting("", "coarse categories of the classes: ucf101, hmdb51, or a CSV file class,category; none: leave them out")

    def check(self) -> None:
        if self.samples < 1:
            raise SpecError(f"samples is {self.samples}; ask for at least 1")
        if not 0 < self.level < 1:
            raise SpecError(f"level is {self.level}; it must lie between 0 and 1, e.g. 0.95")
        if self.seed < 0:
            raise SpecError(f"seed is {self.seed}; it must not be negative")


@dataclass(frozen=True)
class ReportSpec(EvaluateSpec):
    """How tables are judged and shown."""

    title: str = setting("Action recognition report", "title of the page")
    examples: int = setting(4, "example videos in each group; 0 shows none")

    def check(self) -> None:
        super().check()
        if self.examples < 0:
            raise SpecError(f"examples is {self.examples}; it must be 0 or positive")
