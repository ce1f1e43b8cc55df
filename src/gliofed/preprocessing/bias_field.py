"""Corrects the bias field of the coils by N4 (Tustison et al. 2010, IEEE TMI 29:1310)."""

from __future__ import annotations

from typing import Final

import numpy as np
import SimpleITK as sitk  # noqa: N813  (its own name)
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

from gliofed.data.nifti import Volume
from gliofed.preprocessing.registration import to_itk

FIT_MM: Final = 8.0
"""Voxel size for the fit; the smooth field is applied on the scan's own grid. 6 mm takes 2.7 times
as long and finds a known field no better."""
ITERATIONS: Final = (50, 50, 30)
"""Largest number of iterations a level; each level halves the distance of the spline's knots."""
TISSUE: Final = 0.05
"""Voxels darker than this share of the brain's median are not fitted (fluid or void)."""


def correct_bias_field(volume: Volume, brain: NDArray[np.bool_]) -> Volume:
    """The scan divided by its bias field. brain: where the field is fitted, on the scan's grid.

    A scan with an empty or dark brain is returned unchanged. On one thread, so that scans can be
    corrected side by side.
    """
    inside = volume.data[brain]
    if inside.size == 0 or float(np.median(inside)) <= 0:
        return volume
    used = brain & (volume.data > TISSUE * float(np.median(inside)))
    every = [max(1, round(FIT_MM / side)) for side in voxel_sizes(volume.affine)]
    image, mask = to_itk(volume), to_itk(Volume(used.astype(np.float32), volume.affine))
    small = sitk.Shrink(image, every)
    small_mask = sitk.Cast(sitk.Shrink(mask, every), sitk.sitkUInt8)
    fit = sitk.N4BiasFieldCorrectionImageFilter()
    fit.SetNumberOfWorkUnits(1)
    fit.SetMaximumNumberOfIterations(ITERATIONS)
    fit.Execute(small, small_mask)
    field = sitk.GetArrayFromImage(fit.GetLogBiasFieldAsImage(image)).T
    # The spline is not constrained outside the brain: its range there is that of the brain.
    low, high = field[used].min(), field[used].max()
    np.exp(np.clip(field, low, high, out=field), out=field)
    return Volume(np.divide(volume.data, field, order="C", dtype=np.float32), volume.affine)
