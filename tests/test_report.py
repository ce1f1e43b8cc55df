"""The results page: complete in itself, honest about what is missing, safe with any name."""

from __future__ import annotations

import base64
import dataclasses
import html
import itertools
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from made_up_run import make_content

from gliofed.errors import DataError
from gliofed.evaluation.by_case.score_table import score_table
from gliofed.evaluation.intervals.bootstrap import unit_weights
from gliofed.evaluation.metrics.discrimination import auc
from gliofed.evaluation.results import CaseResult, ScoreRow
from gliofed.markers import BY_ID, MARKERS
from gliofed.reporting.html.formatting import estimate, metric_digits, number, signed
from gliofed.reporting.plots.probability_curves import marker_plots, marker_series, roc
from gliofed.reporting.plots.style import screen_picture
from gliofed.reporting.plots.training_curves import mean_line
from gliofed.reporting.study.content import ScoredPredictions, StudyContent, TrainingHistory
from gliofed.reporting.study.page import render_study_page, write_study_page
from gliofed.reporting.study.tables import MEASURES, external_rows, full_table, headline, refusals
from gliofed.types import Labels, RoundPoint

pytestmark = pytest.mark.slow

RESEARCH = "Research use only. Not a medical device."
SYNTHETIC = (
    "Synthetic phantom data: no patient. Figures show that the software works, "
    "nothing about glioma."
)
HOSTILE = '<script>alert("x")</script>&<img src=http://evil.example/x.png>$\\frac{1'


@pytest.fixture(scope="module")
def content() -> StudyContent:
    return make_content(cases=12, seeds=(1, 2), rounds=9)


@pytest.fixture(scope="module")
def page(content: StudyContent) -> str:
    return render_study_page(content)


