"""The store of prepared cases: content-addressed, memory-mapped, safe against interruption.

    <store>/<key>/image.npy   float16 (4, X, Y, Z), z-scored, 0 outside the brain or if absent
    <store>/<key>/mask.npy    uint8 (X, Y, Z), where there is one
    <store>/<key>/entry.json  present sequences, affine, where each scan lies, provenance

`key` is the digest of all inputs. An entry is written to a temporary folder, synced, and renamed
when complete. Its writer holds a lock that ends with the process, which distinguishes the folder of
a killed process from work in progress.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import secrets
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from gliofed.errors import DataError, StoreError, UnwritableError
from gliofed.runtime.files import keep, keep_folder, write_text
from gliofed.types import Case, Placement, PreparationMeasures, Sequence

RECIPE: Final = "linear-1"
"""The version of `gliofed.preprocessing.recipe`; another version makes other entries."""


@dataclass(frozen=True)
class StoreEntry:
    """A prepared case before it is written. affine: voxel to RAS millimetres of the cropped grid.

    placements: of each present sequence. mask_placement: of the expert's mask, if any.
    brain: how the brain was found. reference: the sequence that the others were registered to.
    """

    image: NDArray[np.float16]
    mask: NDArray[np.uint8] | None
    present: tuple[bool, ...]
    affine: NDArray[np.float64]
    placements: Mapping[Sequence, Placement]
    mask_placement: Placement | None
    measures: PreparationMeasures
    brain: str
    reference: Sequence


@dataclass(frozen=True)
class PreparedCase:
    """A case and its entry; the image is memory-mapped.

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
    measures: PreparationMeasures


