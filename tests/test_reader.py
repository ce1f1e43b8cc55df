"""Any model's predictions: what is read, what is refused with its line, and the verb around it."""

import csv
import dataclasses
import json
import math

import numpy as np
import pytest
from typer.testing import CliRunner

import gliofed
from gliofed.cli.main import app
from gliofed.errors import DataError
from gliofed.evaluation.files import predictions_csv
from gliofed.evaluation.prediction_table import parse_predictions
from gliofed.evaluation.results import CaseResult, LesionCounts
from gliofed.markers import MARKERS
from gliofed.types import UNKNOWN, Labels, Person, Sequence

PEER = """\
patient,site,idh_true,idh_p,grade_true,grade_p_2,grade_p_3,grade_p_4,age,sex,sequences,remark
a,north,mutant,0.9,II,0.7,0.2,0.1,41,F,T1+T1CE+FLAIR,
b,north,0,0.2,4,0.1,0.2,0.7,66.5,male,t1 + t2,seen twice
c,south,n/a,0.4,,0.3,0.3,0.4,,,,
d,south,WT,NaN,3,,,,n/a,,,
"""


def read(text, model="peer"):
    return parse_predictions(text, "peer.csv", model)


def test_a_peers_table_is_read() -> None:
    a, b, c, d = read(PEER)
    assert (a.model, a.seed, a.fold, a.role, a.case, a.patient, a.site) == (
        "peer", 1, "external", "external", "a", "a", "north",
    )  # fmt: skip
    assert a.labels == Labels({"idh": "mutant", "grade": "2"})
    assert a.probabilities["idh"] == pytest.approx((0.1, 0.9))
    assert a.probabilities["grade"] == (0.7, 0.2, 0.1)
    assert all(math.isnan(p) for p in a.probabilities["mgmt"])
    assert (a.person, b.person) == (Person("F", 41.0), Person("M", 66.5))
    assert a.sequences == {Sequence.T1, Sequence.T1CE, Sequence.FLAIR}
    assert b.sequences == {Sequence.T1, Sequence.T2}
    assert c.labels == Labels()
    assert (c.person.age, c.sequences, c.dice, c.lesions) == (UNKNOWN, None, None, None)
    assert d.labels == Labels({"idh": "wildtype", "grade": "3"})
    assert np.isnan(d.probabilities["idh"] + d.probabilities["grade"]).all()


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_separators_spaces_capitals_and_a_byte_order_mark(mark) -> None:
    lines = [" Case , IDH_true, idh_p_mutant", "x,1,0.25", "", " y ,0, 1 "]
    x, y = read("\ufeff" + "\r\n".join(line.replace(",", mark) for line in lines) + "\r\n")
    assert x.probabilities["idh"] == (0.75, 0.25)
    assert (y.case, y.labels["idh"], y.probabilities["idh"]) == ("y", "wildtype", (0.0, 1.0))


def test_what_gliofed_writes_reads_back_exactly() -> None:
    third = {m.id: (1 / len(m.classes),) * len(m.classes) for m in MARKERS}
    plain = CaseResult(
        "federated", 3, "external", "holdout", "c1", "a; b", 'p"1', Labels({"idh": "mutant"}),
        third, 1 / 3, 2 / 3, 10.1, None, Person("M", 70.25, "Siemens, 3 T"),
        frozenset({Sequence.FLAIR, Sequence.T1}), LesionCounts(3, 2, 0),
    )  # fmt: skip
    bare = dataclasses.replace(
        plain, case="c2", person=Person(), sequences=None, lesions=None, dice=None, volume_ml=None
    )
    assert parse_predictions(predictions_csv([plain, bare]), "here") == (plain, bare)
    assert parse_predictions(predictions_csv([]), "here") == ()


def test_a_file_of_an_older_version_reads_without_the_new_columns() -> None:
    text = predictions_csv(read("model,patient,idh_true,idh_p\nm,a,1,0.5\n"))
    old = ["\n".join(",".join(line.split(",")[:-7]) for line in text.splitlines())]
    (found,) = read(old[0])
    assert (found.person, found.sequences, found.lesions) == (Person(), None, None)


