"""Late fusion: named score tables and a rule in, one score table out, with everything that made it written into its source."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fusion.align import Aligned, align
from fusion.footing import FOOTINGS, finish
from fusion.rules import RULES, Footing, Rule
from fusion.spec import FuseSpec
from store.digest import to_plain
from store.errors import AlignmentError, SpecError
from store.names import NameRules, words
from store.scores import Kind, ScoreTable


def fuse(tables: Mapping[str, ScoreTable], spec: FuseSpec | str) -> ScoreTable:
    """Combine two or more named tables by ``spec`` (or the name of a rule, with its defaults); rows and columns in the first table's order.

    The order of the rows and columns of any input changes nothing but that order. Kinds: rules with softmax give "log_probs" (product,
    geometric) or "scores" (mixtures; their softmax is the mixture), rules on raw scores the inputs' kind, l2 and rank "decision_values".
    Raises ``AlignmentError`` for tables that do not fit together, ``SpecError`` for a spec that does not fit the rule or the tables.
    """
    spec = FuseSpec(rule=spec) if isinstance(spec, str) else spec
    rule = RULES.get(spec.rule)
    footing = choose_footing(rule, spec)
    weights = choose_weights(rule, spec, tuple(tables))
    if len(tables) < 2:
        raise SpecError(f"fusion combines two or more tables; got {len(tables)} ({', '.join(tables) or 'none'})")
    aligned = align(tables, spec.common, spec.match)
    check_kinds(aligned, spec, footing)
    check_temperatures(spec, footing, aligned.names)
    temperatures = np.array([spec.temperatures.get(name, 1.0) for name in aligned.names], spec.precision)
    values = combine(aligned, rule, footing, np.array(weights, spec.precision), temperatures)
    source = describe(tables, aligned, spec, rule, footing, weights)
    return ScoreTable(
        ids=aligned.ids,
        classes=aligned.classes,
        values=values,
        kind=result_kind(aligned.kinds, footing),
        labels=aligned.labels,
        source=source,
    )


def combine(aligned: Aligned, rule: Rule, footing: Footing, weights: np.ndarray, temperatures: np.ndarray) -> np.ndarray:
    """Divide by the temperatures [T], bring to the footing, combine, and return float32 [V, C].

    Computed in sorted class order, so that sums over classes round alike however the columns came.
    """
    order = np.argsort(np.array(aligned.classes))
    values = np.ascontiguousarray(aligned.values[:, :, order], dtype=weights.dtype) / temperatures[:, None, None]
    combined = finish(rule.combine(FOOTINGS[footing](values), weights), footing)
    result = np.empty(combined.shape, np.float32)
    result[:, order] = combined
    return result


def choose_footing(rule: Rule, spec: FuseSpec) -> Footing:
    """The footing that ``spec.on`` asks for, if the rule can stand on it."""
    if spec.on == "default":
        return rule.footings[0]
    wanted = ("softmax", "log_softmax") if spec.on == "softmax" else ("raw",)
    for footing in rule.footings:
        if footing in wanted:
            return footing
    raise SpecError(f"rule {spec.rule} cannot be computed on {spec.on} scores; it is: {rule.formula}")


def choose_weights(rule: Rule, spec: FuseSpec, names: tuple[str, ...]) -> list[float]:
    """One weight per table, in the order of ``names``; 1 each where the rule needs none."""
    if not spec.weights:
        if rule.weights == "required":
            raise SpecError(f"rule {spec.rule} needs a weight per input, e.g. --weights {','.join(f'{name}=1' for name in names)}")
        return [1.0] * len(names)
    if rule.weights == "none":
        weighted = [name for name in RULES if RULES.get(name).weights != "none"]
        raise SpecError(f"rule {spec.rule} takes no weights; rules that do: {', '.join(weighted)}")
    if set(spec.weights) != set(names):
        raise SpecError(f"weights are given for {', '.join(spec.weights)} but the inputs are {', '.join(names)}; name each input once")
    return [spec.weights[name] for name in names]


def check_kinds(aligned: Aligned, spec: FuseSpec, footing: Footing) -> None:
    """Refuse to add up numbers that mean different things."""
    if footing == "raw" and len(set(aligned.kinds)) > 1 and not spec.as_is:
        held = ", ".join(f"{name} holds {kind}" for name, kind in zip(aligned.names, aligned.kinds, strict=True))
        raise AlignmentError(
            f"rule {spec.rule} on raw scores would mix numbers of different kinds: {held}. Use a rule with softmax "
            "(sum, product, weighted), normalised or rank, or pass --as-is if this is what you mean"
        )


def check_temperatures(spec: FuseSpec, footing: Footing, names: tuple[str, ...]) -> None:
    """Temperatures are of inputs that are there, and of a rule whose softmax they change."""
    if unknown := sorted(set(spec.temperatures) - set(names)):
        raise SpecError(f"temperatures are given for {', '.join(unknown)} but the inputs are {', '.join(names)}")
    if spec.temperatures and footing not in ("softmax", "log_softmax"):
        raise SpecError(f"rule {spec.rule} on {footing} scores takes no softmax, so a temperature means nothing; give weights instead")


def result_kind(kinds: tuple[Kind, ...], footing: Footing) -> Kind:
    """What the fused numbers are: sums of log-probabilities are scores again, mixed kinds are decision values."""
    if footing in ("softmax", "log_softmax"):
        return "scores" if footing == "softmax" else "log_probs"
    if footing == "raw" and "decision_values" not in kinds:
        return "scores"
    return "decision_values"


def describe(
    tables: Mapping[str, ScoreTable], aligned: Aligned, spec: FuseSpec, rule: Rule, footing: Footing, weights: list[float]
) -> dict[str, Any]:
    """Provenance: the rule, whether it applied softmax, the weights, and each input with its own source."""
    source: dict[str, Any] = {
        "made_by": "fuse",
        "rule": spec.rule,
        "formula": rule.formula,
        "footing": footing,
        "softmax": footing in ("softmax", "log_softmax"),
        "weights": dict(zip(tables, weights, strict=True)) if rule.weights != "none" else None,
        "spec": to_plain(spec),
        "inputs": {name: {"kind": table.kind, "videos": len(table.ids), "source": table.source} for name, table in tables.items()},
    }
    if spec.temperatures:
        source["temperatures"] = {name: spec.temperatures.get(name, 1.0) for name in aligned.names}
    if aligned.respelt:
        source["respelt"] = respelt_words(aligned, spec.match)
    if aligned.left_out:
        source["left_out"] = aligned.left_out
    if source["softmax"] and "decision_values" in aligned.kinds:
        source["note"] = "softmax was taken of decision values, which were not trained to be probabilities"
    return source


def respelt_words(aligned: Aligned, match: NameRules) -> dict[str, str]:
    """{table: what of its names the rules changed}, in words with counts and examples."""
    return {
        name: "; ".join(
            f"{len(changed)} {what} as the first table spells them, ignoring {words(match.of(what))} (e.g. {old!r} is {new!r})"
            for what, changed in parts.items()
            for old, new in list(changed.items())[:1]
        )
        for name, parts in aligned.respelt.items()
    }
