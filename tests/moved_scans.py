"""Scans as a hospital has them, made of a published case, with the truth known.

A published case has its four sequences on one grid of 1 mm, skull-stripped. `moved_case` gives
each sequence a head position, a slice thickness, a bias field and noise of its own. `with_head`
puts a head around the brain, so that brain extraction has something to take away. That head is
crude: layers of even distance around the brain and a neck, no face, no eyes, no dura and no
sinuses. It tells whether brain extraction works at all, not how well it works on patients.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine, voxel_sizes
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from gliofed.data.nifti import Volume, read_nifti
from gliofed.types import Sequence

SPACING = {
    Sequence.T1: (1.0, 1.0, 5.0),
    Sequence.T1CE: (1.0, 1.0, 1.0),
    Sequence.T2: (1.0, 1.0, 5.0),
    Sequence.FLAIR: (1.0, 1.0, 5.0),
}
"""One thin sequence and three with thick slices: the commonest study of a glioma."""
FIELD_MM = (256.0, 256.0, 200.0)
FINEST_MM = 1.0
"""A thick slice is the mean of samples about this far apart."""

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Moved:
    """matrix: RAS mm of the published scan to RAS mm of this one."""

    volume: Volume
    matrix: Matrix


def published_case(folder: Path) -> dict[Sequence, Volume]:
    """The four sequences of a BraTS folder."""
    return {s: read_nifti(folder / f"{folder.name}_{s.value.lower()}.nii.gz") for s in Sequence}


def published_mask(folder: Path) -> Volume:
    drawn = read_nifti(folder / f"{folder.name}_seg.nii.gz")
    return Volume((drawn.data > 0).astype(np.float32), drawn.affine)


def published_folders(data: Path) -> list[Path]:
    """The BraTS cases below the folder of real data, in order."""
    return sorted(p for p in (data / "brats-tcga").glob("BraTS*") if p.is_dir())


def move(
    rng: np.random.Generator,
    centre: NDArray[np.float64],
    degrees: tuple[float, float] = (5, 15),
    mm: tuple[float, float] = (5, 20),
) -> Matrix:
    """A turn about a random axis through `centre`, and a shift in a random direction."""
    axis, way = rng.normal(size=(2, 3))
    turn = axis / np.linalg.norm(axis) * np.deg2rad(rng.uniform(*degrees))
    out = np.eye(4)
    out[:3, :3] = Rotation.from_rotvec(turn).as_matrix()
    shift = way / np.linalg.norm(way) * rng.uniform(*mm)
    out[:3, 3] = centre - out[:3, :3] @ centre + shift
    return out


def middle(volume: Volume) -> NDArray[np.float64]:
    """The middle, in RAS mm, of what is not 0."""
    return apply_affine(volume.affine, np.argwhere(volume.data != 0)[::101].mean(0))


def grid_around(
    centre: NDArray[np.float64], spacing: tuple[float, ...], field_mm: tuple[float, ...] = FIELD_MM
) -> tuple[tuple[int, ...], Matrix]:
    """A world-aligned grid with `centre` in its middle."""
    shape = np.ceil(np.array(field_mm) / spacing).astype(int)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = centre - affine[:3, :3] @ ((shape - 1) / 2)
    return tuple(shape.tolist()), affine


def on_grid(
    volume: Volume, matrix: Matrix, shape: tuple[int, ...], affine: Matrix
) -> NDArray[np.float32]:
    """The volume after the move, on another grid; thick voxels are means along their sides."""
    lines = [max(1, round(side / FINEST_MM)) for side in voxel_sizes(affine)]
    box = _box_of(volume, matrix, shape, affine)
    out = np.zeros(shape, np.float32)
    inside = tuple(b.stop - b.start for b in box)
    to_voxel = np.linalg.inv(volume.affine) @ np.linalg.inv(matrix) @ affine
    for place in itertools.product(*map(range, lines)):
        first = np.array([b.start for b in box]) + [
            (p + 0.5) / n - 0.5 for p, n in zip(place, lines, strict=True)
        ]
        offset = to_voxel[:3, :3] @ first + to_voxel[:3, 3]
        out[box] += ndimage.affine_transform(
            volume.data, to_voxel[:3, :3], offset, output_shape=inside, order=1, output=np.float32
        )
    return out / np.float32(np.prod(lines))


def _box_of(
    volume: Volume, matrix: Matrix, shape: tuple[int, ...], affine: Matrix
) -> tuple[slice, ...]:
    """Where on the new grid the part of the volume lies that is not 0."""
    found = ndimage.find_objects((volume.data != 0).astype(np.uint8))[0]
    corners = np.array(list(itertools.product(*((s.start - 1, s.stop) for s in found))))
    there = apply_affine(np.linalg.inv(affine) @ matrix @ volume.affine, corners)
    low = np.clip(np.floor(there.min(0)).astype(int) - 1, 0, np.array(shape) - 1)
    high = np.clip(np.ceil(there.max(0)).astype(int) + 2, low + 1, shape)
    return tuple(itertools.starmap(slice, zip(low.tolist(), high.tolist(), strict=True)))


def scanned(
    volume: Volume,
    matrix: Matrix,
    spacing: tuple[float, ...],
    rng: np.random.Generator,
    bias: float = 0.3,
    noise: float = 0.03,
) -> Volume:
    """The volume after the move, as a scanner with a bias field and noise sees it.

    bias: the field runs from exp(-bias) to exp(bias). noise: its standard deviation as a share of
    that of the signal. What is 0 stays 0.
    """
    shaded = Volume(volume.data * _bias(volume.data.shape, rng, bias), volume.affine)
    shape, affine = grid_around(apply_affine(matrix, middle(volume)), spacing)
    data = on_grid(shaded, matrix, shape, affine)
    signal = data > 0
    deviation = noise * float(data[signal].std())
    noisy = data + deviation * rng.standard_normal(data.shape, np.float32)
    return Volume(np.where(signal, np.maximum(noisy, 0.01), 0).astype(np.float32), affine)


def moved_case(
    volumes: Mapping[Sequence, Volume],
    seed: int,
    spacing: Mapping[Sequence, tuple[float, ...]] = SPACING,
) -> dict[Sequence, Moved]:
    """Each sequence moved for itself: by 5 to 15 degrees and 5 to 20 mm."""
    rng = np.random.default_rng(seed)
    out = {}
    for sequence, volume in volumes.items():
        matrix = move(rng, middle(volume))
        out[sequence] = Moved(scanned(volume, matrix, spacing[sequence], rng), matrix)
    return out


def brain_points(volume: Volume, count: int = 2000) -> NDArray[np.float64]:
    """(about count, 3), RAS mm, spread evenly over what is not 0."""
    voxels = np.argwhere(volume.data != 0)
    return apply_affine(volume.affine, voxels[:: max(1, len(voxels) // count)])


def apart(one: Matrix, other: Matrix, points: NDArray[np.float64]) -> float:
    """Mean distance, in mm, between where two matrices put the points."""
    return float(
        np.linalg.norm(apply_affine(one, points) - apply_affine(other, points), axis=1).mean()
    )


def write(folder: Path, volumes: Mapping[Sequence, Volume]) -> dict[Sequence, Path]:
    """One uncompressed NIfTI file a sequence."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {s: folder / f"{s.value.lower()}.nii" for s in volumes}
    for sequence, volume in volumes.items():
        write_volume(paths[sequence], volume)
    return paths


