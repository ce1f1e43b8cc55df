"""The public functions of studies: run, demo, overlap, cohort, phantom."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gliofed.data.formats.registry import read_sites
from gliofed.data.phantom import HOSPITALS, write_phantom
from gliofed.experiments.cases import prepare_and_compare
from gliofed.experiments.cohort import cohort_table
from gliofed.experiments.demo import SEED, demo_study
from gliofed.experiments.finished_run import FinishedRun
from gliofed.experiments.model_folders import reference_folders
from gliofed.experiments.patient_overlap import PatientOverlap, find_patient_overlap
from gliofed.experiments.run import run_study
from gliofed.experiments.run_context import RunOptions
from gliofed.federated.cohort.table import CohortTable
from gliofed.inference.predict import PredictOptions, predict, report
from gliofed.runtime.progress import NO_PROGRESS, Progress
from gliofed.study import load_study


def run(
    study: Path,
    out: Path,
    options: RunOptions = RunOptions(),
    progress: Progress = NO_PROGRESS,
) -> FinishedRun:
    """Train, test and report the study in a TOML file; see `gliofed.study` for its keys.

    out: folder of the run. Starting again goes on from the last committed round. Raises
    GliofedError and its kinds.
    """
    return run_study(load_study(study), out, progress, options)


@dataclass(frozen=True)
class Demo:
    """The demo's run, and the page of one predicted case of its external hospital."""

    run: FinishedRun
    case_page: Path


def demo(out: Path, options: RunOptions = RunOptions(), progress: Progress = NO_PROGRESS) -> Demo:
    """Draw the phantom hospitals, run the whole experiment on them, in minutes, on a CPU, and
    predict the first case of the external hospital with the federated model."""
    hospitals = phantom(out / "hospitals", progress)
    finished = run_study(demo_study(hospitals), out, progress, options)
    (model,) = reference_folders(finished)
    scans = min((hospitals / HOSPITALS[-1].name).glob("sub-*"))
    choices = PredictOptions(model, options.store or out / "store")
    predict(str(scans), out / "predicted", choices, progress)
    (page,) = report(out / "predicted", choices.store, progress)
    return Demo(finished, page)


def overlap(
    study: Path, store: Path | None = None, progress: Progress = NO_PROGRESS
) -> PatientOverlap:
    """How many patients the study's hospitals share, and at each hospital which; trains nothing.

    store: folder of prepared cases, needed where `[data] overlap_by` has "image" (default:
    `store` in `runs/<name of the study file>`).
    """
    loaded = load_study(study)
    sites = read_sites(loaded.data)
    if "image" not in loaded.data.overlap_by:
        return find_patient_overlap(loaded, sites, None, None)
    store = store or Path("runs") / study.stem / "store"
    return prepare_and_compare(loaded, sites, store, progress)[0]


def cohort(study: Path) -> CohortTable:
    """Counts of each marker, sex, age band, scanner and sequence by site, small ones suppressed."""
    return cohort_table(load_study(study))


def phantom(root: Path, progress: Progress = NO_PROGRESS) -> Path:
    """Write the demo's six synthetic hospitals as BIDS data sets below `root`."""
    patients = sum(hospital.cases for hospital in HOSPITALS)
    progress.stage(f"drawing {patients} phantom patients for {len(HOSPITALS)} hospitals")
    write_phantom(root, HOSPITALS, SEED, progress)
    return root
