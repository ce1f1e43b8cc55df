"""Slow changes of intensity across the field of view, which coils make and no tissue has: N4.

Tustison et al. 2010, IEEE TMI 29:1310, as SimpleITK has it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import SimpleITK as sitk  # noqa: N813  (its own name)
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

from gliofed.data.nifti import Volume
from gliofed.preprocessing.registration import to_itk

FIT_MM: Final = 6.0
"""The field is smooth: it is fitted on voxels of about this side and applied on the scan's own."""
ITERATIONS: Final = (50, 50, 30)
"""At most so many iterations a level; each level halves the distance of the field's knots."""
TISSUE: Final = 0.05
"""Voxels darker than this share of the brain's median are fluid or void and do not count."""


def correct_bias_field(volume: Volume, brain: NDArray[np.bool_]) -> Volume:
    """The scan divided by its bias field. brain: on the scan's grid, the field is fitted there.

    A scan whose brain is empty or darker than the fit can use comes back as it is.
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
    fit.SetMaximumNumberOfIterations(ITERATIONS)
    fit.Execute(small, small_mask)
    field = sitk.GetArrayFromImage(fit.GetLogBiasFieldAsImage(image)).T
    # Away from the brain the spline runs free: there the field ends where it did at the brain.
    low, high = field[used].min(), field[used].max()
    corrected = volume.data / np.exp(np.clip(field, low, high))
    return Volume(np.ascontiguousarray(corrected, dtype=np.float32), volume.affine)
