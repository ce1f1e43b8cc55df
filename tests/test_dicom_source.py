"""A source series: found whatever its files are called, and refused where it is no one stack."""

from __future__ import annotations

import dicom_maker as maker
import dicom_series as dicom
import nibabel as nib
import numpy as np
import pydicom
import pytest

from gliofed.dicom.seg import MaskAuthor, build_segmentation, read_segmentation
from gliofed.dicom.source_series import read_series
from gliofed.errors import DataError
from gliofed.inference.scan_source import load_scans
from gliofed.inference.unused_files import find_unused
from gliofed.runtime.progress import NO_PROGRESS
from gliofed.validation.locate import locate


@pytest.fixture
def flair(tmp_path):
    return dicom.write_series(tmp_path / "flair", dicom.Made())


def changed(kind):
    def change(ds, index):
        match kind:
            case "ct":
                ds.Modality = "CT"
            case "localiser" if index > 4:
                ds.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
            case "echoes":
                ds.ImagePositionPatient[2] = float(dicom.Made().first[2]) + 5 * (index // 2)
            case "uneven":
                ds.ImagePositionPatient[2] += 0.7 * (index % 2)
            case "sheared":
                ds.ImagePositionPatient[0] += 0.3 * index
            case "no place":
                del ds.ImagePositionPatient
            case "no frame":
                del ds.FrameOfReferenceUID
            case "multi-frame":
                ds.NumberOfFrames = 2

    return change


@pytest.mark.parametrize(("kind", "says"), [
    ("ct", "holds no MR series but 5 't2_flair' .CT, 10 images"),
    ("localiser", "differ in orientation"),
    ("echoes", "several images at one place"),
    ("uneven", "unevenly spaced"),
    ("sheared", "right angle"),
    ("no place", "no ImagePositionPatient"),
    ("no frame", "no FrameOfReferenceUID"),
    ("multi-frame", "several multi-frame images"),
])  # fmt: skip
def test_a_series_that_cannot_carry_a_mask(kind, says, tmp_path) -> None:
    folder = dicom.write_series(tmp_path / "s", dicom.Made(), change=changed(kind))
    with pytest.raises(DataError, match=says):
        read_series(folder)


def test_missing_slices_are_counted(flair) -> None:
    for name in ("004.dcm", "005.dcm"):
        (flair / name).unlink()
    with pytest.raises(DataError, match="2 slices are missing, first after slice 4 of 8"):
        read_series(flair)


def test_a_multi_frame_image_without_its_frames_places(flair) -> None:
    for path in sorted(flair.iterdir())[1:]:
        path.unlink()
    image = pydicom.dcmread(flair / "000.dcm")
    image.NumberOfFrames = 2
    image.save_as(flair / "000.dcm")
    with pytest.raises(DataError, match="no PixelSpacing"):
        read_series(flair)


def test_no_folder_no_series_one_image(tmp_path, flair) -> None:
    with pytest.raises(DataError, match="no such folder"):
        read_series(tmp_path / "gone")
    (tmp_path / "none").mkdir()
    (tmp_path / "none/notes.txt").write_text("hello")
    with pytest.raises(DataError, match="no DICOM image"):
        read_series(tmp_path / "none")
    for path in sorted(flair.iterdir())[1:]:
        path.unlink()
    with pytest.raises(DataError, match="has one slice"):
        read_series(flair)


def test_several_series_are_listed_and_one_is_chosen(tmp_path) -> None:
    folder = tmp_path / "study"
    for number, description, slices in ((5, "t2_flair", 10), (6, "t1_post", 8)):
        made = dicom.Made(number=number, description=description, slices=slices)
        dicom.write_series(folder / str(number), made)
    with pytest.raises(DataError, match=r"2 MR series: 5 't2_flair'.*; 6 't1_post'.*choose one"):
        read_series(folder)
    assert read_series(folder, "6").shape == (20, 24, 8)
    uid = str(read_series(folder, "5").images[0].SeriesInstanceUID)
    assert read_series(folder, uid).shape == (20, 24, 10)
    with pytest.raises(DataError, match="no series 7"):
        read_series(folder, "7")


@pytest.mark.parametrize("vendor", ["SIEMENS", "Philips Medical Systems"])
def test_an_enhanced_image_lies_where_its_classic_slices_lie(vendor, tmp_path) -> None:
    maker.write_series(tmp_path / "classic", maker.SIEMENS["T2"], vendor=vendor)
    maker.write_series(
        tmp_path / "one", maker.SIEMENS["T2"], vendor=vendor, enhanced=lambda d: None
    )
    classic, enhanced = read_series(tmp_path / "classic"), read_series(tmp_path / "one")
    assert [s.plane for s in enhanced.slices] == [s.plane for s in classic.slices]
    assert [s.frame for s in enhanced.slices] == [*range(1, 13)]
    np.testing.assert_array_equal(enhanced.affine, classic.affine)
    assert (len(enhanced.images), len(classic.images)) == (1, 12)


@pytest.mark.parametrize(("kind", "shift", "says"), [
    ("uneven", 0.09, ""), ("uneven", 0.11, "unevenly spaced"),
    ("sideways", 0.4, ""), ("sideways", 0.6, "right angle"),
])  # fmt: skip
def test_how_far_a_slice_may_lie_from_an_even_stack(kind, shift, says, tmp_path) -> None:
    """uneven: in steps of 5 mm. sideways: in pixels of 1 mm."""

    def change(ds, index):
        if index == 5:
            axis, mm = (2, 5 * shift) if kind == "uneven" else (0, shift)
            ds.ImagePositionPatient[axis] += mm

    folder = dicom.write_series(tmp_path / "s", dicom.Made(), change=change)
    if says:
        with pytest.raises(DataError, match=says):
            read_series(folder)
    else:
        assert read_series(folder).shape == (20, 24, 10)


def echoes(data, index) -> None:
    """Proton density and T2 at each of 12 places."""
    first = maker.turned()[:, 2] * 1.3 * (index - index % 2 - 11)
    data.EchoTime = 93.0 if index % 2 else 12.0
    data.ImagePositionPatient = [f"{v:.8f}"[:16] for v in first]


@pytest.mark.process
@pytest.mark.parametrize("enhanced", [None, lambda data: None], ids=["classic", "enhanced"])
def test_the_slices_of_one_echo_carry_the_results_on_it(tmp_path, enhanced) -> None:
    maker.write_series(tmp_path / "in", maker.SIEMENS["T2"], shape=(20, 16, 24), change=echoes,
                       vendor="Philips Medical Systems", enhanced=enhanced)  # fmt: skip
    scans = load_scans(str(tmp_path / "in"), tmp_path / "out", None, NO_PROGRESS)
    ((place,),) = (series.values() for series in scans.series.values())
    source = read_series(place.folder, place.choose, place.slices)
    assert source.shape == (20, 16, 12)
    assert {float(s.header.get("EchoTime", 93)) for s in source.slices} == {93.0}
    (scan,) = scans.folder.glob("sub-*/anat/*_T2w.nii.gz")
    image = nib.load(scan)
    mask = np.random.default_rng(1).random(image.shape) > 0.7
    data = build_segmentation(mask, image.affine, source, MaskAuthor(model="m"))
    (tmp_path / "seg.dcm").write_bytes(data)
    back = read_segmentation(tmp_path / "seg.dcm", image.shape, image.affine)
    np.testing.assert_array_equal(back, mask)


@pytest.mark.process
def test_results_are_on_the_copy_that_is_used_and_on_files_without_a_preamble(tmp_path) -> None:
    made = maker.write_series(tmp_path / "in", maker.SIEMENS["T2"])
    maker.write_series(tmp_path / "in/b", maker.SIEMENS["T2"],
                       change=lambda d, i: setattr(d, "SOPInstanceUID", f"1.2.{i}"))  # fmt: skip
    for path in made.files:
        path.write_bytes(path.read_bytes()[132:])
    scans = load_scans(str(tmp_path / "in"), tmp_path / "out", None, NO_PROGRESS)
    ((place,),) = (series.values() for series in scans.series.values())
    source = read_series(place.folder, place.choose, place.slices)
    (scan,) = scans.folder.glob("sub-*/anat/*_T2w.nii.gz")
    image = nib.load(scan)
    mask = np.ones(image.shape, bool)
    assert build_segmentation(mask, image.affine, source, MaskAuthor(model="m"))


@pytest.mark.process
def test_studies_of_a_patient_by_date_need_no_decision(tmp_path) -> None:
    for number, date in enumerate(("20190730", "20200112"), start=1):
        who = maker.Who(date=date)
        maker.write_series(tmp_path / "in", maker.SIEMENS["T2"], who=who, number=number)
    scans = load_scans(str(tmp_path / "in"), tmp_path / "out", None, NO_PROGRESS)
    assert scans.notes == ()
    ((site,), _) = locate(scans.folder)
    found = find_unused(scans.folder, site.cases)
    assert (found.by_case, found.others) == ({}, ())
    (line,) = found.sessions.values()
    assert line.endswith("ses-01 is used as preoperative, the first; not used: ses-02")
