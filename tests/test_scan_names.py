"""No scan is passed over in silence: names, layouts, formats and files that are not used."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from conftest import write_hospital
from typer.testing import CliRunner

import gliofed
from gliofed.cli.main import app
from gliofed.data.image_files import image_stem
from gliofed.data.nifti import read_grid, read_nifti
from gliofed.data.sequence_names import read_name
from gliofed.data.unused_scans import unused_scans
from gliofed.errors import DataError
from gliofed.inference.unused_files import find_unused
from gliofed.types import Sequence
from gliofed.validation.locate import locate
from gliofed.validation.scan import read_scan

AFFINE = np.array([[-2.0, 0, 0, 10], [0, 1.5, 0.2, -7], [0, -0.2, 3, 4], [0, 0, 0, 1]])
VOXELS = np.arange(10 * 12 * 9, dtype=np.int16).reshape(10, 12, 9)


@pytest.mark.parametrize(("name", "sequence"), [
    ("x_T1_Gd", "T1CE"), ("x_T1_KM", "T1CE"), ("x_T1_post", "T1CE"), ("x-T1+C", "T1CE"),
    ("T1_post_contrast_reg", "T1CE"), ("x_T1_ohne_KM", "T1"), ("x_T1_no_contrast", "T1"),
    ("x_T1_pre", "T1"), ("x_MPRAGE", "T1"), ("x_MPRAGE_Gd", "T1CE"), ("x_t2_tirm", "FLAIR"),
    ("x_fla", "FLAIR"), ("x_t2flair", "FLAIR"), ("T2-FLAIR", "FLAIR"), ("FLAIR_T2", "FLAIR"),
    ("BraTS-GLI-00000-000-t1n", "T1"), ("BraTS-GLI-00000-000-t1c", "T1CE"),
    ("BraTS-GLI-00000-000-t2w", "T2"), ("BraTS-GLI-00000-000-t2f", "FLAIR"),
    ("x_ADC", None), ("sonata", None),
])  # fmt: skip
def test_the_words_of_a_name_give_its_sequence(name, sequence) -> None:
    assert read_name(name).sequence == (sequence and Sequence(sequence))
    assert not read_name(name).mask


def write(path, kind: str) -> None:
    """The same voxels and affine, as the format's own library writes them."""
    if kind in ("nrrd", "mha"):
        image = sitk.GetImageFromArray(VOXELS.T)
        lps = np.diag([-1.0, -1, 1, 1]) @ AFFINE
        spacing = np.linalg.norm(lps[:3, :3], axis=0)
        image.SetSpacing(spacing.tolist())
        image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
        image.SetOrigin(lps[:3, 3].tolist())
        sitk.WriteImage(image, str(path))
    elif kind == "mgz":
        nib.save(nib.MGHImage(VOXELS, AFFINE), path)
    else:
        nib.save(nib.Nifti1Pair(VOXELS, AFFINE), path)


@pytest.mark.parametrize("kind", ["mgz", "nrrd", "mha", "hdr"])
def test_an_image_of_another_format_is_the_same_image(kind, tmp_path) -> None:
    path, plain = tmp_path / f"x_T1.{kind}", tmp_path / "y_T1.nii.gz"
    write(path, kind)
    nib.save(nib.Nifti1Image(VOXELS, AFFINE), plain)
    assert np.array_equal(read_nifti(path).data, read_nifti(plain).data)
    assert np.allclose(read_nifti(path).affine, read_nifti(plain).affine, atol=1e-4)
    assert np.allclose(read_grid(path)[1], AFFINE, atol=1e-4)
    scan, faults = read_scan(path)
    assert not [f for f in faults if f.fatal]
    assert scan.shape == VOXELS.shape
    assert scan.path == path
    assert image_stem(path) == "x_T1"
    ((site,), _) = locate(path.parent)
    assert site.cases[0].images[Sequence.T1] in (path, plain)


def test_analyze_and_damaged_files_are_refused_with_a_cure(tmp_path) -> None:
    nib.save(nib.AnalyzeImage(VOXELS, AFFINE), tmp_path / "old.hdr")
    with pytest.raises(DataError, match="left and right; convert the series again"):
        read_nifti(tmp_path / "old.hdr")
    (tmp_path / "bad.nrrd").write_text("NRRD0004\nnonsense")
    with pytest.raises(DataError, match=r"bad.nrrd: cannot be read as an image"):
        read_nifti(tmp_path / "bad.nrrd")
    scan, (fault,) = read_scan(tmp_path / "bad.nrrd")
    assert scan is None
    assert fault.code == "FILE-UNREADABLE"


def nnunet(root, names="{}") -> None:
    for case in ("a", "b"):
        for channel in range(2):
            (root / "imagesTs").mkdir(parents=True, exist_ok=True)
            (root / "imagesTs" / f"{case}_000{channel}.nii.gz").touch()
    (root / "dataset.json").write_text(names)


@pytest.mark.parametrize("below", ["", "imagesTs"])
def test_channels_of_nnunet_are_named_by_dataset_json(below, tmp_path) -> None:
    nnunet(tmp_path, '{"channel_names": {"0": "FLAIR", "1": "T1 Gd"}}')
    ((site,), findings) = locate(tmp_path / below)
    assert findings == ()
    assert [c.subject for c in site.cases] == ["a", "b"]
    assert {s: p.name for s, p in site.cases[0].images.items()} == {
        Sequence.FLAIR: "a_0000.nii.gz",
        Sequence.T1CE: "a_0001.nii.gz",
    }


def test_a_dataset_json_without_channels_is_an_error(tmp_path) -> None:
    nnunet(tmp_path)
    _, findings = locate(tmp_path)
    assert "names no channels; expected" in findings[0].text


