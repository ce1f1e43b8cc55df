"""Rules of decisions.tsv, which decide many series at once."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from dicom_maker import SIEMENS, Who, write_series
from typer.testing import CliRunner

import gliofed
from gliofed.cli.main import app
from gliofed.errors import DataError
from gliofed.ingest.decisions import COLUMNS, SeriesTexts, read_decisions
from gliofed.runtime.progress import NoProgress

SILENT = dataclasses.replace(SIEMENS["T1"], description="t1_mprage_sag")
TEXTS = SeriesTexts("t1_mprage_sag_p2", "Hirn Tumor", "SIEMENS Skyra")


def write_rows(path: Path, *rows: dict[str, str]) -> Path:
    lines = ["\t".join(COLUMNS), *("\t".join(r.get(c, "") for c in COLUMNS) for r in rows)]
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def rule(decision: str, **texts: str) -> dict[str, str]:
    return {"series": "*", "decision": decision, **texts}


@pytest.mark.parametrize(
    ("texts", "fits"),
    [({"description": "T1_MPRAGE_SAG_P2"}, True), ({"description": "t1_mprage*"}, True),
     ({"description": "t1_mprage"}, False), ({"protocol": "hirn  tumor"}, True),
     ({"scanner": "*skyra"}, True), ({"scanner": "GE*"}, False),
     ({"description": "t1*", "scanner": "GE*"}, False), ({"description": "t?_mprage_sag_p2"}, False),
     ({"description": "[t]1*"}, False)],
)  # fmt: skip
def test_a_rule_fits_by_each_text_that_it_states(tmp_path, texts, fits) -> None:
    table = read_decisions(write_rows(tmp_path / "d.tsv", rule("T1", **texts)))
    found = table.of("abc", TEXTS)
    assert (found is not None) == fits
    assert found is None or (found.word, found.by_rule) == ("T1", True)


def test_the_row_of_a_series_comes_before_a_rule(tmp_path) -> None:
    rows = (rule("T1", description="t1*"), {"series": "abc", "decision": "T1CE"})
    table = read_decisions(write_rows(tmp_path / "d.tsv", *rows))
    assert [d.word for n in ("abc", "xyz") if (d := table.of(n, TEXTS))] == ["T1CE", "T1"]


@pytest.mark.parametrize("texts", [{}, {"description": "*"}])
def test_a_rule_for_everything_is_refused(tmp_path, texts) -> None:
    with pytest.raises(DataError, match=r"d.tsv:2: a rule for every series; write a description"):
        read_decisions(write_rows(tmp_path / "d.tsv", rule("T1", **texts)))


def test_two_rules_that_disagree_are_an_error_with_both_lines(tmp_path) -> None:
    rows = (rule("T1", description="t1*"), rule("T1CE", scanner="*skyra"))
    table = read_decisions(write_rows(tmp_path / "d.tsv", *rows))
    with pytest.raises(DataError, match=r"d.tsv:3: .* T1CE .* line 2 T1; narrow one"):
        table.of("abc", TEXTS)
    assert table.of("abc", dataclasses.replace(TEXTS, scanner="GE")) is not None


@pytest.mark.process
def test_one_rule_decides_all_patients_and_is_shown_with_its_count(tmp_path) -> None:
    for patient in ("A", "B", "C"):
        write_series(tmp_path / "in" / patient, SILENT, who=Who(id=patient))
    request = gliofed.IngestRequest(str(tmp_path / "in"), tmp_path / "out")
    assert gliofed.intake(request, NoProgress()).status == 1
    rows = (rule("T1", description="t1_mprage*"), rule("T2", description="t3*"))
    write_rows(tmp_path / "out-private/decisions.tsv", *rows)
    result = gliofed.intake(request, NoProgress())
    assert result.status == 0
    assert [(r.line, r.word, r.series) for r in result.rules] == [(2, "T1", 3), (3, "T2", 0)]
    assert len(list((tmp_path / "out").glob("sub-*/anat/*_T1w.nii.gz"))) == 3
    shown = CliRunner().invoke(
        app, ["intake", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    )
    assert "decides 3 series: T1" in shown.output
    assert "decides 0 series: T2; compare its texts" in shown.output


@pytest.mark.process
def test_a_rule_that_fits_two_series_of_a_study_takes_the_better(tmp_path) -> None:
    write_series(tmp_path / "in", SILENT, number=1)
    write_series(tmp_path / "in", dataclasses.replace(SILENT, three_d=False), number=2)
    write_rows(tmp_path / "out-private/decisions.tsv", rule("T1", description="t1*"))
    request = gliofed.IngestRequest(str(tmp_path / "in"), tmp_path / "out")
    result = gliofed.intake(request, NoProgress())
    assert result.status == 0
    (study,) = result.outcomes[0].plan.studies
    assert [p.series.first.number for p in study.selected.values()] == [1]
