"""Reads a mask drawn by a person, on the grid of one of the case's scans."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from collections.abc import Sequence as Rows
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from gliofed.data.masks import read_mask
from gliofed.data.nifti import Volume, read_grid, read_nifti
from gliofed.data.reorient import Array, NamedGrid, reorient_to_grid
from gliofed.dicom.signature import is_dicom
from gliofed.errors import DataError, StudyError
from gliofed.inference.mask_export import (
    open_prepared_case,
    outside_ml,
    prediction_of_mask,
    prepared_grid,
)
from gliofed.inference.native_grid import mask_on_scan
from gliofed.preprocessing.recipe import MASKED_ON
from gliofed.types import SEQUENCES, Case, Sequence

MaskSpace = Literal["scan", "network", "DICOM-SEG"]
_CURE: Final = (
    "draw on one of the case's own scans, or name the prepared case with --case for a mask in the "
    "network's space"
)


@dataclass(frozen=True)
class ManualMask:
    """voxels: (X, Y, Z) of the scan's file, its axes as stored. affine: voxel to RAS mm.

    space: of the file. outside_ml: volume where the scan has no voxels.
    """

    sequence: Sequence
    scan: Path
    voxels: NDArray[np.bool_]
    affine: Array
    space: MaskSpace
    outside_ml: float


def read_manual_mask(
    mask: Path, case: Case, sequence: Sequence | None, labels: tuple[str, ...], entry: Path | None
) -> ManualMask:
    """A NIfTI mask or DICOM Segmentation as a mask on one of the case's scans.

    sequence: of the scan; else the first of `MASKED_ON` whose grid it lies on or, drawn in the
    network's space, that the case has. labels: the values, or segments, that are tumour. entry:
    the prepared case in whose space the mask lies. Raises DataError: unreadable; values that are
    no labels, several without `labels`, a label that is absent; a grid that is none of the
    case's (half a voxel off anywhere); a prepared case of other scans.
    """
    if sequence is not None and sequence not in case.images:
        present = ", ".join(s for s in SEQUENCES if s in case.images)
        raise DataError(f"sub-{case.id}: has no {sequence.value}; it has {present}")
    candidates = [s for s in MASKED_ON if s in case.images and sequence in (None, s)]
    with _reading(mask):
        dicom = is_dicom(mask)
    if dicom:
        if entry is not None:
            raise DataError(f"{mask}: a DICOM Segmentation lies on a scan; give it without --case")
        return _segmented(mask, case, candidates, labels)
    volume = read_mask(mask, may_be_empty=True)
    voxels = _tumour(mask, volume.data, labels)
    if entry is not None:
        tumour = replace(volume, data=voxels.astype(np.float32))
        return _from_network(mask, tumour, case, candidates, entry)
    return _on_scan(mask, voxels, volume.affine, case, candidates)


def scan_grid(scan: Path) -> NamedGrid:
    """The grid of a scan's file, its axes as stored."""
    read_nifti(scan)
    return NamedGrid(scan.name, *read_grid(scan), _CURE)


def digest_of(path: Path) -> str:
    """SHA-256 of a file. Raises DataError where it cannot be read."""
    with _reading(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Raises DataError, with the file's path, where it cannot be read."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def _tumour(path: Path, data: NDArray[np.float32], labels: tuple[str, ...]) -> NDArray[np.bool_]:
    present = [f"{v:.0f}" for v in np.unique(data[data > 0]).tolist()]
    if not labels:
        if len(present) > 1:
            raise DataError(
                f"{path}: holds the labels {', '.join(present[:10])}; name those "
                "that are tumour with --label"
            )
        return data > 0
    absent = sorted(set(labels) - set(present))
    if absent:
        raise DataError(
            f"{path}: holds no label {absent[0]}; it holds {', '.join(present[:10]) or 'none'}"
        )
    return np.isin(data, [float(v) for v in labels])


def _on_scan(
    path: Path, voxels: NDArray[np.bool_], affine: Array, case: Case, candidates: Rows[Sequence]
) -> ManualMask:
    faults = []
    for sequence in candidates:
        scan = case.images[sequence]
        grid = scan_grid(scan)
        try:
            oriented = reorient_to_grid(voxels, affine, grid, str(path))
        except DataError as error:
            faults.append(str(error))
        else:
            return ManualMask(sequence, scan, oriented, grid.affine, "scan", 0.0)
    raise _no_grid(path, faults)


def _segmented(
    path: Path, case: Case, candidates: Rows[Sequence], labels: tuple[str, ...]
) -> ManualMask:
    try:
        from gliofed.dicom.seg import read_segmentation
    except ImportError as error:
        raise StudyError(
            f"DICOM needs packages that are not installed ({error}); install gliofed[hospital]"
        ) from error
    names: list[str | None] = [*labels] or [None]
    faults = []
    for sequence in candidates:
        scan = case.images[sequence]
        grid = scan_grid(scan)
        try:
            parts = [read_segmentation(path, grid.shape, grid.affine, n) for n in names]
        except DataError as error:
            faults.append(str(error))
        else:
            return ManualMask(
                sequence, scan, np.logical_or.reduce(parts), grid.affine, "DICOM-SEG", 0.0
            )
    raise _no_grid(path, faults)


def _no_grid(path: Path, faults: list[str]) -> DataError:
    if len(set(faults)) == 1:
        return DataError(faults[0])
    each = "; ".join(f.removeprefix(f"{path}: ").partition(";")[0] for f in faults)
    return DataError(f"{path}: lies on none of the case's scans: {each}; {_CURE}")


def _from_network(
    path: Path, volume: Volume, case: Case, candidates: Rows[Sequence], entry: Path
) -> ManualMask:
    prepared = open_prepared_case(entry)
    grid = prepared_grid(prepared)
    voxels = reorient_to_grid(volume.data > 0, volume.affine, grid, str(path))
    segmentation = prediction_of_mask(voxels, prepared)
    sequence = next((s for s in candidates if s in prepared.placements), None)
    if sequence is None:
        raise DataError(
            f"{entry}: was prepared without {', '.join(candidates)}; name a sequence that it has: "
            f"{', '.join(prepared.placements)}"
        )
    scan, placement = case.images[sequence], prepared.placements[sequence]
    if _prepared_from(entry, sequence) != digest_of(scan):
        raise DataError(
            f"{entry}: was not prepared from {scan}; give the folder of this case in the "
            "store, or prepare it again"
        )
    return ManualMask(
        sequence,
        scan,
        mask_on_scan(segmentation, placement),
        placement.affine,
        "network",
        outside_ml(segmentation, placement),
    )


def _prepared_from(entry: Path, sequence: Sequence) -> object:
    """The SHA-256 of the scan that an entry was made from; None if not recorded."""
    provenance = json.loads((entry / "entry.json").read_text())["provenance"]
    return provenance.get("sources", {}).get(sequence.value, {}).get("sha256")
