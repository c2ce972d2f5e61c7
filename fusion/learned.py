"""Fusion whose weights are learned: from scores of other (validation) videos, or cross-fitted. Never from the videos that are fused.

A learned fusion remembers every video it has seen, and refuses to fuse one of them.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fusion.align import Aligned, align
from fusion.fitting import cross_entropy, fit_stacking, fit_weights, group_folds
from fusion.footing import l2, log_softmax
from fusion.fuse import fuse, respelt_words
from fusion.rules import RULES
from fusion.spec import FuseSpec, LearnSpec
from store.digest import Checked, from_dict, to_plain
from store.errors import AlignmentError, ScoreError, SpecError
from store.files import write_text
from store.names import NameRules, key
from store.scores import ScoreTable

FORMAT = "actioncache-learned-1"
PENALTIES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 1e-1)
_MAX_BYTES = 64 << 20


@dataclass(frozen=True)
class Learned(Checked):
    """What was learned: ``weights`` {input: w}, or {input: w of each class} in ``class_weights`` with ``bias``; and from which videos."""

    spec: LearnSpec
    inputs: tuple[str, ...]
    weights: dict[str, float] = field(default_factory=dict)
    class_weights: dict[str, tuple[float, ...]] = field(default_factory=dict)
    bias: tuple[float, ...] = ()
    classes: tuple[str, ...] = ()
    penalty: float = 0.0
    loss_before: float = 0.0
    loss_after: float = 0.0
    ids: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    def save(self, path: Path) -> None:
        """Write as JSON."""
        write_text(path, json.dumps({"format": FORMAT, **to_plain(self)}, indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Learned":
        """Read what ``save`` wrote."""
        if not path.is_file() or path.stat().st_size > _MAX_BYTES:
            raise SpecError(f"there is no learned fusion {path} of at most {_MAX_BYTES} bytes; make one with: actioncache learn")
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
                raise SpecError(f"it is not of the format {FORMAT}")
            return from_dict(cls, data)
        except (ValueError, RecursionError) as error:
            raise SpecError(f"{path} is no learned fusion: {error}") from None

    def check(self) -> None:
        if self.spec.method != "stacking" and set(self.weights) != set(self.inputs):
            raise SpecError(f"weights are of {', '.join(self.weights)}, the inputs {', '.join(self.inputs)}")
        lengths = {len(row) for row in self.class_weights.values()} | {len(self.bias)}
        if self.spec.method == "stacking" and (set(self.class_weights) != set(self.inputs) or lengths != {len(self.classes)}):
            raise SpecError(f"class weights do not fit {len(self.inputs)} inputs and {len(self.classes)} classes")


def learn(
    tables: Mapping[str, ScoreTable], spec: LearnSpec, groups: Mapping[str, str] | None = None, without: Sequence[str] = ()
) -> Learned:
    """Learn a fusion from labelled tables; ``groups`` {id: group} keeps groups together where it cross-fits inside.

    ``without`` are ids that are not learned from, nor any video of their groups: those that the fusion is meant for.
    """
    _check_rule(spec)
    aligned = _labelled(align(tables, False, spec.match))
    kept = _left(aligned, without, groups, spec.match)
    return _fit(_rows(aligned, kept), spec, groups, [str(table.source.get("file", "")) for table in tables.values()])


def apply(
    learned: Learned, tables: Mapping[str, ScoreTable], match: NameRules | None = None, groups: Mapping[str, str] | None = None
) -> ScoreTable:
    """Fuse other videos by what was learned; log-probabilities. Videos, or groups, that were learned from raise ``AlignmentError``."""
    match = match or learned.spec.match
    if set(tables) != set(learned.inputs):
        raise SpecError(f"this fusion was learned for inputs called {', '.join(learned.inputs)}, not {', '.join(tables)}; name them so")
    tables = {name: tables[name] for name in learned.inputs}
    aligned = align(tables, False, match)
    _check_unseen(learned, aligned, match, groups)
    return _finish(tables, aligned, _values(learned, tables, aligned), _describe(learned), match)


def cross_fit(tables: Mapping[str, ScoreTable], spec: LearnSpec, groups: Mapping[str, str], folds: int = 10) -> ScoreTable:
    """Fuse every video by what was learned from the other folds; whole groups are left out together, and the table says so.

    ``groups`` {id: group} must name all videos: videos of one scene or film are too alike to judge one another.
    """
    _check_rule(spec)
    aligned = _labelled(align(tables, False, spec.match))
    own = _groups_of(aligned.ids, groups)
    fold_of = group_folds(own, folds, spec.seed)
    values, parts = np.empty(aligned.values.shape[1:], np.float32), []
    for fold in range(folds):
        train, test = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
        learned = _fit(_rows(aligned, train), spec, groups, [])
        part = _rows(aligned, test)
        values[test] = _values(learned, _as_tables(part), part)
        parts.append({"videos": len(test), "learned_from": len(train), **_parameters(learned)})
    description = {"cross_fitted": True, "folds": parts, "num_groups": len(set(own)), "spec": to_plain(spec), "method": spec.method}
    return _finish(tables, aligned, values, description, spec.match)


def _check_rule(spec: LearnSpec) -> None:
    """Temperatures need a rule that takes softmax and no weights; said before anything is learned."""
    if spec.method != "temperature":
        return
    fit = [name for name in RULES if RULES.get(name).footings[0] in ("softmax", "log_softmax") and RULES.get(name).weights != "required"]
    if RULES.get(spec.rule) and spec.rule not in fit:
        raise SpecError(f"rule {spec.rule} does not combine probabilities without weights; after temperatures use {', '.join(fit)}")


def _fit(aligned: Aligned, spec: LearnSpec, groups: Mapping[str, str] | None, sources: list[str]) -> Learned:
    order, rows = np.argsort(np.array(aligned.classes)), np.argsort(np.array(aligned.ids))  # the order of rows and columns changes nothing
    inputs = _footed(aligned.values[:, rows][:, :, order], spec)
    labels = np.argsort(order)[aligned.labels[rows]]  # type: ignore[index]
    named = {} if groups is None else {name: groups[name] for name in aligned.ids if groups.get(name)}
    seen = {"ids": tuple(sorted(aligned.ids)), "groups": tuple(sorted(set(named.values()))), "sources": tuple(sources)}
    before = cross_entropy(log_softmax(inputs.sum(axis=0)), labels)
    if spec.method == "stacking":
        own = [named.get(aligned.ids[row], aligned.ids[row]) for row in rows.tolist()]
        penalty = spec.penalty or _choose_penalty(inputs, labels, own, spec.seed)
        weights, bias = fit_stacking(inputs, labels, penalty)
        after = cross_entropy(log_softmax(np.einsum("tvc,tc->vc", inputs, weights) + bias), labels)
        per_class = {name: tuple(row.tolist()) for name, row in zip(aligned.names, weights, strict=True)}
        classes = tuple(aligned.classes[place] for place in order.tolist())
        return Learned(spec, aligned.names, {}, per_class, tuple(bias.tolist()), classes, penalty, before, after, **seen)
    if spec.method == "temperature":
        found = np.concatenate([fit_weights(part[None], labels) for part in inputs])
        sizes = inputs.std(axis=(1, 2))  # scores of a million have temperatures of a million
        if low := [name for name, value in zip(aligned.names, found * sizes, strict=True) if value < 1e-6]:
            raise ScoreError(f"{', '.join(low)} know no more than chance about these labels, so they have no temperature")
    else:
        found = fit_weights(inputs, labels)
    after = cross_entropy(log_softmax(np.einsum("tvc,t->vc", inputs, found)), labels)
    pairs = dict(zip(aligned.names, found.tolist(), strict=True))
    return Learned(spec, aligned.names, pairs, {}, (), (), 0.0, before, after, **seen)


def _choose_penalty(inputs: np.ndarray, labels: np.ndarray, groups: Sequence[str], seed: int) -> float:
    """The penalty with the least cross-entropy on left-out fifths of the videos that are learned from."""
    fold_of = group_folds(groups, min(5, len(set(groups))), seed)
    losses = []
    for penalty in PENALTIES:
        left_out = []
        for fold in range(int(fold_of.max()) + 1):
            train, test = fold_of != fold, fold_of == fold
            weights, bias = fit_stacking(inputs[:, train], labels[train], penalty)
            log_probs = log_softmax(np.einsum("tvc,tc->vc", inputs[:, test], weights) + bias)
            left_out.append(cross_entropy(log_probs, labels[test]) * int(test.sum()))
        losses.append(sum(left_out))
    return PENALTIES[int(np.argmin(losses))]


def _footed(values: np.ndarray, spec: LearnSpec) -> np.ndarray:
    wide = values.astype(np.float64)
    return l2(wide) if spec.on == "l2" else wide - wide.mean(axis=-1, keepdims=True)


def _values(learned: Learned, tables: Mapping[str, ScoreTable], aligned: Aligned) -> np.ndarray:
    """float32 [V, C], in the order of ``aligned``."""
    if learned.spec.method == "temperature" and len(tables) > 1:
        temperatures = {name: 1 / weight for name, weight in learned.weights.items()}
        fused = fuse(tables, FuseSpec(rule=learned.spec.rule, temperatures=temperatures, match=learned.spec.match))
        return log_softmax(fused.values.astype(np.float64)).astype(np.float32)
    order = np.argsort(np.array(aligned.classes))
    inputs = _footed(aligned.values[:, :, order], learned.spec)
    if learned.spec.method == "stacking":
        if (classes := tuple(aligned.classes[place] for place in order.tolist())) != learned.classes:
            raise AlignmentError(
                f"stacking has weights of {len(learned.classes)} classes, which are not the {len(classes)} of these tables; learn it from "
                "videos of these classes, or use --method weights"
            )
        weights = np.array([learned.class_weights[name] for name in aligned.names])
        combined = np.einsum("tvc,tc->vc", inputs, weights) + np.array(learned.bias)
    else:
        combined = np.einsum("tvc,t->vc", inputs, np.array([learned.weights[name] for name in aligned.names]))
    result = np.empty(combined.shape, np.float32)
    result[:, order] = log_softmax(combined)
    return result


def _finish(
    tables: Mapping[str, ScoreTable], aligned: Aligned, values: np.ndarray, description: dict[str, Any], match: NameRules
) -> ScoreTable:
    source: dict[str, Any] = {"made_by": "fuse", "rule": "learned", "softmax": True, **description}
    source["inputs"] = {name: {"kind": table.kind, "videos": len(table.ids), "source": table.source} for name, table in tables.items()}
    if aligned.respelt:
        source["respelt"] = respelt_words(aligned, match)
    return ScoreTable(aligned.ids, aligned.classes, values, "log_probs", aligned.labels, source)


def _describe(learned: Learned) -> dict[str, Any]:
    from_ = {"videos": len(learned.ids), "groups": len(learned.groups), "files": list(learned.sources)}
    return {
        "cross_fitted": False,
        "method": learned.spec.method,
        "learned_from": from_,
        "spec": to_plain(learned.spec),
        **_parameters(learned),
    }


def _parameters(learned: Learned) -> dict[str, Any]:
    if learned.spec.method == "stacking":
        means = {name: float(np.mean(row)) for name, row in learned.class_weights.items()}
        return {"weights": means, "class_weights": {n: list(r) for n, r in learned.class_weights.items()}, "penalty": learned.penalty}
    if learned.spec.method == "temperature":
        return {"temperatures": {name: 1 / weight for name, weight in learned.weights.items()}, "combined_by": learned.spec.rule}
    return {"weights": dict(learned.weights), "footing": learned.spec.on}


def _labelled(aligned: Aligned) -> Aligned:
    if aligned.labels is None:
        raise ScoreError(f"{', '.join(aligned.names)}: not every video has a label, so nothing can be learned; give them with --list LIST")
    return aligned


def _rows(aligned: Aligned, rows: np.ndarray) -> Aligned:
    labels = None if aligned.labels is None else aligned.labels[rows]
    return dataclasses.replace(aligned, ids=tuple(aligned.ids[row] for row in rows.tolist()), values=aligned.values[:, rows], labels=labels)


def _as_tables(aligned: Aligned) -> dict[str, ScoreTable]:
    parts = zip(aligned.names, aligned.values, aligned.kinds, strict=True)
    return {name: ScoreTable(aligned.ids, aligned.classes, values, kind, aligned.labels) for name, values, kind in parts}


def _groups_of(ids: Sequence[str], groups: Mapping[str, str]) -> list[str]:
    absent = [name for name in ids if not groups.get(name)]
    if absent:
        raise AlignmentError(
            f"{len(absent)} of {len(ids)} videos have no group (first: {absent[0]!r}), so they cannot be cross-fitted with groups kept "
            "together; give a list with groups (--list), whose ids are spelt alike or made so (--match.ids)"
        )
    return [groups[name] for name in ids]


def _left(aligned: Aligned, without: Sequence[str], groups: Mapping[str, str] | None, match: NameRules) -> np.ndarray:
    known = {} if groups is None else {key(name, match.ids): group for name, group in groups.items() if group}
    banned = {key(name, match.ids) for name in without}
    banned_groups = {known[name] for name in banned if name in known}
    keys = [key(name, match.ids) for name in aligned.ids]
    kept = [row for row, name in enumerate(keys) if name not in banned and known.get(name) not in banned_groups]
    if not kept:
        raise ScoreError(f"none of the {len(keys)} videos is left to learn from, without those that are to be fused and their groups")
    return np.array(kept)


def _check_unseen(learned: Learned, aligned: Aligned, match: NameRules, groups: Mapping[str, str] | None) -> None:
    seen = {key(name, match.ids) for name in learned.ids}
    again = [name for name in aligned.ids if key(name, match.ids) in seen]
    if again:
        raise AlignmentError(
            f"this fusion was learned from {len(again)} of these {len(aligned.ids)} videos (first: {again[0]!r}), so their accuracy "
            "would be flattered; learn it from others (learn --without TABLE leaves them out), or use cross-fit"
        )
    if groups is not None and learned.groups:
        shared = sorted({groups.get(name, "") for name in aligned.ids} & set(learned.groups) - {""})
        if shared:
            raise AlignmentError(
                f"this fusion was learned from other videos of {len(shared)} groups of these ({', '.join(shared[:5])}); learn it with "
                "--list and --without, which leaves their groups out"
            )
