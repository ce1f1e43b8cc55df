"""Augmentation: place (crop, pad, turn, scale, flip), intensity, hidden sequences.

Strengths follow nnU-Net's (Isensee et al. 2021, Nature Methods 18:203): each kind is applied to a
minority of samples. Left-right flips are sound because no task asks for the side.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

TURN_CHANCE, TURN_DEGREES, SCALE = 0.3, 15.0, 0.15
NOISE_CHANCE, NOISE = 0.15, 0.15
GAIN_CHANCE, GAIN, SHIFT = 0.5, 0.25, 0.2

Image = NDArray[np.float32]


def sample_patch(
    image: NDArray[np.float16],
    mask: NDArray[np.uint8] | None,
    centre: NDArray[np.float64],
    patch: tuple[int, int, int],
    spacing_mm: NDArray[np.float64],
    strength: float,
    rng: np.random.Generator,
) -> tuple[Image, Image]:
    """A patch around `centre`, sometimes turned and scaled, flipped half of the time.

    image (4, X, Y, Z), mask (X, Y, Z) or None; returns (4, *patch) and (*patch), padded with 0.
    Turning happens in millimetres, so that unequal voxels do not shear the brain.
    """
    turned = rng.random() < TURN_CHANCE * strength
    if turned:
        matrix = _turn(spacing_mm, strength, rng)
        out, placed = _sample(image, mask, centre, patch, matrix)
    else:
        out = _crop(image, centre, patch)
        placed = (
            np.zeros(patch, np.float32) if mask is None else _crop(mask[None], centre, patch)[0]
        )
    if strength > 0 and rng.random() < 0.5:
        out, placed = out[:, ::-1], placed[::-1]
    return np.ascontiguousarray(out), np.ascontiguousarray(placed)


def augment_intensity(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Gain and shift a sequence, and noise; 0 (outside the brain) stays 0."""
    if strength == 0:
        return image
    inside = image != 0
    if rng.random() < GAIN_CHANCE:
        gain = np.exp(rng.uniform(-GAIN, GAIN, (len(image), 1, 1, 1)) * strength)
        shift = rng.uniform(-SHIFT, SHIFT, (len(image), 1, 1, 1)) * strength
        image = image * gain.astype(np.float32) + shift.astype(np.float32)
    if rng.random() < NOISE_CHANCE:
        sigma = np.float32(rng.uniform(0, NOISE) * strength)
        image = image + sigma * rng.standard_normal(image.shape, np.float32)
    return np.where(inside, image, np.float32(0))


def drop_sequences(
    image: Image, present: Image, chance: float, rng: np.random.Generator
) -> tuple[Image, Image]:
    """Hide each scanned sequence with probability `chance`; one always stays."""
    keep = (present > 0) & (rng.random(len(present)) >= chance)
    if not keep.any():
        keep[rng.choice(np.flatnonzero(present))] = True
    return image * keep[:, None, None, None].astype(np.float32), keep.astype(np.float32)


def _turn(
    spacing_mm: NDArray[np.float64], strength: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Voxel offsets in the patch to voxel offsets in the source: rotation and scaling in mm."""
    a, b, c = np.deg2rad(rng.uniform(-1, 1, 3) * TURN_DEGREES * strength)
    turn_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    turn_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    turn_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    scale = np.diag(np.exp(rng.uniform(-1, 1, 3) * SCALE * strength))
    to_mm = np.diag(spacing_mm)
    matrix: NDArray[np.float64] = np.linalg.inv(to_mm) @ turn_x @ turn_y @ turn_z @ scale @ to_mm
    return matrix


def _sample(
    image: NDArray[np.float16],
    mask: NDArray[np.uint8] | None,
    centre: NDArray[np.float64],
    patch: tuple[int, int, int],
    matrix: NDArray[np.float64],
) -> tuple[Image, Image]:
    """Trilinear samples of image and mask on the turned patch grid."""
    size = np.array(image.shape[1:], float)
    half = (np.array(patch) - 1) / 2
    # torch wants coordinates in [-1, 1], last axis first.
    theta = np.zeros((3, 4))
    theta[:, :3] = (matrix * half[None, :]) / ((size - 1) / 2)[:, None]
    theta[:, 3] = centre / ((size - 1) / 2) - 1
    theta = theta[::-1, [2, 1, 0, 3]].astype(np.float32)
    grid = functional.affine_grid(
        torch.from_numpy(theta.copy())[None], [1, 1, *patch], align_corners=True
    )
    planes = [image.astype(np.float32)]
    if mask is not None:
        planes.append(mask[None].astype(np.float32))
    source = torch.from_numpy(np.concatenate(planes))[None]
    out = functional.grid_sample(source, grid, padding_mode="zeros", align_corners=True)[0].numpy()
    placed = np.zeros(patch, np.float32) if mask is None else (out[-1] >= 0.5).astype(np.float32)
    return out[: len(image)], placed


def _crop(
    source: NDArray[np.float16] | NDArray[np.uint8],
    centre: NDArray[np.float64],
    patch: tuple[int, int, int],
) -> Image:
    """A whole-voxel crop of (C, X, Y, Z) around `centre`, padded with 0."""
    out = np.zeros((len(source), *patch), np.float32)
    into, taken = [slice(None)], [slice(None)]
    for size, wanted, middle in zip(source.shape[1:], patch, centre, strict=True):
        start = round(float(middle) - (wanted - 1) / 2)
        low, high = max(start, 0), min(start + wanted, size)
        taken.append(slice(low, max(high, low)))
        into.append(slice(low - start, low - start + max(high - low, 0)))
    out[tuple(into)] = source[tuple(taken)]
    return out
