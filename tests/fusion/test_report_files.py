import re
from xml.etree import ElementTree as ET

import numpy as np

from fusion.figure_files import write_figures
from fusion.figures import difference_matrix
from fusion.report import make_report
from fusion.spec import ReportSpec
from fusion.table_files import Table, latex, markdown, report_tables, write_tables

CATEGORIES = "class,category\nrun,legs\njump,legs\nwave,arms\nclap,arms\nsit,legs\nstand,legs\n"


def test_every_figure_is_written_and_equal_input_gives_equal_bytes(tables, tmp_path):
    (tmp_path / "c.csv").write_text(CATEGORIES)
    spec = ReportSpec(samples=20, categories=str(tmp_path / "c.csv"))
    report = make_report(tables, spec, frames=lambda name: [np.full((48, 64, 3), 90, np.uint8)])
    examples = next(iter(report.examples.values()))[:2]
    paths = write_figures(report.results, examples, tmp_path / "one")
    again = write_figures(report.results, examples[:1], tmp_path / "two", (".svg",))
    names = {"accuracy", "confusion", "confusion_difference", "gain_per_class", "categories", "examples"}
    assert {path.stem for path in paths} == names
    assert {path.suffix for path in paths} == {".svg", ".pdf"}
    for other in again:
        assert other.stem == "examples" or other.read_bytes() == (tmp_path / "one" / other.name).read_bytes(), other
    for path in paths:
        if path.suffix == ".svg":
            ET.parse(path)
        else:
            assert path.read_bytes().startswith(b"%PDF")


def test_the_page_orders_by_category_and_shows_the_difference(tables, tmp_path):
    (tmp_path / "c.csv").write_text(CATEGORIES)
    report = make_report(tables, ReportSpec(samples=20, categories=str(tmp_path / "c.csv")))
    html = report.html()
    assert "Classes stand by category: legs, arms" in html
    assert f"What “{report.results.best}” changes against “{report.results.best_single}”" in html
    assert html.count('class="break"') == 2  # one line in each matrix
    labels = re.findall(r'text-anchor="end">(\w+)</text>', html)
    assert labels[:6] == ["run", "jump", "sit", "stand", "wave", "clap"]
    assert [row["name"] for row in report.data()["categories"]] == ["legs", "arms"]
    assert "category right" in report.text()
    assert "category" not in make_report(tables, ReportSpec(samples=20)).text()


def test_a_difference_is_better_where_more_is_right_or_less_is_wrong():
    before, after = np.array([[5, 3], [1, 7]]), np.array([[7, 1], [2, 6]])
    layout = difference_matrix(after, before, ("a", "b"))
    assert [(cell.true, cell.predicted, cell.count, cell.right) for cell in layout.cells] == [
        ("a", "a", 2, True),
        ("a", "b", -2, True),
        ("b", "a", 1, False),
        ("b", "b", -1, False),
    ]


def test_tables_hold_the_same_cells(tables, tmp_path):
    results = make_report(tables, ReportSpec(samples=20)).results
    found = {table.name: table for table in report_tables(results)}
    assert set(found) == {"results", "per_class", "comparisons", "agreement"}
    top1 = f"{100 * results.table('rgb').evaluation.top1:.2f}"
    assert found["results"].rows[0][2] == top1
    paths = write_tables(results, tmp_path)
    assert {path.name for path in paths} == {f"{name}{suffix}" for name in found for suffix in (".md", ".tex")}
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert text.splitlines()[1] == "| --- | --- | ---: | ---: | ---: | ---: | ---: |"
    assert top1 in text
    assert f"**{results.best}**" in text


def test_hostile_names_stay_text():
    table = Table("t", r"100 % of a_b & \input{x}", ("a|b", "n"), (("x_1 & <b>`$y$`\x1b\n#", "1"),), 1, 0)
    tex = latex(table)
    assert r"x\_1 \& $<$b$>$`\$y\$`" in tex
    assert r"\textbackslash{}input\{x\}" in tex
    assert "\x1b" not in tex
    md = markdown(table)
    assert r"a\|b" in md
    assert "<b>" not in md.replace(r"\<b\>", "")
    assert len(md.splitlines()) == 5
