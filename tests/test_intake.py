"""From DICOM to a hospital folder, as the command does it."""

from __future__ import annotations

import csv
import dataclasses
import io
import tarfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_maker import GE, SIEMENS, Who, tree, turned, write_series, write_study
from typer.testing import CliRunner

import gliofed
from gliofed.cli.main import app
from gliofed.data.formats.bids import read_bids
from gliofed.errors import CheckpointError, DataError
from gliofed.ingest.pseudonyms import PseudonymKey
from gliofed.runtime.files import alone_in
from gliofed.runtime.progress import NoProgress
from gliofed.types import SEQUENCES, Sequence

WHO = Who()
LATER = dataclasses.replace(WHO, date="20200112")


def take(source: Path, out: Path, **over: object) -> gliofed.IngestResult:
    return gliofed.intake(gliofed.IngestRequest(str(source), out, **over), NoProgress())


def decide(account: gliofed.IngestResult, **words: str) -> None:
    """Fill the column decision by series number: n7="T1"."""
    rows = list(csv.reader(io.StringIO(account.decisions.read_text()), delimiter="\t"))
    for row in rows[1:]:
        row[-1] = words.get(f"n{row[2]}", row[-1])
    text = io.StringIO()
    csv.writer(text, delimiter="\t", lineterminator="\n").writerows(rows)
    account.decisions.write_text(text.getvalue())


def own_name(folder: Path) -> str:
    (subject,) = folder.glob("sub-*")
    return subject.name


@pytest.mark.process
@pytest.mark.parametrize("vendor", ["SIEMENS", "GE MEDICAL SYSTEMS"])
@pytest.mark.parametrize("degrees", [0.0, 17.0, 52.0])
def test_voxels_lie_where_the_headers_put_them(tmp_path, vendor, degrees) -> None:
    made = {
        name: write_series(tmp_path / "in", style, number=number, vendor=vendor, axes=turned(degrees),
                           slope=2.0 if name == "T2" else 1.0, intercept=-5.0 if name == "T2" else 0.0)
        for number, (name, style) in enumerate((SIEMENS if vendor == "SIEMENS" else GE).items(), start=1)
    }  # fmt: skip
    account = take(tmp_path / "in", tmp_path / "out")
    assert account.status == 0
    (case,) = read_bids(tmp_path / "out", "here")
    assert set(case.images) == set(SEQUENCES)
    for sequence, path in case.images.items():
        truth = made[sequence.value]
        image = nib.load(path)
        voxels = np.rint(
            np.linalg.inv(image.affine) @ truth.affine @ _indices(truth.voxels.shape)
        ).astype(int)
        off = image.affine @ voxels - truth.affine @ _indices(truth.voxels.shape)
        assert np.abs(off).max() < 1e-2
        found = np.asarray(image.dataobj)[tuple(voxels[:3])].reshape(truth.voxels.shape)
        np.testing.assert_array_equal(found, truth.voxels)


@pytest.mark.process
@pytest.mark.parametrize("digits", [2, 3])
def test_rounded_positions_leave_first_and_last_slice_in_place(tmp_path, digits) -> None:
    def rounded(data, index):
        data.ImagePositionPatient = [f"{float(v):.{digits}f}" for v in data.ImagePositionPatient]

    made = write_series(tmp_path / "in", SIEMENS["T2"], shape=(8, 8, 150), spacing=(1, 1, 0.9),
                        change=rounded)  # fmt: skip
    take(tmp_path / "in", tmp_path / "out")
    (case,) = read_bids(tmp_path / "out", "here")
    image = nib.load(case.images[Sequence.T2])
    for index in (0, 149):
        corner = made.affine @ [0, 0, index, 1]
        voxel = np.linalg.solve(image.affine, corner)
        off = image.affine @ [*np.rint(voxel[:3]), 1] - corner
        assert np.abs(off).max() <= 0.5 * 10.0**-digits + 1e-4


