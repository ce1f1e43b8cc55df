"""What the tests of the prepared store ask of it, and of processes at work there."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from conftest import STRIPPED

from gliofed.data.store import PreparedCase, PreparedStore
from gliofed.preprocessing.cases import prepare_one
from gliofed.preprocessing.dataset import prepare_every_case
from gliofed.preprocessing.workers import PreparationRequest
from gliofed.runtime.progress import NO_PROGRESS, Progress
from gliofed.study import GridConfig, PreparationConfig, QualityConfig
from gliofed.types import Case


def prepare_here(
    cases: Iterable[Case], grid: GridConfig, steps: PreparationConfig, store: PreparedStore
) -> list[PreparedCase]:
    """Every case prepared in this process, where tests can reach into it."""
    return [prepare_one(case, grid, steps, store)[0] for case in cases]


def prepare_as_a_run_does(
    cases: Sequence[Case], grid: GridConfig, store: Path, progress: Progress = NO_PROGRESS
) -> tuple[PreparedCase, ...]:
    """Every case prepared in worker processes."""
    request = PreparationRequest(grid, STRIPPED, QualityConfig(), store)
    return prepare_every_case(cases, request, progress)


@contextmanager
def no_new_process() -> Iterator[None]:
    """No process may be started within the block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("multiprocessing.process.BaseProcess.start", None)
        yield


def entries(store: Path) -> list[Path]:
    """Every entry, whole: opening it reads all of its files."""
    found = [p for p in store.iterdir() if p.is_dir() and p.name[0] != "." and p.name != "figures"]
    for entry in found:
        record = json.loads((entry / "entry.json").read_text())
        shape = np.load(entry / "image.npy").shape
        assert np.load(entry / "mask.npy").shape == shape[1:]
        assert shape[0] == len(record["present"])
    return found


def half_written(store: Path) -> list[Path]:
    return [p for p in store.rglob(".*") if ".part" in p.name]


def same(one: Path, other: Path) -> bool:
    """Two stores with the same entries, but for how long each took."""
    names = sorted(p.name for p in entries(one))
    if names != sorted(p.name for p in entries(other)):
        return False
    for name in names:
        records = [json.loads((s / name / "entry.json").read_text()) for s in (one, other)]
        for record in records:
            record["provenance"].pop("seconds")
        files = [[(s / name / f).read_bytes() for f in ("image.npy", "mask.npy")]
                 for s in (one, other)]  # fmt: skip
        if records[0] != records[1] or files[0] != files[1]:
            return False
    return True


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def children_of(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(p) for p in listed.read_text().split()] if listed.exists() else []


def wait_until(true, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.005)
