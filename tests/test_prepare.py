import dataclasses
import gzip
import json
import threading
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from conftest import STRIPPED, write_hospital, write_image
from prepared_stores import no_new_process, prepare_as_a_run_does, prepare_here
from recorded_progress import RecordedProgress

from gliofed.data.formats.bids import read_bids
from gliofed.data.nifti import Volume, read_nifti
from gliofed.data.store import PreparedStore
from gliofed.errors import DataError, StoreError
from gliofed.inference.native_grid import mask_on_scan
from gliofed.preprocessing.brain_extraction import bounding_box, nonzero_brain
from gliofed.preprocessing.cases import store_key
from gliofed.preprocessing.dataset import prepare_every_case
from gliofed.preprocessing.normalisation import zscore
from gliofed.preprocessing.recipe import prepare_case
from gliofed.preprocessing.resampling import resample, resample_mask, target_grid
from gliofed.preprocessing.workers import PreparationRequest
from gliofed.runtime.progress import NO_PROGRESS
from gliofed.study import GridConfig, PreparationConfig, QualityConfig
from gliofed.types import Placement, Prediction, Sequence

GRID = GridConfig(spacing_mm=(2.0, 2.0, 2.0))


def in_ras(volume: Volume) -> Placement:
    return Placement(volume.data.shape, volume.affine, np.eye(4))


@pytest.fixture
def hospital(tmp_path):
    return write_hospital(
        tmp_path / "h", {"A": ("1", "0", "1", "2"), "B": ("0", "0", "0", "4"), "C": ("n/a",) * 4}
    )


def test_a_prepared_case_is_cropped_scored_and_flagged(hospital) -> None:
    case = read_bids(hospital, "h")[0]
    entry = prepare_case(case, GRID, STRIPPED)
    assert entry.image.shape[1:] == (15, 15, 15)  # the ball's box, its radius below 8 voxels
    assert entry.mask.shape == entry.image.shape[1:]
    assert 0 < entry.mask.sum() == (nib.load(case.mask).get_fdata() > 0).sum()
    inside = entry.image[0][entry.image[0] != 0].astype(float)
    assert abs(inside.mean()) < 0.01
    assert abs(inside.std() - 1) < 0.01
    assert entry.image[:, 0, 0, 0].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    "kind", ["int16 with a slope", "big-endian", "nifti-2", "four axes", "members"]
)
def test_voxels_are_those_that_nibabel_reads(tmp_path, kind, ending) -> None:
    data = np.random.default_rng(2).integers(-500, 3000, (7, 6, 5)).astype(np.int16)
    affine = np.array([[-1.0, 0, 0, 4], [0, 1.5, 0, -3], [0, 0, 2, 1], [0, 0, 0, 1]])
    made = nib.Nifti2Image if kind == "nifti-2" else nib.Nifti1Image
    image = made(data[..., None] if kind == "four axes" else data, affine)
    if kind == "int16 with a slope":
        image.header.set_slope_inter(0.25, -3)
    if kind == "big-endian":
        image = made(data, affine, image.header.as_byteswapped(">"))
    path = tmp_path / f"scan{ending}"
    nib.save(image, path)
    if kind == "members" and ending == ".nii.gz":
        whole = gzip.decompress(path.read_bytes())
        path.write_bytes(gzip.compress(whole[:400]) + gzip.compress(whole[400:]))
    expected = nib.as_closest_canonical(nib.load(path))
    found = read_nifti(path)
    np.testing.assert_array_equal(found.data, expected.get_fdata(dtype=np.float32).reshape(7, 6, 5))
    np.testing.assert_array_equal(found.affine, expected.affine)


def test_a_damaged_gzip_block_is_an_error_of_its_file(hospital) -> None:
    path = read_bids(hospital, "h")[0].images[Sequence.T1]
    packed = gzip.compress(gzip.decompress(path.read_bytes()), mtime=0)
    path.write_bytes(packed[:10] + b"\xff" + packed[11:])
    with pytest.raises(DataError, match=r"T1w\.nii\.gz: cannot be read as an image .*copy"):
        read_nifti(path)


def test_a_missing_sequence_is_zero_and_marked(hospital) -> None:
    (hospital / "sub-A/anat/sub-A_T2w.nii.gz").unlink()
    entry = prepare_case(read_bids(hospital, "h")[0], GRID, STRIPPED)
    assert entry.present == (True, True, False, True)
    assert not entry.image[2].any()
    assert entry.image[3].any()


def test_any_axis_order_gives_the_same_voxels(hospital) -> None:
    case = read_bids(hospital, "h")[0]
    straight = prepare_case(case, GRID, STRIPPED)
    for path in (*case.images.values(), case.mask):
        image = nib.load(path)
        turned = image.as_reoriented(
            nib.orientations.axcodes2ornt(("P", "S", "L"), (("L", "R"), ("P", "A"), ("I", "S")))
        )
        data = np.asarray(turned.dataobj)
        nib.save(nib.Nifti1Image(data, turned.affine), path)
    again = prepare_case(case, GRID, STRIPPED)
    np.testing.assert_array_equal(straight.image, again.image)
    np.testing.assert_array_equal(straight.mask, again.mask)
    np.testing.assert_allclose(straight.affine, again.affine, atol=1e-5)


