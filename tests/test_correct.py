"""A corrected mask becomes the label of its case: where it lands, what is kept, what is refused."""

from __future__ import annotations

import datetime
import hashlib
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import dicom_series as dicom
import nibabel as nib
import numpy as np
import pytest
from conftest import STRIPPED, write_hospital, write_image
from dcm2niix import bin as dcm2niix
from dicom_files import write_segmentation
from ellipsoid import CENTRE, NETWORK, SIZE, ellipsoid, rigid
from nibabel.affines import apply_affine
from typer.testing import CliRunner

import gliofed
from gliofed.cli.main import app
from gliofed.data.formats.bids import read_bids
from gliofed.data.nifti import read_nifti
from gliofed.data.store import PreparedStore, StoreEntry
from gliofed.dicom.seg import MaskAuthor
from gliofed.errors import CheckpointError, DataError
from gliofed.inference import corrections as module
from gliofed.inference.native_grid import mask_on_scan
from gliofed.notice import RESEARCH_USE_ONLY
from gliofed.preprocessing.cases import prepare_one
from gliofed.runtime.files import alone_in
from gliofed.study import GridConfig
from gliofed.types import Placement, Prediction, PreparationMeasures, Sequence
from gliofed.version import __version__

DAY = datetime.date(2026, 2, 28)
SHAPE = (20, 24, 18)
LAS = np.array([[-2.0, 0, 0, 19], [0, 2, 0, -20], [0, 0, 2, -15], [0, 0, 0, 1]])
"""First axis to the left: the voxels are stored mirrored."""
DERIVED = "derivatives/tumor/sub-A/anat/sub-A_label-tumor"


@pytest.fixture
def hospital(tmp_path) -> Path:
    """Two patients with labels, all scans on one LAS grid."""
    root = write_hospital(
        tmp_path / "north", {"A": ("1", "0", "1", "2"), "B": ("0", "0", "1", "4")}
    )
    for path in root.rglob("*.nii.gz"):
        write_image(path, np.asarray(nib.load(path).dataobj), LAS)
    return root


