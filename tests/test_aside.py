"""Cases that do not reach what a study asks of their preparation take no part in it."""

import csv
import dataclasses
import json
from pathlib import Path

import pytest
import torch
from made_up_run import make_content
from prepared_stores import prepare_here
from recorded_progress import RecordedProgress
from small_study import write_study

import gliofed
from gliofed.data.formats.registry import read_sites
from gliofed.data.phantom import PhantomHospital
from gliofed.data.store import PreparedStore
from gliofed.errors import DataError
from gliofed.experiments.cases import prepare_and_compare
from gliofed.experiments.exclusions import exclude_cases, exclusion_note
from gliofed.experiments.run import run_study
from gliofed.reporting.study.page import render_study_page
from gliofed.runtime.progress import NoProgress
from gliofed.study import QualityConfig, Study, load_study
from gliofed.types import PreparationMeasures, Sequence


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> tuple[Study, Path]:
    root = tmp_path_factory.mktemp("aside")
    path = write_study(root, [PhantomHospital(n, 3) for n in ("one", "two", "three")], ("pooled",))
    return dataclasses.replace(load_study(path), quality=QualityConfig()), root / "store"


@pytest.fixture(scope="module")
def litres(small) -> dict[str, float]:
    study, store = small
    cases = [c for own in read_sites(study.data).values() for c in own]
    found = prepare_here(cases, study.grid, study.prepare, PreparedStore(store))
    return {str(p.case): p.measures.brain_litres for p in found}


def asking(study: Study, least: float) -> Study:
    return dataclasses.replace(
        study, quality=QualityConfig(brain_litres=(least, 9.0), alignment=0.0)
    )


@pytest.mark.slow
@pytest.mark.usefixtures("without_pictures")
def test_a_run_leaves_them_out_of_everything_and_says_so(small, litres, tmp_path) -> None:
    study, store = small
    ranked = sorted(litres, key=litres.__getitem__)
    left_out = next(n for n in range(1, 9) if len({c.split("/")[0] for c in ranked[n:]}) == 3
                    and n > 1)  # fmt: skip
    out, least = set(ranked[:left_out]), litres[ranked[left_out]]
    progress = RecordedProgress()
    torch.set_num_threads(1)
    outcome = run_study(asking(study, least), tmp_path, progress, gliofed.RunOptions(store=store))
    tested = {f"{r.site}/{r.case}" for r in outcome.results}
    assert tested == {c for c in litres if c.startswith("three/")} - out
    (note,) = progress.notes
    assert note.startswith(f"{len(out)} cases are excluded from training and tests: ")
    for site in {c.split("/")[0] for c in out}:
        assert f"{site} {sum(c.startswith(site) for c in out)}" in note
    with (tmp_path / "predictions.csv").open() as file:
        assert {f"{r['site']}/{r['case']}" for r in csv.DictReader(file)} == tested
    page = (tmp_path / "report.html").read_text()
    trust = page.split('id="trust-title"')[1].split("</section>")[0]
    assert note in trust
    table = page.split('id="excluded-title"')[1].split("</section>")[0]
    assert all(f'<th scope="row">{case}</th>' in table for case in out)
    assert table.count("the brain mask has") == len(out)
    assert not any(f'<th scope="row">{case}</th>' in table for case in set(litres) - out)
    cohort = page.split('id="cohort-title"')[1].split("</section>")[0]
    for site in ("one", "two", "three"):
        row = cohort.split(f'<th scope="row">{site}</th>')[1]
        kept = sum(c.startswith(site) for c in set(litres) - out)
        assert row.split("<td>")[2].startswith(f"{kept}</td>")


@pytest.mark.slow
def test_a_run_without_any_says_nothing_of_them(small, litres, tmp_path) -> None:
    study, store = small
    progress = RecordedProgress()
    asked = asking(study, min(litres.values()))  # the least itself is enough
    overlap, prepared, aside = prepare_and_compare(asked, read_sites(study.data), store, progress)
    assert (len(prepared), aside, progress.notes) == (9, (), [])
    assert sum(overlap.patients.values()) == 9
    assert "Excluded cases" not in render_study_page(make_content(cases=3, seeds=(1,), rounds=2))


@pytest.mark.slow
def test_they_are_not_compared_with_other_hospitals_patients(small, litres) -> None:
    study, store = small
    ranked = sorted(litres, key=litres.__getitem__)
    asked = asking(study, litres[ranked[1]])
    overlap, prepared, aside = prepare_and_compare(
        asked, read_sites(study.data), store, NoProgress()
    )
    assert [str(a.case) for a in aside] == ranked[:1]
    assert sum(overlap.patients.values()) == len(prepared) == 8


def test_a_hospital_with_no_case_left_is_one_error(small, litres) -> None:
    study, store = small
    most = max(litres, key=litres.__getitem__)
    with pytest.raises(DataError, match=r"none of its 3 cases can be used.*change its \[quality\]"):
        prepare_and_compare(
            asking(study, litres[most]), read_sites(study.data), store, NoProgress()
        )


def test_reasons_of_every_kind_are_kept(make_prepared, small) -> None:
    study, _ = small
    good = make_prepared("good")
    far = dataclasses.replace(
        make_prepared("far"),
        measures=PreparationMeasures(0.1, 0.2, {Sequence.T1: 1.0, Sequence.T2: 1.7}),
    )
    used, aside = exclude_cases(study, [good, far])
    assert used == (good,)
    assert [len(a.reasons) for a in aside] == [3]
    assert exclusion_note(aside) == "1 case is excluded from training and tests: here 1"


@pytest.mark.slow
def test_the_page_escapes_what_it_says_of_them() -> None:
    bad = "<img src=x>"
    content = make_content(cases=3, seeds=(1,), rounds=2)
    page = render_study_page(dataclasses.replace(content, excluded=((bad, bad, bad),)))
    assert bad not in page
    assert page.count("&lt;img src=x&gt;") == 3
    assert json.dumps(bad) not in page
