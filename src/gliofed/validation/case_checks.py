"""Checks the images of one case against each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gliofed.data.enhancement import contradicts, enhancement_score
from gliofed.data.nifti import Volume
from gliofed.types import SEQUENCES, Sequence
from gliofed.validation.findings import FileFault
from gliofed.validation.masks import check_mask_position
from gliofed.validation.resampling import resample_onto, same_grid
from gliofed.validation.scan import CheckedScan
from gliofed.validation.skull_and_face import SKULL, find_head, is_face, nose_mm, skull_share

GRID_ORDER: Final = (Sequence.FLAIR, Sequence.T2, Sequence.T1CE, Sequence.T1)
"""The first of these that a case has gives the grid for comparisons."""
WHOLE_BRAIN_ML: Final = 600.0
"""A smaller brain is treated as a crop: its symmetry and volume are not checked."""
LARGEST_BRAIN_ML: Final = 2500.0
FILLED: Final = 0.8
"""Share of an image above which a brain of that size has no background around it."""
FRAMES: Final[Mapping[int, str]] = {
    1: "scanner coordinates",
    2: "coordinates of another scan",
    3: "Talairach space",
    4: "MNI152 space",
    5: "the space of another template",
}
"""By NIfTI's code of an affine (nifti1.h)."""
_COMMON: Final = 0.5
_ALIKE: Final = 0.6


@dataclass(frozen=True)
class CaseStack:
    """A case on one grid. images: by sequence. brain: voxels that are not 0 in any of them.

    ml: volume of one voxel of the reduced grid.
    """

    reference: CheckedScan
    images: Mapping[Sequence, NDArray[np.float32]]
    brain: NDArray[np.bool_]
    ml: float


def check_image(scan: CheckedScan) -> list[FileFault]:
    """Faults of one image's voxels."""
    faults = check_numbers(scan)
    if scan.flat:
        code = "IMG-EMPTY" if scan.high == 0 else "IMG-CONSTANT"
        return [*faults, FileFault(code, f"every finite voxel is {scan.high:g}")]
    if scan.values is not None and len(scan.values) <= 8:
        faults.append(FileFault("IMG-FEW-VALUES", f"{len(scan.values)} distinct values"))
    corners = scan.small[np.ix_(*([0, n - 1] for n in scan.small.shape))]
    value = corners.flat[0]
    if value != 0 and (corners == value).all() and np.mean(scan.small == value) > 0.2:
        faults.append(FileFault("IMG-BACKGROUND", f"background is {value:g}"))
    return faults


def check_numbers(scan: CheckedScan) -> list[FileFault]:
    """Faults of NaN and infinite voxels."""
    counts = (("IMG-NAN", scan.nan), ("IMG-INF", scan.infinite))
    return [FileFault(code, f"{count} voxels") for code, count in counts if count]


@np.errstate(all="ignore")
def check_case(
    images: Mapping[Sequence, CheckedScan], masks: Mapping[str, CheckedScan]
) -> tuple[list[tuple[str, FileFault]], CaseStack | None]:
    """(where, fault) for each fault; where: a sequence, a mask, or "" for the case.

    Scans without an affine or with a single value are not compared. The stack is None where no
    image remains.
    """
    faults = _duplicate_images(images)
    usable = {s: i for s, i in images.items() if i.affine is not None and not i.flat}
    name = next((s for s in GRID_ORDER if s in usable), None)
    if name is None:
        return faults, None
    reference = usable[name]
    on_grid = {}
    for sequence, scan in usable.items():
        values, inside = resample_onto(scan, reference)
        if not same_grid(scan, reference):
            common = float(inside.mean())
            faults.append((sequence.value, _grid_fault(sequence, name, common)))
            if scan.frame != reference.frame:
                text = f"{sequence.value} in {FRAMES[scan.frame]}, {name.value} in "
                text += FRAMES[reference.frame]
                faults.append((sequence.value, FileFault("SET-FRAME", text)))
            if common < _COMMON:
                continue
        on_grid[sequence] = values
    stack = _stack(reference, on_grid)
    faults += _low_overlap(stack, name)
    faults += [("", f) for f in _brain(stack)]
    faults += [("", f) for f in check_swapped_contrast(usable)]
    for kind, mask in masks.items():
        if mask.affine is not None and mask.positive:
            faults += [
                (kind, f)
                for f in check_mask_position(
                    mask,
                    stack.reference,
                    stack.brain,
                    stack.images.get(Sequence.FLAIR),
                    complete=stack.brain.sum() * stack.ml > WHOLE_BRAIN_ML,
                )
            ]
    return faults, stack


