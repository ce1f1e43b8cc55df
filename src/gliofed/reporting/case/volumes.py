"""The volumes embedded in the page of a case, on one grid, for the viewer."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine, voxel_sizes
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from numpy.typing import NDArray

from gliofed.errors import DataError
from gliofed.markers import BY_ID
from gliofed.reporting.case.content import OUTLINED, CaseContent, Occlusion
from gliofed.types import Sequence

ORDER: Final = (Sequence.FLAIR, Sequence.T2, Sequence.T1CE, Sequence.T1)
"""Order of display: the region is bright in T2 and FLAIR."""
WINDOW: Final = (0.5, 99.5)
"""Percentiles of the brain's intensities between which the grey scale runs."""
MOST_DEVIATION: Final = 0.5
"""Step of a coded number between 0 and 1."""
LEAST_DEVIATION: Final = 0.05
STEPS: Final = 40
"""Number of colour levels, small to limit the size of the file."""
LEAST_CHANGE: Final = 0.01
"""Step of a coded probability: the last digit on the page."""
LEAST_SHARE: Final = 0.1
"""Changes of a probability below this are not coloured."""
NIFTI_OFFSET: Final = 352
"""Bytes before the voxels of a NIfTI-1 file."""
LINE: Final = "#2196ff"
"""Colour of the segmentation: distinct from grey tissue and from `COLOURS`."""
COLOURS: Final[Mapping[str, tuple[str, ...]]] = {
    "deviation": ("#00402e", "#009e73", "#c9ffee"),
    "falls": ("#6b4a00", "#e69f00", "#ffe9b8"),
    "rises": ("#5a2a48", "#cc79a7", "#ffe3f2"),
}
"""Dark to light, by Okabe and Ito's colours."""

Kind = TypeVar("Kind", bound=np.generic)
Codes = NDArray[np.uint8]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class EmbeddedVolume:
    """A gzipped NIfTI of uint8 in base64. id: of its element. title: in the menu."""

    id: str
    title: str
    data: str


@dataclass(frozen=True)
class Overlay:
    """Colours over the images. group: heading in the menu. low, high: range of coloured values.
    colours: the name of a row of `COLOURS`; below: of another, for values below -low; empty without
    these. meaning, meaning_below: text for both."""

    group: str
    volume: EmbeddedVolume
    low: float
    high: float
    colours: str
    below: str
    meaning: str
    meaning_below: str


@dataclass(frozen=True)
class ViewerVolumes:
    """The contents of the viewer. outline: None for an empty segmentation. at: first voxel shown,
    shape: of the grid, both RAS."""

    images: tuple[EmbeddedVolume, ...]
    outline: EmbeddedVolume | None
    overlays: tuple[Overlay, ...]
    at: tuple[int, int, int]
    shape: tuple[int, int, int]


def in_ras(content: CaseContent) -> CaseContent:
    """The same case with its axes turned to the closest of right, anterior and superior.

    No voxel is interpolated. Raises DataError without an image, for an array with another shape
    than the probability or a value that is not finite, and for a singular affine.
    """
    _check(content)
    shape = content.probability.shape
    axes = io_orientation(content.affine)

    def turn(array: NDArray[Kind]) -> NDArray[Kind]:
        turned: NDArray[Kind] = apply_orientation(array, axes)
        return turned

    deviation = content.deviation
    return replace(
        content,
        images={s: turn(a) for s, a in content.images.items()},
        affine=content.affine @ inv_ornt_aff(axes, shape),
        probability=turn(content.probability),
        deviation=None if deviation is None else turn(deviation),
        occlusions=tuple(
            w if w.regions is None else replace(w, regions=turn(w.regions))
            for w in content.occlusions
        ),
    )


def _check(content: CaseContent) -> None:
    shape = content.probability.shape
    arrays = {
        **{s.value: a for s, a in content.images.items()},
        "the probability": content.probability,
        **({} if content.deviation is None else {"the deviation": content.deviation}),
        **{
            f"what {w.marker} rests on": w.regions
            for w in content.occlusions
            if w.regions is not None
        },
    }
    if not content.images:
        raise DataError(f"{content.case}: has no sequence to show")
    for name, array in arrays.items():
        if array.ndim != 3 or array.shape != shape or not np.isfinite(array).all():
            raise DataError(
                f"{content.case}: {name}, {array.shape}, must be 3D, finite and of the shape of "
                f"the probability, {shape}"
            )
    if not np.isfinite(content.affine).all() or abs(np.linalg.det(content.affine[:3, :3])) < 1e-6:
        raise DataError(f"{content.case}: its affine is singular or not finite")


