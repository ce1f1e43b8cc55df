"""Corrects the bias field of the coils by N4 (Tustison et al. 2010, IEEE TMI 29:1310)."""

from __future__ import annotations

from typing import Final

import numpy as np
import SimpleITK as sitk  # noqa: N813  (its own name)
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray
from scipy import ndimage

from gliofed.data.nifti import Volume
from gliofed.preprocessing.brain_extraction import box_around
from gliofed.preprocessing.registration import to_itk

FIT_MM: Final = 8.0
"""Voxel size for the fit; the smooth field is applied on the scan's own grid. 6 mm takes 2.7 times
as long and finds a known field no better."""
AROUND_MM: Final = 8.0
"""How far around the brain a scan is corrected; resampling reaches less far."""
ITERATIONS: Final = (50, 50, 30)
"""Largest number of iterations a level; each level halves the distance of the spline's knots."""
TISSUE: Final = 0.05
"""Voxels darker than this share of the brain's median are not fitted (fluid or void)."""


def correct_bias_field(volume: Volume, brain: NDArray[np.bool_]) -> Volume:
    """The scan divided by its bias field. brain: where the field is fitted, on the scan's grid.

    Only the brain's box and `AROUND_MM` are corrected. A scan with an empty or dark brain is
    returned unchanged. On one thread, so that scans can be corrected side by side.
    """
    inside = volume.data[brain]
    if inside.size == 0 or float(np.median(inside)) <= 0:
        return volume
    used = brain & (volume.data > TISSUE * float(np.median(inside)))
    box = box_around(brain, AROUND_MM, volume.affine)
    field = log_bias_field(volume, used, box)
    # The spline is not constrained outside the brain: its range there is that of the brain.
    within = field[used[box]]
    np.exp(np.clip(field, within.min(), within.max(), out=field), out=field)
    corrected = volume.data.copy()
    corrected[box] /= field
    return Volume(corrected, volume.affine)


def log_bias_field(
    volume: Volume, used: NDArray[np.bool_], box: tuple[slice, slice, slice]
) -> NDArray[np.float32]:
    """The logarithm of the field in a box of the scan. used: the voxels that it is fitted to.

    The spline is evaluated on the coarse voxels of the fit and interpolated by cubic splines: its
    knots are many of them apart.
    """
    every = [max(1, round(FIT_MM / side)) for side in voxel_sizes(volume.affine)]
    image, mask = to_itk(volume), to_itk(Volume(used.astype(np.float32), volume.affine))
    small = sitk.Shrink(image, every)
    fit = sitk.N4BiasFieldCorrectionImageFilter()
    fit.SetNumberOfWorkUnits(1)
    fit.SetMaximumNumberOfIterations(ITERATIONS)
    fit.Execute(small, sitk.Cast(sitk.Shrink(mask, every), sitk.sitkUInt8))
    coarse = sitk.GetArrayFromImage(fit.GetLogBiasFieldAsImage(small)).T
    first = image.TransformPhysicalPointToContinuousIndex(small.GetOrigin())
    x, y, z = (
        _interpolation(n, part, start, step)
        for n, part, start, step in zip(coarse.shape, box, first, every, strict=True)
    )
    return np.asarray(np.einsum("xa,yb,zc,abc->xyz", x, y, z, coarse, optimize=True))


def _interpolation(count: int, part: slice, first: float, step: int) -> NDArray[np.float32]:
    """(part, count): from `count` coarse voxels to fine ones along one axis, by a cubic spline.

    first: fine voxel of the first coarse one. step: fine voxels a coarse one."""
    return np.asarray(
        ndimage.affine_transform(
            np.eye(count),
            (1 / step, 1),
            ((part.start - first) / step, 0),
            output_shape=(part.stop - part.start, count),
            order=3,
            mode="nearest",
            output=np.float32,
        )
    )
