"""Where the brain is, in scans that are already skull-stripped."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def nonzero_brain(image: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The brain of a stripped study: voxels not 0 in any sequence, largest part, holes filled.

    image: (C, X, Y, Z), 0 outside the brain. Returns (X, Y, Z), all False for an empty image.
    """
    any_signal: NDArray[np.bool_] = (image != 0).any(axis=0)
    parts, count = ndimage.label(any_signal)
    if count > 1:
        sizes = np.bincount(parts.ravel())
        sizes[0] = 0
        any_signal = parts == sizes.argmax()
    filled: NDArray[np.bool_] = ndimage.binary_fill_holes(any_signal)
    return filled


def bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, slice, slice]:
    """The smallest box of voxels that holds the mask. Raises ValueError for an empty mask."""
    found = ndimage.find_objects(mask.astype(np.uint8))
    if not found:
        raise ValueError("an empty mask has no bounding box")
    x, y, z = found[0]
    return x, y, z
