"""The source series of a segmentation: its headers in slice order and the grid they span."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import nibabel as nib
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import BytesLengthException, InvalidDicomError

from gliofed.errors import DataError

LPS_TO_RAS: Final = np.diag([-1.0, -1.0, 1.0, 1.0])
JITTER: Final = 0.1
"""How far a slice may lie from an even spacing, in parts of that spacing."""

DAMAGE: Final = (
    OSError, EOFError, ValueError, TypeError, AttributeError, LookupError, NotImplementedError,
    OverflowError, struct.error, BytesLengthException,
)  # fmt: skip
"""What pydicom and highdicom raise on bytes that are no sound DICOM."""

Shape = tuple[int, int, int]
Header = Any
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Slice:
    """One plane: an image of its own, or a frame of a multi-frame image (from 1; 0 where not).

    orientation: direction cosines of a row, then a column. position: of the first pixel, LPS mm.
    spacing: between rows, between columns, mm. thickness: mm, 0 where the source does not say.
    """

    header: Header
    frame: int
    orientation: tuple[float, ...]
    position: tuple[float, ...]
    spacing: tuple[float, ...]
    thickness: float


@dataclass(frozen=True)
class Series:
    """One MR series, headers without pixels.

    slices: in order along the normal of the images. shape: columns, rows, slices. affine:
    (column, row, slice) to RAS mm. gap: between slices, mm.
    """

    folder: Path
    slices: tuple[Slice, ...]
    shape: Shape
    affine: Array
    gap: float

    @property
    def images(self) -> tuple[Header, ...]:
        """Each image once, in slice order; a single one where it is multi-frame."""
        return tuple({id(s.header): s.header for s in self.slices}.values())


@dataclass(frozen=True)
class Fit:
    """How a grid lies on another one of the same voxels, whose axes are ordered otherwise.

    turn: nibabel's orientation, from the grid's axes to the other's. off_mm, off_voxels: the
    farthest that a corner lies from where the other grid has it; voxels along the worst axis.
    """

    turn: Array
    shape: Shape
    off_mm: float
    off_voxels: float


def read_series(folder: Path, choose: str = "") -> Series:
    """The series in `folder` and below it; the names and the order of files do not matter.

    choose: number or UID of the series, needed where the folder holds several MR series.
    Raises DataError: no such folder, no DICOM image or none of MR, several series, or a series
    with images of several orientations or sizes, several at one place, missing or uneven slices,
    or no geometry.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected the source series' DICOM files")
    with quiet():
        try:
            return _span(folder, _pick(folder, _by_series(folder), choose))
        except DAMAGE as error:
            raise DataError(
                f"{folder}: a header is damaged ({error}); copy the series again"
            ) from error


def fit(shape: Shape, affine: Array, other: Array) -> Fit:
    """The grid (shape, affine) seen along the axes of a grid with the affine `other`."""
    turn = nib.io_orientation(np.linalg.inv(other) @ affine)
    if np.isnan(turn).any():
        raise DataError("its affine is singular; set a valid sform or qform")
    x, y, z = (int(n) for n in np.array(shape)[np.argsort(turn[:, 0])])
    turned = affine @ nib.orientations.inv_ornt_aff(turn, shape)
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array([x, y, z]) - 1)
    corners = np.c_[corners, np.ones(8)].T
    off = (turned - other) @ corners
    voxels = np.linalg.inv(other) @ off
    return Fit(turn, (x, y, z), float(np.linalg.norm(off, axis=0).max()), float(abs(voxels).max()))


