"""The page of a reproduction: self-contained HTML, Markdown and JSON, the paper's number beside ours."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from store.digest import to_plain
from store.files import write_text
from temporal.papers import HMDB, UCF, Table
from temporal.reproduce import Measured, Reproduction
from temporal.reproduce_plot import picture
from temporal.tables import markdown

TEMPLATES = Path(__file__).parent / "templates"
CLASSES = {101: UCF, 51: HMDB}  # by the number of classes, which published column a list is compared with


@dataclass(frozen=True)
class Section:
    """One table as it is shown: header, rows, and what was left out with its reason."""

    table: Table
    datasets: tuple[str, ...]
    rows: tuple[tuple[Measured, tuple[str, ...]], ...]
    left_out: tuple[tuple[str, str], ...]
    svg: str
    split: str

    @property
    def header(self) -> list[str]:
        """Titles of the columns."""
        ours = [f"ours, {self.split}".replace("-", " "), "ours, all splits"] if self.split else ["ours"]
        return [*self.table.columns, *(f"paper, {name}" for name in self.datasets), *ours, "± seeds"]


def write_reproduction(done: Reproduction, path: Path, command: str, lists: Mapping[str, Any] | None = None) -> list[Path]:
    """Write index.html, results.md and results.json into ``path``; ``lists``: what to record of each list, by split."""
    texts = {
        "index.html": html_text(done, command),
        "results.md": markdown_text(done, command),
        "results.json": json_text(done, command, lists or {}),
    }
    for name, text in texts.items():
        write_text(path / name, text)
    return [path / name for name in texts]


def sections(done: Reproduction) -> list[Section]:
    """Every table of the paper."""
    return [_section(table, lines, done.papers_split) for table, lines in done.tables]


def _section(table: Table, lines: Sequence[Measured], split: str) -> Section:
    datasets = tuple(name for name in (UCF, HMDB) if any(name in each.line.published for each in lines))
    rows = tuple((each, _cells(each, datasets, split)) for each in lines)
    left_out: dict[str, list[str]] = {}
    for each in lines:
        if reason := each.skipped or each.failed:
            left_out.setdefault(("failed: " if each.failed else "") + reason, []).append(", ".join(each.line.names))
    return Section(
        table, datasets, rows, tuple(("; ".join(names), reason) for reason, names in left_out.items()), picture(table, lines), split
    )


def _cells(measured: Measured, datasets: Sequence[str], split: str) -> tuple[str, ...]:
    published = [f"{measured.line.published[name]:g}" if name in measured.line.published else "" for name in datasets]
    figures = [measured.of_split(split), measured.figure] if split else [measured.figure]
    problem = "failed" if measured.failed else "not done"
    ours = [problem if figure is None else f"{100 * figure.mean:.2f}" for figure in figures]
    last = figures[-1]
    deviation = "" if last is None or last.deviation is None else f"{100 * last.deviation:.2f}"
    return (*measured.line.names, *published, *ours, deviation)


def facts(done: Reproduction) -> list[tuple[str, str]]:
    """What a reader must know to compare."""
    seeds = ", ".join(map(str, done.plan.seeds))
    how = (
        "leave one group out"
        if done.plan.cross_validate
        else ", ".join(f"{name} ({videos} test videos)" for name, videos in done.splits.items())
    )
    found = [("evaluation", how), ("seeds", seeds), ("classes", str(done.num_classes))]
    found += [(f"features: {role}", ", ".join(names)) for role, names in done.features.items()]
    if done.settings:
        found.append(("settings changed by hand", json.dumps(done.settings, ensure_ascii=False)))
    if done.missing:
        found.append(("left out", f"{done.missing} videos without features"))
    return found


def cautions(done: Reproduction) -> list[str]:
    """What stands between our numbers and the paper's."""
    found = ["Figures are top-1 accuracies in per cent on the test part: the mean over splits and seeds, and the deviation over the seeds."]
    found.append(f"The paper's numbers in these tables are of split {done.paper.split}{_like_with_like(done)}.")
    if done.quick:
        found.append("This is a quick run: an eighth of the paper's units and a few epochs. Its numbers reproduce nothing.")
    if same := CLASSES.get(done.num_classes):
        found.append(
            f"With {done.num_classes} classes the list looks like {same}; compare with that column, if features and splits are the paper's."
        )
    else:
        found.append(
            f"The paper's numbers are of UCF-101 or HMDB-51, this list has {done.num_classes} classes: only orders can be compared."
        )
    found.append("No test label chose anything: epochs are the protocol's, or chosen on a validation part that keeps groups together.")
    return found


