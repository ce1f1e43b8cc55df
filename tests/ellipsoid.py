"""An ellipsoid in the network's space, known in millimetres, and rigid ways from there."""

from __future__ import annotations

import dicom_series as dicom
import numpy as np
from nibabel.affines import apply_affine

NETWORK = np.array([[1.0, 0, 0, -20], [0, 1, 0, -24], [0, 0, 1, -18], [0, 0, 0, 1]])
SIZE = (40, 48, 36)
CENTRE, RADII = np.array([3.0, -4, 2]), np.array([9.0, 12, 7])


def rigid(turns=(0.0, 0.0, 0.0), shift=(0.0, 0.0, 0.0)) -> np.ndarray:
    along, down = map(np.array, dicom.oblique(turns))
    matrix = np.eye(4)
    matrix[:3] = np.c_[along, down, np.cross(along, down), shift]
    return matrix


def depth(points: np.ndarray) -> np.ndarray:
    """About how many mm inside the ellipsoid; negative outside."""
    r = np.linalg.norm((points - CENTRE) / RADII, axis=-1)
    return (1 - r) * RADII.min()


def voxels_in_mm(shape, affine) -> np.ndarray:
    return apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))


def ellipsoid() -> np.ndarray:
    return depth(voxels_in_mm(SIZE, NETWORK)) >= 0