class PreparedStore:
    """A folder of entries. Several processes may use one at the same time."""

    def __init__(self, root: Path) -> None:
        """Raises UnwritableError where the folder cannot be made."""
        self.root = root
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable_error(root, error) from None
        self._digests: dict[str, str] = self._read_digests()
        self._lock = threading.Lock()

    def has(self, key: str) -> bool:
        """Whether the entry exists."""
        return (self.root / key / "entry.json").is_file()

    def put(self, key: str, entry: StoreEntry, provenance: Mapping[str, object]) -> None:
        """Write an entry, unless another process has written it.

        Raises UnwritableError where the disk is full or the folder may not be written; no
        partial entry remains.
        """
        record = {
            "present": list(entry.present),
            "affine": entry.affine.tolist(),
            "lesion": _extent(entry.mask),
            "placements": {s.value: _placement_json(p) for s, p in entry.placements.items()},
            "mask_placement": entry.mask_placement and _placement_json(entry.mask_placement),
            "brain": entry.brain,
            "reference": entry.reference.value,
            "measures": dataclasses.asdict(entry.measures),
            "provenance": dict(provenance),
        }
        try:
            with self._part(key) as part:
                keep(part / "image.npy", _npy(entry.image))
                if entry.mask is not None:
                    keep(part / "mask.npy", _npy(entry.mask))
                keep(part / "entry.json", json.dumps(record, indent=1).encode())
                keep_folder(part)
                self._place(part, key)
        except OSError as error:
            raise unwritable_error(self.root, error) from None

    @contextmanager
    def _part(self, key: str) -> Iterator[Path]:
        """A temporary folder, locked from before it is created until it is removed."""
        part = self.root / f".{key}.{secrets.token_hex(8)}.part"
        lock = FileLock(_lock_of(part))
        with lock:
            try:
                part.mkdir()
                yield part
            finally:
                shutil.rmtree(part, ignore_errors=True)
                with suppress(OSError):
                    _lock_of(part).unlink()

    def _place(self, part: Path, key: str) -> None:
        try:
            part.rename(self.root / key)
        except OSError:
            if self.has(key):
                return
            shutil.rmtree(self.root / key, ignore_errors=True)  # an incomplete folder, not an entry
            part.rename(self.root / key)
        keep_folder(self.root)

    def sweep(self) -> None:
        """Remove partial entries of killed processes; those of running processes stay."""
        partial = [*self.root.glob(".*.part"), *self.root.glob(".*.part.lock")]
        for part in {p.with_suffix("") if p.suffix == ".lock" else p for p in partial}:
            if part.is_file():  # of a single file, which the next writer replaces
                continue
            with suppress(Timeout, OSError), FileLock(_lock_of(part), timeout=0):
                shutil.rmtree(part, ignore_errors=True)
                _lock_of(part).unlink(missing_ok=True)

    def open(self, key: str, case: Case) -> PreparedCase:
        """The entry `key` as prepared data of `case`.

        Raises StoreError where the entry is damaged. Delete its folder and prepare the case again.
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
            mask_record = record["mask_placement"]
            mask_placement = None if mask_record is None else _placement(mask_record)
            measures = _measures(record["measures"])
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise StoreError(
                f"{case}: its prepared entry {folder} is damaged ({error}); delete that folder "
                "and start again"
            ) from None
        return PreparedCase(
            case, key, image, mask, present, affine, lesion, placements, mask_placement, measures
        )

    def file_digest(self, path: Path) -> str:
        """SHA-256 of a file, remembered by path, size and time of change."""
        try:
            name = _digest_name(path)
            if name not in self._digests:
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                with self._lock:
                    self._digests[name] = digest
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from None
        return self._digests[name]

    def knows(self, path: Path) -> bool:
        """Whether the digest of this file, as it is now, is remembered."""
        try:
            return _digest_name(path) in self._digests
        except OSError:
            return False

    def size(self, key: str) -> int:
        """Bytes of the files of an entry. Raises OSError where there is none."""
        return sum(file.stat().st_size for file in (self.root / key).iterdir())

    @property
    def digests(self) -> Mapping[str, str]:
        """The known digests, for another process with the same store."""
        return self._digests

    def remember(self, digests: Mapping[str, str]) -> None:
        """Add digests of another process."""
        with self._lock:
            self._digests |= digests

    def save_digests(self) -> None:
        """Save the file digests for the next start, merged with those of other processes.

        Nothing is written where all are saved already. Raises UnwritableError.
        """
        if self._digests.items() <= self._read_digests().items():
            return
        try:
            with self._lock, FileLock(self.root / ".lock"):
                self._digests = self._read_digests() | self._digests
                write_text(self.root / "digests.json", json.dumps(self._digests, indent=0))
        except OSError as error:
            raise unwritable_error(self.root, error) from None

    def _read_digests(self) -> dict[str, str]:
        try:
            digests: dict[str, str] = json.loads((self.root / "digests.json").read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return digests


def _digest_name(path: Path) -> str:
    stat = path.stat()
    return f"{path}|{stat.st_size}|{stat.st_mtime_ns}"


def unwritable_error(folder: Path, error: OSError) -> UnwritableError:
    """The error for a folder that cannot be written."""
    return UnwritableError(
        f"{folder}: cannot be written to ({error.strerror or error}); free space on the disk, "
        "check the folder's permissions, or choose another"
    )


def _lock_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.lock")


def _npy(array: NDArray[Any]) -> memoryview:
    """The array as bytes of a .npy file; NumPy's own writing hides the cause of an error."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getbuffer()


def _placement_json(placement: Placement) -> Mapping[str, object]:
    return {
        "shape": list(placement.shape),
        "affine": placement.affine.tolist(),
        "matrix": placement.matrix.tolist(),
    }


def _placement(record: Mapping[str, Any]) -> Placement:
    x, y, z = record["shape"]
    return Placement((x, y, z), np.array(record["affine"]), np.array(record["matrix"]))


def _measures(record: Mapping[str, Any]) -> PreparationMeasures:
    dice, alignment = record["template_dice"], record["alignment"]
    return PreparationMeasures(
        float(record["brain_litres"]),
        None if dice is None else float(dice),
        {Sequence(s): float(v) for s, v in alignment.items()},
    )


def _extent(mask: NDArray[np.uint8] | None) -> list[list[int]] | None:
    if mask is None or not mask.any():
        return None
    where = np.nonzero(mask)
    return [[int(w.min()), int(w.max())] for w in where]
