"""Whether a face may stand out of a head that was not skull-stripped."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from gliofed.check.scan import Scan
from gliofed.check.space import upright, upright_size

FOREHEAD_MM: Final = (20.0, 60.0)
"""Below the top of the head."""
NOSE_MM: Final = (80.0, 150.0)
_HALF_WIDTH_MM: Final = 25.0
_BEHIND_MM: Final = 5.0


def has_face(image: NDArray[np.float32], grid: Scan) -> str:
    """What was seen of a face, or "" for none.

    A nose reaches at least as far forward as the forehead; where a face was cut away, or was not
    in the field of view, tissue ends far behind it. Measured near the midline, on what is brighter
    than a quarter of the head's 90th percentile.
    """
    assert grid.affine is not None
    values = upright(image, grid.affine).astype(np.float32)
    size = upright_size(grid.affine)
    seen = values[values > 0]
    if not seen.size:
        return ""
    head = values > np.percentile(seen, 90) / 4
    rows = np.flatnonzero(head.mean(axis=(0, 1)) > 0.01)
    columns = np.flatnonzero(head.mean(axis=(1, 2)) > 0.01)
    if not rows.size or not columns.size:
        return ""
    top, middle = rows[-1], (columns[0] + columns[-1]) / 2
    half = _HALF_WIDTH_MM / size[0]
    slab = head[max(0, round(middle - half)) : round(middle + half) + 1]
    forehead = _front(slab, top, FOREHEAD_MM, size)
    nose = _front(slab, top, NOSE_MM, size)
    if forehead is None or nose is None or nose < forehead - _BEHIND_MM:
        return ""
    return f"tissue {nose - forehead:+.0f} mm before the forehead, where the nose is"


def _front(
    slab: NDArray[np.bool_], top: int, band: tuple[float, float], size: tuple[float, float, float]
) -> float | None:
    """How far forward tissue reaches, in mm, from `band[0]` to `band[1]` below the top."""
    low, high = (top - round(mm / size[2]) for mm in reversed(band))
    part = slab[:, :, max(0, low) : max(0, high)]
    if not part.size:
        return None
    rows = np.flatnonzero(part.sum(axis=(0, 2)) >= 5)
    return float(rows[-1] * size[1]) if rows.size else None
