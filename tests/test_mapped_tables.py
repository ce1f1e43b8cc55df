"""Tables of other programs become tables of predictions by a mapping file, or one clear error."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from how_to import PAGES, block_with

import gliofed
from gliofed.errors import DataError, StudyError
from gliofed.evaluation.mapped_tables import convert_tables
from gliofed.evaluation.prediction_table import parse_predictions
from gliofed.types import UNKNOWN

PAGE = PAGES / "score-any-model.md"
IDH = '[[tables]]\nfile = "t.csv"\ncolumns = {{ patient = "ID" }}\nidh = {{ truth = "IDH", {} }}\n'


def mapped(folder: Path, mapping: str, **tables: str):
    """The predictions by patient, and the notes."""
    for name, text in tables.items():
        (folder / f"{name}.csv").write_text(text)
    path = folder / "peer.toml"
    path.write_text(mapping)
    converted = convert_tables(path)
    results = parse_predictions(converted.text, "converted")
    assert {r.model for r in results} <= {"peer", "resnet"}
    return {r.patient: r for r in results}, converted.notes


def test_the_printed_mapping_gives_what_the_table_means(tmp_path) -> None:
    (tmp_path / "resnet-output.csv").write_text(block_with(PAGE, "ID;Centre;"))
    found, notes = mapped(tmp_path, block_with(PAGE, 'model = "resnet"'))
    assert [r.probabilities["idh"] for r in found.values()] == [
        pytest.approx((0.09, 0.91)), pytest.approx((0.88, 0.12)), pytest.approx((0.4, 0.6))]  # fmt: skip
    assert [r.labels["idh"] for r in found.values()] == ["mutant", "wildtype", UNKNOWN]
    assert [r.labels["grade"] for r in found.values()] == ["2", "4", UNKNOWN]
    assert found["p02"].probabilities["grade"] == pytest.approx((0.05, 0.15, 0.8))
    assert [r.site for r in found.values()] == ["north", "south", "north"]
    assert notes == ()


def test_the_printed_tables_that_are_not_linked_have_different_patients(tmp_path) -> None:
    found, _ = mapped(tmp_path, block_with(PAGE, "linked = false"),
                      idh="subject,label,p_wildtype\n1,1,0.2\n2,0,0.9\n",
                      mgmt="subject,label,score\n1,0,-2\n2,1,0\n")  # fmt: skip
    assert list(found) == ["idh/1", "idh/2", "mgmt/1", "mgmt/2"]
    assert found["idh/1"].probabilities["idh"][1] == pytest.approx(0.8)
    assert found["idh/1"].labels["mgmt"] == UNKNOWN
    assert found["mgmt/1"].probabilities["mgmt"][1] == pytest.approx(1 / (1 + math.exp(2)))
    assert math.isnan(found["mgmt/2"].probabilities["idh"][1])


@pytest.mark.parametrize(
    ("columns", "cells", "expected"),
    [
        ('probability = "p"', "p,x\n{},0.3,", 0.3),
        ('probability = "p", of = "mutant"', "p,x\n{},0.3,", 0.3),
        ('probability = "p", of = "wildtype"', "p,x\n{},0.3,", 0.7),
        ('probability = "p", predicted = "x"', "p,x\n{},0.7,0", 0.3),
        ('probability = "p", predicted = "x"', "p,x\n{},0.7,1", 0.7),
        ('probability = "p", predicted = "x"', "p,x\n{},0.5,wt", 0.5),
        ('probability = "p", scale = "percent"', "p,x\n{},30,", 0.3),
        ('probability = "p", scale = "logit"', "p,x\n{},-800,", 0.0),
        ('probability = "p", scale = "logit"', "p,x\n{},800,", 1.0),
        ('probabilities = { wildtype = "p", mutant = "x" }', "p,x\n{},0.6,0.4", 0.4),
        ('probabilities = { wildtype = "x", mutant = "p" }, scale = "logit"', "p,x\n{},3,3", 0.5),
    ],
)
def test_every_form_of_a_probability_is_that_of_the_second_class(
    tmp_path, columns, cells, expected
) -> None:
    table = "ID,IDH," + cells.format("a,1")
    found, _ = mapped(tmp_path, IDH.format(columns), t=table)
    assert found["a"].probabilities["idh"] == pytest.approx((1 - expected, expected))


def test_a_decimal_comma_is_read_where_it_cannot_separate_cells(tmp_path) -> None:
    table = IDH.format('probability = "p"').replace('"ID"', '"ID", age = "years"')
    found, _ = mapped(tmp_path, table, t="ID;years;IDH;p\na;61,5;1;0,25\n")
    assert found["a"].probabilities["idh"][1] == 0.25
    assert found["a"].person.age == 61.5


LINKED = """
[[tables]]
file = "scores.csv"
columns = { patient = "ID", seed = "run" }
idh = { probability = "p" }
[[tables]]
file = "labels.csv"
columns = { patient = "patient", site = "site", age = "age" }
idh = { truth = "idh" }
"""
LABELS = "patient,site,age,idh\na,north,50,1\nb,south,60,0\nc,south,70,1\n"


def test_predictions_and_labels_of_two_tables_are_joined_by_patient(tmp_path) -> None:
    scores = "ID,run,p\nb,1,0.1\na,1,0.8\na,2,0.9\nd,1,0.5\n"
    path = tmp_path / "peer.toml"
    _, notes = mapped(tmp_path, LINKED, scores=scores, labels=LABELS)
    results = parse_predictions(convert_tables(path).text, "converted")
    assert [(r.patient, r.seed, r.site, r.labels["idh"]) for r in results] == [
        ("b", 1, "south", "wildtype"),
        ("a", 1, "north", "mutant"),
        ("a", 2, "north", "mutant"),
        ("d", 1, "all", UNKNOWN),
    ]
    assert notes == (
        "IDH mutation: 1 with a known class have no row in the table that predicts it.",
    )


PREDICTED = IDH.format('probability = "p", predicted = "x"')


@pytest.mark.parametrize(
    ("mapping", "tables", "words"),
    [
        (PREDICTED, {"t": "ID,IDH,p,x\na,1,0.49,1\n"},
         ("t.csv:2", "a: column 'p': '0.49'", "at least half", 'of = "mutant"', "peer.toml")),
        (PREDICTED, {"t": "ID,IDH,p,x\na,1,0.9,\n"}, ("t.csv:2", "'x' is empty", "fill it in")),
        (PREDICTED, {"t": "ID,IDH,p,x\na,Mutated!,0.9,1\n"},
         ("t.csv:2", "'Mutated!' is no class of idh", 'classes = { "Mutated!" =')),
        (PREDICTED, {"t": "ID,IDH,p,x\na,1,90,1\n"}, ("t.csv:2", "'90'", "percent or logit")),
        (PREDICTED, {"t": "ID,IDH,q,x\na,1,90,1\n"}, ("t.csv: no column 'p'; it has ID, IDH, q, x", "peer.toml")),
        (PREDICTED, {"t": "ID,IDH,p,x\n,1,0.9,1\n"}, ("t.csv:2", "no patient")),
        (IDH.format('probabilities = { wildtype = "p", mutant = "x" }'),
         {"t": "ID,IDH,p,x\na,1,0.6,0.5\n"}, ("t.csv:2", "p, x add up to 1.1", "expected 1")),
        (LINKED.replace('seed = "run"', 'site = "run"'),
         {"scores": "ID,run,p\na,south,0.9\n", "labels": LABELS},
         ("labels.csv:2", "site 'north', but 'south' at", "scores.csv:2", "correct one")),
        (LINKED, {"scores": "ID,run,p\na,1,0.9\na,2,0.8\n", "labels": LABELS + "a,north,50,1\n"},
         ("labels.csv:5", "'a' has several rows here and at", "scores.csv:3")),
    ],
)  # fmt: skip
def test_a_table_that_does_not_fit_is_one_clear_error(tmp_path, mapping, tables, words) -> None:
    with pytest.raises(DataError) as error:
        mapped(tmp_path, mapping, **tables)
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ("model = 'a'", ("no table", "[[tables]]")),
        (IDH.format('probability = "p"').replace("patient", "subject"), ("'subject' is no column", "nearest")),
        (IDH.format('probability = "p"').replace("patient", "age"), ("neither 'patient' nor 'case'",)),
        (IDH.format('probability = "p"').replace("idh", "ihd"), ("unknown key 'ihd'", "nearest valid key is 'idh'")),
        (IDH.format('probability = "p", of = "mutated"'), ("'mutated' is no class", "wildtype, mutant")),
        (IDH.format('probability = "p", of = "mutant", predicted = "x"'), ("'of' beside 'predicted'",)),
        (IDH.format('predicted = "x"'), ("no 'probability'",)),
        (IDH.format('probabilities = { mutant = "p" }'), ("a column for each of wildtype, mutant",)),
        (IDH.format('probability = "p"').replace("idh", "grade"), ("of 3 classes", "2, 3, 4")),
        (IDH.format('classes = { a = "mutant" }'), ("idh: no probability",)),
        (IDH.format('probability = "p"') * 2, ("a truth in 2 tables", "linked = false")),
        ("linked = false\n" + LINKED, ("[[tables]] 1: idh: no truth",)),
        (LINKED.replace('"ID"', '"ID", case = "case"'), ("not named in all tables alike",)),
    ],
)  # fmt: skip
def test_a_mapping_that_does_not_fit_is_refused_before_a_table_is_read(
    tmp_path, mapping, words
) -> None:
    with pytest.raises(StudyError) as error:
        mapped(tmp_path, mapping)
    assert all(word in str(error.value) for word in (*words, "peer.toml")), str(error.value)


def test_a_mapping_is_scored_in_place_of_a_table(tmp_path, without_pictures) -> None:
    (tmp_path / "scores.csv").write_text("ID,run,p\na,1,0.9\nb,1,0.4\n")
    (tmp_path / "labels.csv").write_text(LABELS)
    (tmp_path / "peer.toml").write_text(LINKED)
    rows = gliofed.score([tmp_path / "peer.toml"], tmp_path / "out", bootstrap=100)
    (area,) = (r for r in rows if (r.site, r.task, r.metric) == ("all", "idh", "auc"))
    assert (area.model, area.n, area.value) == ("peer", 2, 1.0)
    head = (tmp_path / "out/tables/peer.csv").read_text().splitlines()[0]
    assert head == "model,seed,site,patient,age,idh_true,idh_p"
    page = (tmp_path / "out/report.html").read_text()
    assert "1 with a known class have no row in the table that predicts it." in page