def _indices(shape: tuple[int, ...]) -> np.ndarray:
    return np.vstack([np.indices(shape).reshape(3, -1), np.ones(np.prod(shape))])


@pytest.mark.process
def test_the_table_has_age_sex_and_room_for_labels(tmp_path) -> None:
    write_study(tmp_path / "in", who=dataclasses.replace(WHO, age="093Y", sex="M"))
    take(tmp_path / "in", tmp_path / "out")
    head, row = (tmp_path / "out/participants.tsv").read_text().splitlines()
    assert head.split("\t") == [
        "participant_id",
        "age",
        "sex",
        "idh",
        "codel_1p19q",
        "mgmt",
        "grade",
    ]
    assert row.split("\t")[1:] == ["90", "M", "n/a", "n/a", "n/a", "n/a"]


@pytest.mark.process
@pytest.mark.parametrize(
    ("age", "birth", "told"),
    [("089Y", "19200101", "89"), ("090Y", "", "90"), ("", "19300731", "88"), ("", "19300730", "89"),
     ("018M", "", "1"), ("", "", "n/a"), ("old", "", "n/a")],
)  # fmt: skip
def test_age_is_told_in_years_up_to_ninety(tmp_path, age, birth, told) -> None:
    who = dataclasses.replace(WHO, age=age, birth=birth)
    write_series(tmp_path / "in", SIEMENS["T2"], who=who)
    take(tmp_path / "in", tmp_path / "out")
    assert (tmp_path / "out/participants.tsv").read_text().splitlines()[1].split("\t")[1] == told


@pytest.mark.process
def test_filled_labels_and_own_columns_are_kept(tmp_path) -> None:
    write_study(tmp_path / "in")
    take(tmp_path / "in", tmp_path / "out")
    table = tmp_path / "out/participants.tsv"
    name = own_name(tmp_path / "out")
    own = f"participant_id\tidh\tremark\tsex\r\n{name}\tmutant\t\u00e9\tF"
    table.write_text(own, newline="")
    write_study(tmp_path / "in", "GE MEDICAL SYSTEMS", Who(id="other"), first=11)
    account = take(tmp_path / "in", tmp_path / "out")
    assert account.status == 0
    now = table.read_bytes().decode()
    assert now.startswith(own + "\r\n")
    assert now.removeprefix(own + "\r\n").split("\t")[1:] == ["n/a", "n/a", "F\r\n"]


@pytest.mark.process
def test_running_again_changes_nothing(tmp_path) -> None:
    write_study(tmp_path / "in")
    take(tmp_path / "in", tmp_path / "out")
    before = tree(tmp_path)
    account = take(tmp_path / "in", tmp_path / "out")
    assert [o.status.value for o in account.outcomes] == ["unchanged"]
    assert account.status == 0
    assert tree(tmp_path) == before


def silent_t1(folder: Path, number: int = 7, who: Who | None = None) -> None:
    """A T1 of which nothing tells whether contrast was given."""
    style = dataclasses.replace(SIEMENS["T1"], description="t1_space_sag", three_d=True)
    write_series(folder / f"S{number}", style, number=number, who=who)


@pytest.mark.process
def test_what_is_not_clear_waits_and_a_decision_adds_it(tmp_path) -> None:
    silent_t1(tmp_path / "in")
    write_series(tmp_path / "in", SIEMENS["T2"], number=3)
    account = take(tmp_path / "in", tmp_path / "out")
    assert account.status == 1
    assert set(read_bids(tmp_path / "out", "here")[0].images) == {Sequence.T2}
    decide(account, n7="T1ce")
    account = take(tmp_path / "in", tmp_path / "out")
    assert account.status == 0
    assert [o.status.value for o in account.outcomes] == ["updated"]
    assert set(read_bids(tmp_path / "out", "here")[0].images) == {Sequence.T2, Sequence.T1CE}


