"""Preparation beside a plain chain of registrations: seconds, memory and error, with known truth.

    python benchmarks/prepare.py [--data FOLDER] [--cases N] [--peers elastix,ants] [--rigid]

FOLDER holds brats-tcga/BraTS*/ (published cases on one grid of 1 mm, stripped). Each case is
degraded by tests/moved_scans.py: every sequence moved for itself by 5 to 15 degrees and 5 to
20 mm, biased, noisy, T1CE of 1 mm, T1, T2 and FLAIR of 1 x 1 x 5 mm. Then, case by case, the
methods take turns, each in a process of its own on two threads:

- gliofed-space: each sequence onto the finest (rigid), that onto MNI152 (affine), each scan
  resampled once. The same job as the peers'.
- gliofed: the whole recipe, `prepare_case`, with N4 and the measures.
- elastix, ants: each sequence to MNI152 for itself (elastix: default maps rigid and affine;
  ANTs: "Affine"), each scan resampled. So van der Voort et al. 2023 laid their scans on an atlas
  with elastix.

Seconds: reading, registering, resampling; without the start of Python and imports. CPU seconds
are summed over threads and count where other work runs on the machine: the last but one column
compares them. Memory: the
child's greatest resident size. Error: how far apart a sequence and T1CE lie in the network's
space, |T_s(p_s) - T_r(p_r)|, mean over points of the brain, where T takes a scan to MNI152 and
p_s, p_r are one anatomical point in both. The truth is as good as the published alignment, so
errors below some 0.3 mm mean little.

--rigid compares rigid registration alone: T1, T2 and FLAIR to T1CE, three pairs a case; there
niimath and greedy are peers too. `registration_peers.py` says how each is called.

Measured 2026-11-30, two cores of a shared machine, six cases, 18 pairs (times: CPU seconds beside
gliofed-space's):

    method         error, median  greatest  CPU seconds  times  peak memory
    gliofed-space        0.36 mm   0.94 mm          7.4    1.0       0.7 GB
    gliofed              0.36 mm   0.94 mm         12.4    1.7       0.8 GB
    elastix              1.25 mm   2.77 mm         51.7    7.0       1.7 GB
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import moved_scans  # noqa: E402  (of the tests)
import registration_peers as peers  # noqa: E402

from gliofed.data.nifti import read_nifti  # noqa: E402
from gliofed.preprocessing.brain_extraction import nonzero_brain  # noqa: E402
from gliofed.preprocessing.recipe import prepare_case  # noqa: E402
from gliofed.preprocessing.resampling import resample  # noqa: E402
from gliofed.preprocessing.template import mni152  # noqa: E402
from gliofed.runtime.threads import both, side_by_side  # noqa: E402
from gliofed.study import GridConfig, PreparationConfig  # noqa: E402
from gliofed.types import Case, Labels, Sequence  # noqa: E402

Matrices = dict[Sequence, NDArray[np.float64]]
Paths = dict[Sequence, Path]
REFERENCE = Sequence.T1CE
TEMPLATE = "template.nii"


@dataclass(frozen=True)
class Result:
    """What one method took for one case. seconds, cpu: one figure a job. matrices: from the
    network's space, or with --rigid from the reference, RAS mm, to each scan's."""

    seconds: list[float]
    cpu: list[float]
    gigabytes: float
    matrices: Matrices


def gliofed_space(folder: Path, paths: Paths) -> Matrices:
    from gliofed.preprocessing.registration import register_affine, register_rigid

    volumes = {s: read_nifti(p) for s, p in paths.items()}
    reference = volumes[REFERENCE]
    brain = nonzero_brain([reference.data])
    template, template_brain = mni152()
    others = [s for s in volumes if s is not REFERENCE]
    there, rigid = both(
        lambda: register_affine(template, template_brain, reference, brain),
        lambda: side_by_side(lambda s: register_rigid(reference, volumes[s], brain), others),
    )
    found = {REFERENCE: there} | {s: m @ there for s, m in zip(others, rigid, strict=True)}
    for sequence, volume in volumes.items():
        resample(volume.data, volume.affine, template.data.shape, found[sequence] @ template.affine)
    return found


def gliofed_whole(folder: Path, paths: Paths) -> Matrices:
    entry = prepare_case(
        Case("case", "benchmark", "case", paths, None, Labels()),
        GridConfig(spacing_mm=(1.0, 1.0, 1.0)),
        PreparationConfig(),
    )
    return {s: placed.matrix for s, placed in entry.placements.items()}


def separate(name: str) -> Callable[[Path, Paths], Matrices]:
    """A peer's chain: each scan to the template for itself."""

    def chain(folder: Path, paths: Paths) -> Matrices:
        template = read_nifti(folder / TEMPLATE)
        found = {}
        for sequence, path in paths.items():
            found[sequence] = peers.METHODS[name](folder / TEMPLATE, path, "affine")
            volume = read_nifti(path)
            to = found[sequence] @ template.affine
            resample(volume.data, volume.affine, template.data.shape, to)
        return found

    return chain


WHOLE: dict[str, Callable[[Path, Paths], Matrices]] = {
    "gliofed-space": gliofed_space,
    "gliofed": gliofed_whole,
    "elastix": separate("elastix"),
    "ants": separate("ants"),
}


