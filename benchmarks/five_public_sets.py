"""`studies/five-public-sets.toml` end to end on made-up sets of the published names.

    python benchmarks/five_public_sets.py --out FOLDER [--size 2018]

Writes the eight sets with tiny volumes, checks cases and labels of every site against what was
written, then runs `gliofed run` on the study with one pass of a small network on 16 x 24 x 16
voxels. Prints seconds (wall and CPU, all processes) and peak memory of the largest process. A
folder that is already there is not written again, and a stopped run continues.

--size: patients, shared out over the sets as the published ones are; 2,018 are the paper's.
--models: of the study (default: all of the file).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
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
    study = small_version(load_study(ROOT / "studies/five-public-sets.toml"), sets)
    if given.models:
        study = dataclasses.replace(study, models=tuple(given.models))
    check_counts(study, expected)
    path = given.out / "five-public-sets.toml"
    path.write_text(study_toml(study))
    start = time.perf_counter()
    command = [Path(sys.executable).with_name("gliofed"), "run", path, "--out", given.out / "run"]
    done = subprocess.run([*map(str, command), "--processes", "1"], check=False)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"gliofed run: status {done.returncode}, {time.perf_counter() - start:.0f} s, "
        f"CPU {used.ru_utime + used.ru_stime:.0f} s, peak {used.ru_maxrss / 2**20:.2f} GiB"
    )


if __name__ == "__main__":
    main()
