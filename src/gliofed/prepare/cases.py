"""Many cases through the recipe, each once: what is in the store already is not made again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from gliofed.io.store import Prepared, PreparedStore
from gliofed.prepare.recipe import RECIPE, prepare_case
from gliofed.study import Grid, Prepare
from gliofed.types import SEQUENCES, Case


def prepare_all(
    cases: Iterable[Case],
    grid: Grid,
    steps: Prepare,
    store: PreparedStore,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Prepared, ...]:
    """Every case prepared, in order; those already in the store are not made again.

    Two cases are worked on at a time. Raises the first case's DataError; what was finished
    before stays in the store, so a second start goes on from there.
    """
    work = list(cases)
    done = 0
    with ThreadPoolExecutor(max_workers=2) as pool:
        results = []
        for prepared in pool.map(lambda c: _stored(c, grid, steps, store), work):
            results.append(prepared)
            done += 1
            if progress is not None:
                progress(done, len(work))
    return tuple(results)


def _stored(case: Case, grid: Grid, steps: Prepare, store: PreparedStore) -> Prepared:
    key = store_key(case, grid, steps, store)
    if not store.has(key):
        sources = {s.value: str(p) for s, p in case.images.items()}
        store.put(key, prepare_case(case, grid, steps), {"recipe": RECIPE, "sources": sources,
                                                         "grid": list(grid.spacing_mm),
                                                         "steps": asdict(steps)})  # fmt: skip
    return store.open(key, case)


def store_key(case: Case, grid: Grid, steps: Prepare, store: PreparedStore) -> str:
    """SHA-256 over the recipe, its settings, the spacing, every source file and mask labels."""
    files: Sequence[tuple[str, Path | None]] = [
        *((s.value, case.images.get(s)) for s in SEQUENCES),
        ("mask", case.mask),
    ]
    parts = {name: store.file_digest(path) if path else None for name, path in files}
    held = [sorted(case.mask_labels)] if case.mask_labels else []
    text = json.dumps([RECIPE, asdict(steps), list(grid.spacing_mm), parts, *held], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