def child(method: str, folder: Path, rigid: bool) -> None:
    """One method on one case, in this process; prints seconds, memory and matrices as JSON."""
    paths = {s: folder / f"{s.value.lower()}.nii" for s in Sequence}
    _import_first(method)
    seconds, cpu, found = [], [], {}
    for sequence in [s for s in Sequence if s is not REFERENCE] if rigid else [REFERENCE]:
        start, busy = time.perf_counter(), _cpu_seconds()
        if rigid:
            found[sequence] = peers.METHODS[method](paths[REFERENCE], paths[sequence], "rigid")
        else:
            found = WHOLE[method](folder, paths)
        seconds.append(time.perf_counter() - start)
        cpu.append(_cpu_seconds() - busy)
    peak = max(resource.getrusage(who).ru_maxrss for who in _WHO) / 1e6
    matrices = {s.value: np.asarray(m).tolist() for s, m in found.items()}
    told = {"seconds": seconds, "cpu": cpu, "gb": peak, "matrices": matrices}
    print("\n" + json.dumps(told))


_WHO = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def _cpu_seconds() -> float:
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, _WHO))


def _import_first(method: str) -> None:
    """So that no clock runs while a library is loaded."""
    if method in peers.NEEDS:
        __import__(peers.NEEDS[method][0])
    else:
        import gliofed.preprocessing.bias_field  # noqa: F401


def run(method: str, folder: Path, rigid: bool) -> Result:
    threads = str(peers.THREADS)
    names = ("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "OMP_NUM_THREADS")
    command = [sys.executable, __file__, "--one", method, str(folder), *["--rigid"][: int(rigid)]]
    done = subprocess.run(  # noqa: PLW1510  (looked at below)
        command, env=os.environ | dict.fromkeys(names, threads), capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"{method} on {folder.name} failed:\n{done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    matrices = {Sequence(s): np.array(m) for s, m in found["matrices"].items()}
    return Result(found["seconds"], found["cpu"], found["gb"], matrices)


def errors(
    result: Result, truth: Matrices, points: NDArray[np.float64], rigid: bool
) -> list[float]:
    """mm, one for each sequence but the reference. points: RAS mm of the published scans."""
    out = []
    for sequence in [s for s in Sequence if s is not REFERENCE]:
        if rigid:
            pair = result.matrices[sequence] @ truth[REFERENCE], truth[sequence]
        else:
            pair = tuple(
                np.linalg.inv(result.matrices[s]) @ truth[s] for s in (sequence, REFERENCE)
            )
        out.append(moved_scans.apart(*pair, points))
    return out


def table(results: dict[str, list[Result]], wrong: dict[str, list[float]], first: str) -> str:
    """One row a method; CPU times also as multiples of the first one's."""

    def median(method: str, what: str) -> float:
        return statistics.median(t for r in results[method] for t in getattr(r, what))

    lines = ["| method | error, median | greatest | seconds | CPU seconds | times | peak memory |",
             "|---|---:|---:|---:|---:|---:|---:|"]  # fmt: skip
    for method, done in results.items():
        cpu = median(method, "cpu")
        lines.append(
            f"| {method} | {statistics.median(wrong[method]):.2f} mm | {max(wrong[method]):.2f} mm "
            f"| {median(method, 'seconds'):.1f} | {cpu:.1f} | {cpu / median(first, 'cpu'):.1f} "
            f"| {max(r.gigabytes for r in done):.1f} GB |"
        )
    return "\n".join(lines)


def _line(result: Result, off: list[float]) -> str:
    shown = " ".join(f"{e:.2f}" for e in off)
    took = f"{sum(result.seconds):.1f} s, {sum(result.cpu):.1f} s CPU"
    return f"{took}, {shown} mm, load {os.getloadavg()[0]:.1f}"


def main(data: Path, cases: int, named: list[str], rigid: bool) -> None:
    peers.require(named)
    methods = (["gliofed"] if rigid else ["gliofed-space", "gliofed"]) + named
    results: dict[str, list[Result]] = {m: [] for m in methods}
    wrong: dict[str, list[float]] = {m: [] for m in methods}
    folders = moved_scans.published_folders(data)[:cases]
    if not folders:
        sys.exit(f"no cases in {data}/brats-tcga; name their folder with --data")
    for number, published in enumerate(folders):
        volumes = moved_scans.published_case(published)
        moved = moved_scans.moved_case(volumes, seed=100 + number)
        truth = {s: m.matrix for s, m in moved.items()}
        points = moved_scans.brain_points(volumes[REFERENCE])
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            moved_scans.write(folder, {s: m.volume for s, m in moved.items()})
            moved_scans.write_volume(folder / TEMPLATE, mni152()[0])
            for method in methods:
                result = run(method, folder, rigid)
                off = errors(result, truth, points, rigid)
                results[method].append(result)
                wrong[method] += off
                print(published.name, method, _line(result, off), file=sys.stderr, flush=True)
    print(f"{len(folders)} cases, {len(wrong[methods[0]])} pairs\n")
    print(table(results, wrong, methods[0]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--cases", type=int, default=6)
    parser.add_argument("--peers", default="elastix,ants")
    parser.add_argument("--rigid", action="store_true")
    parser.add_argument("--one", nargs=2, metavar=("METHOD", "FOLDER"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        child(asked.one[0], Path(asked.one[1]), asked.rigid)
    else:
        main(asked.data, asked.cases, [p for p in asked.peers.split(",") if p], asked.rigid)
