"""What a person states for a whole intake: an id for a blank one, slices to be joined; and files
without a preamble. Every option that a message names exists."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_maker import SIEMENS, Who, uid, write_series
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset
from typer.main import get_command
from typer.testing import CliRunner

import gliofed
from gliofed.cli.main import app
from gliofed.dicom.signature import starts_as_dicom
from gliofed.errors import DataError
from gliofed.ingest.plan import SeriesPlan, SeriesStatus
from gliofed.ingest.subject import PatientStatus
from gliofed.runtime.progress import NoProgress

T2, FLAIR = SIEMENS["T2"], SIEMENS["FLAIR"]
NOBODY = Who(id="")


def take(root: Path, source: str = "in", out: str = "out", **over: object) -> gliofed.IngestResult:
    request = gliofed.IngestRequest(str(root / source), root / out, **over)
    return gliofed.intake(request, NoProgress())


def plans_of(account: gliofed.IngestResult) -> list[SeriesPlan]:
    return [v for o in account.outcomes for s in o.plan.studies for v in s.series_plans]


def images(root: Path, out: str = "out") -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (root / out).glob("sub-*/**/*") if p.is_file()}


def without_preamble(path: Path, kind: str) -> None:
    if kind == "with file meta information":
        path.write_bytes(path.read_bytes()[132:])
        return
    plain = Dataset(dcmread(path))
    dcmwrite(path, plain, implicit_vr=kind == "implicit", little_endian=True)


@pytest.mark.process
@pytest.mark.parametrize("enhanced", [None, lambda data: None], ids=["classic", "enhanced"])
@pytest.mark.parametrize("kind", ["implicit", "explicit", "with file meta information"])
def test_files_without_a_preamble_are_read_as_with_one(tmp_path, kind, enhanced) -> None:
    made = write_series(tmp_path / "in", T2, slope=2.0, intercept=-5.0, enhanced=enhanced)
    key = tmp_path / "key"
    assert take(tmp_path, out="whole", key=key).status == 0
    for path in made.files:
        without_preamble(path, kind)
        assert path.read_bytes()[128:132] != b"DICM"
    account = take(tmp_path, key=key)
    assert (account.status, account.other) == (0, 0)
    assert images(tmp_path) == images(tmp_path, "whole")


@pytest.mark.parametrize(
    ("start", "is_it"),
    [(b"\0" * 128 + b"DICM", True), (b"\x08\0\x05\0CS\x0a\0ISO_IR 100\x08\0\x08\0CS", True),
     (b"\x08\0\x05\0\x0a\0\0\0ISO_IR 100\x08\0\x08\0", True), (b"\x02\0\0\0UL\x04\0\xb2\0\0\0\x02\0\x01\0", True),
     (b"\x08\0\x08\0\x0a\0\0\0ISO_IR 100\x08\0\x05\0", False), (b"\x10\0\x10\0PN\x04\0a^b ", False),
     (b"\x08\0\x03\0\x05\0\0\0\x07\0\x09\0\x04\0\x0a\0" * 8, False),  # voxels of 16 bits
     (b"\x08\0\x05\0\xff\xff\0\0" + bytes(124), False), (b"", False), (b"\x08\0\x05\0", False),
     (b"\x5c\x01\0\0" + bytes(128), False), (b"{\"a\": 1}" * 20, False)],
)  # fmt: skip
def test_dicom_is_known_by_its_first_bytes(start, is_it) -> None:
    assert starts_as_dicom(start) == is_it


@pytest.mark.process
def test_a_blank_patient_id_is_a_fault_that_names_the_option(tmp_path) -> None:
    write_series(tmp_path / "in", T2, who=NOBODY)
    account = take(tmp_path)
    (plan,) = plans_of(account)
    assert (account.status, plan.status) == (1, SeriesStatus.FAULTY)
    assert "the patient id is blank" in str(plan.fault)
    assert "with --blank-patient NAME" in str(plan.fault)


@pytest.mark.process
def test_a_given_name_is_that_of_no_other_patient(tmp_path) -> None:
    write_series(tmp_path / "in/a", T2, who=NOBODY, number=1)
    write_series(tmp_path / "in/b", T2, who=Who(id="P1"), number=2)
    account = take(tmp_path, blank_patient="P1")
    assert account.status == 0
    assert len(list((tmp_path / "out").glob("sub-*"))) == 2
    again = take(tmp_path, blank_patient="P1")
    assert {o.status for o in again.outcomes} == {PatientStatus.UNCHANGED}


@pytest.mark.process
def test_two_studies_of_one_blank_patient_are_two_sessions(tmp_path) -> None:
    for number, date in enumerate(("20190730", "20200112")):
        who = dataclasses.replace(NOBODY, date=date)
        write_series(tmp_path / "in", T2, who=who, number=number)
    assert take(tmp_path, blank_patient="P1").status == 0
    assert len(list((tmp_path / "out").glob("sub-*/ses-*/anat/*.nii.gz"))) == 2


OTHERS = {
    "name": dataclasses.replace(NOBODY, name="Amsel^Anna", date="20200112"),
    "birth date": dataclasses.replace(NOBODY, birth="19700101", date="20200112"),
    "sex": dataclasses.replace(NOBODY, sex="M", date="20200112"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_two_blank_patients_are_never_merged(tmp_path, what) -> None:
    write_series(tmp_path / "in", T2, who=NOBODY, number=1)
    write_series(tmp_path / "in", T2, who=OTHERS[what], number=2)
    with pytest.raises(DataError, match="are of 2 patients by name, birth date and sex") as caught:
        take(tmp_path, blank_patient="P1")
    assert "Rotkehl" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_two_studies_without_name_and_birth_date_are_never_merged(tmp_path) -> None:
    for number, date in enumerate(("20190730", "20200112")):
        who = dataclasses.replace(NOBODY, name="", birth="", date=date)
        write_series(tmp_path / "in", T2, who=who, number=number)
    with pytest.raises(DataError, match="of 2 studies, and have neither name nor birth date"):
        take(tmp_path, blank_patient="P1")


@pytest.mark.process
def test_a_second_blank_patient_under_one_name_is_refused(tmp_path) -> None:
    write_series(tmp_path / "in", T2, who=NOBODY, number=1)
    assert take(tmp_path, blank_patient="P1").status == 0
    write_series(tmp_path / "next", T2, who=OTHERS["name"], number=2)
    account = take(tmp_path, "next", blank_patient="P1")
    (outcome,) = account.outcomes
    assert (account.status, outcome.status) == (1, PatientStatus.REFUSED)
    assert "another patient, give another name with --blank-patient" in outcome.note
    assert take(tmp_path, "next", blank_patient="P2").status == 0


def apart(name: str, change=lambda data, index: None):
    """A SeriesInstanceUID a slice."""

    def write(data, index) -> None:
        data.SeriesInstanceUID = uid(name, index)
        data.FrameOfReferenceUID = uid("frame")
        change(data, index)

    return write


@pytest.mark.process
def test_slices_of_one_series_each_are_one_row_and_joined_where_a_person_wants_it(
    tmp_path,
) -> None:
    made = write_series(tmp_path / "in", T2, number=5, change=apart("a"))
    write_series(tmp_path / "in", FLAIR, number=6)
    account = take(tmp_path)
    slices, _ = plans_of(account)
    assert (account.status, slices.status) == (1, SeriesStatus.FAULTY)
    assert "12 series of one slice each lie in one stack" in str(slices.fault)
    assert "run `gliofed intake` with --join-slices" in str(slices.fault)
    assert len(account.decisions.read_text().splitlines()) == 2
    account = take(tmp_path, join_slices=True)
    slices, _ = plans_of(account)
    assert (account.status, slices.status) == (0, SeriesStatus.SELECTED)
    assert "12 series of one slice each, joined by position" in slices.guess.reason
    (path,) = (tmp_path / "out").glob("sub-*/anat/*_T2w.nii.gz")
    values = np.asarray(nib.load(path).dataobj)
    assert np.sort(values.ravel()).tolist() == np.sort(made.voxels.ravel()).tolist()


@pytest.mark.process
@pytest.mark.parametrize("drop", [(), (4, 5)])
def test_two_scans_of_one_description_are_joined_by_number(tmp_path, drop) -> None:
    for number in (5, 6):
        write_series(tmp_path / "in", T2, number=number, change=apart(f"n{number}"), drop=drop)
    found = plans_of(take(tmp_path, join_slices=True))
    assert [len(v.series.headers) for v in found] == [12 - len(drop)] * 2
    assert [("2 missing between slices 4 and 5" in str(v.fault)) for v in found] == [bool(drop)] * 2


@pytest.mark.process
def test_echoes_and_places_of_their_own_are_not_joined(tmp_path) -> None:
    def moved(data, index) -> None:
        data.EchoTime = 12.0 if index % 2 else 93.0

    write_series(tmp_path / "in", T2, number=5, shape=(20, 16, 24), change=apart("a", moved))
    found = plans_of(take(tmp_path, join_slices=True))
    assert sorted(v.series.first.timing.echo for v in found) == [12.0, 93.0]
    assert all(v.series.joined == 12 for v in found)


@pytest.mark.process
def test_the_command_takes_both_options(tmp_path) -> None:
    write_series(tmp_path / "in", T2, who=NOBODY, change=apart("a"))
    words = ["intake", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    assert CliRunner().invoke(app, words).exit_code == 1
    done = CliRunner().invoke(app, [*words, "--blank-patient", "P1", "--join-slices"])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("over", "option"),
    [({"private": "out/private"}, "--private"), ({"key": "out/key"}, "--key")],
)  # fmt: skip
def test_a_folder_that_would_be_shared_is_refused_with_the_option(tmp_path, over, option) -> None:
    write_series(tmp_path / "in", T2)
    paths = {name: tmp_path / path for name, path in over.items()}
    with pytest.raises(DataError, match=f"in the hospital folder; .*{option}"):
        take(tmp_path, **paths)


def test_a_lost_key_names_the_option(tmp_path) -> None:
    write_series(tmp_path / "in", T2)
    (tmp_path / "out-private").mkdir(mode=0o700)
    (tmp_path / "out-private/links.tsv").touch()
    with pytest.raises(DataError, match="restore it from its backup, or name its file with --key"):
        take(tmp_path)


def test_an_output_that_is_a_file_names_the_option(tmp_path) -> None:
    write_series(tmp_path / "in", T2)
    (tmp_path / "out").touch()
    with pytest.raises(DataError, match="is a file; name a folder with --out"):
        take(tmp_path)


def test_every_option_in_a_message_of_intake_is_one_of_the_command() -> None:
    package = Path(gliofed.__file__).parent
    files = [
        *package.glob("ingest/*.py"),
        package / "dicom/dicomweb.py",
        package / "dicom/headers.py",
    ]
    named = {
        option
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", node.value)
    }
    command = get_command(app).commands["intake"]
    assert {"--blank-patient", "--join-slices", "--key", "--private", "--ca"} <= named
    assert named <= {name for p in command.params for name in p.opts}
