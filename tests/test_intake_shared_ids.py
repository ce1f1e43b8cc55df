"""One patient id on the studies of two people is never one patient in silence."""

from __future__ import annotations

import dataclasses

import pytest
from dicom_maker import SIEMENS, Who, write_series

import gliofed
from gliofed.dicom.headers import DicomPatient
from gliofed.ingest.shared_ids import difference
from gliofed.runtime.progress import NoProgress

FIRST = Who(id="ANON")
LATER = dataclasses.replace(FIRST, date="20200112")


def take(root) -> gliofed.IngestResult:
    return gliofed.intake(gliofed.IngestRequest(str(root / "in"), root / "out"), NoProgress())


def person(name: str = "", birth: str = "", sex: str = "") -> DicomPatient:
    return DicomPatient("ANON", "", name, birth, sex, None, ())


@pytest.mark.parametrize(
    ("one", "other", "what"),
    [(person("A^B", "19610214"), person("A^B", "19610214"), ""),
     (person("A^B", "19610214"), person("A^B", "19610215"), "birth date"),
     (person("A^B", "19610214", "F"), person("C^B", "19610214", "F"), ""),
     (person("A^B", "19610214", "F"), person("A^B", "19610214", "M"), "sex"),
     (person(sex="F"), person(sex="O"), ""), (person("A^B"), person("a^b"), ""),
     (person("A^B"), person("A^B^Maria"), ""), (person("A^B"), person("A^C"), "name"),
     (person("A^B"), person(), ""), (person("A^B", "19610214"), person("D^B"), "name"),
     (person(), person(), "")],
)  # fmt: skip
def test_what_shows_two_people(one, other, what) -> None:
    assert difference(one, other) == difference(other, one) == what


@pytest.mark.process
def test_the_study_of_another_person_needs_a_decision_and_is_taken_where_it_is_the_same(
    tmp_path,
) -> None:
    write_series(tmp_path / "in", SIEMENS["T2"], who=FIRST, number=1)
    other = dataclasses.replace(LATER, birth="19700101")
    write_series(tmp_path / "in", SIEMENS["T2"], who=other, number=2)
    account = take(tmp_path)
    assert account.status == 1
    (row,) = account.decisions.read_text().splitlines()[1:]
    assert "another birth date than in the first study of this patient id" in row
    assert not any(word in row for word in ("1970", "1961", "Rotkehl"))
    assert [p.name.count("ses-") for p in (tmp_path / "out").glob("sub-*/anat/*.nii.gz")] == [0]
    account.decisions.write_text(account.decisions.read_text().rstrip("\n") + "skip\n")
    assert take(tmp_path).status == 0
    again = dataclasses.replace(LATER, name="Rotkehl-Amsel^Wilhelmine")
    write_series(tmp_path / "in2/in", SIEMENS["T2"], who=FIRST, number=1)
    write_series(tmp_path / "in2/in", SIEMENS["T2"], who=again, number=2)
    assert take(tmp_path / "in2").status == 0
