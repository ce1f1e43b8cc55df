"""From the network's space back to every scan: where an outline lands, and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import dicom_series as dicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
from conftest import STRIPPED, write_hospital
from dcm2niix import bin as dcm2niix
from ellipsoid import CENTRE, NETWORK, RADII, SIZE, depth, ellipsoid, rigid, voxels_in_mm
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.affines import apply_affine, voxel_sizes
from prepared_stores import prepare_here
from scipy.spatial import cKDTree
from typer.testing import CliRunner

import gliofed
from gliofed import dicom as gliofed_dicom
from gliofed.cli.main import app
from gliofed.data.formats.bids import read_bids
from gliofed.data.nifti import read_nifti
from gliofed.data.store import PreparedStore, StoreEntry
from gliofed.dicom.seg import read_segmentation
from gliofed.errors import DataError, StoreError, StudyError
from gliofed.evaluation.metrics.segmentation import dice
from gliofed.inference.mask_export import open_prepared_case, prediction_of_mask, read_mask_nifti
from gliofed.inference.native_grid import mask_on_scan
from gliofed.notice import RESEARCH_USE_ONLY
from gliofed.preprocessing.resampling import resample_mask
from gliofed.study import GridConfig
from gliofed.types import Placement, Prediction, PreparationMeasures, Sequence

MEASURES = PreparationMeasures(1.3, None, {})

MOVED = rigid((10.0, -20.0, 15.0), (4.0, -3.0, 6.0))
STRETCHED = MOVED @ np.diag([1.1, 0.95, 1.05, 1])  # as to a template
SCANS = {
    Sequence.FLAIR: (dicom.Made(48, 52, 12, (0.9, 1.0, 4.0), dicom.oblique(), 1, (-28.0, -22, -18)), MOVED),
    Sequence.T1: (dicom.Made(50, 50, 44, (1.0, 1.0, 1.0), dicom.SAGITTAL, -1, (-22.0, -24, 30)), STRETCHED),
}  # fmt: skip


@pytest.fixture
def case(tmp_path) -> Path:
    """A prepared case with two scans that were DICOM: an oblique FLAIR and a sagittal T1."""
    placements, sources = {}, {}
    for sequence, (made, matrix) in SCANS.items():
        folder = dicom.write_series(tmp_path / "dicom" / sequence, made)
        suffix = {"FLAIR": "FLAIR", "T1": "T1w"}[sequence]
        out = tmp_path / "bids/sub-07/anat"
        out.mkdir(parents=True, exist_ok=True)
        subprocess.run([dcm2niix, "-f", f"sub-07_ses-pre_{suffix}", "-b", "n", "-z", "i", "-o", out,
                        folder], check=True, capture_output=True)  # fmt: skip
        path = out / f"sub-07_ses-pre_{suffix}.nii.gz"
        scan = nib.load(path)
        placements[sequence] = Placement(scan.shape, scan.affine, matrix)
        sources[sequence.value] = {"file": path.name}
    image = np.zeros((4, *SIZE), np.float16)
    image[:, 5:-5, 5:-5, 5:-5] = 1
    image[3][ellipsoid()] = 2
    entry = StoreEntry(image, None, (True, False, False, True), NETWORK, placements, None,
                  MEASURES, "stripped", Sequence.FLAIR)  # fmt: skip
    PreparedStore(tmp_path / "store").put("abc", entry, {"sources": sources})
    return tmp_path / "store/abc"


@pytest.fixture
def mask(tmp_path) -> Path:
    return save(tmp_path / "mask.nii.gz", ellipsoid().astype(np.uint8))


def save(path: Path, data: np.ndarray, affine: np.ndarray = NETWORK) -> Path:
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


def command(*words):
    return CliRunner().invoke(app, ["export", *map(str, words)])


def scan_of(tmp_path: Path, sequence: Sequence) -> Path:
    suffix = {"FLAIR": "FLAIR", "T1": "T1w"}[sequence]
    return tmp_path / f"bids/sub-07/anat/sub-07_ses-pre_{suffix}.nii.gz"


NAME = "sub-07_ses-pre_space-orig_label-tumor_desc-{}_mask"


@pytest.mark.process
def test_every_scan_gets_the_outline_on_its_own_grid(case, mask, tmp_path) -> None:
    prepared = open_prepared_case(case)
    done = gliofed.export_mask(mask, case, gliofed.MaskExport(tmp_path / "out"))
    assert {d.sequence for d in done} == set(SCANS)
    for item in done:
        assert item.path == tmp_path / f"out/{NAME.format(item.sequence)}.nii.gz"
        found, source = nib.load(item.path), nib.load(scan_of(tmp_path, item.sequence))
        assert found.shape == source.shape
        assert np.array_equal(found.affine, source.affine)
        assert found.get_data_dtype() == np.uint8
        for code in ("sform_code", "qform_code"):
            assert found.header[code] == 1  # a scanner's coordinates
        assert RESEARCH_USE_ONLY in found.header["descrip"].item().decode()
        voxels = np.asarray(found.dataobj) > 0
        matrix = SCANS[item.sequence][1]
        inside = depth(apply_affine(np.linalg.inv(matrix), voxels_in_mm(found.shape, found.affine)))
        blur = voxel_sizes(found.affine).max() / 2 + 0.5
        assert voxels[inside > blur].all()
        assert not voxels[inside < -blur].any()
        volume = 4 / 3 * np.pi * RADII.prod() * np.linalg.det(matrix[:3, :3]) / 1000
        assert item.volume_ml == pytest.approx(
            voxels.sum() * voxel_sizes(found.affine).prod() / 1000
        )
        assert item.volume_ml == pytest.approx(volume, rel=0.05)
        sidecar = json.loads(
            item.path.with_name(item.path.name.replace(".nii.gz", ".json")).read_text()
        )
        assert RESEARCH_USE_ONLY in sidecar["Description"]
        assert sidecar["SpatialReference"] == prepared.case.images[item.sequence].name


@pytest.mark.process
def test_the_dicom_files_say_the_same_as_the_nifti_files(case, mask, tmp_path) -> None:
    series = {s: gliofed.SeriesLocation(tmp_path / "dicom" / s) for s in SCANS}
    done = gliofed.export_mask(
        mask, case, gliofed.MaskExport(tmp_path / "out", series, person="Curie^Marie")
    )
    tracked = set()
    for sequence in SCANS:
        image = nib.load(tmp_path / f"out/{NAME.format(sequence)}.nii.gz")
        path = tmp_path / f"out/{NAME.format(sequence)}.dcm"
        again = read_segmentation(path, image.shape, image.affine)
        assert np.array_equal(again, np.asarray(image.dataobj) > 0)
        drawn, placed = apply_affine(image.affine, np.argwhere(again)), dicom.world_of(path)
        order = [p[np.lexsort(p.round(1).T)] for p in (drawn, placed)]
        assert np.abs(order[0] - order[1]).max() < 1e-3
        segment = pydicom.dcmread(path).SegmentSequence[0]
        assert segment.SegmentAlgorithmType == "MANUAL"
        tracked.add(segment.TrackingUID)
    assert [d.kind for d in done] == ["NIfTI"] * 2 + ["DICOM-SEG"] * 2
    assert len(tracked) == 1


@settings(max_examples=15, deadline=None)
@given(
    turns=st.tuples(*[st.floats(-60, 60)] * 3),
    shift=st.tuples(*[st.floats(-40, 40)] * 3),
    flips=st.tuples(*[st.sampled_from([1, -1])] * 3),
    axes=st.permutations(range(3)),
)
def test_there_and_back_again(turns, shift, flips, axes) -> None:
    """Network to a scan of any pose and order of axes, and back, by the affines alone."""
    matrix, shape = rigid(turns, shift), np.array([90, 96, 100])[list(axes)]
    affine = np.eye(4)
    affine[:3, :3] = np.diag([0.9, 0.8, 1.1])[:, list(axes)] @ np.diag(flips)
    middle = apply_affine(matrix, CENTRE)
    affine[:3, 3] = middle - affine[:3, :3] @ ((shape - 1) / 2)
    outline = Prediction(ellipsoid().astype(np.float32), NETWORK, {})
    there = mask_on_scan(outline, Placement(tuple(shape), affine, matrix))
    where = apply_affine(affine, np.argwhere(there)).mean(0)
    assert np.abs(where - middle).max() < 0.1
    back = resample_mask(there, np.linalg.inv(matrix) @ affine, SIZE, NETWORK)
    assert dice(ellipsoid(), back) > 0.97


@pytest.mark.process
def test_probability_is_cut_at_one_half(case, tmp_path) -> None:
    prepared = open_prepared_case(case)
    below = np.where(ellipsoid(), 0.49, 0).astype(np.float32)
    above = np.where(ellipsoid(), 0.99, 0.02).astype(np.float32)
    for number, (data, any_left) in enumerate(((below, False), (above, True))):
        path = save(tmp_path / f"{number}.nii.gz", data)
        assert np.array_equal(read_mask_nifti(path, prepared).probability, data)
        done = gliofed.export_mask(path, case, gliofed.MaskExport(tmp_path / str(number)))
        assert all((d.volume_ml > 0) is any_left for d in done)
    labels = save(tmp_path / "labels.nii.gz", ellipsoid().astype(np.uint8) * 4)
    assert np.array_equal(read_mask_nifti(labels, prepared).probability, ellipsoid())
    assert np.array_equal(prediction_of_mask(ellipsoid(), prepared).probability, ellipsoid())


@pytest.mark.process
def test_a_mask_whose_axes_a_viewer_turned_is_the_same(case, mask, tmp_path) -> None:
    turned = nib.load(mask).as_reoriented(np.array([[1, -1], [0, 1], [2, -1]]))
    assert turned.shape != SIZE
    nib.save(turned, tmp_path / "turned.nii.gz")
    one, other = (
        read_mask_nifti(p, open_prepared_case(case)) for p in (mask, tmp_path / "turned.nii.gz")
    )
    assert np.array_equal(one.probability, other.probability)


@pytest.mark.process
def test_a_mask_of_another_grid_is_refused(case, tmp_path) -> None:
    prepared, data = open_prepared_case(case), ellipsoid().astype(np.uint8)
    with pytest.raises(
        DataError, match=r"has 39 x 48 x 36 voxels .* prepared case, expected 40 x 48 x 36"
    ):
        read_mask_nifti(save(tmp_path / "a.nii.gz", data[1:]), prepared)
    for part, refused in ((0.49, False), (0.51, True)):
        moved = NETWORK.copy()
        moved[1, 3] += part
        path = save(tmp_path / "b.nii.gz", data, moved)
        if refused:
            with pytest.raises(DataError, match=r"0\.51 mm \(0\.51 voxels\)"):
                read_mask_nifti(path, prepared)
        else:
            read_mask_nifti(path, prepared)
    for values, says in ((-1, "below 0"), (1.5, "neither integers nor from 0 to 1")):
        path = save(tmp_path / "c.nii.gz", data * np.float32(values))
        with pytest.raises(DataError, match=says):
            read_mask_nifti(path, prepared)


@pytest.mark.process
def test_a_probability_map_in_dicom_needs_its_model(case, tmp_path) -> None:
    path = save(tmp_path / "p.nii.gz", ellipsoid().astype(np.float32) * 0.9)
    series = {Sequence.FLAIR: gliofed.SeriesLocation(tmp_path / "dicom/FLAIR")}
    with pytest.raises(DataError, match="name the model"):
        gliofed.export_mask(path, case, gliofed.MaskExport(tmp_path / "out", series))
    assert gliofed.export_mask(
        path, case, gliofed.MaskExport(tmp_path / "out", series, model="base-7")
    )


@pytest.mark.process
def test_nothing_is_written_unless_all_can_be(case, mask, tmp_path) -> None:
    out = tmp_path / "out"
    series = {Sequence.FLAIR: gliofed.SeriesLocation(tmp_path / "dicom/T1")}
    with pytest.raises(DataError, match=r"^FLAIR: .*expected 50 x 50 x 44"):
        gliofed.export_mask(mask, case, gliofed.MaskExport(out, series))
    with pytest.raises(DataError, match="prepared without T2; it has FLAIR, T1"):
        gliofed.export_mask(
            mask, case, gliofed.MaskExport(out, {Sequence.T2: gliofed.SeriesLocation(tmp_path)})
        )
    assert not out.exists()


@pytest.mark.process
def test_a_corrected_mask_is_not_written_over(case, mask, tmp_path) -> None:
    first = gliofed.export_mask(mask, case, gliofed.MaskExport(tmp_path / "out"))[0].path
    first.write_bytes(b"corrected")
    with pytest.raises(DataError, match="and may have been corrected"):
        gliofed.export_mask(mask, case, gliofed.MaskExport(tmp_path / "out"))
    assert first.read_bytes() == b"corrected"
    gliofed.export_mask(mask, case, gliofed.MaskExport(tmp_path / "out", overwrite=True))
    assert nib.load(first).get_fdata().any()


@pytest.mark.process
def test_an_outline_that_became_empty_leaves_no_older_segmentation(case, mask, tmp_path) -> None:
    series = {Sequence.FLAIR: gliofed.SeriesLocation(tmp_path / "dicom/FLAIR")}
    path = gliofed.export_mask(mask, case, gliofed.MaskExport(tmp_path / "out", series))[-1].path
    empty = save(tmp_path / "empty.nii.gz", np.zeros(SIZE, np.uint8))
    last = gliofed.export_mask(
        empty, case, gliofed.MaskExport(tmp_path / "out", series, overwrite=True)
    )[-1]
    assert (last.path, last.volume_ml) == (None, 0)
    assert not path.exists()


@pytest.mark.process
def test_the_scans_themselves_are_not_needed(case, mask, tmp_path) -> None:
    scan = nib.load(scan_of(tmp_path, Sequence.FLAIR))
    shutil.rmtree(tmp_path / "bids")
    done = {
        d.sequence: d
        for d in gliofed.export_mask(mask, case, gliofed.MaskExport(tmp_path / "gone"))
    }
    assert np.array_equal(nib.load(done[Sequence.FLAIR].path).affine, scan.affine)


def test_an_entry_as_prepare_makes_it_is_opened(tmp_path) -> None:
    hospital = write_hospital(tmp_path / "h", {"A": ("1", "0", "1", "2")})
    (made,) = prepare_here(
        read_bids(hospital, "h"),
        GridConfig((2.0, 2.0, 2.0)),
        STRIPPED,
        PreparedStore(tmp_path / "s"),
    )
    prepared = open_prepared_case(tmp_path / "s" / made.key)
    assert prepared.case.id == "sub-A"
    assert set(prepared.placements) == set(Sequence)
    drawn = save(tmp_path / "mask.nii.gz", made.mask, made.affine)
    done = gliofed.export_mask(
        drawn, tmp_path / "s" / made.key, gliofed.MaskExport(tmp_path / "out")
    )
    assert {d.path.name for d in done} == {
        f"sub-A_space-orig_label-tumor_desc-{s}_mask.nii.gz" for s in Sequence
    }


@pytest.mark.process
def test_what_lies_outside_a_scan_is_told(case, mask, tmp_path) -> None:
    """Half of the ellipsoid, cut where the scan is cut, in the network's millimetres."""
    record = json.loads((case / "entry.json").read_text())
    shape, affine = (80, 80, 40), np.array(NETWORK)
    affine[:3, 3] = [-40, -40, CENTRE[2] + 0.5]  # its first slice begins at the centre
    record["placements"] = {
        "T1": {"shape": shape, "affine": affine.tolist(), "matrix": np.eye(4).tolist()}
    }
    record["provenance"] = {}
    (case / "entry.json").write_text(json.dumps(record))
    (done,) = gliofed.export_mask(mask, case, gliofed.MaskExport(tmp_path / "out"))
    below = (voxels_in_mm(SIZE, NETWORK)[..., 2] < CENTRE[2]) & ellipsoid()
    assert done.outside_ml == pytest.approx(below.sum() / 1000)
    again = command(mask, "--case", case, "--out", tmp_path / "again")
    assert f"{below.sum() / 1000:.2f} ml more lie outside this scan" in again.stdout


