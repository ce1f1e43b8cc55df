"""`studies/five-public-sets.toml` end to end on made-up sets of the published names.

    python benchmarks/five_public_sets.py --out FOLDER [--size 2018]

Writes the eight sets with tiny volumes, checks cases and labels of every site against what was
written, then runs each command of docs/how-to/five-public-sets.md on the study with one pass of a
small network on 16 x 24 x 16 voxels. Prints status, seconds (wall, and CPU of all processes) and
peak memory of the largest process of each; what a command prints is in FOLDER/STEP.txt. A step that
has ended is not repeated, and a stopped run continues.

--size: patients, shared out over the sets as the published ones are; 2,018 are the paper's.
--models: of the study (default: all of the file).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from made_up_sets import (  # noqa: E402
    EXTERNAL,
    MARKERS,
    MadeUpSet,
    paper_sizes,
    small_version,
    write_sets,
)

from gliofed.data.formats.registry import read_sites  # noqa: E402
from gliofed.study import Study, load_study, study_toml  # noqa: E402
from gliofed.types import Unknown  # noqa: E402

FILE = "five-public-sets.toml"


def sizes_of(total: int) -> dict[str, int]:
    """Patients of each set; the paper's 2,018 exactly, others in about its shares."""
    paper = paper_sizes()
    if total == sum(paper.values()):
        return paper
    return {name: max(3, round(n * total / sum(paper.values()))) for name, n in paper.items()}


def check_counts(study: Study, expected: dict[str, MadeUpSet]) -> None:
    """Print cases and labels of every site; AssertionError where a reader finds others."""
    print("| site | cases | " + " | ".join(MARKERS) + " |\n|---|---:|" + "---|" * len(MARKERS))
    total = 0
    for site, cases in read_sites(study.data).items():
        assert len(cases) == expected[site].cases, site
        cells, total = [], total + len(cases)
        for marker in MARKERS:
            values = (c.labels[marker] for c in cases)
            counts = Counter("unknown" if isinstance(v, Unknown) else v for v in values)
            written = {c: n for (m, c), n in expected[site].labels.items() if m == marker}
            assert counts == written, (site, marker)
            cells.append(", ".join(f"{c} {counts[c]}" for c in sorted(counts)))
        role = " (external)" if site in EXTERNAL else ""
        print(f"| {site}{role} | {len(cases)} | " + " | ".join(cells) + " |")
    print(f"{total} cases; every count as written", flush=True)


def steps_of(study: Study, out: Path) -> dict[str, list[str]]:
    """The commands in their order, by name of the step."""
    sets, file, store = str(study.data.root), str(out / FILE), str(out / "store")
    forms = study.data.formats.items()
    steps = {f"check {s}": ["check", f"{sets}/{s}", "--format", form] for s, form in forms}
    for site, form in forms:
        own = ["prepare", f"{sets}/{site}", "--out", store, "--study", file, "--format", form]
        steps[f"prepare {site}"] = own
    steps["cohort"] = ["cohort", file]
    steps["overlap"] = ["overlap", file, "--store", store]
    run = [file, "--out", str(out / "run"), "--store", store, "--processes", "1"]
    return {**steps, "plan": ["plan", *run], "run": ["run", *run]}


def measured(name: str, words: list[str], out: Path) -> dict[str, float]:
    """Status, seconds and GiB of one command, kept in `out` once it has ended."""
    kept = out / f"{name.replace(' ', '-')}.json"
    if kept.exists():
        return json.loads(kept.read_text())
    command, start = [str(Path(sys.executable).with_name("gliofed")), *words], time.perf_counter()
    with kept.with_suffix(".txt").open("w") as printed:
        process = subprocess.Popen(command, stdout=printed, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
    cell = {
        "status": os.waitstatus_to_exitcode(status),
        "wall": time.perf_counter() - start,
        "cpu": used.ru_utime + used.ru_stime,
        "peak": used.ru_maxrss / 2**20,
    }
    if cell["status"] in (0, 1):  # 1: with findings
        kept.write_text(json.dumps(cell))
    return cell


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--size", type=int, default=2018)
    options.add_argument("--models", nargs="*")
    given = options.parse_args()
    sets, record = given.out / "sets", given.out / "written.json"
    if not record.exists():
        start = time.perf_counter()
        written = write_sets(sets, sizes_of(given.size))
        plain = {n: [w.cases, [[*k, v] for k, v in w.labels.items()]] for n, w in written.items()}
        record.write_text(json.dumps(plain))
        print(f"written in {time.perf_counter() - start:.0f} s", flush=True)
    expected = {
        name: MadeUpSet(cases, {(m, c): n for m, c, n in labels}, {})
        for name, (cases, labels) in json.loads(record.read_text()).items()
    }
    study = small_version(load_study(ROOT / "studies/five-public-sets.toml"), sets.resolve())
    if given.models:
        study = dataclasses.replace(study, models=tuple(given.models))
    check_counts(study, expected)
    (given.out / FILE).write_text(study_toml(study))
    print("\n| step | status | s | CPU s | peak, MiB |\n|---|---:|---:|---:|---:|", flush=True)
    for name, words in steps_of(study, given.out).items():
        cell = measured(name, words, given.out)
        seconds = f"{cell['wall']:.0f} | {cell['cpu']:.0f}"
        print(f"| {name} | {cell['status']} | {seconds} | {1024 * cell['peak']:.0f} |", flush=True)


if __name__ == "__main__":
    main()
