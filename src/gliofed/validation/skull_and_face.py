"""Detects whether a scan shows the skull, and a face that could be recognised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gliofed.validation.resampling import ras_voxel_size, reorient_to_ras
from gliofed.validation.scan import CheckedScan

SKULL: Final = 0.6
"""Share of lines with a skull. Measured: at most 0.30 in 290 stripped images, 1.00 with skull."""
LEVELS_MM: Final = (30.0, 75.0)
"""Distance below the top where lines from the side cross scalp, skull and brain."""
FOREHEAD_MM: Final = (40.0, 90.0)
NOSE_MM: Final = (100.0, 150.0)
_LAYER_MM: Final = 15.0
_HALF_WIDTH_MM: Final = 25.0
_BEHIND_MM: Final = 5.0


@dataclass(frozen=True)
class HeadSurface:
    """The tissue of a head; axes: right, front, top. size: of a voxel, mm.

    top: its highest axial plane.
    """

    tissue: NDArray[np.bool_]
    size: tuple[float, float, float]
    top: int

    def band(self, below_mm: tuple[float, float]) -> slice:
        """Axial planes between two distances below the top."""
        low, high = (self.top - round(mm / self.size[2]) for mm in reversed(below_mm))
        return slice(max(0, low), max(0, high + 1))


def find_head(image: NDArray[np.float32], grid: CheckedScan) -> HeadSurface | None:
    """Voxels above a quarter of the 90th percentile; None for an empty image."""
    assert grid.affine is not None
    values = reorient_to_ras(image, grid.affine).astype(np.float32)
    seen = values[values > 0]
    if not seen.size:
        return None
    tissue = values > np.percentile(seen, 90) / 4
    planes = np.flatnonzero(tissue.mean(axis=(0, 1)) > 0.01)
    return (
        HeadSurface(tissue, ras_voxel_size(grid.affine), int(planes[-1])) if planes.size else None
    )


def skull_share(head: HeadSurface) -> float:
    """Share of lines from left and right that cross scalp, skull and brain.

    These are a thin bright layer, a thin dark one, and bright tissue. 0.0 without any tissue.
    """
    part = head.tissue[:, :, head.band(LEVELS_MM)]
    planes = np.flatnonzero(part.any(axis=(0, 2)))
    if not planes.size:
        return 0.0
    quarter = (planes[-1] - planes[0]) // 4
    part = part[:, planes[0] + quarter : planes[-1] - quarter + 1]
    crossing = skulls = 0
    for side in (part, part[::-1]):
        lines = side.reshape(side.shape[0], -1).T
        lines = lines[lines.any(axis=1)]
        place = np.arange(lines.shape[1])[None]
        scalp = lines.argmax(axis=1)
        skull = _first(~lines & (place > scalp[:, None]))
        brain = _first(lines & (place > skull[:, None]))
        thin = ((skull - scalp) * head.size[0] <= _LAYER_MM) & (brain < lines.shape[1])
        skulls += int((thin & ((brain - skull) * head.size[0] <= _LAYER_MM)).sum())
        crossing += len(lines)
    return skulls / crossing if crossing else 0.0


def _first(lines: NDArray[np.bool_]) -> NDArray[np.intp]:
    """The place of the first true value of each row; the row's length where there is none."""
    place: NDArray[np.intp] = np.where(lines.any(axis=1), lines.argmax(axis=1), lines.shape[1])
    return place


def nose_mm(head: HeadSurface) -> float | None:
    """Distance in mm of the tissue at the nose in front of the forehead, near the midline.

    None where forehead or nose are not in the image; far below 0 in a defaced scan.
    """
    columns = np.flatnonzero(head.tissue.mean(axis=(1, 2)) > 0.01)
    if not columns.size:
        return None
    middle, half = (columns[0] + columns[-1]) / 2, _HALF_WIDTH_MM / head.size[0]
    slab = head.tissue[max(0, round(middle - half)) : round(middle + half) + 1]
    fronts = []
    for band in (FOREHEAD_MM, NOSE_MM):
        planes = np.flatnonzero(slab[:, :, head.band(band)].sum(axis=(0, 2)) >= 5)
        if not planes.size:
            return None
        fronts.append(float(planes[-1] * head.size[1]))
    return fronts[1] - fronts[0]


def is_face(nose: float | None) -> bool:
    """Whether tissue reaches as far forward as a nose."""
    return nose is not None and nose > -_BEHIND_MM
