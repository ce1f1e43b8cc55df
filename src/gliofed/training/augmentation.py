"""Augmentation: patches (crop, pad, rotate, scale, flip), intensity, dropped sequences.

Strengths follow nnU-Net (Isensee et al. 2021, Nature Methods 18:203): each kind is applied to a
minority of samples. Left-right flips are valid because no task depends on the side.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

ROTATION_PROBABILITY, ROTATION_DEGREES, SCALE = 0.3, 15.0, 0.15
NOISE_PROBABILITY, NOISE = 0.15, 0.15
GAIN_PROBABILITY, GAIN, SHIFT = 0.5, 0.25, 0.2

Image = NDArray[np.float32]


@dataclass(frozen=True)
class ScanVolume:
    """image: (4, X, Y, Z). mask: (X, Y, Z), None without one. spacing_mm: (3,), of the voxels."""

    image: NDArray[np.float16]
    mask: NDArray[np.uint8] | None
    spacing_mm: NDArray[np.float64]


def sample_patch(
    volume: ScanVolume,
    centre: NDArray[np.float64],
    size: tuple[int, int, int],
    strength: float,
    rng: np.random.Generator,
) -> tuple[Image, Image]:
    """A patch of image and mask around a voxel, randomly rotated, scaled and flipped.

    centre: in voxels. strength: of augmentation, 0 none, 1 as published. Returns (4, *size) and
    (*size), padded with 0; the mask is 0 everywhere without one. Rotation is in millimetres, so
    that unequal voxels do not shear the brain.
    """
    if rng.random() < ROTATION_PROBABILITY * strength:
        matrix = _rotation_and_scale(volume.spacing_mm, strength, rng)
        image, mask = _resample(volume, centre, size, matrix)
    else:
        image = _crop(volume.image, centre, size)
        mask = np.zeros(size, np.float32)
        if volume.mask is not None:
            mask = _crop(volume.mask[None], centre, size)[0]
    if strength > 0 and rng.random() < 0.5:
        image, mask = image[:, ::-1], mask[::-1]
    return np.ascontiguousarray(image), np.ascontiguousarray(mask)


def augment_intensity(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Change gain and offset of each sequence and add noise; 0 (outside the brain) stays 0."""
    if strength == 0:
        return image
    inside = image != 0
    if rng.random() < GAIN_PROBABILITY:
        gain = np.exp(rng.uniform(-GAIN, GAIN, (len(image), 1, 1, 1)) * strength)
        shift = rng.uniform(-SHIFT, SHIFT, (len(image), 1, 1, 1)) * strength
        image = image * gain.astype(np.float32) + shift.astype(np.float32)
    if rng.random() < NOISE_PROBABILITY:
        sigma = np.float32(rng.uniform(0, NOISE) * strength)
        image = image + sigma * rng.standard_normal(image.shape, np.float32)
    return np.where(inside, image, np.float32(0))


def drop_sequences(
    image: Image, present: Image, probability: float, rng: np.random.Generator
) -> tuple[Image, Image]:
    """Drop each scanned sequence with this probability; at least one stays.

    present: (4,), 1 where scanned. Returns the image, dropped sequences 0, and the new `present`.
    """
    keep = (present > 0) & (rng.random(len(present)) >= probability)
    if not keep.any():
        keep[rng.choice(np.flatnonzero(present))] = True
    return image * keep[:, None, None, None].astype(np.float32), keep.astype(np.float32)


def _rotation_and_scale(
    spacing_mm: NDArray[np.float64], strength: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """A random map from voxel offsets in the patch to those in the scan: rotates, scales in mm."""
    a, b, c = np.deg2rad(rng.uniform(-1, 1, 3) * ROTATION_DEGREES * strength)
    rotate_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    rotate_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    rotate_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    scale = np.diag(np.exp(rng.uniform(-1, 1, 3) * SCALE * strength))
    to_mm = np.diag(spacing_mm)
    steps = (np.linalg.inv(to_mm), rotate_x, rotate_y, rotate_z, scale, to_mm)
    return functools.reduce(np.matmul, steps)


def _resample(
    volume: ScanVolume,
    centre: NDArray[np.float64],
    size: tuple[int, int, int],
    matrix: NDArray[np.float64],
) -> tuple[Image, Image]:
    """Trilinear samples of image and mask on the rotated patch grid."""
    shape = np.array(volume.image.shape[1:], float)
    half = (np.array(size) - 1) / 2
    # torch expects coordinates in [-1, 1], last axis first.
    theta = np.zeros((3, 4))
    theta[:, :3] = (matrix * half[None, :]) / ((shape - 1) / 2)[:, None]
    theta[:, 3] = centre / ((shape - 1) / 2) - 1
    theta = theta[::-1, [2, 1, 0, 3]].astype(np.float32)
    grid = functional.affine_grid(
        torch.from_numpy(theta.copy())[None], [1, 1, *size], align_corners=True
    )
    channels = [volume.image.astype(np.float32)]
    if volume.mask is not None:
        channels.append(volume.mask[None].astype(np.float32))
    source = torch.from_numpy(np.concatenate(channels))[None]
    out = functional.grid_sample(source, grid, padding_mode="zeros", align_corners=True)[0].numpy()
    mask = np.zeros(size, np.float32)
    if volume.mask is not None:
        mask = (out[-1] >= 0.5).astype(np.float32)
    return out[: len(volume.image)], mask


def _crop(
    source: NDArray[np.float16] | NDArray[np.uint8],
    centre: NDArray[np.float64],
    size: tuple[int, int, int],
) -> Image:
    """A crop of (C, X, Y, Z) around `centre` without interpolation, padded with 0."""
    out = np.zeros((len(source), *size), np.float32)
    target, region = [slice(None)], [slice(None)]
    for length, wanted, middle in zip(source.shape[1:], size, centre, strict=True):
        start = round(float(middle) - (wanted - 1) / 2)
        low, high = max(start, 0), min(start + wanted, length)
        region.append(slice(low, max(high, low)))
        target.append(slice(low - start, low - start + max(high - low, 0)))
    out[tuple(target)] = source[tuple(region)]
    return out
