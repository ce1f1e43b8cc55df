"""A mask on a DICOM series and back: where it lies, and what is refused."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import dicom_series as dicom
import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
from dcm2niix import bin as dcm2niix
from dicom_files import write_segmentation
from dicom_series import validated
from nibabel.affines import apply_affine

from gliofed.dicom.seg import (
    LABEL,
    MaskAuthor,
    SegmentTracking,
    build_segmentation,
    read_segmentation,
)
from gliofed.dicom.source_series import read_series
from gliofed.errors import DataError
from gliofed.notice import RESEARCH_USE_ONLY

BY_MODEL = MaskAuthor(model="base-7")
SHAPES = {
    "axial": dicom.Made(),
    "axial, slices downwards": dicom.Made(direction=-1),
    "oblique": dicom.Made(orientation=dicom.oblique(), spacing=(0.9, 1.1, 4.0)),
    "oblique, slices backwards": dicom.Made(orientation=dicom.oblique(), direction=-1),
    "half way between planes": dicom.Made(orientation=dicom.oblique((45.0, 0.0, 45.0))),
    "sagittal": dicom.Made(orientation=dicom.SAGITTAL, spacing=(0.5, 0.5, 1.2)),
    "sagittal, right to left": dicom.Made(orientation=dicom.SAGITTAL, direction=-1),
    "coronal": dicom.Made(orientation=dicom.CORONAL, spacing=(0.7, 0.6, 3.0)),
    "cubes": dicom.Made(columns=12, rows=12, slices=12, spacing=(1.0, 1.0, 1.0)),
}


def lopsided(shape) -> np.ndarray:
    """No turn or flip of a grid brings it onto itself."""
    mask = np.zeros(shape, bool)
    x, y, z = (n // 2 for n in shape)
    mask[x - 4 : x, y - 3 : y + 4, z - 2 : z + 1] = True
    mask[x + 1, y - 4, z + 2] = mask[1, 2, 1] = mask[shape[0] - 2, 2, 1] = True
    return mask


def in_order(points: np.ndarray) -> np.ndarray:
    return points[np.lexsort(points.round(1).T)]


def convert(folder: Path, out: Path):
    """The series as dcm2niix makes it: an image with its own axes."""
    out.mkdir(exist_ok=True)
    subprocess.run([dcm2niix, "-z", "n", "-f", "scan", "-o", out, folder], check=True,
                   capture_output=True)  # fmt: skip
    return nib.load(out / "scan.nii")


@pytest.fixture
def flair(tmp_path):
    return dicom.write_series(tmp_path / "flair", dicom.Made())


@pytest.fixture
def mask():
    return lopsided((20, 24, 10))


@pytest.mark.process
@pytest.mark.parametrize("made", SHAPES.values(), ids=SHAPES)
def test_a_mask_of_the_converted_scan_keeps_its_place(made, tmp_path) -> None:
    folder = dicom.write_series(tmp_path / "series", made)
    scan = convert(folder, tmp_path / "nifti")
    drawn, out = lopsided(scan.shape), tmp_path / "out.dcm"
    assert write_segmentation(drawn, scan.affine, folder, out, BY_MODEL)
    by_hand, truth = dicom.world_of(out), apply_affine(scan.affine, np.argwhere(drawn))
    assert by_hand.shape == truth.shape
    assert np.abs(in_order(by_hand) - in_order(truth)).max() < 1e-3
    assert np.array_equal(read_segmentation(out, scan.shape, scan.affine), drawn)
    volume = hd.seg.segread(out).get_volume(combine_segments=True)
    lps = apply_affine(volume.affine, np.argwhere(volume.array > 0))
    assert np.abs(in_order(lps * [-1, -1, 1]) - in_order(truth)).max() < 1e-3


@pytest.mark.parametrize("made", SHAPES.values(), ids=SHAPES)
def test_the_same_voxels_of_the_source_are_meant(made, tmp_path) -> None:
    """Without dcm2niix: pixel values of the referenced images say which voxel each is."""
    folder = dicom.write_series(tmp_path / "series", made)
    drawn = lopsided((made.columns, made.rows, made.slices))
    out = tmp_path / "out.dcm"
    write_segmentation(drawn, made.affine(), folder, out, BY_MODEL)
    sources = {ds.SOPInstanceUID: ds for ds in map(pydicom.dcmread, folder.iterdir())}
    seg = pydicom.dcmread(out)
    found = []
    for frame, pixels in zip(seg.PerFrameFunctionalGroupsSequence, seg.pixel_array, strict=True):
        refers = frame.DerivationImageSequence[0].SourceImageSequence[0]
        found += sources[refers.ReferencedSOPInstanceUID].pixel_array[pixels > 0].tolist()
    i, j, k = drawn.nonzero()
    assert sorted(found) == sorted((i + made.columns * (j + made.rows * k)).tolist())


def test_neither_names_nor_order_of_files_matter(tmp_path, mask) -> None:
    made = dicom.Made(series_uid="1.2.3")
    plain = dicom.write_series(tmp_path / "plain", made)
    order = np.random.default_rng(3).permutation(made.slices)
    mixed = dicom.write_series(tmp_path / "mixed", made, [f"sub{n % 2}-{n}" for n in order])
    (mixed / "deeper").mkdir()
    (mixed / f"sub0-{order[order % 2 == 0][0]}").rename(mixed / "deeper/one")
    (mixed / "notes.txt").write_text("no DICOM")
    shutil.copy(mixed / "deeper/one", mixed / "copy-of-one")
    places = []
    for folder in (plain, mixed):
        out = tmp_path / f"{folder.name}.dcm"
        write_segmentation(mask, made.affine(), folder, out, BY_MODEL)
        places.append(in_order(dicom.world_of(out)))
    assert np.array_equal(*places)


@pytest.mark.process
@pytest.mark.parametrize("kind", ["oblique, slices backwards", "sagittal"])
def test_a_multi_frame_source(kind, tmp_path) -> None:
    made = SHAPES[kind]
    single = dicom.write_series(tmp_path / "single", made)
    images = [pydicom.dcmread(p) for p in sorted(single.iterdir())][::-1]
    for image in images:
        image.ContentQualification, image.VolumetricProperties = "RESEARCH", "VOLUME"
    folder = tmp_path / "multi"
    folder.mkdir()
    hd.legacy.LegacyConvertedEnhancedMRImage(images, "1.2.3", 7, "1.2.4", 1).save_as(folder / "one")
    drawn = lopsided((made.columns, made.rows, made.slices))
    assert write_segmentation(drawn, made.affine(), folder, tmp_path / "o.dcm", BY_MODEL)
    points, truth = (
        dicom.world_of(tmp_path / "o.dcm"),
        apply_affine(made.affine(), np.argwhere(drawn)),
    )
    assert np.abs(in_order(points) - in_order(truth)).max() < 1e-3
    source, seg = pydicom.dcmread(folder / "one"), pydicom.dcmread(tmp_path / "o.dcm")
    for frame in seg.PerFrameFunctionalGroupsSequence:
        number = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        own = source.PerFrameFunctionalGroupsSequence[number - 1]
        here, there = (f.PlanePositionSequence[0].ImagePositionPatient for f in (frame, own))
        assert np.allclose(here, there, atol=1e-6)
    assert validated("dciodvfy", tmp_path / "o.dcm") == ["Segmentation"]


def test_slices_that_are_not_quite_even_keep_their_own_positions(tmp_path, mask) -> None:
    def jitter(ds, index):
        ds.ImagePositionPatient[2] += 0.2 * (index % 2)

    folder = dicom.write_series(tmp_path / "s", dicom.Made(), change=jitter)
    write_segmentation(mask, dicom.Made().affine(), folder, tmp_path / "o.dcm", BY_MODEL)
    there = {s.plane.position[2] for s in read_series(folder).slices}
    frames = pydicom.dcmread(tmp_path / "o.dcm").PerFrameFunctionalGroupsSequence
    assert {float(f.PlanePositionSequence[0].ImagePositionPatient[2]) for f in frames} <= there


@pytest.mark.process
@pytest.mark.parametrize(("author", "kind"), [
    (BY_MODEL, "AUTOMATIC"),
    (MaskAuthor("base-7", "Curie^Marie"), "SEMIAUTOMATIC"),
    (MaskAuthor(person="Weiß^Ähn"), "MANUAL"),
    (MaskAuthor(), "MANUAL"),
])  # fmt: skip
def test_what_a_viewer_shows(author, kind, flair, mask, tmp_path) -> None:
    out, tracking = tmp_path / "o.dcm", SegmentTracking("case 1")
    write_segmentation(mask, dicom.Made().affine(), flair, out, author, tracking=tracking)
    seg, source = pydicom.dcmread(out), pydicom.dcmread(flair / "000.dcm")
    for name in ("PatientName", "PatientID", "PatientBirthDate", "StudyInstanceUID", "StudyDate",
                 "AccessionNumber", "FrameOfReferenceUID"):  # fmt: skip
        assert seg[name].value == source[name].value, name
    assert RESEARCH_USE_ONLY in seg.SeriesDescription
    assert "research use only" in seg.ContentDescription
    assert seg.ContentDate
    assert seg.SeriesDate
    assert seg.SeriesInstanceUID != source.SeriesInstanceUID
    assert str(seg.get("ContentCreatorName", "")) == author.person
    (segment,) = seg.SegmentSequence
    assert segment.SegmentLabel == LABEL
    assert segment.SegmentAlgorithmType == kind
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == "108369006"
    assert (segment.TrackingID, segment.TrackingUID) == ("case 1", tracking.uid)
    assert len(segment.RecommendedDisplayCIELabValue) == 3
    if kind != "MANUAL":
        (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
        assert algorithm.AlgorithmParameters == "model=base-7"
    assert validated("dciodvfy", out) == ["Segmentation"]
    if author.person.isascii():
        assert validated("dcentvfy", out, *flair.iterdir()) == []


@pytest.mark.parametrize("names", [
    ("ISO_IR 192", "王^小東"),
    (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    (None, "Plain^Name"),
])  # fmt: skip
def test_names_in_any_script(names, tmp_path, mask) -> None:
    def named(ds, index):
        ds.SpecificCharacterSet, ds.PatientName = names
        if names[0] is None:
            del ds.SpecificCharacterSet

    folder = dicom.write_series(tmp_path / "s", dicom.Made(), change=named)
    for number, person in enumerate(("", "Weiß^Ähn")):
        out = tmp_path / f"{number}.dcm"
        write_segmentation(mask, dicom.Made().affine(), folder, out, MaskAuthor(person=person))
        assert pydicom.dcmread(out).PatientName == names[1]


@pytest.mark.process
def test_sources_without_patient_data_still_work(tmp_path, mask) -> None:
    def bare(ds, index):
        for name in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate",
                     "StudyTime", "StudyID", "AccessionNumber", "SliceThickness", "SeriesNumber",
                     "ReferringPhysicianName", "PositionReferenceIndicator"):  # fmt: skip
            delattr(ds, name)
        ds.PatientSex = "U"
        ds.PatientIdentityRemoved, ds.DeidentificationMethod = "YES", "by hand"

    folder = dicom.write_series(tmp_path / "s", dicom.Made(), change=bare)
    assert write_segmentation(mask, dicom.Made().affine(), folder, tmp_path / "o.dcm", BY_MODEL)
    assert pydicom.dcmread(tmp_path / "o.dcm").PatientIdentityRemoved == "YES"
    said = validated("dciodvfy", tmp_path / "o.dcm")
    assert [s for s in said if "needed to build DICOMDIR" not in s] == ["Segmentation"]


def test_an_empty_mask_is_no_file(flair, mask, tmp_path) -> None:
    out = tmp_path / "o.dcm"
    assert not write_segmentation(mask & False, dicom.Made().affine(), flair, out, BY_MODEL)
    assert not out.exists()


@pytest.mark.parametrize("axis", range(3))
def test_half_a_voxel_off_is_refused_and_less_is_not(axis, flair, mask, tmp_path) -> None:
    spacing = dicom.Made().spacing[axis]
    for part, refused in ((0.49, False), (0.51, True)):
        affine = dicom.Made().affine()
        affine[:3, 3] += affine[:3, axis] * part
        out = tmp_path / f"{part}.dcm"
        if refused:
            with pytest.raises(DataError, match=f"{spacing * part:.2f} mm \\(0.51 voxels\\)"):
                write_segmentation(mask, affine, flair, out, BY_MODEL)
        else:
            assert write_segmentation(mask, affine, flair, out, BY_MODEL)
            assert np.array_equal(read_segmentation(out, mask.shape, affine), mask)
        assert out.exists() is not refused


def test_a_mask_of_another_grid_is_refused(flair, mask, tmp_path) -> None:
    affine, out = dicom.Made().affine(), tmp_path / "o.dcm"
    with pytest.raises(DataError, match=r"20 x 24 x 9 voxels .* expected 20 x 24 x 10"):
        write_segmentation(mask[:, :, 1:], affine, flair, out, BY_MODEL)
    grown = affine @ np.diag([1.1, 1, 1, 1])
    with pytest.raises(DataError, match=r"1.90 mm"):
        write_segmentation(mask, grown, flair, out, BY_MODEL)


def test_a_segmentation_beside_its_source_is_not_taken_for_it(flair, mask) -> None:
    for name in ("a.dcm", "b.dcm"):
        assert write_segmentation(mask, dicom.Made().affine(), flair, flair / name, BY_MODEL)


def several_segments(
    folder: Path, first: np.ndarray, second: np.ndarray, out: Path, kind="BINARY"
) -> None:
    """Two overlapping segments by highdicom itself, empty frames kept, as viewers write them."""
    series = read_series(folder)
    described = [
        hd.seg.SegmentDescription(
            n, label, hd.sr.CodedConcept("49755003", "SCT", "Morphologically Abnormal Structure"),
            hd.sr.CodedConcept("108369006", "SCT", "Neoplasm"), "MANUAL",
        )
        for n, label in ((1, "edema"), (2, "whole tumor"))
    ]  # fmt: skip
    stacked = np.stack([first, second], -1).transpose(2, 1, 0, 3).astype(np.uint8)
    hd.seg.Segmentation(
        list(series.images), stacked, kind, described, hd.UID(), 9, hd.UID(), 1, "maker",
        "viewer", "1", "1", omit_empty_frames=False,
    ).save_as(out)  # fmt: skip


def test_a_correction_of_another_program_is_read_by_its_label(flair, mask, tmp_path) -> None:
    affine, out = dicom.Made().affine(), tmp_path / "o.dcm"
    other = np.roll(mask, 2, axis=1)
    several_segments(flair, other, mask, out)
    for label in ("whole tumor", "2"):
        assert np.array_equal(read_segmentation(out, mask.shape, affine, label), mask)
    assert np.array_equal(read_segmentation(out, mask.shape, affine, "edema"), other)
    with pytest.raises(DataError, match=r"1 'edema', 2 'whole tumor'.*give a label"):
        read_segmentation(out, mask.shape, affine)
    with pytest.raises(DataError, match="0 of them are 'core'"):
        read_segmentation(out, mask.shape, affine, "core")


def test_a_segmentation_of_another_scan_is_refused(flair, mask, tmp_path) -> None:
    affine, out = dicom.Made().affine(), tmp_path / "o.dcm"
    write_segmentation(mask, affine, flair, out, BY_MODEL)
    with pytest.raises(DataError, match="20 x 24 pixels"):
        read_segmentation(out, (21, 24, 10), affine)
    for part, refused in ((0.49, False), (0.51, True)):
        moved = affine.copy()
        moved[:3, 3] += affine[:3, 0] * part
        if refused:
            with pytest.raises(DataError, match=r"0.51 mm off"):
                read_segmentation(out, mask.shape, moved)
        else:
            assert np.array_equal(read_segmentation(out, mask.shape, moved), mask)
    with pytest.raises(DataError, match="outside"):
        read_segmentation(out, (20, 24, 4), affine)
    with pytest.raises(DataError, match="not a DICOM Segmentation"):
        read_segmentation(flair / "000.dcm", mask.shape, affine)
    (tmp_path / "cut.dcm").write_bytes(out.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"cut\.dcm"):
        read_segmentation(tmp_path / "cut.dcm", mask.shape, affine)
    (tmp_path / "text.dcm").write_text("no DICOM")
    with pytest.raises(DataError, match="cannot be read"):
        read_segmentation(tmp_path / "text.dcm", mask.shape, affine)


def test_damaged_bytes_are_a_clear_error_or_do_no_harm(flair, mask, tmp_path) -> None:
    affine, out, refused = dicom.Made().affine(), tmp_path / "o.dcm", 0
    write_segmentation(mask, affine, flair, out, BY_MODEL)
    one, rng = flair / "004.dcm", np.random.default_rng(0)
    sound = {one: one.read_bytes(), out: out.read_bytes()}
    for number in range(120):
        path = (one, out)[number % 2]
        raw = np.frombuffer(sound[path], np.uint8).copy()
        raw[rng.integers(132, len(raw) - 960 if path == one else len(raw), 3)] = rng.integers(
            256, size=3
        )
        path.write_bytes(raw[: rng.integers(200, len(raw))] if number % 5 == 0 else raw)
        try:
            if path == one:
                build_segmentation(mask, affine, read_series(flair), BY_MODEL)
            else:
                read_segmentation(out, mask.shape, affine)
        except DataError:
            refused += 1
        path.write_bytes(sound[path])
    assert 0 < refused < 120


def test_a_fractional_segmentation_is_refused(flair, mask, tmp_path) -> None:
    affine, out = dicom.Made().affine(), tmp_path / "o.dcm"
    write_segmentation(mask, affine, flair, out, BY_MODEL)
    seg = pydicom.dcmread(out)
    seg.SegmentationType = "FRACTIONAL"
    seg.save_as(out)
    with pytest.raises(DataError, match="fractional"):
        read_segmentation(out, mask.shape, affine)


def test_a_label_map_is_read_by_its_label(flair, mask, tmp_path) -> None:
    affine, out = dicom.Made().affine(), tmp_path / "o.dcm"
    other = np.roll(mask, 8, axis=1) & ~mask
    several_segments(flair, other, mask, out, "LABELMAP")
    assert np.array_equal(read_segmentation(out, mask.shape, affine, "whole tumor"), mask)
    assert np.array_equal(read_segmentation(out, mask.shape, affine, "1"), other)


@pytest.mark.parametrize("harm", ["order", "shift", "references", "voxels"])
def test_a_faulty_segmentation_is_never_written(harm, flair, mask, monkeypatch) -> None:
    """What the writing library might do wrong is seen when its file is read again."""
    build = hd.seg.Segmentation

    def faulty(**given):
        if harm == "order":
            given["pixel_array"] = given["pixel_array"][::-1]
        made = build(**given)
        frames = made.PerFrameFunctionalGroupsSequence
        if harm == "shift":
            frames[0].PlanePositionSequence[0].ImagePositionPatient[2] += 5
        if harm == "references":
            one, two = (f.DerivationImageSequence[0].SourceImageSequence[0] for f in frames[:2])
            one.ReferencedSOPInstanceUID = two.ReferencedSOPInstanceUID
        if harm == "voxels":
            made.PixelData = bytes([made.PixelData[0] ^ 1]) + made.PixelData[1:]
        return made

    monkeypatch.setattr(hd.seg, "Segmentation", faulty)
    with pytest.raises(DataError, match="after writing"):
        build_segmentation(mask, dicom.Made().affine(), read_series(flair), BY_MODEL)
