import numpy as np
import pytest
from conftest import write_hospital, write_image, write_subject

from gliofed.data.formats.bids import read_bids
from gliofed.data.splits import make_splits
from gliofed.errors import DataError, OverlapError
from gliofed.study import DataConfig
from gliofed.types import UNKNOWN, Case, Labels, Sequence


def test_reads_sequences_masks_and_labels(tmp_path) -> None:
    root = write_hospital(tmp_path / "h", {"A": ("1", "0", "n/a", "2"), "B": ("0", "0", "1", "4")})
    (root / "sub-B/anat/sub-B_T2w.nii.gz").unlink()
    (root / "derivatives/tumor/sub-B/anat/sub-B_label-tumor_mask.nii.gz").unlink()
    first, second = read_bids(root, "h")
    assert str(first) == "h/A"
    assert set(first.images) == set(Sequence)
    assert "ce-gadolinium" in first.images[Sequence.T1CE].name
    assert "ce-" not in first.images[Sequence.T1].name
    assert first.mask is not None
    assert first.labels["idh"] == "mutant"
    assert first.labels["mgmt"] is UNKNOWN
    assert set(second.images) == set(Sequence) - {Sequence.T2}
    assert second.mask is None
    assert second.labels["grade"] == "4"


def test_a_brain_mask_goes_with_its_case(tmp_path) -> None:
    root = write_hospital(tmp_path / "h", {"A": ("1", "0", "n/a", "2"), "B": ("0", "0", "1", "4")})
    anat = root / "derivatives/bet/sub-A/anat"
    write_image(anat / "sub-A_T1w_desc-brain_mask.nii.gz", np.ones((4, 4, 4), np.uint8))
    first, second = read_bids(root, "h")
    assert first.brain == anat / "sub-A_T1w_desc-brain_mask.nii.gz"
    assert first.mask is not None
    assert first.mask.parent != anat
    assert second.brain is None
    write_image(anat / "sub-A_FLAIR_desc-brain_mask.nii.gz", np.ones((4, 4, 4), np.uint8))
    with pytest.raises(DataError, match="more than one brain mask"):
        read_bids(root, "h")


def test_a_column_that_is_absent_is_unknown(tmp_path) -> None:
    root = write_hospital(tmp_path, {"A": ("1", "0", "1", "2")})
    (root / "participants.tsv").write_text("participant_id\tidh\nsub-A\t1\n")
    (case,) = read_bids(root, "h")
    assert case.labels == Labels({"idh": "mutant"})


def test_the_first_session_is_the_preoperative_one(tmp_path) -> None:
    root = write_hospital(tmp_path, {"A": ("1", "0", "1", "2")})
    anat = root / "sub-A/anat"
    for session in ("ses-02", "ses-01"):
        target = root / "sub-A" / session / "anat"
        target.mkdir(parents=True)
        for path in anat.glob("*"):
            (target / path.name.replace("sub-A_", f"sub-A_{session}_")).write_bytes(
                path.read_bytes()
            )
    for path in list(anat.iterdir()):
        path.unlink()
    (case,) = read_bids(root, "h")
    assert all("ses-01" in p.name for p in case.images.values())


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("participant_id\tidh\nsub-A\t2\n", r"participants.tsv:2: sub-A: idh: '2' is none of"),
        ("participant_id\tidh\nsub-A\t-1\n", "correct the cell"),
        ("participant_id\nsub-A\nsub-A\n", "occurs twice"),
        ("participant_id\nsub-B\n", "no row for sub-A"),
        ("id\nsub-A\n", "no participant_id column"),
    ],
)
def test_a_table_that_cannot_be_trusted_is_refused(tmp_path, table, message) -> None:
    root = write_hospital(tmp_path, {"A": ("1", "0", "1", "2")})
    (root / "participants.tsv").write_text(table)
    with pytest.raises(DataError, match=message):
        read_bids(root, "h")