def drawing() -> np.ndarray:
    """No flip of the grid brings it onto itself."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[3:8, 6:14, 5:9] = 1
    mask[8, 7, 5] = mask[2, 6, 10] = 1
    return mask


def save(path: Path, data: np.ndarray, affine: np.ndarray = LAS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


@pytest.fixture
def mask(tmp_path) -> Path:
    return save(tmp_path / "viewer/corrected.nii.gz", drawing())


def by(mask: Path, author: str = "Dr. Ä. Weiß", **more) -> gliofed.Correction:
    return gliofed.Correction(mask, author, more.pop("date", DAY), **more)


def stored(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def told(path: Path) -> dict:
    return json.loads(path.with_name(path.name.partition(".nii")[0] + ".json").read_text())


def everything(root: Path) -> dict[str, bytes]:
    found = (p for p in root.rglob("*") if p.is_file() and p.name != ".lock")
    return {str(p.relative_to(root)): p.read_bytes() for p in found}


def test_a_study_reads_the_correction_and_the_earlier_label_is_kept(hospital, mask) -> None:
    label = hospital / f"{DERIVED}_mask.nii.gz"
    old, others = label.read_bytes(), everything(hospital)
    before = 8 * np.count_nonzero(stored(label)) / 1000
    done = gliofed.correct(by(mask), hospital, "sub-A")
    kept = hospital / f"{DERIVED}_desc-earlier1_mask.nii.gz"
    assert (done.path, done.earlier, done.sequence) == (label, kept, Sequence.FLAIR)
    assert done.volume_ml == pytest.approx(8 * drawing().sum() / 1000)
    assert done.volume_before_ml == pytest.approx(before)
    assert kept.read_bytes() == old
    case, other = gliofed.inspect(hospital).cases
    assert case.mask == label
    assert np.array_equal(stored(case.mask), drawing())
    assert np.array_equal(nib.load(label).affine, LAS)
    assert stored(label).dtype == np.uint8
    changed = {p for p, data in everything(hospital).items() if others.get(p) != data}
    assert changed == {f"{DERIVED}{e}" for e in (
        "_mask.nii.gz", "_mask.json", "_desc-earlier1_mask.nii.gz"
    )}  # fmt: skip
    assert other.mask.name == "sub-B_label-tumor_mask.nii.gz"


def test_the_sidecar_says_who_when_what_and_from_which_model(hospital, tmp_path) -> None:
    export = save(tmp_path / "sub-A_space-orig_label-tumor_desc-FLAIR_mask.nii.gz", drawing() * 0)
    made = {"GeneratedBy": [{"Name": "gliofed", "Version": "0", "Model": "3f2a9c"}]}
    export.with_name(export.name.replace(".nii.gz", ".json")).write_text(json.dumps(made))
    drawn = save(tmp_path / "viewer/corrected.nii.gz", drawing())
    old = digest(hospital / f"{DERIVED}_mask.nii.gz")
    said = told(gliofed.correct(by(drawn, export=export), hospital, "A").path)
    assert said["Author"] == "Dr. Ä. Weiß"
    assert said["Date"] == "2026-02-28"
    assert said["Corrects"] == {"File": f"{DERIVED}_desc-earlier1_mask.nii.gz", "SHA256": old}
    assert said["Export"] == {"File": export.name, "SHA256": digest(export)}
    assert said["SHA256"] == digest(hospital / f"{DERIVED}_mask.nii.gz")
    assert said["Drawing"] == {"Space": "scan", "SHA256": digest(drawn)}
    assert said["GeneratedBy"] == [{"Name": "gliofed", "Version": __version__, "Model": "3f2a9c"}]
    assert said["Manual"] is False
    assert said["SpatialReference"] == "sub-A_FLAIR.nii.gz"
    assert RESEARCH_USE_ONLY in said["Description"]


def test_an_export_that_a_viewer_saved_over_still_names_its_model(hospital, tmp_path) -> None:
    over = save(tmp_path / "Mueller_Joerg_desc-FLAIR_mask.nii.gz", drawing())
    made = {"GeneratedBy": [{"Name": "gliofed", "Version": "0", "Model": "3f2a9c"}]}
    over.with_name("Mueller_Joerg_desc-FLAIR_mask.json").write_text(json.dumps(made))
    done = gliofed.correct(by(over), hospital, "A")
    assert told(done.path)["GeneratedBy"][0]["Model"] == "3f2a9c"
    again = save(tmp_path / "x.nii.gz", np.roll(drawing(), 1, axis=2))
    text = json.dumps(told(gliofed.correct(by(again, export=over), hospital, "A").path))
    assert "Mueller" not in text  # names of files from elsewhere may be those of people
    assert digest(over) in text


@pytest.mark.parametrize(
    "odd", [{}, {"GeneratedBy": "x"}, {"GeneratedBy": [7]}, {"GeneratedBy": []}]
)
def test_a_mask_of_no_model_is_manual(odd, hospital, mask) -> None:
    if odd:
        mask.with_name("corrected.json").write_text(json.dumps(odd))
    said = told(gliofed.correct(by(mask), hospital, "A").path)
    assert said["Manual"] is True
    assert said["GeneratedBy"][0]["Model"] == ""
    assert said["Export"] is None


@pytest.mark.parametrize("turn", ["RAS", "LPS", "SRA", "PIL"])
def test_the_order_of_axes_in_the_file_does_not_matter(turn, hospital, mask) -> None:
    image = nib.load(mask)
    way = nib.orientations.ornt_transform(
        nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(turn)
    )
    turned = image.as_reoriented(way)
    assert nib.aff2axcodes(turned.affine) == tuple(turn)
    nib.save(turned, mask)
    done = gliofed.correct(by(mask), hospital, "A")
    assert np.array_equal(stored(done.path), drawing())
    assert np.array_equal(nib.load(done.path).affine, LAS)


def test_prepare_makes_a_new_entry_with_the_new_mask(hospital, mask, tmp_path) -> None:
    store = PreparedStore(tmp_path / "store")

    def prepared():
        case = gliofed.inspect(hospital).cases[0]
        return prepare_one(case, GridConfig((2.0, 2.0, 2.0)), STRIPPED, store)

    first, _ = prepared()
    assert prepared()[1]  # nothing changed: the entry is kept
    gliofed.correct(by(mask), hospital, "A")
    second, kept = prepared()
    assert not kept
    assert first.key != second.key
    ras = read_nifti(gliofed.inspect(hospital).cases[0].mask).data
    where = np.array([w.mean() for w in np.nonzero(second.mask)])
    truth = apply_affine(np.linalg.inv(second.affine), apply_affine(
        read_nifti(hospital / f"{DERIVED}_mask.nii.gz").affine, np.argwhere(ras).mean(0)
    ))  # fmt: skip
    inside = np.count_nonzero(ras)
    assert second.mask.sum() <= inside
    assert np.abs(where - truth).max() < 1.5  # the crop to the brain may take some of it
    assert np.array_equal(first.image, second.image)


def test_each_correction_keeps_the_one_before(hospital, tmp_path) -> None:
    first = digest(hospital / f"{DERIVED}_mask.nii.gz")
    seen = [first]
    for number in range(1, 4):
        path = save(tmp_path / f"{number}.nii.gz", np.roll(drawing(), number, axis=2))
        done = gliofed.correct(by(path, author=f"reader {number}"), hospital, "A")
        assert done.earlier.name == f"sub-A_label-tumor_desc-earlier{number}_mask.nii.gz"
        assert digest(done.earlier) == seen[-1]
        assert told(done.path)["Corrects"]["SHA256"] == seen[-1]
        if number > 1:
            assert told(done.earlier)["Author"] == f"reader {number - 1}"
        seen.append(digest(done.path))
    assert len(set(seen)) == 4
    assert np.array_equal(
        stored(gliofed.inspect(hospital).cases[0].mask), np.roll(drawing(), 3, axis=2)
    )


def test_going_back_to_an_earlier_mask_keeps_both_authors(hospital, tmp_path) -> None:
    one = save(tmp_path / "1.nii.gz", drawing())
    two = save(tmp_path / "2.nii.gz", np.roll(drawing(), 1, axis=2))
    for number, path in enumerate((one, two, one, two), start=1):
        done = gliofed.correct(by(path, author=f"reader {number}"), hospital, "A")
    kept = [hospital / f"{DERIVED}_desc-earlier{n}_mask.nii.gz" for n in (2, 3, 4)]
    assert [told(k)["Author"] for k in kept] == ["reader 1", "reader 2", "reader 3"]
    assert digest(kept[0]) == digest(kept[2])
    assert told(done.path)["Author"] == "reader 4"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("after", range(4))
def test_interrupted_the_earlier_label_stays_in_force(
    after, error, hospital, tmp_path, monkeypatch
) -> None:
    """Before the second correction, which has all that there is to write: two files kept, two new."""
    gliofed.correct(by(save(tmp_path / "1.nii.gz", drawing()), "reader 1"), hospital, "A")
    label = hospital / f"{DERIVED}_mask.nii.gz"
    old, first = label.read_bytes(), told(label)
    second = by(save(tmp_path / "2.nii.gz", np.roll(drawing(), 1, axis=2)), "reader 2")
    left = after
    write = module.write_bytes

    def broken(path, data):
        nonlocal left
        if left == 0:
            raise error
        left -= 1
        write(path, data)

    monkeypatch.setattr(module, "write_bytes", broken)
    monkeypatch.setattr(module, "write_text", lambda p, text: broken(p, text.encode()))
    with pytest.raises(type(error)):
        gliofed.correct(second, hospital, "A")
    monkeypatch.undo()
    assert label.read_bytes() == old
    assert gliofed.inspect(hospital).cases[0].mask == label
    said = told(label)  # of the label, or of the correction under way, and never both
    assert said == first or said["Corrects"]["SHA256"] == digest(label) != said["SHA256"]
    done = gliofed.correct(second, hospital, "A")
    kept = hospital / f"{DERIVED}_desc-earlier2_mask.nii.gz"
    assert done.earlier == kept
    assert kept.read_bytes() == old
    assert told(kept) == first
    assert told(label)["Author"] == "reader 2"
    assert not (hospital / f"{DERIVED}_desc-earlier3_mask.nii.gz").exists()


def test_two_at_once_do_not_lose_a_label(hospital, mask) -> None:
    before = everything(hospital)
    with (
        alone_in(hospital / "derivatives"),
        pytest.raises(CheckpointError, match="another gliofed process"),
    ):
        gliofed.correct(by(mask), hospital, "A")
    assert everything(hospital) == before


def test_a_case_without_a_label_gets_one(hospital, mask) -> None:
    shutil.rmtree(hospital / "derivatives")
    done = gliofed.correct(by(mask), hospital, "A")
    assert done.path == hospital / "derivatives/gliofed/sub-A/anat/sub-A_label-tumor_mask.nii.gz"
    assert (done.earlier, done.volume_before_ml) == (None, None)
    assert told(done.path)["Corrects"] is None
    described = json.loads((hospital / "derivatives/gliofed/dataset_description.json").read_text())
    assert described["DatasetType"] == "derivative"
    assert [c.mask for c in gliofed.inspect(hospital).cases] == [done.path, None]


def test_several_classes_stay_where_they_are(hospital, mask, tmp_path) -> None:
    label = hospital / f"{DERIVED}_mask.nii.gz"
    classes = hospital / "derivatives/tumor/sub-A/anat/sub-A_dseg.nii.gz"
    label.rename(classes)
    old = digest(classes)
    done = gliofed.correct(by(mask), hospital, "A")
    assert (done.earlier, digest(classes)) == (classes, old)
    assert gliofed.inspect(hospital).cases[0].mask == done.path
    assert told(done.path)["Corrects"] == {
        "File": "derivatives/tumor/sub-A/anat/sub-A_dseg.nii.gz", "SHA256": old
    }  # fmt: skip
    again = save(tmp_path / "2.nii.gz", np.roll(drawing(), 1, axis=2))
    assert gliofed.correct(by(again), hospital, "A").earlier.name.endswith(
        "_desc-earlier1_mask.nii.gz"
    )


def test_a_label_that_is_not_compressed_keeps_its_name(hospital, mask) -> None:
    label = hospital / f"{DERIVED}_mask.nii.gz"
    plain = label.with_name("sub-A_label-lesion_mask.nii")
    nib.save(nib.load(label), plain)
    label.unlink()
    done = gliofed.correct(by(mask), hospital, "A")
    assert done.path == plain
    assert done.earlier.name == "sub-A_label-lesion_desc-earlier1_mask.nii"
    assert np.array_equal(stored(plain), drawing())


def test_sessions(hospital, mask) -> None:
    shutil.rmtree(hospital / "derivatives")
    anat = hospital / "sub-A/anat"
    target = hospital / "sub-A/ses-pre/anat"
    target.mkdir(parents=True)
    for path in anat.iterdir():
        path.rename(target / path.name.replace("sub-A_", "sub-A_ses-pre_"))
    done = gliofed.correct(by(mask), hospital, "A")
    assert done.path.relative_to(hospital) == Path(
        "derivatives/gliofed/sub-A/ses-pre/anat/sub-A_ses-pre_label-tumor_mask.nii.gz"
    )
    assert gliofed.inspect(hospital).cases[0].mask == done.path


@pytest.mark.process
def test_the_check_of_the_hospital_finds_no_fault_of_its_own(hospital, mask, tmp_path) -> None:
    before = {f.code for f in gliofed.check(hospital).findings}
    gliofed.correct(by(mask), hospital, "A")
    gliofed.correct(by(save(tmp_path / "2.nii.gz", np.roll(drawing(), 1, 2))), hospital, "A")
    after = {f.code for f in gliofed.check(hospital).findings}
    assert not {c for c in after - before if not c.startswith("SET-MASK")}
    assert "SET-MASK-TWICE" not in after


def test_the_scan_is_the_one_whose_grid_it_has(hospital, tmp_path) -> None:
    coarse = LAS @ np.diag([1, 1, 2, 1])
    scan = hospital / "sub-A/anat/sub-A_T1w.nii.gz"
    write_image(scan, stored(scan)[:, :, ::2], coarse)
    path = save(tmp_path / "t1.nii.gz", drawing()[:, :, ::2], coarse)
    done = gliofed.correct(by(path), hospital, "A")
    assert done.sequence is Sequence.T1
    assert stored(done.path).shape == (20, 24, 9)
    with pytest.raises(DataError, match=r"has 20 x 24 x 9 voxels along the axes of sub-A_T2w"):
        gliofed.correct(by(path, sequence=Sequence.T2), hospital, "A")
    odd = save(tmp_path / "odd.nii.gz", drawing()[1:], LAS)
    with pytest.raises(DataError, match=r"none of the case's scans: has 19 x 24 x 18 voxels"):
        gliofed.correct(by(odd), hospital, "A")


def test_half_a_voxel_off_is_refused_and_less_is_not(hospital, tmp_path) -> None:
    for part, refused in ((0.51, True), (0.49, False)):
        moved = LAS.copy()
        moved[1, 3] += 2 * part
        path = save(tmp_path / "m.nii.gz", drawing(), moved)
        if refused:
            before = everything(hospital)
            with pytest.raises(DataError, match=r"1\.02 mm \(0\.51 voxels\) off sub-A_FLAIR"):
                gliofed.correct(by(path), hospital, "A")
            assert everything(hospital) == before
        else:
            assert np.array_equal(stored(gliofed.correct(by(path), hospital, "A").path), drawing())


def test_labels(hospital, tmp_path) -> None:
    labels = drawing() * 2 + (drawing()[::-1] > 0)
    labels[:, 10:][labels[:, 10:] == 2] = 3
    several = save(tmp_path / "several.nii.gz", labels)
    with pytest.raises(
        DataError, match="holds the labels 1, 2, 3; name those that are tumour with --label"
    ):
        gliofed.correct(by(several), hospital, "A")
    with pytest.raises(DataError, match="holds no label 7; it holds 1, 2, 3"):
        gliofed.correct(by(several, labels=("2", "7")), hospital, "A")
    done = gliofed.correct(by(several, labels=("2", "3")), hospital, "A")
    assert np.array_equal(stored(done.path), drawing())
    alone = save(tmp_path / "alone.nii.gz", drawing()[:, :, ::-1] * 255)
    assert np.array_equal(
        stored(gliofed.correct(by(alone), hospital, "A").path), drawing()[:, :, ::-1]
    )


def test_an_empty_mask_only_when_asked_for(hospital, tmp_path) -> None:
    path = save(tmp_path / "empty.nii.gz", drawing() * 0)
    with pytest.raises(DataError, match="the mask is empty; if A has no tumour"):
        gliofed.correct(by(path), hospital, "A")
    done = gliofed.correct(by(path, empty=True), hospital, "A")
    assert done.volume_ml == 0
    assert not stored(gliofed.inspect(hospital).cases[0].mask).any()
    assert told(done.path)["Corrects"] is not None


def test_what_changes_nothing_is_refused(hospital, mask) -> None:
    gliofed.correct(by(mask), hospital, "A")
    before = everything(hospital)
    with pytest.raises(DataError, match="is voxel for voxel the label in force"):
        gliofed.correct(by(mask, author="another"), hospital, "A")
    assert everything(hospital) == before


def test_a_damaged_label_can_be_corrected(hospital, mask) -> None:
    label = hospital / f"{DERIVED}_mask.nii.gz"
    label.write_bytes(label.read_bytes()[:60])
    done = gliofed.correct(by(mask), hospital, "A")
    assert done.volume_before_ml is None
    assert len(done.earlier.read_bytes()) == 60


def test_a_label_that_somebody_changed_keeps_its_sidecar(hospital, mask, tmp_path) -> None:
    done = gliofed.correct(by(mask, "reader 1"), hospital, "A")
    save(done.path, np.roll(drawing(), 3, axis=1))  # by hand, past gliofed
    by_hand = done.path.read_bytes()
    again = save(tmp_path / "2.nii.gz", np.roll(drawing(), 1, axis=2))
    done = gliofed.correct(by(again, "reader 2"), hospital, "A")
    assert done.earlier.read_bytes() == by_hand
    assert told(done.earlier)["Author"] == "reader 1"
    assert told(done.earlier)["SHA256"] != digest(done.earlier)


def refused(tmp_path: Path, hospital: Path) -> dict[str, tuple[gliofed.Correction, str, str]]:
    """What is wrong: the correction, the subject, and what is said."""
    good = save(tmp_path / "good.nii.gz", drawing())
    text = tmp_path / "text.nii.gz"
    text.write_text("no NIfTI")
    nan = drawing().astype(np.float32)
    nan[0, 0, 0] = np.nan
    tomorrow = datetime.date.today() + datetime.timedelta(days=1)
    return {
        "absent": (by(tmp_path / "absent.nii.gz"), "A", "no such file"),
        "folder": (by(tmp_path), "A", "cannot be read"),
        "text": (by(text), "A", "cannot be read as an image"),
        "fractions": (
            by(save(tmp_path / "f.nii.gz", drawing() * 0.5)),
            "A",
            "mask with fractional values",
        ),
        "below 0": (
            by(save(tmp_path / "n.nii.gz", -drawing().astype(np.int16))),
            "A",
            "lowest label is -1",
        ),
        "NaN": (by(save(tmp_path / "nan.nii.gz", nan)), "A", "NaN"),
        "no author": (by(good, author=" "), "A", "the author is"),
        "author on two lines": (by(good, author="a\nb"), "A", "on one line"),
        "tomorrow": (by(good, date=tomorrow), "A", "is in the future"),
        "another subject": (by(good), "C", "has no case sub-C with images; there: sub-A, sub-B"),
        "export gone": (by(good, export=tmp_path / "gone.nii.gz"), "A", "no such file"),
    }


@pytest.mark.parametrize("wrong", [
    "absent", "folder", "text", "fractions", "below 0", "NaN", "no author", "author on two lines",
    "tomorrow", "another subject", "export gone",
])  # fmt: skip
def test_bad_input_is_one_clear_error_and_nothing_is_written(wrong, hospital, tmp_path) -> None:
    correction, subject, says = refused(tmp_path, hospital)[wrong]
    before = everything(hospital)
    with pytest.raises(DataError, match=says):
        gliofed.correct(correction, hospital, subject)
    assert everything(hospital) == before
    assert not (hospital / "derivatives/.lock").exists()


def test_a_sequence_that_is_not_there(hospital, mask) -> None:
    (hospital / "sub-A/anat/sub-A_T2w.nii.gz").unlink()
    with pytest.raises(DataError, match="sub-A: has no T2; it has T1, T1CE, FLAIR"):
        gliofed.correct(by(mask, sequence=Sequence.T2), hospital, "A")


def test_no_hospital(tmp_path, mask) -> None:
    for folder in (tmp_path / "absent", tmp_path / "viewer"):
        with pytest.raises(DataError):
            gliofed.correct(by(mask), folder, "A")
        assert not (folder / "derivatives").exists()


# --- in the network's space, and from DICOM

MOVED = rigid((10.0, -20.0, 15.0), (4.0, -3.0, 6.0))
MADE = dicom.Made(48, 52, 12, (0.9, 1.0, 4.0), dicom.oblique(), 1, (-28.0, -22, -18))


@pytest.fixture
def scanned(tmp_path) -> Path:
    """A hospital with one patient, whose oblique FLAIR was DICOM; no label yet."""
    folder = dicom.write_series(tmp_path / "dicom", MADE)
    anat = tmp_path / "east/sub-7/anat"
    anat.mkdir(parents=True)
    subprocess.run([dcm2niix, "-f", "sub-7_FLAIR", "-b", "n", "-z", "i", "-o", anat, folder],
                   check=True, capture_output=True)  # fmt: skip
    (tmp_path / "east/participants.tsv").write_text("participant_id\tidh\nsub-7\t1\n")
    return tmp_path / "east"


@pytest.fixture
def entry(scanned, tmp_path) -> Path:
    scan = scanned / "sub-7/anat/sub-7_FLAIR.nii.gz"
    image = nib.load(scan)
    placement = Placement(image.shape, image.affine, MOVED)
    made = StoreEntry(np.ones((4, *SIZE), np.float16), None, (False, False, False, True), NETWORK,
                 {Sequence.FLAIR: placement}, None, PreparationMeasures(1.3, None, {}), "stripped",
                 Sequence.FLAIR)  # fmt: skip
    sources = {"FLAIR": {"file": scan.name, "sha256": digest(scan)}}
    PreparedStore(tmp_path / "store").put("abc", made, {"sources": sources})
    return tmp_path / "store/abc"


@pytest.mark.process
def test_a_mask_in_the_network_space_comes_to_the_scan(scanned, entry, tmp_path) -> None:
    path = save(tmp_path / "net.nii.gz", ellipsoid().astype(np.uint8), NETWORK)
    done = gliofed.correct(by(path, entry=entry), scanned, "7")
    scan = nib.load(scanned / "sub-7/anat/sub-7_FLAIR.nii.gz")
    drawn = Prediction(ellipsoid().astype(np.float32), NETWORK, {})
    there = mask_on_scan(drawn, Placement(scan.shape, scan.affine, MOVED))
    assert np.array_equal(stored(done.path) > 0, there)
    assert np.array_equal(nib.load(done.path).affine, scan.affine)
    middle = apply_affine(scan.affine, np.argwhere(there)).mean(0)
    assert np.abs(middle - apply_affine(MOVED, CENTRE)).max() < 1
    assert told(done.path)["Drawing"]["Space"] == "network"
    assert read_bids(scanned, "east")[0].mask == done.path
    turned = nib.load(path).as_reoriented(np.array([[1, -1], [0, 1], [2, -1]]))
    nib.save(turned, path)
    with pytest.raises(DataError, match="voxel for voxel"):
        gliofed.correct(by(path, entry=entry), scanned, "7")


@pytest.mark.process
def test_what_lies_outside_the_scan_is_told(scanned, entry, tmp_path) -> None:
    moved = np.roll(ellipsoid(), 14, axis=2)
    done = gliofed.correct(
        by(save(tmp_path / "n.nii.gz", moved.astype(np.uint8), NETWORK), entry=entry), scanned, "7"
    )
    scan = nib.load(scanned / "sub-7/anat/sub-7_FLAIR.nii.gz")
    way = np.linalg.inv(scan.affine) @ MOVED @ NETWORK
    beyond = sum(
        any(not -0.5 <= x <= n - 0.5 for x, n in zip(apply_affine(way, v), scan.shape, strict=True))
        for v in np.argwhere(moved)
    )
    assert 0 < beyond < moved.sum()
    assert done.outside_ml == pytest.approx(beyond / 1000)


@pytest.mark.process
def test_a_prepared_case_of_other_scans_is_refused(scanned, entry, tmp_path) -> None:
    path = save(tmp_path / "net.nii.gz", ellipsoid().astype(np.uint8), NETWORK)
    record = json.loads((entry / "entry.json").read_text())
    with pytest.raises(DataError, match="has 39 x 48 x 36 voxels"):
        gliofed.correct(
            by(save(tmp_path / "c.nii.gz", ellipsoid()[1:].astype(np.uint8), NETWORK), entry=entry),
            scanned, "7",
        )  # fmt: skip
    for sources in ({"FLAIR": {"file": "x", "sha256": "0" * 64}}, {}):
        record["provenance"] = {"sources": sources}
        (entry / "entry.json").write_text(json.dumps(record))
        with pytest.raises(DataError, match=r"was not prepared from .*sub-7_FLAIR"):
            gliofed.correct(by(path, entry=entry), scanned, "7")
    record["placements"] = {}
    (entry / "entry.json").write_text(json.dumps(record))
    with pytest.raises(DataError, match="was prepared without FLAIR"):
        gliofed.correct(by(path, entry=entry), scanned, "7")
    assert not (scanned / "derivatives").exists()


@pytest.mark.process
def test_a_dicom_segmentation_from_elsewhere(scanned, entry, tmp_path) -> None:
    scan = nib.load(scanned / "sub-7/anat/sub-7_FLAIR.nii.gz")
    drawn = np.zeros(scan.shape, bool)
    drawn[10:20, 12:30, 3:6] = drawn[4, 5, 2] = True
    seg = tmp_path / "corrected.dcm"
    write_segmentation(drawn, scan.affine, tmp_path / "dicom", seg, MaskAuthor("m", "Curie^Marie"))
    with pytest.raises(DataError, match="give it without --case"):
        gliofed.correct(by(seg, entry=entry), scanned, "7")
    done = gliofed.correct(by(seg), scanned, "sub-7")
    assert np.array_equal(stored(done.path) > 0, drawn)
    assert told(done.path)["Drawing"] == {"Space": "DICOM-SEG", "SHA256": digest(seg)}
    with pytest.raises(DataError, match="0 of them are 'core'"):
        gliofed.correct(by(seg, labels=("core",)), scanned, "7")
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(seg.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"cut\.dcm"):
        gliofed.correct(by(cut), scanned, "7")


@pytest.mark.process
def test_a_segmentation_of_another_series_is_refused(scanned, tmp_path) -> None:
    other = replace(MADE, first=(-28.0, -22, -10))
    folder = dicom.write_series(tmp_path / "other", other)
    drawn = np.zeros((48, 52, 12), bool)
    drawn[10:20, 12:30, 3:6] = True
    write_segmentation(drawn, other.affine(), folder, tmp_path / "o.dcm", MaskAuthor())
    with pytest.raises(DataError, match="grid"):
        gliofed.correct(by(tmp_path / "o.dcm"), scanned, "7")
    assert not (scanned / "derivatives").exists()


# --- the command


def command(*words):
    return CliRunner().invoke(app, ["correct", *map(str, words)])


def test_the_command(hospital, mask, tmp_path) -> None:
    words = ("--hospital", hospital, "--subject", "A", "--author", "Dr. Ä. Weiß")
    done = command(mask, *words, "--date", "2026-02-28", "--sequence", "flair", "--label", "1")
    assert done.exit_code == 0, done.output
    line, caution = done.stdout.splitlines()
    label = hospital / f"{DERIVED}_mask.nii.gz"
    assert line.startswith(f"{label}: on FLAIR, {8 * drawing().sum() / 1000:.2f} ml (was ")
    assert line.endswith(f"the label before it is {hospital / DERIVED}_desc-earlier1_mask.nii.gz")
    assert caution == RESEARCH_USE_ONLY
    assert told(label)["Date"] == "2026-02-28"
    again = command(mask, *words)
    assert again.exit_code == 1
    (error,) = again.stderr.splitlines()
    assert error.startswith("DataError: ")
    empty = save(tmp_path / "e.nii.gz", drawing() * 0)
    assert command(empty, *words).exit_code == 1
    assert command(empty, *words, "--empty").exit_code == 0
    assert told(label)["Date"] == datetime.date.today().isoformat()


@pytest.mark.parametrize(("words", "says"), [
    (("--date", "28.2.2026"), "expected a day as 2026-02-28"),
    (("--sequence", "DWI"), "is none of T1, T1CE, T2, FLAIR"),
])  # fmt: skip
def test_words_that_make_no_command(words, says, hospital, mask) -> None:
    done = command(mask, "--hospital", hospital, "--subject", "A", "--author", "x", *words)
    assert done.exit_code == 2
    assert says in " ".join(done.stderr.replace("│", " ").split())