def outline(content: CaseContent) -> Flags:
    """(X, Y, Z), true within the segmentation."""
    return content.probability >= OUTLINED


def brain(content: CaseContent) -> Flags:
    """(X, Y, Z), true where any sequence has a value."""
    there = np.zeros(content.probability.shape, bool)
    for image in content.images.values():
        there |= image != 0
    return there


def brain_regions(content: CaseContent, why: Occlusion) -> NDArray[np.float32] | None:
    """Fall of the probability when a region of the brain is occluded; 0 outside it.

    None without a map, or if no value reaches `LEAST_CHANGE`.
    """
    if why.regions is None:
        return None
    within = np.where(brain(content), why.regions, np.float32(0))
    return within if float(np.abs(within).max()) >= LEAST_CHANGE else None


def greys(image: NDArray[np.float32], inside: Flags) -> Codes:
    """0 outside the brain, 1 to 255 within it, linear between the percentiles of `WINDOW`."""
    low, high = np.percentile(image[inside], WINDOW) if inside.any() else (0.0, 1.0)
    scaled = np.clip((image - low) / max(float(high - low), 1e-6), 0, 1)
    return np.where(inside, 1 + np.rint(254 * scaled), 0).astype(np.uint8)


def viewer_volumes(content: CaseContent, at: tuple[int, int, int]) -> ViewerVolumes:
    """content: as `in_ras` gives it. Equal contents give equal text."""
    inside, drawn = brain(content), outline(content)
    x, y, z = content.probability.shape
    images = tuple(
        EmbeddedVolume(
            f"volume-{s.value}", s.value, _nifti(greys(content.images[s], inside), content)
        )
        for s in ORDER
        if s in content.images
    )
    mask = EmbeddedVolume("volume-outline", "Segmentation", _nifti(drawn.astype(np.uint8), content))
    overlays = (*_deviation(content), *_regions(content))
    return ViewerVolumes(images, mask if drawn.any() else None, overlays, at, (x, y, z))


def start_position(content: CaseContent, volumes_: ViewerVolumes) -> tuple[float, float, float]:
    """RAS mm of the viewer's first voxel."""
    x, y, z = apply_affine(content.affine, volumes_.at).tolist()
    return x, y, z


def _deviation(content: CaseContent) -> tuple[Overlay, ...]:
    if content.deviation is None:
        return ()
    codes = np.rint(255 * np.clip(content.deviation / MOST_DEVIATION, 0, 1)).astype(np.uint8)
    data = _nifti(codes, content, MOST_DEVIATION / 255)
    volume = EmbeddedVolume("volume-deviation", "Uncertainty", data)
    meaning = f"standard deviation of the probability of tumour over {content.passes}"
    shown = (LEAST_DEVIATION, MOST_DEVIATION, "deviation", "", meaning, "")
    return (Overlay("Segmentation", volume, *shown),)


def _regions(content: CaseContent) -> tuple[Overlay, ...]:
    """Overlays of each marker with a change above `LEAST_CHANGE`."""
    overlays = []
    for number, why in enumerate(content.occlusions):
        within = brain_regions(content, why)
        if within is None:
            continue
        most = float(np.abs(within).max())
        codes = (128 + np.rint(STEPS * within / most)).astype(np.uint8)
        title = BY_ID[why.marker].title
        data = _nifti(codes, content, most / STEPS, -128 * most / STEPS)
        volume = EmbeddedVolume(f"volume-why-{number}", f"{title}: {why.class_name}", data)
        meaning = f"of the probability of {why.class_name} ({title}) where a region is occluded"
        shown = (LEAST_SHARE * most, most, "falls", "rises", f"fall {meaning}", f"rise {meaning}")
        overlays.append(Overlay("Influence of regions (occlusion)", volume, *shown))
    return tuple(overlays)


def _nifti(codes: Codes, content: CaseContent, slope: float = 1.0, inter: float = 0.0) -> str:
    """value = slope x code + inter, as in the NIfTI header."""
    header = nib.Nifti1Header()
    header.set_data_shape(codes.shape)
    header.set_data_dtype(np.uint8)
    header.set_sform(content.affine, "mni" if content.space == "mni152" else "scanner")
    header.set_zooms(voxel_sizes(content.affine))
    header.set_xyzt_units("mm")
    header.set_slope_inter(slope, inter)
    header["vox_offset"] = NIFTI_OFFSET
    head = header.binaryblock.ljust(NIFTI_OFFSET, b"\0")
    return base64.b64encode(gzip.compress(head + codes.tobytes("F"), mtime=0)).decode("ascii")