def test_files_that_cannot_be_told_apart_are_refused(tmp_path) -> None:
    root = write_hospital(tmp_path, {"A": ("1", "0", "1", "2")})
    anat = root / "sub-A/anat"
    (anat / "sub-A_run-2_FLAIR.nii.gz").write_bytes((anat / "sub-A_FLAIR.nii.gz").read_bytes())
    with pytest.raises(DataError, match="two files for FLAIR"):
        read_bids(root, "h")


def test_missing_folder_table_and_encoding(tmp_path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        read_bids(tmp_path / "absent", "h")
    write_subject(tmp_path, "A", 1)
    with pytest.raises(DataError, match=r"participants\.tsv: missing"):
        read_bids(tmp_path, "h")
    (tmp_path / "participants.tsv").write_bytes(b"participant_id\nsub-A\xff\n")
    with pytest.raises(DataError, match="not UTF-8"):
        read_bids(tmp_path, "h")
    write_image(tmp_path / "other" / "x.nii.gz", __import__("numpy").zeros((2, 2, 2), "float32"))
    (tmp_path / "other" / "participants.tsv").write_text("participant_id\n")
    with pytest.raises(DataError, match="no sub-"):
        read_bids(tmp_path / "other", "h")


def case(site: str, name: str) -> Case:
    return Case(name, site, name, {}, None, Labels())


SITES = {
    "a": [case("a", f"a{i}") for i in range(10)],
    "b": [case("b", f"b{i}") for i in range(4)],
    "c": [case("c", f"c{i}") for i in range(6)],
}


def test_holdout_is_by_patient_seeded_and_never_trained_on() -> None:
    data = DataConfig(root=None, train=("a", "b"), external=("c",), holdout=0.2)
    (split,) = make_splits(data, SITES, seed=1)
    assert len(split.holdout["a"]) == 2
    assert split.holdout["b"] == ()  # fewer than holdout_from
    assert {str(c) for c in split.train["a"]}.isdisjoint(str(c) for c in split.holdout["a"])
    assert len(split.train["a"]) == 8
    assert len(split.external) == 6
    again, other = make_splits(data, SITES, seed=1)[0], make_splits(data, SITES, seed=2)[0]
    assert again == split
    assert other.holdout["a"] != split.holdout["a"]


def test_one_more_case_reaches_the_holdout_bound() -> None:
    data = DataConfig(root=None, train=("b",), external=("c",), holdout=0.25, holdout_from=4)
    assert len(make_splits(data, SITES, 1)[0].holdout["b"]) == 1


def test_leave_one_out_holds_each_site_out_once() -> None:
    data = DataConfig(root=None, train=("a", "b", "c"), leave_one_out=("b", "c"))
    folds = make_splits(data, SITES, 1)
    assert [f.fold for f in folds] == ["b", "c"]
    for fold in folds:
        assert fold.fold not in fold.train
        assert {c.site for c in fold.external} == {fold.fold}


def test_a_patient_at_two_sites_is_refused_or_dropped_from_training() -> None:
    sites = {**SITES, "b": [*SITES["b"], case("b", "a3")], "a": [*SITES["a"], case("a", "c2")]}
    data = DataConfig(root=None, train=("a", "b"), external=("c",))
    with pytest.raises(OverlapError, match="patient c2 is at c and at a"):
        make_splits(data, sites, 1)
    (split,) = make_splits(
        DataConfig(root=None, train=("a", "b"), external=("c",), overlap="drop"), sites, 1
    )
    assert {str(c) for c, _ in split.dropped} == {"a/c2", "b/a3"}
    trained = {c.patient for s in ("a", "b") for c in (*split.train[s], *split.holdout[s])}
    assert trained.isdisjoint(c.patient for c in split.external)
    assert len(split.external) == 6


def test_a_folder_of_another_layout_is_told_of_the_option(tmp_path) -> None:
    write_image(tmp_path / "case/case_FLAIR.nii.gz", np.ones((4, 4, 4), np.uint8))
    with pytest.raises(DataError, match=r"is no BIDS data set.*name its layout with --format"):
        read_bids(tmp_path, "h")
    (tmp_path / "sub-A").mkdir()
    with pytest.raises(DataError, match="labels are read from it, one row a subject"):
        read_bids(tmp_path, "h")
