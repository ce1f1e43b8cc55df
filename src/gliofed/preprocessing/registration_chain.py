"""Registers a sequence through another one where it does not lie on the reference directly.

After a large movement between thick-sliced scans, mutual information has a better optimum in a
wrong place. Two scans of alike contrast and slices are still laid on each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gliofed.data.nifti import Volume
from gliofed.preprocessing.alignment import alignment, sampled_every
from gliofed.preprocessing.registration import register_rigid
from gliofed.preprocessing.resampling import Affine, Shape, resample, resample_mask
from gliofed.types import Sequence

POOR: Final = 1.6
"""An alignment below this is poor: the default limit of `[quality] alignment`."""


def register_through_others(
    reference: Volume,
    brain: NDArray[np.bool_],
    scans: Mapping[Sequence, Volume],
    to_scan: Mapping[Sequence, Affine],
) -> Mapping[Sequence, Affine]:
    """`to_scan`, with a better matrix for each scan of poor alignment, if there is one.

    brain: on the reference. scans, to_scan: the registered scans, and the matrices from RAS mm of
    the reference to theirs. Each poor scan is registered to each one that is not; the product is
    not refined on the reference, where the optimum is elsewhere.
    """
    measured = {s: _alignment(reference, brain, scans[s], to_scan[s]) for s in scans}
    out = dict(to_scan)
    for poor in (s for s, value in measured.items() if value < POOR):
        best = measured[poor]
        for through in (s for s, value in measured.items() if value >= POOR):
            inside = _on_scan(brain, reference, scans[through], to_scan[through])
            with suppress(ValueError):  # of scans that cannot be laid on each other
                between = register_rigid(scans[through], scans[poor], inside)
                found = between @ to_scan[through]
                value = _alignment(reference, brain, scans[poor], found)
                if value > best:
                    best, out[poor] = value, found
    return out


def _alignment(reference: Volume, brain: NDArray[np.bool_], scan: Volume, matrix: Affine) -> float:
    """The same as of the whole images; only the voxels that are read are resampled."""
    every = sampled_every(reference.affine)
    target = matrix @ reference.affine
    image = resample(scan.data, scan.affine, _shape(reference), target, every)
    x, y, z = (slice(None, None, step) for step in every)
    sampled = reference.affine @ np.diag([*every, 1.0])
    return alignment(reference.data[x, y, z], image, brain[x, y, z], sampled)


def _on_scan(
    brain: NDArray[np.bool_], reference: Volume, scan: Volume, matrix: Affine
) -> NDArray[np.bool_]:
    to_reference = np.linalg.inv(matrix) @ scan.affine
    return resample_mask(brain, reference.affine, _shape(scan), to_reference)


def _shape(volume: Volume) -> Shape:
    x, y, z = volume.data.shape
    return x, y, z