class Reader(HTMLParser):
    """Tags with their attributes, and the text that a reader sees."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {k: v or "" for k, v in attrs}))
        if tag in {"script", "style"}:
            self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in {"script", "style"}:
            self.inside.pop()

    def handle_data(self, data: str) -> None:
        if not self.inside and data.strip():
            self.text.append(data.strip())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def seen(self) -> str:
        return "\n".join(self.text)


def pictures(text: str) -> list[str]:
    """The SVG of every image on the page."""
    sources = [image["src"] for image in Reader(text).all("img")]
    head = "data:image/svg+xml;base64,"
    assert all(s.startswith(head) for s in sources)
    return [base64.b64decode(s.removeprefix(head)).decode() for s in sources]


def without(content: StudyContent, **changes: object) -> StudyContent:
    return dataclasses.replace(content, **changes)  # type: ignore[arg-type]


def rescored(content: StudyContent, change: Callable[[CaseResult], CaseResult]) -> StudyContent:
    results = tuple(change(r) for r in content.scored.results)
    return without(content, scored=ScoredPredictions(score_table(results, 100), results))


def test_page_asks_nothing_of_any_network(page: str) -> None:
    reader = Reader(page)
    for _, attrs in reader.tags:
        for name in ("src", "href", "action", "srcset", "poster", "data"):
            assert attrs.get(name, "#").startswith(("#", "data:"))
    assert not {"link", "iframe", "object", "embed", "base"} & {
        tag for tag, attrs in reader.tags if not attrs.get("href", "").startswith("data:")
    }
    assert "@import" not in page
    assert not re.findall(r"url\(", page)
    policy = next(m["content"] for m in reader.all("meta") if "http-equiv" in m)
    assert policy.startswith("default-src 'none'")


def test_pictures_are_whole_svgs_that_refer_only_to_themselves(page: str) -> None:
    found = pictures(page)
    assert len(found) == len(MEASURES) + 2 * len(MARKERS) + 3 * 3 + 1 + 5
    for svg in found:
        for element in ElementTree.fromstring(svg).iter():
            for name, value in element.attrib.items():
                if name.endswith("href"):
                    assert value.startswith(("#", "data:image/png;base64,"))
                for target in re.findall(r"url\(([^)]*)\)", value):
                    assert target.startswith("#")


def test_every_picture_has_words_and_a_size(page: str) -> None:
    for image in Reader(page).all("img"):
        assert len(image["alt"]) > 20
        assert int(image["width"]) > 0
        assert int(image["height"]) > 0


def test_every_row_is_in_the_table(content: StudyContent, page: str) -> None:
    body = page.split('<tbody id="figures-body">')[1].split("</tbody>", maxsplit=1)[0]
    lines = re.findall(r"<tr>.*?</tr>", body)
    assert len(lines) == len(content.scored.rows) > 100
    for line, row in zip(lines, content.scored.rows, strict=True):
        cells = Reader(line).text
        digits = metric_digits(row.metric)
        assert number(row.value, digits) in cells
        assert str(row.n) in cells
        for bound in (row.low, row.high):
            if row.value is not None and bound is not None:
                assert number(bound, digits) in " ".join(cells)
        if row.difference is not None:
            assert signed(row.difference, digits) in " ".join(cells)
        if row.note:
            assert row.note in cells
        if row.method:
            assert row.method in cells


def test_headline_shows_value_interval_n_and_difference(content: StudyContent, page: str) -> None:
    row = external_rows(content.scored.rows)["pooled", "mask", "dice"]
    assert row.value is not None
    assert row.low is not None
    assert row.high is not None
    assert row.difference is not None
    seen = Reader(page).seen
    assert f"{row.value:.2f} ({row.low:.2f} to {row.high:.2f}), n = {row.n}" in seen
    assert signed(row.difference, 3) in seen


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.001, 0.2, "higher than federated"),
        (-0.2, -0.001, "lower than federated"),
        (0.0, 0.2, "no clear difference"),
        (-0.2, 0.0, "no clear difference"),
        (None, None, ""),
    ],
)
def test_verdict_needs_an_interval_that_excludes_zero(
    low: float | None, high: float | None, verdict: str
) -> None:
    row = ScoreRow(
        "pooled", "external", "all", "mask", "dice", 40, 0.8, 0.7, 0.9, 1, 0.1, low, high
    )
    line = next(x for x in headline([row]) if x.title.startswith("Dice"))
    assert line.cells[1].verdict == verdict
    assert line.cells[0].main == "n/a"
    assert line.cells[0].why == "not part of this run"


@pytest.mark.parametrize(("n", "few"), [(9, True), (10, False)])
def test_headline_says_when_cases_are_too_few(n: int, few: bool) -> None:
    row = ScoreRow("federated", "external", "all", "mask", "dice", n, 0.8, 0.7, 0.9, 1)
    assert ("too few" in headline([row])[0].cells[0].why) is few


def test_banners(content: StudyContent, page: str) -> None:
    seen = Reader(page).seen
    assert RESEARCH in seen
    assert SYNTHETIC in seen
    real = Reader(render_study_page(without(content, synthetic=False, examples=(), curves=()))).seen
    assert RESEARCH in real
    assert SYNTHETIC not in real


def test_notes_facts_cohort_and_refusals_are_shown(content: StudyContent, page: str) -> None:
    seen = Reader(page).seen
    for note in content.notes:
        assert note in seen
    for fact in content.facts:
        assert all(part in seen for part in fact)
    for row in content.cohort[1:]:
        assert all(cell in seen for cell in row)
    found = refusals(content.curves)
    assert [(r.round, r.site) for r in found] == [("7", "leiden")]
    assert found[0].why in seen


@pytest.mark.slow
def test_no_masks_at_all(content: StudyContent) -> None:
    def undrawn(result: CaseResult) -> CaseResult:
        return dataclasses.replace(result, dice=None, hd95_mm=None, volume_true_ml=None)

    bare = rescored(without(content, examples=()), undrawn)
    line = headline(bare.scored.rows)[0]
    assert line.cells[0].main == "n/a, n = 0"
    assert line.cells[0].why.startswith("no case with an expert mask")
    seen = Reader(render_study_page(bare)).seen
    assert line.cells[0].why in seen
    assert "No segmentation to show" in seen


def test_one_class_has_no_roc_curve_and_says_so(content: StudyContent) -> None:
    def wildtype(result: CaseResult) -> CaseResult:
        return dataclasses.replace(result, labels=Labels({"idh": "wildtype"}))

    one = rescored(content, wildtype)
    assert not any(s.drawable for s in marker_series(BY_ID["idh"], one.scored.results))
    curve, _ = marker_plots(BY_ID["idh"], one.scored.results, one.scored.rows)
    assert "no curve: only one side has cases" in curve.alt
    svg = base64.b64decode(screen_picture(curve).src.split(",")[1]).decode()
    assert "only one class" in svg
    assert marker_plots(BY_ID["mgmt"], one.scored.results, one.scored.rows) == ()
    seen = Reader(render_study_page(one)).seen
    assert "only wildtype present" in seen
    assert "No figure: no external case" in seen


def test_answers_that_are_not_finite_are_left_out_of_figures(content: StudyContent) -> None:
    hole = {m.id: tuple(float("nan") for _ in m.classes) for m in MARKERS}
    mine = [r for r in content.scored.results if r.model == "federated" and r.role == "external"]
    known = [r for r in mine if "idh" in r.labels]
    first = dataclasses.replace(known[0], probabilities=hole)
    whole = marker_series(BY_ID["idh"], known)[0]
    holed = marker_series(BY_ID["idh"], [first, *known[1:]])[0]
    assert whole.cases == holed.cases + 1


def test_nothing_at_all_still_makes_a_page() -> None:
    page = render_study_page(
        StudyContent("empty", False, ScoredPredictions((), ()), (), (), (), (), ())
    )
    seen = Reader(page).seen
    assert RESEARCH in seen
    assert pictures(page) == []
    for sentence in (
        "No external case was evaluated",
        "No training history",
        "There are no figures",
    ):
        assert sentence in seen


@pytest.mark.slow
def test_hostile_names_stay_text(content: StudyContent) -> None:
    def renamed(result: CaseResult) -> CaseResult:
        model = "alone:" + HOSTILE if result.model == "alone:gent" else result.model
        return dataclasses.replace(result, model=model, site=HOSTILE, case=HOSTILE + "\x00")

    point = RoundPoint(
        0, 1, {HOSTILE: 1.0}, 0.5, 1.0, 1.0, 1, {HOSTILE: HOSTILE}, {HOSTILE: 1.0}, {HOSTILE: 1}
    )
    bad = rescored(
        StudyContent(
            study=HOSTILE,
            synthetic=True,
            scored=content.scored,
            curves=(
                TrainingHistory("federated", 1, HOSTILE, (point,)),
                TrainingHistory(HOSTILE, 1, "f", (point,)),
            ),
            examples=(dataclasses.replace(content.examples[0], case=HOSTILE, rank=HOSTILE),),
            cohort=((HOSTILE,), (HOSTILE,)),
            notes=(HOSTILE,),
            facts=((HOSTILE, HOSTILE),),
        ),
        renamed,
    )
    page = render_study_page(bad)
    reader = Reader(page)
    assert len(reader.all("script")) == 1
    assert not any("evil" in image["src"] for image in reader.all("img"))
    assert HOSTILE in reader.seen
    for svg in pictures(page):
        tags = {e.tag.rsplit("}", 1)[-1] for e in ElementTree.fromstring(svg).iter()}
        assert "script" not in tags


def test_filters_offer_exactly_the_values_of_the_rows(content: StudyContent, page: str) -> None:
    reader = Reader(page)
    table = full_table(content.scored.rows)
    body = page.split('<tbody id="figures-body">')[1].split("</tbody>", maxsplit=1)[0]
    lines = [re.findall("<td>(.*?)</td>", line) for line in re.findall("<tr>.*?</tr>", body)]
    assert [s["name"] for s in reader.all("select")] == ["role", "site", "model", "task"]
    for place, name in enumerate(("role", "site", "model", "task")):  # as page.js takes the cells
        assert [html.unescape(x[place]) for x in lines] == [getattr(r, name) for r in table]
        select = page.split(f'<select name="{name}">')[1].split("</select>", maxsplit=1)[0]
        assert Reader(select).text == ["all", *dict.fromkeys(getattr(r, name) for r in table)]
    form = next(f for f in reader.all("form") if f["id"] == "filters")
    assert "hidden" in form  # shown by the script that makes it work


def test_tables_name_their_columns_and_headings_do_not_skip(page: str) -> None:
    reader = Reader(page)
    assert all(th.get("scope") in {"col", "row"} for th in reader.all("th"))
    levels = [int(t[1]) for t, _ in reader.tags if re.fullmatch(r"h[1-6]", t)]
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))
    ids = [attrs["id"] for _, attrs in reader.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in reader.all("a")} <= set(ids)


@pytest.mark.slow
def test_equal_contents_give_equal_bytes_and_leave_no_trace(
    content: StudyContent, page: str, tmp_path: Path
) -> None:
    before = dict(mpl.rcParams)
    with mpl.rc_context({"font.size": 30, "lines.linewidth": 9}):  # a reader's own taste
        write_study_page(content, tmp_path / "new" / "report.html")
    assert (tmp_path / "new" / "report.html").read_text(encoding="utf-8") == page
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["report.html"]
    assert dict(mpl.rcParams) == before


def test_a_page_that_cannot_be_drawn_leaves_the_old_one(
    content: StudyContent, tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    mosaic = content.examples[0]
    name, grey, expert, predicted, aspect = mosaic.planes[0]
    short = dataclasses.replace(mosaic, planes=((name, grey, expert[1:], predicted, aspect),))
    with pytest.raises(
        DataError, match=r"amsterdam/sub-011, axial: .* must be 2D and of one shape"
    ):
        write_study_page(without(content, examples=(short,)), path)
    assert path.read_text() == "old"


@pytest.mark.slow
def test_an_empty_outline_is_named(content: StudyContent) -> None:
    planes = tuple((n, g, np.zeros_like(e), p, a) for n, g, e, p, a in content.examples[0].planes)
    bare = dataclasses.replace(content.examples[0], planes=planes)
    assert "no expert segmentation" in render_study_page(without(content, examples=(bare,)))
    assert "no expert segmentation" not in render_study_page(
        without(content, examples=content.examples[:1])
    )


@pytest.mark.parametrize("digits", [1, 8])
def test_roc_encloses_the_auc_of_the_score_table(digits: int) -> None:
    rng = np.random.default_rng(4)
    truth = rng.random(60) < 0.4
    chance = np.round(np.clip(rng.normal(0.4 + 0.2 * truth, 0.2), 0, 1), digits)  # 1: many ties
    x, y = roc(truth, chance)
    area = auc(truth.astype(np.int64), np.stack([1 - chance, chance], 1), unit_weights(60))[0]
    assert np.trapezoid(y, x) == pytest.approx(area, abs=1e-12)
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)


def test_mean_line_takes_only_rounds_that_all_reached() -> None:
    assert mean_line([[(1, 1.0), (2, 3.0)], [(1, 2.0)], []]) == [(1, 1.5)]
    assert mean_line([]) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.876, "0.88"), (-0.876, "−0.88"), (-0.001, "0.00"), (None, "n/a"), (float("nan"), "n/a")],
)
def test_numbers(value: float | None, text: str) -> None:
    assert number(value, 2) == text


def test_estimate_without_an_interval_shows_none() -> None:
    row = ScoreRow("pooled", "external", "all", "mask", "dice", 3, 0.5, None, None, 1)
    assert estimate(row, 2) == "0.50"
    assert estimate(dataclasses.replace(row, low=0.4, high=0.6), 2) == "0.50 (0.40 to 0.60)"
    assert estimate(dataclasses.replace(row, value=None, low=0.4, high=0.6), 2) == "n/a"
