"""A scan that crashes a library costs its own case alone, in a study and in predictions."""

import shutil
from pathlib import Path

import pytest
import torch
from crashing_cases import crashing
from prepared_stores import entries, no_new_process
from recorded_progress import RecordedProgress
from small_study import write_study

import gliofed
from gliofed.data.formats.registry import read_sites
from gliofed.data.phantom import PhantomHospital
from gliofed.errors import DataError
from gliofed.experiments.run import run_study
from gliofed.preprocessing.dataset import preparation_request, prepare_every_case
from gliofed.runtime.progress import NoProgress
from gliofed.study import load_study


def remove_case(hospital: Path, subject: str) -> None:
    for folder in [*hospital.glob(subject), *hospital.glob(f"derivatives/*/{subject}")]:
        shutil.rmtree(folder)
    table = hospital / "participants.tsv"
    rows = table.read_text().splitlines(keepends=True)
    table.write_text("".join(r for r in rows if not r.startswith(f"{subject}\t")))


@pytest.mark.process
@pytest.mark.usefixtures("without_pictures")
def test_a_study_names_the_case_and_goes_on_without_it(tmp_path) -> None:
    path = write_study(
        tmp_path, [PhantomHospital(n, 3) for n in ("one", "two", "three")], ("pooled",)
    )
    study, store = load_study(path), tmp_path / "store"
    cases = [c for own in read_sites(study.data).values() for c in own]
    bad = next(c for c in cases if c.site == "two")
    torch.set_num_threads(1)
    with crashing(bad.id), pytest.raises(DataError) as caught:
        run_study(study, tmp_path / "run", NoProgress(), gliofed.RunOptions(store=store))
    text = str(caught.value)
    assert text.startswith("1 of 9 cases cannot be prepared, the others are in the store: ")
    assert f"{bad}: its process crashed (SIGSEGV)" in text
    assert len(entries(store)) == 8
    remove_case(tmp_path / "hospitals" / "two", f"sub-{bad.id.removeprefix('sub-')}")
    kept = [c for c in cases if c != bad]
    with no_new_process():  # all others are in the store
        progress = RecordedProgress()
        assert len(prepare_every_case(kept, preparation_request(study, store), progress)) == 8
        assert progress.counts == [(n, 8) for n in range(1, 9)]
        finished = run_study(study, tmp_path / "run", NoProgress(), gliofed.RunOptions(store=store))
    assert finished.page.is_file()
    assert bad.id not in {r.case for r in finished.results}
