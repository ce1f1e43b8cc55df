"""Checks a tumour mask: its labels, and whether its position is plausible for a tumour."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from gliofed.data.masks import MaskValues, mask_position_fault, mask_value_fault, share_outside
from gliofed.validation.findings import FileFault
from gliofed.validation.resampling import reorient_to_ras, resample_onto, same_grid
from gliofed.validation.scan import CheckedScan

LABELS: Final = frozenset({0.0, 1.0, 2.0, 3.0, 4.0})
"""Labels of the usual conventions: {1, 2, 4} and {1, 2, 3} (BraTS), and 1 alone."""
MIN_MASK_VOXELS: Final = 10
_EDGE: Final = 0.1
_WHOLE: Final = 0.5
_DARK: Final = -0.5
_MIRROR: Final = -0.5


def check_mask_values(mask: CheckedScan) -> list[FileFault]:
    """Faults of the values of a mask, without regard to its position."""
    values = MaskValues(mask.fractions, mask.low, mask.positive)
    if fault := mask_value_fault(values, mask.path):
        return [FileFault(fault.code, fault.text)]
    if not mask.positive:
        return []
    faults = []
    unexpected = [v for v in mask.values or () if v not in LABELS]
    if mask.values is None or unexpected:
        text = "over 64 distinct labels" if mask.values is None else f"labels {_list(unexpected)}"
        faults.append(FileFault("SET-MASK-LABELS", text))
    elif {3.0, 4.0} <= set(mask.values):
        faults.append(FileFault("SET-MASK-CAVITY", f"labels {_list(mask.values)}"))
    if mask.positive < MIN_MASK_VOXELS:
        faults.append(FileFault("SET-MASK-SPECK", f"{mask.positive} voxels"))
    return faults


def check_mask_position(
    mask: CheckedScan,
    reference: CheckedScan,
    brain: NDArray[np.bool_],
    flair: NDArray[np.float32] | None,
    complete: bool,
) -> list[FileFault]:
    """Faults of the mask's position.

    brain, flair: on the grid of `reference`; mask and reference need an affine. complete:
    whether the image shows a complete brain, not a crop.
    """
    faults = []
    if not same_grid(mask, reference):
        text = f"shape {_shape(mask)}, the image {_shape(reference)}"
        faults.append(FileFault("SET-MASK-GRID", text))
    assert mask.affine is not None and reference.affine is not None  # noqa: PT018  (for mypy)
    outside = share_outside(mask.small > 0, np.linalg.inv(reference.affine) @ mask.affine, brain)
    if fault := mask_position_fault(outside):
        return [*faults, FileFault(fault.code, fault.text)]
    if outside > _EDGE:
        faults.append(FileFault("SET-MASK-EDGE", f"{outside:.0%} of it"))
    values, _ = resample_onto(mask, reference)
    drawn = values > 0
    inside = int(np.count_nonzero(drawn & brain))
    share = inside / max(1, int(brain.sum()))
    if complete and share > _WHOLE:
        return [*faults, FileFault("SET-MASK-WHOLE", f"{share:.0%} of the brain")]
    if flair is None or inside < MIN_MASK_VOXELS:
        return faults
    if (contrast := _contrast(flair, drawn & brain, brain)) < _DARK:
        faults.append(FileFault("SET-MASK-DARK", f"contrast {contrast:.2f} interquartile ranges"))
    elif complete:
        faults += _mirrors(flair, drawn & brain, brain, reference)
    return faults


def _contrast(
    flair: NDArray[np.float32], drawn: NDArray[np.bool_], brain: NDArray[np.bool_]
) -> float:
    """Mean inside less the brain's median, in interquartile ranges of the brain."""
    low, middle, high = np.percentile(flair[brain], [25, 50, 75])
    return float((flair[drawn].mean() - middle) / max(high - low, 1e-6))


def _mirrors(
    flair: NDArray[np.float32],
    drawn: NDArray[np.bool_],
    brain: NDArray[np.bool_],
    reference: CheckedScan,
) -> list[FileFault]:
    """A fault where FLAIR is brighter in the mask's mirror image about the middle of the brain."""
    assert reference.affine is not None
    image = reorient_to_ras(flair, reference.affine).astype(np.float64)
    mask, head = (reorient_to_ras(a, reference.affine).astype(bool) for a in (drawn, brain))
    low, high = np.percentile(image[head], [25, 75])
    faults = []
    for axis, name in enumerate(("left and right", "front and back", "top and bottom")):
        mirrored = _mirrored(mask, head, axis)
        mask_only, mirror_only = mask & ~mirrored, mirrored & head & ~mask
        if min(mirror_only.sum(), mask_only.sum()) < MIN_MASK_VOXELS:
            continue
        gain = float((image[mask_only].mean() - image[mirror_only].mean()) / max(high - low, 1e-6))
        if gain < _MIRROR:
            text = f"{name}: FLAIR is brighter in the mirror image by {-gain:.2f} IQR"
            faults.append(FileFault("SET-MASK-MIRROR", text))
    return faults


def _mirrored(mask: NDArray[np.bool_], head: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    """The mask on the other side of the middle of the head along one axis."""
    planes = np.flatnonzero(head.any(axis=tuple(a for a in range(3) if a != axis)))
    place = list(np.nonzero(mask))
    place[axis] = planes[0] + planes[-1] - place[axis]
    kept = (place[axis] >= 0) & (place[axis] < mask.shape[axis])
    out = np.zeros(mask.shape, bool)
    out[tuple(p[kept] for p in place)] = True
    return out


def _list(values: list[float] | tuple[float, ...]) -> str:
    return ", ".join(f"{v:g}" for v in values[:8])


def _shape(scan: CheckedScan) -> str:
    return " x ".join(map(str, scan.shape))