@pytest.mark.process
def test_skip_settles_a_series(tmp_path) -> None:
    silent_t1(tmp_path / "in")
    write_series(tmp_path / "in", SIEMENS["T2"], number=3)
    decide(take(tmp_path / "in", tmp_path / "out"), n7="skip")
    assert take(tmp_path / "in", tmp_path / "out").status == 0


@pytest.mark.process
def test_a_person_overrules_the_headers(tmp_path) -> None:
    silent_t1(tmp_path / "in")
    write_series(tmp_path / "in", SIEMENS["T2"], number=3)
    write_series(tmp_path / "in", dataclasses.replace(SIEMENS["T2"], description="t2 cor"),
                 number=4, spacing=(0.9, 1.1, 1.35))  # fmt: skip
    account = take(tmp_path / "in", tmp_path / "out")
    decide(account, n7="T1", n3="skip", n4="T2")
    assert "equally good" in account.decisions.read_text()
    account = take(tmp_path / "in", tmp_path / "out")
    assert account.status == 0
    (study,) = account.outcomes[0].plan.studies
    assert {s.value: v.series.first.number for s, v in study.selected.items()} == {"T1": 7, "T2": 4}


@pytest.mark.process
@pytest.mark.parametrize(
    ("word", "message"),
    [("T3", "decisions.tsv:2: decision 'T3'; expected T1, T1CE, T2, FLAIR, skip"),
     ("both", "decided twice, first on line 2; keep one")],
)  # fmt: skip
def test_nonsense_in_the_decisions_is_an_error_with_its_line(tmp_path, word, message) -> None:
    silent_t1(tmp_path / "in", 7)
    silent_t1(tmp_path / "in", 8)
    account = take(tmp_path / "in", tmp_path / "out")
    decide(account, **({"n7": "T1", "n8": "T1"} if word == "both" else {"n7": word}))
    before = tree(tmp_path / "out")
    with pytest.raises(DataError) as caught:
        take(tmp_path / "in", tmp_path / "out")
    assert message in str(caught.value)
    assert tree(tmp_path / "out") == before


@pytest.mark.process
def test_two_studies_become_sessions_by_date_and_are_not_mixed(tmp_path) -> None:
    write_series(tmp_path / "in", SIEMENS["T2"], number=3, who=LATER)
    write_series(tmp_path / "in", SIEMENS["FLAIR"], number=4, who=LATER)
    write_series(tmp_path / "in", SIEMENS["T2"], number=3)
    account = take(tmp_path / "in", tmp_path / "out")
    assert "check that it is" in account.outcomes[0].note
    (case,) = read_bids(tmp_path / "out", "here")
    assert {s.value: p.parent.parent.name for s, p in case.images.items()} == {"T2": "ses-01"}
    assert (tmp_path / "out" / own_name(tmp_path / "out") / "ses-02/anat").is_dir()


@pytest.mark.process
def test_a_follow_up_does_not_pass_for_the_first_study(tmp_path) -> None:
    silent_t1(tmp_path / "in", 7)
    write_study(tmp_path / "in", who=LATER)
    account = take(tmp_path / "in", tmp_path / "out")
    assert account.status == 1
    assert not list((tmp_path / "out").glob("sub-*"))
    decide(account, n7="T1")
    assert take(tmp_path / "in", tmp_path / "out").status == 0
    (case,) = read_bids(tmp_path / "out", "here")
    assert set(case.images) == {Sequence.T1}


@pytest.mark.process
@pytest.mark.parametrize("date", ["", "20190730"])
def test_studies_that_cannot_be_put_in_order_wait(tmp_path, date) -> None:
    def undated(data, index):
        data.StudyDate, data.StudyTime = date, WHO.time

    write_study(tmp_path / "in")
    write_series(tmp_path / "in", SIEMENS["T2"], number=30, who=LATER, change=undated)
    account = take(tmp_path / "in", tmp_path / "out")
    assert account.status == 1
    assert "cannot be ordered" in account.outcomes[0].note
    assert not list((tmp_path / "out").glob("sub-*"))
    name = next(
        r for r in (account.private / "series.tsv").read_text().splitlines() if "\t30\t" in r
    )
    with account.decisions.open("a") as table:
        table.write("\t" * 10 + name.split("\t")[-1] + "\tskip\n")
    assert take(tmp_path / "in", tmp_path / "out").status == 0


