"""Patients at two hospitals: scans however changed, who learns what, and what a study does."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import write_hospital, write_image
from scipy import ndimage
from typer.testing import CliRunner

from gliofed.cli.main import app
from gliofed.data.formats.bids import read_bids
from gliofed.data.formats.registry import read_sites
from gliofed.data.patient_ids import read_mapping
from gliofed.data.store import PreparedStore, StoreEntry
from gliofed.errors import OverlapError
from gliofed.experiments.cases import prepare_and_compare
from gliofed.experiments.patient_overlap import (
    check_overlap,
    find_patient_overlap,
    link_patients,
    overlap_statement,
)
from gliofed.federated.linkage import image_index
from gliofed.federated.linkage.client import (
    LinkageConfig,
    LocalAnnouncement,
    announce_patients,
)
from gliofed.federated.linkage.server import (
    CORNERS,
    MIN_EQUAL_TOKENS,
    SharedPatient,
    SitePatient,
    TokenAnnouncement,
    find_pairs,
    linked_groups,
    shared_counts,
    shared_rows,
)
from gliofed.federated.linkage.tokens import TOKENS, study_salt
from gliofed.preprocessing import fingerprint
from gliofed.preprocessing.fingerprint import WHOLE_BRAIN_ML, describe, stored_fingerprint
from gliofed.runtime.progress import NoProgress
from gliofed.study import parse_study
from gliofed.types import Case, Labels, PreparationMeasures, Sequence

ROOT = Path(__file__).parents[1]
SALT = study_salt("tests")
LABELS = ("1", "0", "1", "2")


# the fingerprint


def head(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A brain of 2.5 mm voxels: random tissue that is smooth over a few millimetres."""
    rng = np.random.default_rng(seed)
    shape = (60, 72, 56)
    axes = [np.linspace(-1.1, 1.1, n) for n in shape]
    radius = sum(a**2 for a in np.meshgrid(*axes, indexing="ij"))
    tissue = ndimage.gaussian_filter(rng.standard_normal(shape), 3)
    image = np.where(radius < 1, 100 + 20 * tissue / tissue.std(), 0)
    return image.clip(0).astype(np.float32), np.diag([2.5, 2.5, 2.5, 1.0])