@contextmanager
def quiet() -> Iterator[None]:
    """Source files with values against the standard are common; pydicom warns of each."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module=r"pydicom|highdicom")
        yield


def _by_series(folder: Path) -> dict[str, dict[str, Header]]:
    """Series UID to SOP instance UID to header; a file that is there twice counts once."""
    found: dict[str, dict[str, Header]] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True)
        except InvalidDicomError:
            continue
        except DAMAGE as error:
            raise DataError(f"{path}: cannot be read as DICOM ({error}); copy it again") from None
        if "SOPInstanceUID" in header and "Rows" in header:
            own = found.setdefault(str(header.get("SeriesInstanceUID", "")), {})
            own[str(header.SOPInstanceUID)] = header
    if not found:
        raise DataError(f"{folder}: holds no DICOM image; give the source series' folder")
    return found


def _pick(folder: Path, found: dict[str, dict[str, Header]], choose: str) -> list[Header]:
    """The images of the one series that is meant."""
    lists = {uid: list(images.values()) for uid, images in found.items()}
    asked = {u: i for u, i in lists.items() if choose in (u, str(i[0].get("SeriesNumber", "")))}
    wanted = asked if choose else lists
    if not wanted:
        raise DataError(
            f"{folder}: holds no series {choose}; there: {'; '.join(map(_line, lists.values()))}"
        )
    left = [images for images in wanted.values() if images[0].get("Modality") == "MR"]
    if not left:
        raise DataError(
            f"{folder}: holds no MR series but {'; '.join(map(_line, wanted.values()))}; give the "
            "folder of the MR series that the mask was drawn on"
        )
    if len(left) > 1:
        raise DataError(
            f"{folder}: holds {len(left)} MR series: {'; '.join(map(_line, left))}; choose one by "
            "its number or UID, or give a folder with it alone"
        )
    return left[0]


def _line(images: list[Header]) -> str:
    first = images[0]
    number, name = first.get("SeriesNumber", "no number"), first.get("SeriesDescription", "")
    uid, modality = first.get("SeriesInstanceUID", "none"), first.get("Modality", "no modality")
    return f"{number} {name!r} ({modality}, {len(images)} images, UID {uid})"


def _span(folder: Path, images: list[Header]) -> Series:
    """Order the slices along their normal and check that they make one even stack."""
    where, first = f"{folder}: series {_line(images)}", images[0]
    frames = [int(i.get("NumberOfFrames") or 0) for i in images]
    if any(frames) and len(images) > 1:
        raise DataError(f"{where}: has several multi-frame images; give a folder with one of them")
    slices = [_slice(where, i, n) for i, f in zip(images, frames, strict=True)
              for n in (range(1, f + 1) if f else [0])]  # fmt: skip
    if len(slices) < 2:
        raise DataError(f"{where}: has one slice, expected at least two; copy the whole series")
    if not first.get("FrameOfReferenceUID"):
        raise DataError(f"{where}: has no FrameOfReferenceUID; export the series again")
    looks = np.array([(*s.orientation, *s.spacing) for s in slices])
    sizes = {(int(i.Columns), int(i.Rows)) for i in images}
    if np.ptp(looks, axis=0).max() > 1e-4 or len(sizes) > 1:
        raise DataError(f"{where}: its images differ in orientation, voxel or size; give a folder "
                        "with one volume")  # fmt: skip
    along, down = looks[0, :3], looks[0, 3:6]
    slices.sort(key=lambda s: float(np.dot(s.position, np.cross(along, down))))
    positions, count = np.array([s.position for s in slices]), len(slices)
    _check_even(where, positions @ np.cross(along, down))
    step = (positions[-1] - positions[0]) / (count - 1)
    stray = np.abs(positions - positions[0] - np.outer(np.arange(count), step)).max()
    lean = np.linalg.norm(np.cross(step, np.cross(along, down))) * (count - 1)
    if max(stray, lean) > looks[0, 6:].min() / 2:
        raise DataError(f"{where}: its slices are not stacked at a right angle; resample the "
                        "series, or keep to the NIfTI mask")  # fmt: skip
    lps = np.eye(4)
    lps[:3] = np.c_[along * looks[0, 7], down * looks[0, 6], step, positions[0]]
    columns, rows = sizes.pop()
    return Series(folder, tuple(slices), (columns, rows, count), LPS_TO_RAS @ lps,
                  float(np.linalg.norm(step)))  # fmt: skip


def _slice(where: str, image: Header, frame: int) -> Slice:
    def part(group: str) -> Header:
        """Where the attributes of a functional group stand for this frame."""
        if not frame:
            return image
        groups = image.get("PerFrameFunctionalGroupsSequence") or [pydicom.Dataset()] * frame
        shared = image.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()]
        held = next((g for g in (groups[frame - 1], shared[0]) if group in g), None)
        return pydicom.Dataset() if held is None else held[group].value[0]

    def values(group: str, name: str, count: int) -> tuple[float, ...]:
        try:
            found = tuple(float(v) for v in part(group).get(name) or ())
        except DAMAGE as error:
            raise DataError(f"{where}: {image.filename} is damaged ({name}: {error}); copy it "
                            "again") from None  # fmt: skip
        if len(found) != count or not np.isfinite(found).all():
            raise DataError(f"{where}: an image has no {name}; export the series again")
        return found

    spacing = values("PixelMeasuresSequence", "PixelSpacing", 2)
    return Slice(
        image, frame,
        values("PlaneOrientationSequence", "ImageOrientationPatient", 6),
        values("PlanePositionSequence", "ImagePositionPatient", 3),
        spacing, float(part("PixelMeasuresSequence").get("SliceThickness") or 0),
    )  # fmt: skip


def _check_even(where: str, depth: Array) -> None:
    gaps = np.diff(depth)
    usual = float(np.median(gaps))
    if gaps.min() < 1e-3:
        raise DataError(f"{where}: has several images at one place (echoes, repeats); give a "
                        "folder with one volume")  # fmt: skip
    missing = [int(n + 1) for n, g in enumerate(gaps) if g > 1.5 * usual]
    if missing:
        lost = sum(round(g / usual) - 1 for g in gaps if g > 1.5 * usual)
        raise DataError(f"{where}: {lost} slices are missing, first after slice {missing[0]} of "
                        f"{len(depth)}; copy the whole series")  # fmt: skip
    if np.abs(depth - np.linspace(depth[0], depth[-1], len(depth))).max() > JITTER * usual:
        raise DataError(f"{where}: its slices are unevenly spaced ({gaps.min():.2f} to "
                        f"{gaps.max():.2f} mm); give a series of even spacing")  # fmt: skip
