"""The report: one HTML page that needs no other file, the same as JSON for programs and as text for a terminal."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fusion.bootstrap import Units
from fusion.categories import by_category
from fusion.examples import Example, Frames, choose_examples
from fusion.figures import axis_range, by_categories, class_panels, difference_matrix, largest_gain, matrix
from fusion.results import Results, TableResult, hardest_confusions, judge
from fusion.spec import EvaluateSpec, ReportSpec
from fusion.words import TIE_NOTES, clean, drawn, headline, left_out_note, p_value, percent, respelt_note, signed, what
from store.errors import SpecError
from store.files import write_text
from store.scores import ScoreTable
from store.video_list import nearest

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Report:
    """Everything on the page, computed; ``html``, ``text`` and ``data`` render it."""

    title: str
    results: Results
    examples: Mapping[str, list[Example]]
    command: str

    def html(self) -> str:
        """The page."""
        best = self.results.table(self.results.best)
        panels = class_panels(self.results)
        low, high = axis_range(self.results)
        order, breaks, category_names = by_categories(self.results)
        names = tuple(clean(self.results.aligned.classes[place]) for place in order)
        ordered = {table.name: table.evaluation.confusion[np.ix_(order, order)] for table in self.results.tables}
        single = self.results.best_single if self.results.best_single != self.results.best else None
        return (
            _environment()
            .get_template("report.html.j2")
            .render(
                title=self.title,
                results=self.results,
                best=best,
                classes=self.results.aligned.classes,
                headline=headline(self.results),
                left_out=left_out_note(self.results),
                tie_note=TIE_NOTES[self.results.spec.ties],
                drawn=drawn(self.results.spec, self.results.units),
                top5=len(self.results.aligned.classes) > 5,
                low=low,
                high=high,
                respelt=respelt_note(self.results),
                matrix=matrix(ordered[best.name], names, breaks),
                difference=difference_matrix(ordered[best.name], ordered[single], names, breaks) if single else None,
                category_names=category_names,
                categories=category_rows(self.results),
                confusions=hardest_confusions(best.evaluation.confusion, self.results.aligned.classes),
                panels=panels,
                largest=largest_gain(panels),
                gains=panels[0][0].gain is not None,
                examples=self.examples,
                probabilities=best.kind != "decision_values",
                command=self.command,
            )
        )

    def text(self) -> str:
        """The figures as plain text, without control characters whatever ids and classes hold."""
        return report_text(self)

    def data(self) -> dict[str, Any]:
        """The figures as JSON types; accuracies are fractions, NaN is null."""
        return report_data(self)


def make_report(
    tables: Mapping[str, ScoreTable],
    spec: ReportSpec | None = None,
    *,
    frames: Frames | None = None,
    command: str = "",
    groups: Mapping[str, str] | None = None,
) -> Report:
    """Judge named, labelled tables (single streams and fusions) and choose examples; see ``judge`` for ``groups`` and the errors.

    ``frames(id)`` may give pictures of the few example videos: image files or uint8 RGB arrays [H, W, 3].
    """
    spec = spec or ReportSpec()
    results = judge(tables, spec, groups)
    return Report(spec.title, results, choose_examples(results, spec.examples, frames), command)


def category_rows(results: Results) -> list[dict[str, Any]]:
    """Figures of each coarse category: of the best table, and ``accuracies`` of all tables in their order; none without categories."""
    if results.categories is None:
        return []
    each = [by_category(table.evaluation.confusion, results.categories) for table in results.tables]
    best = by_category(results.table(results.best).evaluation.confusion, results.categories)
    return [asdict(row) | {"accuracies": [part[place].accuracy for part in each]} for place, row in enumerate(best)]


def categories_text(results: Results) -> str:
    """Accuracy of every table in each coarse category."""
    rows = category_rows(results)
    header = ["category", "classes", "videos", *(table.name for table in results.tables), "category right", ""]
    lines = [
        [
            row["name"],
            str(row["num_classes"]),
            str(row["num_videos"]),
            *map(percent, row["accuracies"]),
            percent(row["category_accuracy"]),
            "",
        ]
        for row in rows
    ]
    return columns([header, *lines])


def classes_text(results: Results, names: Sequence[str] = ()) -> str:
    """Accuracy of every table in each class that has videos, or in the named ones, with the best one's gain on the best single stream."""
    place = {name: index for index, name in enumerate(results.aligned.classes)}
    if unknown := [name for name in names if name not in place]:
        raise SpecError(f"there is no class {unknown[0]!r}{nearest(unknown[0], place)}")
    counts = results.tables[0].evaluation.counts
    gains = results.best_single not in (None, results.best)
    lines = [["class", "videos", *(table.name for table in results.tables), *(["gain"] if gains else []), ""]]
    for name in names or results.aligned.classes:
        if not counts[place[name]]:
            continue
        line = [name, str(counts[place[name]]), *(percent(float(table.evaluation.per_class[place[name]])) for table in results.tables)]
        if gains:
            best, single = (results.table(str(one)).evaluation.per_class[place[name]] for one in (results.best, results.best_single))
            line.append(signed(float(best - single)))
        lines.append([*line, ""])
    return columns(lines)