@pytest.mark.process
def test_dicom_is_an_extra(case, mask, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "gliofed.dicom.seg", None)
    monkeypatch.delattr(gliofed_dicom, "seg", raising=False)
    series = {Sequence.FLAIR: gliofed.SeriesLocation(tmp_path / "dicom/FLAIR")}
    with pytest.raises(StudyError, match=r"install gliofed\[hospital\]"):
        gliofed.export_mask(mask, case, gliofed.MaskExport(tmp_path / "out", series))
    assert len(gliofed.export_mask(mask, case, gliofed.MaskExport(tmp_path / "out"))) == 2


@pytest.mark.process
def test_a_sheared_scan_keeps_its_sform_alone(case, mask, tmp_path) -> None:
    prepared = open_prepared_case(case)
    placed = prepared.placements[Sequence.T1]
    sheared = placed.affine @ np.array([[1, 0.2, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    record = json.loads((case / "entry.json").read_text())
    record["placements"]["T1"]["affine"] = sheared.tolist()
    record["provenance"] = {}
    (case / "entry.json").write_text(json.dumps(record))
    done = {
        d.sequence: d for d in gliofed.export_mask(mask, case, gliofed.MaskExport(tmp_path / "out"))
    }
    image = nib.load(done[Sequence.T1].path)
    assert np.allclose(image.affine, sheared, atol=1e-5)
    assert image.header["qform_code"] == 0
    assert done[Sequence.T1].path.name.startswith("sub-case_")


@pytest.mark.process
@pytest.mark.parametrize(("names", "expected"), [
    (("sub-1_FLAIR.nii.gz", "sub-1_ce-gadolinium_T1w.nii.gz"), "sub-1"),
    (("sub-1_ses-2_FLAIR.nii.gz",), "sub-1_ses-2"),
    (("BraTS20_Training_158_t1.nii.gz", "BraTS20_Training_158_t2.nii.gz"), "sub-BraTS20Training158"),
    (("flair.nii", "t1.nii"), "sub-case"),
])  # fmt: skip
def test_names_come_from_the_scans(names, expected, case) -> None:
    record = json.loads((case / "entry.json").read_text())
    files = [{"file": name} for name in names]
    record["provenance"] = {"sources": dict(zip(("FLAIR", "T1"), files, strict=False))}
    (case / "entry.json").write_text(json.dumps(record))
    assert open_prepared_case(case).case.id == expected


@pytest.mark.process
def test_no_entry_or_a_damaged_one(case, tmp_path) -> None:
    with pytest.raises(StoreError, match=r"no entry\.json"):
        open_prepared_case(tmp_path)
    (case / "entry.json").write_text("{")
    with pytest.raises(StoreError, match="damaged"):
        open_prepared_case(case)


@pytest.mark.process
def test_the_image_to_draw_on_takes_a_drawing_back(case, tmp_path) -> None:
    done = command("--case", case, "--image", "flair", "--out", tmp_path / "draw")
    assert done.exit_code == 0, done.output
    path = tmp_path / "draw/sub-07_ses-pre_space-gliofed_desc-preproc_FLAIR.nii.gz"
    assert str(path) in done.stdout
    assert RESEARCH_USE_ONLY in done.stdout
    image = read_nifti(path)
    assert np.array_equal(image.data, open_prepared_case(case).image[3])
    drawn = save(tmp_path / "drawn.nii.gz", (image.data == 2).astype(np.uint8), image.affine)
    assert np.array_equal(read_mask_nifti(drawn, open_prepared_case(case)).probability, ellipsoid())
    assert command("--case", case, "--image", "T2", "--out", tmp_path / "draw").exit_code == 1


@pytest.mark.process
def test_the_command(case, mask, tmp_path) -> None:
    study = tmp_path / "study"
    shutil.copytree(tmp_path / "dicom/FLAIR", study / "a")
    dicom.write_series(study / "b", dicom.Made(number=9))
    words = (mask, "--case", case, "--out", tmp_path / "out", "--model", "base-7")
    several = command(*words, "--series", f"flair={study}")
    assert several.exit_code == 1
    assert "2 MR series" in several.stderr
    done = command(*words, "--series", f"flair={study}", "--choose", "FLAIR=5")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    assert all(" ml" in line for line in lines[:3])
    assert lines[3] == RESEARCH_USE_ONLY
    segment = pydicom.dcmread(tmp_path / f"out/{NAME.format('FLAIR')}.dcm").SegmentSequence[0]
    assert segment.SegmentAlgorithmType == "AUTOMATIC"
    empty = save(tmp_path / "empty.nii.gz", np.zeros(SIZE, np.uint8))
    none = command(empty, "--case", case, "--out", tmp_path / "none", "--series",
                   f"FLAIR={tmp_path / 'dicom/FLAIR'}")  # fmt: skip
    assert none.exit_code == 0, none.output
    assert "no DICOM-SEG was written" in none.stdout


@pytest.mark.parametrize(("words", "says"), [
    ((), "give a MASK"),
    (("m.nii", "--series", "FLAIR"), "expected SEQUENCE=VALUE"),
    (("m.nii", "--series", "DWI=x"), "is none of T1, T1CE, T2, FLAIR"),
    (("m.nii", "--series", "T1=x", "--series", "t1=y"), "given twice"),
    (("m.nii", "--choose", "T1=4"), "has no --series"),
])  # fmt: skip
def test_words_that_make_no_command(words, says, tmp_path) -> None:
    done = command(*words, "--case", tmp_path, "--out", tmp_path)
    assert done.exit_code == 2
    assert says in " ".join(done.stderr.replace("│", " ").split())


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.data
def test_a_real_series(real_data, tmp_path) -> None:
    """384 real slices: NIfTI by dcm2niix, a 1 mm network grid elsewhere, back to DICOM."""
    with tarfile.open(real_data / "dicom-t1w/example-dicom-structural.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    folder = next(p for p in tmp_path.iterdir() if (p / "dicoms").is_dir() or p.name == "dicoms")
    subprocess.run([dcm2niix, "-z", "n", "-b", "n", "-f", "sub-1_T1w", "-o", tmp_path, folder],
                   check=True, capture_output=True)  # fmt: skip
    scan = nib.load(tmp_path / "sub-1_T1w.nii")
    matrix = rigid((8.0, 3.0, -5.0), (2.0, 5.0, -4.0)) @ np.diag([1.05, 0.97, 1.02, 1])
    matrix[:3, 3] += apply_affine(scan.affine, (np.array(scan.shape) - 1) / 2)
    placement = Placement(scan.shape, scan.affine, matrix)
    entry = StoreEntry(np.ones((4, *SIZE), np.float16), None, (True, False, False, False), NETWORK,
                  {Sequence.T1: placement}, None, MEASURES, "stripped", Sequence.T1)  # fmt: skip
    PreparedStore(tmp_path / "store").put(
        "abc", entry, {"sources": {"T1": {"file": "sub-1_T1w.nii"}}}
    )
    mask = save(tmp_path / "mask.nii.gz", ellipsoid().astype(np.uint8))
    _, done = gliofed.export_mask(mask, tmp_path / "store/abc", gliofed.MaskExport(tmp_path / "out", {Sequence.T1: gliofed.SeriesLocation(folder)}, model="base-7"))  # fmt: skip
    points = dicom.world_of(done.path)
    half = voxel_sizes(scan.affine).min() / 2
    drawn = np.asarray(nib.load(done.path.with_suffix(".nii.gz")).dataobj) > 0
    truth = apply_affine(scan.affine, np.argwhere(drawn))
    far, which = cKDTree(points).query(truth)
    assert len(points) == len(truth) == len(set(which))
    assert far.max() < 0.01 < half  # of a voxel's 0.67 mm; 0.0015 mm in the farthest corner
    inside = depth(apply_affine(np.linalg.inv(matrix), points))
    assert inside.min() > -2 * half
    assert np.abs(points.mean(0) - apply_affine(matrix, CENTRE)).max() < half / 2
    assert np.array_equal(read_segmentation(done.path, scan.shape, scan.affine), drawn)
    for words in (["dciodvfy", done.path], ["dcentvfy", done.path, *folder.rglob("*.dcm")]):
        if shutil.which(words[0]) is None:
            pytest.skip(f"no {words[0]}; install dicom3tools to validate")
        said = subprocess.run(words, capture_output=True, check=False).stderr.decode()
        assert [line for line in said.splitlines() if line.startswith("Error")] == []