FAULTS = {
    "empty": ("", "empty; expected a header"),
    "no case": ("idh_true,idh_p\n1,0.5\n", "1: no column 'patient' or 'case'"),
    "nothing": ("patient,remark\na,x\n", "1: nothing to score"),
    "no truth": ("patient,idh_p\na,0.5\n", "1: 'idh_p' without 'idh_true'"),
    "no chance": ("patient,idh_true\na,1\n", "1: 'idh_true' without .*'idh_p'"),
    "first only": ("case,idh_true,idh_p_wildtype\na,1,1\n", "1: 'idh_p_wildtype' alone; expected"),
    "two of three": ("case,grade_true,grade_p_2,grade_p_3\na,2,1,0\n", "1: 'grade_p_2' alone"),
    "both ways": ("case,idh_true,idh_p,idh_p_mutant\na,1,1,1\n", "1: 'idh_p' beside"),
    "typo": ("patient,idh_true,idh_p_mutnat\na,1,1\n", "1: .*'idh_p_mutnat'.*mean 'idh_p_mutant'"),
    "typo of more": ("patients,idh_true,idh_p\na,1,1\n", "1: .*'patients'.* did you mean 'patient'"),
    "class": ("case,grade_true,grade_p_II\na,1,1\n", "1: column 'grade_p_ii' .* grade_p_2, grade"),
    "twice": ("case,dice,dice\na,1,1\n", "1: column 'dice' occurs twice"),
    "cells": ("case,dice\na,1,1\n", "2: 3 cells under 2 columns"),
    "quote": ('case,dice\na,"1\n', "peer.csv:"),
    "label": ("case,idh_true,idh_p\na,1,1\nb,2,1\n", "3: column 'idh_true': '2'; .*mutant"),
    "above": ("case,idh_true,idh_p\na,1,1.0001\n", "2: column 'idh_p': '1.0001'; .*from 0 to 1"),
    "below": ("case,idh_true,idh_p\na,1,-0.1\n", "2: column 'idh_p'"),
    "infinite": ("case,idh_true,idh_p\na,1,inf\n", "2: column 'idh_p'"),
    "word": ("case,idh_true,idh_p\na,1,high\n", "2: column 'idh_p': 'high'"),
    "sum": ("case,grade_true,grade_p_2,grade_p_3,grade_p_4\na,2,.5,.4,.0989\n",
            "2: .*grade_p_4 add up to 0.9989"),
    "nobody": ("case,dice,age\n,1,4\n", "2: neither 'patient' nor 'case'"),
    "dice": ("case,dice\na,1.2\n", "2: column 'dice': '1.2'; expected a number from 0 to 1"),
    "age": ("case,dice,age\na,1,old\n", "2: column 'age': 'old'"),
    "sex": ("case,dice,sex\na,1,x\n", "2: column 'sex': 'x'; expected F or M"),
    "sequence": ("case,dice,sequences\na,1,T1+DWI\n", "2: column 'sequences': 'T1.DWI'"),
    "role": ("case,dice,role\na,1,train\n", "2: column 'role': 'train'"),
    "seed": ("case,dice,seed\na,1,one\n", "2: column 'seed'"),
    "volume": ("case,dice,volume_ml\na,1,-2\n", "2: column 'volume_ml'"),
    "some lesions": ("case,dice,lesions_true\na,1,2\n", "1: 'lesions_true' needs all of"),
    "more found": ("case,dice,lesions_true,lesions_found,lesions_false\na,1,1,2,0\n",
                   "2: 2 lesions found of 1"),
    "half a lesion": ("case,dice,lesions_true,lesions_found,lesions_false\na,1,1.5,1,0\n",
                      "2: column 'lesions_true'"),
    "again": ("case,dice\na,1\nb,1\na,0.5\n", "4: .*'a'.*is in line 2"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_told_with_file_line_and_column(fault) -> None:
    text, expected = FAULTS[fault]
    with pytest.raises(DataError, match=f"peer.csv:.*{expected}|{expected}") as error:
        read(text)
    assert "\n" not in str(error.value)
    assert "peer.csv" in str(error.value)


def test_bounds_are_allowed_themselves_and_near_sums_too() -> None:
    near = "case,grade_true,grade_p_2,grade_p_3,grade_p_4\na,2,.5,.4,.0991\nb,2,0,0,1\n"
    assert len(read(near)) == 2
    assert len(read("case,idh_true,idh_p\na,1,0\nb,1,1\n")) == 2


def test_a_table_names_its_model_or_the_file_does() -> None:
    text = "model,case,dice\n,a,1\n"
    assert read(text)[0].model == "peer"
    with pytest.raises(DataError, match="2: column 'model'"):
        read(text, "")


def test_a_column_like_one_that_is_there_is_no_typo() -> None:
    assert len(read("patient,patient2,dice\na,z,1\n")) == 1


def test_one_case_may_stand_once_for_each_model_seed_fold_and_site() -> None:
    head = "model,seed,fold,site,case,dice\n"
    lines = ["m,1,x,s,a,1", "n,1,x,s,a,1", "m,2,x,s,a,1", "m,1,y,s,a,1", "m,1,x,t,a,1"]
    assert len(read(head + "\n".join(lines))) == 5


def test_patients_of_two_sites_without_a_patient_column_are_two() -> None:
    one, other = read("case,site,dice\na,n,1\na,s,1\n")
    assert one.patient != other.patient


# ---- the verb


@pytest.fixture
def tables(tmp_path):
    rng = np.random.default_rng(1)
    truth = np.arange(24) % 2
    paths = []
    for name, skill in (("ours", 2.0), ("theirs", 0.5)):
        chance = 1 / (1 + np.exp(-rng.normal(skill * (truth - 0.5))))
        lines = [f"p{i},{t},{c:.4f}" for i, (t, c) in enumerate(zip(truth, chance, strict=True))]
        paths.append(tmp_path / f"{name}.csv")
        paths[-1].write_text("\n".join(["patient,idh_true,idh_p", *lines]) + "\n")
    return paths


@pytest.mark.slow
def test_two_files_are_two_models_compared_with_the_reference(tables, tmp_path) -> None:
    rows = gliofed.score(tables, tmp_path / "out", bootstrap=100)
    found = {(r.model, r.task, r.metric): r for r in rows}
    assert {r.site for r in rows} == {"all"}
    assert len(found) == len(rows)
    gap = found["theirs", "idh", "auc"]
    assert gap.difference == pytest.approx(gap.value - found["ours", "idh", "auc"].value)
    assert gap.difference_low < gap.difference < gap.difference_high
    assert found["ours", "idh", "auc"].difference is None
    other = gliofed.score(tables, tmp_path / "out", "theirs", 100)
    row = next(r for r in other if (r.model, r.task, r.metric) == ("ours", "idh", "auc"))
    assert row.difference == pytest.approx(-gap.difference)
    written = json.loads((tmp_path / "out/scores.json").read_text())
    assert [w["value"] for w in written] == [r.value for r in other]
    assert len((tmp_path / "out/scores.csv").read_text().splitlines()) == len(rows) + 1


@pytest.mark.slow
def test_a_score_has_its_evidence_figures_and_page(tables, tmp_path) -> None:
    out = tmp_path / "out"
    gliofed.score(tables, out, bootstrap=100)
    verdicts = json.loads((out / "evidence/verdicts.json").read_text())
    claims = {v["claim"]: v["supported"] for v in verdicts}
    assert claims["IDH mutation: ranked better than by chance"] is True
    assert claims["IDH mutation: ranked better than by age alone"] is None  # no ages
    with (out / "evidence/comparisons.csv").open() as file:
        assert {(r["model"], r["other"]) for r in csv.DictReader(file)} == {("theirs", "ours")}
    # a table without a row has its head: nothing was kept back to calibrate on
    assert (out / "evidence/calibrations.csv").read_text().startswith("model,seed,fold,marker")
    assert (out / "evidence/kept-answers.json").read_text() == "[]"
    assert (out / "figures/figures.pdf").read_bytes().startswith(b"%PDF")
    assert "<svg" in (out / "figures/roc-idh.svg").read_text()
    page = (out / "report.html").read_text()
    assert "no case of a training hospital was held out to calibrate on" in page


def test_files_that_cannot_be_scored_together(tables, tmp_path) -> None:
    with pytest.raises(DataError, match=r"no model 'mine' in .*ours, theirs"):
        gliofed.score(tables, tmp_path / "out", "mine")
    with pytest.raises(DataError, match="model 'ours' has case 'p0' in two of the files"):
        gliofed.score([tables[0], tables[0]], tmp_path / "out")
    empty = tmp_path / "empty.csv"
    empty.write_text("patient,dice\n")
    with pytest.raises(DataError, match="no line below the header"):
        gliofed.score([empty], tmp_path / "out")
    empty.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not UTF-8"):
        gliofed.score([empty], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_command_prints_the_main_figures(tables, tmp_path) -> None:
    out = tmp_path / "out"
    asked = ["score", *map(str, tables), "--out", str(out), "--bootstrap", "100"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    for text in ("ours", "theirs", "AUC IDH mutation (n = 24)", "Research use only", "scores.csv"):
        assert text in done.output
    assert "MGMT" not in done.output  # nothing is known of it
    tables[0].write_text("patient,idh_true\na,1\n")
    failed = CliRunner().invoke(app, asked)
    assert failed.exit_code == 1
    assert "DataError: " in failed.output
    assert "'idh_true' without" in failed.output
