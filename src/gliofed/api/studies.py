"""Studies: the paper's experiment on hospitals, who shares patients, and the demonstration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gliofed.data.formats.registry import read_sites
from gliofed.data.phantom import HOSPITALS, write_phantom
from gliofed.experiments.demo import SEED, demo_study
from gliofed.experiments.finished_run import FinishedRun
from gliofed.reporting.checklists.statements import NO_STATEMENTS, read_statements
from gliofed.runtime.progress import NoProgress, Progress
from gliofed.study import load_study

if TYPE_CHECKING:
    from gliofed.experiments.patient_overlap import PatientOverlap
    from gliofed.federated.cohort.table import CohortTable


def run(
    study: Path,
    out: Path,
    store: Path | None = None,
    watcher: Progress | None = None,
    processes: int = 1,
    statements: Path | None = None,
) -> FinishedRun:
    """Train, test and report the study in a TOML file; see `gliofed.study` for its keys.

    out: folder of the run; starting again goes on from the last committed round. store: folder
    of prepared cases, shared between runs if wished (default: `out`/store). processes: models
    trained side by side, each on its share of the cores; a script that asks for more than 1 must
    guard its own work with `if __name__ == "__main__"`. statements: a TOML file of what the authors
    say to items of the reporting checklists and for the model card (`gliofed.reporting.checklists.statements`).
    Raises GliofedError and its kinds.
    """
    from gliofed.experiments.run import run_study

    asked = load_study(study)
    words = read_statements(statements) if statements else NO_STATEMENTS
    watcher = watcher or NoProgress()
    return run_study(asked, out, store or out / "store", watcher, processes, words)


def overlap(
    study: Path, store: Path | None = None, watcher: Progress | None = None
) -> PatientOverlap:
    """How many patients the study's hospitals share, and at each hospital which; trains nothing.

    store: folder of prepared cases, needed where `[data] overlap_by` has "image" (default: as
    `run`, `store` in `runs/<name of the study file>`).
    """
    from gliofed.experiments.cases import prepare_and_compare
    from gliofed.experiments.patient_overlap import find_patient_overlap

    asked = load_study(study)
    sites = read_sites(asked.data)
    if "image" not in asked.data.overlap_by:
        return find_patient_overlap(asked, sites, None, None)
    shelf = store or Path("runs") / study.stem / "store"
    return prepare_and_compare(asked, sites, shelf, watcher or NoProgress())[0]


def cohort(study: Path) -> CohortTable:
    """Counts of each marker, sex, age band, scanner and sequence by site, small ones hidden."""
    from gliofed.experiments.cohort import cohort_table

    return cohort_table(load_study(study))


def phantom(root: Path, watcher: Progress | None = None) -> Path:
    """Write the demo's six synthetic hospitals as BIDS data sets below `root`."""
    watcher = watcher or NoProgress()
    total = sum(h.cases for h in HOSPITALS)
    watcher.stage(f"drawing {total} phantom patients for {len(HOSPITALS)} hospitals")
    done = 0

    def tell(case: str) -> None:
        nonlocal done
        done += 1
        watcher.progress(done, total, case)

    write_phantom(root, HOSPITALS, SEED, tell)
    return root


def demo(out: Path, watcher: Progress | None = None, processes: int = 1) -> FinishedRun:
    """Draw the phantom hospitals and run the whole experiment on them, in minutes, on a CPU."""
    from gliofed.experiments.run import run_study

    root = phantom(out / "hospitals", watcher)
    return run_study(demo_study(root), out, out / "store", watcher or NoProgress(), processes)
