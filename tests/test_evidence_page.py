"""Evidence on pages: what is claimed and what is not supported, in words, and as figures for print."""

from __future__ import annotations

import base64
import dataclasses
import html
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from made_up_evidence import EXTERNAL, HELD, MODELS, make_scored, study_results
from made_up_run import make_content
from test_report import HOSTILE, RESEARCH, Reader

from gliofed.calibration.cns5 import OUTCOMES, UNSEEN
from gliofed.calibration.evaluation import ALL_GROUPS, NO_HOLDOUT, evaluate_calibration
from gliofed.evaluation.by_case.score_table import score_table
from gliofed.evaluation.claims import collect_evidence
from gliofed.evaluation.comparison import CrossSiteMatrix
from gliofed.evaluation.results import ScoreRow
from gliofed.markers import MARKERS
from gliofed.reporting.html.formatting import (
    NOT_AVAILABLE,
    model_title,
    number,
    p_value,
    signed_with_interval,
    with_interval,
)
from gliofed.reporting.plots.forest_plot import axis_limits
from gliofed.reporting.plots.style import (
    COLUMN_MM,
    Picture,
    PrintFigures,
    print_figures,
    screen_picture,
)
from gliofed.reporting.plots.training_curves import training_pictures
from gliofed.reporting.study.calibration_tables import make_calibration_tables
from gliofed.reporting.study.claims import claims_tables, comparison_line, differences
from gliofed.reporting.study.confounding import added_value_lines, ranking_tables, strata_tables
from gliofed.reporting.study.content import ScoredPredictions, StudyContent, TrainingHistory
from gliofed.reporting.study.cross_site import SHADES, cross_tables
from gliofed.reporting.study.page import render_study_page
from gliofed.reporting.study.report_context import models_with_curves, plots, write_figures
from gliofed.reporting.study.scores_page import ScoresPageContent, render_scores, write_scores_page
from gliofed.reporting.study.tables import costs, external_rows, headline, in_order
from gliofed.study import CalibrationConfig
from gliofed.types import Labels, RoundPoint

SECTIONS = ("answer", "verdicts", "models", "markers", "against", "confounders", "cross",
            "calibrated", "all", "facts")  # fmt: skip


@pytest.fixture(scope="module")
def scored() -> ScoredPredictions:
    return make_scored()


