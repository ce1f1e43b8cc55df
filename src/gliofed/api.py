"""The public verbs. Each is what the command of the same name does."""

from __future__ import annotations

from pathlib import Path

from gliofed.datasets.audit import Reading
from gliofed.datasets.formats import DEFAULT, format_of
from gliofed.datasets.phantom import HOSPITALS, write_phantom
from gliofed.experiment.demo import SEED, demo_study
from gliofed.experiment.run import Outcome, run_study
from gliofed.experiment.watch import Silent, Watcher
from gliofed.study import load_study

__all__ = ["Outcome", "Reading", "demo", "inspect", "phantom", "run"]


def run(
    study: Path, out: Path, store: Path | None = None, watcher: Watcher | None = None
) -> Outcome:
    """Train, test and report the study in a TOML file; see `gliofed.study` for its keys.

    out: folder of the run; starting again goes on from the last committed round. store: folder
    of prepared cases, shared between runs if wished (default: `out`/store).
    Raises GliofedError and its kinds.
    """
    return run_study(load_study(study), out, store or out / "store", watcher or Silent())


def inspect(path: Path, format_id: str = DEFAULT, site: str = "") -> Reading:
    """Read one data set as a study would, opening no image: its cases and the account of them.

    format_id: a row of `gliofed.datasets.formats.FORMATS`. site: what to call the hospital
    (default: the folder's name). Raises StudyError for an unknown format, else DataError.
    """
    return format_of(format_id).read(path, site or path.resolve().name)


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


def demo(out: Path, watcher: Watcher | None = None) -> Outcome:
    """Draw the phantom hospitals and run the whole experiment on them, in minutes, on a CPU."""
    root = phantom(out / "hospitals", watcher)
    return run_study(demo_study(root), out, out / "store", watcher or Silent())
