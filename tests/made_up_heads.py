"""A made-up head with and without contrast agent."""

from __future__ import annotations

import numpy as np

from gliofed.data.nifti import Volume

SHAPE = (60, 72, 60)
SIZE = 3.0


def blob(centre, radii) -> np.ndarray:
    at = (np.indices(SHAPE).T - np.array(centre)) / radii
    return (at**2).sum(axis=-1).T < 1


def head(contrast: bool, skull: bool = False, seed: int = 0) -> Volume:
    """Brain with grey and white matter, ventricles and a vessel; 3 mm voxels."""
    rng = np.random.default_rng(seed)
    brain = blob((30, 36, 30), (20, 25, 20))
    data = np.where(brain, 400.0, 0)
    data[blob((30, 36, 30), (15, 19, 15))] = 600
    data[blob((26, 34, 33), (3, 8, 4)) | blob((34, 34, 33), (3, 8, 4))] = 150
    if contrast:
        data[blob((30, 16, 34), (2, 4, 8)) | blob((40, 40, 26), (3, 3, 3))] = 1500
    if skull:
        scalp = blob((30, 36, 30), (26, 31, 26)) & ~blob((30, 36, 30), (24, 29, 24))
        data[scalp] = 900
        data += 20 * rng.random(SHAPE)
    noise = rng.normal(0, 12, SHAPE)
    data = np.where(data > 0, np.maximum(data + noise, 1), 0)
    affine = np.diag([SIZE] * 3 + [1.0])
    affine[:3, 3] = -SIZE * np.array(SHAPE) / 2
    return Volume(data.astype(np.float32), affine)
