import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from fusion.examples import encode
from fusion.figures import class_panels
from fusion.fuse import fuse
from fusion.report import make_report, write_report
from fusion.results import hardest_confusions, judge
from fusion.spec import ReportSpec
from fusion.words import clean, p_value, percent, signed
from store.errors import AlignmentError, ScoreError, SpecError
from store.scores import ScoreTable

HOSTILE_ID = "a/<script>alert(1)</script>\x1b[31m\u202e.avi"
HOSTILE_CLASS = "\"><img src=x onerror='alert(2)'>"
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Collects tags and attributes, and checks that every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data


@pytest.fixture
def hostile(make_table) -> dict[str, ScoreTable]:
    changes = {
        "ids": (HOSTILE_ID, *(f"v{index}" for index in range(39))),
        "classes": (HOSTILE_CLASS, "b", "c", "d", "e", "f"),
        "source": {"command": "</pre><script>alert(3)</script>"},
    }
    streams = {"<b>rgb</b>": make_table(0, **changes), "flow": make_table(1, **changes)}
    return streams | {"product": fuse(streams, "product")}


def test_the_page_is_whole_and_needs_no_other_file(tables):
    page = Page(make_report(tables).html())
    assert page.open == []
    assert {"svg", "table", "details", "style"} <= set(page.tags)
    assert not {"script", "link", "iframe"} & set(page.tags)
    for name, value in page.attributes:
        assert name not in ("src", "href", "srcset"), value
    assert "http" not in make_report(tables).html()


def test_the_page_says_what_was_found(tables):
    report = make_report(tables, ReportSpec(title="Both streams"))
    words, results = Page(report.html()).words, report.results
    best = results.table(results.best)
    assert "Both streams" in words
    assert f"{percent(best.evaluation.top1)}\u00a0% of 40 videos correct" in words
    for table in results.tables:
        assert percent(table.evaluation.top1, 2) in words
    assert "weighted of 1 rgb, 1.5 flow; on softmax" in words
    assert "product of rgb, flow; on softmax" in words
    worst = hardest_confusions(best.evaluation.confusion, results.aligned.classes)[0]
    assert f"{worst.true} is taken for {worst.predicted} in {worst.count} of {worst.videos} videos" in words
    assert '"seed": 1' in words  # the provenance of a stream, inside that of its fusion too


def test_nothing_from_outside_becomes_markup_or_controls_the_terminal(hostile):
    report = make_report(hostile, ReportSpec(title="<i>x</i>", examples=40), command="actioncache report '<u>'")
    html, text = report.html(), report.text()
    page = Page(html)
    assert page.open == []
    assert not {"script", "img", "u"} & set(page.tags)
    assert "<script" not in html
    assert "<i>x" not in html
    assert "onerror" not in [name for name, _ in page.attributes]
    assert "alert(3)" in page.words
    for produced in (html, text):
        assert "\x1b" not in produced
        assert "\u202e" not in produced
    assert json.loads(json.dumps(report.data()))["classes"][0] == HOSTILE_CLASS


def test_files(tables, tmp_path):
    report = make_report(tables, command="actioncache report rgb=a.npz")
    paths = write_report(report, tmp_path / "out")
    assert [path.name for path in paths] == ["report.html", "report.json", "report.txt"]
    assert paths[0].read_text(encoding="utf-8") == report.html()
    data = json.loads(paths[1].read_text(encoding="utf-8"))
    assert data["command"] == "actioncache report rgb=a.npz"
    assert [table["name"] for table in data["tables"]] == ["rgb", "flow", "product", "late"]
    product = data["tables"][2]
    values = tables["product"]
    assert product["top1"] == pytest.approx(np.mean(values.values.argmax(axis=1) == values.labels))
    assert np.array(product["confusion"]).sum() == 40
    assert product["source"] == values.source
    text = paths[2].read_text(encoding="utf-8")
    assert f"{percent(product['top1'], 2)}" in text
    assert "Made by: actioncache report rgb=a.npz" in text


def test_equal_input_gives_equal_bytes(tables):
    assert make_report(tables).html() == make_report(tables).html()


