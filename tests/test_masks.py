"""One rule for masks: `check`, `prepare`, scoring and `correct` refuse the same files."""

import dataclasses
import datetime
import json

import nibabel as nib
import numpy as np
import pytest
from conftest import STRIPPED, write_hospital

import gliofed
from gliofed.data.formats.bids import read_bids
from gliofed.data.masks import mask_position_fault, read_mask, share_outside
from gliofed.data.store import PreparedStore
from gliofed.errors import DataError
from gliofed.preprocessing.cases import prepare_one, store_key
from gliofed.preprocessing.recipe import prepare_case
from gliofed.study import GridConfig
from gliofed.validation.reader_messages import ReadRequest
from gliofed.validation.reader_process import read_case

GRID = GridConfig(spacing_mm=(2.0, 2.0, 2.0))
FAR = np.diag([2.0, 2, 2, 1])
FAR[:3, 3] = 400


def blurred(voxels):
    return np.where(voxels > 0, voxels, 7e-13).astype(np.float32)


WRONG = {
    "SET-MASK-FRACTION": (blurred, "mask with fractional values"),
    "SET-MASK-NEGATIVE": (lambda v: v.astype(np.int16) * -1, "mask with negative labels"),
    "SET-MASK-EMPTY": (lambda v: v * 0, "empty mask"),
}


@pytest.fixture
def case(tmp_path):
    hospital = write_hospital(tmp_path / "h", {"A": ("1", "0", "1", "2")})
    return read_bids(hospital, "h")[0]


def rewrite(path, change=lambda v: v, affine=None) -> None:
    image = nib.load(path)
    data = change(np.asarray(image.dataobj))
    nib.save(nib.Nifti1Image(data, image.affine if affine is None else affine), path)


def codes(case) -> set[str]:
    """What `check` finds in the mask."""
    request = ReadRequest(case.images, {"mask": case.mask}, picture=False)
    faults = read_case(request, lambda name: None).faults
    return {f.code for where, f in faults if where == "mask" and f.fatal}


@pytest.mark.parametrize("code", WRONG)
def test_prepare_refuses_the_masks_that_check_refuses(case, code) -> None:
    change, text = WRONG[code]
    assert codes(case) == set()
    assert prepare_case(case, GRID, STRIPPED).mask.any()
    rewrite(case.mask, change)
    assert codes(case) == {code}
    with pytest.raises(DataError, match=f"{case.mask.name}: {text} .*; .") as error:
        prepare_case(case, GRID, STRIPPED)
    with pytest.raises(DataError) as other:
        read_mask(case.mask)
    assert str(other.value) in str(error.value)


def test_prepare_refuses_a_mask_off_the_brain_as_check_does(case) -> None:
    rewrite(case.mask, affine=FAR)
    assert codes(case) == {"SET-MASK-OUTSIDE"}
    with pytest.raises(DataError, match=r"most of the mask lies outside the brain \(100% of it\)"):
        prepare_case(case, GRID, STRIPPED)


def test_a_mask_on_the_identity_affine_is_refused(case) -> None:
    for path in case.images.values():
        rewrite(path, affine=FAR)
    rewrite(case.mask, affine=np.eye(4))
    assert codes(case) == {"SET-MASK-OUTSIDE"}
    with pytest.raises(DataError, match="with the affine of the image"):
        prepare_case(case, GRID, STRIPPED)


def test_more_than_half_outside_the_brain_is_a_fault() -> None:
    brain = np.zeros((4, 4, 4), bool)
    brain[:2] = True
    drawn = np.zeros((4, 4, 4), bool)
    drawn[1:3, 0, 0] = True
    assert share_outside(drawn, np.eye(4), brain) == 0.5
    assert mask_position_fault(0.5) is None
    drawn[3, 0, 0] = True
    assert share_outside(drawn, np.eye(4), brain) == pytest.approx(2 / 3)
    assert mask_position_fault(2 / 3).text == "67% of it"
    assert share_outside(drawn & False, np.eye(4), brain) == 0
    off = np.eye(4)
    off[0, 3] = -3  # on the other side of the grid's edge
    assert share_outside(drawn, off, brain) == pytest.approx(2 / 3)


def test_a_stored_case_does_not_hide_a_mask_that_breaks_the_rule(case, tmp_path) -> None:
    store = PreparedStore(tmp_path / "store")
    entry = prepare_case(case, GRID, STRIPPED)
    rewrite(case.mask, blurred)
    store.put(store_key(case, GRID, STRIPPED, store), entry, {})  # of a version without the rule
    with pytest.raises(DataError, match="fractional"):
        prepare_one(case, GRID, STRIPPED, store)


def test_a_brain_mask_follows_the_same_rule(case) -> None:
    brain = case.mask.with_name("sub-A_desc-brain_mask.nii.gz")
    data = (np.asarray(nib.load(case.images["FLAIR"]).dataobj) > 0).astype(np.float32)
    nib.save(nib.Nifti1Image(data * 0.7, nib.load(case.images["FLAIR"]).affine), brain)
    given = dataclasses.replace(STRIPPED, brain="given")
    with pytest.raises(DataError, match=r"brain_mask.nii.gz: mask with fractional values"):
        prepare_case(dataclasses.replace(case, brain=brain), GRID, given)


def test_an_empty_mask_counts_where_its_author_confirmed_it(case, tmp_path) -> None:
    path = tmp_path / "none.nii.gz"
    rewrite_from = nib.load(case.mask)
    nib.save(nib.Nifti1Image(np.asarray(rewrite_from.dataobj) * 0, rewrite_from.affine), path)
    hospital = case.images["T1"].parents[2]
    drawn = gliofed.Correction(path, "reader", datetime.date(2026, 1, 2), empty=True)
    gliofed.correct(drawn, hospital, "A")
    case = read_bids(hospital, "h")[0]
    sidecar = case.mask.with_name(case.mask.name.replace(".nii.gz", ".json"))
    assert json.loads(sidecar.read_text())["ConfirmedEmpty"] is True
    assert codes(case) == set()
    entry = prepare_case(case, GRID, STRIPPED)
    assert entry.mask is not None
    assert not entry.mask.any()
    sidecar.write_text("{}")
    assert codes(case) == {"SET-MASK-EMPTY"}
