"""Where the slices of a series lie (DICOM PS3.3 C.7.6.2)."""

from __future__ import annotations

from collections.abc import Sequence as Ordered
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from gliofed.dicom.headers import ImagePlane

SAME_POSITION_MM: Final = 0.01
"""Two slices closer than this lie at one place."""
MISSING_SLICE_STEPS: Final = 1.5
"""Steps; more than this is a missing slice."""
LPS_TO_RAS: Final = np.diag([-1.0, -1.0, 1.0, 1.0])


class InPlane(Protocol):
    """An object with an image plane."""

    @property
    def plane(self) -> ImagePlane | None:
        """Position and orientation; None if missing in the header."""
        ...


_Placed = TypeVar("_Placed", bound=InPlane)


def plane(one: InPlane) -> ImagePlane:
    """The plane of a slice that is known to have one."""
    assert one.plane is not None, "checked where series are read"
    return one.plane


def normal(plane: ImagePlane) -> NDArray[np.float64]:
    """The slice direction in LPS, (3,)."""
    return np.cross(plane.orientation[:3], plane.orientation[3:])


def in_order(slices: Ordered[_Placed]) -> tuple[_Placed, ...]:
    """Slices sorted by position along the normal. Every slice has a plane."""
    return tuple(sorted(slices, key=position_along_normal))


def position_along_normal(one: InPlane) -> float:
    """Millimetres along the slice's own normal."""
    return float(normal(plane(one)) @ np.array(plane(one).position))


def affine_of(slices: Ordered[InPlane]) -> NDArray[np.float64]:
    """Voxel (column, row, slice) to RAS millimetres, (4, 4), of slices in order.

    The slice step is measured from first to last position, never taken from SliceThickness.
    """
    first, last = plane(slices[0]), plane(slices[-1])
    between_rows, between_columns = first.spacing
    out = np.eye(4)
    out[:3, 0] = np.array(first.orientation[:3]) * between_columns
    out[:3, 1] = np.array(first.orientation[3:]) * between_rows
    out[:3, 2] = (np.array(last.position) - first.position) / (len(slices) - 1)
    out[:3, 3] = first.position
    return LPS_TO_RAS @ out


def plane_differences(slices: Ordered[InPlane]) -> str:
    """How the planes of one stack differ; empty if they agree."""
    planes = [plane(s) for s in slices]
    first = planes[0]
    axes = np.array([p.orientation for p in planes])
    spacings = np.array([p.spacing for p in planes])
    row, column = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    right = np.allclose([row @ row, column @ column, row @ column], [1, 1, 0], atol=1e-3)
    checks = (
        (np.abs(axes - axes[0]).max() > 1e-3, "two slice orientations"),
        (len({(p.rows, p.columns) for p in planes}) > 1, "two matrix sizes"),
        (np.abs(spacings - spacings[0]).max() > 1e-3 * spacings[0].min(), "two pixel spacings"),
        (len({p.frame for p in planes}) > 1, "two frames of reference"),
        (not right, "row and column directions that are not two unit vectors at a right angle"),
        (spacings.min() <= 0, "a pixel spacing that is not above 0"),
    )
    return next((text for bad, text in checks if bad), "")


def count_repeated(slices: Ordered[InPlane]) -> int:
    """Number of slices at the position of another."""
    steps = np.diff(sorted(map(position_along_normal, slices)))
    return int((steps < SAME_POSITION_MM).sum())


@dataclass(frozen=True)
class SliceGap:
    """Slices missing after the slice `after`, from 1. wide: mm. at: mm along the normal."""

    after: int
    missing: int
    wide: float
    at: float


@dataclass(frozen=True)
class SliceStack:
    """Spacing of the slices, in mm. usual: the median step.

    off: distance along the normal of the slice `worst` (from 1) from its regular position.
    jitter: largest difference of a step from their mean.
    sideways: largest distance of a slice from the normal through the first.
    """

    usual: float
    gaps: tuple[SliceGap, ...]
    worst: int
    off: float
    sideways: float
    jitter: float


def stack_of(slices: Ordered[InPlane]) -> SliceStack:
    """Of two or more slices in order, neither differing nor repeated."""
    places = np.array([position_along_normal(s) for s in slices])
    steps = np.diff(places)
    usual = float(np.median(steps))
    gaps = tuple(
        SliceGap(int(i) + 1, round(steps[i] / usual) - 1, float(steps[i]), float(places[i]))
        for i in np.flatnonzero(steps > MISSING_SLICE_STEPS * usual)
    )
    off = np.abs(places - np.linspace(places[0], places[-1], len(places)))
    worst = int(np.argmax(off))
    points = np.array([plane(s).position for s in slices])
    along = np.outer(places - places[0], normal(plane(slices[0])))
    sideways = float(np.linalg.norm(points - points[0] - along, axis=1).max())
    jitter = float(np.abs(steps - steps.mean()).max())
    return SliceStack(usual, gaps, worst + 1, float(off[worst]), sideways, jitter)


def reoriented(
    affine: NDArray[np.float64],
    shape: tuple[int, ...],
    other: NDArray[np.float64],
    other_shape: tuple[int, ...],
) -> tuple[NDArray[np.float64], float]:
    """The grid `own` of `shape` with its axes ordered and directed as those of `other`.

    Also returns the largest distance in mm between the corner voxels of both; infinite if no
    permutation of axes gives `other_shape`.
    """
    rotation = np.rint(np.linalg.solve(affine, other)[:3, :3])
    permutation = np.abs(rotation)
    valid = (permutation.sum(0) == 1).all() and (permutation.sum(1) == 1).all()
    if not valid or tuple(permutation.T @ np.array(shape)) != other_shape:
        return affine, float("inf")
    move = np.eye(4)
    move[:3, :3] = rotation
    move[:3, 3] = np.where(rotation.sum(1) < 0, np.array(shape) - 1, 0)
    out = affine @ move
    ends = np.meshgrid(*[(0, n - 1) for n in other_shape], [1], indexing="ij")
    corners = np.array(ends).reshape(4, -1)
    distances = (out - other) @ corners
    return out, float(np.linalg.norm(distances[:3], axis=0).max())