@pytest.mark.process
def test_another_key_for_the_same_hospital_is_refused(tmp_path) -> None:
    write_study(tmp_path / "in")
    account = take(tmp_path / "in", tmp_path / "out")
    before = tree(tmp_path / "out")
    key = account.private / "key.txt"
    old = key.read_text()
    key.write_text("cd" * 32)
    with pytest.raises(DataError, match="the key is not the one"):
        take(tmp_path / "in", tmp_path / "out")
    key.unlink()
    with pytest.raises(DataError, match="no such key, but pseudonyms were made"):
        take(tmp_path / "in", tmp_path / "out")
    assert not key.exists()
    assert tree(tmp_path / "out") == before
    key.write_text(old)
    key.chmod(0o600)
    assert take(tmp_path / "in", tmp_path / "out").status == 0


@pytest.mark.process
def test_a_study_of_a_known_patient_that_comes_later_is_refused(tmp_path) -> None:
    write_study(tmp_path / "in")
    take(tmp_path / "in", tmp_path / "out")
    before = tree(tmp_path / "out")
    write_study(tmp_path / "more", who=LATER)
    account = take(tmp_path / "more", tmp_path / "out")
    assert account.status == 1
    assert "exists without this study" in account.outcomes[0].note
    assert tree(tmp_path / "out") == before


def test_two_patients_of_one_pseudonym_are_refused(tmp_path, monkeypatch) -> None:
    write_study(tmp_path / "in")
    write_study(tmp_path / "in", who=Who(id="other"), first=11)
    monkeypatch.setattr(PseudonymKey, "patient", lambda self, issuer, patient: "aaaaaaaaaa")
    with pytest.raises(DataError, match="two patients would have the pseudonym aaaaaaaaaa"):
        take(tmp_path / "in", tmp_path / "out")
    assert not list((tmp_path / "out").glob("sub-*"))


def test_pseudonyms_depend_on_key_issuer_and_id_alone() -> None:
    a, b = PseudonymKey(bytes(range(32))), PseudonymKey(bytes(range(1, 33)))
    names = [a.patient("h", "1"), a.patient("h", "2"), a.patient("", "h1"), b.patient("h", "1")]
    assert len(set(names)) == 4
    assert a.patient("h", "1") == names[0]


@pytest.mark.process
def test_links_lead_back_and_are_for_the_owner_alone(tmp_path) -> None:
    write_study(tmp_path / "in")
    account = take(tmp_path / "in", tmp_path / "out")
    rows = list(
        csv.DictReader(io.StringIO((account.private / "links.tsv").read_text()), delimiter="\t")
    )
    assert {r["patient_id"] for r in rows} == {WHO.id}
    assert {f"sub-{r['pseudonym']}" for r in rows} == {own_name(tmp_path / "out")}
    assert len({r["series_uid"] for r in rows}) == 4
    assert account.private.stat().st_mode & 0o777 == 0o700
    for name in ("links.tsv", "key.txt", "decisions.tsv", "series.tsv"):
        assert (account.private / name).stat().st_mode & 0o777 == 0o600, name


@pytest.mark.process
@pytest.mark.parametrize(
    ("mode", "text", "message"),
    [(0o640, "ab" * 32, "chmod 600"), (0o604, "ab" * 32, "chmod 600"), (0o600, "ab" * 31, "32 random"),
     (0o600, "no key", "32 random")],
)  # fmt: skip
def test_a_key_that_cannot_be_trusted_is_refused(tmp_path, mode, text, message) -> None:
    write_study(tmp_path / "in")
    key = tmp_path / "key"
    key.write_text(text)
    key.chmod(mode)
    with pytest.raises(DataError, match=message):
        take(tmp_path / "in", tmp_path / "out", key=key)
    assert not (tmp_path / "out").exists()
    key.write_text("ab" * 32)
    key.chmod(0o600)
    assert take(tmp_path / "in", tmp_path / "out", key=key).status == 0