@pytest.fixture(scope="module")
def changes():
    spec = importlib.util.spec_from_file_location("overlap_rows", ROOT / "benchmarks/overlap.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["overlap_rows"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_a_head_is_known_again_and_another_is_not(changes) -> None:
    volumes = [changes.Volume(*head(seed)) for seed in range(3)]
    cases = [{Sequence.FLAIR: v} for v in volumes]
    kept = changes.rows(cases, SALT, None)
    for name in ("shift", "crop", "cut top", "gamma 0.6", "scale", "noise 0.1", "3 mm", "cubic"):
        changed = changes.rows(cases, SALT, changes.CHANGES[name])
        like = np.array([changes.equal_tokens(t, s, *changed) for t, s in zip(*kept, strict=True)])
        assert np.diag(like).min() >= MIN_EQUAL_TOKENS, name
        assert like[~np.eye(3, dtype=bool)].max() < MIN_EQUAL_TOKENS, name


def test_less_than_a_whole_brain_has_no_fingerprint() -> None:
    data, affine = head(0)
    assert describe(data, affine) is not None
    assert describe(data[20:44, 24:48, 20:44], affine) is None
    assert describe(np.zeros((9, 9, 9), np.float32), affine) is None
    for side, whole in ((1.6, False), (1.9, True)):  # the head has 1.5 L at 2.5 mm
        millilitres = 4 / 3 * np.pi * np.prod(np.array(data.shape) * side / 2.2) / 1e3
        assert bool(millilitres > WHOLE_BRAIN_ML) is whole
        assert (describe(data, np.diag([side, side, side, 1.0])) is not None) is whole


def test_a_stored_fingerprint_is_made_once(tmp_path, monkeypatch) -> None:
    store, prepared = PreparedStore(tmp_path), None
    data, affine = head(1)
    image = np.stack([data, 0 * data, 0 * data, data]).astype(np.float16)
    case = Case("1", "a", "1", {}, None, Labels())
    store.put(
        "k",
        StoreEntry(
            image,
            None,
            (True, False, False, True),
            affine,
            {},
            None,
            PreparationMeasures(1.3, None, {}),
            "stripped",
            Sequence.FLAIR,
        ),
        {},
    )
    prepared = store.open("k", case)
    first = stored_fingerprint(prepared, store)
    assert set(first) == {Sequence.T1, Sequence.FLAIR}
    monkeypatch.setattr(fingerprint, "describe", None)
    again = stored_fingerprint(prepared, store)
    assert all((again[s] == v).all() for s, v in first.items())
    monkeypatch.undo()
    (tmp_path / "k" / "fingerprint-1.npy").write_bytes(b"half")
    assert (stored_fingerprint(prepared, store)[Sequence.T1] == first[Sequence.T1]).all()


# what crosses, and who is told what


def case(site: str, patient: str, number: int = 0) -> Case:
    return Case(f"{patient}x{number}", site, patient, {}, None, Labels())


def announced(site: str, *patients: str) -> LocalAnnouncement:
    return announce_patients(site, [case(site, p) for p in patients], SALT, LinkageConfig(("id",)))


def told(*sites: tuple[str, ...]) -> tuple[tuple[SharedPatient, ...], dict[str, dict[str, int]]]:
    sent = {name: announced(name, *patients) for name, *patients in sites}
    pairs = find_pairs([a.tokens for a in sent.values()])
    return pairs, {s: dict(a.shared(shared_rows(s, pairs))) for s, a in sent.items()}


def test_each_site_is_told_its_own_patients_and_nothing_else() -> None:
    pairs, own = told(("a", "P-01", "P2", "P3"), ("b", "p1", "P9"), ("c", "sub-P1", "P3", "P9"))
    assert shared_counts(pairs) == {("a", "b"): 1, ("a", "c"): 2, ("b", "c"): 2}
    assert own == {"a": {"P-01": 2, "P3": 1}, "b": {"p1": 2, "P9": 1},
                   "c": {"sub-P1": 2, "P3": 1, "P9": 1}}  # fmt: skip


def test_a_site_alone_and_sites_without_overlap_share_none() -> None:
    assert told(("a", "P1"), ("b", "P2"))[0] == ()
    assert told(("a", "P1"))[0] == ()
    assert find_pairs([]) == ()


def test_one_patient_twice_at_one_site_is_found_and_counted_once() -> None:
    pairs, own = told(("a", "P1", "P01"), ("b", "P1"))
    assert len(pairs) == 3
    assert shared_counts(pairs) == {("a", "b"): 1}
    assert own["a"] == {"P1": 1, "P01": 1}


def test_the_threshold_has_two_sides() -> None:
    tokens = np.arange(4 * CORNERS * TOKENS, dtype=np.int32).reshape(1, 4, CORNERS, TOKENS)

    def site(name: str, images: np.ndarray) -> TokenAnnouncement:
        return TokenAnnouncement(
            site=name,
            patients=1,
            ids=np.zeros((0, 16), np.uint8),
            id_owner=np.zeros(0, np.int32),
            images=images,
            shown=np.array([[0, 0, 0, 1]], np.uint8),
            image_owner=np.zeros(1, np.int32),
        )

    for equal, pairs in ((MIN_EQUAL_TOKENS, 1), (MIN_EQUAL_TOKENS - 1, 0)):
        other = tokens + 10**6
        other[0, 3, 5, :equal] = tokens[0, 3, 5, :equal]  # one corner of the one shown sequence
        other[0, 2] = tokens[0, 2]  # a sequence that nobody shows
        found = find_pairs([site("a", tokens), site("b", other)])
        assert len(found) == pairs
    assert found == ()
    assert SharedPatient(SitePatient("a", 0), SitePatient("b", 0), ("image",)) in find_pairs(
        [site("a", tokens), site("b", tokens)]
    )


def test_the_index_finds_the_pairs_that_a_comparison_of_all_finds(changes, monkeypatch) -> None:
    rng = np.random.default_rng(0)
    for count, values in ((60, 6), (120, 1000), (30, 2)):
        images = rng.integers(0, values, (count, 4, CORNERS, 32), dtype=np.int32)
        images[rng.integers(count, size=count // 4)] = images[rng.integers(count, size=count // 4)]
        shown = (rng.random((count, 4)) < 0.6).astype(np.uint8)
        like = np.array(
            [changes.equal_tokens(*row, images, shown) for row in zip(images, shown, strict=True)]
        )
        for least in (1, 6, 16):
            expected = list(zip(*np.nonzero(np.triu(like >= least, 1)), strict=True))
            parts = [images[:7], images[7:7], images[7:]]
            assert list(image_index.similar_images(parts, shown, least)) == expected
            monkeypatch.setattr(image_index, "MOST_EVENTS", 50)  # added up in many parts
            assert list(image_index.similar_images(parts, shown, least)) == expected
            monkeypatch.undo()
        assert 0 < (np.triu(like >= 16, 1)).sum() < count * count / 2


def test_linked_patients_are_one_group_named_by_its_first() -> None:
    a, b, c, d, e = (SitePatient(s, n) for s, n in zip("abbcd", (1, 0, 2, 0, 5), strict=True))
    groups = linked_groups([(b, c), (c, e), (a, e), (d, d)])
    assert groups == {a: a, b: a, c: a, e: a, d: d}
    assert linked_groups([]) == {}
    chain = [SitePatient("a", n) for n in range(3000)]
    links = list(zip(chain[1:], chain[:-1], strict=True))[::-1]
    assert set(linked_groups(links).values()) == {chain[0]}


# the study


def study_of(root: Path, **data: object):
    return parse_study(
        {
            "name": "s",
            "data": {"root": str(root), "train": ["a", "b"], "external": ["c"], **data},
            "grid": {"spacing_mm": [3, 3, 3]},
            "prepare": {"brain": "stripped", "register": False, "space": "scanner", "bias": False},
            "quality": {"brain_litres": [0, 9], "alignment": 0},
        }
    )


@pytest.fixture
def three(tmp_path) -> Path:
    for number, (site, names) in enumerate({"a": "X01 Y1", "b": "x1 Y2", "c": "Z1"}.items()):
        write_hospital(tmp_path / site, dict.fromkeys(names.split(), LABELS), number)
    return tmp_path


def test_a_study_refuses_a_patient_written_in_two_ways(three) -> None:
    study = study_of(three)
    cases = read_sites(study.data)
    found = find_patient_overlap(study, cases, None, None)
    with pytest.raises(OverlapError, match=r"by id: a and b share 1\. a: X01; b: x1"):
        check_overlap(study, found)
    check_overlap(study_of(three, overlap="drop"), found)
    one = link_patients(cases, found)
    assert one["a"][0].patient == one["b"][1].patient
    assert len({c.patient for own in one.values() for c in own}) == 4
    assert "a and b: 1" in overlap_statement(found)


@pytest.mark.process
def test_by_image_alone_equal_ids_mean_nothing(three) -> None:
    study = study_of(three, overlap_by=["image"])
    found, _, _ = prepare_and_compare(study, read_sites(study.data), three / "store", NoProgress())
    check_overlap(study, found)
    assert found.counts == {}
    assert "0 cases show a whole brain" in overlap_statement(
        found
    )  # the drawn ones are balls of 17 mL
    assert (
        len(
            {
                c.patient
                for own in link_patients(read_sites(study.data), found).values()
                for c in own
            }
        )
        == 5
    )


def test_a_mapping_file_at_a_site_is_used(three) -> None:
    (three / "c" / "name_mapping.csv").write_text("one_ID,two_ID\nZ1,Y2\n")
    study = study_of(three)
    found = find_patient_overlap(study, read_sites(study.data), None, None)
    assert found.counts == {("a", "b"): 1, ("b", "c"): 1}


@pytest.mark.slow
def test_a_renamed_scan_is_found_by_image(tmp_path) -> None:
    for number, (site, name) in enumerate({"a": "X1", "b": "Q7", "c": "Z1"}.items()):
        root = write_hospital(tmp_path / site, {name: LABELS}, number)
        data, affine = head(0 if site != "c" else 5)
        tumour = (data > 120).astype(np.uint8)
        data = 0.3 * data if site == "b" else data
        for path in root.glob("sub-*/anat/*"):
            write_image(path, data, affine)
        for path in root.glob("derivatives/*/*/anat/*"):
            write_image(path, tumour, affine)
    study = study_of(tmp_path)
    cases = read_sites(study.data)
    assert find_patient_overlap(study, cases, None, None).counts == {}
    found, _, _ = prepare_and_compare(study, cases, tmp_path / "store", NoProgress())
    assert found.counts == {("a", "b"): 1}
    assert found.found_by == {"id": 0, "image": 1}
    with pytest.raises(OverlapError, match="by id and image: a and b share 1"):
        check_overlap(study, found)


def test_the_verbs(three) -> None:
    path = three / "s.toml"
    path.write_text(f'name="s"\n[data]\nroot="{three}"\ntrain=["a","b"]\nexternal=["c"]\n'
                    'overlap_by=["id"]\n')  # fmt: skip
    shown = CliRunner().invoke(app, ["overlap", str(path), "--site", "b"])
    assert shown.exit_code == 0, shown.output
    assert "x1: at 1 other" in shown.output
    assert "X01" not in shown.output  # of another site
    told = CliRunner().invoke(app, ["overlap", str(path), "--json"])
    assert '"patients": 1' in told.output
    assert "own" not in told.output
    table = CliRunner().invoke(app, ["cohort", str(path), "--format", "csv"])
    assert table.output == "variable,category,site,count\n"  # five cases at three small sites
    assert "excluded also from the totals" in CliRunner().invoke(app, ["cohort", str(path)]).output


# real scans


@pytest.mark.data
def test_the_fifty_patients_of_two_real_sets_by_id(real_data) -> None:
    sent = {}
    for name in ("tcga-lgg", "tcga-roi"):
        sites = sorted(p.name for p in (real_data / name).iterdir() if p.is_dir())
        cases = [c for s in sites for c in read_bids(real_data / name / s, s)]
        if name == "tcga-roi":  # as the archive writes them
            cases = [dataclasses.replace(c, patient=f"{c.patient[:4]}-{c.patient[4:6]}-"
                                         f"{c.patient[6:]}") for c in cases]  # fmt: skip
        sent[name] = announce_patients(name, cases, SALT, LinkageConfig(("id",)))
    assert [len(a.patients) for a in sent.values()] == [94, 142]
    pairs = find_pairs([a.tokens for a in sent.values()])
    assert shared_counts(pairs) == {("tcga-lgg", "tcga-roi"): 50}
    assert len(pairs) == 50


@pytest.mark.data
def test_two_real_patients_under_their_brats_names(real_data) -> None:
    mapping = read_mapping(real_data / "brats-tcga" / "name_mapping.csv")
    brats = [p.name for p in (real_data / "brats-tcga").iterdir() if p.is_dir()]
    lgg = [p.name for p in (real_data / "tcga-lgg").glob("*/sub-*")]
    one = announce_patients(
        "brats", [case("brats", p) for p in brats], SALT, LinkageConfig(("id",), mapping)
    )
    other = announce_patients("lgg", [case("lgg", p) for p in lgg], SALT, LinkageConfig(("id",)))
    found = find_pairs([one.tokens, other.tokens])
    assert (len(brats), len(lgg), len(found)) == (6, 94, 2)


@pytest.mark.data
def test_a_crop_of_a_real_scan_is_no_whole_brain(real_data) -> None:
    case = read_bids(real_data / "tcga-roi" / "duke", "duke")[0]
    from gliofed.data.nifti import read_nifti

    volumes = [read_nifti(p) for p in case.images.values()]
    assert [describe(v.data, v.affine) for v in volumes] == [None] * 4


@pytest.mark.slow
@pytest.mark.data
def test_real_scans_are_known_again_by_image_alone(real_data, changes) -> None:
    """Five of the whole brains; benchmarks/overlap.py does all of them and more changes."""
    from gliofed.data.nifti import read_nifti

    site = "henry-ford-hospital"
    every = read_bids(real_data / "tcga-lgg" / site, site)[::10]
    cases = [{s: read_nifti(p) for s, p in c.images.items()} for c in every]
    kept = changes.rows(cases, SALT, None)
    for name in ("together", "cut bottom"):
        changed = changes.rows(cases, SALT, changes.CHANGES[name])
        like = np.array([changes.equal_tokens(t, s, *changed) for t, s in zip(*kept, strict=True)])
        assert len(like) == 5
        assert (np.diag(like) >= MIN_EQUAL_TOKENS).all(), name
        assert (like[~np.eye(5, dtype=bool)] < MIN_EQUAL_TOKENS).all(), name
