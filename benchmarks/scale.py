"""Seconds and memory of each step as a study grows: 100, 400 and 1,600 cases, 5 and 50 sites.

    python benchmarks/scale.py --out FOLDER [--cases 100 400 1600] [--sites 5 50]

Made-up brains of 20 x 24 x 20 voxels (FLAIR and mask) go through the code that real scans go
through, each step in a process of its own, on one thread. A cell is one step at one size; finished
cells are kept in --out, and a stopped benchmark continues. A step's seconds are CPU seconds of all
its processes, so that a busy machine changes them little.

check, prepare, overlap, cohort, score: as the commands. pairs: the server's comparison of tokens
alone. run: one pass and the tests of one federated model; page: its results page. Both are stages
of one `run_study`, whose memory is sampled.

Prints a table of the cells and the exponent of seconds over cases: the slope of a straight line
through the logarithms, with the 95 % interval of Student's t over both numbers of sites, each of
which has a level of its own. Writes the memory of the largest run over time as memory.png.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import math
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
ROOT = Path(__file__).parents[1]
sys.path += [str(ROOT / "tests"), str(ROOT / "benchmarks")]

import numpy as np  # noqa: E402
from scipy import stats  # noqa: E402

STEPS = ("check", "prepare", "overlap", "pairs", "cohort", "run", "page", "score")
NO_IMAGES = ("pairs", "score")
"""Steps on tokens and tables that they draw."""
SAMPLE_S = 0.5
GOAL = 1.05


@dataclass(frozen=True)
class Size:
    cases: int
    sites: int
    folder: Path

    @property
    def study(self) -> Path:
        return self.folder / "scale.toml"

    @property
    def store(self) -> Path:
        return self.folder / "store"


def write_size(size: Size) -> None:
    """BIDS hospitals of about equal size, a fifth of them external, and their study."""
    from made_up_sets import small_version, write_scans

    from gliofed.study import parse_study, study_toml

    names = [f"site{n:02d}" for n in range(size.sites)]
    rng = np.random.default_rng(size.cases)
    rows: dict[str, list[str]] = {name: [] for name in names}
    for number in range(size.cases):
        site, case = names[number % size.sites], f"sub-{number:05d}"
        root = size.folder / "sites" / site
        mask = f"../../derivatives/tumor/{case}/anat/{case}_label-tumor_mask"
        write_scans(root / case / "anat", case, {"flair": f"{case}_FLAIR"}, (mask, 1))
        cells = [*map(str, rng.integers(0, 2, 3)), str(rng.integers(2, 5))]
        rows[site].append("\t".join([case, str(rng.integers(20, 85)), "FM"[number % 2], *cells]))
    head = "participant_id\tage\tsex\tidh\tcodel_1p19q\tmgmt\tgrade"
    for name, lines in rows.items():
        (size.folder / "sites" / name / "participants.tsv").write_text("\n".join([head, *lines]))
    last = size.sites - max(1, size.sites // 5)
    data = {"root": "sites", "train": names[:last], "external": names[last:], "synthetic": True}
    study = parse_study({"name": "scale", "models": ["federated"], "data": data})
    size.study.write_text(study_toml(small_version(study, Path("sites"))))


def check(size: Size) -> None:
    import gliofed

    gliofed.check(size.folder / "sites", None, None)


def prepare(size: Size) -> None:
    from gliofed.data.formats.registry import read_sites
    from gliofed.preprocessing.dataset import preparation_request, prepare_every_case
    from gliofed.runtime.progress import NO_PROGRESS
    from gliofed.study import load_study

    study = load_study(size.study)
    cases = [c for site in read_sites(study.data).values() for c in site]
    prepare_every_case(cases, preparation_request(study, size.store), NO_PROGRESS)


def overlap(size: Size) -> None:
    import gliofed

    gliofed.overlap(size.study, size.store)


def pairs(size: Size) -> None:
    """Random tokens; a tenth of the cases are copies. Only the comparison is counted."""
    from gliofed.federated.linkage.server import CORNERS, TokenAnnouncement, find_pairs
    from gliofed.federated.linkage.tokens import TOKENS

    rng = np.random.default_rng(1)
    tokens = rng.integers(0, 2**31, (size.cases, 1, CORNERS, TOKENS), dtype=np.int32)
    copies = size.cases // 10
    tokens[-copies:, ..., : TOKENS // 8] = tokens[:copies, ..., : TOKENS // 8]
    announced = []
    for number, own in enumerate(np.array_split(np.arange(size.cases), size.sites)):
        ids = rng.integers(0, 256, (len(own), 16), dtype=np.uint8)
        owners, shown = np.arange(len(own), dtype=np.int32), np.ones((len(own), 1), np.uint8)
        announced.append(
            TokenAnnouncement(str(number), len(own), ids, owners, tokens[own], shown, owners)
        )
    start = time.process_time()
    found = find_pairs(announced)
    assert len(found) == copies, (len(found), copies)
    print(json.dumps({"pairs": time.process_time() - start}))


def cohort(size: Size) -> None:
    import gliofed

    gliofed.cohort(size.study)


def run(size: Size) -> None:
    """The run and its page, seconds by stage, and memory over time."""
    from gliofed.experiments.run import run_study
    from gliofed.experiments.run_context import RunOptions
    from gliofed.runtime.progress import NoProgress
    from gliofed.study import load_study

    begun, stages, memory = time.perf_counter(), [], []
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(SAMPLE_S):
            memory.append((time.perf_counter() - begun, *resident()))

    class Stages(NoProgress):
        def stage(self, text: str) -> None:
            stages.append((text, time.process_time(), time.perf_counter() - begun))

    threading.Thread(target=sample, daemon=True).start()
    progress = Stages()
    run_study(load_study(size.study), size.folder / "run", progress, RunOptions(size.store))
    progress.stage("end")
    ended.set()
    seconds = {"run": 0.0, "page": 0.0}
    for (text, start, _), (_, end, _) in itertools.pairwise(stages):
        if text.startswith("model"):
            seconds["run"] += end - start
        if text == "page":
            seconds["page"] += end - start
    page = (size.folder / "run/report.html").stat().st_size
    print(json.dumps({**seconds, "stages": stages, "memory": memory, "page_bytes": page}))


def score(size: Size) -> None:
    from score import made_up_table

    import gliofed

    table = size.folder / "model.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows(made_up_table(size.cases, size.sites))
    gliofed.score([table], size.folder / "scored", bootstrap=2000)


def resident() -> tuple[int, int]:
    """Bytes of this process in memory, and those of mapped files among them."""
    _, held, mapped, *_ = map(int, Path("/proc/self/statm").read_text().split())
    page = os.sysconf("SC_PAGE_SIZE")
    return held * page, mapped * page


WORK: dict[str, Callable[[Size], None]] = {
    f.__name__: f for f in (check, prepare, overlap, pairs, cohort, run, score)
}


def measured(size: Size, step: str) -> dict[str, object]:
    """One cell, from the disk or a new process: CPU and wall seconds and peak bytes."""
    path = size.folder / f"{step}.json"
    if path.exists():
        return json.loads(path.read_text())
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [
        sys.executable,
        __file__,
        "--out",
        size.folder,
        "--cell",
        step,
        size.cases,
        size.sites,
    ]
    # the process that reports its own children: their peak is not ours to see otherwise
    done = subprocess.run([*map(str, command)], stdout=subprocess.PIPE, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    cell = {"cpu": used, "wall": time.perf_counter() - start, **json.loads(lines[-1])}
    if len(lines) > 1:
        cell |= json.loads(lines[0])
    path.write_text(json.dumps(cell))
    return cell


def one_cell(step: str, size: Size) -> None:
    WORK[step](size)
    peaks = (
        resource.getrusage(who).ru_maxrss * 1024
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(json.dumps({"peak": max(peaks)}))


def exponent(points: list[tuple[int, int, float]]) -> tuple[float, float]:
    """Slope of log seconds over log cases, and half its 95 % interval (nan without one).

    points: cases, sites, seconds. Each number of sites has its own level.
    """
    sites = sorted({s for _, s, _ in points})
    levels = [[float(s == one) for one in sites] for _, s, _ in points]
    design = np.array([[math.log(n), *own] for (n, _, _), own in zip(points, levels, strict=True)])
    seconds = np.log([max(t, 1e-3) for _, _, t in points])
    found, *_ = np.linalg.lstsq(design, seconds, rcond=None)
    free = len(points) - design.shape[1]
    if free < 1:
        return float(found[0]), math.nan
    spread = ((seconds - design @ found) ** 2).sum() / free
    error = math.sqrt(spread * np.linalg.inv(design.T @ design)[0, 0])
    return float(found[0]), float(stats.t.ppf(0.975, free) * error)


def plot_memory(cell: dict, size: Size, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 2.8), layout="constrained")
    axis = figure.subplots()
    seconds, held, mapped = np.array(cell["memory"]).T
    axis.plot(seconds, held / 2**20, color="black", linewidth=1, label="in memory")
    axis.plot(seconds, (held - mapped) / 2**20, color="0.5", label="without mapped files")
    axis.legend(loc="lower right", fontsize=7, frameon=False)
    for text, _, at in cell["stages"][:-1]:
        axis.axvline(at, color="0.75", linewidth=0.8, zorder=0)
        axis.text(
            at, axis.get_ylim()[1], f" {text.split(':')[0]}", fontsize=6, rotation=90, va="top"
        )
    axis.set(xlabel="seconds", ylabel="MiB", ylim=(0, None))
    axis.set_title(f"gliofed run, {size.cases} cases of {size.sites} sites", fontsize=9)
    figure.savefig(path, dpi=150)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--cases", type=int, nargs="+", default=[100, 400, 1600])
    options.add_argument("--sites", type=int, nargs="+", default=[5, 50])
    options.add_argument("--steps", nargs="+", choices=WORK, default=list(WORK))
    options.add_argument("--cell", nargs=3, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.cell:
        step, cases, sites = given.cell
        one_cell(step, Size(int(cases), int(sites), given.out))
        return
    points: dict[str, list[tuple[int, int, float]]] = {s: [] for s in STEPS}
    print("| cases | sites | step | CPU s | ms a case | peak MiB |\n|---:|---:|---|---:|---:|---:|")
    for cases in given.cases:
        for sites in given.sites:
            size = Size(cases, sites, given.out / f"{cases}-{sites}")
            size.folder.mkdir(parents=True, exist_ok=True)
            for step in given.steps:
                if step not in NO_IMAGES and not size.study.exists():
                    write_size(size)
                cell = measured(size, step)
                for name in ("run", "page") if step == "run" else (step,):
                    seconds = float(cell.get(name, cell["cpu"]))
                    points[name].append((cases, sites, seconds))
                    each, peak = 1e3 * seconds / cases, cell["peak"] / 2**20
                    row = (
                        f"| {cases} | {sites} | {name} | {seconds:.2f} | {each:.1f} | {peak:.0f} |"
                    )
                    print(row, flush=True)
                if step == "run":
                    plot_memory(cell, size, given.out / "memory.png")
    print("\n| step | exponent (95 % interval) | at most 1.05 |\n|---|---|---|")
    for name, own in points.items():
        if len({n for n, _, _ in own}) > 1:
            slope, half = exponent(own)
            verdict = "yes" if slope <= GOAL else "no"
            print(
                f"| {name} | {slope:.2f} ({slope - half:.2f} to {slope + half:.2f}) | {verdict} |"
            )


if __name__ == "__main__":
    main()