def _stack(reference: CheckedScan, images: Mapping[Sequence, NDArray[np.float32]]) -> CaseStack:
    assert reference.affine is not None
    brain = np.any([v != 0 for v in images.values()], axis=0)
    return CaseStack(reference, images, brain, abs(np.linalg.det(reference.affine[:3, :3])) / 1000)


def _duplicate_images(images: Mapping[Sequence, CheckedScan]) -> list[tuple[str, FileFault]]:
    first: dict[str, Sequence] = {}
    faults = []
    for sequence, scan in images.items():
        if scan.flat:
            continue
        if scan.digest in first:
            text = f"{sequence.value} and {first[scan.digest].value} are the same image"
            faults.append((sequence.value, FileFault("SET-SAME-IMAGE", text)))
        first.setdefault(scan.digest, sequence)
    return faults


def _grid_fault(sequence: Sequence, reference: Sequence, common: float) -> FileFault:
    text = f"{sequence.value} covers {common:.0%} of the grid of {reference.value}"
    return FileFault("SET-APART" if common < _COMMON else "SET-GRIDS", text)


def _low_overlap(stack: CaseStack, name: Sequence) -> list[tuple[str, FileFault]]:
    """Brains with low overlap, by the Dice coefficient of their nonzero voxels."""
    reference = stack.images[name] != 0
    faults = []
    for sequence, values in stack.images.items():
        brain = values != 0
        overlap = np.count_nonzero(reference & brain)
        dice = 2 * overlap / max(1, reference.sum() + brain.sum())
        if sequence is not name and dice < _ALIKE:
            text = f"brain of {sequence.value} and {name.value}: Dice {dice:.2f}"
            faults.append((sequence.value, FileFault("SET-MISALIGNED", text)))
    return faults


def _size_faults(volume: float, text: str, filled: bool) -> list[FileFault]:
    """Of an image without a skull. volume: mL that are not 0. filled: whether almost all are."""
    if volume > LARGEST_BRAIN_ML:
        return [FileFault("SET-VOLUME", text)]
    return [FileFault("SET-PARTIAL", text)] if filled else []


def _brain(stack: CaseStack) -> list[FileFault]:
    share, volume = float(stack.brain.mean()), float(stack.brain.sum() * stack.ml)
    text = f"{volume:.0f} mL, {share:.0%} of the image, are not 0"
    if share < 0.02 and volume < 100:
        return [FileFault("SET-NO-BRAIN", text)]
    if volume <= WHOLE_BRAIN_ML:
        return []
    image = next(stack.images[s] for s in SEQUENCES if s in stack.images)
    head = find_head(image, stack.reference)
    if head is None or (share := skull_share(head)) < SKULL:
        return _size_faults(volume, text, filled=float(stack.brain.mean()) > FILLED)
    faults = [
        FileFault("SET-NOT-STRIPPED", f"bone around the brain on {share:.0%} of lines tested")
    ]
    if is_face(nose := nose_mm(head)):
        faults.append(
            FileFault("SET-FACE", f"tissue {nose:+.0f} mm from the forehead, at the nose")
        )
    return faults


def check_swapped_contrast(scans: Mapping[Sequence, CheckedScan]) -> list[FileFault]:
    """A fault where T1 and T1 with contrast may be swapped. scans: with an affine."""
    if Sequence.T1 not in scans or Sequence.T1CE not in scans:
        return []
    plain, contrast = (_volume(scans[s]) for s in (Sequence.T1, Sequence.T1CE))
    score = enhancement_score(plain, contrast)
    if not contradicts(score):
        return []
    text = f"T1 is brighter in vessels and tumour than T1CE ({score:.2f}, expected above 0)"
    return [FileFault("SET-SWAPPED", text)]


def _volume(scan: CheckedScan) -> Volume:
    assert scan.affine is not None, "scans without one are not compared"
    return Volume(scan.small, scan.affine)
