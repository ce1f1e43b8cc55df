"""Studies: the paper's experiment on hospitals, who shares patients, and the demonstration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gliofed.datasets.formats import read_sites
from gliofed.datasets.phantom import HOSPITALS, write_phantom
from gliofed.experiment.demo import SEED, demo_study
from gliofed.experiment.outcome import Outcome
from gliofed.experiment.watch import Silent, Watcher
from gliofed.report.statements import NO_STATEMENTS, read_statements
from gliofed.study import load_study

if TYPE_CHECKING:
    from gliofed.experiment.overlap import Overlap
    from gliofed.fed.cohort import CohortTable


def run(
    study: Path,
    out: Path,
    store: Path | None = None,
    watcher: Watcher | None = None,
    processes: int = 1,
    statements: Path | None = None,
) -> Outcome:
    """Train, test and report the study in a TOML file; see `gliofed.study` for its keys.

    out: folder of the run; starting again goes on from the last committed round. store: folder
    of prepared cases, shared between runs if wished (default: `out`/store). processes: models
    trained side by side, each on its share of the cores; a script that asks for more than 1 must
    guard its own work with `if __name__ == "__main__"`. statements: a TOML file of what the authors
    say to items of the reporting checklists and for the model card (`gliofed.report.statements`).
    Raises GliofedError and its kinds.
    """
    from gliofed.experiment.run import run_study

    asked = load_study(study)
    words = read_statements(statements) if statements else NO_STATEMENTS
    watcher = watcher or Silent()
    return run_study(asked, out, store or out / "store", watcher, processes, words)


def overlap(study: Path, store: Path | None = None, watcher: Watcher | None = None) -> Overlap:
    """How many patients the study's hospitals share, and at each hospital which; trains nothing.

    store: folder of prepared cases, needed where `[data] overlap_by` has "image" (default: as
    `run`, `store` in `runs/<name of the study file>`).
    """
    from gliofed.experiment.compare import compare_sites
    from gliofed.experiment.overlap import find_overlap

    asked = load_study(study)
    sites = read_sites(asked.data)
    if "image" not in asked.data.overlap_by:
        return find_overlap(asked, sites, None, None)
    shelf = store or Path("runs") / study.stem / "store"
    return compare_sites(asked, sites, shelf, watcher or Silent())[0]


def cohort(study: Path) -> CohortTable:
    """Counts of each marker, sex, age band, scanner and sequence by site, small ones hidden."""
    from gliofed.experiment.cohort import cohort_table

    return cohort_table(load_study(study))


def phantom(root: Path, watcher: Watcher | None = None) -> Path:
    """Write the demo's six synthetic hospitals as BIDS data sets below `root`."""
    watcher = watcher or Silent()
    total = sum(h.cases for h in HOSPITALS)
    watcher.stage(f"drawing {total} phantom patients for {len(HOSPITALS)} hospitals")
    done = 0

    def tell(case: str) -> None:
        nonlocal done
        done += 1
        watcher.progress(done, total, case)

    write_phantom(root, HOSPITALS, SEED, tell)
    return root


def demo(out: Path, watcher: Watcher | None = None, processes: int = 1) -> Outcome:
    """Draw the phantom hospitals and run the whole experiment on them, in minutes, on a CPU."""
    from gliofed.experiment.run import run_study

    root = phantom(out / "hospitals", watcher)
    return run_study(demo_study(root), out, out / "store", watcher or Silent(), processes)
