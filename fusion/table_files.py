"""The report's tables as Markdown and as LaTeX (booktabs), for papers and notes: the same cells in both."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fusion.categories import by_category
from fusion.results import Results
from fusion.words import TIE_NOTES, clean, drawn, p_value, percent, signed, what
from store.files import write_text

_TEX = {letter: "\\" + letter for letter in "&%$#_{}"}
_TEX |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_TEX |= {"−": "$-$", "<": "$<$", ">": "$>$", "–": "--"}


@dataclass(frozen=True)
class Table:
    """Cells as text; the first ``text_columns`` are words, the others numbers; ``best`` is the row to be set in bold."""

    name: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: int = 1
    best: int | None = None


def report_tables(results: Results) -> list[Table]:
    """Every table of the report."""
    tables = [_results(results), _per_class(results)]
    if results.comparisons:
        tables.append(_comparisons(results))
    if results.categories is not None:
        tables.append(_categories(results, results.categories))
    if results.agreements:
        tables.append(_agreements(results))
    return tables


def write_tables(results: Results, folder: Path) -> list[Path]:
    """Write each table as ``<name>.md`` and ``<name>.tex``."""
    paths = []
    for table in report_tables(results):
        for suffix, text in ((".md", markdown(table)), (".tex", latex(table))):
            write_text(folder / f"{table.name}{suffix}", text)
            paths.append(folder / f"{table.name}{suffix}")
    return paths


def markdown(table: Table) -> str:
    """A pipe table, the best row in bold, the caption below it."""

    def cell(text: str) -> str:
        escaped = clean(text).replace("\n", " ").replace("\\", "\\\\")
        for letter in "|*_<>`[]":
            escaped = escaped.replace(letter, "\\" + letter)
        return escaped

    lines = ["| " + " | ".join(map(cell, table.header)) + " |"]
    lines.append("|" + "|".join(" --- " if place < table.text_columns else " ---: " for place in range(len(table.header))) + "|")
    for number, row in enumerate(table.rows):
        cells = [f"**{cell(text)}**" if number == table.best and text else cell(text) for text in row]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", cell(table.caption)]) + "\n"


def latex(table: Table) -> str:
    r"""A ``table`` with booktabs' rules, to be read by ``\input``; needs \usepackage{booktabs}."""

    def cell(text: str) -> str:
        return "".join(_TEX.get(letter, letter) for letter in clean(text).replace("\n", " "))

    def line(row: Sequence[str], bold: bool) -> str:
        return " & ".join(rf"\textbf{{{cell(text)}}}" if bold and text else cell(text) for text in row) + r" \\"

    columns = "l" * table.text_columns + "r" * (len(table.header) - table.text_columns)
    body = [line(row, number == table.best) for number, row in enumerate(table.rows)]
    return "\n".join(
        [r"\begin{table}", r"\centering", rf"\begin{{tabular}}{{{columns}}}", r"\toprule", line(table.header, False), r"\midrule", *body,
         r"\bottomrule", r"\end{tabular}", rf"\caption{{{cell(table.caption)}}}", rf"\label{{tab:{table.name}}}", r"\end{table}", ""]
    )  # fmt: skip


def _results(results: Results) -> Table:
    rows = []
    for table in results.tables:
        figures = table.evaluation
        spread = f"{percent(figures.top1_interval.low)}–{percent(figures.top1_interval.high)}"
        error = "–" if table.calibration is None else percent(table.calibration)
        shown = (percent(figures.top1, 2), spread, percent(figures.top5, 2), percent(figures.mean_class, 2), error)
        rows.append((table.name, what(table), *shown))
    spec = results.spec
    caption = (
        f"Accuracy in per cent on {len(results.labels)} videos of {len(results.aligned.classes)} classes. "
        f"{drawn(spec, results.units)}. {TIE_NOTES[spec.ties]}"
    )
    header = ("table", "what it is", "top-1", "interval", "top-5", "mean class", "calibration error")
    return Table("results", caption, header, tuple(rows), 2, [table.name for table in results.tables].index(results.best))


def _comparisons(results: Results) -> Table:
    rows = [
        (row.first, row.second, signed(row.difference, 2), f"{signed(row.interval.low, 2)} to {signed(row.interval.high, 2)}",
         str(row.test.only_first), str(row.test.only_second), p_value(row.test.p))
        for row in results.comparisons
    ]  # fmt: skip
    caption = (
        "Paired differences of top-1 in points with bootstrap intervals; exact two-sided McNemar tests, not adjusted for their number."
    )
    return Table("comparisons", caption, ("first", "second", "points", "interval", "only first", "only second", "p"), tuple(rows), 2)


def _per_class(results: Results) -> Table:
    names = [table.name for table in results.tables]
    counts = results.tables[0].evaluation.counts
    rows = [
        (name, str(counts[place]), *(percent(float(table.evaluation.per_class[place])) for table in results.tables))
        for place, name in enumerate(results.aligned.classes)
        if counts[place]
    ]
    return Table("per_class", "Accuracy of each class in per cent.", ("class", "videos", *names), tuple(rows))


def _categories(results: Results, categories: Sequence[str]) -> Table:
    each = [by_category(table.evaluation.confusion, categories) for table in results.tables]
    rows = [
        (row.name, str(row.num_classes), str(row.num_videos), *(percent(part[place].accuracy) for part in each))
        for place, row in enumerate(each[0])
    ]
    header = ("category", "classes", "videos", *(table.name for table in results.tables))
    return Table("categories", "Accuracy of the class in per cent, over the videos of each coarse category.", header, tuple(rows))


def _agreements(results: Results) -> Table:
    rows = [
        (first, second, *(percent(shares[key]) for key in ("both", "only_first", "only_second", "neither", "either")))
        for (first, second), shares in results.agreements.items()
    ]
    caption = "Videos in per cent that both streams, only one, or neither get right; either: what always picking the right one would reach."
    return Table("agreement", caption, ("first", "second", "both", "only first", "only second", "neither", "either"), tuple(rows), 2)
