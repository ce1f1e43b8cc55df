"""A small picture of one slice, to recognise its sequence by."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliofed.dicom.convert import convert
from gliofed.dicom.frames import write_slices
from gliofed.dicom.headers import DicomHeader

SIDE: Final = 160
"""Longer side of a picture, in pixels."""


def slice_picture(one: DicomHeader, work: Path) -> NDArray[np.uint8]:
    """Greys 0 to 255, (rows, columns) as stored in the slice, pixels square.

    one: with a position. work: an empty private folder, which the caller removes. The darkest and
    brightest 1 % of pixels are black and white. Raises DataError where it cannot be converted.
    """
    assert one.plane is not None, "checked by the caller"
    volume = convert(write_slices([one], work / "slices"), work)
    pixels = np.asarray(volume.dataobj, np.float32)[:, ::-1, 0].T  # the converter turns rows over
    low, high = np.percentile(pixels, [1, 99])
    greys = np.clip((pixels - low) / max(high - low, 1e-6), 0, 1) * 255
    size = np.array(pixels.shape) * one.plane.spacing
    target = np.maximum(np.round(SIDE * size / size.max()), 1)
    shrink = np.maximum(np.array(pixels.shape) / target, 1)
    smooth = ndimage.uniform_filter(greys, np.round(shrink).astype(int))
    small = ndimage.zoom(smooth, target / pixels.shape, order=1, grid_mode=True, mode="nearest")
    out: NDArray[np.uint8] = np.clip(small, 0, 255).astype(np.uint8)
    return out
