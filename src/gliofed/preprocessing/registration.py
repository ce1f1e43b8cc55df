"""Registration by mutual information (Mattes et al. 2003, IEEE TMI 22:120), with SimpleITK.

Of two scans, the one with the thicker slices is sampled and the finer one interpolated: between
thick slices there is nothing to interpolate, and mutual information falls for it. Docs:
`docs/adr/0017-registration-with-simpleitk.md`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import SimpleITK as sitk  # noqa: N813  (its own name)
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

from gliofed.data.nifti import Volume
from gliofed.preprocessing.brain_extraction import box_around

Matrix = NDArray[np.float64]

LPS: Final = np.diag([-1.0, -1.0, 1.0, 1.0])
"""ITK's millimetres run to left, posterior and superior."""
BINS: Final = 32
TURN: Final = 0.15
"""Angle of the lattice of points against the voxels, in radians."""
RELAX: Final = 0.8
"""The step shrinks by this factor where the gradient turns; a smaller one stops too early."""
MASK_MM: Final = 4.0
"""How far around the brain the last levels still look."""
AROUND_MM: Final = 12.0
"""How far the first one does."""
SAME_MM: Final = 2.0
"""Transforms that differ by less on a head end in the same place."""
HEAD_MM: Final = 70.0
"""Half a head's width."""


@dataclass(frozen=True)
class _PyramidLevel:
    """voxel_mm: both scans are averaged to about this. smooth_mm: and blurred by this sigma.
    samples: number of points at which the scans are compared."""

    voxel_mm: float
    smooth_mm: float
    samples: int
    steps: int
    first_step_mm: float


_COARSE: Final = _PyramidLevel(
    voxel_mm=4, smooth_mm=2, samples=20_000, steps=100, first_step_mm=2.0
)
_MIDDLE: Final = _PyramidLevel(voxel_mm=2, smooth_mm=0, samples=20_000, steps=40, first_step_mm=0.5)
_AFFINE: Final = (
    _PyramidLevel(voxel_mm=4, smooth_mm=2, samples=10_000, steps=100, first_step_mm=0.5),
    _PyramidLevel(voxel_mm=2, smooth_mm=0, samples=20_000, steps=40, first_step_mm=0.25),
)
"""First steps are small: a large one can shrink a brain into one tissue."""
_FINE: Final = _PyramidLevel(voxel_mm=1, smooth_mm=0, samples=20_000, steps=20, first_step_mm=0.25)


def register_rigid(reference: Volume, other: Volume, brain: NDArray[np.bool_]) -> Matrix:
    """RAS mm of `reference` to RAS mm of `other`: rotation and shift. brain: on the reference.

    Both starts are tried: the scanner's own coordinates, and centre on centre of mass. Raises
    ValueError where the two cannot be laid on each other (no common part, no structure).
    """
    near, brain = _near(reference, brain)
    inside, around = _mask(near, brain, MASK_MM), _mask(near, brain, AROUND_MM)
    ours, theirs = to_itk(near), to_itk(other)
    turned = voxel_sizes(other.affine).max() > voxel_sizes(reference.affine).max()
    fixed, moving = (theirs, ours) if turned else (ours, theirs)
    try:
        coarse = _coarse(fixed, moving, lambda s: _onto(around, fixed, s, turned))
        middle = [
            _level(fixed, moving, t, _MIDDLE, _onto(inside, fixed, t, turned)) for t in coarse
        ]
        found = min(middle, key=lambda result: result[0])[1]
        found = _level(fixed, moving, found, _FINE, _onto(inside, fixed, found, turned))[1]
    except RuntimeError as error:
        raise ValueError(_reason(error)) from None
    matrix = to_ras(found)
    return np.asarray(np.linalg.inv(matrix), np.float64) if turned else matrix


def register_affine(
    template: Volume, template_brain: NDArray[np.bool_], scan: Volume, brain: NDArray[np.bool_]
) -> Matrix:
    """RAS mm of the template to RAS mm of the scan: twelve parameters, brain on brain.

    Both are taken as 0 outside their brains. Raises ValueError as `register_rigid`.
    """
    fixed, moving = to_itk(_stripped(template, template_brain)), to_itk(_stripped(scan, brain))
    mask = _mask(template, template_brain, AROUND_MM)
    try:
        first = _level(fixed, moving, _starts(fixed, moving)[1], _COARSE, mask)[1]
        free = sitk.AffineTransform(3)
        free.SetCenter(first.GetCenter())
        free.SetMatrix(first.GetMatrix())
        free.SetTranslation(first.GetTranslation())
        for level in _AFFINE:
            free = _level(fixed, moving, free, level, mask)[1]
    except RuntimeError as error:
        raise ValueError(_reason(error)) from None
    return to_ras(free)