def write_volume(path: Path, volume: Volume) -> None:
    nib.save(nib.Nifti1Image(volume.data, volume.affine), path)


def _bias(
    shape: tuple[int, ...], rng: np.random.Generator, amplitude: float
) -> NDArray[np.float32]:
    """A smooth field between exp(-amplitude) and exp(amplitude)."""
    field = _smooth(shape, rng, knots=4)
    return np.exp(amplitude * (2 * field - 1)).astype(np.float32)


def _smooth(shape: tuple[int, ...], rng: np.random.Generator, knots: int) -> NDArray[np.float32]:
    """Smooth numbers from 0 to 1: a random grid of `knots` a side, drawn out over the shape."""
    coarse = ndimage.zoom(rng.normal(size=(knots,) * 3), 4, order=3)
    coarse = (coarse - coarse.min()) / np.ptp(coarse)
    stretch = [(n - 1) / max(m - 1, 1) for n, m in zip(coarse.shape, shape, strict=True)]
    return ndimage.affine_transform(
        coarse.astype(np.float32), stretch, output_shape=shape, order=1, output=np.float32
    )


@dataclass(frozen=True)
class Tissue:
    """Signal of what lies around the brain, as multiples of the brain's median."""

    fluid: float
    bone: float
    fat: float
    muscle: float


