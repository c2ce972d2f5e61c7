"""Published ways of fusing streams, each by one name; an input plays the part that its name says (rgb, flow, idt, low, mid, high)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fusion.fuse import fuse
from fusion.spec import FuseSpec
from store.errors import SpecError
from store.scores import ScoreTable


@dataclass(frozen=True)
class Step:
    """One fusion: the name of its result, the inputs or earlier results it takes, and its settings."""

    name: str
    inputs: tuple[str, ...]
    rule: str
    on: str = "default"
    weights: tuple[float, ...] = ()

    def spec(self, shared: FuseSpec) -> FuseSpec:
        """The step's settings with what is said for all steps (common, match, precision)."""
        weights = dict(zip(self.inputs, self.weights, strict=True)) if self.weights else {}
        return replace(shared, rule=self.rule, on=self.on, weights=weights)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Recipe:
    """Steps in order; the last one's result is the recipe's."""

    about: str
    steps: tuple[Step, ...]

    @property
    def inputs(self) -> tuple[str, ...]:
        """The tables it needs, by name."""
        made = {step.name for step in self.steps}
        return tuple(dict.fromkeys(name for step in self.steps for name in step.inputs if name not in made))


_STREAMS = ("rgb", "flow")
RECIPES: dict[str, Recipe] = {
    "late-product": Recipe("Lakhal et al. 2018: product of the softmaxes", (Step("fused", _STREAMS, "product"),)),
    "late-sum": Recipe("Lakhal et al. 2018: sum of the softmaxes", (Step("fused", _STREAMS, "sum"),)),
    "late-weighted": Recipe(
        "Lakhal et al. 2018: rgb + 1.5 flow of the softmaxes", (Step("fused", _STREAMS, "weighted", "softmax", (1, 1.5)),)
    ),
    "late-product-idt": Recipe("Lakhal et al. 2018: product of the softmaxes and IDT's", (Step("fused", (*_STREAMS, "idt"), "product"),)),
    "three-levels": Recipe(
        "Zheng et al. 2017: 0.7 high + 0.2 mid + 0.1 low of the softmaxes",
        (Step("fused", ("high", "mid", "low"), "weighted", "softmax", (0.7, 0.2, 0.1)),),
    ),
    "st-resnet": Recipe("Feichtenhofer et al. 2016: mean of the raw scores, no softmax", (Step("fused", _STREAMS, "raw_sum"),)),
    "st-resnet-idt": Recipe(
        "Feichtenhofer et al. 2016: mean of the L2-normalised scores of the network and of IDT, no softmax",
        (Step("streams", _STREAMS, "raw_sum"), Step("fused", ("streams", "idt"), "normalised")),
    ),
    "tsn": Recipe("Temporal segment networks: rgb + 1.5 flow of the raw scores", (Step("fused", _STREAMS, "weighted", "raw", (1, 1.5)),)),
    "tsn-idt": Recipe(
        "rgb + 1.5 flow of the raw scores; then 0.75 of that and 0.25 IDT, L2-normalised",
        (
            Step("streams", _STREAMS, "weighted", "raw", (1, 1.5)),
            Step("fused", ("streams", "idt"), "normalised", "default", (0.75, 0.25)),
        ),
    ),
}


def follow(name: str, tables: Mapping[str, ScoreTable], shared: FuseSpec | None = None) -> ScoreTable:
    """Fuse by a published recipe; ``shared`` gives ``common``, ``match`` and ``precision`` for every step, its rule plays no part."""
    recipe = RECIPES.get(name)
    if recipe is None:
        raise SpecError(f"there is no recipe {name!r}; recipes: {', '.join(RECIPES)}")
    if set(recipe.inputs) != set(tables):
        raise SpecError(
            f"recipe {name} takes inputs called {', '.join(recipe.inputs)}, not {', '.join(tables)}; name them so, e.g. "
            + " ".join(f"{part}=FILE.npz" for part in recipe.inputs)
        )
    made: dict[str, ScoreTable] = dict(tables)
    for step in recipe.steps:
        made[step.name] = fuse({part: made[part] for part in step.inputs}, step.spec(shared or FuseSpec()))
    return with_recipe(made[recipe.steps[-1].name], name, recipe)


def with_recipe(table: ScoreTable, name: str, recipe: Recipe) -> ScoreTable:
    """The table with the recipe's name in its source."""
    source: dict[str, Any] = {**table.source, "recipe": {"name": name, "about": recipe.about}}
    return replace(table, source=source)