def test_places_that_would_leak_are_refused(tmp_path) -> None:
    write_study(tmp_path / "out/in")
    with pytest.raises(DataError, match="which is shared"):
        take(tmp_path / "out/in", tmp_path / "out")
    write_study(tmp_path / "in")
    with pytest.raises(DataError, match="private folder is in the hospital"):
        take(tmp_path / "in", tmp_path / "out", private=tmp_path / "out/p")
    (tmp_path / "p").mkdir(mode=0o755)
    with pytest.raises(DataError, match="chmod 700"):
        take(tmp_path / "in", tmp_path / "out", private=tmp_path / "p")


def test_one_intake_at_a_time(tmp_path) -> None:
    write_study(tmp_path / "in")
    private = tmp_path / "out-private"
    private.mkdir(mode=0o700)
    with alone_in(private), pytest.raises(CheckpointError, match="another gliofed process"):
        take(tmp_path / "in", tmp_path / "out")


def test_nothing_of_use_is_status_2(tmp_path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/readme.txt").write_text("no DICOM")
    done = CliRunner().invoke(app, ["intake", str(tmp_path / "in"), "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "1 files are not DICOM" in done.output


@pytest.mark.process
def test_the_command_says_what_was_taken_and_what_to_decide(tmp_path) -> None:
    write_study(tmp_path / "in")
    silent_t1(tmp_path / "in", 9, who=Who(id="other"))
    done = CliRunner().invoke(app, ["intake", str(tmp_path / "in"), "--out", str(tmp_path / "out")],
                              env={"COLUMNS": "160"})  # fmt: skip
    assert done.exit_code == 1, done.output
    for text in ("T1, T1CE, T2, FLAIR (written)", "needs a decision", "T1 or T1CE?", "t2_tse_tra_512",
                 "1 series need a decision", "decisions.tsv", "Research use only"):  # fmt: skip
        assert text in done.output


@pytest.mark.process
def test_check_takes_the_hospital(tmp_path) -> None:
    write_study(tmp_path / "in")
    take(tmp_path / "in", tmp_path / "out")
    done = CliRunner().invoke(app, ["check", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    for code in ("NII-PATIENT", "NII-DATE", "NII-NUMBER", "NII-NAME", "NII-EXTENSION", "NII-DICOM"):
        assert code not in done.output


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".tar", ".tar.gz", ".tar.xz"])
def test_an_archive_is_as_good_as_its_folder(tmp_path, ending) -> None:
    write_study(tmp_path / "in")
    packed = tmp_path / f"all{ending}"
    kind = ending.removeprefix(".tar").removeprefix(".")
    with tarfile.open(packed, f"w:{kind}") as archive:
        archive.add(tmp_path / "in", "in")
    key = tmp_path / "key"
    take(tmp_path / "in", tmp_path / "a", key=key)
    account = take(packed, tmp_path / "b", key=key)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert not (account.private / "work").exists()


@pytest.mark.slow
@pytest.mark.data
def test_a_real_series(tmp_path, real_data) -> None:
    packed = real_data / "dicom-t1w/example-dicom-structural.tar.xz"
    if not packed.exists():
        pytest.skip(f"no {packed}")
    account = take(packed, tmp_path / "out")
    assert account.status == 1  # derived by a converter, with no times: a person must tell
    decide(account, n401="T1")
    account = take(packed, tmp_path / "out")
    assert account.status == 0
    (case,) = read_bids(tmp_path / "out", "here")
    assert nib.load(case.images[Sequence.T1]).shape == (274, 384, 384)