def test_a_world_point_keeps_its_place_through_resampling() -> None:
    affine = np.array([[1.0, 0, 0, -30], [0, 1, 0, -20], [0, 0, 5, 10], [0, 0, 0, 1]])
    x, y, z = np.indices((60, 50, 12))
    smooth = (x - 30 + 2.0 * (y - 20) + 3.0 * (5 * z + 10)).astype(np.float32)  # linear in mm
    shape, target = target_grid((60, 50, 12), affine, (2.0, 1.5, "native"))
    assert target[2, 2] == 5
    out = resample(smooth, affine, shape, target)
    voxels = np.argwhere(np.ones(shape))
    inner = ((voxels > 2) & (voxels < np.array(shape) - 4)).all(1)
    mm = nib.affines.apply_affine(target, voxels[inner])
    expected = mm @ [1.0, 2.0, 3.0]
    np.testing.assert_allclose(out[tuple(voxels[inner].T)], expected, atol=0.5)


def test_every_so_many_th_voxel_is_that_of_the_whole_grid() -> None:
    data = np.random.default_rng(1).normal(size=(20, 18, 9)).astype(np.float32)
    affine = np.diag([1.0, 1, 3, 1])
    for target in (np.diag([1.3, 0.9, 2.0, 1.0]), affine):
        shape = (20, 18, 9)
        whole = resample(data, affine, shape, target)
        thin = resample(data, affine, shape, target, (2, 3, 1))
        np.testing.assert_allclose(thin, whole[::2, ::3], atol=1e-5)


def test_going_down_in_resolution_averages_what_it_cannot_show() -> None:
    stripes = np.tile(np.array([0, 2], np.float32), 32)[:, None, None] * np.ones(
        (64, 4, 4), np.float32
    )
    coarse = np.diag([4.0, 1, 1, 1])
    out = resample(stripes, np.eye(4), (16, 4, 4), coarse)
    assert abs(out[4:12] - 1).max() < 0.05


def test_a_mask_goes_to_the_network_and_back_to_the_scan(hospital) -> None:
    case = read_bids(hospital, "h")[0]
    drawn = read_nifti(case.mask)
    entry = prepare_case(case, GridConfig(spacing_mm=(1.0, 1.0, 1.0)), STRIPPED)
    prediction = Prediction(entry.mask.astype(np.float32), entry.affine, {})
    back = mask_on_scan(prediction, in_ras(drawn))
    truth = drawn.data > 0
    assert 2 * (back & truth).sum() / (back.sum() + truth.sum()) > 0.95


def test_brain_box_and_scores_in_their_empty_cases() -> None:
    empty = np.zeros((4, 5, 5, 5), np.float32)
    assert not nonzero_brain(empty).any()
    with pytest.raises(ValueError, match="no bounding box"):
        bounding_box(nonzero_brain(empty))
    flat = np.ones((3, 3, 3), np.float32)
    assert not zscore(flat, flat > 0).any()
    two = np.zeros((1, 9, 3, 3), np.float32)
    two[0, :3], two[0, 5:6] = 1, 1
    assert nonzero_brain(two).sum() == 27  # the crumb is not brain


@pytest.mark.process
def test_the_store_makes_each_entry_once_and_follows_content(hospital, tmp_path) -> None:
    cases = read_bids(hospital, "h")
    store = PreparedStore(tmp_path / "store")
    progress = RecordedProgress()
    first = prepare_as_a_run_does(cases, GRID, store.root, progress)
    assert progress.counts == [(1, 3), (2, 3), (3, 3)]
    stamps = {p.key: (store.root / p.key / "image.npy").stat().st_mtime_ns for p in first}
    with no_new_process():
        second = prepare_as_a_run_does(cases, GRID, store.root)
    assert [p.key for p in second] == [p.key for p in first]
    assert stamps == {p.key: (store.root / p.key / "image.npy").stat().st_mtime_ns for p in second}
    assert isinstance(second[0].image, np.memmap)
    assert store_key(cases[0], GridConfig(spacing_mm=(1, 1, 1)), STRIPPED, store) != first[0].key
    image = nib.load(cases[0].images["T1"])
    nib.save(
        nib.Nifti1Image(image.get_fdata().astype(np.float32) * 2, image.affine),
        cases[0].images["T1"],
    )
    assert store_key(cases[0], GRID, STRIPPED, PreparedStore(store.root)) != first[0].key


def test_a_brain_mask_is_part_of_the_key_where_it_is_used(hospital, tmp_path) -> None:
    case, other, _ = read_bids(hospital, "h")
    store = PreparedStore(tmp_path / "store")
    given = dataclasses.replace(case, brain=other.mask)
    for way, differs in (("auto", True), ("given", True), ("stripped", False), ("deepbet", False)):
        steps = dataclasses.replace(STRIPPED, brain=way)
        keys = {store_key(c, GRID, steps, store) for c in (case, given)}
        assert len(keys) == 1 + differs, way


