"""The prepared store: content-addressed, memory-mapped, safe to kill.

    <store>/<key>/image.npy   float16 (4, X, Y, Z), z-scored, 0 outside the brain or if absent
    <store>/<key>/mask.npy    uint8 (X, Y, Z), where an expert drew one
    <store>/<key>/entry.json  present sequences, affine, where each scan lies, provenance

`key` is the digest of everything that went in, so an entry is never wrong, only present or not.
An entry is written beside its place and moved there whole.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from gliofed.errors import DataError, StoreError
from gliofed.io.files import write_text
from gliofed.types import Case, Measures, Placement, Sequence


@dataclass(frozen=True)
class Entry:
    """What a recipe makes of a case. affine: voxel to RAS millimetres of the cropped grid.

    placements: of each sequence that is there. mask_placement: of the expert's mask, where drawn.
    brain: how the brain was found. reference: the sequence that the others were laid on.
    """

    image: NDArray[np.float16]
    mask: NDArray[np.uint8] | None
    present: tuple[bool, ...]
    affine: NDArray[np.float64]
    placements: Mapping[Sequence, Placement]
    mask_placement: Placement | None
    measures: Measures
    brain: str
    reference: Sequence


@dataclass(frozen=True)
class Prepared:
    """A case and its entry, the arrays mapped from disk rather than read.

    lesion: (3, 2) first and last voxel of the mask along each axis, or None without a mask or
    where it is empty.
    """

    case: Case
    key: str
    image: NDArray[np.float16]
    mask: NDArray[np.uint8] | None
    present: tuple[bool, ...]
    affine: NDArray[np.float64]
    lesion: NDArray[np.int64] | None
    placements: Mapping[Sequence, Placement]
    mask_placement: Placement | None
    measures: Measures


class PreparedStore:
    """A folder of entries. Several processes may use one at the same time."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self._digests: dict[str, str] = self._read_digests()
        self._lock = threading.Lock()

    def has(self, key: str) -> bool:
        """Whether a whole entry is there."""
        return (self.root / key / "entry.json").is_file()

    def put(self, key: str, entry: Entry, provenance: Mapping[str, object]) -> None:
        """Write an entry; another process that finished the same one first wins."""
        part = self.root / f".{key}.{os.getpid()}.{threading.get_ident()}.part"
        part.mkdir()
        try:
            np.save(part / "image.npy", entry.image)
            if entry.mask is not None:
                np.save(part / "mask.npy", entry.mask)
            record = {
                "present": list(entry.present),
                "affine": entry.affine.tolist(),
                "lesion": _extent(entry.mask),
                "placements": {s.value: _plain(p) for s, p in entry.placements.items()},
                "mask_placement": entry.mask_placement and _plain(entry.mask_placement),
                "brain": entry.brain,
                "reference": entry.reference.value,
                "measures": dataclasses.asdict(entry.measures),
                "provenance": dict(provenance),
            }
            (part / "entry.json").write_text(json.dumps(record, indent=1))
            try:
                part.rename(self.root / key)
            except OSError:
                if not self.has(key):
                    raise
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def open(self, key: str, case: Case) -> Prepared:
        """The entry `key` as prepared data of `case`.

        Raises StoreError where the entry is damaged; deleting its folder and preparing again
        cures that.
        """
        folder = self.root / key
        try:
            record = json.loads((folder / "entry.json").read_text())
            image = np.load(folder / "image.npy", mmap_mode="r", allow_pickle=False)
            has_mask = (folder / "mask.npy").exists()
            mask = np.load(folder / "mask.npy", allow_pickle=False) if has_mask else None
            lesion = None if record["lesion"] is None else np.array(record["lesion"])
            affine = np.array(record["affine"])
            present = tuple(bool(p) for p in record["present"])
            placements = {Sequence(s): _placement(p) for s, p in record["placements"].items()}
            placed = record["mask_placement"]
            mask_placement = None if placed is None else _placement(placed)
            measures = _measures(record["measures"])
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise StoreError(
                f"{case}: its prepared entry {folder} is damaged ({error}); delete that folder "
                "and start again"
            ) from None
        return Prepared(
            case, key, image, mask, present, affine, lesion, placements, mask_placement, measures
        )

    def file_digest(self, path: Path) -> str:
        """SHA-256 of a file, remembered by path, size and time of change."""
        try:
            stat = path.stat()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from None
        name = f"{path}|{stat.st_size}|{stat.st_mtime_ns}"
        if name not in self._digests:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            with self._lock:
                self._digests[name] = digest
        return self._digests[name]

    def save_digests(self) -> None:
        """Keep the file digests for the next start, together with other processes' own."""
        with self._lock, FileLock(self.root / ".lock"):
            self._digests = self._read_digests() | self._digests
            write_text(self.root / "digests.json", json.dumps(self._digests, indent=0))

    def _read_digests(self) -> dict[str, str]:
        try:
            digests: dict[str, str] = json.loads((self.root / "digests.json").read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return digests


def _plain(placement: Placement) -> Mapping[str, object]:
    return {
        "shape": list(placement.shape),
        "affine": placement.affine.tolist(),
        "matrix": placement.matrix.tolist(),
    }


def _placement(plain: Mapping[str, Any]) -> Placement:
    x, y, z = plain["shape"]
    return Placement((x, y, z), np.array(plain["affine"]), np.array(plain["matrix"]))


def _measures(plain: Mapping[str, Any]) -> Measures:
    dice, shared = plain["template_dice"], plain["shared_information"]
    return Measures(
        float(plain["brain_litres"]),
        None if dice is None else float(dice),
        {Sequence(s): float(v) for s, v in shared.items()},
    )


def _extent(mask: NDArray[np.uint8] | None) -> list[list[int]] | None:
    if mask is None or not mask.any():
        return None
    where = np.nonzero(mask)
    return [[int(w.min()), int(w.max())] for w in where]
