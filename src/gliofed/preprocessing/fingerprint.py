"""Fingerprints of brain scans: vectors that find the same scan again after changes of its file.

One sequence gives eight vectors, one for each corner of the brain: the corner opposite a cut
stays where it was. The steps, and what each is robust to:

- one world-aligned 4 mm grid: voxel size, field of view, padding
- the brain by Otsu's threshold (1979, IEEE Trans SMC 9:62): the rim that interpolation adds
- intensities to ranks within the brain: scale, shift and gamma
- each axis begins where `CAP_ML` of brain lie outside: shift, and cuts at other sides
- the band between two blurs, 4 and 12 mm, of the brain's inside: noise, bias field, and the
  anatomy that all brains share

Similar scans have similar vectors. They describe a patient and must not leave a site; only the
tokens that `gliofed.federated.linkage.tokens` makes of them may.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliofed.data.store import PreparedCase, PreparedStore
from gliofed.preprocessing.resampling import resample, target_grid
from gliofed.runtime.files import write_bytes
from gliofed.types import SEQUENCES, Sequence

Array = NDArray[np.float32]

VERSION: Final = "fingerprint-1"
VOXEL_MM: Final = 4.0
BLURS_MM: Final = (4.0, 12.0)
INSIDE_MM: Final = 10.0
"""Only voxels deeper than this in the brain are used."""
CAP_ML: Final = 60.0
START_MM: Final = 8.0
STEP_MM: Final = 8.0
POINTS: Final = (12, 14, 9)
"""Points of a vector along right, anterior and superior, the first `START_MM` outside the cap."""
WHOLE_BRAIN_ML: Final = 500.0
CORNERS: Final = 8
LENGTH: Final = POINTS[0] * POINTS[1] * POINTS[2]
_PAD: Final = 6


def fingerprint(prepared: PreparedCase) -> Mapping[Sequence, Array]:
    """(8, `LENGTH`) vectors by sequence; only sequences that show a complete brain."""
    vectors_of = {}
    for channel, sequence in enumerate(SEQUENCES):
        if prepared.present[channel]:
            vectors = describe(prepared.image[channel].astype(np.float32), prepared.affine)
            if vectors is not None:
                vectors_of[sequence] = vectors
    return vectors_of


def stored_fingerprint(prepared: PreparedCase, store: PreparedStore) -> Mapping[Sequence, Array]:
    """As `fingerprint`, computed once for each entry of the store and saved next to its image."""
    path = store.root / prepared.key / f"{VERSION}.npy"
    if path.is_file():
        with contextlib.suppress(ValueError, EOFError, OSError):  # a damaged file is replaced
            saved = np.load(path, allow_pickle=False).astype(np.float32)
            if saved.shape == (len(SEQUENCES), CORNERS, LENGTH):
                return {s: v for s, v in zip(SEQUENCES, saved, strict=True) if v.any()}
    vectors_of = fingerprint(prepared)
    nothing = np.zeros((CORNERS, LENGTH), np.float16)
    rows = [vectors_of[s].astype(np.float16) if s in vectors_of else nothing for s in SEQUENCES]
    buffer = io.BytesIO()
    np.save(buffer, np.stack(rows))
    write_bytes(path, buffer.getvalue())
    return {s: r.astype(np.float32) for s, r in zip(SEQUENCES, rows, strict=True) if r.any()}


def describe(data: Array, affine: NDArray[np.float64]) -> Array | None:
    """(8, `LENGTH`) vectors of one skull-stripped scan, or None without `WHOLE_BRAIN_ML` of brain.

    data: (X, Y, Z), 0 outside the brain. affine: voxel to RAS mm.
    """
    signal = _on_grid(data, affine)
    brain, edge = _brain(signal)
    if brain.sum() * VOXEL_MM**3 < WHOLE_BRAIN_ML * 1e3:
        return None
    inside = ndimage.distance_transform_edt(brain) * VOXEL_MM > INSIDE_MM
    fine = _blur(_ranks(signal, brain), brain, BLURS_MM[0])
    band = np.where(inside, fine - _blur(fine, inside, BLURS_MM[1]), 0).astype(np.float32)
    starts = [_starts(edge.sum(axis=tuple({0, 1, 2} - {a}))) for a in range(3)]
    vectors = np.stack([_sample(band, starts, corner) for corner in range(CORNERS)])
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9))


def _on_grid(data: Array, affine: NDArray[np.float64]) -> Array:
    """The scan on the working grid, its background 0 and its darkest tissue near 0."""
    scanned = data != 0
    if not scanned.any():
        return np.zeros((1, 1, 1), np.float32)
    low, high = np.percentile(data[scanned], [1, 98])
    signal = np.where(scanned, np.clip(data - low, 0, high - low), 0).astype(np.float32)
    x, y, z = data.shape
    shape, target = target_grid((x, y, z), affine, (VOXEL_MM,) * 3)
    return np.pad(resample(signal, affine, shape, target), _PAD)


def _brain(signal: Array) -> tuple[NDArray[np.bool_], Array]:
    """The brain, and the same with its surface between voxels: 1 inside, 0.5 on the surface."""
    smooth = ndimage.gaussian_filter(signal, 1.0)
    threshold = 0.8 * _otsu(smooth)
    parts, count = ndimage.label(smooth > threshold)
    if count == 0:
        return np.zeros(signal.shape, bool), np.zeros(signal.shape, np.float32)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    brain: NDArray[np.bool_] = ndimage.binary_fill_holes(
        ndimage.binary_closing(parts == sizes.argmax(), iterations=2)
    )
    edge = np.clip(smooth / threshold - 0.5, 0, 1)
    edge = np.where(brain, np.maximum(edge, 0.5), edge * ndimage.binary_dilation(brain))
    edge[ndimage.binary_erosion(brain)] = 1
    return brain, edge.astype(np.float32)


def _otsu(values: Array) -> float:
    """The cut that parts `values` into the two classes furthest apart."""
    counts, edges = np.histogram(values, 128)
    centres = (edges[:-1] + edges[1:]) / 2
    below, mean_below = np.cumsum(counts), np.cumsum(counts * centres)
    share = below[:-1] * (below[-1] - below[:-1])
    apart = (mean_below[-1] * below[:-1] / below[-1] - mean_below[:-1]) ** 2
    return float(centres[np.argmax(np.divide(apart, share, where=share > 0, out=0 * apart))])


def _ranks(signal: Array, brain: NDArray[np.bool_]) -> Array:
    """Each voxel's rank among the brain's, -0.5 to 0.5; equal values share one; 0 outside."""
    values = signal[brain]
    ordered = np.sort(values)
    rank = np.searchsorted(ordered, values) + np.searchsorted(ordered, values, side="right")
    out = np.zeros(signal.shape, np.float32)
    out[brain] = rank / (2 * values.size) - 0.5
    return out


def _blur(image: Array, mask: NDArray[np.bool_], sigma_mm: float) -> Array:
    """A Gaussian over the mask alone (normalised convolution, Knutsson and Westin 1993)."""
    sigma = sigma_mm / VOXEL_MM
    weight = ndimage.gaussian_filter(mask.astype(np.float32), sigma, mode="constant")
    total = ndimage.gaussian_filter(image * mask, sigma, mode="constant")
    return np.asarray(total / np.maximum(weight, 1e-3), np.float32)


def _starts(profile: Array) -> tuple[float, float]:
    """Where, in voxels from either end of an axis, `CAP_ML` of brain lie outside."""
    cap = CAP_ML * 1e3 / VOXEL_MM**3
    steps = np.arange(len(profile) + 1)
    low = np.interp(cap, np.concatenate([[0], np.cumsum(profile)]), steps)
    high = np.interp(cap, np.concatenate([[0], np.cumsum(profile[::-1])]), steps)
    return float(low) - 0.5, len(profile) - float(high) - 0.5


def _sample(band: Array, starts: list[tuple[float, float]], corner: int) -> Array:
    """The band at `POINTS` from one corner inwards; bit a of `corner`: axis a from its far end."""
    axes = []
    for axis, (low, high) in enumerate(starts):
        inwards = (np.arange(POINTS[axis]) * STEP_MM - START_MM) / VOXEL_MM
        axes.append(high - inwards if corner >> axis & 1 else low + inwards)
    grid = np.meshgrid(*axes, indexing="ij")
    found = ndimage.map_coordinates(band, grid, order=1, mode="constant")
    return np.asarray(found, np.float32).ravel()