def to_itk(volume: Volume) -> sitk.Image:
    """The same voxels in ITK's frame (LPS)."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.data.T))
    sizes = voxel_sizes(volume.affine)
    frame = LPS @ volume.affine
    image.SetSpacing(sizes.tolist())
    image.SetOrigin(frame[:3, 3].tolist())
    image.SetDirection((frame[:3, :3] / sizes).ravel().tolist())
    return image


def to_ras(transform: Any) -> Matrix:
    """A linear ITK transform as one matrix between RAS millimetres."""
    turn = np.array(transform.GetMatrix()).reshape(3, 3)
    centre = np.array(transform.GetCenter())
    out = np.eye(4)
    out[:3, :3] = turn
    out[:3, 3] = centre + np.array(transform.GetTranslation()) - turn @ centre
    return np.asarray(LPS @ out @ LPS)


def _coarse(fixed: sitk.Image, moving: sitk.Image, mask: Callable[[Any], sitk.Image]) -> list[Any]:
    """The coarse results of two starts; one where they are the same within `SAME_MM`.

    mask: from a transform to the region to compare. On coarse voxels a wrong place can have the
    greater mutual information by chance, so the next level decides. A start without overlap is
    skipped. Raises RuntimeError where both have none.
    """
    results: list[Any] = []
    last = RuntimeError()
    for start in _starts(fixed, moving):
        try:
            results.append(_level(fixed, moving, start, _COARSE, mask(start))[1])
        except RuntimeError as error:
            last = error
    if not results:
        raise last
    same = len(results) == 2 and _apart_mm(*results) < SAME_MM
    return results[:1] if same else results


def _apart_mm(first: Any, second: Any) -> float:
    """The greatest distance between the results of two transforms over the corners of a head."""
    corners = np.array(list(itertools.product((-HEAD_MM, HEAD_MM), repeat=3)))
    points = (corners + first.GetCenter()).tolist()
    here, there = ([t.TransformPoint(p) for p in points] for t in (first, second))
    return float(np.linalg.norm(np.subtract(here, there), axis=1).max())


def _level(
    fixed: sitk.Image, moving: sitk.Image, start: Any, level: _PyramidLevel, mask: sitk.Image
) -> tuple[float, Any]:
    """Minus the mutual information reached, and the transform from fixed to moving millimetres.

    On one thread: ITK gains a fifth from a second one and adds up in another order each time.
    Gradients are differences at the samples; filtering a whole image for them takes a quarter more.
    """
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfWorkUnits(1)
    small, large = _thinned(fixed, level), _thinned(moving, level)
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricUseMovingImageGradientFilter(False)
    method.SetMetricUseFixedImageGradientFilter(False)
    method.SetMetricFixedMask(mask)
    _sample(method, small, mask, level.samples)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(level.first_step_mm, 0.005, level.steps, RELAX)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(start, inPlace=False)
    result = method.Execute(small, large)
    return method.GetMetricValue(), _inner(result, start)


def _sample(method: Any, fixed: sitk.Image, mask: sitk.Image, count: int) -> None:
    """Compare the scans at about `count` points of the mask, on planes of the fixed scan's slices.

    On each plane they form a square lattice, turned by `TURN` against the voxels. Half as many
    points at even distances give the error of points drawn at random, and the same result each
    time. On voxels, all points would have one distance from those of the other scan, which
    distorts mutual information (Pluim et al. 2000, Comput Vis Image Underst 77:211). Raises
    RuntimeError for an empty mask.
    """
    volume = float(np.count_nonzero(sitk.GetArrayViewFromImage(mask)) * np.prod(mask.GetSpacing()))
    if volume == 0:
        raise RuntimeError("no common part")
    sides = np.array(fixed.GetSpacing())
    normal = int(sides.argmax())
    apart = sides[normal] * max(1, round((volume / count) ** (1 / 3) / sides[normal]))
    step = np.array([math.sqrt(volume / count / apart)] * 2 + [apart])
    axes = _lattice_axes(np.array(fixed.GetDirection()).reshape(3, 3).T, normal)
    corners = (_corners(mask) - fixed.GetOrigin()) @ axes.T
    low, high = corners.min(0), corners.max(0)
    first = np.array([*(low + step / 2)[:2], math.ceil(low[2] / sides[normal]) * sides[normal]])
    size = np.maximum(1, np.floor((high - first) / step).astype(int) + 1)
    origin = fixed.GetOrigin() + first @ axes
    method.SetVirtualDomain(size.tolist(), origin.tolist(), step.tolist(), axes.T.ravel().tolist())
    method.SetMetricSamplingStrategy(method.NONE)


def _lattice_axes(axes: Matrix, normal: int) -> Matrix:
    """A slice's axes, turned in it, and its normal; right-handed. axes: unit vectors as rows."""
    one, two = np.delete(axes, normal, axis=0)
    along, across = math.cos(TURN), math.sin(TURN)
    out = np.array([along * one + across * two, along * two - across * one, axes[normal]])
    return out if np.linalg.det(out) > 0 else out * [[1], [-1], [1]]