def test_two_files_of_one_sequence_are_both_named(tmp_path) -> None:
    for name in ("x_flair.nii.gz", "x_tirm.nii.gz"):
        (tmp_path / name).touch()
    _, (finding,) = locate(tmp_path)
    assert finding.code == "SET-SEQUENCE-TWICE"
    assert (finding.file, finding.text) == (
        "x_tirm.nii.gz", "besides x_flair.nii.gz; each is FLAIR by its name",
    )  # fmt: skip


def test_a_file_that_looks_like_a_scan_is_named_and_others_are_not(tmp_path) -> None:
    case = tmp_path / "case1"
    case.mkdir()
    for name in (
        "x_FLAIR", "x_T1", "x_T1_bias", "x_sonata", "x_ADC", "x_brain_mask", "x_seg"
    ):  # fmt: skip
        (case / f"{name}.nii.gz").touch()
    (tmp_path / "case2").mkdir()
    (tmp_path / "case2" / "scan7.nrrd").touch()
    ((site,), _) = locate(tmp_path)
    found = find_unused(tmp_path, site.cases)
    ((owner, (line,)),) = found.by_case.items()
    assert owner == site.cases[0].name
    assert line.startswith("case1/x_sonata.nii.gz: looks like a scan and is not used")
    assert [folder for folder, _ in found.others] == ["case2"]
    assert unused_scans(tmp_path, (p for p in case.iterdir())) == (tmp_path / "case2/scan7.nrrd",)


def sessions(root, *paths: str):
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (root / "participants.tsv").write_text("participant_id\nsub-A\nsub-B\n")
    ((site,), _) = locate(root)
    return site.cases, find_unused(root, site.cases)


def test_later_sessions_are_one_line_a_subject_and_no_unused_file(tmp_path) -> None:
    (a, b), found = sessions(
        tmp_path, "sub-A/ses-01/anat/sub-A_ses-01_T2w.nii.gz",
        "sub-A/ses-02/anat/sub-A_ses-02_T2w.nii.gz", "sub-A/ses-02/anat/sub-A_ses-02_FLAIR.nii.gz",
        "sub-A/ses-03/anat/sub-A_ses-03_T2w.nii.gz", "sub-B/anat/sub-B_T2w.nii.gz",
        "sub-B/ses-later/anat/sub-B_ses-later_T1w.nii.gz",
    )  # fmt: skip
    assert (found.by_case, found.others) == ({}, ())
    assert found.lines(a.name) == (
        "sub-A: ses-01 is used as preoperative, the first; not used: ses-02, ses-03",
    )
    assert found.lines(b.name) == (
        "sub-B: anat without a session is used as preoperative, the first; not used: ses-later",
    )


def test_a_scan_of_the_used_session_or_of_an_unused_subject_is_no_other_session(tmp_path) -> None:
    (a, b), found = sessions(
        tmp_path, "sub-A/ses-01/anat/sub-A_ses-01_T2w.nii.gz", "sub-A/ses-01/anat/sub-A_tirm.nii.gz",
        "sub-B/ses-01/anat/sub-B_dwi.nii.gz", "sub-B/ses-02/anat/sub-B_ses-02_T2w.nii.gz",
    )  # fmt: skip
    assert found.sessions == {}
    assert "sub-A_tirm.nii.gz: may be FLAIR" in found.lines(a.name)[0]
    lines = (*found.by_case.get(b.name, ()), *(x for _, ls in found.others for x in ls))
    assert any("sub-B_ses-02_T2w.nii.gz: may be T2" in line for line in lines)


@pytest.mark.process
def test_prepare_names_what_it_does_not_use_and_its_status_tells(tmp_path) -> None:
    hospital = write_hospital(tmp_path / "h", {"A": ("1", "0", "1", "2")})
    study = tmp_path / "s.toml"
    study.write_text(
        'name = "s"\n[data]\nroot = "."\ntrain = ["h"]\nexternal = ["h2"]\n'
        '[prepare]\nspace = "scanner"\nregister = false\nbias = false\nbrain = "stripped"\n'
        "[quality]\nbrain_litres = [0.0, 9.0]\nalignment = 0.0\n"
    )

    def run():
        words = ["prepare", str(hospital), "--out", str(tmp_path / "store"), "--study", str(study)]
        return CliRunner().invoke(app, words)

    before = run()
    assert before.exit_code == 0, before.output
    extra = hospital / "sub-A/anat/sub-A_tirm.nii.gz"
    extra.write_bytes((hospital / "sub-A/anat/sub-A_FLAIR.nii.gz").read_bytes())
    after = run()
    assert after.exit_code == 1
    assert "Not used: sub-A/anat/sub-A_tirm.nii.gz: may be FLAIR" in after.output
    assert "sub-A_tirm.nii.gz" in (tmp_path / "store/figures/h/index.html").read_text()
    extra.unlink()
    later = hospital / "sub-A/ses-02/anat/sub-A_ses-02_FLAIR.nii.gz"
    later.parent.mkdir(parents=True)
    later.write_bytes((hospital / "sub-A/anat/sub-A_FLAIR.nii.gz").read_bytes())
    sessions = run()
    assert sessions.exit_code == 0, sessions.output
    assert "sub-A: anat without a session is used as preoperative" in sessions.output


def test_prepare_of_dicom_names_the_command_that_converts_it(tmp_path) -> None:
    (tmp_path / "IM0001").write_bytes(b"\0" * 128 + b"DICM")
    with pytest.raises(DataError, match=r"holds DICOM; convert it first with `gliofed intake"):
        gliofed.prepare(tmp_path, tmp_path.parent / "store")