def test_best_and_best_single_stream(tables):
    results = judge(tables)
    accuracy = {name: np.mean(table.values.argmax(axis=1) == table.labels) for name, table in tables.items()}
    assert accuracy[results.best] == max(accuracy.values())
    assert results.best_single == "flow"
    assert [row.second for row in results.comparisons] == [name for name in tables if name != results.best]
    assert list(results.agreements) == [("rgb", "flow")]
    for row in results.comparisons:
        assert row.difference == pytest.approx(accuracy[row.first] - accuracy[row.second])
        assert row.interval.low <= row.difference <= row.interval.high


def test_folds_of_a_fusion_that_were_joined_are_a_fusion(tables):
    product = tables["product"]
    joined = ScoreTable.concat([product.rows(product.ids[:20]), product.rows(product.ids[20:])])
    result = judge({"rgb": tables["rgb"], "joined": joined}).table("joined")
    assert result.fused
    assert "product of rgb, flow; on softmax" in make_report({"joined": joined}).text()


def test_one_table_and_few_classes(make_table):
    labels = np.array([0, 1, 0, 1])
    table = make_table(0, ids=("a", "b", "c", "d"), classes=("x", "y"), labels=labels, gain=9.0, kind="decision_values")
    report = make_report({"svm": table})
    page = Page(report.html())
    assert "svm: 100.0\u00a0% of 4 videos correct" in page.words
    assert "every video is classified correctly" in page.words
    assert "Top-5" not in page.words
    assert "top-5" not in report.text()
    assert report.results.tables[0].calibration is None


def test_classes_without_videos(make_table):
    table = make_table(0, labels=np.zeros(40, int))
    report = make_report({"rgb": table})
    assert [row.name for row in class_panels(report.results)[0]] == ["run"]
    assert report.data()["tables"][0]["per_class"][1:] == [None] * 5
    Page(report.html())


def test_missing_labels_say_how_to_add_them(make_table):
    with pytest.raises(ScoreError, match=r"rgb: not every video has a label.*--list LIST"):
        judge({"rgb": make_table(0, labels=None)})


def test_tables_of_other_videos_are_refused_or_cut_on_request(make_table, tables):
    other = make_table(3, ids=tuple(f"v{index:02d}" for index in range(5, 45)))
    with pytest.raises(AlignmentError, match="--common"):
        make_report({"rgb": tables["rgb"], "other": ScoreTable(other.ids, other.classes, other.values, "scores")})
    bare = ScoreTable(other.ids, other.classes, other.values, "scores")
    report = make_report({"rgb": tables["rgb"], "other": bare}, ReportSpec(common=True))
    assert "rgb 5 videos and 0 classes; other 5 videos and 0 classes" in Page(report.html()).words
    assert report.results.table("rgb").evaluation.num_videos == 35


def test_pictures(tables, tmp_path):
    import cv2

    grey = np.full((48, 64, 3), 128, np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), grey)
    html = make_report(tables, frames=lambda name: [grey, tmp_path / "a.png", grey, grey]).html()
    sources = [value for name, value in Page(html).attributes if name == "src"]
    assert len(sources) == 3 * html.count("<article")
    assert all(str(value).startswith("data:image/jpeg;base64,") for value in sources)
    with pytest.raises(ScoreError, match=r"b\.png of video 'v' cannot be read"):
        encode(tmp_path / "b.png", "v")
    with pytest.raises(ScoreError, match=r"float64 \(2, 2\); give uint8"):
        encode(np.zeros((2, 2)), "v")


def test_numbers_in_words():
    assert percent(0.93682, 2) == "93.68"
    assert [signed(value) for value in (0.0529, -0.0529, 0.0, -0.0001)] == ["+5.3", "−5.3", "0.0", "0.0"]
    assert [p_value(value) for value in (0.0004, 0.0213, 1.0)] == ["< 0.001", "0.021", "1.000"]
    assert clean("a\x1b[0m\u202eb\nc") == "a\ufffd[0m\ufffdb\nc"


def test_specs_of_a_report():
    for changes, words in [
        ({"samples": 0}, "samples is 0"),
        ({"level": 1.0}, "level is 1.0"),
        ({"seed": -1}, "seed is -1"),
        ({"examples": -1}, "examples is -1"),
    ]:
        with pytest.raises(SpecError, match=re.escape(words)):
            ReportSpec(**changes)
