"""The public verbs. Each is what the command of the same name does."""

from __future__ import annotations

from pathlib import Path

from gliofed.check.run import Result, check_path
from gliofed.check.sheet import write_json, write_sheet
from gliofed.datasets.phantom import HOSPITALS, write_phantom
from gliofed.experiment.demo import SEED, demo_study
from gliofed.experiment.run import Outcome, run_study
from gliofed.experiment.watch import Silent, Watcher
from gliofed.study import load_study

__all__ = ["Outcome", "Result", "check", "demo", "phantom", "run"]


def check(
    path: Path, json: Path | None = None, sheet: Path | None = None, watcher: Watcher | None = None
) -> Result:
    """Check a hospital, a folder of hospitals or of case folders, an image or a table.

    json, sheet: files to write the findings to, as JSON and as an HTML page with thumbnails.
    Every fault of the data is a finding of the result; raises DataError where `path` does not
    exist or no reading process can be started.
    """
    watcher = watcher or Silent()
    watcher.stage(f"checking {path}")
    result = check_path(path, sheet is not None, watcher.progress)
    if json is not None:
        write_json(result, json)
    if sheet is not None:
        write_sheet(result, sheet)
    return result


def run(
    study: Path, out: Path, store: Path | None = None, watcher: Watcher | None = None
) -> Outcome:
    """Train, test and report the study in a TOML file; see `gliofed.study` for its keys.

    out: folder of the run; starting again goes on from the last committed round. store: folder
    of prepared cases, shared between runs if wished (default: `out`/store).
    Raises GliofedError and its kinds.
    """
    return run_study(load_study(study), out, store or out / "store", watcher or Silent())


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
