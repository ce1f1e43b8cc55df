"""Rigid alignment of two images of one study that differ by a patient's small motion.

Gauss-Newton on the difference of smoothed images with a fitted linear scale of intensities and
Cauchy weights, so that vessels and tumour do not steer it (Baker and Matthews 2004, Int J Comput
Vis 56:221; Holland and Welsch 1977, Commun Stat 6:813). NumPy alone: the reader of foreign files
uses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gliofed.data.nifti import Volume

POINTS: Final = 10_000
"""Voxels compared at most."""
STEPS: Final = 12
"""Of Gauss-Newton, at each of two degrees of smoothing; rarely more than eight are needed."""
_SMOOTHINGS_MM: Final = (6.0, 3.0)
_ENOUGH_MM: Final = 0.05
_REACH_MM: Final = 90.0
"""A turn is compared with a shift at this distance from the centre."""
Array = NDArray[np.float64]


def align(fixed: Volume, moving: Volume, mask: NDArray[np.bool_]) -> Array:
    """The rigid matrix from world points of `fixed` to those of `moving`, (4, 4), RAS mm.

    mask: voxels of `fixed` that are compared; identity where it is empty. Reliable up to about
    10 mm and 10 degrees; affines have to be those of one frame of reference.
    """
    index = np.argwhere(mask)
    index = index[:: max(1, len(index) // POINTS)]
    if not len(index):
        return np.eye(4)
    points = index @ fixed.affine[:3, :3].T + fixed.affine[:3, 3]
    centre = points.mean(axis=0)
    move = np.zeros(6)
    for width in _SMOOTHINGS_MM:
        target = smoothed(fixed, width).data[tuple(index.T)].astype(np.float64)
        source = smoothed(moving, width)
        slopes = [Volume(g, moving.affine) for g in _world_gradient(source)]
        for _ in range(STEPS):
            change = _step(target, (source, *slopes), points - centre, (move, centre))
            move = move + change
            if np.abs(change * ([_REACH_MM] * 3 + [1.0] * 3)).max() < _ENOUGH_MM:
                break
    return _matrix(move, centre)


def _step(
    target: Array, images: tuple[Volume, ...], offsets: Array, at: tuple[Array, Array]
) -> Array:
    """The next change of the six parameters: three angles in radians, three shifts in mm."""
    move, centre = at
    world = _rotate(move, offsets) + centre + move[3:]
    value, *gradient = _sample_each([i.data for i in images], images[0].affine, world)
    scale = np.c_[np.ones_like(value), value]
    fit = np.linalg.lstsq(scale, target, rcond=None)[0]
    residual = target - scale @ fit
    spread = 1.4826 * np.median(np.abs(residual)) + 1e-9
    weight = np.sqrt(1 / (1 + (residual / (2 * spread)) ** 2))
    shifts = np.array(gradient).T * fit[1]
    turns = np.cross(_rotate(move, offsets), shifts)
    columns = np.c_[turns, shifts, scale] * weight[:, None]
    found: Array = np.linalg.lstsq(columns, residual * weight, rcond=None)[0]
    return found[:6]


def _rotate(move: Array, offsets: Array) -> Array:
    turned: Array = offsets @ _rotation(move[:3]).T
    return turned


def _rotation(vector: Array) -> Array:
    """About an axis by its length in radians (Rodrigues)."""
    angle = float(np.linalg.norm(vector))
    if angle == 0:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turn: Array = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return turn


def _matrix(move: Array, centre: Array) -> Array:
    out = np.eye(4)
    out[:3, :3] = _rotation(move[:3])
    out[:3, 3] = centre + move[3:] - out[:3, :3] @ centre
    return out


def _world_gradient(image: Volume) -> list[NDArray[np.float32]]:
    """Change a millimetre to the right, front and top; an axis of one voxel has none."""
    along = [
        np.gradient(image.data, axis=a) if image.data.shape[a] > 1 else np.zeros_like(image.data)
        for a in range(3)
    ]
    inverse = np.linalg.inv(image.affine[:3, :3])
    return [
        np.asarray(sum(inverse[i, w] * along[i] for i in range(3)), np.float32) for w in range(3)
    ]


def smoothed(image: Volume, width_mm: float) -> Volume:
    """Convolved with a Gaussian of this full width at half maximum along each axis."""
    data = image.data
    for axis, size in enumerate(np.linalg.norm(image.affine[:3, :3], axis=0)):
        sigma = width_mm / 2.355 / size
        reach = int(np.ceil(3 * sigma))
        if sigma < 0.2 or data.shape[axis] == 1:
            continue
        taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
        taps = (taps / taps.sum()).astype(np.float32)
        padded = np.pad(data, [(reach * (a == axis),) * 2 for a in range(3)], mode="edge")
        length = data.shape[axis]
        parts = (t * padded.take(range(k, k + length), axis=axis) for k, t in enumerate(taps))
        data = sum(parts, start=np.zeros_like(data))
    return Volume(data, image.affine)


def sample(image: Volume, world: Array) -> Array:
    """Trilinear values at world points (N, 3); 0 outside the image."""
    return _sample_each([image.data], image.affine, world)[0]


def _sample_each(
    images: Sequence[NDArray[np.float32]], affine: NDArray[np.float64], world: Array
) -> list[Array]:
    """As `sample`, of images on one grid."""
    inverse = np.linalg.inv(affine)
    place = world @ inverse[:3, :3].T + inverse[:3, 3]
    limit = np.array(images[0].shape) - 1
    inside = ((place > -0.5) & (place < limit + 0.5)).all(axis=1)
    place = np.clip(place, 0, limit)
    low = np.minimum(np.floor(place).astype(np.intp), np.maximum(limit - 1, 0))
    part = place - low
    out = [np.zeros(len(world)) for _ in images]
    for corner in np.ndindex(2, 2, 2):
        sides = [part[:, a] if c else 1 - part[:, a] for a, c in enumerate(corner)]
        weight = sides[0] * sides[1] * sides[2]
        at = tuple(np.minimum(low + corner, limit).T)
        for number, image in enumerate(images):
            out[number] += weight * image[at]
    return [np.where(inside, total, 0.0) for total in out]