@pytest.mark.process
def test_a_failed_case_leaves_nothing_half_written(hospital, tmp_path) -> None:
    cases = read_bids(hospital, "h")
    path = cases[1].images["T2"]
    path.write_bytes(path.read_bytes()[:-40])
    store = PreparedStore(tmp_path / "store")
    with pytest.raises(DataError, match=str(path)):
        prepare_as_a_run_does(cases, GRID, store.root)
    left = [p for p in store.root.iterdir() if p.is_dir()]
    assert all((p / "entry.json").exists() for p in left)
    assert not any(p.name.startswith(".") for p in left)


def test_a_damaged_entry_says_how_to_cure_it(hospital, tmp_path) -> None:
    cases = read_bids(hospital, "h")
    store = PreparedStore(tmp_path / "store")
    (prepared, *_) = prepare_here(cases, GRID, STRIPPED, store)
    path = store.root / prepared.key / "image.npy"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(StoreError, match=r"h/A.*delete that folder"):
        store.open(prepared.key, cases[0])
    (store.root / prepared.key / "entry.json").write_text(json.dumps({"present": []}))
    with pytest.raises(StoreError, match="damaged"):
        store.open(prepared.key, cases[0])


def test_two_writers_of_one_entry_agree(hospital, tmp_path) -> None:
    case = read_bids(hospital, "h")[0]
    store = PreparedStore(tmp_path / "store")
    key = store_key(case, GRID, STRIPPED, store)
    entry = prepare_case(case, GRID, STRIPPED)
    threads = [threading.Thread(target=store.put, args=(key, entry, {})) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(store.open(key, case).image, entry.image)
    assert [p.name for p in store.root.iterdir()] == [key]


def damaged(kind: str, path) -> None:
    data = np.ones((4, 4, 4), np.float32)
    affine = np.eye(4)
    if kind == "nan":
        data[1, 1, 1] = np.nan
    if kind == "4d":
        data = np.ones((4, 4, 4, 2), np.float32)
    if kind == "singular":
        affine[2, 2] = 0
    image = nib.Nifti1Image(data, np.eye(4))
    if kind == "singular":
        image.header.set_sform(affine, code=1)
        image.header.set_qform(None, code=0)
        image = nib.Nifti1Image(data, None, image.header)
    nib.save(image, path)
    if kind == "not gzip":
        path.write_bytes(b"hello")
    if kind == "cut":
        path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:400]))
    if kind == "absent":
        path.unlink()


@pytest.mark.parametrize(
    ("kind", "message"),
    [("nan", "NaN"), ("4d", "one 3D volume"), ("singular", "singular"), ("not gzip", "cannot be read"),
     ("cut", "cannot be read"), ("absent", "no such file")],
)  # fmt: skip
def test_a_bad_file_is_named_with_its_fault(tmp_path, kind, message) -> None:
    path = tmp_path / "scan.nii.gz"
    damaged(kind, path)
    with pytest.raises(DataError, match=message) as caught:
        read_nifti(path)
    assert str(path) in str(caught.value)


def test_a_trailing_axis_of_one_is_dropped(tmp_path) -> None:
    write_image(tmp_path / "x.nii.gz", np.ones((4, 5, 6, 1), np.float32))
    assert read_nifti(tmp_path / "x.nii.gz").data.shape == (4, 5, 6)


def test_mask_resampling_cuts_at_one_half() -> None:
    mask = np.zeros((8, 4, 4), bool)
    mask[:4] = True
    finer = np.diag([0.5, 1, 1, 1])
    assert resample_mask(mask, np.eye(4), (16, 4, 4), finer)[:, 2, 2].sum() == 8


@pytest.mark.data
def test_real_hospitals_prepare_without_loss(real_data, tmp_path) -> None:
    cases = read_bids(real_data / "tcga-lgg/case-western", "case-western")[:3]
    grid = GridConfig(spacing_mm=(1.875, 1.875, "native"))
    for prepared in prepare_here(cases, grid, STRIPPED, PreparedStore(tmp_path)):
        drawn = read_nifti(prepared.case.mask)
        prediction = Prediction(prepared.mask.astype(np.float32), prepared.affine, {})
        back = mask_on_scan(prediction, in_ras(drawn))
        np.testing.assert_array_equal(back, drawn.data > 0)


def test_without_the_hospital_extra_it_says_so_once(hospital, tmp_path, monkeypatch) -> None:
    cases = read_bids(hospital, "h")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    store = PreparedStore(tmp_path / "store")
    for steps in (PreparationConfig(brain="stripped"), replace(STRIPPED, bias=True)):
        request = PreparationRequest(GRID, steps, QualityConfig(), store.root)
        with pytest.raises(DataError, match=r"gliofed\[hospital\]") as caught:
            prepare_every_case(cases, request, NO_PROGRESS)
        assert str(caught.value).count("SimpleITK") == 1
    assert len(prepare_here(cases, GRID, STRIPPED, store)) == 3
