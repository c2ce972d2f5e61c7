"""Figures and findings in words, shared by the page, the text and the command line."""

from collections.abc import Mapping
from typing import Any

from fusion.bootstrap import FEW, Units
from fusion.fuse import respelt_words
from fusion.results import Results, TableResult, fusion_source
from fusion.spec import EvaluateSpec

FOOTING_WORDS = {"raw": "raw scores", "l2": "L2-normalised scores", "rank": "ranks"}
KIND_WORDS = {"scores": "raw class scores", "log_probs": "log-probabilities", "decision_values": "decision values"}
TIE_NOTES = {
    "wrong": "A tie with another class counts as wrong.",
    "index": "A tie goes to the class listed first.",
}


def headline(results: Results) -> str:
    """What the report found, in one or two sentences."""
    best = results.table(results.best)
    videos = f"{best.evaluation.num_videos:,} videos"
    spread = best.evaluation.top1_interval
    first = f"{best.name}: {percent(best.evaluation.top1)} % of {videos} correct"
    spread_text = f"{100 * results.spec.level:g} % interval {percent(spread.low)} to {percent(spread.high)} %"
    other = next((row for row in results.comparisons if (row.first, row.second) == (results.best, results.best_single)), None)
    if other is not None:
        single = results.table(other.second).evaluation.top1
        return (
            f"{first} ({spread_text}), {signed(other.difference)} points on {other.second} alone ({percent(single)} %), "
            f"the best single stream (interval {signed(other.interval.low)} to {signed(other.interval.high)})."
        )
    return f"{first} ({spread_text})" + ("; no fusion here does better." if any(table.fused for table in results.tables) else ".")


def left_out_note(results: Results) -> str:
    """What ``common`` removed from the tables, in words; empty if nothing."""
    parts = [
        f"{name} {counts['ids']} videos and {counts['classes']} classes"
        for name, counts in results.aligned.left_out.items()
        if any(counts.values())
    ]
    return f"Left out to keep only what all tables have: {'; '.join(parts)}." if parts else ""


def respelt_note(results: Results) -> str:
    """Which names were taken as the same by rules that were asked for, in words; empty if none."""
    notes = respelt_words(results.aligned, results.spec.match)
    return "Taken as the same name: " + "; ".join(f"{name}: {text}" for name, text in notes.items()) + "." if notes else ""


def drawn(spec: EvaluateSpec, units: Units) -> str:
    """What the intervals are, in words: how many resamples of what."""
    text = f"{100 * spec.level:g} % intervals: {spec.samples:,} bootstrap resamples of {units.count:,} {units.what}, seed {spec.seed}"
    if units.what == "groups":
        few = f"; intervals from fewer than {FEW} groups tend to be too narrow" if units.count < FEW else ""
        return f"{text} ({len(units.of):,} videos){few}"
    return text + ("; a --list with groups (scenes, films) draws whole groups" if spec.draw == "groups" else "")


def what(table: TableResult) -> str:
    """What a table is, in a few words: a fusion's rule, inputs, weights and softmax, or the kind of its numbers."""
    source = fusion_source(table.source)
    if source is None:
        return KIND_WORDS[table.kind]
    if source.get("rule") == "learned":
        return _learned(source)
    weights = source.get("weights") or {}
    plain = len(set(weights.values())) < 2
    inputs = ", ".join(name if plain else f"{float(weights[name]):g} {name}" for name in source.get("inputs", {}))
    warmth = f"; temperatures {_numbers(source['temperatures'])}" if source.get("temperatures") else ""
    recipe = f"{source['recipe']['name']}: " if source.get("recipe") else ""
    return f"{recipe}{source.get('rule')} of {inputs}; on {FOOTING_WORDS.get(source.get('footing', ''), 'softmax')}{warmth}"


def _learned(source: Mapping[str, Any]) -> str:
    """How a learned fusion came about: cross-fitted, or learned from how many other videos."""
    how = (
        f"cross-fitted in {len(source['folds'])} folds by group"
        if source["cross_fitted"]
        else f"learned from {source['learned_from']['videos']} other videos"
    )
    method = {"weights": "weights", "stacking": "stacking", "temperature": "temperatures"}[source["method"]]
    numbers = {} if source["cross_fitted"] else source.get("temperatures") or source.get("weights") or {}
    inputs = _numbers(numbers) or ", ".join(source.get("inputs", {}))
    then = f", then {source['combined_by']}" if "combined_by" in source and len(source.get("inputs", {})) > 1 else ""
    footing = "L2-normalised" if source["spec"]["on"] == "l2" and source["method"] != "temperature" else "raw"
    return f"{method} {how}: {inputs}{then}; on {footing} scores, softmax of the whole"


def _numbers(numbers: Mapping[str, float]) -> str:
    return ", ".join(f"{float(number):.3g} {name}" for name, number in numbers.items())


def percent(fraction: float, digits: int = 1) -> str:
    """0.9368 -> "93.7"."""
    return f"{100 * fraction:.{digits}f}"


def signed(fraction: float, digits: int = 1) -> str:
    """0.0529 -> "+5.3", with a true minus sign below zero."""
    text = f"{100 * fraction:+.{digits}f}"
    return text.replace("-", "−") if float(text) else text[1:]


def p_value(p: float) -> str:
    """Three digits, or "< 0.001"."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def clean(text: str) -> str:
    """Replace what is not printable (terminal escapes, text-direction marks), since ids and classes come from anywhere; keep line ends."""
    return "".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text)
