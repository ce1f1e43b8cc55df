"""Tables of features are read exactly, or refused with one clear error."""

import dataclasses

import numpy as np
import pytest
from feature_tables import made_up

from gliofed.errors import DataError
from gliofed.radiomics.feature_table import (
    FeatureTable,
    features_csv,
    read_feature_tables,
    read_features,
)
from gliofed.types import UNKNOWN, Labels, Person, Sequence

LABELS = """patient,IDH.status,X1p.19q.codeletion,MGMT.promoter.status,Grade,Gender,Age..years.at.diagnosis.
TCGA-02-0006,WT,non-codel,Methylated,G4,female,56
TCGA-DU-5849,Mutant,codel,NA,G2,male,48
"""
GBM = "ID,Date,VOLUME,RATIO\nTCGA-02-0006,1996.08.23,3,#DIV/0!\n"
LGG = "ID,Date,VOLUME,RATIO\nTCGA-DU-5849,1995.04.05,,0.5\nTCGA-HT-7470,1995.04.05,inf,1e-3\n"


def test_what_was_written_is_read_back_exactly(tmp_path) -> None:
    table = made_up()
    first = dataclasses.replace(
        table.subjects[0],
        sequences=frozenset({Sequence.T1, Sequence.FLAIR}),
        person=Person("M", 61.5, "SIEMENS, Trio"),
    )
    table = FeatureTable((first, *table.subjects[1:]), table.names, table.values)
    path = tmp_path / "features.csv"
    path.write_text(features_csv(table))
    again = read_features(path)
    assert again.subjects == table.subjects
    assert again.names == table.names
    assert np.array_equal(again.values, table.values, equal_nan=True)
    assert [len(t.subjects) for t in again.by_site()] == [9, 1, 8, 10]


@pytest.mark.parametrize(("damage", "message"), [
    (lambda t: "", "empty"),
    (lambda t: t.replace("patient", "person"), "no column 'patient'"),
    (lambda t: t.splitlines()[0], "no case"),
    (lambda t: t + t.splitlines()[1] + "\n", "s0/s0-0 has two rows"),
    (lambda t: t.replace("mutant", "mutated?"), "'mutated?' is none of"),
    (lambda t: t + "x,s0,x" + "," * (t.splitlines()[0].count(",") - 2) + "nan\n", "'nan'; expected a number"),
    (lambda t: t + "x,s0,x" + "," * (t.splitlines()[0].count(",") - 2) + "1,5\n", "cells under"),
    (lambda t: t + "x,,x" + "," * (t.splitlines()[0].count(",") - 2) + "\n", "needs its id"),
    (lambda t: t + "x,s0,x,,,,,Z" + "," * (t.splitlines()[0].count(",") - 7) + "\n", "sex 'Z'"),
    (lambda t: t + "x,s0,x,,,,,,old" + "," * (t.splitlines()[0].count(",") - 8) + "\n", "age 'old'"),
    (lambda t: t + "x,s0,x,,,,,,,,T1+DWI" + "," * (t.splitlines()[0].count(",") - 10) + "\n", "DWI"),
])  # fmt: skip
def test_a_damaged_table_is_one_clear_error(damage, message, tmp_path) -> None:
    path = tmp_path / "features.csv"
    text = features_csv(made_up(sizes=(3, 2), features=4))
    path.write_text(damage(text))
    with pytest.raises(DataError) as caught:
        read_features(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_table_without_features_is_refused(tmp_path) -> None:
    table = made_up(sizes=(2,), features=1)
    path = tmp_path / "features.csv"
    path.write_text(features_csv(FeatureTable(table.subjects, (), table.values[:, :0])))
    with pytest.raises(DataError, match="no feature"):
        read_features(path)


def test_the_published_tables_are_read_as_hospitals_with_labels(tmp_path) -> None:
    paths = [tmp_path / name for name in ("gbm.csv", "lgg.csv", "labels.csv")]
    for path, text in zip(paths, (GBM, LGG, LABELS), strict=True):
        path.write_text(text)
    table = read_feature_tables(paths[:2], paths[2])
    assert table.names == ("VOLUME", "RATIO")
    sites = ["md-anderson-cancer-center", "henry-ford-hospital", "case-western-st-joseph"]
    assert [s.site for s in table.subjects] == sites
    assert table.subjects[1].labels == Labels(
        {"idh": "mutant", "codel_1p19q": "codeleted", "grade": "2"}
    )
    assert table.subjects[1].person == Person("M", 48.0)
    assert table.subjects[2].labels == Labels({})
    assert table.subjects[2].person.age is UNKNOWN
    nan = float("nan")
    assert np.array_equal(table.values, [[3, nan], [nan, 0.5], [nan, 0.001]], equal_nan=True)


@pytest.mark.parametrize(("gbm", "lgg", "message"), [
    (GBM, LGG.replace("RATIO", "RATE"), "not those of"),
    (GBM, LGG.replace("TCGA-HT-7470", "TCGA-02-0006"), "is in another"),
    (GBM, LGG.replace("TCGA-HT-7470", "TCGA-ZZ-7470"), "code of no hospital"),
    (GBM, LGG.replace("TCGA-HT-7470", "patient 7"), "not a TCGA patient"),
    (GBM, LGG.replace("0.5", "a half"), "'a half'; expected a number"),
    (GBM, LGG.replace("ID,", "Case,"), "no column 'ID'"),
])  # fmt: skip
def test_a_damaged_published_table_is_one_clear_error(gbm, lgg, message, tmp_path) -> None:
    paths = [tmp_path / name for name in ("gbm.csv", "lgg.csv", "labels.csv")]
    for path, text in zip(paths, (gbm, lgg, LABELS), strict=True):
        path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_feature_tables(paths[:2], paths[2])
    assert message in str(caught.value)


def test_tables_of_hospitals_are_joined_and_what_does_not_fit_is_refused(tmp_path) -> None:
    table = made_up(sizes=(4, 3), features=2)
    paths = []
    for own in table.by_site():
        paths.append(tmp_path / f"{own.sites[0]}.csv")
        paths[-1].write_text(features_csv(own))
    joined = read_feature_tables(paths, None)
    assert joined.subjects == table.subjects
    with pytest.raises(DataError, match="one of its cases is in another table too"):
        read_feature_tables([paths[0], paths[0]], None)
    other = tmp_path / "other.csv"
    other.write_text(paths[1].read_text().replace("f1", "g1"))
    with pytest.raises(DataError, match="extract both alike"):
        read_feature_tables([paths[0], other], None)
    bare = tmp_path / "bare.csv"
    bare.write_text(GBM)
    with pytest.raises(DataError, match="give the table that has them with --labels"):
        read_feature_tables([bare], None)