def _corners(mask: sitk.Image) -> Matrix:
    """(8, 3): the corners of the mask's bounding box, in ITK's mm."""
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.Execute(mask)
    box = shape.GetBoundingBox(1)
    ends = [(start - 0.5, start + size - 0.5) for start, size in zip(box[:3], box[3:], strict=True)]
    to_mm = mask.TransformContinuousIndexToPhysicalPoint
    return np.array([to_mm(corner) for corner in itertools.product(*ends)])


def _inner(result: Any, start: Any) -> Any:
    """The transform of the type of `start` in the composite that ITK returns."""
    if isinstance(result, sitk.CompositeTransform):
        result = result.GetNthTransform(0)
    return type(start)(result)


def _starts(fixed: sitk.Image, moving: sitk.Image) -> Sequence[Any]:
    """No move at all, and centre of mass on centre of mass; both turn about the fixed centre."""
    here, there = _centre(fixed), _centre(moving)
    out = []
    for shift in (np.zeros(3), there - here):
        start = sitk.Euler3DTransform()
        start.SetCenter(here.tolist())
        start.SetTranslation(shift.tolist())
        out.append(start)
    return out


def _centre(image: sitk.Image) -> NDArray[np.float64]:
    """The middle, in mm, of what is brighter than Otsu's threshold, on coarse voxels."""
    bright = sitk.OtsuThreshold(_thinned(image, _COARSE), 0, 1, 64)
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.Execute(bright)
    if not shape.HasLabel(1):
        raise RuntimeError("no structure")
    return np.array(shape.GetCentroid(1))


def _thinned(image: sitk.Image, level: _PyramidLevel) -> sitk.Image:
    every = [max(1, round(level.voxel_mm / size)) for size in image.GetSpacing()]
    thin = sitk.BinShrink(image, every) if max(every) > 1 else image
    if level.smooth_mm > 0:
        thin = sitk.DiscreteGaussian(thin, level.smooth_mm**2, 32, 0.01, True)
    return thin


def _mask(volume: Volume, brain: NDArray[np.bool_], around_mm: float) -> sitk.Image:
    """The brain and so much around it, on voxels of about `MASK_MM`: its rim needs no more."""
    every = [max(1, round(MASK_MM / size)) for size in voxel_sizes(volume.affine)]
    inside = to_itk(Volume(brain.astype(np.float32), volume.affine))
    coarse = sitk.BinShrink(inside, every) > 0
    return sitk.BinaryDilate(coarse, [max(1, round(around_mm / s)) for s in coarse.GetSpacing()])


def _near(volume: Volume, brain: NDArray[np.bool_]) -> tuple[Volume, NDArray[np.bool_]]:
    """Both cut to the brain and `AROUND_MM`, so that no time goes into the neck and the air."""
    if not brain.any():
        raise ValueError("the brain mask is empty")
    box = box_around(brain, AROUND_MM, volume.affine)
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [part.start for part in box]
    return Volume(volume.data[box], affine), brain[box]


def _onto(mask: sitk.Image, grid: sitk.Image, found: Any, turned: bool) -> sitk.Image:
    """The reference's mask on the fixed scan, which is the other one where they are turned."""
    if not turned:
        return mask
    return sitk.Resample(mask, grid, found, sitk.sitkNearestNeighbor, 0, sitk.sitkUInt8)


def _stripped(volume: Volume, brain: NDArray[np.bool_]) -> Volume:
    return Volume(np.where(brain, volume.data, 0).astype(np.float32), volume.affine)


def _reason(error: RuntimeError) -> str:
    return str(error).strip().splitlines()[-1].strip()