def _like_with_like(done: Reproduction) -> str:
    if done.papers_split:
        return "; ours of that split stand beside them"
    return "" if f"split-{done.paper.split}" in done.splits else "; ours are of what stands above under evaluation"


def headline(done: Reproduction) -> str:
    """How much was done."""
    lines = [each for _, lines in done.tables for each in lines]
    measured = sum(each.figure is not None for each in lines)
    return f"{measured} of {len(lines)} lines of {len(done.tables)} tables measured" + (
        f", {len(done.failed)} failed" if done.failed else ""
    )


def markdown_text(done: Reproduction, command: str) -> str:
    """The page as Markdown."""
    parts = [f"# {done.paper.title}", headline(done) + ".", "\n".join(f"- {name}: {value}" for name, value in facts(done)), *cautions(done)]
    for section in sections(done):
        table = section.table
        parts += [f"## {table.where}: {table.title}", table.said]
        parts.append(markdown(section.header, [cells for _, cells in section.rows], len(table.columns)))
        parts += [f"Not done: {names} ({reason})." for names, reason in section.left_out]
    return "\n\n".join([*parts, f"Made by: `{command}`"]) + "\n"


def html_text(done: Reproduction, command: str) -> str:
    """The page; it needs no other file."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("reproduce.html.j2")
    style = (TEMPLATES / "reproduce.css").read_text(encoding="utf-8")
    shown = {"done": done, "sections": sections(done), "facts": facts(done), "cautions": cautions(done), "headline": headline(done)}
    return page.render(**shown, style=style, command=command)


def json_text(done: Reproduction, command: str, lists: Mapping[str, Any]) -> str:
    """Everything, for programs."""
    tables = [
        {"where": table.where, "title": table.title, "said": table.said, "lines": [_line_data(table, each) for each in lines]}
        for table, lines in done.tables
    ]
    head = {"paper": done.paper.name, "title": done.paper.title, "command": command, "quick": done.quick, "seeds": done.plan.seeds}
    data = {**head, "splits": done.splits, "lists": lists, "features": done.features, "cautions": cautions(done), "tables": tables}
    return json.dumps(to_plain(data), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _line_data(table: Table, measured: Measured) -> dict[str, Any]:
    figure = measured.figure
    return {
        **dict(zip(table.columns, measured.line.names, strict=True)),
        "published": measured.line.published,
        "top1": None
        if figure is None
        else {"mean": 100 * figure.mean, "deviation": None if figure.deviation is None else 100 * figure.deviation},
        "by_split": {split: [100 * value for value in values] for split, values in measured.top1.items()},
        "not_done": measured.skipped or None,
        "failure": measured.failed or None,
        "spec": measured.spec,
    }


def text(done: Reproduction) -> str:
    """The tables for a terminal."""
    from temporal.tables import plain

    parts = [f"{done.paper.title}\n{headline(done)}"]
    for section in sections(done):
        rows = [cells for _, cells in section.rows]
        parts.append("\n".join([f"{section.table.where}: {section.table.title}", plain(section.header, rows, len(section.table.columns))]))
        parts[-1] += "".join(f"\nnot done: {names}: {reason}" for names, reason in section.left_out)
    return "\n\n".join(parts)
