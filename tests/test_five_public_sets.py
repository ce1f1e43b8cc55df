"""The study of the five public sets, end to end on made-up sets of the published names."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import accumulate
from pathlib import Path

import made_up_sets
import pytest
from how_to import PAGES, block_with
from made_up_sets import EXTERNAL, MARKERS, PAPER, PUBLISHED, paper_sizes, small_version, write_sets

from gliofed import check, markers
from gliofed.data.formats.registry import format_of, inspect, read_sites
from gliofed.experiments.run import run_study
from gliofed.federated.cohort.table import (
    count_cohort,
    merge_cohorts,
    pack_cohort,
    read_cohort,
)
from gliofed.reporting.html.formatting import short_title
from gliofed.study import load_study, study_toml
from gliofed.types import Case, Sequence, Unknown

STUDY = load_study(Path(__file__).parents[1] / "studies/five-public-sets.toml")
SIZES = {
    "ucsf-pdgm": 6,
    "upenn-gbm": 11,
    "egd": 7,
    "utsw": 6,
    "tcga": 9,
    "cptac-gbm": 4,
    "ivygap": 3,
    "rembrandt": 4,
}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    return root, write_sets(root, SIZES)


def label_counts(cases: Iterable[Case]) -> Counter[tuple[str, str]]:
    values = ((m, c.labels[m]) for c in cases for m in MARKERS)
    return Counter((m, "unknown" if isinstance(v, Unknown) else v) for m, v in values)


def test_the_study_names_every_set_with_its_format() -> None:
    assert {*STUDY.data.train, *STUDY.data.external} == set(PUBLISHED) == set(STUDY.data.formats)
    assert STUDY.data.external == EXTERNAL
    assert {format_of(f).id for f in STUDY.data.formats.values()} == {
        name.replace("-", "_") for name in PUBLISHED
    }


def test_the_papers_patients_are_shared_out_in_full() -> None:
    sizes = paper_sizes()
    assert sum(sizes[s] for s in STUDY.data.train) == PAPER[0]
    assert sum(sizes[s] for s in EXTERNAL) == PAPER[1]
    assert sum(sizes.values()) == 2018
    exact = PAPER[0] * PUBLISHED["egd"] / sum(PUBLISHED[s] for s in STUDY.data.train)
    assert abs(sizes["egd"] - exact) < 1


def test_cases_and_labels_of_every_site_are_those_written(sets) -> None:
    root, expected = sets
    study = small_version(STUDY, root)
    sites = read_sites(study.data)
    assert {s: len(c) for s, c in sites.items()} == SIZES
    for site, cases in sites.items():
        assert label_counts(cases) == expected[site].labels, site
        assert all(set(c.images) == set(Sequence) and c.mask for c in cases)
        assert count_cohort(cases).cases == expected[site].cases
    hospitals = Counter(c.site for c in inspect(root / "tcga", "tcga").cases)
    assert hospitals == expected["tcga"].hospitals


def touch_scans(folder: Path, seed: str, names: Mapping[str, str], mask: tuple[str, int]) -> None:
    for name in (*names.values(), mask[0]):
        path = folder / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def printed_counts(plan: str) -> dict[tuple[str, str], list[int]]:
    """Of the first table that `gliofed plan` prints: what is counted, its class, and the counts."""
    cells = [[c.strip() for c in line.split("│")[1:-1]] for line in plan.splitlines()]
    rows = [row for row in cells if len(row) == 2 + len(PUBLISHED) + 1]
    titles = accumulate((row[0] for row in rows), lambda before, own: own or before)
    return {(title, row[1]): [*map(int, row[2:])] for title, row in zip(titles, rows, strict=True)}


def test_all_2018_patients_are_read_with_their_labels(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(made_up_sets, "write_scans", touch_scans)  # no reader opens an image
    expected = write_sets(tmp_path, paper_sizes())
    sites = read_sites(small_version(STUDY, tmp_path).data)
    assert sum(len(sites[s]) for s in STUDY.data.train) == 1552
    assert sum(len(sites[s]) for s in EXTERNAL) == 466
    for site, cases in sites.items():
        assert len(cases) == expected[site].cases == len({c.patient for c in cases})
        assert label_counts(cases) == expected[site].labels, site
    printed = printed_counts(block_with(PAGES / "five-public-sets.md", "1: ucsf-pdgm"))
    assert printed["cases", ""] == [*(w.cases for w in expected.values()), 2018]
    for marker in markers.MARKERS:
        for name in (*marker.classes, "unknown"):
            counts = [w.labels.get((marker.id, name), 0) for w in expected.values()]
            assert printed[short_title(marker.id, ""), name] == [*counts, sum(counts)]
    tables = {s: pack_cohort(count_cohort(c), s) for s, c in sites.items()}
    merged = merge_cohorts({s: read_cohort(s, t, 10_000) for s, t in tables.items()})
    assert merged.sites == {s: w.cases for s, w in expected.items()}
    totals = {(r.variable, r.category): r.count for r in merged.rows if r.site is None}
    title = next(m.title for m in markers.MARKERS if m.id == "idh")
    assert totals[title, "mutant"] == sum(
        w.labels.get(("idh", "mutant"), 0) for w in expected.values()
    )


def test_rows_that_are_no_cases_are_accounted_for(sets) -> None:
    root, _ = sets
    reasons = {
        name: dict(inspect(root / name, STUDY.data.formats[name]).audit.reasons())
        for name in ("ucsf-pdgm", "upenn-gbm", "tcga", "ivygap")
    }
    assert len(reasons["ucsf-pdgm"]["follow-up exam of a patient who is in the set"]) == 6
    assert len(reasons["upenn-gbm"]["session 21: after the first surgery"]) == 2
    assert len(reasons["tcga"]["no images in this folder"]) == SIZES["tcga"]
    assert reasons["ivygap"]["no images in this folder"] == ("00169",)


@pytest.mark.process
def test_check_reads_the_images_of_a_set_by_its_format(sets) -> None:
    root, _ = sets
    result = check(root / "upenn-gbm", format_id="upenn_gbm")
    assert (result.cases, result.findings) == (SIZES["upenn-gbm"], ())
    broken = root / "upenn-gbm/NIfTI-files/images_segm/UPENN-GBM-00004_11_segm.nii.gz"
    whole = broken.read_bytes()
    try:
        broken.write_bytes(whole[:200])
        (found,) = check(root / "upenn-gbm", format_id="upenn_gbm").findings
    finally:
        broken.write_bytes(whole)
    assert found.case == "upenn-gbm/UPENN-GBM-00004_11"
    assert found.file.endswith(broken.name)


@pytest.mark.slow
def test_the_study_runs_to_its_page(sets, tmp_path) -> None:
    root, expected = sets
    study = small_version(STUDY, root)
    data = dataclasses.replace(study.data, overlap_by=("id",))
    path = tmp_path / "study.toml"
    path.write_text(
        study_toml(dataclasses.replace(study, data=data, models=("federated", "age_sex")))
    )
    finished = run_study(load_study(path), tmp_path / "run")
    assert {s: len(c) for s, c in finished.cases.sites.items()} == SIZES
    assert finished.cases.overlap.counts == {}
    (split,) = finished.splits[1]
    assert len(split.external) == sum(SIZES[s] for s in EXTERNAL)
    rows = [r for r in finished.rows if r.role == "external" and r.site == "all"]
    dice = {r.model: r.n for r in rows if r.metric == "dice"}
    assert dice["federated"] == 11
    known = sum(
        expected[s].cases - expected[s].labels.get(("mgmt", "unknown"), 0) for s in EXTERNAL
    )
    (auc,) = [r for r in rows if (r.metric, r.task, r.model) == ("auc", "mgmt", "federated")]
    assert auc.n == known
    assert (tmp_path / "run/report.html").stat().st_size > 100_000
