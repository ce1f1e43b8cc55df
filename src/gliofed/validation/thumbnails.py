"""Draws the thumbnail of a case: three planes, all sequences, the contour of the mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gliofed.runtime.png import encode_png
from gliofed.types import Sequence as Mri
from gliofed.validation.case_checks import CaseStack
from gliofed.validation.resampling import ras_voxel_size, reorient_to_ras, resample_onto
from gliofed.validation.scan import CheckedScan

TILE_PIXELS: Final = 112
"""Side of one plane of one sequence, in pixels."""
GREYS: Final = 64
_CONTOUR: Final = GREYS
_PALETTE: Final = bytes(
    level for grey in np.linspace(0, 255, GREYS).astype(int).tolist() for level in (grey,) * 3
) + bytes((0xE6, 0x9F, 0x00))  # orange of Okabe & Ito 2008


@np.errstate(all="ignore")
def thumbnail(stack: CaseStack, mask: CheckedScan | None, columns: Sequence[Mri]) -> bytes:
    """A PNG: a row for each of axial, coronal, sagittal; a column for each of `columns`.

    The column of a sequence that could not be read is black. The patient's right is on the left;
    in sagittal planes, the front is on the left. Planes go through the middle of the mask, or of
    the brain. Empty bytes where there is neither.
    """
    affine = stack.reference.affine
    assert affine is not None
    drawn = np.zeros(stack.brain.shape, bool)
    if mask is not None and mask.affine is not None:
        drawn = resample_onto(mask, stack.reference)[0] > 0
    brain = reorient_to_ras(stack.brain, affine).astype(bool)
    mask_voxels = reorient_to_ras(drawn, affine).astype(bool)
    if not (brain | mask_voxels).any():
        return b""
    box = _box(brain | mask_voxels)
    brain, mask_voxels = brain[box], mask_voxels[box]
    at = _middle(mask_voxels if mask_voxels.any() else brain)
    sheet = np.zeros((3 * TILE_PIXELS, len(columns) * TILE_PIXELS), np.uint8)
    for column, sequence in enumerate(columns):
        if sequence not in stack.images:
            continue
        grey = _greys(
            reorient_to_ras(stack.images[sequence], affine).astype(np.float32)[box], brain
        )
        for row, plane in enumerate(_planes(grey, mask_voxels, at, ras_voxel_size(affine))):
            sheet[
                row * TILE_PIXELS : (row + 1) * TILE_PIXELS,
                column * TILE_PIXELS : (column + 1) * TILE_PIXELS,
            ] = plane
    return encode_png(sheet, _PALETTE)


def _box(volume: NDArray[np.bool_]) -> tuple[slice, ...]:
    """The smallest box around `volume`, which is not empty."""
    ends = [np.flatnonzero(volume.any(axis=tuple(b for b in range(3) if b != a))) for a in range(3)]
    return tuple(slice(int(e[0]), int(e[-1]) + 1) for e in ends)


def _middle(volume: NDArray[np.bool_]) -> tuple[int, int, int]:
    """The voxel of `volume`'s centre of mass, moved to the fullest axial plane."""
    sums = [volume.sum(axis=tuple(b for b in range(3) if b != a)) for a in range(3)]
    x, y = (int((s * np.arange(s.size)).sum() / s.sum()) for s in sums[:2])
    return x, y, int(sums[2].argmax())


def _greys(values: NDArray[np.float32], brain: NDArray[np.bool_]) -> NDArray[np.uint8]:
    inside = values[brain & (values != 0)]
    low, high = np.percentile(inside, [1, 99.5]) if inside.size else (0.0, 1.0)
    scaled = np.clip((values - low) / max(high - low, 1e-6), 0, 1) * (GREYS - 1)
    return np.where(brain, scaled, 0).astype(np.uint8)


def _planes(
    grey: NDArray[np.uint8],
    drawn: NDArray[np.bool_],
    at: tuple[int, int, int],
    size: tuple[float, float, float],
) -> list[NDArray[np.uint8]]:
    sx, sy, sz = size
    cuts = (
        (np.s_[::-1, ::-1, at[2]], sx, sy),
        (np.s_[::-1, at[1], ::-1], sx, sz),
        (np.s_[at[0], ::-1, ::-1], sy, sz),
    )
    return [_fit(grey[cut].T, drawn[cut].T, width, height) for cut, width, height in cuts]


def _fit(
    grey: NDArray[np.uint8], drawn: NDArray[np.bool_], width: float, height: float
) -> NDArray[np.uint8]:
    """A plane in a square of `TILE_PIXELS`, voxels `width` x `height` mm, with the contour."""
    rows, columns = grey.shape
    scale = TILE_PIXELS / max(rows * height, columns * width)
    tall, wide = (
        max(1, min(TILE_PIXELS, round(n))) for n in (rows * height * scale, columns * width * scale)
    )
    down = np.minimum(np.arange(tall) * rows // tall, rows - 1)
    across = np.minimum(np.arange(wide) * columns // wide, columns - 1)
    part = grey[np.ix_(down, across)].copy()
    mask = np.pad(drawn[np.ix_(down, across)], 1)
    inner = mask[1:-1, 1:-1]
    core = inner & mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    part[inner & ~core] = _CONTOUR
    out = np.zeros((TILE_PIXELS, TILE_PIXELS), np.uint8)
    top, left = (TILE_PIXELS - tall) // 2, (TILE_PIXELS - wide) // 2
    out[top : top + tall, left : left + wide] = part
    return out