@pytest.fixture(scope="module", autouse=True)
def words_alone() -> Iterator[None]:
    """Pages with the words of their pictures only: drawing them takes a third of a second each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "gliofed.reporting.plots.style.screen_picture", lambda p: Picture("data:,", p.alt, 9, 9)
        )
        yield


@pytest.fixture(scope="module")
def page(scored: ScoredPredictions, words_alone: None) -> str:
    return render_scores(ScoresPageContent("two files", scored, (("files", "a.csv, b.csv"),)))


def section(page: str, name: str) -> str:
    return page.split(f'<section id="{name}"')[1].split("</section>", maxsplit=1)[0]


def seen(text: str) -> str:
    return " ".join(Reader("<p " + text).seen.split())


def test_every_verdict_stands_with_what_it_rests_on_and_external_ones_first(
    scored: ScoredPredictions, page: str
) -> None:
    found = scored.evidence.verdicts
    text = section(page, "verdicts")
    rows = re.findall(
        r'rowheader">(.*?)</th><td [^>]*><b class="verdict [^"]*">(.*?)</b></td><td [^>]*>(.*?)</td>',
        text,
    )
    shown = [tuple(map(html.unescape, r)) for r in rows]
    assert sorted(shown) == sorted((v.claim, v.label, v.reason) for v in found)
    assert {v.label for v in found} == {"supported", "not supported", "n/a"}
    roles = [g.role for g in claims_tables(scored.evidence)]
    assert roles == ["external", "holdout"]
    assert text.index("External test:") < text.index("Held-out patients of training hospitals")
    assert "the claim is not refuted" in seen(text)


def test_a_summary_counts_the_models_that_differ(scored: ScoredPredictions) -> None:
    outside = claims_tables(scored.evidence)[0]
    words = [c.words for c in outside.differ]
    assert len(words) == 5 * (len(MODELS) - 1)
    assert outside.summary == (
        f"{len(words)} comparisons with other models: {words.count('supported')} differences supported, "
        f"{words.count('not supported')} not supported, {words.count('n/a')} n/a"
    )


def test_comparisons_have_difference_interval_p_and_n(scored: ScoredPredictions, page: str) -> None:
    matrix, rest = differences(scored.evidence)
    text = seen(section(page, "against"))
    assert matrix.title.startswith("External")
    assert [name for name, _ in matrix.lines] == ["pooled", "radiomics", "gent alone"]
    first = [c for c in scored.evidence.comparisons
             if c.is_primary and (c.role, c.site) == ("external", "all")]  # fmt: skip
    assert len(first) == sum(len(cells) for _, cells in matrix.lines)
    for c in first:
        assert signed_with_interval(c.difference, c.low, c.high, 3) in text
        few = f"too few cases of a class; n = {c.n}"
        assert (few if c.p_holm is None else f"p {p_value(c.p_holm)}, n = {c.n}") in text
    assert len(rest) + len(first) == len(scored.evidence.comparisons)
    assert {r.verdict for r in rest if r.site != "all hospitals"} == {""}


def test_confounders_stand_beside_the_model_and_strata_say_what_is_too_few(
    scored: ScoredPredictions, page: str
) -> None:
    text = seen(section(page, "confounders"))
    outside, held = ranking_tables(scored)
    assert [r.title for r in outside.lines][:2] == ["federated", "age alone"]
    assert held.role == "holdout"
    for row in scored.evidence.confounder_scores:
        assert f"n = {row.n}" in text
        if row.value is not None:
            assert with_interval(row.value, row.low, row.high, 2) in text
    asked = [a.question for a in added_value_lines(scored.evidence) if a.role == "external"]
    assert asked[:3] == ["better than age alone", "better than IDH score alone",
                         "better than true IDH status alone"]  # fmt: skip
    assert "adds to it, true IDH status held fixed" in asked
    cells = [c for group in strata_tables(scored.evidence) for _, own in group.lines for c in own]
    assert any(c.startswith("too few: ") for c in cells)
    assert "not evaluated" in cells
    assert all(c in text for c in cells)


def test_each_cell_of_the_cross_table_is_read_without_its_shade(
    scored: ScoredPredictions, page: str
) -> None:
    tables = cross_tables(scored.evidence.cross_site, "federated")
    assert tables[0].title.startswith("Tumour segmentation")
    assert len(tables) == 1 + len(MARKERS)
    assert tables[0].rows == "Model"
    assert {c.title for c in tables[0].columns} == {*EXTERNAL, *HELD}
    values = {
        number(r.value, 2) for c in scored.evidence.cross_site for row in c.cells for r in row
    }
    text = section(page, "cross")
    for shade, cell in re.findall(r'<td(?: class="h(\d)")?>(.*?)</td>', text):
        words = Reader(f"<p>{cell}").text
        assert (words[0] in values and words[-1].startswith("n = ")) or not shade
        assert not shade or 1 <= int(shade) <= SHADES
    best = max((c for t in tables for _, own in t.lines for c in own), key=lambda c: c.value)
    assert best.shade >= SHADES - 1


@pytest.mark.parametrize(("hospitals", "rows"), [(10, "Model"), (11, "Hospital")])
def test_many_hospitals_are_rows_of_the_cross_table(hospitals, rows) -> None:
    sites, models = [f"site{n:02d}" for n in range(hospitals)], ("federated", "pooled")
    cells = tuple(
        tuple(ScoreRow(m, "external", s, "mask", "dice", 2, (50 * k + n) / 100, None, None, 1)
              for n, s in enumerate(sites))
        for k, m in enumerate(models)
    )  # fmt: skip
    columns = tuple(("external", s) for s in sites)
    matrix = CrossSiteMatrix("mask", "dice", models, columns, cells)
    (table,) = cross_tables([matrix], "federated")
    assert table.rows == rows
    found = {
        frozenset((row.title, column.title)): cell.value
        for row, own in table.lines
        for column, cell in zip(table.columns, own, strict=True)
    }
    assert len(found) == 2 * hospitals
    assert found[frozenset(("site03", "pooled"))] == "0.53"
    tests = [row for row, _ in table.lines] if rows == "Hospital" else table.columns
    assert [(t.title, t.about) for t in tests] == [(s, "external") for s in sites]


def test_before_and_after_come_from_the_rows_of_both(scored: ScoredPredictions, page: str) -> None:
    text = seen(section(page, "calibrated"))
    found = external_rows(scored.rows)
    lines = make_calibration_tables(scored).changes
    assert [c.measure for c in lines if c.marker == "WHO grade"] == [
        "Brier score (lower is better)", "Expected calibration error (lower is better)",
    ]  # fmt: skip
    for marker in MARKERS:
        for model in ("federated", "federated, calibrated"):
            row = found[model, marker.id, "brier"]
            assert with_interval(row.value, row.low, row.high, 3) in text
    brier = found["federated, calibrated", "idh", "brier"]
    gap = signed_with_interval(brier.difference, brier.difference_low, brier.difference_high, 3)
    assert gap
    assert gap in text


def test_coverage_is_told_of_each_hospital_by_name(scored: ScoredPredictions, page: str) -> None:
    text = section(page, "calibrated")
    lines = make_calibration_tables(scored).coverage_lines
    assert {c.site for c in lines} == {"all hospitals", *EXTERNAL}
    for row in scored.calibration.sets:
        assert with_interval(row.value, row.low, row.high, 2) in text
    assert "0.90" in seen(text)


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0.7, 0.89, "below the target"), (0.7, 0.9, "compatible with the target"),
     (0.9, 1.0, "compatible with the target"), (0.91, 1.0, "above the target"),
     (None, None, NOT_AVAILABLE)],
)  # fmt: skip
def test_a_promise_is_broken_only_where_the_interval_says_so(
    scored: ScoredPredictions, low: float | None, high: float | None, words: str
) -> None:
    row = next(r for r in scored.calibration.sets if r.label == ALL_GROUPS)
    other = dataclasses.replace(row, low=low, high=high)
    one = dataclasses.replace(
        scored, calibration=dataclasses.replace(scored.calibration, sets=(other,))
    )
    assert make_calibration_tables(one).coverage_lines[0].against_target == words


def test_what_the_model_does_not_see_stands_with_every_type(
    scored: ScoredPredictions, page: str
) -> None:
    text = seen(section(page, "calibrated"))
    assert UNSEEN in text
    types = make_calibration_tables(scored).types
    assert {t.reference for t in types} <= set(OUTCOMES)
    for line_ in types:
        assert sum(map(float, line_.cells)) == pytest.approx(1, abs=0.021)
    bare = dataclasses.replace(
        scored, calibration=dataclasses.replace(scored.calibration, integrated_types=())
    )
    again = render_scores(ScoresPageContent("x", dataclasses.replace(bare, results=()), ()))
    assert UNSEEN in html.unescape(section(again, "calibrated"))
    assert "No external case has labels that determine its type" in again


def test_sections_with_nothing_say_why(scored: ScoredPredictions) -> None:
    outside = tuple(r for r in scored.results if r.role == "external" and r.model == "federated")
    rows = score_table(outside, 0)
    no = ScoredPredictions(
        rows,
        outside,
        collect_evidence(outside, 0),
        evaluate_calibration(outside, "federated", CalibrationConfig(), 0),
    )
    text = seen(render_scores(ScoresPageContent("x", no, ())))
    assert NO_HOLDOUT in text
    assert "There is no prediction of another model for these cases" in text
    bare = seen(render_scores(ScoresPageContent("x", ScoredPredictions((), ()), ())))
    for words in ("No verdict: no claim was tested here", "Models were not compared here",
                  "Confounders were not evaluated here", "This table was not made here",
                  "no calibration was evaluated", "There are no figures"):  # fmt: skip
        assert words in bare
    empty = seen(
        render_scores(
            ScoresPageContent("x", ScoredPredictions((), (), collect_evidence((), 0)), ())
        )
    )
    assert "No verdict: there is no prediction of federated" in empty


def test_a_run_shows_the_same_parts(scored: ScoredPredictions, page: str) -> None:
    plain = make_content(cases=2, seeds=(1,), rounds=1, replicates=0)
    run = dataclasses.replace(
        plain, scored=scored, curves=(), examples=(),
    )  # fmt: skip
    text = render_study_page(run)
    for name in ("verdicts", "models", "markers", "against", "confounders", "cross", "calibrated"):
        assert section(text, name) == section(page, name)
    assert text.index('id="answer"') < text.index('id="verdicts"') < text.index('id="trust"')
    assert "images stay" in section(text, "answer")
    assert "images stay" not in section(page, "answer")


def test_page_of_scores_is_whole(scored: ScoredPredictions, page: str) -> None:
    reader = Reader(page)
    assert RESEARCH in reader.seen
    assert re.findall(r'<section id="(\w+)"', page) == list(SECTIONS)
    assert len(reader.all("script")) == 1
    for _, attrs in reader.tags:
        for name in ("src", "href", "action"):
            assert attrs.get(name, "#").startswith(("#", "data:"))
    ids = [attrs["id"] for _, attrs in reader.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in reader.all("a")} <= set(ids)
    assert all(th.get("scope") in {"col", "row"} for th in reader.all("th"))
    assert [i["alt"] for i in reader.all("img")] == [p.alt for p in plots(scored)]
    assert all(len(p.alt) > 20 for p in plots(scored))
    regions = [attrs for _, attrs in reader.tags if attrs.get("class", "").startswith("scroll")]
    assert all(r["tabindex"] == "0" and r["aria-label"] for r in regions)


@pytest.mark.slow
def test_columns_are_the_models_of_the_files() -> None:
    results = study_results()
    bare = ScoredPredictions(score_table(results, 0, "radiomics"), results, reference="radiomics")
    answer = section(render_scores(ScoresPageContent("x", bare, ())), "answer")
    heads = re.findall(r'columnheader"[^>]*>(.*?)</th>', answer)
    assert heads == ["Measure", "Radiomics", "Federated", "Pooled", "Single site, median"]
    assert "that model minus radiomics on the same cases" in seen(answer)
    rows = [dataclasses.replace(r, difference=0.1, difference_low=0.05, difference_high=0.2)
            for r in bare.rows]  # fmt: skip
    cell = headline(rows, ("federated",), "radiomics")[0].cells[0]
    assert cell.verdict == "higher than radiomics"
    assert models_with_curves(bare) == ("radiomics", "federated", "pooled")


def test_calibrated_answers_have_no_line_where_they_only_repeat(
    scored: ScoredPredictions, page: str
) -> None:
    title = model_title("federated, calibrated")
    assert title == "federated, calibrated"
    for name in ("answer", "models", "markers", "against", "cross"):
        assert title not in section(page, name)
    assert f"<td>{title}</td>" in section(page, "all")


def test_models_are_in_order() -> None:
    names = ["alone:b", "parent", "alone:a", "federated, calibrated", "pooled", "alone:median",
             "federated"]  # fmt: skip
    assert in_order(names, "federated") == ("federated", "pooled", "parent", "alone:a", "alone:b")
    assert in_order(names, "alone:b")[:3] == ("alone:b", "federated", "pooled")


def test_training_of_any_model_is_drawn_and_counted() -> None:
    point = RoundPoint(0, 1, {"mask": 1.0}, 0.5, None, 60.0, 3_000_000, {}, {}, {})
    curves = [
        TrainingHistory(m, 1, "f", (point,))
        for m in ("federated", "pooled", "parent", "alone:gent")
    ]
    assert [c.sent for c in costs(curves)] == [
        "3.0", "images pooled beforehand", "3.0", "nothing left the hospital",
    ]  # fmt: skip
    assert "parent network, pooled 0.50 in round 1" in training_pictures(curves)[0].alt


@pytest.mark.slow
def test_hostile_names_stay_text(scored: ScoredPredictions) -> None:
    def renamed(model: str) -> str:
        return "alone:" + HOSTILE if model == "alone:gent" else HOSTILE if model == "radiomics" else model  # fmt: skip

    results = tuple(
        dataclasses.replace(
            r, model=renamed(r.model), site=HOSTILE if r.site == "brussels" else r.site
        )
        for r in scored.results
    )
    tried = evaluate_calibration(results, "federated", CalibrationConfig(), 0)
    bad = ScoredPredictions(score_table(results, 0), results, collect_evidence(results, 0), tried)
    text = render_scores(ScoresPageContent(HOSTILE, bad, ((HOSTILE, HOSTILE),)))
    reader = Reader(text)
    assert len(reader.all("script")) == 1
    assert not any("evil" in image["src"] for image in reader.all("img"))
    assert HOSTILE in reader.seen


def test_figures_for_print(scored: ScoredPredictions, tmp_path: Path) -> None:
    some = {"models-idh": 85, "roc-grade": 85, "errors-kept": 174}
    drawn = [p for p in plots(scored) if p.name in some]
    assert len(drawn) == len(some)
    found = print_figures(drawn)
    single, whole = found.single, found.document
    for plot in drawn:
        svg = single[plot.name].decode()
        root = ElementTree.fromstring(svg)
        width = some[plot.name] / 25.4 * 72
        assert COLUMN_MM[plot.columns] == some[plot.name]
        assert float(root.attrib["width"].removesuffix("pt")) == pytest.approx(width, abs=0.01)
        sizes = [float(s) for s in re.findall(r"font(?:-size)?: [^;\"]*?([\d.]+)px", svg)]
        assert len(sizes) > 5
        assert min(sizes) >= 7
        assert max(sizes) <= 8
        assert "<dc:date>" not in svg
        assert "<text" in svg  # letters stay letters
    assert whole.startswith(b"%PDF")
    assert b"/FontFile2" in whole  # letters travel with it
    boxes = [float(b) for b in re.findall(rb"/MediaBox \[ 0 0 ([\d.]+)", whole)]
    assert boxes == pytest.approx([some[p.name] / 25.4 * 72 for p in drawn], abs=0.01)
    assert b"Date" not in whole
    assert print_figures([]) == PrintFigures({}, b"")


@pytest.mark.slow
def test_equal_predictions_give_equal_files_with_names_of_tasks(
    scored: ScoredPredictions, tmp_path: Path
) -> None:
    names = {p.name for p in plots(scored)}
    assert len(names) == len(plots(scored))
    assert {"differences", "confounders", "strata", "coverage", "errors-kept", "models-mask",
            "roc-idh", "calibration-idh", "reliability-idh-mutant"} <= names  # fmt: skip
    few = ScoredPredictions(
        (), (), None, dataclasses.replace(scored.calibration, results=(), risks=())
    )
    write_figures(few, tmp_path / "a")
    write_figures(few, tmp_path / "b")
    paths = sorted((tmp_path / "b").iterdir())
    assert [p.name for p in paths] == ["coverage.svg", "figures.pdf"]
    for path in paths:
        assert (tmp_path / "a" / path.name).read_bytes() == path.read_bytes()


def test_pictures_of_a_page_are_whole(scored: ScoredPredictions) -> None:
    for plot in plots(scored):
        if plot.name in {"differences", "confounders"}:
            head, _, data = screen_picture(plot).src.partition(",")
            assert head == "data:image/svg+xml;base64"
            root = ElementTree.fromstring(base64.b64decode(data))
            words = [e.text for e in root.iter() if e.tag.endswith("}text")]
            assert "MGMT: AUC" in words
            assert ("radiomics" if plot.name == "differences" else "age alone") in words


def test_page_of_scores_is_written_in_one_step(tmp_path: Path) -> None:
    content = ScoresPageContent("none", ScoredPredictions((), ()), ())
    write_scores_page(content, tmp_path / "x" / "report.html")
    assert (tmp_path / "x" / "report.html").read_text() == render_scores(content)


def test_limits_hold_every_value_around_the_mark() -> None:
    assert axis_limits([0.3, None, -0.1], 0, 0.1) == (pytest.approx(-0.324), pytest.approx(0.324))
    assert axis_limits([], 0, 0.1) == (pytest.approx(-0.108), pytest.approx(0.108))


@pytest.mark.parametrize(
    ("p", "text"), [(0.0009, "< 0.001"), (0.001, "0.001"), (1.0, "1.000"), (None, "n/a"),
                    (float("nan"), "n/a")],
)  # fmt: skip
def test_p_values(p: float | None, text: str) -> None:
    assert p_value(p) == text


def test_no_known_label_leaves_no_curve_of_before_and_after(scored: ScoredPredictions) -> None:
    tried = dataclasses.replace(
        scored.calibration,
        results=tuple(
            dataclasses.replace(r, labels=Labels({})) for r in scored.calibration.results
        ),
    )
    results = tuple(dataclasses.replace(r, labels=Labels({})) for r in scored.results)
    bare = ScoredPredictions((), results, None, tried)
    assert not any(p.name.startswith("reliability") for p in plots(bare))


def test_a_line_of_a_comparison_without_figures_says_so(scored: ScoredPredictions) -> None:
    one = next(c for c in scored.evidence.comparisons if c.is_primary and c.site == "all")
    none = dataclasses.replace(one, difference=None, low=None, high=None, p=None, p_holm=None,
                               note="not the same cases")  # fmt: skip
    found = comparison_line(none)
    assert (found.difference, found.p, found.p_holm, found.verdict, found.note) == (
        "n/a", "n/a", "n/a", "n/a", "not the same cases",
    )  # fmt: skip


def test_a_run_without_evidence_keeps_its_sections() -> None:
    row = ScoreRow("parent", "external", "all", "mask", "dice", 40, 0.8, 0.7, 0.9, 1)
    text = render_study_page(
        StudyContent("x", False, ScoredPredictions((row,), ()), (), (), (), (), ())
    )
    assert "parent network, pooled 0.80 (0.70 to 0.90)" in section(
        text, "models"
    )  # any model has its line
