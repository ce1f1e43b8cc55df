"""The rule that every mask must meet, and the reader of masks that every command uses.

A mask holds labels: whole numbers from 0, of which some are above 0. Most of it lies in the brain.
An empty mask is a label only where its sidecar confirms it, as `gliofed correct --empty` writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from numpy.typing import NDArray

from gliofed.data.image_files import image_stem
from gliofed.errors import DataError
from gliofed.tables import read_json

if TYPE_CHECKING:  # the checking process imports NumPy alone
    from gliofed.data.nifti import Volume

MaskFaultCode = Literal[
    "SET-MASK-FRACTION", "SET-MASK-NEGATIVE", "SET-MASK-EMPTY", "SET-MASK-OUTSIDE"
]
FAULTS: Final[Mapping[MaskFaultCode, tuple[str, str]]] = {
    "SET-MASK-EMPTY": (
        "empty mask",
        "draw it, or remove the file; if there is no tumour, `gliofed correct --empty` confirms it",
    ),
    "SET-MASK-FRACTION": ("mask with fractional values", "resample by nearest neighbour"),
    "SET-MASK-NEGATIVE": ("mask with negative labels", "save the labels as published"),
    "SET-MASK-OUTSIDE": (
        "most of the mask lies outside the brain",
        "replace it by the right mask, with the affine of the image",
    ),
}
"""What is wrong, and the cure, by the code of `gliofed check`."""
CONFIRMED_EMPTY: Final = "ConfirmedEmpty"
"""Field of a mask's sidecar: true where its author confirmed that there is no tumour."""
MOST_OUTSIDE: Final = 0.5
"""Largest share of a mask outside the brain."""


@dataclass(frozen=True)
class MaskValues:
    """Statistics of a mask's voxels. fractions: voxels that are no whole number. positive: voxels
    above 0."""

    fractions: int
    lowest: float
    positive: int


@dataclass(frozen=True)
class MaskFault:
    """A mask that breaks the rule. text: the figures."""

    code: MaskFaultCode
    text: str

    def error(self, path: Path) -> DataError:
        """The error of a command that needs the mask."""
        title, cure = FAULTS[self.code]
        return DataError(f"{path}: {title} ({self.text}); {cure}")


def mask_value_fault(values: MaskValues, path: Path) -> MaskFault | None:
    """The first fault of a mask's values, without regard to its position."""
    if values.fractions:
        return MaskFault("SET-MASK-FRACTION", f"{values.fractions} voxels are not integers")
    if values.lowest < 0:
        return MaskFault("SET-MASK-NEGATIVE", f"the lowest label is {values.lowest:g}")
    if not values.positive and not _confirmed_empty(path):
        return MaskFault("SET-MASK-EMPTY", "every voxel is 0")
    return None


def share_outside(
    drawn: NDArray[np.bool_], to_brain: NDArray[np.float64], brain: NDArray[np.bool_]
) -> float:
    """Share of a mask's voxels whose centres lie outside the brain; 0 for an empty mask.

    drawn, brain: (X, Y, Z) of any two grids. to_brain: (4, 4), voxels of the first to those of the
    second.
    """
    at = np.argwhere(drawn)
    if not len(at):
        return 0.0
    nearest = np.rint(at @ to_brain[:3, :3].T + to_brain[:3, 3]).astype(np.int64)
    within = ((nearest >= 0) & (nearest < brain.shape)).all(axis=1)
    inside = brain[tuple(nearest[within].T)]
    return 1 - float(np.count_nonzero(inside)) / len(at)


def mask_position_fault(outside: float) -> MaskFault | None:
    """A fault where most of the mask lies outside the brain. outside: of `share_outside`."""
    if outside > MOST_OUTSIDE:
        return MaskFault("SET-MASK-OUTSIDE", f"{outside:.0%} of it")
    return None


def read_mask(path: Path, may_be_empty: bool = False) -> Volume:
    """Read a mask's labels, its axes closest to RAS.

    Raises DataError as `read_nifti`, and for values that break the rule; an empty mask passes
    where the caller, or its sidecar, allows one.
    """
    from gliofed.data.nifti import read_nifti

    volume = read_nifti(path)
    data = volume.data
    values = MaskValues(
        int(np.count_nonzero(data != np.rint(data))),
        float(data.min()),
        int(np.count_nonzero(data > 0)),
    )
    fault = mask_value_fault(values, path)
    if fault is not None and not (may_be_empty and fault.code == "SET-MASK-EMPTY"):
        raise fault.error(path)
    return volume


def _confirmed_empty(path: Path) -> bool:
    """By the sidecar; a sidecar that cannot be read confirms nothing."""
    try:
        sidecar = read_json(path.with_name(image_stem(path) + ".json"))
    except DataError:
        return False
    return sidecar.get(CONFIRMED_EMPTY) is True
