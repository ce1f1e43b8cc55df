"""Public functions of studies: run, demo, patient overlap, cohort table, phantom hospitals."""

from __future__ import annotations

from pathlib import Path

from gliofed.data.formats.registry import read_sites
from gliofed.data.phantom import HOSPITALS, write_phantom
from gliofed.experiments.cases import prepare_and_compare
from gliofed.experiments.cohort import cohort_table
from gliofed.experiments.demo import SEED, demo_study
from gliofed.experiments.finished_run import FinishedRun
from gliofed.experiments.patient_overlap import PatientOverlap, find_patient_overlap
from gliofed.experiments.run import run_study
from gliofed.experiments.run_context import RunOptions
from gliofed.federated.cohort.table import CohortTable
from gliofed.reporting.checklists.statements import NO_STATEMENTS, read_statements
from gliofed.runtime.progress import NO_PROGRESS, Progress
from gliofed.study import load_study


def run(
    study: Path,
    out: Path,
    store: Path | None = None,
    progress: Progress = NO_PROGRESS,
    processes: int = 1,
    statements: Path | None = None,
) -> FinishedRun:
    """Train, test and report the study in a TOML file; see `gliofed.study` for its keys.

    out: folder of the run; a second start continues after the last committed round. store: folder
    of prepared cases, shared between runs if wished (default: `out`/store). processes: models
    trained at the same time, each on its share of the cores; a script that asks for more than 1
    must guard its own work with `if __name__ == "__main__"`. statements: a TOML file with the
    authors' texts for the reporting checklists and the model card
    (`gliofed.reporting.checklists.statements`). Raises GliofedError.
    """
    settings = load_study(study)
    texts = read_statements(statements) if statements else NO_STATEMENTS
    return run_study(settings, out, progress, RunOptions(store, processes, texts))


def overlap(
    study: Path, store: Path | None = None, progress: Progress = NO_PROGRESS
) -> PatientOverlap:
    """How many patients the study's hospitals share, and at each hospital which; trains nothing.

    store: folder of prepared cases, needed where `[data] overlap_by` has "image" (default: as
    `run`, `store` in `runs/<name of the study file>`).
    """
    settings = load_study(study)
    sites = read_sites(settings.data)
    if "image" not in settings.data.overlap_by:
        return find_patient_overlap(settings, sites, None, None)
    store_folder = store or Path("runs") / study.stem / "store"
    return prepare_and_compare(settings, sites, store_folder, progress)[0]


def cohort(study: Path) -> CohortTable:
    """Counts of each marker, sex, age band, scanner and sequence by site, small ones suppressed."""
    return cohort_table(load_study(study))


def phantom(root: Path, progress: Progress = NO_PROGRESS) -> Path:
    """Write the demo's six synthetic hospitals as BIDS data sets below `root`."""
    total = sum(h.cases for h in HOSPITALS)
    progress.stage(f"writing {total} phantom patients for {len(HOSPITALS)} hospitals")
    write_phantom(root, HOSPITALS, SEED, progress)
    return root


def demo(out: Path, progress: Progress = NO_PROGRESS, processes: int = 1) -> FinishedRun:
    """Write the phantom hospitals and run the whole experiment on them: minutes on a CPU."""
    root = phantom(out / "hospitals", progress)
    return run_study(demo_study(root), out, progress, RunOptions(processes=processes))
