import hashlib
from pathlib import Path

import numpy as np
import pytest
from recorded_progress import RecordedProgress

from gliofed.data.formats.bids import read_bids
from gliofed.data.nifti import read_nifti
from gliofed.data.phantom import HOSPITALS, PhantomHospital, write_phantom
from gliofed.data.phantom.cohort import PhantomPatient, draw_patient, generator
from gliofed.data.phantom.images import draw_patient_images
from gliofed.data.splits import make_splits
from gliofed.errors import DataError
from gliofed.study import DataConfig
from gliofed.types import UNKNOWN, Sequence

SMALL = PhantomHospital("small", 3, {Sequence.T2: 1.0}, never_known=("mgmt",))


def digests(root: Path) -> dict[str, str]:
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*"))
        if p.is_file()
    }


def test_the_same_seed_writes_the_same_bytes_whatever_else_is_written(tmp_path) -> None:
    write_phantom(tmp_path / "a", [SMALL], 1)
    write_phantom(tmp_path / "b", [PhantomHospital("other", 1), SMALL], 1)
    write_phantom(tmp_path / "c", [SMALL], 2)
    assert digests(tmp_path / "a/small") == digests(tmp_path / "b/small")
    assert digests(tmp_path / "a/small") != digests(tmp_path / "c/small")


def test_a_hospital_already_there_is_left_and_another_kind_replaced(tmp_path) -> None:
    write_phantom(tmp_path, [SMALL], 1)
    stamp = (tmp_path / "small").stat().st_mtime_ns
    progress = RecordedProgress()
    write_phantom(tmp_path, [SMALL], 1, progress)
    assert (tmp_path / "small").stat().st_mtime_ns == stamp
    assert progress.updates == []
    write_phantom(tmp_path, [SMALL], 2, progress)
    assert progress.counts == [(1, 3), (2, 3), (3, 3)]
    assert not list(tmp_path.glob(".*"))


def test_it_reads_as_bids_with_its_gaps_and_its_warning(tmp_path) -> None:
    write_phantom(tmp_path, [SMALL], 1)
    cases = read_bids(tmp_path / "small", "small")
    assert len(cases) == 3
    for case in cases:
        assert Sequence.T2 not in case.images
        assert case.labels["mgmt"] is UNKNOWN
        assert case.labels["idh"] in ("wildtype", "mutant")
        assert case.mask is not None
    for name in ("README", "dataset_description.json"):
        assert "not a patient" in (tmp_path / "small" / name).read_text()


def test_labels_stand_in_combinations_that_occur() -> None:
    patients = [draw_patient(1, "somewhere", n) for n in range(400)]
    for p in patients:
        assert p.codel == "intact" or (p.idh == "mutant" and p.grade != "4")
    assert 0.4 < np.mean([p.idh == "mutant" for p in patients]) < 0.65
    ages = {k: np.mean([p.age for p in patients if p.idh == k]) for k in ("mutant", "wildtype")}
    assert ages["mutant"] + 10 < ages["wildtype"]


def test_the_demo_has_the_gaps_it_promises() -> None:
    by_name = {h.name: h for h in HOSPITALS}
    assert len(HOSPITALS) == 6
    assert min(h.cases for h in HOSPITALS) == 1
    assert any(h.missing for h in HOSPITALS)
    assert any(h.unmasked for h in HOSPITALS)
    assert {m for h in HOSPITALS for m in h.never_known} == {"codel_1p19q", "mgmt"}
    (guest,) = [h for h in HOSPITALS if h.guest]
    home, number = guest.guest
    assert number < by_name[home].cases


def test_one_patient_at_two_hospitals_is_the_same_head_and_is_found(tmp_path) -> None:
    home = PhantomHospital("home", 2, noise=0.1)
    away = PhantomHospital("away", 1, noise=0.1, gain=3.0, guest=("home", 1))
    write_phantom(tmp_path, [home, away], 1)
    cases = {h: read_bids(tmp_path / h, h) for h in ("home", "away")}
    one, other = cases["home"][1], cases["away"][0]
    assert one.patient == other.patient
    a, b = (read_nifti(c.images[Sequence.T1]).data for c in (one, other))
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.98
    data = DataConfig(root=tmp_path, train=("home",), external=("away",), overlap="drop")
    assert [str(c) for c, _ in make_splits(data, cases, 1)[0].dropped] == [str(one)]


def look(grade: str, idh: str, codel: str = "intact", mgmt: str = "methylated"):
    """Mean images of a kind of tumour over ten patients, within their masks."""
    out = []
    for seed in range(10):
        patient = PhantomPatient("x", 50, "F", idh, codel, mgmt, grade)
        images, region = draw_patient_images(patient, generator(seed, "look"))
        brain = images[Sequence.T1] > 0
        out.append((images, region, brain))
    return out


def mean(cases, measure) -> float:
    return float(np.mean([measure(i, r, b) for i, r, b in cases]))


def enhancement(images, region, brain) -> float:
    return (images[Sequence.T1CE] - images[Sequence.T1])[region].mean()


def flair_core_to_rim(images, region, brain) -> float:
    from scipy import ndimage

    depth = ndimage.distance_transform_edt(region)
    core, rim = region & (depth > 0.5 * depth.max()), region & (depth <= 1.5)
    return images[Sequence.FLAIR][core].mean() / images[Sequence.FLAIR][rim].mean()


def test_tumours_look_as_their_markers_say() -> None:
    glioblastoma, astrocytoma = look("4", "wildtype"), look("2", "mutant")
    oligodendroglioma = look("2", "mutant", "codeleted")
    assert mean(glioblastoma, enhancement) > mean(astrocytoma, enhancement) + 8
    # T2-FLAIR mismatch: the astrocytoma is dark within a bright rim
    assert mean(astrocytoma, flair_core_to_rim) < mean(oligodendroglioma, flair_core_to_rim) - 0.1
    unlike = [mean(look("2", "mutant", mgmt=m), lambda i, r, b: i[Sequence.T2][r].mean())
              for m in ("methylated", "unmethylated")]  # fmt: skip
    assert 2 < unlike[1] - unlike[0] < 25


@pytest.mark.parametrize("kind", [("3", "mutant", "codeleted"), ("4", "wildtype")])
def test_the_mask_is_bright_on_t2_and_flair_and_dark_on_t1(kind) -> None:
    def contrast(sequence):
        # the median: fluid in sulci and ventricles is bright on T2 too
        return lambda images, region, brain: (
            images[sequence][region].mean() - np.median(images[sequence][brain & ~region])
        )

    cases = look(*kind)
    assert mean(cases, contrast(Sequence.T2)) > 8
    assert mean(cases, contrast(Sequence.FLAIR)) > 25
    assert mean(cases, contrast(Sequence.T1)) < -5


def test_a_folder_that_is_no_phantom_is_never_replaced(tmp_path) -> None:
    notes = tmp_path / "north" / "notes.txt"
    notes.parent.mkdir()
    notes.write_text("ours")
    with pytest.raises(DataError, match="no phantom"):
        write_phantom(tmp_path, HOSPITALS, seed=1)
    assert notes.read_text() == "ours"
    assert not list(tmp_path.glob(".*.part"))