TISSUE = {
    Sequence.T1: Tissue(fluid=0.3, bone=0.12, fat=1.6, muscle=0.65),
    Sequence.T1CE: Tissue(fluid=0.3, bone=0.15, fat=1.5, muscle=0.75),
    Sequence.T2: Tissue(fluid=2.0, bone=0.15, fat=1.2, muscle=0.45),
    Sequence.FLAIR: Tissue(fluid=0.25, bone=0.1, fat=1.0, muscle=0.55),
}
NECK_MM = (50.0, 60.0)
"""Half its width and half its depth."""
BELOW_MM, ROUND_MM = 50, 28
"""How far the grid is widened below the brain, and on every other side."""


def with_head(volumes: Mapping[Sequence, Volume], seed: int) -> dict[Sequence, Volume]:
    """The sequences of a stripped case on one grid of 1 mm, in RAS axes, with a head around.

    Another grid; the brain's voxels stay as they are. Layers from the brain outwards: fluid of 2
    to 5 mm, bone of 5 to 9, fat of 4 to 9; below, a neck of muscle with fat around; air with
    noise beyond.
    """
    rng = np.random.default_rng(seed)
    wide = _widened(volumes)
    brain = ndimage.binary_fill_holes(np.any([v.data != 0 for v in wide.values()], axis=0))
    layers = _layers(np.asarray(brain), rng)
    texture = 0.85 + 0.3 * _smooth(brain.shape, rng, knots=8)
    out = {}
    for sequence, volume in wide.items():
        signal = texture * ndimage.gaussian_filter(_signal(layers, TISSUE[sequence]), 0.7)
        real, imaginary = 0.03 * rng.standard_normal((2, *signal.shape), np.float32)
        head = np.hypot(signal + real, imaginary)
        median = float(np.median(volume.data[volume.data > 0]))
        data = np.where(brain & (volume.data > 0), volume.data, median * head)
        out[sequence] = Volume(data.astype(np.float32), volume.affine)
    return out


def _widened(volumes: Mapping[Sequence, Volume]) -> dict[Sequence, Volume]:
    """All cut to the brain's box, and zeros around it."""
    signal = np.any([v.data != 0 for v in volumes.values()], axis=0)
    box = ndimage.find_objects(signal.astype(np.uint8))[0]
    ends = [(ROUND_MM, ROUND_MM)] * 2 + [(BELOW_MM, ROUND_MM)]
    out = {}
    for sequence, volume in volumes.items():
        affine = volume.affine.copy()
        start = [s.start - low for s, (low, _) in zip(box, ends, strict=True)]
        affine[:3, 3] += affine[:3, :3] @ start
        out[sequence] = Volume(np.pad(volume.data[box], ends), affine)
    return out


@dataclass(frozen=True)
class _Layers:
    """Where two lie on each other, the first counts."""

    fluid: NDArray[np.bool_]
    bone: NDArray[np.bool_]
    muscle: NDArray[np.bool_]
    fat: NDArray[np.bool_]


def _layers(brain: NDArray[np.bool_], rng: np.random.Generator) -> _Layers:
    away = _distance(brain)
    low, high = (2, 5, 4), (5, 9, 9)
    thick = [a + (b - a) * _smooth(brain.shape, rng, 5) for a, b in zip(low, high, strict=True)]
    bone_at, fat_at, air_at = np.cumsum(thick, axis=0)
    x, y, z = np.ogrid[tuple(slice(n) for n in brain.shape)]
    centre = np.argwhere(brain)[::101].mean(0)
    across = np.hypot((x - centre[0]) / NECK_MM[0], (y - centre[1] + 10) / NECK_MM[1])
    below = z < centre[2] - 30
    return _Layers(
        fluid=(away <= bone_at) & ~brain,
        bone=away <= fat_at,
        muscle=(across < 1) & below,
        fat=(away <= air_at) | ((across < 1.12) & below),
    )


def _distance(brain: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Millimetres from the brain closed by 10 mm, for the skull does not follow the folds.

    Reckoned on every second voxel.
    """
    small = brain[::2, ::2, ::2]
    near = ndimage.distance_transform_edt(~small, sampling=2) <= 10
    closed = small | (ndimage.distance_transform_edt(near, sampling=2) > 10)
    away = ndimage.distance_transform_edt(~closed, sampling=2).astype(np.float32)
    return ndimage.affine_transform(
        away, [0.5] * 3, output_shape=brain.shape, order=1, mode="nearest", output=np.float32
    )


def _signal(layers: _Layers, tissue: Tissue) -> NDArray[np.float32]:
    inside = (layers.fluid, layers.bone, layers.muscle, layers.fat)
    values = (tissue.fluid, tissue.bone, tissue.muscle, tissue.fat)
    return np.select(inside, [np.float32(v) for v in values], np.float32(0))