def comparisons_text(results: Results) -> str:
    """Every comparison with its interval and test."""
    header = ["first", "second", "points", "interval", "only first", "only second", "McNemar p"]
    lines = [
        [row.first, row.second, signed(row.difference, 2), f"{signed(row.interval.low, 2)} to {signed(row.interval.high, 2)}",
         str(row.test.only_first), str(row.test.only_second), p_value(row.test.p)]
        for row in results.comparisons
    ]  # fmt: skip
    alone = "McNemar's test counts videos as independent; the intervals do not\n" if results.units.what == "groups" else ""
    return columns([header, *lines]) + alone


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write ``report.html``, ``report.json`` and ``report.txt`` into ``folder``; returns their paths."""
    contents = {
        "report.html": report.html(),
        "report.json": json.dumps(report.data(), indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        "report.txt": report.text(),
    }
    for name, content in contents.items():
        write_text(folder / name, content)
    return [folder / name for name in contents]


def table_text(results: Results) -> str:
    """The results as an aligned plain-text table, in per cent; below it what the intervals were drawn from."""
    top5 = len(results.aligned.classes) > 5
    header = ["top-1", f"{100 * results.spec.level:g} % interval", *(["top-5"] if top5 else []), "mean class", "calibration error"]
    lines = [["table", "videos", *header, "what"]]
    for row in results.tables:
        figures = row.evaluation
        spread = f"{percent(figures.top1_interval.low)} to {percent(figures.top1_interval.high)}"
        shown = [percent(figures.top1, 2), spread, *([percent(figures.top5, 2)] if top5 else []), percent(figures.mean_class, 2)]
        calibration = "-" if row.calibration is None else percent(row.calibration)
        lines.append([row.name, str(figures.num_videos), *shown, calibration, what(row)])
    return columns(lines) + drawn(results.spec, results.units) + "\n"


def columns(lines: Sequence[Sequence[str]]) -> str:
    """Cells under one another: the first and last column to the left, the others to the right; control characters replaced."""
    cleaned = [[clean(cell) for cell in line] for line in lines]
    widths = [max(len(line[place]) for line in cleaned) for place in range(len(cleaned[0]))]
    last = len(widths) - 1
    padded = (
        [
            cell.ljust(width) if place in (0, last) else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in cleaned
    )
    return "".join("  ".join(line).rstrip() + "\n" for line in padded)


def report_text(report: Report) -> str:
    """See ``Report.text``."""
    results = report.results
    best = results.table(results.best)
    parts = [
        clean(report.title),
        "",
        clean(headline(results)),
        *filter(None, [left_out_note(results), clean(respelt_note(results))]),
        "",
        table_text(results),
    ]
    parts += [comparisons_text(results)] if results.comparisons else []
    parts += [categories_text(results)] if results.categories is not None else []
    parts += [f"Hardest confusions of {clean(results.best)}"]
    for item in hardest_confusions(best.evaluation.confusion, results.aligned.classes):
        parts.append(f"  {clean(item.true)} is taken for {clean(item.predicted)} in {item.count} of {item.videos} videos")
    parts += ["", "Accuracy per class", classes_text(results)]
    parts += [TIE_NOTES[results.spec.ties]]
    parts += [clean(f"Made by: {report.command}")] if report.command else []
    return "\n".join(parts) + "\n"


def report_data(report: Report) -> dict[str, Any]:
    """See ``Report.data``."""
    examples = {group: [_example_data(example) for example in items] for group, items in report.examples.items()}
    return {"title": report.title, "command": report.command, **results_data(report.results), "examples": _json(examples)}


def results_data(results: Results) -> dict[str, Any]:
    """Every figure of an evaluation as JSON types; accuracies are fractions, NaN is null."""
    best = results.table(results.best)
    return _json(
        {
            "headline": headline(results),
            "videos": len(results.labels),
            "classes": results.aligned.classes,
            "ties": results.spec.ties,
            "bootstrap": bootstrap_data(results.spec, results.units),
            "left_out": results.aligned.left_out,
            "respelt": results.aligned.respelt,
            "categories": category_rows(results),
            "best": results.best,
            "best_single": results.best_single,
            "tables": [table_data(table) for table in results.tables],
            "comparisons": [asdict(row) for row in results.comparisons],
            "agreements": [{"first": a, "second": b, **shares} for (a, b), shares in results.agreements.items()],
            "hardest_confusions": [asdict(item) for item in hardest_confusions(best.evaluation.confusion, results.aligned.classes)],
        }
    )


def bootstrap_data(spec: EvaluateSpec, units: Units) -> dict[str, Any]:
    """What the intervals are: how many resamples of how many videos or groups."""
    return {"samples": spec.samples, "level": spec.level, "seed": spec.seed, "drawn": units.what, "count": units.count}


def table_data(table: TableResult) -> dict[str, Any]:
    """One table's figures, confusion matrix and provenance."""
    head = {"name": table.name, "kind": table.kind, "what": what(table), "fused": table.fused, "calibration_error": table.calibration}
    return _json(head | asdict(table.evaluation) | {"source": table.source})


def _example_data(example: Example) -> dict[str, Any]:
    return {key: value for key, value in asdict(example).items() if key != "pictures"}


def _json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _json(value.tolist())
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _pretty(source: Mapping[str, Any]) -> str:
    return json.dumps(source, indent=2, ensure_ascii=False)


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(clean=clean, percent=percent, signed=signed, p_value=p_value, what=what, pretty=_pretty)
    return environment
